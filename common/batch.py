"""What is left to learn of a batch, and which process learns it.

Any number of processes on any number of machines may learn one batch together: they
share its folder. Each takes the next repeat that is in no results file of the batch and
that no other process has claimed. So nothing depends on which processes are started
together, or on how many of them come to their end.
"""

import contextlib
import enum
import os
import random
import re
from collections.abc import Collection, Iterator, Mapping

from common import disk, results

# The names that batches give to their results files: each task of a Slurm array has one.
_NAME = re.compile(r"results(-[0-9]+)?\.jsonl")


class Batch:
    """Repeats of one setting, some of them learned already.

    A repeat is (seed, name of the control).
    """

    def __init__(
        self,
        filename: str | os.PathLike,
        script: str,
        flags: Mapping[str, object],
        may_differ: Collection[str],
        data: Mapping[str, object],
    ):
        """
        Args:
          filename: of the results file that this process appends to. If it is
            results.jsonl or results-NUMBER.jsonl, all such files of its folder are the
            batch's; else it alone.
          script, flags, may_differ, data: as for `results.batch`; a process that reads no
            data compares none.
        """  # fmt: skip
        self._filename = os.fspath(filename)
        self._folder, self._name = os.path.split(self._filename)
        self._is_shared = _NAME.fullmatch(self._name) is not None
        self._of_one_setting = script, flags, may_differ, data

    def files(self) -> list[str]:
        """The results files of the batch that there are."""
        names = [self._name]
        if self._is_shared and os.path.isdir(self._folder or os.curdir):
            names = filter(
                _NAME.fullmatch, sorted(os.listdir(self._folder or os.curdir))
            )
        paths = [os.path.join(self._folder, name) for name in names]
        return [path for path in paths if os.path.exists(path)]

    def learned(self) -> set[tuple[int, str]]:
        """The repeats that are in a results file.

        Raises:
          UserError: a file holds repeats of other settings, or something else.
          OSError: it cannot be read.
        """
        held = (results.batch(file, *self._of_one_setting) for file in self.files())
        return set().union(*held)

    def claim(self, repeats: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
        """Yields those of some repeats that this process is to learn.

        The caller appends each to the results file before it asks for the next one.

        Raises:
          UserError, OSError: as `learned`; or nothing can be written to the folder.
        """
        os.makedirs(os.path.join(self._folder, "claims"), exist_ok=True)
        open(self._filename, "ab").close()  # fails now, not after hours of learning
        learned, doubtful = self.learned(), []
        for repeat in repeats:
            if repeat in learned:
                continue
            with _claimed(self._claim_file(repeat)) as claim:
                if claim is _Claim.LEFT:
                    learned = self.learned()
                if claim is _Claim.UNKNOWN:
                    doubtful.append(repeat)
                elif claim is not _Claim.TAKEN and repeat not in learned:
                    yield repeat
        # Their processes may have died. If not, this one learns in vain what counts once,
        # in place of being idle.
        random.shuffle(doubtful)
        for repeat in doubtful:
            if repeat not in self.learned():
                yield repeat

    def _claim_file(self, repeat):
        """The file whose lock is the claim to a repeat."""
        seed, control = repeat
        batch = "" if self._is_shared else f"{self._name}_"
        return os.path.join(self._folder, "claims", f"{batch}{seed}_{control}")


class _Claim(enum.Enum):
    """What comes of claiming a repeat."""

    NEW = "it is claimed for the first time"
    LEFT = "it is claimed; a process that had claimed it before is at work no more"
    TAKEN = "another process learns it"
    UNKNOWN = "another process has claimed it, and may learn it or be dead"


@contextlib.contextmanager
def _claimed(path: str) -> Iterator[_Claim]:
    """Claims a repeat while the context lasts.

    The claim is a lock on a file, which ends with its process however that ends. The
    file stays, so that a later claim is known not to be the first. Where a file system
    has no locks, a repeat is claimed by whoever makes the file.

    Args:
      path: of the file of the repeat.

    Raises:
      OSError: the file can be neither made nor opened.
    """
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        is_new = True
    except FileExistsError:
        file, is_new = os.open(path, os.O_WRONLY), False
    try:
        yield _lock(file, is_new)
    finally:
        os.close(file)


def _lock(file: int, is_new: bool) -> _Claim:
    """Locks the file of a repeat until it is closed, unless it is locked already."""
    try:
        if not disk.lock(file, wait=False):
            return _Claim.NEW if is_new else _Claim.UNKNOWN
    except BlockingIOError:
        return _Claim.TAKEN
    return _Claim.NEW if is_new else _Claim.LEFT

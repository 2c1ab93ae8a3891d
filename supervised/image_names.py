"""Names of tasks of images_pathnet.py: what is learned from, which classes, which pixels.

mnist            a data set that is built in
mnist:0-4        its classes 0 to 4; mnist:1+3+5-7 has 1, 3, 5, 6 and 7
mnist~1          its pixels in another order, drawn from seed 1
photos/:0-4~1    of a folder or file, both
"""

import dataclasses
import os
import re

from common import folders

BUILT_IN = ("mnist", "cifar10", "svhn")
MOST_CLASSES = 256  # labels are bytes

_RANGE = r"[0-9]{1,3}(?:-[0-9]{1,3})?"
_NAME = re.compile(
    rf"(?P<source>.+?)(?::(?P<classes>{_RANGE}(?:\+{_RANGE})*))?(?:~(?P<seed>[0-9]{{1,9}}))?",
    re.ASCII | re.DOTALL,
)


@dataclasses.dataclass(frozen=True)
class ImageName:
    """What the name of a task says.

    Attributes:
      source: one of BUILT_IN, or the path of a file or folder.
      classes: labels of its classes, the first one of which gets label 0; None: all.
      seed: of the order of pixels; None: as they are.
    """

    source: str
    classes: tuple[int, ...] | None
    seed: int | None


def parse(name: str) -> ImageName:
    """What a task's name says. A slash at the end of a path is not part of its source.

    Raises:
      ValueError: a class is named twice, or less than two are, or none that there can be;
        or results could not be written of it.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise ValueError("is empty: name what is learned from")
    if not name.isprintable():
        raise ValueError("has characters that cannot be printed: rename the file")
    classes = None
    if found["classes"] is not None:
        classes = tuple(
            label for part in found["classes"].split("+") for label in _labels(part)
        )
        if len(classes) < 2 or len(set(classes)) < len(classes):
            raise ValueError("must name two different classes or more, each once")
    seed = None if found["seed"] is None else int(found["seed"])
    source = found["source"]
    return ImageName(source.rstrip("/") or source, classes, seed)


def is_name(name: str) -> bool:
    """Whether this can be the name of a task."""
    try:
        parse(name)
    except ValueError:
        return False
    return True


def absolute(name: str) -> str:
    """The same task, one for which `is_name` holds, as named in any other folder."""
    source = _NAME.fullmatch(name)["source"]
    if source in BUILT_IN:
        return name
    path, more = folders.absolute(os.path.expanduser(source)), name[len(source) :]
    # A slash keeps what the name of a folder ends with apart from what a task's name says.
    is_plain = not source.endswith("/") and parse(path + more).source == path
    return path + more if is_plain else f"{path}/{more}"


def _labels(part):
    """The labels of one part, such as 3 or 5-7."""
    first, _, last = part.partition("-")
    last = last or first
    if int(last) < int(first) or int(last) >= MOST_CLASSES:
        most = MOST_CLASSES - 1
        raise ValueError(
            f"cannot have classes {part}: write 0-{most} or a part of that"
        )
    return range(int(first), int(last) + 1)

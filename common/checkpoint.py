"""Facts and arrays on disk: a folder with about.json, arrays.npz and their checksums.

    about.json    what it is, for people as well: script, flags, tasks, generations
    arrays.npz    numpy arrays: parameters, paths
    SHA256SUMS    of both; `sha256sum --check SHA256SUMS` understands the format

A folder appears complete or not at all, and is never written to again. Reading one
executes nothing: JSON, and arrays of numbers. `write` and `read` deal with one such
folder, `save` and `load` with the newest ones that a run keeps in a folder of its own.
What the facts and arrays mean is up to whoever writes them; see `common.network` for
those of the supervised tasks.
"""

import hashlib
import json
import math
import os
import shutil
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np

from common import commandline, disk
from common.commandline import UserError
from common.require import require

FORMAT = "pathnet checkpoint"
VERSION = 1
FILES = ("about.json", "arrays.npz")
MAX_BYTES = 2**34  # of a file; more is no checkpoint of this project
PREFIX = "checkpoint-"
KEPT = 2  # checkpoints of a run: the newest, and one in case that it is damaged
NUMBERS = "biuf"  # numpy's kinds of real numbers

_NO_JSON_OBJECT = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
_REASON_CHARACTERS = 200

Folder = str | os.PathLike
Arrays = dict[str, np.ndarray]


# ---- One checkpoint ----


def write(folder: Folder, about: dict, arrays: Arrays) -> None:
    """Makes a checkpoint.

    Args:
      folder: a path that does not exist yet; its parents are made.
      about: what JSON can hold.
      arrays: numpy arrays of numbers, by name.

    Raises:
      UserError: the folder exists.
      OSError: it cannot be written; nothing is left behind then.
    """
    refuse_existing(folder)
    Path(folder).parent.mkdir(parents=True, exist_ok=True)
    _write(Path(folder), about, arrays)


def refuse_existing(folder: Folder) -> None:
    """Raises UserError if there is something at that path, but for an empty folder."""
    path = Path(folder)
    if path.is_dir() and not any(path.iterdir()):
        return
    if os.path.lexists(path):
        raise UserError(f"{folder}: exists and is not overwritten; name another folder")


def check_writable(folder: Folder) -> None:
    """Checks, before anything is learned, that `write` can make a checkpoint.

    Raises:
      UserError: there is something at that path, or nothing can be made there.
    """
    refuse_existing(folder)
    parent = Path(os.path.abspath(folder)).parent
    while not os.path.lexists(parent):
        parent = parent.parent
    if not (parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)):
        raise UserError(f"{folder}: cannot be made there; name another folder")


def read(folder: Folder) -> tuple[dict, Arrays]:
    """Reads a checkpoint.

    Returns:
      (about, arrays), as `write` was given them.

    Raises:
      UserError: no checkpoint, of another version, or damaged; names the file.
      OSError: a file cannot be read.
    """
    folder = Path(folder)
    if not (folder / "SHA256SUMS").is_file():
        raise UserError(f"{folder}: --save_dir or a run has saved nothing there")
    _check_sums(folder)
    return _read_about(folder / "about.json"), _read_arrays(folder / "arrays.npz")


def reason(error: Exception) -> str:
    """What an error says, to be part of a message of one line."""
    text = f"{error} is missing" if isinstance(error, KeyError) else str(error)
    return " ".join(text[:_REASON_CHARACTERS].split())


# ---- The checkpoints of a run ----


def save(folder: Folder, number: int, about: dict, arrays: Arrays) -> None:
    """Writes a checkpoint into a folder of them and removes all but the newest KEPT.

    Args:
      folder: of the checkpoints; made if it is not there, but not what it lies in: a run
        whose folder is deleted must not bring it back.
      number: the next one's; a later one if that would not be the newest.
      about: as of `write`.
      arrays: as of `write`.

    Raises:
      OSError: it cannot be written; earlier ones are as they were.
    """
    earlier = saved(folder)
    if earlier:
        number = max(number, int(earlier[-1].name.removeprefix(PREFIX)) + 1)
    Path(folder).mkdir(exist_ok=True)
    _write(Path(folder) / f"{PREFIX}{number:012d}", about, arrays)
    for old in saved(folder)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def load(folder: Folder) -> tuple[dict, Arrays] | None:
    """Reads the newest sound checkpoint in a folder.

    A damaged one is passed over, with a line on stderr.

    Returns:
      (about, arrays), as `save` was given them, or None if there is no checkpoint.

    Raises:
      UserError: there are some, and all are damaged.
      OSError: a file cannot be read.
    """
    error = None
    for path in reversed(saved(folder)):
        try:
            return read(path)
        except UserError as damaged:
            error = damaged
            commandline.say(f"{damaged}; trying the one before")
    if error:
        raise error
    return None


def saved(folder: Folder) -> list[Path]:
    """Paths of the checkpoints in a folder, oldest first."""
    return sorted(Path(folder).glob(f"{PREFIX}{'[0-9]' * 12}"))


def discard(folder: Folder) -> None:
    """Removes a folder of checkpoints that nobody needs any more, all at once."""
    hidden = _hidden(Path(folder))
    os.rename(folder, hidden)
    shutil.rmtree(hidden, ignore_errors=True)


# ---- Files ----


def _write(target: Path, about: dict, arrays: Arrays) -> None:
    """Makes a checkpoint in a folder that exists; raises what `write` does."""
    partial = _hidden(target)
    partial.mkdir()
    try:
        content = {"format": FORMAT, "version": VERSION, **about}
        (partial / "about.json").write_text(json.dumps(content, indent=1) + "\n")
        np.savez(partial / "arrays.npz", **arrays)
        sums = [f"{_sha256(partial / name)}  {name}\n" for name in FILES]
        (partial / "SHA256SUMS").write_text("".join(sums))
        for name in (*FILES, "SHA256SUMS"):
            with open(partial / name, "rb") as file:
                disk.sync(file.fileno())
        disk.sync_names(partial)
        os.rename(partial, target)
        disk.sync_names(target.parent)
    except OSError as error:
        refuse_existing(target)  # somebody else made it meanwhile
        raise OSError(error.errno, error.strerror, str(target)) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check_sums(folder: Path) -> None:
    """Raises UserError unless both files are there, with the checksums stored beside."""
    listed = folder / "SHA256SUMS"
    try:
        lines = listed.read_text()[:1000].splitlines()
        sums = {name: digest for digest, name in (line.split() for line in lines)}
    except ValueError as error:
        raise _damaged(listed) from error
    for name in FILES:
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path}: no such file; copy the whole folder again")
        if path.stat().st_size > MAX_BYTES or _sha256(path) != sums.get(name):
            raise _damaged(path)


def _read_about(path: Path) -> dict:
    try:
        about = json.loads(path.read_text())
        kind, version = about.pop("format"), about.pop("version")
    except _NO_JSON_OBJECT as error:
        raise UserError(
            f"{path}: was not made by this project: {reason(error)}"
        ) from error
    if (kind, version) != (FORMAT, VERSION):
        raise UserError(
            f"{path}: is a {kind!s:.40} of version {version!s:.40}, and this program "
            f"reads a {FORMAT} of version {VERSION}"
        )
    return about


def _read_arrays(path: Path) -> Arrays:
    try:
        # A warning is for whoever wrote the file, such as that Python 2 did.
        with warnings.catch_warnings(action="error"):
            _check_sizes(path)
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
    except Exception as error:  # zipfile and numpy promise no narrower class
        raise UserError(
            f"{path}: was not made by this project: {reason(error)}"
        ) from error


def _check_sizes(path: Path) -> None:
    """Refuses what is no array of numbers, or is larger than what is stored of it."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            require(member.compress_type == zipfile.ZIP_STORED, "it is compressed")
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                require(version == (1, 0), "an array is of a format not written here")
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            require(dtype.kind in NUMBERS, "an array is not made of numbers")
            # A product with a zero in it says nothing of the other sizes.
            require(max(shape, default=0) <= MAX_BYTES, "an array is too large")
            size = math.prod(shape) * dtype.itemsize
            require(size <= member.file_size, "an array is larger than its file")


def _damaged(path: Path) -> UserError:
    return UserError(
        f"{path}: damaged: its checksum does not match; copy the folder again"
    )


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hidden(path: Path) -> Path:
    """A path next to another that no process has used, not even one with the same id."""
    return path.with_name(f".{path.name}.{os.getpid()}-{time.time_ns()}.tmp")

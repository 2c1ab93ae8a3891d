"""The folder of a run: one of its own, whatever else is there."""

import contextlib
import itertools
import os
import re
from collections.abc import Sequence

from common import disk
from common.commandline import UserError

MOST_BYTES = (
    150  # of the names of tasks in a folder's name; file systems allow 255 in all
)


def joined(names: Sequence[str]) -> str:
    """Names of tasks as part of a folder's name, which file systems limit in length."""
    text = "_".join(names).encode()
    if len(text) <= MOST_BYTES:
        return text.decode()
    first = names[:4]
    kept = "_".join(first).encode()[:MOST_BYTES].decode(errors="ignore")
    more = len(names) - len(first)
    return kept + (f"_and_{more}_more" if more else "")


def last_part(task: str) -> str:
    """The last part of a task's name, maybe a path: photos:0-4 of /a/photos/:0-4."""
    head, _, tail = task.rpartition("/")
    is_of_the_folder = head and tail[:1] in ("", ":", "~")
    return os.path.basename(head) + tail if is_of_the_folder else tail


def named(task: str) -> str:
    """The name of a task, maybe a path, as a folder's name or a part of one."""
    return re.sub(r"[^\w.,+=~-]", "_", last_part(task))


def absolute(path: str) -> str:
    """The same file or folder as a process names it that stands elsewhere."""
    # What lies above a link is known to the file system alone.
    is_plain = os.pardir not in path.split(os.sep)
    return os.path.abspath(path) if is_plain else os.path.realpath(path)


def new(log_dir: str, name: str) -> str:
    """Makes a folder that did not exist before: log_dir/name, else name-2, name-3 ...

    Raises:
      OSError: it cannot be made; names the folder.
    """
    os.makedirs(log_dir, exist_ok=True)
    for number in itertools.count(1):
        folder = os.path.join(log_dir, name if number == 1 else f"{name}-{number}")
        try:
            os.mkdir(folder)
            return folder
        except FileExistsError:
            continue


def below(folder: str, *names: str) -> str:
    """Makes folders within each other in one that is there, as far as they are not yet.

    Of a run's folder that was deleted meanwhile, nothing comes back in this way.

    Returns:
      The path of the innermost one.

    Raises:
      OSError: they cannot be made, or `folder` is gone; names the folder.
    """
    for name in names:
        folder = os.path.join(folder, name)
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder)
    return folder


def occupy(folder: str) -> None:
    """Makes sure that no other process goes on with the run of a folder.

    Lasts until this process ends, however it does. On a file system without locks
    users have to take care.

    Raises:
      UserError: another one does. OSError: there is no such folder.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        disk.lock(descriptor, wait=False)
    except BlockingIOError as error:
        raise UserError(f"{folder}: its run is still active") from error

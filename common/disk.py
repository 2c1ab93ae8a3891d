"""What not every file system can do: locks, and waiting until data are on the disk.

Network and FUSE file systems answer such calls with one error or another. A result must
not be lost for that, so their users do without.
"""

import contextlib
import errno
import fcntl
import os
from pathlib import Path
from typing import IO

# What fsync says of a file, or a folder, that has nothing to wait for.
_NO_SYNC = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EROFS)


def lock(file: IO | int, wait: bool = True, shared: bool = False) -> bool:
    """Locks an open file, or a descriptor, until it is closed or this process ends.

    Args:
      file: what is locked, against other processes that call this.
      wait: whether to wait for another process that holds the lock.
      shared: whether others may hold it as well, who only read, too.

    Returns:
      Whether there is a lock; the file system may have none.

    Raises:
      BlockingIOError: another process holds the lock, and `wait` is false.
    """
    try:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def sync(descriptor: int) -> None:
    """Waits until an open file has reached the disk, as far as its file system does so.

    Raises:
      OSError: it cannot, such as that the disk is full.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def sync_names(folder: str | os.PathLike) -> None:
    """Waits until the names in a folder have reached the disk, where that is possible."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_atomically(filename: str | os.PathLike, data: bytes) -> None:
    """Puts the whole of `data` in the file, or raises OSError and changes nothing."""
    target = Path(filename)
    # In the same folder, as a rename is atomic only within one file system.
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, target)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from error
    finally:
        # What keeps it from being written may keep it from being removed, too.
        with contextlib.suppress(OSError):
            temporary.unlink()

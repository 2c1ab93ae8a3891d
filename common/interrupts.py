"""Ctrl-C at any moment: one line, "interrupted", and exit status 130.

The scripts import this before anything else, by way of `common.commandline`. While they
import the rest, and after their work is done, Ctrl-C ends the process on the spot: an
exception may be swallowed in the middle of an import, or become another one. During the
work it is a KeyboardInterrupt, so that whatever has something to tidy up can do so.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

STATUS = 130  # of a process that Ctrl-C has ended, as shells have it

_PROJECT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))


def exit_at_once() -> None:
    """Makes Ctrl-C end the process on the spot."""
    _handle(_exit)


def raise_exceptions() -> None:
    """Makes Ctrl-C a KeyboardInterrupt."""
    _handle(signal.default_int_handler)


@contextlib.contextmanager
def exiting_at_once() -> Iterator[None]:
    """Within it Ctrl-C ends the process on the spot, as while something is imported."""
    if (
        signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        or threading.current_thread() is not threading.main_thread()
    ):
        yield
        return
    exit_at_once()
    try:
        yield
    finally:
        raise_exceptions()


def _handle(handler) -> None:
    """Sets a handler, unless Ctrl-C is ignored or the script has a handler of its own."""
    if signal.getsignal(signal.SIGINT) in (_exit, signal.default_int_handler):
        signal.signal(signal.SIGINT, handler)


def _exit(number: int, frame: FrameType | None) -> None:
    with contextlib.suppress(Exception):  # what is printed right now cannot be flushed
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        os.write(2, f"{os.path.basename(sys.argv[0])}: interrupted\n".encode())
    os._exit(STATUS)


def is_script() -> bool:
    """Whether this process runs a script of the project, and not one that imports it."""
    file = getattr(sys.modules["__main__"], "__file__", None) or ""
    return os.path.dirname(os.path.realpath(file)) == _PROJECT


if is_script():
    exit_at_once()

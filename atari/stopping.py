"""Signals that ask a process to stop, as a flag that its loops look at.

A handler that raises an exception is heard wherever Python happens to be, and lost where
nothing is passed on: in a function that is called at a fork or as an object is deleted.
So the handlers here note the signal down, and do nothing else.
"""

import signal
import time

STOP_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
_SLICE = 0.1  # seconds, the longest that a sleeping process takes to notice


class Stopping:
    """Whether this process has been asked to stop, once `listen` was called.

    Attributes:
      asked: the first signal that asked for it; None before.
    """

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self._before = {}

    def listen(self) -> None:
        """Notes down signals from now on, but for those that this process ignores.

        `nohup` has SIGHUP ignored, and a shell Ctrl-C in what it runs in the background.
        """
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before = signal.signal(number, self._note)
                self._before.setdefault(number, before)

    def unlisten(self) -> None:
        """Leaves signals to whoever dealt with them before `listen`."""
        while self._before:
            signal.signal(*self._before.popitem())

    def sleep(self, seconds: float) -> None:
        """Sleeps, but not on once it is asked to stop."""
        end = time.monotonic() + seconds
        while self.asked is None and (left := end - time.monotonic()) > 0:
            time.sleep(min(_SLICE, left))

    def _note(self, number, _):
        self.asked = self.asked or signal.Signals(number)

"""Ctrl-C while a script still imports what it needs: one line, as in all that follows.

A script imports this module first. It takes no time, and what comes after it may take
seconds. From there on, `commandline.run` says the same and ends what is going on.
"""

import os
import sys

STATUS = 130  # of a command that Ctrl-C has ended, as shells have it


def _hook(kind, error, traceback):
    """As sys.excepthook, but one line for Ctrl-C."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
        return
    print(f"{os.path.basename(sys.argv[0])}: interrupted", file=sys.stderr, flush=True)
    sys.exit(STATUS)


sys.excepthook = _hook

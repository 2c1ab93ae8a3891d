"""Checkpoints of a run that goes on, in the run's folder until it is finished."""

import os
import time

from common import checkpoint, folders, network
from common.commandline import UserError

FOLDER = "checkpoints"  # in the folder of a run


class Checkpoints:
    """The newest checkpoints of one run."""

    def __init__(self, run_folder: str, seconds: float):
        """
        Args:
          run_folder: folder of the run.
          seconds: between two checkpoints; the first one is due at once, so that a kill
            at any moment finds one.
        """
        self._folder = os.path.join(run_folder, FOLDER)
        self._seconds = seconds
        self._due = time.monotonic()

    def are_due(self) -> bool:
        return time.monotonic() >= self._due

    def save(self, state: network.State) -> None:
        """Writes one more and removes all but the newest.

        Raises:
          OSError: it cannot be written, or the folder of the run was deleted.
        """
        network.save_state(self._folder, state)
        self._due = time.monotonic() + self._seconds

    def discard(self) -> None:
        """Removes all of them: the run is finished."""
        checkpoint.discard(self._folder)


class NoCheckpoints:
    """Of runs that are not resumed: their finished repeats are in results.jsonl."""

    def are_due(self) -> bool:
        return False

    def discard(self) -> None:
        pass


def load(run_folder: str) -> network.State:
    """The State of the newest sound checkpoint of an interrupted run.

    This process goes on with the run from now on: no other one may.

    Raises:
      UserError: there is none, or another process goes on with the run.
      OSError: a file cannot be read.
    """
    folders.occupy(run_folder)
    state = network.load_state(os.path.join(run_folder, FOLDER))
    if state is not None:
        return state
    if os.path.exists(os.path.join(run_folder, "results.jsonl")):
        raise UserError(
            f"flag --resume={run_folder}: nothing to go on with, results.jsonl in there "
            "has the results"
        )
    raise UserError(
        f"flag --resume={run_folder}: holds no checkpoint of a single repeat; start the "
        "run again"
    )

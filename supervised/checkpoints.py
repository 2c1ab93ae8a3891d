"""Checkpoints of a run that goes on, in the run's folder until it is finished."""

import json
import os
import signal
import sys
import time
import uuid

from common import checkpoint, disk, folders, network, shell
from common.commandline import UserError

FOLDER = "checkpoints"  # in the folder of a run
RUN_FILE = "run.json"  # beside it: which run that is


class Checkpoints:
    """The newest checkpoints of one run."""

    def __init__(self, run_folder: str, seconds: float):
        """
        Args:
          run_folder: folder of the run.
          seconds: between two checkpoints of a task.
        """
        self._run_folder = run_folder
        self._folder = os.path.join(run_folder, FOLDER)
        self._seconds = seconds
        self._is_asked_to_stop = False
        self.run = _run_of(run_folder)

    def begin_task(self) -> None:
        """Makes one due at once: what was learned before is safe, and a kill finds one."""
        self._due = time.monotonic()

    def are_due(self) -> bool:
        return self._is_asked_to_stop or time.monotonic() >= self._due

    def stop_if_asked(self) -> None:
        """Ends the process once Ctrl-C has asked for it, after a checkpoint was saved.

        Raises:
          KeyboardInterrupt: with the command that goes on with the run.
        """
        if self._is_asked_to_stop:
            command = shell.python(sys.argv[0], f"--resume={self._run_folder}")
            raise KeyboardInterrupt(f"interrupted; go on with: {command}")

    def __enter__(self) -> "Checkpoints":
        """Lets Ctrl-C wait for the end of a generation; a second one does not wait."""
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._ask_to_stop)
        return self

    def __exit__(self, *_) -> None:
        if signal.getsignal(signal.SIGINT) == self._ask_to_stop:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _ask_to_stop(self, *_):
        self._is_asked_to_stop = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

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

    run = ""

    def __enter__(self) -> "NoCheckpoints":
        return self

    def __exit__(self, *_) -> None:
        pass

    def begin_task(self) -> None:
        pass

    def are_due(self) -> bool:
        return False

    def stop_if_asked(self) -> None:
        pass

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
    if state is not None and state.run != _run_of(run_folder):
        raise UserError(
            f"flag --resume={run_folder}: its checkpoints are those of another run, as "
            f"{RUN_FILE} says; copy its own {FOLDER} folder back"
        )
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


def mark(run_folder: str, script: str, flags: dict) -> None:
    """Writes what a new run is into its folder, with a name that no other run has.

    Raises:
      OSError: it cannot be written.
    """
    about = {"run": uuid.uuid4().hex, "script": script, "flags": flags}
    text = json.dumps(about, indent=1)
    disk.write_atomically(os.path.join(run_folder, RUN_FILE), text.encode())


def _run_of(run_folder):
    """The name of the run that a folder is of; "" if it is of an earlier version."""
    path = os.path.join(run_folder, RUN_FILE)
    try:
        with open(path, encoding="utf-8") as file:
            return str(json.load(file)["run"])
    except FileNotFoundError:
        return ""
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: damaged; copy the folder of the run again") from error

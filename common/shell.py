"""Commands that a user can paste into the shell where they stand."""

import os
import shlex
import shutil
import sys


def python(script: str, *flags: str) -> str:
    """The command that runs a script with the Python that runs now."""
    return _join(_shortest(sys.executable), script, *flags)


def tensorboard(folder: str) -> str:
    """The command that shows a folder in TensorBoard."""
    program = os.path.join(os.path.dirname(sys.executable), "tensorboard")
    if not os.path.exists(program):
        program = "tensorboard"
    return _join(_shortest(program), f"--logdir={folder}")


def _join(*words: str) -> str:
    return " ".join(map(shlex.quote, words))


def _shortest(program: str) -> str:
    """A program by its name if that finds it, else below the current folder, else in full."""
    name = os.path.basename(program)
    if shutil.which(name) == program:
        return name
    path = os.path.relpath(program)
    return program if path.startswith("..") else path

"""Results files, a repeat a line: appending to them and reading them.

Tables and pictures of what they hold are made in reports/.
"""

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Collection, Iterable, Mapping

from common.commandline import UserError
from common.require import require


def append(filename: str | os.PathLike, result: object) -> int:
    """Appends one object to a results file: the whole line or none of it.

    Safe against other processes that append to the same file, and against a full disk.

    Args:
      filename: of the results file; it need not exist yet.
      result: what becomes the line, as JSON.

    Returns:
      How many lines the file has now.

    Raises:
      TypeError: the result cannot be written as JSON.
      OSError: the line could not be written; the file is as it was.
    """
    line = (json.dumps(result) + "\n").encode()
    with open(filename, "ab+", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        size = os.fstat(file.fileno()).st_size
        try:
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
        except OSError as error:
            os.ftruncate(file.fileno(), size)
            raise OSError(error.errno, error.strerror, filename) from error
        file.seek(0)
        chunks = iter(lambda: file.read(2**20), b"")
        return sum(chunk.count(b"\n") for chunk in chunks)


def read(filenames: Iterable[str | os.PathLike]) -> list[dict]:
    """Reads results files.

    A line that was there before, as in a file named twice or a copy of it, is the same
    repeat and counts once.

    Returns:
      The repeats as the scripts write them, in the order of files and lines.

    Raises:
      UserError: a line is not such an object; names file, line and reason.
      OSError: a file cannot be read.
    """
    results, seen = [], set()
    for filename in filenames:
        with open(filename, encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                line = line.strip()
                if line in seen:
                    continue
                seen.add(line)
                try:
                    results.append(_parse(line))
                except ValueError as error:
                    raise UserError(
                        f"{filename}, line {number}: not a result of this project's "
                        f"scripts ({error}); remove the line or name another file"
                    ) from error
    return results


def batch(
    filename: str | os.PathLike,
    script: str,
    flags: Mapping[str, object],
    may_differ: Collection[str],
) -> set[tuple[int, str]]:
    """Which repeats of a batch are in its results file already.

    Args:
      filename: of the results file; it need not exist yet.
      script: the name of the script that runs, as in "script" of a result.
      flags: the values of its flags, by name.
      may_differ: names of the flags in which the repeats of one batch may differ.

    Returns:
      The seed and the control of each repeat.

    Raises:
      UserError: the file holds repeats of other settings, or something else.
      OSError: it cannot be read.
    """
    try:
        with open(filename, "rb") as file:
            # Or the last line might be one that another process is writing.
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_SH)
            repeats = read([filename])
    except FileNotFoundError:
        return set()
    compared = {name: flags[name] for name in flags if name not in may_differ}
    for result in repeats:
        differences = _differences(result, script, compared)
        if differences:
            raise UserError(
                f"flag --results={filename}: holds repeats of other settings "
                f"({' '.join(differences)}); name another file"
            )
        if (
            type(result.get("seed")) is not int
            or type(result.get("control")) is not str
        ):
            raise UserError(
                f"{filename}: holds something that is no repeat of a batch; name another "
                "file"
            )
    return {(result["seed"], result["control"]) for result in repeats}


def _differences(result: dict, script: str, flags: Mapping[str, object]) -> list[str]:
    """What sets the result's settings apart, as the user would type it."""
    if result.get("script") != script:
        return [f"{result.get('script')}_pathnet.py"]
    theirs = result["flags"]
    return [
        f"--{name}={theirs.get(name)}"
        for name, value in flags.items()
        if theirs.get(name) != value
    ]


def _parse(line: str) -> dict:
    """The result in a line; raises ValueError with the reason if it holds none."""
    try:
        result = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError("it is not JSON, or too large") from error
    require(isinstance(result, dict), "it is not a JSON object")
    require(isinstance(result.get("flags"), dict), 'it has no object "flags"')
    require(isinstance(result.get("tasks"), list), 'it has no list "tasks"')
    check_outcome = _check_accuracies
    if result.get("script") == "atari":
        require("seed" in result, 'it has no "seed"')
        check_outcome = _check_game
    for place, task in enumerate(result["tasks"], 1):
        try:
            _check_task(task)
            check_outcome(task)
        except ValueError as error:
            raise ValueError(f"task {place}: {error}") from error
    return result


def _check_task(task: object) -> None:
    """Raises ValueError unless it has what every task has."""
    require(isinstance(task, dict), "it is not a JSON object")
    name = task.get("name")
    # Half of a surrogate pair, which JSON can hold, could not be printed.
    require(isinstance(name, str) and name.isprintable(), 'it has no printable "name"')
    require(_is_number(task.get("generations")), '"generations" is not a number')


def _check_accuracies(task: dict) -> None:
    """Raises ValueError unless it has what a supervised task has."""
    for name in ("fitness", "accuracy_test"):
        require(_is_number(task.get(name)), f'"{name}" is not a number')


def _check_game(task: dict) -> None:
    """Raises ValueError unless it has what a game has."""
    require(_is_whole(task.get("steps")), '"steps" is not a whole number')
    require(_is_number(task.get("score")), '"score" is not a number')
    curve = task.get("curve")
    require(isinstance(curve, dict), 'it has no object "curve"')
    columns = [curve.get(name) for name in ("steps", "return", "episodes")]
    require(
        all(isinstance(column, list) for column in columns)
        and len({len(column) for column in columns}) == 1,
        '"curve" has no lists "steps", "return" and "episodes" of one length',
    )
    steps, returns, episodes = columns
    require(
        all(map(_is_whole, steps + episodes)) and all(map(_is_number, returns)),
        '"curve" holds something that is not a number',
    )


def _is_number(value: object) -> bool:
    return isinstance(value, float) or _is_whole(value)


def _is_whole(value: object) -> bool:
    """Whether it is an integer that a float holds exactly, as all that is counted."""
    return type(value) is int and abs(value) <= 2**53

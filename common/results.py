"""Results files, a repeat a line: appending to them and reading them.

Tables and pictures of what they hold are made in reports/.
"""

import errno
import json
import os
from collections.abc import Collection, Iterable, Mapping

from common import commandline, disk, schema
from common.commandline import UserError
from common.require import require

# ---- What a result must be; fields that are not named here may hold anything ----

SHARE = schema.number(0, 1)
_COUNT = schema.whole(0)
# Those of a grid; larger ones fit into no memory.
SIZES = {
    "L": schema.whole(1, 1_000),
    "M": schema.whole(1, 100_000),
    "N": schema.whole(1, 1_000),
}

# A curve of fitness over generations.
CURVE = schema.columns({"generation": schema.whole(1), "fitness": SHARE})

# A supervised task that was learned: in every result, in those of today, and in those
# of finished repeats.
LEARNED = {
    "name": schema.text,
    "generations": schema.whole(1),
    "fitness": SHARE,
    "accuracy_test": SHARE,
}
DETAILS = {
    "converged": schema.boolean,
    "path": schema.list_of(schema.list_of(_COUNT)),
    "seconds": schema.number(0),
    "curve": CURVE,
}
LATER_DETAILS = {
    "accuracy_train": schema.nullable(SHARE),
    "accuracy_test_after_all": SHARE,
    "modules_so_far": _COUNT,
    "selected_by": schema.text,
}
_TASK = schema.record(LEARNED, DETAILS | LATER_DETAILS)

# No score where no episode has ended.
_GAME = schema.record(
    {
        "name": schema.text,
        "generations": _COUNT,
        "steps": _COUNT,
        "score": schema.nullable(schema.number()),
        "curve": schema.columns(
            {"steps": _COUNT, "return": schema.number(), "episodes": _COUNT}
        ),
    },
    {"path": DETAILS["path"]},
)


def _check_flags(value: object, place: str) -> None:
    schema.flag_values(value, place)
    schema.record({}, SIZES)(value, place)


_SEED = schema.nullable(_COUNT)
_FIELDS = {
    "script": schema.text,
    "control": schema.text,
    "data": schema.by_name(schema.text),
    "overlap": schema.nullable(schema.whole(0, 100_000)),
    "retention": schema.list_of(schema.list_of(SHARE)),
    "average_accuracy": schema.nullable(SHARE),
    "backward_transfer": schema.nullable(schema.number(-1, 1)),
    "seconds": schema.number(0),
}
_RESULT = schema.record(
    {"flags": _check_flags, "tasks": schema.list_of(_TASK)}, _FIELDS | {"seed": _SEED}
)
_RESULT_OF_GAMES = schema.record(
    {"flags": _check_flags, "tasks": schema.list_of(_GAME), "seed": _COUNT}, _FIELDS
)


# ---- Flags that files of earlier versions do not name ----

_OF_BOTH = {
    "mutation_rate": None,
    "paths": "genes",
    "draw_with_replacement": False,
    "select_by": "train",
    "mini_batches": "random",
    "fixed_path_random": False,
    "frozen_share": 1.0,
    "train_images": "all",
}
# Script -> its flags that were added after results were first published, each with the
# value for what the script did before.
_LATER_FLAGS = {
    "binary_mnist": _OF_BOTH | {"noise_share": "0.5"},
    "cifar_svhn": _OF_BOTH,
    "images": {"frozen_share": 1.0},
}


def all_flags(script: object, flags: Mapping[str, object]) -> dict:
    """The flags that a file holds, with those that its version did not have.

    Args:
      script: the name in the file. flags: the values in the file, by name.

    Returns:
      The same, and for each flag that was added later the value that means what was
      done without it.
    """
    later = _LATER_FLAGS.get(script, {}) if isinstance(script, str) else {}
    return dict(flags) | {k: v for k, v in later.items() if k not in flags}


# ---- Results files ----


def append(filename: str | os.PathLike, result: object) -> int:
    """Appends one object to a results file: the whole line or none of it.

    Safe against other processes that append to the same file, and against a full disk,
    where the file system has locks; where it has none, the line is appended all the
    same. A last line that was not ended, by hand or by a writer that was killed, stays a
    line of its own.

    Args:
      filename: of the results file; it need not exist yet.
      result: what becomes the line, as JSON.

    Returns:
      How many lines the file has now.

    Raises:
      TypeError: the result cannot be written as JSON.
      OSError: the line could not be written; the file is as it was, or, without locks,
        ends with an unfinished line.
    """
    line = (json.dumps(result) + "\n").encode()
    with open(filename, "ab+", buffering=0) as file:
        is_locked = disk.lock(file)
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else b"\n" + line
        try:
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            disk.sync(file.fileno())
        except OSError as error:
            if is_locked:  # or it could be somebody else's line that is cut off
                os.ftruncate(file.fileno(), size)
            raise OSError(error.errno, error.strerror, filename) from error
        file.seek(0)
        chunks = iter(lambda: file.read(2**20), b"")
        return sum(chunk.count(b"\n") for chunk in chunks)


def check_appendable(filename: str | os.PathLike) -> None:
    """Checks, before anything is learned, that a result can be appended to a file.

    Args:
      filename: of the results file; it need not exist yet.

    Raises:
      UserError: it is no results file. OSError: it cannot be written.
    """
    if os.path.lexists(filename):
        if not os.path.isfile(filename):
            raise UserError(f"{filename}: is no file; name another one or move it away")
        read([filename])
        open(filename, "ab").close()
    elif not os.access(os.path.dirname(filename) or ".", os.W_OK | os.X_OK):
        # Such as on a read-only file system; a file made for a try would stay.
        raise UserError(f"{filename}: cannot be made there; name a folder of yours")


def read(filenames: Iterable[str | os.PathLike]) -> list[dict]:
    """Reads results files.

    A line that was there before, as in a file named twice or a copy of it, is the same
    repeat and counts once. One that is unfinished, as somebody is writing it or was
    killed, is passed over, with a line on stderr.

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
                if line.startswith("{") and not line.endswith("}"):
                    commandline.say(
                        f"{filename}, line {number}: unfinished, passed over"
                    )
                    continue
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
    data: Mapping[str, object],
) -> set[tuple[int, str]]:
    """Which repeats of a batch are in its results file already.

    Args:
      filename: of the results file; it need not exist yet.
      script: the name of the script that runs, as in "script" of a result.
      flags: the values of its flags, by name.
      may_differ: names of the flags in which the repeats of one batch may differ.
      data: what tells each data set from others, by name, as in "data" of a result.

    Returns:
      The seed and the control of each repeat.

    Raises:
      UserError: the file holds repeats of other settings or data, or something else.
      OSError: it cannot be read.
    """
    try:
        with open(filename, "rb") as file:
            # Or the last line might be one that another process is writing.
            disk.lock(file, shared=True)
            repeats = read([filename])
    except FileNotFoundError:
        return set()
    compared = {name: flags[name] for name in flags if name not in may_differ}
    for result in repeats:
        differences = _differences(result, script, compared, data)
        if differences:
            raise UserError(
                f"flag --results={filename}: holds repeats of other settings "
                f"({' '.join(differences)}); name another file, or of a batch another "
                "folder in BATCH_DIR"
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


def _differences(
    result: dict, script: str, flags: Mapping[str, object], data: Mapping[str, object]
) -> list[str]:
    """What sets the result's settings apart, as the user would type it."""
    if result.get("script") != script:
        return [f"{result.get('script')}_pathnet.py"]
    theirs, held = result["flags"], result.get("data", {})
    return [
        f"--{name}={theirs.get(name)}"
        for name, value in flags.items()
        if theirs.get(name) != value
    ] + [
        f"other data: {name} {held[name]}"
        for name, description in data.items()
        if held.get(name, description) != description  # earlier files have none
    ]


def _parse(line: str) -> dict:
    """The result in a line; raises ValueError with the reason if it holds none."""
    try:
        result = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError("it is not JSON, or too large") from error
    is_of_games = isinstance(result, dict) and result.get("script") == "atari"
    check = _RESULT_OF_GAMES if is_of_games else _RESULT
    check(result, "")
    rows = result.get("retention")
    if rows is not None:
        fits = [len(row) for row in rows] == [*range(1, len(result["tasks"]) + 1)]
        require(fits, "retention has not each task's accuracy after each later one")
    result["flags"] = all_flags(result.get("script"), result["flags"])
    return result

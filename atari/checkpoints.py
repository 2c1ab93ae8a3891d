"""What a checkpoint of an Atari cluster consists of, and whether a run can go on with it.

Everything that later code relies on is checked when a checkpoint is read, field by
field: a file with the right checksum can still hold nonsense.
"""

import contextlib
import dataclasses
import json
import math
import os
from collections.abc import Iterator

import numpy as np

from a3c import ConvGrid
from atari import environments
from atari.scores import BINS, SCORE_EPISODES
from common import checkpoint, schema
from common.checkpoint import Arrays
from common.commandline import UserError, printable
from common.require import require

FOLDER = "checkpoints"  # in the folder of a run, if no other one is named

# Fields of ConvGrid that a checkpoint names. The screens are the same for all games.
GRID_FIELDS = ("L", "M", "N", "kernel_num", "stride_size", "actions", "use_lstm")

# Flags that decide when a task ends, and nothing before that: a run that goes on may
# have others.
MAY_CHANGE = ("max_time_step", "stop_score")

# Once, null left this number to the machine, so that a checkpoint may not say it.
CHOSEN_BY_MACHINE = "envs_per_worker"

_TEXT_CHARACTERS = 100  # of a value in a message


@dataclasses.dataclass(frozen=True)
class About:
    """What a checkpoint was made with, and what the tasks before it led to.

    Attributes:
      grid: the network. games: names of the tasks. actors: size of the population.
      flags: {name: value}, all flags of the run.
      outcomes: an entry of results.jsonl for each task that is over.
      results: the folder whose results.jsonl has them, once all tasks are over and that
        was written; else None.
    """

    grid: ConvGrid
    games: tuple[str, ...]
    actors: int
    flags: dict
    outcomes: list[dict]
    results: str | None = None

    @property
    def is_finished(self) -> bool:
        """Whether all tasks are over."""
        return len(self.outcomes) == len(self.games)

    def to_json(self) -> dict:
        """As about.json holds it."""
        grid = {name: _as_json(getattr(self.grid, name)) for name in GRID_FIELDS}
        return {
            "grid": grid,
            "games": list(self.games),
            "actors": self.actors,
            "flags": self.flags,
            "outcomes": self.outcomes,
            "results": self.results,
        }


# ---- Reading ----


def find(folder: str) -> str:
    """The folder of checkpoints that is meant: `folder`, or the one in that of a run."""
    inner = os.path.join(folder, FOLDER)
    if checkpoint.saved(inner) and not checkpoint.saved(folder):
        return inner
    return folder


def load(folder: str, flag: str = "checkpoint_dir") -> tuple[About, Arrays] | None:
    """Reads the newest sound checkpoint in a folder.

    Args:
      folder: that of the checkpoints. flag: by which it was named.

    Returns:
      (About, arrays), the arrays by the names of `parameter_servers.Shared.state` and
      `scores.Curve`; or None if there is no checkpoint.

    Raises:
      UserError: `folder` is no folder, all checkpoints are damaged, or the newest sound
        one is none of an Atari cluster.
      OSError: a file cannot be read.
    """
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise UserError(f"flag --{flag}={folder}: is no folder; name another")
    loaded = checkpoint.load(folder)
    if loaded is None:
        return None
    facts, arrays = loaded
    with _refusing(f"flag --{flag}={folder}: no checkpoints of Atari"):
        about = _about(facts)
        _check_arrays(arrays, about)
    return about, arrays


def learned(folder: str, run: About) -> tuple[About, Arrays]:
    """Reads what the first tasks of a run have been learned to by another one.

    Args:
      folder: that of the other run's checkpoints, of --load_dir.
      run: of this run.

    Raises:
      UserError: there is no checkpoint, its tasks are not over, they are not the first of
        this run, or its network is another one.
      OSError: a file cannot be read.
    """
    loaded = load(folder, "load_dir")
    if loaded is None:
        raise UserError(f"flag --load_dir={folder}: no checkpoint there")
    about, _ = loaded
    if not about.is_finished:
        raise UserError(
            f"flag --load_dir={folder}: its task {len(about.outcomes) + 1}, "
            f"{about.games[len(about.outcomes)]}, is not over; let that run end first"
        )
    held = len(about.games)
    if run.games[:held] != about.games or len(run.games) == held:
        raise UserError(
            f"flag --load_dir={folder}: has learned {','.join(about.games)}; --games must "
            "begin with that, and name a game more"
        )
    for name in GRID_FIELDS:
        theirs, ours = getattr(about.grid, name), getattr(run.grid, name)
        if theirs != (ours[:held] if name == "actions" else ours):
            raise UserError(
                f"flag --load_dir={folder}: made with {_as_flag(name, theirs)}, and this "
                f"run has {_as_text(ours)}; give the same"
            )
    return loaded


def parameter_shapes(grid: ConvGrid) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays of all modules and of every task's own parameters, by name."""
    shapes = {}
    for layer, shape in enumerate(grid.kernel_shapes(), 1):
        shapes[f"layer{layer}/kernel"] = (grid.M, *shape)
        shapes[f"layer{layer}/bias"] = (grid.M, shape[-1])
    for task in range(len(grid.actions)):
        for name, shape in grid.head_shapes(task).items():
            shapes[f"task{task + 1}/{name}"] = shape
    return shapes


def array_types(grid: ConvGrid, actors: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The (dtype, shape) of every variable in a checkpoint, by name.

    They are those of `parameter_servers.Shared.state`, told without TensorFlow.
    """
    tasks = len(grid.actions)
    types = {name: ("int64", ()) for name in ("task", "steps", "generation")}
    types["paths"] = ("int64", (actors, grid.L, grid.N))
    types["fixed_paths"] = ("float32", (tasks, grid.L, grid.M))
    types |= {name: ("int64", (actors,)) for name in ("versions", "played")}
    types["returns"] = ("float64", (actors,))
    for name, shape in parameter_shapes(grid).items():
        for variable in (name, f"{name}/square", f"{name}/speed"):
            types[variable] = ("float32", shape)
    return types


# ---- Going on ----


def check_same_settings(
    saved: About, run: About, decisive: dict[str, object], folder: str
) -> None:
    """Checks that a run can go on with a checkpoint: it learns as the saved run did.

    Args:
      saved: of the checkpoint. run: of the run.
      decisive: {name: default} of the flags that decide what is learned. The default is
        what a checkpoint has that was made before there was such a flag.
      folder: that of the checkpoints.

    Raises:
      UserError: it was made with other settings; names the first flag that differs.
    """
    pairs = [("games", saved.games, run.games)]
    pairs += [("worker_hosts_num", saved.actors, run.actors)]
    pairs += [(n, getattr(saved.grid, n), getattr(run.grid, n)) for n in GRID_FIELDS]
    compared = {name for name, _, _ in pairs}
    pairs += [
        (name, saved.flags.get(name, default), run.flags.get(name, default))
        for name, default in decisive.items()
        if name not in compared and name not in MAY_CHANGE
    ]
    if saved.flags.get(CHOSEN_BY_MACHINE, "") is None:
        pairs = [pair for pair in pairs if pair[0] != CHOSEN_BY_MACHINE]
    for name, theirs, ours in pairs:
        if theirs != ours:
            raise UserError(
                f"flag --checkpoint_dir={folder}: made with {_as_flag(name, theirs)}, "
                f"and this run has {_as_text(ours)}; name another folder or give the "
                "same flags"
            )


def nothing_to_do(about: About, folder: str) -> str | None:
    """What a run says that is given a checkpoint of which nothing is left to learn.

    A run that died before it had recorded its results is not over: it goes on.

    Args:
      about: of the checkpoint. folder: that of the checkpoints.

    Returns:
      The line; None if there is something left to do.
    """
    if about.results is None:
        return None
    return (
        f"Nothing to do: all tasks in {folder} are finished; the results are in "
        f"{printable(about.results)}"
    )


def is_recorded(folder: str, outcomes: list[dict]) -> bool:
    """Whether results.jsonl in the folder of a run has these outcomes of its tasks."""
    filename = os.path.join(folder, "results.jsonl")
    if not os.path.isfile(filename):
        return False
    expected = json.loads(json.dumps(outcomes))
    with open(filename, encoding="utf-8", errors="replace") as file:
        return any(_tasks(line) == expected for line in file)


def _tasks(line):
    """The tasks of a line of results.jsonl; None if it is not such a line."""
    with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
        return json.loads(line)["tasks"]
    return None


# ---- Checks ----


@contextlib.contextmanager
def _refusing(message: str) -> Iterator[None]:
    """Turns what is wrong with facts and arrays into a UserError with the reason."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"{message}: {checkpoint.reason(error)}") from error


def _folder(value: object, place: str) -> None:
    """The name of a folder, which may have any characters."""
    require(isinstance(value, str), f"{place} is not the name of a folder")


_GRID = schema.record(
    {
        "L": schema.whole(2),
        "M": schema.whole(1),
        "N": schema.whole(1),
        "kernel_num": schema.list_of(schema.whole(1)),
        "stride_size": schema.list_of(schema.whole(1)),
        "actions": schema.list_of(schema.whole(1)),
        "use_lstm": schema.boolean,
    }
)
_FACTS = schema.record(
    {
        "grid": _GRID,
        "games": schema.list_of(schema.text),
        "actors": schema.whole(2),
        "flags": schema.record(
            {"max_time_step": schema.whole(1)}, {"log_dir": _folder}
        ),
    },
    optional={"results": schema.nullable(_folder)},
)
_CURVE = schema.columns(
    {"steps": schema.whole(0), "return": schema.number(), "episodes": schema.whole(0)}
)


def _about(facts: dict) -> About:
    """The About that `to_json` made; raises ValueError if it made none."""
    _FACTS(facts, "")
    schema.flag_values(facts["flags"], "flags")
    about = About(
        grid=_grid(facts["grid"]),
        games=tuple(facts["games"]),
        actors=facts["actors"],
        flags=facts["flags"],
        outcomes=facts.get("outcomes"),
    )
    _check_games(about)
    _check_outcomes(about)
    return dataclasses.replace(about, results=_results(facts, about))


def _grid(given: dict) -> ConvGrid:
    """The grid of a checkpoint."""
    require(given["N"] <= given["M"], "grid.N is larger than grid.M")
    for name in ("kernel_num", "stride_size"):
        fits = len(given[name]) == given["L"] - 1
        require(fits, f"grid.{name} has not a number a conv layer")
    values = {name: given[name] for name in GRID_FIELDS}
    grid = ConvGrid(
        **{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()},
        screen=environments.SCREEN,
        frames=environments.FRAMES,
    )
    grid.kernel_shapes()  # refuses kernels that do not fit
    return grid


def _check_games(about: About) -> None:
    """Checks that the games exist, with as many actions as the heads have."""
    require(len(about.games) > 0, "games is empty")
    fits = len(about.grid.actions) == len(about.games)
    require(fits, "grid.actions are those of other games")
    for game, actions in zip(about.games, about.grid.actions):
        require(environments.exists(game), f"no game is called {game!a}")
        fits = environments.actions(game) == actions
        require(fits, f"{game} has not {actions} actions")


def _check_outcomes(about: About) -> None:
    """Checks the outcomes of the tasks that are over."""
    grid = about.grid
    check = schema.record(
        {
            "name": schema.text,
            "generations": schema.whole(0),
            "steps": schema.whole(0),
            "score": schema.nullable(schema.number()),
            "path": schema.list_of(
                schema.list_of(schema.whole(0, grid.M - 1), grid.N), grid.L
            ),
            "curve": _CURVE,
        }
    )
    schema.list_of(check)(about.outcomes, "outcomes")
    names = tuple(outcome["name"] for outcome in about.outcomes)
    require(names == about.games[: len(names)], "outcomes are of other games")


def _results(facts: dict, about: About) -> str | None:
    """Where the results of a checkpoint are."""
    if "results" not in facts:  # of an earlier version, which wrote them all the same
        return about.flags.get("log_dir") if about.is_finished else None
    results = facts["results"]
    require(results is None or about.is_finished, "results are of other tasks")
    return results


def _check_arrays(arrays: Arrays, about: About) -> None:
    """Checks that arrays fit the graph, and that they are a state of the cluster."""
    types = array_types(about.grid, about.actors)
    types |= {"curve": ("float64", (2, BINS)), "recent": ("float64", (None,))}
    for name, (dtype, shape) in types.items():
        require(name in arrays, f"there is no array {name}")
        require(arrays[name].dtype == dtype, f"the array {name} is not of {dtype}")
        check = schema.array(np.dtype(dtype).kind, shape, *_range(name, about))
        check(arrays[name], f"the array {name}")
    fixed = schema.binary(types["fixed_paths"][1])
    fixed(arrays["fixed_paths"], "the array fixed_paths")
    is_next = int(arrays["task"]) == len(about.outcomes)
    require(is_next, "there is not an outcome for each task that is over")
    require((arrays["curve"][1] >= 0).all(), "the curve has episodes below 0")
    require(len(arrays["recent"]) <= SCORE_EPISODES, "there are too many returns")


def _range(name: str, about: About) -> tuple[float, float]:
    """The least and the most that a number in an array of this name can be."""
    if name == "paths":
        return 0, about.grid.M - 1
    if name in ("task", "steps", "generation", "versions", "played"):
        return 0, schema.LARGEST_WHOLE
    return (0 if name.endswith("/square") else -math.inf), math.inf


# ---- As a user reads it ----


def _as_json(value):
    return list(value) if isinstance(value, tuple) else value


def _as_flag(name, value):
    return f"--{name}={_as_text(value)}"


def _as_text(value):
    """The value of a flag as it is written on the command line."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return printable(str(value)[:_TEXT_CHARACTERS])

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
from common import checkpoint
from common.checkpoint import Arrays
from common.commandline import UserError
from common.require import require

FOLDER = "checkpoints"  # in the folder of a run, if no other one is named

# Fields of ConvGrid that a checkpoint names. The screens are the same for all games.
GRID_FIELDS = ("L", "M", "N", "kernel_num", "stride_size", "actions", "use_lstm")

# Flags that decide when a task ends, and nothing before that: a run that goes on may
# have others.
MAY_CHANGE = ("max_time_step", "stop_score")

_TEXT_CHARACTERS = 100  # of a value in a message
MOST = 2**53  # of whatever is counted: as far as a float holds every integer


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


def load(folder: str) -> tuple[About, Arrays] | None:
    """Reads the newest sound checkpoint in a folder.

    Returns:
      (About, arrays), the arrays by the names of `parameter_servers.Shared.state` and
      `scores.Curve`; or None if there is no checkpoint.

    Raises:
      UserError: `folder` is no folder, all checkpoints are damaged, or the newest sound
        one is none of an Atari cluster.
      OSError: a file cannot be read.
    """
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise UserError(f"flag --checkpoint_dir={folder}: is no folder; name another")
    loaded = checkpoint.load(folder)
    if loaded is None:
        return None
    facts, arrays = loaded
    with _refusing(f"flag --checkpoint_dir={folder}: no checkpoints of Atari"):
        about = _about(facts)
        _check_arrays(arrays, about)
    return about, arrays


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
    shapes = {}
    for layer, shape in enumerate(grid.kernel_shapes(), 1):
        shapes[f"layer{layer}/kernel"] = (grid.M, *shape)
        shapes[f"layer{layer}/bias"] = (grid.M, shape[-1])
    for task in range(tasks):
        for name, shape in grid.head_shapes(task).items():
            shapes[f"task{task + 1}/{name}"] = shape
    for name, shape in shapes.items():
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
        f"{_printable(about.results)}"
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
    except (ValueError, KeyError) as error:
        raise UserError(f"{message}: {checkpoint.reason(error)}") from error


def _about(facts: dict) -> About:
    """The About that `to_json` made; raises ValueError or KeyError if it made none."""
    grid, games, flags = facts["grid"], facts["games"], facts["flags"]
    require(isinstance(grid, dict), "the grid is not an object")
    require(isinstance(games, list) and len(games) > 0, "the games are not a list")
    require(all(map(_is_text, games)), "the name of a game is not text")
    require(_is_count(facts["actors"], 2), "the actors are not a number from 2 on")
    _check_flags(flags)
    about = About(
        grid=_grid(grid),
        games=tuple(games),
        actors=facts["actors"],
        flags=flags,
        outcomes=facts["outcomes"],
    )
    _check_games(about)
    _check_outcomes(about)
    return dataclasses.replace(about, results=_results(facts, about))


def _results(facts: dict, about: About) -> str | None:
    """Where the results of a checkpoint are."""
    if "results" not in facts:  # of an earlier version, which wrote them all the same
        return about.flags.get("log_dir") if about.is_finished else None
    results = facts["results"]
    is_folder = results is None or isinstance(results, str)
    require(is_folder, "results is not the name of a folder")
    require(results is None or about.is_finished, "there are results of other tasks")
    return results


def _grid(given: dict) -> ConvGrid:
    """The grid of a checkpoint."""
    L, M, N = (given[name] for name in "LMN")
    require(_is_count(L, 2), "the number of layers, L, is not a number from 2 on")
    require(_is_count(M, 1), "the number of modules, M, is not a number from 1 on")
    require(_is_count(N, 1) and N <= M, "N is not a number from 1 to M")
    for name in ("kernel_num", "stride_size", "actions"):
        values = given[name]
        are_counts = isinstance(values, list) and all(_is_count(v, 1) for v in values)
        require(are_counts, f"{name} is not made of numbers from 1 on")
    for name in ("kernel_num", "stride_size"):
        require(len(given[name]) == L - 1, f"{name} has not a number a conv layer")
    require(isinstance(given["use_lstm"], bool), "use_lstm is neither true nor false")
    grid = ConvGrid(
        L=L,
        M=M,
        N=N,
        kernel_num=tuple(given["kernel_num"]),
        stride_size=tuple(given["stride_size"]),
        actions=tuple(given["actions"]),
        use_lstm=given["use_lstm"],
        screen=environments.SCREEN,
        frames=environments.FRAMES,
    )
    grid.kernel_shapes()  # refuses kernels that do not fit
    return grid


def _check_flags(flags: dict) -> None:
    """Checks the flags that are used; the others are only compared."""
    require(isinstance(flags, dict), "the flags are not an object")
    require(_is_count(flags["max_time_step"], 1), "max_time_step is not a number")
    folder = flags.get("log_dir", "")
    require(isinstance(folder, str), "log_dir is not the name of a folder")


def _check_games(about: About) -> None:
    """Checks that the games exist, with as many actions as the heads have."""
    fits = len(about.grid.actions) == len(about.games)
    require(fits, "the actions are those of other games")
    for game, actions in zip(about.games, about.grid.actions):
        require(game in environments.games(), f"no game is called {game!a}")
        fits = environments.actions(game) == actions
        require(fits, f"{game} has not {actions} actions")


def _check_outcomes(about: About) -> None:
    """Checks the outcomes of the tasks that are over."""
    outcomes, grid = about.outcomes, about.grid
    require(isinstance(outcomes, list), "the outcomes are not a list")
    require(len(outcomes) <= len(about.games), "there are more outcomes than tasks")
    for number, (outcome, game) in enumerate(zip(outcomes, about.games), 1):
        require(isinstance(outcome, dict), f"the outcome of task {number} is no object")
        name, path, curve = (outcome[key] for key in ("name", "path", "curve"))
        require(name == game, f"the outcome of task {number} is of another game")
        for key in ("steps", "generations"):
            require(
                _is_count(outcome[key]), f"the {key} of task {number} are no number"
            )
        score = outcome["score"]
        require(
            score is None or _is_number(score),
            f"the score of task {number} is not a number",
        )
        fits = _is_path(path, grid)
        require(fits, f"the path of task {number} is none through the grid")
        require(_is_curve(curve), f"the curve of task {number} is not made of numbers")


def _check_arrays(arrays: Arrays, about: About) -> None:
    """Checks that arrays fit the graph, and that they are a state of the cluster."""
    for name, (dtype, shape) in array_types(about.grid, about.actors).items():
        array = arrays[name]
        fits = array.dtype == dtype and array.shape == shape
        require(fits, f"the array {name} is of another network")
        require(np.isfinite(array).all(), f"the array {name} holds infinity or NaN")
        if name.endswith("/square"):
            require((array >= 0).all(), f"the array {name} holds a negative square")
    for name in ("task", "steps", "generation", "versions", "played"):
        array = arrays[name]
        require((array >= 0).all(), f"the array {name} holds a negative number")
        require((array <= MOST).all(), f"the array {name} holds too large a number")
    is_next = int(arrays["task"]) == len(about.outcomes)
    require(is_next, "there is not an outcome for each task that is over")
    paths, fixed = arrays["paths"], arrays["fixed_paths"]
    exist = (paths >= 0).all() and (paths < about.grid.M).all()
    require(exist, "there is a path through modules that do not exist")
    require(np.isin(fixed, (0, 1)).all(), "the fixed paths are not made of 0 and 1")
    curve, recent = arrays["curve"], arrays["recent"]
    fits = curve.dtype == "float64" and curve.shape == (2, BINS)
    require(fits and np.isfinite(curve).all(), "the curve is not made of numbers")
    require((curve[1] >= 0).all(), "the curve has a negative number of episodes")
    fits = recent.dtype == "float64" and recent.ndim == 1
    require(fits and np.isfinite(recent).all(), "the returns are not numbers")
    require(len(recent) <= SCORE_EPISODES, "there are too many returns")


def _is_path(path: object, grid: ConvGrid) -> bool:
    """Whether it is a path: L lists of N modules."""
    return (
        isinstance(path, list)
        and len(path) == grid.L
        and all(isinstance(row, list) and len(row) == grid.N for row in path)
        and all(_is_count(m) and m < grid.M for row in path for m in row)
    )


def _is_curve(curve: object) -> bool:
    """Whether it is what `scores.Curve.points` gives."""
    names = ("steps", "return", "episodes")
    if not isinstance(curve, dict) or not all(
        isinstance(curve.get(name), list) for name in names
    ):
        return False
    steps, returns, episodes = (curve[name] for name in names)
    return (
        len(steps) == len(returns) == len(episodes)
        and all(map(_is_count, steps + episodes))
        and all(map(_is_number, returns))
    )


def _is_count(value: object, least: int = 0) -> bool:
    """Whether it is an integer from `least` on, and none that only hostile files have."""
    return type(value) is int and least <= value <= MOST


def _is_number(value: object) -> bool:
    """Whether it is a number that calculations can use."""
    if type(value) is int:
        return abs(value) <= MOST
    return isinstance(value, float) and math.isfinite(value)


def _is_text(value: object) -> bool:
    """Whether it is text that a terminal can be given."""
    return isinstance(value, str) and value.isprintable()


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
    return _printable(str(value)[:_TEXT_CHARACTERS])


def _printable(text):
    """Text that a terminal can be given, whatever a file says."""
    return text if text.isprintable() else ascii(text)

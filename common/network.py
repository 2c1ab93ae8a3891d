"""What a finished network and an interrupted supervised run consist of, on disk.

`write_network` and `read_network` store a `Network` in the folder of --save_dir,
`save_state` and `load_state` keep a `State` among the checkpoints of a run. Everything
that later code relies on is checked when it is read, since a file with the right
checksum can still hold nonsense. How the folders are written and read is the business
of `common.checkpoint`.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from common import checkpoint
from common.checkpoint import Arrays, Folder
from common.commandline import UserError
from common.require import require


@dataclasses.dataclass(frozen=True)
class Network:
    """What a run has learned; without arguments, nothing at all.

    L, M and N are the flags of these names: layers, modules a layer, and modules a layer
    on a path.

    Attributes:
      script: name of the script that has learned it, without "_pathnet.py".
      flags: values of the flags of that script, by name.
      data: what tells each data set that it was learned from, by name; {} if it was
        saved before that was recorded.
      tasks: an entry for each learned task as in results.jsonl, with "title" and with
        "retention": held-out accuracies, once it was learned, on each task so far.
      active: binary [tasks, L, M], 1 for the modules that each of the tasks needs.
      fixed_path: binary [L, M], 1 for a frozen module.
      parameters: arrays by name, as of `pathnet.PathNet.parameters`.
    """

    script: str = ""
    flags: dict = dataclasses.field(default_factory=dict)
    data: dict = dataclasses.field(default_factory=dict)
    tasks: Sequence[dict] = ()
    active: np.ndarray | tuple[()] = ()
    fixed_path: np.ndarray | tuple[()] = ()
    parameters: Arrays = dataclasses.field(default_factory=dict)


def _empty_curve() -> dict:
    return {"generation": [], "fitness": []}


@dataclasses.dataclass(frozen=True)
class State(Network):
    """A network that is still learning a task, between two generations of it.

    Attributes:
      names: of all tasks of the run; `tasks` has the first ones, and the next one is being
        learned.
      generation: number of generations of that task so far.
      seconds: time that they took.
      curve: as in results.jsonl, so far.
      population: int64 [candi, L, N], the paths.
      run: which run it is of, a name that no other run has; "" if not recorded.
    """

    names: Sequence[str] = ()
    generation: int = 0
    seconds: float = 0.0
    curve: dict = dataclasses.field(default_factory=_empty_curve)
    population: np.ndarray | tuple[()] = ()
    run: str = ""


# ---- Finished networks ----


def write_network(folder: Folder, network: Network) -> None:
    """Stores a Network in a folder that does not exist yet.

    Raises:
      UserError: the folder exists.
      OSError: it cannot be written; nothing is left behind then.
    """
    checkpoint.write(folder, _facts(network), _arrays(network))


def read_network(folder: Folder) -> Network:
    """Reads the Network that is stored in a folder.

    Raises:
      UserError: there is none, of another version, or it is damaged; names the file or
        folder and the reason.
      OSError: a file cannot be read.
    """
    about, arrays = checkpoint.read(folder)
    with _refusing(f"{folder}: holds no finished network of this version"):
        network = _network(about, arrays)
        require(len(network.tasks) > 0, "no task is learned")
    return network


# ---- Interrupted runs ----


def save_state(folder: Folder, state: State) -> None:
    """Stores a State as the newest checkpoint in a folder.

    Raises:
      OSError: it cannot be written; earlier checkpoints are as they were.
    """
    about = _facts(state) | {
        "names": state.names,
        "generation": state.generation,
        "seconds": state.seconds,
        "curve": state.curve,
        "run": state.run,
    }
    arrays = _arrays(state) | {"population": state.population}
    number = state.generation + sum(task["generations"] for task in state.tasks)
    checkpoint.save(folder, number, about, arrays)


def load_state(folder: Folder) -> State | None:
    """Reads the State of the newest sound checkpoint in a folder.

    Returns:
      The State, or None if the folder has no checkpoint.

    Raises:
      UserError: there are checkpoints and all are damaged, or the newest sound one is
        no State; names the file or folder and the reason.
      OSError: a file cannot be read.
    """
    loaded = checkpoint.load(folder)
    if loaded is None:
        return None
    with _refusing(f"{folder}: no checkpoint of this version"):
        return _state(*loaded)


# ---- From and to facts and arrays ----


def _facts(network: Network) -> dict:
    """What is stored of a Network as JSON."""
    return {
        "script": network.script,
        "flags": network.flags,
        "data": network.data,
        "tasks": network.tasks,
    }


def _arrays(network: Network) -> Arrays:
    """What is stored of a Network as arrays."""
    parameters = {f"parameters/{k}": v for k, v in network.parameters.items()}
    return parameters | {"active": network.active, "fixed_path": network.fixed_path}


def _network(about: dict, arrays: Arrays) -> Network:
    """The Network that was stored as these facts and arrays.

    Raises:
      ValueError, KeyError, TypeError, OverflowError: it is none.
    """
    arrays = dict(arrays)
    network = Network(
        script=str(about["script"]),
        flags=dict(about["flags"]),
        data=dict(about.get("data", {})),
        tasks=list(about["tasks"]),
        active=arrays.pop("active"),
        fixed_path=arrays.pop("fixed_path"),
        parameters={k.removeprefix("parameters/"): v for k, v in arrays.items()},
    )
    L, M, N = _grid(network.flags)
    fits = network.active.shape == (len(network.tasks), L, M)
    require(fits, "the active modules are those of other tasks")
    require(network.fixed_path.shape == (L, M), "the fixed path is of another grid")
    for number, task in enumerate(network.tasks, 1):
        _check_task(task, number, (L, M, N))
    return network


def _state(about: dict, arrays: Arrays) -> State:
    """The State that was stored as these facts and arrays; raises what `_network` does."""
    arrays = dict(arrays)
    population = arrays.pop("population")
    state = State(
        **vars(_network(about, arrays)),
        names=list(about["names"]),
        generation=about["generation"],
        seconds=float(about["seconds"]),
        curve=about["curve"],
        population=population,
        run=str(about.get("run", "")),
    )
    _check_names(state)
    _check_generation(state)
    _check_curve(state.curve)
    _check_population(population, _grid(state.flags))
    return state


@contextlib.contextmanager
def _refusing(message: str) -> Iterator[None]:
    """Turns what is wrong with facts and arrays into a UserError with the reason."""
    try:
        yield
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise UserError(f"{message}: {checkpoint.reason(error)}") from error


# ---- Checks, which raise ValueError ----

# Entries of a learned task, as in results.jsonl.
_TEXTS = ("name", "title")
_NUMBERS = ("generations", "fitness", "accuracy_test", "seconds")


def _grid(flags: dict) -> tuple[int, int, int]:
    """The grid's (L, M, N) under these flags."""
    L, M, N = (flags[name] for name in "LMN")
    if flags.get("control") == ["fixed_size"]:
        M = N  # This control's grid has no modules but those of one path.
    return L, M, N


def _check_task(task: dict, number: int, grid: tuple[int, int, int]) -> None:
    """Checks the entry of a learned task; `number` counts from 1."""
    require(isinstance(task, dict), f"task {number} is not an object")
    for name in (*_TEXTS, *_NUMBERS, "converged", "path", "curve", "retention"):
        require(name in task, f"task {number} has no {name}")
    for name in _TEXTS:
        require(isinstance(task[name], str), f"the {name} of task {number} is not text")
    for name in _NUMBERS:
        require(_is_number(task[name]), f"the {name} of task {number} is not a number")
    curve, retention = task["curve"], task["retention"]
    has_curve = isinstance(curve, dict) and "fitness" in curve
    require(has_curve, f"the curve of task {number} has no fitness")
    are_numbers = isinstance(retention, list) and all(map(_is_number, retention))
    require(are_numbers, f"the retention of task {number} is not a list of numbers")
    fits = len(retention) == number
    require(fits, f"the retention of task {number} is on other tasks")
    _check_path(task["path"], number, grid)


def _check_path(path: list, number: int, grid: tuple[int, int, int]) -> None:
    """Checks the path of a learned task: L lists of N integers."""
    L, M, N = grid
    shape = np.array(path, object).shape  # of objects, since rows may differ in length
    require(shape == (L, N), f"task {number} has a path through another grid")
    path = np.array(path)
    are_integers = path.dtype.kind == "i"
    require(are_integers, f"task {number} has a path that is not made of integers")
    exist = path.min() >= 0 and path.max() < M
    require(exist, f"task {number} has a path through modules that do not exist")


def _check_names(state: State) -> None:
    """Checks the names of all tasks of an interrupted run."""
    learned = [task["name"] for task in state.tasks]
    require(
        state.names[: len(learned)] == learned,
        "the names are not those of the learned tasks",
    )
    require(len(state.names) > len(learned), "all tasks are learned already")
    are_texts = all(isinstance(name, str) for name in state.names)
    require(are_texts, "the name of a task is not text")


def _check_generation(state: State) -> None:
    """Checks how far the task has come that is being learned."""
    require(type(state.generation) is int, "the generation is not an integer")
    last = state.flags["max_steps"]
    require(_is_number(last), "max_steps is not a number")
    require(0 <= state.generation < last, "the generation is not one before the last")


def _check_curve(curve: dict) -> None:
    """Checks the curve of the task that is being learned."""
    require(isinstance(curve, dict), "the curve is not an object")
    generation, fitness = curve["generation"], curve["fitness"]
    for values in (generation, fitness):
        are_numbers = isinstance(values, list) and all(map(_is_number, values))
        require(are_numbers, "the curve is not made of lists of numbers")
    require(
        len(generation) == len(fitness),
        "the curve has not a fitness for each generation",
    )


def _check_population(population: np.ndarray, grid: tuple[int, int, int]) -> None:
    """Checks the population of the task that is being learned, int64 [candi, L, N]."""
    L, M, N = grid
    require(population.shape[1:] == (L, N), "the population is of another grid")
    require(population.size > 0, "the population is empty")
    require(population.dtype == int, "the population is not made of integers")
    exist = population.min() >= 0 and population.max() < M
    require(exist, "the population has a path through modules that do not exist")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)

"""What a finished network and an interrupted supervised run consist of, on disk.

`write_network` and `read_network` store a `Network` in the folder of --save_dir,
`save_state` and `load_state` keep a `State` among the checkpoints of a run. What each
field must be is said by checks of `common.schema`, and made sure when it is read. How
the folders are written and read is the business of `common.checkpoint`.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from common import checkpoint, results, schema
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
      active: float32 [tasks, L, M], what each module counts for in each of the tasks, in
        [0, 1], as of `pathnet.Grid.active`; 0 for a module that a task does not need.
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
        control = network.flags.get("control", ["pathnet"])
        require(control == ["pathnet"], "it was learned under a control")
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
      ValueError: it is none.
    """
    _FACTS(about, "")
    grid = L, M, _ = _grid(about["flags"])
    share = about["flags"].get("frozen_share", 1)
    for number, task in enumerate(about["tasks"], 1):
        _task(number, grid)(task, f"tasks[{number - 1}]")
    for name, check in {
        "active": schema.binary((len(about["tasks"]), L, M), share),
        "fixed_path": schema.binary((L, M)),
    }.items():
        check(arrays.get(name), name)
    parameters = {
        name.removeprefix("parameters/"): value
        for name, value in arrays.items()
        if name.startswith("parameters/")
    }
    for value in parameters.values():
        schema.array("f")(value, "a parameter")
    return Network(
        script=about["script"],
        flags=results.all_flags(about["script"], about["flags"]),
        data=about.get("data", {}),
        tasks=about["tasks"],
        active=arrays["active"],
        fixed_path=arrays["fixed_path"],
        parameters=parameters,
    )


def _state(about: dict, arrays: Arrays) -> State:
    """The State that was stored as these facts and arrays.

    Raises:
      ValueError: it is none.
    """
    network = _network(about, arrays)
    L, M, N = _grid(network.flags)
    _progress(network.flags)(about, "")
    paths = schema.array("i", (None, L, N), 0, M - 1)
    paths(arrays.get("population"), "population")
    require(len(arrays["population"]) > 0, "population is empty")
    learned = [task["name"] for task in network.tasks]
    are_those = about["names"][: len(learned)] == learned
    require(are_those, "names are not those of the learned tasks")
    require(len(about["names"]) > len(learned), "all tasks are learned already")
    return State(
        **vars(network),
        names=about["names"],
        generation=about["generation"],
        seconds=about["seconds"],
        curve=about["curve"],
        population=arrays["population"],
        run=about.get("run", ""),
    )


@contextlib.contextmanager
def _refusing(message: str) -> Iterator[None]:
    """Turns what is wrong with facts and arrays into a UserError with the reason."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"{message}: {checkpoint.reason(error)}") from error


# ---- What they must be ----


def _check_flags(value: object, place: str) -> None:
    """The flags of a network, with those that every reader relies on."""
    schema.flag_values(value, place)
    schema.record(
        results.SIZES | {"seed": schema.whole(0), "module_kinds": schema.text},
        {"max_steps": schema.whole(1), "frozen_share": schema.number(0, 1)},
    )(value, place)


_FACTS = schema.record(
    {
        "script": schema.text,
        "flags": _check_flags,
        "tasks": schema.list_of(schema.record({})),
    },
    {"data": schema.by_name(schema.text)},
)


def _grid(flags: dict) -> tuple[int, int, int]:
    """The grid's (L, M, N) under these flags."""
    L, M, N = (flags[name] for name in "LMN")
    if flags.get("control") == ["fixed_size"]:
        M = N  # This control's grid has no modules but those of one path.
    return L, M, N


def _task(number: int, grid: tuple[int, int, int]) -> schema.Check:
    """The entry of a learned task; `number` counts from 1."""
    L, M, N = grid
    return schema.record(
        results.LEARNED
        | results.DETAILS
        | {
            "title": schema.text,
            "path": schema.list_of(schema.list_of(schema.whole(0, M - 1), N), L),
            "retention": schema.list_of(results.SHARE, number),
        },
        results.LATER_DETAILS,
    )


def _progress(flags: dict) -> schema.Check:
    """How far the task has come that is being learned, under the flags of its run."""
    require("max_steps" in flags, 'flags has no "max_steps"')
    return schema.record(
        {
            "names": schema.list_of(schema.text),
            "generation": schema.whole(0, flags["max_steps"] - 1),
            "seconds": schema.number(0),
            "curve": results.CURVE,
        },
        {"run": schema.text},
    )

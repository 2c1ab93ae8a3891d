"""A network on disk: a folder with about.json, arrays.npz and their checksums.

    about.json    what it is, for people as well: script, flags, tasks, generations
    arrays.npz    numpy arrays: parameters, paths
    SHA256SUMS    of both; `sha256sum --check SHA256SUMS` knows the format

A folder appears complete or not at all, and is never written to again. Reading one
executes nothing: JSON, and arrays of numbers. `write` and `read` know no more than that;
`write_network` and `read_network` know what a finished network consists of, `save` and
`load` how a run that goes on keeps its newest ones in a folder, `save_state` and
`load_state` what those of a supervised run consist of.
"""

import dataclasses
import hashlib
import json
import math
import os
import shutil
import struct
import time
import zipfile
from pathlib import Path

import numpy as np

from common import commandline
from common.commandline import UserError

FORMAT = "pathnet checkpoint"
VERSION = 1
FILES = ("about.json", "arrays.npz")
MAX_BYTES = 2**34  # of a file; more is no checkpoint of this project
PREFIX = "checkpoint-"
# What zipfile and numpy raise at nonsense, such as OSError for a place before the start.
NO_ARCHIVE = (
    ValueError,
    TypeError,
    KeyError,
    EOFError,
    OSError,
    RuntimeError,
    struct.error,
)
KEPT = 2  # checkpoints of a run: the newest, and one in case that it is damaged


@dataclasses.dataclass(frozen=True)
class Network:
    """What a run has learned; nothing at all if there was none.

    Attributes:
      script: its name. flags: by name, as the script was given them.
      tasks: an entry each as in results.jsonl, with "title" and with "retention", its row
        of that matrix.
      active: binary [tasks, L, M], the modules that each of them needs.
      fixed_path: binary [L, M], what is frozen.
      parameters: by name, as of `pathnet.PathNet.parameters`.
    """

    script: str = ""
    flags: dict = dataclasses.field(default_factory=dict)
    tasks: list = ()
    active: np.ndarray = ()
    fixed_path: np.ndarray = ()
    parameters: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class State(Network):
    """A network that still learns a task, after a generation of it.

    Attributes:
      names: of all tasks of the run; the first ones are learned, the next one is not.
      generation: how many of it are done. seconds: that they took.
      curve: as in results.jsonl, so far.
      population: int [candi, L, N].
    """

    names: list = ()
    generation: int = 0
    seconds: float = 0.0
    curve: dict = dataclasses.field(
        default_factory=lambda: {"generation": [], "fitness": []}
    )
    population: np.ndarray = ()


def write_network(folder, network):
    """Stores a Network; raises what `write` does."""
    write(folder, *_parts(network))


def read_network(folder):
    """The Network in a folder; raises what `read` does."""
    network = _network(folder, *read(folder))
    if not network.tasks:
        raise UserError(f"{folder}: holds no finished network of this version")
    return network


def save_state(folder, state):
    """Stores a State as the newest checkpoint in a folder; raises what `save` does."""
    about, arrays = _parts(state)
    names = "names", "generation", "seconds", "curve"
    about |= {name: getattr(state, name) for name in names}
    number = state.generation + sum(task["generations"] for task in state.tasks)
    save(folder, number, about, arrays | {"population": state.population})


def load_state(folder):
    """The State of the newest sound checkpoint in a folder, or None without any.

    Raises what `load` does.
    """
    loaded = load(folder)
    if loaded is None:
        return None
    about, arrays = loaded
    try:
        population = arrays.pop("population")
        network = _network(folder, about, arrays)
        state = State(
            **vars(network),
            names=list(about["names"]),
            generation=about["generation"],
            seconds=float(about["seconds"]),
            curve=about["curve"],
            population=population,
        )
        L, M = state.fixed_path.shape
        curve = state.curve["generation"], state.curve["fitness"]
        known = [task["name"] for task in state.tasks]
        if state.names[: len(known)] != known or len(state.names) == len(known):
            raise ValueError("names of other tasks")
        str.join("", state.names)
        if type(state.generation) is not int or len(curve[0]) != len(curve[1]):
            raise ValueError("another curve")
        if not all(isinstance(value, int | float) for value in curve[0] + curve[1]):
            raise TypeError("no number")
        if not 0 <= state.generation < state.flags["max_steps"]:
            raise ValueError("no generation before the last one")
        if population.shape[1:] != (L, state.flags["N"]) or not len(population):
            raise ValueError("a population of another grid")
        if population.dtype != int or population.min() < 0 or population.max() >= M:
            raise ValueError("a path through modules that there are not")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder}: no checkpoint of this version") from error
    return state


def _parts(network):
    """What `write` stores of a Network: (about, arrays)."""
    arrays = {f"parameters/{k}": v for k, v in network.parameters.items()}
    arrays |= {"active": network.active, "fixed_path": network.fixed_path}
    names = "script", "flags", "tasks"
    return {name: getattr(network, name) for name in names}, arrays


def _network(folder, about, arrays):
    """The Network that `_parts` was given, checked; UserError names the folder."""
    try:
        network = Network(
            script=str(about["script"]),
            flags=dict(about["flags"]),
            tasks=list(about["tasks"]),
            active=arrays.pop("active"),
            fixed_path=arrays.pop("fixed_path"),
            parameters={k.removeprefix("parameters/"): v for k, v in arrays.items()},
        )
        L, M, N = (network.flags[name] for name in "LMN")
        if network.flags.get("control") == ["fixed_size"]:
            M = N  # its grid has no other modules
        if network.active.shape != (len(network.tasks), L, M):
            raise ValueError("active modules of other tasks")
        if network.fixed_path.shape != (L, M):
            raise ValueError("a fixed path of another grid")
        for place, task in enumerate(network.tasks, 1):
            path = np.array(task["path"])
            if path.shape != (L, N) or path.dtype.kind != "i":
                raise ValueError("a path through another grid")
            if path.min() < 0 or path.max() >= M:
                raise ValueError("a path through modules that there are not")
            numbers = [task[name] for name in ("fitness", "accuracy_test", "seconds")]
            numbers += [*task["retention"], task["generations"]]
            if not all(isinstance(value, int | float) for value in numbers):
                raise TypeError("no number")
            if len(task["retention"]) != place:
                raise ValueError("accuracies on other tasks")
            str.join("", (task["name"], task["title"]))
            bool(task["converged"]), task["curve"]["fitness"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{folder}: holds no finished network of this version"
        ) from error
    return network


def save(folder, number, about, arrays):
    """Writes a checkpoint into a folder of them and removes all but the newest KEPT.

    Args:
      folder: of the checkpoints; made if it is not there.
      number: the next one's; a later one if that would not be the newest.
      about, arrays: as of `write`.

    Raises:
      OSError: it cannot be written; earlier ones are as they were.
    """
    earlier = saved(folder)
    if earlier:
        number = max(number, int(earlier[-1].name.removeprefix(PREFIX)) + 1)
    write(Path(folder) / f"{PREFIX}{number:012d}", about, arrays)
    for old in saved(folder)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def discard(folder):
    """Removes a folder of checkpoints that nobody needs any more, all at once."""
    hidden = _hidden(Path(folder))
    os.rename(folder, hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def saved(folder):
    """Paths of the checkpoints in a folder, oldest first."""
    return sorted(Path(folder).glob(f"{PREFIX}{'[0-9]' * 12}"))


def load(folder):
    """The newest sound checkpoint in a folder: (about, arrays), or None without any.

    A damaged one is passed over, with a line on stderr.

    Raises:
      UserError: there are some, and all are damaged.
      OSError: a file cannot be read.
    """
    error = None
    for path in reversed(saved(folder)):
        try:
            return read(path)
        except UserError as damaged:
            error = damaged
            commandline.say(f"{damaged}; trying the one before")
    if error:
        raise error
    return None


def write(folder, about, arrays):
    """Makes a checkpoint.

    Args:
      folder: a path that does not exist yet; its parents are made.
      about: dict of what JSON can hold. arrays: numpy arrays of numbers by name.

    Raises:
      UserError: the folder exists.
      OSError: it cannot be written; nothing is left behind then.
    """
    refuse_existing(folder)
    target = Path(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = _hidden(target)
    partial.mkdir()
    try:
        content = {"format": FORMAT, "version": VERSION, **about}
        (partial / "about.json").write_text(json.dumps(content, indent=1) + "\n")
        np.savez(partial / "arrays.npz", **arrays)
        sums = [f"{_sha256(partial / name)}  {name}\n" for name in FILES]
        (partial / "SHA256SUMS").write_text("".join(sums))
        for path in (*partial.iterdir(), partial):
            _to_disk(path)
        os.rename(partial, target)
        _to_disk(target.parent)
    except OSError as error:
        refuse_existing(folder)  # somebody else made it meanwhile
        raise OSError(error.errno, error.strerror, str(folder)) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def refuse_existing(folder):
    """Raises UserError if there is something at that path, but for an empty folder."""
    path = Path(folder)
    if path.is_dir() and not any(path.iterdir()):
        return
    if os.path.lexists(path):
        raise UserError(f"{folder}: exists and is not overwritten; name another folder")


def read(folder):
    """Reads a checkpoint.

    Returns:
      (about, arrays): as `write` was given them.
    Raises:
      UserError: no checkpoint, of another version, or damaged; names the file.
      OSError: a file cannot be read.
    """
    folder = Path(folder)
    if not (folder / "SHA256SUMS").is_file():
        raise UserError(f"{folder}: no folder that --save_dir or a run has saved to")
    try:
        lines = (folder / "SHA256SUMS").read_text()[:1000].splitlines()
        sums = {name: digest for digest, name in (line.split() for line in lines)}
    except ValueError as error:
        raise _damaged(folder / "SHA256SUMS") from error
    for name in FILES:
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path}: no such file; copy the whole folder again")
        if path.stat().st_size > MAX_BYTES or _sha256(path) != sums.get(name):
            raise _damaged(path)
    try:
        about = json.loads((folder / "about.json").read_text())
        kind, version = about.pop("format"), about.pop("version")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{folder / 'about.json'}: not of this project") from error
    if (kind, version) != (FORMAT, VERSION):
        raise UserError(
            f"{folder / 'about.json'}: is a {kind} of version {version}, and this "
            f"program reads a {FORMAT} of version {VERSION}"
        )
    return about, _read_arrays(folder / "arrays.npz")


def _read_arrays(path):
    try:
        _check_sizes(path)
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (*NO_ARCHIVE, zipfile.BadZipFile) as error:
        raise _damaged(path) from error


def _check_sizes(path):
    """Refuses an archive whose arrays are larger than what is stored of them."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError("compressed")
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                if version != (1, 0):
                    raise ValueError("an array format that is not written here")
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            if math.prod(shape) * dtype.itemsize > member.file_size:
                raise ValueError("an array larger than its file")


def _damaged(path):
    return UserError(f"{path}: damaged, its checksum is another; copy the folder again")


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hidden(path):
    """A name beside a path that no process has used, not even one with the same id."""
    return path.with_name(f".{path.name}.{os.getpid()}-{time.time_ns()}.tmp")


def _to_disk(path):
    """Waits until a file, or the names in a folder, have reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

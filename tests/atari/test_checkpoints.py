"""Tests of checkpoints.py: which checkpoints are read, and which a run goes on with."""

import copy
import json
import os
from dataclasses import replace

import numpy as np
import pytest
from fuzzing import FUZZ_CASES

from a3c import ConvGrid
from atari import checkpoints
from atari.checkpoints import About
from atari.scores import BINS
from common import checkpoint
from common.commandline import UserError

GRID = ConvGrid(2, 3, 2, (4,), (80,), actions=(3, 3), use_lstm=False)
ACTORS = 2
FLAGS = {"max_time_step": 1000, "stop_score": None, "seed": 1, "t_max": 20}
FLAGS |= {"worker_hosts_num": 10, "learning_rate": 7e-4, "M": 3, "games": ["catch"] * 2}
DECISIVE = {name: default for name, default in FLAGS.items()}
OUTCOME = {
    "name": "catch",
    "generations": 4,
    "steps": 1010,
    "score": 0.25,
    "path": [[0, 2], [1, 1]],
    "curve": {"steps": [500, 1000], "return": [-0.5, 0.25], "episodes": [70, 80]},
}


def about(**changes):
    made = About(GRID, ("catch", "catch"), ACTORS, dict(FLAGS), [OUTCOME])
    return replace(made, **changes)


def facts_and_arrays():
    """A sound checkpoint of a cluster that learns its second task."""
    arrays = {
        name: np.full(shape, 1, dtype)
        for name, (dtype, shape) in checkpoints.array_types(GRID, ACTORS).items()
    }
    arrays |= {"curve": np.ones([2, BINS]), "recent": np.array([0.5, -1])}
    return about().to_json(), arrays


def load(folder, facts, arrays):
    """What is read of these facts and arrays, as files with fitting checksums."""
    checkpoint.save(folder, 1, facts, arrays)
    return checkpoints.load(str(folder))


def test_a_sound_checkpoint_is_read(tmp_path):
    facts, arrays = facts_and_arrays()
    read, same = load(tmp_path, facts, arrays)
    assert read == about()
    assert same.keys() == arrays.keys()
    assert not read.is_finished


def nonsense(name, value):
    return lambda facts, arrays: facts.__setitem__(name, value)


def in_grid(name, value):
    return lambda facts, arrays: facts["grid"].__setitem__(name, value)


def in_outcome(name, value):
    return lambda facts, arrays: facts["outcomes"][0].__setitem__(name, value)


def array(name, value):
    return lambda facts, arrays: arrays.__setitem__(name, np.array(value))


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda facts, arrays: facts.pop("grid"), 'it has no "grid"'),
        (nonsense("grid", []), "grid is not an object"),
        (in_grid("L", "2"), "grid.L is not a whole number from 2 on"),
        (in_grid("L", True), "grid.L is not a whole number from 2 on"),
        (in_grid("M", 10**400), "grid.M is not a whole number from 1 on"),
        (in_grid("N", 4), "grid.N is larger than grid.M"),
        (in_grid("kernel_num", [8, 4]), "kernel_num has not a number a conv layer"),
        (in_grid("kernel_num", [85]), "layer 1: a kernel of 85 pixels"),
        (in_grid("stride_size", [0]), r"grid.stride_size\[0\] is not a whole number"),
        (in_grid("actions", [3]), "grid.actions are those of other games"),
        (in_grid("actions", [3, 4]), "catch has not 4 actions"),
        (in_grid("use_lstm", 0), "grid.use_lstm is not true or false"),
        (in_grid("use_lstm", True), "there is no array task1/lstm/kernel"),
        (in_grid("M", 4), "the array fixed_paths is not of shape"),
        (nonsense("games", []), "games is empty"),
        (nonsense("games", ["catch", 3]), "is not printable text"),
        (nonsense("games", ["catch", "\x1b[2J"]), "is not printable text"),
        (nonsense("games", ["catch", "chess"]), "no game is called 'chess'"),
        (nonsense("actors", 2.0), "actors is not a whole number from 2 on"),
        (nonsense("actors", 3), "the array paths is not of shape"),
        (nonsense("flags", []), "flags is not an object"),
        (nonsense("flags", {}), 'flags has no "max_time_step"'),
        (nonsense("flags", {"max_time_step": float("nan")}), "max_time_step is not a"),
        (nonsense("flags", FLAGS | {"log_dir": 3}), "flags.log_dir is not the name"),
        (nonsense("flags", FLAGS | {"seed": {}}), "something that is no value of a"),
        (lambda facts, arrays: facts.pop("outcomes"), "outcomes is not a list"),
        (nonsense("outcomes", {}), "outcomes is not a list"),
        (nonsense("outcomes", []), "there is not an outcome for each task"),
        (nonsense("outcomes", [OUTCOME] * 3), "outcomes are of other games"),
        (nonsense("outcomes", [3]), r"outcomes\[0\] is not an object"),
        (nonsense("results", 3), "results is not the name of a folder"),
        (nonsense("results", "logs"), "results are of other tasks"),
        (in_outcome("name", "pong"), "outcomes are of other games"),
        (in_outcome("steps", -1), "steps is not a whole number from 0 on"),
        (in_outcome("score", float("nan")), "score is not a number"),
        (in_outcome("path", [[0, 1], [0, 3]]), "is not a whole number from 0 to 2"),
        (in_outcome("path", [[0, 1], [0]]), "is not a list of 2"),
        (in_outcome("curve", {"steps": []}), 'curve has no "return"'),
        (lambda facts, arrays: arrays.pop("layer1/bias"), "no array layer1/bias"),
        (array("layer2/bias", np.ones([3, 255], np.float32)), "is not of shape"),
        (array("layer2/bias", np.ones([3, 256])), "is not of float32"),
        (array("versions", ["1", "1"]), "an array is not made of numbers"),
        (array("returns", [1, np.inf]), "returns holds a number that is not finite"),
        (array("task2/value/bias/square", np.float32([-1])), "is not from 0 to inf"),
        (array("steps", -5), "the array steps holds a number that is not from 0 to"),
        (array("generation", 2**60), "generation holds a number that is not from 0"),
        (array("task", 2), "there is not an outcome for each task"),
        (array("paths", np.full([2, 2, 2], 3)), "a number that is not from 0 to 2"),
        (
            array("fixed_paths", np.full([2, 2, 3], 0.5, np.float32)),
            "the array fixed_paths holds a number that is not 0 or 1",
        ),
        (array("curve", np.ones([2, 3])), "the array curve is not of shape"),
        (array("curve", -np.ones([2, BINS])), "the curve has episodes below 0"),
        (array("recent", np.ones(31)), "there are too many returns"),
        (array("recent", ["x"]), "an array is not made of numbers"),
        (array("recent", np.array([{}], object)), "was not made by this project"),
    ],
)
def test_nonsense_is_one_line(tmp_path, damage, fault):
    facts, arrays = facts_and_arrays()
    facts = copy.deepcopy(facts)
    damage(facts, arrays)
    with pytest.raises(UserError, match=fault) as refused:
        load(tmp_path, facts, arrays)
    text = str(refused.value)
    assert text.isprintable() and str(tmp_path) in text


def places(value, way=()):
    """The way to every value in what JSON holds."""
    yield way
    entries = value.items() if isinstance(value, dict) else ()
    entries = enumerate(value) if isinstance(value, list) else entries
    for key, inner in entries:
        yield from places(inner, (*way, key))


VALUES = [
    None,
    True,
    -1,
    0,
    3,
    1.5,
    float("nan"),
    float("inf"),
    10**30,
    10**400,
    "",
    "x",
]
VALUES += ["\x1b[2J", "\udc80", [], {}, [[]], [None], {"a": 1}, [1] * 50]


def damage_facts(facts, rng):
    *way, last = list(places(facts))[1:][rng.integers(len(list(places(facts))) - 1)]
    inner = facts
    for key in way:
        inner = inner[key]
    if rng.integers(4) == 0:
        del inner[last]
    else:
        # A copy: a second damage within the first one must not change VALUES.
        inner[last] = copy.deepcopy(VALUES[rng.integers(len(VALUES))])


def damage_arrays(arrays, rng):
    name = list(arrays)[rng.integers(len(arrays))]
    value = arrays[name]
    match rng.integers(0, 7):
        case 0:
            del arrays[name]
        case 1:
            dtypes = ["float32", "float64", "int64", "bool", "complex64", "U1", "V4"]
            arrays[name] = np.zeros(value.shape, rng.choice(dtypes))
        case 2:
            arrays[name] = value[None]
        case 3:
            arrays[name] = value.ravel()[:-1]
        case 4:
            worst = [np.nan, np.inf, -np.inf, -1, 2**62]
            filled = np.zeros(value.shape) + rng.choice(worst)
            with np.errstate(invalid="ignore"):
                arrays[name] = filled.astype(value.dtype)
        case 5:
            arrays[name] = np.zeros([0, *value.shape], value.dtype)
        case 6:
            arrays[name] = value.astype(value.dtype.newbyteorder())


@pytest.mark.slow
def test_whatever_a_checkpoint_holds_it_is_read_or_refused_in_one_line(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # in no hurry
    rng = np.random.default_rng(0)
    facts, arrays = facts_and_arrays()
    types = checkpoints.array_types(GRID, ACTORS)
    for case in range(FUZZ_CASES):
        now, values = copy.deepcopy(facts), dict(arrays)
        for _ in range(rng.integers(1, 3)):
            if rng.integers(2):
                damage_facts(now, rng)
            else:
                damage_arrays(values, rng)
        try:
            read, held = load(tmp_path / str(case), now, values)
        except UserError as refused:
            assert str(tmp_path) in str(refused) and str(refused).isprintable()
            continue
        assert replace(read, flags={}, outcomes=[]) == about(flags={}, outcomes=[])
        for name, (dtype, shape) in types.items():
            assert (held[name].dtype, held[name].shape) == (dtype, shape)
        # What goes on from it can print every flag.
        other = about(flags={name: "other" for name in FLAGS})
        with pytest.raises(UserError) as refused:
            checkpoints.check_same_settings(read, other, DECISIVE, "folder")
        assert str(refused.value).isprintable()


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.write_text("x")])
def test_what_is_no_folder_is_refused(tmp_path, make):
    make(tmp_path / "file")
    with pytest.raises(UserError, match="file: is no folder; name another"):
        checkpoints.load(str(tmp_path / "file"))


def test_no_checkpoint_is_none(tmp_path):
    assert checkpoints.load(str(tmp_path)) is None
    assert checkpoints.load(str(tmp_path / "nowhere")) is None


def test_the_folder_of_a_run_means_its_checkpoints(tmp_path):
    run, saved = tmp_path / "run", tmp_path / "run" / "checkpoints"
    assert checkpoints.find(str(run)) == str(run)
    saved.mkdir(parents=True)
    assert checkpoints.find(str(run)) == str(run)
    checkpoint.save(saved, 1, *facts_and_arrays())
    assert checkpoints.find(str(run)) == str(saved)
    assert checkpoints.find(str(saved)) == str(saved)


# ---- Going on ----


def refusal(saved, run):
    with pytest.raises(UserError) as refused:
        checkpoints.check_same_settings(saved, run, DECISIVE, "saved")
    return str(refused.value)


@pytest.mark.parametrize("name", sorted(set(FLAGS) - set(checkpoints.MAY_CHANGE)))
def test_every_flag_that_decides_what_is_learned_must_agree(name):
    """But those of the population and the grid, which are compared as they are."""
    run = about(flags=FLAGS | {name: 77})
    if name in ("games", "worker_hosts_num", "M"):
        checkpoints.check_same_settings(about(), run, DECISIVE, "saved")
    else:
        assert refusal(about(), run) == (
            f"flag --checkpoint_dir=saved: made with --{name}={FLAGS[name]}, and this run "
            "has 77; name another folder or give the same flags"
        )


@pytest.mark.parametrize("name", checkpoints.MAY_CHANGE)
def test_what_ends_a_task_may_change(name):
    run = about(flags=FLAGS | {name: 5})
    checkpoints.check_same_settings(about(), run, DECISIVE, "saved")


def test_the_environments_of_a_checkpoint_that_left_them_to_its_machine_are_unknown():
    name, decisive = "envs_per_worker", {**DECISIVE, "envs_per_worker": 16}
    run = about(flags=FLAGS | {name: 16})
    for number in (None, 16):
        saved = about(flags=FLAGS | {name: number})
        checkpoints.check_same_settings(saved, run, decisive, "saved")
    with pytest.raises(UserError, match="made with --envs_per_worker=8"):
        saved = about(flags=FLAGS | {name: 8})
        checkpoints.check_same_settings(saved, run, decisive, "saved")


def test_a_flag_that_an_earlier_version_did_not_have_had_its_default():
    earlier = {name: value for name, value in FLAGS.items() if name != "t_max"}
    checkpoints.check_same_settings(about(flags=earlier), about(), DECISIVE, "saved")
    run = about(flags=FLAGS | {"t_max": 5})
    assert "made with --t_max=20, and this run has 5" in refusal(
        about(flags=earlier), run
    )


def test_control_characters_of_a_flag_are_not_printed():
    saved = about(flags=FLAGS | {"t_max": "\x1b[2J" * 1000})
    text = refusal(saved, about())
    assert text.isprintable() and len(text) < 600


# ---- Finished ----


OUTCOMES = [OUTCOME, OUTCOME | {"steps": 20}]


def test_a_run_is_over_once_its_results_are_recorded():
    assert checkpoints.nothing_to_do(about(outcomes=OUTCOMES), "saved") is None
    over = about(outcomes=OUTCOMES, results="logs/\x1b[2J")
    assert over.is_finished
    assert checkpoints.nothing_to_do(over, "saved") == (
        "Nothing to do: all tasks in saved are finished; the results are in "
        r"logs/\x1b[2J"
    )


def test_a_finished_checkpoint_of_an_earlier_version_is_recorded(tmp_path):
    facts, arrays = facts_and_arrays()
    for outcomes, where in (([OUTCOME], None), (OUTCOMES, "logs/run")):
        facts |= {"outcomes": outcomes, "flags": FLAGS | {"log_dir": "logs/run"}}
        del facts["results"]
        arrays["task"] = np.array(len(outcomes))
        read, _ = load(tmp_path / str(len(outcomes)), facts, arrays)
        assert read.results == where
        facts["results"] = None


def test_results_files_are_searched_for_outcomes(tmp_path):
    file = tmp_path / "results.jsonl"
    assert not checkpoints.is_recorded(str(tmp_path), OUTCOMES)
    lines = ["[" * 100_000, "3", '{"tasks": 3}', json.dumps({"tasks": [OUTCOME]})]
    file.write_text("\n".join(lines))
    assert not checkpoints.is_recorded(str(tmp_path), OUTCOMES)
    with open(file, "a") as more:
        more.write("\n" + json.dumps({"seed": 1, "tasks": OUTCOMES}) + "\n")
    assert checkpoints.is_recorded(str(tmp_path), OUTCOMES)


def test_results_that_are_no_file_hold_nothing(tmp_path):
    os.mkfifo(tmp_path / "results.jsonl")
    assert not checkpoints.is_recorded(str(tmp_path), OUTCOMES)


# ---- What another run has learned ----


def finished(folder, **changes):
    """Checkpoints of a finished run of one task, and the run that is to go on from it."""
    grid = replace(GRID, actions=(3,))
    arrays = {
        name: np.full(shape, 1, dtype)
        for name, (dtype, shape) in checkpoints.array_types(grid, ACTORS).items()
    }
    arrays |= {"curve": np.ones([2, BINS]), "recent": np.array([0.5, -1])}
    one = about(grid=grid, games=("catch",))
    checkpoint.save(folder, 1, one.to_json(), arrays)
    return about(outcomes=[], **changes)


def test_what_another_run_has_learned_is_read(tmp_path):
    run = finished(tmp_path)
    read, arrays = checkpoints.learned(str(tmp_path), run)
    assert read.games == ("catch",) and read.is_finished
    names = checkpoints.parameter_shapes(read.grid)
    assert "layer2/bias" in names and "task1/value/kernel" in names
    assert set(names) < set(arrays)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        (
            {"games": ("pong", "catch")},
            "has learned catch; --games must begin with that",
        ),
        ({"games": ("catch",)}, "has learned catch; --games must begin with that"),
        ({"grid": replace(GRID, M=4)}, "made with --M=3, and this run has 4; give the"),
        (
            {"grid": replace(GRID, actions=(6, 3))},
            "made with --actions=3, and this run has 6,3; give the same",
        ),
    ],
)
def test_what_another_run_has_learned_must_fit(tmp_path, changes, fault):
    run = finished(tmp_path, **changes)
    with pytest.raises(UserError) as refused:
        checkpoints.learned(str(tmp_path), run)
    assert str(refused.value).startswith(f"flag --load_dir={tmp_path}: {fault}")


def test_another_run_must_be_over_and_there(tmp_path):
    checkpoint.save(tmp_path / "on", 1, *facts_and_arrays())
    for name, fault in {
        "on": "its task 2, catch, is not over; let that run end first",
        "none": "no checkpoint there",
    }.items():
        with pytest.raises(UserError) as refused:
            checkpoints.learned(str(tmp_path / name), about(outcomes=[]))
        assert str(refused.value) == f"flag --load_dir={tmp_path / name}: {fault}"
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="flag --load_dir=.*file: is no folder"):
        checkpoints.learned(str(tmp_path / "file"), about())

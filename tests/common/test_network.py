"""Tests of network.py: what is stored comes back; nonsense is refused with its reason."""

import shutil
import tracemalloc

import numpy as np
import pytest
from fuzzing import (
    FUZZ_CASES,
    assert_is_one_line,
    damaged,
    nonsensical,
    nonsensical_arrays,
    reseal,
)

import pathnet
from common import checkpoint, network
from common.commandline import UserError


def learned():
    """A Network of one task."""
    task = {"name": "1v3", "title": "1 vs 3", "generations": 7, "fitness": 0.99}
    task |= {"accuracy_test": 0.9, "seconds": 1.5, "converged": True}
    task |= {"path": [[0, 2], [3, 3]], "curve": {"generation": [7], "fitness": [0.99]}}
    return network.Network(
        script="trial",
        flags={"L": 2, "M": 4, "N": 2, "seed": 3, "module_kinds": "mixed"},
        tasks=[{**task, "retention": [0.9]}],
        active=np.array([[[1, 0, 1, 0], [0, 0, 0, 1]]], np.float32),
        fixed_path=np.zeros([2, 4], np.float32),
        parameters={"layer1/kernel": np.arange(6, dtype=np.float32)},
    )


def interrupted():
    """A State that is learning a second task."""
    parts = vars(learned()) | {"flags": learned().flags | {"max_steps": 9}}
    return network.State(
        **parts,
        names=["1v3", "1v2"],
        generation=3,
        seconds=2.5,
        curve={"generation": [1, 2, 3], "fitness": [0.5, 0.75, 1]},
        population=np.array([[[0, 1], [2, 3]]]),
    )


def assert_equal(found, original):
    """Both are Networks, or States, of the same content."""
    assert type(found) is type(original)
    for name, value in vars(original).items():
        np.testing.assert_equal(getattr(found, name), value)


# ---- Finished networks ----


def test_a_network_comes_back(tmp_path):
    original = learned()
    network.write_network(tmp_path / "net", original)
    assert_equal(network.read_network(tmp_path / "net"), original)


NAN = float("nan")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": None}, "name is not printable text"),
        ({"title": 3}, "title is not printable text"),
        ({"title": "\x1b[31mred"}, "title is not printable text"),
        ({"path": [[0, 2], [3, 4]]}, "path[1][1] is not a whole number from 0 to 3"),
        ({"path": [[0, 2], [3, -1]]}, "path[1][1] is not a whole number from 0 to 3"),
        ({"path": [[0, 2]]}, "path is not a list of 2"),
        ({"path": [[0, 2], [3]]}, "path[1] is not a list of 2"),
        ({"path": [[0.0, 2], [3, 3]]}, "path[0][0] is not a whole number from 0 to 3"),
        ({"path": "0 2"}, "path is not a list"),
        ({"retention": []}, "retention is not a list of 1"),
        ({"retention": ["0.9"]}, "retention[0] is not a number from 0 to 1"),
        ({"retention": None}, "retention is not a list"),
        *[
            ({"generations": value}, "generations is not a whole number from 1 on")
            for value in ("7", 1.5, NAN, True, -5, 0, 10**30, 10**400)
        ],
        *[
            ({"fitness": value}, "fitness is not a number from 0 to 1")
            for value in (NAN, float("inf"), 10**400, "0.9", True, -0.1)
        ],
        *[
            ({"seconds": value}, "seconds is not a number from 0 on")
            for value in (NAN, 10**400, -1, "long")
        ],
        ({"accuracy_test": None}, "accuracy_test is not a number from 0 to 1"),
        ({"converged": 1}, "converged is not true or false"),
        ({"curve": []}, "curve is not an object"),
        (
            {"curve": {"generation": [1], "fitness": [NAN]}},
            "curve.fitness[0] is not a number from 0 to 1",
        ),
    ],
)
def test_a_network_of_nonsense_is_refused(tmp_path, change, reason):
    original = learned()
    original.tasks[0].update(change)
    network.write_network(tmp_path / "net", original)
    with pytest.raises(UserError) as caught:
        network.read_network(tmp_path / "net")
    assert str(caught.value) == (
        f"{tmp_path / 'net'}: holds no finished network of this version: "
        f"tasks[0].{reason}"
    )


@pytest.mark.parametrize("name", learned().tasks[0])
def test_a_task_that_lacks_an_entry_is_refused(tmp_path, name):
    original = learned()
    del original.tasks[0][name]
    network.write_network(tmp_path / "net", original)
    with pytest.raises(UserError) as caught:
        network.read_network(tmp_path / "net")
    assert f'no finished network of this version: tasks[0] has no "{name}"' in str(
        caught.value
    )


FLAGS = learned().flags


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"tasks": ()}, "active is not of shape [0, 2, 4]"),
        ({"tasks": (), "active": np.zeros([0, 2, 4])}, "no task is learned"),
        ({"tasks": ["1v3"]}, "tasks[0] is not an object"),
        ({"script": "\x1b[2J"}, "script is not printable text"),
        ({"flags": {"L": 2, "M": 4}}, 'flags has no "N"'),
        ({"flags": FLAGS | {"M": 10**30}}, "flags.M is not a whole number from 1 to"),
        ({"flags": FLAGS | {"seed": "\x1b"}}, "flags.seed is not a whole number"),
        ({"flags": FLAGS | {"control": ["scratch"]}}, "it was learned under a control"),
        ({"active": np.zeros([1, 2, 3])}, "active is not of shape [1, 2, 4]"),
        ({"active": np.full([1, 2, 4], -1)}, "active holds a number that is not from"),
        ({"active": np.full([1, 2, 4], 0.5)}, "active holds a number that is not 0"),
        (
            {
                "active": np.full([1, 2, 4], 0.25),
                "flags": FLAGS | {"frozen_share": 0.5},
            },
            "active holds a number that is not 0, 0.5 or 1",
        ),
        (
            {"flags": FLAGS | {"frozen_share": NAN}},
            "flags.frozen_share is not a number from 0 to 1",
        ),
        ({"active": np.full([1, 2, 4], NAN)}, "active holds a number that is not fin"),
        ({"fixed_path": np.zeros([2, 3])}, "fixed_path is not of shape [2, 4]"),
        (
            {"parameters": {"a": np.array([1, NAN])}},
            "a parameter holds a number that is not finite",
        ),
        (
            {"parameters": {"a": np.array([1])}},
            "a parameter is not an array of the right kind of numbers",
        ),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(tmp_path, changes, reason):
    changed = network.Network(**vars(learned()) | changes)
    network.write_network(tmp_path / "net", changed)
    with pytest.raises(UserError) as caught:
        network.read_network(tmp_path / "net")
    assert f"holds no finished network of this version: {reason}" in str(caught.value)


@pytest.mark.parametrize("name", ["active", "fixed_path", "parameters"])
@pytest.mark.parametrize("kind", ["U3", "V4", "c16", "M8[s]", "O"])
def test_arrays_of_anything_but_numbers_are_refused(tmp_path, name, kind):
    array = np.zeros([2, 4], kind)
    value = {"layer1/kernel": array} if name == "parameters" else array
    changed = network.Network(**vars(learned()) | {name: value})
    network.write_network(tmp_path / "net", changed)
    with pytest.raises(UserError, match="arrays.npz: was not made by .* of numbers"):
        network.read_network(tmp_path / "net")


def test_a_checkpoint_of_something_else_is_no_network(tmp_path):
    about = {"script": "trial", "flags": {"seed": 3}, "tasks": [1.5, "1v3"]}
    checkpoint.write(tmp_path / "net", about, {"active": np.zeros([2, 3, 4])})
    with pytest.raises(UserError, match="no finished network"):
        network.read_network(tmp_path / "net")


# ---- Interrupted runs ----


def test_a_state_comes_back(tmp_path):
    original = interrupted()
    network.save_state(tmp_path, original)
    assert_equal(network.load_state(tmp_path), original)
    # Seven generations of the first task and three of the second.
    assert [path.name for path in tmp_path.iterdir()] == [f"checkpoint-{10:012d}"]


def test_without_a_checkpoint_there_is_no_state(tmp_path):
    assert network.load_state(tmp_path) is None
    assert network.load_state(tmp_path / "absent") is None


def test_a_state_of_nonsense_is_refused(tmp_path):
    """Checksums that fit do not make a state of it."""
    folder = tmp_path / "checkpoints"
    network.save_state(folder, interrupted())
    about, arrays = checkpoint.load(folder)
    population = arrays["population"]
    a_curve = "curve has lists of several lengths"
    a_number = "is not a number from 0 on"
    before_the_last = "generation is not a whole number from 0 to 8"
    wrong = [
        ({"generation": 9}, {}, before_the_last),
        ({"generation": -1}, {}, before_the_last),
        ({"generation": "2"}, {}, before_the_last),
        ({"generation": True}, {}, before_the_last),
        ({"curve": {"generation": [1], "fitness": []}}, {}, a_curve),
        ({"curve": {"generation": [1]}}, {}, 'curve has no "fitness"'),
        (
            {"curve": {"generation": [1], "fitness": "1"}},
            {},
            "curve.fitness is not a list",
        ),
        ({"curve": [[], []]}, {}, "curve is not an object"),
        ({"names": []}, {}, "names are not those of the learned tasks"),
        ({"names": ["1v3"]}, {}, "all tasks are learned already"),
        ({"names": ["1v3", 2]}, {}, "names[1] is not printable text"),
        ({"names": ["1v3", "\x1b[2J"]}, {}, "names[1] is not printable text"),
        ({"names": None}, {}, "names is not a list"),
        ({"seconds": "long"}, {}, f"seconds {a_number}"),
        ({"seconds": 10**400}, {}, f"seconds {a_number}"),
        ({"flags": {}}, {}, 'flags has no "L"'),
        (
            {"flags": about["flags"] | {"max_steps": "9"}},
            {},
            "flags.max_steps is not a whole number from 1 on",
        ),
        (
            {},
            {"population": population + 4},
            "population holds a number that is not from 0 to 3",
        ),
        (
            {},
            {"population": population[:, :1]},
            "population is not of shape [n, 2, 2]",
        ),
        ({}, {"population": population[:0]}, "population is empty"),
        (
            {},
            {"population": population.astype(float)},
            "population is not an array of the right kind of numbers",
        ),
        ({}, {"active": population}, "active is not of shape [1, 2, 4]"),
    ]
    for facts, others, reason in wrong:
        shutil.rmtree(folder)
        checkpoint.save(folder, 1, about | facts, arrays | others)
        with pytest.raises(UserError) as caught:
            network.load_state(folder)
        refusal = f"{folder}: no checkpoint of this version: {reason}"
        assert str(caught.value).startswith(refusal)


def test_a_state_of_fixed_size_has_a_path_of_modules_only(tmp_path):
    original = interrupted()
    original.flags["control"] = ["fixed_size"]
    original.tasks[0]["path"] = [[0, 1], [1, 1]]
    small = {
        "active": np.ones([1, 2, 2]),
        "fixed_path": np.zeros([2, 2]),
        "population": np.array([[[0, 1], [0, 1]]]),
    }
    state = network.State(**vars(original) | small)
    network.save_state(tmp_path, state)
    assert_equal(network.load_state(tmp_path), state)


def test_reasons_are_short(tmp_path):
    network.save_state(tmp_path, interrupted())
    (folder,) = checkpoint.saved(tmp_path)
    about, arrays = checkpoint.load(tmp_path)
    long = {"format": "long" * 10**6}
    for facts in (about | {"seconds": "long" * 10**6}, about | long):
        shutil.rmtree(folder)
        checkpoint.save(tmp_path, 1, facts, arrays)
        with pytest.raises(UserError) as caught:
            network.load_state(tmp_path)
        assert len(str(caught.value)) < len(str(tmp_path)) + 300
        (folder,) = checkpoint.saved(tmp_path)


# ---- Damage of all kinds, under checksums that fit; PATHNET_FUZZ_CASES sets how much ----


@pytest.mark.parametrize("name", checkpoint.FILES)
def test_damaged_states_with_checksums_that_fit(tmp_path, name, monkeypatch):
    """Refused in a line that names the file, or read."""
    monkeypatch.setattr(checkpoint.commandline, "say", lambda message: None)
    network.save_state(tmp_path, interrupted())
    (folder,) = checkpoint.saved(tmp_path)
    whole, refused = (folder / name).read_bytes(), 0
    tracemalloc.start()
    for seed in range(FUZZ_CASES):
        (folder / name).write_bytes(damaged(whole, np.random.default_rng(seed)))
        reseal(folder)
        try:
            network.load_state(tmp_path)
        except UserError as error:
            refused += 1
            assert_is_one_line(error, tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused > FUZZ_CASES / 4
    assert peak < 20e6


def fuzzed(folder, about, arrays):
    """Yields after each change of the facts, or of the arrays, of a checkpoint."""
    for seed in range(FUZZ_CASES):
        rng = np.random.default_rng(seed)
        facts = nonsensical(about, rng) if seed % 2 else about
        others = arrays if seed % 2 else nonsensical_arrays(arrays, rng)
        shutil.rmtree(folder)
        checkpoint.write(folder, facts, others)
        yield


def test_nonsensical_networks_are_refused_or_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    monkeypatch.setattr("reports.paths.draw_paths", lambda *_: None)
    folder, refused = tmp_path / "net", 0
    network.write_network(folder, learned())
    for _ in fuzzed(folder, *checkpoint.read(folder)):
        try:
            pathnet.show(folder)
        except UserError as error:
            refused += 1
            assert_is_one_line(error, folder)
    output = capsys.readouterr().out
    assert all(line.isprintable() for line in output.splitlines())
    assert FUZZ_CASES > refused > FUZZ_CASES / 4


def test_nonsensical_states_are_refused_or_are_states(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    network.save_state(tmp_path, interrupted())
    (folder,) = checkpoint.saved(tmp_path)
    refused = 0
    for _ in fuzzed(folder, *checkpoint.read(folder)):
        try:
            state = network.load_state(tmp_path)
        except UserError as error:
            refused += 1
            assert_is_one_line(error, tmp_path)
        else:
            assert 0 <= state.generation < state.flags["max_steps"]
            assert np.isfinite([state.seconds, *state.curve["fitness"]]).all()
            assert all(np.isfinite(array).all() for array in state.parameters.values())
            assert np.isin(state.active, (0, 1)).all()
            paths = pathnet.to_geopath(state.population, state.active.shape[2])
            assert paths.any(-1).all()
    assert FUZZ_CASES > refused > FUZZ_CASES / 4

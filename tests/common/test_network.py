"""Tests of network.py: what is stored comes back; nonsense is refused with its reason."""

import shutil
import tracemalloc

import numpy as np
import pytest
from fuzzing import FUZZ_CASES, damaged, reseal

from common import checkpoint, network
from common.commandline import UserError


def learned():
    """A Network of one task."""
    task = {"name": "1v3", "title": "1 vs 3", "generations": 7, "fitness": 0.99}
    task |= {"accuracy_test": 0.9, "seconds": 1.5, "converged": True}
    task |= {"path": [[0, 2], [3, 3]], "curve": {"generation": [7], "fitness": [0.99]}}
    return network.Network(
        script="trial",
        flags={"L": 2, "M": 4, "N": 2, "seed": 3},
        tasks=[{**task, "retention": [0.9]}],
        active=np.array([[[1, 0, 1, 0], [0, 0, 0, 1]]], np.float32),
        fixed_path=np.zeros([2, 4], np.float32),
        parameters={"layer1/kernel": np.arange(6.0)},
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


def test_a_network_of_fixed_size_has_a_path_of_modules_only(tmp_path):
    original = learned()
    original.flags["control"] = ["fixed_size"]
    original.tasks[0]["path"] = [[0, 1], [1, 1]]
    parts = vars(original) | {"active": np.ones([1, 2, 2])}
    small = network.Network(**parts | {"fixed_path": np.zeros([2, 2])})
    network.write_network(tmp_path / "net", small)
    assert_equal(network.read_network(tmp_path / "net"), small)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": None}, "the name of task 1 is not text"),
        ({"title": 3}, "the title of task 1 is not text"),
        ({"path": [[0, 2], [3, 4]]}, "task 1 has a path through modules that do not"),
        ({"path": [[0, 2], [3, -1]]}, "task 1 has a path through modules that do not"),
        ({"path": [[0, 2]]}, "task 1 has a path through another grid"),
        ({"path": [[0, 2], [3]]}, "task 1 has a path through another grid"),
        ({"path": [[0.0, 2.0], [3.0, 3.0]]}, "task 1 has a path that is not made of"),
        ({"path": "0 2"}, "task 1 has a path through another grid"),
        ({"retention": []}, "the retention of task 1 is on other tasks"),
        ({"retention": ["0.9"]}, "the retention of task 1 is not a list of numbers"),
        ({"retention": None}, "the retention of task 1 is not a list of numbers"),
        ({"generations": "7"}, "the generations of task 1 is not a number"),
        ({"accuracy_test": None}, "the accuracy_test of task 1 is not a number"),
        ({"curve": []}, "the curve of task 1 has no fitness"),
    ],
)
def test_a_network_of_nonsense_is_refused(tmp_path, change, reason):
    original = learned()
    original.tasks[0].update(change)
    network.write_network(tmp_path / "net", original)
    refusal = f"{tmp_path / 'net'}: holds no finished network of this version: {reason}"
    with pytest.raises(UserError) as caught:
        network.read_network(tmp_path / "net")
    assert str(caught.value).startswith(refusal)


@pytest.mark.parametrize("name", learned().tasks[0])
def test_a_task_that_lacks_an_entry_is_refused(tmp_path, name):
    original = learned()
    del original.tasks[0][name]
    network.write_network(tmp_path / "net", original)
    with pytest.raises(
        UserError, match=f"no finished network .*: task 1 has no {name}"
    ):
        network.read_network(tmp_path / "net")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"tasks": ()}, "the active modules are those of other tasks"),
        ({"tasks": (), "active": np.zeros([0, 2, 4])}, "no task is learned"),
        ({"tasks": ["1v3"]}, "task 1 is not an object"),
        ({"flags": {"L": 2, "M": 4}}, "'N' is missing"),
        (
            {"active": np.zeros([1, 2, 3])},
            "the active modules are those of other tasks",
        ),
        ({"fixed_path": np.zeros([2, 3])}, "the fixed path is of another grid"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(tmp_path, changes, reason):
    changed = network.Network(**vars(learned()) | changes)
    network.write_network(tmp_path / "net", changed)
    with pytest.raises(UserError, match=f"no finished network of this .*: {reason}"):
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
    wrong = [
        (
            {"names": ["1v3"] * 3, "generation": 9},
            {},
            "the generation is not one before",
        ),
        ({"generation": -1}, {}, "the generation is not one before the last"),
        ({"generation": "2"}, {}, "the generation is not an integer"),
        (
            {"curve": {"generation": [1], "fitness": []}},
            {},
            "the curve has not a fitness",
        ),
        ({"curve": {"generation": [1]}}, {}, "'fitness' is missing"),
        (
            {"curve": {"generation": [1], "fitness": "1"}},
            {},
            "the curve is not made of",
        ),
        ({"curve": [[], []]}, {}, "the curve is not an object"),
        ({"names": []}, {}, "the names are not those of the learned tasks"),
        ({"names": ["1v3"]}, {}, "all tasks are learned already"),
        ({"names": ["1v3", 2]}, {}, "the name of a task is not text"),
        ({"names": None}, {}, ""),
        ({"seconds": "long"}, {}, "could not convert string to float: 'long'"),
        ({"seconds": 10**400}, {}, "int too large to convert to float"),
        ({"flags": {}}, {}, "'L' is missing"),
        (
            {"flags": about["flags"] | {"max_steps": "9"}},
            {},
            "max_steps is not a number",
        ),
        (
            {},
            {"population": population + 4},
            "the population has a path through modules",
        ),
        ({}, {"population": population[:, :1]}, "the population is of another grid"),
        ({}, {"population": population[:0]}, "the population is empty"),
        ({}, {"population": population.astype(float)}, "the population is not made of"),
        ({}, {"active": population}, "the active modules are those of other tasks"),
    ]
    for facts, others, reason in wrong:
        shutil.rmtree(folder)
        checkpoint.save(folder, 1, about | facts, arrays | others)
        with pytest.raises(UserError) as caught:
            network.load_state(folder)
        refusal = f"{folder}: no checkpoint of this version: {reason}"
        assert str(caught.value).startswith(refusal)


def test_reasons_are_short(tmp_path):
    network.save_state(tmp_path, interrupted())
    about, arrays = checkpoint.load(tmp_path)
    checkpoint.save(tmp_path, 1, about | {"seconds": "long" * 10**6}, arrays)
    with pytest.raises(UserError, match="could not convert string to float") as caught:
        network.load_state(tmp_path)
    assert len(str(caught.value)) < len(str(tmp_path)) + 300


@pytest.mark.parametrize("name", checkpoint.FILES)
def test_damaged_states_with_checksums_that_fit(tmp_path, name, monkeypatch):
    """Refused in a line that names the file, or read; PATHNET_FUZZ_CASES sets how many."""
    monkeypatch.setattr(checkpoint.commandline, "say", lambda line: None)
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
            assert str(tmp_path) in str(error), f"seed {seed}"
            assert "\n" not in str(error), f"seed {seed}"
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused > FUZZ_CASES / 4
    assert peak < 20e6

"""Tests of images_pathnet.py, run as a user runs it, on images of a user's own."""

import json
import os
import re
import signal
import time

import numpy as np
import pytest
from own_images import class_folders, idx_folder, npz, part

from common import network

pytestmark = pytest.mark.slow

SCRIPT = "images_pathnet.py"
SMALL = ("--L=2", "--M=6", "--N=2", "--filt=8", "--T=5", "--max_steps=3")
LAST_LINE = re.compile(r"(\S+?),TASK1:(\d\.\d{4}),TASK2:(\d\.\d{4}),Done")


def learned(file):
    """The tasks of the one result in a file, without times."""
    tasks = json.loads(file.read_text())["tasks"]
    return [{k: v for k, v in task.items() if k != "seconds"} for task in tasks]


def result_of(cwd):
    (file,) = (cwd / "logs").rglob("results.jsonl")
    (line,) = file.read_text().splitlines()
    return json.loads(line)


def test_digits_in_two_halves(scripts, tmp_path):
    """The default tasks, on the digits that come with the project."""
    finished = scripts.fork(tmp_path, SCRIPT, *SMALL, "--max_steps=10")
    assert finished.status == 0, finished
    name, *accuracies = LAST_LINE.fullmatch(finished.lines[-1]).groups()
    assert name == "mnist:0-4_mnist:5-9"
    tasks = result_of(tmp_path)["tasks"]
    assert [task["name"] for task in tasks] == ["mnist:0-4", "mnist:5-9"]
    held_out = [f"{task['accuracy_test_after_all']:.4f}" for task in tasks]
    assert held_out == accuracies
    assert min(task["accuracy_test"] for task in tasks) > 0.3  # guessing: 0.2
    (folder,) = (tmp_path / "logs").iterdir()
    assert folder.name.startswith("images__mnist_0-4_mnist_5-9__seed0__")
    names = {path.name for path in folder.iterdir()}
    assert {"task1_mnist_0-4", "task2_mnist_5-9", "paths.png", "evolution.gif"} <= names


def test_own_images_of_each_kind_in_one_run(scripts, tmp_path):
    """With two, three and ten classes, named by paths from where the user stands."""
    class_folders(tmp_path / "photos")
    npz(tmp_path / "a.npz")
    idx_folder(tmp_path / "fashion")
    tasks = "--tasks=photos/:0+2,a.npz,fashion,mnist,mnist~1"
    flags = "--size=6", "--grey", "--control=pathnet,scratch", "--max_steps=30"
    finished = scripts.fork(
        tmp_path, SCRIPT, *SMALL, *flags, tasks, "--stop_accuracy=.9"
    )
    assert finished.status == 0, finished
    assert finished.lines[-1].startswith(
        "photos:0+2_a.npz_fashion_mnist_mnist~1,TASK1:"
    )
    assert str(tmp_path) not in finished.stdout  # tables name tasks as the user does
    (file,) = (tmp_path / "logs").rglob("results.jsonl")
    one, other = map(json.loads, file.read_text().splitlines())
    assert one["tasks"][0]["name"] == f"{tmp_path}/photos/:0+2"
    assert one["backward_transfer"] == 0
    assert one["data"][f"{tmp_path}/a.npz"].startswith("30+9 images")
    assert all(task["accuracy_test"] > 0.7 for task in one["tasks"][:3])
    assert (one["control"], other["control"]) == ("pathnet", "scratch")

    drawn = scripts.fork(tmp_path, "plotting.py", str(file), "--retention=r.png")
    assert drawn.status == 0, drawn
    assert "photos:0+2" in drawn.stdout
    assert str(tmp_path) not in drawn.stdout
    assert list(tmp_path.glob("r*.png"))


def test_a_saved_network_goes_on_with_more_classes(scripts, tmp_path):
    """Its output layers of two and three classes become as wide as the third task needs."""
    train, test = part(60, classes=6), part(18, classes=6, seed=1)
    many = dict(zip(("x_train", "y_train", "x_test", "y_test"), (*train, *test)))
    npz(tmp_path / "few.npz")
    npz(tmp_path / "many.npz", **many)
    together = "--tasks=few.npz:0+2,few.npz,many.npz"
    flags = *SMALL, "--record=results"
    at_once = scripts.fork(tmp_path, SCRIPT, *flags, together)
    assert at_once.status == 0, at_once

    tasks = "--tasks=few.npz:0+2,few.npz"
    saved = scripts.fork(tmp_path, SCRIPT, *flags, tasks, "--save_dir=net")
    assert saved.status == 0, saved
    held = network.read_network(tmp_path / "net")
    assert held.parameters["output/kernel"].shape[:2] == (2, 3)
    # From another folder, with the rest on top of it.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    more = "--load_dir=../net", "--tasks=../many.npz", "--save_dir=more"
    finished = scripts.fork(elsewhere, SCRIPT, *flags, *more)
    assert finished.status == 0, finished
    names, *accuracies = finished.lines[-1].split(",")
    assert names == at_once.lines[-1].split(",")[0]
    assert len(accuracies) == 4  # of each task, and "Done"
    assert accuracies[:2] == saved.lines[-1].split(",")[1:3]
    wide = network.read_network(elsewhere / "more")
    assert wide.parameters["output/kernel"].shape[:2] == (3, 6)
    for name in ("output/kernel", "output/bias"):
        assert np.array_equal(wide.parameters[name][:2, :3], held.parameters[name])


def test_a_killed_run_goes_on_from_another_folder(scripts, tmp_path):
    npz(tmp_path / "a.npz")
    flags = (*SMALL, "--max_steps=400", "--stop_accuracy=1", "--learning_rate=1e-3")
    tasks = "--tasks=a.npz,a.npz~1"
    whole = scripts.fork(tmp_path, SCRIPT, *flags, tasks, "--log_dir=whole")
    assert whole.status == 0, whole
    often = "--checkpoint_seconds=0"
    running = scripts.start_fork(tmp_path, SCRIPT, *flags, tasks, often)
    deadline = time.monotonic() + 60
    found = []
    while not found and time.monotonic() < deadline:
        found = list((tmp_path / "logs").glob("*/checkpoints/checkpoint-*"))
        time.sleep(0.01)
    os.kill(running.pid, signal.SIGKILL)
    assert running.wait().status == -signal.SIGKILL
    assert found
    (folder,) = (tmp_path / "logs").iterdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    resumed = scripts.fork(elsewhere, SCRIPT, f"--resume={folder}")
    assert resumed.status == 0, resumed
    assert resumed.lines[-1] == whole.lines[-1]
    (once,) = (tmp_path / "whole").rglob("results.jsonl")
    assert learned(folder / "results.jsonl") == learned(once)


def test_the_preset_of_permuted_digits(scripts, tmp_path):
    preset = f"--flagfile={scripts.root}/presets/permuted_mnist.flags"
    flags = "--max_steps=2", "--T=2", "--filt=4", "--record=results", "--fake_data"
    finished = scripts.fork(tmp_path, SCRIPT, preset, *flags)
    assert finished.status == 0, finished
    result = result_of(tmp_path)
    names = ["mnist", *(f"mnist~{seed}" for seed in range(1, 10))]
    assert [task["name"] for task in result["tasks"]] == names
    assert not result["flags"]["fixed_path_active"]
    assert result["backward_transfer"] == 0


@pytest.mark.parametrize(
    ("tasks", "problem"),
    [
        ("mnist:3", "'mnist:3' must name two different classes"),
        ("a\x01", "cannot be printed"),
        ("nowhere/", "nowhere: no such file or folder"),
        ("mnist,cut.npz", "cut.npz"),
        ("mnist,a.npz", "add --size=6"),
    ],
)
def test_mistakes_are_one_line(scripts, tmp_path, tasks, problem):
    content = npz(tmp_path / "a.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[:-50])
    finished = scripts.fork(tmp_path, SCRIPT, f"--tasks={tasks}")
    assert finished.status == 2
    (line,) = finished.stderr.splitlines()
    assert problem in line
    assert not (tmp_path / "logs").exists()

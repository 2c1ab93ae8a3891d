"""What earlier versions of this project wrote can still be used.

The files in earlier/ are those of a small network, of a run that was interrupted and of
a cluster on catch.
"""

import json
import shutil
from pathlib import Path

import pytest

from common import commandline, results
from common.commandline import LEARNING, NETWORK
from reports import tables
from supervised.settings import define_binary_mnist_flags

pytestmark = pytest.mark.slow

EARLIER = Path(__file__).parent / "earlier"
MNIST = "binary_mnist_pathnet.py"


@pytest.fixture
def files(tmp_path):
    """A copy of the files, in the folder that the scripts run in."""
    return shutil.copytree(EARLIER, tmp_path / "earlier")


def the_result(cwd):
    (file,) = (cwd / "logs").rglob("results.jsonl")
    return json.loads(file.read_text())


def test_flags_and_a_network_to_learn_one_more_task_on(scripts, files):
    finished = scripts.fork(
        files, MNIST, "--flagfile=small.flags", "--load_dir=network", "--tasks=4v5"
    )
    assert finished.status == 0
    before = json.loads((files / "results.jsonl").read_text())["tasks"]
    now = the_result(files)["tasks"]
    assert [task["name"] for task in now] == ["1v3", "1v2", "4v5"]
    for earlier, task in zip(before, now):
        assert task["path"] == earlier["path"]
        assert task["accuracy_test_after_all"] == earlier["accuracy_test"]


def test_a_network_to_show(scripts, files):
    finished = scripts.fork(files, "pathnet.py", "show", "network")
    assert finished.status == 0
    assert "binary_mnist, seed 0: 2 layers of 4 modules" in finished.stdout


def test_a_run_to_resume(scripts, files):
    finished = scripts.fork(files, MNIST, "--resume=stopped")
    assert finished.status == 0
    resumed = json.loads((files / "stopped" / "results.jsonl").read_text())
    whole = json.loads((files / "results.jsonl").read_text())
    for task, other in zip(resumed["tasks"], whole["tasks"]):
        assert task["path"] == other["path"]
        assert task["curve"] == other["curve"]


def test_flags_that_were_added_later_are_as_before(files):
    """A file names none of them; results of today's default are of the same setting."""
    held = json.loads((files / "results.jsonl").read_text())
    (read,) = results.read([files / "results.jsonl"])
    assert held["flags"].items() <= read["flags"].items()
    decided = commandline.decided_by(define_binary_mnist_flags)
    settings = {name for name, what in decided.items() if what in (NETWORK, LEARNING)}
    assert settings <= read["flags"].keys()
    now = {"mutation_rate": None, "paths": "genes", "draw_with_replacement": False}
    now |= {"select_by": "train", "mini_batches": "random", "noise_share": "0.5"}
    now |= {"fixed_path_random": False, "frozen_share": 1.0, "train_images": "all"}
    assert read["flags"] == held["flags"] | now
    today = read | {"seed": 1, "flags": held["flags"] | now}
    assert list(tables.by_setting([read, today], ["seed"])) == [""]


def test_results_to_tabulate_and_draw(scripts, files):
    supervised = scripts.fork(
        files, "plotting.py", "results.jsonl", "--generations=picture.png"
    )
    assert (supervised.status, supervised.stderr) == (0, "")
    assert "| 1v3 | first | 0 of 1 converged |" in supervised.stdout
    games = scripts.fork(files, "plotting.py", "atari/results.jsonl")
    assert "| 0 | 2: catch | 3,040 |" in games.stdout


def test_a_player_to_watch(scripts, files):
    flags = ("--play", "--checkpoint_dir=atari/checkpoints", "--play_task=1")
    finished = scripts.run(files, "atari_pathnet.py", *flags)
    assert finished.status == 0
    assert "Task 1, catch, on the path" in finished.stdout

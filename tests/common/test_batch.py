"""Tests of batch.sh, by way of the auto_*.sh scripts: real batches of tiny repeats."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from common import results

pytestmark = pytest.mark.slow

ROOT = Path(results.__file__).parent.parent
TINY = ["--fake_data", "--max_steps=3", "--T=2", "--candi=2"]


def environment(folder, **variables):
    """That of a batch with its results in a folder."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return os.environ | {"PATH": path, "BATCH_DIR": str(folder)} | variables


def batch(folder, *arguments, script="auto_binary_mnist_pathnet.sh", **variables):
    """Runs a batch to its end."""
    return subprocess.run(
        [str(ROOT / script), *arguments],
        capture_output=True,
        text=True,
        env=environment(folder, **variables),
    )


def seeds(*files):
    """The seeds of the repeats in results files."""
    return sorted(result["seed"] for result in results.read(files))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A batch of three repeats in two processes, and what it said."""
    folder = tmp_path_factory.mktemp("batch")
    return folder, batch(folder, "3", *TINY, JOBS="2")


def test_every_repeat_has_a_seed_and_a_numbered_line(finished):
    folder, done = finished
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if " Iteration,  Entire" in line]
    assert [line.split()[0] for line in lines] == ["1", "2", "3"]
    assert seeds(folder / "results.jsonl") == [0, 1, 2]


def test_a_batch_ends_with_its_table_and_pictures(finished):
    folder, done = finished
    assert "| 1v2 | after 1v3 | 3 |" in done.stdout
    for name in ("generations", "curves", "accuracies", "usage", "retention"):
        picture = folder / f"{name}.png"
        assert f"Picture: {picture}\n" in done.stdout
        assert picture.stat().st_size > 1000


def test_a_batch_that_was_killed_goes_on_and_repeats_nothing(tmp_path):
    process = subprocess.Popen(
        [str(ROOT / "auto_binary_mnist_pathnet.sh"), "60", *TINY],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=environment(tmp_path, JOBS="1"),
    )
    process.stdout.readline()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = (tmp_path / "results.jsonl").read_text()
    held = before.count("\n")
    assert 0 < held < 60
    done = batch(tmp_path, str(held + 2), *TINY, JOBS="1")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results.jsonl").read_text().startswith(before)
    assert seeds(tmp_path / "results.jsonl") == list(range(held + 2))
    assert f"{held + 1} Iteration,  Entire Iter:" in done.stdout
    assert f"{held} Iteration," not in done.stdout


def test_other_settings_are_refused(finished):
    folder, _ = finished
    before = (folder / "results.jsonl").read_text()
    done = batch(folder, "1", *TINY, "--M=5")
    assert done.returncode == 2
    assert "--results" in done.stderr and "--M=10" in done.stderr
    assert (folder / "results.jsonl").read_text() == before


def test_a_task_of_a_slurm_array_takes_its_share_of_a_range_of_seeds(tmp_path):
    share = {"SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_MIN": "1"}
    share |= {"SLURM_ARRAY_TASK_ID": "2", "FIRST_SEED": "10"}
    script = "auto_cifar_svhn_pathnet.sh"
    controls = "--control=pathnet,scratch"
    done = batch(tmp_path, "3", *TINY, controls, script=script, **share, JOBS="1")
    assert done.returncode == 0, done.stderr
    assert seeds(tmp_path / "results-2.jsonl") == [11, 11, 12, 12]
    assert (tmp_path / "usage-2_control=scratch.png").exists()
    assert "1 Iteration,  CIFAR10_SVHN,TASK1:" in done.stdout


def test_an_array_of_more_tasks_than_repeats_leaves_some_idle(tmp_path):
    share = {"SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_ID": "0"}
    done = batch(tmp_path, "1", *TINY, **share)
    assert done.returncode == 0 and "no repeat left" in done.stdout
    assert not list(tmp_path.iterdir())


def test_no_repeats_is_a_mistake(tmp_path):
    done = batch(tmp_path, "0")
    assert done.returncode == 2 and "0 repeats" in done.stderr

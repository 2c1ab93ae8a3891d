"""Tests of batch.sh, by way of the auto_*.sh scripts: real batches of tiny repeats."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import results

ROOT = Path(results.__file__).parent
TINY = ["--fake_data", "--max_steps=3", "--T=2", "--candi=2"]


def batch(folder, *arguments, script="auto_binary_mnist_pathnet.sh", **environment):
    """Runs a batch to its end."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        [str(ROOT / script), *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": path, "BATCH_DIR": str(folder)} | environment,
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


def test_a_batch_ends_with_its_table_and_picture(finished):
    folder, done = finished
    assert "| 1v2 | after 1v3 | 3 |" in done.stdout
    assert (folder / "generations.png").stat().st_size > 1000


def test_a_batch_started_again_repeats_nothing(finished):
    folder, _ = finished
    before = (folder / "results.jsonl").read_text()
    again = batch(folder, "4", *TINY, JOBS="1")
    after = (folder / "results.jsonl").read_text()
    assert again.returncode == 0, again.stderr
    assert after.startswith(before) and seeds(folder / "results.jsonl") == [0, 1, 2, 3]
    assert "4 Iteration,  Entire Iter:" in again.stdout


def test_a_batch_that_was_killed_goes_on(tmp_path):
    process = subprocess.Popen(
        [str(ROOT / "auto_binary_mnist_pathnet.sh"), "60", *TINY],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=os.environ
        | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        | {"BATCH_DIR": str(tmp_path), "JOBS": "1"},
    )
    process.stdout.readline()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    held = seeds(tmp_path / "results.jsonl")
    assert 0 < len(held) < 60
    goal = len(held) + 2
    done = batch(tmp_path, str(goal), *TINY, JOBS="1")
    assert done.returncode == 0, done.stderr
    assert seeds(tmp_path / "results.jsonl") == list(range(goal))


def test_other_settings_are_refused(finished):
    folder, _ = finished
    before = (folder / "results.jsonl").read_text()
    done = batch(folder, "2", *TINY, "--M=5", JOBS="1")
    assert done.returncode == 2
    assert "--results" in done.stderr and "--M=10" in done.stderr
    assert (folder / "results.jsonl").read_text() == before


def test_tasks_of_a_slurm_array_share_the_seeds(tmp_path):
    array = {"SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_MIN": "1", "JOBS": "1"}
    for task in ("1", "2"):
        done = batch(tmp_path, "3", *TINY, SLURM_ARRAY_TASK_ID=task, **array)
        assert done.returncode == 0, done.stderr
    files = sorted(tmp_path.glob("results-*.jsonl"))
    assert [file.name for file in files] == ["results-1.jsonl", "results-2.jsonl"]
    assert seeds(*files) == [0, 1, 2]


def test_a_range_of_seeds_for_each_machine(tmp_path):
    script = "auto_cifar_svhn_pathnet.sh"
    done = batch(tmp_path, "1", *TINY, script=script, FIRST_SEED="7", JOBS="1")
    assert done.returncode == 0, done.stderr
    assert seeds(tmp_path / "results.jsonl") == [7]
    assert "1 Iteration,  CIFAR10_SVHN,TASK1:" in done.stdout


def test_no_repeats_is_a_mistake(tmp_path):
    done = batch(tmp_path, "0")
    assert done.returncode == 2 and "0 repeats" in done.stderr

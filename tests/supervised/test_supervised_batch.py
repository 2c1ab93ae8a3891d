"""Batches, by way of the auto_*.sh scripts: real ones of tiny repeats."""

import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from own_images import npz

from common import results

pytestmark = pytest.mark.slow

ROOT = Path(results.__file__).parent.parent
MNIST, CIFAR = "auto_binary_mnist_pathnet.sh", "auto_cifar_svhn_pathnet.sh"
IMAGES = "auto_images_pathnet.sh"
SMALL = ["--fake_data", "--L=1", "--M=4", "--N=2", "--filt=4", "--T=2", "--candi=2"]
TINY = [*SMALL, "--max_steps=3"]
FOREVER = [*SMALL, "--max_steps=100000000", "--stop_accuracy=1"]
OF_A_BATCH = ("BATCH_DIR", "FIRST_SEED", "JOBS", "SLURM_")


def environment(**variables):
    """The environment of a batch, without what it might have from that of the tests."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(OF_A_BATCH)}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return kept | {"PATH": path} | variables


def batch(cwd, *arguments, script=MNIST, **variables):
    """Runs a batch to its end, with its results in `cwd` unless a variable says more."""
    return subprocess.run(
        [str(ROOT / script), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=environment(**({"BATCH_DIR": "."} | variables)),
    )


def seeds(folder):
    """The seeds of the repeats in the results files of a folder."""
    files = sorted(folder.glob("results*.jsonl"))
    return sorted(result["seed"] for result in results.read(files))


def at_work(folder):
    """Ids of the processes that were started for a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"--log_dir={folder}".encode() in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:
            pass  # it has ended
    return found


def wait_until(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_batch_of_own_images(tmp_path):
    """Its tasks are named by paths from where the user stands."""
    npz(tmp_path / "a.npz")
    arguments = "2", *TINY[1:], "--tasks=a.npz:0-1,a.npz:1-2"
    for _ in range(2):  # the second time nothing is left to learn
        ended = batch(tmp_path, *arguments, script=IMAGES)
        assert ended.returncode == 0, ended
    assert seeds(tmp_path) == [0, 1]
    assert "| a.npz:1-2 | after a.npz:0-1 |" in ended.stdout
    assert str(tmp_path) not in ended.stdout


# --------------------------------------------------------------------------------------
# Mistakes
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["0"], "number of repeats: must be a whole number from 1 to 2147483648: '0'"),
        (["08"], "number of repeats: "),
        ([""], "number of repeats: "),
        (["two"], "number of repeats: "),
        (["1_0"], "number of repeats: "),
        (["9" * 5000], "number of repeats: "),
        (["2", "--seed=2147483647"], "number of repeats: "),
        (["2", "3"], "unexpected argument '3'"),
        (["2", "--", "--seed=5"], "unexpected argument '--seed=5'"),
        (["2", "--runs=3"], "flag --runs: leave it out of a batch"),
        (["2", "-runs", "3"], "flag --runs: leave it out"),
        (["2", "--results=x"], "flag --results: leave it out"),
        (["2", "--log_dir=x"], "flag --log_dir: leave it out"),
        (["2", "--save_dir=x"], "flag --save_dir: leave it out"),
        (["2", "--load_dir=x"], "flag --load_dir: leave it out"),
        (["2", "--resume=x"], "flag --resume: leave it out"),
        (["2", "--flagfile=own.flags"], "flag --runs: leave it out"),
        (["2", "--N=99"], "N may not exceed M"),
        (["2", "--no_such_flag"], "no_such_flag"),
    ],
)
def test_a_wrong_argument_is_one_line(scripts, tmp_path, arguments, fault):
    (tmp_path / "own.flags").write_text("--M=5\n--runs=2\n")
    script = "supervised/batch.py"
    done = scripts.fork(tmp_path, script, "binary_mnist", "1000", *arguments)
    assert done.status == 2 and not done.stdout
    assert done.stderr.startswith(f"{MNIST}: ") and fault in done.stderr
    assert done.stderr.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["own.flags"]


@pytest.mark.parametrize(
    ("variable", "value", "fault"),
    [
        ("JOBS", "0", "JOBS: must be a whole number from 1 to 1024: '0'"),
        ("JOBS", "abc", "JOBS: "),
        ("JOBS", "08", "JOBS: "),
        ("JOBS", "99999", "JOBS: "),
        ("FIRST_SEED", "-1", "FIRST_SEED: "),
        ("FIRST_SEED", "2", "flag --seed=1: FIRST_SEED is 2"),
        ("SLURM_ARRAY_TASK_ID", "x", "SLURM_ARRAY_TASK_ID: "),
        ("SLURM_CPUS_ON_NODE", "0", "SLURM_CPUS_ON_NODE: "),
        ("BATCH_DIR", "a file", "a file: "),
        ("BATCH_DIR", "/proc/nowhere", "/proc/nowhere: "),
        ("BATCH_DIR", "x" * 300, "File name too long"),
    ],
)
def test_a_wrong_variable_is_one_line(tmp_path, variable, value, fault):
    (tmp_path / "a file").touch()
    done = batch(tmp_path, "2", "--seed=1", **{variable: value})
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith(f"{MNIST}: ") and fault in done.stderr
    assert done.stderr.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["a file"]


def test_what_all_processes_come_upon_is_one_line(tmp_path):
    done = batch(tmp_path, "9", "--data_dir=nowhere", JOBS="2")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "nowhere" in done.stderr


def test_a_copy_elsewhere_says_where_it_belongs(tmp_path):
    shutil.copy(ROOT / MNIST, tmp_path / "slurm_script")
    done = subprocess.run(
        [tmp_path / "slurm_script", "2"],
        capture_output=True,
        text=True,
        env=environment(SLURM_SUBMIT_DIR=str(tmp_path)),
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"{MNIST}: submit it from" in done.stderr


def test_help_names_the_flags_and_the_environment():
    done = subprocess.run([ROOT / CIFAR, "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr
    assert "JOBS" in done.stdout and "--cifar_first" in done.stdout


# --------------------------------------------------------------------------------------
# From start to end
# --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A batch of three repeats in two processes, and what it said.

    Called through a link, and with paths relative to where its user stands.
    """
    cwd = tmp_path_factory.mktemp("the user's folder")
    (cwd / "the flags").write_text("\n".join(TINY))
    (cwd / "go").symlink_to(ROOT / MNIST)
    arguments = ["3", "--flagfile", "the flags", "--seed", "100"]
    return cwd / "to here", batch(
        cwd, *arguments, script=cwd / "go", JOBS="2", BATCH_DIR="to here"
    )


def test_every_repeat_has_a_seed_and_a_numbered_line_that_names_it(finished):
    folder, done = finished
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if " Iteration,  Entire" in line]
    assert [line.split()[0] for line in lines] == ["1", "2", "3"]
    assert sorted(line.rpartition(",")[2] for line in lines) == [
        "Seed:100",
        "Seed:101",
        "Seed:102",
    ]
    assert seeds(folder) == [100, 101, 102]


def test_a_batch_ends_with_its_table_and_pictures(finished):
    folder, done = finished
    assert "| 1v2 | after 1v3 | 0 of 3 converged |" in done.stdout
    for name in ("generations", "curves", "accuracies", "usage", "retention"):
        assert f"Picture: {folder.name}/{name}.png\n" in done.stdout
        assert (folder / f"{name}.png").stat().st_size > 1000
    curves, table, last = done.stdout.splitlines()[-3:]
    assert curves.endswith("tensorboard '--logdir=to here/tensorboard/mean'")
    assert table.endswith("tensorboard '--logdir=to here/tensorboard/repeats'")
    assert {path.name for path in (folder / "tensorboard/repeats").iterdir()} == {
        f"seed{seed}__pathnet__1v3_1v2" for seed in (100, 101, 102)
    }
    assert last == "Results: to here/results.jsonl"


def test_a_finished_batch_only_draws(finished):
    folder, _ = finished
    before = (folder / "results.jsonl").read_text()
    variables = {"BATCH_DIR": folder.name, "FIRST_SEED": "100"}
    done = batch(folder.parent, "3", *TINY, **variables)
    assert done.returncode == 0, done.stderr
    assert (
        "| 1v2 | after 1v3 | 0 of 3 converged |" in done.stdout
        and "Iteration" not in done.stdout
    )
    assert (folder / "results.jsonl").read_text() == before


def test_other_settings_are_refused(finished):
    folder, _ = finished
    before = (folder / "results.jsonl").read_text()
    done = batch(folder, "1", *TINY, "--M=5")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "--results" in done.stderr and "--M=4" in done.stderr
    assert (folder / "results.jsonl").read_text() == before


def test_a_batch_that_was_killed_goes_on_and_repeats_nothing(tmp_path):
    process = subprocess.Popen(
        [str(ROOT / MNIST), "60", *TINY],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=environment(BATCH_DIR=str(tmp_path), JOBS="1"),
    )
    process.stdout.readline()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    before = (tmp_path / "results.jsonl").read_text()
    held = before.count("\n")
    assert 0 < held < 60
    done = batch(tmp_path, str(held + 2), *TINY, JOBS="1")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results.jsonl").read_text().startswith(before)
    assert seeds(tmp_path) == list(range(held + 2))
    assert f"{held + 1} Iteration,  Entire Iter:" in done.stdout
    assert f"{held} Iteration," not in done.stdout


# --------------------------------------------------------------------------------------
# The folder
# --------------------------------------------------------------------------------------


def test_the_folder_of_a_batch_has_a_name_that_fits_and_is_found_again(tmp_path):
    """In a copy of the project, whose logs it is in, and with a script that fails."""
    project = tmp_path / "project"
    ignored = shutil.ignore_patterns(".*", "logs", "figures", "tests")
    shutil.copytree(ROOT, project, ignore=ignored)
    (project / "binary_mnist_pathnet.py").write_text("raise SystemExit(3)")
    tasks = "--tasks=" + ",".join(["1v3", "1v2"] * 45)
    alike = [[f"--data_dir={folder}"] for folder in ("ab", "a-b", "a/b")]
    for arguments in (["--a1=4", "--a2=5"], [tasks], *alike):
        for place, seed in ((project, []), (tmp_path, ["--seed=7"])):
            command = [project / MNIST, "1", *arguments, *seed]
            assert subprocess.call(command, cwd=place, env=environment(JOBS="1")) == 3
    names = sorted(path.name for path in (project / "logs").iterdir())
    usual, plain, *hashed, long = names
    assert usual == "batch__binary_mnist_pathnet__a1=4_a2=5"
    assert plain == "batch__binary_mnist_pathnet__datadir=ab"
    assert all(name.startswith(f"{plain}__") for name in hashed)
    assert long.startswith("batch__binary_mnist_pathnet__tasks=1v3,1v2,")
    assert len(hashed) == 2
    assert len(long) < 120


# --------------------------------------------------------------------------------------
# Signals, and what else ends a batch
# --------------------------------------------------------------------------------------


@pytest.fixture
def started(tmp_path):
    """A batch of two processes that learn without end, on a terminal of its own."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(
            ROOT / MNIST,
            [MNIST, "9", *FOREVER],
            environment(BATCH_DIR=str(tmp_path), JOBS="2"),
        )

    def learns():
        ended, _ = os.waitpid(pid, os.WNOHANG)
        assert not ended, os.read(terminal, 10_000).decode()
        return len(list(tmp_path.glob("claims/*"))) == 2

    wait_until(learns)
    assert len(at_work(tmp_path)) == 2
    yield pid, terminal
    os.close(terminal)
    for process in at_work(tmp_path):
        os.kill(process, signal.SIGKILL)


@pytest.mark.parametrize("ending", ["Ctrl-C", signal.SIGTERM, signal.SIGHUP])
def test_a_batch_takes_its_processes_with_it(started, tmp_path, ending):
    pid, terminal = started
    if ending == "Ctrl-C":
        os.write(terminal, b"\x03")
    else:
        os.kill(pid, ending)
    _, status = os.waitpid(pid, 0)
    number = signal.SIGINT if ending == "Ctrl-C" else ending
    assert os.waitstatus_to_exitcode(status) == 128 + number
    assert at_work(tmp_path) == []
    said = os.read(terminal, 10_000).decode().replace("^C", "").splitlines()
    assert [line for line in said if line.strip()] == [
        f"{MNIST}: ended by {number.name}; the same command goes on where it stopped"
    ]
    assert (tmp_path / "results.jsonl").read_text() == ""


def test_nobody_reads_on(tmp_path):
    command = f"set -o pipefail; '{ROOT / MNIST}' 9 {' '.join(TINY)} | head -1"
    done = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        env=environment(BATCH_DIR=str(tmp_path), JOBS="1"),
    )
    assert done.returncode == 1 and not done.stderr
    assert done.stdout.count("\n") == 1
    assert 0 < len(seeds(tmp_path)) < 9


def test_a_full_disk_is_one_line_and_leaves_the_file_whole(tmp_path):
    command = f"ulimit -f 1; exec '{ROOT / MNIST}' 9 {' '.join(TINY)}"
    done = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        env=environment(BATCH_DIR=str(tmp_path), JOBS="2"),
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1 and "results.jsonl: " in done.stderr
    assert seeds(tmp_path) == []

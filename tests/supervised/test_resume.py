"""Tests of --resume: killed at any moment, a run ends as if nothing had happened."""

import json
import os
import shutil
import signal
import time

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common import checkpoint, folders, network

pytestmark = pytest.mark.slow

MNIST, CIFAR = "binary_mnist_pathnet.py", "cifar_svhn_pathnet.py"
STEPS = 16  # generations of each task, since so slow a learner does not converge
ENDLESS = 10**6  # more of them than a test can wait for
TINY = ["--L=2", "--M=4", "--N=2", "--T=3", "--filt=4", f"--max_steps={STEPS}"]
TINY += ["--fake_data", "--stop_accuracy=1", "--learning_rate=1e-5", "--save_dir=net"]
OFTEN = "--checkpoint_seconds=0"
ADAM = ["--optimizer=adam", "--writeback=winner"]


def result_in(folder):
    """The one result of a run, without times."""
    (line,) = (folder / "results.jsonl").read_text().splitlines()
    result = json.loads(line)
    for entry in (result, *result["tasks"]):
        del entry["seconds"]
    for name in ("checkpoint_seconds", "save_dir"):  # as they were given, and where
        del result["flags"][name]
    return result


def newest(folder):
    """How many generations the newest checkpoint of a run has seen, -1 without any."""
    saved = checkpoint.saved(folder / "checkpoints")
    return int(saved[-1].name.removeprefix(checkpoint.PREFIX)) if saved else -1


def newest_folder(folder):
    return checkpoint.saved(folder / "checkpoints")[-1]


def wait_for_two_more(folder, generation):
    """Returns once a run has gone on for two generations from the one given."""
    give_up = time.monotonic() + 120
    while newest(folder) <= generation + 1 and time.monotonic() < give_up:
        time.sleep(0.002)


def kill_at(scripts, cwd, generation, script, *flags):
    """Starts a script, kills it at about that generation: (its folder, Finished)."""
    process = scripts.start_fork(cwd, script, *flags)
    give_up = time.monotonic() + 120
    try:
        while time.monotonic() < give_up:
            runs = list((cwd / "logs").glob("*"))
            if runs and newest(runs[0]) >= generation:
                break
            time.sleep(0.002)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        finished = process.wait()
    assert finished.status == -signal.SIGKILL, finished
    assert generation <= newest(runs[0])
    return runs[0], finished


def curve(folder, tag):
    """The points of a curve as TensorBoard reads them."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {point.step: point.value for point in events.Scalars(tag)}


@pytest.fixture(scope="module")
def whole(scripts, tmp_path_factory):
    """The folders of uninterrupted runs, by script and flags."""
    done = {}

    def run(script, *flags):
        if (script, *flags) not in done:
            cwd = tmp_path_factory.mktemp("whole")
            finished = scripts.fork(cwd, script, *TINY, *flags)
            assert finished.status == 0, finished
            done[script, *flags] = cwd, finished
        return done[script, *flags]

    return run


@pytest.mark.parametrize(
    ("script", "flags"), [(MNIST, ADAM), (CIFAR, ["--tournament=sequential"])]
)
def test_a_killed_run_ends_as_if_it_had_not_been(
    scripts, tmp_path, whole, script, flags
):
    """Killed in each task at random, the newest checkpoint cut, and once more."""
    rng = np.random.default_rng()
    first, second = int(rng.integers(2, STEPS - 4)), int(rng.integers(2, STEPS - 4))
    told = f"killed at {first} and {STEPS + second}"
    folder, _ = kill_at(scripts, tmp_path, first, script, *TINY, *flags, OFTEN)
    resume = f"--resume={folder.relative_to(tmp_path)}"
    damaged = checkpoint.saved(folder / "checkpoints")[-1] / "arrays.npz"
    os.truncate(damaged, int(rng.integers(damaged.stat().st_size)))
    _, gone_on = kill_at(scripts, tmp_path, STEPS + second, script, resume)
    assert f"{damaged.relative_to(tmp_path)}: damaged" in gone_on.stderr
    assert "trying the one before" in gone_on.stderr
    shutil.copytree(folder / "checkpoints", tmp_path / "copy")
    finished = scripts.fork(tmp_path, script, resume)
    assert finished.status == 0, finished

    cwd, expected = whole(script, *flags)
    (sound,) = (cwd / "logs").iterdir()
    assert finished.lines[-1] == expected.lines[-1], told
    assert result_in(folder) == result_in(sound), told
    arrays = [(base / "net" / "arrays.npz").read_bytes() for base in (cwd, tmp_path)]
    assert arrays[0] == arrays[1], told
    runs = sorted(path.name for path in folder.glob("task*"))
    assert len(runs) == 2
    curves = [(".", "evolution/diversity"), (runs[0], "charts/fitness")]
    for name, tag in [*curves, (runs[1], "losses/cross_entropy")]:
        assert curve(folder / name, tag) == curve(sound / name, tag), told
    names = {path.name for path in folder.iterdir() if "events" not in path.name}
    files = {"run.json", "results.jsonl", "paths.png", "evolution.gif"}
    assert names == {*files, "summary", *runs}

    # As if killed after the network was stored, and resumed from another folder.
    os.rename(tmp_path / "copy", folder / "checkpoints")
    (folder / "results.jsonl").unlink()
    (tmp_path / "elsewhere").mkdir()
    finished = scripts.fork(tmp_path / "elsewhere", script, f"--resume={folder}")
    assert finished.status == 0, finished
    assert result_in(folder) == result_in(sound), told
    assert (tmp_path / "net" / "arrays.npz").read_bytes() == arrays[0]
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_control_can_be_resumed(scripts, tmp_path):
    """That with a grid of its own."""
    flags = [flag for flag in TINY if "save_dir" not in flag]
    flags += ["--control=fixed_size", "--record=results"]
    (tmp_path / "whole").mkdir()
    assert scripts.fork(tmp_path / "whole", MNIST, *flags).status == 0
    folder, _ = kill_at(scripts, tmp_path, STEPS + 2, MNIST, *flags, OFTEN)
    finished = scripts.fork(
        tmp_path, MNIST, f"--resume={folder}", f"--max_steps={STEPS}"
    )
    assert finished.status == 0, finished
    (sound,) = (tmp_path / "whole" / "logs").iterdir()
    assert result_in(folder) == result_in(sound)


@pytest.fixture(scope="module")
def killed(scripts, tmp_path_factory):
    """The folder of a killed run that, resumed, lasts until a test ends it."""
    cwd = tmp_path_factory.mktemp("killed")
    flags = [*TINY, f"--max_steps={ENDLESS}", "--record=results", OFTEN]
    folder, _ = kill_at(scripts, cwd, 2, MNIST, *flags)
    return folder


def assert_refused(finished, *named):
    assert finished.status == 2, finished
    (line,) = finished.stderr.splitlines()
    assert all(part in line for part in named), line
    assert finished.stdout == ""


@pytest.mark.parametrize(
    ("script", "flags", "named"),
    [
        (MNIST, ["--seed=9"], ["--seed=9", "has 0"]),
        (MNIST, ["--tasks=1v3"], ["--tasks=", "None"]),
        (MNIST, ["--results=batch.jsonl"], ["--results=batch.jsonl"]),
        (CIFAR, [], ["binary_mnist_pathnet.py"]),
    ],
)
def test_other_flags_and_scripts_are_refused(
    scripts, tmp_path, killed, script, flags, named
):
    assert_refused(scripts.fork(tmp_path, script, *flags, f"--resume={killed}"), *named)
    assert not list(tmp_path.iterdir())


def test_nothing_to_resume(scripts, tmp_path, whole, killed):
    (finished,) = (whole(MNIST, *ADAM)[0] / "logs").iterdir()
    (tmp_path / "empty").mkdir()
    for folder, named in [
        (finished, "results.jsonl"),
        (tmp_path / "empty", "no checkpoint"),
        (tmp_path / "absent", "No such file"),
        (finished / "results.jsonl", "Not a directory"),
    ]:
        refused = scripts.fork(tmp_path, MNIST, f"--resume={folder}")
        assert_refused(refused, str(folder), named)


def test_a_run_that_goes_on_is_left_alone(scripts, tmp_path, killed):
    folders.occupy(tmp_path)
    assert_refused(
        scripts.fork(tmp_path, MNIST, f"--resume={tmp_path}"), "still active"
    )


# ---- Disks and folders in mid-run, Ctrl-C ----


def contents(folder):
    """The files below a folder: bytes by path."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_full_disk_leaves_what_was_there(scripts, tmp_path, killed):
    folder = tmp_path / "run"
    shutil.copytree(killed, folder)
    before = contents(folder)
    finished = scripts.fork(
        tmp_path, MNIST, f"--resume={folder}", max_file_bytes=20_000
    )
    assert_refused(finished, str(folder / "checkpoints"), "File too large")
    assert contents(folder) == before


def test_a_log_folder_that_is_deleted_stays_so(scripts, tmp_path, killed):
    folder = tmp_path / "run"
    shutil.copytree(killed, folder)
    process = scripts.start_fork(tmp_path, MNIST, f"--resume={folder}")
    wait_for_two_more(folder, newest(killed))
    os.rename(folder, tmp_path / "elsewhere")
    finished = process.wait()
    assert finished.status == 2, finished
    (line,) = finished.stderr.splitlines()
    assert str(folder) in line
    assert not folder.exists()
    assert newest(tmp_path / "elsewhere") > newest(killed)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_log_folder_that_becomes_read_only(scripts, tmp_path, killed):
    folder = tmp_path / "run"
    shutil.copytree(killed, folder)
    (folder / "checkpoints").chmod(0o500)
    finished = scripts.fork(tmp_path, MNIST, f"--resume={folder}")
    assert_refused(finished, str(folder))
    assert newest(folder) == newest(killed)


def test_ctrl_c_leaves_a_run_that_goes_on(scripts, tmp_path, killed):
    folder = tmp_path / "run"
    shutil.copytree(killed, folder)
    process = scripts.start(
        tmp_path,
        MNIST,
        f"--resume={folder}",
        # A shell that starts the tests in the background makes them ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        wait_for_two_more(folder, newest(killed))
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 130, stderr
    last = stderr.splitlines()[-1]
    assert last.startswith(f"{MNIST}: interrupted; go on with: ")
    assert last.endswith(f"{MNIST} --resume={folder}")
    state = network.load_state(folder / "checkpoints")
    assert newest(killed) < state.generation < ENDLESS


def test_data_may_move_but_not_change(scripts, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(scripts.root / "data" / "mnist", data)
    flags = [f for f in TINY if f not in ("--fake_data", "--save_dir=net")]
    flags += ["--data_dir=data", "--record=results", OFTEN]
    folder, _ = kill_at(scripts, tmp_path, 2, MNIST, *flags)
    data.rename(tmp_path / "moved")
    resume = f"--resume={folder}"
    assert_refused(scripts.fork(tmp_path, MNIST, resume), str(data), "--data_dir")
    about = json.loads((newest_folder(folder) / "about.json").read_text())
    assert about["data"]["mnist"].startswith("55000+10000 images, sha256 ")
    finished = scripts.fork(tmp_path, MNIST, resume, "--data_dir=moved")
    assert finished.status == 0, finished


def test_checkpoints_of_another_run_are_refused(scripts, tmp_path, killed):
    folder = tmp_path / "run"
    shutil.copytree(killed, folder)
    about = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(about | {"run": "another"}))
    refused = scripts.fork(tmp_path, MNIST, f"--resume={folder}")
    assert_refused(refused, str(folder), "those of another run")
    (folder / "run.json").write_text('{"run"')
    refused = scripts.fork(tmp_path, MNIST, f"--resume={folder}")
    assert_refused(refused, str(folder / "run.json"), "damaged")

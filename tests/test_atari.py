"""Tests of atari_pathnet.py as a user runs it: real clusters, and what befalls them."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import checkpoint
import cluster
import results

ROOT = Path(cluster.__file__).parent
PATIENCE = 150  # seconds; what is waited for takes a few on a quiet machine

# A network so small that a cluster of it starts and learns in seconds.
SMALL = ["--L=2", "--kernel_num=8", "--stride_size=8", "--M=4", "--N=2", "--nouse_lstm"]
SMALL += ["--games=catch,catch", "--worker_hosts_num=2", "--B=2", "--envs_per_worker=2"]
SMALL += ["--tournament_seconds=0.2", "--checkpoint_seconds=1", "--t_max=5"]


class Run:
    """A cluster that the script launched, as seen from outside."""

    def __init__(self, folder, *flags):
        self._folder = folder
        self.log_dir = folder / "logs"
        # Its own session, so that Ctrl-C reaches it alone.
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "atari_pathnet.py")]
            + [*flags, f"--log_dir={self.log_dir}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    @property
    def folder(self):
        """Of the newest run."""
        return max(self.log_dir.glob("atari__*"), key=lambda path: path.stat().st_mtime)

    def status(self):
        """What the GA worker said last; {} before it has."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            return json.loads((self.folder / "status.json").read_text())
        return {}

    def wait(self, condition):
        """Waits until condition() is true, and gives that value back."""
        end = time.monotonic() + PATIENCE
        while not (value := condition()):
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < end, self.logs()
            time.sleep(0.1)
        return value

    def wait_for_steps(self, more=1):
        """Waits until so many more steps are done."""
        before = self.status().get("steps", 0)
        self.wait(lambda: self.status().get("steps", 0) >= before + more)

    def logs(self):
        return {p.name: p.read_text()[-500:] for p in self.folder.glob("logs/*.log")}

    def pid(self, name):
        """Process id of one of its processes; None while there is none."""
        return processes(self.process.pid).get(name)

    def kill(self, name):
        """kill -9; returns once another process has taken its place."""
        before = self.pid(name)
        os.kill(before, signal.SIGKILL)
        self.wait(lambda: self.pid(name) not in (None, before))

    def end(self, number=signal.SIGINT):
        """Sends a signal; returns exit status, stdout and stderr."""
        children = processes(self.process.pid).values()
        self.process.send_signal(number)
        stdout, stderr = self.process.communicate(timeout=PATIENCE)
        assert not any(is_running(child) for child in children)
        return self.process.returncode, stdout, stderr


def processes(launcher):
    """{"actor_0": pid, ...}: the processes that a launcher has started."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_text().split("\0")
            parent = (entry / "stat").read_text().rsplit(")", 1)[1].split()[1]
            given = dict(
                w.split("=", 1) for w in words if w.startswith("--") and "=" in w
            )
            if int(parent) == launcher and "--job_name" in given:
                role = cluster.from_flags(
                    given["--job_name"],
                    int(given["--task_index"]),
                    given["--ps_hosts"].split(","),
                    given["--worker_hosts"].split(","),
                )
                found[role.name()] = int(entry.name)
    return found


def is_running(pid):
    """Whether a process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def launch(tmp_path):
    """Launches clusters; none of them outlives the test."""
    runs = []

    def start(*flags):
        runs.append(Run(tmp_path, *flags))
        return runs[-1]

    yield start
    for run in runs:
        if run.process.poll() is None:
            run.end(signal.SIGTERM)


# ---- To the end ----


def test_a_cluster_learns_two_tasks_to_the_end(launch):
    run = launch(*SMALL, "--max_time_step=3000")
    stdout, stderr = run.process.communicate(timeout=PATIENCE)
    assert run.process.returncode == 0, (stderr, run.logs())
    assert stdout.splitlines()[-1] == "CATCH_CATCH,TASK1:3000,TASK2:3000,Done"
    assert f"tensorboard --logdir={run.folder}" in stdout

    (result,) = results.read([run.folder / "results.jsonl"])
    assert [task["steps"] for task in result["tasks"]] == [3000, 3000]
    for task in result["tasks"]:
        # An episode of catch takes 11 steps; those not over yet are not counted.
        assert 3000 / 11 - 4 <= sum(task["curve"]["episodes"]) <= 3000 / 11
        assert -1 <= task["score"] <= 1
    for place in ("task1_catch", "task2_catch", "task1_catch/actor_1"):
        assert list((run.folder / place).glob("events.out.tfevents.*"))
    assert (run.folder / "paths.png").stat().st_size > 1000


def test_pong_on_the_whole_network(launch):
    flags = ["--games=pong", "--worker_hosts_num=2", "--B=2", "--envs_per_worker=4"]
    run = launch(*flags, "--max_time_step=2000", "--tournament_seconds=0.5")
    stdout, stderr = run.process.communicate(timeout=PATIENCE)
    assert run.process.returncode == 0, (stderr, run.logs())
    assert stdout.splitlines()[-1].startswith("PONG,TASK1:20")


# ---- Faults ----


def test_processes_that_are_killed_come_back_and_the_run_goes_on(launch):
    run = launch(*SMALL, "--max_time_step=10000000")
    run.wait_for_steps(500)
    for name in ("actor_0", "ga_worker"):
        paths = [actor["path"] for actor in run.status()["actors"]]
        assert len(paths) == 2
        run.kill(name)
        run.wait_for_steps(500)
    run.wait(lambda: checkpoint.saved(run.folder / "checkpoints"))
    run.kill("ps_0")
    _, arrays = checkpoint.load(run.folder / "checkpoints")
    run.wait(lambda: "goes on from a checkpoint" in run.logs()["ga_worker.log"])
    run.wait_for_steps(500)
    assert run.status()["steps"] > int(arrays["steps"]) > 0


def test_ctrl_c_ends_all_and_the_same_folder_goes_on(launch):
    first = launch(*SMALL, "--max_time_step=10000000")
    first.wait_for_steps(500)
    status, _, stderr = first.end()
    assert status == 130 and stderr.splitlines()[-1].endswith("interrupted")
    folder = first.folder / "checkpoints"
    facts, before = checkpoint.load(folder)

    second = launch(*SMALL, "--max_time_step=10000000", f"--checkpoint_dir={folder}")
    second.wait_for_steps(int(before["steps"]) + 1)
    assert "goes on from a checkpoint" in second.logs()["ga_worker.log"]
    second.end()
    _, after = checkpoint.load(folder)
    assert after["steps"] > before["steps"] > 0
    assert (after["versions"] >= before["versions"]).all()

    other = launch(*SMALL, "--M=5", f"--checkpoint_dir={folder}")
    _, stderr = other.process.communicate(timeout=PATIENCE)
    assert other.process.returncode == 2
    line = stderr.splitlines()[-1]
    assert "--checkpoint_dir" in line and "M=4" in line and "5" in line


def test_nothing_outlives_a_launcher_that_is_killed(launch):
    run = launch(*SMALL, "--max_time_step=10000000")
    run.wait_for_steps()
    children = processes(run.process.pid)
    assert len(children) == 4
    run.process.kill()
    run.process.communicate()
    end = time.monotonic() + 20
    while any(is_running(pid) for pid in children.values()):
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.skipif(cluster._unshare() is None, reason="no network namespaces here")
@pytest.mark.parametrize("isolated", [True, False])
def test_only_an_isolated_cluster_cannot_be_reached(launch, isolated):
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    flags = ["--max_time_step=10000000", f"--st_port_num={port}"]
    run = launch(*SMALL, *flags, "--isolate" if isolated else "--noisolate")
    run.wait(lambda: run.pid("ps_0"))
    run.wait_for_steps()
    if isolated:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("localhost", port), 2)
    else:
        socket.create_connection(("localhost", port), 2).close()
    _, _, stderr = run.end()
    assert ("no network of its own" in stderr) != isolated


# ---- Mistakes ----


def mistake(*flags, **environment):
    """Status and last line of stderr of a run that is refused."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "atari_pathnet.py"), *flags],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=PATIENCE,
    )
    return done.returncode, done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--games=pomg"], "did you mean pong"),
        (["--N=11"], "N may not exceed M"),
        (["--B=5", "--worker_hosts_num=4"], "flag --B=5"),
        (["--kernel_num=8,4"], "kernel_num takes L - 1"),
        (["--stride_size=4,x,1"], "stride_size takes L - 1"),
        (["--learning_rate=-1"], "must be positive"),
        (["--gamma=1"], "must lie in [0, 1)"),
        (["--job_name=worker"], "no parameter server is named"),
        (["--play"], "--checkpoint_dir"),
        (["--play", "--checkpoint_dir=nowhere"], "no checkpoint there"),
    ],
)
def test_a_mistake_is_one_line(flags, complaint):
    status, line = mistake(*flags)
    assert status == 2 and complaint in line


def test_a_wrong_tf_config_is_one_line():
    status, line = mistake(TF_CONFIG="{}")
    assert status == 2 and "TF_CONFIG" in line


def test_a_port_in_use_is_named_before_anything_starts():
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        status, line = mistake("--noisolate", f"--st_port_num={port}")
    assert status == 2 and f"port {port} is in use" in line

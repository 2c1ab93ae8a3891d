"""Tests of atari_pathnet.py as a whole: real clusters, and what they survive."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from test_machine import reachable

from atari import machine
from atari.environments import CATCH
from common import checkpoint, results
from common.commandline import UserError

pytestmark = pytest.mark.slow

SCRIPT = "atari_pathnet.py"
ROOT = Path(machine.__file__).parent.parent
PATIENCE = 180  # seconds, for what takes fewer than 20 on a quiet machine

# A network so small that starting TensorFlow takes longer than all that follows.
SMALL = [
    f"--games={CATCH},{CATCH}",
    "--L=2",
    "--M=4",
    "--N=2",
    "--kernel_num=12",
    "--stride_size=12",
    "--nouse_lstm",
    "--worker_hosts_num=2",
    "--B=2",
    "--t_max=5",
    "--tournament_seconds=0.2",
    "--checkpoint_seconds=1",
    "--envs_per_worker=2",
    "--threads=1",
]


# The same with two actors in each of two processes.
SHARED = [*SMALL, "--worker_hosts_num=4", "--actors_per_process=2"]


def until(answer, what):
    """What answer() gives once that is something."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := answer():
            return found
        time.sleep(0.1)
    raise AssertionError(f"waited in vain for {what}")


def free_ports(count):
    """The first of so many ports in a row that nobody uses.

    Each process of pytest has some of its own, below those that systems hand out.
    """
    own = 20_000 + os.getpid() % 300 * 40
    for first in range(own, own + 40, count):
        try:
            machine.check_ports(first, count)
        except UserError:
            continue
        return first
    raise AssertionError("no free ports")


class Run:
    """A cluster that the script has launched, seen from outside.

    Attributes:
      process: Popen of the launcher. port: its first.
      folder: of the run, once the launcher has made it.
    """

    def __init__(self, scripts, cwd, *flags):
        self.port = free_ports(4)
        self._logs = cwd / f"logs{len(list(cwd.iterdir()))}"
        flags = [f"--log_dir={self._logs}", f"--st_port_num={self.port}", *flags]
        # With a group of its own, Ctrl-C can be meant for it alone.
        self.process = scripts.start(cwd, SCRIPT, *flags, start_new_session=True)

    @property
    def folder(self):
        return until(lambda: next(iter(self._logs.glob("*")), None), "a folder")

    def pids(self):
        """{(job, index): process id} of all processes of the cluster that live."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            flags = dict(
                word.decode(errors="replace").partition("=")[::2] for word in words
            )
            if "--job_name" in flags and flags.get("--log_dir") == str(self.folder):
                job = flags["--job_name"], int(flags["--task_index"])
                found[job] = int(entry.name)
        return found

    def status(self):
        """What the GA worker has written last, or None."""
        file = self.folder / "status.json"
        return json.loads(file.read_text()) if file.exists() else None

    def log(self, name):
        file = self.folder / "logs" / f"{name}.log"
        return file.read_text() if file.exists() else ""

    def goes_on(self, steps=100):
        """Returns status once it has gone so many steps, and two generations, on."""
        first = until(self.status, "a first status")

        def further():
            self.check()
            now = self.status()
            enough = now["steps"] >= first["steps"] + steps
            return (
                now if enough and now["generation"] > first["generation"] + 1 else None
            )

        return until(
            further, f"{steps} steps more than {first}: {self.log('ga_worker')}"
        )

    def check(self):
        """The launcher still runs."""
        if self.process.poll() is not None:
            raise AssertionError(self.process.communicate())

    def kill(self, job, index):
        """kill -9; returns once it has been started again."""
        old = self.pids()[job, index]
        os.kill(old, signal.SIGKILL)
        until(lambda: self.pids().get((job, index), old) != old, f"a new {job} {index}")

    def newest(self, folder=None):
        """Newest checkpoint: (about, arrays), or None; waits out one that is removed."""
        try:
            return checkpoint.load(folder or self.folder / "checkpoints")
        except (OSError, UserError):
            return None

    def end(self):
        """(status, stdout, stderr) once it has ended, by itself."""
        stdout, stderr = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, stdout, stderr

    def close(self):
        self.process.kill()
        self.process.communicate()


# ---- One cluster, and all that happens to it, Ctrl-C last ----
#
# Each of these tests can run alone: pytest's workers may share them out, and then each
# worker has a cluster of its own.


@pytest.fixture(scope="module")
def run(scripts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cluster")
    started = Run(scripts, folder, *SHARED, "--max_time_step=100000000")
    try:
        started.goes_on()
        yield started
    finally:
        started.close()


def test_a_cluster_learns(run):
    now = run.goes_on()
    assert (now["task"], now["game"], now["fixed_path"]) == (0, CATCH, None)
    assert len(now["actors"]) == 4
    assert set(run.pids()) == {("ps", 0), ("worker", 0), ("worker", 1), ("worker", 2)}
    assert -1 <= now["score"] <= 1


@pytest.mark.skipif(
    machine.unshare_command() is None, reason="no network of its own here"
)
def test_nobody_outside_reaches_the_cluster(run):
    assert not any(reachable(run.port + n) for n in range(4))


ACTORS = "actors_0-1", "actors_2-3"


def test_actors_that_are_killed_come_back(run):
    """All of their process, and no others."""

    def begun(name):
        return run.log(name).count("task 1, catch")

    before = [begun(name) for name in ACTORS]
    run.kill("worker", 0)
    until(lambda: begun(ACTORS[0]) == before[0] + 1, "actors 0 and 1 to play again")
    played = [actor["episodes"] for actor in run.status()["actors"]]
    # Where they have a path of their own for long enough, all four play on.
    until(
        lambda: all(
            actor["episodes"] != earlier
            for actor, earlier in zip(run.status()["actors"], played)
        ),
        "all actors to play",
    )
    run.goes_on()
    assert begun(ACTORS[1]) == before[1]


def test_a_process_that_is_stopped_for_a_while_holds_up_nobody(run):
    """And plays on after it."""
    pid = run.pids()["worker", 1]
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(1)  # for what was on its way
        before = run.status()["steps"]
        until(lambda: run.status()["steps"] > before, "the others to go on")
    finally:
        os.kill(pid, signal.SIGCONT)
    run.goes_on()
    assert run.pids()["worker", 1] == pid


def test_another_cluster_on_the_same_checkpoints_is_refused(run, scripts, tmp_path):
    """By its GA worker, which is the one to write them."""
    folder = run.folder / "checkpoints"
    until(run.newest, "a checkpoint")
    ps, *workers = (f"localhost:{free_ports(4) + n}" for n in range(4))
    flags = [f"--ps_hosts={ps}", f"--worker_hosts={','.join(workers)}", *SMALL]
    role = "--job_name=worker", "--task_index=2", f"--checkpoint_dir={folder}"
    refused = scripts.fork(tmp_path, SCRIPT, *flags, *role)
    assert (refused.status, refused.stderr.splitlines()[-1]) == (
        2,
        f"atari_pathnet.py: {folder}: its run is still active",
    )
    run.goes_on()


def test_a_ga_worker_that_is_killed_goes_on_where_it_was(run):
    def lost():
        return [run.log(name).count("lost") for name in ACTORS]

    before, lost_before = run.status(), lost()
    run.kill("worker", 2)
    until(lambda: "as they were left" in run.log("ga_worker"), "the GA worker")
    now = run.goes_on()
    assert now["steps"] > before["steps"]
    assert now["generation"] > before["generation"]
    assert lost() == lost_before


def test_a_parameter_server_that_is_killed_comes_back_from_the_checkpoint(run):
    _, arrays = until(run.newest, "a checkpoint")
    run.kill("ps", 0)
    until(lambda: "resuming from a checkpoint" in run.log("ga_worker"), "recovery")
    now = run.goes_on()
    assert now["steps"] >= arrays["steps"]
    assert now["generation"] >= arrays["generation"]
    assert all("lost the parameter servers" in run.log(name) for name in ACTORS)


def test_ctrl_c_ends_all_with_a_checkpoint_and_the_next_run_goes_on_to_the_end(
    run, scripts, tmp_path
):
    until(run.newest, "a checkpoint")
    pids = run.pids().values()
    assert len(pids) == 4
    shown = run.status()
    run.process.send_signal(signal.SIGINT)
    status, _, stderr = run.end()
    assert status == 130
    said, command = stderr.splitlines()[-1].split("; go on with: ")
    assert said.endswith("atari_pathnet.py: interrupted")
    assert shlex.split(command)[-1].endswith("/checkpoints")
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert "stopped, with a checkpoint" in run.log("ga_worker")
    folder = run.folder / "checkpoints"
    assert len(checkpoint.saved(folder)) == checkpoint.KEPT
    _, stopped = checkpoint.load(folder)
    assert stopped["task"] == 0 and stopped["steps"] >= shown["steps"]

    # Another grid is refused before anything changes, in one line.
    keeps = f"--checkpoint_dir={folder}"
    other = Run(scripts, tmp_path, *SHARED, keeps, "--M=5")
    status, _, stderr = other.end()
    assert status == 2
    assert stderr.splitlines()[-1] == (
        f"atari_pathnet.py: flag {keeps}: made with --M=4, and this run has 5; name "
        "another folder or give the same flags"
    )
    _, now = checkpoint.load(folder)
    assert all(np.array_equal(stopped[name], now[name]) for name in stopped)

    # The same goes on: the first task is soon over, the second begins on its path.
    budget = int(stopped["steps"]) + 3000
    again = Run(scripts, tmp_path, *SHARED, keeps, f"--max_time_step={budget}")
    try:
        second = until(
            lambda: (found := again.newest(folder)) and found[1]["task"] == 1 and found,
            "the second task",
        )
        log = again.log("ga_worker")
        assert f"resuming from a checkpoint: task 1, {int(stopped['steps']):,} s" in log
        status, stdout, stderr = again.end()
    finally:
        again.close()
    assert status == 0, stderr
    *_, where, board, watch, line = stdout.splitlines()
    assert where == f"Results: {again.folder}"
    assert board.endswith(f"tensorboard --logdir={again.folder}")
    assert f" --play {keeps} --play_gif={again.folder}/played.gif" in watch
    steps = re.fullmatch(r"CATCH_CATCH,TASK1:(\d+),TASK2:(\d+),Done", line).groups()
    # Two environments and five steps a push: none is lost, none is doubled.
    expected = -(-budget // 10) * 10
    assert [int(count) for count in steps] == [expected] * 2
    [entry] = results.read([again.folder / "results.jsonl"])
    first_task, second_task = entry["tasks"]
    assert first_task["steps"] == second_task["steps"] == expected
    # An episode of catch takes 6 steps; the last of each environment is not over.
    played = sum(second_task["curve"]["episodes"])
    assert expected / 6 - 8 <= played <= expected / 6
    # The first curve has the episodes of both runs, or it would have only these.
    since = expected - stopped["steps"]
    assert since / 6 < sum(first_task["curve"]["episodes"]) <= expected / 6
    assert -1 <= second_task["score"] <= 1
    assert (again.folder / "paths.png").stat().st_size > 1000
    for number in 1, 2:
        events = again.folder / f"task{number}_{CATCH}"
        assert list(events.glob("events.out.tfevents.*"))
        for actor in range(4):
            assert list(events.glob(f"actor_{actor}/events.out.tfevents.*"))

    _, last = checkpoint.load(folder)
    assert last["task"] == 2
    frozen = last["fixed_paths"][0] > 0
    assert frozen.any(axis=1).all() and not frozen.all()
    for layer in range(2):
        for kind in "kernel", "bias":
            name = f"layer{layer + 1}/{kind}"
            then, now = second[1][name], last[name]
            assert np.array_equal(then[frozen[layer]], now[frozen[layer]])
    # What learned meanwhile: the paths may have had no other modules, but a head.
    head = "task2/policy/kernel"
    assert (second[1][head] != last[head]).any()

    # Once more: there is nothing to do, and nothing is written.
    logs = tmp_path / "more"
    flags = [*SHARED, keeps, f"--log_dir={logs}", "--max_time_step=200000000"]
    done = scripts.fork(tmp_path, SCRIPT, *flags)
    assert done.status == 0
    assert done.lines == [
        f"Nothing to do: all tasks in {folder} are finished; the results are in "
        f"{again.folder}"
    ]
    refused = scripts.fork(tmp_path, SCRIPT, *flags, "--seed=1")
    assert refused.status == 2
    assert refused.stderr.splitlines()[-1] == (
        f"atari_pathnet.py: flag {keeps}: made with --seed=0, and this run has 1; name "
        "another folder or give the same flags"
    )
    assert not logs.exists()

    # The command that was printed works as it is.
    watched = subprocess.run(watch, shell=True, cwd=tmp_path, capture_output=True)
    assert watched.returncode == 0, watched.stderr
    assert b"mean return" in watched.stdout
    assert (again.folder / "played.gif").stat().st_size > 500


def test_pong_and_another_game_after_it(scripts, tmp_path):
    """A real game of some thousand steps, the LSTM, another number of actions."""
    flags = [
        "--games=pong,breakout",
        "--worker_hosts_num=2",
        "--B=2",
        "--max_time_step=3000",
        "--tournament_seconds=0.5",
        "--envs_per_worker=4",
        "--threads=1",
        "--noisolate",
    ]
    played = Run(scripts, tmp_path, *flags)
    try:
        until(lambda: reachable(played.port), "a server that all can reach")
        status, stdout, stderr = played.end()
    finally:
        played.close()
    assert status == 0, stderr
    assert "no network of its own here: every process that can reach" in stderr
    last = stdout.splitlines()[-1]
    steps = re.fullmatch(r"PONG_BREAKOUT,TASK1:(\d+),TASK2:(\d+),Done", last).groups()
    # Four environments and twenty steps a push.
    assert steps == ("3040", "3040")
    _, arrays = checkpoint.load(played.folder / "checkpoints")
    assert arrays["task1/policy/kernel"].shape == (256, 6)
    assert arrays["task2/policy/kernel"].shape == (256, 4)
    assert all(np.isfinite(array).all() for array in arrays.values())


# ---- A cluster that is started by hand ----


def test_every_process_of_a_cluster_made_by_hand_ends_by_itself(
    scripts, tmp_path, monkeypatch
):
    """Whatever proxy the web is reached through: gRPC would take the cluster for it."""
    for name in "http_proxy", "https_proxy":
        monkeypatch.setenv(name, "http://localhost:9")
    ps, *workers = (f"localhost:{free_ports(4) + n}" for n in range(4))
    hosts = [f"--ps_hosts={ps}", f"--worker_hosts={','.join(workers)}"]
    flags = [f for f in SMALL if "worker_hosts_num" not in f]
    flags += [*hosts, "--log_dir=run", "--max_time_step=300"]
    roles = [("worker", 2), ("worker", 1), ("ps", 0), ("worker", 0)]
    processes = {
        role: scripts.start(
            tmp_path, SCRIPT, *flags, f"--job_name={role[0]}", f"--task_index={role[1]}"
        )
        for role in roles
    }
    try:
        ended = {r: p.communicate(timeout=PATIENCE) for r, p in processes.items()}
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    assert {r: p.returncode for r, p in processes.items()} == dict.fromkeys(roles, 0)
    assert ended["worker", 2][0].splitlines()[-1].endswith("TASK2:300,Done")
    for role in roles[1:]:
        assert "all tasks are finished" in ended[role][1]
    assert len((tmp_path / "run" / "results.jsonl").read_text().splitlines()) == 1


def test_ctrl_c_ends_every_process_of_a_cluster_made_by_hand(scripts, tmp_path):
    """A server and an actor that waits for it, with one line; there is no GA worker."""
    ps, *workers = (f"localhost:{free_ports(4) + n}" for n in range(4))
    flags = [f"--ps_hosts={ps}", f"--worker_hosts={','.join(workers)}", *SMALL]
    server = scripts.start(tmp_path, SCRIPT, *flags, "--job_name=ps")
    said = server.stderr.readline()
    assert f"parameter server 0 serves on {ps}" in said
    actor = scripts.start(tmp_path, SCRIPT, *flags, "--job_name=worker")
    time.sleep(5)
    for process in server, actor:
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=PATIENCE)
        assert process.returncode == 130, stderr
        assert stderr.splitlines()[-1] == "atari_pathnet.py: interrupted"
        assert "Traceback" not in stderr


# ---- Several machines, made of network namespaces ----

MACHINES = "ps", "actor_0", "actor_1", "ga_worker"


class Machines:
    """Four network namespaces on a bridge in a fifth: 10.77.0.1 and so on."""

    def __init__(self):
        tag = f"pn{os.getpid()}"
        self._spaces = {name: f"{tag}-{name}" for name in (*MACHINES, "hub")}
        self._links = {name: f"v{n}" for n, name in enumerate(MACHINES)}
        self.hosts = {name: f"10.77.0.{n + 1}" for n, name in enumerate(MACHINES)}

    def make(self):
        hub = self._spaces["hub"]
        for space in self._spaces.values():
            self._ip("netns", "add", space)
            self._ip("-n", space, "link", "set", "lo", "up")
        self._ip("-n", hub, "link", "add", "bridge", "type", "bridge")
        self._ip("-n", hub, "link", "set", "bridge", "up")
        for name, link in self._links.items():
            space = self._spaces[name]
            peer = ["peer", "name", "eth0", "netns", space]
            self._ip("-n", hub, "link", "add", link, "type", "veth", *peer)
            self._ip("-n", hub, "link", "set", link, "master", "bridge", "up")
            self._ip(
                "-n", space, "addr", "add", f"{self.hosts[name]}/24", "dev", "eth0"
            )
            self._ip("-n", space, "link", "set", "eth0", "up")

    def remove(self):
        for space in self._spaces.values():
            subprocess.run(["ip", "netns", "delete", space], capture_output=True)

    def link(self, name, state):
        """Plugs a machine's cable in (up) or out (down)."""
        self._ip("-n", self._spaces["hub"], "link", "set", self._links[name], state)

    def start(self, name, job, index, log, flags):
        spec = {
            "cluster": {
                "ps": [f"{self.hosts['ps']}:2222"],
                "chief": [f"{self.hosts['ga_worker']}:2222"],
                "worker": [f"{self.hosts[a]}:2222" for a in ("actor_0", "actor_1")],
            },
            "task": {"type": job, "index": index},
        }
        # As the script, but without a minute's patience for each question.
        code = (
            "import runpy, sys; from atari import sessions; sessions.RUN_SECONDS = 10;"
            f" sys.argv[0] = {SCRIPT!r}; runpy.run_path({SCRIPT!r}, run_name='__main__')"
        )
        inside = ["ip", "netns", "exec", self._spaces[name]]
        with open(log, "w") as file:
            return subprocess.Popen(
                [*inside, sys.executable, "-c", code, *flags],
                cwd=ROOT,
                env=os.environ | {"TF_CONFIG": json.dumps(spec)},
                stdout=file,
                stderr=file,
            )

    @staticmethod
    def _ip(*words):
        subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def machines():
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("needs root and iproute2")
    made = Machines()
    try:
        made.make()
        yield made
    except subprocess.CalledProcessError as error:
        pytest.skip(f"needs network namespaces: {error.stderr}")
    finally:
        made.remove()


def test_a_cluster_over_several_machines_lives_with_cut_cables(machines, tmp_path):
    flags = [flag for flag in SMALL if "worker_hosts_num" not in flag]
    flags += [f"--log_dir={tmp_path}", "--max_time_step=100000000"]
    log = {name: tmp_path / f"{name}.log" for name in MACHINES}

    def status():
        file = tmp_path / "status.json"
        return json.loads(file.read_text()) if file.exists() else None

    def goes_on(generations, steps=100):
        first = until(status, "a first status")

        def further():
            now = status()
            return (
                now["steps"] >= first["steps"] + steps
                and now["generation"] >= first["generation"] + generations
            )

        until(further, f"more than {first}")

    roles = [("ps", 0), ("worker", 0), ("worker", 1), ("chief", 0)]
    processes = [
        machines.start(name, *role, log[name], flags)
        for name, role in zip(MACHINES, roles)
    ]
    try:
        goes_on(generations=3)

        # Both at once, since it takes a while to be noticed: an actor's, and then that
        # of the parameter server, which all others lose.
        said = "lost the parameter servers"
        machines.link("actor_0", "down")
        goes_on(generations=0, steps=500)
        machines.link("ps", "down")
        for name in MACHINES[1:]:
            until(lambda name=name: said in log[name].read_text(), f"{name} to say so")
        machines.link("actor_0", "up")
        machines.link("ps", "up")
        # A generation takes an episode of each actor: all play again.
        goes_on(generations=3)
        assert all(process.poll() is None for process in processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()


# ---- Ctrl-C from the start on ----


@pytest.mark.parametrize("module", ["absl", "numpy", "gymnasium", "rich"])
def test_ctrl_c_in_the_first_imports_is_one_line(
    scripts, tmp_path, monkeypatch, module
):
    stand_in = tmp_path / "stand_ins" / module
    stand_in.mkdir(parents=True)
    code = "import os, signal; os.kill(os.getpid(), signal.SIGINT)"
    (stand_in / "__init__.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(stand_in.parent))
    done = scripts.run(tmp_path, SCRIPT)
    assert (done.status, done.stdout) == (130, "")
    assert done.stderr == "atari_pathnet.py: interrupted\n"


# ---- Mistakes ----

HOSTS = ["--ps_hosts=localhost:1", "--worker_hosts=localhost:2,localhost:3,localhost:4"]
GA_WORKER = ["--job_name=worker", "--task_index=2", *HOSTS]


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        (
            ["--games=pnog,pong"],
            "flag --games: no game is called 'pnog'; did you mean pong",
        ),
        (["--games="], "flag --games: names no game; try pong,pong"),
        (["--kernel_num=8,4"], "kernel_num takes L - 1 positive whole numbers"),
        (["--stride_size=4,x,1"], "stride_size takes L - 1 positive whole numbers"),
        (["--stride_size=4,2,0"], "stride_size takes L - 1 positive whole numbers"),
        (["--N=11"], "N may not exceed M"),
        (["--L=1"], "flag --L=1"),
        (["--gamma=1"], "flag --gamma=1.0: must lie in [0, 1)"),
        (["--learning_rate=0"], "flag --learning_rate=0.0: must be positive"),
        (["--entropy=-1"], "flag --entropy=-1.0: must not be negative"),
        (
            ["--B=3", "--worker_hosts_num=2", "--noisolate"],
            "flag --B=3: so many actors",
        ),
        (["--st_port_num=65533", "--noisolate"], "go beyond 65535"),
        (["--job_name=boss"], "flag --job_name=boss"),
        (["--job_name=ps"], "no parameter server is named"),
        (["--job_name=worker", *HOSTS, "--task_index=3"], "there is no worker 3"),
        (HOSTS, "need --job_name as well"),
        (["--task_index=1"], "need --job_name as well"),
        (
            [*GA_WORKER, "--B=3"],
            "flag --B=3: so many actors are compared, and there are 2",
        ),
        (
            [*GA_WORKER, "--B=2", "--kernel_num=85,1,1"],
            "flags --kernel_num, --stride_size: layer 1: a kernel of 85 pixels",
        ),
        (["--log_dir=/dev/null/x", "--noisolate"], "/dev/null/x: Not a directory"),
        (["--play"], "flag --play: name a folder with --checkpoint_dir"),
        (
            ["--play", "--checkpoint_dir=nowhere"],
            "flag --checkpoint_dir=nowhere: no checkpoint there",
        ),
        (
            ["--play", "--checkpoint_dir=/dev/null"],
            "flag --checkpoint_dir=/dev/null: is no folder; name another",
        ),
        (
            ["--checkpoint_dir=/dev/null", "--noisolate"],
            "flag --checkpoint_dir=/dev/null: is no folder; name another",
        ),
        (
            ["--kernel_num=85,1,1", "--noisolate"],
            "flags --kernel_num, --stride_size: layer 1: a kernel of 85 pixels",
        ),
        (["catch"], "unexpected argument 'catch'"),
    ],
)
def test_mistakes_are_one_line(scripts, tmp_path, flags, fault):
    done = scripts.fork(tmp_path, SCRIPT, *flags)
    assert done.status == 2
    line = done.stderr.splitlines()[-1]
    assert fault in line and "Traceback" not in done.stderr
    assert line.startswith("atari_pathnet.py: ")
    assert not list(tmp_path.iterdir())


def test_a_busy_port_is_found_before_anything_starts(scripts, tmp_path):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        flags = [f"--st_port_num={port - 1}", "--worker_hosts_num=3", "--noisolate"]
        done = scripts.fork(tmp_path, SCRIPT, *flags)
    assert done.status == 2
    line = done.stderr.splitlines()[-1]
    assert f"flag --st_port_num={port - 1}: port {port} is in use" in line
    assert not list(tmp_path.iterdir())


def test_a_tf_config_of_nonsense(scripts, tmp_path, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", '{"cluster": 3}')
    done = scripts.run(tmp_path, SCRIPT)
    assert done.status == 2
    assert done.stderr.startswith(f"{SCRIPT}: environment variable TF_CONFIG: must be ")
    assert len(done.stderr.splitlines()) == 1

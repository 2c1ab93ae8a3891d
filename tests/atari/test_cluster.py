"""Tests of cluster.py; the launcher starts stand-ins that need no TensorFlow."""

import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atari import cluster
from atari.cluster import PS, WORKER, Cluster
from common.commandline import UserError

ROOT = Path(cluster.__file__).parent.parent
PATIENCE = 120  # seconds, for what takes one on a quiet machine

# ---- Who is who ----

PS_HOSTS = ["a:2222", "a:2223"]
WORKER_HOSTS = ["b:2222", "c:2222", "[::1]:2222", "d:2222"]


def test_roles_from_flags():
    names = {}
    for job, count in ((PS, 2), (WORKER, 4)):
        for index in range(count):
            role = cluster.from_flags(job, index, PS_HOSTS, WORKER_HOSTS)
            assert role.actors == 3
            assert role.is_ga_worker == ((job, index) == (WORKER, 3))
            assert role.device == f"/job:{job}/task:{index}/cpu:0"
            names[role.name()] = role
    assert list(names) == ["ps_0", "ps_1", "actor_0", "actor_1", "actor_2", "ga_worker"]


def tf_config(task, **jobs):
    return json.dumps({"cluster": jobs, "task": task})


def test_roles_from_tf_config():
    """Kubernetes gives the index as a string, and adds what is none of our business."""
    for index in 2, "2":
        text = json.dumps(
            {
                "cluster": {
                    "ps": PS_HOSTS,
                    "worker": WORKER_HOSTS,
                    "evaluator": ["e:1"],
                },
                "task": {"type": "worker", "index": index},
                "environment": "cloud",
            }
        )
        expected = Cluster(tuple(PS_HOSTS), tuple(WORKER_HOSTS), WORKER, 2)
        assert cluster.from_tf_config(text) == expected


@pytest.mark.parametrize("chief", ["chief", "master"])
def test_a_chief_is_the_ga_worker(chief):
    jobs = {"ps": PS_HOSTS, "worker": WORKER_HOSTS, chief: ["e:2222"]}
    role = cluster.from_tf_config(tf_config({"type": chief, "index": 0}, **jobs))
    assert role.is_ga_worker and role.name() == "ga_worker"
    assert role.actors == 4
    assert role.workers[-1] == "e:2222"
    last = cluster.from_tf_config(tf_config({"type": "worker", "index": 3}, **jobs))
    assert last.name() == "actor_3"


@pytest.mark.parametrize(
    ("job", "index", "ps", "workers", "fault"),
    [
        ("boss", 0, PS_HOSTS, WORKER_HOSTS, "a process is ps or worker, not 'boss'"),
        (PS, 0, [], WORKER_HOSTS, "no parameter server is named"),
        (PS, 0, PS_HOSTS, ["b:1", "c:1"], "2 workers; at least 3 are needed"),
        (PS, 2, PS_HOSTS, WORKER_HOSTS, "there is no ps 2, only 0 to 1"),
        (WORKER, 4, PS_HOSTS, WORKER_HOSTS, "there is no worker 4, only 0 to 3"),
        (PS, 0, ["a"], WORKER_HOSTS, "'a' is not host:port"),
        (PS, 0, [":2222"], WORKER_HOSTS, "':2222' is not host:port"),
        (PS, 0, ["a:"], WORKER_HOSTS, "'a:' is not host:port"),
        (PS, 0, ["a:x"], WORKER_HOSTS, "'a:x' is not host:port"),
        (PS, 0, ["a:0"], WORKER_HOSTS, "'a:0' is not host:port"),
        (PS, 0, ["a:65536"], WORKER_HOSTS, "'a:65536' is not host:port"),
        (PS, 0, ["b:2222"], WORKER_HOSTS, "b:2222 is named twice"),
    ],
)
def test_wrong_clusters_are_one_line(job, index, ps, workers, fault):
    with pytest.raises(UserError) as refused:
        cluster.from_flags(job, index, ps, workers)
    assert str(refused.value).startswith("flags --job_name, --task_index, --ps_hosts")
    assert fault in str(refused.value)
    text = tf_config({"type": job, "index": index}, ps=ps, worker=workers)
    with pytest.raises(UserError, match="^environment variable TF_CONFIG: ") as refused:
        cluster.from_tf_config(text)
    assert fault in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        "{}",
        '{"cluster": {}}',
        '{"cluster": [], "task": {"type": "ps", "index": 0}}',
        '{"cluster": {"ps": 3}, "task": {"type": "ps", "index": 0}}',
        tf_config({"type": "ps"}, ps=PS_HOSTS),
        tf_config({"type": "ps", "index": "x"}, ps=PS_HOSTS),
        tf_config({"type": "ps", "index": float("inf")}, ps=PS_HOSTS),
        tf_config({"type": ["ps"], "index": 0}, ps=PS_HOSTS, worker=WORKER_HOSTS),
        tf_config({"type": "ps", "index": 0}, ps=[1, 2], worker=WORKER_HOSTS),
        tf_config({"type": "ps", "index": 0}, ps=PS_HOSTS, worker=[None] * 3),
        tf_config(
            {"type": "ps", "index": 0},
            ps=PS_HOSTS,
            worker=WORKER_HOSTS,
            chief=["e:1"] * 2,
        ),
    ],
)
def test_other_texts_are_no_tf_config(text):
    with pytest.raises(UserError, match="^environment variable TF_CONFIG: "):
        cluster.from_tf_config(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-1, 4) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
hosts = st.lists(st.sampled_from(WORKER_HOSTS + PS_HOSTS) | json_values, max_size=4)


@settings(deadline=None)
@given(
    jobs=st.dictionaries(
        st.sampled_from(["ps", "worker", "chief"]), hosts | json_values
    ),
    kind=st.sampled_from(["ps", "worker", "chief"]) | json_values,
    index=st.integers(-1, 4) | json_values,
)
def test_any_tf_config_is_a_cluster_or_one_line(jobs, kind, index):
    with contextlib.suppress(UserError):
        role = cluster.from_tf_config(tf_config({"type": kind, "index": index}, **jobs))
        assert role.actors >= 2
        assert role.name() in ("ga_worker", f"ps_{role.index}", f"actor_{role.index}")


# ---- Servers, ports, memory ----


def free_port():
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def test_whoever_cannot_reach_a_server_says_so_and_goes_on_when_it_comes():
    port = free_port()
    said = []
    late = socket.socket()
    late.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

    def say(line):
        said.append(line)
        if len(said) == 2:
            late.bind(("localhost", port))
            late.listen()

    with late:
        waiting = threading.Thread(
            target=cluster.wait_for_servers,
            args=([f"localhost:{port}"], say),
            kwargs={"patience": 0.1},
        )
        waiting.start()
        waiting.join(PATIENCE)
        assert not waiting.is_alive()
    assert len(said) >= 2
    assert all(f"cannot reach parameter server localhost:{port} for" in s for s in said)
    assert "refused" in said[0]


def test_a_host_whose_name_is_unknown_is_waited_for_as_well():
    class Heard(Exception):
        pass

    def say(line):
        raise Heard(line)

    with pytest.raises(Heard, match="cannot reach parameter server nowhere.invalid:1"):
        cluster.wait_for_servers(["nowhere.invalid:1"], say, patience=0.1)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_busy_port_is_named(family):
    with socket.socket(family) as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError) as refused:
            cluster.check_ports(port - 1, 4)
        assert f"--st_port_num={port - 1}: port {port} is in use" in str(refused.value)
    cluster.check_ports(port, 1)


def test_ports_end_at_65535():
    with pytest.raises(UserError, match="4 ports from there on go beyond 65535"):
        cluster.check_ports(65533, 4)


MEMINFO = "MemTotal: 9000000 kB\nMemFree: 1 kB\nMemAvailable:    4000000 kB\n"
CGROUP2 = "/sys/fs/cgroup/memory"
CGROUP1 = "/sys/fs/cgroup/memory/memory"


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, 4_096_000_000),
        ({f"{CGROUP2}.max": "max\n", f"{CGROUP2}.current": "5\n"}, 4_096_000_000),
        (
            {f"{CGROUP2}.max": "3000000000\n", f"{CGROUP2}.current": "1\n"},
            2_999_999_999,
        ),
        (
            {
                f"{CGROUP1}.limit_in_bytes": "500\n",
                f"{CGROUP1}.usage_in_bytes": "100\n",
            },
            400,
        ),
    ],
)
def test_memory_is_what_this_machine_and_the_control_group_leave(
    monkeypatch, limits, expected
):
    def fake(filename):
        files = {"/proc/meminfo": MEMINFO} | limits
        if filename not in files:
            raise FileNotFoundError(filename)
        return io.StringIO(files[filename])

    monkeypatch.setattr(cluster, "open", fake, raising=False)
    assert cluster.available_memory() == expected


def test_this_machine_has_memory():
    with open("/proc/meminfo") as file:
        total = int(file.readline().split()[1]) * 1024
    assert 0 < cluster.available_memory() <= total


@pytest.mark.parametrize(
    ("room", "expected"), [(10**12, 10), (0, 2), (5.5, 5), (2.5, 2), (1.5, 2)]
)
def test_as_many_actors_as_fit(monkeypatch, room, expected):
    memory = 3 * cluster.SERVER_MEMORY + room * cluster.ACTOR_MEMORY
    monkeypatch.setattr(cluster, "available_memory", lambda: int(memory))
    assert cluster.fitting_actors(10, servers=2) == expected


# ---- A network of its own ----

ISOLATED = f"""
import os, socket, sys
sys.path.insert(0, {str(ROOT)!r})
from atari import cluster
print(cluster.isolate() if sys.argv[1] == "isolate" else "open", flush=True)
server = socket.socket()
server.bind(("", 0))
server.listen()
port = server.getsockname()[1]
socket.create_connection(("localhost", port), 5).close()
print(port, flush=True)
open(sys.argv[2], "w").close()
sys.stdin.read()
"""

can_isolate = pytest.mark.skipif(
    cluster._unshare() is None, reason="this system gives nobody a network of its own"
)


def reachable(port):
    try:
        socket.create_connection(("localhost", port), 5).close()
    except ConnectionRefusedError:
        return False
    return True


@can_isolate
@pytest.mark.parametrize(("way", "within_reach"), [("isolate", False), ("open", True)])
def test_nobody_else_reaches_a_network_of_its_own(tmp_path, way, within_reach):
    """Inside it is reached; outside it is not, which it would be without."""
    script = tmp_path / "isolated.py"
    script.write_text(ISOLATED)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, script, way, tmp_path / "file"]
    with subprocess.Popen(command, **pipes) as process:
        answer, port = process.stdout.readline(), int(process.stdout.readline())
        assert reachable(port) == within_reach
        process.stdin.close()
    assert answer == ("open\n" if within_reach else "True\n")


@can_isolate
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can write to any folder")
def test_root_can_still_write_to_what_belongs_to_others(tmp_path):
    script, folder = tmp_path / "isolated.py", tmp_path / "foreign"
    script.write_text(ISOLATED)
    folder.mkdir(mode=0o755)
    os.chown(folder, 12345, 12345)
    command = [sys.executable, script, "isolate", folder / "file"]
    subprocess.run(command, stdin=subprocess.DEVNULL, check=True, capture_output=True)
    assert (folder / "file").exists()


def test_without_unshare_there_is_no_network_of_its_own(monkeypatch):
    monkeypatch.delenv(cluster.ISOLATED, raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    assert not cluster.isolate()


# ---- The launcher ----

# Stands in for every process of a cluster: notes that it runs, then does as the file
# `<its name>.does` of the run's folder says.
STAND_IN = """
import os, signal, sys, time
flags = dict(f.lstrip("-").partition("=")[::2] for f in sys.argv[1:])
folder = flags["log_dir"]
last = len(flags["worker_hosts"].split(",")) - 1
name = f"{flags['job_name']}_{flags['task_index']}"
if name == f"worker_{last}":
    name = "ga_worker"

def saves(*_):
    pids = [open(f"{folder}/{n}").read().split()[-1] for n in os.listdir(folder)
            if n.endswith(".pids") and not n.startswith("ga_worker")]
    alive = all(os.path.exists(f"/proc/{pid}") for pid in pids)
    with open(f"{folder}/saved", "w") as file:
        file.write(f"{alive}")
    sys.exit(143)

if name == "ga_worker":
    signal.signal(signal.SIGTERM, saves)
with open(f"{folder}/{name}.pids", "a") as file:
    file.write(f"{os.getpid()}\\n")
while True:
    try:
        todo = open(f"{folder}/{name}.does").read()
    except FileNotFoundError:
        todo = ""
    if todo.startswith("say "):
        print(todo[4:], flush=True)
        sys.exit(0)
    if todo.startswith("refuse "):
        sys.exit(print(f"stand_in.py: {todo[7:]}", file=sys.stderr, flush=True) or 2)
    if todo.startswith("die "):
        sys.exit(todo[4:])
    if todo == "ignore":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        open(f"{folder}/{name}.ignores", "w").close()
    time.sleep(0.02)
"""

LAUNCHER = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from atari import cluster; from common import commandline
cluster.STOP_SECONDS = 2
folder = sys.argv.pop()
del sys.argv[0]  # now it is the stand-in: a launcher starts its own script
commandline.run(lambda: print(cluster.launch(1, 2, 2222, folder, show_every=0.05)))
"""

NAMES = ["ps_0", "worker_0", "worker_1", "ga_worker"]


class Launcher:
    """A launcher in a process of its own, whose cluster is made of stand-ins."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        code = folder / "launcher.py"
        code.write_text(LAUNCHER)
        (folder / "stand_in.py").write_text(STAND_IN)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        command = [sys.executable, code, folder / "stand_in.py", folder]
        self.process = subprocess.Popen(command, **pipes)

    def tell(self, name, what):
        """What a stand-in is to do."""
        self.write(f"{name}.does", what)

    def write(self, name, text):
        """A file of its folder, atomically: somebody looks for it all the time."""
        (self.folder / "partial").write_text(text)
        os.replace(self.folder / "partial", self.folder / name)

    def pids(self, name, starts=1):
        """Process ids of a stand-in, once it has been started so often."""
        file = self.folder / f"{name}.pids"
        return until(lambda: self._started(file, starts))

    @staticmethod
    def _started(file, starts):
        pids = [int(pid) for pid in file.read_text().split()] if file.exists() else []
        return pids if len(pids) >= starts else None

    def all(self):
        return [self.pids(name)[-1] for name in NAMES]

    def end(self):
        stdout, stderr = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, stdout, stderr


def until(answer, seconds=PATIENCE):
    """What answer() gives once that is something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := answer():
            return found
        time.sleep(0.02)
    raise AssertionError("waited in vain")


def gone(pid):
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return status.rpartition(")")[2].split()[0] == "Z"


@pytest.fixture
def launcher(tmp_path):
    made = Launcher(tmp_path / "run")
    yield made
    made.process.kill()
    made.process.communicate()


def test_a_cluster_ends_with_the_last_line_of_its_ga_worker(launcher):
    pids = launcher.all()
    status = {
        "task": 1,
        "game": "pong",
        "steps": 1234567,
        "steps_per_second": 98.7,
        "generation": 5,
        "score": -20.5,
        "actors": [],
        "fixed_path": None,
    }
    launcher.write("status.json", json.dumps(status))
    headline = "task 2, pong: 1,234,567 steps, 99 steps/s, generation 5, score -20.50"
    assert launcher.process.stdout.readline() == headline + "\n"
    launcher.tell("ga_worker", "say PONG_PONG,TASK1:1,TASK2:2,Done")
    assert launcher.end() == (0, "PONG_PONG,TASK1:1,TASK2:2,Done\n", "")
    assert all(gone(pid) for pid in pids)
    logs = {file.name for file in (launcher.folder / "logs").iterdir()}
    assert logs == {"ps_0.log", "actor_0.log", "actor_1.log", "ga_worker.log"}


def test_whatever_dies_is_started_again_and_nothing_else(launcher):
    before = dict(zip(NAMES, launcher.all()))
    for name in NAMES:
        os.kill(before[name], signal.SIGKILL)
        assert launcher.pids(name, starts=2)[0] == before[name]
    launcher.tell("ga_worker", "say over")
    assert launcher.end()[:2] == (0, "over\n")
    assert all(len(launcher.pids(name)) == 2 for name in NAMES)


def test_an_actor_that_has_finished_is_not_started_again(launcher):
    pids = launcher.all()
    launcher.tell("worker_0", "say all tasks are over")
    until(lambda: gone(pids[1]))
    for starts in 2, 3:  # between these the launcher has looked at all
        os.kill(launcher.pids("worker_1")[-1], signal.SIGKILL)
        launcher.pids("worker_1", starts)
    assert launcher.pids("worker_0") == [pids[1]]
    assert launcher.process.poll() is None


def test_what_never_stays_up_is_given_up(launcher):
    pids = launcher.all()
    launcher.tell("worker_1", "die out of luck")
    status, stdout, stderr = launcher.end()
    assert (status, stdout) == (2, "")
    log = launcher.folder / "logs" / "actor_1.log"
    tries = cluster.START_TRIES
    assert stderr == (
        f"stand_in.py: actor_1 ended {tries} times within {cluster.START_SECONDS} s of "
        f"its start; see {log}: out of luck\n"
    )
    assert len(launcher.pids("worker_1")) == tries
    assert all(gone(pid) for pid in pids)


def test_a_refusal_is_passed_on_and_ends_all(launcher):
    pids = launcher.all()
    launcher.tell("ga_worker", "refuse flag --M=3: is another")
    assert launcher.end() == (2, "", "stand_in.py: flag --M=3: is another\n")
    assert all(gone(pid) for pid in pids)


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_everything_after_a_last_checkpoint(launcher, kind):
    pids = launcher.all()
    launcher.process.send_signal(kind)
    status, _, stderr = launcher.end()
    assert (status, stderr) == (130, "stand_in.py: interrupted\n")
    assert all(gone(pid) for pid in pids)
    # The parameter server was there as long as the GA worker needed it.
    assert (launcher.folder / "saved").read_text() == "True"


def test_a_process_that_does_not_listen_is_killed(launcher):
    pids = launcher.all()
    launcher.tell("worker_0", "ignore")
    until((launcher.folder / "worker_0.ignores").exists)
    launcher.process.send_signal(signal.SIGINT)
    assert launcher.end()[0] == 130
    assert all(gone(pid) for pid in pids)


def test_nothing_outlives_a_launcher_that_is_killed(launcher):
    pids = launcher.all()
    launcher.process.kill()
    until(lambda: all(gone(pid) for pid in pids))


@pytest.mark.skipif(not shutil.which("script"), reason="needs a terminal: `script`")
def test_a_terminal_shows_a_live_table(tmp_path):
    status = {
        "task": 0,
        "game": "catch",
        "steps": 10,
        "steps_per_second": 1.0,
        "generation": 2,
        "score": None,
        "actors": [
            {"score": None, "episodes": 0, "path": "012 3"},
            {"score": 0.25, "episodes": 8, "path": "45 6"},
        ],
        "fixed_path": "7 89",
    }
    folder = tmp_path / "run"
    code = tmp_path / "show.py"
    folder.mkdir()
    (folder / "status.json").write_text(json.dumps(status))
    code.write_text(
        f"import sys, types; sys.path.insert(0, {str(ROOT)!r}); from atari import cluster\n"
        "processes = [types.SimpleNamespace(name='actor_1', restarts=3)]\n"
        f"display = cluster._Display({str(folder)!r}, processes)\n"
        "display.show(); display.close()"
    )
    done = subprocess.run(
        ["script", "-qec", f"{sys.executable} {code}", "/dev/null"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "100"},
    )
    for text in (
        "task 1, catch: 10 steps, 1 steps/s, generation 2, score none yet",
        "012 3",
        "0.25",
        "45 6",
        "fixed path 7 89",
        "started again: actor_1 3x",
    ):
        assert text in done.stdout

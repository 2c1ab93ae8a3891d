"""Tests of launch.py; the launcher starts stand-ins that need no TensorFlow."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from atari import launch

pytestmark = pytest.mark.slow

ROOT = Path(launch.__file__).parent.parent
PATIENCE = 120  # seconds, for what takes one on a quiet machine

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
import os, signal, sys
sys.path.insert(0, {str(ROOT)!r})
from atari import launch; from common import commandline
launch.STOP_SECONDS = 2
folder = sys.argv.pop()
kind, _, forks = os.environ.get("SIGNAL_AT_FORK", "0:0").partition(":")
left = int(forks)

def before_fork():
    # What a handler raises here, where logging has a function as well, is swallowed.
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), int(kind))

os.register_at_fork(before=before_fork)
del sys.argv[0]  # now it is the stand-in: a launcher starts its own script
commandline.run(lambda: print(launch.run_processes(1, 2, 2222, folder, show_every=0.05)))
"""

NAMES = ["ps_0", "worker_0", "worker_1", "ga_worker"]


class Launcher:
    """A launcher in a process of its own, whose cluster is made of stand-ins."""

    def __init__(self, folder, prefix=(), **environment):
        self.folder = folder
        folder.mkdir()
        code = folder / "launcher.py"
        code.write_text(LAUNCHER)
        (folder / "stand_in.py").write_text(STAND_IN)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        command = [*prefix, sys.executable, code, folder / "stand_in.py", folder]
        self.process = subprocess.Popen(command, env=os.environ | environment, **pipes)

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
def launch_with(tmp_path):
    """Launches a cluster of stand-ins, with the arguments of Launcher."""
    made = []

    def start(**arguments):
        made.append(Launcher(tmp_path / "run", **arguments))
        return made[-1]

    yield start
    for launcher in made:
        launcher.process.kill()
        launcher.process.communicate()


@pytest.fixture
def launcher(launch_with):
    return launch_with()


def test_a_cluster_ends_with_the_last_line_of_its_ga_worker(launcher):
    pids = launcher.all()
    status = {
        "task": 1,
        "game": "pong",
        "steps": 1234567,
        "max_time_step": 15000000,
        "steps_per_second": 98.7,
        "generation": 5,
        "score": -20.5,
        "actors": [],
        "fixed_path": None,
    }
    launcher.write("status.json", json.dumps(status))
    headline = (
        "task 2, pong: 1,234,567 of 15,000,000 steps, 99 steps/s, generation 5, score "
        "-20.50"
    )
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
    tries = launch.START_TRIES
    assert stderr == (
        f"stand_in.py: actor_1 ended {tries} times within {launch.START_SECONDS} s of "
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


def all_pids(folder):
    """Process ids of all stand-ins that were ever started."""
    return [int(p) for file in folder.glob("*.pids") for p in file.read_text().split()]


def assert_interrupted(launcher):
    assert launcher.end() == (130, "", "stand_in.py: interrupted\n")
    assert all(gone(pid) for pid in all_pids(launcher.folder))


STOPS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.mark.parametrize("kind", STOPS)
@pytest.mark.parametrize("fork", [1, 4])
def test_a_signal_while_a_process_is_being_started_is_heard(launch_with, kind, fork):
    assert_interrupted(launch_with(SIGNAL_AT_FORK=f"{int(kind)}:{fork}"))


def test_a_signal_while_a_process_is_being_restarted_is_heard(launch_with):
    launcher = launch_with(SIGNAL_AT_FORK=f"{int(signal.SIGTERM)}:5")
    pids = launcher.all()
    os.kill(pids[1], signal.SIGKILL)
    assert_interrupted(launcher)


@pytest.mark.parametrize("milliseconds", [0, 8, 16])
def test_a_signal_soon_after_the_first_child_is_heard(launcher, milliseconds):
    pid = launcher.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children")
    until(lambda: launcher.process.poll() is not None or children.read_text())
    time.sleep(milliseconds / 1000)
    launcher.process.send_signal(signal.SIGTERM)
    assert_interrupted(launcher)


@pytest.mark.skipif(not shutil.which("nohup"), reason="needs nohup")
def test_a_launcher_outlives_its_terminal_under_nohup(launch_with):
    launcher = launch_with(prefix=["nohup"])
    launcher.all()
    launcher.process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert launcher.process.poll() is None
    launcher.process.send_signal(signal.SIGTERM)
    assert launcher.end()[0] == 130


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


STATUS = {
    "task": 0,
    "game": "catch",
    "steps": 10,
    "max_time_step": 40,
    "steps_per_second": 1.5,
    "generation": 2,
    "score": None,
    "actors": [{"score": 0.25, "episodes": 8, "path": "45 6"}],
    "fixed_path": None,
}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3",
        "[" * 100_000,
        "{}",
        "\xff",
        json.dumps(STATUS | {"task": "0"}),
        json.dumps(STATUS | {"game": "\x1b[2J"}),
        json.dumps(STATUS | {"game": 3}),
        json.dumps(STATUS | {"steps": 1.5}),
        json.dumps(STATUS | {"max_time_step": 0}),
        json.dumps(STATUS | {"steps_per_second": None}),
        json.dumps(STATUS | {"steps_per_second": 10**400}),
        json.dumps(STATUS | {"score": "high"}),
        json.dumps(STATUS | {"actors": None}),
        json.dumps(STATUS | {"actors": [3]}),
        json.dumps(
            STATUS | {"actors": [{"score": 1.0, "episodes": 3, "path": "\x1b"}]}
        ),
        json.dumps(STATUS | {"actors": [{"score": 1.0, "episodes": [], "path": ""}]}),
        json.dumps(STATUS | {"fixed_path": 3}),
    ],
)
def test_a_status_of_nonsense_is_not_shown_and_stops_nothing(tmp_path, capsys, text):
    file = tmp_path / "status.json"
    file.write_text(json.dumps(STATUS))
    display = launch._Display(str(tmp_path), [])
    display.show()
    shown = "task 1, catch: 10 of 40 steps, 2 steps/s, generation 2, score none yet\n"
    assert capsys.readouterr().out == shown
    file.write_bytes(text.encode("latin-1"))
    display._said = 0.0
    display.show()
    assert capsys.readouterr().out == ""


def test_a_status_that_cannot_be_read_stops_nothing(tmp_path):
    (tmp_path / "status.json").mkdir()
    launch._Display(str(tmp_path), []).show()


@pytest.mark.skipif(not shutil.which("script"), reason="needs a terminal: `script`")
def test_a_terminal_shows_a_live_table(tmp_path):
    status = {
        "task": 0,
        "game": "catch",
        "steps": 10,
        "max_time_step": 40,
        "steps_per_second": 1.0,
        "generation": 2,
        "score": None,
        "actors": [
            {"score": None, "episodes": 0, "path": "012 3"},
            {"score": 0.25, "episodes": 8, "path": "45 6 [/]"},
        ],
        "fixed_path": "7 89",
    }
    folder = tmp_path / "run"
    code = tmp_path / "show.py"
    folder.mkdir()
    (folder / "status.json").write_text(json.dumps(status))
    code.write_text(
        f"import sys, types; sys.path.insert(0, {str(ROOT)!r}); from atari import launch\n"
        "processes = [types.SimpleNamespace(name='actor_1', restarts=3)]\n"
        f"display = launch._Display({str(folder)!r}, processes)\n"
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
        "task 1, catch: 10 of 40 steps, 1 steps/s, generation 2, score none yet",
        "25%",
        "012 3",
        "0.25",
        "45 6 [/]",
        "fixed path 7 89",
        "started again: actor_1 3x",
    ):
        assert text in done.stdout

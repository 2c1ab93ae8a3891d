"""A whole cluster on this machine: starts every process, restarts it, shows progress.

TensorFlow is not imported here, so that the process that watches the others is small.
"""

import collections
import ctypes
import datetime
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from atari import checkpoints, machine, settings
from atari.cluster import PS, WORKER, Cluster, processes_of
from atari.stopping import Stopping
from common import checkpoint, folders, schema, shell
from common.commandline import UserError, say

ACTORS_PER_SERVER = 16

LINE_EVERY = 30  # seconds between two lines where no terminal shows the display
START_SECONDS = 20  # a process that ends before that did not start well
START_TRIES = 5  # of a process that never starts well
STOP_SECONDS = 10  # for a process to end by itself

_ACTOR = schema.record(
    {
        "score": schema.nullable(schema.number()),
        "episodes": schema.whole(0),
        "path": schema.text,
    }
)
_STATUS = schema.record(
    {
        "task": schema.whole(0),
        "game": schema.text,
        "steps": schema.whole(0),
        "max_time_step": schema.whole(1),
        "steps_per_second": schema.number(),
        "generation": schema.whole(0),
        "score": schema.nullable(schema.number()),
        "actors": schema.list_of(_ACTOR),
        "fixed_path": schema.nullable(schema.text),
    }
)


def run(plan: settings.Launch) -> None:
    """Runs a whole cluster on this machine, sized to it, and prints its last lines.

    Where all tasks of its checkpoint are over it says so, and makes nothing. That is no
    mistake: a loop over seeds that is started once more goes on with those that are left.

    Raises:
      UserError: it cannot run with these flags, or its checkpoint is of other ones.
      OSError: the folder of the run cannot be made.
      KeyboardInterrupt: it was asked to stop; with the command that goes on, if there is
        a checkpoint.
    """
    if not plan.isolate or not machine.isolate():
        say(
            "no network of its own here: every process that can reach the ports of this "
            "machine can command the cluster; see docs/atari.md"
        )
    actors = plan.actors
    servers = plan.servers or 1 + (actors - 1) // ACTORS_PER_SERVER
    per_process = plan.actors_per_process or machine.actors_per_process(actors)
    if plan.fit_memory:
        actors = machine.fitting_actors(actors, per_process, servers)
        if actors < plan.actors:
            say(
                f"{actors} actors in place of {plan.actors}: not enough memory for more"
            )
    settings.check_actors(plan.B, actors)
    if plan.checkpoint_dir and (line := _nothing_to_do(plan, actors)):
        print(line)
        return
    if plan.load_dir:
        checkpoints.learned(plan.load_dir, _about(plan, actors))  # refuses other runs'
    processes = processes_of(actors, per_process)
    with machine.reserved_ports(plan.first_port, servers + processes + 1):
        folder, line = _launch(plan, servers, actors, per_process)
    print(f"Results: {folder}\n{shell.tensorboard(folder)}\n{_watching(plan, folder)}")
    print(line)


def _launch(plan, servers, actors, per_process):
    """Runs a cluster of this size: (folder of the run, last line of the GA worker)."""
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    games = folders.joined(plan.games)
    label = f"atari__{games}__seed{plan.seed}__{now}"
    folder = folders.new(plan.log_dir, label)
    processes = processes_of(actors, per_process)
    say(
        f"parameter servers: {servers}, GA workers: 1, actors: {actors}, each with "
        f"environments: {plan.environments}, in "
        f"processes: {processes}, each with threads: "
        f"{plan.threads or machine.threads(processes)}; logs in {folder}"
    )
    try:
        return folder, run_processes(
            servers, actors, plan.first_port, folder, per_process
        )
    except KeyboardInterrupt as stopped:
        if not checkpoint.saved(_checkpoint_dir(plan, folder)):
            raise
        raise KeyboardInterrupt(
            f"interrupted; go on with: {_going_on(plan, folder)}"
        ) from stopped


def _checkpoint_dir(plan, folder):
    return plan.checkpoint_dir or os.path.join(folder, checkpoints.FOLDER)


def _going_on(plan, folder):
    """The command that goes on with a run that was stopped."""
    flags = sys.argv[1:]
    if plan.checkpoint_dir is None:
        flags = [*flags, f"--checkpoint_dir={_checkpoint_dir(plan, folder)}"]
    return shell.python(sys.argv[0], *flags)


def _watching(plan, folder):
    """The command that plays what was learned."""
    saved = _checkpoint_dir(plan, folder)
    gif = os.path.join(folder, "played.gif")
    flags = ["--play", f"--checkpoint_dir={saved}", f"--play_gif={gif}"]
    return shell.python(sys.argv[0], *flags)


def _nothing_to_do(plan, actors):
    """The line that says so where nothing is left to learn of a checkpoint; else None.

    Raises:
      UserError: the checkpoint was made with other settings.
    """
    loaded = checkpoints.load(plan.checkpoint_dir)
    if loaded is None:
        return None
    about, _ = loaded
    now = _about(plan, actors)
    checkpoints.check_same_settings(about, now, plan.decisive, plan.checkpoint_dir)
    return checkpoints.nothing_to_do(about, plan.checkpoint_dir)


def _about(plan, actors):
    """What a checkpoint of a cluster with so many actors says of it."""
    flags = plan.flags | {"worker_hosts_num": actors}  # as its processes have it
    return checkpoints.About(plan.grid, plan.games, actors, flags, [])


def run_processes(
    servers: int,
    actors: int,
    first_port: int,
    folder: str,
    per_process: int = 1,
    show_every: float = 1.0,
) -> str:
    """Runs this script as each process of a cluster, until the GA worker has finished.

    Args:
      servers, actors: how many of each; one more process is the GA worker.
      first_port: port of the first parameter server; the others follow on it.
      folder: of the run; takes a log file for each process in logs/. The GA worker
        keeps status.json up to date there.
      per_process: the most actors of a process.
      show_every: seconds between two looks at the processes.

    Returns:
      The last line that the GA worker printed.
    Raises:
      UserError: a process refused its flags or files.
      KeyboardInterrupt: this process was asked to stop, by Ctrl-C, SIGTERM or SIGHUP.
    """
    processes = _processes(servers, actors, first_port, folder, per_process)
    ga_worker = processes[-1]
    stopping = Stopping()
    stopping.listen()
    display = _Display(folder, processes)
    try:
        for process in _until_stopped(processes, stopping):
            process.start()
        while not ga_worker.has_finished():
            for process in _until_stopped(processes, stopping):
                process.keep_running()
            display.show()
            stopping.sleep(show_every)
        display.show()
        return ga_worker.last_line()
    finally:
        # A second Ctrl-C is only noted down, too: it must not leave anything running.
        display.close()
        # The GA worker first: it saves a checkpoint, for which it needs the servers.
        ga_worker.stop()
        for process in processes:
            process.terminate()
        for process in processes:
            process.stop()
        stopping.unlisten()


def _until_stopped(
    processes: list["_Process"], stopping: Stopping
) -> Iterator["_Process"]:
    """The processes one by one; raises KeyboardInterrupt when this one is to stop."""
    for process in processes:
        if stopping.asked:
            raise KeyboardInterrupt
        yield process


def _processes(servers, actors, first_port, folder, per_process):
    """The _Process of each server, of actors and, last, of the GA worker: not started."""
    count = processes_of(actors, per_process) + 1
    hosts = tuple(f"localhost:{first_port + n}" for n in range(servers + count))
    ps, workers = hosts[:servers], hosts[servers:]
    flags = [
        f"--ps_hosts={','.join(ps)}",
        f"--worker_hosts={','.join(workers)}",
        f"--worker_hosts_num={actors}",
        f"--actors_per_process={per_process}",
        f"--log_dir={folder}",
    ]
    os.makedirs(os.path.join(folder, "logs"), exist_ok=True)
    roles = [(PS, n) for n in range(servers)] + [(WORKER, n) for n in range(count)]
    return [
        _Process(Cluster(ps, workers, *role, actors, per_process), flags, folder)
        for role in roles
    ]


class _Process:
    """One process of the cluster, restarted when it dies."""

    def __init__(self, role, flags, folder):
        self.name = role.name()
        self.restarts = 0
        self._command = [
            sys.executable,
            *sys.argv,
            *flags,
            f"--job_name={role.job}",
            f"--task_index={role.index}",
        ]
        self.log = os.path.join(folder, "logs", f"{self.name}.log")
        self._failures = 0
        self._process = None

    def start(self):
        self._started = time.monotonic()
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the launcher to pass on
                preexec_fn=functools.partial(_die_with_parent, os.getpid()),
            )

    @property
    def pid(self):
        return self._process.pid

    def has_finished(self):
        return self._process.poll() == 0

    def keep_running(self):
        """Restarts it if it has died.

        Raises:
          UserError: it refused its flags, or never stays up.
        """
        status = self._process.poll()
        if status is None or status == 0:
            return
        if status == 2:
            raise UserError(self.last_line())
        quick = time.monotonic() - self._started < START_SECONDS
        self._failures = self._failures + 1 if quick else 0
        if self._failures == START_TRIES:
            raise UserError(
                f"{self.name} ended {START_TRIES} times within {START_SECONDS} s of its "
                f"start; see {self.log}: {self.last_line()}"
            )
        self.restarts += 1
        self.start()

    def last_line(self):
        """The last line of its log, without the name of the script in front."""
        with open(self.log, errors="replace") as file:
            lines = collections.deque((line.strip() for line in file), maxlen=1)
        line = lines.pop() if lines else "it said nothing"
        return line.removeprefix(f"{os.path.basename(sys.argv[0])}: ")

    def terminate(self):
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def stop(self):
        """Ends it, gently first."""
        self.terminate()
        if self._process is not None:
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def _die_with_parent(parent):
    """In a new process: it is killed when the one that launched it, `parent`, is."""
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was killed before that
        os._exit(1)


class _Display:
    """status.json as a live table on a terminal, as a line now and then elsewhere."""

    def __init__(self, folder, processes):
        self._filename = os.path.join(folder, "status.json")
        self._processes = processes
        self._console = Console(stderr=True)
        self._live = None
        self._said = 0.0
        self._task = None  # the one that the bar is of
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()

    def show(self):
        status = _read_status(self._filename)
        if status is None:
            return
        if self._live:
            self._advance(status)
            panel = _panel(status, self._progress, self._processes)
            self._live.update(panel, refresh=True)
        elif time.monotonic() - self._said >= LINE_EVERY:
            self._said = time.monotonic()
            print(_headline(status), flush=True)

    def _advance(self, status):
        """Moves the bar of the task: of the most steps that it takes."""
        total = status["max_time_step"]
        done = min(status["steps"], total)
        if self._task != status["task"]:
            self._task = status["task"]
            columns = BarColumn(None), TaskProgressColumn(), TimeRemainingColumn()
            self._progress = Progress(*columns)
            self._bar = self._progress.add_task("", total=total, completed=done)
        self._progress.update(self._bar, completed=done)

    def close(self):
        if self._live:
            self._live.stop()


def _read_status(filename):
    """What the GA worker has written last, if that is something to show; else None.

    It may not have started yet. And whatever happens to a file that is only looked at,
    learning goes on.
    """
    try:
        with open(filename) as file:
            status = json.load(file)
        _STATUS(status, "")
        return status
    except (OSError, ValueError, RecursionError):
        return None


def _headline(status):
    score = "none yet" if status["score"] is None else f"{status['score']:.2f}"
    return (
        f"task {status['task'] + 1}, {status['game']}: {status['steps']:,} of "
        f"{status['max_time_step']:,} steps, {status['steps_per_second']:.0f} steps/s, "
        f"generation {status['generation']}, score {score}"
    )


def _panel(status, progress, processes):
    table = Table("actor", "score", "episodes", "path", box=None, header_style="dim")
    for number, actor in enumerate(status["actors"]):
        score = "" if actor["score"] is None else f"{actor['score']:.2f}"
        path = Text(actor["path"])  # no markup
        table.add_row(str(number), score, str(actor["episodes"]), path)
    restarted = ", ".join(
        f"{p.name} {p.restarts}x" for p in processes if p.restarts
    )  # fmt: skip
    parts = [Text(_headline(status)), progress, table]
    if status["fixed_path"]:
        parts.append(Text(f"fixed path {status['fixed_path']}"))
    if restarted:
        parts.append(Text(f"started again: {restarted}", style="yellow"))
    return Group(*parts)

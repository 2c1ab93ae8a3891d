"""Clusters: who is who, and a whole one on this machine.

A cluster is a list of parameter servers and a list of workers, the last of which is the
GA worker and all others actors. It is described by flags, by TF_CONFIG, or made here:
`launch` starts every process, keeps it running and shows how it goes. TensorFlow is not
imported here, so that the process that watches the others stays small.
"""

import collections
import ctypes
import dataclasses
import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from common.commandline import UserError

PS, WORKER = "ps", "worker"

ISOLATED = "PATHNET_ISOLATED"  # set in a process that has a network of its own

# Memory of one process, in bytes, without the 400 MB of TensorFlow's files that all of
# them share; see benchmarks/atari_speed.py.
ACTOR_MEMORY = 600 * 2**20
SERVER_MEMORY = 500 * 2**20

LINE_EVERY = 30  # seconds between two lines where no terminal shows the display
START_SECONDS = 20  # a process that ends before that did not start well
START_TRIES = 5  # of a process that never starts well
STOP_SECONDS = 10  # for a process to end by itself

# --------------------------------------------------------------------------------------
# Who is who
# --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Cluster:
    """All processes, and which of them this one is.

    Attributes:
      ps, workers: "host:port" of each. job: PS or WORKER. index: into its list.
    """

    ps: tuple
    workers: tuple
    job: str
    index: int

    @property
    def actors(self):
        return len(self.workers) - 1

    @property
    def is_ga_worker(self):
        return self.job == WORKER and self.index == self.actors

    @property
    def device(self):
        """This process, as TensorFlow calls it."""
        return f"/job:{self.job}/task:{self.index}/cpu:0"

    def name(self):
        """What this process is called in logs."""
        if self.job == PS:
            return f"ps_{self.index}"
        return "ga_worker" if self.is_ga_worker else f"actor_{self.index}"


def from_flags(job_name, task_index, ps_hosts, worker_hosts):
    """The cluster that --job_name, --task_index, --ps_hosts and --worker_hosts describe.

    Raises:
      UserError: they do not describe one.
    """
    return _checked(
        Cluster(tuple(ps_hosts), tuple(worker_hosts), job_name, task_index),
        "flags --job_name, --task_index, --ps_hosts, --worker_hosts",
    )


def from_tf_config(text):
    """The cluster of a TF_CONFIG environment variable.

    A chief (or master), if there is one, is the GA worker; else the last worker is.

    Raises:
      UserError: it is not one.
    """
    source = "environment variable TF_CONFIG"
    try:
        config = json.loads(text)
        hosts = {
            job: tuple(map(str, names)) for job, names in config["cluster"].items()
        }
        job, index = str(config["task"]["type"]), int(config["task"]["index"])
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(
            f'{source}: must be {{"cluster": {{"ps": [...], "worker": [...]}}, '
            f'"task": {{"type": ..., "index": ...}}}}, as JSON ({error})'
        ) from error
    chiefs = hosts.get("chief", ()) + hosts.get("master", ())
    if len(chiefs) > 1:
        raise UserError(f"{source}: names {len(chiefs)} chiefs, at most one can be")
    workers = hosts.get(WORKER, ())
    if job in ("chief", "master"):
        job, index = WORKER, len(workers)
    return _checked(Cluster(hosts.get(PS, ()), workers + chiefs, job, index), source)


def _checked(cluster, source):
    hosts = {PS: cluster.ps, WORKER: cluster.workers}
    if cluster.job not in hosts:
        raise UserError(f"{source}: a process is ps or worker, not '{cluster.job}'")
    if not cluster.ps:
        raise UserError(f"{source}: no parameter server is named")
    if len(cluster.workers) < 3:
        raise UserError(
            f"{source}: {len(cluster.workers)} workers; at least 3 are needed, "
            "two actors and the GA worker"
        )
    if not 0 <= cluster.index < len(hosts[cluster.job]):
        raise UserError(
            f"{source}: there is no {cluster.job} {cluster.index}, only "
            f"0 to {len(hosts[cluster.job]) - 1}"
        )
    every = [*cluster.ps, *cluster.workers]
    for host in every:
        name, _, port = host.rpartition(":")
        if not (name and port.isdecimal() and 0 < int(port) < 65536):
            raise UserError(f"{source}: '{host}' is not host:port")
        if every.count(host) > 1:
            raise UserError(f"{source}: {host} is named twice")
    return cluster


def wait_for_servers(hosts, say, patience=15):
    """Returns when all parameter servers can be reached; says so when it takes long.

    TensorFlow would wait for them without a word, and for ever.
    """
    since = said = time.monotonic()
    for host in hosts:
        name, _, port = host.rpartition(":")
        while True:
            try:
                socket.create_connection((name.strip("[]"), int(port)), 5).close()
                break
            except OSError as error:
                now = time.monotonic()
                if now - said >= patience:
                    said = now
                    say(
                        f"cannot reach parameter server {host} for {now - since:.0f} s "
                        f"({error}); still trying"
                    )
                time.sleep(0.5)


# --------------------------------------------------------------------------------------
# What this machine has
# --------------------------------------------------------------------------------------


def cores():
    return len(os.sched_getaffinity(0))


def available_memory():
    """Bytes that can be had, by this machine and by the control group we are in."""
    with open("/proc/meminfo") as file:
        lines = dict(line.split(":") for line in file)
    available = int(lines["MemAvailable"].split()[0]) * 1024
    for limit, usage in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        ),
    ):
        try:
            with open(limit) as most, open(usage) as used:
                available = min(available, int(most.read()) - int(used.read()))
        except (OSError, ValueError):
            continue  # no such limit
    return available


def fitting_actors(wanted, servers):
    """How many of the wanted actors fit into memory, 2 at least."""
    room = available_memory() - (servers + 1) * SERVER_MEMORY
    return max(2, min(wanted, room // ACTOR_MEMORY))


# --------------------------------------------------------------------------------------
# A network of its own
#
# TensorFlow's servers listen on every interface and do what anyone who reaches them
# says. In a network namespace nobody else can reach them, and every port is free.
# --------------------------------------------------------------------------------------


def _unshare():
    """The command that gives another one a network of its own; None if none can."""
    ways = [["unshare", "--user", "--map-root-user", "--net"]]
    if os.geteuid() == 0:
        # As a new user, even root, it could not write to what belongs to others.
        ways.insert(0, ["unshare", "--net"])
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    for way in ways if shutil.which("unshare") else []:
        if subprocess.call([*way, "true"], **quiet) == 0:
            return way
    return None


def isolate():
    """Starts this very command again, in a network namespace, if the system allows it.

    Returns only if it does not, or if that has happened already: whether it has.
    """
    if os.environ.get(ISOLATED):
        _loopback_up()
        return True
    way = _unshare()
    if way is None:
        return False
    sys.stdout.flush()
    command = [*way, sys.executable, *sys.argv]
    os.execvpe(command[0], command, os.environ | {ISOLATED: "1"})


def _loopback_up():
    """What `ip link set lo up` does (netdevice(7)): a new namespace has it down."""
    SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", b"lo", 0)
        answer = fcntl.ioctl(any_socket, SIOCGIFFLAGS, request)
        flags = struct.unpack("16sh14x", answer)[1] | IFF_UP
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags))


def check_ports(first, count):
    """Raises UserError, with its number, if one of these ports is in use."""
    if first + count > 65536:
        raise UserError(
            f"flag --st_port_num={first}: {count} ports from there on go beyond 65535"
        )
    for port in range(first, first + count):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError as error:
                raise UserError(
                    f"flag --st_port_num={first}: port {port} is in use ({error}); "
                    "name another first port"
                ) from error


# --------------------------------------------------------------------------------------
# A whole cluster here
# --------------------------------------------------------------------------------------


def launch(servers, actors, first_port, folder, show_every=1.0):
    """Runs this script as a whole cluster until the GA worker has finished.

    Args:
      servers, actors: how many of each; one more worker is the GA worker.
      first_port: the servers' and workers' ports, from there on.
      folder: of the run; takes a log file for each process in logs/. The GA worker
        keeps status.json up to date there.

    Returns:
      The last line that the GA worker printed.
    Raises:
      UserError: a process refused its flags or files.
    """
    hosts = [f"localhost:{first_port + n}" for n in range(servers + actors + 1)]
    spec = [
        f"--ps_hosts={','.join(hosts[:servers])}",
        f"--worker_hosts={','.join(hosts[servers:])}",
        f"--log_dir={folder}",
    ]
    os.makedirs(os.path.join(folder, "logs"), exist_ok=True)
    roles = [(PS, n) for n in range(servers)] + [(WORKER, n) for n in range(actors + 1)]
    processes = [
        _Process(Cluster(tuple(hosts[:servers]), tuple(hosts[servers:]), *role), spec, folder)
        for role in roles
    ]  # fmt: skip
    ga_worker = processes[-1]

    def stop(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, stop)
    display = _Display(folder, processes)
    try:
        for process in processes:
            process.start()
        while not ga_worker.finished():
            for process in processes:
                process.keep_running()
            display.show()
            time.sleep(show_every)
        display.show()
        return ga_worker.last_line()
    finally:
        # A second Ctrl-C must not leave anything running.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        display.close()
        # The GA worker first: it saves a checkpoint, for which it needs the servers.
        ga_worker.stop()
        for process in processes:
            process.terminate()
        for process in processes:
            process.stop()
        signal.signal(signal.SIGINT, signal.SIG_DFL)


class _Process:
    """One process of the cluster, started again when it dies."""

    def __init__(self, role, spec, folder):
        self.name = role.name()
        self.restarts = 0
        self._command = [
            sys.executable,
            *sys.argv,
            *spec,
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
                start_new_session=True,  # Ctrl-C is for us to pass on
                preexec_fn=_die_with_parent,
            )

    @property
    def pid(self):
        return self._process.pid

    def finished(self):
        return self._process.poll() == 0

    def keep_running(self):
        """Starts it again if it has died.

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


def _die_with_parent():
    """In a new process: it is killed when the one that launched it is."""
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


# --------------------------------------------------------------------------------------
# Display
# --------------------------------------------------------------------------------------


class _Display:
    """status.json as a live table on a terminal, as a line now and then elsewhere."""

    def __init__(self, folder, processes):
        self._filename = os.path.join(folder, "status.json")
        self._processes = processes
        self._console = Console(stderr=True)
        self._live = None
        self._said = 0.0
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()

    def show(self):
        try:
            with open(self._filename) as file:
                status = json.load(file)
        except FileNotFoundError:
            return  # the GA worker has not started yet
        if self._live:
            self._live.update(_panel(status, self._processes), refresh=True)
        elif time.monotonic() - self._said >= LINE_EVERY:
            self._said = time.monotonic()
            print(_headline(status), flush=True)

    def close(self):
        if self._live:
            self._live.stop()


def _headline(status):
    score = "none yet" if status["score"] is None else f"{status['score']:.2f}"
    return (
        f"task {status['task'] + 1}, {status['game']}: {status['steps']:,} steps, "
        f"{status['steps_per_second']:.0f} steps/s, generation {status['generation']}, "
        f"score {score}"
    )


def _panel(status, processes):
    table = Table("actor", "score", "episodes", "path", box=None, header_style="dim")
    for number, actor in enumerate(status["actors"]):
        score = "" if actor["score"] is None else f"{actor['score']:.2f}"
        table.add_row(str(number), score, str(actor["episodes"]), actor["path"])
    restarted = ", ".join(
        f"{p.name} {p.restarts}x" for p in processes if p.restarts
    )  # fmt: skip
    parts = [Text(_headline(status)), table]
    if status["fixed_path"]:
        parts.append(Text(f"fixed path {status['fixed_path']}"))
    if restarted:
        parts.append(Text(f"started again: {restarted}", style="yellow"))
    return Group(*parts)

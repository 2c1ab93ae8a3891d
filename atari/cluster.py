"""Who is who in a cluster: parameter servers, actors, and one GA worker.

A cluster is a list of parameter servers and a list of workers, the last of which is the
GA worker. Each of the others holds the same number of actors, the last of them what is
left. Flags describe it, or TF_CONFIG.
"""

import collections
import contextlib
import dataclasses
import ipaddress
import json
import re
import socket
import time
from collections.abc import Sequence

from common.commandline import UserError, say
from common.require import require

PS, WORKER = "ps", "worker"
_CHIEF = ("chief", "master")  # what TF_CONFIG may call the GA worker
_SHOWN_CHARACTERS = 60


@dataclasses.dataclass(frozen=True)
class Cluster:
    """All processes of a cluster, and which of them this one is.

    Attributes:
      ps, workers: "host:port" of each parameter server and of each worker.
      job: PS or WORKER, what this process is.
      index: of this process in the list of its job.
      population: number of actors; None: as many as the processes hold.
      actors_per_process: the most that a process holds.
    """

    ps: tuple[str, ...]
    workers: tuple[str, ...]
    job: str
    index: int
    population: int | None = None
    actors_per_process: int = 1

    @property
    def actor_processes(self) -> int:
        """Number of processes of actors: the last worker is the GA worker."""
        return len(self.workers) - 1

    @property
    def actors(self) -> int:
        """Number of actors, the size of the population."""
        return self.population or self.actor_processes * self.actors_per_process

    @property
    def own_actors(self) -> range:
        """The actors of this process."""
        first = self.index * self.actors_per_process
        return range(first, min(first + self.actors_per_process, self.actors))

    @property
    def is_ga_worker(self) -> bool:
        return self.job == WORKER and self.index == self.actor_processes

    @property
    def device(self) -> str:
        """This process, as TensorFlow calls it."""
        return f"/job:{self.job}/task:{self.index}/cpu:0"

    def name(self) -> str:
        """What this process is called in logs."""
        if self.job == PS:
            return f"ps_{self.index}"
        if self.is_ga_worker:
            return "ga_worker"
        first, *more = self.own_actors
        return f"actors_{first}-{more[-1]}" if more else f"actor_{first}"


def shared_among(processes: int, actors: int) -> int:
    """The most actors that a process holds, if so many processes share them evenly."""
    return -(-actors // processes)


def processes_of(actors: int, per_process: int) -> int:
    """How many processes so many actors take."""
    return -(-actors // per_process)


def from_flags(
    job_name: str,
    task_index: int,
    ps_hosts: Sequence[str],
    worker_hosts: Sequence[str],
    population: int | None = None,
    per_process: int | None = None,
) -> Cluster:
    """The cluster that --job_name, --task_index, --ps_hosts and --worker_hosts describe.

    Args:
      population: number of actors, if it is given. per_process: of a process, likewise.

    Raises:
      UserError: they do not describe one.
    """
    return _checked(
        Cluster(tuple(ps_hosts), tuple(worker_hosts), job_name, task_index),
        "flags --job_name, --task_index, --ps_hosts, --worker_hosts",
        population,
        per_process,
    )


def from_tf_config(
    text: str, population: int | None = None, per_process: int | None = None
) -> Cluster:
    """The cluster of a TF_CONFIG environment variable.

    A chief (or master), if there is one, is the GA worker; else the last worker is.

    Args:
      population, per_process: as of `from_flags`.

    Raises:
      UserError: it is not one.
    """
    source = "environment variable TF_CONFIG"
    try:
        jobs, job, index = _parse(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise UserError(
            f'{source}: must be {{"cluster": {{"ps": [...], "worker": [...]}}, '
            f'"task": {{"type": ..., "index": ...}}}}, as JSON ({reason})'
        ) from error
    chiefs = [*jobs.get("chief", []), *jobs.get("master", [])]
    if len(chiefs) > 1:
        raise UserError(f"{source}: names {len(chiefs)} chiefs, at most one can be")
    workers = jobs.get(WORKER, [])
    if job in _CHIEF and job in jobs:
        _check_index(job, index, len(jobs[job]), source)
        job, index = WORKER, len(workers)
    elif job == WORKER:  # the place after the last one is the chief's
        _check_index(job, index, len(workers), source)
    every = tuple(jobs.get(PS, [])), (*workers, *chiefs)
    return _checked(Cluster(*every, job, index), source, population, per_process)


def _parse(text):
    """What TF_CONFIG says: ({job: hosts}, type of this process, its index).

    Raises:
      ValueError: something is not what it should be; says what.
      RecursionError: its lists or objects are nested too deeply.
    """
    config = json.loads(text, object_pairs_hook=_without_duplicates)
    require(isinstance(config, dict), "it is not an object")
    jobs, task = config.get("cluster"), config.get("task")
    require(isinstance(jobs, dict), "cluster is not an object")
    for job in (PS, WORKER, *_CHIEF):
        hosts = jobs.get(job, [])
        are_texts = isinstance(hosts, list) and all(isinstance(h, str) for h in hosts)
        require(are_texts, f"cluster, {job}: is not a list of host:port")
    require(isinstance(task, dict), "task is not an object")
    require(isinstance(task.get("type"), str), "task, type: is not text")
    index = task.get("index")
    if isinstance(index, str) and re.fullmatch("[0-9]{1,9}", index):
        index = int(index)  # as Kubernetes has it
    is_index = type(index) is int and index >= 0
    require(is_index, "task, index: is not a whole number from 0 on")
    return jobs, task["type"], index


def _without_duplicates(pairs):
    """An object of JSON: Python would silently take the last of two equal names."""
    for name, count in collections.Counter(name for name, _ in pairs).items():
        require(count == 1, f"{_shown(name)} is there twice")
    return dict(pairs)


def _checked(cluster, source, population, per_process):
    """The Cluster with its actors shared among its processes; UserError if it is none."""
    hosts = {PS: cluster.ps, WORKER: cluster.workers}
    if cluster.job not in hosts:
        raise UserError(
            f"{source}: a process is ps or worker, not {_shown(cluster.job)}"
        )
    if not cluster.ps:
        raise UserError(f"{source}: no parameter server is named")
    if len(cluster.workers) > 1:
        cluster = _populated(cluster, population, per_process, source)
    if cluster.actors < 2:
        raise UserError(
            f"{source}: {len(cluster.workers)} workers; at least 3 are needed, two actors "
            "and the GA worker, or 2 of which one holds several (--actors_per_process)"
        )
    _check_index(cluster.job, cluster.index, len(hosts[cluster.job]), source)
    addresses = set()
    for host in [*cluster.ps, *cluster.workers]:
        address = _address(host)
        if address is None:
            raise UserError(f"{source}: {_shown(host)} is not host:port")
        if address in addresses:
            raise UserError(f"{source}: {host} is named twice")
        addresses.add(address)
    return cluster


def _populated(cluster, population, per_process, source):
    """The Cluster with its actors shared among its processes; UserError if they do not fit."""
    processes = cluster.actor_processes
    if per_process is None:
        per_process = shared_among(processes, population or processes)
    cluster = dataclasses.replace(
        cluster, population=population, actors_per_process=per_process
    )
    actors, needed = cluster.actors, processes_of(cluster.actors, per_process)
    if needed != processes:
        raise UserError(
            f"{source}: {len(cluster.workers)} workers; --worker_hosts_num={actors} and "
            f"--actors_per_process={per_process} take {needed + 1}, one of them the GA "
            "worker"
        )
    return cluster


def _check_index(job, index, count, source):
    """Raises UserError unless there is a process of this index."""
    if not 0 <= index < count:
        only = f"only 0 to {count - 1}" if count else "none at all"
        raise UserError(f"{source}: there is no {job} {_shown(index)}, {only}")


def _address(host):
    """(name, port) of "host:port", in one spelling; None if it is none."""
    name, _, port = host.rpartition(":")
    if not re.fullmatch("[1-9][0-9]{0,4}", port) or int(port) > 65535:
        return None
    if found := re.fullmatch(r"\[([0-9A-Fa-f:.]+(%[A-Za-z0-9_.-]+)?)\]", name):
        with contextlib.suppress(ValueError):
            return ipaddress.IPv6Address(found[1]), int(port)
        return None
    # Names of services may have an underscore.
    if not re.fullmatch("[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252})", name):
        return None
    return name.lower(), int(port)


def _shown(value):
    """A value of a user's as a message quotes it: short, and without control characters."""
    return ascii(value)[:_SHOWN_CHARACTERS]


def wait_for_servers(hosts: Sequence[str], patience: float = 15) -> None:
    """Returns when all parameter servers can be reached.

    TensorFlow would wait for them for ever, and silently.

    Args:
      hosts: "host:port" of each.
      patience: seconds between two lines that say which one is waited for.
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

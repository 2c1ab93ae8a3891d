"""Who is who in a cluster: parameter servers, actors, and one GA worker.

A cluster is a list of parameter servers and a list of workers, the last of which is the
GA worker and all others actors. Flags describe it, or TF_CONFIG.
"""

import dataclasses
import json
import socket
import time
from collections.abc import Sequence

from common.commandline import UserError, say

PS, WORKER = "ps", "worker"


@dataclasses.dataclass(frozen=True)
class Cluster:
    """All processes of a cluster, and which of them this one is.

    Attributes:
      ps, workers: "host:port" of each parameter server and of each worker.
      job: PS or WORKER, what this process is.
      index: of this process in the list of its job.
    """

    ps: tuple[str, ...]
    workers: tuple[str, ...]
    job: str
    index: int

    @property
    def actors(self) -> int:
        """Number of actors: the last worker is the GA worker."""
        return len(self.workers) - 1

    @property
    def is_ga_worker(self) -> bool:
        return self.job == WORKER and self.index == self.actors

    @property
    def device(self) -> str:
        """This process, as TensorFlow calls it."""
        return f"/job:{self.job}/task:{self.index}/cpu:0"

    def name(self) -> str:
        """What this process is called in logs."""
        if self.job == PS:
            return f"ps_{self.index}"
        return "ga_worker" if self.is_ga_worker else f"actor_{self.index}"


def from_flags(
    job_name: str, task_index: int, ps_hosts: Sequence[str], worker_hosts: Sequence[str]
) -> Cluster:
    """The cluster that --job_name, --task_index, --ps_hosts and --worker_hosts describe.

    Raises:
      UserError: they do not describe one.
    """
    return _checked(
        Cluster(tuple(ps_hosts), tuple(worker_hosts), job_name, task_index),
        "flags --job_name, --task_index, --ps_hosts, --worker_hosts",
    )


def from_tf_config(text: str) -> Cluster:
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

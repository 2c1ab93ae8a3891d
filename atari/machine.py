"""This machine: its cores and memory, free ports, and a network namespace.

TensorFlow's servers listen on every interface and do what anyone who reaches them says.
In a network namespace nobody else can reach them, and every port is free.
"""

import contextlib
import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator

from atari.cluster import shared_among
from common import memory
from common.commandline import UserError

ISOLATED = "PATHNET_ISOLATED"  # set in a process that is in its own network namespace

# Memory in bytes of an actor, and of a process without its actors and without the 400 MB
# of TensorFlow's files that all of them share; see benchmarks/atari_speed.py.
ACTOR_MEMORY = 40 * 2**20
PROCESS_MEMORY = 450 * 2**20


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def fitting_actors(wanted: int, per_process: int, servers: int) -> int:
    """How many of the wanted actors fit into memory, 2 at least."""
    room = memory.available() - (servers + 1) * PROCESS_MEMORY
    of_process = PROCESS_MEMORY + per_process * ACTOR_MEMORY
    full, left = divmod(room, of_process)
    more = max(0, left - PROCESS_MEMORY) // ACTOR_MEMORY
    return max(2, min(wanted, full * per_process + more))


def actors_per_process(actors: int) -> int:
    """How many of so many actors share a process, so that each process has a core."""
    return shared_among(min(actors, cores()), actors)


def threads(processes: int) -> int:
    """Threads of each of so many processes that share the cores."""
    return max(1, cores() // processes)


def unshare_command() -> list[str] | None:
    """The command that runs another one in a network namespace; None if none can."""
    ways = [["unshare", "--user", "--map-root-user", "--net"]]
    if os.geteuid() == 0:
        # As a new user, even root, it could not write to what belongs to others.
        ways.insert(0, ["unshare", "--net"])
    no_output = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    for way in ways if shutil.which("unshare") else []:
        if subprocess.call([*way, "true"], **no_output) == 0:
            return way
    return None


def isolate() -> bool:
    """Restarts this command in a network namespace, if the system allows it.

    Returns:
      Whether this process is in one: it returns in the restarted process, or where the
      system does not allow it.
    """
    if os.environ.get(ISOLATED):
        _loopback_up()
        return True
    way = unshare_command()
    if way is None:
        return False
    sys.stdout.flush()
    command = [*way, sys.executable, *sys.argv]
    os.execvpe(command[0], command, os.environ | {ISOLATED: "1"})


def _loopback_up():
    """Does `ip link set lo up` (netdevice(7)): it is down in a new namespace."""
    SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", b"lo", 0)
        answer = fcntl.ioctl(any_socket, SIOCGIFFLAGS, request)
        flags = struct.unpack("16sh14x", answer)[1] | IFF_UP
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags))


def check_ports(first: int, count: int) -> None:
    """Checks that `count` ports from `first` on are free.

    Raises:
      UserError: one is in use, or there are not so many; names its number.
    """
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
                raise _port_in_use(first, port, error) from error


@contextlib.contextmanager
def reserved_ports(first: int, count: int) -> Iterator[None]:
    """Within it no other cluster can be launched on `count` ports from `first` on.

    Its processes take their ports seconds after these were found free. Two clusters that
    are launched at the same moment would share them out, and command each other's. So a
    launcher holds the UDP ports of these numbers, which nobody else has a use for.

    Raises:
      UserError: as of `check_ports`.
    """
    check_ports(first, count)
    with contextlib.ExitStack() as held:
        for port in range(first, first + count):
            probe = held.enter_context(socket.socket(type=socket.SOCK_DGRAM))
            try:
                probe.bind(("", port))
            except OSError as error:
                raise _port_in_use(first, port, error) from error
        yield


def _port_in_use(first, port, error):
    return UserError(
        f"flag --st_port_num={first}: port {port} is in use ({error}); name another "
        "first port"
    )

"""Tests of machine.py: ports, memory, the network namespace."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from atari import machine
from common.commandline import UserError

ROOT = Path(machine.__file__).parent.parent


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_busy_port_is_named(family):
    with socket.socket(family) as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError) as refused:
            machine.check_ports(port - 1, 4)
        assert f"--st_port_num={port - 1}: port {port} is in use" in str(refused.value)
    machine.check_ports(port, 1)


def test_ports_of_a_cluster_that_is_being_launched_are_in_use():
    """Though none of its processes listens yet, and until it ends, however it does."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    with (
        pytest.raises(ZeroDivisionError),
        machine.reserved_ports(port, 1),
    ):
        with (
            pytest.raises(UserError, match=f"port {port} is in use"),
            machine.reserved_ports(port, 1),
        ):
            raise AssertionError
        machine.check_ports(port, 1)  # its own processes can have it
        raise ZeroDivisionError
    with machine.reserved_ports(port, 1):
        pass


def test_ports_end_at_65535():
    with pytest.raises(UserError, match="4 ports from there on go beyond 65535"):
        machine.check_ports(65533, 4)


@pytest.mark.parametrize(
    ("processes", "actors", "expected"),
    [(0, 10**9, 2), (1, 0.5, 2), (1, 3.5, 3), (2, 5.5, 5), (2.5, 6, 6), (99, 999, 10)],
)
def test_as_many_actors_as_fit(monkeypatch, processes, actors, expected):
    """Three of a process; there is room for so many processes, of so many actors in all."""
    bytes_left = (3 + processes) * machine.PROCESS_MEMORY
    bytes_left += actors * machine.ACTOR_MEMORY if processes else 0
    monkeypatch.setattr(machine.memory, "available", lambda: int(bytes_left))
    assert machine.fitting_actors(10, 3, servers=2) == expected


@pytest.mark.parametrize(
    ("cores", "actors", "expected"),
    [(1, 10, 10), (2, 10, 5), (2, 2, 1), (4, 10, 3), (16, 10, 1), (3, 7, 3)],
)
def test_each_process_of_actors_has_a_core(monkeypatch, cores, actors, expected):
    monkeypatch.setattr(machine, "cores", lambda: cores)
    assert machine.actors_per_process(actors) == expected


# ---- A network namespace ----

ISOLATED = f"""
import os, socket, sys
sys.path.insert(0, {str(ROOT)!r})
from atari import machine
print(machine.isolate() if sys.argv[1] == "isolate" else "open", flush=True)
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
    machine.unshare_command() is None,
    reason="this system gives nobody a network namespace",
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
    monkeypatch.delenv(machine.ISOLATED, raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    assert not machine.isolate()

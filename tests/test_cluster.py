"""Tests of cluster.py: who is who, what fits, and processes that are kept running."""

import json
import socket
import sys
import threading

import pytest

import cluster
from commandline import UserError

PS, WORKERS = ["a:1"], ["b:1", "c:1", "d:1"]


def tf_config(spec, kind, index):
    return json.dumps({"cluster": spec, "task": {"type": kind, "index": index}})


def test_flags_say_who_is_who():
    role = cluster.from_flags("worker", 2, PS, WORKERS)
    assert (role.actors, role.is_ga_worker, role.name()) == (2, True, "ga_worker")
    role = cluster.from_flags("worker", 1, PS, WORKERS)
    assert (role.is_ga_worker, role.name()) == (False, "actor_1")
    assert cluster.from_flags("ps", 0, PS, WORKERS).name() == "ps_0"
    assert role.device == "/job:worker/task:1/cpu:0"


def test_tf_config_says_the_same():
    spec = {"ps": PS, "worker": WORKERS}
    for kind, index in (("ps", 0), ("worker", 0), ("worker", 2)):
        assert cluster.from_tf_config(
            tf_config(spec, kind, index)
        ) == cluster.from_flags(kind, index, PS, WORKERS)


@pytest.mark.parametrize("chief", ["chief", "master"])
def test_a_chief_is_the_ga_worker(chief):
    spec = {chief: ["d:1"], "ps": PS, "worker": WORKERS[:2]}
    role = cluster.from_tf_config(tf_config(spec, chief, 0))
    assert role.is_ga_worker and role.workers == tuple(WORKERS)
    actor = cluster.from_tf_config(tf_config(spec, "worker", 1))
    assert actor.name() == "actor_1" and actor.workers == role.workers


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"job_name": "chef"}, "not 'chef'"),
        ({"ps_hosts": []}, "no parameter server"),
        ({"worker_hosts": WORKERS[:2]}, "2 workers; at least 3"),
        ({"task_index": 3}, "no worker 3, only 0 to 2"),
        ({"worker_hosts": ["b", "c:1", "d:1"]}, "'b' is not host:port"),
        ({"worker_hosts": ["b:x", "c:1", "d:1"]}, "'b:x' is not host:port"),
        ({"worker_hosts": ["b:70000", "c:1", "d:1"]}, "'b:70000' is not host:port"),
        ({"worker_hosts": ["a:1", "c:1", "d:1"]}, "a:1 is named twice"),
    ],
)
def test_a_wrong_cluster_is_one_line(change, complaint):
    right = {"job_name": "worker", "task_index": 0}
    right |= {"ps_hosts": PS, "worker_hosts": WORKERS}
    with pytest.raises(UserError, match=complaint) as caught:
        cluster.from_flags(**right | change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"cluster": {}}', '{"cluster": {"ps": 1}, "task": {}}', "{'a'}"],
)
def test_a_wrong_tf_config_is_one_line(text):
    with pytest.raises(UserError, match="TF_CONFIG"):
        cluster.from_tf_config(text)


def test_two_chiefs_are_one_too_many():
    spec = {"chief": ["d:1", "e:1"], "ps": PS, "worker": WORKERS}
    with pytest.raises(UserError, match="2 chiefs"):
        cluster.from_tf_config(tf_config(spec, "chief", 0))


def test_a_busy_port_is_named():
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} is in use"):
            cluster.check_ports(port - 1, 3)
    cluster.check_ports(port, 1)


def test_ports_end_at_65535():
    with pytest.raises(UserError, match="beyond 65535"):
        cluster.check_ports(65535, 2)


def test_waiting_for_a_server_is_told_and_ends_when_it_comes():
    with socket.socket() as server:
        server.bind(("localhost", 0))
        host = f"localhost:{server.getsockname()[1]}"
        said, told = [], threading.Event()

        def say(line):
            said.append(line)
            told.set()

        waiting = threading.Thread(
            target=cluster.wait_for_servers, args=([host], say, 0.1)
        )
        waiting.start()
        assert told.wait(10)
        server.listen()
        waiting.join(10)
        assert not waiting.is_alive()
    assert f"cannot reach parameter server {host}" in said[0]


def test_actors_that_do_not_fit_are_left_out(monkeypatch):
    room = cluster.ACTOR_MEMORY * 4 + cluster.SERVER_MEMORY * 2
    monkeypatch.setattr(cluster, "available_memory", lambda: room)
    assert cluster.fitting_actors(10, servers=1) == 4
    assert cluster.fitting_actors(3, servers=1) == 3
    monkeypatch.setattr(cluster, "available_memory", lambda: 0)
    assert cluster.fitting_actors(10, servers=1) == 2


def test_available_memory_is_some_of_this_machines():
    assert 2**24 < cluster.available_memory() < 2**50


class Script:
    """A process of cluster._Process whose command is a line of Python."""

    def __init__(self, monkeypatch, folder, line):
        (folder / "logs").mkdir(exist_ok=True)
        monkeypatch.setattr(sys, "argv", ["-c", line])
        role = cluster.from_flags("worker", 0, PS, WORKERS)
        self.process = cluster._Process(role, [], str(folder))
        self.process.start()

    def end(self):
        self.process._process.wait(20)


def test_a_process_that_dies_is_started_again(monkeypatch, tmp_path):
    script = Script(monkeypatch, tmp_path, "import os; os.kill(os.getpid(), 9)")
    script.end()
    first = script.process.pid
    script.process.keep_running()
    assert script.process.restarts == 1 and script.process.pid != first
    script.process.stop()


def test_one_that_never_stays_up_is_given_up(monkeypatch, tmp_path):
    script = Script(monkeypatch, tmp_path, "print('no luck'); exit(1)")
    with pytest.raises(UserError, match=r"actor_0 ended 5 times .*no luck"):
        for _ in range(cluster.START_TRIES):
            script.end()
            script.process.keep_running()
    assert script.process.restarts == cluster.START_TRIES - 1


def test_a_mistake_is_passed_on(monkeypatch, tmp_path):
    line = "import sys; print('flag --M: too small'); sys.exit(2)"
    script = Script(monkeypatch, tmp_path, line)
    script.end()
    with pytest.raises(UserError, match="^flag --M: too small$"):
        script.process.keep_running()


def test_one_that_ends_well_stays_ended(monkeypatch, tmp_path):
    script = Script(monkeypatch, tmp_path, "print('the last line')")
    script.end()
    script.process.keep_running()
    assert script.process.finished() and script.process.restarts == 0
    assert script.process.last_line() == "the last line"


def test_stopping_one_that_will_not_end(monkeypatch, tmp_path):
    monkeypatch.setattr(cluster, "STOP_SECONDS", 0.5)
    line = (
        "import signal,time; signal.signal(15, lambda *_: 0); print('up', flush=True)"
    )
    script = Script(monkeypatch, tmp_path, f"{line}\nwhile True: time.sleep(1)")
    while "up" not in (tmp_path / "logs" / "actor_0.log").read_text():
        pass
    script.process.stop()
    assert script.process._process.returncode == -9

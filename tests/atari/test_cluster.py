"""Tests of cluster.py: who is who, and waiting for servers."""

import contextlib
import json
import socket
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atari import cluster
from atari.cluster import PS, WORKER, Cluster
from common.commandline import UserError

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


@pytest.mark.parametrize(
    ("population", "per_process", "own"),
    [
        (None, None, [[0], [1], [2]]),
        (None, 2, [[0, 1], [2, 3], [4, 5]]),
        (7, None, [[0, 1, 2], [3, 4, 5], [6]]),
        (8, 3, [[0, 1, 2], [3, 4, 5], [6, 7]]),
    ],
)
def test_processes_share_the_actors(population, per_process, own):
    shared = population, per_process
    processes = {"ps": PS_HOSTS, "worker": WORKER_HOSTS}
    for index, numbers in enumerate(own):
        role = cluster.from_flags(WORKER, index, PS_HOSTS, WORKER_HOSTS, *shared)
        text = tf_config({"type": WORKER, "index": index}, **processes)
        assert cluster.from_tf_config(text, *shared) == role
        assert list(role.own_actors) == numbers
        first, *more = numbers
        name = f"actors_{first}-{more[-1]}" if more else f"actor_{first}"
        assert role.name() == name
        assert role.actors == sum(map(len, own))
        assert role.actor_processes == 3
    last = cluster.from_flags(WORKER, 3, PS_HOSTS, WORKER_HOSTS, *shared)
    assert last.is_ga_worker


def test_one_process_can_hold_the_population():
    role = cluster.from_flags(WORKER, 0, PS_HOSTS, WORKER_HOSTS[:2], None, 4)
    assert list(role.own_actors) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("population", "per_process", "needed"),
    [(2, None, 3), (9, 2, 6), (3, 3, 2), (9, 9, 2)],
)
def test_actors_that_do_not_fit_the_processes(population, per_process, needed):
    with pytest.raises(UserError) as refused:
        cluster.from_flags(PS, 0, PS_HOSTS, WORKER_HOSTS, population, per_process)
    assert str(refused.value) == (
        "flags --job_name, --task_index, --ps_hosts, --worker_hosts: 4 workers; "
        f"--worker_hosts_num={population} and --actors_per_process={per_process or 1} "
        f"take {needed}, one of them the GA worker"
    )


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
        (PS, 0, ["B:2222"], WORKER_HOSTS, "b:2222 is named twice"),
        (PS, 0, ["[0::1]:2222"], WORKER_HOSTS, "[::1]:2222 is named twice"),
        (PS, 0, ["p q:1"], WORKER_HOSTS, "'p q:1' is not host:port"),
        (PS, 0, ["a:1\n"], WORKER_HOSTS, "'a:1\\n' is not host:port"),
        (PS, 0, ["a\x1b[2J:1"], WORKER_HOSTS, "'a\\x1b[2J:1' is not host:port"),
        (PS, 0, ["a/b:1"], WORKER_HOSTS, "'a/b:1' is not host:port"),
        (PS, 0, ["::1:1"], WORKER_HOSTS, "'::1:1' is not host:port"),
        (PS, 0, ["[1:2]:1"], WORKER_HOSTS, "'[1:2]:1' is not host:port"),
        (PS, 0, ["[::1%\x1b]:1"], WORKER_HOSTS, "is not host:port"),
        (PS, 0, ["a:１"], WORKER_HOSTS, "is not host:port"),
        (PS, 0, ["a:01"], WORKER_HOSTS, "'a:01' is not host:port"),
        (PS, 0, ["a:" + "9" * 5000], WORKER_HOSTS, "is not host:port"),
        (PS, 10**30, PS_HOSTS, WORKER_HOSTS, f"there is no ps {10**30}, only 0 to 1"),
    ],
)
def test_wrong_clusters_are_one_line(job, index, ps, workers, fault):
    with pytest.raises(UserError) as refused:
        cluster.from_flags(job, index, ps, workers)
    assert str(refused.value).startswith("flags --job_name, --task_index, --ps_hosts")
    assert fault in str(refused.value) and len(str(refused.value)) < 300
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
        "[" * 50_000,
        '{"cluster": ' * 50_000,
        "9" * 5000,
        '{"cluster": {}, "cluster": {}}',
        '{"cluster": {"ps": ["a:1"], "ps": ["a:2"]}, "task": {"type": "ps"}}',
        *(
            tf_config({"type": "ps", "index": index}, ps=PS_HOSTS, worker=WORKER_HOSTS)
            for index in (
                1.9,
                1.0,
                True,
                None,
                [1],
                -1,
                "-1",
                "１",
                "1" * 5000,
                10**300,
            )
        ),
    ],
)
def test_other_texts_are_no_tf_config(text):
    with pytest.raises(UserError, match="^environment variable TF_CONFIG: ") as refused:
        cluster.from_tf_config(text)
    assert str(refused.value).isprintable() and len(str(refused.value)) < 400


@pytest.mark.parametrize(
    ("kind", "index", "fault"),
    [
        ("worker", 4, "there is no worker 4, only 0 to 3"),
        ("chief", 1, "there is no chief 1, only 0 to 0"),
        ("master", 0, "a process is ps or worker, not 'master'"),
        ("evaluator", 0, "a process is ps or worker, not 'evaluator'"),
        ("\x1b[2J", 0, r"a process is ps or worker, not '\x1b[2J'"),
    ],
)
def test_beside_a_chief_there_are_no_places_but_its_own(kind, index, fault):
    jobs = {"ps": PS_HOSTS, "worker": WORKER_HOSTS, "chief": ["e:2222"]}
    with pytest.raises(UserError) as refused:
        cluster.from_tf_config(tf_config({"type": kind, "index": index}, **jobs))
    assert fault in str(refused.value)


def test_a_cluster_of_many_processes_is_read_in_no_time():
    workers = [f"worker-{n}.svc_0:2222" for n in range(50_000)]
    role = cluster.from_tf_config(
        tf_config({"type": "worker", "index": "7"}, ps=["[fe80::1]:1"], worker=workers)
    )
    assert role.actors == 49_999


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


# ---- Waiting for servers ----


def free_port():
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def test_whoever_cannot_reach_a_server_says_so_and_goes_on_when_it_comes(monkeypatch):
    port = free_port()
    said = []
    late = socket.socket()
    late.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

    def say(line):
        said.append(line)
        if len(said) == 2:
            late.bind(("localhost", port))
            late.listen()

    monkeypatch.setattr(cluster, "say", say)
    with late:
        waiting = threading.Thread(
            target=cluster.wait_for_servers,
            args=([f"localhost:{port}"],),
            kwargs={"patience": 0.1},
        )
        waiting.start()
        waiting.join(PATIENCE)
        assert not waiting.is_alive()
    assert len(said) >= 2
    assert all(f"cannot reach parameter server localhost:{port} for" in s for s in said)
    assert "refused" in said[0]


def test_a_host_whose_name_is_unknown_is_waited_for_as_well(monkeypatch):
    class Heard(Exception):
        pass

    def say(line):
        raise Heard(line)

    monkeypatch.setattr(cluster, "say", say)
    with pytest.raises(Heard, match="cannot reach parameter server nowhere.invalid:1"):
        cluster.wait_for_servers(["nowhere.invalid:1"], patience=0.1)

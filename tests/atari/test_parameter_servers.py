"""Tests of parameter_servers.py, with servers in this process that are real."""

import socket
import threading
from dataclasses import replace

import numpy as np
import pytest

import a3c
from a3c import EPISODE, ConvGrid, Learning
from atari import checkpoints, sessions
from atari.cluster import PS, WORKER, Cluster
from atari.exchange import Exchange
from atari.parameter_servers import Shared
from common import tf1 as tf

pytestmark = pytest.mark.slow

GRID = ConvGrid(3, 6, 2, (12, 5), (8, 3), actions=(3, 4))
NO_EPISODES = np.zeros([0, len(EPISODE)])
LEARNING = Learning(
    t_max=2,
    gamma=0.99,
    entropy=0.01,
    value_weight=0.5,
    learning_rate=0.01,
    rms_decay=0.9,
    rms_momentum=0.5,
    rms_epsilon=1e-4,
    grad_norm_clip=40,
    max_time_step=1000,
)
ACTORS = 2


def connected(servers, graph):
    """A session with the fixture's servers, or of this process alone without them."""
    if servers is None:
        return tf.Session(graph=graph)
    role, server = servers
    return sessions.connect(server, role, graph)


class Here:
    """Everything that processes share, in one session.

    Attributes:
      push: function (task, entries, steps) that applies gradients; see Shared.apply.
    """

    def __init__(self, learning=LEARNING, build=lambda shared: None, servers=None):
        self.graph = tf.Graph()
        with self.graph.as_default():
            self.shared = Shared(GRID, ACTORS, 2 if servers else 0, learning)
            self.op = build(self.shared)
            self.state = {n: v.read_value() for n, v in self.shared.state().items()}
            zero = tf.global_variables_initializer()
            self.given = {
                v: tf.placeholder(v.dtype.base_dtype, v.shape)
                for v in self.shared.state().values()
            }
            self.assign = {v: v.assign(self.given[v]) for v in self.given}
        self.session = connected(servers, self.graph)
        self.session.run(zero)

    def set(self, variable, value):
        self.session.run(self.assign[variable], {self.given[variable]: value})

    def run(self, feed=None):
        return self.session.run(self.op, feed)

    def values(self):
        return self.session.run(self.state)

    def randomize(self, seed):
        rng = np.random.default_rng(seed)
        for variable in self.shared.parameters():
            self.set(variable, rng.normal(size=variable.shape))
            for slot in self.shared.slots[variable.op.name]:
                self.set(slot, rng.random(variable.shape))
        return rng


def test_a_checkpoint_has_exactly_these_variables():
    for grid in GRID, replace(GRID, use_lstm=False):
        with tf.Graph().as_default():
            state = Shared(grid, ACTORS, 0, LEARNING).state()
        assert checkpoints.array_types(grid, ACTORS) == {
            name: (variable.dtype.base_dtype.name, tuple(variable.shape.as_list()))
            for name, variable in state.items()
        }


# ---- Shared RMSProp ----


def test_sparse_rmsprop_is_dense_rmsprop_on_the_rows_that_are_pushed():
    """Other rows, values and mean squares alike, stay as they are, bit by bit."""
    rows = np.array([4, 1])

    def build(shared):
        gradient = tf.placeholder(tf.float32, [2, *shared.kernels[1].shape[1:]])
        dense = tf.placeholder(tf.float32, shared.heads[0]["policy/kernel"].shape)
        entries = [
            (shared.kernels[1], gradient, tf.constant(rows)),
            (shared.heads[0]["policy/kernel"], dense, None),
        ]
        return {
            "accepted": shared.apply(
                0, entries, 1, tf.constant(7, tf.int64), NO_EPISODES
            ),
        }, (gradient, dense)

    here = Here(build=lambda shared: build(shared))
    here.op, (gradient, dense) = here.op
    rng = here.randomize(0)
    names = "layer2/kernel", "task1/policy/kernel"
    before = here.values()
    value = {name: before[name].astype(float) for name in names}
    square = {name: before[f"{name}/square"].astype(float) for name in names}
    speed = {name: before[f"{name}/speed"].astype(float) for name in names}
    for step in range(4):
        pushed = [rng.normal(size=g.shape) for g in (gradient, dense)]
        assert here.run(dict(zip((gradient, dense), pushed)))["accepted"]
        for name, g, index in zip(names, pushed, (rows, slice(None))):
            mean = square[name]
            mean[index] = 0.9 * mean[index] + 0.1 * g**2
            rate = 0.01 * (1 - 7 * step / 1000)
            speed[name][index] *= 0.5
            speed[name][index] += rate * g / np.sqrt(mean[index] + 1e-4)
            value[name][index] -= speed[name][index]
    after = here.values()
    others = np.setdiff1d(np.arange(GRID.M), rows)
    for name in names:
        np.testing.assert_allclose(after[name], value[name], atol=1e-5)
        np.testing.assert_allclose(after[f"{name}/square"], square[name], atol=1e-5)
        np.testing.assert_allclose(after[f"{name}/speed"], speed[name], atol=1e-5)
    for name in before:
        if name.startswith("layer2/kernel"):
            assert np.array_equal(before[name][others], after[name][others])
        elif not name.startswith(("task1/policy/kernel", "steps")):
            assert np.array_equal(before[name], after[name])
    assert after["steps"] == 28


def one_gradient(task, steps=10):
    """Builds a push of ones to the policy's biases of a task."""

    def build(shared):
        bias = shared.heads[task]["policy/bias"]
        entries = [(bias, tf.ones_like(bias), None)]
        return shared.apply(task, entries, 1, tf.constant(steps, tf.int64), NO_EPISODES)

    return build


def test_the_learning_rate_falls_linearly_to_nothing():
    learning = replace(LEARNING, rms_decay=0.0, rms_momentum=0.0, rms_epsilon=1e-12)
    here = Here(learning, one_gradient(0))
    for steps in 0, 250, 500, 990:
        here.set(here.shared.steps, steps)
        before = here.values()["task1/policy/bias"]
        assert here.run()
        change = here.values()["task1/policy/bias"] - before
        np.testing.assert_allclose(change, -0.01 * (1 - steps / 1000), rtol=1e-2)


@pytest.mark.parametrize(("task", "steps"), [(0, 1000), (0, 1009), (1, 0), (2, 999)])
def test_what_comes_after_the_end_of_a_task_changes_nothing(task, steps):
    here = Here(build=one_gradient(0))
    here.randomize(0)
    here.set(here.shared.task, task)
    here.set(here.shared.steps, steps)
    before = here.values()
    assert not here.run()
    after = here.values()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_the_last_push_of_a_task_counts_in_full():
    here = Here(build=one_gradient(0, steps=16))
    here.set(here.shared.steps, 999)
    assert [here.run(), here.run()] == [True, False]
    assert here.values()["steps"] == 1015


# ---- Initial values and the switch of tasks ----


def initialize(shared):
    seed = tf.placeholder(tf.int64, [2], "drawn_with")
    return shared.initialize(seed)


def drawn(here, *seed):
    here.run({here.graph.get_tensor_by_name("drawn_with:0"): seed})
    return here.values()


def test_initial_values():
    here = Here(build=initialize)
    first, same = drawn(here, 5, 0), drawn(here, 5, 0)
    other, later = drawn(here, 6, 0), drawn(here, 5, 1)
    N = here.shared.grid.N
    bounds = {"layer1/": np.sqrt(6 / (N * 12 * 12 * 4))}
    bounds |= {"layer2/": np.sqrt(6 / (N * 5 * 5 * 8))}
    bounds |= {"layer3/": np.sqrt(6 / (N * 2 * 2 * 8))}
    for variable in here.shared.parameters():
        name = variable.op.name
        assert np.array_equal(first[name], same[name])
        if name.endswith("bias"):
            assert not first[name].any()
            continue
        assert not np.array_equal(first[name], other[name])
        assert not np.array_equal(first[name], later[name])
        bound = bounds.get(name[:7], 1 / np.sqrt(first[name].shape[0]))
        bound /= 10 if "policy" in name else 1
        size = np.abs(first[name]).max()
        assert 0.9 * bound < size <= bound
        if name.startswith("layer"):  # no two modules are alike
            assert len({module.tobytes() for module in first[name]}) == GRID.M


def switched(geopath, kept, inherit):
    """A switch of tasks from random values: (initial, before, after, Here)."""

    def build(shared):
        seed = tf.constant([5, 1], tf.int64)
        given = {
            "best": tf.placeholder(tf.float32, [GRID.L, GRID.M], "best"),
            "kept": tf.placeholder(tf.float32, [GRID.L, GRID.M], "kept"),
            "inherit": tf.placeholder(tf.bool, [], "inherit"),
            "drawn": tf.placeholder(tf.int64, shared.paths.shape, "drawn"),
        }
        return {
            "switch": shared.switch(seed, *given.values()),
            "draw": shared.initialize(seed),
        }

    here = Here(build=build)
    here.session.run(here.op["draw"])
    fresh = here.values()
    here.randomize(1)
    shared = here.shared
    here.set(shared.steps, 777)
    here.set(shared.generation, 12)
    here.set(shared.returns, [3.5, -2])
    here.set(shared.played, [3, 1])
    here.set(shared.versions, [4, 9])
    before = here.values()
    feed = {"best:0": geopath, "kept:0": kept, "inherit:0": inherit, "drawn:0": PATHS}
    assert here.session.run(here.op["switch"], feed) == 1
    return fresh, before, here.values(), here


PATHS = np.arange(ACTORS * GRID.L * GRID.N).reshape(ACTORS, GRID.L, GRID.N) % GRID.M
BEST = np.array([[1, 0, 1, 0, 0, 0], [0, 0, 0, 1, 0, 0], [0, 1, 0, 0, 0, 1]])


def test_the_switch_keeps_what_is_frozen_and_starts_all_else_again():
    fresh, before, after, here = switched(BEST, BEST, False)
    for name in ("steps", "generation", "returns", "played"):
        assert not after[name].any()
    assert after["task"] == 1
    assert after["versions"].tolist() == [5, 10]
    assert np.array_equal(after["paths"], PATHS)
    assert np.array_equal(after["fixed_paths"], [BEST, np.zeros_like(BEST)])
    for layer in range(GRID.L):
        frozen = BEST[layer] > 0
        for kind in "kernel", "bias":
            name = f"layer{layer + 1}/{kind}"
            assert np.array_equal(after[name][frozen], before[name][frozen])
            assert np.array_equal(after[name][~frozen], fresh[name][~frozen])
            assert not after[f"{name}/square"].any()
            assert not after[f"{name}/speed"].any()
    heads = [name for name in before if name.startswith(("task1/", "task2/"))]
    assert heads and all(np.array_equal(after[n], before[n]) for n in heads)

    # The paths of both tasks are frozen in a third.
    feed = {"best:0": 1 - BEST, "kept:0": np.ones_like(BEST)}
    feed |= {"inherit:0": False, "drawn:0": PATHS}
    here.session.run(here.op["switch"], feed)
    last = here.values()
    assert last["task"] == 2
    assert np.array_equal(last["fixed_paths"], [BEST, 1 - BEST])
    for name in "layer1/kernel", "layer3/bias":
        assert np.array_equal(last[name], after[name])


def test_fine_tuning_keeps_parameters_that_are_not_frozen():
    nothing, everything = np.zeros_like(BEST), np.ones_like(BEST)
    _, before, after, _ = switched(nothing, everything, True)
    assert not after["fixed_paths"].any()
    for layer in range(GRID.L):
        name = f"layer{layer + 1}/kernel"
        assert np.array_equal(after[name], before[name])
        assert not after[f"{name}/square"].any()
    for name in "lstm/kernel", "lstm/bias":
        assert np.array_equal(after[f"task2/{name}"], before[f"task1/{name}"])
    for name in "policy/kernel", "value/bias":
        assert np.array_equal(after[f"task2/{name}"], before[f"task2/{name}"])


# ---- Real servers ----


def free_ports(count):
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("localhost", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return [f"localhost:{port}" for port in ports]


@pytest.fixture(scope="module")
def servers():
    """Two parameter servers and one worker: (cluster.Cluster of the worker, target)."""
    hosts = free_ports(5)
    role = Cluster(tuple(hosts[:2]), tuple(hosts[2:]), WORKER, 0)
    running = [
        sessions.serve(replace(role, job=job, index=index), 2)
        for job, index in ((PS, 0), (PS, 1), (WORKER, 0))
    ]
    return role, running[-1]


def test_parameters_are_spread_over_the_servers(servers):
    here = Here(servers=servers)
    held = {"/job:ps/task:0": 0, "/job:ps/task:1": 0}
    for variable in here.shared.parameters():
        for slot in here.shared.slots[variable.op.name]:
            assert slot.device == variable.device
        held[variable.device.removesuffix("/cpu:0").removesuffix("/device:CPU:0")] += (
            variable.shape.num_elements()
        )
    assert min(held.values()) > 0.2 * sum(held.values())


def test_nothing_of_a_worker_is_waited_for_while_others_are_locked_out(servers):
    """A worker that is cut off in the middle of a push must not stop all the others.

    So whatever a server receives from it must be there before the lock is taken.
    """
    role, _ = servers
    with tf.Graph().as_default() as graph:
        shared = Shared(GRID, ACTORS, 2, LEARNING)
        exchange = Exchange(shared, 0, 1, role.device)
        start = tf.global_variables_initializer()
        with tf.device(role.device):
            given = {
                tf.placeholder(tf.int64, [2]): [1, 1],
                tf.placeholder(tf.float32, BEST.shape): BEST,
                tf.placeholder(tf.float32, BEST.shape): BEST,
                tf.placeholder(tf.bool, []): False,
                tf.placeholder(tf.int64, PATHS.shape): PATHS,
            }
            switch = shared.switch(*given)
    with connected(servers, graph) as session:
        session.run(start)

        class Watched:
            """A session of which each run is looked at."""

            def run(self, op, feed):
                metadata = tf.RunMetadata()
                options = tf.RunOptions(output_partition_graphs=True)
                done = session.run(op, feed, options, metadata)
                waited_for = late_arrivals(metadata.partition_graphs)
                assert not waited_for, waited_for
                return done

        observed, modules, head = exchange.pull(session, 0)
        assert observed.task == 0
        accepted, _ = exchange.push(Watched(), modules, head, 2, np.zeros([0, 6]))
        assert accepted
        Watched().run(switch, given)


def late_arrivals(partitions):
    """Names of what the servers receive from workers after the lock was asked for.

    Args:
      partitions: GraphDefs of one run; those of all devices.
    """
    nodes = {}
    for number, partition in enumerate(partitions):
        nodes |= {(number, node.name): node for node in partition.node}
    sends = {
        node.attr["tensor_name"].s: key
        for key, node in nodes.items()
        if node.op in ("_Send", "_HostSend")
    }

    def inputs(key):
        number, node = key[0], nodes[key]
        for name in node.input:
            yield number, name.removeprefix("^").partition(":")[0]
        sender = sends.get(node.attr["tensor_name"].s)  # none: it is fed
        if node.op in ("_Recv", "_HostRecv") and sender:
            yield sender

    def upstream(keys):
        seen, new = set(), list(keys)
        while new:
            key = new.pop()
            if key not in seen:
                seen.add(key)
                new += inputs(key)
        return seen

    by_op = {
        op: [key for key, node in nodes.items() if node.op == op]
        for op in ("MutexLock", "ConsumeMutexLock")
    }
    assert len(by_op["MutexLock"]) == 1
    before = upstream(by_op["MutexLock"])
    return [
        nodes[key].name
        for key in upstream(by_op["ConsumeMutexLock"]) - before
        if nodes[key].op in ("_Recv", "_HostRecv")
        and b"/job:worker" in nodes[key].attr["send_device"].s
    ]


def test_pushes_from_all_sides_while_the_task_switches(servers):
    """Every accepted push is there exactly once, none of task 1 lands after the switch.

    Each takes exactly 1 off the rows that it names, so that they count the pushes.
    """
    learning = replace(
        LEARNING,
        learning_rate=1.0,
        rms_decay=0.0,
        rms_momentum=0.0,
        rms_epsilon=0.0,
        max_time_step=10**15,
    )
    frozen, learned = 2, 3  # modules of the first layer, both in the path of task 1
    geopath = np.zeros_like(BEST, np.float32)
    geopath[0, frozen] = 1

    def build(shared):
        bias = shared.biases[0]

        def push(task, rows):
            ones = tf.ones([len(rows), bias.shape[1]])
            entries = [(bias, ones, tf.constant(rows))]
            return shared.apply(
                task, entries, 1, tf.constant(10, tf.int64), NO_EPISODES
            )

        seed, best = tf.constant([0, 1], tf.int64), tf.constant(geopath)
        return {
            0: push(0, [frozen, learned]),
            1: push(1, [learned]),
            "switch": shared.switch(
                seed, best, best, tf.constant(False), tf.constant(PATHS)
            ),
        }

    here = Here(learning, build, servers)
    accepted = {0: [], 1: []}
    enough = {0: threading.Event(), 1: threading.Event()}
    stop = threading.Event()
    lock = threading.Lock()

    def push(task):
        while not stop.is_set():
            answer = bool(here.session.run(here.op[task]))
            with lock:
                accepted[task].append(answer)
                if sum(accepted[task]) >= 30:
                    enough[task].set()

    threads = [threading.Thread(target=push, args=[n % 2]) for n in range(6)]
    for thread in threads:
        thread.start()
    assert enough[0].wait(60)
    assert here.values()["task"] == 0
    here.session.run(here.op["switch"])
    assert enough[1].wait(60)
    stop.set()
    for thread in threads:
        thread.join()

    after = here.values()
    pushes = {task: sum(answers) for task, answers in accepted.items()}
    assert after["task"] == 1
    assert after["steps"] == 10 * pushes[1]
    # Some processors take a last bit less than 1 off.
    np.testing.assert_allclose(after["layer1/bias"][frozen], -pushes[0], atol=0.01)
    np.testing.assert_allclose(after["layer1/bias"][learned], -pushes[1], atol=0.01)
    assert not after["layer1/bias/square"][frozen].any()
    assert not after["layer1/bias"][[0, 1, 4, 5]].any()


def test_the_next_game_may_have_other_actions(servers):
    """One process goes from a task of 3 actions to one of 4."""
    role, _ = servers
    for task, actions in enumerate(GRID.actions):
        with tf.Graph().as_default() as graph:
            shared = Shared(GRID, ACTORS, 2, LEARNING)
            exchange = Exchange(shared, task, 3, role.device)
            start = tf.global_variables_initializer()
        path = a3c.PathGraph(GRID, LEARNING, task, 3)
        actor = a3c.PathSession(path)
        with connected(servers, graph) as session:
            session.run(start)
            _, modules, head = exchange.pull(session, 0)
            actor.load(modules, head)
            actor.load_fixed(exchange.pull_fixed(session))
            now = [np.zeros(p.shape) for p in (path.observation, path.state)]
            drawn = [actor.act(*now, 0)[0] for _ in range(20)]
            assert np.max(drawn) == actions - 1

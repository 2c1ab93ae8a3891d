"""Tests of a3c.py: one actor's network, losses and gradients, against a slow reference."""

import functools
import types
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import a3c
import pathnet
from a3c import (
    PIXEL_DEVIATION,
    PIXEL_MEAN,
    UNITS,
    ConvGrid,
    Learning,
    n_step_returns,
)
from atari.environments import FRAMES, SCREEN
from atari.exchange import Exchange
from atari.parameter_servers import Shared
from common import tf1 as tf

pytestmark = pytest.mark.slow

no_deadline = settings(deadline=None)

T, E = 4, 2
GRID = {"L": 3, "M": 5, "N": 3, "kernel_num": (12, 5), "stride_size": (8, 3)}
ACTIONS = 3, 6, 2
SLOTS = "square", "speed"
LEARNING = Learning(
    t_max=T,
    gamma=0.9,
    entropy=0.03,
    value_weight=0.4,
    learning_rate=1.0,
    # So that the mean square is the gradient's square, and a step tells its sign.
    rms_decay=0.0,
    rms_momentum=0.0,
    rms_epsilon=1e-12,
    grad_norm_clip=1e6,
    max_time_step=10**9,
)


# ---- Returns ----


def test_returns_of_a_case_worked_out_by_hand():
    """Two environments, three steps; the first one's episode ends at the second step."""
    rewards = [np.array([1.0, 0.0]), np.array([2.0, 0.0]), np.array([4.0, -1.0])]
    ends = [np.array([0.0, 0.0]), np.array([1.0, 0.0]), np.array([0.0, 0.0])]
    returns = n_step_returns(rewards, ends, np.array([8.0, 16.0]), 0.5)
    # 4 + 8/2 = 8; 2 (nothing follows); 1 + 2/2 = 2. -1 + 16/2 = 7; 7/2; 7/4.
    np.testing.assert_array_equal(returns, [[2.0, 1.75], [2.0, 3.5], [8.0, 7.0]])


@no_deadline
@given(
    steps=st.lists(st.tuples(st.floats(-9, 9), st.booleans()), min_size=1, max_size=12),
    bootstrap=st.floats(-9, 9),
    gamma=st.floats(0, 1),
)
def test_returns_are_what_their_definition_says(steps, bootstrap, gamma):
    def slow(t):
        total, weight = 0.0, 1.0
        for reward, end in steps[t:]:
            total += weight * reward
            if end:
                return total
            weight *= gamma
        return total + weight * bootstrap

    rewards = [np.array([reward]) for reward, _ in steps]
    ends = [np.array([float(end)]) for _, end in steps]
    returns = n_step_returns(rewards, ends, np.array([bootstrap]), gamma)
    np.testing.assert_allclose(
        np.ravel(returns), [slow(t) for t in range(len(steps))], atol=1e-9
    )


# ---- The slow reference ----


def reference(parameters, geopath, head, rollout, use_lstm):
    """What an actor computes, the plain way, in double precision.

    All M modules of each layer are computed and multiplied by the geopath; an LSTM takes
    one step after the other; gradients are TensorFlow's own.

    Args:
      parameters: {name: value} of all modules and of the head.
      geopath: [L, M], 1 where a module is active.
      head: prefix of the names of the head's parameters.

    Returns:
      SimpleNamespace of logits, value, losses, gradients {name: value}, and outputs and
      cells [T + 1, E, 256], the LSTM's state after each step.
    """
    with tf.Graph().as_default(), tf.Session() as session:
        p = {name: tf.constant(value, tf.float64) for name, value in parameters.items()}
        x = tf.constant(rollout["observations"].reshape(-1, SCREEN, SCREEN, FRAMES))
        x = (tf.cast(x, tf.float64) - PIXEL_MEAN) / PIXEL_DEVIATION
        for layer in range(GRID["L"]):
            kernel, bias = (
                p[f"layer{layer + 1}/{part}"] for part in ("kernel", "bias")
            )
            if layer == GRID["L"] - 1:
                x = tf.reshape(x, [len(rollout["observations"]) * E, -1])
            outputs = []
            for module in range(GRID["M"]):
                if layer == GRID["L"] - 1:
                    y = x @ kernel[module]
                else:
                    stride = GRID["stride_size"][layer]
                    y = tf.nn.conv2d(x, kernel[module], stride, "VALID")
                outputs.append(tf.nn.relu(y + bias[module]) * geopath[layer, module])
            x = tf.add_n(outputs)
        features = tf.reshape(x, [T + 1, E, UNITS])

        outputs, cells = [], []
        output, cell = tf.unstack(tf.constant(rollout["state"], tf.float64))
        for t in range(T + 1):
            if not use_lstm:
                outputs.append(features[t])
                continue
            if t > 0:
                output *= 1 - rollout["ends"][t - 1][:, None]
                cell *= 1 - rollout["ends"][t - 1][:, None]
            gates = tf.concat([features[t], output], 1) @ p[f"{head}/lstm/kernel"]
            i, j, f, o = tf.split(gates + p[f"{head}/lstm/bias"], 4, 1)
            cell = tf.sigmoid(f + 1) * cell + tf.sigmoid(i) * tf.tanh(j)
            output = tf.sigmoid(o) * tf.tanh(cell)
            outputs.append(output)
            cells.append(cell)
        x = tf.stack(outputs)
        logits = x[:T] @ p[f"{head}/policy/kernel"] + p[f"{head}/policy/bias"]
        value = (x @ p[f"{head}/value/kernel"] + p[f"{head}/value/bias"])[..., 0]

        returns = []
        for t in range(T):
            alive, total = np.ones(E), np.zeros(E)
            for k in range(t, T):
                total += LEARNING.gamma ** (k - t) * alive * rollout["rewards"][k]
                alive = alive * (1 - rollout["ends"][k])
            tail = LEARNING.gamma ** (T - t) * alive
            returns.append(total + tail * tf.stop_gradient(value[T]))
        advantage = tf.stack(returns) - value[:T]
        chosen = tf.one_hot(rollout["actions"], logits.shape[-1], dtype=tf.float64)
        log_taken = tf.reduce_sum(tf.log(tf.nn.softmax(logits)) * chosen, -1)
        policy = tf.nn.softmax(logits)
        losses = {
            "policy_loss": -log_taken * tf.stop_gradient(advantage),
            "value_loss": advantage**2 / 2,
            "entropy": tf.reduce_sum(-policy * tf.log(policy), -1),
        }
        losses = {name: tf.reduce_sum(loss) / E for name, loss in losses.items()}
        loss = losses["policy_loss"] + LEARNING.value_weight * losses["value_loss"]
        loss -= LEARNING.entropy * losses["entropy"]
        gradients = tf.gradients(loss, list(p.values()))
        found = {
            "logits": logits,
            "value": value,
            "losses": losses,
            "gradients": {n: g for n, g in zip(p, gradients) if g is not None},
            "outputs": tf.stack(outputs),
        } | ({"cells": tf.stack(cells)} if use_lstm else {})
        return types.SimpleNamespace(**session.run(found))


# ---- The actor's graph ----


class Bench:
    """An actor of one task with everything in this process, and ways to set it up."""

    def __init__(self, task, use_lstm, learning=LEARNING):
        self.task, self.use_lstm = task, use_lstm
        self.graph = tf.Graph()
        grid = ConvGrid(**GRID, actions=ACTIONS, use_lstm=use_lstm)
        with self.graph.as_default():
            self.shared = Shared(grid, 2, 0, learning)
            self.exchange = Exchange(self.shared, task, E, "/cpu:0")
            self._given = {
                v.op.name: tf.placeholder(v.dtype.base_dtype, v.shape)
                for v in self.shared.state().values()
            }
            self._assign = tf.group(
                *[v.assign(self._given[n]) for n, v in self.shared.state().items()]
            )
            variables = {n: v.read_value() for n, v in self.shared.state().items()}
            initialize = tf.global_variables_initializer()
        self.variables = variables
        self.session = tf.Session(graph=self.graph)
        self.session.run(initialize)
        self.actor = a3c.PathSession(a3c.PathGraph(grid, learning, task, E))

    def pull(self):
        _, self.modules, head = self.exchange.pull(self.session, 1)
        self.actor.load(self.modules, head)

    def set(self, values):
        """Sets variables by their names, and leaves all others as they are."""
        values = self.values() | values
        self.session.run(self._assign, {self._given[n]: v for n, v in values.items()})

    def values(self):
        return self.session.run(self.variables)

    def prepare(self, seed):
        """Random parameters, paths of the earlier tasks, and a path for the actor."""
        rng = np.random.default_rng(seed)
        values = {}
        for variable in self.shared.parameters():
            name, shape = variable.op.name, variable.shape.as_list()
            fan_in = np.prod(shape[1:-1]) if len(shape) > 2 else shape[0]
            scale = 1 if "bias" in name else 1.5 / np.sqrt(fan_in)
            values[name] = scale * rng.uniform(-1, 1, shape)
            values |= {f"{name}/{slot}": np.zeros(shape) for slot in SLOTS}
        fixed_paths = np.zeros(self.shared.fixed_paths.shape.as_list())
        for task in range(self.task):
            path = pathnet.random_paths(rng, 1, GRID["L"], GRID["M"], 2)[0]
            fixed_paths[task] = pathnet.to_geopath(path, GRID["M"])
        self.fixed_path = fixed_paths.max(0)
        paths = pathnet.random_paths(rng, 2, GRID["L"], GRID["M"], GRID["N"])
        paths[1, 0, 2] = paths[1, 0, 0]  # names a module twice
        if self.task:
            paths[1, 1, 0] = np.argmax(self.fixed_path[1])  # names a frozen one
        self.path = pathnet.to_geopath(paths[1], GRID["M"])
        values |= {"fixed_paths": fixed_paths, "paths": paths}
        self.set(values | {"task": self.task, "steps": 0})
        self.actor.load_fixed(self.exchange.pull_fixed(self.session))
        self.pull()
        return rng

    def rollout(self, rng):
        return {
            "observations": rng.integers(256, size=[T + 1, E, SCREEN, SCREEN, FRAMES]),
            "state": rng.uniform(-1, 1, [2, E, UNITS]),
            "actions": rng.integers(ACTIONS[self.task], size=[T, E]),
            "rewards": rng.integers(-1, 2, [T, E]),
            "ends": np.array([[0, 0], [0, 1], [0, 0], [1, 0]]),
        }

    def act(self, rollout):
        """Acts in every step of a rollout as a player does: (observation, state) after it."""
        observations, state = rollout["observations"], rollout["state"]
        for step in range(T):
            _, state = self.actor.act(observations[step], state, step)
            state = state * (1 - rollout["ends"][step])[:, None]
        return observations[T], state

    def push(self, rollout, finished=()):
        """Learns from a rollout and pushes; returns whether it was accepted, and losses."""
        observation, state = self.act(rollout)
        given = {name: rollout[name] for name in ("actions", "rewards", "ends")}
        gradients, head, losses = self.actor.learn(observation, state, **given)
        accepted, _ = self.exchange.push(
            self.session,
            [
                m._replace(kernel=k, bias=b)
                for m, (k, b) in zip(self.modules, gradients)
            ],
            head,
            T * E,
            np.reshape(np.array(finished, float), [-1, 6]),
        )
        return accepted, losses

    def reference(self, rollout):
        head = f"task{self.task + 1}"
        parameters = {
            name: value
            for name, value in self.values().items()
            if name.startswith(("layer", head)) and not name.endswith(SLOTS)
        }
        geopath = np.maximum(self.path, self.fixed_path)
        return reference(parameters, geopath, head, rollout, self.use_lstm)


bench = functools.cache(Bench)
EVERY_NETWORK = pytest.mark.parametrize(
    ("task", "use_lstm"), [(0, True), (0, False), (1, True), (2, True), (2, False)]
)


@EVERY_NETWORK
def test_losses_and_gradients_are_those_of_the_masked_reference(task, use_lstm):
    actor = bench(task, use_lstm)
    rollout = actor.rollout(actor.prepare(seed=task))
    expected = actor.reference(rollout)
    before = actor.values()
    accepted, reported = actor.push(rollout)
    after = actor.values()

    assert accepted
    for name, loss in expected.losses.items():
        np.testing.assert_allclose(reported[f"losses/{name}"] * T, loss, rtol=1e-3)
    squares, learned = 0.0, set()
    for variable in actor.shared.parameters():
        name = variable.op.name
        gradient = expected.gradients.get(name, np.zeros(variable.shape))
        if name.startswith("layer"):
            layer = int(name[5]) - 1
            learns = (actor.path * (1 - actor.fixed_path))[layer].astype(bool)
            gradient[~learns] = 0  # frozen modules are active and learn nothing
            for kind in name, *(f"{name}/{slot}" for slot in SLOTS):
                assert np.array_equal(before[kind][~learns], after[kind][~learns])
        size = np.sqrt(after[f"{name}/square"].astype(float))
        pushed = size * np.sign(before[name] - after[name])
        scale = np.abs(gradient).max()
        np.testing.assert_allclose(pushed, gradient, atol=1e-3 * scale, rtol=1e-3)
        squares += (gradient**2).sum()
        learned.add(name[:6] if gradient.any() else None)
    np.testing.assert_allclose(
        reported["charts/gradient_norm"], np.sqrt(squares), rtol=1e-3
    )
    # The path has modules to learn, and is not all that learns.
    assert len(learned & {"layer1", "layer2", "layer3"}) >= 2
    assert f"task{task + 1}/"[:6] in learned
    assert after["steps"] == T * E


def test_the_norm_of_a_gradient_is_clipped():
    clipped = 1e-3
    actor = Bench(1, True, replace(LEARNING, grad_norm_clip=clipped))
    rollout = actor.rollout(actor.prepare(5))
    _, reported = actor.push(rollout)
    assert reported["charts/gradient_norm"] > 10 * clipped
    after = actor.values()
    norm = np.sqrt(sum(v.sum() for n, v in after.items() if n.endswith("square")))
    np.testing.assert_allclose(norm, clipped, rtol=1e-4)


@pytest.mark.parametrize("task", [0, 2])
def test_acting_step_by_step_is_what_is_learned_from(task):
    """The state is carried from step to step and starts anew with each episode."""
    actor = bench(task, True)
    rollout = actor.rollout(actor.prepare(3))
    expected = actor.reference(rollout)
    state, logits = rollout["state"], []
    values = actor.values()
    for t in range(T + 1):
        # The step beyond a rollout's last is none to learn from: any place will do.
        actions, state = actor.actor.act(rollout["observations"][t], state, t % T)
        np.testing.assert_allclose(state[0], expected.outputs[t], atol=1e-4)
        np.testing.assert_allclose(state[1], expected.cells[t], atol=1e-4)
        assert actions.shape == (E,)
        assert actions.min() >= 0 and actions.max() < ACTIONS[task]
        logits.append(state[0] @ values[f"task{task + 1}/policy/kernel"])
        logits[-1] += values[f"task{task + 1}/policy/bias"]
        if t < T:
            state = state * (1 - rollout["ends"][t])[:, None]
    np.testing.assert_allclose(logits[:T], expected.logits, atol=1e-4)


def test_actions_are_drawn_from_the_policy():
    """A head of biases alone: frequencies within 5 sigma of their softmax."""
    actor = bench(0, False)
    rng = actor.prepare(0)
    policy = np.zeros([UNITS, 3]), np.log([0.6, 0.3, 0.1])
    actor.set(dict(zip(["task1/policy/kernel", "task1/policy/bias"], policy)))
    actor.pull()
    rollout = actor.rollout(rng)
    now = rollout["observations"][0], rollout["state"], 0
    drawn = [actor.actor.act(*now)[0] for _ in range(500)]
    shares = np.bincount(np.ravel(drawn), minlength=3) / 1000
    np.testing.assert_array_less(np.abs(shares - [0.6, 0.3, 0.1]), 5 * 0.5 / 1000**0.5)


def test_what_is_pulled_stays_until_the_next_pull():
    """Others may push meanwhile: an actor's rollout is of one set of parameters."""
    actor = bench(1, True)
    rollout = actor.rollout(actor.prepare(4))
    now = rollout["observations"][0], rollout["state"], 0
    _, before = actor.actor.act(*now)
    actor.set({"layer1/kernel": np.zeros(actor.shared.kernels[0].shape)})
    _, meanwhile = actor.actor.act(*now)
    assert np.array_equal(before, meanwhile)
    actor.pull()
    actor.actor.load_fixed(actor.exchange.pull_fixed(actor.session))
    _, after = actor.actor.act(*now)
    assert np.abs(after - before).max() > 1e-3


def test_a_push_hands_on_the_episodes_that_ended():
    actor = bench(0, False)
    rollout = actor.rollout(actor.prepare(0))
    with actor.graph.as_default():
        waiting, take = actor.shared.episodes.size(), actor.shared.episodes.dequeue()
    actor.push(rollout)
    assert actor.session.run(waiting) == 0
    episodes = [[0, 1, 3, -2.5, 20, 100], [0, 1, 4, 21, 30, 100]]
    actor.push(rollout, episodes)
    assert actor.session.run(waiting) == 2
    assert [actor.session.run(take).tolist() for _ in range(2)] == episodes


def test_gradients_of_a_task_that_is_over_are_refused():
    actor = bench(1, True)
    rollout = actor.rollout(actor.prepare(6))
    actor.set({"task": 2})
    before = actor.values()
    accepted, _ = actor.push(rollout)
    assert not accepted
    after = actor.values()
    assert all(np.array_equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("task", [0, 1])
def test_what_travels_does_not_depend_on_M(task):
    """Bytes that an actor takes and gives: the same for 4 modules a layer and for 40."""

    def size(M):
        with tf.Graph().as_default(), tf.Session() as session:
            grid = ConvGrid(**GRID | {"M": M}, actions=(3, 3))
            shared = Shared(grid, 2, 0, LEARNING)
            exchange = Exchange(shared, task, E, "/cpu:0")
            session.run(tf.global_variables_initializer())
            pulled = exchange.pull(session, 0), exchange.pull_fixed(session)
            return sum(np.size(each) for each in tf.nest.flatten(pulled))

    assert size(4) == size(40)


def test_slots_that_hold_nothing_are_left_out():
    layer = a3c.Modules(*(np.arange(n) for n in (3, 3, 3, 3)))
    layer = layer._replace(on=np.array([1.0, 0.0, 1.0]))
    assert [list(each) for each in layer.filled()] == [[0, 2], [1, 1], [0, 2], [0, 2]]


# ---- Shapes ----


def test_shapes_of_the_default_network():
    grid = ConvGrid(4, 10, 4, (8, 4, 3), (4, 2, 1), actions=(6, 4))
    assert grid.kernel_shapes() == [
        (8, 8, 4, 8),  # 84 -> 20
        (4, 4, 8, 8),  # 20 -> 9
        (3, 3, 8, 8),  # 9 -> 7
        (7 * 7 * 8, 256),
    ]
    assert grid.head_shapes(1) == {
        "lstm/kernel": (512, 1024),
        "lstm/bias": (1024,),
        "policy/kernel": (256, 4),
        "policy/bias": (4,),
        "value/kernel": (256, 1),
        "value/bias": (1,),
    }


def test_a_grid_that_no_screen_fits_into():
    with pytest.raises(ValueError, match="layer 2: a kernel of 30 pixels .* 20$"):
        ConvGrid(3, 4, 2, (8, 30), (4, 1), actions=(3,)).kernel_shapes()

"""A3C on a PathNet: the conv grid, and the network, losses and gradients of one path.

Mnih et al. 2016, "Asynchronous Methods for Deep Reinforcement Learning" (arXiv
1602.01783), with the grid of Fernando et al. 2017 (arXiv 1701.08734, section 3.2) in
place of its network.

An actor loads its path's modules once a rollout, acts on its copies of them, and gives
gradients of those modules alone: what travels does not depend on M. Its parameters do
not change within a rollout, so everything that it computes when it acts, from the
outputs of layer 1 to the gates of the LSTM, is kept as `Activations`, and learning only
goes back through them.

The forward pass and the way back are therefore written separately, and change together:

    PathGraph._forward, in the order of computation    the way back
    ------------------------------------------------   ------------------------
    layer 1, on pixels                                 _first_layer_gradients
    layers 2 to L                                      _back_through
    the LSTM                                           _back_in_time
    policy and value                                   _gradients
    `Activations`, which the second column reads       _build_act, which keeps them

The plain version is `reference` in tests/test_a3c.py: every module is computed and
multiplied by 1 or 0, and the gradients are TensorFlow's. The tests compare both.
benchmarks/plain_a3c.py is a whole actor written that way, to compare the speed with.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from common import tf1 as tf

KERNELS = 8  # of a conv module
UNITS = 256  # of a linear module of the last layer, and of the LSTM

# What an actor reports of an episode: its task, the actor, the version of the path that
# it was played on from its first to its last step (-1: more than one), its return, its
# length in agent steps, the task's agent steps at its end.
EPISODE = ("task", "actor", "version", "episodic_return", "length", "steps")

# Roughly what the grey pixels of a game, 0 to 255, average to and vary by.
PIXEL_MEAN, PIXEL_DEVIATION = 90.0, 38.0


@dataclasses.dataclass(frozen=True)
class ConvGrid:
    """L - 1 layers of conv modules, a last one of linear modules, and a head for each task.

    Attributes:
      L: number of layers. M: modules of a layer. N: the most of them that are active.
      kernel_num: int [L - 1], side of the kernels of each conv layer, in pixels.
      stride_size: int [L - 1], strides of the same.
      actions: for each task the number of actions of its game.
      use_lstm: whether an LSTM follows the last layer.
      screen: side of the square screens, in pixels.
      frames: screens of an observation, the channels of the first layer's input.
    """

    L: int
    M: int
    N: int
    kernel_num: tuple[int, ...]
    stride_size: tuple[int, ...]
    actions: tuple[int, ...]
    use_lstm: bool = True
    screen: int = 84
    frames: int = 4

    def kernel_shapes(self) -> list[tuple[int, ...]]:
        """Shape of the weights of one module of each layer, output last.

        Raises:
          ValueError: the screen is too small for so many layers.
        """
        side, channels, shapes = self.screen, self.frames, []
        for size, stride in zip(self.kernel_num, self.stride_size):
            if size > side:
                raise ValueError(
                    f"layer {len(shapes) + 1}: a kernel of {size} pixels does not fit "
                    f"into an input of {side}"
                )
            shapes.append((size, size, channels, KERNELS))
            side, channels = (side - size) // stride + 1, KERNELS
        return [*shapes, (side * side * channels, UNITS)]

    def head_shapes(self, task: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the parameters that belong to one task alone, by name."""
        lstm = {"lstm/kernel": (2 * UNITS, 4 * UNITS), "lstm/bias": (4 * UNITS,)}
        return (lstm if self.use_lstm else {}) | {
            "policy/kernel": (UNITS, self.actions[task]),
            "policy/bias": (self.actions[task],),
            "value/kernel": (UNITS, 1),
            "value/bias": (1,),
        }

    def frozen_slots(self, task: int) -> int:
        """The most modules of a layer that can be frozen in a task."""
        return min(self.M, self.N * task)


@dataclasses.dataclass(frozen=True)
class Learning:
    """How an actor learns; the losses are summed over a rollout, as A3C does.

    Attributes:
      t_max: agent steps of a rollout, between two updates.
      gamma: discount of rewards, an agent step.
      entropy, value_weight: weights of the policy's entropy and of the value's error.
      learning_rate: of RMSProp at the start, for each environment of an actor.
      rms_decay, rms_momentum, rms_epsilon: of RMSProp; see Shared.apply.
      grad_norm_clip: largest norm of an actor's gradient.
      max_time_step: most agent steps of a task; the learning rate is 0 there.
    """

    t_max: int = 20
    gamma: float = 0.99
    entropy: float = 0.01
    value_weight: float = 0.5
    learning_rate: float = 7e-4
    rms_decay: float = 0.99
    rms_momentum: float = 0.0
    rms_epsilon: float = 0.1
    grad_norm_clip: float = 5.0
    max_time_step: int = 15_000_000

    def rate(self, steps):
        """The learning rate after so many agent steps (a tensor): falls linearly to 0."""
        done = tf.cast(steps, tf.float32) / self.max_time_step
        return self.learning_rate * (1 - done)


class LayerActivations(NamedTuple):
    """What the way back needs of one layer.

    Attributes:
      outputs: float32 [E, height, width, KERNELS], in the last layer [E, UNITS]: the sum
        over all modules.
      active: bool [E, ..., slots * outputs] of the path's modules, and of the frozen ones
        if the task has any: which ReLU units are above zero. Layer 1 is as far back as
        learning goes: it has that of the path's modules alone.
    """

    outputs: object
    active: tuple


class LstmActivations(NamedTuple):
    """What the way back needs of the LSTM.

    Attributes:
      inputs: float32 [E, 2 * UNITS], the grid's output and the LSTM's earlier output.
      gates: float32 [E, 4 * UNITS], before their nonlinearities.
      cell: float32 [E, UNITS], before the step.
    """

    inputs: object
    gates: object
    cell: object


class Activations(NamedTuple):
    """What the way back needs of a forward step in E environments; variables keep it.

    Attributes:
      observation: uint8 [E, screen, screen, frames].
      layers: LayerActivations of each layer.
      lstm: LstmActivations, or an empty tuple without an LSTM.
      output: float32 [E, UNITS], what policy and value are computed from.
    """

    observation: object
    layers: tuple[LayerActivations, ...]
    lstm: tuple
    output: object

    def names(self) -> list[str]:
        """A name for each of its tensors, in the order of `tf.nest.flatten`."""
        names = ["observation"]
        for layer, (_, active) in enumerate(self.layers, 1):
            parts = ("path", "frozen")[: len(active)]
            names += [f"layer{layer}/outputs", *[f"layer{layer}/{p}" for p in parts]]
        lstm = self.lstm._fields if self.lstm else ()
        return [*names, *[f"lstm/{name}" for name in lstm], "output"]


def n_step_returns(rewards: Sequence, ends: Sequence, bootstrap, gamma: float) -> list:
    """R_t = r_t + gamma * R_{t+1}, cut where an episode ends (algorithm S3 of A3C).

    Args:
      rewards: [T] sequence of float [E], the reward for the action of step t.
      ends: [T] sequence of float [E], 1 where that action ended the episode.
      bootstrap: float [E], value of the state after the last step.
      gamma: discount of a step.

    Returns:
      List of T arrays (or tensors, if such were given) [E].
    """
    returns = []
    following = bootstrap
    for reward, end in zip(reversed(rewards), reversed(ends)):
        following = reward + gamma * (1 - end) * following
        returns.append(following)
    return returns[::-1]


class Modules(NamedTuple):
    """Modules of one layer, one in each slot.

    Attributes:
      index: int32 [slots], which module a slot holds.
      on: float32 [slots], 1 where a slot holds a module, else 0.
      kernel: float32 [slots, *ConvGrid.kernel_shapes()[layer]].
      bias: float32 [slots, outputs].
    """

    index: object
    on: object
    kernel: object
    bias: object

    def filled(self) -> "Modules":
        """Without the slots that hold no module; of numpy arrays."""
        holds = self.on > 0
        return self if holds.all() else Modules(*(each[holds] for each in self))


class PathGraph:
    """The modules of one path, for one task, as a TensorFlow graph.

    All of it is local: parameters come in through `load`, gradients are what `learn`
    gives. It runs in a session of its own, see PathSession.

    Layout: NHWC; the modules of a layer side by side in the output channels of one
    kernel, so that a layer is one convolution, however many modules are active.

    Args:
      grid: ConvGrid. learning: Learning. task: index of the task.
      envs: number of environments, E. seed: of the actions that are drawn; None: any.

    Attributes:
      graph: tf.Graph, finalized.
      observation, state, step: placeholders of `act`: uint8 [E, screen, screen, frames],
        float32 [2, E, UNITS], and the int32 step of the rollout.
      actions, rewards, ends: placeholders of `learn`: int64, float32 and float32 [T, E].
      modules, head: placeholders of `load`: [L] of Modules, of N slots each, and a dict
        of the task's own parameters by name; see ConvGrid.head_shapes.
      fixed: placeholders of `load_fixed`: [L] of Modules, the frozen ones.
      load, load_fixed: take these. Frozen modules never change in a task: once is enough
        for them.
      act: (actions int64 [E], state float32 [2, E, UNITS]) from `observation`, `state`.
        Keeps the activations as those of `step` of the rollout.
      learn: (modules, head, losses) from a rollout whose every step has been acted in;
        `observation` and `state` are those that follow its last step. The gradients of
        `modules`, [L] of (kernel, bias), and of `head`; the losses by tag.
      zero: sets all variables to 0, as a session begins with.
    """

    def __init__(
        self,
        grid: ConvGrid,
        learning: Learning,
        task: int,
        envs: int,
        seed: int | None = None,
    ) -> None:
        self.grid, self.learning, self.t_max = grid, learning, learning.t_max
        self._task, self._envs = task, envs
        self._strides = [*grid.stride_size, None]
        self.graph = tf.Graph()
        with self.graph.as_default():
            tf.set_random_seed(seed)
            with tf.name_scope("inputs"):
                self._build_inputs()
            self._build_load()
            with tf.name_scope("act"):
                self._build_act()
            with tf.name_scope("learn"):
                self._build_learn()
            self.zero = tf.global_variables_initializer()
        self.graph.finalize()

    def _build_inputs(self):
        T, E, grid = self.t_max, self._envs, self.grid
        screens = [E, grid.screen, grid.screen, grid.frames]
        self.observation = tf.placeholder(tf.uint8, screens, "observation")
        self.state = tf.placeholder(tf.float32, [2, E, UNITS], "state")
        self.step = tf.placeholder(tf.int32, [], "step")
        self.actions = tf.placeholder(tf.int64, [T, E], "actions")
        self.rewards = tf.placeholder(tf.float32, [T, E], "rewards")
        self.ends = tf.placeholder(tf.float32, [T, E], "ends")
        self.modules = self._given_modules(grid.N)
        self.fixed = self._given_modules(grid.frozen_slots(self._task))
        self.head = {
            name: tf.placeholder(tf.float32, shape)
            for name, shape in grid.head_shapes(self._task).items()
        }

    def _given_modules(self, slots):
        return [
            Modules(
                tf.placeholder(tf.int32, [slots]),
                tf.placeholder(tf.float32, [slots]),
                tf.placeholder(tf.float32, [slots, *shape]),
                tf.placeholder(tf.float32, [slots, shape[-1]]),
            )
            for shape in self.grid.kernel_shapes()
        ]

    def _build_load(self):
        """Variables that hold what was loaded, as the forward pass takes it."""
        copies = []
        self._path = _kept_modules("path", self.modules, copies)
        head = dict(self.head)
        if self.grid.use_lstm:
            # For the way back: turned round once a rollout, not in the product of a step.
            head["lstm/recurrent"] = tf.transpose(head["lstm/kernel"][UNITS:])
        self._head = {name: _copy(name, value, copies) for name, value in head.items()}
        self.load = tf.group(*copies)
        copies = []
        self._frozen = _kept_modules("fixed", self.fixed, copies)
        self.load_fixed = tf.group(*copies)

    def _parts(self, layer):
        """(kernel, bias) of the path's modules of a layer, and of the frozen ones."""
        parts = [self._path[layer]]
        if self._task > 0:
            parts.append(self._frozen[layer])
        return parts

    def _forward(self):
        """One step in every environment, from `observation` and `state`.

        Returns:
          (activations, state): its Activations and the new state.
        """
        layers = []
        x = tf.cast(self.observation, tf.float32)
        for layer, stride in enumerate(self._strides):
            units = [
                tf.nn.relu(tf.nn.bias_add(_weighted(x, kernel, stride), bias))
                for kernel, bias in self._parts(layer)
            ]
            outputs = self.grid.kernel_shapes()[layer][-1]
            x = tf.add_n([_sum_of_modules(y, outputs) for y in units])
            # Nothing goes back through the frozen modules of layer 1.
            active = tuple(y > 0 for y in (units if layer else units[:1]))
            layers.append(LayerActivations(x, active))
        state, lstm = self.state, ()
        if self.grid.use_lstm:
            output, cell = tf.unstack(state)
            inputs = tf.concat([x, output], 1)
            gates = inputs @ self._head["lstm/kernel"] + self._head["lstm/bias"]
            lstm = LstmActivations(inputs, gates, cell)
            state = tf.stack(_lstm(gates, cell))
            x = state[0]
        return Activations(self.observation, tuple(layers), lstm, x), state

    def _build_act(self):
        """One step: an action of each environment, drawn from the policy."""
        activations, state = self._forward()
        now = tf.nest.flatten(activations)
        kept = [
            _variable(f"activations/{name}", [self.t_max, *value.shape], value.dtype)
            for name, value in zip(activations.names(), now)
        ]
        self._kept = tf.nest.pack_sequence_as(activations, kept)
        keep = [
            tf.scatter_update(variable, self.step, value)
            for variable, value in zip(kept, now)
        ]
        with tf.control_dependencies(keep):
            policy = self._policy(activations.output)
            actions = tf.random.categorical(policy, 1)[:, 0]
        self.act = actions, tf.identity(state)  # what is fed cannot be fetched

    def _policy(self, x):
        return x @ self._head["policy/kernel"] + self._head["policy/bias"]

    def _value(self, x):
        return (x @ self._head["value/kernel"] + self._head["value/bias"])[..., 0]

    def _losses(self, logits, value, bootstrap):
        """Sums over the T steps of a rollout, means over its E environments.

        Args:
          logits: [T, E, actions]. value: [T, E]. bootstrap: [E], of what follows.
        """
        gamma = self.learning.gamma
        rewards, ends = tf.unstack(self.rewards), tf.unstack(self.ends)
        returns = tf.stack(n_step_returns(rewards, ends, bootstrap, gamma))
        log_policy = tf.nn.log_softmax(logits)
        taken = tf.reduce_sum(
            log_policy * tf.one_hot(self.actions, logits.shape[-1]), -1
        )
        entropy = -tf.reduce_sum(tf.exp(log_policy) * log_policy, -1)

        def total(x):
            return tf.reduce_mean(tf.reduce_sum(x, 0))

        return {
            "policy_loss": -total(taken * tf.stop_gradient(returns - value)),
            "value_loss": total(tf.square(returns - value)) / 2,
            "entropy": total(entropy),
        }

    def _build_learn(self):
        learning, T, E = self.learning, self.t_max, self._envs
        output = _all_steps(self._kept.output)
        following, _ = self._forward()
        losses = self._losses(
            tf.reshape(self._policy(output), [T, E, -1]),
            tf.reshape(self._value(output), [T, E]),
            tf.stop_gradient(self._value(following.output)),
        )
        loss = (
            losses["policy_loss"]
            + learning.value_weight * losses["value_loss"]
            - learning.entropy * losses["entropy"]
        )
        gradients = self._gradients(loss, output)
        clipped, norm = tf.clip_by_global_norm(
            tf.nest.flatten(gradients), learning.grad_norm_clip
        )
        modules, head = tf.nest.pack_sequence_as(gradients, clipped)
        apart = [
            (
                _one_by_one(kernel, given.kernel.shape[1:]),
                tf.reshape(bias, given.bias.shape),
            )
            for (kernel, bias), given in zip(modules, self.modules)
        ]
        reported = {
            "losses/policy_loss": losses["policy_loss"] / T,
            "losses/value_loss": losses["value_loss"] / T,
            "losses/entropy": losses["entropy"] / T,
            "charts/gradient_norm": norm,
        }
        self.learn = apart, head, reported

    def _gradients(self, loss, output):
        """Gradients of the loss, by the activations that acting has kept.

        An `error`, here and below, is the derivative of the loss by the outputs of the
        layer that the way back has come to.

        Returns:
          ([L] of (kernel, bias) of the path's modules, {name: gradient} of the head).
        """
        names = [name for name in self._head if not name.startswith("lstm")]
        error, *gradients = tf.gradients(loss, [output, *map(self._head.get, names)])
        head = dict(zip(names, gradients))
        if self.grid.use_lstm:
            error, head["lstm/kernel"], head["lstm/bias"] = self._back_in_time(error)
        modules = []
        for layer in reversed(range(1, self.grid.L)):
            error, *gradients = self._back_through(layer, error)
            modules.append(gradients)
        modules.append(self._first_layer_gradients(error))
        return modules[::-1], head

    def _back_in_time(self, error):
        """From errors of the LSTM's outputs [T * E, 256] to (error, kernel, bias).

        The error is that of its inputs from the grid, [T * E, 256].
        """
        steps = zip(
            tf.unstack(self._kept.lstm.gates.read_value()),
            tf.unstack(self._kept.lstm.cell.read_value()),
            tf.unstack(self.ends),
            tf.split(error, self.t_max),
        )
        of_output = of_cell = tf.zeros([self._envs, UNITS])
        of_gates = []
        for gates, cell, end, of_step in reversed(list(steps)):
            goes_on = (1 - end)[:, None]
            of_gate, of_cell = tf.gradients(
                _lstm(gates, cell),
                [gates, cell],
                [of_step + goes_on * of_output, goes_on * of_cell],
            )
            of_output = of_gate @ self._head["lstm/recurrent"]
            of_gates.append(of_gate)
        of_gates = tf.concat(of_gates[::-1], 0)
        return (
            tf.matmul(of_gates, self._head["lstm/kernel"][:UNITS], transpose_b=True),
            tf.matmul(_all_steps(self._kept.lstm.inputs), of_gates, transpose_a=True),
            tf.reduce_sum(of_gates, 0),
        )

    def _back_through(self, layer, error):
        """From errors of a layer's outputs, but the first's, to (error, kernel, bias).

        The error is that of its inputs; frozen modules pass it on and learn nothing.
        """
        x, stride = (
            _all_steps(self._kept.layers[layer - 1].outputs),
            self._strides[layer],
        )
        parts = self._parts(layer)
        errors = [
            _of_units(error, _all_steps(active))
            for active in self._kept.layers[layer].active
        ]
        kernel, _ = parts[0]
        # Not run, only gone back through.
        weighted = [_weighted(x, k, stride) for k, _ in parts]
        error, of_kernel = tf.gradients(weighted, [x, kernel], errors)
        return error, of_kernel, _sum_of_outputs(errors[0])

    def _first_layer_gradients(self, error):
        """(kernel, bias) of layer 1, from errors of its outputs [T * E, h, w, 8]."""
        kernel, stride = self._path[0][0], self._strides[0]
        changes = []
        for step, of_step in enumerate(tf.split(error, self.t_max)):
            # One after the other: pixels as floats are the largest thing in memory.
            with tf.control_dependencies([change for change, _ in changes[-1:]]):
                pixels = self._kept.observation.sparse_read(step)
                active = self._kept.layers[0].active[0].sparse_read(step)
            of_units = _of_units(of_step, active)
            change = tf.nn.conv2d_backprop_filter(
                tf.cast(pixels, tf.float32),
                kernel.shape,
                of_units,
                [1, stride, stride, 1],
                "VALID",
            )
            changes.append((change, _sum_of_outputs(of_units)))
        kernel, bias = map(tf.add_n, zip(*changes))
        # By the chain rule through _of_pixels, from what takes bytes to what is learned.
        return [(kernel - PIXEL_MEAN * bias) / PIXEL_DEVIATION, bias]


class PathSession:
    """A session of a PathGraph: what it has loaded, and keeps as it acts.

    Args:
      path: the PathGraph. threads: that compute.

    Attributes:
      path: as given.
    """

    def __init__(self, path: PathGraph, threads: int = 1) -> None:
        config = tf.ConfigProto(
            intra_op_parallelism_threads=threads,
            inter_op_parallelism_threads=-1,  # the caller's: none has to be woken
        )
        self.path = path
        self._session = session = tf.Session(graph=path.graph, config=config)
        session.run(path.zero)
        nest, call = tf.nest, tf.make_callable
        self._load = call(
            session, [], nest.flatten((path.modules, path.head)), path.load
        )
        self._load_fixed = call(session, [], nest.flatten(path.fixed), path.load_fixed)
        self._act = call(
            session, [*path.act], [path.observation, path.state, path.step]
        )
        self._learned = path.learn
        given = path.observation, path.state, path.actions, path.rewards, path.ends
        self._learn = call(session, nest.flatten(path.learn), [*given])

    def load(self, modules: list[Modules], head: dict) -> None:
        """Takes the path's modules and the task's own parameters, arrays."""
        self._load(*tf.nest.flatten((modules, head)))

    def load_fixed(self, modules: list[Modules]) -> None:
        """Takes the frozen modules, arrays."""
        self._load_fixed(*tf.nest.flatten(modules))

    def act(self, observation, state, step: int):
        """(actions int64 [E], state float32 [2, E, UNITS]); see PathGraph.act."""
        return self._act(observation, state, step)

    def learn(self, observation, state, actions, rewards, ends) -> tuple:
        """Gradients and losses of a rollout, arrays; see PathGraph.learn."""
        found = self._learn(observation, state, actions, rewards, ends)
        return tf.nest.pack_sequence_as(self._learned, found)

    def close(self) -> None:
        """Frees what it holds."""
        del self._load, self._load_fixed, self._act, self._learn
        self._session.close()


def _all_steps(kept):
    """What a variable keeps of all steps, one after the other: [T * E, ...]."""
    steps = kept.read_value()
    return tf.reshape(steps, [-1, *steps.shape[2:]])


def _variable(name, shape, dtype):
    return tf.get_variable(name, shape, dtype, tf.zeros_initializer())


def _copy(name, value, copies):
    """A variable that holds a copy of value; appends how it gets it."""
    variable = _variable(name, value.shape, value.dtype)
    copies.append(variable.assign(value))
    return variable


def _kept_modules(name, given, copies):
    """[L] of (kernel [..., slots * outputs], bias [slots * outputs]): variables.

    A slot that holds no module is all zeros: so is its output, and its gradient. Those
    of layer 1 take bytes, see _of_pixels.

    Args:
      given: [L] of Modules. copies: takes how the variables get their values.
    """
    layers = []
    for layer, (_, on, kernel, bias) in enumerate(given):
        kernel *= tf.reshape(on, [-1] + [1] * (len(kernel.shape) - 1))
        module = _side_by_side(kernel), tf.reshape(bias * on[:, None], [-1])
        if layer == 0:
            module = _of_pixels(*module)
        layers.append([
            _copy(f"{name}/layer{layer + 1}/{part}", value, copies)
            for part, value in zip(("kernel", "bias"), module)
        ])  # fmt: skip
    return layers


def _side_by_side(rows):
    """Weights of modules [slots, ..., outputs] as one kernel [..., slots * outputs]."""
    rank = len(rows.shape)
    moved = tf.transpose(rows, [*range(1, rank - 1), 0, rank - 1])
    return tf.reshape(moved, [*rows.shape[1:-1], rows.shape[0] * rows.shape[-1]])


def _one_by_one(kernel, shape):
    """The reverse of _side_by_side, for modules of a shape [..., outputs]."""
    rank = len(shape)
    split = tf.reshape(kernel, [*shape[:-1], -1, shape[-1]])
    return tf.transpose(split, [rank - 1, *range(rank - 1), rank])


def _of_pixels(kernel, bias):
    """A first layer that takes bytes in place of (byte - mean) / deviation.

    The same sums, without a pass over all pixels.
    """
    kernel = kernel / PIXEL_DEVIATION
    return kernel, bias - PIXEL_MEAN * tf.reduce_sum(kernel, [0, 1, 2])


def _weighted(x, kernel, stride):
    """Weighted sums of x [n, height, width, channels] for all modules side by side.

    Args:
      stride: of a conv layer's kernel; None: linear modules, which take any shape.
    """
    if stride is None:
        return tf.reshape(x, [x.shape[0], -1]) @ kernel
    return tf.nn.conv2d(x, kernel, stride, "VALID")


def _sum_of_modules(units, outputs):
    """Sum over modules side by side, of `outputs` channels or units each."""
    apart = tf.reshape(units, [*units.shape[:-1], -1, outputs])
    return tf.reduce_sum(apart, -2)


def _of_units(error, active):
    """Errors of ReLU units side by side, from those of their sum over modules.

    Args:
      error: [..., outputs]. active: bool [..., slots * outputs], which are above zero.
    """
    slots = active.shape[-1] // error.shape[-1]
    return tf.concat([error] * slots, -1) * tf.cast(active, tf.float32)


def _sum_of_outputs(error):
    """Gradient of a bias, from errors [..., units]."""
    return tf.reduce_sum(error, list(range(len(error.shape) - 1)))


def _lstm(gates, cell):
    """One step of an LSTM: gates [E, 1024], cell [E, 256] -> (output, cell), [E, 256].

    The forget gate starts open, with 1 added to its input.
    """
    enter, fresh, forget, leave = tf.split(gates, 4, axis=1)
    cell = tf.sigmoid(forget + 1) * cell + tf.sigmoid(enter) * tf.tanh(fresh)
    return tf.sigmoid(leave) * tf.tanh(cell), cell

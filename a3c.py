"""A3C on a PathNet: the network of one actor's path, its losses and its gradients.

Mnih et al. 2016, "Asynchronous Methods for Deep Reinforcement Learning" (arXiv
1602.01783), with the grid of Fernando et al. 2017 (arXiv 1701.08734, section 3.2) in
place of its network.

An actor pulls its path's modules once a rollout, acts on copies of its own, and pushes
gradients of those modules alone: what travels does not depend on M. Between two pulls
its parameters do not change, so that what it computes when it acts, from the outputs of
layer 1 to the gates of the LSTM, is what learning needs: it is kept, and learning only
goes back through it.
"""

from atari.environments import FRAMES, SCREEN
from atari.parameter_servers import EPISODE, UNITS
from common import tf1 as tf

# Roughly what the grey pixels of a game, 0 to 255, average to and vary by.
PIXEL_MEAN, PIXEL_DEVIATION = 90.0, 38.0


def n_step_returns(rewards, ends, bootstrap, gamma):
    """R_t = r_t + gamma * R_{t+1}, cut where an episode ends (algorithm S3 of A3C).

    Args:
      rewards: [T] sequence of float [E], the reward for the action of step t.
      ends: [T] sequence of float [E], 1 where that action ended the episode.
      bootstrap: float [E], value of the state after the last step.

    Returns:
      list of T arrays (or tensors, if such were given) [E].
    """
    returns = []
    following = bootstrap
    for reward, end in zip(reversed(rewards), reversed(ends)):
        following = reward + gamma * (1 - end) * following
        returns.append(following)
    return returns[::-1]


class Actor:
    """The modules of one actor's path, for one task, as ops of the default graph.

    Layout: NHWC; the modules of a layer side by side in the output channels of one
    kernel, so that a layer is one convolution, however many modules are active.

    Attributes:
      pull, pull_fixed: copy what this actor needs from the servers. Frozen modules
        never change in a task: once is enough for them.
      observed: (ready, task, version, steps), as of the same run's pull.
      act: (actions int64 [E], state float32 [2, E, 256]) from `observation`, `state`.
        Keeps what learning needs to know of it, as that of `step` of the rollout.
      push: (accepted, {name: loss}) from a rollout whose every step has been acted in;
        `observation` and `state` are those that follow its last step.
    """

    def __init__(self, shared, actor, task, envs, device):
        self.t_max = shared.learning.t_max
        self._shared = shared
        self._task = task
        self._envs = envs
        self._strides = [*shared.grid.stride_size, None]
        with tf.device(device):
            with tf.name_scope("inputs"):
                self._build_inputs()
            with tf.variable_scope("local"):
                self._build_pull(actor)
            with tf.name_scope("act"):
                self._build_act()
            with tf.name_scope("learn"):
                self._build_push()

    def _build_inputs(self):
        T, E = self.t_max, self._envs
        screens = [E, SCREEN, SCREEN, FRAMES]
        self.observation = tf.placeholder(tf.uint8, screens, "observation")
        self.state = tf.placeholder(tf.float32, [2, E, UNITS], "state")
        self.step = tf.placeholder_with_default(0, [], "step")
        self.actions = tf.placeholder(tf.int64, [T, E], "actions")
        self.rewards = tf.placeholder(tf.float32, [T, E], "rewards")
        self.ends = tf.placeholder(tf.float32, [T, E], "ends")
        self.finished = tf.placeholder(tf.float64, [None, len(EPISODE)], "finished")

    def _build_pull(self, actor):
        shared, grid = self._shared, self._shared.grid
        with tf.device(shared.first_server):
            ready, task = shared.ready.read_value(), shared.task.read_value()
            # Who sees the new task sees its parameters, too.
            with tf.control_dependencies([ready, task]):
                version = shared.versions[actor]
                path = tf.reduce_max(tf.one_hot(shared.paths[actor], grid.M), 1)
                fixed_path = shared.fixed_path()
                steps = shared.steps.read_value()
            on, index = tf.math.top_k(path * (1 - fixed_path), grid.N)
            frozen = min(grid.M, grid.N * self._task)
            fixed_on, fixed_index = tf.math.top_k(fixed_path, frozen)
        self.observed = (ready, task, version, steps)

        copies = []
        self._index = _copy("index", index, copies)
        self._on = _copy("on", on, copies)
        self._modules = self._pull_modules("path", index, on, copies)
        head = {
            name: variable.read_value()
            for name, variable in shared.heads[self._task].items()
        }
        if grid.use_lstm:
            # For the way back: turned round once a rollout, not in the product of a step.
            head["lstm/recurrent"] = tf.transpose(head["lstm/kernel"][UNITS:])
        self._head = {name: _copy(name, value, copies) for name, value in head.items()}
        self.pull = tf.group(*copies)

        copies = []
        self._fixed = self._pull_modules("fixed", fixed_index, fixed_on, copies)
        self.pull_fixed = tf.group(*copies)

    def _pull_modules(self, name, index, on, copies):
        """[L] of (kernel [..., slots * outputs], bias [slots * outputs]), own copies.

        A slot that holds no module is all zeros: so is its output, and its gradient.
        Those of layer 1 take bytes, see _of_pixels.
        """
        modules = []
        for layer, (kernel, bias) in enumerate(
            zip(self._shared.kernels, self._shared.biases)
        ):
            # The servers pick the rows: only those travel.
            with tf.colocate_with(kernel.handle):
                kernel_rows = tf.gather(kernel, index[layer])
            with tf.colocate_with(bias.handle):
                bias_rows = tf.gather(bias, index[layer])
            kernel_rows *= tf.reshape(on[layer], [-1] + [1] * (len(kernel.shape) - 1))
            bias_rows *= on[layer][:, None]
            module = _side_by_side(kernel_rows), tf.reshape(bias_rows, [-1])
            if layer == 0:
                module = _of_pixels(*module)
            modules.append(
                [
                    _copy(f"{name}/layer{layer + 1}/{part}", value, copies)
                    for part, value in zip(("kernel", "bias"), module)
                ]
            )
        return modules

    def _parts(self, layer):
        """(kernel, bias) of the own modules of a layer, and of the frozen ones."""
        parts = [self._modules[layer]]
        if self._task > 0:
            parts.append(self._fixed[layer])
        return parts

    def _forward(self):
        """What comes of `observation` and `state`: one step in every environment.

        Returns:
          (output, state, known): float32 [E, 256], what policy and value are made of;
          the new state; and {name: tensor}, what learning needs to know of this step.
        """
        known = {"observation": self.observation}
        x = tf.cast(self.observation, tf.float32)
        for layer, stride in enumerate(self._strides):
            units = [
                tf.nn.relu(tf.nn.bias_add(_weighted(x, kernel, stride), bias))
                for kernel, bias in self._parts(layer)
            ]
            outputs = self._shared.grid.kernel_shapes()[layer][-1]
            x = tf.add_n([_sum_of_modules(y, outputs) for y in units])
            known[f"outputs{layer}"] = x
            # Layer 1 is as far back as learning goes: only its own modules' errors count.
            for part, y in enumerate(units if layer else units[:1]):
                known[f"active{layer}_{part}"] = y > 0
        state = self.state
        if self._shared.grid.use_lstm:
            output, cell = tf.unstack(state)
            inputs = tf.concat([x, output], 1)
            gates = inputs @ self._head["lstm/kernel"] + self._head["lstm/bias"]
            known |= {"inputs": inputs, "gates": gates, "cell": cell}
            state = tf.stack(_lstm(gates, cell))
            x = state[0]
        return x, state, known | {"output": x}

    def _build_act(self):
        """One step: an action of each environment, drawn from the policy."""
        output, state, known = self._forward()
        self._known = {
            name: _local(f"known/{name}", [self.t_max, *value.shape], value.dtype)
            for name, value in known.items()
        }
        kept = [
            tf.scatter_update(self._known[name], self.step, value)
            for name, value in known.items()
        ]
        with tf.control_dependencies(kept):
            actions = tf.random.categorical(self._policy(output), 1)[:, 0]
        self.act = (actions, state)

    def _policy(self, x):
        return x @ self._head["policy/kernel"] + self._head["policy/bias"]

    def _value(self, x):
        return (x @ self._head["value/kernel"] + self._head["value/bias"])[..., 0]

    def _all_steps(self, name):
        """What is known of all steps of the rollout, one after the other: [T * E, ...]."""
        known = self._known[name].read_value()
        return tf.reshape(known, [-1, *known.shape[2:]])

    def _losses(self, logits, value, bootstrap):
        """Sums over the T steps of a rollout, means over its E environments.

        Args:
          logits: [T, E, actions]. value: [T, E]. bootstrap: [E], of what follows.
        """
        gamma = self._shared.learning.gamma
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

    def _build_push(self):
        shared, learning = self._shared, self._shared.learning
        T, E = self.t_max, self._envs
        output = self._all_steps("output")
        bootstrap, *_ = self._forward()
        losses = self._losses(
            tf.reshape(self._policy(output), [T, E, -1]),
            tf.reshape(self._value(output), [T, E]),
            tf.stop_gradient(self._value(bootstrap)),
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
        accepted = shared.apply(
            self._task,
            self._entries(*tf.nest.pack_sequence_as(gradients, clipped)),
            E,
            tf.constant(T * E, tf.int64),
            self.finished,
        )
        self.push = (
            accepted,
            {
                "losses/policy_loss": losses["policy_loss"] / T,
                "losses/value_loss": losses["value_loss"] / T,
                "losses/entropy": losses["entropy"] / T,
                "charts/gradient_norm": norm,
                "charts/learning_rate": learning.rate(shared.steps.read_value()),
            },
        )

    def _gradients(self, loss, output):
        """Of the loss: ([L] of (kernel, bias) of the own modules, {name: of the head}).

        Goes back through what acting has left: nothing of it is computed a second time.
        An error is the loss's derivative by what the way back has come to.
        """
        names = [name for name in self._head if not name.startswith("lstm")]
        error, *gradients = tf.gradients(loss, [output, *map(self._head.get, names)])
        head = dict(zip(names, gradients))
        if self._shared.grid.use_lstm:
            error, head["lstm/kernel"], head["lstm/bias"] = self._back_in_time(error)
        modules = []
        for layer in reversed(range(1, self._shared.grid.L)):
            error, *gradients = self._back_through(layer, error)
            modules.append(gradients)
        modules.append(self._first_layer_gradients(error))
        return modules[::-1], head

    def _back_in_time(self, error):
        """From errors of the LSTM's outputs [T * E, 256] to (error, kernel, bias).

        The error is that of its inputs from the grid, [T * E, 256].
        """
        steps = zip(
            tf.unstack(self._known["gates"].read_value()),
            tf.unstack(self._known["cell"].read_value()),
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
            tf.matmul(self._all_steps("inputs"), of_gates, transpose_a=True),
            tf.reduce_sum(of_gates, 0),
        )

    def _back_through(self, layer, error):
        """From errors of a layer's outputs, but the first's, to (error, kernel, bias).

        The error is that of its inputs; frozen modules pass it on and learn nothing.
        """
        x, stride = self._all_steps(f"outputs{layer - 1}"), self._strides[layer]
        parts = self._parts(layer)
        errors = [
            _of_units(error, self._all_steps(f"active{layer}_{part}"))
            for part in range(len(parts))
        ]
        kernel, _ = parts[0]
        # Not run, only gone back through.
        weighted = [_weighted(x, k, stride) for k, _ in parts]
        error, of_kernel = tf.gradients(weighted, [x, kernel], errors)
        return error, of_kernel, _sum_of_outputs(errors[0])

    def _entries(self, modules, head):
        """Gradients as Shared.apply takes them: (variable, gradient, rows or None)."""
        shared, entries = self._shared, []
        for layer, gradients in enumerate(modules):
            # Slots that hold no module push nothing.
            holds = self._on[layer] > 0
            rows = tf.boolean_mask(self._index[layer], holds)
            kernel, bias = shared.kernels[layer], shared.biases[layer]
            for variable, gradient in (
                (kernel, _one_by_one(gradients[0], kernel.shape[1:])),
                (bias, tf.reshape(gradients[1], [-1, *bias.shape[1:]])),
            ):
                entries.append((variable, tf.boolean_mask(gradient, holds), rows))
        for name, gradient in head.items():
            entries.append((shared.heads[self._task][name], gradient, None))
        return entries

    def _first_layer_gradients(self, error):
        """(kernel, bias) of layer 1, from errors of its outputs [T * E, h, w, 8]."""
        kernel, stride = self._modules[0][0], self._strides[0]
        changes = []
        for step, of_step in enumerate(tf.split(error, self.t_max)):
            # One after the other: pixels as floats are the largest thing in memory.
            with tf.control_dependencies([change for change, _ in changes[-1:]]):
                pixels = self._known["observation"].sparse_read(step)
                active = self._known["active0_0"].sparse_read(step)
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


def _local(name, shape, dtype):
    """A variable of this process."""
    return tf.get_variable(
        name,
        shape,
        dtype,
        tf.zeros_initializer(),
        collections=[tf.GraphKeys.LOCAL_VARIABLES],
    )


def _copy(name, value, copies):
    """A variable of this process that holds a copy of value; appends how it gets it."""
    local = _local(name, value.shape, value.dtype)
    copies.append(local.assign(value))
    return local


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

"""A3C on a PathNet: the network of one actor's path, its losses and its gradients.

Mnih et al. 2016, "Asynchronous Methods for Deep Reinforcement Learning" (arXiv
1602.01783), with the grid of Fernando et al. 2017 (arXiv 1701.08734, section 3.2) in
place of its network.

An actor pulls its path's modules once a rollout, acts on copies of its own, and pushes
gradients of those modules alone: what travels does not depend on M. Between two pulls
its parameters do not change, so that what layer 1 made of a screen, which is most of the
work, is computed once: when it acts. Learning goes on from there.
"""

from environments import FRAMES, SCREEN
from parameter_servers import EPISODE, KERNELS, UNITS
from pathnet import tf

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
        Remembers what layer 1 made of the observation as that of `step` of the rollout.
      push: (accepted, {name: loss}) from a rollout whose every step has been acted in.
    """

    def __init__(self, shared, actor, task, envs, device):
        self.t_max = shared.learning.t_max
        self._shared = shared
        self._task = task
        with tf.device(device):
            with tf.name_scope("inputs"):
                self._build_inputs(envs)
            with tf.variable_scope("local"):
                self._build_pull(actor)
            with tf.name_scope("act"):
                self._build_act()
            with tf.name_scope("learn"):
                self._build_push()

    def _build_inputs(self, E):
        T, screens = self.t_max, [E, SCREEN, SCREEN, FRAMES]
        self.observation = tf.placeholder(tf.uint8, screens, "observation")
        self.state = tf.placeholder(tf.float32, [2, E, UNITS], "state")
        self.step = tf.placeholder_with_default(0, [], "step")
        self.observations = tf.placeholder(tf.uint8, [T + 1, *screens], "observations")
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
        self._head = {
            name: _copy(name, variable.read_value(), copies)
            for name, variable in shared.heads[self._task].items()
        }
        self.pull = tf.group(*copies)

        copies = []
        self._fixed = self._pull_modules("fixed", fixed_index, fixed_on, copies)
        self.pull_fixed = tf.group(*copies)

    def _pull_modules(self, name, index, on, copies):
        """[L] of (kernel [..., slots * outputs], bias [slots * outputs]), own copies.

        A slot that holds no module is all zeros: so is its output, and its gradient.
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
            prefix = f"{name}/layer{layer + 1}"
            modules.append(
                (
                    _copy(f"{prefix}/kernel", _side_by_side(kernel_rows), copies),
                    _copy(f"{prefix}/bias", tf.reshape(bias_rows, [-1]), copies),
                )
            )
        return modules

    def _parts(self, layer):
        """(kernel, bias) of the own modules of a layer, and of the frozen ones."""
        parts = [self._modules[layer]]
        if self._task > 0:
            parts.append(self._fixed[layer])
        return parts

    def _first_layer(self, observations):
        """What layer 1 makes of screens, uint8 [n, 84, 84, 4].

        Returns:
          float32 [n, height, width, 8], and bool [n, height, width, slots * 8]: where
          the own modules' units are above zero.
        """
        x, stride = tf.cast(observations, tf.float32), self._shared.grid.stride_size[0]
        units = [_units(x, *_of_pixels(*p), stride) for p in self._parts(0)]
        return tf.add_n([_sum_of_modules(y, KERNELS) for y in units]), units[0] > 0

    def _later_layers(self, x):
        """What the other layers make of layer 1's outputs: float32 [n, 256]."""
        grid = self._shared.grid
        for layer in range(1, grid.L):
            last = layer == grid.L - 1
            if last:
                x = tf.reshape(x, [x.shape[0], -1])
            stride, outputs = (
                (None, UNITS) if last else (grid.stride_size[layer], KERNELS)
            )
            units = [_units(x, *part, stride) for part in self._parts(layer)]
            x = tf.add_n([_sum_of_modules(y, outputs) for y in units])
        return x

    def _build_act(self):
        """One step: an action of each environment, drawn from the policy."""
        first, active = self._first_layer(self.observation)
        self._first = _local("first", [self.t_max, *first.shape], first.dtype)
        self._active = _local("active", [self.t_max, *active.shape], active.dtype)
        x, state = self._later_layers(first), self.state
        if self._shared.grid.use_lstm:
            output, cell = tf.unstack(state)
            gates = tf.concat([x, output], 1) @ self._head["lstm/kernel"]
            state = tf.stack(_lstm(gates + self._head["lstm/bias"], cell))
            x = state[0]
        remembered = [
            tf.scatter_update(self._first, self.step, first),
            tf.scatter_update(self._active, self.step, active),
        ]
        with tf.control_dependencies(remembered):
            actions = tf.random.categorical(self._policy(x), 1)[:, 0]
        self.act = (actions, state)

    def _policy(self, x):
        return x @ self._head["policy/kernel"] + self._head["policy/bias"]

    def _value(self, x):
        return (x @ self._head["value/kernel"] + self._head["value/bias"])[..., 0]

    def _evaluate(self):
        """Policy and value of all steps of a rollout.

        Returns:
          (logits [T, E, actions], value [T+1, E], inputs, gates); the last two are what
          the LSTM took, [(T+1) * E, 512], and made of it, [T+1] of [E, 1024].
        """
        T, E = self.actions.shape
        bootstrap, _ = self._first_layer(self.observations[-1])
        self._seen = tf.reshape(self._first.read_value(), [T * E, *bootstrap.shape[1:]])
        x = self._later_layers(tf.concat([self._seen, bootstrap], 0))
        inputs, gates = None, []
        if self._shared.grid.use_lstm:
            # The features of all steps at once; one by one, only what follows from the
            # step before.
            kernel = self._head["lstm/kernel"]
            entering = tf.split(x @ kernel[:UNITS] + self._head["lstm/bias"], T + 1)
            output, cell = tf.unstack(self.state)
            before, after = [], []
            for t in range(T + 1):
                if t > 0:
                    goes_on = (1 - self.ends[t - 1])[:, None]
                    output, cell = output * goes_on, cell * goes_on
                before.append(output)
                gates.append(entering[t] + output @ kernel[UNITS:])
                output, cell = _lstm(gates[-1], cell)
                after.append(output)
            inputs = tf.concat([x, tf.concat(before, 0)], 1)
            x = tf.concat(after, 0)
        value = tf.reshape(self._value(x), [T + 1, E])
        return tf.reshape(self._policy(x[: T * E]), [T, E, -1]), value, inputs, gates

    def _losses(self, logits, value):
        """Sums over the T steps of a rollout, means over its E environments."""
        learning = self._shared.learning
        returns = tf.stop_gradient(
            tf.stack(
                n_step_returns(
                    tf.unstack(self.rewards),
                    tf.unstack(self.ends),
                    value[-1],
                    learning.gamma,
                )
            )
        )
        value = value[:-1]
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
        logits, value, inputs, gates = self._evaluate()
        losses = self._losses(logits, value)
        loss = (
            losses["policy_loss"]
            + learning.value_weight * losses["value_loss"]
            - learning.entropy * losses["entropy"]
        )
        pushed = self._gradients(loss, inputs, gates)
        clipped, norm = tf.clip_by_global_norm(
            tf.nest.flatten(pushed), learning.grad_norm_clip
        )
        entries = self._entries(*tf.nest.pack_sequence_as(pushed, clipped))
        t_max, envs = self.actions.shape.as_list()
        accepted = shared.apply(
            self._task,
            entries,
            envs,
            tf.constant(t_max * envs, tf.int64),
            self.finished,
        )
        self.push = (
            accepted,
            {
                "losses/policy_loss": losses["policy_loss"] / t_max,
                "losses/value_loss": losses["value_loss"] / t_max,
                "losses/entropy": losses["entropy"] / t_max,
                "charts/gradient_norm": norm,
                "charts/learning_rate": learning.rate(shared.steps.read_value()),
            },
        )

    def _gradients(self, loss, inputs, gates):
        """Of the loss: ([L] of (kernel, bias) of the own modules, {name: of the head}).

        Args:
          inputs, gates: of the LSTM, as from _evaluate.
        """
        used = (
            self._seen,
            self._modules[1:],
            {name: v for name, v in self._head.items() if not name.startswith("lstm")},
            gates,
        )
        errors, modules, head, gates = tf.nest.pack_sequence_as(
            used, tf.gradients(loss, tf.nest.flatten(used))
        )
        if gates:
            # One product for all steps, in place of one a step and their sum.
            gates = tf.concat(gates, 0)
            head["lstm/kernel"] = tf.matmul(inputs, gates, transpose_a=True)
            head["lstm/bias"] = tf.reduce_sum(gates, 0)
        return [self._first_layer_gradients(errors), *modules], head

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

    def _first_layer_gradients(self, errors):
        """(kernel, bias) of layer 1, from those of its outputs [T * E, h, w, 8]."""
        kernel, bias = _of_pixels(*self._modules[0])
        stride = self._shared.grid.stride_size[0]
        slots = kernel.shape[-1] // KERNELS
        changes = []
        for observation, active, error in zip(
            tf.unstack(self.observations),
            tf.unstack(self._active.read_value()),
            tf.split(errors, self.t_max),
        ):
            # One after the other: pixels as floats are the largest thing in memory.
            with tf.control_dependencies([change for change, _ in changes[-1:]]):
                error = tf.tile(error, [1, 1, 1, slots]) * tf.cast(active, tf.float32)
                pixels = tf.cast(observation, tf.float32)
            change = tf.nn.conv2d_backprop_filter(
                pixels, kernel.shape, error, [1, stride, stride, 1], "VALID"
            )
            changes.append((change, tf.reduce_sum(error, [0, 1, 2])))
        kernels, biases = zip(*changes)
        totals = [tf.add_n(kernels), tf.add_n(biases)]
        return tuple(tf.gradients([kernel, bias], self._modules[0], totals))


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


def _units(x, kernel, bias, stride):
    """ReLU units of modules side by side; stride None: linear modules.

    Args:
      x: [n, height, width, channels], or [n, inputs].
    """
    if stride is None:
        y = tf.matmul(x, kernel)
    else:
        y = tf.nn.conv2d(x, kernel, stride, "VALID")
    return tf.nn.relu(tf.nn.bias_add(y, bias))


def _sum_of_modules(units, outputs):
    """Sum over modules side by side, of `outputs` channels or units each."""
    apart = tf.reshape(units, [*units.shape[:-1], -1, outputs])
    return tf.reduce_sum(apart, -2)


def _lstm(gates, cell):
    """One step of an LSTM: gates [E, 1024], cell [E, 256] -> (output, cell), [E, 256].

    The forget gate starts open, with 1 added to its input.
    """
    enter, fresh, forget, leave = tf.split(gates, 4, axis=1)
    cell = tf.sigmoid(forget + 1) * cell + tf.sigmoid(enter) * tf.tanh(fresh)
    return tf.sigmoid(leave) * tf.tanh(cell), cell

"""What all processes of an Atari cluster share: variables on the parameter servers.

Any process can die: what it needs to go on is here, and is restored from a checkpoint
when a server dies. See `Shared`.
"""

import math
from collections.abc import Callable

from a3c import EPISODE, ConvGrid, Learning
from common import tf1 as tf


class Shared:
    """Everything that all processes share: variables on the parameter servers.

    Any process can die: what it needs to go on is here. Actors add gradients, steps and
    episodes; all else is written by the GA worker alone.

    Args:
      grid, learning: what is built, and how it learns.
      actors: size of the population.
      servers: number of parameter servers; 0: all is in this process.

    Attributes, all variables but the last:
      kernels, biases: float32 [L] of [M, ...], the modules; see ConvGrid.kernel_shapes.
      heads: for each task a dict of its own parameters, kept when the next task starts.
      slots: for each of the above, by name, RMSProp's (mean square, step); see _rmsprop.
      task: int64, index of the task; the number of tasks when all are learned.
      steps: int64, agent steps of the current task.
      ready: bool, false until all of this is initialized or restored.
      generation: int64, tournaments so far in this task.
      paths: int64 [actors, L, N]. versions: int64 [actors], counts an actor's paths.
      returns: float64 [actors], sum over the episodes played on the current path.
      played: int64 [actors], number of these episodes.
      fixed_paths: float32 [tasks, L, M], the best path of each finished task.
      episodes: queue of float64 rows, see EPISODE.
    """

    def __init__(
        self, grid: ConvGrid, actors: int, servers: int, learning: Learning
    ) -> None:
        self.grid = grid
        self.learning = learning
        self._devices = [f"/job:ps/task:{n}/cpu:0" for n in range(servers)] or [
            "/cpu:0"
        ]
        self._loads = [0] * len(self._devices)
        self.first_server = self._devices[0]
        with tf.device(self.first_server):
            self.task = _variable("task", [], tf.int64)
            self.steps = _variable("steps", [], tf.int64)
            self.ready = _variable("ready", [], tf.bool)
            self.generation = _variable("generation", [], tf.int64)
            self.paths = _variable("paths", [actors, grid.L, grid.N], tf.int64)
            self.versions = _variable("versions", [actors], tf.int64)
            self.returns = _variable("returns", [actors], tf.float64)
            self.played = _variable("played", [actors], tf.int64)
            shape = [len(grid.actions), grid.L, grid.M]
            self.fixed_paths = _variable("fixed_paths", shape)
            self.episodes = tf.FIFOQueue(
                1_000_000, [tf.float64], [[len(EPISODE)]], shared_name="episodes"
            )
            self._section = tf.CriticalSection(shared_name="update")
        self.kernels, self.biases, self.slots = [], [], {}
        for layer, shape in enumerate(grid.kernel_shapes()):
            name = f"layer{layer + 1}"
            self.kernels.append(self._parameter(f"{name}/kernel", [grid.M, *shape]))
            self.biases.append(self._parameter(f"{name}/bias", [grid.M, shape[-1]]))
        self.heads = [
            {
                name: self._parameter(f"task{task + 1}/{name}", shape)
                for name, shape in grid.head_shapes(task).items()
            }
            for task in range(len(grid.actions))
        ]

    def _parameter(self, name, shape):
        """A parameter and its RMSProp slots, on the server that holds the least so far."""
        server = self._loads.index(min(self._loads))
        self._loads[server] += math.prod(shape)
        with tf.device(self._devices[server]):
            variable = _variable(name, shape)
            self.slots[name] = tuple(
                _variable(f"{name}/{slot}", shape) for slot in ("square", "speed")
            )
        return variable

    def parameters(self) -> list:
        """All parameters: modules, then heads."""
        heads = [v for head in self.heads for v in head.values()]
        return [*self.kernels, *self.biases, *heads]

    def state(self) -> dict:
        """All variables but `ready`, by name: what a checkpoint holds."""
        state = [self.task, self.steps, self.generation, self.paths, self.versions]
        state += [self.returns, self.played, self.fixed_paths, *self.parameters()]
        slots = [slot for slots in self.slots.values() for slot in slots]
        return {v.op.name: v for v in [*state, *slots]}

    def leave(self, worker: int):
        """An op by which a worker says that it does not need any server any more.

        Args:
          worker: int, its index.
        """
        told = []
        for device in self._devices:
            with tf.device(device):
                told.append(departures().enqueue(tf.constant(worker, tf.int64)))
        return tf.group(*told)

    def fixed_path(self):
        """float32 [L, M], 1 where a module is frozen."""
        return tf.reduce_max(self.fixed_paths, 0)

    def exclusively(self, function: Callable):
        """The ops of function(), which only one process at a time runs.

        Gradients and the switch of tasks exclude each other this way.
        """
        with tf.device(self.first_server):
            return self._section.execute(function)

    def apply(self, task: int, gradients: list[tuple], envs: int, steps, episodes):
        """Applies an actor's gradients to its modules and its head, and counts its steps.

        Nothing happens once the task is over: then these are gradients of an earlier task.

        Args:
          task: int, index of the task that the gradients belong to.
          gradients: list of (variable, gradient, index): rows `index` of the variable,
            or all of it if index is None.
          envs: int, environments that the gradients are the mean over; the step is as
            much longer, as if each of them had pushed its own.
          steps: int64 tensor, agent steps to count.
          episodes: float64 [n, len(EPISODE)] tensor, those that ended meanwhile.

        Returns:
          bool tensor, whether the task was still on.
        """
        learning = self.learning
        # All that the actor sends must have arrived before this takes the lock: otherwise
        # the other actors wait for its transfer, and for ever if it is cut off meanwhile.
        with tf.device(self.first_server):
            steps, finished = tf.identity(steps), tf.identity(episodes)
        arrived = [
            (variable, _on_server(variable, gradient), _on_server(variable, index))
            for variable, gradient, index in gradients
        ]

        def update():
            before = self.steps.read_value()
            is_open = tf.logical_and(
                tf.equal(self.task.read_value(), task), before < learning.max_time_step
            )
            return tf.cond(is_open, lambda: apply(before), lambda: tf.constant(False))

        def apply(before):
            rate = envs * learning.rate(before)
            done = [self._rmsprop(*entry, rate) for entry in arrived]
            done += [self.steps.assign_add(steps), self.episodes.enqueue_many(finished)]
            with tf.control_dependencies(done):
                return tf.constant(True)

        arriving = [x for entry in arrived for x in entry[1:] if x is not None]
        with tf.control_dependencies([steps, finished, *arriving]):
            return self.exclusively(update)

    def _rmsprop(self, variable, gradient, index, rate):
        """RMSProp with momentum, of the rows `index` of a variable, or of all of it.

        square <- decay * square + (1 - decay) * g^2
        speed <- momentum * speed + rate * g / sqrt(square + epsilon)
        variable <- variable - speed

        A3C shares the statistics among its actors (Mnih et al. 2016, section 4).
        """
        learning = self.learning
        square, speed = self.slots[variable.op.name]
        with tf.colocate_with(variable.handle):
            arguments = {
                "var": variable.handle,
                "ms": square.handle,
                "mom": speed.handle,
                "lr": rate,
                "rho": learning.rms_decay,
                "momentum": learning.rms_momentum,
                "epsilon": learning.rms_epsilon,
                "grad": gradient,
            }
            if index is None:
                return tf.raw_ops.ResourceApplyRMSProp(**arguments)
            return tf.raw_ops.ResourceSparseApplyRMSProp(indices=index, **arguments)

    def initialize(self, seed):
        """An op that draws all parameters.

        Args:
          seed: int64 [2] tensor, of stateless random numbers.
        """
        return tf.group(
            *[
                self._fresh(
                    variable, _initial_value(variable, seed, number, self.grid.N)
                )
                for number, variable in enumerate(self.parameters())
            ]
        )

    def switch(self, seed, geopath, kept, inherit, paths):
        """An op that ends a task and begins the next, while no gradient is applied.

        Modules that are not kept are re-initialized. Each task has a head, and the next
        one's is new already.

        Args:
          seed: int64 [2].
          geopath: float32 [L, M], modules of the task that ends that are frozen.
          kept: float32 [L, M], modules whose parameters stay, frozen or not.
          inherit: bool, whether the next task's LSTM starts as a copy of this one's.
          paths: int64 [actors, L, N], the next task's population.

        Returns:
          int64 tensor, index of the next task.
        """
        with tf.device(self.first_server):
            seed, geopath, kept, inherit, paths = map(
                tf.identity, (seed, geopath, kept, inherit, paths)
            )

        def steps():
            task = self.task.read_value()
            changes = [tf.scatter_update(self.fixed_paths, task, geopath)]
            for number, variable in enumerate([*self.kernels, *self.biases]):
                value = _initial_value(variable, seed, number, self.grid.N)
                keep = kept[number % self.grid.L] > 0
                changes.append(self._fresh(variable, tf.where(keep, variable, value)))
            for index, (old, new) in enumerate(zip(self.heads, self.heads[1:])):
                copies = tf.logical_and(inherit, tf.equal(task, index))
                for name in [name for name in new if name.startswith("lstm")]:
                    value = tf.where_v2(copies, old[name], new[name])
                    changes.append(new[name].assign(value))
            changes += [
                self.paths.assign(paths),
                self.versions.assign_add(tf.ones_like(self.versions)),
                self.returns.assign(tf.zeros_like(self.returns)),
                self.played.assign(tf.zeros_like(self.played)),
                self.generation.assign(0),
                self.steps.assign(0),
            ]
            # Last of all: who sees the new task sees all that belongs to it.
            with tf.control_dependencies(changes):
                return tf.identity(self.task.assign_add(1))

        return self.exclusively(steps)

    def _fresh(self, variable, value):
        slots = self.slots[variable.op.name]
        return tf.group(
            variable.assign(value), *[s.assign(tf.zeros_like(s)) for s in slots]
        )


def departures():
    """The queue of a server's own, on its device: int64 [], workers that have left."""
    return tf.FIFOQueue(1_000_000, [tf.int64], [[]], shared_name="departures")


def _on_server(variable, tensor):
    """A tensor, or None, on the server that holds a variable."""
    with tf.colocate_with(variable.handle):
        return None if tensor is None else tf.identity(tensor)


def _variable(name, shape, dtype=tf.float32):
    return tf.get_variable(name, shape, dtype, tf.zeros_initializer())


def _initial_value(variable, seed, number, active):
    """He's uniform weights for modules, zero biases, a policy that starts near uniform.

    He et al. 2015 (arXiv 1502.01852) keep the variance of ReLU layers; here a layer is
    the sum of `active` modules. What is no module gets within 1/sqrt(fan_in).
    """
    seed += [0, number]
    name, shape = variable.op.name, variable.shape.as_list()
    if name.endswith("bias"):
        return tf.zeros(shape)
    if name.startswith("layer"):
        bound = math.sqrt(6 / (active * math.prod(shape[1:-1])))
    else:
        bound = 1 / math.sqrt(shape[0])
    if "policy" in name:
        bound /= 10
    return tf.random.stateless_uniform(shape, seed, -bound, bound)

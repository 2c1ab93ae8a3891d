"""What all processes of an Atari cluster share: variables on the parameter servers.

Any process can die: what it needs to go on is here, and comes back from a checkpoint
when a server dies. See `Shared`.
"""

import dataclasses
import math

from atari.cluster import PS, WORKER, wait_for_servers
from atari.environments import FRAMES, SCREEN
from common import tf1 as tf
from common.commandline import UserError

KERNELS = 8  # of a conv module
UNITS = 256  # of a linear module of the last layer, and of the LSTM

# What an actor tells about an episode: its task, the actor, the version of the path
# that it was played on from its first to its last step (-1: more than one), its return,
# its length in agent steps, the task's agent steps at its end.
EPISODE = ("task", "actor", "version", "episodic_return", "length", "steps")


@dataclasses.dataclass(frozen=True)
class Grid:
    """What is built: L - 1 layers of conv modules, a last one of linear modules.

    Attributes:
      L, M, N: layers, modules a layer, at most N active a layer.
      kernel_num: int [L-1], side of the kernels of each conv layer, in pixels.
      stride_size: int [L-1], strides of the same.
      actions: int, one a task, number of actions of its game.
      use_lstm: whether an LSTM follows the last layer.
    """

    L: int
    M: int
    N: int
    kernel_num: tuple
    stride_size: tuple
    actions: tuple
    use_lstm: bool = True

    def kernel_shapes(self):
        """Shape of the weights of one module of each layer, output last.

        Raises:
          ValueError: the screen is too small for so many layers.
        """
        side, channels, shapes = SCREEN, FRAMES, []
        for size, stride in zip(self.kernel_num, self.stride_size):
            if size > side:
                raise ValueError(
                    f"layer {len(shapes) + 1}: a kernel of {size} pixels does not fit "
                    f"into an input of {side}"
                )
            shapes.append((size, size, channels, KERNELS))
            side, channels = (side - size) // stride + 1, KERNELS
        return [*shapes, (side * side * channels, UNITS)]

    def head_shapes(self, task):
        """Shapes of the parameters that belong to one task alone, by name."""
        lstm = {"lstm/kernel": (2 * UNITS, 4 * UNITS), "lstm/bias": (4 * UNITS,)}
        return (lstm if self.use_lstm else {}) | {
            "policy/kernel": (UNITS, self.actions[task]),
            "policy/bias": (self.actions[task],),
            "value/kernel": (UNITS, 1),
            "value/bias": (1,),
        }


@dataclasses.dataclass(frozen=True)
class Learning:
    """How an actor learns; the losses are summed over a rollout, as A3C does."""

    t_max: int
    gamma: float
    entropy: float
    value_weight: float
    learning_rate: float
    rms_decay: float
    rms_momentum: float
    rms_epsilon: float
    grad_norm_clip: float
    max_time_step: int

    def rate(self, steps):
        """The learning rate after so many agent steps (a tensor): falls linearly to 0."""
        done = tf.cast(steps, tf.float32) / self.max_time_step
        return self.learning_rate * (1 - done)


class Shared:
    """Everything that all processes share: variables on the parameter servers.

    Any process can die: what it needs to go on is here. Actors add gradients, steps and
    episodes; all else is written by the GA worker alone.

    Args:
      grid, learning: what is built, and how it learns.
      actors: size of the population.
      servers: number of parameter servers; 0: all is in this process.

    Attributes, all variables but the last:
      kernels, biases: [L] of [M, ...], the modules; see Grid.kernel_shapes.
      heads: for each task a dict of its own parameters, kept when the next task starts.
      slots: for each of the above, by name, RMSProp's (square, speed); see _rmsprop.
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

    def __init__(self, grid, actors, servers, learning):
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

    def parameters(self):
        """All parameters: modules, then heads."""
        heads = [v for head in self.heads for v in head.values()]
        return [*self.kernels, *self.biases, *heads]

    def state(self):
        """All variables but `ready`, by name: what a checkpoint holds."""
        state = [self.task, self.steps, self.generation, self.paths, self.versions]
        state += [self.returns, self.played, self.fixed_paths, *self.parameters()]
        slots = [slot for slots in self.slots.values() for slot in slots]
        return {v.op.name: v for v in [*state, *slots]}

    def fixed_path(self):
        """float32 [L, M], 1 where a module is frozen."""
        return tf.reduce_max(self.fixed_paths, 0)

    def exclusively(self, function):
        """The ops of function(), run by one process at a time, alone.

        Gradients and the switch of tasks exclude each other this way.
        """
        with tf.device(self.first_server):
            return self._section.execute(function)

    def apply(self, task, gradients, envs, steps, episodes):
        """Applies an actor's gradients to its modules and its head, and counts its steps.

        Nothing happens, and the answer is False, once the task is over: then these are
        gradients of a task that is no more.

        Args:
          task: int, index of the task that the gradients belong to.
          gradients: list of (variable, gradient, index): rows `index` of the variable,
            or all of it if index is None.
          envs: int, environments that the gradients are the mean over; the step is as
            much longer, as if each of them had pushed its own.
          steps: int64 tensor, agent steps to count.
          episodes: float64 [n, len(EPISODE)] tensor, those that ended meanwhile.
        """
        learning = self.learning
        # What comes from afar must be here before the others have to wait for it: else
        # they wait for its transfer, and for ever if the actor is cut off meanwhile.
        with tf.device(self.first_server):
            steps, told = tf.identity(steps), tf.identity(episodes)
        arrived = [
            (variable, _beside(variable, gradient), _beside(variable, index))
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
            done += [self.steps.assign_add(steps), self.episodes.enqueue_many(told)]
            with tf.control_dependencies(done):
                return tf.constant(True)

        arriving = [x for entry in arrived for x in entry[1:] if x is not None]
        with tf.control_dependencies([steps, told, *arriving]):
            return self.exclusively(update)

    def _rmsprop(self, variable, gradient, index, rate):
        """RMSProp with momentum, of the rows `index` of a variable, or of all of it.

        square <- decay * square + (1 - decay) * g^2
        speed <- momentum * speed + rate * g / sqrt(square + epsilon)
        variable <- variable - speed
        """
        learning = self.learning
        square, speed = self.slots[variable.op.name]
        with tf.colocate_with(variable.handle):
            own = {
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
                return tf.raw_ops.ResourceApplyRMSProp(**own)
            return tf.raw_ops.ResourceSparseApplyRMSProp(indices=index, **own)

    def initialize(self, seed):
        """An op that draws all parameters; seed: int64 [2], of stateless random numbers."""
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

        Modules that are not kept start again. Heads are each task's own, and the next
        one's is new already.

        Args:
          seed: int64 [2].
          geopath: float32 [L, M], modules of the task that ends that are frozen.
          kept: float32 [L, M], modules whose parameters stay, frozen or not.
          inherit: bool, whether the next task's LSTM starts as a copy of this one's.
          paths: int64 [actors, L, N], the next task's population.
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


def _beside(variable, tensor):
    """The tensor, if it is one, brought to the server that holds a variable."""
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


# --------------------------------------------------------------------------------------
# Sessions
# --------------------------------------------------------------------------------------

# What a run raises when a parameter server has died, was started again, or is cut off.
LOST = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.NotFoundError,
    tf.errors.UnavailableError,
)

RUN_SECONDS = 60  # the longest that one run may take before its servers count as lost


def cause(error):
    """A LOST error as one line."""
    return f"{type(error).__name__}: {' '.join(error.message.split())[:200]}"


def is_refused(error):
    """Whether a run was refused because its number was that of an earlier one.

    TensorFlow numbers runs at random, and the numbers repeat: of the first 165,000 runs
    of a trivial graph nine were refused. Nothing is run where a run is refused.
    """
    return "RunGraph (Worker) request was received twice" in error.message


def serve(role, threads):
    """Starts this process's server of a cluster.Cluster.

    Raises:
      UserError: its port is in use.
    """
    config = tf.ConfigProto(
        intra_op_parallelism_threads=threads,
        inter_op_parallelism_threads=threads + 1,  # one may wait for a server
    )
    spec = tf.train.ClusterSpec({PS: list(role.ps), WORKER: list(role.workers)})
    try:
        return tf.train.Server(spec, role.job, role.index, config=config)
    except tf.errors.UnknownError as error:
        host = (role.ps if role.job == PS else role.workers)[role.index]
        raise UserError(
            f"{role.name()}: cannot listen on the port of {host} (is it in use?)"
        ) from error


def connect(server, role, graph, say):
    """A session of this process, once all parameter servers can be reached."""
    wait_for_servers(role.ps, say)
    config = tf.ConfigProto(
        # Other workers may come and go.
        device_filters=[f"/job:{PS}", f"/job:{role.job}/task:{role.index}"],
        operation_timeout_in_ms=1000 * RUN_SECONDS,
    )
    return _Session(server.target, graph=graph, config=config)


class _Session(tf.Session):
    """A session whose errors are as the servers tell them.

    TensorFlow looks for names of ops in the text of an error, to add where they were
    made, and takes hours over one that quotes a feed of screens.
    """

    def _do_call(self, fn, *args):
        return fn(*args)

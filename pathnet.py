"""PathNet: a grid of modules, paths through it, and the tournament that evolves them.

    python pathnet.py show DIR                # prints and draws a network that was saved
    python pathnet.py show DIR PICTURE.png    # draws it there, not as DIR/paths.png

Fernando et al. 2017, "PathNet: Evolution Channels Gradient Descent in Super Neural
Networks" (arXiv 1701.08734). Four parts, in this order:

  Paths         pure numpy: random paths, mutation, geopaths, overlap, diversity
  Tournament    which candidates are drawn, which wins, what becomes of the losers
  Modules       what a module computes, and how the modules of a layer are combined
  Network       the L x M grid of modules as a TensorFlow graph

How candidates are trained is in `supervised/generation.py`.
"""

from common import commandline  # before all else: Ctrl-C is one line from here on

# isort: split
import dataclasses
import os
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from common import tf1 as tf
from common.commandline import UserError


def check_choice(what: str, value: str, choices: Iterable[str]) -> None:
    """Raises a ValueError if `value` is none of the choices of `what`."""
    if value not in choices:
        raise ValueError(f"unknown {what} '{value}', choose from {', '.join(choices)}")


# --------------------------------------------------------------------------------------
# Paths
#
# A path is an int array [L, N]: gene (l, i) names a module of layer l. It may name one
# twice and then has fewer than N active there. Its geopath is the same as a binary
# [L, M] array. All functions take leading dimensions (a population is [candi, L, N]).
# Random numbers come from the numpy generator that a function is given.
# --------------------------------------------------------------------------------------


def random_paths(
    rng: np.random.Generator,
    count: int,
    L: int,
    M: int,
    N: int,
    replacement: bool = False,
) -> np.ndarray:
    """Draws paths of N different modules a layer, uniformly (section 2.2).

    Args:
      count: how many paths to draw.
      L, M, N: layers of the grid, modules a layer, and how many of them a path names.
      replacement: whether a module may be drawn more than once.

    Returns:
      int64 [count, L, N], values in [0, M).

    Raises:
      ValueError: N is larger than M.
    """
    if N > M:
        raise ValueError(f"cannot draw N={N} different modules of M={M}")
    if replacement:
        return rng.integers(0, M, (count, L, N))
    return np.argsort(rng.random((count, L, M)), axis=-1)[..., :N]


def mutate(
    rng: np.random.Generator,
    paths: np.ndarray,
    M: int,
    rate: float | None = None,
    low: int = -2,
    high: int = 2,
    as_sets: bool = False,
    drops: bool = False,
) -> np.ndarray:
    """Moves each gene, with probability `rate`, by a uniform integer (section 2.2).

    Args:
      paths: int [..., L, N].
      M: Modules a layer; results are clipped to [0, M-1], or dropped.
      rate: probability that a gene moves; None is the paper's 1/(N*L).
      low, high: bounds of the integer, both inclusive; the paper's are -2 and 2.
      as_sets: whether what moves is a module of the path, so that genes of a layer that
        name the same one move together: they are one from then on.
      drops: whether a gene that leaves the grid is dropped: it then names the same module
        as the first of its layer that stays. Where none stays, all are clipped.

    Returns:
      A new int64 array of the same shape.
    """
    L, N = paths.shape[-2:]
    moves = rng.random(paths.shape) < (1 / (N * L) if rate is None else rate)
    offsets = rng.integers(low, high, size=paths.shape, endpoint=True)
    steps = moves * offsets
    if as_sets:
        steps = np.take_along_axis(steps, _first_of_its_module(paths), axis=-1)
    moved = paths + steps
    if drops:
        stays = (moved >= 0) & (moved < M)
        stays |= ~stays.any(-1, keepdims=True)
        first = stays.argmax(-1)[..., None]
        moved = np.where(stays, moved, np.take_along_axis(moved, first, axis=-1))
    return np.clip(moved, 0, M - 1)


def _first_of_its_module(paths):
    """For each gene, the first of its layer on the same module: int64 [..., L, N]."""
    return (paths[..., :, None] == paths[..., None, :]).argmax(-1)


# What a path is -> arguments of `mutate`: N genes a layer, which part again after they
# have met on a module, or a set of at most N modules a layer, as in the early system.
PATHS: dict[str, dict] = {"genes": {}, "sets": {"as_sets": True}}

# Name -> arguments of `mutate` for paths [L, N]. "uniform" is the paper's rule. "drift"
# is that of the published system: twice as often, and only towards module 0.
# "neighbour" is that of the early system as it was run: a gene moved, with probability
# 2/(L*N), by a number from [-2, 2) cut to an integer, which is -1 or 1 a quarter of the
# time each. One of -1, 0 and 1 drawn uniformly is as often either at 3/4 of that rate.
MUTATIONS: dict[str, Callable[[int, int], dict]] = {
    "uniform": lambda L, N: {},
    "drift": lambda L, N: {"rate": min(2 / (N * L), 1), "low": -4, "high": -1},
    "neighbour": lambda L, N: {
        "rate": min(1.5 / (N * L), 1),
        "low": -1,
        "high": 1,
        "drops": True,
    },
}


def mutation_rule(
    name: str, L: int, N: int, paths: str = "genes", rate: float | None = None
) -> dict:
    """Returns the arguments of `mutate` for paths [L, N].

    Args:
      name: one of MUTATIONS. L, N: layers, and genes of a layer.
      paths: one of PATHS.
      rate: probability that a gene moves; None is that of the rule.

    Raises:
      ValueError: one of the two is unknown.
    """
    check_choice("mutation", name, MUTATIONS)
    check_choice("kind of path", paths, PATHS)
    rule = MUTATIONS[name](L, N) | PATHS[paths]
    return rule if rate is None else rule | {"rate": rate}


def to_geopath(paths: np.ndarray, M: int) -> np.ndarray:
    """Returns paths [..., L, N] as binary geopaths: float32 [..., L, M], 1 if active."""
    return (paths[..., None] == np.arange(M)).any(axis=-2).astype(np.float32)


def overlap(geopath: np.ndarray, other: np.ndarray) -> int:
    """Returns how many modules two geopaths [L, M] share."""
    return int(np.sum(np.logical_and(geopath, other)))


def diversity(geopaths: np.ndarray) -> float:
    """Measures how much a population differs: mean Jaccard distance over its pairs.

    Args:
      geopaths: binary [candi, L, M].

    Returns:
      A number in [0, 1]: 0 if all paths are the same or there is only one, 1 if no two
      share a module.
    """
    if len(geopaths) == 1:
        return 0.0
    flat = geopaths.reshape(len(geopaths), -1)
    shared = flat @ flat.T
    sizes = np.diag(shared)
    union = sizes[:, None] + sizes[None, :] - shared
    return float(np.mean((1 - shared / union)[np.triu_indices(len(flat), 1)]))


def format_geopath(geopath: np.ndarray, fixed_path: np.ndarray | None = None) -> str:
    """Returns a geopath [L, M] as text, a line for each layer.

    A module is `#` if the path uses it, `+` if only the fixed path [L, M] does.
    """
    fixed_path = np.zeros_like(geopath) if fixed_path is None else fixed_path
    marks = np.where(geopath > 0, "#", np.where(fixed_path > 0, "+", "."))
    return "\n".join(
        f"layer {layer + 1}  " + " ".join(row) for layer, row in enumerate(marks)
    )


def format_task(
    number: int, title: str, task: dict, geopath: np.ndarray, fixed_path: np.ndarray
) -> str:
    """Returns how a task, numbered from 0 on, ended, as text.

    `task` is its entry of results.jsonl; its best path and the fixed path are [L, M].
    The training accuracy is the one while it learned; "as kept" is that of the network
    that is left, with what the writeback has kept of all candidates. Held-out images
    that have selected the winners are said not to be unseen.
    """
    ended = "" if task["converged"] else "not converged after "
    kept = task.get("accuracy_train")
    return (
        f"Task {number + 1}, {title}: {ended}{task['generations']} generations, "
        f"training accuracy {task['fitness']:.4f}"
        + (f" (as kept {kept:.4f})" if kept is not None else "")
        + f", held-out accuracy {task['accuracy_test']:.4f}"
        + (
            ", by which winners were selected"
            if task.get("selected_by") == "test"
            else ""
        )
        + "\n"
        + format_geopath(geopath, fixed_path)
    )


# --------------------------------------------------------------------------------------
# Tournament
# --------------------------------------------------------------------------------------


def draw_candidates(rng: np.random.Generator, candi: int, B: int) -> np.ndarray:
    """Draws the B different candidates of a tournament: their indices, int64 [B]."""
    return rng.permutation(candi)[:B]


def overwrite_losers(
    rng: np.random.Generator,
    paths: np.ndarray,
    fitness: np.ndarray,
    M: int,
    **mutation: Any,
) -> tuple[np.ndarray, int]:
    """Applies the rule of the tournament: the fittest overwrites the rest (section 2.2).

    Args:
      paths: int [B, L, N], the candidates of one tournament.
      fitness: float [B]; ties go to the first.
      M: Modules a layer.
      **mutation: as of `mutate`.

    Returns:
      (paths, winner): int64 [B, L, N] with the winner's path in its place and mutated
      copies of it in all others, and the winner's index.
    """
    winner = int(np.argmax(fitness))
    copies = np.repeat(paths[winner : winner + 1], len(paths), 0)
    copies = mutate(rng, copies, M, **mutation)
    copies[winner] = paths[winner]
    return copies, winner


def freeze(fixed_path: np.ndarray, geopath: np.ndarray) -> np.ndarray:
    """Adds the best path of a task to what is frozen (section 2.3).

    Args:
      fixed_path: binary [L, M], the modules frozen so far.
      geopath: binary [L, M], the best path of the task that has ended.

    Returns:
      Binary [L, M]. These modules keep their parameters; all others are re-initialized.
    """
    return np.maximum(fixed_path, geopath)


def random_modules(
    rng: np.random.Generator, fixed_path: np.ndarray, geopath: np.ndarray
) -> np.ndarray:
    """Draws as many modules of each layer as a path has, none of them frozen.

    Args:
      fixed_path: binary [L, M], the modules frozen so far. geopath: binary [L, M].

    Returns:
      Binary float32 [L, M]. Where too few are left, frozen ones are drawn as well.
    """
    # Ranks of random numbers, those of modules that are frozen already behind.
    order = np.argsort(rng.random(fixed_path.shape) + fixed_path, axis=1)
    ranks = np.argsort(order, axis=1)
    return (ranks < geopath.sum(1, keepdims=True)).astype(np.float32)


# --------------------------------------------------------------------------------------
# Modules
#
# A module computes ReLU(Wx + b), x or their sum. A layer adds up its active modules, and
# may divide the sum by M, or by its own root mean square.
# --------------------------------------------------------------------------------------


class Kind(NamedTuple):
    """What a module puts out: relu * ReLU(Wx + b) + input * x."""

    relu: int
    input: int


MODULE_KINDS = {
    "skip": Kind(relu=0, input=1),
    "linear": Kind(relu=1, input=0),
    "residual": Kind(relu=1, input=1),
}

# Layer 1 has no other: its input is an image and cannot be added to what is put out.
FIRST_LAYER_KIND = "linear"

# Name -> kinds that the modules of every later layer take in turn.
MIXTURES = {"mixed": ("skip", "linear", "residual"), "linear": ("linear",)}


class Aggregation(NamedTuple):
    """What becomes of the sum of a layer's active modules.

    Attributes:
      divides_earlier, divides_last: whether it is divided by M, in the layers before the
        last one and in the last.
      normalizes: whether it is divided by its root mean square, see `normalize`.
    """

    divides_earlier: bool = False
    divides_last: bool = False
    normalizes: bool = False


AGGREGATIONS = {
    "average": Aggregation(divides_earlier=True, divides_last=True),
    "sum": Aggregation(),
    "last_average": Aggregation(divides_last=True),
    "normalized": Aggregation(normalizes=True),
}


def module_kinds(L: int, M: int, mixture: str = "mixed") -> np.ndarray:
    """Returns each module's kind, a key of MODULE_KINDS: str [L, M], for a mixture."""
    check_choice("mixture of module kinds", mixture, MIXTURES)
    kinds = np.array(MIXTURES[mixture])
    later = kinds[np.arange(M) % len(kinds)]
    return np.stack([np.full(M, FIRST_LAYER_KIND)] + [later] * (L - 1))


@dataclasses.dataclass(frozen=True)
class Grid:
    """What a network is built of: L layers of M modules, at most N active in each.

    Attributes:
      L, M, N: layers, modules a layer, and the most of a layer that a path uses.
      filt: units of a module.
      inputs: pixels of an image.
      classes: number of classes of each task, which has an output layer of its own.
      aggregation: one of AGGREGATIONS.
      centred: whether pixels are scaled to [-0.5, 0.5], else to [0, 1].
      module_kinds: one of MIXTURES.
      fixed_path_active: whether frozen modules are active in every path, or only in
        those that name them.
      frozen_share: what a frozen module's output counts for, in (0, 1]; 1, as much as
        one that trains, is the paper's.

    Raises:
      ValueError: the aggregation or the mixture of module kinds is unknown.
    """

    L: int
    M: int
    N: int
    filt: int
    inputs: int
    classes: tuple[int, ...]
    aggregation: str = "average"
    centred: bool = False
    module_kinds: str = "mixed"
    fixed_path_active: bool = True
    frozen_share: float = 1.0

    def __post_init__(self):
        check_choice("aggregation", self.aggregation, AGGREGATIONS)
        check_choice("mixture of module kinds", self.module_kinds, MIXTURES)

    def kinds(self) -> np.ndarray:
        """Returns the kind of each module: str [L, M]."""
        return module_kinds(self.L, self.M, self.module_kinds)

    def active(self, geopath: Any, fixed_path: Any) -> Any:
        """Returns what each module's output counts for when a path computes.

        Args:
          geopath, fixed_path: binary [..., L, M], arrays or tensors: the path's modules
            and the frozen ones.

        Returns:
          float32 [..., L, M]: 1, for a frozen module frozen_share, for one that is not
          active 0.
        """
        frozen = fixed_path if self.fixed_path_active else geopath * fixed_path
        return geopath * (1 - fixed_path) + self.frozen_share * frozen

    @property
    def most_classes(self) -> int:
        """Number of units of an output layer: as many as the task with the most needs."""
        return max(self.classes)

    @property
    def normalizes(self) -> bool:
        """Whether each layer's output is divided by its root mean square."""
        return AGGREGATIONS[self.aggregation].normalizes

    def gains(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns what a module's ReLU and its input count for in its layer's output.

        Returns:
          (relu_gain, skip_gain), float32 [L, M] each: the output of a layer is the sum
          over its active modules of relu_gain * ReLU(Wx + b) + skip_gain * x, which
          `normalize` may scale.
        """
        rule = AGGREGATIONS[self.aggregation]
        divided = [rule.divides_earlier] * (self.L - 1) + [rule.divides_last]
        divisor = np.where(divided, self.M, 1).astype(np.float32)
        kinds = [[MODULE_KINDS[name] for name in row] for row in self.kinds()]
        gains = np.array(kinds, np.float32) / divisor[:, None, None]
        return gains[..., 0], gains[..., 1]


# --------------------------------------------------------------------------------------
# Network
#
# Activations are feature-first, [B, units, images]: a mini-batch of 16 images is then
# one vector register wide. B is the number of candidates that compute at once.
# --------------------------------------------------------------------------------------

# Optimizer -> the running means that it keeps of each parameter's gradient.
OPTIMIZER_MOMENTS = {"sgd": (), "adam": ("mean", "mean_square")}


class Parameter(NamedTuple):
    """A parameter and the optimizer's moments of it: all tensors, or all variables."""

    value: Any
    moments: tuple


class Layer(NamedTuple):
    """The parameters of modules of one layer, or of output layers.

    Attributes:
      kernel: Parameter [..., units, fan_in].
      bias: Parameter [..., units].
    """

    kernel: Parameter
    bias: Parameter


class Modules(NamedTuple):
    """Modules of one layer, gathered into so many slots for each of B candidates.

    Attributes:
      index: int32 [B, slots], which module a slot holds.
      parameters: Layer, [B, slots, filt, fan_in] and [B, slots, filt].
      relu_gain, skip_gain: float32 [B, slots], as of `Grid.gains`, or 0 for slots that
        are not needed.
    """

    index: Any
    parameters: Layer
    relu_gain: Any
    skip_gain: Any


# Bias of an output unit for which its task has no class: the probability of that class is
# 0 to the last bit, and so is each gradient that it has part in.
NO_CLASS = -1e9


def widened(grid: Grid, name: str, saved: np.ndarray, held: int) -> np.ndarray:
    """Output layers of the first tasks, for a grid that has more of them, or wider ones.

    Args:
      grid: the Grid. name: of the variable, as of `PathNet.parameters`.
      saved: its value with `held` tasks, [held, classes, ...], as wide as the widest of
        these needs.
      held: number of tasks that have been learned.

    Returns:
      float32 [tasks, classes, ...] as the grid needs it; what a later task begins with
      is drawn when it begins. `saved` itself if it is no such value.
    """
    if saved.shape[:2] != (held, max(grid.classes[:held], default=0)):
        return saved
    shape = [len(grid.classes), grid.most_classes, *saved.shape[2:]]
    no_class = NO_CLASS if name == "output/bias" else 0
    value = np.full(shape, no_class, np.float32)
    value[:held, : saved.shape[1]] = saved
    return value


# Keeps an image whose units are all 0 from a division by 0.
NORMALIZE_EPSILON = 1e-6


def scale_pixels(images: Any, centred: bool) -> Any:
    """Returns bytes as float32 in [0, 1], or in [-0.5, 0.5] if centred."""
    pixels = tf.cast(images, tf.float32) / 255
    return pixels - 0.5 if centred else pixels


def aggregate(pre: Any, relu_gain: Any) -> Any:
    """Returns relu_gain [B, slots] * ReLU(pre [B, slots, filt, n]), summed over slots."""
    return tf.reduce_sum(tf.nn.relu(pre) * relu_gain[..., None, None], 1)


def normalize(x: Any) -> Any:
    """Divides x [B, units, n] by its root mean square over the units of each image.

    Then neither the number of active modules nor M changes the size of what a layer puts
    out: RMSNorm without a gain (Zhang and Sennrich 2019, arXiv 1910.07467, equation 4).
    """
    mean_square = tf.reduce_mean(tf.square(x), 1, keepdims=True)
    return x * tf.math.rsqrt(mean_square + NORMALIZE_EPSILON)


def layer_output(
    x: Any,
    parameters: Layer,
    relu_gain: Any,
    skip_gain: Any = None,
    matmul: Callable | None = None,
) -> Any:
    """Returns the output of a layer's active modules: float32 [B, filt, n].

    Args:
      x: float32 [B, fan_in, n], the output of the layer before.
      parameters, relu_gain, skip_gain: as of `Modules`; skip_gain is None if no module
        passes its input on.
      matmul: how to multiply [B, units, fan_in] by x; default: `tf.matmul`.
    """
    kernel, bias = parameters.kernel.value, parameters.bias.value
    B, F, fan_in = bias.shape[0], bias.shape[2], kernel.shape[3]
    pre = (matmul or tf.matmul)(tf.reshape(kernel, [B, -1, fan_in]), x)
    pre = tf.reshape(pre, [B, -1, F, tf.shape(x)[2]]) + bias[..., None]
    output = aggregate(pre, relu_gain)
    if skip_gain is None:
        return output
    return output + tf.reduce_sum(skip_gain, 1)[:, None, None] * x


class PathNet:
    """The L x M grid as one finalized TensorFlow graph.

    Paths and images enter through placeholders; no op is ever added after construction.

    Attributes:
      grid: the Grid.
      optimizer: one of OPTIMIZER_MOMENTS, whose moments are kept of each parameter.
      graph, session: the tf.Graph and a tf.Session of it.
      geopath, active_path, fixed_path, images, labels, task, seed: the placeholders.
      layers: A Layer of variables for each layer, [M, filt, fan_in] and [M, filt].
      head: A Layer of the output layers, [tasks, classes, filt] and [tasks, classes], all
        as wide as the task with the most classes needs.
      steps: variable, how many steps Adam has done of the task.

    Raises:
      ValueError: the optimizer is unknown.
    """

    def __init__(self, grid: Grid, optimizer: str = "sgd"):
        check_choice("optimizer", optimizer, OPTIMIZER_MOMENTS)
        self.grid = grid
        self.optimizer = optimizer
        self.graph = tf.Graph()
        with self.graph.as_default():
            self._build()
        self.graph.finalize()
        # One thread is faster than two at this size, and keeps results reproducible; it
        # is the caller's, so that none has to be woken.
        config = tf.ConfigProto(
            intra_op_parallelism_threads=1, inter_op_parallelism_threads=-1
        )
        # Rewriting the graph takes half a second, for nothing: what costs time in it is
        # compiled by XLA, which does as much by itself. (Adam's results would differ, by
        # their last bits.)
        rewriting = config.graph_options.rewrite_options
        rewriting.disable_meta_optimizer = optimizer == "sgd"
        self.session = tf.Session(graph=self.graph, config=config)
        self.session.run(self._set_to_zero)

    # What a user calls ----------------------------------------------------------------

    def initialize(self, seed: int, task: int, fixed_path: np.ndarray) -> None:
        """Draws new parameters for all but the frozen modules and the earlier heads.

        Args:
          seed: the same seed, task and fixed path give the same parameters.
          task: 0 for the first task; output layers of tasks before it are kept.
          fixed_path: binary [L, M], the frozen modules.
        """
        feed = {self.seed: seed, self.task: task, self.fixed_path: fixed_path}
        self.session.run(self._initialize, feed)

    def accuracy(
        self, geopath: np.ndarray, images: np.ndarray, labels: np.ndarray, task: int
    ) -> float:
        """Returns the share of images that one path classifies correctly.

        Args:
          geopath: float32 [L, M], what each module counts for, as of `Grid.active`.
          images: uint8 [n, inputs].
          labels: int [n].
          task: which output layer.
        """
        correct, feed = 0, {self.active_path: geopath, self.task: task}
        for start in range(0, len(images), 1000):  # bounds the memory of the products
            part = slice(start, start + 1000)
            feed |= {self.images: images[part], self.labels: labels[part]}
            correct += self.session.run(self._correct, feed)
        return int(correct) / len(images)

    def parameters(self) -> dict[str, np.ndarray]:
        """Returns all parameters by name, float32; with Adam its state as well."""
        return self.session.run(self._parameters)

    def set_parameters(self, values: dict[str, np.ndarray]) -> None:
        """Sets all parameters from a dict as `parameters` returns it."""
        feed = {self._saved[name]: value for name, value in values.items()}
        self.session.run(self._restore, feed)

    # How the graph is built -----------------------------------------------------------

    def _build(self):
        """Adds all ops to the graph; a subclass may add more."""
        with tf.name_scope("inputs"):
            self._build_inputs()
        self._build_parameters()
        with tf.name_scope("initialization"):
            self._build_initialization()
            self._build_restore()
            self._set_to_zero = tf.global_variables_initializer()
        with tf.name_scope("evaluation"):
            self._build_evaluation()

    def _build_inputs(self):
        grid = self.grid
        # Which modules are trained (a path each for B candidates), evaluated, frozen.
        self.geopath = tf.placeholder(tf.float32, [None, grid.L, grid.M], "geopath")
        self.active_path = tf.placeholder(tf.float32, [grid.L, grid.M], "active_path")
        self.fixed_path = tf.placeholder(tf.float32, [grid.L, grid.M], "fixed_path")
        self.images = tf.placeholder(tf.uint8, [None, grid.inputs], "images")
        self.labels = tf.placeholder(tf.int32, [None], "labels")
        self.task = tf.placeholder(tf.int32, [], "task")  # which output layer
        self.seed = tf.placeholder(tf.int64, [], "seed")

    def _build_parameters(self):
        """Creates the modules of each layer, and an output layer for each task.

        Adam's two moments of a parameter are the running means of its gradient and of
        that squared. They, and the count of steps, are 0 when a task begins. They stay 0
        for frozen modules, which therefore stand still.
        """
        grid = self.grid
        fan_in = [grid.inputs] + [grid.filt] * (grid.L - 1)
        self.layers = [
            self._variables(f"layer{number}", [grid.M, grid.filt, size])
            for number, size in enumerate(fan_in, 1)
        ]
        shape = [len(grid.classes), grid.most_classes, grid.filt]
        self.head = self._variables("output", shape)
        self.steps = _variable("steps", [])
        kernels = [layer.kernel for layer in self.layers]
        biases = [layer.bias for layer in self.layers]
        parameters = [*kernels, *biases, *self.head]
        moments = [m for parameter in parameters for m in parameter.moments]
        self._optimizer_state = [self.steps, *moments] if moments else []
        self._saved_variables = [parameter.value for parameter in parameters]
        self._saved_variables += self._optimizer_state

    def _variables(self, scope, shape):
        """Returns a Layer of variables, its kernel of a shape [modules, units, fan_in]."""
        moments = OPTIMIZER_MOMENTS[self.optimizer]
        with tf.variable_scope(scope):
            return Layer(*(
                Parameter(
                    _variable(name, size),
                    tuple(_variable(f"{name}_{moment}", size) for moment in moments),
                )
                for name, size in (("kernel", shape), ("bias", shape[:-1]))
            ))  # fmt: skip

    def _build_initialization(self):
        """Truncated normal weights (stddev 0.1) and biases 0.1, but for what is kept."""
        classes = np.array(self.grid.classes)
        kept_modules = tf.unstack(self.fixed_path > 0)
        kept_heads = tf.range(len(classes)) < self.task
        is_class = np.arange(self.grid.most_classes) < classes[:, None]
        biases = [np.full(layer.bias.value.shape, 0.1) for layer in self.layers]
        biases.append(np.where(is_class, 0.1, NO_CLASS))
        assignments = []
        layers = zip([*self.layers, self.head], [*kept_modules, kept_heads], biases)
        for number, (layer, kept, fresh_bias) in enumerate(layers):
            kernel, bias = layer.kernel.value, layer.bias.value
            stream = tf.stack([self.seed, tf.cast(self.task, tf.int64) * 1000 + number])
            fresh = 0.1 * tf.random.stateless_truncated_normal(kernel.shape, stream)
            assignments.append(kernel.assign(tf.where(kept, kernel, fresh)))
            fresh = tf.constant(fresh_bias, tf.float32)
            assignments.append(bias.assign(tf.where(kept, bias, fresh)))
        assignments += [v.assign(tf.zeros_like(v)) for v in self._optimizer_state]
        self._initialize = tf.group(*assignments)

    def _build_restore(self):
        """What `parameters` returns, and `set_parameters` sets."""
        variables = self._saved_variables
        self._parameters = {v.op.name: v.read_value() for v in variables}
        self._saved = {v.op.name: tf.placeholder(v.dtype, v.shape) for v in variables}
        self._restore = tf.group(*[v.assign(self._saved[v.op.name]) for v in variables])

    def _build_evaluation(self):
        """Number of images that one path classifies right."""
        active = self.active_path[None]
        slots = tf.reduce_max(tf.math.count_nonzero(active, 2, dtype=tf.int32))
        x = tf.transpose(scale_pixels(self.images, self.grid.centred))[None]
        for layer in range(self.grid.L):
            modules = self._gather(layer, active[:, layer], slots)
            skip_gain = modules.skip_gain if layer else None
            x = layer_output(x, modules.parameters, modules.relu_gain, skip_gain)
            if self.grid.normalizes:
                x = normalize(x)
        kernel, bias = self.head.kernel.value, self.head.bias.value
        logits = tf.matmul(kernel[self.task], x[0]) + bias[self.task][:, None]
        hits = tf.equal(tf.argmax(logits, 0, output_type=tf.int32), self.labels)
        self._correct = tf.reduce_sum(tf.cast(hits, tf.int32))

    def _gather(self, layer, active, slots):
        """Returns the active Modules of a layer; `active` [B, M] is of `Grid.active`.

        At most `slots` of each row are not 0. Since only these modules are gathered,
        what is computed does not depend on M.
        """
        relu_gain, skip_gain = (gain[layer] for gain in self.grid.gains())
        with tf.name_scope(f"gather{layer + 1}"):
            on, index = tf.math.top_k(active, slots)
            return Modules(
                index,
                tf.nest.map_structure(
                    lambda v: tf.gather(v, index), self.layers[layer]
                ),
                on * tf.gather(relu_gain, index),
                on * tf.gather(skip_gain, index),
            )


def _variable(name, shape):
    return tf.get_variable(name, shape, initializer=tf.zeros_initializer())


# --------------------------------------------------------------------------------------
# python pathnet.py show DIR
# --------------------------------------------------------------------------------------


def show(folder: str, picture: str | None = None) -> None:
    """Prints what a folder of --save_dir holds and draws it; raises what reading does."""
    from common.network import read_network
    from reports.paths import draw_paths

    network = read_network(folder)
    flags, used = network.flags, np.zeros_like(network.fixed_path)
    try:
        kinds = module_kinds(flags["L"], flags["M"], flags["module_kinds"])
    except ValueError as error:
        raise UserError(f"{folder}: {error}") from error
    print(
        f"{network.script}, seed {flags['seed']}: {flags['L']} layers of {flags['M']} "
        f"modules, at most {flags['N']} of a layer on a path"
    )
    geopaths = [
        to_geopath(np.array(task["path"]), flags["M"]) for task in network.tasks
    ]
    for number, (task, geopath) in enumerate(zip(network.tasks, geopaths)):
        print(format_task(number, task["title"], task, geopath, used))
        used = freeze(used, geopath)
    if flags.get("fixed_path_random") and len(network.tasks) > 1:
        print("Every task but the last: its modules were initialized again after it")
    free = ", ".join(str(int(count)) for count in flags["M"] - used.sum(1))
    print(f"{int(used.sum())} of {used.size} modules used; free in each layer: {free}")
    picture = picture or os.path.join(folder, "paths.png")
    draw_paths(
        picture,
        geopaths,
        [task["title"] for task in network.tasks],
        kinds,
        network.active,
    )
    print(commandline.printable(f"Picture: {picture}"))


def main(arguments: list[str]) -> None:
    """Runs the command that the arguments name; UserError if they name none."""
    match arguments:
        case ["show", folder, *picture] if len(picture) <= 1:
            show(folder, *picture)
        case _:
            raise UserError("usage: pathnet.py show DIR [PICTURE.png]")


if __name__ == "__main__":
    commandline.run(main, with_files=True)

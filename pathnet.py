"""PathNet: a grid of modules, paths through it, and the tournament that evolves them.

    python pathnet.py show DIR                # prints and draws a network that was saved
    python pathnet.py show DIR PICTURE.png    # draws it there, not as DIR/paths.png

Fernando et al. 2017, "PathNet: Evolution Channels Gradient Descent in Super Neural
Networks" (arXiv 1701.08734). Three parts, in this order:

  Paths        pure numpy: random paths, mutation, geopaths, overlap, diversity
  Tournament   who is drawn, who wins, what becomes of the losers
  Grid         the L x M grid of modules as one TensorFlow graph
"""

import dataclasses
import functools
import os

import numpy as np

from common import tf1 as tf

# --------------------------------------------------------------------------------------
# Paths
#
# A path is an int array [L, N]: gene (l, i) names a module of layer l. It may name one
# twice and then has fewer than N active there. Its geopath is the same as a binary
# [L, M] array. All functions take leading dimensions (a population is [candi, L, N]).
# --------------------------------------------------------------------------------------


def random_paths(rng, count, L, M, N):
    """`count` paths of N different modules a layer, uniformly drawn (section 2.2).

    Returns:
      int64 [count, L, N], values in [0, M).
    Raises:
      ValueError: N is larger than M.
    """
    if N > M:
        raise ValueError(f"cannot draw N={N} different modules of M={M}")
    return np.argsort(rng.random((count, L, M)), axis=-1)[..., :N]


def mutate(rng, paths, M, rate=None, low=-2, high=2):
    """Each gene moves, with probability `rate`, by a uniform integer (section 2.2).

    Args:
      paths: int [..., L, N].
      M: modules a layer; results are clipped to [0, M-1].
      rate: probability a gene; None: the paper's 1/(N*L).
      low, high: bounds of the integer, both inclusive; the paper's are -2 and 2.

    Returns:
      A new int64 array of the same shape.
    """
    L, N = paths.shape[-2:]
    moves = rng.random(paths.shape) < (1 / (N * L) if rate is None else rate)
    offsets = rng.integers(low, high, size=paths.shape, endpoint=True)
    return np.clip(paths + moves * offsets, 0, M - 1)


MUTATIONS = ("uniform", "drift")


def mutation_rule(name, L, N):
    """Arguments of `mutate` for paths [L, N]: the paper's rule, or the early drift.

    Under `drift` genes move twice as often, and only towards module 0.
    """
    if name == "drift":
        return {"rate": min(2 / (N * L), 1), "low": -4, "high": -1}
    return {}


def to_geopath(paths, M):
    """Paths [..., L, N] as binary geopaths: float32 [..., L, M], 1 where active."""
    return (paths[..., None] == np.arange(M)).any(axis=-2).astype(np.float32)


def overlap(geopath, other):
    """Number of modules that two geopaths [L, M] share."""
    return int(np.sum(np.logical_and(geopath, other)))


def diversity(geopaths):
    """How much a population differs: mean Jaccard distance over pairs of candidates.

    Args:
      geopaths: binary [candi, L, M].
    Returns:
      float in [0, 1]: 0 if all paths are the same or there is only one, 1 if no two
      share a module.
    """
    if len(geopaths) == 1:
        return 0.0
    flat = geopaths.reshape(len(geopaths), -1)
    shared = flat @ flat.T
    sizes = np.diag(shared)
    union = sizes[:, None] + sizes[None, :] - shared
    return float(np.mean((1 - shared / union)[np.triu_indices(len(flat), 1)]))


def format_geopath(geopath, fixed_path=None):
    """A geopath [L, M] as text, a line a layer: `#` active, `+` only by the fixed path."""
    fixed_path = np.zeros_like(geopath) if fixed_path is None else fixed_path
    marks = np.where(geopath > 0, "#", np.where(fixed_path > 0, "+", "."))
    return "\n".join(
        f"layer {layer + 1}  " + " ".join(row) for layer, row in enumerate(marks)
    )


def format_task(number, title, task, geopath, fixed_path):
    """How a task ended, as text; `task` is its entry of results.jsonl."""
    ended = "" if task["converged"] else "not converged after "
    return (
        f"Task {number + 1}, {title}: {ended}{task['generations']} generations, "
        f"training accuracy {task['fitness']:.4f}, "
        f"held-out accuracy {task['accuracy_test']:.4f}\n"
        + format_geopath(geopath, fixed_path)
    )


# --------------------------------------------------------------------------------------
# Tournament
# --------------------------------------------------------------------------------------


def draw_candidates(rng, candi, B):
    """Indices of the B different candidates of a tournament: int64 [B]."""
    return rng.permutation(candi)[:B]


def overwrite_losers(rng, paths, fitness, M, **mutation):
    """The rule of the tournament (section 2.2): the fittest overwrites the others.

    Args:
      paths: int [B, L, N], the candidates of one tournament.
      fitness: float [B]; ties go to the first.
      M: modules a layer.
      **mutation: as of `mutate`.

    Returns:
      (paths, winner): int64 [B, L, N] with the winner's path in its place and mutated
      copies of it in all others, and the winner's index.
    """
    winner = int(np.argmax(fitness))
    copies = mutate(
        rng, np.repeat(paths[winner : winner + 1], len(paths), 0), M, **mutation
    )
    copies[winner] = paths[winner]
    return copies, winner


# --------------------------------------------------------------------------------------
# Grid
# --------------------------------------------------------------------------------------

AGGREGATIONS = ("average", "sum", "last_average")
WRITEBACKS = ("sum", "merge", "winner")
OPTIMIZERS = ("sgd", "adam")
KINDS = ("skip", "linear", "residual")
MODULE_KINDS = ("mixed", "linear")


def module_kinds(L, M, choice="mixed"):
    """Kind of each module: str [L, M]; layer 1 is linear, later ones mix by j % 3.

    With `choice` "linear" all of them are.
    """
    kinds = np.array(KINDS)[np.tile(np.arange(M) % len(KINDS), (L, 1))]
    kinds[0 if choice == "mixed" else slice(None)] = "linear"
    return kinds


@dataclasses.dataclass(frozen=True)
class Grid:
    """What is built: L layers of M modules of `filt` units, at most N active a layer.

    Attributes:
      L, M, N, filt: as above. inputs: pixels of an image. classes: of each task.
      tasks: number of output layers.
      aggregation: one of AGGREGATIONS. centred: pixels in [-0.5, 0.5], else in [0, 1].
      module_kinds: one of MODULE_KINDS.
      fixed_path_active: whether frozen modules are active in every path, or in those
        that name them.
    """

    L: int
    M: int
    N: int
    filt: int
    inputs: int
    classes: int
    tasks: int = 2
    aggregation: str = "average"
    centred: bool = False
    module_kinds: str = "mixed"
    fixed_path_active: bool = True

    def kinds(self):
        """Kind of each module: str [L, M]."""
        return module_kinds(self.L, self.M, self.module_kinds)

    def active(self, geopath, fixed_path):
        """Modules that compute when a path does: binary [L, M]."""
        return np.maximum(geopath, fixed_path) if self.fixed_path_active else geopath

    def gains(self):
        """What a module's ReLU and its input count for in the output of its layer.

        Returns:
          (relu_gain, skip_gain), float32 [L, M] each: the output of a layer is the sum
          over its active modules of relu_gain * ReLU(Wx + b) + skip_gain * x.
        """
        divisor = np.ones([self.L, 1], np.float32)
        if self.aggregation == "average":
            divisor[:] = self.M
        elif self.aggregation == "last_average":
            divisor[-1] = self.M
        kinds = self.kinds()
        relu = (kinds != "skip") / divisor
        skip = np.isin(kinds, ["skip", "residual"]) / divisor
        return relu.astype(np.float32), skip.astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Training:
    """How a generation trains: B candidates, T mini-batches of batch_num images.

    Raises:
      ValueError: Adam with the writeback "sum": mean squares of gradients do not add up.
    """

    B: int
    T: int
    batch_num: int
    learning_rate: float
    writeback: str = "sum"
    optimizer: str = "sgd"

    def __post_init__(self):
        if self.optimizer == "adam" and self.writeback == "sum" and self.B > 1:
            raise ValueError("the changes of several candidates' moments have no sum")

    @property
    def block(self):
        """Mini-batches of one block, see `PathNet._train_candidates`.

        Adam's steps are not linear in the gradient, so each needs the weights.
        """
        return block_length(self.T) if self.optimizer == "sgd" else 1


def block_length(T):
    """How many mini-batches share one product with the first layer: a divisor of T."""
    return 2 if T % 2 == 0 else 1


# Weights of a module of layer 1 up to which layer 1 is updated a module, and not a
# candidate, at a time. With fewer units the products take a quicker kernel, but each
# reads all images again.
SMALL_MODULE = 2**14


class PathNet:
    """The L x M grid and its tournament step as one finalized TensorFlow graph.

    The paths to train enter through the `geopath` placeholder, the frozen modules
    through `fixed_path`; no op is ever added after construction.

    Layouts are feature-first: activations are [B, units, images], since a mini-batch
    of 16 images is then one vector register wide.
    """

    def __init__(self, grid, training, alone=False):
        """Builds the graph; with `alone`, `train` takes B candidates or a single one."""
        self.grid = grid
        self.training = training
        self.graph = tf.Graph()
        with self.graph.as_default():
            with tf.name_scope("inputs"):
                self._build_inputs()
            self._build_parameters()
            with tf.name_scope("initialization"):
                self._build_initialization()
                zeros = tf.global_variables_initializer()
            generations = {}
            for B in {training.B, 1} if alone else {training.B}:
                with tf.name_scope("generation"):
                    generations[B] = self._build_generation(B)
            with tf.name_scope("evaluation"):
                self._build_evaluation()
        self.graph.finalize()
        # One thread is faster than two at this size, and keeps results reproducible; it
        # is the caller's, so that none has to be woken.
        config = tf.ConfigProto(
            intra_op_parallelism_threads=1, inter_op_parallelism_threads=-1
        )
        self.session = tf.Session(graph=self.graph, config=config)
        self.session.run(zeros)
        feeds = [self.geopath, self.images, self.labels, self.task, self.fixed_path]
        self._train = {
            B: _resolved(self.session, fetches, writes, feeds)
            for B, (*fetches, writes) in generations.items()
        }

    # What a user calls ----------------------------------------------------------------

    def initialize(self, seed, task, fixed_path):
        """Draws new parameters for all but the frozen modules and the earlier heads.

        Args:
          seed: int; the same seed, task and fixed path give the same parameters.
          task: 0 for the first task; output layers of tasks before it are kept.
          fixed_path: binary [L, M], the frozen modules.
        """
        self.session.run(
            self._initialize,
            {self.seed: seed, self.task: task, self.fixed_path: fixed_path},
        )

    def train(self, geopaths, images, labels, task, fixed_path):
        """One generation: trains B candidates alike and writes parameters back.

        Args:
          geopaths: binary [B, L, M], at most N ones a row; [1, L, M] if built `alone`.
          images: uint8 [T*batch_num, inputs], the mini-batches one after the other.
          labels: int [T*batch_num], values in [0, classes).
          task: which output layer to train.
          fixed_path: binary [L, M], modules that are active and frozen.

        Returns:
          (fitness, loss), float64 [B] and float32 [B]: mean training accuracy and
          cross-entropy over the mini-batches, each before its update.
        """
        correct, loss = self._train[len(geopaths)](
            geopaths, images, labels, task, fixed_path
        )
        return correct / len(labels), loss

    def accuracy(self, geopath, images, labels, task):
        """Share of images that one path classifies correctly.

        Args:
          geopath: binary [L, M], all active modules, the fixed path's included.
          images: uint8 [n, inputs]. labels: int [n]. task: which output layer.
        """
        correct = 0
        for start in range(0, len(images), 1000):  # bounds the memory of the products
            part = slice(start, start + 1000)
            correct += self.session.run(
                self._correct,
                {
                    self.active_path: geopath,
                    self.images: images[part],
                    self.labels: labels[part],
                    self.task: task,
                },
            )
        return int(correct) / len(images)

    def parameters(self):
        """All parameters by name: float32 arrays; with Adam its state as well."""
        return self.session.run(self._parameters)

    def set_parameters(self, values):
        """Sets all parameters from a dict as `parameters` gives it."""
        self.session.run(
            self._restore, {self._saved[name]: v for name, v in values.items()}
        )

    # How the graph is built -----------------------------------------------------------

    def _build_inputs(self):
        grid = self.grid
        self.geopath = tf.placeholder(tf.float32, [None, grid.L, grid.M], "geopath")
        self.active_path = tf.placeholder(tf.float32, [grid.L, grid.M], "active_path")
        self.fixed_path = tf.placeholder(tf.float32, [grid.L, grid.M], "fixed_path")
        self.images = tf.placeholder(tf.uint8, [None, grid.inputs], "images")
        self.labels = tf.placeholder(tf.int32, [None], "labels")
        self.task = tf.placeholder(tf.int32, [], "task")
        self.seed = tf.placeholder(tf.int64, [], "seed")
        self.one = tf.placeholder_with_default(1.0, [], "one")  # see `_stored`

    def _build_parameters(self):
        """kernels[layer] [M, filt, fan_in], biases[layer] [M, filt], and a head for each task.

        Under Adam each has two moments of its shape, the running means of its gradient
        and of that squared, and all share a count of the steps. All are 0 when a task
        begins, and stay so for frozen modules, which therefore stand still.
        """
        grid = self.grid
        self.kernels, self.biases = [], []
        for layer in range(grid.L):
            fan_in = grid.filt if layer else grid.inputs
            with tf.variable_scope(f"layer{layer + 1}"):
                self.kernels.append(_variable("kernel", [grid.M, grid.filt, fan_in]))
                self.biases.append(_variable("bias", [grid.M, grid.filt]))
        with tf.variable_scope("output"):
            self.head_kernel = _variable(
                "kernel", [grid.tasks, grid.classes, grid.filt]
            )
            self.head_bias = _variable("bias", [grid.tasks, grid.classes])
        self._variables = (
            self.kernels + self.biases + [self.head_kernel, self.head_bias]
        )
        self._steps = _variable("steps", [])
        self._moments = {
            variable.op.name: [
                _variable(f"{variable.op.name}_{moment}", variable.shape)
                for moment in ("mean", "mean_square")
                if self.training.optimizer == "adam"
            ]
            for variable in self._variables
        }

    def with_moments(self, variable):
        """A parameter's variable and those of its moments, which share its fate."""
        return [variable, *self._moments[variable.op.name]]

    def _build_initialization(self):
        """Truncated normal weights (stddev 0.1) and biases 0.1, but for what is kept."""
        kept_modules = tf.unstack(self.fixed_path > 0)
        kept_heads = tf.range(self.grid.tasks) < self.task
        kernels = zip(self.kernels + [self.head_kernel], kept_modules + [kept_heads])
        biases = zip(self.biases + [self.head_bias], kept_modules + [kept_heads])
        assignments = []
        for index, (kernel, kept) in enumerate(kernels):
            stream = tf.stack([self.seed, tf.cast(self.task, tf.int64) * 1000 + index])
            fresh = 0.1 * tf.random.stateless_truncated_normal(kernel.shape, stream)
            assignments.append(kernel.assign(tf.where(kept, kernel, fresh)))
        for bias, kept in biases:
            fresh = tf.fill(bias.shape, 0.1)
            assignments.append(bias.assign(tf.where(kept, bias, fresh)))
        variables = list(self._variables)
        if self.training.optimizer == "adam":
            state = [self._steps, *sum(self._moments.values(), [])]
            assignments += [v.assign(tf.zeros_like(v)) for v in state]
            variables += state
        self._initialize = tf.group(*assignments)

        self._parameters = {v.op.name: v.read_value() for v in variables}
        self._saved = {v.op.name: tf.placeholder(v.dtype, v.shape) for v in variables}
        self._restore = tf.group(*[v.assign(self._saved[v.op.name]) for v in variables])

    def _build_generation(self, B):
        """B candidates, gathered, trained on the same mini-batches, and written back.

        A path names at most N of M modules, so only those rows are gathered; what a
        generation costs does not depend on M.

        Returns:
          (correct, loss, writes): int32 [B], float32 [B], and the op that persists.
        """
        grid = self.grid
        geopath = tf.reshape(self.geopath, [B, grid.L, grid.M])
        fixed = tf.tile(self.fixed_path[None], [B, 1, 1])
        trainable = geopath * (1 - fixed)

        # Slots: which modules are computed. A layer has N for each candidate and, once
        # there is a fixed path, as many multiples of N as it needs.
        widest = tf.cast(tf.reduce_max(tf.reduce_sum(self.fixed_path, 1)), tf.int32)
        fixed_slots = tf.minimum(grid.N * ((widest + grid.N - 1) // grid.N), grid.M)
        first = _Slots(self, 0, trainable[:, 0], grid.N)
        first_fixed = _Slots(self, 0, self.fixed_path[:1], fixed_slots)
        fixed_gain = first_fixed.relu_gain
        if grid.fixed_path_active:
            active, slots = tf.maximum(geopath, fixed), grid.N + fixed_slots
        else:
            active, slots = geopath, grid.N
            fixed_gain *= tf.gather(geopath[:, 0], first_fixed.index[0], axis=1)
        later = [
            _Slots(self, layer, active[:, layer], tf.minimum(slots, grid.M))
            for layer in range(1, grid.L)
        ]
        head = [
            [
                tf.tile(v[self.task][None], [B] + [1] * (len(v.shape) - 1))
                for v in self.with_moments(variable)
            ]
            for variable in (self.head_kernel, self.head_bias)
        ]

        parameters = {
            "first": first.parameters,
            "later": [s.parameters for s in later],
            "head": head,
        }
        update = [
            tf.gather(trainable[:, layer], s.index, batch_dims=1)
            for layer, s in enumerate(later, 1)
        ]
        indices = [slots.index for slots in [first, *later]]

        def generation(images, labels, parameters, trainable, indices, *rest):
            correct, loss, trained = self._train_candidates(
                B, images, labels, parameters, *rest
            )
            credit = self._credit(correct, trainable, indices)
            return correct, loss, _changes(credit, parameters, trained)

        correct, loss, changes = tf.function(
            generation, jit_compile=True, autograph=False
        )(
            self.images,
            self.labels,
            parameters,
            trainable,
            indices,
            self._steps.read_value(),
            self.one,
            (first_fixed.kernel, first_fixed.bias, fixed_gain),
            first.relu_gain,
            [(s.relu_gain, s.skip_gain, u) for s, u in zip(later, update)],
        )
        with tf.name_scope("write_back"):
            return correct, loss, self._write_back(correct, indices, changes)

    def _train_candidates(
        self, B, images, labels, parameters, steps, one, fixed, first_gain, later
    ):
        """T steps of gradient descent, or Adam, for B candidates; compiled by XLA.

        The first layer holds nearly all of the work. Written out, T steps of
        W <- W - rate * G_t X_t' are 2T thin products that are bound by memory. A block
        of c steps needs W only once: the pre-activations of step s are
        W X_s' - rate * sum over r < s of G_r (X_r X_s'), with W as of the start of the
        block, and W catches up at its end with one product for all c steps. That is the
        same arithmetic in another order, c times as thick.

        Each parameter comes and goes as a list of itself and its moments.
        """
        grid, training = self.grid, self.training
        N, F, C = grid.N, grid.filt, grid.classes
        n, c = training.batch_num, training.block
        blocks, units = training.T // c, N * F
        parts = B * N if F * grid.inputs <= SMALL_MODULE else B
        if training.optimizer == "sgd":
            rate, descend = training.learning_rate, _descend
        else:  # the rate comes in after the gradient
            rate, descend = 1.0, functools.partial(_adam, training.learning_rate)

        from_fixed = self._fixed_first_layer(images, *fixed)
        images = tf.reshape(images, [blocks, c * n, grid.inputs])
        targets = tf.transpose(
            tf.reshape(tf.one_hot(labels, C), [blocks, c, n, C]), [0, 1, 3, 2]
        )
        labels = tf.reshape(labels, [blocks, c, n])
        kernel, bias = parameters["first"]
        weights = [tf.reshape(value, [parts, -1, grid.inputs]) for value in kernel]
        bias = [tf.reshape(value, [B * units, 1]) for value in bias]
        rest = [*sum(parameters["later"], []), *parameters["head"]]
        rates = [rate * u for _, _, u in later for _ in range(2)] + [
            tf.fill([B, 1], rate)
        ] * 2

        def logits_of(pre, x_fixed, rest):
            *modules, head_kernel, head_bias = rest
            x = _aggregate(tf.reshape(pre, [B, N, F, n]), first_gain) + x_fixed
            for layer, (relu_gain, skip_gain, _) in enumerate(later):
                kernel, bias = modules[2 * layer : 2 * layer + 2]
                x = _layer(x, kernel, bias, relu_gain, skip_gain, _times)
            # So few classes: sums are faster for the gradients, too.
            return _sums(head_kernel, x) + head_bias[..., None]

        def update_weights(weights, grads, x, step):
            # In place and a part at a time, so that less of what a product leaves in
            # the core's own cache is gone before it is subtracted.
            def of_part(i, weights):
                values = descend(
                    [value[i] for value in weights], tf.matmul(grads[i], x), step
                )
                return i + 1, [
                    tf.tensor_scatter_nd_update(old, [[i]], new[None])
                    for old, new in zip(weights, values)
                ]

            return tf.while_loop(lambda i, _: i < parts, of_part, (0, weights))[1]

        def block_of_steps(i, correct, loss, weights, bias, rest):
            x, x_fixed, target = self._scale(images[i]), from_fixed[i], targets[i]
            step = steps + tf.cast(i + 1, tf.float32)
            pre = tf.matmul(
                tf.reshape(weights[0], [B * units, -1]), x, transpose_b=True
            )
            pre = tf.split(pre + bias[0], c, axis=1)
            batches = tf.split(x, c)
            grads = []
            for s in range(c):
                if s:
                    # The 1 is the input of the bias.
                    products = tf.matmul(x[: s * n], batches[s], transpose_b=True) + 1
                    pre[s] -= tf.matmul(tf.concat(grads, 1), products)
                values = [value for value, *_ in rest]
                logits = logits_of(pre[s], x_fixed[s], values)
                hits = tf.equal(
                    tf.argmax(logits, 1, output_type=tf.int32), labels[i, s]
                )
                correct += tf.reduce_sum(tf.cast(hits, tf.int32), 1)
                entropy, error = _cross_entropy(logits, target[s])
                loss += entropy / training.T
                # The errors of all candidates at once: no parameter is shared, so
                # each has its own gradient.
                grad, *grads_rest = tf.gradients(
                    logits, [pre[s], *values], grad_ys=error
                )
                grads.append(_stored(rate * grad, one))
                rest = [
                    descend(
                        p, tf.reshape(r, [B, -1] + [1] * (len(g.shape) - 2)) * g, step
                    )
                    for p, r, g in zip(rest, rates, grads_rest)
                ]
            grads = tf.concat(grads, 1)
            weights = update_weights(
                weights, tf.reshape(grads, [parts, -1, c * n]), x, step
            )
            bias = descend(bias, tf.reduce_sum(grads, 1, keepdims=True), step)
            return i + 1, correct, loss, weights, bias, rest

        _, correct, loss, weights, bias, rest = tf.while_loop(
            lambda i, *_: i < blocks,
            block_of_steps,
            (0, tf.zeros([B], tf.int32), tf.zeros([B]), weights, bias, rest),
        )
        *of_modules, head_kernel, head_bias = rest
        trained = {
            "first": [
                [tf.reshape(value, [B, N, F, grid.inputs]) for value in weights],
                [tf.reshape(value, [B, N, F]) for value in bias],
            ],
            "later": [of_modules[i : i + 2] for i in range(0, len(of_modules), 2)],
            "head": [head_kernel, head_bias],
        }
        return correct, loss, trained

    def _scale(self, images):
        """Bytes as inputs of the grid: float32 in [0, 1], or in [-0.5, 0.5] if centred."""
        pixels = tf.cast(images, tf.float32) / 255
        return pixels - 0.5 if self.grid.centred else pixels

    def _fixed_first_layer(self, images, kernel, bias, gain):
        """What the frozen modules of layer 1 add, for all images.

        They do not change in a generation.

        Returns:
          float32 [blocks, c, B, filt, n]; 1 in place of B if all candidates use them.
        """
        training, F = self.training, self.grid.filt
        n, c = training.batch_num, training.block
        pre = tf.matmul(
            tf.reshape(kernel, [-1, self.grid.inputs]),
            self._scale(images),
            transpose_b=True,
        )
        pre = tf.reshape(pre, [1, -1, F, training.T * n]) + bias[..., None]
        out = tf.reshape(_aggregate(pre, gain), [-1, F, training.T // c, c, n])
        return tf.transpose(out, [2, 3, 0, 1, 4])

    def _credit(self, correct, trainable, indices):
        """Whose changes persist, by `writeback`: 1, else 0.

        Args:
          correct: int32 [B]. trainable: binary [B, L, M].
          indices: for each layer int32 [B, slots], which module a slot holds.

        Returns:
          (slots, head): for each layer float32 [B, slots], and float32 [B].
        """
        B = int(trainable.shape[0])
        winner = tf.one_hot(tf.argmax(correct), B)
        if self.training.writeback == "sum":
            credit, head = trainable, tf.ones([B])
        elif self.training.writeback == "winner":
            credit, head = trainable * winner[:, None, None], winner
        else:  # merge: of those that trained a module, the fittest's; ties to the first
            order = tf.argsort(correct, direction="DESCENDING", stable=True)
            priority = (
                tf.cast(B - tf.argsort(order), tf.float32)[:, None, None] * trainable
            )
            fittest = tf.one_hot(tf.argmax(priority, 0), B, axis=0)
            credit, head = trainable * fittest, winner
        slots = [
            tf.gather(credit[:, layer], index, batch_dims=1)
            for layer, index in enumerate(indices)
        ]
        return slots, head

    def _write_back(self, correct, indices, changes):
        """Adds the changes to the variables that their parameters were gathered from."""
        layers = zip(self.kernels, self.biases)
        targets = [
            *zip(layers, indices, [changes["first"], *changes["later"]]),
            ((self.head_kernel, self.head_bias), self.task[None], changes["head"]),
        ]
        writes = [
            tf.scatter_nd_add(variable, index[..., None], change)
            for pair, index, changes_of_pair in targets
            for parameter, of_parameter in zip(pair, changes_of_pair)
            for variable, change in zip(self.with_moments(parameter), of_parameter)
        ]
        if self.training.optimizer == "adam":
            with tf.control_dependencies([correct]):  # until then it is read
                writes.append(self._steps.assign_add(self.training.T))
        return tf.group(*writes)

    def _build_evaluation(self):
        """Number of images that one path classifies right."""
        grid = self.grid
        active = self.active_path[None]
        widest = tf.cast(tf.reduce_max(tf.reduce_sum(active, 2)), tf.int32)
        x = tf.transpose(self._scale(self.images))[None]
        for layer in range(grid.L):
            slots = _Slots(self, layer, active[:, layer], widest)
            skip_gain = slots.skip_gain if layer else None
            x = _layer(x, slots.kernel, slots.bias, slots.relu_gain, skip_gain)
        logits = tf.matmul(self.head_kernel[self.task], x[0])
        logits += self.head_bias[self.task][:, None]
        hits = tf.equal(tf.argmax(logits, 0, output_type=tf.int32), self.labels)
        self._correct = tf.reduce_sum(tf.cast(hits, tf.int32))


class _Slots:
    """The active modules of one layer, gathered: `count` slots for each candidate.

    Attributes:
      index: int32 [B, count], which module a slot holds.
      kernel, bias: float32 [B, count, filt, fan_in] and [B, count, filt].
      parameters: [kernel, *moments], [bias, *moments].
      relu_gain, skip_gain: float32 [B, count], 0 for a slot that holds none.
    """

    def __init__(self, net, layer, active, count):
        relu_gain, skip_gain = net.grid.gains()
        with tf.name_scope(f"gather{layer + 1}"):
            on, self.index = tf.math.top_k(active, count)
            self.parameters = [
                [tf.gather(v, self.index) for v in net.with_moments(variable)]
                for variable in (net.kernels[layer], net.biases[layer])
            ]
            (self.kernel, *_), (self.bias, *_) = self.parameters
            self.relu_gain = on * tf.gather(relu_gain[layer], self.index)
            self.skip_gain = on * tf.gather(skip_gain[layer], self.index)


def _resolved(session, fetches, target, feeds):
    """A function of the feeds' values that runs `target` and returns the fetches' values.

    What names stand for is looked up here, once; `session.run` does so at every call,
    for a twentieth of the time of a generation. (The public `make_callable` is no more
    than `session.run` where there are feeds.)
    """
    from tensorflow.core.protobuf import config_pb2

    options = config_pb2.CallableOptions(
        feed=[tensor.name for tensor in feeds],
        fetch=[tensor.name for tensor in fetches],
        target=[target.name],
    )
    run = session._make_callable_from_options(options)
    dtypes = [tensor.dtype.as_numpy_dtype for tensor in feeds]

    def call(*values):
        return run(*map(np.asarray, values, dtypes))

    return call


def _variable(name, shape):
    return tf.get_variable(name, shape, initializer=tf.zeros_initializer())


def _descend(parameter, change, _):
    """A step of gradient descent; `change` is the gradient times the learning rate."""
    (value,) = parameter
    return [value - change]


def _adam(rate, parameter, gradient, step):
    """A step of Adam, the `step`-th from 1 on (Kingma and Ba 2015, end of section 2)."""
    value, mean, square = parameter
    mean = 0.9 * mean + 0.1 * gradient
    square = 0.999 * square + 0.001 * gradient**2
    rate *= tf.sqrt(1 - 0.999**step) / (1 - 0.9**step)
    return [value - rate * mean / (tf.sqrt(square) + 1e-8), mean, square]


def _changes(credit, before, after):
    """What persists of each parameter's change in a generation.

    Args:
      credit: as of `PathNet._credit`. before, after: parameters and their moments.
    Returns:
      The same structure: of each slot its change, or 0 without credit; of the head,
      which all candidates share, the sum of theirs.
    """
    slots, head = credit

    def credited(weight, old, new):
        """The change where weight is 1, and 0, not 0 * NaN, where it is 0."""
        while len(weight.shape) < len(old.shape):
            weight = weight[..., None]
        return tf.where_v2(weight > 0, new - old, tf.zeros_like(old))

    def of_layer(weight, old, new):
        return tf.nest.map_structure(functools.partial(credited, weight), old, new)

    first, *later = slots
    return {
        "first": of_layer(first, before["first"], after["first"]),
        "later": [
            of_layer(weight, old, new)
            for weight, old, new in zip(later, before["later"], after["later"])
        ],
        "head": tf.nest.map_structure(
            lambda change: tf.reduce_sum(change, 0, keepdims=True),
            of_layer(head, before["head"], after["head"]),
        ),
    }


def _cross_entropy(logits, target):
    """Softmax cross-entropy of a mini-batch, and its gradient.

    Args:
      logits: [B, classes, n]. target: one-hot [classes, n].
    Returns:
      (entropy, error): the mean over the n images [B], and its derivative by the
      logits [B, classes, n], (softmax(logits) - target) / n.
    """
    n = logits.shape[2]
    top = tf.reduce_max(logits, 1, keepdims=True)
    likelihood = tf.exp(logits - top)
    total = tf.reduce_sum(likelihood, 1, keepdims=True)
    expected = tf.reduce_sum(logits * target, 1, keepdims=True)
    entropy = tf.reduce_mean(tf.log(total) + top - expected, [1, 2])
    return entropy, (likelihood / total - target) / int(n)


def _aggregate(pre, relu_gain):
    """Sum over modules of relu_gain * ReLU(pre): [B, S, F, n], [B, S] -> [B, F, n]."""
    return tf.reduce_sum(tf.nn.relu(pre) * relu_gain[..., None, None], 1)


def _sums(kernel, x):
    """`tf.matmul` of kernel [B, units, fan_in] and x [B, fan_in, n], if compiled by XLA.

    For so few inputs a sum that it compiles is faster than its library's product.
    """
    return tf.reduce_sum(kernel[..., None] * x[:, None], 2)


def _times(kernel, x):
    """`_sums`, but for the gradients, which are faster as matrix products."""

    @tf.custom_gradient
    def times(kernel, x):
        def gradients(error):
            return (
                tf.matmul(error, x, transpose_b=True),
                tf.matmul(kernel, error, transpose_a=True),
            )

        return _sums(kernel, x), gradients

    return times(kernel, x)


def _stored(x, one):
    """x; `one` is a 1 that XLA does not know to be one.

    XLA computes an expression again for each of its uses, and inside a concatenation
    that is slow; a division costs too much to be repeated, so its result is stored.
    """
    return x / one


def _layer(x, kernel, bias, relu_gain, skip_gain, times=tf.matmul):
    """Output of a layer's active modules: x [B, fan_in, n] -> [B, filt, n].

    kernel [B, S, filt, fan_in], bias [B, S, filt], gains [B, S] as of `Grid.gains`;
    skip_gain None: no module passes its input on; times: the matrix product.
    """
    B, F, fan_in = bias.shape[0], bias.shape[2], kernel.shape[3]
    pre = times(tf.reshape(kernel, [B, -1, fan_in]), x)
    pre = tf.reshape(pre, [B, -1, F, tf.shape(x)[2]]) + bias[..., None]
    out = _aggregate(pre, relu_gain)
    return (
        out
        if skip_gain is None
        else out + tf.reduce_sum(skip_gain, 1)[:, None, None] * x
    )


# --------------------------------------------------------------------------------------
# python pathnet.py show DIR
# --------------------------------------------------------------------------------------


def show(folder, picture=None):
    """Prints what a folder of --save_dir holds and draws it; raises what reading does."""
    from common.network import read_network
    from reports.paths import draw_paths

    network = read_network(folder)
    flags, used = network.flags, np.zeros_like(network.fixed_path)
    print(
        f"{network.script}, seed {flags['seed']}: {flags['L']} layers of {flags['M']} "
        f"modules, at most {flags['N']} of a layer on a path"
    )
    geopaths = [
        to_geopath(np.array(task["path"]), flags["M"]) for task in network.tasks
    ]
    for number, (task, geopath) in enumerate(zip(network.tasks, geopaths)):
        print(format_task(number, task["title"], task, geopath, used))
        used = np.maximum(used, geopath)
    free = ", ".join(str(int(count)) for count in flags["M"] - used.sum(1))
    print(f"{int(used.sum())} of {used.size} modules used; free in each layer: {free}")
    picture = picture or os.path.join(folder, "paths.png")
    draw_paths(
        picture,
        geopaths,
        [task["title"] for task in network.tasks],
        module_kinds(flags["L"], flags["M"], flags["module_kinds"]),
    )
    print(f"Picture: {picture}")


def main(arguments):
    match arguments:
        case ["show", folder, *picture] if len(picture) <= 1:
            show(folder, *picture)
        case _:
            raise commandline.UserError("usage: pathnet.py show DIR [PICTURE.png]")


if __name__ == "__main__":
    from common import commandline

    commandline.run(main, with_files=True)

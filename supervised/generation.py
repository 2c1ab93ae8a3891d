"""The training of one generation: B candidates, T mini-batches, one compiled computation.

What it computes, plainly, for each candidate and each mini-batch in turn, with X the
images [inputs, n], P the pre-activations of layer 1 [units, n], and G the gradient of
the mean cross-entropy by P:

    P = W X + b
    W <- W - rate * G X',   b <- b - rate * G 1

and likewise in all later layers, and in the output layer. Then what persists of the
candidates' changes is written back into the grid. benchmarks/masked_pathnet.py does just
that, a candidate and a mini-batch at a time; the tests compare all results with it.

The same in blocks: layer 1 holds nearly all of the work, and 2 T thin products are bound
by memory. Over a block of c mini-batches the weights are read and written only once, since

    P_s = (W X_s + b) - rate * sum over r < s of G_r (X_r' X_s + 1)

holds with W and b as of the start of the block, and at its end

    W <- W - rate * sum over r of G_r X_r',   b <- b - rate * sum over r of G_r 1

is one product for all of the block. It is the same arithmetic in another order, with
products c times as thick. (The 1 is the input of the bias.)
"""

import dataclasses
import functools
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import pathnet
from common import tf1 as tf
from pathnet import Layer, Parameter

# Weights of a module of layer 1 up to which layer 1 is updated a module, and not a
# candidate, at a time. With fewer units the products take a quicker kernel, but each
# reads all images again.
SMALL_MODULE = 2**14

# --------------------------------------------------------------------------------------
# Optimizers
# --------------------------------------------------------------------------------------


class Optimizer(NamedTuple):
    """How a parameter changes with its gradient.

    Attributes:
      step: of (parameter, gradient, learning_rate, number), `number` counting the steps
        from 1 on: the new Parameter.
      is_linear: whether steps subtract the gradient times the learning rate. Then
        `gradient` comes multiplied by it, and a block may hold several mini-batches.
    """

    step: Callable
    is_linear: bool


def _descend(parameter, change, learning_rate, number):
    """A step of gradient descent; `change` is the gradient times the learning rate."""
    return Parameter(parameter.value - change, ())


def _adam(parameter, gradient, learning_rate, number):
    """A step of Adam (Kingma and Ba 2015, end of section 2)."""
    value, (mean, square) = parameter
    mean = 0.9 * mean + 0.1 * gradient
    square = 0.999 * square + 0.001 * gradient**2
    rate = learning_rate * (tf.sqrt(1 - 0.999**number) / (1 - 0.9**number))
    return Parameter(value - rate * mean / (tf.sqrt(square) + 1e-8), (mean, square))


OPTIMIZERS = {
    "sgd": Optimizer(_descend, is_linear=True),
    "adam": Optimizer(_adam, is_linear=False),
}

# --------------------------------------------------------------------------------------
# Writeback: whose changes persist
#
# Each rule takes correct, int32 [B], and trainable, binary [B, L, M], and returns 1 for
# what persists, else 0: float32 [B, L, M] for modules, [B] for the output layer.
# --------------------------------------------------------------------------------------


def _credit_all(correct, trainable):
    """Of all candidates; changes of what they share add up."""
    return trainable, tf.ones_like(correct, tf.float32)


def _credit_fittest(correct, trainable):
    """In each module, of the fittest candidate that trained it; ties go to the first."""
    B = int(correct.shape[0])
    order = tf.argsort(correct, direction="DESCENDING", stable=True)
    rank = tf.argsort(order)
    priority = tf.cast(B - rank, tf.float32)[:, None, None] * trainable
    fittest = tf.one_hot(tf.argmax(priority, 0), B, axis=0)
    return trainable * fittest, _winner(correct)


def _credit_winner(correct, trainable):
    """Of the fittest candidate alone; ties go to the first."""
    winner = _winner(correct)
    return trainable * winner[:, None, None], winner


def _winner(correct):
    return tf.one_hot(tf.argmax(correct), int(correct.shape[0]))


WRITEBACKS = {"sum": _credit_all, "merge": _credit_fittest, "winner": _credit_winner}


@dataclasses.dataclass(frozen=True)
class Training:
    """How a generation trains.

    Attributes:
      B: candidates that are trained at once.
      T: mini-batches.
      batch_num: images of a mini-batch.
      learning_rate: of the optimizer.
      writeback: one of WRITEBACKS.
      optimizer: one of OPTIMIZERS.

    Raises:
      ValueError: the writeback or the optimizer is unknown, or it is Adam with the
        writeback "sum": mean squares of gradients do not add up.
    """

    B: int
    T: int
    batch_num: int
    learning_rate: float
    writeback: str = "sum"
    optimizer: str = "sgd"

    def __post_init__(self):
        pathnet.check_choice("writeback", self.writeback, WRITEBACKS)
        pathnet.check_choice("optimizer", self.optimizer, OPTIMIZERS)
        if self.optimizer == "adam" and self.writeback == "sum" and self.B > 1:
            raise ValueError("the changes of several candidates' moments have no sum")

    @property
    def block(self) -> int:
        """Mini-batches of one block.

        Steps that are not linear in the gradient each need the weights before them.
        """
        return block_length(self.T) if OPTIMIZERS[self.optimizer].is_linear else 1


def block_length(T: int) -> int:
    """Returns how many of T mini-batches share a product with layer 1: a divisor of T."""
    return 2 if T % 2 == 0 else 1


# --------------------------------------------------------------------------------------
# The graph
# --------------------------------------------------------------------------------------


class Network(NamedTuple):
    """What a generation trains, for each of B candidates.

    Attributes:
      first: Layer, the trained modules of layer 1: [B, N, filt, inputs], [B, N, filt].
      later: A Layer for each later one, with its frozen modules: [B, slots, ...].
      head: Layer, the output layer of the task: [B, classes, filt], [B, classes].
    """

    first: Layer
    later: list
    head: Layer


class Gains(NamedTuple):
    """What the modules of a Network count for, see `pathnet.Modules`.

    Attributes:
      first: float32 [B, N], relu_gain of layer 1.
      later: A list of (relu_gain, skip_gain), float32 [B, slots] each.
      trains: A list of binary float32 [B, slots]: which modules of later layers train.
    """

    first: Any
    later: list
    trains: list


class Candidates(NamedTuple):
    """B candidates, gathered from the grid.

    Attributes:
      network: Network, what they train. gains: its Gains.
      frozen: (kernel, bias, relu_gain) of the frozen modules of layer 1, gathered once
        for all candidates: [1, slots, ...], but relu_gain [B, slots] where candidates
        differ in which of them they use.
      trainable: binary [B, L, M], the modules that each of them trains.
      indices: for each layer int32 [B, slots], which module a slot holds.
    """

    network: Network
    gains: Gains
    frozen: tuple
    trainable: Any
    indices: list


class TrainablePathNet(pathnet.PathNet):
    """A PathNet whose graph also holds the training of a generation."""

    def __init__(self, grid: pathnet.Grid, training: Training, alone: bool = False):
        """Builds the graph.

        Args:
          grid: what to build.
          training: how a generation trains.
          alone: whether `train` takes a single candidate as well as B.
        """
        self.training = training
        self._sizes = {training.B, 1} if alone else {training.B}
        super().__init__(grid, training.optimizer)
        feeds = [self.geopath, self.images, self.labels, self.task, self.fixed_path]
        self._train = {
            B: tf.make_callable(self.session, fetches, feeds, writes)
            for B, (*fetches, writes) in self._generations.items()
        }

    def train(
        self,
        geopaths: np.ndarray,
        images: np.ndarray,
        labels: np.ndarray,
        task: int,
        fixed_path: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Trains the candidates of one generation alike and writes parameters back.

        Args:
          geopaths: binary [B, L, M], at most N ones a row; [1, L, M] if built `alone`.
          images: uint8 [T*batch_num, inputs], the mini-batches one after the other.
          labels: int [T*batch_num], values in [0, classes).
          task: which output layer to train.
          fixed_path: binary [L, M], modules that are frozen.

        Returns:
          (fitness, loss), float64 [B] and float32 [B]: mean training accuracy and
          cross-entropy over the mini-batches, each before its update.
        """
        correct, loss = self._train[len(geopaths)](
            geopaths, images, labels, task, fixed_path
        )
        return correct / len(labels), loss

    def compile_ahead(self, *shapes: tuple[int, bool]) -> None:
        """Compiles what `train` runs, in a thread beside what else there is to do.

        XLA compiles for shapes, and frozen modules change these. Generations that write
        nothing back do it, before there are parameters to speak of.

        Args:
          shapes: (B, whether a path is frozen) each, in the order in which they will be
            needed.
        """
        grid, training = self.grid, self.training
        images = np.zeros([training.T * training.batch_num, grid.inputs], np.uint8)
        fixed_path = np.zeros([grid.L, grid.M], np.float32)
        feed = {
            self.images: images,
            self.labels: np.zeros(len(images), np.int32),
            self.task: 0,
        }
        one_module = fixed_path.copy()
        one_module[:, 0] = 1

        def compile_each():
            for B, is_frozen in shapes:
                correct, *_ = self._generations[B]
                feed[self.geopath] = np.zeros([B, grid.L, grid.M], np.float32)
                feed[self.fixed_path] = one_module if is_frozen else fixed_path
                self.session.run(correct, feed)

        threading.Thread(target=compile_each).start()

    def _build(self):
        super()._build()
        # A 1 that XLA does not know to be one, see `_materialized`.
        self._one = tf.placeholder_with_default(1.0, [], "one")
        self._generations = {}
        for B in self._sizes:
            with tf.name_scope("generation"):
                self._generations[B] = self._build_generation(B)

    def _build_generation(self, B):
        """B candidates, gathered, trained on the same mini-batches, and written back.

        Returns:
          (correct, loss, writes): int32 [B], float32 [B], and the op that persists.
        """
        candidates = self._gather_candidates(B)
        compiled = tf.function(self._compute, jit_compile=True, autograph=False)
        correct, loss, changes = compiled(
            self.images, self.labels, candidates, self.steps.read_value(), self._one
        )
        with tf.name_scope("write_back"):
            writes = self._write_back(correct, candidates.indices, changes)
        return correct, loss, writes

    def _gather_candidates(self, B):
        """The Candidates whose paths are fed."""
        grid = self.grid
        geopath = tf.reshape(self.geopath, [B, grid.L, grid.M])
        fixed = tf.tile(self.fixed_path[None], [B, 1, 1])
        trainable = geopath * (1 - fixed)
        active = grid.active(geopath, fixed)
        first, frozen, later = self._gather_layers(trainable, active)
        indices = [modules.index for modules in (first, *later)]
        network = Network(
            first.parameters,
            [modules.parameters for modules in later],
            tf.nest.map_structure(lambda v: _repeated(v[self.task], B), self.head),
        )
        gains = Gains(
            first.relu_gain,
            [(modules.relu_gain, modules.skip_gain) for modules in later],
            _at_slots(trainable, indices[1:], first=1),
        )
        return Candidates(network, gains, frozen, trainable, indices)

    def _gather_layers(self, trainable, active):
        """Gathers the modules that candidates train or need.

        A layer has N slots for each candidate and, once there is a fixed path, as many
        multiples of N as that needs, so that few shapes are compiled.

        Args:
          trainable: binary [B, L, M]. active: float32 [B, L, M], as of `Grid.active`.

        Returns:
          (first, frozen, later): the Modules of layer 1 that each candidate trains, those
          that are frozen, as of `Candidates`, and a list of the Modules of later layers.
        """
        grid = self.grid
        widest = tf.cast(tf.reduce_max(tf.reduce_sum(self.fixed_path, 1)), tf.int32)
        fixed_slots = tf.minimum(grid.N * ((widest + grid.N - 1) // grid.N), grid.M)
        first = self._gather(0, trainable[:, 0], grid.N)
        fixed = self._gather(0, self.fixed_path[:1], fixed_slots)
        slots = grid.N
        if grid.fixed_path_active:
            slots += fixed_slots
            active_fixed = active[:1, 0]  # they count for as much in all candidates
        else:
            active_fixed = active[:, 0]
        share = tf.gather(active_fixed, fixed.index[0], axis=1)
        fixed_gain = fixed.relu_gain * share
        later = [
            self._gather(layer, active[:, layer], tf.minimum(slots, grid.M))
            for layer in range(1, grid.L)
        ]
        kernel, bias = (parameter.value for parameter in fixed.parameters)
        return first, (kernel, bias, fixed_gain), later

    def _compute(self, images, labels, candidates, steps, one):
        """All of a generation that XLA compiles.

        Args:
          images, labels: as of `train`.
          candidates: Candidates.
          steps: how many steps Adam has done before.
          one: 1, see `_materialized`.

        Returns:
          (correct, loss, changes): int32 [B], float32 [B], and the changes that persist,
          a Network.
        """
        frozen = self._fixed_first_layer(images, *candidates.frozen)
        batches = self._blocks(images, labels, frozen)
        trainer = _Trainer(self.grid, self.training, candidates.gains, steps, one)
        correct, loss, trained = trainer.train(batches, candidates.network)
        rule = WRITEBACKS[self.training.writeback]
        credit, head = rule(correct, candidates.trainable)
        first, *later = _at_slots(credit, candidates.indices)
        credit = Network(first, later, head)
        return correct, loss, _persisting_changes(credit, candidates.network, trained)

    def _blocks(self, images, labels, frozen):
        """The mini-batches of a generation as Batches."""
        training, C = self.training, self.grid.most_classes
        n, c = training.batch_num, training.block
        blocks = training.T // c
        targets = tf.reshape(tf.one_hot(labels, C), [blocks, c, n, C])
        return Batches(
            images=tf.reshape(images, [blocks, c * n, self.grid.inputs]),
            frozen=frozen,
            targets=tf.transpose(targets, [0, 1, 3, 2]),
            labels=tf.reshape(labels, [blocks, c, n]),
        )

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
            pathnet.scale_pixels(images, self.grid.centred),
            transpose_b=True,
        )
        pre = tf.reshape(pre, [1, -1, F, training.T * n]) + bias[..., None]
        out = pathnet.aggregate(pre, gain)
        out = tf.reshape(out, [-1, F, training.T // c, c, n])
        return tf.transpose(out, [2, 3, 0, 1, 4])

    def _write_back(self, correct, indices, changes):
        """Adds the changes to the variables that their parameters were gathered from."""
        layers = [*self.layers, self.head]
        changes = [changes.first, *changes.later, changes.head]
        writes = [
            tf.scatter_nd_add(variable, index[..., None], change)
            for layer, index, of_layer in zip(
                layers, [*indices, self.task[None]], changes
            )
            for variable, change in zip(*map(tf.nest.flatten, (layer, of_layer)))
        ]
        if self.training.optimizer == "adam":
            with tf.control_dependencies([correct]):  # until then it is read
                writes.append(self.steps.assign_add(self.training.T))
        return tf.group(*writes)


def _repeated(value, B):
    """A tensor, B times along a new first dimension."""
    return tf.tile(value[None], [B] + [1] * len(value.shape))


def _at_slots(of_modules, indices, first=0):
    """What holds for the modules in slots: [B, L, M] -> for each layer [B, slots].

    `indices` are of the layers from `first` on.
    """
    return [
        tf.gather(of_modules[:, layer], index, batch_dims=1)
        for layer, index in enumerate(indices, first)
    ]


# --------------------------------------------------------------------------------------
# Inside the compiled computation
# --------------------------------------------------------------------------------------


class Batches(NamedTuple):
    """The mini-batches of a generation, in blocks of c mini-batches of n images.

    Attributes:
      images: uint8 [blocks, c * n, inputs].
      frozen: float32 [blocks, c, B or 1, filt, n], what the frozen modules add to the
        output of layer 1.
      targets: float32 [blocks, c, classes, n], the labels one-hot.
      labels: int32 [blocks, c, n].
    """

    images: Any
    frozen: Any
    targets: Any
    labels: Any


class _Trainer:
    """Trains the candidates: what stays the same in a generation, and the steps.

    The formulas stand at the head of this file; the plain reference that the tests
    compare with is benchmarks/masked_pathnet.py.
    """

    def __init__(self, grid, training, gains, steps, one):
        self.grid, self.training, self.gains = grid, training, gains
        self.steps, self.one = steps, one
        self.B = int(gains.first.shape[0])
        self.optimizer = OPTIMIZERS[training.optimizer]
        # What a gradient is multiplied by: the learning rate, unless Adam comes first.
        self.factor = training.learning_rate if self.optimizer.is_linear else 1.0
        self.factors = [
            *(self.factor * trains for trains in gains.trains),
            tf.fill([self.B, 1], self.factor),
        ]

    def train(self, batches, network):
        """Trains on all mini-batches: (correct int32 [B], loss float32 [B], Network)."""
        grid, B = self.grid, self.B
        is_small = grid.filt * grid.inputs <= SMALL_MODULE
        parts = B * grid.N if is_small else B
        shapes = [parts, -1, grid.inputs], [B * grid.N * grid.filt, 1]
        _, correct, loss, network = tf.while_loop(
            lambda block, *_: block < self.training.T // self.training.block,
            functools.partial(self._train_block, batches),
            (
                0,
                tf.zeros([B], tf.int32),
                tf.zeros([B]),
                network._replace(first=_reshaped(network.first, shapes)),
            ),
        )
        shapes = [B, grid.N, grid.filt, grid.inputs], [B, grid.N, grid.filt]
        network = network._replace(first=_reshaped(network.first, shapes))
        return correct, loss, network

    def _train_block(self, batches, block, correct, loss, network):
        """Trains on one block; in layer 1 kernel [parts, units, inputs], bias [units, 1].

        Takes and returns what the loop carries: the number of the block, and correct,
        loss and Network so far.
        """
        images, *of_batches = tf.nest.map_structure(lambda v: v[block], batches)
        x = pathnet.scale_pixels(images, self.grid.centred)
        xs = tf.split(x, self.training.block)
        step = functools.partial(
            self.optimizer.step,
            learning_rate=self.training.learning_rate,
            number=self.steps + tf.cast(block + 1, tf.float32),
        )
        kernel, bias = network.first
        weights = tf.reshape(kernel.value, [-1, self.grid.inputs])
        pre = tf.matmul(weights, x, transpose_b=True) + bias.value
        pre = tf.split(pre, self.training.block, axis=1)
        errors = []
        for s, of_batch in enumerate(zip(*map(tf.unstack, of_batches))):
            if s:
                pre[s] -= _changes_since(errors, xs[:s], xs[s])
            hits, entropy, error, network = self._train_later(
                step, pre[s], *of_batch, network
            )
            correct, loss = correct + hits, loss + entropy / self.training.T
            errors.append(_materialized(self.factor * error, self.one))
        errors = tf.concat(errors, 1)
        kernel = _update_in_parts(step, kernel, errors, x)
        bias = step(bias, tf.reduce_sum(errors, 1, keepdims=True))
        return block + 1, correct, loss, network._replace(first=Layer(kernel, bias))

    def _train_later(self, step, pre, frozen, target, labels, network):
        """Trains all but layer 1 on one mini-batch.

        Args:
          step: of (parameter, gradient): the Parameter after a step.
          pre: float32 [B * units, n], pre-activations of layer 1.
          frozen, target, labels: as of `Batches`, without blocks and c.
          network: the Network before the step.

        Returns:
          (hits, entropy, error, network): int32 [B] and float32 [B], how many images
          are classified right, and the mean cross-entropy; its gradient by `pre`; the
          Network after the step, but for layer 1.
        """
        layers = [*network.later, network.head]
        values = [[parameter.value for parameter in layer] for layer in layers]
        logits = self._logits(pre, frozen, layers)
        predictions = tf.argmax(logits, 1, output_type=tf.int32)
        hits = tf.reduce_sum(tf.cast(tf.equal(predictions, labels), tf.int32), 1)
        entropy, error = _cross_entropy(logits, target)
        # The errors of all candidates at once: no parameter is shared, so each has its
        # own gradient.
        error, *gradients = tf.gradients(
            logits, [pre, *tf.nest.flatten(values)], grad_ys=error
        )
        gradients = tf.nest.pack_sequence_as(values, gradients)
        *later, head = [
            Layer(*(step(p, _by_slot(factor, g)) for p, g in zip(layer, of_layer)))
            for layer, factor, of_layer in zip(layers, self.factors, gradients)
        ]
        return hits, entropy, error, network._replace(later=later, head=head)

    def _logits(self, pre, frozen, layers):
        """Logits [B, classes, n] from pre-activations of layer 1 [B * units, n].

        Args:
          frozen: float32 [B or 1, filt, n], what the frozen modules of layer 1 add.
          layers: A Layer for each later one, and the output layer's.
        """
        *later, head = layers
        grid, n = self.grid, self.training.batch_num
        pre = tf.reshape(pre, [self.B, grid.N, grid.filt, n])
        normalize = pathnet.normalize if grid.normalizes else tf.identity
        x = normalize(pathnet.aggregate(pre, self.gains.first) + frozen)
        for layer, gains in zip(later, self.gains.later):
            x = normalize(pathnet.layer_output(x, layer, *gains, _small_matmul))
        # So few classes: sums are faster for the gradients, too.
        return _matmul_as_sums(head.kernel.value, x) + head.bias.value[..., None]


def _reshaped(layer, shapes):
    """A Layer whose kernel and bias, and their moments, are reshaped."""
    return Layer(*(
        tf.nest.map_structure(functools.partial(tf.reshape, shape=shape), parameter)
        for parameter, shape in zip(layer, shapes)
    ))  # fmt: skip


def _changes_since(errors, earlier, x):
    """How pre-activations of a mini-batch change by the steps before it in its block.

    Args:
      errors: for each earlier mini-batch float32 [units, n], its error G times the rate.
      earlier: for each its images, float32 [n, inputs].
      x: float32 [n, inputs], the images of this one.

    Returns:
      float32 [units, n], what to subtract.
    """
    # The 1 is the input of the bias.
    products = tf.matmul(tf.concat(earlier, 0), x, transpose_b=True) + 1
    return tf.matmul(tf.concat(errors, 1), products)


def _update_in_parts(step, kernel, errors, x):
    """A step of layer 1's kernel, in place and a part at a time.

    So less of what a product leaves in the core's own cache is gone before it is
    subtracted.

    Args:
      step: of (parameter, gradient): the Parameter after a step.
      kernel: Parameter [parts, units, inputs].
      errors: float32 [parts * units, c * n].
      x: float32 [c * n, inputs].
    """
    parts = int(kernel.value.shape[0])
    errors = tf.reshape(errors, [parts, -1, x.shape[0]])

    def update(part, kernel):
        old = tf.nest.map_structure(lambda v: v[part], kernel)
        new = step(old, tf.matmul(errors[part], x))
        return part + 1, tf.nest.map_structure(
            lambda v, row: tf.tensor_scatter_nd_update(v, [[part]], row[None]),
            kernel,
            new,
        )

    return tf.while_loop(lambda part, _: part < parts, update, (0, kernel))[1]


def _by_slot(factor, value):
    """Multiplies value [B, slots, ...] by factor [B, slots], or [B, ...] by [B, 1]."""
    ones = [1] * (len(value.shape) - 2)
    return tf.reshape(factor, [factor.shape[0], -1, *ones]) * value


def _persisting_changes(credit, before, after):
    """What persists of each parameter's change in a generation.

    Args:
      credit: A Network of float32 [B, slots] in place of layers, [B] in place of the head.
      before: Network before the generation.
      after: Network after it.

    Returns:
      A Network: of each slot its change, or 0 without credit; of the head, which all
      candidates share, the sum of theirs.
    """

    def of_layer(weight, old, new):
        return tf.nest.map_structure(functools.partial(_credited, weight), old, new)

    return Network(
        of_layer(credit.first, before.first, after.first),
        [of_layer(*layer) for layer in zip(credit.later, before.later, after.later)],
        tf.nest.map_structure(
            lambda change: tf.reduce_sum(change, 0, keepdims=True),
            of_layer(credit.head, before.head, after.head),
        ),
    )


def _credited(weight, old, new):
    """The change where weight is 1, and 0, not 0 * NaN, where it is 0."""
    while len(weight.shape) < len(old.shape):
        weight = weight[..., None]
    return tf.where_v2(weight > 0, new - old, tf.zeros_like(old))


def _cross_entropy(logits, target):
    """Softmax cross-entropy of a mini-batch, and its gradient.

    Args:
      logits: float32 [B, classes, n].
      target: one-hot [classes, n].

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


def _matmul_as_sums(kernel, x):
    """`tf.matmul` of kernel [B, units, fan_in] and x [B, fan_in, n], if compiled by XLA.

    For so few inputs a sum that it compiles is faster than its library's product.
    """
    return tf.reduce_sum(kernel[..., None] * x[:, None], 2)


def _small_matmul(kernel, x):
    """`_matmul_as_sums`, but for the gradients, which are faster as matrix products."""

    @tf.custom_gradient
    def product(kernel, x):
        def gradients(error):
            return (
                tf.matmul(error, x, transpose_b=True),
                tf.matmul(kernel, error, transpose_a=True),
            )

        return _matmul_as_sums(kernel, x), gradients

    return product(kernel, x)


def _materialized(x, one):
    """x, computed once; `one` is a 1 that XLA does not know to be one.

    XLA computes an expression again for each of its uses, and inside a concatenation
    that is slow; a division costs too much to be repeated, so its result is stored.
    """
    return x / one

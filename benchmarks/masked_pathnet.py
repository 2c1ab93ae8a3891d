"""PathNet written the obvious way: the reference of the tests and of the benchmark.

One candidate at a time, one mini-batch a `session.run`. All M modules of a layer are
computed, and multiplied by 1 or 0: whether they are active. Parameters have the names
and layouts of `pathnet.PathNet.parameters`, and `train` does what
`supervised.generation.TrainablePathNet.train` does.
"""

import numpy as np

import pathnet
from common import tf1 as tf


class MaskedPathNet:
    """The L x M grid; slow, and with nothing in it that is not in the paper.

    With `histograms` every step also merges histograms of all parameters, as scripts
    that log them to TensorBoard do.
    """

    def __init__(self, grid, training, histograms=False):
        self.grid = grid
        self.training = training
        self.graph = tf.Graph()
        with self.graph.as_default():
            self._build_inputs()
            self._build_parameters()
            self._build_network()
            self._build_step()
            if histograms:
                summaries = [
                    tf.summary.histogram(name, value)
                    for name, value in self._parameters.items()
                ]
                self._step += (tf.summary.merge(summaries),)
            initializer = tf.global_variables_initializer()
        self.graph.finalize()
        self.session = tf.Session(graph=self.graph)
        self.session.run(initializer)

    # What a user calls ----------------------------------------------------------------

    def parameters(self):
        """All parameters by name: float32 arrays."""
        return self.session.run(self._parameters)

    def set_parameters(self, values):
        """Sets all parameters from a dict as `parameters` gives it."""
        self.session.run(
            self._restore, {self._saved[name]: v for name, v in values.items()}
        )

    def logits(self, geopath, fixed_path, images, task):
        """Outputs of one path: float32 [n, classes]."""
        feed = self._feed(geopath, fixed_path, images, np.zeros(len(images)), task)
        return self.session.run(self._logits, feed)

    def gradients(self, geopath, fixed_path, images, labels, task):
        """Gradients of the mean cross-entropy by name, 0 for frozen modules."""
        feed = self._feed(geopath, fixed_path, images, labels, task)
        return self.session.run(self._gradients, feed)

    def step(self, geopath, fixed_path, images, labels, task):
        """Trains one path on one mini-batch.

        Args:
          geopath: binary [L, M]. fixed_path: binary [L, M], active and frozen.
          images: uint8 [n, inputs]. labels: int [n]. task: which output layer.

        Returns:
          (correct, loss): how many images are classified right, and the mean
          cross-entropy, both before the update.
        """
        feed = self._feed(geopath, fixed_path, images, labels, task)
        correct, loss, *_ = self.session.run(self._step, feed)
        return correct, loss

    def train(self, geopaths, images, labels, task, fixed_path):
        """One generation; arguments and results as of `TrainablePathNet.train`."""
        n = self.training.batch_num
        start = self.parameters()
        trained, correct, loss = [], [], []
        for geopath in geopaths:
            self.set_parameters(start)
            steps = [
                self.step(
                    geopath, fixed_path, images[i : i + n], labels[i : i + n], task
                )
                for i in range(0, len(images), n)
            ]
            trained.append(self.parameters())
            correct.append(sum(c for c, _ in steps))
            loss.append(np.mean([entropy for _, entropy in steps]))
        fitness = np.array(correct) / len(labels)
        self.set_parameters(
            self._written_back(start, trained, fitness, geopaths * (1 - fixed_path))
        )
        return fitness, np.array(loss, np.float32)

    # How the graph is built -----------------------------------------------------------

    def _feed(self, geopath, fixed_path, images, labels, task):
        return {
            self.geopath: geopath,
            self.fixed_path: fixed_path,
            self.images: images,
            self.labels: labels,
            self.task: task,
        }

    def _build_inputs(self):
        grid = self.grid
        self.geopath = tf.placeholder(tf.float32, [grid.L, grid.M])
        self.fixed_path = tf.placeholder(tf.float32, [grid.L, grid.M])
        self.images = tf.placeholder(tf.uint8, [None, grid.inputs])
        self.labels = tf.placeholder(tf.int32, [None])
        self.task = tf.placeholder(tf.int32, [])

    def _build_parameters(self):
        """kernels[layer][module] [filt, fan_in], biases[layer][module] [filt], heads."""
        grid = self.grid
        self.kernels, self.biases = [], []
        for layer in range(grid.L):
            fan_in = grid.filt if layer else grid.inputs
            modules = range(grid.M)
            self.kernels.append([_variable([grid.filt, fan_in]) for _ in modules])
            self.biases.append([_variable([grid.filt]) for _ in modules])
        heads = [len(grid.classes), grid.most_classes]
        self.head_kernel = _variable([*heads, grid.filt])
        self.head_bias = _variable(heads)

        self._parameters = self._by_name(
            self.kernels, self.biases, self.head_kernel, self.head_bias
        )
        self._saved = {
            name: tf.placeholder(tf.float32, value.shape)
            for name, value in self._parameters.items()
        }
        writes = [
            self.head_kernel.assign(self._saved["output/kernel"]),
            self.head_bias.assign(self._saved["output/bias"]),
        ]
        for layer in range(grid.L):
            for module in range(grid.M):
                kernel = self._saved[f"layer{layer + 1}/kernel"][module]
                bias = self._saved[f"layer{layer + 1}/bias"][module]
                writes.append(self.kernels[layer][module].assign(kernel))
                writes.append(self.biases[layer][module].assign(bias))
        self._restore = tf.group(*writes)

    def _by_name(self, kernels, biases, head_kernel, head_bias):
        """Parameters, or their gradients, by the names and in the layouts of PathNet."""
        named = {}
        for layer in range(self.grid.L):
            named[f"layer{layer + 1}/kernel"] = tf.stack(kernels[layer])
            named[f"layer{layer + 1}/bias"] = tf.stack(biases[layer])
        named["output/kernel"] = tf.convert_to_tensor(head_kernel)
        named["output/bias"] = tf.convert_to_tensor(head_bias)
        return named

    def _build_network(self):
        grid = self.grid
        active = self.geopath
        if grid.fixed_path_active:
            active = tf.maximum(active, self.fixed_path)
        active *= 1 - (1 - grid.frozen_share) * self.fixed_path
        x = tf.cast(self.images, tf.float32) / 255
        if grid.centred:
            x -= 0.5
        for layer in range(grid.L):
            outputs = [
                active[layer, module] * self._module(layer, module, x)
                for module in range(grid.M)
            ]
            x = tf.add_n(outputs)
            is_last = layer == grid.L - 1
            if grid.aggregation == "average" or (
                grid.aggregation == "last_average" and is_last
            ):
                x /= grid.M
            if grid.aggregation == "normalized":
                mean_square = tf.reduce_mean(x**2, 1, keepdims=True)
                x /= tf.sqrt(mean_square + 1e-6)
        kernel, bias = self.head_kernel[self.task], self.head_bias[self.task]
        self._logits = tf.matmul(x, kernel, transpose_b=True) + bias

    def _module(self, layer, module, x):
        kind = pathnet.MODULE_KINDS[self.grid.kinds()[layer, module]]
        kernel, bias = self.kernels[layer][module], self.biases[layer][module]
        relu = tf.nn.relu(tf.matmul(x, kernel, transpose_b=True) + bias)
        # In layer 1 no module passes its input on: it is of another size.
        return kind.relu * relu + kind.input * x if kind.input else kind.relu * relu

    def _build_step(self):
        """Gradient descent on the mean cross-entropy; frozen modules do not change."""
        grid = self.grid
        loss = tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(
                labels=self.labels, logits=self._logits
            )
        )
        predictions = tf.argmax(self._logits, 1, output_type=tf.int32)
        hits = tf.equal(predictions, self.labels)
        correct = tf.reduce_sum(tf.cast(hits, tf.int32))

        variables = [*_flat(self.kernels), *_flat(self.biases)]
        variables += [self.head_kernel, self.head_bias]
        gradients = tf.gradients(loss, variables, unconnected_gradients="zero")
        *of_modules, head_kernel, head_bias = gradients
        trains = tf.unstack(1 - tf.reshape(self.fixed_path, [-1]))
        of_modules = [g * t for g, t in zip(of_modules, trains + trains)]
        gradients = [*of_modules, head_kernel, head_bias]

        # Everything that reads the variables comes before what changes them.
        with tf.control_dependencies([correct, loss, *gradients]):
            updates = [
                variable.assign_sub(self.training.learning_rate * gradient)
                for variable, gradient in zip(variables, gradients)
            ]
        self._step = (correct, loss, tf.group(*updates))

        rows = [of_modules[i : i + grid.M] for i in range(0, len(of_modules), grid.M)]
        self._gradients = self._by_name(
            rows[: grid.L], rows[grid.L :], head_kernel, head_bias
        )

    # What persists after a tournament -------------------------------------------------

    def _written_back(self, start, trained, fitness, trainable):
        """The parameters after a generation.

        Args:
          start: parameters before it. trained: a list of them, one for each candidate.
          fitness: float [B]. trainable: binary [B, L, M], modules that each trained.
        """
        by_rank = np.argsort(-fitness, kind="stable")  # fittest first, ties in order
        winner = by_rank[0]
        if self.training.writeback == "winner":
            return trained[winner]
        if self.training.writeback == "sum":
            return {
                name: value + sum(after[name] - value for after in trained)
                for name, value in start.items()
            }
        # merge: the winner's, and the others' where no fitter candidate trained
        result = {name: value.copy() for name, value in start.items()}
        for candidate in reversed(by_rank):
            for layer in range(self.grid.L):
                mine = trainable[candidate, layer] > 0
                for name in (f"layer{layer + 1}/kernel", f"layer{layer + 1}/bias"):
                    result[name][mine] = trained[candidate][name][mine]
        for name in ("output/kernel", "output/bias"):
            result[name] = trained[winner][name]
        return result


def _variable(shape):
    return tf.Variable(np.zeros(shape, np.float32))


def _flat(rows):
    return [variable for row in rows for variable in row]

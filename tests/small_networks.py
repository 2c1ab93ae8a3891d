"""Small networks for tests: a grid, random parameters and paths, a plain forward pass."""

import numpy as np

import pathnet
from pathnet import Grid

SMALL = Grid(L=3, M=6, N=3, filt=5, inputs=30, classes=(2, 2))


def random_parameters(net, rng):
    return {
        name: rng.normal(0, 0.5, value.shape).astype(np.float32)
        for name, value in net.parameters().items()
    }


def random_geopaths(grid, B, rng):
    paths = pathnet.random_paths(rng, B, grid.L, grid.M, grid.N)
    return pathnet.to_geopath(paths, grid.M)


def frozen(grid, width):
    """A fixed path: none, one module a layer, or more than N in the last layer."""
    fixed_path = np.zeros([grid.L, grid.M], np.float32)
    if width == "narrow":
        fixed_path[range(grid.L), np.arange(grid.L) % grid.M] = 1
    elif width == "wide":
        fixed_path[0, 1:2] = 1
        fixed_path[-1, -(grid.N + 1) :] = 1
    return fixed_path


def assert_identical(actual, expected):
    assert actual.dtype == expected.dtype == np.float32
    assert actual.tobytes() == expected.tobytes()


def numpy_logits(grid, parameters, active, images, task):
    """The forward pass in float64: [n, classes]; `active` as of `Grid.active`."""
    x = images / 255 - 0.5 if grid.centred else images / 255
    for layer in range(grid.L):
        out = 0
        for module in np.flatnonzero(active[layer]):
            kernel = parameters[f"layer{layer + 1}/kernel"][module].astype(float)
            relu = np.maximum(
                x @ kernel.T + parameters[f"layer{layer + 1}/bias"][module], 0
            )
            kind = (
                "linear" if layer == 0 else ("skip", "linear", "residual")[module % 3]
            )
            if kind != "skip":
                out = out + active[layer, module] * relu
            if kind != "linear":
                out = out + active[layer, module] * x
        averages = grid.aggregation == "average" or (
            grid.aggregation == "last_average" and layer == grid.L - 1
        )
        x = out / grid.M if averages else out
        if grid.aggregation == "normalized":
            x = out / np.sqrt((out**2).mean(1, keepdims=True) + 1e-6)
    return x @ parameters["output/kernel"][task].T + parameters["output/bias"][task]

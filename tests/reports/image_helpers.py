"""Synthetic paths and runs, and what can be seen in the pictures of them."""

import numpy as np
from matplotlib.colors import to_rgb

from reports import colours
from reports.evolution import Snapshot

LAYERS, MODULES = 3, 10


def random_paths(count, layers=LAYERS, modules=MODULES, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.random((count, layers, modules)) < 0.3).astype(np.uint8)


def snapshots(*counts, candidates=6, layers=LAYERS, modules=MODULES):
    """A run of tasks "a", "b", ... with that many generations each."""
    frames = []
    fixed = np.zeros((layers, modules), np.uint8)
    for task, count in enumerate(counts):
        for generation in range(count):
            paths = random_paths(candidates, layers, modules, seed=len(frames))
            fitness = task + generation / count
            name = chr(ord("a") + task)
            frames.append(
                Snapshot(name, generation, fitness, paths, paths[0], fixed.copy())
            )
        fixed = fixed | frames[-1].best
    return frames


def two_paths():
    """Two paths that share module 4 of layer 1 and nothing else, counted from 0."""
    paths = np.zeros((2, LAYERS, MODULES), np.uint8)
    paths[0, [0, 1, 2], [0, 4, 8]] = 1
    paths[1, [0, 1, 2], [2, 4, 9]] = 1
    return paths


def colours_in(image):
    """The set of "#RRGGBB" in an [..., 3] uint8 array."""
    unique = np.unique(np.reshape(image, (-1, 3)), axis=0)
    return {"#{:02X}{:02X}{:02X}".format(*colour) for colour in unique}


def count_colour(image, colour):
    rgb = np.round(np.array(to_rgb(colour)) * 255)
    return int((image == rgb).all(axis=-1).sum())


def runs(flags):
    """Middles of the runs of 5 or more true values in a [n] boolean array."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]])))
    pairs = edges.reshape(-1, 2).tolist()
    return [(start + end) // 2 for start, end in pairs if end - start >= 5]


def grid_places(image):
    """x of every layer and y of every module in a picture of unused modules only."""
    pale = (image == colours.rgb_bytes(colours.PALE)).all(axis=-1)
    xs, ys = runs(pale.any(axis=0)), runs(pale.any(axis=1))
    assert (len(xs), len(ys)) == (LAYERS, MODULES)
    return xs, ys

"""A population at one generation: a snapshot, what its paths share, a small image.

Nothing here needs matplotlib, which takes half a second to import: a run shows the first
of these images, in TensorBoard, before it has trained anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from reports.colours import INK, PALE, TASK_COLOURS, rgb_bytes

CELL = 8  # pixels a module takes in population_image, its 1-pixel gap included
LAYER_GAP = 6  # pixels between two layers in population_image


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The population of one task at one generation.

    Attributes:
      task: the task's name.
      generation: generations this task has been learned for.
      fitness: the winner's fitness.
      geopaths: [candi, L, M] 0/1 array, every candidate's path.
      best: [L, M] 0/1 array, the winner's path.
      fixed: [L, M] 0/1 array, modules frozen by earlier tasks (zeros for the first).
    """

    task: str
    generation: int
    fitness: float
    geopaths: np.ndarray
    best: np.ndarray
    fixed: np.ndarray


def count_overlap(geopaths: Sequence[np.ndarray]) -> int:
    """Number of modules that at least two of the [L, M] paths use."""
    return int((np.asarray(geopaths, bool).sum(axis=0) >= 2).sum())


def population_image(geopaths: np.ndarray) -> np.ndarray:
    """The population as an image: a row a candidate, a block of columns a layer.

    Each module is a square of `CELL` - 1 pixels in the first task's colour if the
    candidate's path uses it, else pale; white pixels part modules, and wider white
    gaps part layers.

    Args:
      geopaths: [candi, L, M] 0/1 array.

    Returns:
      [candi * CELL - 1, L * (M * CELL - 1) + (L - 1) * LAYER_GAP, 3] uint8 array.
    """
    used = np.asarray(geopaths, bool)
    candidates, layers, modules = used.shape
    colours = np.array([rgb_bytes(PALE), rgb_bytes(TASK_COLOURS[0])], np.uint8)
    cells = np.full((candidates, CELL, layers, modules, CELL, 3), 255, np.uint8)
    cells[:, :-1, :, :, :-1] = colours[used.astype(int)][:, None, :, :, None]
    rows = cells.reshape(candidates * CELL, layers, modules * CELL, 3)
    # A block ends with its last cell's 1-pixel gap, which counts towards the layer gap.
    block = modules * CELL - 1 + LAYER_GAP
    image = np.full((candidates * CELL, layers, block, 3), 255, np.uint8)
    image[:, :, : modules * CELL] = rows
    return image.reshape(candidates * CELL, layers * block, 3)[:-1, :-LAYER_GAP]


def population_picture(geopaths: np.ndarray, fixed_path: np.ndarray) -> np.ndarray:
    """`population_image` with its layers named, above it the frozen modules in black.

    Args:
      geopaths: [candi, L, M] 0/1 array.
      fixed_path: [L, M] 0/1 array, the frozen modules.

    Returns:
      [height, width, 3] uint8 array.
    """
    paths = population_image(geopaths)
    frozen = population_image(fixed_path[None])
    is_used = (frozen == rgb_bytes(TASK_COLOURS[0])).all(axis=-1)
    frozen[is_used] = rgb_bytes(INK)
    left, top = 46, 14  # pixels for the words
    height = top + len(frozen) + LAYER_GAP + len(paths)
    picture = np.full((height, left + paths.shape[1], 3), 255, np.uint8)
    picture[top : top + len(frozen), left:] = frozen
    picture[-len(paths) :, left:] = paths
    image = Image.fromarray(picture)
    pen = ImageDraw.Draw(image)
    _, layers, modules = np.shape(geopaths)
    for layer in range(layers):
        x = left + layer * (modules * CELL - 1 + LAYER_GAP)
        pen.text((x, 0), f"layer {layer + 1}", fill=INK)
    pen.text((0, top - 3), "frozen", fill=INK)
    pen.text((0, height - len(paths) - 2), "paths", fill=INK)
    return np.array(image)

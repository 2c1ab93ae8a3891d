"""Tests of the pictures of paths, all synthetic."""

import numpy as np
import pytest
from image_helpers import (
    LAYERS,
    MODULES,
    colours_in,
    count_colour,
    grid_places,
    random_paths,
    two_paths,
)
from PIL import Image

from reports import colours
from reports import paths as paths_picture


def test_edge_shares_by_hand():
    paths = np.array([[[1, 0], [1, 1]], [[1, 1], [0, 1]]])
    shares = paths_picture.edge_shares(paths)
    into, between, out = shares[:2], shares[2:6].reshape(2, 2), shares[6:]
    np.testing.assert_allclose(into, [1, 0.5])
    np.testing.assert_allclose(between, [[0.5, 1], [0, 0.5]])
    np.testing.assert_allclose(out, [0.5, 1])


def test_edge_shares_follow_the_order_of_edge_curves():
    centres = paths_picture.module_centres(3, 4, (1, 3), (0, 3))
    curves = paths_picture.edge_curves(centres, (0, 1.5), (4, 1.5))
    path = np.zeros((1, 3, 4))
    path[0, [0, 1, 2], [1, 3, 0]] = 1
    drawn = curves[paths_picture.edge_shares(path) > 0]
    stops = [(0, 1.5), *centres[[0, 1, 2], [1, 3, 0]], (4, 1.5)]
    np.testing.assert_allclose(drawn[:, 0], stops[:-1])
    np.testing.assert_allclose(drawn[:, -1], stops[1:])


def test_module_centres_run_right_and_down():
    centres = paths_picture.module_centres(3, 5, (10, 30), (0, 40))
    assert centres.shape == (3, 5, 2)
    np.testing.assert_allclose(centres[:, 0, 0], [10, 20, 30])
    np.testing.assert_allclose(centres[1, :, 1], [40, 30, 20, 10, 0])
    np.testing.assert_allclose(
        paths_picture.module_centres(1, 1, (10, 30), (0, 40)), [[[20, 20]]]
    )


def draw(tmp_path, paths, names, kinds=None):
    target = tmp_path / "paths.png"
    paths_picture.draw_paths(target, paths, names, kinds)
    with Image.open(target) as image:
        assert image.format == "PNG"
        assert [path.name for path in tmp_path.iterdir()] == ["paths.png"]
        return np.array(image.convert("RGB"))


def test_paths_png_shows_who_uses_each_module(tmp_path):
    names, paths = ["1v3", "6v7"], two_paths()
    xs, ys = grid_places(draw(tmp_path, 0 * paths, names))
    image = draw(tmp_path, paths, names)
    one, two = colours.TASK_COLOURS[:2]
    halves = {(1, 0): (one, one), (0, 1): (two, two), (1, 1): (one, two)}
    for layer, module in np.ndindex(LAYERS, MODULES):
        users = tuple(paths[:, layer, module].tolist())
        left, right = halves.get(users, (colours.PALE, colours.PALE))
        y = ys[module]
        assert colours_in(image[y, xs[layer] - 8]) == {left}
        assert colours_in(image[y, xs[layer] + 8]) == {right}


def test_paths_png_has_a_white_background(tmp_path):
    image = draw(tmp_path, two_paths(), ["1v3", "6v7"])
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    assert colours_in(border) == {colours.BACKGROUND}


@pytest.mark.parametrize("modules", [10, 20])
def test_paths_png_has_a_readable_size(tmp_path, modules):
    image = draw(tmp_path, random_paths(2, 3, modules), ["cifar", "svhn"])
    height, width, _ = image.shape
    assert 700 < height < 1400
    assert 900 < width < 1600


@pytest.mark.parametrize("tasks", [1, 2, 3, 9])
def test_paths_png_has_every_task(tmp_path, tasks):
    # Each task has a module of its own, so each colour is seen whatever is shared.
    paths = np.zeros((tasks, LAYERS, MODULES), int)
    paths[:, 1, 9] = 1
    paths[np.arange(tasks), 0, np.arange(tasks)] = 1
    image = draw(tmp_path, paths, [f"task {i}" for i in range(tasks)])
    palette = colours.TASK_COLOURS
    for colour in palette[:tasks]:
        assert count_colour(image, colour) > 1000
    for colour in palette[tasks:]:
        assert count_colour(image, colour) == 0


def test_paths_legend_counts_modules_and_overlap():
    def labels(paths, names, kinds=None, further=False):
        entries = paths_picture._legend_entries(paths, names, kinds, further)
        return [entry.get_label() for entry in entries]

    paths = two_paths().astype(bool)
    paths[0, 0, 2] = False
    paths[0, 0, 5] = True
    assert labels(paths, ["1v3", "6v7"]) == [
        "1v3: 4 modules",
        "6v7: 3 modules",
        "overlap: 1 module",
    ]
    assert labels(paths[:1], ["1v3"]) == ["1v3: 4 modules"]
    frozen = "with frozen modules, which stay active"
    assert labels(paths[:1], ["1v3"], further=True) == ["1v3: 4 modules", frozen]
    kinds = np.full((LAYERS, MODULES), "linear", dtype=object)
    assert labels(paths[:1], ["1v3"], kinds) == ["1v3: 4 modules"]
    kinds[1, 0] = "residual"
    assert labels(paths[:1], ["1v3"], kinds) == ["1v3: 4 modules", "residual"]


def test_paths_png_shows_the_frozen_modules_that_are_active(tmp_path):
    """By lines in the colour of the task that they are active in, not only its path's."""
    paths = np.zeros((2, LAYERS, MODULES), int)
    paths[0, :, :3], paths[1, :, 7] = 1, 1
    active = np.maximum(paths, paths[:1])
    counts = []
    for modules in (None, active):
        target = tmp_path / "paths.png"
        paths_picture.draw_paths(target, paths, ["1v3", "6v7"], None, modules)
        with Image.open(target) as image:
            pixels = np.array(image.convert("RGB")).astype(int)
        counts.append(np.count_nonzero(pixels[..., 0] > pixels[..., 2] + 20))  # orange
    assert counts[1] > 1.2 * counts[0]


def test_paths_png_marks_the_kinds(tmp_path):
    names, paths = ["1v3", "6v7"], two_paths()
    xs, ys = grid_places(draw(tmp_path, 0 * paths, names))
    kinds = [["linear"] * MODULES, ["skip"] * MODULES, ["residual"] * MODULES]
    image = draw(tmp_path, paths, names, kinds)
    # No path uses the sixth module of any layer.
    y = ys[5]
    discs = [image[y - 12 : y + 13, x - 12 : x + 13] for x in xs]
    assert colours_in(discs[0]) == {colours.PALE}
    muted = [count_colour(disc, colours.MUTED) for disc in discs]
    assert 0 == muted[0] < muted[1] < muted[2]


@pytest.mark.parametrize(
    ("paths", "names", "kinds"),
    [
        ([], [], None),
        (two_paths(), ["only one name"], None),
        (two_paths()[0], ["a", "b", "c"], None),
        (two_paths(), ["a", "b"], [["linear"] * MODULES]),
    ],
)
def test_paths_png_rejects_what_does_not_match(tmp_path, paths, names, kinds):
    with pytest.raises(ValueError):
        paths_picture.draw_paths(tmp_path / "paths.png", paths, names, kinds)
    assert not list(tmp_path.iterdir())

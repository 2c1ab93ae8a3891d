"""Tests of the pictures of paths, all synthetic."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from PIL import Image, ImageSequence

from reports import pictures
from reports.pictures import Snapshot

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


def gif_frames(path):
    """Each frame as an [H, W, 3] array, and each frame's milliseconds."""
    with Image.open(path) as image:
        arrays, durations = [], []
        for frame in ImageSequence.Iterator(image):
            arrays.append(np.array(frame.convert("RGB")))
            durations.append(frame.info["duration"])
    return arrays, durations


# Pure functions


def test_task_colours_differ_and_start_over():
    count = len(pictures.TASK_COLOURS)
    assert len({pictures.task_colour(i) for i in range(count)}) == count
    assert pictures.task_colour(count) == pictures.task_colour(0)


def test_count_overlap():
    paths = two_paths()
    assert pictures.count_overlap(paths) == 1
    assert pictures.count_overlap(paths[:1]) == 0
    assert pictures.count_overlap([paths[0], paths[1], paths[0]]) == 3


def test_edge_shares_by_hand():
    paths = np.array([[[1, 0], [1, 1]], [[1, 1], [0, 1]]])
    shares = pictures.edge_shares(paths)
    into, between, out = shares[:2], shares[2:6].reshape(2, 2), shares[6:]
    np.testing.assert_allclose(into, [1, 0.5])
    np.testing.assert_allclose(between, [[0.5, 1], [0, 0.5]])
    np.testing.assert_allclose(out, [0.5, 1])


def test_edge_shares_follow_the_order_of_edge_curves():
    centres = pictures.module_centres(3, 4, (1, 3), (0, 3))
    curves = pictures.edge_curves(centres, (0, 1.5), (4, 1.5))
    path = np.zeros((1, 3, 4))
    path[0, [0, 1, 2], [1, 3, 0]] = 1
    drawn = curves[pictures.edge_shares(path) > 0]
    stops = [(0, 1.5), *centres[[0, 1, 2], [1, 3, 0]], (4, 1.5)]
    np.testing.assert_allclose(drawn[:, 0], stops[:-1])
    np.testing.assert_allclose(drawn[:, -1], stops[1:])


def test_module_centres_run_right_and_down():
    centres = pictures.module_centres(3, 5, (10, 30), (0, 40))
    assert centres.shape == (3, 5, 2)
    np.testing.assert_allclose(centres[:, 0, 0], [10, 20, 30])
    np.testing.assert_allclose(centres[1, :, 1], [40, 30, 20, 10, 0])
    np.testing.assert_allclose(
        pictures.module_centres(1, 1, (10, 30), (0, 40)), [[[20, 20]]]
    )


def test_task_indices():
    frames = snapshots(3, 2)
    assert pictures.task_indices(frames) == [0, 0, 0, 1, 1]
    again = snapshots(2) + snapshots(2)
    assert pictures.task_indices(again) == [0, 0, 1, 1]
    assert pictures.task_indices(frames[:1]) == [0]


@given(
    counts=st.lists(st.integers(1, 300), min_size=1, max_size=6),
    limit=st.integers(1, 100),
)
def test_choose_frames(counts, limit):
    tasks = np.repeat(np.arange(len(counts)), counts).tolist()
    chosen = pictures.choose_frames(tasks, limit)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(max(limit, len(counts)), sum(counts))
    shares = []
    for task, count in enumerate(counts):
        start = sum(counts[:task])
        mine = [position for position in chosen if tasks[position] == task]
        shares.append(len(mine))
        assert mine[-1] == start + count - 1
        if len(mine) > 1:
            assert mine[0] == start
            gaps = np.diff(mine)
            assert gaps.max() - gaps.min() <= 1
    # Whoever did not get all of its frames got as many as any other, but for rounding.
    cut = [share for share, count in zip(shares, counts) if share < count]
    assert all(share >= max(shares) - 1 for share in cut)


def test_choose_frames_passes_on_what_a_short_task_leaves():
    tasks = [0] * 200 + [1] * 8
    chosen = pictures.choose_frames(tasks, 48)
    assert sum(position < 200 for position in chosen) == 40
    assert chosen[-8:] == list(range(200, 208))


# Population image


def test_population_image_cells_are_exact():
    paths = random_paths(7, 3, 4)
    image = pictures.population_image(paths)
    cell, gap = pictures.CELL, pictures.LAYER_GAP
    assert image.dtype == np.uint8
    assert image.shape == (7 * cell - 1, 3 * (4 * cell - 1) + 2 * gap, 3)
    assert colours_in(image) == {
        pictures.BACKGROUND,
        pictures.PALE,
        pictures.task_colour(0),
    }
    painted = np.zeros(image.shape[:2], bool)
    for candidate, layer, module in np.ndindex(paths.shape):
        y = candidate * cell
        x = layer * (4 * cell - 1 + gap) + module * cell
        square = np.s_[y : y + cell - 1, x : x + cell - 1]
        used = paths[candidate, layer, module]
        expected = pictures.task_colour(0) if used else pictures.PALE
        assert colours_in(image[square]) == {expected}
        painted[square] = True
    assert colours_in(image[~painted]) == {pictures.BACKGROUND}


def test_population_image_takes_booleans_and_one_of_each():
    image = pictures.population_image(np.ones((1, 1, 1), bool))
    side = pictures.CELL - 1
    assert image.shape == (side, side, 3)
    assert colours_in(image) == {pictures.task_colour(0)}


# Paths


def draw(tmp_path, paths, names, kinds=None):
    target = tmp_path / "paths.png"
    pictures.draw_paths(target, paths, names, kinds)
    with Image.open(target) as image:
        assert image.format == "PNG"
        assert [path.name for path in tmp_path.iterdir()] == ["paths.png"]
        return np.array(image.convert("RGB"))


def runs(flags):
    """Middles of the runs of 5 or more true values in a [n] boolean array."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]])))
    pairs = edges.reshape(-1, 2).tolist()
    return [(start + end) // 2 for start, end in pairs if end - start >= 5]


def grid_places(image):
    """x of every layer and y of every module in a picture of unused modules only."""
    pale = (image == pictures._rgb8(pictures.PALE)).all(axis=-1)
    xs, ys = runs(pale.any(axis=0)), runs(pale.any(axis=1))
    assert (len(xs), len(ys)) == (LAYERS, MODULES)
    return xs, ys


def test_paths_png_shows_who_uses_each_module(tmp_path):
    names, paths = ["1v3", "6v7"], two_paths()
    xs, ys = grid_places(draw(tmp_path, 0 * paths, names))
    image = draw(tmp_path, paths, names)
    one, two = pictures.TASK_COLOURS[:2]
    halves = {(1, 0): (one, one), (0, 1): (two, two), (1, 1): (one, two)}
    for layer, module in np.ndindex(LAYERS, MODULES):
        users = tuple(paths[:, layer, module].tolist())
        left, right = halves.get(users, (pictures.PALE, pictures.PALE))
        y = ys[module]
        assert colours_in(image[y, xs[layer] - 8]) == {left}
        assert colours_in(image[y, xs[layer] + 8]) == {right}


def test_paths_png_has_a_white_background(tmp_path):
    image = draw(tmp_path, two_paths(), ["1v3", "6v7"])
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    assert colours_in(border) == {pictures.BACKGROUND}


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
    palette = pictures.TASK_COLOURS
    for colour in palette[:tasks]:
        assert count_colour(image, colour) > 1000
    for colour in palette[tasks:]:
        assert count_colour(image, colour) == 0


def test_paths_legend_counts_modules_and_overlap():
    def labels(paths, names, kinds=None):
        entries = pictures._path_legend(paths, names, kinds)
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
    kinds = np.full((LAYERS, MODULES), "linear", dtype=object)
    assert labels(paths[:1], ["1v3"], kinds) == ["1v3: 4 modules"]
    kinds[1, 0] = "residual"
    assert labels(paths[:1], ["1v3"], kinds) == ["1v3: 4 modules", "residual"]


def test_paths_png_marks_the_kinds(tmp_path):
    names, paths = ["1v3", "6v7"], two_paths()
    xs, ys = grid_places(draw(tmp_path, 0 * paths, names))
    kinds = [["linear"] * MODULES, ["skip"] * MODULES, ["residual"] * MODULES]
    image = draw(tmp_path, paths, names, kinds)
    # No path uses the sixth module of any layer.
    y = ys[5]
    discs = [image[y - 12 : y + 13, x - 12 : x + 13] for x in xs]
    assert colours_in(discs[0]) == {pictures.PALE}
    muted = [count_colour(disc, pictures.MUTED) for disc in discs]
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
        pictures.draw_paths(tmp_path / "paths.png", paths, names, kinds)
    assert not list(tmp_path.iterdir())


# Animation


def animate(tmp_path, frames, **options):
    target = tmp_path / "evolution.gif"
    pictures.animate_evolution(target, frames, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["evolution.gif"]
    return target


def test_gif_has_the_chosen_frames_and_holds_each_tasks_last(tmp_path):
    target = animate(tmp_path, snapshots(9, 5), limit=8)
    with Image.open(target) as image:
        assert image.format == "GIF"
        assert image.size == pictures.GIF_SIZE
        assert image.info["loop"] == 0
    arrays, durations = gif_frames(target)
    short, long = pictures.GIF_FRAME_MS, pictures.GIF_HOLD_MS
    assert durations == 2 * [short, short, short, long]
    for before, after in pairwise(arrays):
        assert (before != after).any()


def drifting(task, count, fixed, candidates=20, active=5):
    """A population in which winners are chosen blindly, so that it hardly converges."""
    rng = np.random.default_rng(ord(task))
    layers, modules = fixed.shape
    order = rng.random((candidates, layers, modules)).argsort(axis=-1)
    paths = (order < active).astype(np.uint8)
    for generation in range(count):
        winner, loser = rng.choice(candidates, 2, replace=False)
        paths[loser] = paths[winner]
        layer = rng.integers(layers)
        paths[loser, layer] = rng.permutation(paths[loser, layer])
        best = paths[winner].copy()
        yield Snapshot(task, generation, rng.random(), paths.copy(), best, fixed)


def test_gif_of_a_long_run_stays_small(tmp_path):
    frames = list(drifting("a", 300, np.zeros((3, 20), np.uint8)))
    frames += drifting("b", 200, frames[-1].best)
    target = animate(tmp_path, frames)
    assert len(gif_frames(target)[0]) == pictures.GIF_FRAMES
    assert target.stat().st_size < 1_500_000


def test_gif_shows_shares_winner_and_fixed_path(tmp_path):
    empty = np.zeros((LAYERS, MODULES), np.uint8)
    everyone, half, fixed = empty.copy(), empty.copy(), empty.copy()
    everyone[1, 0] = half[1, 3] = fixed[1, 6] = 1
    population = np.stack([everyone, everyone | half])
    frames = [
        Snapshot("a", 0, 0.0, np.stack([empty, empty]), empty, empty),
        Snapshot("a", 1, 0.5, population, empty, empty),
        Snapshot("b", 0, 0.5, population, everyone, fixed),
    ]
    (blank, first, second), _ = gif_frames(animate(tmp_path, frames))
    # The grid's corner of the picture, without its key.
    xs, ys = grid_places(blank[70:345, 60:380])
    xs, ys = np.array(xs) + 60, np.array(ys) + 70

    def at(image, module, right=0):
        return image[ys[module], xs[1] + right].astype(int)

    one, two = (np.array(pictures._rgb8(c)) for c in pictures.TASK_COLOURS[:2])
    pale = np.array(pictures._rgb8(pictures.PALE))
    np.testing.assert_array_equal(at(first, 0), one)
    np.testing.assert_array_equal(at(second, 0), two)
    np.testing.assert_allclose(at(first, 3), (one + pale) / 2, atol=12)
    np.testing.assert_allclose(at(second, 3), (two + pale) / 2, atol=12)
    np.testing.assert_array_equal(at(first, 6), pale)
    np.testing.assert_array_equal(at(second, 6), pale)

    def around(image, module, colour):
        y, x = ys[module], xs[1]
        return count_colour(image[y - 13 : y + 14, x - 13 : x + 14], colour)

    # A fixed module wears a ring in the colour of the task it was learned for.
    assert around(first, 6, pictures.task_colour(0)) == 0
    assert around(second, 6, pictures.task_colour(0)) > 20
    assert around(second, 9, pictures.task_colour(0)) == 0
    # The winner's modules have a dark edge.
    assert around(first, 0, pictures.INK) == 0
    assert around(second, 0, pictures.INK) > 5


def test_gif_draws_lines_of_the_winner_and_the_fixed_path(tmp_path):
    empty = np.zeros((LAYERS, MODULES), np.uint8)
    best, fixed = empty.copy(), empty.copy()
    # One module a layer in the same row makes for lines straight across.
    best[:, 2] = fixed[:, 7] = 1
    frames = [
        Snapshot("a", 0, 0.0, empty[None], empty, empty),
        Snapshot("b", 0, 0.5, empty[None], best, fixed),
    ]
    (blank, image), _ = gif_frames(animate(tmp_path, frames))
    xs, ys = grid_places(blank[70:345, 60:380])
    between = 60 + (xs[0] + xs[1]) // 2

    def line_at(module):
        """The darkest colour near the module's row, midway between two layers."""
        strip = image[70 + ys[module] - 3 : 70 + ys[module] + 4, between].astype(int)
        return strip[strip.sum(axis=1).argmin()]

    one, two = (np.array(pictures._rgb8(c)) for c in pictures.TASK_COLOURS[:2])
    np.testing.assert_allclose(line_at(2), 0.9 * two + 0.1 * 255, atol=30)
    np.testing.assert_allclose(line_at(7), 0.5 * one + 0.5 * 255, atol=30)
    np.testing.assert_array_equal(line_at(5), 255)


def test_gif_draws_both_tasks_fitness_on_the_same_axes(tmp_path):
    arrays, _ = gif_frames(animate(tmp_path, snapshots(6, 6)))
    plots = [array[60:345, 480:] for array in arrays]
    one, two = pictures.TASK_COLOURS[:2]
    assert all(count_colour(plot, one) > 20 for plot in plots)
    assert all(count_colour(plot, two) == 0 for plot in plots[:6])
    assert all(count_colour(plot, two) > 20 for plot in plots[6:])
    # Task 2 starts out above the best of task 1, and both curves end at the same
    # generation, so what sets them apart is their height.
    blue, orange = (
        np.argwhere((plots[-1][:160] == pictures._rgb8(colour)).all(axis=-1))
        for colour in (one, two)
    )
    assert orange[:, 0].mean() < blue[:, 0].mean()
    assert abs(orange[:, 1].max() - blue[:, 1].max()) <= 1


def test_gif_has_a_white_background(tmp_path):
    arrays, _ = gif_frames(animate(tmp_path, snapshots(2, 2)))
    for array in arrays:
        assert colours_in(array[[0, -1]]) == {pictures.BACKGROUND}


@pytest.mark.parametrize("fitness", [float("nan"), float("-inf"), 3.0])
def test_gif_of_a_single_frame(tmp_path, fitness):
    paths = random_paths(1, 1, 1)
    frame = Snapshot("a", 0, fitness, paths, paths[0], 0 * paths[0])
    assert len(gif_frames(animate(tmp_path, [frame]))[0]) == 1


def test_gif_rejects_no_frames_and_mixed_grids(tmp_path):
    with pytest.raises(ValueError):
        pictures.animate_evolution(tmp_path / "evolution.gif", [])
    mixed = snapshots(2) + snapshots(2, modules=4)
    with pytest.raises(ValueError):
        pictures.animate_evolution(tmp_path / "evolution.gif", mixed)
    assert not list(tmp_path.iterdir())


# Files

PICTURES = {
    "paths": lambda target: pictures.draw_paths(target, two_paths(), ["a", "b"]),
    "evolution": lambda target: pictures.animate_evolution(target, snapshots(2)),
}


@pytest.mark.parametrize("picture", PICTURES)
def test_an_existing_picture_is_replaced(tmp_path, picture):
    target = tmp_path / "picture"
    target.write_bytes(b"old")
    PICTURES[picture](str(target))
    assert list(tmp_path.iterdir()) == [target]
    with Image.open(target) as image:
        image.load()


def refuse(*_args, **_options):
    raise OSError("no")


def write_half_then_refuse(path, data):
    with open(path, "wb") as file:
        file.write(data[: len(data) // 2])
    raise OSError("disk full")


@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("failing", ["write", "replace"])
def test_a_failing_write_changes_nothing(tmp_path, monkeypatch, picture, failing):
    if failing == "write":
        monkeypatch.setattr(Path, "write_bytes", write_half_then_refuse)
    else:
        monkeypatch.setattr(pictures.os, "replace", refuse)
    target = tmp_path / "picture"
    with open(target, "wb") as file:
        file.write(b"old")
    with pytest.raises(OSError):
        PICTURES[picture](target)
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_bytes() == b"old"


def test_a_missing_folder_is_an_os_error(tmp_path):
    with pytest.raises(OSError):
        PICTURES["paths"](tmp_path / "missing" / "paths.png")
    assert not list(tmp_path.iterdir())


def test_drawing_leaves_pyplot_and_tensorflow_alone(tmp_path):
    code = (
        "import sys, numpy, pictures, plotting; "
        "pictures.draw_paths(sys.argv[1], numpy.ones((1, 2, 2)), ['a']); "
        "assert 'matplotlib.pyplot' not in sys.modules; "
        "assert 'tensorflow' not in sys.modules"
    )
    target = tmp_path / "paths.png"
    folder = Path(pictures.__file__).parent
    subprocess.run([sys.executable, "-c", code, target], check=True, cwd=folder)
    assert target.exists()

"""Tests of the pictures, all from synthetic paths and results."""

import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from PIL import Image, ImageSequence

import plotting
from plotting import Snapshot

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
    count = len(plotting.TASK_COLOURS)
    assert len({plotting.task_colour(i) for i in range(count)}) == count
    assert plotting.task_colour(count) == plotting.task_colour(0)


def test_count_overlap():
    paths = two_paths()
    assert plotting.count_overlap(paths) == 1
    assert plotting.count_overlap(paths[:1]) == 0
    assert plotting.count_overlap([paths[0], paths[1], paths[0]]) == 3


def test_edge_shares_by_hand():
    paths = np.array([[[1, 0], [1, 1]], [[1, 1], [0, 1]]])
    shares = plotting.edge_shares(paths)
    into, between, out = shares[:2], shares[2:6].reshape(2, 2), shares[6:]
    np.testing.assert_allclose(into, [1, 0.5])
    np.testing.assert_allclose(between, [[0.5, 1], [0, 0.5]])
    np.testing.assert_allclose(out, [0.5, 1])


def test_edge_shares_follow_the_order_of_edge_curves():
    centres = plotting.module_centres(3, 4, (1, 3), (0, 3))
    curves = plotting.edge_curves(centres, (0, 1.5), (4, 1.5))
    path = np.zeros((1, 3, 4))
    path[0, [0, 1, 2], [1, 3, 0]] = 1
    drawn = curves[plotting.edge_shares(path) > 0]
    stops = [(0, 1.5), *centres[[0, 1, 2], [1, 3, 0]], (4, 1.5)]
    np.testing.assert_allclose(drawn[:, 0], stops[:-1])
    np.testing.assert_allclose(drawn[:, -1], stops[1:])


def test_module_centres_run_right_and_down():
    centres = plotting.module_centres(3, 5, (10, 30), (0, 40))
    assert centres.shape == (3, 5, 2)
    np.testing.assert_allclose(centres[:, 0, 0], [10, 20, 30])
    np.testing.assert_allclose(centres[1, :, 1], [40, 30, 20, 10, 0])
    np.testing.assert_allclose(
        plotting.module_centres(1, 1, (10, 30), (0, 40)), [[[20, 20]]]
    )


def test_task_indices():
    frames = snapshots(3, 2)
    assert plotting.task_indices(frames) == [0, 0, 0, 1, 1]
    again = snapshots(2) + snapshots(2)
    assert plotting.task_indices(again) == [0, 0, 1, 1]
    assert plotting.task_indices(frames[:1]) == [0]


@given(
    counts=st.lists(st.integers(1, 300), min_size=1, max_size=6),
    limit=st.integers(1, 100),
)
def test_choose_frames(counts, limit):
    tasks = np.repeat(np.arange(len(counts)), counts).tolist()
    chosen = plotting.choose_frames(tasks, limit)
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
    chosen = plotting.choose_frames(tasks, 48)
    assert sum(position < 200 for position in chosen) == 40
    assert chosen[-8:] == list(range(200, 208))


# Population image


def test_population_image_cells_are_exact():
    paths = random_paths(7, 3, 4)
    image = plotting.population_image(paths)
    cell, gap = plotting.CELL, plotting.LAYER_GAP
    assert image.dtype == np.uint8
    assert image.shape == (7 * cell - 1, 3 * (4 * cell - 1) + 2 * gap, 3)
    assert colours_in(image) == {
        plotting.BACKGROUND,
        plotting.PALE,
        plotting.task_colour(0),
    }
    painted = np.zeros(image.shape[:2], bool)
    for candidate, layer, module in np.ndindex(paths.shape):
        y = candidate * cell
        x = layer * (4 * cell - 1 + gap) + module * cell
        square = np.s_[y : y + cell - 1, x : x + cell - 1]
        used = paths[candidate, layer, module]
        expected = plotting.task_colour(0) if used else plotting.PALE
        assert colours_in(image[square]) == {expected}
        painted[square] = True
    assert colours_in(image[~painted]) == {plotting.BACKGROUND}


def test_population_image_takes_booleans_and_one_of_each():
    image = plotting.population_image(np.ones((1, 1, 1), bool))
    side = plotting.CELL - 1
    assert image.shape == (side, side, 3)
    assert colours_in(image) == {plotting.task_colour(0)}


# Paths


def draw(tmp_path, paths, names, kinds=None):
    target = tmp_path / "paths.png"
    plotting.draw_paths(target, paths, names, kinds)
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
    pale = (image == plotting._rgb8(plotting.PALE)).all(axis=-1)
    xs, ys = runs(pale.any(axis=0)), runs(pale.any(axis=1))
    assert (len(xs), len(ys)) == (LAYERS, MODULES)
    return xs, ys


def test_paths_png_shows_who_uses_each_module(tmp_path):
    names, paths = ["1v3", "6v7"], two_paths()
    xs, ys = grid_places(draw(tmp_path, 0 * paths, names))
    image = draw(tmp_path, paths, names)
    one, two = plotting.TASK_COLOURS[:2]
    halves = {(1, 0): (one, one), (0, 1): (two, two), (1, 1): (one, two)}
    for layer, module in np.ndindex(LAYERS, MODULES):
        users = tuple(paths[:, layer, module].tolist())
        left, right = halves.get(users, (plotting.PALE, plotting.PALE))
        y = ys[module]
        assert colours_in(image[y, xs[layer] - 8]) == {left}
        assert colours_in(image[y, xs[layer] + 8]) == {right}


def test_paths_png_has_a_white_background(tmp_path):
    image = draw(tmp_path, two_paths(), ["1v3", "6v7"])
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    assert colours_in(border) == {plotting.BACKGROUND}


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
    palette = plotting.TASK_COLOURS
    for colour in palette[:tasks]:
        assert count_colour(image, colour) > 1000
    for colour in palette[tasks:]:
        assert count_colour(image, colour) == 0


def test_paths_legend_counts_modules_and_overlap():
    def labels(paths, names, kinds=None):
        entries = plotting._path_legend(paths, names, kinds)
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
    assert colours_in(discs[0]) == {plotting.PALE}
    muted = [count_colour(disc, plotting.MUTED) for disc in discs]
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
        plotting.draw_paths(tmp_path / "paths.png", paths, names, kinds)
    assert not list(tmp_path.iterdir())


# Animation


def animate(tmp_path, frames, **options):
    target = tmp_path / "evolution.gif"
    plotting.animate_evolution(target, frames, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["evolution.gif"]
    return target


def test_gif_has_the_chosen_frames_and_holds_each_tasks_last(tmp_path):
    target = animate(tmp_path, snapshots(9, 5), limit=8)
    with Image.open(target) as image:
        assert image.format == "GIF"
        assert image.size == plotting.GIF_SIZE
        assert image.info["loop"] == 0
    arrays, durations = gif_frames(target)
    short, long = plotting.GIF_FRAME_MS, plotting.GIF_HOLD_MS
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
    assert len(gif_frames(target)[0]) == plotting.GIF_FRAMES
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

    one, two = (np.array(plotting._rgb8(c)) for c in plotting.TASK_COLOURS[:2])
    pale = np.array(plotting._rgb8(plotting.PALE))
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
    assert around(first, 6, plotting.task_colour(0)) == 0
    assert around(second, 6, plotting.task_colour(0)) > 20
    assert around(second, 9, plotting.task_colour(0)) == 0
    # The winner's modules have a dark edge.
    assert around(first, 0, plotting.INK) == 0
    assert around(second, 0, plotting.INK) > 5


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

    one, two = (np.array(plotting._rgb8(c)) for c in plotting.TASK_COLOURS[:2])
    np.testing.assert_allclose(line_at(2), 0.9 * two + 0.1 * 255, atol=30)
    np.testing.assert_allclose(line_at(7), 0.5 * one + 0.5 * 255, atol=30)
    np.testing.assert_array_equal(line_at(5), 255)


def test_gif_draws_both_tasks_fitness_on_the_same_axes(tmp_path):
    arrays, _ = gif_frames(animate(tmp_path, snapshots(6, 6)))
    plots = [array[60:345, 480:] for array in arrays]
    one, two = plotting.TASK_COLOURS[:2]
    assert all(count_colour(plot, one) > 20 for plot in plots)
    assert all(count_colour(plot, two) == 0 for plot in plots[:6])
    assert all(count_colour(plot, two) > 20 for plot in plots[6:])
    # Task 2 starts out above the best of task 1, and both curves end at the same
    # generation, so what sets them apart is their height.
    blue, orange = (
        np.argwhere((plots[-1][:160] == plotting._rgb8(colour)).all(axis=-1))
        for colour in (one, two)
    )
    assert orange[:, 0].mean() < blue[:, 0].mean()
    assert abs(orange[:, 1].max() - blue[:, 1].max()) <= 1


def test_gif_has_a_white_background(tmp_path):
    arrays, _ = gif_frames(animate(tmp_path, snapshots(2, 2)))
    for array in arrays:
        assert colours_in(array[[0, -1]]) == {plotting.BACKGROUND}


@pytest.mark.parametrize("fitness", [float("nan"), float("-inf"), 3.0])
def test_gif_of_a_single_frame(tmp_path, fitness):
    paths = random_paths(1, 1, 1)
    frame = Snapshot("a", 0, fitness, paths, paths[0], 0 * paths[0])
    assert len(gif_frames(animate(tmp_path, [frame]))[0]) == 1


def test_gif_rejects_no_frames_and_mixed_grids(tmp_path):
    with pytest.raises(ValueError):
        plotting.animate_evolution(tmp_path / "evolution.gif", [])
    mixed = snapshots(2) + snapshots(2, modules=4)
    with pytest.raises(ValueError):
        plotting.animate_evolution(tmp_path / "evolution.gif", mixed)
    assert not list(tmp_path.iterdir())


# Generations


def repeats():
    orders = [(("1v3", 40), ("6v7", 10)), (("6v7", 30), ("1v3", 20))]
    return [
        {
            "seed": seed,
            "tasks": [{"name": n, "generations": g + seed} for n, g in order],
        }
        for seed in (0, 2)
        for order in orders
    ]


def test_by_task_tells_first_from_second():
    gathered = plotting.by_task(repeats())
    generations = {
        name: {
            when: [task["generations"] for task in tasks] for when, tasks in g.items()
        }
        for name, g in gathered.items()
    }
    assert list(generations) == ["1v3", "6v7"]
    assert generations["1v3"] == {"first": [40, 42], "second": [20, 22]}
    assert generations["6v7"] == {"first": [30, 32], "second": [10, 12]}


def test_by_task_calls_places_after_the_second_later():
    sequence = {"tasks": [{"name": name} for name in "abca"]}
    gathered = plotting.by_task([sequence, {"tasks": [{"name": "b"}]}])
    counts = {
        name: {when: len(tasks) for when, tasks in groups.items()}
        for name, groups in gathered.items()
    }
    assert counts == {
        "a": {"first": 1, "later": 1},
        "b": {"first": 1, "later": 1},
        "c": {"first": 0, "later": 1},
    }


def texts_of(first, second):
    axes = Figure().add_subplot()
    groups = {"first": np.array(first), "second": np.array(second)}
    plotting._draw_histograms(axes, "1v3", groups)
    return titles(axes)


def titles(axes):
    """A panel's title, and the lines of its key from the top."""
    lines = [text.get_text() for text in axes.texts if isinstance(text, Annotation)]
    return axes.get_title(loc="left"), lines[::-1]


def written_on(axes):
    """The texts within a panel, which are not in its key."""
    return [t.get_text() for t in axes.texts if not isinstance(t, Annotation)]


def test_generations_panel_says_means_errors_and_speedup():
    title, lines = texts_of([40.0, 42.0], [20.0, 21.0])
    assert re.fullmatch(r"1v3: speedup 2\.00 \[1\.9\d, 2\.\d\d\]", title)
    assert lines == [
        "learned first: 41.0 ± 1.0 generations, n = 2",
        "learned second: 20.5 ± 0.5 generations, n = 2",
        "± standard error, [95 % confidence interval]",
    ]


def test_generations_panel_says_no_more_than_it_knows():
    title, lines = texts_of([], [20.0])
    assert title == "1v3: generations needed"
    assert lines == ["learned second: 20.0 generations, n = 1"]
    assert texts_of([3.0], [0.0])[0] == "1v3: generations needed"
    title, lines = texts_of([30.0], [20.0])
    assert title == "1v3: speedup 1.50"
    assert len(lines) == 2


def test_generations_png_has_both_histograms(tmp_path):
    target = tmp_path / "generations.png"
    plotting.plot_generations(target, repeats())
    assert list(tmp_path.iterdir()) == [target]
    with Image.open(target) as image:
        assert image.format == "PNG"
        pixels = np.array(image.convert("RGB"))
    left, right = np.array_split(pixels, 2, axis=1)
    for panel in (left, right):
        for colour in plotting.TASK_COLOURS[:2]:
            assert count_colour(panel, colour) > 1000


# Accuracies


@pytest.fixture
def panels_of(monkeypatch):
    """Draws a picture, and gives its panels instead of writing it."""
    figures = []
    monkeypatch.setattr(plotting, "_save_png", lambda _, figure: figures.append(figure))

    def draw(plot, results):
        plot("picture.png", results)
        return [axes for axes in figures[-1].axes if axes.axison]

    return draw


def learned(*names, **outcome):
    """A repeat of these tasks, each with that outcome."""
    return {"tasks": [{"name": name} | outcome for name in names]}


def test_accuracies_are_bars_of_means_with_errors(panels_of):
    found = [learned("1v3", "1v2", fitness=f, accuracy_test=0.5) for f in (0.9, 1.0)]
    found += [learned("1v2", "1v3", fitness=0.8, accuracy_test=0.6)]
    panel, _ = panels_of(plotting.plot_accuracies, found)
    key = ["learned first, n = 2", "learned second, n = 1", "mean ± standard error"]
    assert titles(panel) == ("1v3: final accuracy", key)
    names = [label.get_text() for label in panel.get_xticklabels()]
    assert names == ["training images", "held-out images"]
    bars = sorted(panel.patches, key=lambda bar: bar.get_x())
    assert [bar.get_height() for bar in bars] == pytest.approx([95, 80, 50, 60])
    one, two = (to_rgb(colour) for colour in plotting.TASK_COLOURS[:2])
    assert [bar.get_facecolor()[:3] for bar in bars] == [one, two, one, two]
    errors = [bar.errorbar for bar in panel.containers if hasattr(bar, "errorbar")]
    (stem,) = errors[0].lines[2]
    np.testing.assert_allclose(stem.get_segments()[0][:, 1], [90, 100])
    values = {"95.00 ± 5.00", "50.00 ± 0.00", "80.00", "60.00"}
    assert set(written_on(panel)) == values


def test_accuracies_of_one_repeat_have_no_errors(panels_of):
    found = [learned("1v3", "1v2", fitness=0.9, accuracy_test=0.5)]
    for panel, when in zip(
        panels_of(plotting.plot_accuracies, found), ("first", "second")
    ):
        assert titles(panel)[1] == [f"learned {when}, n = 1"]
        assert written_on(panel) == ["90.00", "50.00"]


# How often modules are used


@given(
    paths=arrays(int, st.tuples(*[st.integers(1, 4)] * 3), elements=st.integers(0, 5))
)
def test_module_usage_counts_the_paths(paths):
    n, layers, _ = paths.shape
    shares = plotting.module_usage(paths, 6)
    assert shares.shape == (layers, 6)
    for layer, module in np.ndindex(layers, 6):
        users = sum(module in path[layer] for path in paths.tolist())
        assert shares[layer, module] == pytest.approx(users / n)


def drawn_cells(panel, layers, modules):
    """The colours of a panel's modules, float [L, M, 3]."""
    (mesh,) = panel.collections
    return np.asarray(mesh.get_array()).reshape(layers, modules, 3)


def test_usage_is_a_grid_a_task_and_place(panels_of):
    flags = {"L": 2, "M": 4, "N": 2}
    paths = [[[0, 1], [2, 2]], [[0, 3], [2, 1]]]
    found = [learned("1v3", "1v2", path=path) | {"flags": flags} for path in paths]
    found += [learned("1v2", path=paths[0]) | {"flags": flags}]
    panels = panels_of(plotting.plot_usage, found)
    assert [titles(panel) for panel in panels] == [
        (
            f"{title}: use of modules",
            [f"% of best paths that use it, n = {n} (random: 50 %)"],
        )
        for title, n in [
            ("1v3, learned first", 2),
            ("1v2, learned first", 1),
            ("1v2, learned second", 2),
        ]
    ]
    percent = ["100", "50", "0", "50", "0", "50", "100", "0"]
    for place, panel in enumerate((panels[0], panels[2])):
        assert written_on(panel) == percent
        cells = drawn_cells(panel, 2, 4)
        full, pale = to_rgb(plotting.task_colour(place)), to_rgb(plotting.PALE)
        np.testing.assert_allclose(cells[0, 0], full)
        np.testing.assert_allclose(cells[1, 2], full)
        np.testing.assert_allclose(cells[0, 2], pale)
        np.testing.assert_allclose(cells[1, 1], np.add(full, pale) / 2)
        low, high = panel.get_ylim()
        assert low > high  # the first layer is on top
        assert panel.get_xlabel() == "module" and panel.get_ylabel() == "layer"


def test_usage_of_a_wide_grid_is_told_by_colour_alone(panels_of):
    paths = [[[0], [90]], [[0], [5]], [[7], [6]]]
    flags = {"L": 2, "M": 100, "N": 1}
    found = [learned("1v3", path=path) | {"flags": flags} for path in paths]
    (panel,) = panels_of(plotting.plot_usage, found)
    assert written_on(panel) == []
    line = "% of best paths that use it, n = 3 (random: 1 %)"
    assert titles(panel)[1] == [line, "full colour: 67 %"]
    cells = drawn_cells(panel, 2, 100)
    np.testing.assert_allclose(cells[0, 0], to_rgb(plotting.task_colour(0)))


# Overlaps and retention


def recorded_repeats(*overlaps):
    tasks = [
        {"name": name, "generations": 100 + place, "modules_so_far": 9 + place}
        for place, name in enumerate(("1v3", "1v2"))
    ]
    result = {"tasks": tasks, "flags": {"L": 3, "M": 10, "N": 3}}
    result["retention"] = [[0.9], [0.9, 0.95]]
    return [result | {"overlap": overlap} for overlap in overlaps]


def test_overlaps_picture_says_mean_and_chance(panels_of):
    (axes,) = panels_of(plotting.plot_overlaps, recorded_repeats(1, 2, 2, 3))
    assert [bar.get_height() for bar in axes.patches] == [0, 1, 2, 1, 0, 0, 0, 0, 0, 0]
    lines = ["mean 2.00 ± 0.41, n = 4", "two random paths: 2.70"]
    assert titles(axes) == ("1v3, then 1v2: overlap", lines)


def test_retention_picture_has_the_means(panels_of):
    found = recorded_repeats(1, 1)
    found[1]["retention"] = [[0.8], [0.8, 0.85]]
    (axes,) = panels_of(plotting.plot_retention, found)
    texts = [text.get_text() for text in axes.texts]
    assert texts[:3] == ["85.00", "85.00", "90.00"]
    assert {"100", "101", "9", "10"} <= set(texts)
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "after 1v3",
        "after 1v2",
    ]


# Files

PICTURES = {
    "paths": lambda target: plotting.draw_paths(target, two_paths(), ["a", "b"]),
    "evolution": lambda target: plotting.animate_evolution(target, snapshots(2)),
    "generations": lambda target: plotting.plot_generations(target, repeats()),
    "overlaps": lambda target: plotting.plot_overlaps(target, recorded_repeats(1, 2)),
    "retention": lambda target: plotting.plot_retention(target, recorded_repeats(1, 2)),
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
        monkeypatch.setattr(plotting.os, "replace", refuse)
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
        "import sys, numpy, plotting; "
        "plotting.draw_paths(sys.argv[1], numpy.ones((1, 2, 2)), ['a']); "
        "assert 'matplotlib.pyplot' not in sys.modules; "
        "assert 'tensorflow' not in sys.modules"
    )
    target = tmp_path / "paths.png"
    folder = Path(plotting.__file__).parent
    subprocess.run([sys.executable, "-c", code, target], check=True, cwd=folder)
    assert target.exists()


# Curves


def test_mean_curve_has_the_interval_of_students_t():
    curves = [
        {"generation": [1, 2, 3], "fitness": [level] * 3} for level in (0.4, 0.5, 0.6)
    ]
    generations, mean, margin = plotting.mean_curve(curves)
    assert generations.tolist() == [1, 2, 3]
    assert mean == pytest.approx([0.5] * 3)
    # 4.3027 is the quantile of 97.5 % for two degrees of freedom.
    assert margin == pytest.approx([4.3027 * 0.1 / 3**0.5] * 3, rel=1e-4)


def test_mean_curve_goes_on_with_the_last_fitness():
    curves = [
        {"generation": [1], "fitness": [0.8]},
        {"generation": list(range(1, 101)), "fitness": [0.2] * 100},
    ]
    generations, mean, _ = plotting.mean_curve(curves)
    assert len(generations) == 100
    assert mean == pytest.approx([0.5] * 100)


def test_mean_curve_smooths_over_the_window():
    spike = [0.0] * 100
    spike[50] = 1.0
    curve = {"generation": list(range(100)), "fitness": spike}
    _, mean, margin = plotting.mean_curve([curve])
    assert mean.max() == pytest.approx(1 / plotting.CURVE_WINDOW)
    assert np.count_nonzero(mean > 1e-12) == plotting.CURVE_WINDOW
    assert not margin.any()


def test_curves_picture_shows_first_and_second_in_their_colours(tmp_path):
    def task(name, level):
        steps = list(range(1, 60))
        curve = {"generation": steps, "fitness": [level] * len(steps)}
        return {"name": name, "curve": curve}

    results = [
        {"tasks": [task("one", 0.3), task("two", 0.9)]},
        {"tasks": [task("two", 0.5), task("one", 0.6)]},
    ]
    path = tmp_path / "curves.png"
    plotting.plot_curves(path, results)
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    for place in (0, 1):
        colour = plotting._rgb8(plotting.task_colour(place))
        assert (pixels == colour).all(axis=1).sum() > 500


def test_curves_have_a_labelled_band_within_what_can_be(panels_of):
    found = [
        learned("1v3", curve={"generation": [1, 2], "fitness": [level] * 2})
        for level in (0.2, 1.0)
    ]
    (panel,) = panels_of(plotting.plot_curves, found)
    key = ["learned first, n = 2", "band: 95 % confidence interval of the mean"]
    assert titles(panel) == ("1v3: learning curve", key)
    (band,) = panel.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (0, 1)
    (line,) = panel.lines
    assert line.get_ydata() == pytest.approx([0.6, 0.6])


def test_a_single_curve_has_no_band(panels_of):
    found = [learned("1v3", curve={"generation": [1, 2], "fitness": [0.5] * 2})]
    (panel,) = panels_of(plotting.plot_curves, found)
    assert titles(panel)[1] == ["learned first, n = 1"]


def test_scores_are_a_line_a_repeat_and_task(panels_of):
    episodes = plotting.recorded.SCORE_EPISODES

    def game(score):
        steps = [100_000, 200_000]
        return {"steps": steps, "return": [score] * 2, "episodes": [episodes] * 2}

    found = [learned("pong", "pong", curve=game(score)) for score in (3, 5)]
    (panel,) = panels_of(plotting.plot_scores, found)
    key = ["learned as task 1, n = 2", "learned as task 2, n = 2"]
    assert titles(panel) == ("pong: learning curve", key)
    assert panel.get_xlabel() == "million agent steps of the task"
    one, two = plotting.TASK_COLOURS[:2]
    assert [line.get_color() for line in panel.lines] == [one, one, two, two]
    assert [line.get_ydata()[-1] for line in panel.lines] == [3, 5, 3, 5]
    np.testing.assert_allclose(panel.lines[0].get_xdata(), [0.1, 0.2])


@pytest.mark.parametrize(
    "plot",
    [plotting.plot_accuracies, plotting.plot_curves, plotting.plot_scores]
    + [plotting.plot_generations, plotting.plot_overlaps, plotting.plot_usage],
)
@pytest.mark.parametrize("results", [[], [{"tasks": []}]])
def test_a_picture_of_nothing_is_refused(tmp_path, plot, results):
    with pytest.raises(ValueError, match="they hold no"):
        plot(tmp_path / "picture.png", results)
    assert not list(tmp_path.iterdir())


# The command


def recorded_as(control, generations):
    """A repeat as binary_mnist_pathnet.py writes it."""
    result = learned(
        "1v3",
        "1v2",
        generations=generations,
        fitness=0.99,
        accuracy_test=0.97,
        path=[[0, 1], [1, 2]],
        curve={"generation": [1, generations], "fitness": [0.5, 0.99]},
        modules_so_far=4,
        converged=True,
    )
    flags = {"L": 2, "M": 4, "N": 2, "control": "pathnet,scratch"}
    result |= {"script": "binary_mnist", "seed": 0, "control": control, "flags": flags}
    return result | {"overlap": 1, "retention": [[0.97], [0.97, 0.97]]}


def command(folder, results, *options):
    """Runs plotting.py on a file with these results, in a folder of its own."""
    (folder / "results.jsonl").write_text(
        "".join(json.dumps(result) + "\n" for result in results)
    )
    return subprocess.run(
        [sys.executable, plotting.__file__, "results.jsonl", *options],
        cwd=folder,
        capture_output=True,
        text=True,
    )


def test_the_command_draws_every_picture_of_every_setting(tmp_path):
    names = ["generations", "curves", "accuracies", "usage", "overlaps", "retention"]
    found = [recorded_as(c, g) for c in ("pathnet", "scratch") for g in (50, 60)]
    done = command(tmp_path, found, *(f"--{name}={name}.png" for name in names))
    assert done.returncode == 0, done.stderr
    assert "| 2: 1v2 | pathnet | 1 |" in done.stdout
    for name in names:
        for control in ("pathnet", "scratch"):
            picture = f"{name}_control={control}.png"
            assert f"Picture: {picture}\n" in done.stdout
            with Image.open(tmp_path / picture) as image:
                assert image.format == "PNG"
    assert len(list(tmp_path.iterdir())) == 1 + 2 * len(names)


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("--scores=scores.png", "flag --scores: .* they have no 'steps'"),
        ("--curves=missing/curves.png", "missing/curves.png: No such file"),
    ],
)
def test_a_picture_that_cannot_be_drawn_is_one_line(tmp_path, option, reason):
    done = command(tmp_path, [recorded_as("pathnet", 50)], option)
    assert done.returncode == 2
    assert re.search(reason, done.stderr) and done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["results.jsonl"]


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ("", "a/b/c.png"),
        ("control=scratch", "a/b/c_control=scratch.png"),
        ("B=2, games=['pong', '../x']", "a/b/c_B=2,_games=_pong_,_.._x_.png"),
    ],
)
def test_the_picture_of_a_setting_stays_in_its_folder(setting, name):
    assert plotting.setting_filename("a/b/c.png", setting) == Path(name)

"""Tests of the animation of a population, all synthetic."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_helpers import (
    LAYERS,
    MODULES,
    colours_in,
    count_colour,
    grid_places,
    random_paths,
    snapshots,
)
from PIL import Image, ImageSequence

from reports import colours, evolution
from reports.evolution import Snapshot


def test_task_indices():
    frames = snapshots(3, 2)
    assert evolution.task_indices(frames) == [0, 0, 0, 1, 1]
    again = snapshots(2) + snapshots(2)
    assert evolution.task_indices(again) == [0, 0, 1, 1]
    assert evolution.task_indices(frames[:1]) == [0]


@given(
    counts=st.lists(st.integers(1, 300), min_size=1, max_size=6),
    limit=st.integers(1, 100),
)
def test_choose_frames(counts, limit):
    tasks = np.repeat(np.arange(len(counts)), counts).tolist()
    chosen = evolution.choose_frames(tasks, limit)
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
    chosen = evolution.choose_frames(tasks, 48)
    assert sum(position < 200 for position in chosen) == 40
    assert chosen[-8:] == list(range(200, 208))


def gif_frames(path):
    """Each frame as an [H, W, 3] array, and each frame's milliseconds."""
    with Image.open(path) as image:
        arrays, durations = [], []
        for frame in ImageSequence.Iterator(image):
            arrays.append(np.array(frame.convert("RGB")))
            durations.append(frame.info["duration"])
    return arrays, durations


def animate(tmp_path, frames, **options):
    target = tmp_path / "evolution.gif"
    evolution.animate_evolution(target, frames, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["evolution.gif"]
    return target


def test_gif_has_the_chosen_frames_and_holds_each_tasks_last(tmp_path):
    target = animate(tmp_path, snapshots(9, 5), limit=8)
    with Image.open(target) as image:
        assert image.format == "GIF"
        assert image.size == evolution.GIF_SIZE
        assert image.info["loop"] == 0
    arrays, durations = gif_frames(target)
    short, long = evolution.GIF_FRAME_MS, evolution.GIF_HOLD_MS
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
    assert len(gif_frames(target)[0]) == evolution.GIF_FRAMES
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

    one, two = (np.array(colours.rgb_bytes(c)) for c in colours.TASK_COLOURS[:2])
    pale = np.array(colours.rgb_bytes(colours.PALE))
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
    assert around(first, 6, colours.task_colour(0)) == 0
    assert around(second, 6, colours.task_colour(0)) > 20
    assert around(second, 9, colours.task_colour(0)) == 0
    # The winner's modules have a dark edge.
    assert around(first, 0, colours.INK) == 0
    assert around(second, 0, colours.INK) > 5


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

    one, two = (np.array(colours.rgb_bytes(c)) for c in colours.TASK_COLOURS[:2])
    np.testing.assert_allclose(line_at(2), 0.9 * two + 0.1 * 255, atol=30)
    np.testing.assert_allclose(line_at(7), 0.5 * one + 0.5 * 255, atol=30)
    np.testing.assert_array_equal(line_at(5), 255)


def test_gif_draws_both_tasks_fitness_on_the_same_axes(tmp_path):
    arrays, _ = gif_frames(animate(tmp_path, snapshots(6, 6)))
    plots = [array[60:345, 480:] for array in arrays]
    one, two = colours.TASK_COLOURS[:2]
    assert all(count_colour(plot, one) > 20 for plot in plots)
    assert all(count_colour(plot, two) == 0 for plot in plots[:6])
    assert all(count_colour(plot, two) > 20 for plot in plots[6:])
    # Task 2 starts out above the best of task 1, and both curves end at the same
    # generation, so what sets them apart is their height.
    blue, orange = (
        np.argwhere((plots[-1][:160] == colours.rgb_bytes(colour)).all(axis=-1))
        for colour in (one, two)
    )
    assert orange[:, 0].mean() < blue[:, 0].mean()
    assert abs(orange[:, 1].max() - blue[:, 1].max()) <= 1


def test_gif_has_the_curve_of_the_later_task_from_scratch(tmp_path):
    frames = snapshots(6, 6)
    plain, _ = gif_frames(animate(tmp_path, frames))
    curve = {"generation": [0, 1, 2, 3, 4, 5], "fitness": [0.1] * 6}
    path = tmp_path / "compared.gif"
    evolution.animate_evolution(path, frames, [curve, curve])
    compared, _ = gif_frames(path)
    orange = colours.TASK_COLOURS[1]
    for number, (without, within) in enumerate(zip(plain, compared)):
        added = count_colour(within, orange) - count_colour(without, orange)
        assert (added > 40) == (number >= 6), number


def test_gif_has_a_white_background(tmp_path):
    arrays, _ = gif_frames(animate(tmp_path, snapshots(2, 2)))
    for array in arrays:
        assert colours_in(array[[0, -1]]) == {colours.BACKGROUND}


@pytest.mark.parametrize("fitness", [float("nan"), float("-inf"), 3.0])
def test_gif_of_a_single_frame(tmp_path, fitness):
    paths = random_paths(1, 1, 1)
    frame = Snapshot("a", 0, fitness, paths, paths[0], 0 * paths[0])
    assert len(gif_frames(animate(tmp_path, [frame]))[0]) == 1


def test_gif_rejects_no_frames_and_mixed_grids(tmp_path):
    with pytest.raises(ValueError):
        evolution.animate_evolution(tmp_path / "evolution.gif", [])
    mixed = snapshots(2) + snapshots(2, modules=4)
    with pytest.raises(ValueError):
        evolution.animate_evolution(tmp_path / "evolution.gif", mixed)
    assert not list(tmp_path.iterdir())

"""Tests of pathnet.py; the grid is compared with benchmarks/masked_pathnet.py."""

import functools
import itertools
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from masked_pathnet import MaskedPathNet

import pathnet
from common import tf1 as tf
from pathnet import Grid, PathNet, Training

ROOT = Path(pathnet.__file__).parent

no_deadline = settings(deadline=None)
seeds = st.integers(0, 2**32 - 1)


@st.composite
def shapes(draw):
    """(L, M, N) with N <= M."""
    M = draw(st.integers(1, 12))
    return draw(st.integers(1, 5)), M, draw(st.integers(1, M))


# ---- Paths ----


@no_deadline
@given(seed=seeds, shape=shapes(), count=st.integers(1, 8))
def test_random_paths_name_different_modules(seed, shape, count):
    L, M, N = shape
    paths = pathnet.random_paths(np.random.default_rng(seed), count, L, M, N)
    assert paths.shape == (count, L, N)
    assert paths.dtype == np.int64
    assert paths.min() >= 0 and paths.max() < M
    rows = paths.reshape(-1, N)
    assert all(len(set(row)) == N for row in rows.tolist())
    again = pathnet.random_paths(np.random.default_rng(seed), count, L, M, N)
    assert np.array_equal(paths, again)


def test_random_paths_are_uniform():
    """Each module is as likely as any other at each gene; bounds are 5.5 sigma."""
    count, M = 60_000, 6
    paths = pathnet.random_paths(np.random.default_rng(0), count, 2, M, 3)
    sigma = np.sqrt(count * (1 / M) * (1 - 1 / M))
    for layer, gene in np.ndindex(2, 3):
        drawn = np.bincount(paths[:, layer, gene], minlength=M)
        assert np.abs(drawn - count / M).max() < 5.5 * sigma
    pairs = paths[:, 0, 0] * M + paths[:, 1, 0]
    assert np.abs(np.bincount(pairs) / count - 1 / M**2).max() < 0.01  # independent


def test_random_paths_refuse_more_modules_than_there_are():
    with pytest.raises(ValueError, match="N=4.*M=3"):
        pathnet.random_paths(np.random.default_rng(0), 1, 2, 3, 4)


def path_arrays(M):
    leading = st.lists(st.integers(1, 4), max_size=2).map(tuple)
    shape = st.tuples(leading, st.integers(1, 4), st.integers(1, 4))
    return hnp.arrays(
        np.int64,
        shape.map(lambda s: (*s[0], s[1], s[2])),
        elements=st.integers(0, M - 1),
    )


@no_deadline
@given(seed=seeds, M=st.integers(1, 12), data=st.data())
def test_mutation_is_a_clipped_small_step(seed, M, data):
    paths = data.draw(path_arrays(M))
    before = paths.copy()
    mutant = pathnet.mutate(np.random.default_rng(seed), paths, M)
    assert np.array_equal(paths, before)
    assert mutant.shape == paths.shape and mutant.dtype == np.int64
    assert mutant.min() >= 0 and mutant.max() < M
    assert np.abs(mutant - paths).max() <= 2
    again = pathnet.mutate(np.random.default_rng(seed), paths, M)
    assert np.array_equal(mutant, again)


@no_deadline
@given(seed=seeds, M=st.integers(1, 12), step=st.integers(-3, 3), data=st.data())
def test_mutation_rate_and_bounds(seed, M, step, data):
    """With rate 1 and equal bounds it moves every gene by them, with rate 0 none."""
    paths = data.draw(path_arrays(M))
    rng = np.random.default_rng(seed)
    moved = pathnet.mutate(rng, paths, M, rate=1, low=step, high=step)
    assert np.array_equal(moved, np.clip(paths + step, 0, M - 1))
    assert np.array_equal(pathnet.mutate(rng, paths, M, rate=0), paths)


@pytest.mark.parametrize(
    "options, rate, offsets",
    [
        ({}, 1 / 12, range(-2, 3)),
        ({"rate": 0.3, "low": -1, "high": 3}, 0.3, range(-1, 4)),
    ],
)
def test_mutation_statistics(options, rate, offsets):
    """The paper's rate is 1/(N*L); offsets are uniform, both ends included.

    Bounds are 5.5 sigma: less than one false alarm in 10^6 draws of the whole test.
    """
    L, N, count = 4, 3, 50_000
    start = np.full((count, L, N), 50)
    moves = pathnet.mutate(np.random.default_rng(1), start, 100, **options) - start
    assert set(np.unique(moves)) == set(offsets)
    probability = rate / len(offsets)
    for offset in offsets:
        if offset:
            number = np.sum(moves == offset)
            sigma = np.sqrt(moves.size * probability * (1 - probability))
            assert abs(number - moves.size * probability) < 5.5 * sigma
    # Genes move independently of each other, also within a path.
    moving = probability * (len(offsets) - 1)
    both = np.mean((moves[:, 0, 0] != 0) & (moves[:, 0, 1] != 0))
    assert abs(both - moving**2) < 5.5 * np.sqrt(moving**2 / count)


@no_deadline
@given(seed=seeds, M=st.integers(1, 12), data=st.data())
def test_geopath_has_a_one_for_each_module_that_is_named(seed, M, data):
    paths = data.draw(path_arrays(M))
    geopaths = pathnet.to_geopath(paths, M)
    assert geopaths.shape == (*paths.shape[:-1], M)
    assert geopaths.dtype == np.float32
    rows = zip(paths.reshape(-1, paths.shape[-1]), geopaths.reshape(-1, M))
    for genes, row in rows:
        assert row.tolist() == [float(module in genes) for module in range(M)]
    active = geopaths.sum(-1)
    assert active.min() >= 1 and active.max() <= paths.shape[-1]


def test_overlap_counts_shared_modules():
    one = np.array([[1, 1, 0], [0, 1, 0]], np.float32)
    two = np.array([[0, 1, 1], [0, 1, 1]], np.float32)
    assert pathnet.overlap(one, two) == 2
    assert pathnet.overlap(one, one) == 3
    assert pathnet.overlap(one, 1 - one) == 0
    assert isinstance(pathnet.overlap(one, two), int)


@no_deadline
@given(seed=seeds, shape=shapes(), candi=st.integers(2, 7))
def test_diversity_is_the_mean_jaccard_distance_of_pairs(seed, shape, candi):
    rng = np.random.default_rng(seed)
    L, M, N = shape
    geopaths = pathnet.to_geopath(rng.integers(0, M, (candi, L, N)), M)
    sets = [set(zip(*np.nonzero(geopath))) for geopath in geopaths]
    distances = [
        1 - len(a & b) / len(a | b) for a, b in itertools.combinations(sets, 2)
    ]
    assert pathnet.diversity(geopaths) == pytest.approx(np.mean(distances), abs=1e-6)
    shuffled = pathnet.diversity(geopaths[rng.permutation(candi)])
    assert shuffled == pytest.approx(pathnet.diversity(geopaths), abs=1e-6)


def test_diversity_of_a_single_path_is_0():
    assert pathnet.diversity(np.ones([1, 2, 3])) == 0


def test_diversity_is_0_for_equal_and_1_for_disjoint_paths():
    same = pathnet.to_geopath(np.array([[[0, 1], [2, 3]]] * 4), 6)
    disjoint = pathnet.to_geopath(np.array([[[0, 1]], [[2, 3]], [[4, 5]]]), 6)
    assert pathnet.diversity(same) == 0
    assert pathnet.diversity(disjoint) == 1


def test_format_geopath():
    geopath = np.array([[1, 0, 0, 1], [0, 1, 0, 0]], np.float32)
    fixed_path = np.array([[1, 1, 0, 0], [0, 0, 0, 1]], np.float32)
    assert pathnet.format_geopath(geopath) == "layer 1  # . . #\nlayer 2  . # . ."
    assert (
        pathnet.format_geopath(geopath, fixed_path)
        == "layer 1  # + . #\nlayer 2  . # . +"
    )


# ---- Tournament ----


@no_deadline
@given(seed=seeds, candi=st.integers(2, 30), data=st.data())
def test_candidates_of_a_tournament_differ(seed, candi, data):
    B = data.draw(st.integers(1, candi))
    drawn = pathnet.draw_candidates(np.random.default_rng(seed), candi, B)
    assert drawn.shape == (B,)
    assert len(set(drawn.tolist())) == B
    assert set(drawn.tolist()) <= set(range(candi))


def test_every_candidate_is_drawn_alike():
    """Bounds are 5.5 sigma."""
    rng, count, candi, B = np.random.default_rng(2), 20_000, 8, 2
    drawn = [pathnet.draw_candidates(rng, candi, B) for _ in range(count)]
    times = np.bincount(np.ravel(drawn), minlength=candi)
    share = B / candi
    sigma = np.sqrt(count * share * (1 - share))
    assert np.abs(times - count * share).max() < 5.5 * sigma


@no_deadline
@given(
    seed=seeds,
    fitness=st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=2, max_size=6),
)
def test_the_first_of_the_fittest_overwrites_the_others(seed, fitness):
    rng, M = np.random.default_rng(seed), 100
    paths = rng.integers(3, M - 3, (len(fitness), 3, 4))
    before = paths.copy()
    first = fitness.index(max(fitness))

    after, winner = pathnet.overwrite_losers(rng, paths, np.array(fitness), M)
    assert winner == first
    assert np.array_equal(paths, before)
    assert after.shape == paths.shape and after.dtype == np.int64
    assert np.array_equal(after[winner], before[winner])
    assert np.abs(after - before[winner]).max() <= 2

    after, _ = pathnet.overwrite_losers(
        rng, paths, np.array(fitness), M, rate=1, low=3, high=3
    )
    expected = np.repeat(before[winner : winner + 1] + 3, len(fitness), 0)
    expected[winner] = before[winner]
    assert np.array_equal(after, expected)
    assert np.array_equal(paths, before)


def test_losers_become_different_mutants():
    paths = np.full((3, 20, 20), 50)
    after, _ = pathnet.overwrite_losers(
        np.random.default_rng(0), paths, np.array([1.0, 0.0, 0.0]), 100, rate=0.5
    )
    assert not np.array_equal(after[1], after[2])


# ---- Grid: what is built ----


def test_mutation_rules():
    assert pathnet.mutation_rule("uniform", 3, 4) == {}
    drift = pathnet.mutation_rule("drift", 3, 4)
    assert drift == {"rate": 2 / 12, "low": -4, "high": -1}
    assert pathnet.mutation_rule("drift", 1, 1)["rate"] == 1


def test_module_kinds_may_all_be_linear():
    assert (pathnet.module_kinds(3, 5, "linear") == "linear").all()


@pytest.mark.parametrize("forced", [True, False])
def test_active_modules(forced):
    grid = replace(SMALL, fixed_path_active=forced)
    geopath, fixed_path = frozen(grid, "narrow"), frozen(grid, "wide")
    expected = np.maximum(geopath, fixed_path) if forced else geopath
    np.testing.assert_array_equal(grid.active(geopath, fixed_path), expected)


def test_module_kinds():
    assert pathnet.module_kinds(3, 5).tolist() == [
        ["linear"] * 5,
        ["skip", "linear", "residual", "skip", "linear"],
        ["skip", "linear", "residual", "skip", "linear"],
    ]


@pytest.mark.parametrize(
    "aggregation, divisors",
    [("sum", (1, 1, 1)), ("average", (4, 4, 4)), ("last_average", (1, 1, 4))],
)
def test_gains(aggregation, divisors):
    grid = Grid(3, 4, 2, 5, 30, 2, aggregation=aggregation)
    relu_gain, skip_gain = grid.gains()
    first, middle, last = divisors
    relu, skip = np.array([0, 1, 1, 0]), np.array([1, 0, 1, 1])
    np.testing.assert_allclose(
        relu_gain, [np.ones(4) / first, relu / middle, relu / last], rtol=1e-6
    )
    np.testing.assert_allclose(
        skip_gain, [np.zeros(4), skip / middle, skip / last], rtol=1e-6
    )


@no_deadline
@given(T=st.integers(1, 1000))
def test_a_block_divides_the_mini_batches(T):
    assert T % pathnet.block_length(T) == 0
    assert pathnet.block_length(T) == (1 if T % 2 else 2)


# ---- Grid against the reference ----

SMALL = Grid(L=3, M=6, N=3, filt=5, inputs=30, classes=2, tasks=2)
SHORT = Training(B=2, T=4, batch_num=8, learning_rate=0.5)
SUMMED = replace(SMALL, aggregation="sum", classes=10)
LAST = replace(SMALL, aggregation="last_average", classes=10)
ONE_STEP = replace(SHORT, T=1, learning_rate=1.0, writeback="winner")
FOUR = replace(SHORT, B=4, learning_rate=0.05)

CASES = {
    "average_sum": (SMALL, SHORT),
    "sum_merge_B4_oddT": (SUMMED, replace(FOUR, T=3, writeback="merge")),
    "last_average_winner_B4": (LAST, replace(FOUR, writeback="winner")),
    "one_step": (SMALL, ONE_STEP),
    "one_layer": (replace(SMALL, L=1), replace(SHORT, T=2, writeback="merge")),
    "N_is_M": (replace(SMALL, M=3), replace(SHORT, T=3, writeback="winner")),
    "N_is_1_centred": (
        replace(SMALL, L=2, M=4, N=1, centred=True),
        replace(SHORT, B=4, T=2),
    ),
    "linear": (replace(SMALL, module_kinds="linear"), SHORT),
    "fixed_path_not_active": (replace(SMALL, fixed_path_active=False), SHORT),
}

# Both sides compute in float32, in a different order: values below 4 in magnitude, each
# a sum of some 30 products, through at most 4 steps. That is a few times 1e-7, and
# relative for what is larger. Only a pre-activation within that distance of the ReLU's
# corner could make more of it; of a few thousand in a case, the odds are 1 in 1,000.
TOLERANCE = {"rtol": 1e-5, "atol": 2e-6}
VISIBLE = 1e-4  # what a change must exceed for its comparison to prove something


@functools.cache
def fast(grid, training):
    return PathNet(grid, training)


@functools.cache
def reference(grid, training):
    return MaskedPathNet(grid, training)


def random_parameters(net, rng):
    return {
        name: rng.normal(0, 0.5, value.shape).astype(np.float32)
        for name, value in net.parameters().items()
    }


def random_batches(grid, training, rng):
    n = training.T * training.batch_num
    images = rng.integers(0, 256, (n, grid.inputs), dtype=np.uint8)
    return images, rng.integers(0, grid.classes, n)


def random_geopaths(grid, training, rng):
    paths = pathnet.random_paths(rng, training.B, grid.L, grid.M, grid.N)
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


def assert_same_parameters(actual, expected, **tolerance):
    assert actual.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(
            actual[name], expected[name], **(tolerance or TOLERANCE), err_msg=name
        )


def assert_identical(actual, expected):
    assert actual.dtype == expected.dtype == np.float32
    assert actual.tobytes() == expected.tobytes()


@pytest.mark.parametrize("width", ["none", "wide"])
@pytest.mark.parametrize("case", CASES)
def test_a_generation_is_that_of_the_reference(case, width):
    """Fitness, loss and all parameters, also where a path names a module twice."""
    grid, training = CASES[case]
    net, masked = fast(grid, training), reference(grid, training)
    rng = np.random.default_rng(list(CASES).index(case))
    fixed_path = frozen(grid, width)
    random = random_geopaths(grid, training, rng)
    # One module a layer for the first candidate, the same path for all the others.
    repeated = pathnet.to_geopath(rng.integers(0, grid.M, (2, grid.L, 1)), grid.M)
    repeated = repeated[[0] + [1] * (training.B - 1)]
    repeated[1:] = random[0]
    for task, geopaths in enumerate([random, repeated]):
        start = random_parameters(net, rng)
        batches = random_batches(grid, training, rng)
        net.set_parameters(start)
        masked.set_parameters(start)
        fitness, loss = net.train(geopaths, *batches, task, fixed_path)
        expected_fitness, expected_loss = masked.train(
            geopaths, *batches, task, fixed_path
        )
        np.testing.assert_array_equal(fitness, expected_fitness)
        np.testing.assert_allclose(loss, expected_loss, **TOLERANCE)
        after, expected = net.parameters(), masked.parameters()
        assert_same_parameters(after, expected)
        assert (
            np.abs(expected["output/kernel"] - start["output/kernel"]).max() > VISIBLE
        )
        winner = np.argmax(fitness)
        changing = geopaths[winner] * (1 - fixed_path)
        changing *= grid.kinds() != "skip"
        for layer in np.flatnonzero(changing.any(1)):
            name = f"layer{layer + 1}/kernel"
            assert np.abs(expected[name] - start[name]).max() > VISIBLE, name


@pytest.mark.parametrize("case", ["average_sum", "sum_merge_B4_oddT"])
def test_large_modules_are_trained_as_small_ones(case, monkeypatch):
    """Layer 1 is updated a module or a candidate at a time: to the same parameters."""
    grid, training = CASES[case]
    by_module = fast(grid, training)
    monkeypatch.setattr(pathnet, "SMALL_MODULE", 0)
    by_candidate = PathNet(grid, training)
    rng = np.random.default_rng(8)
    start = random_parameters(by_module, rng)
    geopaths = random_geopaths(grid, training, rng)
    batches = random_batches(grid, training, rng)
    after = []
    for net in (by_module, by_candidate):
        net.set_parameters(start)
        net.train(geopaths, *batches, 0, frozen(grid, "none"))
        after.append(net.parameters())
    assert_same_parameters(*after)
    change = after[0]["layer1/kernel"] - start["layer1/kernel"]
    assert np.abs(change).max() > VISIBLE


def test_one_step_is_the_gradient():
    """With T=1 and learning rate 1, what changes is the gradient of the reference."""
    net, masked = fast(SMALL, ONE_STEP), reference(SMALL, ONE_STEP)
    rng = np.random.default_rng(3)
    fixed_path = frozen(SMALL, "narrow")
    for task in range(2):
        geopath = random_geopaths(SMALL, ONE_STEP, rng)[0]
        batches = random_batches(SMALL, ONE_STEP, rng)
        start = random_parameters(net, rng)
        net.set_parameters(start)
        masked.set_parameters(start)
        gradients = masked.gradients(geopath, fixed_path, *batches, task)
        net.train(np.stack([geopath] * 2), *batches, task, fixed_path)
        after = net.parameters()
        changes = {name: start[name] - after[name] for name in start}
        assert_same_parameters(changes, gradients)
        assert all(np.abs(gradient).max() > VISIBLE for gradient in gradients.values())


def adam_generation(masked, training, start, geopaths, batches, task, fixed_path):
    """Adam in numpy on the reference's gradients; merge is by fitness, then order."""
    grid, n = masked.grid, training.batch_num
    images, labels = batches
    ends, correct = [], []
    for geopath in geopaths:
        state, hits = {k: v.astype(float) for k, v in start.items()}, 0
        trains = {f"layer{i + 1}": row for i, row in enumerate(geopath - fixed_path)}
        trains["output"] = np.arange(grid.tasks) == task
        for step in range(1, training.T + 1):
            part = slice((step - 1) * n, step * n)
            batch = geopath, fixed_path, images[part], labels[part], task
            masked.set_parameters({name: state[name] for name in masked.parameters()})
            gradients = masked.gradients(*batch)
            hits += masked.step(*batch)[0]
            power = start["steps"] + step
            rate = training.learning_rate * np.sqrt(1 - 0.999**power)
            rate /= 1 - 0.9**power
            for name, gradient in gradients.items():
                on = np.flatnonzero(trains[name.split("/")[0]] > 0)
                mean, square = state[f"{name}_mean"], state[f"{name}_mean_square"]
                mean[on] += 0.1 * (gradient[on] - mean[on])
                square[on] += 0.001 * (gradient[on] ** 2 - square[on])
                state[name][on] -= rate * mean[on] / (np.sqrt(square[on]) + 1e-8)
        ends.append((state, trains))
        correct.append(hits)
    after = {k: v.astype(float) for k, v in start.items()}
    order = np.argsort(-np.array(correct), kind="stable")
    for place, b in reversed(list(enumerate(order))):
        state, trains = ends[b]
        for name in after.keys() - {"steps"}:
            layer = name.split("/")[0]
            if place == 0 or (training.writeback == "merge" and layer != "output"):
                on = np.flatnonzero(trains[layer] > 0)
                after[name][on] = state[name][on]
    after["steps"] = start["steps"] + training.T
    return np.array(correct) / len(labels), after


@pytest.mark.parametrize("width", ["none", "wide"])
@pytest.mark.parametrize("writeback", ["winner", "merge"])
def test_adam_is_that_of_its_paper(writeback, width):
    """Parameters and moments, for what a path may train; all else stands still."""
    training = replace(
        SHORT, T=3, optimizer="adam", learning_rate=0.01, writeback=writeback
    )
    net, masked = fast(SMALL, training), reference(SMALL, SHORT)
    rng = np.random.default_rng(14)
    fixed_path = frozen(SMALL, width)
    start = random_parameters(net, rng)
    for name in start:
        if name.endswith("_square"):
            start[name] = start[name] ** 2
        if "_mean" in name and name.startswith("layer"):
            # As `initialize` leaves those that were frozen by then.
            start[name][fixed_path[int(name[5]) - 1] > 0] = 0
    start["steps"] = np.float32(40)
    geopaths = random_geopaths(SMALL, training, rng)
    batches = random_batches(SMALL, training, rng)
    net.set_parameters(start)
    fitness, _ = net.train(geopaths, *batches, 1, fixed_path)
    expected_fitness, expected = adam_generation(
        masked, training, start, geopaths, batches, 1, fixed_path
    )
    np.testing.assert_array_equal(fitness, expected_fitness)
    after = net.parameters()
    assert_same_parameters(after, expected)
    for name in "output/kernel", "layer1/kernel", "layer1/kernel_mean":
        assert np.abs(after[name] - start[name]).max() > VISIBLE
    for layer, module in zip(*np.nonzero(fixed_path)):
        for name in start:
            if name.startswith(f"layer{layer + 1}/"):
                assert_identical(after[name][module], start[name][module])


def test_adam_starts_anew_with_every_task():
    training = replace(SHORT, optimizer="adam", writeback="winner")
    net = fast(SMALL, training)
    net.set_parameters(random_parameters(net, np.random.default_rng(15)))
    net.initialize(3, 1, frozen(SMALL, "wide"))
    state = {k: v for k, v in net.parameters().items() if "_" in k or k == "steps"}
    assert len(state) == 2 * 2 * (SMALL.L + 1) + 1
    assert not any(np.any(value) for value in state.values())


def test_adam_is_not_summed_over_candidates():
    with pytest.raises(ValueError, match="no sum"):
        replace(SHORT, optimizer="adam", writeback="sum")


def test_a_net_built_alone_trains_one_candidate_too():
    """On the same parameters, as a net of one candidate does."""
    training = replace(SHORT, writeback="winner")
    net = PathNet(SMALL, training, alone=True)
    single = fast(SMALL, replace(training, B=1))
    rng = np.random.default_rng(16)
    start = random_parameters(net, rng)
    geopaths = random_geopaths(SMALL, training, rng)
    batches = random_batches(SMALL, training, rng)
    for other, paths in ((single, geopaths[:1]), (fast(SMALL, training), geopaths)):
        results = []
        for tried in (net, other):
            tried.set_parameters(start)
            results.append(tried.train(paths, *batches, 0, 0 * geopaths[0]))
        np.testing.assert_array_equal(results[0][0], results[1][0])
        assert_same_parameters(net.parameters(), other.parameters())


def test_gradients_of_the_reference_are_slopes_of_its_loss():
    """Guards the reference itself, by finite differences in a random direction."""
    masked = reference(SMALL, ONE_STEP)
    rng = np.random.default_rng(4)
    geopath = random_geopaths(SMALL, ONE_STEP, rng)[0]
    fixed_path = frozen(SMALL, "none")
    images, labels = random_batches(SMALL, ONE_STEP, rng)
    start = random_parameters(masked, rng)
    direction = random_parameters(masked, rng)
    masked.set_parameters(start)
    gradients = masked.gradients(geopath, fixed_path, images, labels, 0)

    def loss(step):
        moved = {k: start[k].astype(float) + step * direction[k] for k in start}
        outputs = numpy_logits(SMALL, moved, geopath, images, 0)
        outputs -= np.log(np.exp(outputs).sum(1, keepdims=True))
        return -np.mean(outputs[np.arange(len(labels)), labels])

    slope = (loss(1e-5) - loss(-1e-5)) / 2e-5
    predicted = sum(np.sum(gradients[name] * direction[name]) for name in gradients)
    assert abs(slope) > 0.001
    assert predicted == pytest.approx(slope, rel=1e-3)


def numpy_logits(grid, parameters, active, images, task):
    """The forward pass in float64: [n, classes]."""
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
                out = out + relu
            if kind != "linear":
                out = out + x
        averages = grid.aggregation == "average" or (
            grid.aggregation == "last_average" and layer == grid.L - 1
        )
        x = out / grid.M if averages else out
    return x @ parameters["output/kernel"][task].T + parameters["output/bias"][task]


@pytest.mark.parametrize(
    "grid, training", [(SMALL, ONE_STEP), (LAST, replace(ONE_STEP, B=4))]
)
def test_logits_are_those_of_the_reference(grid, training):
    """A batch of one image and one label has as its loss that label's log-likelihood."""
    net, masked = fast(grid, training), reference(grid, training)
    rng = np.random.default_rng(5)
    start = random_parameters(net, rng)
    geopaths = random_geopaths(grid, training, rng)
    fixed_path = frozen(grid, "narrow")
    masked.set_parameters(start)
    images = rng.integers(0, 256, (3, grid.inputs), dtype=np.uint8)
    for image in images:
        batch = np.repeat(image[None], training.batch_num, 0)
        losses = []
        for label in range(grid.classes):
            net.set_parameters(start)
            labels = np.full(training.batch_num, label)
            losses.append(net.train(geopaths, batch, labels, 1, fixed_path)[1])
        for b, geopath in enumerate(geopaths):
            logits = masked.logits(geopath, fixed_path, image[None], 1)[0]
            active = np.maximum(geopath, fixed_path)
            in_numpy = numpy_logits(grid, start, active, image[None], 1)[0]
            np.testing.assert_allclose(logits, in_numpy, **TOLERANCE)
            top = logits.max()
            likelihoods = logits - top - np.log(np.sum(np.exp(logits - top)))
            np.testing.assert_allclose(
                -np.array(losses)[:, b], likelihoods, rtol=1e-5, atol=1e-5
            )


# ---- Grid: what a generation does ----


def distinct_tournament(grid, training, fixed_path, rng):
    """Start, geopaths and batches of a generation without a tie, and what it gives."""
    net = fast(grid, training)
    for _ in range(50):
        start = random_parameters(net, rng)
        geopaths = random_geopaths(grid, training, rng)
        batches = random_batches(grid, training, rng)
        net.set_parameters(start)
        fitness, loss = net.train(geopaths, *batches, 0, fixed_path)
        if len(set(fitness)) == training.B:
            return start, geopaths, batches, fitness, loss
    raise AssertionError("no tournament without a tie")


def test_candidates_together_are_as_alone():
    """Nothing of one candidate reaches another, nor the winner's parameters."""
    together = CASES["last_average_winner_B4"][1]
    alone = replace(together, B=1)
    rng = np.random.default_rng(6)
    fixed_path = frozen(LAST, "wide")
    start, geopaths, batches, fitness, loss = distinct_tournament(
        LAST, together, fixed_path, rng
    )
    after = fast(LAST, together).parameters()
    net = fast(LAST, alone)
    for b, geopath in enumerate(geopaths):
        net.set_parameters(start)
        fitness_alone, loss_alone = net.train(geopath[None], *batches, 0, fixed_path)
        assert fitness_alone[0] == fitness[b]
        np.testing.assert_allclose(loss_alone[0], loss[b], **TOLERANCE)
        if b == np.argmax(fitness):
            assert_same_parameters(after, net.parameters())
            assert not np.array_equal(after["output/bias"], start["output/bias"])


@pytest.mark.parametrize(
    "case", ["average_sum", "sum_merge_B4_oddT", "last_average_winner_B4"]
)
def test_the_order_of_candidates_does_not_matter(case):
    grid, training = CASES[case]
    net = fast(grid, training)
    rng = np.random.default_rng(7)
    fixed_path = frozen(grid, "none")
    start, geopaths, batches, fitness, loss = distinct_tournament(
        grid, training, fixed_path, rng
    )
    after = net.parameters()
    net.set_parameters(start)
    back_fitness, back_loss = net.train(geopaths[::-1], *batches, 0, fixed_path)
    np.testing.assert_array_equal(back_fitness, fitness[::-1])
    np.testing.assert_allclose(back_loss, loss[::-1], **TOLERANCE)
    assert_same_parameters(net.parameters(), after)


def test_a_tie_goes_to_the_first():
    """Of two candidates that tie, it is the first one's change that persists."""
    grid, training = CASES["one_step"]
    net = fast(grid, training)
    rng = np.random.default_rng(8)
    start = random_parameters(net, rng)
    # A head of weight 0 says class 0, whatever the path.
    start["output/kernel"][:] = 0
    start["output/bias"][:] = [1, 0]
    paths = np.array([[[0], [1], [1]], [[2], [4], [4]]])
    geopaths = pathnet.to_geopath(paths, grid.M)
    images, labels = random_batches(grid, training, rng)
    heads = []
    for order in ([0, 1], [1, 0]):
        net.set_parameters(start)
        fitness, _ = net.train(geopaths[order], images, labels, 0, 0 * geopaths[0])
        assert fitness[0] == fitness[1]
        heads.append(net.parameters()["output/kernel"])
        net.set_parameters(start)
        net.train(geopaths[order[:1] * 2], images, labels, 0, 0 * geopaths[0])
        assert_same_parameters(
            {"output/kernel": heads[-1]},
            {"output/kernel": net.parameters()["output/kernel"]},
        )
    assert np.abs(heads[0] - heads[1]).max() > VISIBLE


@pytest.mark.parametrize(
    "case", ["average_sum", "sum_merge_B4_oddT", "fixed_path_not_active"]
)
def test_training_changes_only_what_it_may(case):
    """Frozen and unused modules and the other task's head stay, bit for bit."""
    grid, training = CASES[case]
    net = fast(grid, training)
    rng = np.random.default_rng(9)
    start = random_parameters(net, rng)
    net.set_parameters(start)
    fixed_path = frozen(grid, "wide")
    touched = np.zeros([grid.L, grid.M], bool)
    for _ in range(3):
        geopaths = random_geopaths(grid, training, rng)
        geopaths[:, :, 2] = 0  # a module that nobody uses
        net.train(geopaths, *random_batches(grid, training, rng), 1, fixed_path)
        touched |= np.any(geopaths * (1 - fixed_path), axis=0)
    after = net.parameters()
    kinds = pathnet.module_kinds(grid.L, grid.M)
    for layer, module in np.ndindex(grid.L, grid.M):
        for part in ("kernel", "bias"):
            name = f"layer{layer + 1}/{part}"
            if touched[layer, module] and kinds[layer, module] != "skip":
                assert not np.array_equal(after[name][module], start[name][module])
            else:
                assert_identical(after[name][module], start[name][module])
    for name in ("output/kernel", "output/bias"):
        assert_identical(after[name][0], start[name][0])
        assert not np.array_equal(after[name][1], start[name][1])


def test_frozen_modules_survive_a_training_that_diverges():
    """Numbers that overflow in what is trained must not reach what is frozen."""
    net = fast(SMALL, SHORT)
    rng = np.random.default_rng(10)
    start = random_parameters(net, rng)
    start["layer1/kernel"][0] = 1e38  # logits and gradients are no numbers
    net.set_parameters(start)
    fixed_path = frozen(SMALL, "wide")
    geopaths = random_geopaths(SMALL, SHORT, rng)
    geopaths[:, 0] = pathnet.to_geopath(np.array([0, 2, 3]), SMALL.M)
    net.train(geopaths, *random_batches(SMALL, SHORT, rng), 0, fixed_path)
    after = net.parameters()
    assert not np.isfinite(after["output/kernel"][0]).all()
    for layer, module in zip(*np.nonzero(fixed_path)):
        for part in ("kernel", "bias"):
            name = f"layer{layer + 1}/{part}"
            assert_identical(after[name][module], start[name][module])


def test_a_loser_that_diverges_leaves_nothing_behind():
    """With writeback winner, also where the loser's changes are no numbers."""
    grid, training = SMALL, ONE_STEP
    net = fast(grid, training)
    rng = np.random.default_rng(11)
    start = random_parameters(net, rng)
    start["layer1/kernel"][5] = 1e38
    geopaths = pathnet.to_geopath(np.array([[[0], [1], [1]], [[5], [4], [4]]]), 6)
    images, _ = random_batches(grid, training, rng)
    active, fixed_path = geopaths[0], 0 * geopaths[0]
    labels = np.argmax(numpy_logits(grid, start, active, images, 0), 1)
    net.set_parameters(start)
    fitness, _ = net.train(geopaths, images, labels, 0, fixed_path)
    assert fitness[0] == 1 > fitness[1]
    after = net.parameters()
    for name, module in [
        ("layer1/kernel", 5),
        ("layer2/kernel", 4),
        ("layer3/bias", 4),
    ]:
        assert_identical(after[name][module], start[name][module])
    assert np.isfinite(after["output/kernel"]).all()


def test_the_graph_does_not_grow():
    net = fast(SMALL, SHORT)
    rng = np.random.default_rng(12)
    operations = len(net.graph.get_operations())
    for generation in range(20):
        task = generation // 10
        net.initialize(generation, task, frozen(SMALL, "narrow"))
        batches = random_batches(SMALL, SHORT, rng)
        geopaths = random_geopaths(SMALL, SHORT, rng)
        net.train(geopaths, *batches, task, frozen(SMALL, "none"))
        net.accuracy(geopaths[0], *batches, task)
        net.set_parameters(net.parameters())
    assert len(net.graph.get_operations()) == operations
    with net.graph.as_default(), pytest.raises(RuntimeError, match="finalized"):
        tf.constant(1)


# ---- Grid: initialize, accuracy ----


def initialized(seed, task, fixed_path=None, start=None):
    net = fast(SMALL, SHORT)
    start = (
        random_parameters(net, np.random.default_rng(13)) if start is None else start
    )
    net.set_parameters(start)
    net.initialize(
        seed, task, frozen(SMALL, "none") if fixed_path is None else fixed_path
    )
    return net.parameters()


def test_initialize_depends_on_seed_and_task_alone():
    first = initialized(5, 0)
    other_start = random_parameters(fast(SMALL, SHORT), np.random.default_rng(14))
    again = initialized(5, 0, start=other_start)
    for name in first:
        assert_identical(again[name], first[name])
    for seed, task in [(6, 0), (5, 1), (2**31 - 1, 0)]:
        other = initialized(seed, task)
        for name in first:
            if name.endswith("kernel"):
                assert np.all(other[name] != first[name]), name


def test_initialize_draws_from_a_truncated_normal():
    """Stddev 0.1 cut at 2 stddevs, which leaves 0.08796; biases are 0.1."""
    values = initialized(7, 0)
    for name, value in values.items():
        if name.endswith("bias"):
            assert_identical(value, np.full_like(value, 0.1))
        else:
            assert np.abs(value).max() <= 0.2
            assert len(np.unique(value)) > 0.99 * value.size
    assert not np.any(values["layer2/kernel"] == values["layer3/kernel"])
    assert not np.any(values["output/kernel"][0] == values["output/kernel"][1])
    weights = values["layer1/kernel"].ravel()
    error = 0.08796 / np.sqrt(weights.size)  # of the mean; the stddev's is smaller
    assert abs(weights.mean()) < 5 * error
    assert abs(weights.std() - 0.08796) < 5 * error
    assert np.abs(weights).max() > 0.19


def test_initialize_keeps_frozen_modules_and_earlier_heads():
    start = random_parameters(fast(SMALL, SHORT), np.random.default_rng(15))
    fixed_path = frozen(SMALL, "wide")
    after = initialized(8, 1, fixed_path, start)
    for layer, module in np.ndindex(SMALL.L, SMALL.M):
        for part in ("kernel", "bias"):
            name = f"layer{layer + 1}/{part}"
            if fixed_path[layer, module]:
                assert_identical(after[name][module], start[name][module])
            else:
                assert np.all(after[name][module] != start[name][module])
    for name in ("output/kernel", "output/bias"):
        assert_identical(after[name][0], start[name][0])
        assert np.all(after[name][1] != start[name][1])


@pytest.mark.parametrize(
    "grid, training", [CASES["average_sum"], CASES["N_is_1_centred"]]
)
@pytest.mark.parametrize("count", [1, 2000, 4001])
def test_accuracy_is_that_of_a_numpy_forward_pass(grid, training, count):
    """Also with all modules active, and with more images than one part holds."""
    net = fast(grid, training)
    rng = np.random.default_rng(count)
    parameters = random_parameters(net, rng)
    net.set_parameters(parameters)
    images = rng.integers(0, 256, (count, grid.inputs), dtype=np.uint8)
    labels = rng.integers(0, grid.classes, count).astype(np.uint8)
    everything = np.ones([grid.L, grid.M], np.float32)
    for active in (random_geopaths(grid, training, rng)[0], everything):
        for task in range(2):
            logits = numpy_logits(grid, parameters, active, images, task)
            predictions = np.argmax(logits, 1)
            accuracy = net.accuracy(active, images, labels, task)
            assert accuracy == np.mean(predictions == labels)
            assert net.accuracy(active, images, predictions, task) == 1


def test_set_parameters_gives_them_back():
    net = fast(SMALL, SHORT)
    values = random_parameters(net, np.random.default_rng(16))
    assert {name: value.shape for name, value in values.items()} == {
        "layer1/kernel": (6, 5, 30),
        "layer1/bias": (6, 5),
        "layer2/kernel": (6, 5, 5),
        "layer2/bias": (6, 5),
        "layer3/kernel": (6, 5, 5),
        "layer3/bias": (6, 5),
        "output/kernel": (2, 2, 5),
        "output/bias": (2, 2),
    }
    net.set_parameters(values)
    for name, value in net.parameters().items():
        assert_identical(value, values[name])


# ---- Importing TensorFlow ----

NOTES = """\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1730000000.000000    1 port.cc:153] oneDNN custom operations are on.
W0000 00:00:1730000000.000000    1 cpu_feature_guard.cc:227] TensorFlow binary
E0000 00:00:1730000000.000000    1 cuda_platform.cc:52] failed call to cuInit: INTERNAL
"""

FAKE_TENSORFLOW = """
import os, sys
class Anything:
    def __getattr__(self, name): return self
    def __call__(self, *args): return self
sys.modules[__name__] = Anything()
os.write(2, os.environ["FAKE_STDERR"].encode())
exec(os.environ.get("FAKE_CODE", ""))
"""


def run_python(code, **environment):
    cleared = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS",)}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=cleared | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def import_pathnet(tmp_path):
    """Imports pathnet in a new process, with a TensorFlow that does what it is told."""
    package = tmp_path / "tensorflow" / "compat"
    package.mkdir(parents=True)
    (tmp_path / "tensorflow" / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "v1.py").write_text(FAKE_TENSORFLOW)

    def run(stderr, code="", then="", **environment):
        return run_python(
            "from common import tf1\ntf1.load()\n" + then,
            PYTHONPATH=str(tmp_path),
            FAKE_STDERR=stderr,
            FAKE_CODE=code,
            **environment,
        )

    return run


def test_importing_is_quiet():
    """With the real TensorFlow: nothing at all."""
    done = run_python("from common import tf1; tf1.load()")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_only_start_up_notes_are_held_back(import_pathnet):
    trouble = "libmetal.so: cannot open shared object file\nunfinished line"
    done = import_pathnet(NOTES + trouble, then="import os; os.write(2, b' after')")
    assert done.returncode == 0
    assert done.stderr == trouble + " after"


def test_an_error_while_importing_is_told(import_pathnet):
    done = import_pathnet(
        NOTES + "Symbol not found\n", "raise ImportError('numpy is too new')"
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Symbol not found\nTraceback")
    assert done.stderr.endswith("ImportError: numpy is too new\n")


def test_the_last_words_of_a_process_that_dies_importing_are_told(import_pathnet):
    """As TensorFlow does on a processor that lacks an instruction it was built for."""
    fatal = "F0000 cpu_feature_guard.cc] was compiled to use AVX instructions\n"
    done = import_pathnet(NOTES + fatal, "os.abort()")
    assert done.returncode < 0
    assert "AVX" in done.stderr


def test_xla_flags_of_the_user_win(import_pathnet):
    """XLA takes the last of several values."""
    flag = "--xla_cpu_use_fusion_emitters=true"
    done = import_pathnet(
        "", then="import os; print(os.environ['XLA_FLAGS'])", XLA_FLAGS=flag
    )
    found = re.findall(r"--xla_cpu_use_fusion_emitters=\w+", done.stdout)
    assert found == ["--xla_cpu_use_fusion_emitters=false", flag]

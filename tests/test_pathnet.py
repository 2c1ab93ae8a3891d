"""Tests of pathnet.py; how a network is trained is tested in supervised/."""

import functools
import itertools
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from small_networks import (
    SMALL,
    assert_identical,
    frozen,
    numpy_logits,
    random_geopaths,
    random_parameters,
)

import pathnet
from pathnet import Grid, PathNet
from supervised import generation

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


@no_deadline
@given(seed=seeds, shape=shapes(), count=st.integers(1, 8))
def test_random_paths_with_replacement(seed, shape, count):
    L, M, N = shape
    paths = pathnet.random_paths(np.random.default_rng(seed), count, L, M, N, True)
    assert paths.shape == (count, L, N)
    assert paths.dtype == np.int64
    assert paths.min() >= 0 and paths.max() < M


def test_random_paths_with_replacement_are_uniform_and_independent():
    """Bounds are 5.5 sigma."""
    count, M = 60_000, 6
    rng = np.random.default_rng(0)
    paths = pathnet.random_paths(rng, count, 2, M, 3, replacement=True)
    pairs = [paths[:, 0, 0] * M + paths[:, 0, 1], paths[:, 0, 0] * M + paths[:, 1, 0]]
    sigma = np.sqrt(count / M**2 * (1 - 1 / M**2))
    for drawn in pairs:
        times = np.bincount(drawn, minlength=M**2)
        assert np.abs(times - count / M**2).max() < 5.5 * sigma


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


# ---- Paths as sets ----

steps = st.tuples(st.integers(-4, 4), st.integers(-4, 4)).map(sorted)


@no_deadline
@given(
    seed=seeds, M=st.integers(1, 12), rate=st.floats(0, 1), step=steps, data=st.data()
)
def test_modules_of_a_set_that_have_met_stay_together(seed, M, rate, step, data):
    paths = data.draw(path_arrays(M))
    rule = {"rate": rate, "low": step[0], "high": step[1], "as_sets": True}
    mutant = pathnet.mutate(np.random.default_rng(seed), paths, M, **rule)
    assert mutant.shape == paths.shape and mutant.dtype == np.int64
    assert mutant.min() >= 0 and mutant.max() < M
    together = paths[..., :, None] == paths[..., None, :]
    assert np.all((mutant[..., :, None] == mutant[..., None, :])[together])
    before, after = (pathnet.to_geopath(p, M).sum(-1) for p in (paths, mutant))
    assert np.all(after <= before)


@no_deadline
@given(seed=seeds, shape=shapes(), count=st.integers(1, 4), step=steps)
def test_different_modules_of_a_set_move_as_genes_do(seed, shape, count, step):
    L, M, N = shape
    paths = pathnet.random_paths(np.random.default_rng(seed), count, L, M, N)
    rule = {"rate": 0.5, "low": step[0], "high": step[1]}
    as_genes = pathnet.mutate(np.random.default_rng(seed), paths, M, **rule)
    as_sets = pathnet.mutate(
        np.random.default_rng(seed), paths, M, as_sets=True, **rule
    )
    assert np.array_equal(as_genes, as_sets)


def plain_set_mutation(rng, paths, M, rate, low, high, drops):
    """The same on Python sets: a list of L sets for each path of [count, L, N]."""
    moves = rng.random(paths.shape) < rate
    offsets = rng.integers(low, high, size=paths.shape, endpoint=True)
    mutants = []
    for number, path in enumerate(paths.tolist()):
        mutant = []
        for layer, genes in enumerate(path):
            moved = set()
            for module in set(genes):
                gene = genes.index(module)  # its draws count for the module
                move = moves[number, layer, gene] * offsets[number, layer, gene]
                moved.add(module + int(move))
            on_grid = {module for module in moved if 0 <= module < M}
            if not (drops and on_grid):
                on_grid = {min(max(module, 0), M - 1) for module in moved}
            mutant.append(on_grid)
        mutants.append(mutant)
    return mutants


@no_deadline
@given(
    seed=seeds,
    shape=shapes(),
    count=st.integers(1, 4),
    rate=st.floats(0, 1),
    step=steps,
    drops=st.booleans(),
)
def test_sets_are_those_of_a_plain_mutation(seed, shape, count, rate, step, drops):
    L, M, N = shape
    paths = np.random.default_rng(seed).integers(0, M, (count, L, N))
    rule = {"rate": rate, "low": step[0], "high": step[1], "drops": drops}
    mutants = pathnet.mutate(
        np.random.default_rng(seed), paths, M, as_sets=True, **rule
    )
    expected = plain_set_mutation(np.random.default_rng(seed), paths, M, **rule)
    assert [[set(genes) for genes in path] for path in mutants.tolist()] == expected


def test_each_module_of_a_set_moves_as_often_as_a_gene():
    """However many genes name it; bounds are 5.5 sigma."""
    count, rate = 50_000, 0.3
    start = np.tile([50, 60, 50, 50], (count, 1, 1))
    rule = {"rate": rate, "low": 1, "high": 2, "as_sets": True}
    moved = pathnet.mutate(np.random.default_rng(4), start, 100, **rule) - start
    sigma = np.sqrt(count * rate * (1 - rate))
    for gene in range(4):
        assert abs(np.sum(moved[..., gene] != 0) - count * rate) < 5.5 * sigma
    both = np.mean((moved[..., 0] != 0) & (moved[..., 1] != 0))
    assert abs(both - rate**2) < 5.5 * np.sqrt(rate**2 / count)  # independent


def test_a_set_moves_to_neighbours_as_the_early_system_did():
    """As often as integers cut from [-2, 2) at a rate of 2/(L*N); bounds are 5.5 sigma."""
    L, N, count = 3, 4, 50_000
    start = np.tile(np.arange(20, 60, 10), (count, L, 1))
    rule = pathnet.mutation_rule("neighbour", L, N, "sets")
    moves = pathnet.mutate(np.random.default_rng(5), start, 100, **rule) - start
    rng = np.random.default_rng(6)
    hit = (rng.random(start.shape) * L * N).astype(int) <= 1
    expected = hit * (rng.random(start.shape) * 4 - 2).astype(int)
    assert set(np.unique(moves)) == set(np.unique(expected)) == {-1, 0, 1}
    for offset in (-1, 1):
        numbers = [np.sum(drawn == offset) for drawn in (moves, expected)]
        assert abs(numbers[0] - numbers[1]) < 5.5 * np.sqrt(sum(numbers))


def test_modules_that_leave_the_grid_are_dropped():
    paths = np.array([[[0, 3, 2], [0, 0, 0]]])
    rule = {"rate": 1, "as_sets": True, "drops": True}
    down = pathnet.mutate(np.random.default_rng(0), paths, 4, low=-1, high=-1, **rule)
    assert down.tolist() == [[[2, 2, 1], [0, 0, 0]]]  # one module always stays
    up = pathnet.mutate(np.random.default_rng(0), paths, 4, low=1, high=1, **rule)
    assert up.tolist() == [[[1, 1, 3], [1, 1, 1]]]


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


def test_mutation_rules():
    assert pathnet.mutation_rule("uniform", 3, 4) == {}
    drift = pathnet.mutation_rule("drift", 3, 4)
    assert drift == {"rate": 2 / 12, "low": -4, "high": -1}
    assert pathnet.mutation_rule("drift", 1, 1)["rate"] == 1
    assert pathnet.mutation_rule("neighbour", 1, 1, "sets")["rate"] == 1
    assert pathnet.mutation_rule("drift", 3, 4, rate=0.25) == drift | {"rate": 0.25}
    assert pathnet.mutation_rule("uniform", 3, 4, "sets") == {"as_sets": True}
    assert pathnet.mutation_rule("drift", 3, 4, "sets") == drift | {"as_sets": True}


# ---- Modules ----


def test_module_kinds():
    assert pathnet.module_kinds(3, 5).tolist() == [
        ["linear"] * 5,
        ["skip", "linear", "residual", "skip", "linear"],
        ["skip", "linear", "residual", "skip", "linear"],
    ]


def test_module_kinds_may_all_be_linear():
    assert (pathnet.module_kinds(3, 5, "linear") == "linear").all()


@pytest.mark.parametrize(
    "aggregation, divisors",
    [
        ("sum", (1, 1, 1)),
        ("average", (4, 4, 4)),
        ("last_average", (1, 1, 4)),
        ("normalized", (1, 1, 1)),
    ],
)
def test_gains(aggregation, divisors):
    grid = Grid(3, 4, 2, 5, 30, (2, 2), aggregation=aggregation)
    relu_gain, skip_gain = grid.gains()
    first, middle, last = divisors
    relu, skip = np.array([0, 1, 1, 0]), np.array([1, 0, 1, 1])
    np.testing.assert_allclose(
        relu_gain, [np.ones(4) / first, relu / middle, relu / last], rtol=1e-6
    )
    np.testing.assert_allclose(
        skip_gain, [np.zeros(4), skip / middle, skip / last], rtol=1e-6
    )


@pytest.mark.parametrize("forced", [True, False])
def test_active_modules(forced):
    grid = replace(SMALL, fixed_path_active=forced)
    geopath, fixed_path = frozen(grid, "narrow"), frozen(grid, "wide")
    expected = np.maximum(geopath, fixed_path) if forced else geopath
    np.testing.assert_array_equal(grid.active(geopath, fixed_path), expected)
    less = replace(grid, frozen_share=0.5).active(geopath, fixed_path)
    np.testing.assert_array_equal(less, expected * np.where(fixed_path, 0.5, 1))


@pytest.mark.parametrize(
    "build",
    [
        lambda: replace(SMALL, aggregation="mean"),
        lambda: replace(SMALL, module_kinds="skip"),
        lambda: pathnet.module_kinds(3, 5, "residual"),
        lambda: pathnet.mutation_rule("gaussian", 3, 4),
        lambda: pathnet.mutation_rule("drift", 3, 4, "lists"),
        lambda: PathNet(SMALL, "rmsprop"),
    ],
)
def test_an_unknown_choice_is_refused(build):
    with pytest.raises(ValueError, match="unknown .* '.*', choose from .*, .*"):
        build()


def test_choices_keep_their_order():
    """The first is the default's neighbour in --help, whatever is added at the end."""
    assert list(pathnet.AGGREGATIONS) == [
        "average",
        "sum",
        "last_average",
        "normalized",
    ]
    assert list(pathnet.MIXTURES) == ["mixed", "linear"]
    assert list(pathnet.MUTATIONS) == ["uniform", "drift", "neighbour"]
    assert list(pathnet.PATHS) == ["genes", "sets"]


def test_a_kind_that_no_network_uses_changes_none(monkeypatch):
    """A new row in the table leaves the mixtures, and so old networks, as they are."""
    before = pathnet.module_kinds(3, 7), SMALL.gains()
    more = {"double": pathnet.Kind(2, 0), **pathnet.MODULE_KINDS}
    monkeypatch.setattr(pathnet, "MODULE_KINDS", more)
    assert np.array_equal(pathnet.module_kinds(3, 7), before[0])
    assert np.array_equal(SMALL.gains(), before[1])
    monkeypatch.setitem(pathnet.MIXTURES, "doubled", ("double", "skip"))
    grid = Grid(2, 3, 1, 5, 30, (2, 2), aggregation="sum", module_kinds="doubled")
    relu_gain, skip_gain = grid.gains()
    assert relu_gain.tolist() == [[1, 1, 1], [2, 0, 2]]
    assert skip_gain.tolist() == [[0, 0, 0], [0, 1, 0]]


def test_moments_are_those_that_the_optimizers_need():
    assert pathnet.OPTIMIZER_MOMENTS.keys() == generation.OPTIMIZERS.keys()


@pytest.mark.parametrize("module", ["pathnet", "supervised.generation"])
def test_importing_does_not_load_tensorflow(module):
    """Which takes seconds, also where nothing is computed."""
    code = f"import sys, {module}; sys.exit('tensorflow' in sys.modules)"
    root = pathnet.__file__.removesuffix("pathnet.py")
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0


# ---- Network ----


@functools.cache
def network(grid, optimizer="sgd"):
    return PathNet(grid, optimizer)


def initialized(seed, task, fixed_path=None, start=None):
    net = network(SMALL)
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
    other_start = random_parameters(network(SMALL), np.random.default_rng(14))
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
    start = random_parameters(network(SMALL), np.random.default_rng(15))
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


def test_adam_starts_anew_with_every_task():
    net = network(SMALL, "adam")
    net.set_parameters(random_parameters(net, np.random.default_rng(15)))
    net.initialize(3, 1, frozen(SMALL, "wide"))
    state = {k: v for k, v in net.parameters().items() if "_" in k or k == "steps"}
    assert len(state) == 2 * 2 * (SMALL.L + 1) + 1
    assert not any(np.any(value) for value in state.values())


@pytest.mark.parametrize("grid", [SMALL, replace(SMALL, L=2, M=4, N=1, centred=True)])
@pytest.mark.parametrize("count", [1, 2000, 4001])
def test_accuracy_is_that_of_a_numpy_forward_pass(grid, count):
    """Also with all modules active, and with more images than one part holds."""
    net = network(grid)
    rng = np.random.default_rng(count)
    parameters = random_parameters(net, rng)
    net.set_parameters(parameters)
    images = rng.integers(0, 256, (count, grid.inputs), dtype=np.uint8)
    labels = rng.integers(0, grid.most_classes, count).astype(np.uint8)
    everything = np.ones([grid.L, grid.M], np.float32)
    geopath = random_geopaths(grid, 1, rng)[0]
    weighted = replace(grid, frozen_share=0.25).active(geopath, frozen(grid, "narrow"))
    assert set(np.unique(weighted)) == {0, 0.25, 1}
    for active in (geopath, everything, weighted):
        for task in range(2):
            logits = numpy_logits(grid, parameters, active, images, task)
            predictions = np.argmax(logits, 1)
            accuracy = net.accuracy(active, images, labels, task)
            assert accuracy == np.mean(predictions == labels)
            assert net.accuracy(active, images, predictions, task) == 1


def test_output_layers_are_widened_for_more_tasks_and_classes():
    grid = replace(SMALL, classes=(2, 3, 5))
    kernel, bias = np.arange(2 * 3 * 5.0).reshape(2, 3, 5), np.arange(6.0).reshape(2, 3)
    wide = pathnet.widened(grid, "output/kernel", kernel, held=2)
    assert wide.shape == (3, 5, 5)
    assert np.array_equal(wide[:2, :3], kernel)
    assert not wide[:2, 3:].any()
    wide = pathnet.widened(grid, "output/bias", bias, held=2)
    assert np.array_equal(wide[:2, :3], bias)
    assert (wide[:2, 3:] == pathnet.NO_CLASS).all()
    for saved in (kernel[:1], kernel[:, :2], np.zeros(2)):  # of other tasks or classes
        assert pathnet.widened(grid, "output/kernel", saved, held=2) is saved


def test_set_parameters_gives_them_back():
    net = network(SMALL)
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

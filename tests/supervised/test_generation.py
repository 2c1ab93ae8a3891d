"""Tests of supervised/generation.py; compared with benchmarks/masked_pathnet.py."""

import functools
import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from masked_pathnet import MaskedPathNet
from small_networks import (
    SMALL,
    assert_identical,
    frozen,
    numpy_logits,
    random_geopaths,
    random_parameters,
)

import pathnet
from common import tf1 as tf
from supervised import generation
from supervised.generation import TrainablePathNet, Training

pytestmark = pytest.mark.slow

# ---- What is trained how ----


@settings(deadline=None)
@given(T=st.integers(1, 1000))
def test_a_block_divides_the_mini_batches(T):
    assert T % generation.block_length(T) == 0
    assert generation.block_length(T) == (1 if T % 2 else 2)


def test_adam_is_not_summed_over_candidates():
    with pytest.raises(ValueError, match="no sum"):
        replace(SHORT, optimizer="adam", writeback="sum")


@pytest.mark.parametrize("choice", [{"writeback": "mean"}, {"optimizer": "rmsprop"}])
def test_an_unknown_choice_is_refused(choice):
    with pytest.raises(ValueError, match="unknown .* '.*', choose from .*, .*"):
        replace(SHORT, **choice)


def test_choices_keep_their_order():
    assert list(generation.WRITEBACKS) == ["sum", "merge", "winner"]
    assert list(generation.OPTIMIZERS) == ["sgd", "adam"]


# ---- Against the reference ----

SHORT = Training(B=2, T=4, batch_num=8, learning_rate=0.5)
SUMMED = replace(SMALL, aggregation="sum", classes=(10, 10))
LAST = replace(SMALL, aggregation="last_average", classes=(10, 10))
NORMALIZED = replace(SMALL, aggregation="normalized")
ONE_STEP = replace(SHORT, T=1, learning_rate=1.0, writeback="winner")
FOUR = replace(SHORT, B=4, learning_rate=0.05)

CASES = {
    "average_sum": (SMALL, SHORT),
    "sum_merge_B4_oddT": (SUMMED, replace(FOUR, T=3, writeback="merge")),
    "last_average_winner_B4": (LAST, replace(FOUR, writeback="winner")),
    "normalized": (NORMALIZED, replace(SHORT, learning_rate=0.05)),
    "normalized_merge_B4_optional": (
        replace(NORMALIZED, fixed_path_active=False, classes=(10, 10)),
        replace(FOUR, writeback="merge"),
    ),
    "one_step": (SMALL, ONE_STEP),
    "one_layer": (replace(SMALL, L=1), replace(SHORT, T=2, writeback="merge")),
    "N_is_M": (replace(SMALL, M=3), replace(SHORT, T=3, writeback="winner")),
    "N_is_1_centred": (
        replace(SMALL, L=2, M=4, N=1, centred=True),
        replace(SHORT, B=4, T=2),
    ),
    "linear": (replace(SMALL, module_kinds="linear"), SHORT),
    "fixed_path_not_active": (replace(SMALL, fixed_path_active=False), SHORT),
    "normalized_frozen_share": (
        replace(NORMALIZED, frozen_share=0.5),
        replace(SHORT, learning_rate=0.05),
    ),
    "frozen_share_not_active": (
        replace(SUMMED, frozen_share=0.5, fixed_path_active=False),
        replace(FOUR, T=2),
    ),
}

# Both sides compute in float32, in a different order: values below 4 in magnitude, each
# a sum of some 30 products, through at most 4 steps. That is a few times 1e-7, and
# relative for what is larger. Only a pre-activation within that distance of the ReLU's
# corner could make more of it; of a few thousand in a case, the odds are 1 in 1,000.
TOLERANCE = {"rtol": 1e-5, "atol": 2e-6}
VISIBLE = 1e-4  # what a change must exceed for its comparison to prove something


@functools.cache
def fast(grid, training):
    return TrainablePathNet(grid, training)


@functools.cache
def reference(grid, training):
    return MaskedPathNet(grid, training)


@pytest.fixture(scope="module", autouse=True)
def networks_are_freed():
    """At the end of this module: once the interpreter ends, TensorFlow complains."""
    yield
    fast.cache_clear()
    reference.cache_clear()


def random_batches(grid, training, rng):
    n = training.T * training.batch_num
    images = rng.integers(0, 256, (n, grid.inputs), dtype=np.uint8)
    return images, rng.integers(0, grid.most_classes, n)


def assert_same_parameters(actual, expected, **tolerance):
    assert actual.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(
            actual[name], expected[name], **(tolerance or TOLERANCE), err_msg=name
        )


@pytest.mark.parametrize("width", ["none", "wide"])
@pytest.mark.parametrize("case", CASES)
def test_a_generation_is_that_of_the_reference(case, width):
    """Fitness, loss and all parameters, also where a path names a module twice."""
    grid, training = CASES[case]
    net, masked = fast(grid, training), reference(grid, training)
    rng = np.random.default_rng(list(CASES).index(case))
    fixed_path = frozen(grid, width)
    random = random_geopaths(grid, training.B, rng)
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
    monkeypatch.setattr(generation, "SMALL_MODULE", 0)
    by_candidate = TrainablePathNet(grid, training)
    rng = np.random.default_rng(8)
    start = random_parameters(by_module, rng)
    geopaths = random_geopaths(grid, training.B, rng)
    batches = random_batches(grid, training, rng)
    after = []
    for net in (by_module, by_candidate):
        net.set_parameters(start)
        net.train(geopaths, *batches, 0, frozen(grid, "none"))
        after.append(net.parameters())
    assert_same_parameters(*after)
    change = after[0]["layer1/kernel"] - start["layer1/kernel"]
    assert np.abs(change).max() > VISIBLE


def test_a_task_with_fewer_classes_is_learned_as_if_its_output_layer_were_narrow():
    """Units without a class are never chosen, take no part and stay as they are."""
    wide, narrow = replace(SMALL, classes=(2, 5)), SMALL
    net, alone = fast(wide, SHORT), fast(narrow, SHORT)
    rng = np.random.default_rng(21)
    geopaths, images = random_geopaths(wide, 2, rng), random_batches(narrow, SHORT, rng)
    fixed_path = frozen(wide, "none")
    net.initialize(4, 0, fixed_path)
    start = net.parameters()
    cut = {name: v[:, :2] if "output" in name else v for name, v in start.items()}
    alone.set_parameters(cut)
    of_wide, of_narrow = (
        each.train(geopaths, *images, 0, fixed_path) for each in (net, alone)
    )
    for value, expected in zip(of_wide, of_narrow):
        np.testing.assert_allclose(value, expected, **TOLERANCE)
    after, expected = net.parameters(), alone.parameters()
    for name in ("output/kernel", "output/bias"):
        assert_identical(after[name][0, 2:], start[name][0, 2:])
        assert np.abs(after[name] - start[name])[0, :2].max() > VISIBLE
        after[name] = after[name][:, :2]
    assert_same_parameters(after, expected)
    assert net.accuracy(geopaths[0], *images, 0) == alone.accuracy(
        geopaths[0], *images, 0
    )


def test_one_step_is_the_gradient():
    """With T=1 and learning rate 1, what changes is the gradient of the reference."""
    net, masked = fast(SMALL, ONE_STEP), reference(SMALL, ONE_STEP)
    rng = np.random.default_rng(3)
    fixed_path = frozen(SMALL, "narrow")
    for task in range(2):
        geopath = random_geopaths(SMALL, ONE_STEP.B, rng)[0]
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
        trains["output"] = np.arange(len(grid.classes)) == task
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
    geopaths = random_geopaths(SMALL, training.B, rng)
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


def test_a_net_built_alone_trains_one_candidate_too():
    """On the same parameters, as a net of one candidate does."""
    training = replace(SHORT, writeback="winner")
    net = TrainablePathNet(SMALL, training, alone=True)
    single = fast(SMALL, replace(training, B=1))
    rng = np.random.default_rng(16)
    start = random_parameters(net, rng)
    geopaths = random_geopaths(SMALL, training.B, rng)
    batches = random_batches(SMALL, training, rng)
    for other, paths in ((single, geopaths[:1]), (fast(SMALL, training), geopaths)):
        results = []
        for tried in (net, other):
            tried.set_parameters(start)
            results.append(tried.train(paths, *batches, 0, 0 * geopaths[0]))
        np.testing.assert_array_equal(results[0][0], results[1][0])
        assert_same_parameters(net.parameters(), other.parameters())


def test_compiling_ahead_changes_no_parameter():
    net = TrainablePathNet(SMALL, SHORT)
    net.initialize(3, 0, np.zeros([SMALL.L, SMALL.M]))
    before, threads = net.parameters(), set(threading.enumerate())
    net.compile_ahead((SHORT.B, False), (SHORT.B, True))
    (started,) = set(threading.enumerate()) - threads
    started.join()
    for name, value in net.parameters().items():
        assert_identical(value, before[name])


def test_gradients_of_the_reference_are_slopes_of_its_loss():
    """Guards the reference itself, by finite differences in a random direction."""
    masked = reference(SMALL, ONE_STEP)
    rng = np.random.default_rng(4)
    geopath = random_geopaths(SMALL, ONE_STEP.B, rng)[0]
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


@pytest.mark.parametrize(
    "grid, training",
    [
        (SMALL, ONE_STEP),
        (LAST, replace(ONE_STEP, B=4)),
        (replace(NORMALIZED, frozen_share=0.5), ONE_STEP),
    ],
)
def test_logits_are_those_of_the_reference(grid, training):
    """A batch of one image and one label has as its loss that label's log-likelihood."""
    net, masked = fast(grid, training), reference(grid, training)
    rng = np.random.default_rng(5)
    start = random_parameters(net, rng)
    geopaths = random_geopaths(grid, training.B, rng)
    fixed_path = frozen(grid, "narrow")
    masked.set_parameters(start)
    images = rng.integers(0, 256, (3, grid.inputs), dtype=np.uint8)
    for image in images:
        batch = np.repeat(image[None], training.batch_num, 0)
        losses = []
        for label in range(grid.most_classes):
            net.set_parameters(start)
            labels = np.full(training.batch_num, label)
            losses.append(net.train(geopaths, batch, labels, 1, fixed_path)[1])
        for b, geopath in enumerate(geopaths):
            logits = masked.logits(geopath, fixed_path, image[None], 1)[0]
            active = grid.active(geopath, fixed_path)
            in_numpy = numpy_logits(grid, start, active, image[None], 1)[0]
            np.testing.assert_allclose(logits, in_numpy, **TOLERANCE)
            top = logits.max()
            likelihoods = logits - top - np.log(np.sum(np.exp(logits - top)))
            np.testing.assert_allclose(
                -np.array(losses)[:, b], likelihoods, rtol=1e-5, atol=1e-5
            )


# ---- What a generation does ----


def distinct_tournament(grid, training, fixed_path, rng):
    """Start, geopaths and batches of a generation without a tie, and what it gives."""
    net = fast(grid, training)
    for _ in range(50):
        start = random_parameters(net, rng)
        geopaths = random_geopaths(grid, training.B, rng)
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
        geopaths = random_geopaths(grid, training.B, rng)
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
    geopaths = random_geopaths(SMALL, SHORT.B, rng)
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
    for number in range(20):
        task = number // 10
        net.initialize(number, task, frozen(SMALL, "narrow"))
        batches = random_batches(SMALL, SHORT, rng)
        geopaths = random_geopaths(SMALL, SHORT.B, rng)
        net.train(geopaths, *batches, task, frozen(SMALL, "none"))
        net.accuracy(geopaths[0], *batches, task)
        net.set_parameters(net.parameters())
    assert len(net.graph.get_operations()) == operations
    with net.graph.as_default(), pytest.raises(RuntimeError, match="finalized"):
        tf.constant(1)

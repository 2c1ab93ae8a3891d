"""Tests of experiment.py: streams, the tournament loop, and what one repeat leaves."""

import datetime
import itertools
import json
import os
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pathnet
from common import network
from common.commandline import UserError
from supervised import datasets, experiment, generation
from supervised.checkpoints import NoCheckpoints
from supervised.controls import CONTROLS
from supervised.outcomes import Outcome
from supervised.settings import Settings, of_task
from supervised.streams import (
    FAKE_DATA,
    NOISE,
    POPULATION,
    TOURNAMENT,
    random_stream,
)
from supervised.tournaments import Generation, Task

DEFAULTS = {
    "L": 3,
    "M": 6,
    "N": 2,
    "filt": 8,
    "aggregation": "average",
    "centred": False,
    "module_kinds": "mixed",
    "fixed_path_active": True,
    "tournament": "fair",
    "mutation": "uniform",
    "paths": "genes",
    "mutation_rate": None,
    "draw_with_replacement": False,
    "select_by": "train",
    "mini_batches": "random",
    "fixed_path_random": False,
    "optimizer": "sgd",
    "test_every": 10,
    "candi": 7,
    "B": 3,
    "T": 4,
    "batch_num": 5,
    "learning_rate": 0.5,
    "writeback": "sum",
    "stop_accuracy": 0.9,
    "max_steps": 12,
    "seed": 3,
    "runs": 1,
    "record": "results",
    "control": ["pathnet"],
    "save_dir": None,
    "load_dir": None,
    "resume": None,
    "results": None,
}
INPUTS = 24


# ---- Helpers ----


VALUES = types.SimpleNamespace()  # of the flags, as the running test sets them


@pytest.fixture
def flags(tmp_path):
    vars(VALUES).clear()
    vars(VALUES).update(DEFAULTS, log_dir=str(tmp_path / "logs"))
    return VALUES


def settings(tasks=("1v3", "1v2")):
    """The Settings that VALUES come to."""
    grid = "L", "M", "N", "filt", "aggregation", "centred", "module_kinds"
    training = "T", "batch_num", "learning_rate", "writeback", "optimizer"
    same = (
        "candi",
        "B",
        "mutation",
        "mutation_rate",
        "paths",
        "stop_accuracy",
        "max_steps",
        "seed",
        "runs",
    )
    same += "test_every", "resume", "save_dir", "log_dir", "fixed_path_random"
    v = vars(VALUES)
    tournaments = tuple(v["tournament"].split(","))
    return Settings(
        script="trial",
        tasks=list(tasks),
        network=network.Network(),
        loaded_from=None,
        grid={name: v[name] for name in (*grid, "fixed_path_active")},
        training=generation.Training(
            B=v["B"] if "fair" in tournaments else 1,
            **{name: v[name] for name in training},
        ),
        tournaments=tournaments,
        selections=tuple(v["select_by"].split(",")),
        replacement=v["draw_with_replacement"],
        in_order=v["mini_batches"] == "in_order",
        controls=v["control"],
        noise=None,
        noise_shares=(0.5,),
        train_images=(None,),
        size=None,
        grey=False,
        fake_data=False,
        data_dirs={},
        records=v["record"] == "all",
        checkpoint_seconds=30,
        results_file=v["results"],
        flags=dict(v),
        may_differ=["seed"],
        **{name: v[name] for name in same},
    )


def small_grid(**changes):
    values = {name: DEFAULTS[name] for name in ("L", "M", "N", "filt")}
    return pathnet.Grid(**values | {"inputs": INPUTS, "classes": (2, 2)} | changes)


def numbered_task(name="1v3", images=60):
    """A task whose image i holds the number i and whose label is that of its number."""
    numbers = np.arange(images, dtype=np.uint8)
    pixels = np.repeat(numbers[:, None], INPUTS, axis=1)
    split = datasets.Split(pixels, (numbers % 3 == 0).astype(np.uint8))
    return Task(name, name, split, split)


def learnable_task(name, seed):
    data = datasets.fake(INPUTS, 2, 400, 100, np.random.default_rng(seed))
    return Task(name, name, data.train, data.test)


class RecordingNet:
    """In place of a PathNet: notes what it is asked for, fitness is by a rule."""

    def __init__(self, fitness_of=None, **grid):
        self.grid = small_grid(**grid)
        self.initialized, self.trained, self.tested, self.kept = [], [], [], []
        self.kept_accuracy = 0.875
        self.accuracies = itertools.repeat(0.75)
        rng = np.random.default_rng(0)
        self._fitness_of = fitness_of or (lambda *_: 0.8 * rng.random(DEFAULTS["B"]))
        self.weights = np.zeros(3)

    def initialize(self, seed, task, fixed_path):
        self.initialized.append((seed, task, fixed_path.copy()))

    def train(self, geopaths, images, labels, task, fixed_path):
        call = {"geopaths": geopaths, "images": images, "labels": labels}
        call |= {"task": task, "fixed_path": fixed_path.copy()}
        self.trained.append(call)
        number = sum(call["task"] == task for call in self.trained)
        fitness = np.array(self._fitness_of(task, number), float)[: len(geopaths)]
        return fitness, 1 - fitness

    def accuracy(self, geopath, images, labels, task):
        if len(images) == DEFAULTS["T"] * DEFAULTS["batch_num"]:  # mini-batches
            self.kept.append((geopath.copy(), images))
            return self.kept_accuracy
        self.tested.append((geopath.copy(), task))
        return next(self.accuracies)

    def parameters(self):
        return {"layer1/kernel": self.weights}

    def compile_ahead(self, *shapes):
        self.compiled_for = shapes


def experiment_with(net, folder=None, small_net=None):
    """An Experiment on nets of the test, in a folder of the test, without checkpoints."""
    run = object.__new__(experiment.Experiment)
    run.settings = settings()
    run.folder = str(folder)
    run.data = {"numbers": "60+60 images"}
    run.display = run._choose_display()
    run.checkpoints = NoCheckpoints
    run.pictures = run._choose_pictures()
    run.first_task = None
    run._nets = {False: net, True: small_net}
    return run


def repeat_on(net, seed=3, folder=None, control="pathnet"):
    return experiment.Repeat(experiment_with(net, folder), seed, CONTROLS[control])


def learn(repeat, task):
    """All tournaments of a task, as the scripts run them."""
    for tournament in repeat.tournaments(task):
        tournament.overwrite_losers(tournament.train(tournament.draw()))


# ---- Random streams ----


def test_a_stream_depends_on_nothing_but_its_arguments():
    first = random_stream(5, TOURNAMENT, 1, 7).random(100)
    random_stream(5, TOURNAMENT, 1, 6).random(1000)
    np.random.default_rng().random(3)
    np.testing.assert_array_equal(first, random_stream(5, TOURNAMENT, 1, 7).random(100))


def test_streams_differ_in_seed_purpose_task_and_generation():
    purposes = FAKE_DATA, NOISE, POPULATION, TOURNAMENT
    seeds = 0, 1, 2, 2**31 - 1, 2**31
    keys = list(itertools.product(seeds, purposes, range(4), range(6)))
    assert len(set(purposes)) == 4
    draws = np.array([random_stream(*key).random(8) for key in keys])
    assert len(np.unique(draws)) == draws.size
    # Neighbours must not be near each other either.
    rows = np.corrcoef(
        [random_stream(0, TOURNAMENT, 0, g).random(4000) for g in range(9)]
    )
    assert np.abs(rows - np.eye(9)).max() < 0.1


# ---- Generation and Outcome ----


def test_what_a_generation_and_an_outcome_tell():
    path = np.array([[0, 4], [2, 2], [5, 1]])
    active = pathnet.to_geopath(np.array([[0, 4], [2, 3], [5, 1]]), 6)
    last = Generation(
        number=41,
        population=path[None],
        path=path,
        active=active,
        fitness=np.array([0.5, 0.9, 0.7]),
        loss=np.array([0.7, 0.2, 0.4]),
        winner=1,
        batches=np.arange(5),
    )
    outcome = Outcome(numbered_task(), last, True, 0.9, 0.8, 1.5, {})
    assert last.best_fitness == 0.9
    assert type(last.best_fitness) is float
    assert outcome.generations == 41
    # The best path is what evolved alone, without the fixed path in `active`.
    expected = np.zeros([3, 6])
    expected[[0, 0, 1, 2, 2], [0, 4, 2, 1, 5]] = 1
    np.testing.assert_array_equal(outcome.geopath, expected)


# ---- The loop ----


def test_all_candidates_of_a_generation_get_the_same_mini_batches(flags):
    net = RecordingNet()
    learn(repeat_on(net), numbered_task())
    assert len(net.trained) == flags.max_steps
    drawn = []
    for call in net.trained:
        # One set of images is handed over for all B candidates.
        assert call["geopaths"].shape == (flags.B, flags.L, flags.M)
        assert call["images"].shape == (flags.T * flags.batch_num, INPUTS)
        numbers = call["images"][:, 0]
        assert len(set(numbers)) == len(numbers)  # an image comes once a generation
        np.testing.assert_array_equal(call["labels"], numbers % 3 == 0)
        drawn.append(tuple(numbers))
    assert len(set(drawn)) == len(drawn)  # every generation draws its own
    assert len(set(itertools.chain(*drawn))) == 60  # and none is left out for ever


def test_in_turn_each_candidate_is_trained_alone_on_batches_of_its_own(flags):
    flags.tournament, flags.max_steps = "sequential", 4
    fitness = [0.2, 0.6, 0.4]
    net = RecordingNet(lambda _, number: [fitness[(number - 1) % 3]])
    repeat = repeat_on(net)
    learn(repeat, numbered_task())
    assert len(net.trained) == flags.max_steps * flags.B
    drawn = set()
    for call in net.trained:
        assert call["geopaths"].shape == (1, flags.L, flags.M)
        drawn.add(tuple(call["images"][:, 0]))
    assert len(drawn) == len(net.trained)
    last = repeat.outcomes[0].last
    assert last.fitness.tolist() == fitness
    assert last.loss.tolist() == [0.8, 0.4, 0.6]
    assert last.winner == 1
    np.testing.assert_array_equal(
        repeat.outcomes[0].geopath, net.trained[-2]["geopaths"][0]
    )


def test_genes_drift_towards_module_0(flags):
    flags.mutation, flags.max_steps, flags.stop_accuracy = "drift", 400, 1
    repeat = repeat_on(RecordingNet())
    learn(repeat, numbered_task())
    assert (repeat.outcomes[0].last.population == 0).mean() > 0.9


def test_frozen_modules_need_not_be_active(flags):
    flags.fixed_path_active = False
    net = RecordingNet(fixed_path_active=False)
    repeat = repeat_on(net)
    for _ in range(2):
        learn(repeat, numbered_task())
        repeat.freeze()
    second = repeat.outcomes[1]
    np.testing.assert_array_equal(second.last.active, second.geopath)
    np.testing.assert_array_equal(net.trained[-1]["fixed_path"], net.initialized[1][2])
    assert net.initialized[1][2].any()


# ---- The early system as it was run ----


def test_what_holds_for_a_task_holds_for_all_that_follow():
    assert [of_task(("fair", "sequential"), n) for n in range(3)] == [
        "fair",
        "sequential",
        "sequential",
    ]
    assert of_task((0.5,), 7) == 0.5


def test_tournaments_may_be_fair_in_the_first_task_alone(flags):
    flags.tournament, flags.max_steps = "fair,sequential", 4
    net = RecordingNet(lambda *_: [0.2, 0.6, 0.4])
    repeat = repeat_on(net)
    for _ in range(3):
        learn(repeat, numbered_task())
        repeat.freeze()
    sizes = [
        [len(c["geopaths"]) for c in net.trained if c["task"] == n] for n in range(3)
    ]
    assert sizes == [[flags.B] * 4, [1] * 4 * flags.B, [1] * 4 * flags.B]


@pytest.mark.parametrize(
    ("controls", "tournament", "shapes"),
    [
        (["pathnet"], "fair", [(3, False), (3, True)]),
        (["scratch", "pathnet"], "fair", [(3, False), (3, True)]),
        (["pathnet"], "fair,sequential", [(3, False), (1, True)]),
        (["scratch"], "fair", [(3, False)]),
        (["fixed_size"], "fair", [(1, False)]),
    ],
)
def test_what_the_first_tasks_need_is_compiled_ahead(
    flags, controls, tournament, shapes
):
    flags.control, flags.tournament = controls, tournament
    net, small = RecordingNet(), RecordingNet()
    experiment_with(net, small_net=small)._compile_ahead()
    chosen = small if controls == ["fixed_size"] else net
    assert list(chosen.compiled_for) == shapes


def test_held_out_images_may_select_in_the_second_task(flags, capsys):
    flags.tournament, flags.select_by = "fair,sequential", "train,test"
    flags.max_steps = 1
    fitness = [0.2, 0.6, 0.4]
    net = RecordingNet(lambda task, number: [fitness[number - 1]] if task else fitness)
    net.accuracies = iter([0.7, 0.3, 0.1, 0.8, 0.25, 0.75])
    repeat = repeat_on(net)
    for _ in range(2):
        learn(repeat, numbered_task())
        repeat.freeze()
    first, second = repeat.outcomes
    assert (first.last.winner, first.last.best_fitness) == (1, 0.6)
    # The third candidate's held-out accuracy is the highest; its fitness is what it was.
    assert (second.last.winner, second.last.best_fitness) == (2, 0.4)
    np.testing.assert_array_equal(second.geopath, net.trained[-1]["geopaths"][0])
    # Each was tested, with its frozen modules, right after it had been trained.
    tested = [path for path, task in net.tested if task][:3]
    for call, path in zip(net.trained[1:], tested, strict=True):
        np.testing.assert_array_equal(
            path, np.maximum(call["geopaths"][0], call["fixed_path"])
        )
    assert "selected_by" not in first.entry()
    assert second.entry()["selected_by"] == "test"
    said = [line for line in capsys.readouterr().out.splitlines() if "held-out" in line]
    assert not said[0].endswith("selected")
    assert said[1].endswith("held-out accuracy 0.2500, by which winners were selected")


def test_held_out_images_do_not_select_among_candidates_that_are_trained_alike(flags):
    flags.select_by = "test"
    with pytest.raises(ValueError, match="sequential"):
        learn(repeat_on(RecordingNet()), numbered_task())


@pytest.mark.parametrize("tournament", ["fair", "sequential"])
def test_mini_batches_in_the_order_of_the_data(flags, tournament):
    flags.mini_batches, flags.max_steps, flags.tournament = "in_order", 5, tournament
    net = RecordingNet()
    learn(repeat_on(net), numbered_task(images=48))
    images = flags.T * flags.batch_num
    times = 1 if tournament == "fair" else flags.B
    for number, call in enumerate(net.trained):
        expected = (np.arange(images) + number // times * images) % 48
        np.testing.assert_array_equal(call["images"][:, 0], expected)


def test_paths_drawn_with_replacement_and_evolved_as_sets(flags):
    flags.draw_with_replacement, flags.paths, flags.mutation = True, "sets", "neighbour"
    flags.candi, flags.max_steps, flags.stop_accuracy = 40, 300, 1
    repeat = repeat_on(RecordingNet())
    tournaments = repeat.tournaments(numbered_task())
    tournament = next(tournaments)
    rng = random_stream(3, POPULATION, 0)
    population = pathnet.random_paths(rng, 40, flags.L, 6, flags.N, replacement=True)
    drawn = tournament.draw().tolist()
    assert all(path in population.tolist() for path in drawn)
    doubles = np.mean(population[..., 0] == population[..., 1])
    assert doubles > 0
    tournament.overwrite_losers(tournament.train(np.array(drawn)))
    for tournament in tournaments:
        tournament.overwrite_losers(tournament.train(tournament.draw()))
    last = repeat.outcomes[0].last.population
    assert (
        np.mean(last[..., 0] == last[..., 1]) > doubles
    )  # those that meet do not part


def test_a_frozen_path_may_be_random(flags, tmp_path, capsys):
    flags.fixed_path_random, flags.max_steps = True, 2
    net = RecordingNet()
    net.accuracies = iter([0.5, 0.75, 0.5])
    repeat = repeat_on(net, folder=tmp_path)
    for _ in range(2):
        learn(repeat, numbered_task())
        repeat.freeze()
    assert not net.initialized[1][2].any()  # all modules are new
    fixed_path = repeat.outcomes[0].geopath
    np.testing.assert_array_equal(
        net.trained[-1]["fixed_path"], fixed_path
    )  # untrained
    repeat.finish("the last line")
    said = capsys.readouterr().out
    assert "unchanged" not in said  # though by chance the accuracy is
    assert (
        "Task 1 once more: held-out accuracy 0.5000, as its modules were initialized again"
        in said.splitlines()
    )


@pytest.mark.parametrize("control", ["scratch", "finetune"])
def test_without_a_frozen_path_nothing_is_random(flags, tmp_path, capsys, control):
    flags.max_steps, kept = 2, []
    for is_random in (False, True):
        flags.fixed_path_random = is_random
        net = RecordingNet()
        repeat = repeat_on(net, folder=tmp_path, control=control)
        for _ in range(2):
            learn(repeat, numbered_task())
            repeat.freeze()
        repeat.finish("the last line")
        kept.append(net.initialized[1][2])
    np.testing.assert_array_equal(*kept)
    assert "initialized again" not in capsys.readouterr().out


def test_images_do_not_depend_on_what_wins(flags):
    """The mini-batches of a generation are the seed's, however the evolution went."""
    batches = []
    for winner in range(2):
        net = RecordingNet(lambda *_, winner=winner: np.eye(flags.B)[winner] / 2)
        learn(repeat_on(net), numbered_task())
        batches.append([call["images"][:, 0].tolist() for call in net.trained])
    assert batches[0] == batches[1]


def test_tournaments_change_the_population_as_the_paper_says(flags, monkeypatch):
    tournaments = []

    def draw(rng, candi, B):
        drawn = true_draw(rng, candi, B)
        tournaments.append([drawn])
        return drawn

    def overwrite(rng, paths, fitness, M):
        before = paths.copy()
        after, winner = true_overwrite(rng, paths, fitness, M)
        tournaments[-1] += [before, fitness, after.copy(), winner]
        return after, winner

    true_draw, true_overwrite = pathnet.draw_candidates, pathnet.overwrite_losers
    monkeypatch.setattr(pathnet, "draw_candidates", draw)
    monkeypatch.setattr(pathnet, "overwrite_losers", overwrite)
    flags.max_steps = 60
    net = RecordingNet()
    repeat = repeat_on(net)
    learn(repeat, numbered_task())

    population = pathnet.random_paths(
        random_stream(3, POPULATION, 0), flags.candi, flags.L, flags.M, flags.N
    )
    seen = set()
    assert len(tournaments) == 60
    for (drawn, before, fitness, after, winner), call in zip(tournaments, net.trained):
        assert len(set(drawn)) == flags.B  # different candidates
        seen |= set(drawn)
        np.testing.assert_array_equal(before, population[drawn])
        np.testing.assert_array_equal(
            call["geopaths"], pathnet.to_geopath(population[drawn], flags.M)
        )
        assert fitness[winner] == max(fitness)
        np.testing.assert_array_equal(after[winner], population[drawn[winner]])
        population[drawn] = after
    assert seen == set(range(flags.candi))
    last = repeat.outcomes[0].last
    np.testing.assert_array_equal(last.population, population)
    np.testing.assert_array_equal(last.path, tournaments[-1][1][last.winner])


def test_a_task_ends_with_the_first_winner_that_is_good_enough(flags):
    net = RecordingNet(lambda _, number: [0.1, {5: 0.9, 4: 0.8999}.get(number, 0.3), 0])
    repeat = repeat_on(net)
    learn(repeat, numbered_task())
    (outcome,) = repeat.outcomes
    assert outcome.converged
    assert outcome.generations == len(net.trained) == 5
    assert outcome.last.best_fitness == 0.9
    assert outcome.accuracy_test == 0.75
    assert outcome.accuracy_train == 0.875
    # That is of the winner's path, on the images that it was just trained on.
    ((geopath, images),) = net.kept
    np.testing.assert_array_equal(geopath, net.trained[-1]["geopaths"][1])
    np.testing.assert_array_equal(images, net.trained[-1]["images"])
    assert outcome.curve == {
        "generation": [1, 2, 3, 4, 5],
        "fitness": [0.3, 0.3, 0.3, 0.8999, 0.9],
    }


def test_without_such_a_winner_the_last_one_is_taken(flags, capsys):
    fitness = [[0.1, 0.2, 0.8]] * (flags.max_steps - 1) + [[0.5, 0.3, 0.4]]
    net = RecordingNet(lambda _, number: fitness[number - 1])
    repeat = repeat_on(net)
    learn(repeat, numbered_task())
    (outcome,) = repeat.outcomes
    assert not outcome.converged
    assert outcome.generations == len(net.trained) == flags.max_steps
    assert outcome.last.best_fitness == 0.5
    np.testing.assert_array_equal(outcome.geopath, net.trained[-1]["geopaths"][0])
    assert (
        f"not converged after {flags.max_steps} generations" in capsys.readouterr().out
    )


def test_paths_are_frozen_from_task_to_task(flags):
    net = RecordingNet()
    repeat = repeat_on(net, seed=8)
    for name in ("1v3", "1v2", "4v5"):
        learn(repeat, numbered_task(name))
        repeat.freeze()
    geopaths = [outcome.geopath for outcome in repeat.outcomes]
    fixed = [np.zeros([3, 6]), geopaths[0], np.maximum(geopaths[0], geopaths[1])]
    assert [entry[:2] for entry in net.initialized] == [(8, 0), (8, 1), (8, 2)]
    for number, expected in enumerate(fixed):
        np.testing.assert_array_equal(net.initialized[number][2], expected)
        mine = [call for call in net.trained if call["task"] == number]
        assert len(mine) == flags.max_steps
        for call in mine:
            np.testing.assert_array_equal(call["fixed_path"], expected)
    # After each task it is tested, and those before it once more; each with its best
    # path together with what was the fixed path then.
    assert [task for _, task in net.tested] == [0, 1, 0, 2, 0, 1]
    for geopath, task in net.tested:
        np.testing.assert_array_equal(geopath, np.maximum(fixed[task], geopaths[task]))
    assert repeat.overlap() == np.sum(np.sum(geopaths, axis=0) >= 2)


def test_each_task_has_a_population_and_tournaments_of_its_own(flags):
    net = RecordingNet(lambda *_: [0.5, 0.4, 0.3])
    repeat = repeat_on(net)
    for _ in range(2):
        learn(repeat, numbered_task())
        repeat.freeze()
    first, second = (
        [call for call in net.trained if call["task"] == task] for task in range(2)
    )
    for key in ("geopaths", "images"):
        assert not np.array_equal(first[0][key], second[0][key])
    for task, calls in enumerate((first, second)):
        population = pathnet.random_paths(
            random_stream(3, POPULATION, task), flags.candi, flags.L, flags.M, flags.N
        )
        options = pathnet.to_geopath(population, flags.M)
        for geopath in calls[0]["geopaths"]:
            assert (options == geopath).all(axis=(1, 2)).any()


def test_a_generation_takes_every_image_once_or_of_few_some_again(flags):
    need = flags.T * flags.batch_num
    net = RecordingNet()
    learn(repeat_on(net), numbered_task(images=need))
    assert sorted(net.trained[0]["images"][:, 0]) == list(range(need))
    few = need - 15
    net = RecordingNet()
    learn(repeat_on(net), numbered_task(images=few))
    taken = net.trained[0]["images"][:, 0]
    assert len(taken) == need and set(taken) <= set(range(few))


def test_a_long_curve_is_thinned_and_keeps_its_end(flags):
    flags.max_steps = 1234
    repeat = repeat_on(RecordingNet())
    learn(repeat, numbered_task())
    curve = repeat.outcomes[0].curve
    assert curve["generation"] == [*range(1, 1000), *range(1000, 1234, 10), 1234]
    assert len(curve["fitness"]) == len(curve["generation"])
    assert curve["fitness"][-1] == repeat.outcomes[0].last.best_fitness


# ---- What a repeat leaves ----


@pytest.mark.parametrize(
    ("later", "verdict"), [(0.5, "unchanged"), (0.5000001, "CHANGED")]
)
def test_what_was_learned_first_is_tested_again(
    flags, tmp_path, capsys, later, verdict
):
    net = RecordingNet()
    net.accuracies = iter([0.5, 0.75, later])
    repeat = repeat_on(net, folder=tmp_path)
    for _ in range(2):
        learn(repeat, numbered_task())
        repeat.freeze()
    repeat.finish("the last line")
    lines = capsys.readouterr().out.splitlines()
    assert f"Task 1 once more: held-out accuracy 0.5000, {verdict}" in lines
    assert lines[-1] == "the last line"
    # It is tested with the modules that its last generation used.
    first, second, again = net.tested
    np.testing.assert_array_equal(first[0], again[0])
    assert (first[1], second[1], again[1]) == (0, 1, 0)
    result = json.loads((tmp_path / "results.jsonl").read_text())
    assert result["tasks"][0]["accuracy_test"] == 0.5
    assert result["tasks"][0]["accuracy_test_after_all"] == later
    assert result["retention"] == [[0.5], [later, 0.75]]


def test_repeats_print_one_line_each(flags, tmp_path, capsys):
    flags.runs = 2
    run = experiment_with(RecordingNet(), tmp_path)
    for seed in (3, 4):
        repeat = experiment.Repeat(run, seed, CONTROLS["pathnet"])
        for _ in range(2):
            learn(repeat, numbered_task())
            repeat.freeze()
        repeat.finish(f"line of {seed}")
    failed = "task {}, 1v3, after 12 generations"
    not_converged = f"Not converged: {failed.format(1)}; {failed.format(2)}"
    first, one, second, *table, where, two = capsys.readouterr().out.splitlines()
    assert (first, second) == (not_converged, not_converged)
    assert (one, two) == ("line of 3", "line of 4")
    assert where == f"Results: {tmp_path}"
    assert any(
        row.startswith("| 1: 1v3 | 12.0 ± 0.0, 0 of 2 converged |") for row in table
    )
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["seed"] for line in lines] == [3, 4]


def test_runs_of_the_same_second_have_folders_of_their_own(flags, monkeypatch):
    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2017, 1, 30, 12, 34, 56)

    monkeypatch.setattr(experiment.datetime, "datetime", Clock)
    monkeypatch.setattr(experiment, "TrainablePathNet", lambda *_, **__: RecordingNet())
    folders = []
    for _ in range(3):
        run = experiment.Experiment(settings(), INPUTS, (2, 2), {})
        folders.append(run.folder)
        Path(run.folder, "mine").touch()
    name = os.path.join(flags.log_dir, "trial__1v3_1v2__seed3__20170130-123456")
    assert folders == [name, f"{name}-2", f"{name}-3"]
    assert [sorted(os.listdir(folder)) for folder in folders] == [
        ["mine", "run.json"]
    ] * 3


def test_an_experiment_has_a_repeat_for_each_seed(flags, monkeypatch):
    monkeypatch.setattr(experiment, "TrainablePathNet", lambda *_, **__: RecordingNet())
    flags.runs = 3
    run = experiment.Experiment(settings(), INPUTS, (2, 2), {})
    assert [repeat.seed for repeat in run.repeats()] == [3, 4, 5]


@pytest.mark.parametrize("name", ["filt", "M", "L", "B", "T", "batch_num"])
def test_a_grid_that_does_not_fit_leaves_nothing(flags, name):
    setattr(flags, name, 10**12)
    with pytest.raises(UserError, match=f"--{name}=1000000000000\\b.* GiB"):
        experiment.Experiment(settings(), INPUTS, (2, 2), {})
    assert not os.path.exists(flags.log_dir)


def test_what_many_tasks_leave(flags, tmp_path, capsys):
    net = RecordingNet()
    net.accuracies = iter([0.5, 0.6, 0.5, 0.7, 0.5, 0.6])
    repeat = repeat_on(net, folder=tmp_path)
    for name in ("1v3", "1v2", "4v5"):
        learn(repeat, numbered_task(name))
        repeat.freeze()
    repeat.finish("the last line")
    output = capsys.readouterr().out
    assert "| after 3: 4v5 | 50.00 | 60.00 | 70.00 | 12, not converged | " in output
    result = json.loads((tmp_path / "results.jsonl").read_text())
    assert result["retention"] == [[0.5], [0.5, 0.6], [0.5, 0.6, 0.7]]
    used = np.cumsum([outcome.geopath for outcome in repeat.outcomes], axis=0) > 0
    counts = [task["modules_so_far"] for task in result["tasks"]]
    assert counts == [int(modules.sum()) for modules in used]


def test_too_few_free_modules_are_told_in_numbers(flags, capsys):
    repeat = repeat_on(RecordingNet())
    repeat._fixed_path = np.zeros([3, 6], np.float32)
    repeat._fixed_path[1, :5] = repeat._fixed_path[2] = 1
    learn(repeat, numbered_task("4v5"))
    (note,) = capsys.readouterr().err.splitlines()
    assert note == (
        "note: task 1, 4v5: fewer modules are free than the 2 that a path may use: "
        "1 of 6 in layer 2, 0 of 6 in layer 3"
    )
    assert repeat.outcomes[0].generations == flags.max_steps  # and it still runs


# ---- Tasks that are not learned ----


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_run_ends_where_training_diverges(flags, number):
    net = RecordingNet(lambda _, n: [0.5, 1 - number if n == 4 else 0.4, 0.3])
    with pytest.raises(UserError, match="seed 3, 1v3: .*diverged in generation 4,"):
        learn(repeat_on(net), numbered_task())


def test_parameters_that_diverge_in_the_last_step_are_not_kept(flags):
    net = RecordingNet()
    net.weights = np.array([0, np.nan])
    with pytest.raises(UserError, match="diverged in generation 12,"):
        learn(repeat_on(net), numbered_task())


def test_a_kept_network_far_below_its_winner_is_noted(flags, capsys):
    sum_adds = "kept has only 0.5500: --writeback=sum"
    for best, kept, note in [(0.9, 0.875, ""), (0.9, 0.55, sum_adds), (0.8, 0.55, "")]:
        net = RecordingNet(lambda *_, best=best: [best, 0.1, 0.1])
        net.kept_accuracy = kept
        learn(repeat_on(net), numbered_task())
        noted = capsys.readouterr().err
        assert note in noted and bool(note) == bool(noted)


def test_a_plateau_at_chance_is_noted_once(flags, capsys):
    """Two of three images of the task are of one class: guessing reaches 0.67."""
    flags.max_steps, flags.stop_accuracy = 700, 1
    for best, noted in [(0.7, 1), (0.72, 0)]:
        learn(repeat_on(RecordingNet(lambda *_, b=best: [b, 0, 0])), numbered_task())
        lines = [s for s in capsys.readouterr().err.splitlines() if "guessing" in s]
        assert len(lines) == noted
        assert all("after 300 generations fitness is 0.7" in line for line in lines)


def test_repeats_of_a_batch_say_what_did_not_converge(flags, tmp_path, capsys):
    flags.results = str(tmp_path / "results.jsonl")
    repeat = repeat_on(RecordingNet(lambda task, _: [0.1, 0.9 * task, 0]), 8)
    for name in ("1v3", "1v2"):
        learn(repeat, numbered_task(name))
        repeat.freeze()
    repeat.finish("the line")
    assert capsys.readouterr().out.splitlines() == [
        "Not converged: task 1, 1v3, after 12 generations",
        "1 Iteration,  the line,Seed:8",
    ]


# ---- Controls ----


def learn_two(net, control):
    repeat = repeat_on(net, control=control)
    for name in ("1v3", "1v2"):
        learn(repeat, numbered_task(name))
        repeat.freeze()
    return repeat


def test_scratch_freezes_nothing(flags):
    net = RecordingNet()
    learn_two(net, "scratch")
    assert not any(fixed_path.any() for _, _, fixed_path in net.initialized)
    assert not any(call["fixed_path"].any() for call in net.trained)
    populations = {call["geopaths"].tobytes() for call in net.trained}
    assert len(populations) > flags.max_steps  # both tasks evolve


def test_random_frozen_freezes_as_many_untrained_modules(flags):
    """In each layer; drawn by the seed, and initialized again when a task begins."""
    net = RecordingNet()
    repeat = learn_two(net, "random_frozen")
    assert not any(kept.any() for _, _, kept in net.initialized)
    second = [call["fixed_path"] for call in net.trained if call["task"] == 1]
    best = repeat.outcomes[0].geopath
    for fixed_path in second:
        np.testing.assert_array_equal(fixed_path, second[0])
        np.testing.assert_array_equal(fixed_path.sum(1), best.sum(1))
    again = RecordingNet()
    learn_two(again, "random_frozen")
    np.testing.assert_array_equal(again.trained[-1]["fixed_path"], second[0])
    frozen = CONTROLS["random_frozen"].frozen
    others = [frozen(seed, 0 * best, [best]) for seed in range(5)]
    assert any((fixed_path != second[0]).any() for fixed_path in others)


@given(st.integers(0, 2**31), st.integers(1, 4), st.data())
def test_random_frozen_adds_modules_that_are_free(seed, tasks, data):
    """Until none is left."""
    L, M = 2, 5
    fixed_path, geopaths = np.zeros([L, M], np.float32), []
    for _ in range(tasks):
        counts = data.draw(st.lists(st.integers(1, 3), min_size=L, max_size=L))
        best = np.array([[1] * n + [0] * (M - n) for n in counts], np.float32)
        geopaths.append(best)
        now = CONTROLS["random_frozen"].frozen(seed, fixed_path, geopaths)
        assert (now >= fixed_path).all() and set(np.unique(now)) <= {0, 1}
        expected = np.minimum(fixed_path.sum(1) + best.sum(1), M)
        np.testing.assert_array_equal(now.sum(1), expected)
        fixed_path = now


def test_without_selection_the_winner_is_drawn(flags):
    """Whatever the fitness, until one is good enough to end the task."""
    winners = []
    for low in (0.1, 0.5):
        flags.max_steps = 40
        net = RecordingNet(lambda *_, low=low: np.array([low, *[0.6] * (flags.B - 1)]))
        repeat = repeat_on(net, control="no_selection")
        drawn = []
        for tournament in repeat.tournaments(numbered_task()):
            tournament.overwrite_losers(tournament.train(tournament.draw()))
            drawn.append(tournament.generation().winner)
        winners.append(drawn)
    assert winners[0] == winners[1] and set(winners[0]) == set(range(flags.B))
    net = RecordingNet(lambda *_: np.array([*[0.2] * (flags.B - 1), 0.999]))
    repeat = repeat_on(net, control="no_selection")
    learn(repeat, numbered_task())
    assert repeat.outcomes[0].last.winner == flags.B - 1
    assert repeat.outcomes[0].converged


def test_fine_tuning_trains_the_first_best_path_on(flags):
    net = RecordingNet()
    repeat = learn_two(net, "finetune")
    assert not net.initialized[0][2].any()
    assert net.initialized[1][2].all()  # all modules are kept, only the head is new
    best = repeat.outcomes[0].geopath
    second = [call for call in net.trained if call["task"] == 1]
    assert len(second) == flags.max_steps
    for call in second:
        np.testing.assert_array_equal(call["geopaths"], best[None])
        assert not call["fixed_path"].any()
    np.testing.assert_array_equal(repeat.outcomes[1].geopath, best)


def test_a_network_of_the_selected_size_does_not_evolve(flags):
    small = RecordingNet(M=2)
    large = RecordingNet()
    run = experiment_with(large, small_net=small)
    repeat = experiment.Repeat(run, 3, CONTROLS["fixed_size"])
    for name in ("1v3", "1v2"):
        learn(repeat, numbered_task(name))
        repeat.freeze()
    assert not any(fixed_path.any() for _, _, fixed_path in small.initialized)
    for call in small.trained:
        np.testing.assert_array_equal(call["geopaths"], np.ones([1, 3, 2]))
    assert large.trained == []


@pytest.mark.slow
def test_controls_share_seed_data_and_first_task(flags, real_net, tmp_path, capsys):
    flags.max_steps = 200
    flags.control = ["pathnet", "scratch", "finetune"]
    for repeat in experiment_with(real_net, tmp_path).repeats():
        for number in range(2):
            learn(repeat, learnable_task(f"task {number}", number))
            repeat.freeze()
        repeat.finish(f"line of {repeat.seed} {repeat.control}")
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert [(r["seed"], r["control"]) for r in found] == [
        (3, control) for control in flags.control
    ]
    first, second = zip(*[[task["curve"] for task in r["tasks"]] for r in found])
    assert first[0] == first[1] == first[2]
    assert second[0] != second[1] != second[2] != second[0]
    kept, *forgotten = (r["retention"] for r in found)
    assert kept[1][0] == kept[0][0]
    assert any(matrix[1][0] < matrix[0][0] for matrix in forgotten)
    output = capsys.readouterr().out
    assert output.count("| task | control |") == 1
    assert output.splitlines()[-2:] == ["Seed 3, finetune:", "line of 3 finetune"]


@pytest.mark.slow
@pytest.mark.parametrize("control", ["pathnet", "scratch", "finetune"])
def test_a_first_task_is_learned_once_for_all_controls(
    flags, real_net, tmp_path, control
):
    """What follows it is the same as if the control had learned it by itself."""

    def repeat_of(controls):
        flags.control = controls
        learned = []
        for repeat in experiment_with(real_net, tmp_path).repeats():
            played = []
            for number in range(2):
                task = learnable_task(f"task {number}", number)
                played.append(0)
                for tournament in repeat.tournaments(task):
                    tournament.overwrite_losers(tournament.train(tournament.draw()))
                    played[-1] += 1
                repeat.freeze()
            repeat.finish("")
            learned.append((played, repeat.outcomes, real_net.parameters()))
        return learned[-1]

    other = "scratch" if control != "scratch" else "finetune"
    (none, most), outcomes, parameters = repeat_of([other, control])
    first_and_second, expected, expected_parameters = repeat_of([control])
    assert none == 0
    assert first_and_second == [expected[0].generations, most]
    for outcome, same in zip(outcomes, expected):
        assert {**outcome.entry(), "seconds": 0} == {**same.entry(), "seconds": 0}
    for name, value in parameters.items():
        np.testing.assert_array_equal(value, expected_parameters[name])


# ---- With a real net ----


class WatchedNet(generation.TrainablePathNet):
    """Keeps the parameters as they are right after each initialization."""

    def __init__(self, grid, training, alone):
        super().__init__(grid, training, alone)
        self.fresh = []

    def initialize(self, seed, task, fixed_path):
        super().initialize(seed, task, fixed_path)
        self.fresh.append(self.parameters())


@pytest.fixture(scope="module")
def real_net():
    names = "B", "T", "batch_num", "learning_rate", "writeback"
    training = generation.Training(**{name: DEFAULTS[name] for name in names})
    return WatchedNet(small_grid(), training, alone=True)


def by_module(parameters):
    """[L][(kernel [M, ...], bias [M, filt])] and the heads' ([tasks, ...], ...)."""
    layers = [f"layer{layer}" for layer in range(1, DEFAULTS["L"] + 1)] + ["output"]
    *grid, heads = (
        (parameters[f"{layer}/kernel"], parameters[f"{layer}/bias"]) for layer in layers
    )
    return grid, heads


@pytest.mark.slow
def test_a_frozen_path_keeps_every_bit_and_all_else_starts_again(flags, real_net):
    flags.max_steps = 300
    real_net.fresh.clear()
    repeat = repeat_on(real_net)
    learn(repeat, learnable_task("a", 1))
    frozen = repeat.outcomes[0].geopath.astype(bool)
    after_one = real_net.parameters()
    repeat.freeze()
    learn(repeat, learnable_task("b", 2))
    after_two = real_net.parameters()
    assert repeat.outcomes[0].accuracy_test > 0.8  # there was something to forget
    assert 0 < frozen.sum() < frozen.size

    grid, heads = zip(*map(by_module, [*real_net.fresh, after_one, after_two]))
    for layer in range(DEFAULTS["L"]):
        kept = frozen[layer]
        for part in range(2):  # kernels, biases
            first, second, one, two = (parameters[layer][part] for parameters in grid)
            np.testing.assert_array_equal(second[kept], one[kept])
            np.testing.assert_array_equal(two[kept], one[kept])
            assert np.any(one[kept] != first[kept])  # the frozen ones were trained
            assert np.any(two[~kept] != second[~kept])  # and now the others
            if part == 0:
                assert not np.any(second[~kept] == one[~kept])
                assert not np.any(second[~kept] == first[~kept])
                assert np.abs(second[~kept]).max() <= np.float32(0.2)
                assert 0.05 < second[~kept].std() < 0.11
            else:
                np.testing.assert_array_equal(second[~kept], np.float32(0.1))
    for first, second, one, two in zip(*heads):
        np.testing.assert_array_equal(second[0], one[0])
        np.testing.assert_array_equal(two[0], one[0])
        assert np.any(one[0] != first[0])
        assert np.any(two[1] != second[1])

    task, last = repeat.outcomes[0].task, repeat.outcomes[0].last
    again = real_net.accuracy(last.active, task.test.images, task.test.labels, 0)
    assert again == repeat.outcomes[0].accuracy_test


@pytest.mark.slow
def test_a_repeat_does_not_see_what_was_learned_before_it(flags, real_net):
    flags.max_steps = 6
    traces = []
    for seed in (3, 4, 3):
        repeat = repeat_on(real_net, seed)
        for task in range(2):
            learn(repeat, learnable_task("a", task))
            repeat.freeze()
        trace = [(o.curve, o.last.path.tolist(), o.last.loss) for o in repeat.outcomes]
        traces.append(([entry[:2] for entry in trace], [e[2] for e in trace]))
    assert traces[0][0] == traces[2][0]
    np.testing.assert_array_equal(traces[0][1], traces[2][1])
    assert not np.array_equal(traces[0][1], traces[1][1])


def resident_bytes():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_generations_leave_no_ops_and_no_memory_behind(flags, real_net):
    task = learnable_task("a", 1)
    flags.stop_accuracy = 2  # out of reach
    flags.max_steps = 50
    learn(repeat_on(real_net), task)
    operations, memory = len(real_net.graph.get_operations()), resident_bytes()
    flags.max_steps = 300
    repeat = repeat_on(real_net)
    learn(repeat, task)
    repeat.freeze()
    learn(repeat, task)
    assert [outcome.generations for outcome in repeat.outcomes] == [300, 300]
    assert len(real_net.graph.get_operations()) == operations
    assert resident_bytes() - memory < 20e6


# ---- A script that forgets a step ----


@pytest.mark.parametrize("left_out", ["draw", "train", "overwrite_losers"])
def test_a_step_of_a_tournament_that_is_left_out_is_named(flags, left_out):
    tournaments = repeat_on(RecordingNet()).tournaments(numbered_task())
    steps = {
        "draw": lambda tournament: tournament.draw(),
        "train": lambda tournament: tournament.train(np.zeros([3, 3, 2], int)),
        "overwrite_losers": lambda tournament: tournament.overwrite_losers([1, 0, 0]),
    }
    with pytest.raises(RuntimeError, match=f"tournament 1: {left_out} was not called"):
        for tournament in tournaments:
            for name, step in steps.items():
                if name != left_out:
                    step(tournament)


def test_a_task_that_is_not_frozen_or_not_over_is_an_error(flags):
    repeat = repeat_on(RecordingNet())
    next(repeat.tournaments(numbered_task()))
    with pytest.raises(RuntimeError, match="the task is not over"):
        repeat.freeze()
    learn(repeat, numbered_task())
    with pytest.raises(RuntimeError, match="freeze was not called"):
        learn(repeat, numbered_task())

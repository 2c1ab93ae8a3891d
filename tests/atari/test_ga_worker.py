"""Tests of atari_ga_worker.py: its decisions, and a worker with servers of its own."""

import json
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_parameter_servers import LEARNING

import pathnet
from atari import ga_worker as atari_ga_worker
from atari.ga_worker import BINS, UNSET, Curve, GaWorker, Settings
from atari.parameter_servers import Grid, Shared
from common import checkpoint, results
from common import tf1 as tf
from common.commandline import UserError
from reports import tables

no_deadline = settings(deadline=None)
seeds = st.integers(0, 2**32 - 1)


# ---- Decisions ----


@no_deadline
@given(
    pairs=st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(0, 9)), min_size=1),
)
def test_a_score_is_the_mean_return_or_unset(pairs):
    returns, played = map(np.array, zip(*pairs))
    for score, total, count in zip(
        atari_ga_worker.scores(returns, played), *zip(*pairs)
    ):
        assert score == (total / count if count else UNSET)


@no_deadline
@given(seed=seeds, data=st.data())
def test_the_best_of_those_compared_keeps_its_path_and_the_others_get_copies(
    seed, data
):
    M, N, L, actors = 6, 3, 2, data.draw(st.integers(2, 7))
    B = data.draw(st.integers(2, actors))
    rng = np.random.default_rng(seed)
    paths = pathnet.random_paths(rng, actors, L, M, N)
    score = rng.permutation(actors) * 1.5 - 3
    before = paths.copy()
    look = np.random.default_rng(seed)
    drawn = pathnet.draw_candidates(np.random.default_rng(seed), actors, B)
    new, losers = atari_ga_worker.tournament(look, paths, score, B, M, rate=0.0)

    assert np.array_equal(paths, before), "the paths that were given have changed"
    winner = drawn[np.argmax(score[drawn])]
    assert sorted([winner, *losers]) == sorted(drawn)
    for actor in range(actors):
        kept = winner if actor in losers else actor
        assert np.array_equal(new[actor], before[kept])

    # With mutation the winner's path is still untouched, and every gene moves a little.
    look = np.random.default_rng(seed)
    new, losers = atari_ga_worker.tournament(look, paths, score, B, M, rate=1.0)
    assert np.array_equal(new[winner], before[winner])
    assert np.abs(new[losers] - before[winner]).max(initial=0) <= 2
    assert new.min() >= 0 and new.max() < M


def test_the_rule_is_that_of_the_supervised_tasks():
    paths = pathnet.random_paths(np.random.default_rng(0), 3, 4, 10, 4)
    score = np.array([1.0, 2.0, -3.0])
    rng = np.random.default_rng(7)
    new, losers = atari_ga_worker.tournament(rng, paths, score, 2, 10)
    rng = np.random.default_rng(7)
    drawn = pathnet.draw_candidates(rng, 3, 2)
    expected, winner = pathnet.overwrite_losers(rng, paths[drawn], score[drawn], 10)
    assert np.array_equal(new[drawn], expected)
    assert losers.tolist() == np.delete(drawn, winner).tolist()


@no_deadline
@given(seed=seeds, missing=st.integers(0, 4))
def test_nothing_is_decided_before_all_that_are_drawn_have_played(seed, missing):
    paths = pathnet.random_paths(np.random.default_rng(0), 5, 2, 6, 3)
    score = np.arange(5.0)
    score[missing] = UNSET
    drawn = pathnet.draw_candidates(np.random.default_rng(seed), 5, 3)
    result = atari_ga_worker.tournament(np.random.default_rng(seed), paths, score, 3, 6)
    assert (result is None) == (missing in drawn)


@no_deadline
@given(
    episodes=st.lists(
        st.tuples(st.integers(0, 2), st.integers(-1, 3), st.integers(-21, 21)),
        max_size=20,
    ),
    played=hnp.arrays(np.int64, 3, elements=st.integers(0, 5)),
)
def test_episodes_count_for_the_path_that_played_them(episodes, played):
    versions = np.array([0, 2, 3])
    returns = played * 2.0
    rows = np.array([(0, a, v, r, 9, 100) for a, v, r in episodes], float).reshape(
        -1, 6
    )
    before = returns.copy(), played.copy()
    new_returns, new_played = atari_ga_worker.credit(returns, played, versions, rows)
    assert np.array_equal(before[0], returns) and np.array_equal(before[1], played)
    for actor in range(3):
        own = [r for a, v, r in episodes if (a, v) == (actor, versions[actor])]
        assert new_played[actor] == played[actor] + len(own)
        assert new_returns[actor] == returns[actor] + sum(own)


# ---- Curves ----

episode_lists = st.lists(st.tuples(st.integers(0, 12_000), st.floats(-21, 21)))


@no_deadline
@given(episodes=episode_lists)
def test_a_curve_is_the_mean_return_over_steps(episodes):
    curve = Curve(10_000)
    for steps, episodic_return in episodes:
        curve.add(steps, episodic_return)
    points = curve.points()
    assert sum(points["episodes"]) == len(episodes)
    bins = {}
    for steps, episodic_return in episodes:
        bins.setdefault(min(steps // 10, BINS - 1), []).append(episodic_return)
    assert points["steps"] == [10 * (place + 1) for place in sorted(bins)]
    means = [np.mean(bins[place]) for place in sorted(bins)]
    np.testing.assert_allclose(points["return"], means, atol=1e-3)
    last = [r for _, r in episodes][-results.SCORE_EPISODES :]
    assert curve.score() == (pytest.approx(np.mean(last)) if last else None)
    json.dumps(points)


@no_deadline
@given(episodes=episode_lists, more=episode_lists)
def test_a_curve_comes_back_from_its_arrays_and_goes_on(episodes, more):
    curve = Curve(10_000)
    for episode in episodes:
        curve.add(*episode)
    again = Curve(10_000, curve.values, np.array(curve.recent))
    for episode in more:
        curve.add(*episode)
        again.add(*episode)
    assert again.points() == curve.points()
    assert again.score() == curve.score()


@no_deadline
@given(episodes=episode_lists, budget=st.integers(1_000, 10**7))
def test_a_curve_over_another_budget_keeps_its_episodes_where_they_were(
    episodes, budget
):
    curve = Curve(10_000)
    for episode in episodes:
        curve.add(*episode)
    other = curve.over(budget)
    assert other.score() == curve.score()
    points, moved = curve.points(), other.points()
    assert sum(moved["episodes"]) == len(episodes)
    width = max(10, budget / BINS)
    places = np.repeat(points["steps"], points["episodes"])
    now = np.repeat(moved["steps"], moved["episodes"])
    inside = places < budget - width
    assert (np.abs(places - now)[inside] <= width + 1).all()
    assert curve.over(10_000).points() == points


def test_the_running_score_of_a_curve():
    curve = {"steps": [10, 20, 30], "return": [0.0, 1.0, 3.0], "episodes": [20, 20, 20]}
    steps, score = tables.running_score(curve)
    assert steps.tolist() == [20, 30]
    # 30 episodes reach back into a point that holds 20: all of it counts.
    assert score.tolist() == [0.5, 2.0]
    assert tables.steps_to(curve, 1) == 30 and tables.steps_to(curve, 5) is None


def test_a_path_in_a_few_characters():
    geopath = np.array([[1, 0, 1, 1], [0, 0, 0, 1]])
    assert atari_ga_worker._short(geopath) == "023 3"
    wide = np.zeros([2, 12])
    wide[0, [1, 11]] = wide[1, 10] = 1
    assert atari_ga_worker._short(wide) == "1,11 10"


# ---- A worker ----

ACTORS = 3
GRID = Grid(2, 4, 2, (12,), (12,), actions=(3, 3), use_lstm=False)


class World:
    """Servers that outlive a worker, and what actors would do to them.

    Each start() is a worker's process: it knows only what it finds.
    """

    def __init__(self, folder):
        self.folder = folder
        self._server = tf.train.Server.create_local_server()
        self.settings = Settings(
            games=("catch", "catch"),
            B=ACTORS,
            seed=1,
            tournament_seconds=0,
            checkpoint_seconds=0,
            stop_score=None,
            control="pathnet",
            folder=str(folder),
            checkpoint_dir=str(folder / "checkpoints"),
            flags={"max_time_step": 1000, "seed": 1},
        )
        folder.mkdir()
        with tf.Graph().as_default() as graph:
            self._shared = Shared(GRID, ACTORS, 0, LEARNING)
            self._rows = tf.placeholder(tf.float64, [None, 6])
            self._tell = self._shared.episodes.enqueue_many(self._rows)
            self._steps = tf.placeholder(tf.int64, [])
            self._step = self._shared.steps.assign_add(self._steps)
            self._values = {
                n: v.read_value()
                for n, v in (
                    self._shared.state() | {"ready": self._shared.ready}
                ).items()
            }
            self._lose = tf.global_variables_initializer()
        self._session = tf.Session(self._server.target, graph=graph)

    def start(self, **changes):
        role = types.SimpleNamespace(actors=ACTORS, ps=(), device="/cpu:0")
        settings_ = replace(self.settings, **changes)
        worker = GaWorker(role, GRID, LEARNING, settings_)
        session = tf.Session(self._server.target, graph=worker.graph)
        worker.set_up(session)
        return worker, session

    def values(self):
        return self._session.run(self._values)

    def play(self, returns, steps=100, versions=None, task=0):
        """Every actor plays one episode."""
        now = self.values()
        versions = now["versions"] if versions is None else versions
        rows = [
            (task, actor, versions[actor], returns[actor], 11, now["steps"])
            for actor in range(ACTORS)
        ]
        self._session.run(self._tell, {self._rows: rows})
        self._session.run(self._step, {self._steps: steps})

    def lose(self):
        """The servers die and are started again: all is zero, nothing is ready."""
        self._session.run(self._lose)


@pytest.fixture(scope="module")
def server_world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("world") / "0")


@pytest.fixture
def world(server_world, tmp_path):
    server_world.lose()
    server_world.folder = tmp_path / "run"
    server_world.folder.mkdir()
    server_world.settings = replace(
        server_world.settings,
        folder=str(server_world.folder),
        checkpoint_dir=str(server_world.folder / "checkpoints"),
    )
    return server_world


def test_a_new_population(world):
    world.start()
    now = world.values()
    assert now["ready"] and now["task"] == now["steps"] == now["generation"] == 0
    assert not now["played"].any() and not now["fixed_paths"].any()
    assert now["paths"].shape == (ACTORS, 2, 2)
    assert len({path.tobytes() for path in now["paths"]}) > 1
    for name in "layer1/kernel", "layer2/kernel", "task2/policy/kernel":
        assert now[name].any()


def test_a_look_compares_once_all_have_played(world):
    worker, session = world.start()
    first = world.values()
    assert not worker.look(session)
    assert world.values()["generation"] == 0

    world.play([1, 5, 3])
    assert not worker.look(session)
    now = world.values()
    assert now["generation"] == 1
    assert np.array_equal(now["paths"][1], first["paths"][1])
    assert (now["versions"] - first["versions"]).tolist() == [1, 0, 1]
    # The winner's score is kept, the others' are unset.
    assert now["returns"].tolist() == [0, 5, 0]
    assert now["played"].tolist() == [0, 1, 0]

    # Episodes begun on the old paths do not count.
    world.play([9, -5, 9], versions=first["versions"])
    assert not worker.look(session)
    now = world.values()
    assert now["generation"] == 1
    assert now["returns"].tolist() == [0, 0, 0]
    assert now["played"].tolist() == [0, 2, 0]

    status = json.loads((world.folder / "status.json").read_text())
    assert (status["task"], status["steps"], status["generation"]) == (0, 200, 1)
    assert [actor["score"] for actor in status["actors"]] == [None, 0.0, None]
    worker.close()


def finish_task(world, worker, session, task, best):
    """Plays until the steps of a task are spent: what look() answers then."""
    returns = [0.0] * ACTORS
    returns[best] = 4.0
    world.play(returns, steps=1000, task=task)
    return worker.look(session)


def test_two_tasks_and_the_last_line(world):
    worker, session = world.start()
    best = world.values()["paths"][2]
    assert not finish_task(world, worker, session, 0, best=2)
    now = world.values()
    assert now["task"] == 1 and now["steps"] == 0 and now["generation"] == 0
    assert np.array_equal(now["fixed_paths"][0], pathnet.to_geopath(best, 4))
    # Episodes of the first task that are told late belong to nobody.
    world.play([9, 9, 9], steps=0, task=0)
    assert not worker.look(session)
    assert not world.values()["played"].any()

    assert finish_task(world, worker, session, 1, best=0)
    assert worker.look(session)
    line = worker.finish()
    assert line == "CATCH_CATCH,TASK1:1000,TASK2:1000,Done"
    [entry] = results.read([world.folder / "results.jsonl"])
    assert entry["script"] == "atari" and entry["seed"] == 1
    assert [task["steps"] for task in entry["tasks"]] == [1000, 1000]
    assert entry["tasks"][0]["path"] == best.tolist()
    assert entry["tasks"][0]["score"] == pytest.approx(4 / 3)
    assert entry["tasks"][0]["curve"]["episodes"] == [3]
    assert (world.folder / "paths.png").stat().st_size > 1000
    worker.close()
    # Curves reach the end of their task.
    for task in 1, 2:
        events = EventAccumulator(str(world.folder / f"task{task}_catch")).Reload()
        last = events.Scalars("charts/episodic_return")[-1]
        assert (last.step, last.value) == (1000, pytest.approx(4 / 3))


def test_a_task_ends_on_a_score(world):
    worker, session = world.start(stop_score=2.0)
    for episode in range(results.SCORE_EPISODES // ACTORS):
        assert world.values()["task"] == 0
        world.play([2, 2, 1 if episode == 0 else 2], steps=1)
        worker.look(session)
    assert world.values()["task"] == 0  # one return of 1 is among the last thirty
    world.play([2, 2, 2], steps=1)
    worker.look(session)
    assert world.values()["task"] == 1
    worker.close()


def test_a_worker_that_dies_goes_on_with_what_the_servers_hold(world):
    worker, session = world.start()
    world.play([1, 5, 3])
    worker.look(session)
    worker.save(session)
    before = world.values()
    again, session = world.start()
    after = world.values()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    world.play([0, 0, 0])
    again.look(session)
    again.save(session)
    # Its curve holds the episodes from before and after.
    _, arrays = checkpoint.load(world.settings.checkpoint_dir)
    assert arrays["curve"][1].sum() == 6
    worker.close()
    again.close()


def test_servers_that_die_come_back_from_the_last_checkpoint(world):
    worker, session = world.start()
    finish_task(world, worker, session, 0, best=1)
    world.play([1, 5, 3], steps=300, task=1)
    worker.look(session)
    worker.save(session)
    before = world.values()
    world.play([1, 5, 3], steps=300, task=1)  # lost
    world.lose()
    with pytest.raises(tf.errors.AbortedError):
        worker.look(session)
    worker.set_up(session)
    after = world.values()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert after["ready"] and after["task"] == 1 and after["steps"] == 300

    # A new process does the same, and remembers how the first task went.
    world.lose()
    again, session = world.start()
    after = world.values()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert finish_task(world, again, session, 1, best=0)
    assert again.finish() == "CATCH_CATCH,TASK1:1000,TASK2:1300,Done"
    worker.close()
    again.close()


def start_and_save(world):
    """A worker that made a checkpoint after 900 of the first task's 1,000 steps."""
    worker, session = world.start()
    world.play([1, 5, 3], steps=900)
    worker.look(session)
    worker.save(session)
    return worker, session


def assert_goes_on(world, worker, session):
    """From that checkpoint: both tasks are ended, the first one's 900 steps counted."""
    assert not finish_task(world, worker, session, 0, best=1)
    assert finish_task(world, worker, session, 1, best=1)
    assert worker.finish() == "CATCH_CATCH,TASK1:1900,TASK2:1000,Done"
    worker.close()


def test_a_worker_that_dies_as_it_ends_a_task_ends_it_again(world, monkeypatch):
    """The servers are one task ahead of the last checkpoint: it must not be forgotten."""
    worker, session = start_and_save(world)

    class Death(Exception):
        pass

    def die(_):
        raise Death

    monkeypatch.setattr(worker, "save", die)
    with pytest.raises(Death):
        finish_task(world, worker, session, 0, best=1)
    assert world.values()["task"] == 1
    again, session = world.start()
    now = world.values()
    assert (now["task"], now["steps"], now["ready"]) == (0, 900, True)
    assert_goes_on(world, again, session)
    worker.close()


def test_a_worker_that_is_cut_off_as_it_ends_a_task_ends_it_again(world, monkeypatch):
    """The same when it lives on, and only the servers' answer was lost."""
    worker, session = start_and_save(world)
    run = session.run

    def answer_lost(fetches, *feeds):
        answer = run(fetches, *feeds)
        if fetches is worker._switch:
            raise tf.errors.UnavailableError(None, None, "lost")
        return answer

    cut_off = types.SimpleNamespace(run=answer_lost)
    world.play([0, 4, 0], steps=100)
    with pytest.raises(tf.errors.UnavailableError):
        worker.look(cut_off)
    assert world.values()["task"] == 1
    worker.set_up(session)
    assert world.values()["task"] == 0
    assert_goes_on(world, worker, session)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        (
            {"games": ("catch", "pong")},
            "made with --games=catch,catch, and this run has",
        ),
        ({"grid": {"M": 5}}, "made with --M=4, and this run has 5"),
        (
            {"grid": {"kernel_num": (10,)}},
            "made with --kernel_num=12, and this run has 10",
        ),
        (
            {"grid": {"use_lstm": True}},
            "made with --use_lstm=false, and this run has true",
        ),
        ({"actors": 4}, "made with --worker_hosts_num=3, and this run has 4"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(world, monkeypatch, changes, fault):
    worker, session = world.start()
    worker.save(session)
    world.lose()
    monkeypatch.setattr(f"{__name__}.GRID", replace(GRID, **changes.pop("grid", {})))
    monkeypatch.setattr(f"{__name__}.ACTORS", changes.pop("actors", ACTORS))
    with pytest.raises(UserError) as refused:
        world.start(**changes)
    text = str(refused.value)
    assert fault in text
    assert text.startswith(f"flag --checkpoint_dir={world.settings.checkpoint_dir}: ")
    assert not world.values()["ready"]


def test_a_checkpoint_of_something_else_is_refused(world):
    checkpoint.save(world.settings.checkpoint_dir, 1, {"script": "mnist"}, {})
    with pytest.raises(UserError, match="no checkpoints of Atari"):
        world.start()


def test_what_the_control_runs_hand_on(world):
    """scratch freezes nothing; finetune keeps all, on the best path alone."""
    for control, frozen in (("scratch", False), ("finetune", False), ("pathnet", True)):
        world.lose()
        folder = world.folder / control
        Path(folder).mkdir()
        worker, session = world.start(
            control=control, folder=str(folder), checkpoint_dir=str(folder / "saved")
        )
        before = world.values()
        finish_task(world, worker, session, 0, best=1)
        after = world.values()
        assert after["fixed_paths"].any() == frozen
        same = (after["layer1/kernel"] == before["layer1/kernel"]).all((1, 2, 3, 4))
        best = pathnet.to_geopath(before["paths"][1], 4)[0].astype(bool)
        expected = {"scratch": [False] * 4, "finetune": [True] * 4, "pathnet": best}
        assert np.array_equal(same, expected[control])
        on_best = (after["paths"] == before["paths"][1]).all()
        assert on_best == (control == "finetune")
        if control == "finetune":
            world.play([1, 5, 3], task=1)
            worker.look(session)
            assert np.array_equal(world.values()["paths"], after["paths"])
        worker.close()

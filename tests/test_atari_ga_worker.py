"""Tests of atari_ga_worker.py: what the GA worker decides, as pure functions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import atari_ga_worker
import pathnet
import results
from atari_ga_worker import UNSET

L, M, N = 4, 10, 4
seeds = st.integers(0, 2**32 - 1)


@st.composite
def populations(draw):
    """(rng, paths, score) of some actors, all of which have played."""
    rng = np.random.default_rng(draw(seeds))
    actors = draw(st.integers(2, 12))
    score = draw(st.lists(st.floats(-21, 21), min_size=actors, max_size=actors))
    return rng, pathnet.random_paths(rng, actors, L, M, N), np.array(score)


def test_scores_are_means_or_unset():
    score = atari_ga_worker.scores(np.array([-42.0, 0, 3]), np.array([2, 0, 1]))
    assert score.tolist() == [-21.0, UNSET, 3.0]


@given(populations(), st.data())
def test_the_best_keeps_its_path_and_the_others_get_copies_of_it(population, data):
    rng, paths, score = population
    B = data.draw(st.integers(2, len(paths)))
    before = paths.copy()
    after, losers = atari_ga_worker.tournament(rng, paths, score, B, M)
    np.testing.assert_array_equal(paths, before)
    assert len(losers) == B - 1
    kept = np.delete(np.arange(len(paths)), losers)
    np.testing.assert_array_equal(after[kept], before[kept])
    # The winner is nobody who lost, and as good as each of them.
    best = max(score[kept])
    assert all(score[loser] <= best for loser in losers)


@given(populations())
def test_copies_without_mutation_are_the_winners_path(population):
    rng, paths, score = population
    after, losers = atari_ga_worker.tournament(
        rng, paths, score, len(paths), M, rate=0.0
    )
    (winner,) = set(range(len(paths))) - set(losers)
    assert score[winner] == max(score)
    assert (after == paths[winner]).all()


@given(populations(), st.data())
def test_nothing_happens_before_all_that_were_drawn_have_played(population, data):
    rng, paths, score = population
    score[data.draw(st.integers(0, len(score) - 1))] = UNSET
    assert atari_ga_worker.tournament(rng, paths, score, len(paths), M) is None


def test_the_same_rule_as_in_the_supervised_tasks():
    paths = pathnet.random_paths(np.random.default_rng(0), 2, L, M, N)
    score = np.array([1.0, 2.0])
    after, losers = atari_ga_worker.tournament(
        np.random.default_rng(7), paths, score, 2, M
    )
    rng = np.random.default_rng(7)
    drawn = pathnet.draw_candidates(rng, 2, 2)
    expected, winner = pathnet.overwrite_losers(rng, paths[drawn], score[drawn], M)
    np.testing.assert_array_equal(after[drawn], expected)
    assert losers == np.delete(drawn, winner)


def episode(actor, version, episodic_return):
    return [0, actor, version, episodic_return, 100, 5000]


def test_only_episodes_on_the_present_path_count():
    returns, played = np.array([1.0, 0.0]), np.array([1, 0])
    rows = [episode(0, 3, 5.0), episode(0, 2, 9.0), episode(1, -1, 9.0)]
    rows += [episode(1, 0, -2.0), episode(1, 0, -4.0)]
    after = atari_ga_worker.credit(returns, played, np.array([3, 0]), np.array(rows))
    assert [values.tolist() for values in after] == [[6.0, -6.0], [2, 2]]
    assert (returns.tolist(), played.tolist()) == ([1.0, 0.0], [1, 0])


def test_a_curve_keeps_means_and_the_last_score():
    curve = atari_ga_worker.Curve(max_time_step=1000)
    for steps in range(100):
        curve.add(steps, steps % 2)
    points = curve.points()
    assert sum(points["episodes"]) == 100
    total = np.dot(points["return"], points["episodes"])
    assert total == pytest.approx(50)
    assert curve.score() == pytest.approx(0.5)
    assert len(curve.recent) == results.SCORE_EPISODES


def test_a_curve_is_bounded_however_long_a_task_takes():
    curve = atari_ga_worker.Curve(max_time_step=100)
    for steps in range(0, 100_000, 10):
        curve.add(steps, 1.0)
    assert len(curve.points()["steps"]) <= atari_ga_worker.BINS
    assert sum(curve.points()["episodes"]) == 10_000


def test_a_curve_goes_on_from_what_was_kept():
    whole = atari_ga_worker.Curve(1000)
    for steps in range(60):
        whole.add(steps, float(steps))
    first = atari_ga_worker.Curve(1000)
    for steps in range(40):
        first.add(steps, float(steps))
    second = atari_ga_worker.Curve(1000, first.values, first.recent)
    for steps in range(40, 60):
        second.add(steps, float(steps))
    assert second.points() == whole.points()
    assert second.score() == whole.score()


def test_a_score_is_unknown_before_the_first_episode():
    assert atari_ga_worker.Curve(1000).score() is None


def test_the_running_score_of_a_curve():
    curve = {"steps": [10, 20, 30], "return": [0.0, 1.0, 3.0], "episodes": [20, 20, 20]}
    steps, score = results.running_score(curve)
    assert steps.tolist() == [20, 30]
    # 30 episodes reach back into a point that holds 20: all of it counts.
    assert score.tolist() == [0.5, 2.0]
    assert results.steps_to(curve, 1) == 30 and results.steps_to(curve, 5) is None

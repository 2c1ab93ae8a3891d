"""Tests of scores.py: scores of actors, and the curve of a task."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from atari.scores import BINS, SCORE_EPISODES, UNSET, Curve, credit, scores
from reports import tables

no_deadline = settings(deadline=None)


@no_deadline
@given(
    pairs=st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(0, 9)), min_size=1),
)
def test_a_score_is_the_mean_return_or_unset(pairs):
    returns, played = map(np.array, zip(*pairs))
    for score, total, count in zip(scores(returns, played), *zip(*pairs)):
        assert score == (total / count if count else UNSET)


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
    new_returns, new_played = credit(returns, played, versions, rows)
    assert np.array_equal(before[0], returns) and np.array_equal(before[1], played)
    for actor in range(3):
        counted = [r for a, v, r in episodes if (a, v) == (actor, versions[actor])]
        assert new_played[actor] == played[actor] + len(counted)
        assert new_returns[actor] == returns[actor] + sum(counted)


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
    last = [r for _, r in episodes][-SCORE_EPISODES:]
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


def test_tables_know_the_score_that_ends_a_task():
    assert tables.SCORE_EPISODES == SCORE_EPISODES

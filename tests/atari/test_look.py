"""Tests of look.py: what the GA worker decides."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pathnet
from atari.look import Look
from atari.scores import UNSET

no_deadline = settings(deadline=None)
seeds = st.integers(0, 2**32 - 1)


def tournament(rng, paths, score, B, M, **mutation):
    """The NewPaths of a look; None if one of those drawn has not played."""
    look = Look(rng, paths, score, B, M)
    drawn = look.draw()
    if look.all_have_played(drawn):
        return look.overwrite_losers(drawn, **mutation)
    return None


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
    generator = np.random.default_rng(seed)
    drawn = pathnet.draw_candidates(np.random.default_rng(seed), actors, B)
    new, losers = tournament(generator, paths, score, B, M, rate=0.0)

    assert np.array_equal(paths, before), "the paths that were given have changed"
    winner = drawn[np.argmax(score[drawn])]
    assert sorted([winner, *losers]) == sorted(drawn)
    for actor in range(actors):
        kept = winner if actor in losers else actor
        assert np.array_equal(new[actor], before[kept])

    # With mutation the winner's path is still untouched, and every gene moves a little.
    generator = np.random.default_rng(seed)
    new, losers = tournament(generator, paths, score, B, M, rate=1.0)
    assert np.array_equal(new[winner], before[winner])
    assert np.abs(new[losers] - before[winner]).max(initial=0) <= 2
    assert new.min() >= 0 and new.max() < M


def test_the_rule_is_that_of_the_supervised_tasks():
    paths = pathnet.random_paths(np.random.default_rng(0), 3, 4, 10, 4)
    score = np.array([1.0, 2.0, -3.0])
    rng = np.random.default_rng(7)
    new, losers = tournament(rng, paths, score, 2, 10)
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
    result = tournament(np.random.default_rng(seed), paths, score, 3, 6)
    assert (result is None) == (missing in drawn)


def test_scores_that_are_missing_are_not_compared():
    paths = pathnet.random_paths(np.random.default_rng(0), 2, 2, 6, 3)
    look = Look(np.random.default_rng(0), paths, np.array([1.0, UNSET]), 2, 6)
    with pytest.raises(RuntimeError, match="ask all_have_played"):
        look.overwrite_losers(look.draw())

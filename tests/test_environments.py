"""Tests of environments.py."""

import numpy as np
import pytest

import environments
from commandline import UserError


def optimal(observation):
    """The move that brings the paddle of Catch under the ball: int [E]."""
    cells = observation[:, -1, ::7, ::7] > 200
    ball = cells[:, :-1].any(axis=1).argmax(axis=1)
    paddle = cells[:, -1].argmax(axis=1)
    return np.where(ball < paddle, 1, np.where(ball > paddle, 2, 0))


@pytest.fixture
def catch():
    return environments.make("catch", 8, threads=1)


@pytest.fixture(scope="module")
def pong():
    games = environments.make("pong", 4, threads=1)
    yield games
    games.close()


def test_a_perfect_player_catches_every_ball(catch):
    observation, _ = catch.reset(seed=3)
    returns = []
    for _ in range(110):
        observation, rewards, over, _, _ = catch.step(optimal(observation))
        assert (over == (rewards != 0)).all()
        returns += list(rewards[over])
    assert returns == [1.0] * 80


def test_a_player_who_stays_catches_what_falls_on_the_middle(catch):
    observation, _ = catch.reset(seed=1)
    columns = []
    for step in range(11):
        if step == 0:
            columns = (observation[:, -1, 0, ::7] > 200).argmax(axis=1)
        observation, rewards, _, _, _ = catch.step(np.zeros(8, int))
    assert (rewards == np.where(columns == 6, 1, -1)).all()


@pytest.mark.parametrize("game", ["catch", "pong"])
def test_observations_are_stacks_of_the_last_four_screens(game):
    games = environments.make(game, 2, threads=1)
    before, _ = games.reset(seed=0)
    assert before.shape == (2, 4, 84, 84) and before.dtype == np.uint8
    for _ in range(5):
        after, _, over, cut, _ = games.step(np.ones(2, int))
        assert not (over | cut).any()
        np.testing.assert_array_equal(after[:, :3], before[:, 1:])
        before = after
    games.close()


def test_the_step_that_ends_a_game_shows_the_next_one(catch):
    observation, _ = catch.reset(seed=0)
    for _ in range(11):
        observation, _, over, _, _ = catch.step(optimal(observation))
    assert over.all()
    top = observation[:, :, 0, ::7] > 200
    assert top.any(axis=2).all(), "a new ball, in all four screens"


def test_the_same_seed_gives_the_same_games(catch):
    first = catch.reset(seed=5)[0]
    again = environments.make("catch", 8, threads=1).reset(seed=5)[0]
    np.testing.assert_array_equal(first, again)
    assert (first != catch.reset(seed=6)[0]).any()


def test_pong_ends_at_21_points_and_starts_again(pong):
    pong.reset(seed=0)
    rng = np.random.default_rng(0)
    returns = np.zeros(4)
    for _ in range(3000):
        _, rewards, over, _, _ = pong.step(rng.integers(0, 6, 4))
        returns += rewards
        if over.any():
            break
    assert over.any() and -21 <= returns[over][0] < 0


def test_pong_has_its_six_actions(pong):
    assert environments.actions("pong") == pong.single_action_space.n == 6


def test_a_person_sees_the_game_that_is_played():
    player = environments.make("pong", 1, threads=1)
    player.reset(seed=4)
    screen = environments.Screen("pong", seed=4)
    assert screen.picture().shape == (210, 160, 3)
    rng = np.random.default_rng(1)
    for _ in range(100):
        action = rng.integers(0, 6, 1)
        observation, _, _, _, _ = player.step(action)
        picture = screen.step(action)
    grey = picture.mean(axis=2)
    # The lowest row of a paddle or ball on the coarse screen is there on the fine one.
    assert abs(grey.mean() - observation[0, -1].mean()) < 10
    player.close()


@pytest.mark.parametrize(
    ("game", "hint"), [("pomg", "did you mean pong"), ("zzzz", "try pong")]
)
def test_an_unknown_game_is_one_line_with_a_hint(game, hint):
    with pytest.raises(UserError, match=hint) as caught:
        environments.check(game)
    assert f"'{game}'" in str(caught.value)

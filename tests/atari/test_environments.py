"""Tests of environments.py: Catch, and Atari games as they come from make()."""

import functools

import numpy as np
import pytest

from atari import environments
from atari.environments import CATCH, FRAMES, SCREEN, Catch
from common.commandline import UserError

pytestmark = pytest.mark.slow

CELLS = Catch.CELLS  # of a screen, both ways
CELL = SCREEN // CELLS  # pixels, both ways
FALL = CELLS - 1  # steps of an episode
STAY, LEFT, RIGHT = range(3)


def cells(screen):
    """Rows and columns of the bright cells of a Catch screen [84, 84]."""
    tiles = screen.reshape(CELLS, CELL, CELLS, CELL)
    assert (tiles == tiles[:, :1, :, :1]).all()
    return set(zip(*np.nonzero(tiles[:, 0, :, 0] == 230)))


def ball_and_paddle(screen):
    bright = cells(screen)
    ball = min(bright)
    return ball, max(bright - {ball}, default=ball)


def optimal(observation):
    """Moves each paddle under its ball, from the newest screen alone."""
    actions = []
    for screens in observation:
        (_, column), (_, paddle) = ball_and_paddle(screens[-1])
        actions.append(RIGHT if column > paddle else LEFT if column < paddle else STAY)
    return np.array(actions)


@pytest.fixture
def catch():
    environment = environments.make(CATCH, 5, threads=1)
    yield environment
    environment.close()


def test_whoever_follows_the_ball_catches_every_one(catch):
    observation, _ = catch.reset(seed=0)
    columns = set()
    for step in range(1, FALL * 30 + 1):
        columns |= {ball_and_paddle(s[-1])[0][1] for s in observation}
        observation, rewards, over, cut, _ = catch.step(optimal(observation))
        assert not cut.any()
        assert (over == (step % FALL == 0)).all()
        assert np.array_equal(rewards, np.where(over, 1.0, 0.0))
    assert columns == set(range(CELLS))


def test_a_ball_that_is_not_caught_is_a_minus(catch):
    observation, _ = catch.reset(seed=1)
    for _ in range(FALL):
        away = np.where(optimal(observation) == LEFT, RIGHT, LEFT)
        observation, rewards, over, _, _ = catch.step(away)
    assert over.all()
    assert np.array_equal(rewards, -np.ones(5))


def test_catch_shows_its_last_four_screens_and_starts_anew_in_the_same_step(catch):
    observation, _ = catch.reset(seed=2)
    assert catch.observation_space.contains(observation)
    assert catch.single_action_space.n == 3
    assert observation.shape == (5, FRAMES, SCREEN, SCREEN)
    assert observation.dtype == np.uint8
    assert (observation == observation[:, :1]).all()
    (_, start), (_, paddle) = ball_and_paddle(observation[0, -1])
    assert paddle == CELLS // 2
    for row in range(1, FALL):
        previous = observation
        observation, _, over, _, _ = catch.step(np.full(5, STAY))
        assert not over.any()
        assert np.array_equal(observation[:, :-1], previous[:, 1:])
        assert ball_and_paddle(observation[0, -1])[0] == (row, start)
    observation, _, over, _, _ = catch.step(np.full(5, STAY))
    assert over.all()
    # A new episode: nothing of the old one is left to be seen.
    assert (observation == observation[:, :1]).all()
    assert ball_and_paddle(observation[0, -1])[0][0] == 0


def test_what_catch_hands_out_stays_as_it_is(catch):
    first, _ = catch.reset(seed=3)
    kept = first.copy()
    catch.step(np.full(5, LEFT))
    assert np.array_equal(first, kept)


def test_the_paddle_stops_at_both_walls(catch):
    catch.reset(seed=4)
    for action, wall in ((LEFT, 0), (RIGHT, FALL)):
        # A step before the end of an episode, with more of them than cells to the wall.
        for _ in range(FALL - 1):
            observation, *_ = catch.step(np.full(5, action))
        assert all((FALL, wall) in cells(screens[-1]) for screens in observation)
        catch.step(np.full(5, action))


def test_seeds_of_catch():
    def balls(seed):
        environment = environments.make(CATCH, 40, threads=1)
        observation, _ = environment.reset(seed=seed)
        return [ball_and_paddle(screens[-1])[0] for screens in observation]

    assert balls(1) == balls(1) != balls(2)


# ---- Atari ----


@pytest.fixture(scope="module")
def pong():
    """Some thousand random steps of Pong: (first observation, steps)."""
    environment = environments.make("pong", 4, threads=1)
    first, _ = environment.reset(seed=0)
    rng = np.random.default_rng(0)
    steps = [environment.step(rng.integers(6, size=4)) for _ in range(1100)]
    environment.close()
    return first, steps


def test_pong_has_its_own_six_actions():
    assert environments.actions("pong") == 6
    assert environments.actions(CATCH) == 3
    assert environments.actions("breakout") == 4


def test_observations_of_pong(pong):
    first, steps = pong
    for observation in first, steps[0][0], steps[-1][0]:
        assert observation.shape == (4, FRAMES, SCREEN, SCREEN)
        assert observation.dtype == np.uint8
    # The frames before the newest are those of the step before.
    assert np.array_equal(steps[11][0][:, :-1], steps[10][0][:, 1:])
    assert not np.array_equal(steps[11][0], steps[10][0])


def test_pong_starts_a_new_episode_in_the_step_that_ends_one(pong):
    """Every step is of one episode: points add up to -21 at least, and there are 21."""
    _, steps = pong
    rewards = np.array([reward for _, reward, *_ in steps])
    ends = np.array([over | cut for _, _, over, cut, _ in steps])
    assert ends.any(axis=0).all()
    assert set(np.unique(rewards)) <= {-1, 0, 1}
    for environment in range(4):
        end = np.flatnonzero(ends[:, environment])[0]
        points = rewards[: end + 1, environment]
        assert points[-1] != 0  # the last point is there, in the step that ends it
        assert max((points > 0).sum(), (points < 0).sum()) == 21
        # Right after it, the screens are those of another episode.
        screens = steps[end][0][environment]
        before = steps[end - 1][0][environment]
        assert not np.array_equal(screens[:-1], before[1:])


def test_rewards_are_as_the_game_gives_them():
    """An enemy of Space Invaders is worth 5 to 30 points."""
    environment = environments.make("space_invaders", 4, threads=1)
    environment.reset(seed=0)
    rng = np.random.default_rng(0)
    rewards = [environment.step(rng.integers(6, size=4))[1] for _ in range(150)]
    environment.close()
    assert np.max(rewards) >= 5


@pytest.mark.parametrize(
    ("game", "hint"),
    [
        ("pnog", "did you mean pong"),
        ("Pong", "did you mean pong"),
        ("spaceinvaders", "did you mean space_invaders"),
        ("qqqqqq", "try pong"),
        ("", "try pong"),
    ],
)
def test_an_unknown_game_is_answered_with_games_that_are_alike(game, hint):
    with pytest.raises(UserError) as refused:
        environments.check(game)
    assert str(refused.value).startswith(f"flag --games: no game is called '{game}'")
    assert hint in str(refused.value)


def test_known_games():
    for game in ("pong", "breakout", "space_invaders", CATCH):
        environments.check(game)
    assert len(environments.games()) > 100


# ---- Variants ----


@functools.cache
def played(game, seed=0, steps=30):
    """Observations, rewards and ends of random steps."""
    environment = environments.make(game, 3, threads=1)
    observation, _ = environment.reset(seed=seed)
    rng, seen = np.random.default_rng(0), [(observation.copy(), None, None)]
    count = environments.actions(game)
    for _ in range(steps):
        observation, rewards, over, _, _ = environment.step(rng.integers(count, size=3))
        seen.append((observation.copy(), rewards, over))
    environment.close()
    return seen


@pytest.mark.parametrize("variant", environments.VARIANTS)
@pytest.mark.parametrize("game", ["pong", CATCH])
def test_a_variant_is_the_same_game_with_other_screens(game, variant):
    """Each of the four screens is what the variant makes of that of the game."""
    plain, other = played(game), played(f"{game}_{variant}")
    background = np.bincount(plain[0][0][0, -1].ravel()).argmax()
    for (screens, *rest), (changed, *same) in zip(plain, other):
        assert changed.shape == screens.shape and changed.dtype == np.uint8
        for mine, theirs in zip(rest, same):
            np.testing.assert_array_equal(mine, theirs)
        flat = screens.reshape(-1, SCREEN, SCREEN)
        expected = environments.VARIANTS[variant](flat, background)
        np.testing.assert_array_equal(changed, expected.reshape(screens.shape))
        assert not np.array_equal(changed, screens)
    assert environments.actions(f"{game}_{variant}") == environments.actions(game)


def test_what_each_variant_does_to_a_screen():
    screen = np.full((1, SCREEN, SCREEN), 90, np.uint8)
    screen[0, 3, 5] = 230
    changed = {name: f(screen, 90)[0] for name, f in environments.VARIANTS.items()}
    assert changed["hflip"][3, -6] == changed["vflip"][-4, 5] == 230
    assert changed["vhflip"][-4, -6] == 230
    assert changed["inverted"][3, 5] == 25 and changed["inverted"][0, 0] == 165
    for name, level in (("black", 0), ("white", 255)):
        assert (
            changed[name][3, 5] == 230 and (changed[name] == level).sum() == 84**2 - 1
        )
    noise = changed["noisy"].astype(int) - screen[0]
    assert abs(noise.mean()) < 1 and 20 < noise.std() < 30
    top, left = environments.ZOOM_AT
    bright = changed["zoom"].astype(int) - 90
    rows, columns = np.nonzero(bright)
    assert set(rows) <= {top + 2, top + 3} and set(columns) <= {left + 3, left + 4}
    # What it adds to the screen is less by as much as the screen is smaller.
    assert abs(bright.sum() - 140 * 0.75**2) <= 2


def test_a_new_episode_of_a_variant_shows_nothing_of_the_last_one():
    environment = environments.make(f"{CATCH}_vflip", 2, threads=1)
    environment.reset(seed=0)
    for _ in range(FALL):
        observation, _, over, _, _ = environment.step(np.array([STAY, STAY]))
    assert over.all()
    assert (observation == observation[:, :1]).all()


@pytest.mark.parametrize("game", ["pong_blakc", "pnog_black"])
def test_an_unknown_variant_is_answered_with_one_that_is_alike(game):
    with pytest.raises(UserError, match="did you mean pong_black"):
        environments.check(game)
    assert environments.exists("pong_black") and not environments.exists(game)

"""Games as batches of environments: the Arcade Learning Environment's, and Catch.

All give observations uint8 [E, 4, 84, 84], the last four grey screens, and start a new
episode in the very step that ends one, so that every step is one to learn from.
"""

import difflib
import functools

import ale_py
import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from common.commandline import UserError

SCREEN = 84  # pixels, both ways
FRAMES = 4  # of an observation

CATCH = "catch"  # learned in minutes: for tests and a first try


@functools.cache
def games() -> dict[str, str]:
    """Names of all games, and their ids: {"pong": "ALE/Pong-v5", ...}."""
    gym.register_envs(ale_py)
    gym.register("Catch-v0", vector_entry_point=Catch)
    atari = {
        spec.kwargs["game"]: spec.id
        for spec in gym.registry.values()
        if spec.namespace == "ALE" and spec.vector_entry_point
    }
    return atari | {CATCH: "Catch-v0"}


def check(game: str) -> None:
    """Raises UserError, with names that are alike, if there is no such game."""
    if game not in games():
        alike = difflib.get_close_matches(game, games())
        hint = f"did you mean {' or '.join(alike)}?" if alike else "try pong"
        raise UserError(f"flag --games: no game is called '{game}'; {hint}")


def make(game: str, count: int, threads: int, **options) -> gym.vector.VectorEnv:
    """`count` environments of a game, with the minimal set of actions of the game.

    Of an Atari game every fourth frame is an observation (the brighter of the last two,
    pixel by pixel), and an episode starts with up to 30 frames without an action.
    Rewards are as the game gives them.

    Args:
      game: one of `games`. count: number of environments.
      threads: that step them. **options: of an Atari game, as ale_py takes them.

    Returns:
      gymnasium.vector.VectorEnv; one agent step is four frames of the game.
    """
    if game == CATCH:
        return gym.make_vec(games()[game], num_envs=count)
    defaults = {
        "num_threads": threads,
        "repeat_action_probability": 0.0,
        "reward_clipping": False,
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }
    return gym.make_vec(games()[game], num_envs=count, **defaults | options)


@functools.cache
def actions(game: str) -> int:
    """Number of actions of a game."""
    environment = make(game, 1, threads=1)
    count = int(environment.single_action_space.n)
    environment.close()
    return count


def channels_last(observation: np.ndarray) -> np.ndarray:
    """uint8 [E, 4, 84, 84] -> [E, 84, 84, 4]; frame by frame takes a third of the time."""
    count, frames, *screen = observation.shape
    moved = np.empty([count, *screen, frames], observation.dtype)
    for frame in range(frames):
        moved[..., frame] = observation[:, frame]
    return moved


class Screen:
    """What a game looks like to a person: the same game, step by step, in colour.

    Args:
      game: its name. seed: that of the player's environment.
    """

    def __init__(self, game: str, seed: int) -> None:
        options = {
            "grayscale": False,
            "img_height": 210,
            "img_width": 160,
            "stack_num": 1,
        }
        self._environment = make(game, 1, threads=1, **options)
        self._observation, _ = self._environment.reset(seed=seed)

    def step(self, actions: np.ndarray) -> np.ndarray:
        """Does what the player does; returns the picture, as `picture` does."""
        self._observation = self._environment.step(actions)[0]
        return self.picture()

    def picture(self) -> np.ndarray:
        """The screen of now: uint8 [height, width, 3]."""
        newest = self._observation[0, -1]
        return newest if newest.ndim == 3 else np.repeat(newest[..., None], 3, 2)


class Catch(gym.vector.VectorEnv):
    """A ball falls, a paddle has to be under it: +1 caught, -1 missed, and over.

    7 x 7 cells of 12 pixels; actions: stay, left, right. A ball falls for 6 steps, so
    that every one can be caught from where the paddle starts, the middle.
    """

    CELLS = 7
    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(self, num_envs=1):
        self.num_envs = num_envs
        shape = (FRAMES, SCREEN, SCREEN)
        self.single_observation_space = gym.spaces.Box(0, 255, shape, np.uint8)
        self.single_action_space = gym.spaces.Discrete(3)
        self.observation_space = gym.vector.utils.batch_space(
            self.single_observation_space, num_envs
        )
        self.action_space = gym.vector.utils.batch_space(
            self.single_action_space, num_envs
        )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._column = np.zeros(self.num_envs, int)
        self._row = np.zeros(self.num_envs, int)
        self._paddle = np.zeros(self.num_envs, int)
        shape = (self.num_envs, *self.single_observation_space.shape)
        self._screens = np.zeros(shape, np.uint8)
        self._start(np.ones(self.num_envs, bool))
        return self._screens.copy(), {}

    def step(self, actions):
        moves = np.array([0, -1, 1])[np.asarray(actions)]
        self._paddle = np.clip(self._paddle + moves, 0, self.CELLS - 1)
        self._row += 1
        landed = self._row == self.CELLS - 1
        caught = self._paddle == self._column
        rewards = np.where(landed, np.where(caught, 1.0, -1.0), 0.0)
        self._screens = np.roll(self._screens, -1, axis=1)
        self._screens[:, -1] = self._draw()
        self._start(landed)
        return self._screens.copy(), rewards, landed, np.zeros_like(landed), {}

    def _start(self, which):
        """Starts new episodes where `which` [E] is true."""
        self._column[which] = self.np_random.integers(self.CELLS, size=which.sum())
        self._row[which] = 0
        self._paddle[which] = self.CELLS // 2
        self._screens[which] = self._draw()[which, None]

    def _draw(self):
        cells = np.full((self.num_envs, self.CELLS, self.CELLS), 90, np.uint8)
        every = np.arange(self.num_envs)
        cells[every, self._row, self._column] = 230
        cells[every, -1, self._paddle] = 230
        size = SCREEN // self.CELLS
        return cells.repeat(size, 1).repeat(size, 2)

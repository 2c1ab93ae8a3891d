"""Games as batches of environments: the Arcade Learning Environment's, and Catch.

All give observations uint8 [E, 4, 84, 84], the last four grey screens, and start a new
episode in the very step that ends one, so that every step is one to learn from.

Each has variants, the same game with other screens: `pong_noisy`, `catch_vflip`. Those of
Pong are the games of Pong Soup (Rusu et al. 2016, arXiv 1606.04671, section 5.1).
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


def exists(game: str) -> bool:
    """Whether a game, or a variant of one, has this name."""
    return _parts(game)[0] in games()


def check(game: str) -> None:
    """Raises UserError, with names that are alike, if there is no such game."""
    if not exists(game):
        variants = [f"{known}_{name}" for known in games() for name in VARIANTS]
        alike = difflib.get_close_matches(game, [*games(), *variants])
        hint = f"did you mean {' or '.join(alike)}?" if alike else "try pong"
        raise UserError(f"flag --games: no game is called '{game}'; {hint}")


def make(game: str, count: int, threads: int, **options) -> gym.vector.VectorEnv:
    """`count` environments of a game, with the minimal set of actions of the game.

    Of an Atari game every fourth frame is an observation (the brighter of the last two,
    pixel by pixel), and an episode starts with up to 30 frames without an action.
    Rewards are as the game gives them.

    Args:
      game: one of `games`, or a variant of one. count: number of environments.
      threads: that step them. **options: of an Atari game, as ale_py takes them.

    Returns:
      gymnasium.vector.VectorEnv; one agent step is four frames of the game.
    """
    game, variant = _parts(game)
    if variant is not None:
        return Variant(make(game, count, threads, **options), variant)
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

    Of a variant it is the game that it is made of.

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
        self._environment = make(_parts(game)[0], 1, threads=1, **options)
        self._observation, _ = self._environment.reset(seed=seed)

    def step(self, actions: np.ndarray) -> np.ndarray:
        """Does what the player does; returns the picture, as `picture` does."""
        self._observation = self._environment.step(actions)[0]
        return self.picture()

    def picture(self) -> np.ndarray:
        """The screen of now: uint8 [height, width, 3]."""
        newest = self._observation[0, -1]
        return newest if newest.ndim == 3 else np.repeat(newest[..., None], 3, 2)


# Variants: functions from screens uint8 [n, 84, 84] and the grey level of their
# background to other such screens.

NOISE = 25.0  # deviation of the pattern of the noisy variant, in grey levels
ZOOM = 63  # pixels of a side, of 84, that the zoomed variant shrinks the screen to
ZOOM_AT = 14, 7  # its upper left corner


def _noisy(screens, background):
    """A pattern of Gaussian noise is added, the same to every screen."""
    return np.clip(screens + _noise(), 0, 255).astype(np.uint8)


@functools.cache
def _noise():
    pattern = np.random.default_rng(0).normal(0, NOISE, (SCREEN, SCREEN))
    return pattern.astype(np.int16)


def _zoom(screens, background):
    """Shrunk and moved, on more of its background."""
    smaller = _shrinking() @ screens @ _shrinking().T
    zoomed = np.full_like(screens, background)
    top, left = ZOOM_AT
    zoomed[:, top : top + ZOOM, left : left + ZOOM] = np.rint(smaller)
    return zoomed


@functools.cache
def _shrinking():
    """float32 [ZOOM, 84]: how much of each pixel of a side falls into each of a smaller one."""
    edges = np.arange(ZOOM + 1) * SCREEN / ZOOM
    pixels = np.arange(SCREEN)
    ends = np.minimum(edges[1:, None], pixels + 1)
    covered = np.clip(ends - np.maximum(edges[:-1, None], pixels), 0, None)
    return (covered * ZOOM / SCREEN).astype(np.float32)


VARIANTS = {
    "noisy": _noisy,
    "black": lambda screens, level: np.where(screens == level, np.uint8(0), screens),
    "white": lambda screens, level: np.where(screens == level, np.uint8(255), screens),
    "zoom": _zoom,
    "hflip": lambda screens, level: screens[:, :, ::-1],
    "vflip": lambda screens, level: screens[:, ::-1],
    "vhflip": lambda screens, level: screens[:, ::-1, ::-1],
    "inverted": lambda screens, level: 255 - screens,
}


def _parts(game):
    """("pong", "noisy") of "pong_noisy"; ("pong", None) of "pong"."""
    name, _, variant = game.rpartition("_")
    return (name, variant) if variant in VARIANTS else (game, None)


class Variant(gym.vector.VectorWrapper):
    """A game whose screens are others, made of its own as they come.

    Args:
      env: the game. variant: one of VARIANTS.
    """

    def __init__(self, env: gym.vector.VectorEnv, variant: str) -> None:
        super().__init__(env)
        self._change = VARIANTS[variant]

    def reset(self, *, seed=None, options=None):
        observation, info = self.env.reset(seed=seed, options=options)
        # What most of the first screen shows is the background.
        self._background = np.bincount(observation[0, -1].ravel()).argmax()
        self._shown = self._changed(observation)
        return self._shown, info

    def step(self, actions):
        observation, rewards, over, cut, info = self.env.step(actions)
        ended = over | cut
        shown = np.empty_like(self._shown)
        shown[:, :-1] = self._shown[
            :, 1:
        ]  # all but the newest have been changed before
        shown[:, -1] = self._change(observation[:, -1], self._background)
        if ended.any():
            shown[ended] = self._changed(observation[ended])
        self._shown = shown
        return shown, rewards, over, cut, info

    def _changed(self, observation):
        screens = observation.reshape(-1, SCREEN, SCREEN)
        changed = self._change(screens, self._background)
        return np.ascontiguousarray(changed).reshape(observation.shape)


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

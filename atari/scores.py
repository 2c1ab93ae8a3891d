"""The score of an actor and the curve of a task, from the episodes that were played."""

import collections
from collections.abc import Iterable

import numpy as np

import a3c

SCORE_EPISODES = 30  # whose mean return is the score of a game, which ends a task
UNSET = -1000.0  # score of an actor that has not finished an episode on its path
BINS = 1000  # of agent steps, in which the curve of a task is kept

Episode = collections.namedtuple("Episode", a3c.EPISODE)


def scores(returns: np.ndarray, played: np.ndarray) -> np.ndarray:
    """Score of each actor: the mean return of the episodes on its path, or UNSET.

    Args:
      returns: float [actors], sums over these episodes.
      played: int [actors], the number of these episodes.

    Returns:
      float [actors].
    """
    return np.where(played > 0, returns / np.maximum(played, 1), UNSET)


def credit(
    returns: np.ndarray, played: np.ndarray, versions: np.ndarray, episodes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Adds the returns of episodes to the actors that played them on their present path.

    Args:
      returns, played: float and int [actors], so far.
      versions: int [actors], of their paths.
      episodes: float [n, len(EPISODE)], rows of one task.

    Returns:
      New (returns, played). An episode begun on an earlier path does not count.
    """
    returns, played = returns.copy(), played.copy()
    for episode in map(Episode._make, episodes):
        actor = int(episode.actor)
        if episode.version == versions[actor]:
            returns[actor] += episode.episodic_return
            played[actor] += 1
    return returns, played


class Curve:
    """Mean return over agent steps of one task, in bins: bounded, however long it takes.

    Args:
      max_time_step: the most agent steps of the task.
      values: of an earlier curve of as many steps, or None.
      recent: of an earlier curve.

    Attributes:
      values: float [2, BINS], sum of returns and number of episodes that ended in a bin.
      recent: the returns of the last SCORE_EPISODES episodes.
    """

    def __init__(
        self,
        max_time_step: int,
        values: np.ndarray | None = None,
        recent: Iterable[float] = (),
    ) -> None:
        self._width = max_time_step / BINS
        self.values = np.zeros([2, BINS]) if values is None else np.array(values)
        self.recent = collections.deque(recent, SCORE_EPISODES)

    def add(self, steps: float, episodic_return: float) -> None:
        """Adds an episode that ended after so many agent steps of the task."""
        at = min(int(steps / self._width), BINS - 1)
        self.values[:, at] += episodic_return, 1
        self.recent.append(episodic_return)

    def score(self) -> float | None:
        """Mean return of the last SCORE_EPISODES episodes; None before there are any."""
        return float(np.mean(self.recent)) if self.recent else None

    def has_reached(self, score: float | None) -> bool:
        """Whether SCORE_EPISODES episodes have such a score; never, if it is None."""
        return (
            score is not None
            and len(self.recent) == SCORE_EPISODES
            and self.score() >= score
        )

    def over(self, max_time_step: int) -> "Curve":
        """The same curve, as it is kept for another number of steps."""
        curve = Curve(max_time_step, recent=self.recent)
        middles = (np.arange(BINS) + 0.5) * self._width
        bins = np.minimum((middles / curve._width).astype(int), BINS - 1)
        np.add.at(curve.values, (slice(None), bins), self.values)
        return curve

    def points(self) -> dict[str, list]:
        """{"steps": [...], "return": [...], "episodes": [...]}, a point a filled bin."""
        sums, counts = self.values
        filled = np.flatnonzero(counts)
        return {
            "steps": [int((b + 1) * self._width) for b in filled],
            "return": [round(float(sums[b] / counts[b]), 3) for b in filled],
            "episodes": [int(counts[b]) for b in filled],
        }

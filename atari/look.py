"""What the GA worker decides on, every few seconds: a look at the population."""

from typing import NamedTuple

import numpy as np

import pathnet
from atari.scores import UNSET


class NewPaths(NamedTuple):
    """What a tournament leads to.

    Attributes:
      paths: int [actors, L, N], of all actors.
      losers: int [B - 1], the actors whose path is a new one.
    """

    paths: np.ndarray
    losers: np.ndarray


class Look:
    """The population as it is at one moment, and the tournament among its actors.

    Args:
      rng: numpy Generator, for all that is drawn.
      paths: int [actors, L, N]. scores: float [actors], or UNSET.
      B: number of actors to draw. M: number of modules in a layer.
      task_is_over: whether the task has had its steps, or reached its score.
      selects: whether the best of those drawn wins, or one that is drawn as well.

    Attributes:
      task_is_over: as given: there is nothing left to do but to freeze the best path.
      drawn: int [B], the actors that were drawn; None before.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        paths: np.ndarray,
        scores: np.ndarray,
        B: int,
        M: int,
        task_is_over: bool = False,
        selects: bool = True,
    ) -> None:
        self.task_is_over = task_is_over
        self.drawn = None
        self._rng, self._paths, self._scores = rng, paths, scores
        self._B, self._M, self._selects = B, M, selects

    def draw(self) -> np.ndarray:
        """B different actors: int [B]."""
        self.drawn = pathnet.draw_candidates(self._rng, len(self._paths), self._B)
        return self.drawn

    def all_have_played(self, drawn: np.ndarray) -> bool:
        """Whether each of these actors has finished an episode on its path."""
        return bool((self._scores[drawn] != UNSET).all())

    def overwrite_losers(self, drawn: np.ndarray, **mutation) -> NewPaths:
        """Gives all of these actors but the best one mutated copies of its path.

        The rule of `pathnet.overwrite_losers`, as in the supervised tasks. The best of
        them keeps its path and its score.

        Args:
          drawn: int [B], actors that have played. **mutation: as of `pathnet.mutate`.

        Raises:
          RuntimeError: one of them has no score yet.
        """
        if not self.all_have_played(drawn):
            raise RuntimeError(
                "overwrite_losers(drawn) compares scores: ask all_have_played(drawn) first"
            )
        paths, fitness = self._paths.copy(), self._scores[drawn]
        if not self._selects:
            fitness = self._rng.random(len(drawn))
        paths[drawn], winner = pathnet.overwrite_losers(
            self._rng, paths[drawn], fitness, self._M, **mutation
        )
        return NewPaths(paths, np.delete(drawn, winner))

    def best(self) -> int:
        """The actor with the highest score."""
        return int(np.argmax(self._scores))

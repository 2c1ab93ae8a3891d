"""One tournament: B candidates are drawn, trained and compared (section 2.2)."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import pathnet
from supervised import datasets
from supervised.generation import TrainablePathNet


@dataclasses.dataclass(frozen=True)
class Task:
    """What is to be learned.

    Attributes:
      name: in files and results. title: for people.
      train, test: its images, the training ones and those held out.
    """

    name: str
    title: str
    train: datasets.Split
    test: datasets.Split

    def without_training(self) -> "Task":
        """The same without its training images, which take memory and are not needed."""
        none = datasets.Split(
            self.train.images[:0].copy(), self.train.labels[:0].copy()
        )
        return dataclasses.replace(self, train=none)


class Trained(NamedTuple):
    """What came of training B candidates.

    Attributes:
      fitness: float [B], mean training accuracy. loss: float [B], mean cross-entropy.
      batches: int [B, images], which training images each of them was trained on.
      selection: float [B], what selects the winner: the fitness, or the accuracy on
        held-out images.
    """

    fitness: np.ndarray
    loss: np.ndarray
    batches: np.ndarray
    selection: np.ndarray


@dataclasses.dataclass(frozen=True)
class Generation:
    """What came of one tournament.

    Attributes:
      number: of the generation in its task, from 1 on.
      population: int [candi, L, N], after the tournament.
      path: int [L, N], the winner's.
      active: float32 [L, M], what each module counts for with the winner's path, as of
        `pathnet.Grid.active`.
      fitness: float [B], mean training accuracy. loss: float [B], mean cross-entropy.
      winner: index into both.
      batches: int [images], which training images the winner was trained on.
    """

    number: int
    population: np.ndarray
    path: np.ndarray
    active: np.ndarray
    fitness: np.ndarray
    loss: np.ndarray
    winner: int
    batches: np.ndarray

    @property
    def best_fitness(self) -> float:
        return float(self.fitness[self.winner])


@dataclasses.dataclass(frozen=True)
class Trainer:
    """How candidates are trained on one task.

    Attributes:
      net: the grid. task: what is learned. number: of the task, from 0 on.
      fixed_path: binary [L, M], the frozen modules.
      generation: number of the generation, from 1 on.
      images: of the mini-batches of one generation.
      fair: whether all candidates start from the same parameters and see the same
        mini-batches, or are trained one after the other on what those before them left.
      in_order: whether a generation takes the training images that follow those of the
        one before, again from the first one after the last, or draws them at random.
      selects_by_test: whether the winner is selected by its accuracy on the held-out
        images, measured when it has been trained.

    Raises:
      ValueError: held-out images are to select among candidates that are trained alike:
        what each of them has become is not kept until all are trained.
    """

    net: TrainablePathNet
    task: Task
    number: int
    fixed_path: np.ndarray
    generation: int
    images: int
    fair: bool
    in_order: bool = False
    selects_by_test: bool = False

    def __post_init__(self):
        if self.fair and self.selects_by_test:
            raise ValueError("held-out images select in sequential tournaments only")

    def train(self, rng: np.random.Generator, geopaths: np.ndarray) -> Trained:
        """Trains candidates, binary [B, L, M]."""
        if self.fair:
            return self._train_alike(rng, geopaths)
        each = [self._train_alike(rng, geopath[None]) for geopath in geopaths]
        return Trained(*map(np.concatenate, zip(*each)))

    def _train_alike(self, rng, geopaths):
        split = self.task.train
        batches = self._mini_batches(rng, len(split.labels))
        fitness, loss = self.net.train(
            geopaths,
            split.images.take(batches, 0),
            split.labels[batches],
            self.number,
            self.fixed_path,
        )
        selection = fitness
        if self.selects_by_test:
            selection = np.array([self._test_accuracy(g) for g in geopaths])
        return Trained(fitness, loss, np.tile(batches, (len(geopaths), 1)), selection)

    def _mini_batches(self, rng, count):
        if self.in_order:
            first = (self.generation - 1) * self.images
            return (first + np.arange(self.images)) % count
        # Of fewer images than a generation needs, some come more than once.
        return rng.choice(count, self.images, replace=self.images > count)

    def _test_accuracy(self, geopath):
        active = self.net.grid.active(geopath, self.fixed_path)
        test = self.task.test
        return self.net.accuracy(active, test.images, test.labels, self.number)


class Tournament:
    """One tournament of a population: draw, train, overwrite the losers.

    The three are called once each, in this order.
    """

    def __init__(
        self,
        number: int,
        population: np.ndarray,
        B: int,
        rng: np.random.Generator,
        trainer: Trainer,
        mutation: dict,
        selection: Callable[[np.random.Generator, np.ndarray], np.ndarray],
    ):
        """
        Args:
          number: of the generation, from 1 on.
          population: int [candi, L, N]; the losers' places in it are written to.
          B: number of candidates.
          rng: for all that is drawn, in this order: candidates, mini-batches, mutations.
          trainer: what trains them.
          mutation: arguments of `pathnet.mutate`.
          selection: of (rng, fitness): the candidate with the most of it, float [B], wins.
        """
        self._number = number
        self._population = population
        self._B = B
        self._rng = rng
        self._trainer = trainer
        self._mutation = mutation
        self._selection = selection
        self._next = "draw"

    def draw(self) -> np.ndarray:
        """Draws B different candidates: returns their paths, int [B, L, N]."""
        self._expect("draw", "train")
        self._drawn = pathnet.draw_candidates(self._rng, len(self._population), self._B)
        self._paths = self._population[self._drawn]
        return self._paths

    def train(self, paths: np.ndarray) -> np.ndarray:
        """Trains paths, int [B, L, N]; returns what selects among them, float [B].

        That is their fitness, the mean training accuracy over the mini-batches of the
        generation, unless held-out images select.
        """
        self._expect("train", "overwrite_losers")
        self._geopaths = pathnet.to_geopath(paths, self._trainer.net.grid.M)
        self._trained = self._trainer.train(self._rng, self._geopaths)
        return self._trained.selection

    def overwrite_losers(self, fitness: np.ndarray) -> None:
        """Overwrites all drawn paths but the fittest with mutated copies of it.

        Args:
          fitness: float [B], as `train` returned it; ties go to the first.
        """
        self._expect("overwrite_losers", None)
        self._population[self._drawn], self._winner = pathnet.overwrite_losers(
            self._rng,
            self._paths,
            self._selection(self._rng, fitness),
            self._trainer.net.grid.M,
            **self._mutation,
        )

    def generation(self) -> Generation:
        """What came of it.

        Raises:
          RuntimeError: one of the three steps was left out.
        """
        self._expect(None, None)
        winner, trainer = self._winner, self._trainer
        return Generation(
            number=self._number,
            population=self._population,
            path=self._paths[winner],
            active=trainer.net.grid.active(self._geopaths[winner], trainer.fixed_path),
            fitness=self._trained.fitness,
            loss=self._trained.loss,
            winner=winner,
            batches=self._trained.batches[winner],
        )

    def _expect(self, step, following):
        """Raises RuntimeError if this is not the step that comes next."""
        if step != self._next:
            raise RuntimeError(
                f"tournament {self._number}: "
                + (
                    f"{self._next} was not called"
                    if self._next
                    else f"{step} came twice"
                )
                + "; a tournament is draw, train and overwrite_losers, in this order"
            )
        self._next = following

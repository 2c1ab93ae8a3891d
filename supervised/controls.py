"""PathNet and what it is compared with.

Each control overrides what a task starts from, what is frozen, or how the winner of a
tournament comes about, and nothing else: the data and their order are the same for all.
"""

import numpy as np

import pathnet
from supervised.streams import FROZEN, POPULATION, random_stream


class PathNet:
    """The paper's way (section 2.3): the best path is frozen, all else is new."""

    name = "pathnet"
    fixed_size = False  # whether the grid has no more modules than a path may use
    first_task_alike = True  # whether the first task is learned as PathNet does
    freezes = True  # whether later tasks find frozen modules

    def population(
        self,
        net: pathnet.PathNet,
        seed: int,
        kept: np.ndarray,
        paths: list,
        candi: int,
        replacement: bool,
    ) -> np.ndarray:
        """Initializes the parameters that a task starts from, and draws its paths.

        Args:
          net: the grid; all of its modules that are not kept are re-initialized.
          seed: of the repeat.
          kept: binary [L, M], the frozen modules that keep their parameters.
          paths: int [L, N] each, the best paths of the earlier tasks.
          candi: number of paths to draw.
          replacement: whether a path's modules are drawn with replacement.

        Returns:
          int [candidates, L, N], the population.
        """  # fmt: skip
        task, grid = len(paths), net.grid
        net.initialize(seed, task, kept)
        rng = random_stream(seed, POPULATION, task)
        return pathnet.random_paths(rng, candi, grid.L, grid.M, grid.N, replacement)

    def frozen(
        self, seed: int, fixed_path: np.ndarray, geopaths: list[np.ndarray]
    ) -> np.ndarray:
        """The frozen modules once a task has ended on a best path.

        Args:
          seed: of the repeat. fixed_path: binary [L, M], the modules frozen so far.
          geopaths: binary [L, M] each, the best paths of the tasks so far.

        Returns:
          Binary [L, M].
        """
        return pathnet.freeze(fixed_path, geopaths[-1])

    def selection(
        self, rng: np.random.Generator, fitness: np.ndarray, enough: float
    ) -> np.ndarray:
        """What selects the winner of a tournament: the candidate that has the most of it.

        Args:
          rng: for what is drawn. fitness: float [B].
          enough: the fitness with which a task ends.

        Returns:
          float [B].
        """
        return fitness


class NoSelection(PathNet):
    """The winner is drawn, until one is good enough to end the task: what evolution adds."""

    name = "no_selection"
    first_task_alike = False

    def selection(
        self, rng: np.random.Generator, fitness: np.ndarray, enough: float
    ) -> np.ndarray:
        return fitness if fitness.max() >= enough else rng.random(len(fitness))


class RandomFrozen(PathNet):
    """Untrained modules are frozen, drawn at random: what freezing anything does.

    As many in each layer as the best path has. They are initialized again, like all
    others, when the next task begins.
    """

    name = "random_frozen"

    def population(
        self, net: pathnet.PathNet, seed: int, kept: np.ndarray, paths: list, candi: int,
        replacement: bool,
    ) -> np.ndarray:  # fmt: skip
        nothing = np.zeros_like(kept)
        return super().population(net, seed, nothing, paths, candi, replacement)

    def frozen(
        self, seed: int, fixed_path: np.ndarray, geopaths: list[np.ndarray]
    ) -> np.ndarray:
        rng = random_stream(seed, FROZEN, len(geopaths))
        drawn = pathnet.random_modules(rng, fixed_path, geopaths[-1])
        return pathnet.freeze(fixed_path, drawn)


class Scratch(PathNet):
    """Nothing is frozen, so every task has a new network: independent learning."""

    name = "scratch"
    freezes = False

    def frozen(
        self, seed: int, fixed_path: np.ndarray, geopaths: list[np.ndarray]
    ) -> np.ndarray:
        return fixed_path


class FineTune(Scratch):
    """The first task's best path alone is trained on for every later task.

    All its parameters are kept and none is frozen; only the output layer is new.
    """

    name = "finetune"

    def population(
        self, net: pathnet.PathNet, seed: int, kept: np.ndarray, paths: list, candi: int,
        replacement: bool,
    ) -> np.ndarray:  # fmt: skip
        if not paths:
            return super().population(net, seed, kept, paths, candi, replacement)
        net.initialize(seed, len(paths), np.ones_like(kept))
        return paths[0][None]  # a population of one does not evolve


class FixedSize(Scratch):
    """As many modules as a path may use, all active, and no others.

    Every task has a new network, and nothing evolves.
    """

    name = "fixed_size"
    fixed_size = True
    first_task_alike = False

    def population(
        self, net: pathnet.PathNet, seed: int, kept: np.ndarray, paths: list, candi: int,
        replacement: bool,
    ) -> np.ndarray:  # fmt: skip
        net.initialize(seed, len(paths), kept)
        return np.tile(np.arange(net.grid.N), (1, net.grid.L, 1))


CONTROLS = {
    control.name: control
    for control in (
        PathNet(),
        Scratch(),
        FineTune(),
        FixedSize(),
        RandomFrozen(),
        NoSelection(),
    )
}

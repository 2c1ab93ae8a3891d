"""PathNet and what it is compared with: what a task starts from, and what is frozen.

Each control overrides these two and nothing else: the tournaments, the data and their
order are the same for all of them.
"""

import numpy as np

import pathnet
from supervised.streams import POPULATION, random_stream


class PathNet:
    """The paper's way (section 2.3): the best path is frozen, all else is new."""

    name = "pathnet"
    fixed_size = False  # whether the grid has no more modules than a path may use

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

    def frozen(self, fixed_path: np.ndarray, geopath: np.ndarray) -> np.ndarray:
        """The frozen modules, binary [L, M], once a task has ended on a best path."""
        return pathnet.freeze(fixed_path, geopath)


class Scratch(PathNet):
    """Nothing is frozen, so every task has a new network: independent learning."""

    name = "scratch"

    def frozen(self, fixed_path: np.ndarray, geopath: np.ndarray) -> np.ndarray:
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

    def population(
        self, net: pathnet.PathNet, seed: int, kept: np.ndarray, paths: list, candi: int,
        replacement: bool,
    ) -> np.ndarray:  # fmt: skip
        net.initialize(seed, len(paths), kept)
        return np.tile(np.arange(net.grid.N), (1, net.grid.L, 1))


CONTROLS = {
    control.name: control for control in (PathNet(), Scratch(), FineTune(), FixedSize())
}

"""Whether a grid and its training fit into the machine, before anything tries."""

import pathnet
from common import memory
from common.commandline import UserError
from supervised.generation import Training


def check_memory(grid: pathnet.Grid, training: Training, candi: int) -> None:
    """Raises UserError if the memory that is left cannot hold grid and population."""
    first = grid.filt * grid.inputs
    rest = (grid.L - 1) * grid.filt * grid.filt
    # Three copies at once when parameters are drawn, and what is gathered and trained.
    floats = 3 * grid.M * (first + rest) + 4 * training.B * grid.N * first
    if training.optimizer == "adam":
        floats *= 3  # two moments for each
    images = training.T * training.batch_num * grid.inputs
    paths = 24 * candi * grid.L * grid.M + 16 * candi**2
    needed = 4 * floats + 5 * images + paths
    available = memory.available()
    if needed > available:
        raise UserError(
            f"flags --L={grid.L} --M={grid.M} --filt={grid.filt} --B={training.B} "
            f"--T={training.T} --batch_num={training.batch_num} --candi={candi}: "
            f"needs {needed / 2**30:.1f} GiB of memory and this machine has "
            f"{available / 2**30:.1f} GiB left; make them smaller"
        )

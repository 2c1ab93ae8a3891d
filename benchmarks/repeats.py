"""Many short runs of the scripts, side by side, for the experiments of this folder.

Each run is a process whose repeats go to a results file of its own. What a file has is
not learned again, so that an experiment that was stopped goes on where it was.
"""

import os
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from absl import flags
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from common import commandline, results  # noqa: E402
from common.commandline import UserError  # noqa: E402

SCRIPT = "binary_mnist_pathnet.py"
DIVERGED = "diverged"  # in the line with which a script ends then


class Run(NamedTuple):
    """A process of the script.

    Attributes:
      file: of its results. flags: arguments, but for seed, runs and control.
      seed: of the first repeat. runs: number of seeds.
      controls: that each seed is learned with.
    """

    file: Path
    flags: tuple[str, ...]
    seed: int
    runs: int = 1
    controls: tuple[str, ...] = ("pathnet",)


def define_flags(figure: str | None = None) -> None:
    """The flags of an experiment: --out_dir, and --figure if it draws what this says."""
    with commandline.flag_group("Experiment", commandline.PLACE):
        flags.DEFINE_string("out_dir", None, "Folder of the results.", required=True)
        if figure is not None:
            flags.DEFINE_string("figure", None, f"Picture of {figure}.")


def learn(runs: Iterable[Run]) -> list[list[dict] | None]:
    """Learns what is missing, a process a core at a time.

    Returns:
      The objects of each run's results file; None where training diverged.

    Raises:
      UserError: a process failed; its last line tells why.
    """
    runs = list(runs)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        learned = pool.map(_learn, runs)
        return list(tqdm(learned, total=len(runs), unit=" runs", disable=None))


def _learn(run):
    found = _read(run)
    if len(found) == run.runs * len(run.controls):
        return found
    run.file.parent.mkdir(parents=True, exist_ok=True)
    own = (
        f"--seed={run.seed}",
        f"--runs={run.runs}",
        f"--control={','.join(run.controls)}",
        f"--results={run.file}",
        f"--log_dir={run.file.parent}",
    )
    finished = subprocess.run(
        [sys.executable, str(ROOT / SCRIPT), *run.flags, *own],
        capture_output=True,
        text=True,
    )
    if finished.returncode == 0:
        return _read(run)
    last = (finished.stderr.strip().splitlines() or ["it said nothing"])[-1]
    if DIVERGED in last:
        return None
    raise UserError(f"{run.file}: its run failed: {last}")


def _read(run):
    return results.read([run.file]) if run.file.exists() else []

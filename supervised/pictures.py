"""The pictures of a run, drawn in a thread of their own beside the training.

matplotlib takes half a second to import, and the pictures of a repeat a second to draw.
Training needs Python only between its generations, so that another core has the time.
"""

import importlib
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from supervised.outcomes import Outcome


@dataclass(frozen=True)
class Learned:
    """What the pictures of a repeat are made of.

    Attributes:
      folder: of the repeat. outcomes: of its tasks.
      result: its object of results.jsonl.
      snapshots: its generations, a reports.population.Snapshot each.
      kinds: strings [L, M], of the grid's modules.
    """

    folder: str
    outcomes: Sequence[Outcome]
    result: dict
    snapshots: list
    kinds: np.ndarray


class Pictures:
    """paths.png, evolution.gif and retention.png of repeats, controls.png of a run.

    Of a seed that several controls learn, PathNet's are drawn, once all have learned it.
    """

    def __init__(self, folder: str, controls: Sequence[str]):
        """
        Args:
          folder: of the run. controls: that each seed is learned with.
        """
        self._folder = folder
        self._controls = controls
        self._of_seed: dict[str, Learned] = {}  # by control
        self._results: list[dict] = []
        self._thread = ThreadPoolExecutor(1)
        self._jobs: list[Future] = []
        self._draw(importlib.import_module, "reports.evolution")

    def add(self, learned: Learned) -> None:
        """Draws the pictures of a repeat, or remembers it until its seed is complete.

        Raises:
          OSError: an earlier picture could not be written.
        """
        self._raise_errors([job for job in self._jobs if job.done()])
        self._of_seed[learned.result["control"]] = learned
        self._results.append(learned.result)
        if len(self._of_seed) < len(self._controls):
            return
        of_seed, self._of_seed = self._of_seed, {}
        (only, *_) = of_seed if len(of_seed) == 1 else ["pathnet"]
        if only in of_seed:
            tasks = of_seed["scratch"].result["tasks"] if "scratch" in of_seed else []
            scratch = [task["curve"] for task in tasks] if only != "scratch" else []
            self._draw(_draw_repeat, of_seed[only], scratch)

    def finish(self) -> None:
        """Draws what compares all repeats, and waits for all pictures.

        Raises:
          OSError: a picture could not be written.
        """
        if len(self._controls) > 1:
            self._draw(_draw_controls, self._folder, self._results)
        self._raise_errors(self._jobs)

    def _draw(self, function, *args):
        self._jobs.append(self._thread.submit(function, *args))

    def _raise_errors(self, jobs):
        for job in jobs:
            job.result()


class NoPictures:
    """Of runs that leave their lines in the results alone."""

    def add(self, learned: Learned) -> None:
        pass

    def finish(self) -> None:
        pass


# matplotlib is imported in here, by the thread.


def _draw_repeat(learned, scratch):
    from reports.evolution import animate_evolution
    from reports.paths import draw_paths
    from reports.plots import plot_retention

    outcomes = learned.outcomes
    draw_paths(
        os.path.join(learned.folder, "paths.png"),
        [outcome.geopath for outcome in outcomes],
        [outcome.task.title for outcome in outcomes],
        learned.kinds,
        [outcome.last.active for outcome in outcomes],
    )
    animation = os.path.join(learned.folder, "evolution.gif")
    animate_evolution(animation, learned.snapshots, scratch)
    if len(outcomes) > 2:
        picture = os.path.join(learned.folder, "retention.png")
        plot_retention(picture, [learned.result])


def _draw_controls(folder, results):
    from reports.plots import plot_controls

    plot_controls(os.path.join(folder, "controls.png"), results)

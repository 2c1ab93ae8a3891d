"""What a repeat leaves for TensorBoard, and the snapshots that its pictures are made of.

Each task is a run of its own to TensorBoard, with the same tags from its first generation
on, so that one chart has the curves of all tasks over each other. What goes on from one
task to the next is in the folder itself.
"""

import time
from collections.abc import Sequence

import numpy as np

import pathnet
from common import folders
from common.events import Events, as_markdown
from reports import tensorboard
from reports.population import Snapshot, population_picture
from supervised.outcomes import Outcome
from supervised.tournaments import Generation, Task

TEST_IMAGES = 2_000  # of the held-out images for that curve; the results use all
IMAGE_EVERY = 25  # generations between two pictures of the population

# What the curves show, for TensorBoard.
OF_A_TASK = {
    "charts/fitness": "Mean training accuracy of the generation's winner.",
    "charts/mean_fitness": "Mean training accuracy of all candidates of the generation.",
    "charts/accuracy_test": "Accuracy of the winner's path on the first "
    f"{TEST_IMAGES:,} held-out images.",
    "losses/cross_entropy": "Mean cross-entropy of the winner.",
}
OF_A_RUN = {
    "evolution/diversity": "Mean Jaccard distance between two paths of the population: "
    "1 if no two share a module, 0 if all are alike.",
    "evolution/overlap": "Modules of the winner's path that are on the frozen path.",
    "evolution/active_modules": "Modules that are active with the winner's path, the "
    "frozen ones included.",
    "speed/generations_per_second": "Generations a second.",
}


class Recorder:
    """The events of one repeat, and what its pictures show.

    Attributes:
      folder: of the repeat.
      snapshots: its generations so far, a Snapshot each.
    """

    def __init__(self, folder: str, net: pathnet.PathNet, test_every: int, flags: dict):
        """
        Args:
          folder: of the repeat. net: its grid. flags: by name, shown in TensorBoard.
          test_every: generations between two points of the held-out curve.
        """
        self.folder = folder
        self._net = net
        self._test_every = test_every
        self._events = Events(folder, net.graph, OF_A_RUN)
        self._task_events = None
        self._events.text("flags", as_markdown(flags))
        self.snapshots = []
        self._before = 0  # generations of earlier tasks
        self._last = None  # step and time of the last point

    def begin(self, number: int, task: Task, generation: int) -> None:
        """Goes on with a task, numbered from 0 on, that has had so many generations."""
        name = f"task{number + 1}_{folders.named(task.name)}"
        folder = folders.below(self.folder, name)
        self._task_events = Events(folder, descriptions=OF_A_TASK)
        self._last = (self._before + generation, time.monotonic())

    def flush(self) -> None:
        """Hands over the events so far."""
        self._events.flush()
        if self._task_events:
            self._task_events.flush()

    def add(
        self,
        number: int,
        task: Task,
        now: Generation,
        fixed_path: np.ndarray,
        ends: bool,
    ) -> None:
        """Adds a generation of a task.

        Args:
          number: of the task, from 0 on. fixed_path: binary [L, M].
          ends: whether it is the last one of the task.
        """  # fmt: skip
        self._add_curves(number, task, now, ends)
        step = self._before + now.number
        geopaths = pathnet.to_geopath(now.population, self._net.grid.M)
        best = pathnet.to_geopath(now.path, self._net.grid.M)
        self._add_evolution(step, now, geopaths, best, fixed_path)
        if now.number % IMAGE_EVERY == 1 or ends:
            picture = population_picture(geopaths, fixed_path)
            self._events.image(step, "evolution/population", picture)
        self.snapshots.append(
            Snapshot(
                task.title, now.number, now.best_fitness, geopaths, best, fixed_path
            )
        )
        if ends:
            self._before = step
            self._task_events.close()
            self._task_events = None

    def _add_curves(self, number, task, now, ends):
        """The curves of a task, over its own generations."""
        curves = {
            "charts/fitness": now.best_fitness,
            "charts/mean_fitness": now.fitness.mean(),
            "losses/cross_entropy": now.loss[now.winner],
        }
        if now.number % self._test_every == 0 or ends:
            curves["charts/accuracy_test"] = self._net.accuracy(
                now.active,
                task.test.images[:TEST_IMAGES],
                task.test.labels[:TEST_IMAGES],
                number,
            )
        self._task_events.scalars(now.number, curves)

    def _add_evolution(self, step, now, geopaths, best, fixed_path):
        """The curves that go on from one task to the next."""
        moment = time.monotonic()
        last_step, last_moment = self._last
        self._events.scalars(
            step,
            {
                "evolution/diversity": pathnet.diversity(geopaths),
                "evolution/overlap": pathnet.overlap(best, fixed_path),
                "evolution/active_modules": np.count_nonzero(now.active),
                "speed/generations_per_second": (step - last_step)
                / (moment - last_moment),
            },
        )
        self._last = (step, moment)

    def recall(
        self,
        outcome: Outcome,
        fixed_path: np.ndarray,
        snapshots: Sequence[Snapshot] = (),
    ) -> None:
        """Adds a task that was learned before: its end, or the snapshots that are left."""
        self._before += outcome.generations
        best = outcome.geopath
        end = Snapshot(
            outcome.task.title,
            outcome.generations,
            outcome.last.best_fitness,
            best[None],
            best,
            fixed_path,
        )
        self.snapshots.extend(snapshots or [end])

    def close(self, result: dict) -> None:
        """Ends the events, with a row for TensorBoard's table of all runs.

        Args:
          result: the object of results.jsonl.
        """
        self._events.close()
        tensorboard.write_row(self.folder, result)


class NoRecorder:
    """Of repeats that leave their line in the results alone."""

    folder = None
    snapshots: Sequence[Snapshot] = ()

    def begin(self, number: int, task: Task, generation: int) -> None:
        pass

    def flush(self) -> None:
        pass

    def add(
        self,
        number: int,
        task: Task,
        now: Generation,
        fixed_path: np.ndarray,
        ends: bool,
    ) -> None:
        pass

    def recall(
        self,
        outcome: Outcome,
        fixed_path: np.ndarray,
        snapshots: Sequence[Snapshot] = (),
    ) -> None:
        pass

    def close(self, result: dict) -> None:
        pass

"""What became of a task."""

import dataclasses

import numpy as np

import pathnet
from supervised.tournaments import Generation, Task


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes:
      task: the Task, without its training images.
      last: its last Generation; the winner's path is the best path of the task.
      converged: whether that winner reached stop_accuracy.
      accuracy_train: of that path, with the parameters that are kept, on the last
        mini-batches; None in networks saved before this was measured. Fitness is the
        accuracy while they were being learned, before what the writeback does.
      accuracy_test: of that path on held-out images, when the task ended.
      seconds: wall-clock time of its generations.
      curve: {"generation": [...], "fitness": [...]}, the winners'.
      selected_by_test: whether the held-out images have selected the winners, so that
        they are not unseen.
    """

    task: Task
    last: Generation
    converged: bool
    accuracy_train: float | None
    accuracy_test: float
    seconds: float
    curve: dict
    selected_by_test: bool = False

    @property
    def generations(self) -> int:
        return self.last.number

    @property
    def geopath(self) -> np.ndarray:
        """Binary [L, M], the best path alone."""
        return pathnet.to_geopath(self.last.path, self.last.active.shape[1])

    def entry(self) -> dict:
        """What results.jsonl holds of it."""
        entry = {
            "name": self.task.name,
            "generations": self.generations,
            "converged": self.converged,
            "fitness": self.last.best_fitness,
            "accuracy_train": self.accuracy_train,
            "accuracy_test": self.accuracy_test,
            "path": self.last.path.tolist(),
            "seconds": round(self.seconds, 3),
            "curve": self.curve,
        }
        return entry | ({"selected_by": "test"} if self.selected_by_test else {})

    def report(self, number: int, fixed_path: np.ndarray) -> str:
        """How the task ended, for people, with its path as a grid.

        Args:
          number: of the task, from 0 on.
          fixed_path: binary [L, M], what was frozen when it was learned.
        """
        return pathnet.format_task(
            number, self.task.title, self.entry(), self.geopath, fixed_path
        )


def from_network(task: Task, entry: dict, active: np.ndarray) -> Outcome:
    """The outcome of a task that a network has learned in an earlier process.

    Args:
      entry: what the network holds of it. active: float32 [L, M], what modules count for.
    """
    path = np.array(entry["path"])
    last = Generation(
        number=entry["generations"],
        population=path[None],
        path=path,
        active=active,
        fitness=np.array([entry["fitness"]]),
        loss=np.array([np.nan]),
        winner=0,
        batches=np.zeros(0, int),
    )
    return Outcome(
        task,
        last,
        entry["converged"],
        entry.get("accuracy_train"),
        entry["accuracy_test"],
        entry["seconds"],
        entry["curve"],
        entry.get("selected_by") == "test",
    )

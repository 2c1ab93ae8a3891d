"""What a run prints: progress, how each task ended, the last line of a repeat."""

import sys

import numpy as np
from tqdm import tqdm

import pathnet
from common import commandline, shell
from reports import tables
from supervised.outcomes import Outcome
from supervised.tournaments import Generation, Task

KEPT_MARGIN = 0.05  # of accuracy, which a kept network may lack without a word
PLAIN_LINE_EVERY = 50  # generations, where no terminal shows a progress bar


class SingleDisplay:
    """Of one repeat: everything. Of one repeat under several controls: each, in full."""

    leaves_bars = True
    lines_every: int | None = PLAIN_LINE_EVERY

    def __init__(
        self, folder: str, controls: list[str], total: int | None, has_events: bool
    ):
        """
        Args:
          folder: of the run. controls: that each repeat is learned with.
          total: generations of each task if they all have as many, None if a task ends
            when it has converged.
          has_events: whether there is something to see in TensorBoard.
        """
        self._folder = folder
        self._controls = controls
        self._total = total
        self._has_events = has_events
        self._results = []

    def progress(self, number: int, task: Task, done: int) -> "Bar | Lines":
        """What shows the generations of a task that has had `done` of them."""
        label = f"task {number + 1}, {task.title}"
        if sys.stderr.isatty():
            return Bar(label, done, self._total, self.leaves_bars)
        return Lines(label, self.lines_every)

    def task_ended(self, number: int, outcome: Outcome, fixed_path: np.ndarray) -> None:
        """Prints how a task ended, and its path. fixed_path: binary [L, M]."""
        print(outcome.report(number, fixed_path), flush=True)

    def network_saved(self, folder: str) -> None:
        print(commandline.printable(f"Saved: {folder}"))

    def repeat_ended(
        self,
        outcomes: list[Outcome],
        result: dict,
        line: str,
        place: int,
        is_last: bool,
    ) -> None:
        """Prints what there is to say at the end of a repeat.

        Args:
          outcomes: of its tasks. result: its object of results.jsonl.
          line: its last line, in the form of the script.
          place: of its object in results.jsonl, from 1 on.
          is_last: whether it is the last repeat of the run.
        """  # fmt: skip
        self._print_retention(outcomes, result)
        if self._total is None:
            print(_not_converged(outcomes), end="")
        self._results.append(result)
        if is_last:
            self._print_summary()
            print(f"Results: {self._folder}")
            if self._has_events:
                print(shell.tensorboard(self._folder))
        if len(self._controls) > 1:
            print(f"Seed {result['seed']}, {result['control']}:")
        print(line, flush=True)

    def _print_summary(self):
        """The table of all repeats, if there are several."""
        if len(self._results) > 1:
            print(f"\n{tables.summary(self._results)}\n")
            if table := tables.continual_table(self._results):
                print(f"{table}\n")

    def _print_retention(self, outcomes, result):
        """Says what the later tasks have left of the earlier ones."""
        is_random = result["flags"].get("fixed_path_random", False)
        is_random &= result["control"] == "pathnet"
        is_random |= result["control"] == "random_frozen"
        for number, outcome in enumerate(outcomes[:-1]):
            now = result["retention"][-1][number]
            verdict = "unchanged" if now == outcome.accuracy_test else "CHANGED"
            if is_random:
                verdict = "as its modules were initialized again"
            print(
                f"Task {number + 1} once more: held-out accuracy {now:.4f}, {verdict}"
            )
        if len(outcomes) > 2:
            print(f"\n{tables.retention_table([result])}\n")
        if len(outcomes) > 1:
            print(
                f"All {len(outcomes)} tasks: mean held-out accuracy "
                f"{result['average_accuracy']:.4f} (ACC), mean change of earlier tasks "
                f"{result['backward_transfer']:+.4f} (BWT)"
            )


class RepeatsDisplay(SingleDisplay):
    """Of several repeats: a bar while a task is learned, and a line each."""

    leaves_bars = False
    lines_every = None

    def task_ended(self, number: int, outcome: Outcome, fixed_path: np.ndarray) -> None:
        pass

    def _print_retention(self, outcomes, result):
        pass


class BatchDisplay:
    """Of a share of a batch: a numbered line a repeat, and nothing else."""

    def __init__(self, total: int | None):
        """
        Args:
          total: as of SingleDisplay.
        """
        self._total = total

    def progress(self, number: int, task: Task, done: int) -> "Lines":
        return Lines("", None)

    def task_ended(self, number: int, outcome: Outcome, fixed_path: np.ndarray) -> None:
        pass

    def network_saved(self, folder: str) -> None:
        pass

    def repeat_ended(
        self,
        outcomes: list[Outcome],
        result: dict,
        line: str,
        place: int,
        is_last: bool,
    ) -> None:
        if self._total is None:
            print(_not_converged(outcomes), end="")
        print(f"{place} Iteration,  {line},Seed:{result['seed']}", flush=True)


class Bar:
    """A progress bar on a terminal."""

    def __init__(self, label: str, done: int, total: int | None, leave: bool):
        self._bar = tqdm(total=total, desc=label, unit="gen", initial=done, leave=leave)

    def show(self, now: Generation, ends: bool) -> None:
        self._bar.set_postfix_str(_state(now), refresh=ends)
        self._bar.update()

    def close(self) -> None:
        self._bar.close()


class Lines:
    """A plain line now and then, or none at all, where there is no terminal."""

    def __init__(self, label: str, every: int | None):
        self._label = label
        self._every = every

    def show(self, now: Generation, ends: bool) -> None:
        if self._every and now.number % self._every == 0:
            print(f"{self._label}, generation {now.number}: {_state(now)}", flush=True)

    def close(self) -> None:
        pass


def _not_converged(outcomes: list[Outcome]) -> str:
    """A line that names the tasks that were not learned, or nothing."""
    tasks = [
        f"task {number}, {outcome.task.title}, after {outcome.generations} generations"
        for number, outcome in enumerate(outcomes, 1)
        if not outcome.converged
    ]
    return f"Not converged: {'; '.join(tasks)}\n" if tasks else ""


def _state(now):
    geopaths = pathnet.to_geopath(now.population, now.active.shape[1])
    diversity = pathnet.diversity(geopaths)
    return f"fitness {now.best_fitness:.4f}, diversity {diversity:.2f}"


def note_capacity(grid: pathnet.Grid, tasks: int) -> None:
    """Says so where so many tasks may freeze more modules than a layer has."""
    if tasks * grid.N > grid.M:
        print(
            f"note: {tasks} tasks may freeze up to {tasks * grid.N} modules of a layer, "
            f"and it has {grid.M}: later tasks may find few that are free; --M="
            f"{tasks * grid.N} has room for all of them, and a generation costs no more "
            "(with --aggregation=normalized it takes no more generations either)",
            file=sys.stderr,
        )


def note_crowding(
    number: int, task: Task, grid: pathnet.Grid, fixed_path: np.ndarray
) -> None:
    """Says so where the frozen modules leave a layer fewer than a path may use."""
    free = grid.M - fixed_path.sum(1).astype(int)
    crowded = [
        f"{count} of {grid.M} in layer {layer}"
        for layer, count in enumerate(free, 1)
        if count < grid.N
    ]
    if crowded:
        print(
            f"note: task {number + 1}, {task.title}: fewer modules are free than the "
            f"{grid.N} that a path may use: {', '.join(crowded)}",
            file=sys.stderr,
        )


def note_chance(number: int, task: Task, now: Generation, grid: pathnet.Grid) -> None:
    """Says that a task has not begun to be learned, and what to try."""
    # An average's outputs, and with them its gradients, shrink as M/N grows.
    is_average = grid.aggregation == "average"
    more = ", --aggregation=last_average or a smaller --M" if is_average else ""
    print(
        f"note: task {number + 1}, {task.title}: after {now.number} generations fitness "
        f"is {now.best_fitness:.4f}, no better than guessing; try another --learning_rate"
        + more,
        file=sys.stderr,
    )


def note_kept(number: int, outcome: Outcome, writeback: str) -> None:
    """Says so where a task has converged, but not the network that is kept of it."""
    lacking = outcome.last.best_fitness - outcome.accuracy_train
    if not outcome.converged or lacking < KEPT_MARGIN:
        return
    print(
        f"note: task {number + 1}, {outcome.task.title}: the winner's training accuracy "
        f"was {outcome.last.best_fitness:.4f}, but the network that is kept has only "
        f"{outcome.accuracy_train:.4f}"
        + (
            ": --writeback=sum adds the losers' changes to it; try --writeback=merge"
            if writeback == "sum"
            else ""
        ),
        file=sys.stderr,
    )

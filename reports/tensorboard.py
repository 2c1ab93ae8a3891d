"""Results for TensorBoard: mean curves over repeats, and a table with a row a repeat.

The page Custom Scalars has a chart a task, with the mean curves of all ways in which it
was learned, their confidence bands over each other. The page HParams has the table. They
lie in two folders: of more than 40 runs in one TensorBoard at first shows none, and each
row of the table is a run.

TensorBoard's own packages are imported when they are used, as few commands need them.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from common import commandline, folders
from common.commandline import UserError
from common.events import Events
from common.schema import LARGEST_WHOLE
from reports import tables

MEAN, REPEATS = "mean", "repeats"  # folders of the mean curves, and of the table
MOST_POINTS = 1000  # of a curve: of more than that TensorBoard draws some at random
ROW = "summary"  # folder of a run's row: in the run's own, all its curves were columns


# --------------------------------------------------------------------------------------
# What is written
# --------------------------------------------------------------------------------------


def write(
    folder: str, results: Sequence[dict], not_settings: Collection[str]
) -> tuple[str, list[str]]:
    """Writes the mean curves and the table of results, to a folder of their own.

    No configuration of the page HParams is written: TensorBoard would take one of those
    that it finds, in a folder with several of these, for all of them.

    Args:
      folder: to be made; if it is there and not empty, one beside it, with a number.
      results: repeats, as `common.results.read` returns them.
      not_settings: as for `tables.by_setting`.

    Returns:
      The folder, in which MEAN and REPEATS are; and what there is no curve of, each such as "1v2 after 1v3".

    Raises:
      UserError: there is something else in place of the folder.
      OSError: something cannot be written.
    """
    folder = _empty_folder(folder)
    settings = tables.by_setting(results, not_settings)
    curves, lacking = _curves(settings)
    _write_means(os.path.join(folder, MEAN), curves)
    _write_rows(os.path.join(folder, REPEATS), settings, results, not_settings)
    return folder, lacking


def write_row(folder: str, result: dict) -> None:
    """Adds a run to the table that TensorBoard makes of all runs in a folder.

    It is a "run" of its own to TensorBoard, with flags and outcomes and no curves.

    Args:
      folder: of the run, or of the repeat if a run has several.
      result: its object of results.jsonl.

    Raises:
      OSError: something cannot be written.
    """
    decisive = commandline.flag_names(commandline.NETWORK, commandline.LEARNING)
    flags = {name: result["flags"].get(name) for name in decisive}
    about = {"control": _control(result), "tasks": _tasks(result)}
    _write_row(folders.below(folder, ROW), result, flags | about, {})


def _empty_folder(folder):
    """The folder if there is nothing in it, else a new one; relative if it is."""
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise UserError(f"{folder}: is no folder; name another one")
    if os.path.isdir(folder) and not os.listdir(folder):
        return folder
    made = folders.new(*os.path.split(os.path.abspath(folder)))
    return made if os.path.isabs(folder) else os.path.relpath(made)


# --------------------------------------------------------------------------------------
# Mean curves
# --------------------------------------------------------------------------------------


class _Curves(NamedTuple):
    """The curves of a task that was learned in one way, and what tells it from others.

    Attributes:
      name: of the task. run: of the curves. curves: as `tables.mean_curve` takes them.
      what: they show.
    """

    name: str
    run: str
    curves: list[dict]
    what: str


def _curves(settings: Mapping[str, list[dict]]) -> tuple[list[_Curves], list[str]]:
    """The curves of each task that was learned in one way; what there are none of.

    Settings whose curves are the same, as those of a first task are under most controls,
    have them once: nobody sees a curve that another one lies on.
    """
    ways: dict[tuple[str, str, str], dict[str, list[dict]]] = {}
    for number, (setting, results) in enumerate(settings.items(), 1):
        label = tables.as_filename(setting.replace("control=", ""), str(number))
        for (name, before), group in tables.by_predecessor(results).items():
            way = name, tables.when(before), _what(group[0].result)
            curves = list(filter(None, map(_curve, group)))
            ways.setdefault(way, {})[label] = curves
    found, lacking = [], []
    for (name, when, what), of_settings in ways.items():
        if not all(of_settings.values()):
            lacking.append(f"{name} {when}")
        alike: dict[str, tuple[list[str], list[dict]]] = {}
        for label, curves in of_settings.items():
            if curves:
                key = repr(sorted(map(repr, curves)))
                alike.setdefault(key, ([], curves))[0].append(label)
        run = tables.as_filename(folders.joined([name, when]))
        for labels, curves in alike.values():
            label = tables.as_filename(folders.joined(labels), labels[0])
            label = f"__{label}" if len(alike) > 1 else ""
            found.append(_Curves(name, run + label, curves, what))
    return found, lacking


def _write_means(folder: str, found: Sequence[_Curves]) -> None:
    """Writes a run for each way in which a task was learned, one with the layout."""
    for curves in found:
        events = Events(
            folders.new(folder, curves.run),
            descriptions={f"{curves.name}/mean": _description(curves)},
        )
        if curves is found[0]:
            events.summary(_layout(found))
        _add_mean(events, curves)
        events.close()


def _add_mean(events, curves):
    """Adds the mean with the bounds of its 95 % confidence band."""
    steps, mean, margin = tables.mean_curve(curves.curves)
    low, high = mean - margin, mean + margin
    if curves.what == _FITNESS:
        low, high = np.clip([low, high], 0, 1)
    last = len(steps) - 1
    for point in np.unique(np.linspace(0, last, MOST_POINTS).round().astype(int)):
        values = {
            f"{curves.name}/mean": mean[point],
            f"{curves.name}/low": low[point],
            f"{curves.name}/high": high[point],
        }
        events.scalars(int(steps[point]), values)


_FITNESS = "training accuracy of the winners over generations"
_SCORE = f"mean return of {tables.SCORE_EPISODES} episodes over agent steps"


def _what(result):
    return _SCORE if tables.is_game(result) else _FITNESS


def _description(curves):
    n = len(curves.curves)
    repeats = f"mean of {n} repeats" if n > 1 else "a single repeat"
    return f"{curves.name}, {curves.what}: {repeats}."


def _curve(one):
    """The curve of a task, as `tables.mean_curve` takes it; None if there is none."""
    curve = one.task.get("curve")
    if curve and tables.is_game(one.result):
        steps, scores = map(list, tables.running_score(curve))
        curve = {"generation": steps, "fitness": scores}
    return curve if curve and curve["generation"] else None


def _layout(found):
    """The page Custom Scalars, as a summary: a chart with bands for each task."""
    from tensorboard.plugins.custom_scalar import layout_pb2, summary

    layout = layout_pb2.Layout()
    for what in dict.fromkeys(curves.what for curves in found):
        title = f"{what}: mean over repeats, with its 95 % confidence band"
        category = layout.category.add(title=title[0].upper() + title[1:])
        for name in dict.fromkeys(c.name for c in found if c.what == what):
            chart = category.chart.add(title=name)
            chart.margin.series.add(
                value=f"{name}/mean", lower=f"{name}/low", upper=f"{name}/high"
            )
    return summary.pb(layout)


# --------------------------------------------------------------------------------------
# The table of repeats
# --------------------------------------------------------------------------------------


def _write_rows(folder, settings, results, not_settings):
    """Writes a row for each repeat: a run that is named after its seed.

    Args:
      folder: of all. settings: groups of the results, a repeat once. results: all of them.
      not_settings: as for `tables.by_setting`.
    """  # fmt: skip
    differing = dict(zip(map(id, results), tables.differences(results, not_settings)))
    speedups = _speedups(tables.by_setting(results, not_settings, {"control"}))
    has_several = len(set(map(_tasks, results))) > 1
    width = max(len(str(result.get("seed"))) for result in results)
    for result in (result for group in settings.values() for result in group):
        seed, tasks = result.get("seed"), _tasks(result)
        flags = differing[id(result)] | ({"tasks": tasks} if has_several else {})
        names = folders.joined([task["name"] for task in result["tasks"]])
        padded = str(seed).zfill(width)  # the table is sorted by these names
        run = tables.as_filename(f"seed{padded}__{_control(result)}__{names}")
        row = folders.new(folder, run)
        _write_row(row, result, flags, speedups.get(id(result), {}))


def _write_row(folder, result, flags, speedups):
    """Writes the row of a repeat.

    Args:
      folder: of its events. flags: to show beside the seed, by name.
      speedups: against scratch, by the place of the task, as far as there are.
    """  # fmt: skip
    from tensorboard.plugins.hparams import summary_v2

    columns = flags | {"seed": result.get("seed")}
    plain = {_plain(name): _plain(value) for name, value in columns.items()}
    events = Events(folder)
    # Without a name of its own a row has that of its run, which no other one has.
    events.summary(summary_v2.hparams_pb(plain, trial_id=""))
    events.scalars(0, _metrics(result, speedups))
    events.close()


def _metrics(result: dict, speedups: Mapping[int, float]) -> dict[str, float]:
    """The outcomes of a repeat, by tag.

    There are no generations of a task that did not converge.
    """
    metrics = {}
    for place, task in enumerate(result["tasks"]):
        if tables.is_game(result):
            measured = {"steps": task["steps"], "score": task["score"]}
        else:
            measured = {
                "generations": tables.generations_needed(task),
                "held_out": task["accuracy_test"],
                "speedup": speedups.get(place),
            }
        for name, value in measured.items():
            if value is not None:
                metrics[f"task{place + 1}/{name}"] = value
    return metrics


def _speedups(settings: Mapping[str, Sequence[dict]]) -> dict[int, dict[int, float]]:
    """Of repeats, by id: generations of scratch with the same seed divided by theirs.

    By the place of the task, of which both must have converged. Games have none.
    """
    found: dict[int, dict[int, float]] = {}
    for results in settings.values():
        if len(set(map(_control, results))) < 2 or any(map(tables.is_game, results)):
            continue
        for of_control in tables.controls(results):
            for pair in zip(*of_control.pairs):
                first, second = (tables.generations_needed(one.task) for one in pair)
                if first and second:
                    of_repeat = found.setdefault(id(pair[1].result), {})
                    of_repeat[pair[1].place] = first / second
    return found


def _control(result):
    return result.get("control", "pathnet")


def _tasks(result):
    return ", ".join(task["name"] for task in result["tasks"])


def _plain(value: object) -> bool | float | str:
    """The value of a flag as one that TensorBoard's table takes."""
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    elif value is None:
        value = "none"
    # Neither what is not finite nor what no float holds is a number in there.
    is_number = isinstance(value, (int, float)) and abs(value) < LARGEST_WHOLE
    return value if is_number else commandline.printable(str(value))

"""Plots of results: what plotting.py draws, each a PNG file."""

import math
import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import offset_copy

from reports import tables
from reports.colours import BACKGROUND, INK, MUTED, task_colour
from reports.style import despine, save_png, shade

MOST_LOST = 10  # points of accuracy, whose loss has the palest colour of plot_retention
USAGE_NUMBERED = 24  # modules in a layer up to which each one's share is written on it

Legend = Sequence[tuple[str, str]]  # lines of text, each with its colour


# --------------------------------------------------------------------------------------
# What is plotted
# --------------------------------------------------------------------------------------


def by_place(results: Sequence[dict]) -> dict[str, dict[int, list[dict]]]:
    """Gathers, for each task name, what was recorded of it in all repeats.

    Args:
      results: repeats as in results.jsonl, each with "tasks" in learning order.

    Returns:
      By name, in order of first appearance: tasks by their places in the learning
      order, from 0 on, ascending.

    Raises:
      ValueError: the results hold no task.
    """
    gathered: dict[str, dict[int, list[dict]]] = {}
    for place, _, task in tables.learned(results):
        gathered.setdefault(task["name"], {}).setdefault(place, []).append(task)
    if not gathered:
        raise ValueError("they hold no task")
    return {name: dict(sorted(places.items())) for name, places in gathered.items()}


def by_task(results: Sequence[dict]) -> dict[str, dict[str, list[dict]]]:
    """As `by_place`, but only sets tasks learned first apart from those learned later.

    Returns:
      By name: {"first": the tasks that were learned first, "second": those that were
      learned after another}, either may be empty. "second" is "later" if a repeat has
      more than two tasks.

    Raises:
      ValueError: the results hold no task.
    """
    gathered = by_place(results)
    two = all(place < 2 for places in gathered.values() for place in places)
    return {
        name: {
            "first": places.get(0, []),
            "second" if two else "later": [
                task for place, tasks in places.items() if place > 0 for task in tasks
            ],
        }
        for name, places in gathered.items()
    }


def module_usage(paths: np.ndarray, modules: int) -> np.ndarray:
    """Share of the paths that use each module.

    Args:
      paths: [n, L, N] module numbers, for one path or more.
      modules: M.

    Returns:
      [L, M] float array in [0, 1].
    """
    return (np.asarray(paths)[..., None] == np.arange(modules)).any(axis=2).mean(axis=0)


# --------------------------------------------------------------------------------------
# Plots of supervised tasks
# --------------------------------------------------------------------------------------


def plot_generations(filename: str | os.PathLike, results: Sequence[dict]) -> None:
    """Compares generations needed by tasks learned first and second, as a PNG file.

    One panel a task name: overlaid histograms of the repeats that converged, with their
    means as dashed lines; above them n, mean ± standard error, and, if all converged,
    the speedup (mean when learned first over mean when learned second) with its
    bootstrap interval. Few repeats that took far longer than the others would press these
    together: they are named at the right edge instead, and count in the means.

    Args:
      filename: the picture; an existing file is replaced.
      results: repeats as for `by_task`.

    Raises:
      ValueError: the results hold no task.
      OSError: the file cannot be written; an existing one then stays as it was.
    """
    panels = {
        name: {
            when: [tables.generations_needed(task) for task in tasks]
            for when, tasks in groups.items()
        }
        for name, groups in by_task(results).items()
    }
    figure, grid = _panels(len(panels), share_x=True)
    edges = _generation_edges(panels)
    for axes, (name, groups) in zip(grid, panels.items()):
        _draw_histograms(axes, name, groups, edges)
    save_png(filename, figure)


def plot_curves(filename: str | os.PathLike, results: Sequence[dict]) -> None:
    """Compares how tasks learn first and second, as a PNG file.

    One panel a task name: the winner's fitness against generations, mean over repeats
    with its confidence band, see `tables.mean_curve`.

    Args:
      filename: the picture; an existing file is replaced.
      results: repeats as for `by_task`.

    Raises:
      ValueError: the results hold no task.
      OSError: the file cannot be written; an existing one then stays as it was.
    """
    panels = by_task(results)
    figure, grid = _panels(len(panels), share_x=True, share_y=True)
    for axes, (name, groups) in zip(grid, panels.items()):
        for place, tasks in enumerate(groups.values()):
            if tasks:
                generations, mean, margin = tables.mean_curve(
                    [t["curve"] for t in tasks]
                )
                # Fitness is a share, so nothing outside [0, 1] is worth its room.
                low, high = np.clip([mean - margin, mean + margin], 0, 1)
                colour = task_colour(place)
                axes.fill_between(
                    generations, low, high, color=colour, alpha=0.25, linewidth=0
                )
                axes.plot(generations, mean, color=colour, linewidth=1.8)
        legend = _place_legend(groups)
        if max(map(len, groups.values())) > 1:
            legend.append(("band: 95 % confidence interval of the mean", MUTED))
        _label(
            axes,
            f"{name}: learning curve",
            "generation",
            "winner's training accuracy",
            legend,
        )
    save_png(filename, figure)


def plot_controls(filename: str | os.PathLike, results: Sequence[dict]) -> None:
    """Compares how later tasks are learned under each control, as a PNG file.

    One panel a task after the first: the winner's fitness against generations, a line a
    repeat, which ends in a dot where the task was over; dashed for the control "scratch".

    Args:
      filename: the picture; an existing file is replaced.
      results: repeats of the same tasks, of one setting but for the control.

    Raises:
      ValueError: the results hold no later task.
      OSError: the file cannot be written; an existing one then stays as it was.
    """
    names = [task["name"] for task in results[0]["tasks"]] if results else []
    if len(names) < 2:
        raise ValueError("they hold no second task")
    controls = dict.fromkeys(result.get("control", "pathnet") for result in results)
    figure, grid = _panels(len(names) - 1, share_x=True, share_y=True)
    for place, (axes, name) in enumerate(zip(grid, names[1:]), 1):
        legend = []
        for rank, control in enumerate(controls):
            tasks = [
                result["tasks"][place]
                for result in results
                if result.get("control", "pathnet") == control
            ]
            colour = MUTED if control == "scratch" else task_colour(rank)
            _draw_repeats(axes, tasks, colour, "--" if control == "scratch" else "-")
            legend.append((_needed_text(control, tasks), colour))
        _label(
            axes,
            f"task {place + 1}, {name}, after {names[place - 1]}",
            "generation",
            "winner's training accuracy",
            legend,
        )
    save_png(filename, figure)


def _needed_text(control: str, tasks: Sequence[dict]) -> str:
    """Under which control tasks were learned, and the generations that they needed."""
    what = {"pathnet": "on the frozen path", "scratch": "from scratch"}
    needed = [tables.generations_needed(task) for task in tasks]
    mean, _ = tables.mean_and_error(tables.not_none(needed))
    return (
        f"{what.get(control, control)}, n = {tables.converged_text(needed)}: "
        f"{mean:.0f} generations"
    )


def _draw_repeats(
    axes: Axes, tasks: Sequence[dict], colour: str, linestyle: str
) -> None:
    """A thin line a repeat, smoothed as by `tables.mean_curve`, and a dot at its end."""
    for task in tasks:
        generations, fitness, _ = tables.mean_curve([task["curve"]])
        axes.plot(generations, fitness, linestyle, color=colour, linewidth=1.1)
        axes.plot(generations[-1:], fitness[-1:], ".", color=colour, markersize=7)


def plot_accuracies(filename: str | os.PathLike, results: Sequence[dict]) -> None:
    """Compares accuracies of tasks learned first and second, as a PNG file.

    One panel a task name: the training accuracy of the last winner and the held-out
    accuracy of its path, a dot a repeat, with mean ± standard error.

    Args:
      filename: the picture; an existing file is replaced.
      results: repeats as for `by_task`.

    Raises:
      ValueError: the results hold no task.
      OSError: the file cannot be written; an existing one then stays as it was.
    """
    panels = by_task(results)
    figure, grid = _panels(len(panels), share_y=True)
    for axes, (name, groups) in zip(grid, panels.items()):
        shown = [(p, tasks) for p, tasks in enumerate(groups.values()) if tasks]
        for rank, (place, tasks) in enumerate(shown):
            for spot, measure in enumerate(("fitness", "accuracy_test")):
                x = spot + 0.42 * (rank - (len(shown) - 1) / 2)
                values = [100 * task[measure] for task in tasks]
                _draw_values(axes, x, values, task_colour(place))
        legend = _place_legend(groups)
        if max(map(len, groups.values())) > 1:
            legend.append(("mean ± standard error", MUTED))
        _label(axes, f"{name}: final accuracy", "", "accuracy, %", legend)
        axes.set(xlim=(-0.5, 1.5))
        axes.margins(y=0.12)
        selected = any(tables.selected_by_test(tasks) for _, tasks in shown)
        held_out = "held-out images" + (
            "\n(winners selected by them)" if selected else ""
        )
        axes.set_xticks((0, 1), ("training images", held_out))
        axes.tick_params(axis="x", labelsize=10, labelcolor=INK, length=0)
    save_png(filename, figure)


def plot_usage(filename: str | os.PathLike, results: Sequence[dict]) -> None:
    """How often each module is on the best path, as a PNG file.

    One panel a task name and place in the learning order: a row a layer, a column a
    module, the darker the more repeats use it. All panels have the same scale.

    Args:
      filename: the picture; an existing file is replaced.
      results: repeats as for `by_task`, of one grid size.

    Raises:
      ValueError: the results hold no task.
      OSError: the file cannot be written; an existing one then stays as it was.
    """
    panels = [
        (f"{name}, learned {when}", place, [task["path"] for task in tasks])
        for name, groups in by_task(results).items()
        for place, (when, tasks) in enumerate(groups.items())
        if tasks
    ]
    layers, modules, active = (results[0]["flags"][size] for size in "LMN")
    shares = [module_usage(paths, modules) for _, _, paths in panels]
    most = max(share.max() for share in shares)
    figure, grid = _panels(len(panels), min(len(panels), 2), 1.4 + 0.36 * layers)
    for axes, share, (title, place, paths) in zip(grid, shares, panels):
        colour = task_colour(place)
        _draw_usage(axes, share, most, colour)
        chance = f"{100 * active / modules:.3g} %"
        line = f"% of best paths that use it, n = {len(paths)} (random: {chance})"
        legend = [(line, colour)]
        if modules > USAGE_NUMBERED:
            legend.append((f"full colour: {100 * most:.0f} %", MUTED))
        _label(axes, f"{title}: use of modules", "module", "layer", legend)
    save_png(filename, figure)


def plot_overlaps(filename: str | os.PathLike, results: Sequence[dict]) -> None:
    """How many modules the best paths share, as a PNG file.

    One panel an order of tasks: how many repeats have each overlap, its mean ± standard
    error, and what random paths would share on average that have as many modules of each
    layer as the best paths.

    Args:
      filename: the picture; an existing file is replaced.
      results: repeats as in results.jsonl, of two tasks each.

    Raises:
      ValueError: the results hold no repeat of two tasks.
      OSError: the file cannot be written; an existing one then stays as it was.
    """
    orders: dict[str, list[dict]] = {}
    for result in results:
        if len(result["tasks"]) == 2:
            name = ", then ".join(task["name"] for task in result["tasks"])
            orders.setdefault(name, []).append(result)
    if not orders:
        raise ValueError("they hold no repeat of two tasks")
    figure, panels = _panels(len(orders))
    for axes, (name, group) in zip(panels, orders.items()):
        _draw_overlaps(axes, name, group)
    save_png(filename, figure)


def plot_retention(filename: str | os.PathLike, results: Sequence[dict]) -> None:
    """Held-out accuracy on each task after each later one, as a PNG file.

    A row a task that was learned, a column a task that was tested, with the mean over
    repeats, the paler the more is lost since the task was learned; to the right of them
    the generations that each took, and the modules used so far.

    Args:
      filename: the picture; an existing file is replaced.
      results: repeats of the same tasks, as in results.jsonl.

    Raises:
      ValueError: the repeats hold no task, or not the same ones in the same order.
      OSError: the file cannot be written; an existing one then stays as it was.
    """
    names, accuracy = tables.retention(results)
    tasks = len(names)
    counts = {
        title: np.mean([[task[key] for task in r["tasks"]] for r in results], axis=0)
        for title, key in (
            ("generations", "generations"),
            ("modules\nso far", "modules_so_far"),
        )
    }
    figure = Figure(
        figsize=(2.6 + 0.95 * (tasks + len(counts)), 1.9 + 0.6 * tasks),
        facecolor=BACKGROUND,
        layout="constrained",
    )
    axes = figure.add_subplot()
    _draw_matrix(axes, 100 * accuracy.mean(axis=0))
    for column, (title, values) in enumerate(counts.items(), tasks):
        for row, value in enumerate(values):
            text = f"{value:.0f}"
            axes.text(column + 0.2, row, text, ha="center", va="center", color=INK)
        axes.text(column + 0.2, -0.62, title, ha="center", va="bottom", color=MUTED)
    axes.set(xlim=(-0.55, tasks + len(counts)), ylim=(tasks - 0.45, -0.55))
    axes.set_xticks(range(tasks), names, color=INK)
    axes.set_yticks(range(tasks), [f"after {name}" for name in names], color=INK)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    repeats = f", mean of {len(results)} repeats" if len(results) > 1 else ""
    figure.suptitle(
        f"Held-out accuracy on each task, %{repeats}", color=INK, weight="bold"
    )
    figure.supxlabel(
        f"full colour: nothing lost; palest: {MOST_LOST} points or more",
        color=MUTED,
        fontsize=8.5,
    )
    save_png(filename, figure)


# --------------------------------------------------------------------------------------
# Plots of games
# --------------------------------------------------------------------------------------


def plot_scores(filename: str | os.PathLike, results: Sequence[dict]) -> None:
    """Compares how games are learned first and second, as a PNG file.

    One panel a game: the mean return of the last `SCORE_EPISODES` episodes against
    agent steps, a line a repeat and task; equal games lie over each other.

    Args:
      filename: the picture; an existing file is replaced.
      results: repeats of atari_pathnet.py as in results.jsonl.

    Raises:
      ValueError: the results hold no task.
      OSError: the file cannot be written; an existing one then stays as it was.
    """
    games = by_place(results)
    figure, panels = _panels(len(games))
    for axes, (game, places) in zip(panels, games.items()):
        legend = []
        for place, tasks in places.items():
            colour = task_colour(place)
            legend.append((f"learned as task {place + 1}, n = {len(tasks)}", colour))
            for task in tasks:
                steps, scores = tables.running_score(task["curve"])
                axes.plot(steps / 1e6, scores, color=colour, linewidth=1.6)
        _label(
            axes,
            f"{game}: learning curve",
            "million agent steps of the task",
            f"score: mean return of {tables.SCORE_EPISODES} episodes",
            legend,
        )
    save_png(filename, figure)


# --------------------------------------------------------------------------------------
# Panels
# --------------------------------------------------------------------------------------


def _panels(
    count: int,
    columns: int | None = None,
    height: float = 3.7,
    share_x: bool = False,
    share_y: bool = False,
) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels, about as many rows as columns by default.

    Args:
      count: of panels. columns: of them. height: of a panel, in inches.
      share_x, share_y: whether all panels have the same limits, so that they can be
        compared at a glance.
    """
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    figure = Figure(
        figsize=(max(4.6 * columns, 5), height * rows),
        facecolor=BACKGROUND,
        layout="constrained",
    )
    figure.get_layout_engine().set(h_pad=0.1)  # inches, around each panel
    subplots = figure.subplots(
        rows, columns, squeeze=False, sharex=share_x, sharey=share_y
    )
    panels = list(subplots.ravel())
    for axes in panels:
        axes.tick_params(labelbottom=True, labelleft=True)
    for axes in panels[count:]:
        axes.set_axis_off()
    return figure, panels[:count]


def _label(axes: Axes, title: str, xlabel: str, ylabel: str, legend: Legend) -> None:
    """Says what a panel shows: its title, both axes, and what its colours stand for.

    The legend goes between title and plot, where it hides nothing.
    """
    for place, (text, colour) in enumerate(reversed(legend)):
        axes.annotate(
            text,
            xy=(0, 1),
            xycoords="axes fraction",
            xytext=(0, 9 + 15 * place),
            textcoords="offset points",
            color=colour,
            fontsize=9.5,
        )
    axes.set_title(
        title,
        loc="left",
        color=INK,
        weight="bold",
        fontsize=12,
        pad=12 + 15 * len(legend),
    )
    axes.set_xlabel(xlabel, color=INK)
    axes.set_ylabel(ylabel, color=INK)
    despine(axes)


def _place_legend(groups: dict[str, list]) -> list[tuple[str, str]]:
    """Lines for `_label` that set a task learned first apart from it learned later."""
    return [
        (f"learned {when}, n = {len(tasks)}", task_colour(place))
        for place, (when, tasks) in enumerate(groups.items())
        if tasks
    ]


def _draw_values(axes: Axes, x: float, values: Sequence[float], colour: str) -> None:
    """A pale dot a value in percent, a strong one for their mean, and its error."""
    mean, error = tables.mean_and_error(values)
    has_error = np.isfinite(error)
    around = x + np.linspace(-0.09, 0.09, len(values)) if has_error else [x]
    axes.plot(around, values, ".", color=colour, alpha=0.3, markeredgewidth=0)
    axes.errorbar(
        x,
        mean,
        yerr=error if has_error else None,
        fmt="o",
        color=colour,
        ecolor=INK,
        elinewidth=1.2,
        capsize=3,
    )
    axes.text(
        x,
        max(values),
        f"{mean:.2f} ± {error:.2f}" if has_error else f"{mean:.2f}",
        transform=offset_copy(axes.transData, axes.figure, y=7, units="points"),
        ha="center",
        color=colour,
        fontsize=8,
    )


def _draw_usage(axes: Axes, share: np.ndarray, most: float, colour: str) -> None:
    """Fills one panel of `plot_usage`: [L, M] shares, from 0 to `most` in full colour."""
    layers, modules = share.shape
    numbered = modules <= USAGE_NUMBERED
    axes.pcolormesh(
        np.arange(modules + 1) - 0.5,
        np.arange(layers + 1) + 0.5,
        shade(share.ravel() / most, colour).reshape(layers, modules, 3),
        edgecolors=BACKGROUND,
        linewidth=1.5 if numbered else 0,
    )
    if numbered:
        for layer, module in np.ndindex(layers, modules):
            axes.text(
                module,
                layer + 1,
                f"{100 * share[layer, module]:.0f}",
                ha="center",
                va="center",
                color=BACKGROUND if share[layer, module] > 0.55 * most else INK,
                fontsize=8.5 if modules <= 12 else 6.5,
            )
    # Modules count from 0, as in the recorded paths, and layers from 1, on top.
    most_ticks = modules if numbered else 8
    axes.xaxis.set_major_locator(MaxNLocator(most_ticks, integer=True))
    axes.set_yticks(range(1, layers + 1))
    axes.set_ylim(layers + 0.5, 0.5)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _generation_edges(panels: dict[str, dict[str, list]]) -> np.ndarray:
    """The edges of the bins of all panels of `plot_generations`.

    Args:
      panels: for each task the groups of `_draw_histograms`.
    """
    groups = [needed for groups in panels.values() for needed in groups.values()]
    most = 0
    for values in filter(len, map(tables.not_none, groups)):
        # Tukey's outer fence: what lies beyond it is far from the others of its group.
        low, high = np.quantile(values, [0.25, 0.75])
        fence = high + 3 * (high - low)
        most = max(most, max(value for value in values if value <= fence))
    values = np.concatenate([*map(tables.not_none, groups)])
    return np.histogram_bin_edges(values[values <= most], bins="rice")


def _draw_histograms(
    axes: Axes, name: str, groups: dict[str, list], edges: np.ndarray
) -> None:
    """Fills one panel of `plot_generations`.

    Args:
      axes: the panel. name: of the task.
      groups: for each of the groups of `by_task` the generations that a repeat needed,
        None where it did not converge.
      edges: of the bins; larger values are named at the right edge.
    """
    converged = {when: tables.not_none(needed) for when, needed in groups.items()}
    legend = []
    for place, (when, values) in enumerate(converged.items()):
        if not groups[when]:
            continue
        colour = task_colour(place)
        if not values:
            none = tables.converged_text(groups[when])
            legend.append((f"learned {when}: {none}", colour))
            continue
        mean, error = tables.mean_and_error(values)
        # A translucent fill under a full outline keeps both histograms readable.
        axes.hist(values, edges, color=colour, alpha=0.3)
        axes.hist(values, edges, histtype="step", color=colour, linewidth=1.5)
        axes.axvline(mean, color=colour, linestyle="--", linewidth=1.8)
        spread = f" ± {error:.1f}" if np.isfinite(error) else ""
        n = tables.converged_text(groups[when])
        line = f"learned {when}: {mean:.1f}{spread} generations, n = {n}"
        legend.append((line, colour))
    speedup = tables.speedup_text(*groups.values(), paired=False)
    if "[" in speedup:
        legend.append(("± standard error, [95 % confidence interval]", MUTED))
    beyond = sorted(v for values in converged.values() for v in values if v > edges[-1])
    if beyond:
        named = ", ".join(f"{value:,}" for value in beyond[:3])
        more = f" and {len(beyond) - 3} more" if len(beyond) > 3 else ""
        axes.text(
            0.99,
            0.5,
            f"beyond: {named}{more} →",
            transform=axes.transAxes,
            ha="right",
            color=MUTED,
        )
    has_none = speedup in ("", tables.NOT_CONVERGED)
    _label(
        axes,
        f"{name}: " + ("generations needed" if has_none else f"speedup {speedup}"),
        "generations",
        "repeats",
        legend,
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator("auto", integer=True))


def _draw_overlaps(axes: Axes, name: str, results: Sequence[dict]) -> None:
    """Fills one panel of `plot_overlaps`: results of one order of tasks."""
    overlaps = np.array([result["overlap"] for result in results])
    sizes = results[0]["flags"]
    most = sizes["L"] * sizes["N"]
    counts = np.bincount(overlaps, minlength=most + 1)
    axes.bar(range(most + 1), counts, color=task_colour(0), alpha=0.6, width=0.8)
    mean, error = tables.mean_and_error(overlaps)
    spread = f" ± {error:.2f}" if np.isfinite(error) else ""
    axes.axvline(mean, color=task_colour(0), linestyle="--", linewidth=1.8)
    chance = np.mean([_overlap_by_chance(result) for result in results])
    axes.axvline(chance, color=MUTED, linestyle=":", linewidth=1.8)
    legend = (
        (f"mean {mean:.2f}{spread}, n = {len(results)}", task_colour(0)),
        (f"random paths as wide: {chance:.2f}", MUTED),
    )
    _label(axes, f"{name}: overlap", f"modules shared, of {most}", "repeats", legend)
    axes.set_xticks(range(most + 1))
    axes.yaxis.set_major_locator(MaxNLocator("auto", integer=True))


def _overlap_by_chance(result: dict) -> float:
    """Mean overlap of two random paths with as many modules of each layer as a repeat's."""
    widths = [[len(set(layer)) for layer in task["path"]] for task in result["tasks"]]
    return np.prod(widths, axis=0).sum() / result["flags"]["M"]


def _draw_matrix(axes: Axes, percent: np.ndarray) -> None:
    """Draws a coloured, numbered cell for each finite value of a [rows, columns] array."""
    finite = np.isfinite(percent)
    for row, column in zip(*np.nonzero(finite)):
        lost = np.clip(percent[column, column] - percent[row, column], 0, MOST_LOST)
        # From half of the colour on, so that white text can be read on all of them.
        share = 1 - 0.45 * lost / MOST_LOST
        colour = shade(np.array([share]), task_colour(0))[0]
        axes.add_patch(Rectangle((column - 0.48, row - 0.46), 0.96, 0.92, color=colour))
        text = f"{percent[row, column]:.2f}"
        axes.text(column, row, text, ha="center", va="center", color=BACKGROUND)

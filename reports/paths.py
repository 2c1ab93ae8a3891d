"""The picture of the best path of each task (paths.png)."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Wedge
from matplotlib.path import Path as Outline

from reports.colours import (
    BACKGROUND,
    INK,
    MUTED,
    PALE,
    PALE_EDGE,
    task_colour,
)
from reports.population import count_overlap
from reports.style import PNG_DPI, blank_figure, label_box, save_png

# An arrow that leaps over something, of straight lines and one curve.
_LEAP = Outline(
    [
        (-1, -0.5),
        (-0.7, 0.9),
        (0.7, 0.9),
        (1, -0.5),
        (0.35, -0.2),
        (1, -0.5),
        (1.1, 0.2),
    ],
    [Outline.MOVETO, *[Outline.CURVE4] * 3, Outline.MOVETO, *[Outline.LINETO] * 2],
)
# What is drawn on a module to show its kind; the common kind stays bare.
KIND_MARKERS = {"skip": _LEAP, "residual": "+"}


Kinds = np.ndarray | Sequence[Sequence[str]] | None


def draw_paths(
    filename: str | os.PathLike,
    geopaths: Sequence[np.ndarray],
    task_names: Sequence[str],
    kinds: Kinds = None,
    active: Sequence[np.ndarray] | None = None,
) -> None:
    """Draws the best path of each task over the whole grid, as a PNG file.

    A module that several tasks share is filled with all their colours, and the legend
    counts the modules of each path and their overlap. Thin lines are a task's further
    connections: those to and from frozen modules, which are active although they are not
    on its path.

    Args:
      filename: the picture; an existing file is replaced.
      geopaths: one [L, M] 0/1 array a task, in learning order.
      task_names: one name a task.
      kinds: [L, M] strings or None; "skip" modules are marked with an arrow and
        "residual" ones with a plus, any other kind is left bare.
      active: one [L, M] 0/1 array a task, all modules that are active with its path;
        None: those of the path alone.

    Raises:
      ValueError: there is no path, or the arguments' shapes do not match.
      OSError: the file cannot be written; an existing one then stays as it was.
    """
    if len(geopaths) == 0 or len(geopaths) != len(task_names):
        raise ValueError(f"{len(geopaths)} paths for {len(task_names)} task names")
    paths = np.asarray(geopaths, bool)
    if paths.ndim != 3:
        raise ValueError(f"paths must be [L, M] arrays, not {paths.shape[1:]}")
    if kinds is not None and np.shape(kinds) != paths.shape[1:]:
        raise ValueError(f"kinds are {np.shape(kinds)}, modules {paths.shape[1:]}")

    further = np.zeros_like(paths) if active is None else np.asarray(active, bool)
    further &= ~paths
    entries = _legend_entries(paths, task_names, kinds, bool(further.any()))
    layout = _lay_out(*paths.shape, task_names, entries)
    figure, axes = blank_figure(layout.width, layout.height, PNG_DPI)
    _draw_connections(axes, layout, paths, further, task_names)
    _draw_modules(axes, layout, paths, kinds)
    _draw_headings(axes, layout)
    figure.legend(
        handles=entries,
        loc="lower center",
        bbox_to_anchor=(0.5, 0.12 / layout.height),
        ncols=math.ceil(len(entries) / layout.legend_rows),
        frameon=False,
        fontsize=9.5,
        labelcolor=INK,
        handletextpad=0.3,
        columnspacing=1.6,
    )
    save_png(filename, figure)


# --------------------------------------------------------------------------------------
# The grid: where modules lie, and the connections between them
# --------------------------------------------------------------------------------------


def module_centres(
    layers: int, modules: int, x: tuple[float, float], y: tuple[float, float]
) -> np.ndarray:
    """Places a grid of modules, layers from left to right, first module on top.

    Args:
      layers: number of columns.
      modules: number of modules in each.
      x: where the first and the last layer go; a single one goes between them.
      y: where the lowest and the topmost module go; likewise.

    Returns:
      [layers, modules, 2] float array of x and y.
    """
    xs = np.linspace(*x, layers) if layers > 1 else np.array([sum(x) / 2])
    ys = np.linspace(*y[::-1], modules) if modules > 1 else np.array([sum(y) / 2])
    return np.stack(np.meshgrid(xs, ys, indexing="ij"), axis=-1)


def edge_curves(
    centres: np.ndarray, source: Sequence[float], sink: Sequence[float]
) -> np.ndarray:
    """Smooth curves for all connections of a grid, horizontal at both ends.

    Args:
      centres: [L, M, 2] float array, x and y of the modules.
      source: x and y of the input.
      sink: x and y of the output.

    Returns:
      [edges, points, 2] float array: input to first layer, then every layer to its
      next in row-major (from, to) order, then last layer to output.
    """
    modules = centres.shape[1]
    starts = [np.broadcast_to(source, (modules, 2))]
    ends = [centres[0]]
    for left, right in pairwise(centres):
        starts.append(np.repeat(left, modules, axis=0))
        ends.append(np.tile(right, (modules, 1)))
    starts.append(centres[-1])
    ends.append(np.broadcast_to(sink, (modules, 2)))
    start, end = np.concatenate(starts)[:, None], np.concatenate(ends)[:, None]
    t = np.linspace(0, 1, 20)
    progress = np.stack([t, t * t * (3 - 2 * t)], axis=1)
    return start + (end - start) * progress


def edge_shares(geopaths: np.ndarray) -> np.ndarray:
    """Share of the paths that use each connection of the grid.

    A path uses the connections from the input to its modules in the first layer, from
    its every module to its every module in the next layer, and from its modules in
    the last layer to the output.

    Args:
      geopaths: [candi, L, M] 0/1 array.

    Returns:
      [M + (L - 1) * M * M + M] float array in [0, 1], in the order of `edge_curves`.
    """
    paths = np.asarray(geopaths, float)
    between = np.einsum("clm,cln->lmn", paths[:, :-1], paths[:, 1:]) / len(paths)
    use = paths.mean(axis=0)
    return np.concatenate([use[0], between.ravel(), use[-1]])


# --------------------------------------------------------------------------------------
# The parts of paths.png
# --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layout:
    """Where everything goes, in inches from the bottom left.

    Attributes:
      width, height: of the picture.
      centres: [L, M, 2] float array, of the modules.
      radius: of a module.
      source: [2] float array, of the input.
      heads: [tasks, 2] float array, of the tasks' names, where their paths end.
      legend_rows: lines of the legend.
    """

    width: float
    height: float
    centres: np.ndarray
    radius: float
    source: np.ndarray
    heads: np.ndarray
    legend_rows: int


def _lay_out(
    tasks: int,
    layers: int,
    modules: int,
    task_names: Sequence[str],
    legend_entries: Sequence[Line2D],
) -> _Layout:
    """Makes room for the grid, the names on its right and the legend below it."""
    pitch = min(0.44, max(6.6 / modules, 0.2))
    rows = max((modules - 1) * pitch, (tasks - 1) * 0.5)
    first_x, last_x = 1.75, 1.75 + 1.95 * (layers - 1)
    head_x = last_x + 1.35
    width = max(6, head_x + 0.35 + 0.105 * max(len(name) for name in task_names))
    legend_width = sum(0.5 + 0.075 * len(e.get_label()) for e in legend_entries)
    legend_rows = math.ceil(legend_width / (width - 0.3))
    bottom = 0.45 + 0.3 * legend_rows

    middle = bottom + rows / 2
    half = (modules - 1) * pitch / 2
    spread = min(rows, (tasks - 1) * max(0.5, rows / 4)) / 2
    return _Layout(
        width=width,
        height=bottom + rows + 0.95,
        centres=module_centres(
            layers, modules, (first_x, last_x), (middle - half, middle + half)
        ),
        radius=0.37 * pitch,
        source=np.array([0.55, middle]),
        heads=module_centres(
            1, tasks, (head_x, head_x), (middle - spread, middle + spread)
        )[0],
        legend_rows=legend_rows,
    )


def _draw_connections(
    axes: Axes,
    layout: _Layout,
    paths: np.ndarray,
    further: np.ndarray,
    task_names: Sequence[str],
) -> None:
    """Draws each path's connections from the input to the name of its task.

    `further`, [tasks, L, M], are modules that are active with it; theirs are thin.
    """
    tasks = len(paths)
    # Paths that share a connection run side by side instead of hiding one another.
    lane_width = min(0.055, layout.radius / tasks)
    lanes = (np.arange(tasks) - (tasks - 1) / 2) * -lane_width
    for task, (path, head, lane) in enumerate(zip(paths, layout.heads, lanes)):
        shift = np.array([0, lane])
        curves = edge_curves(layout.centres + shift, layout.source + shift, head)
        on_path = edge_shares(path[None]) > 0
        with_frozen = (edge_shares((path | further[task])[None]) > 0) & ~on_path
        for edges, width, alpha in ((with_frozen, 0.5, 0.45), (on_path, 1.4, 0.8)):
            axes.add_collection(
                LineCollection(
                    curves[edges],
                    colors=task_colour(task),
                    linewidths=width,
                    alpha=alpha,
                    zorder=1,
                )
            )
        label_box(axes, head, task_names[task], task_colour(task), ha="left")
    label_box(axes, layout.source, "input", INK, rotation=90)


def _draw_modules(axes: Axes, layout: _Layout, paths: np.ndarray, kinds: Kinds) -> None:
    """Draws all modules in the colours of the tasks that use them."""
    _, layers, modules = paths.shape
    for layer, module in np.ndindex(layers, modules):
        users = np.flatnonzero(paths[:, layer, module])
        _draw_module(
            axes,
            layout.centres[layer, module],
            layout.radius,
            [task_colour(task) for task in users],
            KIND_MARKERS.get(str(kinds[layer][module])) if kinds is not None else None,
        )


def _draw_module(
    axes: Axes,
    centre: np.ndarray,
    radius: float,
    colours: Sequence[str],
    marker: str | Outline | None,
) -> None:
    """A disc in equal sectors of the colours, or a pale one where there are none.

    `radius` is in inches, as is a unit of the axes; `marker` goes on top, if any.
    """
    # The white rim lifts a used module off the lines that end at it.
    rim = Circle(centre, radius * 1.12, color=BACKGROUND, zorder=2)
    blank = Circle(centre, radius, fc=PALE, ec=PALE_EDGE, linewidth=0.8, zorder=2)
    axes.add_patch(rim if colours else blank)
    for place, colour in enumerate(colours):
        start, end = (90 + 360 * (place + i) / len(colours) for i in (0, 1))
        axes.add_patch(Wedge(centre, radius, start, end, facecolor=colour, zorder=3))
    if marker:
        axes.plot(
            *centre,
            marker=marker,
            markersize=radius * 72 * 0.75,
            markeredgewidth=1.1,
            fillstyle="none",
            color=BACKGROUND if colours else MUTED,
            zorder=4,
        )


def _draw_headings(axes: Axes, layout: _Layout) -> None:
    """Writes the picture's title, and each layer's number above it."""
    layers, modules, _ = layout.centres.shape
    top = layout.centres[0, 0, 1] + layout.radius
    for layer in range(layers):
        axes.text(
            layout.centres[layer, 0, 0],
            top + 0.1,
            f"layer {layer + 1}",
            ha="center",
            va="bottom",
            color=MUTED,
            fontsize=9,
        )
    axes.text(
        layout.width / 2,
        layout.height - 0.22,
        f"Best path of each task, {layers} × {modules} modules",
        ha="center",
        va="center",
        color=INK,
        fontsize=12,
        fontweight="bold",
    )


def _legend_entries(
    paths: np.ndarray, task_names: Sequence[str], kinds: Kinds, has_further: bool
) -> list[Line2D]:
    """Entries for the tasks, the overlap, frozen modules and kinds where they are drawn."""

    def entry(label, marker="o", **style):
        style = {"markersize": 10, "markeredgewidth": 0} | style
        return Line2D([], [], linestyle="", marker=marker, label=label, **style)

    entries = [
        entry(f"{name}: {_modules(path.sum())}", color=task_colour(task))
        for task, (name, path) in enumerate(zip(task_names, paths))
    ]
    if len(paths) > 1:
        entries.append(
            entry(
                f"overlap: {_modules(count_overlap(paths))}",
                fillstyle="left",
                color=task_colour(0),
                markerfacecoloralt=task_colour(1),
            )
        )
    if has_further:
        label = "with frozen modules, which stay active"
        colour = task_colour(len(paths) - 1)
        entries.append(Line2D([], [], color=colour, linewidth=0.8, label=label))
    if kinds is not None:
        entries += [
            entry(
                kind,
                marker,
                color=MUTED,
                markeredgewidth=1.1,
                markersize=7,
                fillstyle="none",
            )
            for kind, marker in KIND_MARKERS.items()
            if kind in np.asarray(kinds)
        ]
    return entries


def _modules(count: int) -> str:
    return f"{count} module" if count == 1 else f"{count} modules"

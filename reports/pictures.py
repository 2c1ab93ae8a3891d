"""Pictures of paths: the best of each task, an evolving population; all pictures' style.

Pictures are drawn on matplotlib's Agg canvas directly and never through pyplot, so
importing this module neither picks a backend nor changes any global state. Files are
written atomically: a reader sees the old picture or the new one, never a part of one.
"""

import contextlib
import io
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Wedge
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from PIL import Image

# Okabe and Ito's colour-blind-safe colours; a task's colour is its place in the
# learning order, starting over after the last one.
TASK_COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#7A5195",
)
# Solid white, so that a picture reads the same on a light and on a dark page.
BACKGROUND = "#FFFFFF"
PALE = "#E9EDF2"
PALE_EDGE = "#CBD3DD"
INK = "#27313F"
MUTED = "#6E7B8B"

# What is drawn on a module to tell its kind; the common kind stays bare.
KIND_MARKERS = {"skip": "_", "residual": "+"}

PNG_DPI = 150
GIF_DPI = 100
GIF_SIZE = (720, 400)  # pixels
GIF_FRAMES = 30
GIF_FRAME_MS = 160
GIF_HOLD_MS = 1800
# Besides the exact ones. Far fewer than 256: colours that differ by less than can
# be seen would only swell the file.
GIF_COLOURS = 64
# Share of the population below which a connection is not drawn, for each module in a
# layer: the wider the grid the more of them there are, to blur it and swell the file.
CROWD_SHARE = 0.01

CELL = 8  # pixels a module takes in population_image, its 1-pixel gap included
LAYER_GAP = 6  # pixels between two layers in population_image


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The population of one task at one generation.

    Attributes:
        task: the task's name.
        generation: generations this task has been learned for.
        fitness: the winner's fitness.
        geopaths: [candi, L, M] 0/1 array, every candidate's path.
        best: [L, M] 0/1 array, the winner's path.
        fixed: [L, M] 0/1 array, modules frozen by earlier tasks (zeros for the first).
    """

    task: str
    generation: int
    fitness: float
    geopaths: np.ndarray
    best: np.ndarray
    fixed: np.ndarray


def task_colour(index: int) -> str:
    """Colour, as "#RRGGBB", of the task at `index` in the learning order."""
    return TASK_COLOURS[index % len(TASK_COLOURS)]


def count_overlap(geopaths: Sequence[np.ndarray]) -> int:
    """Number of modules that at least two of the [L, M] paths use."""
    return int((np.asarray(geopaths, bool).sum(axis=0) >= 2).sum())


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


def task_indices(frames: Sequence[Snapshot]) -> list[int]:
    """The place in the learning order of each frame's task, for one frame or more.

    A new task starts where the name changes or the generation falls, so a task that is
    learned twice in a row counts as two.
    """
    indices = [0]
    for before, frame in pairwise(frames):
        new = frame.task != before.task or frame.generation < before.generation
        indices.append(indices[-1] + new)
    return indices


def choose_frames(tasks: Sequence[int], limit: int = GIF_FRAMES) -> list[int]:
    """Chooses which frames to draw, evenly spaced within each task.

    Tasks get equal shares of `limit`; what a short task leaves goes to longer ones. A
    task's last frame is always chosen, its first one too if the task gets two or more.

    Args:
        tasks: each frame's task, as from `task_indices`; ascending.
        limit: most frames to choose; raised to the number of tasks where it is less.

    Returns:
        Ascending positions in `tasks`, without repeats.
    """
    names, starts, counts = np.unique(tasks, return_index=True, return_counts=True)
    left = max(limit, len(names))
    chosen: list[int] = []
    for served, task in enumerate(np.argsort(counts, kind="stable")):
        quota = min(int(counts[task]), left // (len(names) - served))
        left -= quota
        # Counted back from the last frame, which therefore is there even alone.
        back = np.linspace(0, counts[task] - 1, quota).round().astype(int)
        chosen.extend((starts[task] + counts[task] - 1 - back).tolist())
    return sorted(chosen)


def population_image(geopaths: np.ndarray) -> np.ndarray:
    """The population as an image: a row a candidate, a block of columns a layer.

    Each module is a square of `CELL` - 1 pixels in the first task's colour if the
    candidate's path uses it, else pale; white pixels part modules, and wider white
    gaps part layers.

    Args:
        geopaths: [candi, L, M] 0/1 array.

    Returns:
        [candi * CELL - 1, L * (M * CELL - 1) + (L - 1) * LAYER_GAP, 3] uint8 array.
    """
    used = np.asarray(geopaths, bool)
    candidates, layers, modules = used.shape
    colours = np.array([_rgb8(PALE), _rgb8(TASK_COLOURS[0])], np.uint8)
    cells = np.full((candidates, CELL, layers, modules, CELL, 3), 255, np.uint8)
    cells[:, :-1, :, :, :-1] = colours[used.astype(int)][:, None, :, :, None]
    rows = cells.reshape(candidates * CELL, layers, modules * CELL, 3)
    # A block ends with its last cell's 1-pixel gap, which counts towards the layer gap.
    block = modules * CELL - 1 + LAYER_GAP
    image = np.full((candidates * CELL, layers, block, 3), 255, np.uint8)
    image[:, :, : modules * CELL] = rows
    return image.reshape(candidates * CELL, layers * block, 3)[:-1, :-LAYER_GAP]


def draw_paths(
    filename: str | os.PathLike,
    geopaths: Sequence[np.ndarray],
    task_names: Sequence[str],
    kinds: np.ndarray | Sequence[Sequence[str]] | None = None,
) -> None:
    """Draws the best path of each task over the whole grid, as a PNG file.

    A module that several tasks share is filled with all their colours, and the legend
    counts the modules of each path and their overlap.

    Args:
        filename: the picture; an existing file is replaced.
        geopaths: one [L, M] 0/1 array a task, in learning order.
        task_names: one name a task.
        kinds: [L, M] strings or None; "skip" modules are marked with a dash and
            "residual" ones with a plus, any other kind is left bare.

    Raises:
        ValueError: there is no path, or the arguments' shapes do not match.
        OSError: the file cannot be written; an existing one then stays as it was.
    """
    if len(geopaths) == 0 or len(geopaths) != len(task_names):
        raise ValueError(f"{len(geopaths)} paths for {len(task_names)} task names")
    paths = np.asarray(geopaths, bool)
    if paths.ndim != 3:
        raise ValueError(f"paths must be [L, M] arrays, not {paths.shape[1:]}")
    tasks, layers, modules = paths.shape
    if kinds is not None and np.shape(kinds) != (layers, modules):
        raise ValueError(f"kinds are {np.shape(kinds)}, modules {(layers, modules)}")

    # One data unit is one inch, so circles come out round whatever the grid's shape.
    pitch = min(0.44, max(6.6 / modules, 0.2))
    rows = max((modules - 1) * pitch, (tasks - 1) * 0.5)
    first_x, last_x = 1.75, 1.75 + 1.95 * (layers - 1)
    head_x = last_x + 1.35
    width = max(6, head_x + 0.35 + 0.105 * max(len(name) for name in task_names))
    handles = _path_legend(paths, task_names, kinds)
    legend_width = sum(0.5 + 0.075 * len(handle.get_label()) for handle in handles)
    legend_rows = math.ceil(legend_width / (width - 0.3))
    bottom = 0.45 + 0.3 * legend_rows
    height = bottom + rows + 0.95
    figure, axes = _blank_figure(width, height, PNG_DPI)

    middle = bottom + rows / 2
    half = (modules - 1) * pitch / 2
    centres = module_centres(
        layers, modules, (first_x, last_x), (middle - half, middle + half)
    )
    radius = 0.37 * pitch
    source = np.array([0.55, middle])
    spread = min(rows, (tasks - 1) * max(0.5, rows / 4)) / 2
    heads = module_centres(
        1, tasks, (head_x, head_x), (middle - spread, middle + spread)
    )[0]
    # Paths that share a connection run side by side instead of hiding one another.
    lanes = (np.arange(tasks) - (tasks - 1) / 2) * -min(0.055, radius / tasks)
    for task, (path, head, lane) in enumerate(zip(paths, heads, lanes)):
        shift = np.array([0, lane])
        curves = edge_curves(centres + shift, source + shift, head)
        axes.add_collection(
            LineCollection(
                curves[edge_shares(path[None]) > 0],
                colors=task_colour(task),
                linewidths=1.3,
                alpha=0.75,
                zorder=1,
            )
        )
        _label_box(axes, head, task_names[task], task_colour(task), ha="left")
    _label_box(axes, source, "input", INK, rotation=90)

    for layer, module in np.ndindex(layers, modules):
        users = np.flatnonzero(paths[:, layer, module])
        _draw_module(
            axes,
            centres[layer, module],
            radius,
            [task_colour(task) for task in users],
            KIND_MARKERS.get(str(kinds[layer][module])) if kinds is not None else None,
        )
    top = middle + half + radius
    for layer in range(layers):
        axes.text(
            centres[layer, 0, 0],
            top + 0.1,
            f"layer {layer + 1}",
            ha="center",
            va="bottom",
            color=MUTED,
            fontsize=9,
        )
    axes.text(
        width / 2,
        height - 0.22,
        f"Best path of each task, {layers} × {modules} modules",
        ha="center",
        va="center",
        color=INK,
        fontsize=12,
        fontweight="bold",
    )
    figure.legend(
        handles=handles,
        loc="lower center",
        bbox_to_anchor=(0.5, 0.12 / height),
        ncols=math.ceil(len(handles) / legend_rows),
        frameon=False,
        fontsize=9.5,
        labelcolor=INK,
        handletextpad=0.3,
        columnspacing=1.6,
    )
    save_png(filename, figure)


def animate_evolution(
    filename: str | os.PathLike, frames: Sequence[Snapshot], limit: int = GIF_FRAMES
) -> None:
    """Animates how the population moves through the grid, as a GIF that loops forever.

    On the grid, a module's colour is as strong as the share of the population that uses
    it and lines show the candidates' connections likewise, but for the rarest; the
    winner's path is drawn in full strength, and modules fixed by an earlier task wear a
    ring in that task's colour. Beside it, fitness grows over the generations of every task so far, on
    shared axes, each generation's winner faintly and the best so far strongly.

    Args:
        filename: the picture, 720 x 400 pixels; an existing file is replaced.
        frames: the run in order, every task's generations after those of the task
            before. All of them enter the fitness curves.
        limit: most pictures to draw, see `choose_frames`.

    Raises:
        ValueError: there are no frames, or their grids differ in shape.
        OSError: the file cannot be written; an existing one then stays as it was.
    """
    if len(frames) == 0:
        raise ValueError("no frames to animate")
    grids = {
        np.shape(paths)
        for frame in frames
        for paths in (frame.best, frame.fixed, *frame.geopaths)
    }
    if len(grids) != 1 or len(grids.pop()) != 2:
        raise ValueError("every frame must have one and the same [L, M] grid")
    tasks = task_indices(frames)
    chosen = choose_frames(tasks, limit)
    last_of_task = {task: position for position, task in enumerate(tasks)}
    stage = _Stage(frames, tasks)

    # One palette for all: the last frames hold every task's colours.
    samples = [stage.draw(position) for position in last_of_task.values()]
    palette = _palette_image(np.concatenate(samples), len(samples))
    pictures = (
        Image.fromarray(stage.draw(position)).quantize(
            palette=palette, dither=Image.Dither.NONE
        )
        for position in chosen
    )
    holds = set(last_of_task.values())
    buffer = io.BytesIO()
    next(pictures).save(
        buffer,
        "GIF",
        save_all=True,
        append_images=pictures,
        duration=[GIF_HOLD_MS if p in holds else GIF_FRAME_MS for p in chosen],
        loop=0,
    )
    _write_atomically(filename, buffer.getvalue())


def _palette_image(picture: np.ndarray, tasks: int) -> Image.Image:
    """An image whose palette fits the picture and keeps the colours that say something.

    Those are the constant ones and shades of the tasks' colours, which stand for shares.
    """
    # White is most of a picture, and would get a share of the palette to match.
    coloured = picture[(picture != 255).any(axis=-1)]
    image = Image.fromarray(coloured[None]).quantize(GIF_COLOURS)
    fitted = np.array(image.getpalette()).reshape(-1, 3)
    constants = (BACKGROUND, PALE, INK, MUTED, *TASK_COLOURS)
    exact = [np.array([_rgb8(colour) for colour in constants])]
    for colour in TASK_COLOURS[:tasks]:
        shades = shade(np.arange(1, 8) / 8, colour)
        exact.append((shades * 255).round().astype(int))
    exact = np.concatenate(exact)
    # Pillow matches colours coarsely, so one next to an exact one might take its pixels.
    apart = np.abs(fitted[:, None] - exact).max(axis=-1).min(axis=-1) >= 8
    image.putpalette(np.concatenate([exact, fitted[apart]]).ravel().tolist())
    return image


class _Stage:
    """The animation's figure: built once, then only what moves is drawn anew.

    What stands still is drawn once and kept as a background that each frame starts
    from. Coordinates are pixels, from the bottom left.
    """

    def __init__(self, frames: Sequence[Snapshot], tasks: Sequence[int]) -> None:
        self.frames = frames
        self.tasks = tasks
        self.starts = [tasks.index(task) for task in range(tasks[-1] + 1)]
        fixed = np.array([frames[start].fixed for start in self.starts], bool)
        fixed_edges = np.array([edge_shares(mask[None]) > 0 for mask in fixed])
        # What is first fixed during a task was left by the task before.
        self.ring_owners = fixed.argmax(axis=0).ravel() - 1
        self.edge_owners = fixed_edges.argmax(axis=0) - 1
        width, height = GIF_SIZE
        self.figure, self.axes = _blank_figure(
            width / GIF_DPI, height / GIF_DPI, GIF_DPI, scale=GIF_DPI
        )
        self.moving = [*self._build_grid(*np.shape(frames[0].best))]
        self.moving += self._build_fitness()
        self._build_key()
        for artist in self.moving:
            artist.set_animated(True)
        self.canvas = FigureCanvasAgg(self.figure)
        self.canvas.draw()
        self.background = self.canvas.copy_from_bbox(self.figure.bbox)

    def draw(self, position: int) -> np.ndarray:
        """Draws one frame; returns it as a new [height, width, 3] uint8 array."""
        self._move_grid(self.frames[position], self.tasks[position])
        self._move_fitness(position)
        self.canvas.restore_region(self.background)
        for artist in self.moving:
            self.figure.draw_artist(artist)
        return np.array(self.canvas.buffer_rgba())[..., :3]

    def _build_grid(self, layers: int, modules: int) -> list[Artist]:
        centres = module_centres(layers, modules, (92, 346), (70, 314))
        pitch = min(244 / max(modules - 1, 1), 254 / max(layers - 1, 1))
        radius = min(0.35 * pitch, 10)
        source, sink = (42, 192), (408, 192)
        spots = centres.reshape(-1, 2)
        self.curves = edge_curves(centres, source, sink)
        self.fixed_lines, self.crowd_lines, self.best_lines = (
            self.axes.add_collection(LineCollection([], linewidths=width))
            for width in (1.2, 0.9, 1.6)
        )
        self.rings = self._discs(
            spots, radius + min(0.15 * pitch, 3), facecolors="none", linewidths=1.8
        )
        self.discs = self._discs(spots, radius)
        for layer, x in enumerate(centres[:, 0, 0]):
            self._text(x, 338, f"layer {layer + 1}", ha="center")
        _label_box(self.axes, (28, 192), "input", INK, rotation=90)
        self.head = _label_box(self.axes, sink, "", INK, rotation=90)
        self.title = self._text(16, 376, "", color=INK, fontsize=12, weight="bold")
        lines = [self.fixed_lines, self.crowd_lines, self.best_lines]
        return [*lines, self.rings, self.discs, self.head, self.title]

    def _build_fitness(self) -> list[Artist]:
        """Axes that hold the whole run from the start, so that they never move."""
        generations = np.array([frame.generation for frame in self.frames])
        fitness = np.array([frame.fitness for frame in self.frames], float)
        left, bottom, width, height = 494, 70, 206, 244
        across, up = GIF_SIZE
        axes = self.figure.add_axes(
            (left / across, bottom / up, width / across, height / up)
        )
        finite = fitness[np.isfinite(fitness)]
        low, high = (finite.min(), finite.max()) if len(finite) else (0, 1)
        margin = 0.06 * (high - low) or 0.5
        # The lowest part is left to the labels, a line a task.
        room = min(0.04 + 0.08 * len(self.starts), 0.5)
        floor = low - margin - (high - low + 2 * margin) * room / (1 - room)
        axes.set_xlim(0, max(1.04 * generations.max(), 1))
        axes.set_ylim(floor, high + margin)
        axes.set_xlabel("generation", color=INK, fontsize=9)
        axes.set_title(
            "winner's fitness (bold: best so far)", color=INK, fontsize=8.5, loc="left"
        )
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        quiet(axes)
        self.series, self.tracks = [], []
        for task, start in enumerate(self.starts):
            mine = slice(start, start + self.tasks.count(task))
            best = np.fmax.accumulate(fitness[mine])
            self.series.append((generations[mine], fitness[mine], best))
            colour = task_colour(task)
            (faint,) = axes.plot([], [], color=colour, alpha=0.35, linewidth=0.8)
            (strong,) = axes.plot([], [], color=colour, linewidth=1.8)
            (dot,) = axes.plot([], [], "o", color=colour, markersize=5)
            label = axes.text(
                0.98,
                0.04 + 0.08 * (len(self.starts) - 1 - task),
                "",
                transform=axes.transAxes,
                ha="right",
                color=colour,
                fontsize=9,
                weight="bold",
            )
            self.tracks.append((faint, strong, dot, label))
        return [artist for track in self.tracks for artist in track]

    def _build_key(self) -> None:
        """Explains the grid's signs, in grey where the grid has a task's colour."""
        y = 24
        for x, share in ((20, 0.0), (34, 0.35), (48, 0.7), (62, 1.0)):
            self._discs([(x, y)], 5, facecolors=shade(np.array([share]), MUTED))
        self._text(74, y, "share of population")
        self.axes.plot([200, 222], [y, y], color=MUTED, linewidth=1.6)
        self._discs([(211, y)], 5, facecolors=MUTED, edgecolors=INK, linewidths=1.5)
        self._text(230, y, "winner's path")
        self._discs([(330, y)], 6, facecolors="none", edgecolors=MUTED, linewidths=1.8)
        self._text(342, y, "fixed path")

    def _move_grid(self, frame: Snapshot, task: int) -> None:
        colour = task_colour(task)
        fixed = np.asarray(frame.fixed, bool)
        best = np.asarray(frame.best, bool)
        least = min(CROWD_SHARE * best.shape[1], 1)
        for lines, paths, owners, strength in (
            (self.fixed_lines, fixed[None], self.edge_owners, 0.5),
            (self.crowd_lines, frame.geopaths, task, 0.6),
            (self.best_lines, best[None], task, 0.9),
        ):
            shares = edge_shares(paths)
            drawn = shares >= least
            lines.set_segments(self.curves[drawn])
            lines.set_color(_task_rgba(owners, strength * shares)[drawn])
        self.rings.set_edgecolors(_task_rgba(self.ring_owners, fixed.ravel()))
        shares = np.mean(np.asarray(frame.geopaths, float), axis=0).ravel()
        self.discs.set_facecolors(shade(shares, colour))
        wins = best.ravel()
        self.discs.set_edgecolors(np.where(wins, INK, PALE_EDGE))
        self.discs.set_linewidths(np.where(wins, 1.5, 0.6))
        self.head.set_text(frame.task)
        self.head.get_bbox_patch().set_color(colour)
        self.title.set_text(
            f"Task {task + 1}: {frame.task},  generation {frame.generation}"
        )

    def _move_fitness(self, position: int) -> None:
        current = self.tasks[position]
        for task, (series, track) in enumerate(zip(self.series, self.tracks)):
            seen = max(position - self.starts[task] + 1, 0)
            generations, fitness, best = (values[:seen] for values in series)
            faint, strong, dot, label = track
            faint.set_data(generations, fitness)
            strong.set_data(generations, best)
            dot.set_data(generations[-1:], best[-1:])
            label.set_visible(task <= current)
            if seen:
                name = self.frames[self.starts[task]].task
                label.set_text(f"{name}:  generation {generations[-1]}")

    def _discs(self, spots, radius: float, **style) -> PathCollection:
        # Scatter takes areas, in square points.
        return self.axes.scatter(
            *np.transpose(spots), s=(2 * radius * 72 / GIF_DPI) ** 2, **style
        )

    def _text(self, x: float, y: float, text: str, **style) -> Text:
        style = {"color": MUTED, "fontsize": 8.5, "va": "center_baseline"} | style
        return self.axes.text(x, y, text, **style)


def _blank_figure(
    width: float, height: float, dpi: int, scale: float = 1
) -> tuple[Figure, Axes]:
    """A white figure, sizes in inches, under bare axes with `scale` units an inch."""
    figure = Figure(figsize=(width, height), dpi=dpi, facecolor=BACKGROUND)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width * scale), ylim=(0, height * scale))
    axes.set_axis_off()
    return figure, axes


def _label_box(
    axes: Axes, at: Sequence[float], text: str, colour: str, **style
) -> Text:
    """White text on a rounded box, centred unless `style` says otherwise."""
    style = {"ha": "center", "va": "center", "fontsize": 9.5} | style
    box = {"boxstyle": "round,pad=0.45", "color": colour}
    return axes.text(*at, text, color=BACKGROUND, weight="bold", bbox=box, **style)


def _draw_module(
    axes: Axes,
    centre: np.ndarray,
    radius: float,
    colours: Sequence[str],
    marker: str | None,
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
            color=BACKGROUND if colours else MUTED,
            zorder=4,
        )


def _path_legend(
    paths: np.ndarray, task_names: Sequence[str], kinds: object | None
) -> list[Line2D]:
    """Legend entries of `draw_paths`: tasks, overlap, and kinds where they are drawn."""

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
    if kinds is not None:
        entries += [
            entry(kind, marker, color=MUTED, markeredgewidth=1.1, markersize=7)
            for kind, marker in KIND_MARKERS.items()
            if kind in np.asarray(kinds)
        ]
    return entries


def _modules(count: int) -> str:
    return f"{count} module" if count == 1 else f"{count} modules"


def quiet(axes: Axes) -> None:
    """Keeps two thin spines and small grey tick labels, for the data to stand out."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(PALE_EDGE)
    axes.tick_params(colors=MUTED, labelsize=8, color=PALE_EDGE)


def _rgb8(colour: str) -> list[int]:
    """The three bytes of "#RRGGBB"."""
    return list(bytes.fromhex(colour[1:]))


def _task_rgba(tasks: int | np.ndarray, alphas: np.ndarray) -> np.ndarray:
    """Colours of tasks as a [n, 4] float array, for [n] alphas in [0, 1]."""
    palette = np.array([to_rgb(colour) for colour in TASK_COLOURS])
    rgb = palette[np.broadcast_to(tasks, len(alphas)) % len(palette)]
    return np.column_stack([rgb, alphas])


def shade(shares: np.ndarray, colour: str) -> np.ndarray:
    """Opaque [n, 3] float colours, from pale at share 0 to `colour` at share 1."""
    pale = np.array(to_rgb(PALE))
    return pale + shares[:, None] * (np.array(to_rgb(colour)) - pale)


def save_png(filename: str | os.PathLike, figure: Figure) -> None:
    """Writes the figure to a PNG file: the whole of it, or nothing and OSError."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=PNG_DPI)
    _write_atomically(filename, buffer.getvalue())


def _write_atomically(filename: str | os.PathLike, data: bytes) -> None:
    """Puts the whole of `data` in the file, or raises OSError and changes nothing."""
    target = Path(filename)
    # In the same folder, as a rename is atomic only within one file system.
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, target)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from error
    finally:
        # What keeps it from being written may keep it from being removed, too.
        with contextlib.suppress(OSError):
            temporary.unlink()

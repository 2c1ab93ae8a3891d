"""The animation of an evolving population (evolution.gif)."""

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from PIL import Image

from common import disk
from reports.colours import (
    BACKGROUND,
    INK,
    MUTED,
    PALE,
    PALE_EDGE,
    TASK_COLOURS,
    rgb_bytes,
    task_colour,
)
from reports.paths import edge_curves, edge_shares, module_centres
from reports.population import Snapshot
from reports.style import blank_figure, despine, label_box, shade

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

Curve = Mapping[str, Sequence[float]]


def animate_evolution(
    filename: str | os.PathLike,
    frames: Sequence[Snapshot],
    scratch: Sequence[Curve] = (),
    limit: int = GIF_FRAMES,
) -> None:
    """Animates how the population moves through the grid, as a GIF that loops forever.

    On the grid, a module's colour is as strong as the share of the population that uses
    it and lines show the candidates' connections likewise, but for the rarest; the
    winner's path is drawn in full strength, and modules fixed by an earlier task wear a
    ring in that task's colour. To the right of it, fitness grows over the generations
    of every task so far, on shared axes, each generation's winner faintly and the best
    so far strongly. A dashed line is the best so far of a later task from scratch.

    Args:
      filename: the picture, 720 x 400 pixels; an existing file is replaced.
      frames: the run in order, every task's generations after those of the task
        before. All of them enter the fitness curves.
      scratch: the curve of each task from scratch, {"generation": [...], "fitness":
        [...]}; none if it was not learned so.
      limit: most pictures to draw, see `choose_frames`.

    Raises:
      ValueError: there are no frames, or their grids differ in shape.
      OSError: the file cannot be written; an existing one then stays as it was.
    """
    _check_grids(frames)
    tasks = task_indices(frames)
    chosen = choose_frames(tasks, limit)
    last_of_task = {task: position for position, task in enumerate(tasks)}
    stage = _Stage(frames, tasks, scratch)

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
    disk.write_atomically(filename, buffer.getvalue())


def _check_grids(frames: Sequence[Snapshot]) -> None:
    """Raises ValueError unless there are frames, all of one grid."""
    if len(frames) == 0:
        raise ValueError("no frames to animate")
    grids = {
        np.shape(paths)
        for frame in frames
        for paths in (frame.best, frame.fixed, *frame.geopaths)
    }
    if len(grids) != 1 or len(grids.pop()) != 2:
        raise ValueError("every frame must have one and the same [L, M] grid")


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


def _palette_image(picture: np.ndarray, tasks: int) -> Image.Image:
    """An image whose palette fits the picture and keeps the colours that say something.

    Those are the constant ones and shades of the tasks' colours, which stand for shares.
    """
    # White is most of a picture, and would get a share of the palette to match.
    coloured = picture[(picture != 255).any(axis=-1)]
    image = Image.fromarray(coloured[None]).quantize(GIF_COLOURS)
    fitted = np.array(image.getpalette()).reshape(-1, 3)
    constants = (BACKGROUND, PALE, INK, MUTED, *TASK_COLOURS)
    exact = [np.array([rgb_bytes(colour) for colour in constants])]
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

    def __init__(
        self,
        frames: Sequence[Snapshot],
        tasks: Sequence[int],
        scratch: Sequence[Curve],
    ) -> None:
        width, height = GIF_SIZE
        self._figure, axes = blank_figure(
            width / GIF_DPI, height / GIF_DPI, GIF_DPI, scale=GIF_DPI
        )
        starts = [tasks.index(task) for task in range(tasks[-1] + 1)]
        self._grid = _Grid(axes, frames, tasks, starts)
        self._fitness = _Fitness(self._figure, frames, tasks, starts, scratch)
        _draw_key(axes)
        self._moving = [*self._grid.moving, *self._fitness.moving]
        for artist in self._moving:
            artist.set_animated(True)
        self._canvas = FigureCanvasAgg(self._figure)
        self._canvas.draw()
        self._background = self._canvas.copy_from_bbox(self._figure.bbox)

    def draw(self, position: int) -> np.ndarray:
        """Draws one frame; returns it as a new [height, width, 3] uint8 array."""
        self._grid.show(position)
        self._fitness.show(position)
        self._canvas.restore_region(self._background)
        for artist in self._moving:
            self._figure.draw_artist(artist)
        return np.array(self._canvas.buffer_rgba())[..., :3]


class _Grid:
    """The grid with the population on it, on the left of the stage.

    Attributes:
      moving: what differs between frames, in the order in which it is drawn.
    """

    def __init__(
        self,
        axes: Axes,
        frames: Sequence[Snapshot],
        tasks: Sequence[int],
        starts: Sequence[int],
    ) -> None:
        """Draws what stands still.

        Args:
          axes: of the whole stage.
          frames, tasks: of the run, and each frame's task.
          starts: position of each task's first frame.
        """
        self._frames = frames
        self._tasks = tasks
        fixed = np.array([frames[start].fixed for start in starts], bool)
        fixed_edges = np.array([edge_shares(mask[None]) > 0 for mask in fixed])
        # What is first fixed during a task was left by the task before.
        self._ring_owners = fixed.argmax(axis=0).ravel() - 1
        self._edge_owners = fixed_edges.argmax(axis=0) - 1

        layers, modules = fixed.shape[1:]
        centres = module_centres(layers, modules, (92, 346), (70, 314))
        pitch = min(244 / max(modules - 1, 1), 254 / max(layers - 1, 1))
        radius = min(0.35 * pitch, 10)
        source, sink = (42, 192), (408, 192)
        spots = centres.reshape(-1, 2)
        self._curves = edge_curves(centres, source, sink)
        lines = [
            axes.add_collection(LineCollection([], linewidths=width))
            for width in (1.2, 0.9, 1.6)
        ]
        self._fixed_lines, self._crowd_lines, self._best_lines = lines
        self._rings = _discs(
            axes,
            spots,
            radius + min(0.15 * pitch, 3),
            facecolors="none",
            linewidths=1.8,
        )
        self._discs = _discs(axes, spots, radius)
        for layer, x in enumerate(centres[:, 0, 0]):
            _text(axes, x, 338, f"layer {layer + 1}", ha="center")
        label_box(axes, (28, 192), "input", INK, rotation=90)
        self._head = label_box(axes, sink, "", INK, rotation=90)
        self._title = _text(axes, 16, 376, "", color=INK, fontsize=12, weight="bold")
        self.moving: list[Artist] = [
            *lines,
            self._rings,
            self._discs,
            self._head,
            self._title,
        ]

    def show(self, position: int) -> None:
        """Makes it that of the frame at `position`."""
        frame, task = self._frames[position], self._tasks[position]
        colour = task_colour(task)
        fixed = np.asarray(frame.fixed, bool)
        best = np.asarray(frame.best, bool)
        least = min(CROWD_SHARE * best.shape[1], 1)
        for lines, paths, owners, strength in (
            (self._fixed_lines, fixed[None], self._edge_owners, 0.5),
            (self._crowd_lines, frame.geopaths, task, 0.6),
            (self._best_lines, best[None], task, 0.9),
        ):
            shares = edge_shares(paths)
            drawn = shares >= least
            lines.set_segments(self._curves[drawn])
            lines.set_color(_task_rgba(owners, strength * shares)[drawn])
        self._rings.set_edgecolors(_task_rgba(self._ring_owners, fixed.ravel()))
        shares = np.mean(np.asarray(frame.geopaths, float), axis=0).ravel()
        self._discs.set_facecolors(shade(shares, colour))
        wins = best.ravel()
        self._discs.set_edgecolors(np.where(wins, INK, PALE_EDGE))
        self._discs.set_linewidths(np.where(wins, 1.5, 0.6))
        self._head.set_text(frame.task)
        self._head.get_bbox_patch().set_color(colour)
        self._title.set_text(
            f"Task {task + 1}: {frame.task},  generation {frame.generation}"
        )


@dataclass(frozen=True)
class _Track:
    """The fitness of one task, and the artists that show it up to a frame.

    Attributes:
      name: the task's.
      start: position of its first frame.
      generations, fitness, best: [n] arrays; `best` is the best fitness so far.
      artists: the line of `fitness`, the line of `best`, the dot at its end, the label.
      scratch: the line of the best fitness so far from scratch; None if there is none.
    """

    name: str
    start: int
    generations: np.ndarray
    fitness: np.ndarray
    best: np.ndarray
    artists: tuple[Artist, Artist, Artist, Artist]
    scratch: Artist | None


class _Fitness:
    """The winners' fitness over generations, on the right of the stage.

    Attributes:
      moving: what differs between frames, in the order in which it is drawn.
    """

    def __init__(
        self,
        figure: Figure,
        frames: Sequence[Snapshot],
        tasks: Sequence[int],
        starts: Sequence[int],
        scratch: Sequence[Curve],
    ) -> None:
        """Draws what stands still; arguments as those of `_Grid` and `animate_evolution`."""
        generations = np.array([frame.generation for frame in frames])
        fitness = np.array([frame.fitness for frame in frames], float)
        compared = [None, *scratch[1:]] + [None] * len(starts)
        last = [curve["generation"][-1] for curve in compared if curve]
        axes = _fitness_axes(figure, [*generations, *last], fitness, len(starts))
        signs = "bold: best so far" + (",\ndashed: from scratch" if last else "")
        title = f"winner's fitness ({signs})"
        axes.set_title(title, color=INK, fontsize=8.5, loc="left")
        self._tracks = []
        for task, start in enumerate(starts):
            of_task = slice(start, start + tasks.count(task))
            track = _Track(
                name=frames[start].task,
                start=start,
                generations=generations[of_task],
                fitness=fitness[of_task],
                best=np.fmax.accumulate(fitness[of_task]),
                artists=_track_artists(axes, task, len(starts)),
                scratch=_scratch_line(axes, task, compared[task]),
            )
            self._tracks.append(track)
        self.moving: list[Artist] = [
            artist
            for track in self._tracks
            for artist in (track.scratch, *track.artists)
            if artist
        ]

    def show(self, position: int) -> None:
        """Makes it that of the frame at `position`."""
        for track in self._tracks:
            seen = max(position - track.start + 1, 0)
            generations, best = track.generations[:seen], track.best[:seen]
            faint, strong, dot, label = track.artists
            faint.set_data(generations, track.fitness[:seen])
            strong.set_data(generations, best)
            dot.set_data(generations[-1:], best[-1:])
            label.set_visible(seen > 0)
            if track.scratch:
                track.scratch.set_visible(seen > 0)
            if seen:
                label.set_text(f"{track.name}:  generation {generations[-1]}")


def _fitness_axes(
    figure: Figure, generations: Sequence[int], fitness: np.ndarray, tasks: int
) -> Axes:
    """Axes that hold the whole run from the start, so that they never move."""
    left, bottom, width, height = 494, 70, 206, 244
    across, up = GIF_SIZE
    axes = figure.add_axes((left / across, bottom / up, width / across, height / up))
    finite = fitness[np.isfinite(fitness)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0, 1)
    margin = 0.06 * (high - low) or 0.5
    # The lowest part is left to the labels, a line a task.
    room = min(0.04 + 0.08 * tasks, 0.5)
    floor = low - margin - (high - low + 2 * margin) * room / (1 - room)
    axes.set_xlim(0, max(1.04 * max(generations), 1))
    axes.set_ylim(floor, high + margin)
    axes.set_xlabel("generation", color=INK, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    despine(axes)
    return axes


def _track_artists(
    axes: Axes, task: int, tasks: int
) -> tuple[Artist, Artist, Artist, Artist]:
    """A faint line, a strong line, a dot and a label in the task's colour, all empty."""
    colour = task_colour(task)
    (faint,) = axes.plot([], [], color=colour, alpha=0.35, linewidth=0.8)
    (strong,) = axes.plot([], [], color=colour, linewidth=1.8)
    (dot,) = axes.plot([], [], "o", color=colour, markersize=5)
    label = axes.text(
        0.98,
        0.04 + 0.08 * (tasks - 1 - task),
        "",
        transform=axes.transAxes,
        ha="right",
        color=colour,
        fontsize=9,
        weight="bold",
    )
    return faint, strong, dot, label


def _scratch_line(axes: Axes, task: int, curve: Curve | None) -> Artist | None:
    """A dashed line of the best fitness so far, which ends where the task was learned."""
    if curve is None:
        return None
    best = np.fmax.accumulate(np.array(curve["fitness"], float))
    style = {"color": task_colour(task), "linewidth": 1.2, "dashes": (3, 2)}
    (line,) = axes.plot(curve["generation"], best, **style)
    return line


def _draw_key(axes: Axes) -> None:
    """Explains the grid's signs, in grey where the grid has a task's colour."""
    y = 24
    for x, share in ((20, 0.0), (34, 0.35), (48, 0.7), (62, 1.0)):
        _discs(axes, [(x, y)], 5, facecolors=shade(np.array([share]), MUTED))
    _text(axes, 74, y, "share of population")
    axes.plot([200, 222], [y, y], color=MUTED, linewidth=1.6)
    _discs(axes, [(211, y)], 5, facecolors=MUTED, edgecolors=INK, linewidths=1.5)
    _text(axes, 230, y, "winner's path")
    _discs(axes, [(330, y)], 6, facecolors="none", edgecolors=MUTED, linewidths=1.8)
    _text(axes, 342, y, "fixed path")


def _discs(axes: Axes, spots: np.ndarray, radius: float, **style) -> PathCollection:
    """Discs around [n, 2] spots, with a radius in pixels."""
    # Scatter takes areas, in square points.
    return axes.scatter(
        *np.transpose(spots), s=(2 * radius * 72 / GIF_DPI) ** 2, **style
    )


def _text(axes: Axes, x: float, y: float, text: str, **style) -> Text:
    style = {"color": MUTED, "fontsize": 8.5, "va": "center_baseline"} | style
    return axes.text(x, y, text, **style)


def _task_rgba(tasks: int | np.ndarray, alphas: np.ndarray) -> np.ndarray:
    """Colours of tasks as a [n, 4] float array, for [n] alphas in [0, 1]."""
    palette = np.array([to_rgb(colour) for colour in TASK_COLOURS])
    rgb = palette[np.broadcast_to(tasks, len(alphas)) % len(palette)]
    return np.column_stack([rgb, alphas])

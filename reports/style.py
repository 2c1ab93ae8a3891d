"""The style of all pictures: bare axes and labels, and how files are written.

Pictures are drawn on matplotlib's Agg canvas directly and never through pyplot, so
importing this module neither picks a backend nor changes any global state. Files are
written atomically: a reader sees the old picture or the new one, never a part of one.
"""

import io
import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from common import disk
from reports.colours import BACKGROUND, MUTED, PALE, PALE_EDGE

PNG_DPI = 150


def shade(shares: np.ndarray, colour: str) -> np.ndarray:
    """Opaque [n, 3] float colours, from pale at share 0 to `colour` at share 1."""
    pale = np.array(to_rgb(PALE))
    return pale + shares[:, None] * (np.array(to_rgb(colour)) - pale)


def blank_figure(
    width: float, height: float, dpi: int, scale: float = 1
) -> tuple[Figure, Axes]:
    """A white figure, filled by axes of which nothing is drawn.

    Args:
      width, height: of the figure, in inches.
      dpi: pixels per inch.
      scale: units of the axes per inch.
    """
    figure = Figure(figsize=(width, height), dpi=dpi, facecolor=BACKGROUND)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width * scale), ylim=(0, height * scale))
    axes.set_axis_off()
    return figure, axes


def despine(axes: Axes) -> None:
    """Keeps two thin spines and small grey tick labels, for the data to stand out."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(PALE_EDGE)
    axes.tick_params(colors=MUTED, labelsize=8, color=PALE_EDGE)


def label_box(
    axes: Axes, position: Sequence[float], text: str, colour: str, **properties
) -> Text:
    """White text on a rounded box of that colour, centred unless `properties` differ."""
    properties = {"ha": "center", "va": "center", "fontsize": 9.5} | properties
    box = {"boxstyle": "round,pad=0.45", "color": colour}
    return axes.text(
        *position, text, color=BACKGROUND, weight="bold", bbox=box, **properties
    )


def save_png(filename: str | os.PathLike, figure: Figure) -> None:
    """Writes the figure to a PNG file: the whole of it, or nothing and OSError."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=PNG_DPI)
    disk.write_atomically(filename, buffer.getvalue())

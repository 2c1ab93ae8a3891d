"""The colours of all pictures."""

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


def task_colour(index: int) -> str:
    """Colour, as "#RRGGBB", of the task at `index` in the learning order."""
    return TASK_COLOURS[index % len(TASK_COLOURS)]


def rgb_bytes(colour: str) -> list[int]:
    """The three bytes of "#RRGGBB"."""
    return list(bytes.fromhex(colour[1:]))

"""A user's own images brought to one size and to colour or grey, with Pillow."""

import math
from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from common.require import require
from supervised import formats

# Pillow's names for 8 bits a channel, or a palette of such colours, or one bit a pixel.
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


def converted(picture: Image.Image, size: int | None, grey: bool) -> np.ndarray:
    """The pixels of a picture, turned as its camera says; transparent ones are white.

    Args:
      picture: of any size.
      size: of both sides of what is returned: the picture is cut to a square around its
        middle and scaled; None: as it is.
      grey: whether the picture is made grey, else it is made one in red, green and blue.

    Returns:
      uint8 [height, width, channels], with one channel or three.

    Raises:
      ValueError: the picture has more than 8 bits a channel, as a grey one of 16 bits.
        (Pillow reduces coloured ones to 8 as it opens them.)
      OSError: it is damaged.
    """
    require(
        picture.mode in _MODES, f"is no picture of 8 bits a channel ({picture.mode})"
    )
    picture = ImageOps.exif_transpose(picture)
    if picture.has_transparency_data:
        # Else what nobody sees would be learned: the colours of transparent pixels.
        paper = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(paper, picture.convert("RGBA"))
    picture = picture.convert("L" if grey else "RGB")
    if size is not None and picture.size != (size, size):
        picture = ImageOps.fit(picture, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(picture).reshape(picture.height, picture.width, -1)


def all_converted(
    images: np.ndarray, size: int | None, grey: bool, label: str
) -> np.ndarray:
    """Images of one size, each as `converted` makes it; as they are, if they fit.

    Args:
      images: uint8 [n, height, width, channels]. label: for the progress bar.
      size, grey: as of `converted`; grey images stay grey ones.

    Returns:
      uint8 [n, height, width, 1 or 3]; `images` itself if there is nothing to do.

    Raises:
      ValueError: they would take more memory than a user's own images may.
    """
    n, *shape = images.shape
    has_colour = shape[2] == 3
    if (size is None or shape[:2] == [size, size]) and not (grey and has_colour):
        return images
    channels = 3 if has_colour and not grey else 1
    sides = shape[:2] if size is None else [size, size]
    formats.check_size(n * math.prod(sides) * channels)
    result = np.empty([n, *sides, channels], np.uint8)
    for number, image in enumerate(with_bar(images, n, label)):
        picture = Image.fromarray(image if has_colour else image[..., 0])
        result[number] = converted(picture, size, channels == 1)
    return result


def with_bar(items: Iterable, total: int, label: str) -> Iterable:
    """The same, with a progress bar if stderr is a terminal."""
    return tqdm(items, total=total, desc=label, unit="img", leave=False, disable=None)

"""Pictures in a folder for each class: train/CLASS/*.png, test/CLASS/*.jpg, and so on."""

import math
import sys
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from common.commandline import printable
from common.require import require
from supervised import formats, pixels
from supervised.image_names import MOST_CLASSES

PARTS = ("train", "test")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm")
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM")  # no others are opened
_MOST_PIXELS = 2**26  # of one picture
_SHOWN_CLASSES = 20  # in the line that numbers them

_REMEDY = "mend it or take it away"


def is_one(folder: Path) -> bool:
    """Whether a folder has pictures of classes."""
    return any((folder / part).is_dir() for part in PARTS)


def read(folder: Path, size: int | None, grey: bool) -> tuple:
    """Reads all pictures of a folder.

    Labels are the places of the classes' names in alphabetical order, from 0 on, or in
    that of numbers if all names are numbers; a line on stderr says which is which. Of
    several frames the first counts. Other files, and hidden ones, are left out.

    Args:
      folder: with PARTS, each with a folder for each class.
      size, grey: what pictures are brought to, as of `pixels.converted`.

    Returns:
      (images, labels) of the training part and of the test part: uint8
      [n, height, width, channels] and uint8 [n].

    Raises:
      DataError: there are no two classes with pictures of both parts, a picture is
        damaged, or they are not of one size, or too many for the memory.
    """
    with formats.errors_about(folder, "put train/CLASS/ and test/CLASS/ there"):
        classes = {part: _classes(folder / part) for part in PARTS}
    names = [path.name for path in classes["train"]]
    with formats.errors_about(folder, "make both parts alike"):
        others = sorted(set(names) ^ {path.name for path in classes["test"]})
        require(not others, f"only one of train and test has the class {others[:1]}")
    with formats.errors_about(folder, "put a folder for each class there"):
        require(2 <= len(names) <= MOST_CLASSES,
                f"has {len(names)} classes, not 2 to {MOST_CLASSES}")  # fmt: skip
    _say_classes(folder, names)
    files = {part: _pictures(classes[part]) for part in PARTS}
    shape = _converted(files["train"][0][0], size, grey).shape
    with formats.errors_about(folder, "add a smaller --size, or take some away"):
        formats.check_size(sum(map(len, files.values())) * math.prod(shape))
    return tuple(_read_part(files[part], shape, size, grey) for part in PARTS)


def _classes(folder):
    """The folders of the classes of one part, by name."""
    require(folder.is_dir(), f"has no folder {folder.name}/")
    found = [p for p in folder.iterdir() if p.is_dir() and p.name[0] != "."]
    are_numbers = all(path.name.isdecimal() for path in found)
    return sorted(found, key=lambda p: (int(p.name) if are_numbers else 0, p.name))


def _say_classes(folder, names):
    """Says which number each class has."""
    shown = [f"{n} is {name}" for n, name in enumerate(names[:_SHOWN_CLASSES])]
    more = " ..." if len(names) > _SHOWN_CLASSES else ""
    print(printable(f"{folder.name}: class {', '.join(shown)}{more}"), file=sys.stderr)


def _pictures(classes):
    """The (file, label) of all pictures of one part."""
    files, left_out = [], []
    for label, folder in enumerate(classes):
        with formats.errors_about(folder, "put pictures there, or take it away"):
            paths = sorted(p for p in folder.iterdir() if p.name[0] != ".")
            pictures = [
                path
                for path in paths
                if path.suffix.lower() in SUFFIXES and path.is_file()
            ]
            require(len(pictures) > 0, f"no pictures in there ({', '.join(SUFFIXES)})")
        files += [(path, label) for path in pictures]
        left_out += sorted(set(paths) - set(pictures))
    if left_out:
        note = (
            f"note: {classes[0].parent}: {len(left_out)} left out that are no pictures, "
            f"such as {left_out[0].name}"
        )
        print(printable(note), file=sys.stderr)
    return files


def _read_part(files, shape, size, grey):
    """Images and labels of one part."""
    images = np.empty([len(files), *shape], np.uint8)
    for number, (path, _) in enumerate(pixels.with_bar(files, len(files), "pictures")):
        image = _converted(path, size, grey)
        with formats.errors_about(path, "add --size, which brings all to one size"):
            require(
                image.shape == shape,
                f"is of {image.shape[1]} x {image.shape[0]} pixels, and the first "
                f"picture of {shape[1]} x {shape[0]}",
            )
        images[number] = image
    return images, np.array([label for _, label in files], np.uint8)


def _converted(path, size, grey):
    """The pixels of one picture file."""
    with (
        formats.errors_about(path, _REMEDY),
        warnings.catch_warnings(action="ignore"),
        _opened(path) as picture,
    ):
        is_small = picture.width * picture.height <= _MOST_PIXELS
        require(is_small, f"has more than {_MOST_PIXELS:,} pixels")
        require(
            size is not None or max(picture.size) <= formats.MOST_SIDE,
            f"has a side of more than {formats.MOST_SIDE} pixels: add --size",
        )
        return pixels.converted(picture, size, grey)


def _opened(path):
    """The picture of a file; raises ValueError if it is none."""
    try:
        return Image.open(path, formats=_FORMATS)
    except UnidentifiedImageError as error:
        raise ValueError("is no picture of a known format") from error

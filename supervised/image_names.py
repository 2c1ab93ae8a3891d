"""Names of tasks of images_pathnet.py: what is learned from, which classes, which pixels.

mnist            a data set that is built in
mnist:0-4        its classes 0 to 4; mnist:1+3+5-7 has 1, 3, 5, 6 and 7
mnist~1          its pixels in another order, drawn from seed 1
photos/:0-4~1    of a folder or file, both
"""

import dataclasses
import os
import re

BUILT_IN = ("mnist", "cifar10", "svhn")
MOST_CLASSES = 256  # labels are bytes

_RANGE = r"[0-9]{1,3}(?:-[0-9]{1,3})?"
_NAME = re.compile(
    rf"(?P<source>.+?)(?::(?P<classes>{_RANGE}(?:\+{_RANGE})*))?(?:~(?P<seed>[0-9]{{1,9}}))?",
    re.ASCII | re.DOTALL,
)


@dataclasses.dataclass(frozen=True)
class ImageName:
    """What the name of a task says.

    Attributes:
      source: one of BUILT_IN, or the path of a file or folder.
      classes: labels of its classes, the first one of which gets label 0; None: all.
      seed: of the order of pixels; None: as they are.
    """

    source: str
    classes: tuple[int, ...] | None
    seed: int | None


def parse(name: str) -> ImageName:
    """What a task's name says.

    Raises:
      ValueError: a class is named twice, or less than two are, or none that there can be.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise ValueError("is empty")
    classes = None
    if found["classes"] is not None:
        classes = tuple(
            label for part in found["classes"].split("+") for label in _labels(part)
        )
        if len(classes) < 2 or len(set(classes)) < len(classes):
            raise ValueError("needs two different classes or more, each named once")
    seed = None if found["seed"] is None else int(found["seed"])
    return ImageName(found["source"], classes, seed)


def is_name(name: str) -> bool:
    """Whether this can be the name of a task."""
    try:
        parse(name)
    except ValueError:
        return False
    return True


def absolute(name: str) -> str:
    """The same task as a process names it that stands in another folder."""
    source = parse(name).source
    if source in BUILT_IN:
        return name
    path = os.path.abspath(os.path.expanduser(source))
    return path + name[len(source) :]


def label(name: str) -> str:
    """A name for people: that of the file or folder, without those that it lies in."""
    source = parse(name).source
    return os.path.basename(source.rstrip("/")) + name[len(source) :]


def _labels(part):
    """The labels of one part, such as 3 or 5-7."""
    first, _, last = part.partition("-")
    last = last or first
    if int(last) < int(first) or int(last) >= MOST_CLASSES:
        raise ValueError(f"has no classes {part}: they are 0 to {MOST_CLASSES - 1}")
    return range(int(first), int(last) + 1)

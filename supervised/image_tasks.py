"""The tasks of images_pathnet.py: their images from wherever the user has them."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common import folders
from common.commandline import UserError
from common.require import require
from supervised import class_folders, datasets, formats, image_names, pixels
from supervised.datasets import Dataset, Split
from supervised.settings import Settings, of_task
from supervised.streams import FAKE_DATA, PERMUTATION, TRAIN_IMAGES, random_stream
from supervised.tournaments import Task

_LOADERS = {
    "mnist": (datasets.load_mnist, (28, 28, 1)),
    "cifar10": (datasets.load_cifar10, (32, 32, 3)),
    "svhn": (datasets.load_svhn, (32, 32, 3)),
}
_FAKE_SHAPE = (28, 28, 1)
_IDX_FILES = tuple(datasets.MNIST_FILES)


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set, with images as bytes, one row each.

    Attributes:
      dataset: its images. shape: (height, width, channels) of each.
    """

    dataset: Dataset
    shape: tuple[int, int, int]


class ImageTasks:
    """All that a run learns from. A source that several tasks name is loaded once.

    Attributes:
      inputs: values of an image. classes: number of them, for each task.
      data: what `datasets.describe` says of each source, by its name.
    """

    def __init__(self, settings: Settings):
        """Loads the sources.

        Raises:
          UserError: one cannot be read or is damaged, has not the classes that a task
            names, or their images are not alike in size and colour.
        """
        self._settings = settings
        _check_what_is_meant(settings.tasks)
        self._names = [image_names.parse(name) for name in settings.tasks]
        learned = len(settings.network.tasks)
        self._learned = {name.source for name in self._names[:learned]}
        names = dict.fromkeys(name.source for name in self._names)
        self._sources = {
            name: self._load(name, number) for number, name in enumerate(names)
        }
        self._check_alike()
        self._labels = [self._labels_of(name) for name in self._names]
        self.inputs = int(np.prod(next(iter(self._sources.values())).shape))
        self.classes = [len(labels) for labels in self._labels]
        self.data = {
            name: datasets.describe(one.dataset) for name, one in self._sources.items()
        }

    def task(self, number: int, seed: int) -> Task:
        """Task `number`, from 0 on, as the repeat of a seed learns it."""
        name, settings = self._names[number], self._settings
        dataset = self._sources[name.source].dataset
        train, test = (
            _of_classes(split, self._labels[number])
            for split in (dataset.train, dataset.test)
        )
        count = of_task(settings.train_images, number)
        train = datasets.few(train, count, random_stream(seed, TRAIN_IMAGES, number))
        if name.seed is not None:
            shape = self._sources[name.source].shape
            train, test = (
                _permuted(split, shape, name.seed) for split in (train, test)
            )
        label = folders.last_part(settings.tasks[number])
        return Task(settings.tasks[number], label, train, test)

    def _load(self, name, number):
        """A source, the one of a number, in the size and colour that the flags ask for."""
        settings = self._settings
        size, grey = settings.size, settings.grey
        if settings.fake_data:
            parts = _generated(number)
        elif name in _LOADERS:
            parts = _built_in(name, settings.data_dirs[name])
        else:
            is_learned = name in self._learned
            remedy = "put back what was learned from" if is_learned else formats.OWN
            parts = _read(Path(name), size, grey, remedy)
        label = folders.last_part(name)
        with formats.errors_about(Path(name), "make --size smaller"):
            parts = [
                (pixels.all_converted(images, size, grey, label), labels)
                for images, labels in parts
            ]
        train, test = (images.shape[1:] for images, _ in parts)
        if train != test:
            raise UserError(
                f"{name}: has training images of {_as_text(train)}, and test images of "
                f"{_as_text(test)}: add {_conversion(train, test)}"
            )
        splits = [
            Split(images.reshape(len(images), -1), labels) for images, labels in parts
        ]
        return Source(Dataset(*splits), train)

    def _check_alike(self):
        """Raises UserError unless all sources have images of one size and colour."""
        (first, one), *others = self._sources.items()
        for name, other in others:
            if other.shape != one.shape:
                remedy = f"add {_conversion(one.shape, other.shape)}"
                if self._learned:
                    remedy = "a network keeps its size and colour: convert the images"
                raise UserError(
                    f"flag --tasks: {first} has images of {_as_text(one.shape)}, and "
                    f"{name} of {_as_text(other.shape)}: {remedy}"
                )

    def _labels_of(self, name):
        """The classes of a task, as the source labels them."""
        dataset = self._sources[name.source].dataset
        held, of_test = (
            set(np.unique(split.labels).tolist())
            for split in (dataset.train, dataset.test)
        )
        with formats.errors_about(Path(name.source), formats.OWN):
            labels = name.classes or tuple(sorted(held | of_test))
            require(len(labels) > 1, "all of its images are of one class")
            for label in labels:
                is_there = label in held | of_test
                require(is_there, f"has no class {label}, but {_ranges(held)}")
                require(label in held, f"no training image has the class {label}")
                require(label in of_test, f"no test image has the class {label}")
        return labels


def _check_what_is_meant(names: Sequence[str]) -> None:
    """Raises UserError where a name says classes or an order, and is that of a file, too."""
    for name in names:
        source = image_names.parse(name).source
        is_whole = source == name.rstrip("/") or source in image_names.BUILT_IN
        is_told_apart = name.startswith(f"{source}/")
        if not is_whole and not is_told_apart and os.path.exists(name):
            more = name[len(source) :]
            raise UserError(
                f"flag --tasks: {name} may be the folder of that name, {name}/, or "
                f"{more} of another one, {source}/{more}: write one of these"
            )


def _generated(number):
    """Parts of generated data; those of another number are others."""
    rng = random_stream(0, FAKE_DATA, number)  # the same data for all seeds
    dataset = datasets.fake(int(np.prod(_FAKE_SHAPE)), 10, 10_000, 1_000, rng)
    return _as_parts(dataset, _FAKE_SHAPE)


def _built_in(name, data_dir):
    loader, shape = _LOADERS[name]
    return _as_parts(loader(data_dir), shape)


def _as_parts(dataset, shape):
    """(images, labels) of training and test part, uint8 [n, height, width, channels]."""
    splits = dataset.train, dataset.test
    return [(split.images.reshape(-1, *shape), split.labels) for split in splits]


def _read(path: Path, size: int | None, grey: bool, remedy: str) -> tuple:
    """Images and labels of both parts of a user's file or folder.

    Args:
      path: of it. size, grey: as of `pixels.converted`.
      remedy: what the user can do if it cannot be read.

    Raises:
      DataError: it is none that can be read.
    """
    with formats.errors_about(path, remedy):
        built_in = ", ".join(image_names.BUILT_IN)
        require(path.exists(), f"no such file or folder, and not one of {built_in}")
        if path.is_dir() and class_folders.is_one(path):
            return class_folders.read(path, size, grey)
        if path.is_dir():
            return _read_idx_folder(path)
        require(path.suffix.lower() == ".npz", "is neither a folder nor an .npz file")
        return formats.read_npz(path)


def _read_idx_folder(folder):
    """The parts of a folder with the four files of the MNIST family."""
    arrays = {}
    for name in _IDX_FILES:
        path = datasets.mnist_file(folder, name)
        require(
            path.exists(),
            f"has neither train/CLASS/ and test/CLASS/ nor {' '.join(_IDX_FILES)}",
        )
        arrays[name] = formats.read_own_idx(path, 3 if "images" in name else 1)
    return tuple(formats.as_images(*_IDX_FILES[i : i + 2], arrays) for i in (0, 2))


def _conversion(shape, other):
    """The flags that bring images of two shapes to one."""
    flags = ["--grey"] if other[2] != shape[2] else []
    if other[:2] != shape[:2]:
        flags.append(f"--size={min(*shape[:2], *other[:2])}")
    return " ".join(flags)


def _as_text(shape):
    colour = "in colour" if shape[2] == 3 else "in grey"
    return f"{shape[1]} x {shape[0]} pixels {colour}"


def _permuted(split, shape, seed):
    """The images with their pixels shuffled, all in the same way."""
    height, width, channels = shape
    places = random_stream(seed, PERMUTATION, 0).permutation(height * width)
    order = (places[:, None] * channels + np.arange(channels)).ravel()
    return Split(np.take(split.images, order, 1), split.labels)


def _of_classes(split, labels):
    """The images of some classes, in order, which get the labels 0, 1, ..."""
    place = np.full(image_names.MOST_CLASSES, len(labels), np.int64)
    place[list(labels)] = np.arange(len(labels))
    places = place[split.labels]
    kept = places < len(labels)
    images = split.images if kept.all() else split.images[kept]
    return Split(images, places[kept].astype(np.uint8))


def _ranges(labels):
    """Labels as people write them: 0 to 9, if these are all."""
    first, last = min(labels), max(labels)
    if len(labels) == last - first + 1:
        return f"{first} to {last}"
    return ", ".join(map(str, sorted(labels)))

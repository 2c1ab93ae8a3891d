"""The tasks of images_pathnet.py: their images from wherever the user has them."""

import dataclasses
from pathlib import Path

import numpy as np

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
        self._names = [image_names.parse(name) for name in settings.tasks]
        names = dict.fromkeys(name.source for name in self._names)
        self._sources = {name: _load(name, settings) for name in names}
        _check_alike({name: one.shape for name, one in self._sources.items()})
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
            order = random_stream(name.seed, PERMUTATION, 0).permutation(self.inputs)
            train, test = (
                Split(np.take(split.images, order, 1), split.labels)
                for split in (train, test)
            )
        label = image_names.label(settings.tasks[number])
        return Task(settings.tasks[number], label, train, test)

    def _labels_of(self, name):
        """The classes of a task, as the source labels them."""
        dataset = self._sources[name.source].dataset
        held, of_test = (
            set(np.unique(split.labels).tolist())
            for split in (dataset.train, dataset.test)
        )
        with formats.errors_about(Path(name.source), formats.OWN):
            strangers = sorted(of_test - held)
            require(not strangers, f"no training image has the class {strangers[:1]}")
            labels = name.classes or tuple(sorted(held))
            require(len(labels) > 1, "all of its images are of one class")
            for label in labels:
                require(label in held, f"has no class {label}, but {_ranges(held)}")
                require(label in of_test, f"no test image has the class {label}")
        return labels


def _load(name: str, settings: Settings) -> Source:
    """One source by its name, brought to the size and colour that the flags ask for."""
    if settings.fake_data:
        rng = random_stream(0, FAKE_DATA, len(name))  # the same data for all seeds
        inputs = int(np.prod(_FAKE_SHAPE))
        return Source(datasets.fake(inputs, 10, 10_000, 1_000, rng), _FAKE_SHAPE)
    size, grey = settings.size, settings.grey
    if name in _LOADERS:
        loader, shape = _LOADERS[name]
        dataset = loader(settings.data_dirs[name])
        parts = [
            (split.images.reshape(-1, *shape), split.labels)
            for split in (dataset.train, dataset.test)
        ]
    else:
        parts = _read(Path(name), size, grey)
    parts = [
        (pixels.all_converted(images, size, grey, image_names.label(name)), labels)
        for images, labels in parts
    ]
    shapes = [images.shape[1:] for images, _ in parts]
    with formats.errors_about(Path(name), "add --size"):
        require(shapes[0] == shapes[1], "its training and test images differ in size")
    train, test = (Split(images.reshape(len(images), -1), labels)
                   for images, labels in parts)  # fmt: skip
    return Source(Dataset(train=train, test=test), shapes[0])


def _read(path: Path, size: int | None, grey: bool) -> tuple:
    """Images and labels of both parts of a user's file or folder.

    Raises:
      DataError: it is none that can be read.
    """
    with formats.errors_about(path, formats.OWN):
        built_in = ", ".join(image_names.BUILT_IN)
        require(path.exists(), f"no such file or folder, and not one of {built_in}")
        if path.is_dir() and class_folders.is_one(path):
            return class_folders.read(path, size, grey)
        if path.is_dir():
            return _read_idx_folder(path)
        require(path.suffix == ".npz", "is neither a folder nor an .npz file")
        return formats.read_npz(path)


def _read_idx_folder(folder):
    """The parts of a folder with the four files of the MNIST family."""
    arrays = {}
    for name in _IDX_FILES:
        packed = folder / f"{name}.gz"
        path = packed if packed.exists() else folder / name
        require(
            path.exists(),
            f"has neither train/CLASS/ and test/CLASS/ nor {' '.join(_IDX_FILES)}",
        )
        arrays[name] = formats.read_own_idx(path, 3 if "images" in name else 1)
    return tuple(formats.as_images(*_IDX_FILES[i : i + 2], arrays) for i in (0, 2))


def _check_alike(shapes: dict[str, tuple]) -> None:
    """Raises UserError unless all sources have images of one size and colour."""
    (first, shape), *others = shapes.items()
    for name, other in others:
        if other != shape:
            wanted = ["--grey"] if other[2] != shape[2] else []
            if other[:2] != shape[:2]:
                wanted.append(f"--size={min(*shape[:2], *other[:2])}")
            raise UserError(
                f"flag --tasks: {first} has images of {_as_text(shape)}, and {name} of "
                f"{_as_text(other)}: add {' '.join(wanted)}"
            )


def _as_text(shape):
    colour = "in colour" if shape[2] == 3 else "in grey"
    return f"{shape[1]} x {shape[0]} pixels {colour}"


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

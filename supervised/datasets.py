"""MNIST, CIFAR-10 and cropped SVHN as arrays of bytes, and generated stand-ins.

MNIST comes with the project. CIFAR-10 and SVHN are read from a folder of the user's or,
without one, downloaded once into a cache folder of the user's. Files are never trusted;
`supervised.formats` reads them.
"""

import errno
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pooch
from tqdm import tqdm

from common import disk
from common.commandline import printable
from common.require import require
from supervised import formats
from supervised.formats import DataError

# Name, without .gz -> IDX header (magic number, then sizes) and md5, uncompressed.
MNIST_FILES = {
    "train-images-idx3-ubyte": (
        (2051, 60_000, 28, 28),
        "6bbc9ace898e44ae57da46a324031adb",
    ),
    "train-labels-idx1-ubyte": ((2049, 60_000), "a25bea736e30d166cdddb491f175f624"),
    "t10k-images-idx3-ubyte": (
        (2051, 10_000, 28, 28),
        "2646ac647ad5339dbf082846283269ea",
    ),
    "t10k-labels-idx1-ubyte": ((2049, 10_000), "27ae3e4e09519cfbb04c329615203637"),
}
MNIST_VALIDATION = 5_000

# Name in the cache -> official address and md5.
DOWNLOADS = {
    "cifar-10-binary.tar.gz": (
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "c32a1d4ab5d03f1284b67883e8d87530",
    ),
    "train_32x32.mat": (
        "http://ufldl.stanford.edu/housenumbers/train_32x32.mat",
        "e26dedcc434d2e4c54c9b2d4a06d8373",
    ),
    "test_32x32.mat": (
        "http://ufldl.stanford.edu/housenumbers/test_32x32.mat",
        "eb5a983be6a315427106f1b164d9cef3",
    ),
}

# Name of an unpacked batch -> official sha1; the last one holds the test images.
CIFAR_BATCHES = {
    "data_batch_1.bin": "aadd24acce27caa71bf4b10992e9e7b2d74c2540",
    "data_batch_2.bin": "c0ba65cce70568cd57b4e03e9ac8d2a5367c1795",
    "data_batch_3.bin": "1dd00a74ab1d17a6e7d73e185b69dbf31242f295",
    "data_batch_4.bin": "aab85764eb3584312d3c7f65fd2fd016e36a258e",
    "data_batch_5.bin": "26e2849e66a845b7f1e4614ae70f4889ae604628",
    "test_batch.bin": "67eb016db431130d61cd03c7ad570b013799c88c",
}
CIFAR_ARCHIVE = "cifar-10-binary.tar.gz"
CIFAR_FOLDER = "cifar-10-batches-bin"

SVHN_FILES = ("train_32x32.mat", "test_32x32.mat")


@dataclass(frozen=True)
class Split:
    """Images with their labels.

    Attributes:
      images: uint8 [n, inputs], C-contiguous, 0 to 255; may be read-only.
      labels: uint8 [n].
    """

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Dataset:
    """The splits of one data set; only MNIST has a validation split."""

    train: Split
    test: Split
    validation: Split | None = None


# ---- Loaders ----


def load_mnist(data_dir: str | None = None) -> Dataset:
    """Loads MNIST: 55,000 training, 5,000 validation and 10,000 test images.

    Args:
      data_dir: the folder of the four official files, with or without .gz; None: the
        copy that comes with the project.

    Returns:
      Images are [n, 784], rows of 28 pixels one after another; labels are the digits.

    Raises:
      DataError: the four files do not hold exactly the official content.
    """
    if data_dir is None:
        folder = Path(__file__).parent.parent / "data" / "mnist"
    else:
        folder = _existing_folder(data_dir)
    train_images, train_labels, test_images, test_labels = (
        _read_mnist(folder, name) for name in MNIST_FILES
    )
    return Dataset(
        train=Split(train_images[MNIST_VALIDATION:], train_labels[MNIST_VALIDATION:]),
        validation=Split(
            train_images[:MNIST_VALIDATION], train_labels[:MNIST_VALIDATION]
        ),
        test=Split(test_images, test_labels),
    )


def load_cifar10(data_dir: str | None = None) -> Dataset:
    """Loads CIFAR-10: officially 50,000 training and 10,000 test images.

    Content in the official format with another checksum is loaded all the same when it
    comes from `data_dir`, with a note on stderr.

    Args:
      data_dir: is or holds the unpacked folder cifar-10-batches-bin, or it holds
        cifar-10-binary.tar.gz; it is read without any use of the network. None: the
        official archive in the user's cache, which is downloaded if it is not there.

    Returns:
      Images are [n, 3072] in the order row, column, channel (RGB); labels are 0 to 9.

    Raises:
      DataError: there is no such file, or it cannot be downloaded or is damaged.
    """
    if data_dir is None:
        (archive,) = _cached_files([CIFAR_ARCHIVE])
        batches = _read_cifar_archive(archive)
    else:
        batches = _read_cifar_folder(_existing_folder(data_dir))
    *train, test = batches
    return Dataset(
        train=Split(
            np.concatenate([batch.images for batch in train]),
            np.concatenate([batch.labels for batch in train]),
        ),
        test=test,
    )


def load_svhn(data_dir: str | None = None) -> Dataset:
    """Loads the cropped digits of SVHN: officially 73,257 training and 26,032 test images.

    Content in the official format with another checksum is loaded all the same when it
    comes from `data_dir`, with a note on stderr.

    Args:
      data_dir: the folder of train_32x32.mat and test_32x32.mat; it is read without any
        use of the network. None: the official files in the user's cache, which are
        downloaded if they are not there.

    Returns:
      Images are [n, 3072] in the order row, column, channel (RGB), as those of CIFAR-10;
      labels are the digits, 0 for the digit 0 (label 10 in the files).

    Raises:
      DataError: there is no such file, or it cannot be downloaded or is damaged.
    """
    if data_dir is None:
        train, test = map(_read_svhn, _cached_files(SVHN_FILES))
    else:
        folder = _existing_folder(data_dir)
        paths = [folder / name for name in SVHN_FILES]
        train, test = map(_read_svhn, paths)
        _note_unofficial(paths, [DOWNLOADS[name][1] for name in SVHN_FILES], "md5")
    return Dataset(train=train, test=test)


def fake(
    inputs: int, classes: int, train: int, test: int, rng: np.random.Generator
) -> Dataset:
    """Generates a data set that a small network learns to classify within seconds.

    Each class is a random pattern of dark and bright pixels under uniform noise.

    Args:
      inputs: pixels of an image.
      classes: number of classes; their shares in a split are as equal as they can be.
      train: number of training images.
      test: number of test images.
      rng: draws all of it.
    """
    patterns = rng.integers(0, 2, (classes, inputs), dtype=np.uint8) * np.uint8(128)

    def split(count: int) -> Split:
        labels = rng.permutation(np.arange(count) % classes).astype(np.uint8)
        images = rng.integers(0, 128, (count, inputs), dtype=np.uint8)
        images += patterns[labels]
        return Split(images, labels)

    return Dataset(train=split(train), test=split(test))


def describe(dataset: Dataset) -> str:
    """What tells a data set from another one: its size and a checksum of both splits."""
    checksum = hashlib.sha256()
    for split in (dataset.train, dataset.test):
        checksum.update(split.images)
        checksum.update(split.labels)
    train, test = len(dataset.train.labels), len(dataset.test.labels)
    return f"{train}+{test} images, sha256 {checksum.hexdigest()[:16]}"


# ---- Transformations ----


def two_classes(split: Split, first: int, second: int) -> Split:
    """Keeps the images of two classes, in order.

    Args:
      split: the images of all classes.
      first: the class that gets label 0.
      second: the class that gets label 1.

    Raises:
      ValueError: both classes are the same.
    """
    require(first != second, f"the two classes are both {first}")
    kept = (split.labels == first) | (split.labels == second)
    labels = (split.labels[kept] == second).astype(np.uint8)
    return Split(split.images[kept], labels)


def few(split: Split, count: int | None, rng: np.random.Generator) -> Split:
    """Keeps so many images of a split, drawn and balanced over its classes.

    With the same random numbers, the images of a smaller count are among those of a
    larger one.

    Args:
      split: to draw from; all of its images where it has no more than count.
      count: how many to keep, the same number of each class give or take one; None: all.
      rng: for the draw.
    """
    if count is None:
        return split
    order = rng.permutation(len(split.labels))
    labels = split.labels[order]
    place_in_class = np.zeros(len(labels), int)
    for label in np.unique(labels):
        of_class = labels == label
        place_in_class[of_class] = np.arange(of_class.sum())
    kept = order[np.argsort(place_in_class, kind="stable")[:count]]
    return Split(split.images[kept], split.labels[kept])


def add_noise(
    images: np.ndarray, noise: str, rng: np.random.Generator, share: float = 0.5
) -> np.ndarray:
    """Adds noise to images. On a scale from 0 (black) to 1 (white),

    "salt" adds to a share of the pixels, each drawn by itself, a uniform level from
    [0.5, 1), one of those that 8 bits can hold, and clips the sum to 1;
    "salt_and_pepper" turns a share of the pixels black or white, equally often;
    "none" changes nothing.

    Args:
      images: uint8, any shape; left unchanged.
      noise: which of these.
      rng: draws it.
      share: probability that a pixel is hit.

    Returns:
      uint8, of the same shape; `images` itself without noise.

    Raises:
      ValueError: there is no such noise.
    """
    if noise == "none":
        return images
    if share == 0.5:  # a bit a pixel
        hit = rng.integers(0, 2, images.shape, dtype=bool)
    else:
        hit = rng.random(images.shape, dtype=np.float32) < share
    if noise == "salt":
        level = rng.integers(128, 255, images.shape, dtype=np.uint8)  # 0.502 to 0.996
        level *= hit
        # Clip first: min(image, 255 - level) + level cannot overflow a byte.
        noisy = 255 - level
        np.minimum(noisy, images, out=noisy)
        noisy += level
        return noisy
    if noise == "salt_and_pepper":
        white = rng.integers(0, 2, images.shape, dtype=bool)
        return np.where(hit, white * np.uint8(255), images)
    raise ValueError(f"unknown noise {noise!r}")


# ---- A user's folder ----


def _exists(path: Path) -> bool:
    with formats.errors_about(path, "make it readable"):
        return path.exists()


def _existing_folder(data_dir: str) -> Path:
    folder = Path(data_dir)
    remedy = "name the folder of the data files in --data_dir"
    with formats.errors_about(folder, remedy):
        require(folder.is_dir(), "no such folder")
    return folder


def mnist_file(folder: Path, name: str) -> Path:
    """The path of one of MNIST_FILES: compressed, unless only the other one is there."""
    plain, packed = folder / name, folder / f"{name}.gz"
    return plain if _exists(plain) and not _exists(packed) else packed


def _read_mnist(folder: Path, name: str) -> np.ndarray:
    return formats.read_idx(mnist_file(folder, name), *MNIST_FILES[name])


def _read_cifar_folder(root: Path) -> list[Split]:
    """Reads the six batches from a user's folder, unpacked or else from the archive."""
    for folder in (root / CIFAR_FOLDER, root):
        paths = [folder / name for name in CIFAR_BATCHES]
        if any(_exists(path) for path in paths):
            batches = [Split(*formats.read_cifar_batch(path)) for path in paths]
            _note_unofficial(paths, list(CIFAR_BATCHES.values()), "sha1")
            return batches
    archive = root / CIFAR_ARCHIVE
    if not _exists(archive):
        raise DataError(
            f"{root}: no CIFAR-10 in this folder; put {CIFAR_ARCHIVE} or the unpacked "
            f"{CIFAR_FOLDER} there"
        )
    batches = _read_cifar_archive(archive)
    _note_unofficial([archive], [DOWNLOADS[CIFAR_ARCHIVE][1]], "md5")
    return batches


def _read_cifar_archive(path: Path) -> list[Split]:
    names = [f"{CIFAR_FOLDER}/{name}" for name in CIFAR_BATCHES]
    return [Split(*batch) for batch in formats.read_cifar_archive(path, names)]


def _read_svhn(path: Path) -> Split:
    return Split(*formats.read_svhn(path))


def _note_unofficial(paths: list[Path], digests: list[str], algorithm: str) -> None:
    """Says on stderr, in one line, which files differ from the official checksums."""
    differing = [
        path.name
        for path, digest in zip(paths, digests, strict=True)
        if formats.digest(path, algorithm) != digest
    ]
    if differing:
        note = (
            f"note: {paths[0].parent}: in the official format, but the {algorithm} "
            f"differs from the official one: {', '.join(differing)}"
        )
        print(printable(note), file=sys.stderr)


# ---- The user's cache ----


def _cached_files(names: Sequence[str]) -> list[Path]:
    """Paths of official files in the cache; those not there are downloaded.

    Raises:
      DataError: a file cannot be downloaded, or is there and not the official one.
    """
    folder = Path(pooch.os_cache("pathnet"))
    remedy = (
        f"put the official {' and '.join(names)} into {folder}, or into another folder "
        "and name that in --data_dir"
    )
    paths = [folder / name for name in names]
    for path in paths:
        with formats.errors_about(path, remedy):
            if not path.exists():
                _download(path)
                continue
            is_official = formats.digest(path, "md5") == DOWNLOADS[path.name][1]
            require(
                is_official,
                "not the official checksum (delete it to download it again)",
            )
    return paths


def _download(target: Path) -> None:
    """Downloads an official file to `target`, which appears whole and checked or not.

    Processes that want the same file wait for the first one. What a killed process
    leaves behind is overwritten by the next download.

    Raises:
      OSError: it cannot be downloaded or written.
      ValueError: it is not the official one.
    """
    url, md5 = DOWNLOADS[target.name]
    part = target.with_name(f"{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    # The lock ends with the process that holds it. Its file stays: were it deleted,
    # two processes could hold locks on two files of that name.
    with target.with_name(f"{target.name}.lock").open("w") as lock:
        disk.lock(lock)
        if target.exists():
            return
        try:
            _fetch(url, part)
            is_official = formats.digest(part, "md5") == md5
            require(is_official, f"not the official checksum after download of {url}")
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)


def _fetch(url: str, path: Path) -> None:
    """Saves `url` as `path`, with a progress bar if stderr is a terminal."""
    # `total` is set again from the answer; a bar without one counts as no bar.
    with tqdm(total=1, desc=path.stem, unit="B", unit_scale=True, disable=None) as bar:
        fetch = pooch.HTTPDownloader(progressbar=bar, chunk_size=formats.CHUNK_BYTES)
        try:
            with path.open("wb") as file:
                fetch(url, _Bounded(file), pooch=None)
        except OSError as error:  # This includes all of the requests package.
            response = getattr(error, "response", None)
            reason = error.strerror or type(error).__name__
            if response is not None:
                reason = f"HTTP status {response.status_code}"
            raise OSError(f"cannot be downloaded from {url} ({reason})") from error


class _Bounded:
    """A file to write to that takes no more than the largest official file needs.

    A server may send without end, or something compressed that unfolds to that.
    """

    def __init__(self, file: BinaryIO):
        self._file = file
        self._room = formats.MAX_BYTES

    def write(self, content: bytes) -> None:
        self._room -= len(content)
        if self._room < 0:
            raise OSError(errno.EFBIG, "more than the official file")
        self._file.write(content)

    def flush(self) -> None:
        self._file.flush()

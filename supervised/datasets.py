"""MNIST, CIFAR-10 and cropped SVHN as arrays of bytes, and generated stand-ins.

MNIST comes with the project. CIFAR-10 and SVHN are read from a folder of the user's or,
without one, downloaded once into a cache folder of the user's. Files are never trusted:
every loader either returns well-formed arrays or raises DataError, and it allocates no
more than the official data would need, whatever a damaged file claims to hold.
"""

import contextlib
import fcntl
import hashlib
import itertools
import math
import os
import struct
import sys
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pooch
from tqdm import tqdm

from common.commandline import UserError

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
CIFAR_RECORD_BYTES = 1 + 3 * 32 * 32
CIFAR_BATCH_RECORDS = 10_000

SVHN_FILES = ("train_32x32.mat", "test_32x32.mat")

# Bound on a file on disk and on all it unfolds to; the largest official one needs 225e6.
MAX_BYTES = 320 * 2**20
CHUNK_BYTES = 2**14

# How zlib is told which of its formats to expect.
GZIP_FORMAT = 16 + zlib.MAX_WBITS
ZLIB_FORMAT = zlib.MAX_WBITS


class DataError(UserError):
    """A data file is missing, damaged or foreign: one line says which, and what to do."""

    def __str__(self) -> str:
        return " ".join(super().__str__().splitlines())


@dataclass(frozen=True)
class Split:
    """Images with their labels.

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
    """Load MNIST: 55,000 training, 5,000 validation and 10,000 test images.

    Images are [n, 784], rows of 28 pixels one after another; labels are the digits.
    `data_dir` holds the four official files, with or without .gz; None means the copy
    that comes with the project.

    Raises DataError unless all four files hold exactly the official content.
    """
    if data_dir is None:
        folder = Path(__file__).parent.parent / "data" / "mnist"
    else:
        folder = _existing_folder(data_dir)
    train_images, train_labels, test_images, test_labels = (
        _read_idx(folder, name) for name in MNIST_FILES
    )
    return Dataset(
        train=Split(train_images[MNIST_VALIDATION:], train_labels[MNIST_VALIDATION:]),
        validation=Split(
            train_images[:MNIST_VALIDATION], train_labels[:MNIST_VALIDATION]
        ),
        test=Split(test_images, test_labels),
    )


def load_cifar10(data_dir: str | None = None) -> Dataset:
    """Load CIFAR-10: officially 50,000 training and 10,000 test images.

    Images are [n, 3072] in the order row, column, channel (RGB); labels are 0 to 9.
    `data_dir` is or holds the unpacked folder cifar-10-batches-bin, or it holds
    cifar-10-binary.tar.gz; it is read without any use of the network. None means the
    official archive in the user's cache, which is downloaded if it is not there.

    Content in the official format with another checksum is loaded all the same when it
    comes from `data_dir`, with a note on stderr. Raises DataError for anything else.
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
    """Load the cropped digits of SVHN: officially 73,257 training and 26,032 test images.

    Images are [n, 3072] in the order row, column, channel (RGB), as those of CIFAR-10;
    labels are the digits, 0 for the digit 0 (label 10 in the files). `data_dir` holds
    train_32x32.mat and test_32x32.mat and is read without any use of the network. None
    means the official files in the user's cache, downloaded if they are not there.

    Content in the official format with another checksum is loaded all the same when it
    comes from `data_dir`, with a note on stderr. Raises DataError for anything else.
    """
    if data_dir is None:
        train, test = (_read_svhn(path) for path in _cached_files(SVHN_FILES))
    else:
        folder = _existing_folder(data_dir)
        paths = [folder / name for name in SVHN_FILES]
        train, test = (_read_svhn(path) for path in paths)
        _note_unofficial(paths, [DOWNLOADS[name][1] for name in SVHN_FILES], "md5")
    return Dataset(train=train, test=test)


def fake(
    inputs: int, classes: int, train: int, test: int, rng: np.random.Generator
) -> Dataset:
    """Generate a data set that a small network learns to tell apart within seconds.

    Each class is a random pattern of dark and bright pixels under uniform noise.

    inputs, classes: pixels per image and number of classes.
    train, test: number of images in each split; classes are as equal as they can be.
    """
    patterns = rng.integers(0, 2, (classes, inputs), dtype=np.uint8) * np.uint8(128)

    def split(count: int) -> Split:
        labels = rng.permutation(np.arange(count) % classes).astype(np.uint8)
        images = rng.integers(0, 128, (count, inputs), dtype=np.uint8)
        images += patterns[labels]
        return Split(images, labels)

    return Dataset(train=split(train), test=split(test))


# ---- Transformations ----


def two_classes(split: Split, first: int, second: int) -> Split:
    """Keep the images of two classes, in order, labelled 0 (`first`) or 1 (`second`).

    Raises ValueError if both classes are the same.
    """
    if first == second:
        raise ValueError(f"the two classes are both {first}")
    kept = (split.labels == first) | (split.labels == second)
    labels = (split.labels[kept] == second).astype(np.uint8)
    return Split(split.images[kept], labels)


def add_noise(images: np.ndarray, noise: str, rng: np.random.Generator) -> np.ndarray:
    """Return the images with noise. On a scale from 0 (black) to 1 (white):

    "salt" adds to each pixel, with probability 0.5, a uniform level from [0.5, 1), one
    of those that 8 bits can hold, and clips the sum to 1;
    "salt_and_pepper" turns each pixel, with probability 0.5, black or white, equally
    often;
    "none" returns `images` itself.

    images: uint8, any shape; left unchanged. The result has its dtype and shape.
    Raises ValueError for another `noise`.
    """
    if noise == "none":
        return images
    hit = rng.integers(0, 2, images.shape, dtype=bool)
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


# ---- Reading files ----


@contextlib.contextmanager
def _errors_about(path: Path, remedy: str) -> Iterator[None]:
    """Turn whatever goes wrong with the file or folder `path` into a DataError."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # Decoders of damaged data promise no narrower class.
        problem = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(f"{path}: {problem}; {remedy}") from error


@contextlib.contextmanager
def _open(path: Path, max_bytes: int = MAX_BYTES) -> Iterator[BinaryIO]:
    """Open a regular file of bounded size; errors in the block become DataErrors."""
    with _errors_about(path, "put a readable, intact copy of the official file there"):
        if not path.exists():
            raise ValueError("no such file")
        if not path.is_file():  # A folder, or a pipe that would block for ever.
            raise ValueError("not a regular file")
        if path.stat().st_size > max_bytes:
            raise ValueError("larger than the official file")
        with path.open("rb") as stream:
            yield stream


def _digest(path: Path, algorithm: str) -> str:
    with _open(path) as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def _exists(path: Path) -> bool:
    with _errors_about(path, "make it readable"):
        return path.exists()


def _existing_folder(data_dir: str) -> Path:
    folder = Path(data_dir)
    with _errors_about(folder, "name the folder of the data files in --data_dir"):
        if not folder.is_dir():
            raise ValueError("no such folder")
    return folder


def _read_idx(folder: Path, name: str) -> np.ndarray:
    """Read an MNIST file, compressed or not, as uint8 [n, 784] or [n]."""
    compressed, plain = folder / f"{name}.gz", folder / name
    header, md5 = MNIST_FILES[name]
    size = 4 * len(header) + math.prod(header[1:])
    if _exists(plain) and not _exists(compressed):
        with _open(plain, size) as stream:
            return _parse_idx(stream.read(), header, md5)
    with _open(compressed) as stream:
        content = _inflate(stream, MAX_BYTES, size, GZIP_FORMAT)
        return _parse_idx(content, header, md5)


def _read_cifar_folder(root: Path) -> list[Split]:
    """Read the six batches from a user's folder, unpacked or else from the archive."""
    for folder in (root / CIFAR_FOLDER, root):
        paths = [folder / name for name in CIFAR_BATCHES]
        if any(_exists(path) for path in paths):
            batches = [_read_cifar_batch(path) for path in paths]
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


def _read_cifar_batch(path: Path) -> Split:
    with _open(path, CIFAR_BATCH_RECORDS * CIFAR_RECORD_BYTES) as stream:
        return _parse_cifar(stream.read())


def _read_cifar_archive(path: Path) -> list[Split]:
    with _open(path) as stream:
        content = _inflate(stream, MAX_BYTES, MAX_BYTES, GZIP_FORMAT)
        names = [f"{CIFAR_FOLDER}/{name}" for name in CIFAR_BATCHES]
        members = {
            name: member
            for name, member in _tar_members(memoryview(content))
            if name in names
        }
        for name in names:
            if name not in members:
                raise ValueError(f"{name} is missing inside")
        return [_parse_cifar(members[name]) for name in names]


def _read_svhn(path: Path) -> Split:
    with _open(path) as stream:
        return _parse_svhn(_read_mat(stream))


def _note_unofficial(paths: list[Path], digests: list[str], algorithm: str) -> None:
    """Say on stderr, in one line, which files differ from the official checksums."""
    differing = [
        path.name
        for path, digest in zip(paths, digests, strict=True)
        if _digest(path, algorithm) != digest
    ]
    if differing:
        print(
            f"note: {paths[0].parent}: in the official format, but the {algorithm} "
            f"differs from the official one: {', '.join(differing)}",
            file=sys.stderr,
        )


# ---- The user's cache ----


def _cached_files(names: Sequence[str]) -> list[Path]:
    """Return the paths of official files in the cache; download those not there."""
    folder = Path(pooch.os_cache("pathnet"))
    remedy = (
        f"put the official {' and '.join(names)} into {folder}, or into another folder "
        "and name that in --data_dir"
    )
    paths = [folder / name for name in names]
    for path in paths:
        with _errors_about(path, remedy):
            if not path.exists():
                _download(path)
            elif _digest(path, "md5") != DOWNLOADS[path.name][1]:
                raise ValueError(
                    "not the official checksum (delete it to download it again)"
                )
    return paths


def _download(target: Path) -> None:
    """Download an official file to `target`, which appears whole and checked or not.

    Processes that want the same file wait for the first one. What a killed process
    leaves behind is overwritten by the next download. Raises OSError or ValueError.
    """
    url, md5 = DOWNLOADS[target.name]
    part = target.with_name(f"{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    # The lock ends with the process that holds it. Its file stays: were it deleted,
    # two processes could hold locks on two files of that name.
    with target.with_name(f"{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            return
        try:
            _fetch(url, part)
            if _digest(part, "md5") != md5:
                raise ValueError(f"not the official checksum after download of {url}")
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)


def _fetch(url: str, path: Path) -> None:
    """Save `url` as `path`, with a progress bar if stderr is a terminal."""
    # `total` is set again from the answer; a bar without one counts as no bar.
    with tqdm(total=1, desc=path.stem, unit="B", unit_scale=True, disable=None) as bar:
        fetch = pooch.HTTPDownloader(progressbar=bar, chunk_size=CHUNK_BYTES)
        try:
            fetch(url, str(path), pooch=None)
        except OSError as error:  # This includes all of the requests package.
            response = getattr(error, "response", None)
            reason = error.strerror or type(error).__name__
            if response is not None:
                reason = f"HTTP status {response.status_code}"
            raise OSError(f"cannot be downloaded from {url} ({reason})") from error


# ---- File formats: damaged content raises ValueError, zlib.error, ... ----


def _inflate(
    stream: BinaryIO, packed_bytes: int, max_bytes: int, wbits: int
) -> bytearray:
    """Decompress the next `packed_bytes`, or all of a shorter `stream`.

    They must be one whole gzip or zlib stream, as said by `wbits`, and nothing else.
    Raises ValueError if they are not or unfold to more than `max_bytes`.
    """
    inflater = zlib.decompressobj(wbits)
    content = bytearray()
    while not inflater.eof:
        piece = stream.read(min(packed_bytes, CHUNK_BYTES))
        if not piece:
            raise ValueError("truncated")
        packed_bytes -= len(piece)
        content += inflater.decompress(piece)  # At most 1032 times the piece.
        if len(content) > max_bytes:
            raise ValueError("unfolds to more than the official content")
    if inflater.unused_data or stream.read(min(packed_bytes, 1)):
        raise ValueError("followed by foreign data")
    return content


def _parse_idx(content: bytes, header: tuple[int, ...], md5: str) -> np.ndarray:
    """Return the values, one row per item, of the MNIST file that must be `content`."""
    packed_header = struct.pack(f">{len(header)}i", *header)
    if len(content) < len(packed_header) + math.prod(header[1:]):
        raise ValueError("truncated")
    if not content.startswith(packed_header):
        raise ValueError("not this file of MNIST (wrong magic number or sizes)")
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        raise ValueError("not the official content (wrong checksum)")
    values = np.frombuffer(content, np.uint8, offset=len(packed_header))
    return values.reshape(header[1], -1) if len(header) > 2 else values


def _parse_cifar(content: bytes | memoryview) -> Split:
    """Parse records of a label and three planes (red, green, blue) of 32 rows."""
    count, rest = divmod(len(content), CIFAR_RECORD_BYTES)
    if rest or not 1 <= count <= CIFAR_BATCH_RECORDS:
        raise ValueError(
            f"a batch is not 1 to {CIFAR_BATCH_RECORDS} records of "
            f"{CIFAR_RECORD_BYTES} bytes"
        )
    records = np.frombuffer(content, np.uint8).reshape(count, -1)
    labels = records[:, 0].copy()
    if labels.max() > 9:
        raise ValueError(f"a label is {labels.max()}, not 0 to 9")
    planes = records[:, 1:].reshape(count, 3, -1)
    return Split(planes.transpose(0, 2, 1).reshape(count, -1), labels)


def _tar_members(content: memoryview) -> Iterator[tuple[str, memoryview]]:
    """Yield name and content of the regular files of a tar archive.

    Unlike tarfile.open, which would interpret them, this skips extension headers: they
    can ask for much work or memory, and the official archive needs none.
    """
    start = 0
    while any(header := content[start : start + tarfile.BLOCKSIZE]):
        member = tarfile.TarInfo.frombuf(bytes(header), "utf-8", "replace")
        start += tarfile.BLOCKSIZE
        end = start + member.size
        if not start <= end <= len(content):
            raise ValueError(f"truncated in {member.name}")
        if member.isreg():
            yield member.name, content[start:end]
        start = end + -member.size % tarfile.BLOCKSIZE


# MATLAB v5: https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf
# scipy.io.loadmat is of no use here: damaged types of elements make it crash.
MAT_SIGNATURE = b"\x00\x01IM"  # Version 1, little-endian.
MAT_MATRIX = 14
MAT_COMPRESSED = 15
MAT_NUMBERS = {
    1: "<i1",
    2: "<u1",
    3: "<i2",
    4: "<u2",
    5: "<i4",
    6: "<u4",
    7: "<f4",
    9: "<f8",
    12: "<i8",
    13: "<u8",
}


def _read_mat(stream: BinaryIO) -> dict[bytes, np.ndarray]:
    """Read the real numeric arrays of a MATLAB v5 file, by name; others are skipped."""
    file_bytes = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    if stream.read(128)[124:] != MAT_SIGNATURE:
        raise ValueError("not a MATLAB v5 file")
    arrays = {}
    budget = MAX_BYTES
    while tag := stream.read(8):
        kind, size = struct.unpack("<II", tag)
        if size > MAX_BYTES:
            raise ValueError("a variable is larger than the official ones")
        if kind == MAT_COMPRESSED:
            content = _inflate(stream, size, budget, ZLIB_FORMAT)
            budget -= len(content)
            kind, matrix = next(_mat_elements(memoryview(content)), (None, None))
        else:
            if size > file_bytes - stream.tell():  # Or read() would allocate it first.
                raise ValueError("truncated")
            matrix = memoryview(stream.read(size))
        if kind != MAT_MATRIX:
            raise ValueError("a variable is not a matrix")
        arrays |= _mat_array(matrix)
    return arrays


def _mat_array(matrix: memoryview) -> dict[bytes, np.ndarray]:
    """Return name and value of a real numeric array, nothing for another variable."""
    # A real numeric array has four elements; a bomb may have millions.
    elements = list(itertools.islice(_mat_elements(matrix), 5))
    if len(elements) != 4 or elements[3][0] not in MAT_NUMBERS:
        return {}
    _flags, (_, shape), (_, name), (kind, values) = elements
    array = np.frombuffer(values, MAT_NUMBERS[kind])
    return {bytes(name): array.reshape(np.frombuffer(shape, "<u4"), order="F")}


def _mat_elements(content: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield type and data of the elements that a MATLAB v5 element consists of."""
    start = 0
    while start < len(content):
        kind, size = struct.unpack_from("<II", content, start)
        start += 8
        if kind >> 16:  # The short form: 16 bits each of size and type, then the data.
            kind, size, start = kind & 0xFFFF, kind >> 16, start - 4
        end = start + size
        if end > len(content):
            raise ValueError("an element is truncated")
        yield kind, content[start:end]
        start = end + -end % 8


def _parse_svhn(arrays: dict[bytes, np.ndarray]) -> Split:
    """Check and convert X, pixels [32, 32, 3, n] by row first, and y, labels 1 to 10."""
    if not {b"X", b"y"} <= arrays.keys():
        raise ValueError("no numeric variables X and y inside")
    pixels, labels = arrays[b"X"], arrays[b"y"].ravel()
    count = pixels.shape[-1]
    if pixels.shape != (32, 32, 3, count) or pixels.dtype != np.uint8 or not count:
        raise ValueError("X is not uint8 [32, 32, 3, n]")
    if labels.size != count or not np.isin(labels, np.arange(1, 11)).all():
        raise ValueError("y does not hold a label from 1 to 10 for each image of X")
    images = pixels.transpose(3, 0, 1, 2).reshape(count, -1)
    return Split(images, (labels % 10).astype(np.uint8))

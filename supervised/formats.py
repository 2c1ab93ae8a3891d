"""Bytes of untrusted files to arrays: IDX, CIFAR's records, tar, MATLAB v5, gzip, npz.

Every reader either returns well-formed arrays or raises DataError, and it allocates no
more than the official data would need, or of a user's own data a quarter of what is left,
whatever a damaged file claims to hold. Nothing is unpickled. Which files there are, and
where, is the business of `supervised.datasets` and `supervised.image_tasks`.
"""

import contextlib
import hashlib
import itertools
import math
import os
import struct
import tarfile
import textwrap
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from common import memory
from common.commandline import UserError
from common.require import require

# Bound on a file on disk and on all it unfolds to; the largest official one needs 225e6.
MAX_BYTES = 320 * 2**20
CHUNK_BYTES = 2**14
MOST_CHARACTERS = 300  # of a reason; decoders may put whole headers into theirs

CIFAR_RECORD_BYTES = 1 + 3 * 32 * 32
CIFAR_BATCH_RECORDS = 10_000

# The argument that names one of zlib's formats.
_GZIP_FORMAT = 16 + zlib.MAX_WBITS
_ZLIB_FORMAT = zlib.MAX_WBITS

Images = tuple[np.ndarray, np.ndarray]  # images and their labels

OFFICIAL = "put a readable, intact copy of the official file there"
OWN = "name another one in --tasks, or mend it"
# Names of the arrays: Keras' convention, and MedMNIST's.
NPZ_NAMES = (
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),
)
TOO_LARGE = "takes more than a quarter of the memory that is left"
MOST_SIDE = 1024  # pixels of a user's own image in each direction


class DataError(UserError):
    """A data file is missing, damaged or foreign: one line says which, and what to do."""

    def __str__(self) -> str:
        return " ".join(super().__str__().splitlines())


# ---- Files ----


@contextlib.contextmanager
def errors_about(path: Path, remedy: str) -> Iterator[None]:
    """Turns whatever goes wrong with a file or folder in the block into a DataError.

    Args:
      path: of the file or folder.
      remedy: what the user can do about it.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # Decoders of damaged data promise no narrower class.
        problem = getattr(error, "strerror", None) or str(error) or type(error).__name__
        problem = textwrap.shorten(problem, MOST_CHARACTERS, placeholder=" ...")
        raise DataError(f"{path}: {problem}; {remedy}") from error


@contextlib.contextmanager
def _open(
    path: Path,
    max_bytes: int = MAX_BYTES,
    too_large: str = "larger than the official file",
    remedy: str = OFFICIAL,
) -> Iterator[BinaryIO]:
    """Opens a regular file of bounded size; errors in the block become DataErrors."""
    with errors_about(path, remedy):
        require(path.exists(), "no such file")
        # A folder is none, nor is a pipe, which would block for ever.
        require(path.is_file(), "not a regular file")
        require(path.stat().st_size <= max_bytes, too_large)
        with path.open("rb") as stream:
            yield stream


def digest(path: Path, algorithm: str) -> str:
    """The checksum of a file in hexadecimal.

    Args:
      path: of the file.
      algorithm: its name in hashlib.

    Raises:
      DataError: the file cannot be read.
    """
    with _open(path) as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def read_idx(path: Path, header: tuple[int, ...], md5: str) -> np.ndarray:
    """Reads a file of MNIST, which must hold exactly the official content.

    Args:
      path: of the file; it is compressed by gzip if the name ends with ".gz".
      header: its magic number, then the sizes of the array.
      md5: checksum of the uncompressed content.

    Returns:
      uint8 [n, pixels] for images, uint8 [n] for labels; read-only.

    Raises:
      DataError: the file cannot be read or has another content.
    """
    size = 4 * len(header) + math.prod(header[1:])
    if path.suffix == ".gz":
        with _open(path) as stream:
            content = _inflate(stream, MAX_BYTES, size, _GZIP_FORMAT)
            return _parse_idx(content, header, md5)
    with _open(path, size) as stream:
        return _parse_idx(stream.read(), header, md5)


def read_cifar_batch(path: Path) -> Images:
    """Reads one of the unpacked binary files of CIFAR-10.

    Returns:
      (images, labels): uint8 [n, 3072] in the order row, column, channel (RGB), and
      uint8 [n], 0 to 9.

    Raises:
      DataError: the file cannot be read or has another format.
    """
    with _open(path, CIFAR_BATCH_RECORDS * CIFAR_RECORD_BYTES) as stream:
        return _parse_cifar(stream.read())


def read_cifar_archive(path: Path, names: Sequence[str]) -> list[Images]:
    """Reads binary files of CIFAR-10 in their archive, a tar compressed by gzip.

    Args:
      path: of the archive.
      names: of the files in there.

    Returns:
      (images, labels) of each of the files, as `read_cifar_batch` returns them.

    Raises:
      DataError: the archive cannot be read, or a file is not in there or has another
        format.
    """
    with _open(path) as stream:
        content = _inflate(stream, MAX_BYTES, MAX_BYTES, _GZIP_FORMAT)
        members = {
            name: member
            for name, member in _tar_members(memoryview(content))
            if name in names
        }
        for name in names:
            require(name in members, f"{name} is missing inside")
        return [_parse_cifar(members[name]) for name in names]


def read_svhn(path: Path) -> Images:
    """Reads a MATLAB file of the cropped digits of SVHN.

    Returns:
      (images, labels): uint8 [n, 3072] in the order row, column, channel (RGB), and
      uint8 [n], 0 to 9; the digit 0 has the label 10 in the file.

    Raises:
      DataError: the file cannot be read or has another format.
    """
    with _open(path) as stream:
        return _parse_svhn(_read_mat(stream))


def most_bytes() -> int:
    """The most that a user's file or folder may take: a quarter of the memory left."""
    return memory.available() // 4


def check_size(size: int) -> None:
    """Raises ValueError if a user's own images may not take so many bytes."""
    require(size <= most_bytes(), TOO_LARGE)


def read_own_idx(path: Path, dimensions: int) -> np.ndarray:
    """Reads an IDX file of bytes, whatever it holds.

    Args:
      path: of the file; it is compressed by gzip if the name ends with ".gz".
      dimensions: of its array: 1 for labels, 3 for images.

    Returns:
      uint8, of so many dimensions; read-only.

    Raises:
      DataError: the file cannot be read or is none of these.
    """
    most = most_bytes()
    with _open(path, most, TOO_LARGE, OWN) as stream:
        if path.suffix == ".gz":
            content = _inflate(stream, most, most, _GZIP_FORMAT)
        else:
            content = stream.read()
        return _parse_own_idx(content, dimensions)


def read_npz(path: Path) -> tuple[Images, Images]:
    """Reads a user's own images from an .npz file, with arrays named as in NPZ_NAMES.

    Returns:
      (images, labels) of the training part and of the test part: uint8
      [n, height, width, channels] and uint8 [n].

    Raises:
      DataError: the file cannot be read, or holds something else.
    """
    with (
        _open(path, most_bytes(), TOO_LARGE, OWN) as stream,
        zipfile.ZipFile(stream) as archive,
    ):
        held = set(archive.namelist())
        for names in NPZ_NAMES:
            if {f"{name}.npy" for name in names} <= held:
                break
        else:
            known = " nor ".join(", ".join(names) for names in NPZ_NAMES)
            raise ValueError(f"holds neither {known}")
        check_size(sum(archive.getinfo(f"{name}.npy").file_size for name in names))
        arrays = {name: _read_npy(archive, name) for name in names}
        train = as_images(*names[:2], arrays)
        return train, as_images(*names[2:], arrays)


def as_images(images_name: str, labels_name: str, arrays: dict) -> Images:
    """Checks a user's own images and labels.

    Args:
      images_name, labels_name: their names in `arrays`, for the message too.
      arrays: by name.

    Returns:
      uint8 [n, height, width, channels] with one or three channels, and uint8 [n].

    Raises:
      ValueError: they are something else; says what.
    """
    images, labels = arrays[images_name], arrays[labels_name]
    are_bytes = images.dtype == np.uint8
    require(are_bytes, f"{images_name} is of type {images.dtype}, not uint8, 0 to 255")
    shape = images.shape
    if len(shape) == 3:
        images = images[..., None]
    sizes = images.shape[1:]
    are_images = len(sizes) == 3 and sizes[2] in (1, 3)
    require(
        are_images,
        f"{images_name} is of shape {list(shape)}, not [n, height, width] or "
        "[n, height, width, 3]",
    )
    require(len(images) > 0, f"{images_name} is empty")
    fits = min(sizes) >= 1 and max(sizes) <= MOST_SIDE
    require(fits, f"{images_name}: its sides are not 1 to {MOST_SIDE} pixels")
    if labels.shape == (len(images), 1):
        labels = labels[:, 0]
    require(
        labels.shape == (len(images),) and labels.dtype.kind in "iu",
        f"{labels_name} is not one whole number for each image of {images_name}",
    )
    in_range = labels.min() >= 0 and labels.max() <= 255
    require(in_range, f"{labels_name}: labels are not 0 to 255")
    return images, labels.astype(np.uint8)


# ---- Formats: damaged content raises ValueError, zlib.error, struct.error, ... ----


def _inflate(
    stream: BinaryIO, packed_bytes: int, max_bytes: int, wbits: int
) -> bytearray:
    """Decompresses the next bytes of a stream.

    They must be one whole gzip or zlib stream and nothing else.

    Args:
      stream: where they come from.
      packed_bytes: number of compressed bytes; all of a shorter `stream`.
      max_bytes: the most that they may unfold to.
      wbits: _GZIP_FORMAT or _ZLIB_FORMAT.

    Raises:
      ValueError: they are not one whole stream, or unfold to more.
      zlib.error: they are damaged.
    """
    inflater = zlib.decompressobj(wbits)
    content = bytearray()
    while not inflater.eof:
        piece = stream.read(min(packed_bytes, CHUNK_BYTES))
        require(len(piece) > 0, "truncated")
        packed_bytes -= len(piece)
        content += inflater.decompress(piece)  # At most 1032 times the piece.
        require(len(content) <= max_bytes, "unfolds to more than it may")
    more = inflater.unused_data or stream.read(min(packed_bytes, 1))
    require(not more, "followed by foreign data")
    return content


def _parse_idx(content: bytes, header: tuple[int, ...], md5: str) -> np.ndarray:
    """Returns the values, one row per item, of the MNIST file that must be `content`."""
    packed_header = struct.pack(f">{len(header)}i", *header)
    is_whole = len(content) >= len(packed_header) + math.prod(header[1:])
    require(is_whole, "truncated")
    require(
        content.startswith(packed_header),
        "not this file of MNIST (wrong magic number or sizes)",
    )
    checksum = hashlib.md5(content, usedforsecurity=False).hexdigest()
    require(checksum == md5, "not the official content (wrong checksum)")
    values = np.frombuffer(content, np.uint8, offset=len(packed_header))
    return values.reshape(header[1], -1) if len(header) > 2 else values


def _parse_own_idx(content: bytes, dimensions: int) -> np.ndarray:
    """Returns the array of an IDX file of bytes with so many dimensions."""
    magic = struct.pack(">i", 0x800 + dimensions)
    require(content[:4] == magic, "not an IDX file of this kind (wrong magic number)")
    start = 4 + 4 * dimensions
    require(len(content) >= start, "truncated")
    sizes = struct.unpack(f">{dimensions}I", content[4:start])
    fits = math.prod(sizes) == len(content) - start
    claimed = " x ".join(map(str, sizes))
    require(fits, f"says it has {claimed} bytes, and has {len(content) - start}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(sizes)


def _read_npy(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Returns an array of numbers in an .npz file, no larger than the file says."""
    member = archive.getinfo(f"{name}.npy")
    is_encrypted = member.flag_bits & 1
    require(not is_encrypted, f"{name} is encrypted")
    with archive.open(member) as file:
        shape, by_column, dtype = _read_npy_header(file, name)
        require(dtype.kind in "iufb", f"{name} is not made of numbers")
        # A product with a zero in it says nothing of the other sizes.
        require(max(shape, default=0) <= member.file_size, f"{name} is truncated")
        size = math.prod(shape) * dtype.itemsize
        require(size <= member.file_size, f"{name} is truncated")
        content = file.read(size)
        # At the end the checksum is compared.
        is_over = not file.read(1)
    require(len(content) == size, f"{name} is truncated")
    require(is_over, f"{name} is longer than its header says")
    order = "F" if by_column else "C"
    return np.frombuffer(content, dtype).reshape(shape, order=order)


def _read_npy_header(file, name):
    """Shape, order by column, and type of an array; raises ValueError if it has none."""
    try:
        version = np.lib.format.read_magic(file)
        header = _NPY_HEADERS[version](file)
    except Exception as error:  # numpy promises no narrower class
        raise ValueError(f"{name} has no sound header") from error
    are_whole = all(type(size) is int and size >= 0 for size in header[0])
    require(are_whole, f"{name} has no sound header")
    return header


_NPY_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def _parse_cifar(content: bytes | memoryview) -> Images:
    """Parses records of a label and three planes (red, green, blue) of 32 rows."""
    count, rest = divmod(len(content), CIFAR_RECORD_BYTES)
    require(
        not rest and 1 <= count <= CIFAR_BATCH_RECORDS,
        f"a batch is not 1 to {CIFAR_BATCH_RECORDS} records of "
        f"{CIFAR_RECORD_BYTES} bytes",
    )
    records = np.frombuffer(content, np.uint8).reshape(count, -1)
    labels = records[:, 0].copy()
    require(labels.max() <= 9, f"a label is {labels.max()}, not 0 to 9")
    planes = records[:, 1:].reshape(count, 3, -1)
    return planes.transpose(0, 2, 1).reshape(count, -1), labels


def _tar_members(content: memoryview) -> Iterator[tuple[str, memoryview]]:
    """Yields name and content of the regular files of a tar archive.

    Unlike tarfile.open, which would interpret them, this skips extension headers: they
    can ask for much work or memory, and the official archive needs none.
    """
    start = 0
    while any(header := content[start : start + tarfile.BLOCKSIZE]):
        member = tarfile.TarInfo.frombuf(bytes(header), "utf-8", "replace")
        start += tarfile.BLOCKSIZE
        end = start + member.size
        require(start <= end <= len(content), f"truncated in {member.name}")
        if member.isreg():
            yield member.name, content[start:end]
        start = end + -member.size % tarfile.BLOCKSIZE


def _parse_svhn(arrays: dict[bytes, np.ndarray]) -> Images:
    """Checks and converts X, uint8 [32, 32, 3, n] by row first, and y, labels 1 to 10."""
    require({b"X", b"y"} <= arrays.keys(), "no numeric variables X and y inside")
    pixels, labels = arrays[b"X"], arrays[b"y"].ravel()
    count = pixels.shape[-1]
    are_images = pixels.shape == (32, 32, 3, count) and pixels.dtype == np.uint8
    require(are_images and count > 0, "X is not uint8 [32, 32, 3, n]")
    are_labels = labels.size == count and np.isin(labels, np.arange(1, 11)).all()
    require(are_labels, "y does not hold a label from 1 to 10 for each image of X")
    images = pixels.transpose(3, 0, 1, 2).reshape(count, -1)
    return images, (labels % 10).astype(np.uint8)


# ---- MATLAB v5: https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf ----
#
# scipy.io.loadmat is of no use here: damaged types of elements make it crash.

_MAT_SIGNATURE = b"\x00\x01IM"  # Version 1, little-endian.
_MAT_MATRIX = 14
_MAT_COMPRESSED = 15
_MAT_NUMBERS = {
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
    """Reads the real numeric arrays of a MATLAB v5 file, by name; others are skipped."""
    file_bytes = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    require(stream.read(128)[124:] == _MAT_SIGNATURE, "not a MATLAB v5 file")
    arrays = {}
    budget = MAX_BYTES
    while tag := stream.read(8):
        kind, size = struct.unpack("<II", tag)
        require(size <= MAX_BYTES, "a variable is larger than the official ones")
        if kind == _MAT_COMPRESSED:
            content = _inflate(stream, size, budget, _ZLIB_FORMAT)
            budget -= len(content)
            kind, matrix = next(_mat_elements(memoryview(content)), (None, None))
        else:
            # Checked first, since read() would allocate so many bytes.
            require(size <= file_bytes - stream.tell(), "truncated")
            matrix = memoryview(stream.read(size))
        require(kind == _MAT_MATRIX, "a variable is not a matrix")
        arrays |= _mat_array(matrix)
    return arrays


def _mat_array(matrix: memoryview) -> dict[bytes, np.ndarray]:
    """Returns name and value of a real numeric array, nothing for another variable."""
    # A real numeric array has four elements; a bomb may have millions.
    elements = list(itertools.islice(_mat_elements(matrix), 5))
    if len(elements) != 4 or elements[3][0] not in _MAT_NUMBERS:
        return {}
    _flags, (_, shape), (_, name), (kind, values) = elements
    array = np.frombuffer(values, _MAT_NUMBERS[kind])
    return {bytes(name): array.reshape(np.frombuffer(shape, "<u4"), order="F")}


def _mat_elements(content: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yields type and data of the elements that a MATLAB v5 element consists of."""
    start = 0
    while start < len(content):
        kind, size = struct.unpack_from("<II", content, start)
        start += 8
        if kind >> 16:  # The short form: 16 bits each of size and type, then the data.
            kind, size, start = kind & 0xFFFF, kind >> 16, start - 4
        end = start + size
        require(end <= len(content), "an element is truncated")
        yield kind, content[start:end]
        start = end + -end % 8

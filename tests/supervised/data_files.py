"""Small data files in the official formats, and what tests of their readers share."""

import contextlib
import gzip
import hashlib
import io
import struct
import tarfile
import tracemalloc

import numpy as np
import pytest
import scipy.io

from supervised.formats import DataError

ARCHIVE = "cifar-10-binary.tar.gz"
BATCH_FOLDER = "cifar-10-batches-bin"
BATCHES = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]


def refusal(load, *args):
    """Returns the message of the DataError that `load` must raise: one line."""
    with pytest.raises(DataError) as caught:
        load(*args)
    message = str(caught.value)
    assert "\n" not in message
    return message


def assert_well_formed(dataset, inputs):
    for split in filter(None, (dataset.train, dataset.validation, dataset.test)):
        assert_are_images(split.images, split.labels, inputs)


def assert_are_images(images, labels, inputs):
    assert images.dtype == labels.dtype == np.uint8
    assert images.shape == (len(labels), inputs)
    assert len(labels) > 0
    assert images.flags.c_contiguous
    assert labels.max() < 10


@contextlib.contextmanager
def peak_below(max_bytes):
    """Asserts that Python and numpy never hold more than `max_bytes` in the block."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < max_bytes
    finally:
        tracemalloc.stop()


def write_files(folder, contents):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def md5(content):
    return hashlib.md5(content).hexdigest()


def idx_content(*header, seed=0):
    count = int(np.prod(header[1:]))
    values = np.random.default_rng(seed).integers(0, 10, count, dtype=np.uint8)
    return struct.pack(f">{len(header)}i", *header) + values.tobytes()


def cifar_records(count, seed=0):
    rng = np.random.default_rng(seed)
    records = rng.integers(0, 256, (count, 3073), dtype=np.uint8)
    records[:, 0] %= 10
    return records


def cifar_batches(count=3):
    """Contents of the six official files, with `count` images each."""
    return {name: cifar_records(count, i).tobytes() for i, name in enumerate(BATCHES)}


def tar(members):
    """An archive with `members`, each a name with content or else a TarInfo."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                name, content = member
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def cifar_tar(batches=None, extra=()):
    batches = cifar_batches() if batches is None else batches
    folder = tarfile.TarInfo(BATCH_FOLDER)
    folder.type = tarfile.DIRTYPE
    files = [(f"{BATCH_FOLDER}/{name}", batches[name]) for name in sorted(batches)]
    return tar([folder, *extra, *files, (f"{BATCH_FOLDER}/readme.html", b"hello")])


def cifar_archive(batches=None, extra=()):
    return gzip.compress(cifar_tar(batches, extra))


def svhn_variables(count, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "X": rng.integers(0, 256, (32, 32, 3, count), dtype=np.uint8),
        "y": rng.integers(1, 11, (count, 1), dtype=np.uint8),
    }


def mat(variables, compressed=True, **options):
    stream = io.BytesIO()
    scipy.io.savemat(stream, variables, do_compression=compressed, **options)
    return stream.getvalue()


def svhn_files(train=None, test=None, compressed=True):
    return {
        "train_32x32.mat": mat(train or svhn_variables(4), compressed),
        "test_32x32.mat": mat(test or svhn_variables(2, seed=1), compressed),
    }


SMALL_MNIST = {
    "train-images-idx3-ubyte": idx_content(2051, 9, 28, 28, seed=0),
    "train-labels-idx1-ubyte": idx_content(2049, 9, seed=1),
    "t10k-images-idx3-ubyte": idx_content(2051, 4, 28, 28, seed=2),
    "t10k-labels-idx1-ubyte": idx_content(2049, 4, seed=3),
}

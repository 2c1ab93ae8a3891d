"""Tests of datasets.py; PATHNET_FUZZ_CASES sets how many damaged files each reader meets."""

import concurrent.futures
import contextlib
import gzip
import hashlib
import http.server
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import threading
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from fuzzing import FUZZ_CASES, damaged
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from supervised import datasets
from supervised.datasets import DataError, Split

ROOT = Path(datasets.__file__).parent.parent
ARCHIVE = "cifar-10-binary.tar.gz"
BATCH_FOLDER = "cifar-10-batches-bin"
TRAIN_BATCHES = [f"data_batch_{i}.bin" for i in range(1, 6)]
BATCHES = [*TRAIN_BATCHES, "test_batch.bin"]


# ---- Helpers ----


def md5(content):
    return hashlib.md5(content).hexdigest()


def refusal(load, *args):
    """Return the message of the DataError that `load` must raise: one line."""
    with pytest.raises(DataError) as caught:
        load(*args)
    message = str(caught.value)
    assert "\n" not in message
    return message


def assert_well_formed(dataset, inputs):
    for split in filter(None, (dataset.train, dataset.validation, dataset.test)):
        assert split.images.dtype == split.labels.dtype == np.uint8
        assert split.images.shape == (len(split.labels), inputs)
        assert len(split.labels) > 0
        assert split.images.flags.c_contiguous
        assert split.labels.max() < 10


@contextlib.contextmanager
def peak_below(max_bytes):
    """Assert that Python and numpy never hold more than `max_bytes` in the block."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < max_bytes
    finally:
        tracemalloc.stop()


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


def write_files(folder, contents):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


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


# ---- MNIST ----


SMALL_MNIST = {
    "train-images-idx3-ubyte": idx_content(2051, 9, 28, 28, seed=0),
    "train-labels-idx1-ubyte": idx_content(2049, 9, seed=1),
    "t10k-images-idx3-ubyte": idx_content(2051, 4, 28, 28, seed=2),
    "t10k-labels-idx1-ubyte": idx_content(2049, 4, seed=3),
}


@pytest.fixture
def small_mnist(tmp_path, monkeypatch):
    """A folder with a small stand-in that datasets.py takes for the official MNIST."""
    official = {
        name: (struct.unpack_from(f">{4 if 'images' in name else 2}i", raw), md5(raw))
        for name, raw in SMALL_MNIST.items()
    }
    monkeypatch.setattr(datasets, "MNIST_FILES", official)
    monkeypatch.setattr(datasets, "MNIST_VALIDATION", 2)
    packed = {f"{name}.gz": gzip.compress(raw) for name, raw in SMALL_MNIST.items()}
    return write_files(tmp_path / "mnist", packed)


def test_embedded_mnist_is_complete_and_split_as_usual():
    mnist = datasets.load_mnist()
    assert_well_formed(mnist, 784)
    splits = (mnist.train, mnist.validation, mnist.test)
    assert [len(split.labels) for split in splits] == [55_000, 5_000, 10_000]
    # The first digits of both files, as seen in every introduction to MNIST.
    assert mnist.validation.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert mnist.test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    with gzip.open(ROOT / "data/mnist/train-images-idx3-ubyte.gz") as stream:
        raw = stream.read()[16:]
    assert mnist.validation.images.tobytes() + mnist.train.images.tobytes() == raw


def test_mnist_readme_names_the_files_and_checksums():
    readme = (ROOT / "data/mnist/README.md").read_text()
    for name, (_, digest) in datasets.MNIST_FILES.items():
        assert f"{name}.gz" in readme
        assert digest in readme


def test_mnist_from_a_folder_with_or_without_gz(small_mnist, tmp_path):
    packed = datasets.load_mnist(str(small_mnist))
    assert_well_formed(packed, 784)
    assert [len(s.labels) for s in (packed.train, packed.validation)] == [7, 2]
    plain = datasets.load_mnist(str(write_files(tmp_path / "plain", SMALL_MNIST)))
    for name in ("train", "validation", "test"):
        one, other = getattr(packed, name), getattr(plain, name)
        assert np.array_equal(one.images, other.images)
        assert np.array_equal(one.labels, other.labels)


TEST_IMAGES = SMALL_MNIST["t10k-images-idx3-ubyte"]
PACKED_IMAGES = gzip.compress(TEST_IMAGES)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "truncated"),
        (PACKED_IMAGES[:-9], "truncated"),
        (PACKED_IMAGES + b"garbage", "foreign data"),
        (PACKED_IMAGES[:-8] + bytes(8), "incorrect data check"),
        (TEST_IMAGES, "incorrect header"),
        (gzip.compress(TEST_IMAGES[:-1]), "truncated"),
        (gzip.compress(TEST_IMAGES[:7]), "truncated"),
        (gzip.compress(TEST_IMAGES + b"x"), "unfolds to more"),
        (gzip.compress(b"\0\0\x08\x01" + TEST_IMAGES[4:]), "magic"),
        (gzip.compress(TEST_IMAGES[:-1] + b"\xff"), "checksum"),
    ],
)
def test_mnist_refuses_bad_gz_files(small_mnist, content, problem):
    path = small_mnist / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(content)
    message = refusal(datasets.load_mnist, str(small_mnist))
    assert str(path) in message
    assert problem in message


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "truncated"),
        (TEST_IMAGES[:-1], "truncated"),
        (TEST_IMAGES + b"x", "larger than the official file"),
        (TEST_IMAGES[::-1], "magic"),
    ],
)
def test_mnist_refuses_bad_plain_files(tmp_path, small_mnist, content, problem):
    plain = write_files(tmp_path / "plain", SMALL_MNIST)
    (plain / "t10k-images-idx3-ubyte").write_bytes(content)
    message = refusal(datasets.load_mnist, str(plain))
    assert str(plain / "t10k-images-idx3-ubyte") in message
    assert problem in message


def test_mnist_bomb_costs_little_memory(small_mnist):
    bomb = gzip.compress(bytes(200 * 2**20), 1)
    (small_mnist / "train-images-idx3-ubyte.gz").write_bytes(bomb)
    with peak_below(60 * 2**20):
        assert "unfolds to more" in refusal(datasets.load_mnist, str(small_mnist))


# ---- What all loaders refuse alike ----


def make_mnist(folder):
    return write_files(
        folder, {f"{name}.gz": gzip.compress(raw) for name, raw in SMALL_MNIST.items()}
    )


LOADERS = [
    (datasets.load_mnist, make_mnist, "t10k-labels-idx1-ubyte.gz"),
    (
        datasets.load_cifar10,
        lambda folder: write_files(folder, cifar_batches()),
        "data_batch_3.bin",
    ),
    (
        datasets.load_cifar10,
        lambda folder: write_files(folder, {ARCHIVE: cifar_archive()}),
        ARCHIVE,
    ),
    (
        datasets.load_svhn,
        lambda folder: write_files(folder, svhn_files()),
        "test_32x32.mat",
    ),
]
every_loader = pytest.mark.parametrize(
    ("load", "make", "name"), LOADERS, ids=[name for *_, name in LOADERS]
)


@every_loader
def test_missing_file(small_mnist, tmp_path, load, make, name):
    folder = make(tmp_path / "data")
    (folder / name).unlink()
    message = refusal(load, str(folder))
    assert name in message
    assert str(folder) in message


@every_loader
def test_folder_instead_of_file(small_mnist, tmp_path, load, make, name):
    folder = make(tmp_path / "data")
    (folder / name).unlink()
    (folder / name).mkdir()
    assert "not a regular file" in refusal(load, str(folder))


@every_loader
def test_pipe_instead_of_file_does_not_block(small_mnist, tmp_path, load, make, name):
    folder = make(tmp_path / "data")
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert "not a regular file" in refusal(load, str(folder))


@every_loader
def test_absurdly_large_file(small_mnist, tmp_path, load, make, name):
    folder = make(tmp_path / "data")
    os.truncate(folder / name, 2**33)  # A hole: it takes no room on the disk.
    with peak_below(2**20):
        assert "larger than the official file" in refusal(load, str(folder))


@every_loader
def test_unreadable_file(small_mnist, tmp_path, monkeypatch, load, make, name):
    folder = make(tmp_path / "data")
    real_open = Path.open

    def refuse(self, *args, **options):
        if self.name == name:
            raise PermissionError(13, "Permission denied", str(self))
        return real_open(self, *args, **options)

    monkeypatch.setattr(Path, "open", refuse)
    message = refusal(load, str(folder))
    assert str(folder / name) in message
    assert "Permission denied" in message


@every_loader
@pytest.mark.parametrize("data_dir", ["nowhere", "file", "two\nlines", "nul\0"])
def test_data_dir_that_is_no_folder(tmp_path, monkeypatch, load, make, name, data_dir):
    monkeypatch.chdir(tmp_path)
    Path("file").write_bytes(b"")
    message = refusal(load, data_dir)
    assert "no such folder" in message
    assert "--data_dir" in message


@every_loader
def test_data_dir_never_leads_to_a_download(tmp_path, monkeypatch, load, make, name):
    def fail(*args, **options):
        pytest.fail("the network was used")

    monkeypatch.setattr(socket.socket, "connect", fail)
    refusal(load, str(tmp_path))


# ---- CIFAR-10 ----


def test_cifar10_in_every_place_a_user_may_put_it(tmp_path):
    batches = cifar_batches()
    write_files(tmp_path / "folder" / BATCH_FOLDER, batches)
    write_files(tmp_path / "archive", {ARCHIVE: cifar_archive(batches)})
    records = np.frombuffer(b"".join(batches.values()), np.uint8).reshape(-1, 3073)
    for data_dir in ("folder", f"folder/{BATCH_FOLDER}", "archive"):
        cifar = datasets.load_cifar10(str(tmp_path / data_dir))
        assert_well_formed(cifar, 3072)
        assert cifar.validation is None
        assert cifar.train.labels.tolist() == records[:15, 0].tolist()
        assert cifar.test.labels.tolist() == records[15:, 0].tolist()
        # Plane, row, column in the file; row, column, channel in memory.
        images = np.concatenate([cifar.train.images, cifar.test.images])
        for row, column, channel in [(0, 0, 0), (3, 5, 1), (31, 30, 2)]:
            in_file = records[:, 1 + channel * 1024 + row * 32 + column]
            in_memory = images[:, (row * 32 + column) * 3 + channel]
            assert np.array_equal(in_memory, in_file)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        cifar_records(3).tobytes()[:-1],
        cifar_records(3).tobytes() + b"x",
        b"\x0a" + cifar_records(3).tobytes()[1:],
    ],
    ids=["empty", "truncated", "trailing", "label 10"],
)
def test_cifar10_refuses_bad_batches(tmp_path, content):
    batches = {**cifar_batches(), "data_batch_2.bin": content}
    write_files(tmp_path / "folder", batches)
    message = refusal(datasets.load_cifar10, str(tmp_path / "folder"))
    assert str(tmp_path / "folder" / "data_batch_2.bin") in message
    write_files(tmp_path / "archive", {ARCHIVE: cifar_archive(batches)})
    message = refusal(datasets.load_cifar10, str(tmp_path / "archive"))
    assert str(tmp_path / "archive" / ARCHIVE) in message


GOOD_ARCHIVE = cifar_archive()
FLIPPED_ARCHIVE = bytearray(GOOD_ARCHIVE)
FLIPPED_ARCHIVE[len(GOOD_ARCHIVE) // 2] ^= 1
NEGATIVE_SIZE = tarfile.TarInfo("negative")
NEGATIVE_SIZE.size = -1024
HUGE_SIZE = tarfile.TarInfo("huge")
HUGE_SIZE.size = 2**62


def member_header(info):
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "truncated"),
        (GOOD_ARCHIVE[:-30], "truncated"),
        (GOOD_ARCHIVE + b"x", "foreign data"),
        (bytes(FLIPPED_ARCHIVE), ""),
        (gzip.compress(b"no archive"), "header"),
        (gzip.compress(bytes(1024)), "is missing inside"),
        (gzip.compress(cifar_tar()[:20_000]), "truncated"),
        (gzip.compress(member_header(NEGATIVE_SIZE) + cifar_tar()), "truncated"),
        (gzip.compress(member_header(HUGE_SIZE) + cifar_tar()), "truncated"),
        (cifar_archive({"test_batch.bin": b""}), "data_batch_1.bin is missing"),
        (b"\xfd7zXZ\0" + GOOD_ARCHIVE, "incorrect header"),
    ],
)
def test_cifar10_refuses_bad_archives(tmp_path, content, problem):
    (tmp_path / ARCHIVE).write_bytes(content)
    message = refusal(datasets.load_cifar10, str(tmp_path))
    assert str(tmp_path / ARCHIVE) in message
    assert problem in message


def test_cifar10_archive_is_read_without_extracting_anything(tmp_path):
    link = tarfile.TarInfo(f"{BATCH_FOLDER}/link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    outside = [("../evil", b"evil"), (str(tmp_path / "evil"), b"evil"), link]
    folder = write_files(tmp_path / "in", {ARCHIVE: cifar_archive(extra=outside)})
    assert_well_formed(datasets.load_cifar10(str(folder)), 3072)
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert files == ["in", f"in/{ARCHIVE}"]


def test_cifar10_bomb_is_refused_in_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "MAX_BYTES", 20 * 2**20)
    bomb = gzip.compress(cifar_tar(extra=[("zeros", bytes(200 * 2**20))]), 1)
    (tmp_path / ARCHIVE).write_bytes(bomb)
    with peak_below(80 * 2**20):
        assert "unfolds to more" in refusal(datasets.load_cifar10, str(tmp_path))


@settings(deadline=None, max_examples=40)
@given(
    st.dictionaries(
        st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=90)
        .map(lambda name: name.strip("/"))
        .filter(bool),
        st.binary(max_size=1500),
    )
)
def test_tar_members_are_those_that_tarfile_packs(files):
    content = memoryview(tar(list(files.items())))
    members = {name: bytes(data) for name, data in datasets._tar_members(content)}
    assert members == files


# ---- SVHN ----


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("label_type", [np.uint8, np.float64])
def test_svhn_pixels_and_labels(tmp_path, compressed, label_type):
    train = svhn_variables(12)
    train["y"] = (np.arange(12) % 10 + 1).astype(label_type).reshape(-1, 1)
    write_files(tmp_path, svhn_files(train=train, compressed=compressed))
    svhn = datasets.load_svhn(str(tmp_path))
    assert_well_formed(svhn, 3072)
    assert svhn.validation is None
    assert svhn.train.labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2]
    assert np.array_equal(
        svhn.train.images.reshape(12, 32, 32, 3), np.moveaxis(train["X"], -1, 0)
    )


def test_svhn_and_cifar10_agree_on_the_pixel_order(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    planes = pictures.transpose(0, 3, 1, 2).reshape(2, 3072)
    batch = np.insert(planes, 0, 7, axis=1).tobytes()
    write_files(tmp_path, {**cifar_batches(), "test_batch.bin": batch})
    test = {"X": pictures.transpose(1, 2, 3, 0), "y": np.full((2, 1), 7)}
    write_files(tmp_path, svhn_files(test=test))
    cifar = datasets.load_cifar10(str(tmp_path)).test
    svhn = datasets.load_svhn(str(tmp_path)).test
    assert np.array_equal(cifar.images, svhn.images)
    assert np.array_equal(cifar.images, pictures.reshape(2, 3072))
    assert cifar.labels.tolist() == svhn.labels.tolist() == [7, 7]


def test_svhn_skips_other_variables(tmp_path):
    extra = {
        "text": "hello",
        "cells": np.array([1, "two"], object),
        "structure": {"a": 1.0, "b": "two"},
        "complex": np.array([1j]),
        "sparse": scipy.sparse.eye_array(3).tocsc(),
        "nothing": np.zeros((0, 3)),
    }
    for compressed in (True, False):
        train = {**extra, **svhn_variables(4)}
        write_files(tmp_path, svhn_files(train=train, compressed=compressed))
        assert_well_formed(datasets.load_svhn(str(tmp_path)), 3072)


GOOD = svhn_variables(4)


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"X": GOOD["X"]}, "no numeric variables X and y"),
        ({"y": GOOD["y"]}, "no numeric variables X and y"),
        ({**GOOD, "y": "1234"}, "no numeric variables X and y"),
        ({**GOOD, "X": GOOD["X"].astype(np.uint16)}, "X is not uint8"),
        ({**GOOD, "X": GOOD["X"][..., 0]}, "X is not uint8"),
        ({**GOOD, "X": GOOD["X"][:31]}, "X is not uint8"),
        ({**GOOD, "X": GOOD["X"][..., :0], "y": GOOD["y"][:0]}, "X is not uint8"),
        ({**GOOD, "y": GOOD["y"][:3]}, "y does not hold"),
        ({**GOOD, "y": GOOD["y"] * 0}, "y does not hold"),
        ({**GOOD, "y": GOOD["y"] * 0 + 11}, "y does not hold"),
        ({**GOOD, "y": GOOD["y"] * 0 + 1.5}, "y does not hold"),
        ({**GOOD, "y": GOOD["y"] * np.nan}, "y does not hold"),
    ],
)
@pytest.mark.parametrize("compressed", [True, False])
def test_svhn_refuses_foreign_variables(tmp_path, variables, problem, compressed):
    write_files(tmp_path, svhn_files(train=variables, compressed=compressed))
    message = refusal(datasets.load_svhn, str(tmp_path))
    assert str(tmp_path / "train_32x32.mat") in message
    assert problem in message


PLAIN_MAT = mat(GOOD, compressed=False)
PACKED_MAT = mat(GOOD, compressed=True)
FLIPPED_MAT = bytearray(PACKED_MAT)
FLIPPED_MAT[len(PACKED_MAT) // 2] ^= 1
PIXELS_TAG = struct.pack("<II", 2, GOOD["X"].size)
assert PLAIN_MAT.count(PIXELS_TAG) == 1


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "not a MATLAB v5 file"),
        (PLAIN_MAT[:100], "not a MATLAB v5 file"),
        (PLAIN_MAT[:128], "no numeric variables X and y"),
        (PLAIN_MAT[:5000], "truncated"),
        (mat(svhn_variables(5), compressed=False)[:-1], "truncated"),  # In padding.
        (PACKED_MAT[:5000], "truncated"),
        (PACKED_MAT[:-1], "truncated"),
        (PLAIN_MAT + b"x", "buffer"),
        (PLAIN_MAT + b"some more garbage", ""),
        (bytes(FLIPPED_MAT), ""),
        (mat({"X": GOOD["X"][..., 0, 0]}, format="4"), "not a MATLAB v5 file"),
        (PLAIN_MAT[:124] + b"\x01\x00MI", "not a MATLAB v5 file"),
        (PLAIN_MAT[:124] + b"\x00\x02IM", "not a MATLAB v5 file"),
        # Types outside the table, which make scipy.io.loadmat crash.
        (PLAIN_MAT.replace(PIXELS_TAG, struct.pack("<II", 8, 12288)), "no numeric"),
        (PLAIN_MAT.replace(PIXELS_TAG, struct.pack("<II", 60000, 12288)), "no numeric"),
        (PLAIN_MAT.replace(PIXELS_TAG, struct.pack("<II", 2, 2**32 - 1)), "truncated"),
        (PLAIN_MAT[:128] + struct.pack("<II", 14, 2**32 - 1), "larger than"),
        (PLAIN_MAT[:128] + struct.pack("<II", 14, 300 * 2**20), "truncated"),
        (PLAIN_MAT[:128] + struct.pack("<II", 15, 2**32 - 1), "larger than"),
        (PLAIN_MAT[:128] + struct.pack("<II", 15, 0), "truncated"),
        (PLAIN_MAT[:128] + struct.pack("<II", 15, 8) + zlib.compress(b""), "matrix"),
        (PLAIN_MAT[:128] + struct.pack("<II", 2, 8) + bytes(8), "matrix"),
    ],
)
def test_svhn_refuses_bad_files(tmp_path, content, problem):
    write_files(tmp_path, {**svhn_files(), "train_32x32.mat": content})
    with peak_below(2**20):
        message = refusal(datasets.load_svhn, str(tmp_path))
    assert str(tmp_path / "train_32x32.mat") in message
    assert problem in message


def test_svhn_claim_of_a_huge_array_allocates_nothing(tmp_path):
    shape = np.array([32, 32, 3, 4], "<i4").tobytes()
    assert PLAIN_MAT.count(shape) == 1
    for claim in ([32, 32, 3, 2**31 - 1], [-1, -1, -1, -1], [2**31 - 1] * 4):
        content = PLAIN_MAT.replace(shape, np.array(claim, "<i4").tobytes())
        write_files(tmp_path, {**svhn_files(), "train_32x32.mat": content})
        with peak_below(2**20):
            refusal(datasets.load_svhn, str(tmp_path))


def test_svhn_bombs_share_one_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "MAX_BYTES", 20 * 2**20)
    for count in (1, 12):
        zeros = np.zeros((120 // count) * 2**20, np.uint8)
        bomb = mat({f"z{i}": zeros for i in range(count)})
        write_files(tmp_path, {**svhn_files(), "train_32x32.mat": bomb})
        with peak_below(80 * 2**20):
            assert "unfolds to more" in refusal(datasets.load_svhn, str(tmp_path))


def test_svhn_bomb_of_empty_elements_costs_little_memory(tmp_path):
    matrix = struct.pack("<II", 14, 16 * 2**20) + bytes(16 * 2**20)
    content = recompressed_mat(PLAIN_MAT[:128] + matrix)
    write_files(tmp_path, {**svhn_files(), "train_32x32.mat": content})
    with peak_below(60 * 2**20):
        assert "no numeric" in refusal(datasets.load_svhn, str(tmp_path))


NUMBERS = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"]


@settings(deadline=None, max_examples=60)
@given(
    st.dictionaries(
        st.from_regex("[a-zA-Z][a-zA-Z0-9_]{0,30}", fullmatch=True),
        st.sampled_from(NUMBERS).flatmap(
            lambda kind: hnp.arrays(
                kind, hnp.array_shapes(min_dims=2, max_dims=4, max_side=4)
            )
        ),
    ),
    st.booleans(),
)
def test_read_mat_agrees_with_what_scipy_writes(variables, compressed):
    arrays = datasets._read_mat(io.BytesIO(mat(variables, compressed)))
    assert arrays.keys() == {name.encode() for name in variables}
    for name, expected in variables.items():
        actual = arrays[name.encode()]
        assert actual.dtype == expected.dtype
        np.testing.assert_array_equal(actual, expected)


# ---- Checksums of a user's files ----


def test_unofficial_files_are_mentioned_in_one_line(tmp_path, capsys):
    write_files(tmp_path / "a" / BATCH_FOLDER, cifar_batches())
    datasets.load_cifar10(str(tmp_path / "a"))
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert str(tmp_path / "a" / BATCH_FOLDER) in line
    assert all(name in line for name in BATCHES)

    write_files(tmp_path / "b", {ARCHIVE: cifar_archive(), **svhn_files()})
    datasets.load_cifar10(str(tmp_path / "b"))
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert str(tmp_path / "b") in line
    assert ARCHIVE in line

    datasets.load_svhn(str(tmp_path / "b"))
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "train_32x32.mat, test_32x32.mat" in line


def test_official_files_are_not_mentioned(tmp_path, monkeypatch, capsys):
    batches, archive, svhn = cifar_batches(), cifar_archive(), svhn_files()
    digests = {name: hashlib.sha1(raw).hexdigest() for name, raw in batches.items()}
    monkeypatch.setattr(datasets, "CIFAR_BATCHES", digests)
    downloads = {name: ("", md5(raw)) for name, raw in svhn.items()}
    downloads[ARCHIVE] = ("", md5(archive))
    monkeypatch.setattr(datasets, "DOWNLOADS", downloads)
    datasets.load_cifar10(str(write_files(tmp_path / "a", batches)))
    datasets.load_cifar10(str(write_files(tmp_path / "b", {ARCHIVE: archive})))
    datasets.load_svhn(str(write_files(tmp_path / "c", svhn)))
    assert capsys.readouterr() == ("", "")


# ---- Downloads ----


class Site(http.server.ThreadingHTTPServer):
    """A local stand-in for the official sites; `behaviour` says how it answers.

    "good", "slow" (until another request comes, or a second has passed), "missing",
    "wrong", "short" (ends early), "cut" (is reset) or "stuck" (sends half, then waits).
    """

    daemon_threads = True

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), SiteHandler)
        self.files = files
        self.behaviour = "good"
        self.requests = []
        self.another_request = threading.Event()
        self.half_sent = threading.Event()
        self.closing = threading.Event()

    def downloads(self):
        address = f"http://127.0.0.1:{self.server_port}"
        return {
            name: (f"{address}/{name}", md5(raw)) for name, raw in self.files.items()
        }

    def handle_error(self, request, client_address):
        """Keep quiet about clients that were killed."""


class SiteHandler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        site, name = self.server, self.path[1:]
        site.requests.append(name)
        if len(site.requests) > 1:
            site.another_request.set()
        if site.behaviour == "slow":
            site.another_request.wait(1)
        if site.behaviour == "missing":
            self.send_error(404)
            return
        content = site.files[name]
        half = content[: len(content) // 2]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if site.behaviour == "wrong":
            self.wfile.write(content[::-1])
        elif site.behaviour == "short":
            self.wfile.write(half)
        elif site.behaviour == "cut":
            self.wfile.write(half)
            self.wfile.flush()
            reset_on_close = struct.pack("ii", 1, 0)
            self.connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, reset_on_close
            )
            self.connection.close()
        elif site.behaviour == "stuck":
            self.wfile.write(half)
            self.wfile.flush()
            site.half_sent.set()
            site.closing.wait(20)
        else:
            self.wfile.write(content)

    def log_message(self, *args):
        """Keep quiet."""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder, not there yet, that is the user's cache during the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "home cache" / "pathnet"


@pytest.fixture
def site(cache, monkeypatch):
    # Large enough that half of it is more than one chunk.
    files = {ARCHIVE: cifar_archive(cifar_batches(count=20)), **svhn_files()}
    with Site(files) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        monkeypatch.setattr(datasets, "DOWNLOADS", server.downloads())
        yield server
        server.closing.set()
        server.shutdown()


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def loader_process(site):
    """Start a process that loads CIFAR-10 from the site or the cache."""
    code = (
        "import json, sys; from supervised import datasets\n"
        "datasets.DOWNLOADS = json.loads(sys.argv[1])\n"
        "datasets.load_cifar10()\n"
    )
    downloads = json.dumps(site.downloads())
    return subprocess.Popen([sys.executable, "-c", code, downloads], cwd=ROOT)


def test_download_once_then_use_the_cache(site, cache, capsys):
    for _ in range(2):
        assert_well_formed(datasets.load_cifar10(), 3072)
        assert_well_formed(datasets.load_svhn(), 3072)
    assert site.requests == [ARCHIVE, "train_32x32.mat", "test_32x32.mat"]
    for name, content in site.files.items():
        assert (cache / name).read_bytes() == content
    locks = [f"{name}.lock" for name in site.files]
    assert names_in(cache) == sorted([*site.files, *locks])
    assert capsys.readouterr() == ("", "")  # No progress bar: this is no terminal.


@pytest.mark.parametrize(
    ("behaviour", "problem"),
    [
        ("missing", "HTTP status 404"),
        ("wrong", "not the official checksum"),
        ("short", "cannot be downloaded"),
        ("cut", "cannot be downloaded"),
    ],
)
def test_failed_download_leaves_nothing_behind(site, cache, capsys, behaviour, problem):
    site.behaviour = behaviour
    message = refusal(datasets.load_cifar10)
    assert problem in message
    assert site.downloads()[ARCHIVE][0] in message
    assert names_in(cache) == [f"{ARCHIVE}.lock"]
    assert capsys.readouterr() == ("", "")
    site.behaviour = "good"
    assert_well_formed(datasets.load_cifar10(), 3072)


@pytest.mark.parametrize(
    ("load", "names"),
    [
        (datasets.load_cifar10, [ARCHIVE]),
        (datasets.load_svhn, ["train_32x32.mat", "test_32x32.mat"]),
    ],
)
def test_without_network_the_message_says_what_to_put_where(
    cache, monkeypatch, load, names
):
    with socket.socket() as unused:  # Bound but not listening: connections fail.
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/x"
        monkeypatch.setattr(datasets, "DOWNLOADS", {name: (url, "") for name in names})
        message = refusal(load)
    for part in (*names, str(cache), "--data_dir", url):
        assert part in message


def test_files_put_into_the_cache_by_hand_are_used(site, cache):
    write_files(cache, site.files)
    datasets.load_cifar10()
    datasets.load_svhn()
    assert site.requests == []


def test_damaged_file_in_the_cache_is_refused_and_kept(site, cache):
    write_files(cache, {ARCHIVE: site.files[ARCHIVE][:-1]})
    message = refusal(datasets.load_cifar10)
    assert "not the official checksum" in message
    assert str(cache / ARCHIVE) in message
    assert names_in(cache) == [ARCHIVE]
    assert site.requests == []


@pytest.mark.parametrize("obstacle", ["", "pathnet", f"pathnet/{ARCHIVE}"])
def test_cache_that_cannot_be_used(site, cache, obstacle):
    obstacle = cache.parent / obstacle
    obstacle.parent.mkdir(parents=True, exist_ok=True)
    if obstacle.name == ARCHIVE:
        obstacle.mkdir()
    else:
        obstacle.write_bytes(b"not a folder")
    assert str(cache / ARCHIVE) in refusal(datasets.load_cifar10)


def test_killed_download_leaves_nothing_that_lasts(site, cache):
    site.behaviour = "stuck"
    for _ in range(2):
        site.half_sent.clear()
        with loader_process(site) as process:
            assert site.half_sent.wait(20)
            process.send_signal(signal.SIGKILL)
        assert not (cache / ARCHIVE).exists()
        assert len(names_in(cache)) <= 2
    site.behaviour = "good"
    assert_well_formed(datasets.load_cifar10(), 3072)
    assert names_in(cache) == [ARCHIVE, f"{ARCHIVE}.lock"]


def test_processes_share_one_download(site, cache):
    site.behaviour = "slow"
    processes = [loader_process(site) for _ in range(2)]
    assert [process.wait(30) for process in processes] == [0, 0]
    assert site.requests == [ARCHIVE]


def test_threads_share_one_download(site, cache):
    site.behaviour = "slow"
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        tasks = [pool.submit(datasets.load_cifar10) for _ in range(4)]
    for task in tasks:
        assert_well_formed(task.result(), 3072)
    assert site.requests == [ARCHIVE]


# ---- Damaged files at random ----


def same(content):
    return content


def recompressed_mat(content):
    """Compress each variable of a MATLAB file that was damaged uncompressed."""
    packed = zlib.compress(content[128:], 1)
    return content[:128] + struct.pack("<II", 15, len(packed)) + packed


LABELS = "t10k-labels-idx1-ubyte"
READERS = {
    # Loader, name of the file, content to damage, what is done to it afterwards.
    "mnist": (datasets.load_mnist, f"{LABELS}.gz", SMALL_MNIST[LABELS], gzip.compress),
    "mnist gz": (
        datasets.load_mnist,
        f"{LABELS}.gz",
        gzip.compress(SMALL_MNIST[LABELS]),
        same,
    ),
    "cifar10": (
        datasets.load_cifar10,
        "test_batch.bin",
        cifar_records(2).tobytes(),
        same,
    ),
    "cifar10 tar": (datasets.load_cifar10, ARCHIVE, cifar_tar(), gzip.compress),
    "cifar10 gz": (datasets.load_cifar10, ARCHIVE, cifar_archive(), same),
    "svhn": (datasets.load_svhn, "test_32x32.mat", PLAIN_MAT, same),
    "svhn packed": (datasets.load_svhn, "test_32x32.mat", PACKED_MAT, same),
    "svhn repacked": (
        datasets.load_svhn,
        "test_32x32.mat",
        mat({"X": GOOD["X"]}, compressed=False),
        recompressed_mat,
    ),
}


@pytest.mark.parametrize("reader", READERS)
def test_damaged_files_are_refused_or_read_well(small_mnist, tmp_path, reader):
    load, name, content, pack = READERS[reader]
    if load is datasets.load_mnist:
        folder, inputs = small_mnist, 784
    elif name == ARCHIVE:
        folder, inputs = write_files(tmp_path / "cifar10", {}), 3072
    else:
        folder, inputs = write_files(tmp_path / "all", cifar_batches()), 3072
        write_files(folder, svhn_files())
    refused = 0
    # Far above what these small files unfold to, far below what a length field can ask.
    with peak_below(2**25):
        for seed in range(FUZZ_CASES):
            damage = damaged(content, np.random.default_rng(seed))
            (folder / name).write_bytes(pack(damage))
            try:
                with warnings.catch_warnings(action="error"):
                    dataset = load(str(folder))
            except DataError as error:
                refused += 1
                assert str(folder / name) in str(error), f"seed {seed}"
            else:
                assert_well_formed(dataset, inputs)
    assert refused > FUZZ_CASES / 4


# ---- Transformations ----


labelled_images = st.integers(0, 30).flatmap(
    lambda count: st.builds(
        Split,
        hnp.arrays(np.uint8, (count, 4)),
        hnp.arrays(np.uint8, count, elements=st.integers(0, 9)),
    )
)


@given(labelled_images, st.permutations(range(10)))
def test_two_classes_keeps_order_and_relabels(split, digits):
    first, second = digits[:2]
    pair = datasets.two_classes(split, first, second)
    expected = [
        (image.tolist(), int(label == second))
        for image, label in zip(split.images, split.labels, strict=True)
        if label in (first, second)
    ]
    actual = zip(pair.images.tolist(), pair.labels.tolist(), strict=True)
    assert list(actual) == expected
    assert pair.images.dtype == pair.labels.dtype == np.uint8
    assert pair.images.flags.c_contiguous


def test_two_classes_must_differ():
    with pytest.raises(ValueError, match="both 3"):
        datasets.two_classes(Split(np.zeros((1, 4)), np.zeros(1)), 3, 3)


@given(
    hnp.arrays(np.uint8, hnp.array_shapes(max_dims=3)),
    st.sampled_from(["salt", "salt_and_pepper", "none"]),
    st.integers(0, 2**32),
)
def test_noise_keeps_the_form_and_the_input(images, noise, seed):
    before = images.copy()
    noisy = datasets.add_noise(images, noise, np.random.default_rng(seed))
    again = datasets.add_noise(images, noise, np.random.default_rng(seed))
    assert np.array_equal(images, before)
    assert np.array_equal(noisy, again)
    assert noisy.dtype == np.uint8
    assert noisy.shape == images.shape
    if noise == "salt":
        assert (noisy >= images).all()
    elif noise == "salt_and_pepper":
        assert ((noisy == images) | (noisy == 0) | (noisy == 255)).all()
    else:
        assert np.array_equal(noisy, images)


# With a million pixels, a share of one half has a standard deviation of 0.0005.
MANY = (1000, 1000)


def noisy_levels(level, noise):
    images = np.full(MANY, level, np.uint8)
    return datasets.add_noise(images, noise, np.random.default_rng(0))


def test_salt_is_uniform_from_one_half_to_one():
    noisy = noisy_levels(0, "salt")
    salt = noisy[noisy > 0]
    assert salt.size / noisy.size == pytest.approx(0.5, abs=0.003)
    assert salt.min() / 255 >= 0.5
    assert salt.max() / 255 < 1
    levels, counts = np.unique(salt, return_counts=True)
    assert levels.tolist() == list(range(128, 255))
    # Some 3,940 pixels at each of the 127 levels; five standard deviations are 8 %.
    assert counts * 127 / salt.size == pytest.approx(1, abs=0.08)


def test_salt_is_added_and_clipped():
    for level in (1, 100, 127, 200, 255):
        expected = np.minimum(level + noisy_levels(0, "salt").astype(int), 255)
        assert np.array_equal(noisy_levels(level, "salt"), expected)


def test_salt_and_pepper_shares():
    noisy = noisy_levels(100, "salt_and_pepper")
    levels, counts = np.unique(noisy, return_counts=True)
    assert levels.tolist() == [0, 100, 255]
    assert counts / noisy.size == pytest.approx([0.25, 0.5, 0.25], abs=0.003)


@pytest.mark.parametrize("noise", ["salt", "salt_and_pepper"])
def test_noise_of_neighbours_is_independent(noise):
    noisy = noisy_levels(100, noise).astype(float)
    for one, other in [
        (noisy[:, 1:], noisy[:, :-1]),
        (noisy[1:], noisy[:-1]),
        (noisy[:, 4:], noisy[:, :-4]),
    ]:
        correlation = np.corrcoef(one.ravel(), other.ravel())[0, 1]
        assert abs(correlation) < 0.006


def test_noise_is_thrifty_with_memory():
    images = np.zeros((12_000, 784), np.uint8)
    for noise in ("salt", "salt_and_pepper"):
        with peak_below(5 * images.nbytes):
            datasets.add_noise(images, noise, np.random.default_rng(0))


def test_unknown_noise():
    with pytest.raises(ValueError, match="'pepper'"):
        datasets.add_noise(np.zeros(4, np.uint8), "pepper", np.random.default_rng(0))


# ---- Generated data ----


def accuracy_of_softmax_regression(dataset, classes):
    """Train on the training split by gradient descent, return the test accuracy."""
    train, test = (split.images / 255 for split in (dataset.train, dataset.test))
    weights = np.zeros((train.shape[1], classes))
    targets = np.eye(classes)[dataset.train.labels]
    for _ in range(50):
        scores = np.exp(train @ weights)
        shares = scores / scores.sum(axis=1, keepdims=True)
        weights += 0.01 * train.T @ (targets - shares) / len(train)
    return np.mean((test @ weights).argmax(axis=1) == dataset.test.labels)


@pytest.mark.parametrize(("inputs", "classes"), [(784, 2), (784, 10), (3072, 10)])
def test_fake_data_is_well_formed_and_learnable(inputs, classes):
    dataset = datasets.fake(inputs, classes, 300, 200, np.random.default_rng(0))
    assert_well_formed(dataset, inputs)
    assert dataset.validation is None
    for split, count in ((dataset.train, 300), (dataset.test, 200)):
        assert np.bincount(split.labels).tolist() == [count // classes] * classes
    assert accuracy_of_softmax_regression(dataset, classes) > 0.99


def test_fake_data_depends_on_the_generator_alone():
    one, same_again, other = (
        datasets.fake(16, 3, 7, 5, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert np.array_equal(one.train.images, same_again.train.images)
    assert np.array_equal(one.test.labels, same_again.test.labels)
    assert not np.array_equal(one.train.images, other.train.images)


def test_data_error_is_one_line():
    assert str(DataError("a\nb\r\nc")) == "a b c"

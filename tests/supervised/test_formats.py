"""Tests of formats.py; PATHNET_FUZZ_CASES sets how many damaged files each reader meets."""

import gzip
import io
import struct
import tarfile
import warnings
import zlib

import numpy as np
import pytest
import scipy.io
from data_files import (
    ARCHIVE,
    BATCH_FOLDER,
    BATCHES,
    SMALL_MNIST,
    assert_are_images,
    cifar_archive,
    cifar_batches,
    cifar_records,
    cifar_tar,
    mat,
    md5,
    peak_below,
    refusal,
    svhn_variables,
    tar,
    write_files,
)
from fuzzing import FUZZ_CASES, damaged
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from supervised import formats
from supervised.formats import DataError

# ---- MNIST ----


TEST_IMAGES = SMALL_MNIST["t10k-images-idx3-ubyte"]
OFFICIAL = (2051, 4, 28, 28), md5(TEST_IMAGES)
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
def test_bad_gz_files_of_mnist_are_refused(tmp_path, content, problem):
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(content)
    message = refusal(formats.read_idx, path, *OFFICIAL)
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
def test_bad_plain_files_of_mnist_are_refused(tmp_path, content, problem):
    path = tmp_path / "t10k-images-idx3-ubyte"
    path.write_bytes(content)
    message = refusal(formats.read_idx, path, *OFFICIAL)
    assert str(path) in message
    assert problem in message


def test_a_bomb_in_place_of_mnist_costs_little_memory(tmp_path):
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(bytes(200 * 2**20), 1))
    with peak_below(60 * 2**20):
        assert "unfolds to more" in refusal(formats.read_idx, path, *OFFICIAL)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_values(tmp_path, suffix):
    path = tmp_path / f"images{suffix}"
    path.write_bytes(PACKED_IMAGES if suffix else TEST_IMAGES)
    images = formats.read_idx(path, *OFFICIAL)
    assert images.shape == (4, 784)
    assert images.tobytes() == TEST_IMAGES[16:]
    labels = SMALL_MNIST["t10k-labels-idx1-ubyte"]
    path.write_bytes(gzip.compress(labels) if suffix else labels)
    values = formats.read_idx(path, (2049, 4), md5(labels))
    assert values.tolist() == list(labels[8:])


# ---- CIFAR-10 ----


MEMBERS = [f"{BATCH_FOLDER}/{name}" for name in BATCHES]


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
def test_bad_batches_of_cifar10_are_refused(tmp_path, content):
    batch, archive = tmp_path / "data_batch_2.bin", tmp_path / ARCHIVE
    batch.write_bytes(content)
    assert str(batch) in refusal(formats.read_cifar_batch, batch)
    batches = {**cifar_batches(), "data_batch_2.bin": content}
    archive.write_bytes(cifar_archive(batches))
    assert str(archive) in refusal(formats.read_cifar_archive, archive, MEMBERS)


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
def test_bad_archives_of_cifar10_are_refused(tmp_path, content, problem):
    archive = tmp_path / ARCHIVE
    archive.write_bytes(content)
    message = refusal(formats.read_cifar_archive, archive, MEMBERS)
    assert str(archive) in message
    assert problem in message


def test_an_archive_of_cifar10_is_read_without_extracting_anything(tmp_path):
    link = tarfile.TarInfo(f"{BATCH_FOLDER}/link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    outside = [("../evil", b"evil"), (str(tmp_path / "evil"), b"evil"), link]
    folder = write_files(tmp_path / "in", {ARCHIVE: cifar_archive(extra=outside)})
    batches = formats.read_cifar_archive(folder / ARCHIVE, MEMBERS)
    assert len(batches) == len(MEMBERS)
    for images, labels in batches:
        assert_are_images(images, labels, 3072)
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert files == ["in", f"in/{ARCHIVE}"]


def test_a_bomb_in_an_archive_is_refused_in_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "MAX_BYTES", 20 * 2**20)
    bomb = gzip.compress(cifar_tar(extra=[("zeros", bytes(200 * 2**20))]), 1)
    archive = tmp_path / ARCHIVE
    archive.write_bytes(bomb)
    with peak_below(80 * 2**20):
        message = refusal(formats.read_cifar_archive, archive, MEMBERS)
    assert "unfolds to more" in message


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
    members = {name: bytes(data) for name, data in formats._tar_members(content)}
    assert members == files


# ---- SVHN ----


def svhn_file(folder, content):
    path = folder / "train_32x32.mat"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("label_type", [np.uint8, np.float64])
def test_svhn_pixels_and_labels(tmp_path, compressed, label_type):
    variables = svhn_variables(12)
    variables["y"] = (np.arange(12) % 10 + 1).astype(label_type).reshape(-1, 1)
    path = svhn_file(tmp_path, mat(variables, compressed))
    images, labels = formats.read_svhn(path)
    assert_are_images(images, labels, 3072)
    assert labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2]
    assert np.array_equal(
        images.reshape(12, 32, 32, 3), np.moveaxis(variables["X"], -1, 0)
    )


def test_other_variables_are_skipped(tmp_path):
    extra = {
        "text": "hello",
        "cells": np.array([1, "two"], object),
        "structure": {"a": 1.0, "b": "two"},
        "complex": np.array([1j]),
        "sparse": scipy.sparse.eye_array(3).tocsc(),
        "nothing": np.zeros((0, 3)),
    }
    for compressed in (True, False):
        content = mat({**extra, **svhn_variables(4)}, compressed)
        images, labels = formats.read_svhn(svhn_file(tmp_path, content))
        assert_are_images(images, labels, 3072)


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
def test_foreign_variables_are_refused(tmp_path, variables, problem, compressed):
    path = svhn_file(tmp_path, mat(variables, compressed))
    message = refusal(formats.read_svhn, path)
    assert str(path) in message
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
def test_bad_files_of_svhn_are_refused(tmp_path, content, problem):
    path = svhn_file(tmp_path, content)
    with peak_below(2**20):
        message = refusal(formats.read_svhn, path)
    assert str(path) in message
    assert problem in message


def test_the_claim_of_a_huge_array_allocates_nothing(tmp_path):
    shape = np.array([32, 32, 3, 4], "<i4").tobytes()
    assert PLAIN_MAT.count(shape) == 1
    for claim in ([32, 32, 3, 2**31 - 1], [-1, -1, -1, -1], [2**31 - 1] * 4):
        content = PLAIN_MAT.replace(shape, np.array(claim, "<i4").tobytes())
        path = svhn_file(tmp_path, content)
        with peak_below(2**20):
            refusal(formats.read_svhn, path)


def test_bombs_in_one_file_share_one_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "MAX_BYTES", 20 * 2**20)
    for count in (1, 12):
        zeros = np.zeros((120 // count) * 2**20, np.uint8)
        bomb = mat({f"z{i}": zeros for i in range(count)})
        path = svhn_file(tmp_path, bomb)
        with peak_below(80 * 2**20):
            assert "unfolds to more" in refusal(formats.read_svhn, path)


def test_a_bomb_of_empty_elements_costs_little_memory(tmp_path):
    matrix = struct.pack("<II", 14, 16 * 2**20) + bytes(16 * 2**20)
    content = recompressed_mat(PLAIN_MAT[:128] + matrix)
    path = svhn_file(tmp_path, content)
    with peak_below(60 * 2**20):
        assert "no numeric" in refusal(formats.read_svhn, path)


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
    arrays = formats._read_mat(io.BytesIO(mat(variables, compressed)))
    assert arrays.keys() == {name.encode() for name in variables}
    for name, expected in variables.items():
        actual = arrays[name.encode()]
        assert actual.dtype == expected.dtype
        np.testing.assert_array_equal(actual, expected)


# ---- Damaged files at random ----


def same(content):
    return content


def recompressed_mat(content):
    """Compress each variable of a MATLAB file that was damaged uncompressed."""
    packed = zlib.compress(content[128:], 1)
    return content[:128] + struct.pack("<II", 15, len(packed)) + packed


def read_labels(path):
    """Labels of MNIST, with as many images as an IDX file of labels alone lacks."""
    labels = formats.read_idx(path, (2049, 4), md5(LABELS))
    return np.zeros([len(labels), 784], np.uint8), labels


def read_archive(path):
    return map(np.concatenate, zip(*formats.read_cifar_archive(path, MEMBERS)))


LABELS = SMALL_MNIST["t10k-labels-idx1-ubyte"]
READERS = {
    # Reader, name of the file, content to damage, what is done to it afterwards.
    "mnist": (read_labels, "labels.gz", LABELS, gzip.compress),
    "mnist gz": (read_labels, "labels.gz", gzip.compress(LABELS), same),
    "cifar10": (
        formats.read_cifar_batch,
        "test_batch.bin",
        cifar_records(2).tobytes(),
        same,
    ),
    "cifar10 tar": (read_archive, ARCHIVE, cifar_tar(), gzip.compress),
    "cifar10 gz": (read_archive, ARCHIVE, cifar_archive(), same),
    "svhn": (formats.read_svhn, "test_32x32.mat", PLAIN_MAT, same),
    "svhn packed": (formats.read_svhn, "test_32x32.mat", PACKED_MAT, same),
    "svhn repacked": (
        formats.read_svhn,
        "test_32x32.mat",
        mat({"X": GOOD["X"]}, compressed=False),
        recompressed_mat,
    ),
}


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_refused_or_read_well(tmp_path, name):
    read, file, content, pack = READERS[name]
    path = tmp_path / file
    refused = 0
    # Far above what these small files unfold to, far below what a length field can ask.
    with peak_below(2**25):
        for seed in range(FUZZ_CASES):
            damage = damaged(content, np.random.default_rng(seed))
            path.write_bytes(pack(damage))
            try:
                with warnings.catch_warnings(action="error"):
                    images, labels = read(path)
            except DataError as error:
                refused += 1
                assert str(path) in str(error), f"seed {seed}"
            else:
                inputs = 784 if read is read_labels else 3072
                assert_are_images(images, labels, inputs)
    assert refused > FUZZ_CASES / 4


def test_data_error_is_one_line():
    assert str(DataError("a\nb\r\nc")) == "a b c"

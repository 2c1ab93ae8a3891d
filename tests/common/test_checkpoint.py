"""Tests of checkpoint.py: what is stored comes back; anything else is one clear line."""

import io
import json
import os
import zipfile

import numpy as np
import pytest
from fuzzing import reseal

from common import checkpoint
from common.commandline import UserError

ABOUT = {"script": "trial", "flags": {"seed": 3, "noise": None}, "tasks": [1.5, "1v3"]}


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "parameters/layer1/kernel": rng.normal(size=(3, 4, 5)).astype(np.float32),
        "active": rng.integers(0, 2, (2, 3, 4)),
    }


@pytest.fixture
def saved(tmp_path, arrays):
    folder = tmp_path / "below" / "net"
    checkpoint.write(folder, ABOUT, arrays)
    return folder


def test_what_is_written_comes_back(saved, arrays):
    about, found = checkpoint.read(saved)
    assert about == ABOUT
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    assert {path.name for path in saved.parent.iterdir()} == {"net"}


def test_nothing_is_overwritten(saved, arrays):
    before = {path: path.read_bytes() for path in saved.iterdir()}
    with pytest.raises(UserError, match="not overwritten"):
        checkpoint.write(saved, {}, arrays)
    file = saved.parent / "file"
    file.touch()
    with pytest.raises(UserError, match="not overwritten"):
        checkpoint.write(file, {}, arrays)
    assert before == {path: path.read_bytes() for path in saved.iterdir()}


def test_a_place_where_nothing_can_be_made_is_refused_before(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for name in ("new", "deep/new", "empty"):
        checkpoint.check_writable(tmp_path / name)
    for name in ("file", "file/new", "file/deep/new"):
        with pytest.raises(UserError, match=f"{name}: "):
            checkpoint.check_writable(tmp_path / name)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["empty", "file"]


def test_a_folder_that_somebody_makes_meanwhile_is_kept(tmp_path, arrays, monkeypatch):
    folder = tmp_path / "net"

    def rename(source, target):
        folder.mkdir()
        (folder / "mine").touch()
        return real_rename(source, target)

    real_rename = os.rename
    monkeypatch.setattr(checkpoint.os, "rename", rename)
    with pytest.raises(UserError, match="not overwritten"):
        checkpoint.write(folder, {}, arrays)
    assert [path.name for path in tmp_path.rglob("*")] == ["net", "mine"]


def test_a_deleted_folder_of_a_run_does_not_come_back(tmp_path, arrays):
    folder = tmp_path / "run" / "checkpoints"
    (tmp_path / "run").mkdir()
    checkpoint.save(folder, 1, ABOUT, arrays)
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError) as caught:
        checkpoint.save(folder, 2, ABOUT, arrays)
    assert caught.value.filename == str(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]


def test_a_full_disk_leaves_nothing(tmp_path, arrays, monkeypatch):
    def savez(file, **arrays):
        file.write_bytes(b"PK")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.np, "savez", savez)
    with pytest.raises(OSError, match="No space left") as caught:
        checkpoint.write(tmp_path / "net", {}, arrays)
    assert caught.value.filename == str(tmp_path / "net")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [*checkpoint.FILES, "SHA256SUMS"])
def test_damaged_files_are_refused(saved, name):
    """Cut at every length of a few, and with any bit of a few changed."""
    path, rng = saved / name, np.random.default_rng(1)
    whole = path.read_bytes()
    for _ in range(30):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        cut = whole[: rng.integers(len(whole))]
        for content in (bytes(damaged), cut, cut + bytes(len(whole) - len(cut))):
            path.write_bytes(content)
            if name == "SHA256SUMS" and content.split() == whole.split():
                continue  # another kind of white space
            with pytest.raises(UserError) as caught:
                checkpoint.read(saved)
            assert str(saved) in str(caught.value)
    path.unlink()
    with pytest.raises(UserError, match=str(saved)):
        checkpoint.read(saved)


def test_other_versions_are_named(saved):
    about = json.loads((saved / "about.json").read_text())
    (saved / "about.json").write_text(json.dumps(about | {"version": 2}))
    reseal(saved)
    with pytest.raises(UserError, match="version 2, and this program reads .* 1"):
        checkpoint.read(saved)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "[" * 100_000, '"net"'])
def test_foreign_json_is_refused(saved, text):
    (saved / "about.json").write_text(text)
    reseal(saved)
    with pytest.raises(UserError, match="about.json"):
        checkpoint.read(saved)


def npy(header):
    header = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


class Exploit:
    def __reduce__(self):
        return (os.mkdir, ("executed",))


def pickled():
    file = io.BytesIO()
    np.save(file, np.array([Exploit()], object), allow_pickle=True)
    return file.getvalue()


FOREIGN = {
    "an object": pickled(),
    "huge": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999,)}"),
    "negative": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-3,)}"),
    "no array": b"hello",
    "endless": npy(
        "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 1%s)}" % ("0" * 23)
    ),
    "texts": npy("{'descr': '<U0', 'fortran_order': False, 'shape': (99999999999,)}"),
    "void": npy("{'descr': '|V0', 'fortran_order': False, 'shape': (99999999999,)}"),
    "deep": npy("(" * 110),
    "of Python 2": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (0L,)}"),
    "no header": npy("import os"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_arrays_that_lie_are_refused(saved, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile(saved / "arrays.npz", "w") as archive:
        archive.writestr("active.npy", FOREIGN[kind])
    reseal(saved)
    with pytest.raises(UserError, match="arrays.npz"):
        checkpoint.read(saved)
    assert not (tmp_path / "executed").exists()


def test_a_compressed_bomb_is_not_unpacked(saved):
    with zipfile.ZipFile(saved / "arrays.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("active.npy", bytes(10**7))
    reseal(saved)
    with pytest.raises(UserError, match="arrays.npz"):
        checkpoint.read(saved)

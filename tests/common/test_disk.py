"""Tests of disk.py, and of what the project does where a file system lacks something."""

import errno
import fcntl
import json
import os
from pathlib import Path

import numpy as np
import pytest

from common import checkpoint, disk, folders, results
from supervised import checkpoints

NO_LOCKS = [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EBADF, errno.EIO]
NO_SYNC = [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP]


def fail(number):
    """A system call that fails with this error."""

    def call(*_):
        raise OSError(number, os.strerror(number))

    return call


@pytest.fixture(params=NO_LOCKS, ids=errno.errorcode.get)
def no_locks(request, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", fail(request.param))


@pytest.fixture(params=NO_SYNC, ids=errno.errorcode.get)
def no_sync(request, monkeypatch):
    monkeypatch.setattr(os, "fsync", fail(request.param))


def test_a_lock_keeps_another_out_until_the_file_is_closed(tmp_path):
    (tmp_path / "file").touch()
    with open(tmp_path / "file") as one, open(tmp_path / "file") as other:
        assert disk.lock(one)
        with pytest.raises(BlockingIOError):
            disk.lock(other, wait=False)
        one.close()
        assert disk.lock(other, wait=False)


def test_without_locks_results_are_appended_and_folders_used(tmp_path, no_locks):
    file = tmp_path / "results.jsonl"
    assert results.append(file, {"first": 1}) == 1
    assert results.append(file, {"second": 2}) == 2
    assert [json.loads(line) for line in file.open()] == [{"first": 1}, {"second": 2}]
    folders.occupy(str(tmp_path))


def test_without_a_lock_nothing_is_cut_off(tmp_path, no_locks, monkeypatch):
    """It could be the line of somebody else."""
    file = tmp_path / "results.jsonl"
    results.append(file, {"first": 1})
    before = file.read_bytes()
    monkeypatch.setattr(os, "fsync", fail(errno.ENOSPC))
    monkeypatch.setattr(os, "ftruncate", fail(errno.EPERM))
    with pytest.raises(OSError, match="No space left"):
        results.append(file, {"second": 2})
    assert file.read_bytes().startswith(before)


def test_without_fsync_everything_is_written(tmp_path, no_sync):
    file = tmp_path / "results.jsonl"
    results.append(file, {"first": 1})
    assert json.loads(file.read_text()) == {"first": 1}
    arrays = {"a": np.ones(3)}
    checkpoint.write(tmp_path / "net", {"b": 1}, arrays)
    checkpoint.save(tmp_path / "checkpoints", 1, {"b": 1}, arrays)
    for folder in (tmp_path / "net", tmp_path / "checkpoints/checkpoint-000000000001"):
        about, found = checkpoint.read(folder)
        assert about == {"b": 1}
        np.testing.assert_array_equal(found["a"], arrays["a"])


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.EINVAL])
def test_a_checkpoint_in_place_is_not_taken_for_a_failure(
    tmp_path, monkeypatch, number
):
    """Its name may not have reached the disk yet, but it is whole, and it is there."""
    real_fsync = os.fsync

    def fsync(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(number, os.strerror(number))
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    checkpoint.write(tmp_path / "net", {}, {"a": np.ones(3)})
    assert checkpoint.read(tmp_path / "net")[0] == {}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk_is_not_passed_over(tmp_path, monkeypatch, number):
    monkeypatch.setattr(os, "fsync", fail(number))
    with pytest.raises(OSError) as caught:
        results.append(tmp_path / "results.jsonl", {})
    assert caught.value.errno == number
    with pytest.raises(OSError):
        checkpoint.write(tmp_path / "net", {}, {})
    assert not (tmp_path / "net").exists()


def test_a_file_that_finds_no_room_is_named_and_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "write_bytes", fail(errno.ENOSPC))
    target = tmp_path / "run.json"
    with pytest.raises(OSError) as raised:
        disk.write_atomically(target, b"{}")
    assert raised.value.filename == str(target)
    assert not list(tmp_path.iterdir())


def test_what_a_run_is_finds_no_room(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "write_bytes", fail(errno.ENOSPC))
    with pytest.raises(OSError) as raised:
        checkpoints.mark(str(tmp_path), "binary_mnist_pathnet.py", {})
    assert raised.value.filename == str(tmp_path / "run.json")

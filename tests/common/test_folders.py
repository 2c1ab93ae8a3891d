"""Tests of folders.py."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from common import folders


def test_a_new_folder_is_never_one_that_exists(tmp_path):
    """Nor one that was a file; what is in the way stays as it is."""
    log_dir = tmp_path / "logs" / "deep"
    first = Path(folders.new(str(log_dir), "run"))
    assert first == log_dir / "run" and first.is_dir()
    (first / "events").write_text("kept")
    (log_dir / "run-2").write_text("a file")
    third = Path(folders.new(str(log_dir), "run"))
    assert third == log_dir / "run-3" and not list(third.iterdir())
    assert folders.new(str(log_dir), "run") == str(log_dir / "run-4")
    assert (first / "events").read_text() == "kept"
    assert (log_dir / "run-2").read_text() == "a file"


@pytest.mark.parametrize("names", [["1v3"] * 90, ["\u4e2d" * 300], ["a" * 300, "b"]])
def test_a_folder_can_be_named_after_any_number_of_tasks(tmp_path, names):
    label = folders.joined(names)
    assert Path(
        folders.new(str(tmp_path), f"binary_mnist__{label}__seed0__now")
    ).is_dir()
    assert folders.joined(["1v3", "1v2"]) == "1v3_1v2"
    assert folders.joined(["1v3"] * 90) == "1v3_1v3_1v3_1v3_and_86_more"


def test_a_task_that_is_named_by_a_path_names_a_folder():
    assert folders.named("1v3") == "1v3"
    assert folders.named("/home/me/my photos:0-4~1") == "my_photos_0-4~1"
    assert folders.named("/a/photos/:0-4") == "photos_0-4"
    assert folders.named("/a/photos~1/") == "photos~1"
    assert folders.named("/a/\n\x1b") == "__"
    assert folders.named("/a/\u4e2d") == "\u4e2d"


def test_a_path_means_the_same_from_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other" / "dir").mkdir(parents=True)
    (tmp_path / "link").symlink_to("other/dir")
    assert folders.absolute("link/x/") == f"{tmp_path}/link/x"
    assert folders.absolute("link/../x") == f"{tmp_path}/other/x"
    assert folders.absolute("/a//b/./c") == "/a/b/c"


def test_new_folders_made_at_once_differ(tmp_path):
    threads, rounds = 8, 25
    barrier = Barrier(threads)

    def make(_):
        barrier.wait()
        return [folders.new(str(tmp_path), "run") for _ in range(rounds)]

    with ThreadPoolExecutor(threads) as pool:
        made = [folder for some in pool.map(make, range(threads)) for folder in some]
    assert len(set(made)) == threads * rounds
    assert {Path(folder).name for folder in made} == {
        p.name for p in tmp_path.iterdir()
    }


def test_folders_are_made_below_one_that_is_there(tmp_path):
    """Once or again; of a folder that was deleted nothing comes back."""
    for _ in range(2):
        made = folders.below(str(tmp_path), "task1", "actor_0")
        assert made == str(tmp_path / "task1" / "actor_0") and Path(made).is_dir()
    with pytest.raises(FileNotFoundError, match="gone/task1"):
        folders.below(str(tmp_path / "gone"), "task1", "actor_0")
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("log_dir", ["file", "file/logs"])
def test_a_log_dir_that_cannot_be_is_named(tmp_path, log_dir):
    (tmp_path / "file").touch()
    with pytest.raises(OSError) as caught:
        folders.new(str(tmp_path / log_dir), "run")
    assert caught.value.filename.startswith(str(tmp_path / "file"))

"""Tests of the style of all pictures, and of how they are written."""

import subprocess
import sys
from pathlib import Path

import pytest
from image_helpers import snapshots, two_paths
from PIL import Image

from reports import colours, evolution, style
from reports import paths as paths_picture

ROOT = Path(style.__file__).parent.parent


def test_task_colours_differ_and_start_over():
    count = len(colours.TASK_COLOURS)
    assert len({colours.task_colour(i) for i in range(count)}) == count
    assert colours.task_colour(count) == colours.task_colour(0)


PICTURES = {
    "paths": lambda target: paths_picture.draw_paths(target, two_paths(), ["a", "b"]),
    "evolution": lambda target: evolution.animate_evolution(target, snapshots(2)),
}


@pytest.mark.parametrize("picture", PICTURES)
def test_an_existing_picture_is_replaced(tmp_path, picture):
    target = tmp_path / "picture"
    target.write_bytes(b"old")
    PICTURES[picture](str(target))
    assert list(tmp_path.iterdir()) == [target]
    with Image.open(target) as image:
        image.load()


def refuse(*_args, **_options):
    raise OSError("no")


def write_half_then_refuse(path, data):
    with open(path, "wb") as file:
        file.write(data[: len(data) // 2])
    raise OSError("disk full")


@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("failing", ["write", "replace"])
def test_a_failing_write_changes_nothing(tmp_path, monkeypatch, picture, failing):
    if failing == "write":
        monkeypatch.setattr(Path, "write_bytes", write_half_then_refuse)
    else:
        monkeypatch.setattr(style.os, "replace", refuse)
    target = tmp_path / "picture"
    with open(target, "wb") as file:
        file.write(b"old")
    with pytest.raises(OSError):
        PICTURES[picture](target)
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_bytes() == b"old"


def test_a_missing_folder_is_an_os_error(tmp_path):
    with pytest.raises(OSError):
        PICTURES["paths"](tmp_path / "missing" / "paths.png")
    assert not list(tmp_path.iterdir())


def test_drawing_leaves_pyplot_and_tensorflow_alone(tmp_path):
    code = (
        "import sys, numpy, plotting; from reports import evolution, paths; "
        "paths.draw_paths(sys.argv[1], numpy.ones((1, 2, 2)), ['a']); "
        "assert 'matplotlib.pyplot' not in sys.modules; "
        "assert 'tensorflow' not in sys.modules"
    )
    target = tmp_path / "paths.png"
    subprocess.run([sys.executable, "-c", code, target], check=True, cwd=ROOT)
    assert target.exists()

"""Tests of image_names.py."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import folders
from supervised import image_names
from supervised.image_names import ImageName


@pytest.mark.parametrize(
    ("name", "source", "classes", "seed"),
    [
        ("mnist", "mnist", None, None),
        ("mnist:0-4", "mnist", (0, 1, 2, 3, 4), None),
        ("mnist:7+1-2", "mnist", (7, 1, 2), None),
        ("mnist~12", "mnist", None, 12),
        ("a b/c.npz:3+5~0", "a b/c.npz", (3, 5), 0),
        ("~/photos", "~/photos", None, None),
        ("photos~1/", "photos~1", None, None),
        ("photos~1/~2", "photos~1", None, 2),
        ("/", "/", None, None),
    ],
)
def test_what_a_name_says(name, source, classes, seed):
    assert image_names.parse(name) == ImageName(source, classes, seed)
    assert image_names.is_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "mnist:3",
        "mnist:3-3",
        "mnist:4-2",
        "mnist:1+1",
        "mnist:0-256",
        "a\n",
        "\udcff",
    ],
)
def test_wrong_names(name):
    assert not image_names.is_name(name)


def test_absolute_names_and_labels(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert image_names.absolute("mnist:0-4~1") == "mnist:0-4~1"
    assert image_names.absolute("photos/:0-4") == f"{tmp_path}/photos/:0-4"
    assert image_names.absolute("photos:0-4") == f"{tmp_path}/photos:0-4"
    assert image_names.absolute("photos~1/") == f"{tmp_path}/photos~1/"
    assert image_names.absolute("~3") == f"{tmp_path}/~3/"
    assert image_names.absolute("../x.npz~3") == f"{tmp_path.parent}/x.npz~3"
    assert image_names.absolute("~/photos") == "/home/me/photos"
    assert folders.last_part(f"{tmp_path}/photos:0-4~2") == "photos:0-4~2"
    assert folders.last_part(f"{tmp_path}/photos/:0-4") == "photos:0-4"
    assert folders.last_part(f"{tmp_path}/photos~1/") == "photos~1"
    assert folders.last_part("mnist:0-4") == "mnist:0-4"


@given(st.text())
def test_any_text_is_a_name_or_none(name):
    if image_names.is_name(name) and "\0" not in name:
        once = image_names.absolute(name)
        assert image_names.is_name(once)
        assert image_names.absolute(once) == once
        one, other = image_names.parse(name), image_names.parse(once)
        assert (one.classes, one.seed) == (other.classes, other.seed)
        if one.source not in image_names.BUILT_IN:
            path = os.path.expanduser(one.source)
            assert other.source == folders.absolute(path)

"""Tests of image_tasks.py, class_folders.py and pixels.py, and of a user's own formats."""

import gzip
import io
import os
import types
import zipfile

import numpy as np
import pytest
from data_files import peak_below, refusal
from fuzzing import FUZZ_CASES, assert_is_one_line, damaged
from own_images import (
    IDX,
    KERAS,
    MEDMNIST,
    class_folders,
    idx,
    idx_folder,
    npz,
    npz_bytes,
    part,
)
from PIL import Image

from common.commandline import UserError
from supervised import datasets, formats, pixels
from supervised.image_tasks import ImageTasks


def images_of(
    *tasks, size=None, grey=False, train_images=(None,), fake_data=False, learned=0
):
    """The ImageTasks of these flags; `learned` of the tasks are those of a network."""
    settings = types.SimpleNamespace(
        tasks=[str(task) for task in tasks],
        network=types.SimpleNamespace(tasks=[{}] * learned),
        size=size,
        grey=grey,
        train_images=train_images,
        fake_data=fake_data,
        data_dirs={"mnist": None, "cifar10": None, "svhn": None},
    )
    return ImageTasks(settings)


def npy_header(shape):
    """The first bytes of an .npy file of bytes of a shape."""
    header = io.BytesIO()
    claim = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, claim)
    return header.getvalue()


def replace_array(path, name, content):
    """Puts other bytes in place of one array of an .npz file."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for member, held in (contents | {f"{name}.npy": content}).items():
            archive.writestr(member, held)


def refusal_of(*tasks, **settings):
    with pytest.raises(UserError) as caught:
        images_of(*tasks, **settings)
    assert_is_one_line(caught.value, "")
    return str(caught.value)


# ---- Where images come from ----


@pytest.mark.parametrize("names", [KERAS, MEDMNIST])
def test_npz(tmp_path, names):
    images = images_of(npz(tmp_path / "a.npz", names))
    assert (images.inputs, images.classes) == (36, [3])
    task = images.task(0, seed=0)
    assert task.title == "a.npz"
    for split, (pixels_, labels) in (
        (task.train, part(30)),
        (task.test, part(9, seed=1)),
    ):
        assert split.images.tolist() == pixels_.reshape(len(labels), -1).tolist()
        assert split.labels.tolist() == labels.tolist()


@pytest.mark.parametrize("packed", [False, True])
def test_idx_folders(tmp_path, packed):
    folder = idx_folder(tmp_path / "fashion", packed)
    images = images_of(folder)
    assert (images.inputs, images.classes) == (36, [3])
    expected, labels = part(30)
    assert images.task(0, 0).train.images.tolist() == expected.reshape(30, -1).tolist()
    assert images.task(0, 0).train.labels.tolist() == labels.tolist()


def test_the_official_files_are_read_alike_as_a_users_own():
    folder = os.path.join(os.path.dirname(datasets.__file__), "../data/mnist")
    own, official = images_of(folder).task(0, 0), datasets.load_mnist()
    assert np.array_equal(own.train.images[5_000:], official.train.images)
    assert np.array_equal(own.test.images, official.test.images)
    assert np.array_equal(own.test.labels, official.test.labels)


@pytest.mark.parametrize("suffix", ["png", "bmp", "ppm", "jpg", "webp", "gif"])
def test_class_folders(tmp_path, suffix):
    folder = class_folders(tmp_path / "photos", suffix=suffix)
    images = images_of(folder)
    assert (images.inputs, images.classes) == (6 * 6 * 3, [3])
    task = images.task(0, 0)
    assert task.train.labels.tolist() == [0] * 10 + [1] * 10 + [2] * 10
    assert len(task.test.labels) == 9
    if suffix in ("png", "bmp", "ppm"):  # the others lose something
        expected, labels = part(30, (6, 6, 3))
        expected = expected[np.argsort(labels, kind="stable")]
        assert task.train.images.tolist() == expected.reshape(30, -1).tolist()
    else:
        dark, bright = (task.train.images[task.train.labels == k] for k in (0, 2))
        assert dark.mean() + 60 < bright.mean()


def test_what_is_no_picture_is_left_out(tmp_path, capsys):
    folder = class_folders(tmp_path / "photos")
    (folder / "train" / "a" / ".DS_Store").write_bytes(b"x")
    assert len(images_of(folder).task(0, 0).train.labels) == 30
    assert capsys.readouterr().err == "photos: class 0 is a, 1 is b, 2 is c\n"
    (folder / "train" / "a" / "notes.txt").write_bytes(b"x")
    os.mkfifo(folder / "train" / "b" / "pipe.png")
    assert len(images_of(folder).task(0, 0).train.labels) == 30
    assert "2 left out that are no pictures" in capsys.readouterr().err


def test_classes_that_are_named_by_numbers_are_in_their_order(tmp_path, capsys):
    folder = class_folders(tmp_path / "photos")
    for part_ in ("train", "test"):
        for old, new in zip("abc", ("10", "9", "100")):
            (folder / part_ / old).rename(folder / part_ / new)
    labels = images_of(folder).task(0, 0).train
    assert "class 0 is 9, 1 is 10, 2 is 100" in capsys.readouterr().err
    levels = [labels.images[labels.labels == k].mean() // 60 for k in range(3)]
    assert levels == [1, 0, 2]


def test_a_name_that_may_mean_two_things_is_refused(tmp_path):
    one, other = (class_folders(tmp_path / name) for name in ("photos", "photos~1"))
    line = refusal_of(f"{other}")
    assert f"{other}/, or ~1 of another one, {one}/~1: write one of these" in line
    plain = images_of(f"{other}/").task(0, 0)
    drawn = images_of(f"{one}/~1").task(0, 0)
    assert np.array_equal(plain.train.labels, drawn.train.labels)
    assert not np.array_equal(plain.train.images, drawn.train.images)


def test_generated_data_of_two_sources_differ():
    images = images_of("a.npz", "b.npz", "a.npz:0-1", fake_data=True, size=9)
    first, second = (images.task(number, 0).train.images for number in (0, 1))
    assert first.shape == second.shape == (10_000, 81)
    assert not np.array_equal(first, second)
    assert len(set(images.data.values())) == 2


# ---- Size and colour ----


def test_size_and_grey(tmp_path):
    photos = class_folders(tmp_path / "photos", shape=(9, 12, 3))
    grey = npz(tmp_path / "grey.npz")
    images = images_of(photos, grey, size=4, grey=True)
    assert images.inputs == 16
    for number in (0, 1):
        task = images.task(number, 0)
        assert task.test.images.shape == (9, 16)
        levels = [task.test.images[task.test.labels == k].mean() for k in range(3)]
        assert np.diff(levels) == pytest.approx([60, 60], abs=8)


def test_a_picture_is_cut_to_its_middle():
    image = np.zeros([4, 8, 3], np.uint8)
    image[:, 2:6] = 200
    square = pixels.converted(Image.fromarray(image), 4, grey=False)
    assert square.shape == (4, 4, 3)
    assert (square == 200).all()


def test_a_picture_is_turned_as_its_camera_says():
    upright = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6  # to be turned to the right
    assert pixels.converted(turned, None, grey=True)[..., 0].tolist() == [
        [0, 1, 2],
        [3, 4, 5],
    ]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(mode, tmp_path):
    """As in black drawings on nothing, whose pixels are all black."""
    drawing = Image.new("LA", (3, 1), (0, 0))
    drawing.putpixel((1, 0), (0, 255))
    if mode == "P":
        drawing = drawing.convert("L").convert("P")
        drawing.putdata([5, 0, 5])
        drawing.info["transparency"] = 5
    else:
        drawing = drawing.convert(mode)
    drawing.save(tmp_path / "drawing.png")
    with Image.open(tmp_path / "drawing.png") as picture:
        pixels_ = pixels.converted(picture, None, grey=True)
    assert pixels_[..., 0].tolist() == [[255, 0, 255]]


def test_images_that_fit_are_not_copied():
    images = part(5, (6, 6, 1))[0]
    assert pixels.all_converted(images, 6, True, "") is images
    colour = part(5, (6, 6, 3))[0]
    assert pixels.all_converted(colour, None, False, "") is colour
    assert pixels.all_converted(colour, 3, False, "").shape == (5, 3, 3, 3)
    assert pixels.all_converted(colour, None, True, "").shape == (5, 6, 6, 1)


def test_other_sizes_and_colours_are_named_with_the_flags(tmp_path):
    small, photos = npz(tmp_path / "a.npz"), class_folders(tmp_path / "photos")
    line = refusal_of(small, "mnist")
    assert "6 x 6 pixels in grey" in line
    assert "28 x 28" in line
    assert line.endswith("add --size=6")
    assert refusal_of(small, photos).endswith("add --grey")
    assert refusal_of("mnist", photos).endswith("add --grey --size=6")
    larger = np.zeros([6, 8, 3], np.uint8)
    Image.fromarray(larger).save(photos / "train" / "b" / "99.png")
    assert "8 x 6 pixels" in refusal_of(photos)
    assert "--size" in refusal_of(photos)
    assert images_of(photos, size=6).inputs == 108
    differing = npz(tmp_path / "b.npz", x_test=part(9, (5, 5))[0])
    assert refusal_of(differing).endswith("5 x 5 pixels in grey: add --size=5")
    coloured = npz(tmp_path / "c.npz", x_test=part(9, (6, 6, 3))[0])
    assert refusal_of(coloured).endswith("6 x 6 pixels in colour: add --grey")


def test_what_a_network_was_learned_from_stays_as_it_was(tmp_path):
    small, photos = npz(tmp_path / "a.npz"), class_folders(tmp_path / "photos")
    assert refusal_of(small, photos, learned=1).endswith("convert the images")
    small.rename(tmp_path / "b.npz")
    assert "put back what was learned from" in refusal_of(small, photos, learned=1)


# ---- Classes, few images, orders of pixels ----


def test_classes_get_labels_in_the_order_of_the_name(tmp_path):
    path = npz(tmp_path / "a.npz")
    images = images_of(f"{path}:2+0", f"{path}:1-2")
    assert images.classes == [2, 2]
    whole = images_of(path).task(0, 0).train
    task = images.task(0, 0)
    assert task.train.labels.tolist() == [1, 0] * 10
    assert np.array_equal(task.train.images, whole.images[whole.labels != 1])
    assert list(images.data) == [str(path)]


@pytest.mark.parametrize("seed", [0, 1, 10**9 - 1])
def test_an_order_of_pixels(seed):
    plain, one, again = (
        images_of(f"mnist{order}", fake_data=True).task(0, 0)
        for order in ("", f"~{seed}", f"~{seed}")
    )
    assert np.array_equal(one.train.images, again.train.images)
    assert not np.array_equal(one.train.images, plain.train.images)
    for split, other in ((plain.train, one.train), (plain.test, one.test)):
        assert np.array_equal(np.sort(split.images), np.sort(other.images))
        assert np.array_equal(split.labels, other.labels)
    # The same pixels change places in every image, of both parts.
    order = random_order(seed, plain.train.images.shape[1])
    assert np.array_equal(plain.test.images[:, order], one.test.images)


def random_order(seed, inputs):
    key = np.random.SeedSequence(seed, spawn_key=(6, 0, 0))
    return np.random.default_rng(key).permutation(inputs)


def test_an_order_of_pixels_keeps_colours_together(tmp_path):
    folder = class_folders(tmp_path / "photos")
    images = images_of(folder, f"{folder}~5")
    plain, drawn = (images.task(number, 0).train.images for number in (0, 1))
    order = random_order(5, 36)
    expected = plain.reshape(-1, 36, 3)[:, order].reshape(-1, 108)
    assert np.array_equal(drawn, expected)


def test_a_size_that_takes_too_much_memory(tmp_path, monkeypatch):
    path = npz(tmp_path / "a.npz")
    assert images_of(path, size=60).inputs == 3600
    monkeypatch.setattr(formats, "most_bytes", lambda: 100_000)
    assert refusal_of(path, size=60).endswith("; make --size smaller")


def test_few_training_images(tmp_path):
    images = images_of(npz(tmp_path / "a.npz"), train_images=(6,))
    task = images.task(0, seed=3)
    assert sorted(task.train.labels.tolist()) == [0, 0, 1, 1, 2, 2]
    assert len(task.test.labels) == 9


# ---- What cannot be learned from ----


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (
            {"x_train": part(30)[0].astype(float)},
            "x_train is of type float64, not uint8",
        ),
        ({"x_train": part(30, (6, 6, 2))[0]}, "not [n, height, width]"),
        ({"x_train": part(30, (36,))[0]}, "not [n, height, width]"),
        ({"x_train": np.zeros([0, 6, 6], np.uint8)}, "x_train is empty"),
        ({"x_test": np.zeros([9, 0, 6], np.uint8)}, "sides are not 1 to"),
        ({"x_test": np.zeros([9, 1, 1025], np.uint8)}, "sides are not 1 to"),
        ({"y_train": np.zeros(29, int)}, "not one whole number for each image"),
        ({"y_train": np.zeros([30, 14], int)}, "not one whole number for each image"),
        ({"y_train": np.zeros(30)}, "not one whole number for each image"),
        ({"y_train": np.full(30, 256)}, "labels are not 0 to 255"),
        ({"y_train": np.full(30, -1)}, "labels are not 0 to 255"),
        ({"y_train": np.zeros(30, int), "y_test": np.zeros(9, int)}, "of one class"),
        ({"y_test": np.arange(9)}, "no training image has the class 3"),
        ({"y_test": np.zeros(9, int)}, "no test image has the class 1"),
        ({"x_test": None}, "holds neither x_train, y_train, x_test, y_test nor"),
        ({"y_train": np.full(30, None)}, "y_train is not made of numbers"),
        ({"y_train": np.array(["a"] * 30)}, "y_train is not made of numbers"),
        ({"y_train": part(30)[1] > 0}, "not one whole number for each image"),
    ],
)
def test_wrong_npz_files(tmp_path, changed, problem):
    path = npz(tmp_path / "a.npz", **changed)
    line = refusal_of(path)
    assert problem in line
    assert str(path) in line


def test_classes_that_are_not_there(tmp_path):
    assert "has no class 7, but 0 to 2" in refusal_of(f"{npz(tmp_path / 'a.npz')}:1+7")


def test_a_bomb_costs_little_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "most_bytes", lambda: 2**20)
    path, bomb = tmp_path / "a.npz", np.zeros([30, 1000, 1000], np.uint8)
    path.write_bytes(npz_bytes(**dict(zip(KERAS, [bomb, *part(30)[1:], *part(9)]))))
    with peak_below(2**20):
        assert "more than a quarter of the memory" in refusal_of(path)


def test_a_header_that_claims_too_much_costs_little_memory(tmp_path):
    path = npz(tmp_path / "a.npz")
    replace_array(path, "x_train", npy_header((10**9, 28, 28)) + bytes(1_000))
    with peak_below(2**20):
        assert "x_train is truncated" in refusal_of(path)


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (b"\x93NUMPY\x01\x00" + b"\xff\x7f" + b"(" * 0x7FFF, "no sound header"),
        (b"\x93NUMPY\x03\x00", "no sound header"),
        (npy_header((True, 6, 6)), "no sound header"),
        (npy_header((-1, 6, 6)), "no sound header"),
        (npy_header((30, 6, 6)) + bytes(30 * 36 + 1), "longer than its header says"),
        (npy_header((30, 6, 6)) + bytes(30 * 36 - 1), "x_train is truncated"),
    ],
)
def test_wrong_arrays(tmp_path, header, problem):
    path = npz(tmp_path / "a.npz")
    replace_array(path, "x_train", header)
    assert problem in refusal_of(path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "wrong magic number"),
        (idx(part(30)[1]), "wrong magic number"),
        (idx(part(30)[0])[:11], "truncated"),
        (idx(part(30)[0])[:-1], "30 x 6 x 6 bytes, and has 1079"),
        (idx(part(30)[0]) + b"x", "30 x 6 x 6 bytes, and has 1081"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "bytes, and has 0"),
    ],
)
def test_wrong_idx_files(tmp_path, content, problem):
    folder = idx_folder(tmp_path / "own")
    (folder / IDX[0]).write_bytes(content)
    assert problem in refusal_of(folder)
    (folder / IDX[0]).unlink()
    (folder / f"{IDX[0]}.gz").write_bytes(gzip.compress(content))
    assert problem in refusal_of(folder)


def test_wrong_folders(tmp_path):
    assert "no such file or folder, and not one of mnist" in refusal_of(tmp_path / "x")
    (tmp_path / "empty").mkdir()
    assert "has neither train/CLASS/" in refusal_of(tmp_path / "empty")
    (tmp_path / "a.txt").write_text("x")
    assert "neither a folder nor an .npz file" in refusal_of(tmp_path / "a.txt")

    folder = class_folders(tmp_path / "photos")
    (folder / "test" / "a").rename(folder / "test" / "d")
    assert "only one of train and test has the class ['a']" in refusal_of(folder)
    (folder / "test").rename(folder / "other")
    assert "has no folder test/" in refusal_of(folder)
    one = tmp_path / "one"
    for name in ("train", "test"):
        (one / name / "only").mkdir(parents=True)
    assert "has 1 classes, not 2 to 256" in refusal_of(one)
    (one / "train" / "more").mkdir()
    (one / "test" / "more").mkdir()
    assert "no pictures in there" in refusal_of(one)


def test_wrong_pictures(tmp_path):
    folder = class_folders(tmp_path / "photos")
    picture = folder / "test" / "b" / "01.png"
    content = picture.read_bytes()
    for wrong in (b"", b"text", content[:-40]):
        picture.write_bytes(wrong)
        assert str(picture) in refusal_of(folder)
    deep = Image.fromarray(np.arange(36, dtype=np.uint16).reshape(6, 6) * 1000)
    deep.save(picture)
    assert "8 bits a channel" in refusal_of(folder)
    Image.new("1", (9000, 9000)).save(picture)
    assert "pixels" in refusal_of(folder, size=6)
    Image.new("1", (1025, 1)).save(picture)
    assert "add --size" in refusal_of(folder)


def test_damaged_npz_files_are_refused_or_read(tmp_path):
    path = tmp_path / "damaged.npz"
    images, labels = part(30)
    arrays = dict(zip(KERAS, (images, labels, images, labels)))
    plain = npz(tmp_path / "plain.npz").read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for case in range(FUZZ_CASES):
        content = plain if case % 2 else npz_bytes(**arrays)
        path.write_bytes(damaged(content, rng))
        try:
            parts = formats.read_npz(path)
        except formats.DataError as error:
            refused += 1
            assert_is_one_line(error, path)
            continue
        for read, held in parts:
            assert read.dtype == held.dtype == np.uint8
            assert read.ndim == 4
            assert len(read) == len(held) > 0
    assert 0 < refused < FUZZ_CASES


def test_damaged_pictures_are_refused_or_read(tmp_path):
    folder = class_folders(tmp_path / "photos", counts=(1, 1))
    picture = folder / "train" / "a" / "00.png"
    image = Image.open(picture)
    contents = []
    for suffix in ("png", "jpg", "bmp", "gif", "webp", "ppm"):
        image.save(tmp_path / f"one.{suffix}")
        contents.append((tmp_path / f"one.{suffix}").read_bytes())
    rng, refused = np.random.default_rng(0), 0
    for case in range(FUZZ_CASES):
        picture.write_bytes(damaged(contents[case % len(contents)], rng))
        try:
            task = images_of(folder, size=6).task(0, 0)
        except UserError as error:
            refused += 1
            assert_is_one_line(error, picture)
        else:
            assert task.train.images.shape == (3, 108)
    assert 0 < refused < FUZZ_CASES


def test_refusals_are_data_errors(tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(b"PK\x03\x04")
    assert str(path) in refusal(formats.read_npz, path)

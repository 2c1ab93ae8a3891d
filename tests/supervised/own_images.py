"""A user's own images on disk: .npz files, IDX files, folders of pictures."""

import gzip
import io
import struct

import numpy as np
from PIL import Image

MEDMNIST = ("train_images", "train_labels", "test_images", "test_labels")
KERAS = ("x_train", "y_train", "x_test", "y_test")
IDX = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def part(count, shape=(6, 6), classes=3, seed=0):
    """Images that are darker or brighter by their class, and their labels in turn."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    images = rng.integers(0, 60, (count, *shape))
    images += (labels * 60).reshape(-1, *[1] * len(shape))
    return images.astype(np.uint8), labels.astype(np.uint8)


def npz(path, names=KERAS, **changed):
    """Writes an .npz file; `changed` has arrays in place of those of these names."""
    train, test = part(30), part(9, seed=1)
    arrays = dict(zip(names, [*train, *test])) | changed
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    return path


def npz_bytes(**arrays):
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def idx(array):
    """The IDX file of an array of bytes."""
    header = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape)
    return header + array.tobytes()


def idx_folder(folder, packed=False):
    folder.mkdir()
    arrays = [*part(30), *part(9, seed=1)]
    for name, array in zip(IDX, arrays):
        content = idx(array)
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)
    return folder


def class_folders(folder, shape=(6, 6, 3), suffix="png", counts=(10, 3)):
    """A folder with train/CLASS/*.png and test/CLASS/*.png of the classes a, b and c."""
    for seed, (name, count) in enumerate(zip(("train", "test"), counts)):
        images, labels = part(3 * count, shape, seed=seed)
        for number, (image, label) in enumerate(zip(images, labels)):
            place = folder / name / "abc"[label]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"{number:02}.{suffix}")
    return folder

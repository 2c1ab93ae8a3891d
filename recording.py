"""What a run leaves on disk: a folder of its own with TensorBoard events and results."""

import fcntl
import io
import itertools
import json
import os
import platform

import numpy as np
from PIL import Image

from pathnet import tf


def new_folder(log_dir, name):
    """Makes a folder that did not exist before: log_dir/name, else name-2, name-3 ...

    Raises:
      OSError: it cannot be made; names the folder.
    """
    os.makedirs(log_dir, exist_ok=True)
    for number in itertools.count(1):
        folder = os.path.join(log_dir, name if number == 1 else f"{name}-{number}")
        try:
            os.mkdir(folder)
            return folder
        except FileExistsError:
            continue


def append_result(filename, result):
    """Appends one object to a results.jsonl file: the whole line or none of it.

    Safe against other processes that append to the same file, and against a full disk.

    Raises:
      OSError: the line could not be written; the file is as it was.
    """
    line = (json.dumps(result) + "\n").encode()
    with open(filename, "ab", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        size = os.fstat(file.fileno()).st_size
        try:
            if file.write(line) != len(line):
                raise OSError(28, "No space left on device", filename)
            os.fsync(file.fileno())
        except OSError as error:
            os.ftruncate(file.fileno(), size)
            raise OSError(error.errno, error.strerror, filename) from error


def versions():
    """Versions that a result depends on, by name."""
    return {
        "python": platform.python_version(),
        "tensorflow": tf.version.VERSION,
        "numpy": np.__version__,
    }


def is_logged(step):
    """Whether a curve keeps this step (from 1 on): all up to 1,000, then ever fewer.

    900 steps a decade from there on, so that the files of endless runs stay small and a
    curve keeps its shape.
    """
    stride = 1
    while step >= 1000 * stride:
        stride *= 10
    return step % stride == 0


class Events:
    """TensorBoard events of one run (or repeat), in a folder."""

    def __init__(self, folder, graph=None):
        self._writer = tf.summary.FileWriter(folder, graph, flush_secs=10)

    def scalars(self, step, values):
        """Values by tag, at a step."""
        self._add(
            step, [{"tag": t, "simple_value": float(v)} for t, v in values.items()]
        )

    def image(self, step, tag, pixels):
        """An image, uint8 [height, width, 3]."""
        height, width, _ = pixels.shape
        png = io.BytesIO()
        Image.fromarray(pixels).save(png, format="PNG")
        picture = tf.Summary.Image(
            height=height,
            width=width,
            colorspace=3,
            encoded_image_string=png.getvalue(),
        )
        self._add(step, [{"tag": tag, "image": picture}])

    def text(self, tag, markdown):
        """A text, shown as Markdown."""
        metadata = tf.SummaryMetadata(
            plugin_data=tf.SummaryMetadata.PluginData(plugin_name="text")
        )
        tensor = tf.make_tensor_proto(markdown, dtype=tf.string)
        self._add(0, [{"tag": tag, "metadata": metadata, "tensor": tensor}])

    def close(self):
        self._writer.close()

    def _add(self, step, values):
        summary = tf.Summary(value=[tf.Summary.Value(**value) for value in values])
        self._writer.add_summary(summary, step)

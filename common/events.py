"""TensorBoard events: curves, images and texts of a run, in its folder.

Importing this module does not load TensorFlow; its first use does.
"""

import contextlib
import errno
import io
import itertools
import os
import platform
import time
from collections.abc import Mapping

import numpy as np
from PIL import Image

from common import tf1 as tf

FLUSH_SECONDS = 5  # after which what was added is handed to the operating system


def versions() -> dict[str, str]:
    """Versions that a result depends on, by the name of the software."""
    return {
        "python": platform.python_version(),
        "tensorflow": tf.version.VERSION,
        "numpy": np.__version__,
    }


def is_logged(step: int) -> bool:
    """Whether a curve keeps this step (from 1 on): all up to 1,000, then ever fewer.

    900 steps a decade from there on, so that the files of endless runs stay small and a
    curve keeps its shape.
    """
    stride = 1
    while step >= 1000 * stride:
        stride *= 10
    return step % stride == 0


class Events:
    """TensorBoard events of one run (or repeat), in a folder.

    An events file is a TFRecord file. It is written as such here, and not by
    TensorFlow's summary writer, whose thread would notice a full disk too late.

    All methods raise OSError, with the file's name, if something cannot be written.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        graph: "tf.Graph | None" = None,
        descriptions: Mapping[str, str] | None = None,
    ) -> None:
        """Starts a new file of events next to those of earlier processes.

        Args:
          folder: of the run, which is there.
          graph: is shown by TensorBoard, if given.
          descriptions: what curves show, by tag: a sentence of Markdown each.
        """
        self._not_described = dict(descriptions or {})
        self._filename = _new_filename(folder)
        self._flushed = time.monotonic()
        self._has_begun = False  # whether it has any curve
        with self._errors_as_os_error():
            self._records = tf.io.TFRecordWriter(self._filename)
        self._write(tf.Event(file_version="brain.Event:2"))
        if graph is not None:
            definition = graph.as_graph_def(add_shapes=True)
            self._write(tf.Event(graph_def=definition.SerializeToString()))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds values by tag, at a step.

        The first ones of a file replace those that earlier files of the folder have at
        this step and later ones, of a process that has got further than its checkpoint.
        """
        if not self._has_begun:
            self._has_begun = True
            start = tf.SessionLog(status=tf.SessionLog.START)
            self._write(tf.Event(step=step, session_log=start))
        self._add(
            step,
            [
                {"tag": tag, "simple_value": float(value), **self._description(tag)}
                for tag, value in values.items()
            ],
        )

    def image(self, step: int, tag: str, pixels: np.ndarray) -> None:
        """Adds an image, uint8 [height, width, 3], at a step."""
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

    def text(self, tag: str, markdown: str) -> None:
        """Adds a text, which TensorBoard shows as Markdown."""
        metadata = tf.SummaryMetadata(
            plugin_data=tf.SummaryMetadata.PluginData(plugin_name="text")
        )
        tensor = tf.make_tensor_proto(markdown, dtype=tf.string)
        self._add(0, [{"tag": tag, "metadata": metadata, "tensor": tensor}])

    def summary(self, made: "tf.Summary") -> None:
        """Adds a summary that a package of TensorBoard made, for one of its pages."""
        # It may be of TensorBoard's own class of the same message.
        self._write(tf.Event(summary=tf.Summary.FromString(made.SerializeToString())))

    def flush(self) -> None:
        """Hands over what was added so far: a kill of this process cannot lose it."""
        with self._errors_as_os_error():
            self._records.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Hands over all that was added, and ends the file."""
        with self._errors_as_os_error():
            self._records.close()

    def _description(self, tag):
        """The description of a tag, with its first value alone."""
        text = self._not_described.pop(tag, None)
        if text is None:
            return {}
        return {"metadata": tf.SummaryMetadata(summary_description=text)}

    def _add(self, step, values):
        summary = tf.Summary(value=[tf.Summary.Value(**value) for value in values])
        self._write(tf.Event(step=step, summary=summary))

    def _write(self, event):
        event.wall_time = time.time()
        with self._errors_as_os_error():
            self._records.write(event.SerializeToString())
        # Often enough to be watched as it grows.
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    @contextlib.contextmanager
    def _errors_as_os_error(self):
        try:
            yield
        except tf.errors.OpError as error:
            code = _errno(error)
            raise OSError(code, os.strerror(code), self._filename) from error


def _errno(error: "tf.errors.OpError") -> int:
    """The operating system's number for what TensorFlow calls a file system's failure."""
    numbers = {
        tf.errors.RESOURCE_EXHAUSTED: errno.ENOSPC,
        tf.errors.PERMISSION_DENIED: errno.EACCES,
        tf.errors.NOT_FOUND: errno.ENOENT,
    }
    return numbers.get(error.error_code, errno.EIO)


def _new_filename(folder):
    """The name of a new file of events; those of earlier processes stay as they are."""
    for second in itertools.count(int(time.time())):
        name = f"events.out.tfevents.{second}.{platform.node()}"
        filename = os.path.join(folder, name)
        if not os.path.exists(filename):
            return filename


def as_markdown(values: Mapping[str, object]) -> str:
    """A table of flags and their values by name, for `Events.text`."""
    rows = [f"| {name} | {value} |" for name, value in values.items()]
    return "\n".join(["| flag | value |", "| --- | --- |", *rows])

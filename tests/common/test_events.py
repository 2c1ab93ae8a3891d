"""Tests of TensorBoard events."""

import errno
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto import summary_pb2

from common import events as recording
from common import tf1 as tf

ROOT = Path(recording.__file__).parent.parent

# ---- Curves ----


def test_early_steps_are_all_logged():
    assert all(recording.is_logged(step) for step in range(1, 1001))


@given(power=st.integers(0, 15), digit=st.integers(1, 9))
def test_round_steps_are_logged(power, digit):
    assert recording.is_logged(digit * 10**power)


@given(power=st.integers(3, 12), offset=st.integers(0, 899))
def test_each_decade_is_logged_evenly(power, offset):
    """From 10^p to 10^(p+1) every 10^(p-2)th step: 900 of them, and none between."""
    stride = 10 ** (power - 2)
    step = 10**power + offset * stride
    assert recording.is_logged(step)
    assert not recording.is_logged(step + 1)
    assert not recording.is_logged(step + stride - 1)


def test_a_long_curve_has_few_points():
    assert sum(map(recording.is_logged, range(1, 100_001))) == 999 + 2 * 900 + 1


def test_a_folder_that_was_deleted_does_not_come_back(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone"):
        recording.Events(str(tmp_path / "gone"))
    assert not (tmp_path / "gone").exists()


# ---- TensorBoard ----


@pytest.fixture
def written(tmp_path):
    """Writes with Events, closes it, and gives what TensorBoard then reads."""

    def write(function, graph=None):
        events = recording.Events(str(tmp_path), graph)
        function(events)
        events.close()
        return EventAccumulator(str(tmp_path), size_guidance={"images": 0}).Reload()

    return write


def test_scalars_can_be_read_back(written):
    def write(events):
        events.scalars(1, {"task1/fitness": 0.25, "task1/loss": np.float32(1.5)})
        events.scalars(700, {"task1/fitness": np.float64(0.75), "modules": np.int64(9)})

    read = written(write)
    points = {
        tag: [(point.step, point.value) for point in read.Scalars(tag)]
        for tag in read.Tags()["scalars"]
    }
    assert points == {
        "task1/fitness": [(1, 0.25), (700, 0.75)],
        "task1/loss": [(1, 1.5)],
        "modules": [(700, 9)],
    }


def test_a_curve_that_goes_on_from_a_checkpoint_has_no_zigzag(tmp_path):
    """What the process before it had learned since then was lost, and is not shown."""
    for steps, value in ((range(0, 100, 10), 1), (range(50, 120, 10), 2)):
        events = recording.Events(tmp_path)
        events.text("flags", "the same for both")
        for step in steps:
            events.scalars(step, {"charts/fitness": value})
        events.close()
    accumulator = EventAccumulator(str(tmp_path)).Reload()
    points = [(e.step, e.value) for e in accumulator.Scalars("charts/fitness")]
    assert points == [
        *((step, 1) for step in range(0, 50, 10)),
        *((step, 2) for step in range(50, 120, 10)),
    ]


def test_curves_are_described_once(tmp_path):
    described = {"charts/fitness": "How good it is.", "charts/other": "Never written."}
    events = recording.Events(str(tmp_path), descriptions=described)
    for step in range(3):
        events.scalars(step, {"charts/fitness": 0.5, "plain": 1})
    events.close()
    read = EventAccumulator(str(tmp_path)).Reload()
    assert read.SummaryMetadata("charts/fitness").summary_description == (
        "How good it is."
    )
    assert len(read.Scalars("charts/fitness")) == len(read.Scalars("plain")) == 3


def test_an_image_can_be_read_back(written):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    read = written(lambda events: events.image(25, "evolution/population", pixels))
    (image,) = read.Images("evolution/population")
    assert (image.step, image.height, image.width) == (25, 5, 7)
    decoded = Image.open(io.BytesIO(image.encoded_image_string))
    assert np.array_equal(np.asarray(decoded), pixels)


def test_a_text_can_be_read_back(written):
    markdown = "| flag | value |\n| --- | --- |\n| L | 3 – three |"
    read = written(lambda events: events.text("flags", markdown))
    (tensor,) = read.Tensors("flags")
    assert tensor.step == 0
    assert [text.decode() for text in tensor.tensor_proto.string_val] == [markdown]
    assert read.SummaryMetadata("flags").plugin_data.plugin_name == "text"


def test_a_summary_of_tensorboard_s_own_class_can_be_read_back(written):
    made = summary_pb2.Summary()
    made.value.add(tag="page", simple_value=0.5)
    read = written(lambda events: events.summary(made))
    assert [(point.step, point.value) for point in read.Scalars("page")] == [(0, 0.5)]


def test_the_graph_is_kept(written):
    graph = tf.Graph()
    with graph.as_default():
        tf.constant(1, name="of_this_graph")
    read = written(lambda events: None, graph)
    definition = tf.GraphDef.FromString(read.Graph().SerializeToString())
    assert [node.name for node in definition.node] == ["of_this_graph"]


def test_importing_it_does_not_load_tensorflow():
    code = "import sys, common.events; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (tf.errors.ResourceExhaustedError, errno.ENOSPC),
        (tf.errors.PermissionDeniedError, errno.EACCES),
        (tf.errors.NotFoundError, errno.ENOENT),
        (tf.errors.UnknownError, errno.EIO),
    ],
)
def test_what_cannot_be_written_is_an_os_error(tmp_path, error, number):
    events = recording.Events(tmp_path)
    (file,) = tmp_path.iterdir()
    with pytest.raises(OSError) as caught, events._errors_as_os_error():
        raise error(None, None, "failed")
    events.close()
    assert (caught.value.errno, caught.value.filename) == (number, str(file))


def test_versions_are_those_in_use():
    versions = recording.versions()
    assert versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert versions["numpy"] == np.__version__
    assert versions["tensorflow"] == tf.version.VERSION
    json.dumps(versions)

"""Tests of what TensorBoard shows, in a browser; skipped where there is no Chromium."""

import contextlib

import numpy as np
import pytest
import tensorboard_pages
from PIL import Image

from atari.ga_graph import ClusterState
from atari.recorder import Recorder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        tensorboard_pages.find_browser() is None, reason="there is no Chromium"
    ),
]

SCRIPT = "benchmarks/tensorboard_pages.py"
SIZE = 1200, 900
SHORT = "--fake_data", "--max_steps=12", "--T=4", "--stop_accuracy=1"


@pytest.fixture(scope="module")
def window():
    with tensorboard_pages.browser() as window:
        yield window


@pytest.fixture(scope="module")
def run(scripts, tmp_path_factory):
    """The folder above the one of a run."""
    folder = tmp_path_factory.mktemp("run")
    finished = scripts.fork(folder, "binary_mnist_pathnet.py", *SHORT)
    assert finished.status == 0, finished.stderr
    return folder


@pytest.fixture(scope="module")
def batch(scripts, tmp_path_factory):
    """The folder that is made for TensorBoard of two seeds under two controls."""
    folder = tmp_path_factory.mktemp("batch")
    flags = "--runs=2", "--control=pathnet,scratch", "--results=results.jsonl"
    made = scripts.fork(folder, "binary_mnist_pathnet.py", *SHORT, *flags)
    assert made.status == 0, made.stderr
    written = scripts.fork(folder, "plotting.py", "results.jsonl", "--tensorboard=tb")
    assert written.status == 0, written.stderr
    return folder / "tb"


@contextlib.contextmanager
def shown(window, folder, name, tags=""):
    """A page of TensorBoard, with what it is for drawn on it."""
    with tensorboard_pages.tensorboard(str(folder)) as address:
        assert name in tensorboard_pages.available(address)
        page, is_drawn = tensorboard_pages.show(window, address, name, SIZE, tags)
        assert is_drawn
        yield page


def texts(page, selector):
    """What can be read in the elements that match."""
    return [" ".join(t.split()) for t in page.locator(selector).all_inner_texts()]


def test_the_pages_of_a_run_are_drawn(run, scripts):
    flags = "--width=1200", "--height=900", "--out_dir=pages"
    finished = scripts.run(run, SCRIPT, *flags)
    assert finished.status == 0, finished.stderr
    # A single run has no page Custom Scalars.
    names = [f"pages/{name}.png" for name in ("scalars", "images", "graph", "hparams")]
    assert finished.lines == names
    for name in names:
        with Image.open(run / name) as picture:
            assert picture.size == SIZE
            assert len(picture.convert("L").getcolors()) > 20
    # Nothing that is there is written over.
    again = scripts.run(run, SCRIPT, *flags)
    assert again.status == 2
    assert again.stderr.splitlines()[-1].endswith("name another --out_dir")


def test_the_tasks_of_a_run_share_a_chart(window, run):
    (folder,) = (run / "logs").iterdir()
    with shown(window, folder, "scalars", "^charts/fitness$") as page:
        (card,) = texts(page, "scalar-card")
        assert "".join(card.split()).startswith("charts/fitness")
        rows = texts(page, "scalar-card tb-data-table-content-row")
        assert [row.split()[0] for row in rows] == ["task1_1v3", "task2_1v2"]
        assert page.locator(tensorboard_pages.CURVE).count() == 2


def test_a_batch_has_a_chart_with_bands_for_each_task(window, batch):
    with shown(window, batch / "mean", "custom_scalars") as page:
        assert page.locator("tf-custom-scalar-margin-chart-card").count() == 2
        assert page.locator("path.area").count() == 3
        assert sorted(texts(page, ".match-list-entry")) == [
            "◼ 1v2/mean (1v2_after_1v3__pathnet)",
            "◼ 1v2/mean (1v2_after_1v3__scratch)",
            "◼ 1v3/mean (1v3_first)",
        ]


def test_a_batch_has_a_table_with_a_row_a_repeat(window, batch):
    with shown(window, batch / "repeats", "hparams") as page:
        cells = texts(page, "vaadin-grid-cell-content")
    assert {"control", "task1/held_out", "task2/held_out"} <= set(cells)
    assert sorted(
        cell for cell in cells if cell.startswith("seed") and "_" in cell
    ) == [
        f"seed{seed}__{control}__1v3_1v2"
        for seed in (0, 1)
        for control in ("pathnet", "scratch")
    ]


def test_the_tasks_of_a_cluster_share_a_chart(window, tmp_path):
    recorder = Recorder(
        str(tmp_path), ["catch", "catch"], {"seed": 0}, M=4, max_time_step=100
    )
    for task in 0, 1:
        for look in range(1, 6):
            recorder.add(cluster(task, 100 * look), np.full([2, 6], look), 0.1 * look)
        recorder.close()
    with shown(window, tmp_path, "scalars", "^charts/episodic_return$") as page:
        rows = texts(page, "scalar-card tb-data-table-content-row")
        assert [row.split()[0] for row in rows] == ["task1_catch", "task2_catch"]
        assert page.locator(tensorboard_pages.CURVE).count() == 2


def cluster(task, steps):
    """A cluster of three actors on 2 x 4 modules, after so many agent steps."""
    return ClusterState(
        ready=True,
        task=task,
        steps=steps,
        generation=steps // 100,
        paths=np.random.default_rng(steps).integers(4, size=[3, 2, 2]),
        versions=np.zeros(3, np.int64),
        returns=np.zeros(3),
        played=np.ones(3, np.int64),
        fixed_paths=np.zeros([2, 2, 4], np.float32),
    )


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--log_dir=logs"], "flag --log_dir=logs: no such folder"),
        (["--log_dir=."], ".: TensorBoard shows no run of it"),
        (["--pages=graphs"], "name pages of scalars, images, graph"),
    ],
)
def test_what_cannot_be_shown_is_said_in_a_line(scripts, tmp_path, flags, said):
    finished = scripts.run(tmp_path, SCRIPT, "--out_dir=pages", *flags)
    assert finished.status == 2
    assert said in finished.stderr.splitlines()[-1]
    assert not (tmp_path / "pages").exists()


def test_a_page_without_data_is_named(scripts, batch):
    flags = f"--log_dir={batch / 'mean'}", "--out_dir=pages", "--pages=images"
    finished = scripts.run(batch, SCRIPT, *flags)
    assert finished.status == 2
    assert "has nothing for images" in finished.stderr.splitlines()[-1]

"""Tests of benchmarks/tensorboard_pages.py; skipped where there is no Chromium."""

import numpy as np
import pytest
import tensorboard_pages
from PIL import Image

pytestmark = pytest.mark.slow

SCRIPT = "benchmarks/tensorboard_pages.py"
needs_chromium = pytest.mark.skipif(
    tensorboard_pages.find_browser() is None, reason="there is no Chromium"
)


@needs_chromium
def test_the_pages_of_a_run_are_drawn(scripts, tmp_path):
    flags = "--fake_data", "--max_steps=12", "--T=4", "--stop_accuracy=1"
    run = scripts.fork(tmp_path, "binary_mnist_pathnet.py", *flags)
    assert run.status == 0, run.stderr
    size = "--width=1200", "--height=1000"
    finished = scripts.run(tmp_path, SCRIPT, *size, "--out_dir=pages")
    assert finished.status == 0, finished.stderr
    names = [f"pages/{name}.png" for name in tensorboard_pages.PAGES]
    assert finished.lines == names
    for name in names:
        with Image.open(tmp_path / name) as picture:
            assert picture.size == (1200, 1000)
        assert tensorboard_pages.coloured(tmp_path / name) > 500
    # Nothing that is there is written over.
    again = scripts.run(tmp_path, SCRIPT, *size, "--out_dir=pages")
    assert again.status == 2
    assert again.stderr.splitlines()[-1].endswith("name another --out_dir")


@needs_chromium
def test_a_folder_without_a_run(scripts, tmp_path):
    finished = scripts.run(tmp_path, SCRIPT, "--out_dir=pages")
    assert finished.status == 2
    assert "--log_dir=logs" in finished.stderr
    assert not (tmp_path / "pages").exists()


def test_coloured_pixels_are_counted_within_the_frame(tmp_path):
    pixels = np.full([200, 1000, 3], 255, np.uint8)
    pixels[:60] = pixels[:, :300] = pixels[:, -200:] = 255, 128, 0
    pixels[100:110] = 128  # grey
    pixels[120:122, 500:510] = 66, 80, 102
    Image.fromarray(pixels).save(tmp_path / "page.png")
    assert tensorboard_pages.coloured(tmp_path / "page.png") == 20

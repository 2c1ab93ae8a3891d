"""Pictures of what TensorBoard shows of a folder of runs, taken by a browser without a screen.

    python benchmarks/tensorboard_pages.py --log_dir=logs/RUN --out_dir=DIR
    python benchmarks/tensorboard_pages.py --log_dir=logs/RUN --out_dir=DIR --tags=charts

Starts TensorBoard on a free port of this machine, opens its pages with Chromium and
writes scalars.png, images.png and graph.png. A page is taken again, with more time to
draw itself, until something is drawn on it. `--tags` leaves out all other curves.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

import numpy as np
from absl import flags
from PIL import Image

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from common import commandline  # noqa: E402

FLAGS = flags.FLAGS

# Charts are asked for as SVG: a browser allows only a few drawn by WebGL at a time, and
# leaves the others empty.
PAGES = {
    "scalars": "?forceSVG=true&darkMode=false&tagFilter={tags}#timeseries",
    "images": "?darkMode=false#images",
    "graph": "?darkMode=false#graphs",
}
BROWSERS = "chromium", "chromium-browser", "google-chrome"
# Pixels at the top, on the left and on the right that have colours on every page.
HEADER, LEFT, RIGHT = 70, 360, 270
START_SECONDS = 120  # for TensorBoard to answer
PAGE_SECONDS = 5, 15, 45  # on the page's own clock, which stops while it loads
MIN_COLOURED = 500  # pixels: less is a page without a curve or picture


def find_browser():
    """The path of Chromium, None where there is none."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


@contextlib.contextmanager
def tensorboard(log_dir):
    """TensorBoard as a process; gives its address once it has read the runs.

    Raises:
      UserError: it ends, does not answer, or finds no run.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", f"--logdir={log_dir}"]
    command += ["--load_fast=false", "--host=127.0.0.1", f"--port={port}"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, **quiet)
    try:
        address = f"http://127.0.0.1:{port}/"
        _wait_for_runs(process, address, log_dir)
        yield address
    finally:
        process.terminate()
        process.wait()


def _wait_for_runs(process, address, log_dir):
    give_up = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < give_up:
        with (
            contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError),
            urllib.request.urlopen(f"{address}data/runs", timeout=5) as answer,
        ):
            if answer.read().strip() != b"[]":
                return
        time.sleep(0.2)
    raise commandline.UserError(
        f"{log_dir}: TensorBoard shows no run of it; name a folder with event files"
    )


def take(browser, url, file, size, deadline):
    """Writes the page at `url` as a PNG of `size`, width and height, in 256 colours.

    Args:
      deadline: of the monotonic clock, at which the browser is ended.

    Returns:
      Whether more is on it than the frame that every page has.

    Raises:
      UserError: the browser fails, or takes too long.
    """
    for seconds in PAGE_SECONDS:
        commandline.say(f"{file}: drawing it for {seconds} s of the page's clock")
        with tempfile.TemporaryDirectory() as profile:
            command = [browser, "--headless=new", "--disable-gpu", "--hide-scrollbars"]
            if os.geteuid() == 0:
                command.append("--no-sandbox")  # its sandbox refuses to work for root
            command += [
                f"--user-data-dir={profile}",
                f"--window-size={size[0]},{size[1]}",
                f"--virtual-time-budget={1000 * seconds}",
                f"--screenshot={os.path.abspath(file)}",
                url,
            ]
            left = max(deadline - time.monotonic(), 0)
            try:
                subprocess.run(command, capture_output=True, timeout=left)
            except subprocess.TimeoutExpired as error:
                raise commandline.UserError(
                    f"flag --time_limit={FLAGS.time_limit}: {file} was not drawn within "
                    "it; give more seconds"
                ) from error
        if not os.path.exists(file):
            raise commandline.UserError(f"{browser}: could not draw {url}")
        with Image.open(file) as picture:
            picture.convert("RGB").quantize(256).save(file, optimize=True)
        if coloured(file) >= MIN_COLOURED:
            return True
    return False


def coloured(file):
    """How many pixels within a page's frame are neither white, grey nor black."""
    with Image.open(file) as picture:
        pixels = np.asarray(picture.convert("RGB"), dtype=np.int16)
    inner = pixels[HEADER:, LEFT:-RIGHT]
    return int((inner.max(2) - inner.min(2) > 25).sum())


def main():
    browser = find_browser()
    if browser is None:
        print("skipped: there is no Chromium on this machine")
        return
    if not os.path.isdir(FLAGS.log_dir):
        raise commandline.UserError(f"flag --log_dir={FLAGS.log_dir}: no such folder")
    os.makedirs(FLAGS.out_dir, exist_ok=True)
    files = [os.path.join(FLAGS.out_dir, f"{name}.png") for name in PAGES]
    for file in filter(os.path.exists, files):
        raise commandline.UserError(f"{file}: exists; name another --out_dir")
    deadline = time.monotonic() + FLAGS.time_limit
    commandline.say(f"{FLAGS.log_dir}: TensorBoard reads it")
    with tensorboard(FLAGS.log_dir) as address:
        for file, page in zip(files, PAGES.values()):
            url = address + page.format(tags=urllib.parse.quote(FLAGS.tags))
            drawn = take(browser, url, file, (FLAGS.width, FLAGS.height), deadline)
            print(f"{file}{'' if drawn else ': nothing is drawn on it'}", flush=True)


def define_flags():
    with commandline.flag_group("Pictures of TensorBoard", commandline.PLACE):
        flags.DEFINE_string("log_dir", "logs", "Folder of runs.", allow_override=True)
        flags.DEFINE_string("out_dir", None, "Folder for the pictures.", required=True)
        flags.DEFINE_string(
            "tags", "", "Show the curves that match this expression alone."
        )
        flags.DEFINE_integer(
            "time_limit", 600, "Seconds that all pages may take.", lower_bound=1
        )
        flags.DEFINE_integer(
            "width", 1500, "Width of a picture, in pixels.", lower_bound=1000
        )
        flags.DEFINE_integer(
            "height", 1500, "Height of a picture, in pixels.", lower_bound=500
        )


if __name__ == "__main__":
    commandline.run(main, define_flags)

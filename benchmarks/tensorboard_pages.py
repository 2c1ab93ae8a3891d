"""Pictures of what TensorBoard shows of a folder of runs, taken by a browser without a screen.

    python benchmarks/tensorboard_pages.py --log_dir=logs/RUN --out_dir=DIR
    python benchmarks/tensorboard_pages.py --log_dir=logs/RUN --out_dir=DIR --tags=charts
    python benchmarks/tensorboard_pages.py --log_dir=logs/RUN --out_dir=DIR --pages=hparams

Starts TensorBoard on a free port of this machine, opens its pages with Chromium and
writes a picture of each: scalars.png, images.png, graph.png, custom_scalars.png and
hparams.png, as far as the folder has data for them. `--tags` leaves out all other curves
of the first.
"""

import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import NamedTuple

from absl import flags
from PIL import Image
from playwright import sync_api

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from common import commandline  # noqa: E402

FLAGS = flags.FLAGS


class Kind(NamedTuple):
    """A kind of page.

    Attributes:
      plugin: of TensorBoard, which is active where there is data for the page.
      url: what follows on the address. drawn: selector of what is there once it is drawn.
    """

    plugin: str
    url: str
    drawn: str


# Charts are asked for as SVG: a browser allows only a few drawn by WebGL at a time, and
# leaves the others empty. It also makes a curve an element that can be counted.
CURVE = "line-chart path[style*='opacity: 1']"  # the smoothed one
PAGES = {
    "scalars": Kind(
        "timeseries",
        "?forceSVG=true&darkMode=false&tagFilter={tags}#timeseries",
        CURVE,
    ),
    "images": Kind("images", "?darkMode=false#images", "img"),
    "graph": Kind("graphs", "?darkMode=false#graphs", "g.node"),
    "custom_scalars": Kind(
        "custom_scalars", "?darkMode=false#custom_scalars", "path.line"
    ),
    "hparams": Kind("hparams", "?darkMode=false#hparams", "vaadin-grid-cell-content"),
}
PROGRAMS = "chromium", "chromium-browser", "google-chrome"
START_SECONDS = 120  # for TensorBoard to answer
PAGE_SECONDS = 30  # after which nothing more is expected to be drawn on a page
LOOK_SECONDS = 0.5  # between two looks at a page
STILL_LOOKS = 3  # that must find as much drawn as the one before


def find_browser() -> str | None:
    """The path of Chromium, None where there is none."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


@contextlib.contextmanager
def browser() -> Iterator[sync_api.Browser]:
    """Chromium without a screen.

    Raises:
      playwright.sync_api.Error: it cannot be started.
    """
    with sync_api.sync_playwright() as playwright:
        program = find_browser()
        with playwright.chromium.launch(executable_path=program) as chromium:
            yield chromium


@contextlib.contextmanager
def tensorboard(log_dir: str) -> Iterator[str]:
    """TensorBoard as a process; gives its address once it has read the runs.

    Raises:
      UserError: it ends, does not answer, or finds no run.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", f"--logdir={log_dir}"]
    command += ["--load_fast=false", "--host=127.0.0.1", f"--port={port}"]
    # It answers once everything is read.
    command += ["--reload_task=blocking", "--reload_interval=0"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, **quiet)
    try:
        address = f"http://127.0.0.1:{port}/"
        if not _runs(process, address):
            raise commandline.UserError(
                f"{log_dir}: TensorBoard shows no run of it; name a folder with event "
                "files"
            )
        yield address
    finally:
        process.terminate()
        process.wait()


def _runs(process, address):
    """The names of the runs that it has read; none if it does not answer."""
    give_up = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < give_up:
        with contextlib.suppress(OSError):
            return _answer(f"{address}data/runs")
        time.sleep(0.2)
    return []


def _answer(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)


def available(address: str) -> list[str]:
    """The names of the pages that TensorBoard, at its address, has data for."""
    plugins = _answer(f"{address}data/plugins_listing")
    return [
        name
        for name, kind in PAGES.items()
        if plugins.get(kind.plugin, {}).get("enabled")
    ]


def show(
    chromium: sync_api.Browser,
    address: str,
    name: str,
    size: tuple[int, int],
    tags: str = "",
    seconds: float = PAGE_SECONDS,
) -> tuple[sync_api.Page, bool]:
    """Opens a page and waits until nothing more is drawn on it.

    Args:
      chromium: to open it in. address: of TensorBoard. name: of the page, one of PAGES.
      size: width and height in pixels. tags: expression that the tags of curves match.
      seconds: that it may take to load.

    Returns:
      The page, and whether anything of what it is for is drawn on it.

    Raises:
      playwright.sync_api.Error: the page is not there in time, or the browser ended.
    """
    kind = PAGES[name]
    page = chromium.new_page(viewport={"width": size[0], "height": size[1]})
    page.set_default_timeout(1000 * seconds)
    page.goto(address + kind.url.format(tags=urllib.parse.quote(tags)))
    give_up = time.monotonic() + min(seconds, PAGE_SECONDS)
    drawn = still = 0
    while still < STILL_LOOKS and time.monotonic() < give_up:
        page.wait_for_timeout(1000 * LOOK_SECONDS)
        before, drawn = drawn, page.locator(kind.drawn).count()
        still = still + 1 if drawn and drawn == before else 0
    return page, drawn > 0


def write_picture(page: sync_api.Page, file: str) -> None:
    """Writes what a page shows as a PNG of 256 colours."""
    with Image.open(io.BytesIO(page.screenshot())) as picture:
        picture.convert("RGB").quantize(256).save(file, optimize=True)


def main():
    if find_browser() is None:
        print("skipped: there is no Chromium on this machine")
        return
    if not os.path.isdir(FLAGS.log_dir):
        raise commandline.UserError(f"flag --log_dir={FLAGS.log_dir}: no such folder")
    deadline = time.monotonic() + FLAGS.time_limit
    commandline.say(f"{FLAGS.log_dir}: TensorBoard reads it")
    try:
        with tensorboard(FLAGS.log_dir) as address, browser() as chromium:
            for name, file in _files(available(address)).items():
                _take(chromium, address, name, file, deadline)
    except sync_api.Error as error:
        if time.monotonic() >= deadline:
            raise commandline.UserError(
                f"flag --time_limit={FLAGS.time_limit}: the pages took longer; give more "
                "seconds"
            ) from error
        reason = str(error).splitlines()[0]
        raise commandline.UserError(f"{find_browser()}: {reason}") from error


def _files(names):
    """The picture of each page that is asked for, by its name, in a folder that is there.

    Args:
      names: of the pages that there is data for.
    """
    wanted = FLAGS.pages or names
    for name in wanted:
        if name not in names:
            raise commandline.UserError(
                f"flag --pages={','.join(wanted)}: {FLAGS.log_dir} has nothing for "
                f"{name}, but for {', '.join(names)}"
            )
    files = {name: os.path.join(FLAGS.out_dir, f"{name}.png") for name in wanted}
    for file in filter(os.path.exists, files.values()):
        raise commandline.UserError(f"{file}: exists; name another --out_dir")
    os.makedirs(FLAGS.out_dir, exist_ok=True)
    return files


def _take(chromium, address, name, file, deadline):
    commandline.say(f"{file}: waiting until it is drawn")
    size = FLAGS.width, FLAGS.height
    left = max(deadline - time.monotonic(), 0.001)  # 0 would be no limit
    page, is_drawn = show(chromium, address, name, size, FLAGS.tags, left)
    write_picture(page, file)
    page.close()
    print(f"{file}{'' if is_drawn else ': nothing is drawn on it'}", flush=True)


def define_flags():
    with commandline.flag_group("Pictures of TensorBoard", commandline.PLACE):
        flags.DEFINE_string("log_dir", "logs", "Folder of runs.", allow_override=True)
        flags.DEFINE_string("out_dir", None, "Folder for the pictures.", required=True)
        flags.DEFINE_list(
            "pages",
            None,
            f"Which pages, of {', '.join(PAGES)}; all that there is data for, if none.",
        )
        flags.register_validator(
            "pages",
            lambda names: names is None or set(names) <= set(PAGES),
            f"name pages of {', '.join(PAGES)}",
        )
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

"""Chromium without a screen: pages are opened, read and photographed.

It is driven over a pair of pipes by the Chrome DevTools Protocol, which is JSON with a
zero byte after each message (https://chromedevtools.github.io/devtools-protocol/).
"""

import base64
import contextlib
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator

PROGRAMS = "chromium", "chromium-browser", "google-chrome"
STOP_SECONDS = 10

# What a page shows may be in the shadow trees of its elements, which querySelectorAll
# does not enter.
_ALL = """
const all = (root, selector) => [
  ...root.querySelectorAll(selector),
  ...[...root.querySelectorAll('*')].filter(element => element.shadowRoot)
    .flatMap(element => all(element.shadowRoot, selector)),
];
"""


class BrowserError(Exception):
    """The browser has ended, or refuses what it is asked."""


def find() -> str | None:
    """The path of Chromium, None where there is none."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


@contextlib.contextmanager
def started(program: str, deadline: float) -> Iterator["Browser"]:
    """A browser as a process, with a profile of its own that is gone afterwards.

    Args:
      program: path of Chromium. deadline: of the monotonic clock, for all its answers.
    """  # fmt: skip
    command = [program, "--headless=new", "--disable-gpu", "--hide-scrollbars"]
    if os.geteuid() == 0:
        command.append("--no-sandbox")  # its sandbox refuses to work for root
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command += [f"--user-data-dir={profile}", "--remote-debugging-pipe"]
        to_browser, from_browser = _pipe(), _pipe()

        def take_pipes():
            os.dup2(to_browser[0], 3)  # it reads commands from 3 and answers on 4
            os.dup2(from_browser[1], 4)

        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(
            command, preexec_fn=take_pipes, close_fds=False, **quiet
        )
        os.close(to_browser[0])
        os.close(from_browser[1])
        try:
            yield Browser(to_browser[1], from_browser[0], deadline)
        finally:
            os.close(to_browser[1])  # it ends when nobody can ask it any more
            os.close(from_browser[0])
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            process.kill()
            process.wait()


def _pipe():
    """Both ends of a new pipe, neither of them 3 or 4."""
    ends = os.pipe()
    moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 5) for end in ends]
    for end in ends:
        os.close(end)
    return moved


class Browser:
    """A connection to the browser.

    All methods raise BrowserError, and TimeoutError if it has not answered in time.
    """

    def __init__(self, commands: int, answers: int, deadline: float):
        """
        Args:
          commands, answers: descriptors of pipes. deadline: as for `started`.
        """  # fmt: skip
        self._commands, self._answers, self._deadline = commands, answers, deadline
        self._numbers = itertools.count(1)
        self._received = b""

    def open(self, url: str, width: int, height: int) -> "Page":
        """Opens a page in a window of that many pixels; it may not be drawn yet."""
        # An empty one first: charts are drawn once, in the size that the window then has.
        target = self.ask("Target.createTarget", {"url": "about:blank"})["targetId"]
        attach = {"targetId": target, "flatten": True}
        page = Page(self, self.ask("Target.attachToTarget", attach)["sessionId"])
        size = {"width": width, "height": height, "deviceScaleFactor": 1}
        page.ask("Emulation.setDeviceMetricsOverride", size | {"mobile": False})
        page.ask("Page.navigate", {"url": url})
        return page

    def ask(self, method: str, parameters: dict, session: str | None = None) -> dict:
        """Has a command of the protocol carried out; returns what it answers."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        try:
            os.write(self._commands, json.dumps(message).encode() + b"\0")
        except BrokenPipeError as error:
            raise BrowserError("the browser has ended") from error
        while (answer := self._next_message()).get("id") != number:
            pass  # news of what happens on the page
        if "error" in answer:
            raise BrowserError(f"{method}: {answer['error'].get('message')}")
        return answer["result"]

    def _next_message(self):
        while b"\0" not in self._received:
            left = max(self._deadline - time.monotonic(), 0)
            if not select.select([self._answers], [], [], left)[0]:
                raise TimeoutError("the browser has not answered in time")
            part = os.read(self._answers, 1 << 20)
            if not part:
                raise BrowserError("the browser has ended")
            self._received += part
        message, _, self._received = self._received.partition(b"\0")
        return json.loads(message)


class Page:
    """A page that is open. All methods raise what those of `Browser` do."""

    def __init__(self, browser: Browser, session: str):
        """
        Args:
          session: that the browser has given the page.
        """
        self._browser, self._session = browser, session

    def ask(self, method: str, parameters: dict) -> dict:
        """As `Browser.ask`, of this page."""
        return self._browser.ask(method, parameters, self._session)

    def count(self, selector: str) -> int:
        """How many elements match a CSS selector, those in shadow trees included."""
        return self._evaluate(f"all(document, {json.dumps(selector)}).length")

    def texts(self, selector: str) -> list[str]:
        """The text of each element that matches, as it is shown: without what is hidden."""
        found = f"all(document, {json.dumps(selector)})"
        return self._evaluate(f"{found}.map(element => element.innerText.trim())")

    def picture(self) -> bytes:
        """What the window shows, as a PNG."""
        answer = self.ask("Page.captureScreenshot", {"format": "png"})
        return base64.b64decode(answer["data"])

    def _evaluate(self, expression):
        # In a block of its own, as names can be declared once alone.
        code = {"expression": f"{{{_ALL}{expression}}}", "returnByValue": True}
        answer = self.ask("Runtime.evaluate", code)
        if "exceptionDetails" in answer:
            raise BrowserError(f"{expression}: {answer['exceptionDetails']['text']}")
        return answer["result"]["value"]

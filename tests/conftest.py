"""Runs the scripts: as a user does, or from a process that has imported TensorFlow."""

import contextlib
import ctypes
import gc
import json
import os
import resource
import runpy
import signal
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 180  # seconds, for what takes fewer than 20 on a quiet machine


@dataclass(frozen=True)
class Finished:
    """What a user sees of a script that has ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def lines(self):
        return self.stdout.splitlines()


class Scripts:
    """Runs the project's scripts with an empty home folder; `cwd` is theirs."""

    root = ROOT

    def __init__(self, new_folder, server):
        self._new_folder = new_folder
        self._server = server

    def start(self, cwd, script, *flags, **popen):
        """A Popen of a script whose output is piped."""
        command = [sys.executable, str(ROOT / script), *map(str, flags)]
        env = os.environ | {"HOME": str(self._new_folder("home"))}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=cwd, env=env, **pipes, **popen)

    def run(self, cwd, script, *flags):
        """The script as a process of its own, from start to end."""
        with self.start(cwd, script, *flags) as process:
            try:
                stdout, stderr = process.communicate(timeout=TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return Finished(process.returncode, stdout, stderr)

    def fork(self, cwd, script, *flags, **places):
        """The same in a fork of a process that has imported TensorFlow: seconds less."""
        return self.start_fork(cwd, script, *flags, **places).wait()

    def start_fork(
        self,
        cwd,
        script,
        *flags,
        stdout=None,
        stderr=None,
        max_file_bytes=None,
        heeds_permissions=False,
    ):
        """Starts such a fork; wait for it before the next one.

        Args:
          stdout, stderr: a pipe or terminal to write to, in place of what is returned.
          max_file_bytes: where a file that the script writes meets a full disk.
          heeds_permissions: whether those of files count, though root runs the tests.
        """
        output = self._new_folder("output")
        files = [stdout or output / "stdout", stderr or output / "stderr"]
        request = {
            "argv": [str(ROOT / script), *map(str, flags)],
            "cwd": str(cwd),
            "home": str(self._new_folder("home")),
            "files": [str(file) for file in files],
            "max_file_bytes": max_file_bytes,
            "heeds_permissions": heeds_permissions,
        }
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return Fork(int(self._server.stdout.readline()), files, self._server)


@dataclass(frozen=True)
class Fork:
    """A script that runs in a fork of the server."""

    pid: int
    files: list
    server: subprocess.Popen

    def wait(self):
        status = int(self.server.stdout.readline())
        kept = [Path(file) for file in self.files]
        return Finished(
            status, *(file.read_text() if file.is_file() else "" for file in kept)
        )


def pytest_make_parametrize_id(val):
    """Files as parameters have no name: what is in them may hold the time of day."""
    return "bytes" if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def scripts(tmp_path_factory):
    command = [sys.executable, __file__]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as server:
        yield Scripts(tmp_path_factory.mktemp, server)
        with contextlib.suppress(BrokenPipeError):
            server.stdin.close()


def serve():
    """Answers each request, a line of JSON on stdin, with process id and exit status.

    The script runs in a fork and ends as the interpreter ends any script, so that its
    exit status, its traceback if any, and what it leaves are the real ones.
    """
    sys.path.insert(0, str(ROOT))
    import supervised.experiment  # noqa: F401, brings in all that the scripts import
    from common import tf1

    tf1.load()

    gc.freeze()  # else every fork copies all of TensorFlow's objects as it ends
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(request)
            runpy.run_path(sys.argv[0], run_name="__main__")
            return
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become(request):
    signal.alarm(TIMEOUT)  # ends the script; its status is then -SIGALRM
    sys.argv = request["argv"]
    os.environ["HOME"] = request["home"]
    os.chdir(request["cwd"])
    for descriptor, file in enumerate(request["files"], 1):
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOCTTY
        os.dup2(os.open(file, flags), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if request["max_file_bytes"]:
        limit = request["max_file_bytes"]
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if request["heeds_permissions"]:
        drop_capabilities()


def drop_capabilities():
    """Makes permissions of files count for this process of root, as for any user."""
    header = struct.pack("Ii", 0x20080522, 0)  # <linux/capability.h>, version 3; itself
    ctypes.CDLL(None).capset(header, bytes(24))


if __name__ == "__main__":
    serve()

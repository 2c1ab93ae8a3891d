"""What the scripts say of files and folders that an ordinary user may not use."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

EARLIER = Path(__file__).parent / "earlier"
MNIST = "binary_mnist_pathnet.py"
SMALL = ["--flagfile=earlier/small.flags", "--fake_data"]


def can_be_nobody():
    """Whether Python runs as an ordinary user; it takes root to become one."""
    if os.geteuid() != 0:
        return False
    try:
        nobody = pwd.getpwnam("nobody")
        command = [sys.executable, "-c", "import numpy"]
        done = subprocess.run(command, user=nobody.pw_uid, extra_groups=[])
    except (KeyError, OSError):
        return False
    return done.returncode == 0


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not can_be_nobody(), reason="needs root, to become nobody"),
]


@pytest.fixture
def folder(monkeypatch):
    """A folder of the user's in which some files and folders are not for the user."""
    # Not in pytest's folder, which is root's alone.
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        shutil.copytree(EARLIER, path / "earlier")
        shutil.copytree(EARLIER / "stopped", path / "stopped")
        (path / "cache").mkdir()
        monkeypatch.setenv("MPLCONFIGDIR", str(path / "cache"))
        for file in (path, *path.rglob("*")):
            shutil.chown(file, "nobody")
        for place, mode in [
            ("earlier/network", 0o555),
            ("earlier/results.jsonl", 0o444),
            ("stopped", 0o555),
        ]:
            shutil.chown(path / place, "root")
            (path / place).chmod(mode)
        (path / "read_only").mkdir(0o755)
        (path / "hidden").mkdir(0o700)
        (path / "hidden.jsonl").touch(0o600)
        yield path


@pytest.mark.parametrize(
    ("script", "arguments", "told"),
    [
        ("plotting.py", ["hidden.jsonl"], "hidden.jsonl: Permission denied"),
        (
            "plotting.py",
            ["earlier/results.jsonl", "--curves=read_only/a.png"],
            "read_only/a.png: Permission denied",
        ),
        ("pathnet.py", ["show", "hidden/net"], "hidden/net"),
        ("pathnet.py", ["show", "earlier/network"], "paths.png: Permission denied"),
        (MNIST, [*SMALL, "--log_dir=read_only"], "read_only/"),
        (MNIST, [*SMALL, "--log_dir=hidden/logs"], "hidden/logs"),
        (MNIST, [*SMALL, "--save_dir=read_only/net"], "read_only/net: cannot be made"),
        (MNIST, ["--data_dir=hidden"], "hidden/"),
        (MNIST, ["--data_dir=hidden/mnist"], "hidden/mnist"),
        (MNIST, [*SMALL, "--load_dir=hidden/net"], "hidden/net"),
        (MNIST, [*SMALL, "--results=earlier/results.jsonl"], "earlier/results.jsonl"),
        (MNIST, [*SMALL, "--results=hidden/results.jsonl"], "hidden/results.jsonl"),
        (MNIST, ["--resume=stopped"], "stopped/results.jsonl: cannot be made there"),
        (MNIST, ["--resume=hidden"], "hidden: Permission denied"),
    ],
)
def test_what_is_not_for_the_user_is_one_line(scripts, folder, script, arguments, told):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    user = {"user": "nobody", "group": "nogroup", "extra_groups": []}
    with scripts.start(folder, script, *arguments, **user) as process:
        stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 2, stderr
    assert told in stderr and stderr.count("\n") == 1
    assert "generation" not in stdout or script != MNIST  # nothing was learned
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    cache = folder / "cache"
    assert {k: v for k, v in after.items() if cache not in (k, *k.parents)} == {
        k: v for k, v in before.items() if cache not in (k, *k.parents)
    }


def test_what_is_for_the_user_is_used(scripts, folder):
    user = {"user": "nobody", "group": "nogroup", "extra_groups": []}
    arguments = ["show", "earlier/network", "picture.png"]
    with scripts.start(folder, "pathnet.py", *arguments, **user) as process:
        stdout, stderr = process.communicate(timeout=120)
    assert (process.returncode, stderr) == (0, "")
    assert (folder / "picture.png").exists()

"""What the scripts say of files and folders that they may not, or cannot, use."""

import shutil
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

EARLIER = Path(__file__).parent / "earlier"
MNIST = "binary_mnist_pathnet.py"
SMALL = ["--flagfile=earlier/small.flags", "--fake_data"]
MODES = {
    "earlier/network": 0o555,
    "earlier/results.jsonl": 0o444,
    "stopped": 0o555,
    "read_only": 0o555,
    "hidden": 0,
    "hidden.jsonl": 0,
}


@pytest.fixture
def folder(tmp_path):
    """A folder in which some files and folders may not be written, or not be read."""
    shutil.copytree(EARLIER, tmp_path / "earlier")
    shutil.copytree(EARLIER / "stopped", tmp_path / "stopped")
    for name in ("read_only", "hidden"):
        (tmp_path / name).mkdir()
    (tmp_path / "hidden.jsonl").touch()
    for name, mode in MODES.items():
        (tmp_path / name).chmod(mode)
    yield tmp_path
    for name in MODES:
        (tmp_path / name).chmod(0o755)


def run(scripts, folder, script, *arguments):
    return scripts.fork(folder, script, *arguments, heeds_permissions=True)


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
        (MNIST, [*SMALL, "--results=hidden/results.jsonl"], "hidden/results.jsonl"),
        (MNIST, ["--resume=stopped"], "stopped/results.jsonl: cannot be made there"),
        (MNIST, ["--resume=hidden"], "hidden: Permission denied"),
    ],
)
def test_what_the_user_may_not_use_is_one_line(
    scripts, folder, script, arguments, told
):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    done = run(scripts, folder, script, *arguments)
    assert done.status == 2, done.stderr
    assert told in done.stderr and done.stderr.count("\n") == 1
    assert "Results" not in done.stdout  # nothing was learned
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_what_the_user_may_read_is_shown(scripts, folder):
    arguments = ["show", "earlier/network", "picture.png"]
    done = run(scripts, folder, "pathnet.py", *arguments)
    assert (done.status, done.stderr) == (0, "")
    assert (folder / "picture.png").exists()


@pytest.mark.parametrize(
    "make", [Path.mkdir, lambda path: path.write_text("{}\n")], ids=["folder", "JSON"]
)
def test_unusable_results_are_refused_before_anything_is_learned(scripts, folder, make):
    (folder / "stopped").chmod(0o755)
    make(folder / "stopped" / "results.jsonl")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    done = scripts.fork(folder, MNIST, "--resume=stopped")
    assert done.status == 2
    assert "stopped/results.jsonl" in done.stderr and done.stderr.count("\n") == 1
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}

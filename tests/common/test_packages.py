"""Tests of packages.py."""

import re
import subprocess
import sys
from importlib import metadata

import pytest

from common import packages
from tests.conftest import ROOT

SCRIPTS = [
    "binary_mnist_pathnet.py",
    "cifar_svhn_pathnet.py",
    "images_pathnet.py",
    "atari_pathnet.py",
    "plotting.py",
    "pathnet.py",
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_python_without_the_packages_is_one_line(script, tmp_path):
    finished = subprocess.run(
        [sys.executable, "-S", ROOT / script, "--help"],  # without site-packages
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (finished.returncode, finished.stdout) == (2, "")
    (line,) = finished.stderr.splitlines()
    assert line.startswith(f"{script}: {sys.executable} has no module absl, ale_py, ")
    assert line.endswith(f"run make .venv/ready, then .venv/bin/python {script}")


def test_every_requirement_is_looked_for():
    required = re.findall(r"^[\w-]+", (ROOT / "requirements.txt").read_text(), re.M)
    modules = metadata.packages_distributions()
    for requirement in required:
        names = {m for m, packages in modules.items() if requirement in packages}
        assert names & set(packages._MODULES), requirement


def test_nothing_is_missing_here():
    assert packages.missing() == []

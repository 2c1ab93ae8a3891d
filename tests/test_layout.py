"""Imports run downward only, and no modules import each other in a circle."""

import ast
import graphlib
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = [
    "binary_mnist_pathnet.py",
    "cifar_svhn_pathnet.py",
    "images_pathnet.py",
    "atari_pathnet.py",
]
LEVELS = [  # lowest first; the modules of a folder may import each other as well
    ["common"],
    ["a3c.py", "reports"],
    ["pathnet.py"],
    ["supervised", "atari"],
    [*SCRIPTS, "plotting.py"],
    ["benchmarks", "tests"],
]
LEVEL = {place: level for level, places in enumerate(LEVELS) for place in places}


def place(file):
    """A folder of the top level, or a file that lies there."""
    return file.split("/")[0]


def imported(file, modules):
    """The files that a file imports anywhere in it; modules: files by dotted name."""
    for node in ast.walk(ast.parse((ROOT / file).read_text(), file)):
        if isinstance(node, ast.Import):
            names = [(alias.name,) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: a relative import in line {node.lineno}"
            # What comes from a package is a module of it, or a name in the package.
            names = [(f"{node.module}.{a.name}", node.module) for a in node.names]
        else:
            continue
        for candidates in names:
            yield from [modules[name] for name in candidates if name in modules][:1]


@pytest.fixture(scope="module")
def imports():
    """For each Python file that git knows, the set of those that it imports."""
    listed = subprocess.check_output(["git", "ls-files", "*.py"], cwd=ROOT, text=True)
    files = listed.splitlines()
    dotted = (file.removesuffix(".py").removesuffix("/__init__") for file in files)
    modules = {name.replace("/", "."): file for name, file in zip(dotted, files)}
    return {file: set(imported(file, modules)) for file in files}


def test_every_file_has_a_level(imports):
    strangers = [file for file in imports if place(file) not in LEVEL]
    assert not strangers, f"no level is known for {', '.join(strangers)}"


def test_no_import_runs_upward(imports):
    faults = [
        f"{file} imports {other}, which is not below it"
        for file, others in imports.items()
        for other in sorted(others)
        if place(file) != place(other)
        and LEVEL.get(place(other), 0) >= LEVEL.get(place(file), 0)
    ]
    assert not faults, "\n" + "\n".join(faults)


def test_no_modules_import_each_other(imports):
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        _, circle = error.args
        pytest.fail(" imports ".join(reversed(circle)))

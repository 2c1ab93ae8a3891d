"""Short runs whose every result is pinned to the last bit, for whoever moves code.

What is computed depends on the processor and on the versions of the libraries, so the
pinned values in pinned/values.json hold on the kind of machine that they were made on,
and these tests are skipped elsewhere. A change that is meant to change results makes
them again, in a commit that says why:

    PIN=1 python -m pytest tests/test_pinned.py -n 0
"""

import hashlib
import importlib.metadata
import json
import os
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

pytestmark = pytest.mark.slow

VALUES = Path(__file__).parent / "pinned" / "values.json"
RUN = "tests/pinned/run.py"
MNIST, CIFAR_SVHN = "binary_mnist_pathnet.py", "cifar_svhn_pathnet.py"
SHORT = ("--T=10", "--max_steps=4", "--record=results")

# Name -> script and flags; DATA is a folder of small CIFAR-10 and SVHN files.
CASES = {
    "default": (MNIST, "--max_steps=30"),
    "published": (MNIST, "--flagfile=presets/published.flags", "--paths=genes", *SHORT),
    "early": (MNIST, "--flagfile=presets/early.flags", *SHORT),
    "cifar_svhn": (CIFAR_SVHN, *SHORT, "--data_dir=DATA"),
}  # fmt: skip
# Flags that name places, and what differs from one run to the next.
PLACES = ("data_dir", "cifar_data_dir", "svhn_data_dir", "log_dir", "save_dir")
PLACES += ("load_dir", "results", "resume")


def machine():
    """What results depend on besides the code."""
    with open("/proc/cpuinfo") as file:
        features = next((line for line in file if line.startswith("flags")), "")
    libraries = ("tensorflow", "numpy", "scipy", "matplotlib", "pillow")
    return {
        "processor": hashlib.sha256(features.encode()).hexdigest()[:16],
        **{name: importlib.metadata.version(name) for name in libraries},
    }


def kept_lines(text):
    """Output without what names a place or a time."""
    places = ("Results:", "Saved:")
    return [
        line
        for line in text.splitlines()
        if not line.startswith(places) and "tensorboard --logdir" not in line
    ]


def without_times(result):
    """An object of results.jsonl without times, versions and places."""
    flags = {k: v for k, v in result["flags"].items() if k not in PLACES}
    tasks = [
        {name: value for name, value in task.items() if name != "seconds"}
        for task in result["tasks"]
    ]
    kept = {k: v for k, v in result.items() if k not in ("seconds", "versions")}
    return kept | {"flags": flags, "tasks": tasks}


def results_below(folder):
    files = sorted(Path(folder).rglob("results.jsonl"))
    return [
        without_times(json.loads(line))
        for file in files
        for line in file.read_text().splitlines()
    ]


def scalars_below(folder):
    """Checksum of each curve in the event files below a folder, but for speeds."""
    curves = {}
    for file in folder.rglob("events.out.tfevents.*"):
        events = EventAccumulator(str(file), size_guidance={"scalars": 0}).Reload()
        for tag in events.Tags()["scalars"]:
            if "per_second" not in tag:
                points = [(event.step, event.value) for event in events.Scalars(tag)]
                name = f"{file.parent.relative_to(folder)}: {tag}"
                curves[name] = digest(repr(points).encode())
    return curves


def digest(data):
    return hashlib.sha256(data).hexdigest()


def observed(finished, folder):
    """All that is pinned of a run."""
    return {
        "status": finished.status,
        "stdout": kept_lines(finished.stdout),
        "results": results_below(folder),
    }


def make_data(folder):
    """Small files of the official formats, of random images."""
    rng = np.random.default_rng(0)
    batches = [f"data_batch_{n}.bin" for n in range(1, 6)] + ["test_batch.bin"]
    (folder / "cifar-10-batches-bin").mkdir(parents=True)
    for name in batches:
        records = rng.integers(0, 256, (100, 3073), np.uint8)
        records[:, 0] %= 10
        (folder / "cifar-10-batches-bin" / name).write_bytes(records.tobytes())
    for name, count in (("train", 300), ("test", 100)):
        images = rng.integers(0, 256, (32, 32, 3, count), np.uint8)
        labels = rng.integers(1, 11, (count, 1)).astype(np.uint8)
        scipy.io.savemat(folder / f"{name}_32x32.mat", {"X": images, "y": labels})


def check(name, now):
    """Compares with what is pinned, or pins it if the environment says PIN=1."""
    held = json.loads(VALUES.read_text()) if VALUES.exists() else {}
    now = json.loads(json.dumps(now))
    if os.environ.get("PIN") == "1":
        if held.get("machine") != machine():
            held = {"machine": machine(), "runs": {}}
        held["runs"][name] = now
        VALUES.write_text(json.dumps(held, indent=1, sort_keys=True) + "\n")
        return
    if held["machine"] != machine():
        pytest.skip(f"pinned on another kind of machine: {held['machine']}")
    assert now == held["runs"][name]


@pytest.fixture
def cwd(tmp_path, scripts):
    """A folder to run in, from where the presets can be named as from the project."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    (folder / "presets").symlink_to(scripts.root / "presets")
    return folder


@pytest.mark.parametrize("name", CASES)
def test_results_are_the_pinned_ones(scripts, cwd, name):
    script, *flags = CASES[name]
    if "--data_dir=DATA" in flags:
        make_data(cwd / "data")
        flags = [flag.replace("DATA", str(cwd / "data")) for flag in flags]
    finished = scripts.fork(cwd, RUN, str(scripts.root / script), *flags)
    now = observed(finished, cwd)
    if name == "default":
        (folder,) = (cwd / "logs").iterdir()
        now["scalars"] = scalars_below(folder)
        for picture in ("paths.png", "evolution.gif"):
            now[picture] = digest((folder / picture).read_bytes())
    check(name, now)

"""Tests of cifar_svhn_pathnet.py, run as a user runs it, on small official-format files."""

import json
import re

import numpy as np
import pytest
from data_files import cifar_records, svhn_files, svhn_variables, write_files

pytestmark = pytest.mark.slow

SCRIPT = "cifar_svhn_pathnet.py"
SMALL = ("--L=2", "--M=4", "--N=2", "--T=5", "--max_steps=3")
LAST_LINE = re.compile(r"(\w+),TASK1:(\d\.\d{4}),TASK2:(\d\.\d{4}),Done")
BATCHES = [f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin"]


@pytest.fixture
def data_dir(tmp_path):
    """A folder with both data sets, 100 CIFAR-10 and 200 SVHN training images."""
    folder = tmp_path / "data"
    batches = folder / "cifar-10-batches-bin"
    batches.mkdir(parents=True)
    for seed, name in enumerate(BATCHES):
        (batches / name).write_bytes(cifar_records(20, seed))
    train, test = svhn_variables(200), svhn_variables(50, seed=1)
    return write_files(folder, svhn_files(train, test))


def result_of(cwd):
    (file,) = (cwd / "logs").rglob("results.jsonl")
    (line,) = file.read_text().splitlines()
    return json.loads(line)


@pytest.mark.parametrize(
    ("flags", "order"),
    [((), ["cifar10", "svhn"]), (("--cifar_first=0",), ["svhn", "cifar10"])],
)
def test_both_orders(scripts, tmp_path, data_dir, flags, order):
    finished = scripts.fork(tmp_path, SCRIPT, *SMALL, *flags, f"--data_dir={data_dir}")
    assert finished.status == 0, finished
    assert [line[:5] for line in finished.stderr.splitlines()] == ["note:"] * 2
    name, one, two = LAST_LINE.fullmatch(finished.lines[-1]).groups()
    assert name == "_".join(order).upper()

    result = result_of(tmp_path)
    assert [task["name"] for task in result["tasks"]] == order
    assert [task["generations"] for task in result["tasks"]] == [3, 3]
    assert [f"{task['fitness']:.4f}" for task in result["tasks"]] == [one, two]
    first = result["tasks"][0]
    assert first["accuracy_test_after_all"] == first["accuracy_test"]
    folder = next((tmp_path / "logs").iterdir())
    assert {"paths.png", "evolution.gif"} <= {path.name for path in folder.iterdir()}


def test_flags_of_the_original_work(scripts, tmp_path, data_dir):
    """Each data set in a folder of its own, and one that has no effect."""
    (tmp_path / "house").mkdir()
    for file in data_dir.glob("*.mat"):
        file.rename(tmp_path / "house" / file.name)
    finished = scripts.fork(
        tmp_path,
        SCRIPT,
        *SMALL,
        "--record=results",
        f"--cifar_data_dir={data_dir}",
        "--svhn_data_dir=house",
        "--dropout=0.5",
    )
    assert finished.status == 0, finished
    assert "note: --dropout has no effect" in finished.stderr
    result = result_of(tmp_path)
    assert result["data"]["svhn"].startswith("200+50 images")
    assert "dropout" not in result["flags"]


def test_generated_data_are_learned(scripts, tmp_path):
    """With the default grid and settings, but for fewer generations."""
    flags = "--fake_data", "--record=results", "--max_steps=150", "--seed=1"
    finished = scripts.fork(tmp_path, SCRIPT, *flags)
    assert finished.status == 0, finished
    _, one, two = LAST_LINE.fullmatch(finished.lines[-1]).groups()
    assert float(one) > 0.9
    assert float(two) > 0.9
    for task in result_of(tmp_path)["tasks"]:
        assert task["accuracy_test"] > 0.9


def test_a_data_set_may_come_twice(scripts, tmp_path):
    flags = *SMALL, "--fake_data", "--record=results", "--tasks=svhn,cifar10,svhn"
    finished = scripts.fork(tmp_path, SCRIPT, *flags)
    assert finished.status == 0, finished
    one, two, three = re.fullmatch(
        r"SVHN_CIFAR10_SVHN,TASK1:(\S+),TASK2:(\S+),TASK3:(\S+),Done",
        finished.lines[-1],
    ).groups()
    tasks = result_of(tmp_path)["tasks"]
    assert [task["name"] for task in tasks] == ["svhn", "cifar10", "svhn"]
    assert [f"{task['fitness']:.4f}" for task in tasks] == [one, two, three]


def test_an_unknown_data_set(scripts, tmp_path):
    refused = scripts.fork(tmp_path, SCRIPT, "--tasks=cifar10,mnist")
    assert refused.status == 2
    assert "cifar10 and svhn" in refused.stderr


def test_published_preset(scripts, tmp_path):
    preset = f"--flagfile={scripts.root}/presets/published_cifar_svhn.flags"
    finished = scripts.fork(
        tmp_path, SCRIPT, preset, "--fake_data", "--record=results", "--max_steps=1"
    )
    assert finished.status == 0, finished
    flags = result_of(tmp_path)["flags"]
    assert (flags["centred"], flags["learning_rate"]) == (False, 0.2)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("train_32x32.mat", None, "no such file"),
        ("train_32x32.mat", b"MATLAB 5.0", "train_32x32.mat"),
        ("cifar-10-batches-bin/test_batch.bin", None, "test_batch.bin"),
        ("cifar-10-batches-bin/data_batch_3.bin", b"\0" * 3072, "data_batch_3.bin"),
    ],
)
def test_bad_files_are_one_line(scripts, tmp_path, data_dir, name, content, problem):
    (data_dir / name).unlink()
    if content is not None:
        (data_dir / name).write_bytes(content)
    finished = scripts.fork(tmp_path, SCRIPT, *SMALL, f"--data_dir={data_dir}")
    assert finished.status == 2
    *notes, line = finished.stderr.splitlines()
    assert all(note.startswith("note:") for note in notes)
    assert line.startswith(f"{SCRIPT}: ")
    assert problem in line
    assert finished.stdout == ""
    assert not (tmp_path / "logs").exists()


def test_no_files_and_no_network_say_what_to_put_where(scripts, tmp_path, monkeypatch):
    """A proxy that nobody listens at stands for a missing network."""
    program = tmp_path / "no_network.py"
    program.write_text(
        "import os, runpy, sys\n"
        "os.environ.update(http_proxy='http://127.0.0.1:9', "
        "https_proxy='http://127.0.0.1:9', XDG_CACHE_HOME=os.getcwd())\n"
        f"sys.path.insert(0, {str(scripts.root)!r})\n"
        f"sys.argv[0] = {str(scripts.root / SCRIPT)!r}\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    finished = scripts.run(tmp_path, program)
    assert finished.status == 2, finished
    (line,) = finished.stderr.splitlines()
    assert "cifar-10-binary.tar.gz" in line
    assert "--data_dir" in line
    assert str(tmp_path) in line


def test_images_stay_bytes(data_dir):
    from supervised import datasets

    for dataset in (datasets.load_cifar10(data_dir), datasets.load_svhn(data_dir)):
        assert dataset.train.images.dtype == np.uint8
        assert dataset.train.images.shape[1] == 32 * 32 * 3

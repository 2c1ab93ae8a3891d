"""Tests of binary_mnist_pathnet.py, run as a user runs it."""

import dataclasses
import gzip
import json
import os
import pty
import re
import shlex
import signal
import termios
import threading
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common.network import read_network, write_network

pytestmark = pytest.mark.slow

SCRIPT = "binary_mnist_pathnet.py"
MNIST = Path(__file__).resolve().parent.parent / "data" / "mnist"
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = (
    f"{name}-ubyte.gz"
    for name in (
        "train-images-idx3",
        "train-labels-idx1",
        "t10k-images-idx3",
        "t10k-labels-idx1",
    )
)
LAST_LINE = re.compile(r"Entire Iter:(\d+),TASK1:(\d+),TASK2:(\d+),Overlap:(\d+)")
# Seconds less to compile than the default: one layer, and an odd number of mini-batches.
SMALL = ("--L=1", "--T=5")


# ---- Helpers ----


def results_in(folder):
    """The objects of the one results.jsonl below a folder."""
    (file,) = Path(folder).rglob("results.jsonl")
    content = file.read_text()
    assert content.endswith("\n")
    return [json.loads(line) for line in content.splitlines()]


def run_folder(cwd):
    (folder,) = (cwd / "logs").iterdir()
    return folder


def succeeded(finished):
    assert (finished.status, finished.stderr) == (0, "")
    return finished


def last_line(finished):
    """The four numbers of the last line: generations, task 1's, task 2's, overlap."""
    return tuple(map(int, LAST_LINE.fullmatch(finished.lines[-1]).groups()))


def assert_refused(finished, cwd, *named):
    """Exit status 2 and one line on stderr that says what was wrong; nothing done."""
    assert finished.status == 2, finished
    (line,) = finished.stderr.splitlines()
    assert line.startswith(f"{SCRIPT}: ")
    for part in named:
        assert re.search(part, line), line
    assert finished.stdout == ""
    assert "Traceback" not in line
    left = [str(path.relative_to(cwd)) for path in cwd.rglob("*")]
    assert not left, left


def learned(result):
    """What must be the same when a repeat is done again: no times, files or flags."""
    tasks = [
        {name: value for name, value in task.items() if name != "seconds"}
        for task in result["tasks"]
    ]
    return result["seed"], result["overlap"], tasks


def learned_by(scripts, cwd, *flags):
    succeeded(scripts.fork(cwd, SCRIPT, *flags, "--record=results"))
    (result,) = results_in(cwd)
    return result


def marks(lines):
    """The signs of a printed grid: str [L, M]."""
    return np.array([re.fullmatch(r"layer \d+  (.*)", ln)[1].split() for ln in lines])


def to_grid(path, M=10):
    grid = np.zeros([len(path), M], bool)
    for layer, modules in enumerate(path):
        grid[layer, modules] = True
    return grid


@pytest.fixture
def cwd(tmp_path):
    """An empty folder to start the script in."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    return folder


# ---- The default run ----


@pytest.fixture(scope="module")
def default_run(scripts, tmp_path_factory):
    """(Finished, its run folder, its result) of a run with no flag but the seed."""
    cwd = tmp_path_factory.mktemp("default")
    finished = succeeded(scripts.run(cwd, SCRIPT, "--seed=3"))
    assert [path.name for path in cwd.iterdir()] == ["logs"]
    folder = run_folder(cwd)
    (result,) = results_in(folder)
    return finished, folder, result


@pytest.fixture(scope="module")
def events(default_run):
    """The default run's events of what goes on from task to task."""
    return read_events(default_run[1])


@pytest.fixture(scope="module")
def task_events(default_run):
    """The default run's events of each task."""
    return [read_events(default_run[1] / name) for name in TASK_RUNS]


TASK_RUNS = "task1_1v3", "task2_1v2"


def read_events(folder):
    """The events in a folder as TensorBoard reads them, all points kept."""
    everything = {"scalars": 0, "images": 0, "tensors": 0}
    return EventAccumulator(str(folder), size_guidance=everything).Reload()


def curve(events, tag):
    points = events.Scalars(tag)
    return [point.step for point in points], [point.value for point in points]


def test_default_run_learns_both_tasks(default_run):
    finished, _, result = default_run
    total, one, two, shared = last_line(finished)
    assert total == one + two
    first, second = result["tasks"]
    assert (first["generations"], second["generations"]) == (one, two)
    for task, name in ((first, "1v3"), (second, "1v2")):
        assert task["name"] == name
        assert task["converged"]
        assert 0.99 <= task["fitness"] <= 1
        assert 0.9 < task["accuracy_test"] <= 1
        path = np.array(task["path"])
        assert path.shape == (3, 3)
        assert path.min() >= 0
        assert path.max() < 10
    both = to_grid(first["path"]) & to_grid(second["path"])
    assert shared == result["overlap"] == both.sum()


def test_task_1_is_not_forgotten(default_run):
    finished, _, result = default_run
    first, second = result["tasks"]
    assert first["accuracy_test_after_all"] == first["accuracy_test"]
    assert second["accuracy_test_after_all"] == second["accuracy_test"]
    said = (
        f"Task 1 once more: held-out accuracy {first['accuracy_test']:.4f}, unchanged"
    )
    assert said in finished.lines


def test_default_run_prints_its_story(default_run):
    finished, folder, result = default_run
    lines = finished.lines
    titles = "task 1, 1 vs 3", "task 2, 1 vs 2"
    fixed = np.zeros([3, 10], bool)
    for title, task in zip(titles, result["tasks"]):
        count = task["generations"]
        # Piped, so in place of a progress bar there is a line now and then.
        progress = [line for line in lines if line.startswith(f"{title}, generation ")]
        assert len(progress) == count // 50 >= 1
        for number, line in enumerate(progress, 1):
            pattern = rf"{title}, generation {50 * number}: "
            pattern += r"fitness (0\.\d{4}), diversity (0\.\d\d)"
            fitness, diversity = map(float, re.fullmatch(pattern, line).groups())
            assert fitness == round(task["curve"]["fitness"][50 * number - 1], 4)
            assert 0 < diversity < 1
        report = (
            f"{title.capitalize()}: {count} generations, training accuracy "
            f"{task['fitness']:.4f} (as kept {task['accuracy_train']:.4f}), "
            f"held-out accuracy {task['accuracy_test']:.4f}"
        )
        start = lines.index(report) + 1
        drawn, best = marks(lines[start : start + 3]), to_grid(task["path"])
        np.testing.assert_array_equal(drawn == "#", best)
        np.testing.assert_array_equal(drawn == "+", fixed & ~best)
        fixed |= best
    assert "\r" not in finished.stdout
    relative = folder.relative_to(folder.parent.parent)
    assert lines[-3] == f"Results: {relative}"
    assert lines[-2].endswith(f"tensorboard --logdir={relative}")


def test_default_run_leaves_its_files(default_run):
    _, folder, _ = default_run
    started = re.fullmatch(r"binary_mnist__1v3_1v2__seed3__(\d{8}-\d{6})", folder.name)
    assert datetime.strptime(started[1], "%Y%m%d-%H%M%S") <= datetime.now()
    names = sorted(path.name for path in folder.iterdir())
    assert names[0].startswith("events.out.tfevents.")
    files = ["evolution.gif", "paths.png", "results.jsonl", "run.json"]
    assert names[1:] == [*files, "summary", *TASK_RUNS]
    with Image.open(folder / "paths.png") as picture:
        picture.load()
        assert picture.format == "PNG"
        assert min(picture.size) > 200
        assert len(picture.convert("RGB").getcolors(2**24)) > 2
    with Image.open(folder / "evolution.gif") as film:
        assert film.format == "GIF"
        assert film.n_frames > 10
        film.seek(film.n_frames - 1)
        film.load()


def test_the_result_says_how_it_came_about(default_run):
    _, _, result = default_run
    assert result["script"] == "binary_mnist"
    assert result["seed"] == 3
    assert result["flags"] == {
        "a1": 1,
        "a2": 3,
        "b1": 1,
        "b2": 2,
        "tasks": None,
        "noise": "salt",
        "L": 3,
        "M": 10,
        "N": 3,
        "filt": 20,
        "aggregation": "average",
        "module_kinds": "mixed",
        "fixed_path_active": True,
        "centred": False,
        "candi": 20,
        "B": 2,
        "tournament": "fair",
        "mutation": "uniform",
        "paths": "genes",
        "mutation_rate": None,
        "draw_with_replacement": False,
        "select_by": "train",
        "mini_batches": "random",
        "fixed_path_random": False,
        "frozen_share": 1.0,
        "noise_share": "0.5",
        "train_images": "all",
        "T": 50,
        "batch_num": 16,
        "optimizer": "sgd",
        "learning_rate": 0.05,
        "writeback": "sum",
        "stop_accuracy": 0.99,
        "max_steps": 10_000,
        "test_every": 10,
        "seed": 3,
        "runs": 1,
        "control": ["pathnet"],
        "save_dir": None,
        "load_dir": None,
        "results": None,
        "checkpoint_seconds": 30,
        "data_dir": None,
        "fake_data": False,
        "log_dir": "logs",
        "record": "all",
    }
    assert set(result["versions"]) == {"python", "tensorflow", "numpy"}
    assert all(re.match(r"\d+\.\d+", text) for text in result["versions"].values())
    assert result["versions"]["numpy"] == np.__version__
    seconds = [task["seconds"] for task in result["tasks"]]
    assert min(seconds) > 0
    assert result["seconds"] == pytest.approx(sum(seconds), abs=0.002)


def test_curves_of_results_are_whole(default_run):
    _, _, result = default_run
    for task in result["tasks"]:
        steps, fitness = task["curve"]["generation"], task["curve"]["fitness"]
        assert steps == list(range(1, task["generations"] + 1))
        assert len(fitness) == len(steps)
        assert fitness[-1] == task["fitness"]
        assert max(fitness[:-1]) < 0.99  # it ended with the first that was good enough


def test_event_tags(events, task_events):
    for of_task in task_events:
        assert set(of_task.Tags()["scalars"]) == {
            "charts/fitness",
            "charts/mean_fitness",
            "charts/accuracy_test",
            "losses/cross_entropy",
        }
    tags = events.Tags()
    assert set(tags["scalars"]) == {
        "evolution/diversity",
        "evolution/overlap",
        "evolution/active_modules",
        "speed/generations_per_second",
    }
    assert tags["images"] == ["evolution/population"]
    assert tags["tensors"] == ["flags"]
    assert tags["graph"]


def test_events_of_each_task(default_run, task_events):
    _, _, result = default_run
    for events, task in zip(task_events, result["tasks"], strict=True):
        count = task["generations"]
        generations = list(range(1, count + 1))
        steps, fitness = curve(events, "charts/fitness")
        assert steps == generations == task["curve"]["generation"]
        np.testing.assert_array_equal(fitness, np.float32(task["curve"]["fitness"]))
        steps, mean = curve(events, "charts/mean_fitness")
        assert steps == generations
        assert np.all(np.array(mean) <= np.array(fitness))
        assert np.any(np.array(mean) < np.array(fitness))
        steps, loss = curve(events, "losses/cross_entropy")
        assert steps == generations
        assert 0 < loss[-1] < 0.2 < loss[0]
        steps, accuracy = curve(events, "charts/accuracy_test")
        assert steps == sorted({*range(10, count, 10), count})
        # The curve is of the first 2,000 held-out images, the result of all.
        assert accuracy[-1] == pytest.approx(task["accuracy_test"], abs=0.01)
        assert np.array(accuracy) * 2000 == pytest.approx(
            np.rint(np.multiply(accuracy, 2000)), abs=0.01
        )


def test_events_of_the_evolution(default_run, events):
    _, _, result = default_run
    first, second = (to_grid(task["path"]) for task in result["tasks"])
    one, two = (task["generations"] for task in result["tasks"])
    steps, diversity = curve(events, "evolution/diversity")
    assert steps == list(range(1, one + two + 1))
    assert 0 < min(diversity) < max(diversity) < 1
    assert diversity[one] > diversity[one - 1]  # task 2 has a new population

    steps, shared = curve(events, "evolution/overlap")
    assert steps == list(range(1, one + two + 1))
    assert not any(shared[:one])
    assert shared[-1] == result["overlap"]
    steps, active = curve(events, "evolution/active_modules")
    assert steps == list(range(1, one + two + 1))
    assert active[one - 1] == first.sum()
    assert active[-1] == (first | second).sum()

    steps, speed = curve(events, "speed/generations_per_second")
    assert steps == list(range(1, one + two + 1))
    assert min(speed) > 0


def test_pictures_of_the_population(default_run, events):
    one, two = (task["generations"] for task in default_run[2]["tasks"])
    pictures = events.Images("evolution/population")
    assert [picture.step for picture in pictures] == [
        *sorted({*range(1, one + 1, 25), one}),
        *(one + step for step in sorted({*range(1, two + 1, 25), two})),
    ]
    assert all(p.encoded_image_string.startswith(b"\x89PNG") for p in pictures)
    contents = {picture.encoded_image_string for picture in pictures}
    assert len(contents) == len(pictures)
    assert min(pictures[0].width, pictures[0].height) > 20


def test_flags_and_graph_among_the_events(events):
    (table,) = events.Tensors("flags")
    text = table.tensor_proto.string_val[0].decode()
    for row in ("| flag | value |", "| seed | 3 |", "| a2 | 3 |", "| M | 10 |"):
        assert row in text.splitlines()
    assert events.SummaryMetadata("flags").plugin_data.plugin_name == "text"
    names = {f"/{node.name}" for node in events.Graph().node}
    for part in ("/geopath", "/fixed_path", "/layer1/kernel", "/output/kernel"):
        assert any(name.endswith(part) for name in names), part


# ---- Seeds and repeats ----


@pytest.fixture(scope="module")
def repeats(scripts, tmp_path_factory):
    """Short runs by name: (Finished, folder, results)."""
    common = ("--max_steps=6", "--L=2", "--T=5")
    runs = {
        "5": ["--seed=5", "--record=results"],
        "5 again": ["--seed=5", "--record=results"],
        "6": ["--seed=6", "--record=results"],
        "5 and 6": ["--seed=5", "--runs=2"],
    }
    done = {}
    for name, flags in runs.items():
        cwd = tmp_path_factory.mktemp("repeats")
        finished = succeeded(scripts.fork(cwd, SCRIPT, *common, *flags))
        done[name] = finished, run_folder(cwd), results_in(cwd)
    return done


def test_a_seed_decides_everything(repeats):
    (first, _, (result,)), (second, _, (again,)) = repeats["5"], repeats["5 again"]
    assert first.lines[-1] == second.lines[-1]
    assert first.lines[:-3] == second.lines[:-3]  # all but the folder's name
    assert learned(result) == learned(again)
    result["seconds"] = again["seconds"]
    result["tasks"], again["tasks"] = learned(result)[2], learned(again)[2]
    assert result == again


def test_another_seed_is_another_run(repeats):
    (_, _, (five,)), (_, _, (six,)) = repeats["5"], repeats["6"]
    for mine, other in zip(five["tasks"], six["tasks"]):
        assert mine["path"] != other["path"]
        assert mine["curve"]["fitness"] != other["curve"]["fitness"]


def test_repeats_equal_runs_of_their_seeds(repeats):
    """Bit for bit, and whether or not events and pictures are recorded as well."""
    finished, _, results = repeats["5 and 6"]
    (_, _, (five,)), (_, _, (six,)) = repeats["5"], repeats["6"]
    assert [learned(result) for result in results] == [learned(five), learned(six)]
    printed = [line for line in finished.lines if LAST_LINE.fullmatch(line)]
    assert printed == [repeats[name][0].lines[-1] for name in ("5", "6")]
    assert finished.lines[-1] == printed[-1]


def test_each_repeat_leaves_its_own_pictures(repeats):
    _, folder, _ = repeats["5 and 6"]
    names = ["results.jsonl", "run.json", "seed_5", "seed_6"]
    assert sorted(path.name for path in folder.iterdir()) == names
    for name in names[2:]:
        events, *rest = sorted(path.name for path in (folder / name).iterdir())
        assert events.startswith("events.out.tfevents.")
        assert rest == ["evolution.gif", "paths.png", "summary", *TASK_RUNS]


def test_a_run_of_several_controls_compares_them(scripts, cwd):
    """As make run does: a table of all seeds, PathNet's pictures, one that compares."""
    flags = "--fake_data", "--T=4", "--max_steps=12", "--stop_accuracy=1", "--runs=2"
    finished = scripts.fork(cwd, SCRIPT, *flags, "--control=scratch,pathnet")
    succeeded(finished)
    folder = run_folder(cwd)
    pictures = {str(p.relative_to(folder)) for p in folder.rglob("*.[pg][ni][gf]")}
    assert pictures == {
        "controls.png",
        *(
            f"seed_{s}/pathnet/{n}"
            for s in "01"
            for n in ("evolution.gif", "paths.png")
        ),
    }
    # The first task is learned once for both controls of a seed.
    assert len(list(folder.rglob("task1_1v3"))) == 2
    assert len(list(folder.rglob("task2_1v2"))) == 4
    results = results_in(folder)
    assert [(r["seed"], r["control"]) for r in results] == [
        (seed, control) for seed in (0, 1) for control in ("scratch", "pathnet")
    ]
    assert results[0]["tasks"][0] == results[1]["tasks"][0] | {
        "accuracy_test_after_all": results[0]["tasks"][0]["accuracy_test_after_all"]
    }
    assert "| task | generations | from scratch | speedup" in finished.stdout
    assert finished.lines[-2] == "Seed 1, pathnet:"
    assert last_line(finished)[1:3] == (12, 12)


def test_record_results_leaves_nothing_else(repeats):
    _, folder, _ = repeats["5"]
    names = {path.name for path in folder.iterdir()}
    assert names == {"results.jsonl", "run.json"}


# ---- Flags ----


def test_not_converged_is_said_and_goes_on(scripts, cwd):
    finished = succeeded(scripts.fork(cwd, SCRIPT, "--max_steps=3"))
    assert last_line(finished)[:3] == (6, 3, 3)
    (result,) = results_in(cwd)
    titles = "Task 1, 1 vs 3", "Task 2, 1 vs 2"
    for title, task in zip(titles, result["tasks"]):
        assert not task["converged"]
        assert task["generations"] == 3
        assert task["fitness"] == task["curve"]["fitness"][-1] < 0.99
        (line,) = (line for line in finished.lines if line.startswith(title))
        assert line.startswith(f"{title}: not converged after 3 generations, ")
        start = finished.lines.index(line) + 1
        drawn = marks(finished.lines[start : start + 3])
        np.testing.assert_array_equal(drawn == "#", to_grid(task["path"]))
    # The last winner's path was frozen; drawn is the second task's grid.
    first, second = (to_grid(task["path"]) for task in result["tasks"])
    np.testing.assert_array_equal(drawn == "+", first & ~second)
    names = {path.name for path in run_folder(cwd).iterdir()}
    assert {"paths.png", "evolution.gif"} <= names


def test_flagfile_and_what_comes_after_it(scripts, cwd, tmp_path):
    """Also data from a folder of the user's, and a folder for the runs."""
    flagfile = tmp_path / "my.flags"
    flagfile.write_text(
        "# a comment\n--max_steps=4\n--a1=4\n--a2=5\n--b1=6\n--b2=7\n--record=results\n"
    )
    runs = tmp_path / "runs" / "mine"
    folders = f"--data_dir={MNIST}", f"--log_dir={runs}"
    finished = succeeded(
        scripts.fork(
            cwd,
            SCRIPT,
            *SMALL,
            "--a2=9",
            f"--flagfile={flagfile}",
            "--max_steps=2",
            *folders,
        )
    )
    assert last_line(finished)[:3] == (4, 2, 2)
    (result,) = results_in(runs)
    expected = {"max_steps": 2, "a1": 4, "a2": 5, "b1": 6, "b2": 7, "L": 1, "T": 5}
    expected |= {"data_dir": str(MNIST), "log_dir": str(runs), "record": "results"}
    assert expected.items() <= result["flags"].items()
    assert [task["name"] for task in result["tasks"]] == ["4v5", "6v7"]
    assert not list(cwd.iterdir())
    (folder,) = runs.iterdir()
    assert folder.name.startswith("binary_mnist__4v5_6v7__seed0__")


def test_fake_data_reads_no_file_and_is_learned(scripts, cwd):
    flags = "--fake_data", "--data_dir=nowhere", "--record=results", "--M=1", "--N=1"
    finished = scripts.fork(cwd, SCRIPT, *flags, "--L=1", "--max_steps=400", "--T=25")
    assert finished.status == 0, finished
    assert "0 of 1 in layer 1" in finished.stderr  # task 2 has its output layer alone
    (result,) = results_in(cwd)
    assert all(task["converged"] for task in result["tasks"])
    assert all(task["accuracy_test"] > 0.95 for task in result["tasks"])
    assert last_line(finished)[3] == 1  # the only module there is


VARIANTS = {
    ("salt_and_pepper", "last_average", "winner"): 3,
    ("none", "sum", "sum"): 2,
    ("none", "sum", "merge"): 2,
    ("none", "sum", "winner"): 2,
}  # B by what is chosen; the default run has salt, average, sum


@pytest.fixture(scope="module")
def variants(scripts, tmp_path_factory):
    """Results of short runs by (noise, aggregation, writeback)."""
    done = {}
    for (noise, aggregation, writeback), B in VARIANTS.items():
        cwd = tmp_path_factory.mktemp("variants")
        chosen = f"--noise={noise}", f"--aggregation={aggregation}"
        chosen += f"--writeback={writeback}", f"--B={B}", "--record=results"
        size = "--L=2", "--T=5", "--max_steps=4", "--filt=10"
        hard = "--a1=4", "--a2=9"  # so that four generations differ
        succeeded(scripts.fork(cwd, SCRIPT, *chosen, *size, *hard))
        (done[noise, aggregation, writeback],) = results_in(cwd)
    return done


@pytest.mark.parametrize("variant", VARIANTS, ids="-".join)
def test_every_noise_aggregation_and_writeback_runs(variants, variant):
    result = variants[variant]
    names = "noise", "aggregation", "writeback"
    assert tuple(result["flags"][name] for name in names) == variant
    for task in result["tasks"]:
        assert task["generations"] == 4
        assert all(0 < value < 1 for value in task["curve"]["fitness"])
        assert 0 < task["accuracy_test"] < 1


def test_writebacks_differ(variants):
    """Same seed, same first generation: then what persists makes the difference."""
    curves = [
        variants["none", "sum", writeback]["tasks"][0]["curve"]["fitness"]
        for writeback in ("sum", "merge", "winner")
    ]
    assert curves[0][0] == curves[1][0] == curves[2][0]
    assert len(set(map(tuple, curves))) == 3


def test_help_names_every_flag(scripts, cwd, default_run):
    finished = scripts.fork(cwd, SCRIPT, "--help")
    for name in default_run[2]["flags"]:
        assert re.search(rf"^  --(\[no\])?{name}$", finished.stdout, re.MULTILINE), name
    assert (finished.status, finished.stderr) == (0, "")
    assert not list(cwd.iterdir())


@pytest.mark.parametrize("preset", ["published", "early", "early_as_run", "paper"])
def test_presets_name_whole_systems(scripts, cwd, preset):
    flagfile = f"--flagfile={scripts.root}/presets/{preset}.flags"
    size = "--T=4", "--max_steps=2", "--filt=10"
    result = learned_by(scripts, cwd, flagfile, *size)
    chosen = {
        "published": ("sequential", "drift", "sets", "mixed", "sgd", True),
        "early": ("fair", "uniform", "genes", "linear", "adam", True),
        "early_as_run": (
            "fair,sequential",
            "neighbour",
            "sets",
            "linear",
            "adam",
            False,
        ),
        "paper": ("fair", "uniform", "genes", "linear", "sgd", False),
    }
    names = "tournament", "mutation", "paths", "module_kinds", "optimizer"
    names += ("fixed_path_active",)
    assert tuple(result["flags"][name] for name in names) == chosen[preset]
    assert [task["generations"] for task in result["tasks"]] == [2, 2]
    selected = [task.get("selected_by", "train") for task in result["tasks"]]
    assert ",".join(selected) == ("train,test" if "as_run" in preset else "train,train")


def test_the_held_out_curve_can_have_a_point_a_generation(scripts, cwd):
    size = "--L=2", "--T=4", "--max_steps=3", "--filt=10", "--test_every=1"
    succeeded(scripts.fork(cwd, SCRIPT, *size))
    events = read_events(run_folder(cwd) / TASK_RUNS[0])
    assert curve(events, "charts/accuracy_test")[0] == [1, 2, 3]


TINY = ("--L=2", "--T=5", "--max_steps=4", "--filt=10", "--fake_data")


IN_VAIN = {
    (
        "--tournament=fair,sequential,fair",
    ): "--tournament=fair,sequential,fair has a value "
    "for 3 tasks, and 2 are learned: the rest has no effect",
    ("--noise_share=0.5,0.1", "--tasks=1v3"): "--noise_share=0.5,0.1 has a value for 2 "
    "tasks, and 1 is learned: the rest has no effect",
    (
        "--noise=none",
        "--noise_share=0.3",
    ): "--noise_share has no effect with --noise=none",
}


@pytest.mark.parametrize("given", IN_VAIN, ids=" ".join)
def test_flags_that_are_given_in_vain_have_a_note(scripts, cwd, given):
    finished = scripts.fork(cwd, SCRIPT, *TINY, "--record=results", *given)
    assert finished.status == 0, finished
    assert f"note: {IN_VAIN[given]}\n" in finished.stderr


def test_a_task_more_on_a_saved_network_is_as_if_all_were_one_run(scripts, cwd):
    """Also where a layer has too few free modules left, and a task comes twice."""
    size = *TINY, "--M=5", "--seed=2", "--learning_rate=1e-5", "--frozen_share=0.3"
    size += "--optimizer=adam", "--writeback=winner"
    whole = scripts.fork(cwd, SCRIPT, *size, "--tasks=1v3,1v2,1v3", "--save_dir=whole")
    assert whole.status == 0, whole
    assert re.fullmatch(
        r"Entire Iter:12,TASK1:4,TASK2:4,TASK3:4,Overlap:\d+", whole.lines[-1]
    )
    assert "note: 3 tasks may freeze up to 9 modules of a layer, and it has 5" in (
        whole.stderr
    )
    assert "note: task 3, 1 vs 3: fewer modules are free than the 3" in whole.stderr
    (folder,) = (cwd / "logs").iterdir()
    pictures = {"paths.png", "evolution.gif", "retention.png"}
    assert pictures <= {path.name for path in folder.iterdir()}

    flags = "--tasks=1v3,1v2", "--save_dir=two", "--record=results"
    assert scripts.fork(cwd, SCRIPT, *size, *flags).status == 0
    before = {path.name: path.read_bytes() for path in (cwd / "two").iterdir()}
    flags = "--load_dir=two", "--tasks=1v3", "--save_dir=three"
    later = scripts.fork(cwd, SCRIPT, *size, *flags)
    assert (later.status, later.lines[-1]) == (0, whole.lines[-1])
    arrays = [(cwd / name / "arrays.npz").read_bytes() for name in ("whole", "three")]
    assert arrays[0] == arrays[1]
    assert before == {path.name: path.read_bytes() for path in (cwd / "two").iterdir()}

    shown = succeeded(scripts.fork(cwd, "pathnet.py", "show", "three"))
    assert [line for line in shown.lines if line.startswith("Task ")] == [
        line for line in whole.lines if re.match(r"Task \d, ", line)
    ]
    assert (cwd / "three" / "paths.png").is_file()


def test_a_network_whose_frozen_path_is_random_says_so(scripts, cwd):
    flags = "--fixed_path_random", "--save_dir=net", "--record=results"
    finished = succeeded(scripts.fork(cwd, SCRIPT, *TINY, *flags))
    assert "unchanged" not in finished.stdout
    assert "as its modules were initialized again" in finished.stdout
    shown = succeeded(scripts.fork(cwd, "pathnet.py", "show", "net"))
    assert "Every task but the last: its modules were initialized again" in shown.stdout


@pytest.fixture(scope="module")
def saved(scripts, tmp_path_factory):
    cwd = tmp_path_factory.mktemp("saved")
    flags = "--tasks=1v3", "--save_dir=net", "--record=results"
    succeeded(scripts.fork(cwd, SCRIPT, *TINY, *flags))
    return cwd / "net"


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--M=11", "--seed=5", "--load_dir"], "use --M=10 --seed=0"),
        (["--load_dir"], "has learned 1v3; name what to learn on top"),
        (["--save_dir"], "not overwritten"),
        (["--runs=2", "--load_dir"], "leave out --runs"),
        (["--control=scratch", "--load_dir"], "leave out"),
    ],
)
def test_a_saved_network_that_does_not_fit(scripts, tmp_path, saved, flags, named):
    *others, last = flags
    refused = scripts.fork(tmp_path, SCRIPT, *TINY, *others, f"{last}={saved}")
    assert refused.status == 2
    (line,) = refused.stderr.splitlines()
    assert named in line
    assert not list(tmp_path.iterdir())


def test_a_saved_network_of_another_script(scripts, tmp_path, saved):
    refused = scripts.fork(
        tmp_path, "cifar_svhn_pathnet.py", "--fake_data", f"--load_dir={saved}"
    )
    assert refused.status == 2
    assert "binary_mnist_pathnet.py" in refused.stderr


def rewritten(saved, folder, **changes):
    """A copy of a saved network that is changed and has checksums that fit."""
    network = read_network(saved)
    write_network(folder, dataclasses.replace(network, **changes))
    return folder


def test_a_saved_network_with_other_parameters(scripts, tmp_path, saved):
    network = read_network(saved)
    wrong = network.parameters | {"layer2/bias": np.zeros([10, 11], np.float32)}
    missing = {k: v for k, v in network.parameters.items() if k != "layer2/bias"}
    task = network.tasks[0] | {"name": "cat"}
    for place, (named, changes) in enumerate(
        [
            ("layer2/bias is of shape [10, 11]", {"parameters": wrong}),
            ("other parameters", {"parameters": missing}),
            ("unknown task, cat", {"tasks": [task]}),
        ]
    ):
        folder = rewritten(saved, tmp_path / str(place), **changes)
        refused = scripts.fork(
            tmp_path, SCRIPT, *TINY, f"--load_dir={folder}", "--tasks=4v5"
        )
        assert refused.status == 2
        (line,) = refused.stderr.splitlines()
        assert named in line


def test_show_without_a_folder(scripts, tmp_path):
    for arguments in ((), ("draw", "net"), ("show", "absent")):
        refused = scripts.fork(tmp_path, "pathnet.py", *arguments)
        assert refused.status == 2
        (line,) = refused.stderr.splitlines()
        assert "show DIR" in line or "absent" in line


# ---- Mistakes ----

BAD_FLAGS = {
    "--N=11": [r"\bN=11\b", r"\bM=10\b"],
    "--M=2": [r"\bN=3\b", r"\bM=2\b"],
    "--B=21": [r"\bB=21\b", r"\bcandi=20\b"],
    "--candi=1": ["candi=1"],
    "--B=1": ["B=1"],
    "--a1=3": ["a1=3", "a2=3"],
    "--b1=2": ["b1=2", "b2=2"],
    "--a1=10": ["a1=10"],
    "--b2=-1": ["b2=-1"],
    "--L=0": ["L=0"],
    "--M=0": ["M=0"],
    "--N=0": ["N=0"],
    "--filt=0": ["filt=0"],
    "--T=0": ["T=0"],
    "--batch_num=0": ["batch_num=0"],
    "--learning_rate=0": ["learning_rate=0"],
    "--learning_rate=-1": ["learning_rate=-1"],
    "--learning_rate=nan": ["learning_rate=nan"],
    "--learning_rate=inf": ["learning_rate=inf"],
    "--frozen_share=0": ["frozen_share=0"],
    "--frozen_share=1.5": ["frozen_share=1.5"],
    "--stop_accuracy=0": ["stop_accuracy=0"],
    "--stop_accuracy=1.5": ["stop_accuracy=1.5"],
    "--stop_accuracy=nan": ["stop_accuracy=nan"],
    "--max_steps=0": ["max_steps=0"],
    "--runs=0": ["runs=0"],
    "--seed=-1": ["seed=-1"],
    "--seed=2147483648": ["seed=2147483648"],
    "--a1=one": ["a1=one"],
    "--T=2.5": ["T=2.5"],
    "--learning_rate=fast": ["learning_rate=fast"],
    "--fake_data=perhaps": ["fake_data=perhaps"],
    "--noise=pepper": ["noise=pepper", "salt_and_pepper"],
    "--aggregation=max": ["aggregation=max", "last_average"],
    "--writeback=mean": ["writeback=mean", "merge"],
    "--record=some": ["record=some", "results"],
    "--tournament=unfair": ["tournament=unfair", "sequential"],
    "--mutation=none": ["mutation=none", "drift"],
    "--paths=lists": ["paths=lists", "genes", "sets"],
    "--tournament=": ["tournament=", "fair,sequential"],
    "--select_by=luck": ["select_by=luck", "train", "test"],
    "--select_by=test": ["select_by=test", "--tournament=sequential"],
    "--select_by=train,test": ["select_by=train,test", "--tournament=fair,sequential"],
    "--mutation=neighbour": ["mutation=neighbour", "--paths=sets"],
    "--mutation_rate=1.5": ["mutation_rate=1.5"],
    "--mini_batches=sorted": ["mini_batches=sorted", "in_order"],
    "--noise_share=10": ["noise_share=10", "from 0 to 1"],
    "--noise_share=0.5,": ["noise_share=0.5,", "from 0 to 1"],
    "--noise_share=nan": ["noise_share=nan"],
    "--module_kinds=conv": ["module_kinds=conv", "linear"],
    "--optimizer=rmsprop": ["optimizer=rmsprop", "adam"],
    "--optimizer=adam": ["optimizer=adam", "writeback=sum", "--writeback=winner"],
    "--test_every=0": ["test_every=0"],
    "--tasks=1v3,1v1": ["--tasks=.*1v1", "different digits"],
    "--tasks=": ["tasks="],
    "--tasks=1v3;4v5": ["--tasks=.*1v3;4v5", "such as"],
    "--tasks=1v3,10v2": ["--tasks=.*10v2", "such as"],
    "--control=scratch,random": ["--control=.*random", "finetune"],
    "--control=": ["control"],
    "--control=scratch,scratch": ["--control=", "once"],
    "--save_dir=": ["save_dir"],
    "--load_dir=absent": ["absent", "--save_dir"],
    "--max_steps": ["max_steps"],
    "--batchsize=3": ["batchsize"],
    "--no_such_flag": ["no_such_flag"],
    "7": ["'7'", "--name=value"],
    "--flagfile=absent.flags": ["absent.flags"],
    "--log_dir=": ["log_dir"],
    "--filt=1000000": ["--filt=1000000", "GiB", "smaller"],
    "--M=100000000": ["--M=100000000", "GiB", "smaller"],
    "--candi=1000000000000": ["candi"],
    "--train_images=0": ["train_images=0", "all,30"],
    "--train_images=all,": ["train_images=all,", "all,30"],
    "--train_images=-3": ["train_images=-3", "all,30"],
    "--train_images=all,1": ["1 for task 2, which has 2 classes"],
}


@pytest.mark.parametrize("flag", BAD_FLAGS)
def test_a_bad_flag(scripts, cwd, flag):
    refused = scripts.fork(cwd, SCRIPT, *flag.split())
    assert_refused(refused, cwd, *BAD_FLAGS[flag])


def test_a_bad_flag_in_a_process_of_its_own(scripts, cwd):
    """With all that importing TensorFlow might add to stderr."""
    assert_refused(scripts.run(cwd, SCRIPT, "--filt=1000000"), cwd, "--filt=1000000")


def test_a_flagfile_of_nonsense(scripts, cwd, tmp_path):
    flagfile = tmp_path / "my.flags"
    flagfile.write_text("--max_steps=4\n--a1=ten\n")
    refused = scripts.fork(cwd, SCRIPT, f"--flagfile={flagfile}")
    assert_refused(refused, cwd, "a1=ten")


@pytest.fixture
def data_dir(tmp_path):
    """A folder with the four files, links to those of the project."""
    folder = tmp_path / "my data"
    folder.mkdir()
    for name in (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS):
        (folder / name).symlink_to(MNIST / name)
    return folder


def replace(file, content):
    file.unlink()
    file.write_bytes(content)


def truncate(folder):
    content = (folder / TRAIN_IMAGES).read_bytes()
    replace(folder / TRAIN_IMAGES, content[: len(content) // 2])
    return TRAIN_IMAGES


def truncate_unpacked(folder):
    content = gzip.decompress((folder / TEST_IMAGES).read_bytes())
    (folder / TEST_IMAGES).unlink()
    (folder / TEST_IMAGES).with_suffix("").write_bytes(content[:-1])
    return TEST_IMAGES.removesuffix(".gz")


def put_foreign_file(folder):
    replace(folder / TEST_LABELS, b"<html>404: no such page</html>\n" * 99)
    return TEST_LABELS


def swap_label_files(folder):
    os.rename(folder / TRAIN_LABELS, folder / "kept")
    os.rename(folder / TEST_LABELS, folder / TRAIN_LABELS)
    os.rename(folder / "kept", folder / TEST_LABELS)
    return TRAIN_LABELS


def swap_two_labels(folder):
    """Everything fits but the labels are not those of the images."""
    content = bytearray(gzip.decompress((folder / TEST_LABELS).read_bytes()))
    assert content[8] != content[9]
    content[8], content[9] = content[9], content[8]
    replace(folder / TEST_LABELS, gzip.compress(bytes(content)))
    return TEST_LABELS


def remove_one(folder):
    (folder / TRAIN_LABELS).unlink()
    return TRAIN_LABELS


def remove_all(folder):
    for file in folder.iterdir():
        file.unlink()
    return TRAIN_IMAGES


def put_a_folder(folder):
    (folder / TEST_IMAGES).unlink()
    (folder / TEST_IMAGES).mkdir()
    return TEST_IMAGES


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        truncate_unpacked,
        put_foreign_file,
        swap_label_files,
        swap_two_labels,
        remove_one,
        remove_all,
        put_a_folder,
    ],
)
def test_damaged_data(scripts, cwd, data_dir, damage):
    culprit = damage(data_dir)
    refused = scripts.fork(cwd, SCRIPT, f"--data_dir={data_dir}")
    assert_refused(refused, cwd, re.escape(str(data_dir / culprit)))


def test_damaged_data_in_a_process_of_its_own(scripts, cwd, data_dir):
    culprit = truncate(data_dir)
    refused = scripts.run(cwd, SCRIPT, f"--data_dir={data_dir}")
    assert_refused(refused, cwd, re.escape(str(data_dir / culprit)))


@pytest.mark.parametrize("name", ["absent", "a file"])
def test_no_data_folder(scripts, cwd, tmp_path, name):
    (tmp_path / "a file").touch()
    refused = scripts.fork(cwd, SCRIPT, f"--data_dir={tmp_path / name}")
    assert_refused(refused, cwd, re.escape(str(tmp_path / name)), "--data_dir")


@pytest.mark.parametrize("below", [".", "deeper"])
def test_a_file_in_place_of_the_log_folder(scripts, cwd, tmp_path, below):
    file = tmp_path / "a file"
    file.write_text("precious")
    refused = scripts.fork(cwd, SCRIPT, "--fake_data", f"--log_dir={file / below}")
    assert_refused(refused, cwd, re.escape(str(file)))
    assert file.read_text() == "precious"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_log_folder_that_cannot_be_written(scripts, cwd, tmp_path):
    folder = tmp_path / "read-only"
    folder.mkdir(mode=0o500)
    refused = scripts.fork(cwd, SCRIPT, "--fake_data", f"--log_dir={folder}")
    assert_refused(refused, cwd, re.escape(str(folder)))
    assert not list(folder.iterdir())


# ---- Full disks, signals, terminals ----


def test_a_full_disk_leaves_whole_lines(scripts, cwd):
    flags = *SMALL, "--fake_data", "--max_steps=2", "--record=results", "--runs=9"
    finished = scripts.fork(cwd, SCRIPT, *flags, max_file_bytes=3000)
    assert finished.status == 2
    (line,) = finished.stderr.splitlines()
    assert "results.jsonl" in line
    results = results_in(cwd)
    assert [result["seed"] for result in results] == list(range(len(results)))
    assert 1 <= len(results) < 9
    printed = [line for line in finished.lines if LAST_LINE.fullmatch(line)]
    assert len(printed) == len(results)


def wait_for_lines(cwd, count):
    """Returns once so many repeats are on disk."""
    give_up = time.monotonic() + 120
    while time.monotonic() < give_up:
        for file in (cwd / "logs").glob("*/results.jsonl"):
            if file.read_bytes().count(b"\n") >= count:
                return
        time.sleep(0.05)
    raise AssertionError(f"{count} repeats take more than two minutes")


def test_ctrl_c_ends_in_one_line(scripts, cwd):
    flags = *SMALL, "--runs=50", "--max_steps=100", "--stop_accuracy=1"
    process = scripts.start(
        cwd,
        SCRIPT,
        *flags,
        "--fake_data",
        "--record=results",
        "--learning_rate=1e-6",
        # A shell that starts the tests in the background makes them ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        wait_for_lines(cwd, 2)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 130
    assert stderr == f"{SCRIPT}: interrupted\n"
    results = results_in(cwd)
    assert [result["seed"] for result in results] == list(range(len(results)))
    assert 2 <= len(results) < 50
    assert all(task["generations"] == 100 for r in results for task in r["tasks"])
    printed = [line for line in stdout.splitlines() if LAST_LINE.fullmatch(line)]
    assert len(printed) in (len(results), len(results) - 1)


def test_a_killed_run_leaves_whole_lines(scripts, cwd):
    flags = *SMALL, "--fake_data", "--record=results", "--runs=100000", "--max_steps=1"
    process = scripts.start_fork(cwd, SCRIPT, *flags)
    try:
        wait_for_lines(cwd, 20)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        finished = process.wait()
    assert finished.status == -signal.SIGKILL
    results = results_in(cwd)
    assert len(results) >= 20
    assert [result["seed"] for result in results] == list(range(len(results)))


def read_all(descriptor):
    """What is written to a pseudo-terminal until its last user closes it."""
    parts = []
    while True:
        try:
            part = os.read(descriptor, 4096)
        except OSError:  # Linux's way to say that this is the end
            part = b""
        if not part:
            return b"".join(parts).decode()
        parts.append(part)


def test_a_terminal_shows_a_progress_bar(scripts, cwd):
    terminal, users_end = pty.openpty()
    termios.tcsetwinsize(users_end, (24, 120))
    texts = []
    reader = threading.Thread(target=lambda: texts.append(read_all(terminal)))
    reader.start()
    flags = *SMALL, "--fake_data", "--max_steps=120", "--stop_accuracy=1"
    try:
        finished = scripts.fork(
            cwd,
            SCRIPT,
            *flags,
            "--learning_rate=1e-6",
            "--record=results",
            stderr=os.ttyname(users_end),
        )
    finally:
        os.close(users_end)
        reader.join()
        os.close(terminal)
    assert finished.status == 0, texts
    (text,) = texts
    for title in ("task 1, 1 vs 3", "task 2, 1 vs 2"):
        bars = [bar for bar in re.split(r"[\r\n]+", text) if bar.startswith(title)]
        state = r"fitness 0\.\d{4}, diversity 0\.\d\d"
        counted = re.compile(rf"{title}: .* (\d+)/120 \[.*gen/s.*{state}")
        counts = [int(match[1]) for match in map(counted.match, bars) if match]
        assert counts[-1] == 120
        assert counts == sorted(counts)
    # The bar is in place of the lines, not besides them.
    assert "generation 50" not in finished.stdout
    assert last_line(finished)[:3] == (240, 120, 120)


def test_output_that_nobody_reads_on(scripts, cwd, tmp_path):
    """As in `python binary_mnist_pathnet.py | head -1`: at most a line, no traceback."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def head():
        with pipe.open() as stream:
            lines.append(stream.readline())

    lines = []
    reader = threading.Thread(target=head)
    reader.start()
    flags = *SMALL, "--fake_data", "--record=results", "--max_steps=40"
    finished = scripts.fork(
        cwd, SCRIPT, *flags, "--learning_rate=1e-6", stdout=str(pipe)
    )
    reader.join()
    assert lines[0].startswith("Task 1, 1 vs 3: ")
    assert "Traceback" not in finished.stderr
    assert len(finished.stderr.splitlines()) <= 1


def test_the_usage_in_the_script_works(scripts, cwd):
    """The example calls of the script's docstring name flags that exist."""
    text = (MNIST.parent.parent / SCRIPT).read_text()
    calls = re.findall(rf"^    python {SCRIPT}(.*)$", text, re.MULTILINE)
    assert len(calls) >= 3
    for call in calls:
        if "--load_dir" in call or "--resume" in call:
            continue  # have tests of their own, with folders that exist
        # Beyond what the memory holds: refused, but only once all flags are read.
        flags = [*shlex.split(call, comments=True), "--fake_data", "--filt=1000000"]
        assert_refused(scripts.fork(cwd, SCRIPT, *flags), cwd, "GiB")

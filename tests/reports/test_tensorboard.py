"""Tests of what is written for TensorBoard, which its own readers read back."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from absl import flags as absl_flags
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import metadata

from common import commandline
from common.commandline import UserError
from reports import tables, tensorboard

ROOT = Path(tensorboard.__file__).parent.parent


def repeat(seed, control="pathnet", names=("1v3", "1v2"), generations=(4, 3), **flags):
    tasks = [
        {
            "name": name,
            "generations": n,
            "converged": True,
            "fitness": 0.9,
            "accuracy_test": 0.75,
            "curve": {
                "generation": list(range(1, n + 1)),
                "fitness": [0.5 + 0.1 * step + 0.01 * seed for step in range(n)],
            },
        }
        for name, n in zip(names, generations)
    ]
    about = {"script": "binary_mnist", "seed": seed, "control": control}
    return about | {"flags": {"B": 2, "seed": seed, **flags}, "tasks": tasks}


def game(seed, returns):
    count = len(returns)
    curve = {
        "steps": [100 * n for n in range(1, count + 1)],
        "return": returns,
        "episodes": [30] * count,
    }
    task = {"name": "pong", "generations": 5, "steps": 100 * count, "curve": curve}
    task["score"] = returns[-1] if returns else None
    return {"script": "atari", "seed": seed, "flags": {}, "tasks": [task]}


def runs(folder):
    """What TensorBoard reads of each run, by its name."""
    found = {}
    for file in Path(folder).rglob("events.out.tfevents.*"):
        name = file.parent.relative_to(folder).as_posix()
        sizes = {"scalars": 0, "tensors": 0}
        found[name] = EventAccumulator(str(file.parent), sizes).Reload()
    return found


def points(run, tag):
    return [(point.step, point.value) for point in run.Scalars(tag)]


def columns(run):
    """The flags of a row, by name; and the name that it has of its own."""
    content = run.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    started = metadata.parse_session_start_info_plugin_data(content)
    values = {
        name: getattr(value, value.WhichOneof("kind"))
        for name, value in started.hparams.items()
    }
    return values, started.group_name


def outcomes(run):
    return {tag: run.Scalars(tag)[0].value for tag in run.Tags()["scalars"]}


def write(folder, results, not_settings=("seed",)):
    folder, lacking = tensorboard.write(str(folder), results, set(not_settings))
    return runs(folder), lacking


def test_a_mean_curve_has_its_band(tmp_path):
    found = [repeat(seed) for seed in range(3)]
    written, lacking = write(tmp_path / "tb", found)
    assert lacking == []
    assert set(written) == {
        "mean/1v3_first",
        "mean/1v2_after_1v3",
        *(f"repeats/seed{seed}__pathnet__1v3_1v2" for seed in range(3)),
    }
    run = written["mean/1v2_after_1v3"]
    assert set(run.Tags()["scalars"]) == {"1v2/mean", "1v2/low", "1v2/high"}
    steps, mean, margin = tables.mean_curve([r["tasks"][1]["curve"] for r in found])
    lines = {"mean": mean, "low": mean - margin, "high": mean + margin}
    for tag, values in lines.items():
        assert points(run, f"1v2/{tag}") == [
            (step, pytest.approx(value)) for step, value in zip(steps, values)
        ]
    assert "mean of 3 repeats" in run.SummaryMetadata("1v2/mean").summary_description


def test_a_band_lies_where_accuracies_can_and_long_curves_are_thinned(tmp_path):
    found = [repeat(seed, names=["1v3"], generations=[2500]) for seed in range(2)]
    for result, fitness in zip(found, (0.1, 1.0)):
        result["tasks"][0]["curve"]["fitness"] = [fitness] * 2500
    written, _ = write(tmp_path / "tb", found)
    run = written["mean/1v3_first"]
    low, mean, high = (points(run, f"1v3/{tag}") for tag in ("low", "mean", "high"))
    assert {value for _, value in low} == {0}
    assert {value for _, value in high} == {1}
    assert np.allclose([value for _, value in mean], 0.55)
    assert len(mean) == tensorboard.MOST_POINTS
    assert (mean[0][0], mean[-1][0]) == (1, 2500)


def test_each_task_has_a_chart_with_all_ways_in_which_it_was_learned(tmp_path):
    found = [repeat(0), repeat(0, names=("1v2", "1v3"))]
    found.append(repeat(0, "scratch", generations=(4, 5)))
    written, _ = write(tmp_path / "tb", found)
    names = {name.removeprefix("mean/") for name in written if "mean/" in name}
    assert names == {
        "1v3_first", "1v2_after_1v3__pathnet", "1v2_first", "1v3_after_1v2",
        "1v2_after_1v3__scratch",
    }  # fmt: skip
    run = written["mean/1v3_first"]
    (tensor,) = run.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(tensor.tensor_proto.string_val[0])
    (category,) = layout.category
    assert category.title.startswith(
        "Training accuracy of the winners over generations"
    )
    assert [chart.title for chart in category.chart] == ["1v3", "1v2"]
    for chart, name in zip(category.chart, ("1v3", "1v2")):
        (series,) = chart.margin.series
        tags = {series.value, series.lower, series.upper}
        of_task = [run for label, run in written.items() if f"/{name}_" in label]
        assert len(of_task) > 1
        assert all(set(run.Tags()["scalars"]) == tags for run in of_task)
    plugin = run.SummaryMetadata("custom_scalars__config__").plugin_data
    assert plugin.plugin_name == "custom_scalars"


def test_settings_with_the_same_curves_have_them_once(tmp_path):
    """In whichever order their repeats were learned."""
    found = [repeat(seed, control) for control in ("a", "b") for seed in (0, 1)]
    found += [repeat(seed, "c", generations=(5, 3)) for seed in (0, 1)]
    written, _ = write(tmp_path / "tb", [found[1], found[0], *found[2:]])
    assert {name for name in written if name.startswith("mean/")} == {
        "mean/1v3_first__a_b", "mean/1v3_first__c", "mean/1v2_after_1v3"
    }  # fmt: skip


def test_a_row_has_the_flags_that_differ_and_what_came_of_them(tmp_path):
    found = [
        repeat(3, control, writeback=writeback, generations=(100, generations))
        for writeback in ("sum", "merge")
        for control, generations in (("pathnet", 50), ("scratch", 75))
    ]
    found[2]["tasks"][1]["converged"] = False
    written, _ = write(tmp_path / "tb", found)
    rows = {
        (flags["writeback"], flags["control"]): (flags, name, outcomes(run))
        for run_name, run in written.items()
        if run_name.startswith("repeats/")
        for flags, name in [columns(run)]
    }
    flags, name, of_pathnet = rows["sum", "pathnet"]
    assert flags == {"seed": 3, "control": "pathnet", "writeback": "sum"}
    assert name == ""  # or rows of several folders with one name were one
    assert of_pathnet == {
        "task1/generations": 100, "task1/held_out": 0.75,
        "task2/generations": 50, "task2/held_out": 0.75, "task2/speedup": 1.5,
    }  # fmt: skip
    assert "task2/speedup" not in rows["sum", "scratch"][2]
    # It did not converge, so nobody knows what it needs.
    assert set(rows["merge", "pathnet"][2]) == {
        "task1/generations", "task1/held_out", "task2/held_out"
    }  # fmt: skip


def test_a_repeat_has_one_row_however_many_files_hold_it(tmp_path):
    written, _ = write(tmp_path / "tb", [repeat(0), repeat(0), repeat(1)])
    assert len([name for name in written if name.startswith("repeats/")]) == 2


def test_rows_are_sorted_by_seed(tmp_path):
    written, _ = write(tmp_path / "tb", [repeat(seed) for seed in (10, 9)])
    rows = sorted(name for name in written if name.startswith("repeats/"))
    assert [name.partition("__")[0] for name in rows] == [
        "repeats/seed09",
        "repeats/seed10",
    ]


def test_a_row_names_its_tasks_where_these_differ(tmp_path):
    written, _ = write(tmp_path / "tb", [repeat(0), repeat(0, names=("1v2", "1v3"))])
    rows = {
        name: columns(run)[0]
        for name, run in written.items()
        if name.startswith("repeats/")
    }
    assert rows == {
        "repeats/seed0__pathnet__1v3_1v2": {"seed": 0, "tasks": "1v3, 1v2"},
        "repeats/seed0__pathnet__1v2_1v3": {"seed": 0, "tasks": "1v2, 1v3"},
    }


def test_games_have_their_scores_over_agent_steps(tmp_path):
    found = [game(0, [-20.0, 5.0]), game(1, [-10.0, 15.0]), game(2, [])]
    written, _ = write(tmp_path / "tb", found)
    run = written["mean/pong_first"]
    assert [step for step, _ in points(run, "pong/mean")] == [100, 200]
    assert points(run, "pong/low")[0][1] < -20  # a band of scores is not cut off
    (row,) = (run for name, run in written.items() if "seed1__" in name)
    assert outcomes(row) == {"task1/steps": 200, "task1/score": 15}
    (row,) = (run for name, run in written.items() if "seed2__" in name)
    assert outcomes(row) == {"task1/steps": 0}


def test_what_has_no_curve_is_named(tmp_path):
    found = repeat(0)
    del found["tasks"][1]["curve"]
    written, lacking = write(tmp_path / "tb", [found])
    assert lacking == ["1v2 after 1v3"]
    assert "mean/1v3_first" in written and "mean/1v2_after_1v3" not in written
    del found["tasks"][0]["curve"]
    written, lacking = write(tmp_path / "none", [found])
    assert lacking == ["1v3 first", "1v2 after 1v3"]
    assert list(written) == ["repeats/seed0__pathnet__1v3_1v2"]


def test_a_folder_that_holds_something_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "notes").touch()
    assert tensorboard.write("empty", [repeat(0)], {"seed"})[0] == "empty"
    before = sorted(tmp_path.joinpath("empty").rglob("*"))
    assert tensorboard.write("held/", [repeat(0)], {"seed"})[0] == "held-2"
    again, _ = tensorboard.write(str(tmp_path / "empty"), [repeat(0)], {"seed"})
    assert again == str(tmp_path / "empty-2")
    assert sorted(tmp_path.joinpath("empty").rglob("*")) == before
    assert [path.name for path in (tmp_path / "held").iterdir()] == ["notes"]
    with pytest.raises(UserError, match="held/notes: is no folder"):
        tensorboard.write("held/notes", [repeat(0)], {"seed"})


def test_names_from_a_file_stay_within_the_folder(tmp_path):
    found = repeat(0, names=("../../x", "a\x1b/b"), control="../y")
    written, _ = write(tmp_path / "tb", [found])
    assert len(written) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["tb"]


@pytest.fixture
def script_flags():
    """Flags of a made-up script."""

    def define():
        with commandline.flag_group("Network", commandline.NETWORK):
            absl_flags.DEFINE_integer("M", 10, "Modules.")
        with commandline.flag_group("Output", commandline.PLACE):
            absl_flags.DEFINE_string("row_dir", "", "Folder.")

    before, groups = set(absl_flags.FLAGS), list(commandline._groups)
    define()
    yield
    for name in set(absl_flags.FLAGS) - before:
        delattr(absl_flags.FLAGS, name)
    commandline._groups[:] = groups


def test_a_run_adds_its_row_with_the_flags_that_decide_results(tmp_path, script_flags):
    tensorboard.write_row(str(tmp_path), repeat(5, M=20, row_dir="logs", B=None))
    found = runs(tmp_path)
    assert list(found) == [tensorboard.ROW]
    flags, name = columns(found[tensorboard.ROW])
    assert flags == {"M": 20, "tasks": "1v3, 1v2", "seed": 5, "control": "pathnet"}
    assert name == ""
    assert outcomes(found[tensorboard.ROW])["task2/generations"] == 3


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (None, "none"), ("\ud800", "\\ud800"), (True, True), (3, 3), (0.5, 0.5), ("sum", "sum"), (["a", 1], "a, 1"),
        (math.inf, "inf"), (math.nan, "nan"), (10**400, str(10**400)), (2**60, str(2**60)),
    ],
)  # fmt: skip
def test_flags_are_plain_values_in_the_table(tmp_path, value, plain):
    result = repeat(0) | {"seed": value}
    tensorboard.write_row(str(tmp_path), result)
    flags, _ = columns(runs(tmp_path)[tensorboard.ROW])
    assert flags["seed"] == plain and type(flags["seed"]) in (type(plain), float)
    assert not (isinstance(plain, float) and np.isnan(plain))


def test_importing_it_does_not_load_tensorboard():
    code = (
        "import sys, plotting; "
        "sys.exit(not {'tensorboard', 'tensorflow'}.isdisjoint(sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)

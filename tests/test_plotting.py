"""Tests of the command that makes tables and pictures."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from absl import flags as absl_flags
from fuzzing import FUZZ_CASES, assert_is_one_line, nonsensical
from PIL import Image

import plotting
from common import commandline
from common import results as results_files
from common.commandline import UserError

pytestmark = pytest.mark.slow

PONG = Path(plotting.__file__).parent / "figures" / "pong_scores.jsonl"


def learned(*names, **outcome):
    """A repeat of these tasks, each with that outcome."""
    return {"tasks": [{"name": name} | outcome for name in names]}


def recorded_as(control, generations):
    """A repeat as binary_mnist_pathnet.py writes it."""
    result = learned(
        "1v3",
        "1v2",
        generations=generations,
        fitness=0.99,
        accuracy_test=0.97,
        path=[[0, 1], [1, 2]],
        curve={"generation": [1, generations], "fitness": [0.5, 0.99]},
        modules_so_far=4,
        converged=True,
    )
    flags = {"L": 2, "M": 4, "N": 2, "control": "pathnet,scratch"}
    result |= {"script": "binary_mnist", "seed": 0, "control": control, "flags": flags}
    return result | {"overlap": 1, "retention": [[0.97], [0.97, 0.97]]}


def command(folder, results, *options):
    """Runs plotting.py on a file with these results, in a folder of its own."""
    (folder / "results.jsonl").write_text(
        "".join(json.dumps(result) + "\n" for result in results)
    )
    return subprocess.run(
        [sys.executable, plotting.__file__, "results.jsonl", *options],
        cwd=folder,
        capture_output=True,
        text=True,
    )


def test_the_command_draws_every_picture_of_every_setting(tmp_path):
    names = ["generations", "curves", "accuracies", "usage", "overlaps", "retention"]
    found = [recorded_as(c, g) for c in ("pathnet", "scratch") for g in (50, 60)]
    done = command(tmp_path, found, *(f"--{name}={name}.png" for name in names))
    assert done.returncode == 0, done.stderr
    for heading in (
        "| task | learned | repeats | generations | median [95 %] | IQM [95 %] |",
        "\n\nNot compared with first: 1v2, which no repeat learned first.\n\n",
        "| task | control | repeats | generations | mini-batches |",
    ):
        assert heading in done.stdout
    assert "| 2: 1v2 | pathnet | 1 |" in done.stdout
    for name in names:
        for control in ("pathnet", "scratch"):
            picture = f"{name}_control={control}.png"
            assert f"Picture: {picture} of control={control}\n" in done.stdout
            with Image.open(tmp_path / picture) as image:
                assert image.format == "PNG"
    assert len(list(tmp_path.iterdir())) == 1 + 2 * len(names)


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("--scores=scores.png", "flag --scores: .* they have no 'steps'"),
        ("--curves=missing/curves.png", "missing/curves.png: No such file"),
        ("--curves=results.jsonl/a.png", " results.jsonl/a.png: Not a directory"),
    ],
)
def test_a_picture_that_cannot_be_drawn_is_one_line(tmp_path, option, reason):
    done = command(tmp_path, [recorded_as("pathnet", 50)], option)
    assert done.returncode == 2
    assert re.search(reason, done.stderr) and done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["results.jsonl"]


def test_a_flag_without_its_picture_spares_the_results(tmp_path):
    """It takes the file that comes after it for its value."""
    done = command(tmp_path, [recorded_as("pathnet", 50)], "--curves", "results.jsonl")
    assert done.returncode == 2
    expected = "flag --curves=results.jsonl: name a picture that ends in .png"
    assert expected in done.stderr and done.stderr.count("\n") == 1
    assert results_files.read([tmp_path / "results.jsonl"])


def test_the_table_of_games_counts_steps_to_the_levels_asked_for(tmp_path):
    pong = results_files.read([PONG])
    done = command(tmp_path, pong, "--score_levels=-3,0.5")
    assert done.returncode == 0
    assert "| steps to -3 | speedup | steps to 0.5 | speedup |" in done.stdout
    done = command(tmp_path, pong, "--score_levels=high")
    assert done.returncode == 2
    assert "flag --score_levels=['high']: separate numbers by commas" in done.stderr


def test_a_game_in_which_no_episode_ended_has_no_score(tmp_path):
    """And spoils neither the table nor the pictures of the other files."""
    pong = results_files.read([PONG])
    curve = {"steps": [], "return": [], "episodes": []}
    quiet = {"name": "pong", "generations": 0, "steps": 64, "score": None}
    found = [*pong, pong[0] | {"seed": 9, "tasks": [quiet | {"curve": curve}]}]
    done = command(tmp_path, found, "--scores=scores.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert "| 9 | 1: pong | 64 | none | never |" in done.stdout
    assert (tmp_path / "scores.png").exists()


def test_games_have_a_table_of_controls(tmp_path):
    pong = results_files.read([PONG])
    scratch = [result | {"control": "scratch"} for result in pong]
    done = command(tmp_path, pong + scratch)
    assert done.returncode == 0, done.stderr
    assert "| 2: pong | pathnet | 3 |" in done.stdout
    assert "1.00 [1.00, 1.00]" in done.stdout


def without(result, name):
    """The result, and its tasks, without one of their fields."""
    tasks = [{k: v for k, v in task.items() if k != name} for task in result["tasks"]]
    return {k: v for k, v in result.items() if k != name} | {"tasks": tasks}


# Of another seed each, as equal repeats count once.


def without_curves(result):
    return without(result, "curve") | {"seed": 1}


def without_retention(result):
    return without(result, "retention") | {"seed": 1}


def of_other_tasks(result):
    return result | {"tasks": result["tasks"][::-1]}


@pytest.mark.parametrize(
    ("option", "change", "reason"),
    [
        ("--level=0.5", without_curves, "they have no 'curve'"),
        ("--retention=a.png", without_retention, "they have no 'retention'"),
        ("--retention=a.png", of_other_tasks, "not of the same tasks in the same"),
    ],
)
def test_results_that_do_not_fit_a_flag_are_one_line(tmp_path, option, change, reason):
    found = recorded_as("pathnet", 50)
    done = command(tmp_path, [found, change(found) | {"seed": 1}], option)
    assert done.returncode == 2
    flag = option.partition("=")[0]
    assert re.search(f"flag {flag}: .*{reason}", done.stderr)
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["results.jsonl"]


def test_results_that_make_no_table_of_controls_are_one_line(tmp_path):
    found = [without(recorded_as(c, 50), "seed") for c in ("pathnet", "scratch")]
    done = command(tmp_path, found)
    assert done.returncode == 2
    told = (
        "plotting.py: no table of controls fits these results, as they have no 'seed'"
    )
    assert done.stderr.startswith(told) and done.stderr.count("\n") == 1


def test_flags_that_hold_commands_to_the_terminal_are_shown_as_text(tmp_path):
    found = [recorded_as("pathnet", 50) for _ in range(2)]
    found[0]["flags"] |= {"noise": "\x1b[2J", "\x1b]0;title\x07": "\x9b"}
    done = command(tmp_path, found, "--usage=usage.png")
    assert done.returncode == 0, done.stderr
    assert "noise=\\x1b[2J" in done.stdout
    assert all(line.isprintable() for line in done.stdout.splitlines())


@pytest.mark.parametrize(
    "backend", ["module://matplotlib_inline.backend_inline", "qtagg", "nonsense", ""]
)
def test_pictures_are_drawn_whatever_backend_the_shell_names(
    tmp_path, monkeypatch, backend
):
    monkeypatch.setenv("MPLBACKEND", backend)
    done = command(tmp_path, [recorded_as("pathnet", 50)], "--curves=curves.png")
    assert (done.returncode, done.stderr) == (0, "")


def test_nonsensical_results_are_refused_or_tabulated(tmp_path, monkeypatch, capsys):
    """Some are drawn, too; PATHNET_FUZZ_CASES sets how many there are."""
    file, refused = tmp_path / "results.jsonl", 0
    monkeypatch.chdir(tmp_path)
    whole = [recorded_as("pathnet", 50), recorded_as("scratch", 60)]
    games = results_files.read([PONG])[:1]
    for task in games[0]["tasks"]:
        task["curve"] = {name: column[:9] for name, column in task["curve"].items()}
    pictures = list(plotting.PICTURES)
    for seed in range(FUZZ_CASES):
        rng = np.random.default_rng(seed)
        first, *rest = games if seed % 3 == 0 else whole
        lines = map(json.dumps, [nonsensical(first, rng), *rest])
        file.write_text("\n".join(lines))
        picture = {pictures[seed % len(pictures)]: "a.png"} if seed % 20 == 0 else {}
        board = str(tmp_path / f"tb{seed}") if seed % 20 == 10 else None
        options = plotting.Options(0.5, (0.0, 15.0), picture, board)
        try:
            plotting.show([str(file)], options)
        except UserError as error:
            refused += 1
            assert_is_one_line(error, file if "results.jsonl" in str(error) else "")
    output = capsys.readouterr().out
    assert all(line.isprintable() for line in output.splitlines())
    assert FUZZ_CASES > refused > FUZZ_CASES / 4


def define_flags_of_each_kind():
    """Flags of a made-up script, a group for each thing that a flag can decide."""
    for decides in ("network", "learning", "tasks", "repeat", "place"):
        with commandline.flag_group(decides, decides):
            absl_flags.DEFINE_integer(f"{decides}_flag", 0, "A number.")


def define_network_flag():
    with commandline.flag_group("Network", commandline.NETWORK):
        absl_flags.DEFINE_integer("other_network_flag", 0, "A number.")


def test_flags_that_are_no_setting_are_those_of_tasks_repeats_and_places(monkeypatch):
    supervised, atari = plotting.supervised_settings, plotting.atari_settings
    for module, name, define in (
        (supervised, "define_binary_mnist_flags", define_network_flag),
        (supervised, "define_cifar_svhn_flags", define_flags_of_each_kind),
        (supervised, "define_images_flags", define_network_flag),
        (atari, "define_flags", define_flags_of_each_kind),
    ):
        monkeypatch.setattr(module, name, define)
    assert plotting.not_settings() == {"tasks_flag", "repeat_flag", "place_flag"}
    assert "tasks_flag" not in absl_flags.FLAGS


def test_the_command_makes_a_folder_for_tensorboard(tmp_path):
    found = [recorded_as(c, g) for c in ("pathnet", "scratch") for g in (50, 60)]
    found[0]["tasks"][0].pop("curve")
    found[2]["tasks"][0].pop("curve")
    done = command(tmp_path, found, "--tensorboard=tb")
    assert (done.returncode, done.stderr) == (0, "")
    *_, lacking, curves, table = done.stdout.splitlines()
    assert lacking == "No mean curve, as the results have none: 1v3 first"
    assert curves.startswith("Mean curves: ")
    assert curves.endswith("tensorboard --logdir=tb/mean")
    assert table.startswith("Table of repeats: ")
    assert table.endswith("tensorboard --logdir=tb/repeats")
    assert list(tmp_path.glob("tb/mean/*/events.out.tfevents.*"))
    done = command(tmp_path, found, "--tensorboard=tb")
    assert done.stdout.endswith("tensorboard --logdir=tb-2/repeats\n")
    for result in found:
        for task in result["tasks"]:
            task.pop("curve", None)
    done = command(tmp_path, found, "--tensorboard=bare")
    assert "Mean curves" not in done.stdout
    assert done.stdout.endswith("tensorboard --logdir=bare/repeats\n")
    done = command(tmp_path, found, "--tensorboard", "results.jsonl")
    assert done.returncode == 2 and done.stderr.count("\n") == 1


def test_help_shows_what_each_flag_draws(tmp_path):
    done = command(tmp_path, [], "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Tables and pictures made of any number of results")
    for name in (*plotting.PICTURES, "tensorboard", "level", "score_levels"):
        assert f"  --{name}\n" in done.stdout


def test_files_without_results_are_one_line(tmp_path):
    done = command(tmp_path, [])
    assert done.returncode == 2
    assert done.stderr == "plotting.py: results.jsonl: no results in there yet\n"


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ("", "a/b/c.png"),
        ("control=scratch", "a/b/c_control=scratch.png"),
        ("B=2, games=['pong', '../x']", "a/b/c_B=2,_games=_pong_,_.._x_.png"),
        ("flag=value, " * 20, "a/b/c_7.png"),
    ],
)
def test_the_picture_of_a_setting_has_a_name_in_the_same_folder(setting, name):
    assert plotting.setting_filename("a/b/c.png", setting, 7) == Path(name)

"""Tests of transfer.py: what second games gain, as a table and a picture."""

import numpy as np
import pytest
from PIL import Image

from reports import transfer


def task(name, returns, steps=1000):
    """A game whose every point of the curve has enough episodes for a score."""
    at = np.linspace(0, steps, len(returns) + 1)[1:]
    curve = {
        "steps": at.tolist(),
        "return": list(returns),
        "episodes": [30] * len(returns),
    }
    return {"name": name, "steps": steps, "score": returns[-1], "curve": curve}


def result(name, returns, control="pathnet", seed=0, steps=1000):
    tasks = [task("pong", [-21.0, 15.0]), task(name, returns, steps)]
    return {"seed": seed, "control": control, "tasks": tasks}


def test_the_area_is_the_mean_height():
    flat = task("pong_black", [-11.0] * 4)
    assert transfer.area(flat, 1000) == pytest.approx(-11)
    rising = task("catch_hflip", [-1.0, 1.0], steps=200)
    # -1 until step 100, to 1 at step 200, and so on from there.
    assert transfer.area(rising, 100) == pytest.approx(-1)
    assert transfer.area(rising, 200) == pytest.approx(-0.5, abs=0.01)
    assert transfer.area(rising, 400) == pytest.approx(0.25, abs=0.01)


def test_too_few_episodes_have_no_area_and_are_left_out():
    results = some_results()
    (one,) = (r for r in results if r["control"] == "finetune")
    one["tasks"][1]["curve"]["episodes"] = [3, 4]
    assert transfer.area(one["tasks"][1], 1000) is None
    assert "finetune" not in transfer.gains(results)["pong_zoom"]


def test_the_least_return_of_any_other_game_is_the_least_score():
    results = [
        result("tetris", [4.0, 4.0, 6.0], "scratch"),
        result("tetris", [7.0] * 3),
        result("tetris", [2.0] * 3, seed=1),
    ]
    # 2 is the least: scratch has about 2.5 above it, and PathNet 5.
    (gain,) = transfer.gains(results)["tetris"]["pathnet"]
    assert gain == pytest.approx(
        100 * 5 / (transfer.area(results[0]["tasks"][1], 1000) - 2)
    )


def test_nothing_is_relative_to_nothing():
    """From scratch all was lost: there is no ratio."""
    results = [
        result("pong_zoom", [-21.0] * 2, "scratch"),
        result("pong_zoom", [-20.0] * 2),
    ]
    assert transfer.gains(results) == {}
    assert transfer.transfer_table(results) == ""


def some_results():
    return [
        result("pong_black", [-16.0] * 2, "scratch"),
        result("pong_black", [-11.0] * 2),
        result("pong_black", [-16.0] * 2, "scratch", seed=1),
        result("pong_black", [-6.0] * 2, seed=1),
        result("pong_black", [0.0] * 2, seed=2),  # not from scratch: not compared
        result("pong_zoom", [-20.0] * 2, "scratch"),
        result("pong_zoom", [-20.5] * 2),
        result("pong_zoom", [-20.0] * 2, "finetune"),
    ]


def test_gains_are_paired_by_seed():
    assert transfer.gains(some_results()) == {
        "pong_black": {"pathnet": pytest.approx([200, 300])},
        "pong_zoom": {
            "pathnet": pytest.approx([50]),
            "finetune": pytest.approx([100]),
        },
    }


def test_one_that_ends_sooner_counts_with_its_last_score():
    """Up to where learning from scratch ended."""
    results = [
        result("pong_black", [-21.0] * 4, "scratch", steps=4000),
        result("pong_black", [-21.0] * 4, "scratch", seed=1, steps=2000),
        result("pong_black", [-11.0], steps=1000),
    ]
    results[0]["tasks"][1]["curve"]["return"] = [-20.0] * 4
    assert transfer.gains(results)["pong_black"]["pathnet"] == pytest.approx([1000])


def test_the_table():
    *_, heading, rule, black, zoom, mean, median = transfer.transfer_table(
        some_results()
    ).splitlines()
    assert heading == "| second game | repeats | pathnet | finetune |"
    assert rule.count("---") == 4
    assert black == "| pong_black | 2 | 250 ± 50 |  |"
    assert zoom == "| pong_zoom | 1 | 50 | 100 |"
    assert mean == "| *mean* | | 150 | 100 |"
    assert median == "| *median* | | 150 | 100 |"


def test_results_without_scratch_or_of_one_game_have_no_table():
    results = some_results()
    assert (
        transfer.transfer_table([r for r in results if r["control"] != "scratch"]) == ""
    )
    assert transfer.transfer_table(results[:5]) == ""


def test_the_picture_has_a_cell_for_each_game_and_control(tmp_path):
    transfer.plot_transfer(tmp_path / "matrix.png", some_results())
    with Image.open(tmp_path / "matrix.png") as image:
        assert min(image.size) > 200
        # 50, 100, 150, ...: a colour for less than from scratch, one for more.
        assert len(image.convert("RGB").getcolors(100_000)) > 3
    with pytest.raises(ValueError, match="no second game was learned from scratch"):
        transfer.plot_transfer(tmp_path / "none.png", some_results()[1:2])
    assert not (tmp_path / "none.png").exists()

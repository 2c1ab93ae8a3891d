"""Reading results files and making tables of them."""

import json

import numpy as np
import pytest

import results
from commandline import UserError


def repeat(first, second, generations, **flags):
    """One repeat as the scripts write it, two tasks long."""
    names = (first, second)
    return {
        "flags": {"seed": 0, "M": 10, **flags},
        "tasks": [
            {"name": n, "generations": g, "fitness": 0.99, "accuracy_test": 0.95}
            for n, g in zip(names, generations)
        ],
    }


def write(path, *repeats):
    path.write_text("".join(json.dumps(r) + "\n" for r in repeats))
    return path


def test_mean_and_error():
    assert results.mean_and_error(np.array([1.0, 3.0])) == pytest.approx((2, 1))
    mean, error = results.mean_and_error(np.array([5.0]))
    assert mean == 5
    assert np.isnan(error)
    assert np.isnan(results.mean_and_error(np.array([]))).all()


def test_read_keeps_the_order_of_files_and_lines(tmp_path):
    one = write(tmp_path / "1", repeat("a", "b", (4, 2)), repeat("a", "b", (5, 2)))
    two = write(tmp_path / "2", repeat("a", "b", (6, 2)))
    read = results.read([one, two])
    assert [r["tasks"][0]["generations"] for r in read] == [4, 5, 6]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "[]",
        "3",
        "{}",
        '{"tasks": 1, "flags": {}}',
        '{"tasks": [{"name": "a"}], "flags": {}}',
        '{"tasks": [], "flags": 2}',
        '{"tasks": [{"name": "a", "generations": "x"}], "flags": {}}',
        "\x00\xff",
    ],
)
def test_read_names_the_line_that_is_no_result(tmp_path, line):
    path = write(tmp_path / "results.jsonl", repeat("a", "b", (1, 1)))
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=r"results\.jsonl, line 2: "):
        results.read([path])


def test_by_setting_ignores_what_tells_repeats_apart():
    alike = [
        repeat("a", "b", (1, 1), seed=seed, log_dir=str(seed), a1=seed)
        for seed in range(3)
    ]
    assert results.by_setting(alike) == {"": alike}


def test_by_setting_labels_groups_by_the_flags_that_differ():
    one, two = repeat("a", "b", (1, 1), B=2), repeat("a", "b", (1, 1), B=4)
    assert results.by_setting([one, two, one]) == {"B=2": [one, one], "B=4": [two]}


def test_table_compares_first_with_later():
    table = results.table(
        [
            repeat("a", "b", (10, 20)),
            repeat("a", "b", (20, 40)),
            repeat("b", "a", (90, 5)),
        ]
    )
    assert table.splitlines()[2:] == [
        "| a | first | 2 | 15.0 ± 5.0 |  | 99.00 ± 0.00 | 95.00 ± 0.00 |",
        "| a | after b | 1 | 5.0 | 3.00 | 99.00 | 95.00 |",
        "| b | first | 1 | 90.0 |  | 99.00 | 95.00 |",
        "| b | after a | 2 | 30.0 ± 10.0 | 3.00 | 99.00 ± 0.00 | 95.00 ± 0.00 |",
    ]


def curve(*fitness):
    return {"generation": list(range(1, len(fitness) + 1)), "fitness": list(fitness)}


def test_generations_to_a_level_is_of_the_mean_of_the_last_winners():
    assert results.generations_to(curve(0, 1, 0, 1, 1), 0.6, window=3) == 4
    assert results.generations_to(curve(0, 1, 0, 1, 0), 0.7, window=3) is None
    assert results.generations_to(curve(1, 1), 0.1, window=10) is None


def test_table_to_a_level_counts_the_repeats_that_reached_it():
    runs = [repeat("a", "b", (100, 100)) for _ in range(2)]
    for run, tenths in zip(runs, (20, 1000)):
        for task, steps in zip(run["tasks"], (tenths, 10)):
            task["curve"] = curve(*np.minimum(np.arange(100) / steps, 1))
    first, later = results.table(runs, 0.5).splitlines()[2:]
    assert first.split(" | ")[2:5] == ["1 of 2", "16.0", ""]
    assert later.split(" | ")[2:5] == ["2 of 2", "11.0 ± 0.0", ""]

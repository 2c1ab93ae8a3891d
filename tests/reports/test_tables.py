"""Tests of the statistics of results, and of the tables made of them."""

import itertools
import re

import numpy as np
import pytest

from reports import tables


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


def test_mean_and_error():
    assert tables.mean_and_error(np.array([1.0, 3.0])) == pytest.approx((2, 1))
    mean, error = tables.mean_and_error(np.array([5.0]))
    assert mean == 5
    assert np.isnan(error)
    assert np.isnan(tables.mean_and_error(np.array([]))).all()


def test_paths_are_shown_by_their_last_part_where_these_differ():
    results = [
        repeat("/a/x:0-4", "/a/b/y.npz", (4, 2)),
        repeat("1v3", "/a/x:0-4", (1, 1)),
    ]
    short = tables.with_short_names(results)
    assert [[task["name"] for task in r["tasks"]] for r in short] == [
        ["x:0-4", "y.npz"],
        ["1v3", "x:0-4"],
    ]
    assert short[0]["tasks"][1]["generations"] == 2
    slashes = [repeat("/a/photos/:0-4", "/a/photos~1/", (4, 2))]
    (short,) = tables.with_short_names(slashes)
    assert [task["name"] for task in short["tasks"]] == ["photos:0-4", "photos~1"]
    assert results[0]["tasks"][0]["name"] == "/a/x:0-4"
    alike = [repeat("/a/x", "/b/x", (4, 2))]
    assert tables.with_short_names(alike) == alike


def test_by_setting_ignores_what_tells_repeats_apart():
    alike = [
        repeat("a", "b", (1, 1), seed=seed, log_dir=str(seed), a1=seed)
        for seed in range(3)
    ]
    names = {"seed", "log_dir", "a1"}
    assert tables.by_setting(alike, names) == {"": alike}
    assert len(tables.by_setting(alike, names - {"a1"})) == 3


def test_learned_yields_what_runs_of_a_seed_begin_with_once():
    one, two = (repeat("a", b, (4, 2)) | {"seed": 3} for b in "bc")
    other = repeat("a", "b", (4, 2)) | {"seed": 4}
    elsewhere = repeat("a", "b", (5, 2)) | {"seed": 3}
    found = [
        (place, before, task["name"], task["generations"])
        for place, before, task in tables.learned([one, two, other, elsewhere])
    ]
    assert found == [
        (0, None, "a", 4), (1, "a", "b", 2), (1, "a", "c", 2),
        (0, None, "a", 4), (1, "a", "b", 2),
    ]  # fmt: skip


def test_by_setting_has_a_repeat_once_however_many_files_hold_it():
    def made(seed, seconds, generations=(4, 2), **more):
        return repeat("a", "b", generations) | {"seed": seed, "seconds": seconds} | more

    first, again, rounded = made(3, 1.5), made(3, 1.6), made(3, 1.5, (5, 2))
    other_order = repeat("b", "a", (4, 2)) | {"seed": 3}
    control = made(3, 1.5, control="scratch")
    found = [first, again, rounded, made(4, 1.5), other_order, control]
    assert tables.by_setting(found, set(), {"control"}) == {
        "": [first, made(4, 1.5), other_order, control]
    }


def test_runs_of_a_game_from_one_seed_are_several_repeats():
    def played(steps, seconds):
        task = {"name": "pong", "generations": 1, "steps": steps, "score": 20.0}
        about = {"script": "atari", "seed": 0, "flags": {}, "seconds": seconds}
        return about | {"tasks": [task]}

    found = [played(100, 1), played(100, 2), played(90, 1)]
    assert tables.by_setting(found, set()) == {"": [found[0], found[2]]}
    assert len(list(tables.learned(found))) == 2


def test_learned_yields_all_of_repeats_without_a_seed():
    without = repeat("a", "b", (4, 2))
    assert len(list(tables.learned([without, without]))) == 4


def test_table_counts_a_first_task_that_two_files_hold_once():
    found = [
        repeat("a", then, (4 + seed, 2)) | {"seed": seed}
        for then in "bc"
        for seed in range(3)
    ]
    rows = {tuple(row[:2]): row[2:4] for row in cells(tables.generations_table(found))}
    assert rows["a", "first"] == ["3", "5.0 ± 0.6"]
    assert rows["b", "after a"] == rows["c", "after a"] == ["3", "2.0 ± 0.0"]


def test_by_setting_labels_groups_by_the_flags_that_differ():
    one, two = repeat("a", "b", (1, 1), B=2), repeat("a", "b", (1, 1), B=4)
    assert tables.by_setting([one, two, one], {"seed"}) == {
        "B=2": [one, one],
        "B=4": [two],
    }


def test_results_of_other_data_are_another_setting():
    """But not those of earlier versions, which do not say what their data were."""
    one, two = (
        repeat("a", "b", (1, 1)) | {"data": {"mnist": f"sha256 {n}"}} for n in (1, 2)
    )
    without = repeat("a", "b", (1, 1))
    assert list(tables.by_setting([one, two], {"seed"})) == [
        "data:mnist=sha256 1",
        "data:mnist=sha256 2",
    ]
    assert list(tables.by_setting([one, without], {"seed"})) == [""]


def test_tables_of_tasks_that_were_learned_first_and_later():
    found = [
        repeat("a", "b", (10, 20)),
        repeat("a", "b", (20, 40)),
        repeat("b", "a", (90, 5)),
    ]
    rows = [row[:4] + row[6:] for row in cells(tables.generations_table(found))]
    assert rows == [
        ["a", "first", "2", "15.0 ± 5.0", "99.00 ± 0.00", "95.00 ± 0.00"],
        ["b", "first", "1", "90.0", "99.00", "95.00"],
        ["b", "after a", "2", "30.0 ± 10.0", "99.00 ± 0.00", "95.00 ± 0.00"],
        ["a", "after b", "1", "5.0", "99.00", "95.00"],
    ]
    rows = cells(tables.comparison_table(found))
    assert [row[:3] for row in rows] == [
        ["b", "after a", "3.00"],
        ["a", "after b", "3.00"],
    ]


def test_tables_say_where_held_out_images_have_selected():
    found = repeat("a", "b", (10, 20)) | {"seed": 0}
    found["tasks"][1]["selected_by"] = "test"
    for row in cells(tables.generations_table([found])):
        assert row[-1] == ("95.00" if row[0] == "a" else "95.00 (selected by it)")
    for task in found["tasks"]:
        task["converged"] = True
    for row in cells(tables.control_table([found])):
        assert row[-1].endswith("by it)") == (row[0] == "2: b")
    for task in found["tasks"]:
        task["modules_so_far"] = 9
    heading = tables.retention_table([found | {"retention": [[1], [1, 1]]}])
    assert heading.startswith("| held-out % on | a | b (selected by it) | generations")


def cells(table):
    """The cells of a Markdown table's rows, without its heading."""
    return [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in table.splitlines()[2:]
    ]


def test_table_has_the_interval_of_a_speedup_between_both_directions():
    one = [repeat("a", "b", (g, 60)) for g in (100, 120, 140)]
    other = [repeat("b", "a", (120, g)) for g in (50, 60, 70, 60)]
    rows = cells(tables.comparison_table(one + other))
    interval = tables.speedup_interval([100, 120, 140], [50, 60, 70, 60], paired=False)
    assert {(name, when): ratio for name, when, ratio, *_ in rows} == {
        ("a", "after b"): "2.00 [{:.2f}, {:.2f}]".format(*interval),
        ("b", "after a"): "2.00 [2.00, 2.00]",
    }


@pytest.mark.parametrize("capped", ["first", "second"])
def test_tasks_that_did_not_converge_have_no_speedup(capped):
    """Their generations are those that they were given."""
    runs = [repeat("a", "b", (g, 5)) for g in (6, 9)] + [repeat("b", "a", (5, 3))]
    converged = runs[0]["tasks"][0] if capped == "first" else runs[2]["tasks"][1]
    converged["converged"] = False
    rows = {tuple(row[:2]): row[2:] for row in cells(tables.comparison_table(runs))}
    assert rows["a", "after b"][0] == "not all converged"
    rows = {tuple(row[:2]): row[2:4] for row in cells(tables.generations_table(runs))}
    if capped == "first":
        assert rows["a", "first"] == ["1 of 2 converged", "9.0"]
    else:
        assert rows["a", "after b"] == ["0 of 1 converged", ""]


def test_the_middle_half_is_what_is_left_without_a_quarter_at_either_end():
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 4, 7, 30):
        values = rng.normal(100, 20, n)
        expected = np.mean(np.sort(values)[n // 4 : n - n // 4])
        assert tables.interquartile_mean(values) == pytest.approx(expected)
    assert tables.interquartile_mean([1, 2, 3, 4, 5, 6, 7, 9000]) == 4.5


@pytest.mark.parametrize("statistic", [np.median, tables.interquartile_mean])
def test_the_interval_of_a_statistic_is_that_of_a_plain_bootstrap(statistic):
    rng = np.random.default_rng(1)
    values = rng.normal(150, 30, 40)
    resamples = rng.choice(values, (5000, len(values)))
    expected = np.percentile([statistic(one) for one in resamples], [2.5, 97.5])
    found = re.fullmatch(
        r"(.+) \[(.+), (.+)\]", tables.statistic_text(values, statistic)
    )
    middle, *interval = map(float, found.groups())
    assert middle == pytest.approx(statistic(values), abs=0.05)
    np.testing.assert_allclose(interval, expected, rtol=0.02)


def test_the_text_of_a_statistic_says_no_more_than_is_known():
    assert tables.statistic_text([], np.median) == ""
    assert tables.statistic_text([3], np.median) == "3.0"
    assert tables.statistic_text([3, None, 3, 3], np.median) == "not all converged"


def test_the_probability_compares_all_values_or_those_of_pairs():
    """Small whole numbers, so that there are ties."""
    rng = np.random.default_rng(2)
    first, second = rng.integers(0, 6, 30), rng.integers(0, 5, 30)

    def share(pairs):
        return np.mean([(b < a) + 0.5 * (b == a) for a, b in pairs])

    of_pairs = tables.probability_sooner(first, second, paired=True)
    assert of_pairs == pytest.approx(share(zip(first, second)))
    of_all = tables.probability_sooner(first, second[:20], paired=False)
    expected = share(itertools.product(first, second[:20]))
    assert of_all == pytest.approx(expected)
    # As the bootstrap calls it: many samples at once, along the last axis.
    both = tables.probability_sooner(
        np.stack([first, first]), np.stack([second, first]), paired=False
    )
    assert both[0] == tables.probability_sooner(first, second, paired=False)
    assert both[1] == 0.5


def test_the_interval_of_a_probability_is_that_of_a_plain_bootstrap():
    rng = np.random.default_rng(3)
    first, second = rng.normal(120, 30, 25), rng.normal(100, 30, 40)
    shares = [
        np.mean(rng.choice(first, 25)[:, None] > rng.choice(second, 40))
        for _ in range(5000)
    ]
    text = tables.probability_text(first, second, paired=False)
    middle, low, high = map(float, re.findall(r"[\d.]+", text))
    assert middle == pytest.approx(np.mean(first[:, None] > second), abs=0.005)
    np.testing.assert_allclose(
        (low, high), np.percentile(shares, [2.5, 97.5]), atol=0.02
    )


def test_the_text_of_a_probability_says_no_more_than_is_known():
    text = tables.probability_text
    assert text([], [3], paired=False) == ""
    assert text([3], [2], paired=False) == "1.00"
    assert text([3, 3], [3, 3, 3], paired=False) == "0.50 [0.50, 0.50]"
    assert text([3, None], [2, 2], paired=True) == "not all converged"


def test_a_table_has_the_median_and_the_middle_half():
    found = [repeat("a", "b", (g, 5)) for g in (10, 20, 30, 1000)]
    (first, later) = cells(tables.generations_table(found))
    assert first[:4] == ["a", "first", "4", "265.0 ± 245.0"]
    assert first[4].startswith("25.0 [") and first[5].startswith("25.0 [")
    assert later[3:] == [
        "5.0 ± 0.0", "5.0 [5.0, 5.0]", "5.0 [5.0, 5.0]", "99.00 ± 0.00", "95.00 ± 0.00"
    ]  # fmt: skip
    found[0]["tasks"][0]["converged"] = False
    first, _ = cells(tables.generations_table(found))
    assert first[2] == "3 of 4 converged"
    assert first[4:6] == ["not all converged", "not all converged"]


def test_what_was_learned_later_is_compared_with_it_learned_first():
    one = [repeat("a", "b", (g, 60), B=2, T=50) for g in (100, 120, 140)]
    other = [repeat("b", "a", (120, g), B=2, T=50) for g in (50, 60, 130, 60)]
    rows = cells(tables.comparison_table(one + other))
    assert [row[:2] for row in rows] == [["b", "after a"], ["a", "after b"]]
    sooner = "2.00 [2.00, 2.00]"
    assert rows[0][2:] == [sooner, sooner, "1.00 [1.00, 1.00]"]
    assert rows[1][4].startswith("0.83 [")  # 10 of 12 pairs
    assert tables.comparison_table([learned_alone(g) for g in (4, 5)]) == ""
    alone = "Not compared with first: b, which no repeat learned first."
    assert tables.comparison_table(one) == alone
    both = tables.comparison_table([*one, *other, repeat("a", "c", (9, 9))])
    assert both.endswith(f"\n\n{alone.replace('b,', 'c,')}")
    one[0]["tasks"][0]["converged"] = False
    _, (*_, generations, batches, probability) = cells(
        tables.comparison_table(one + other)
    )
    assert {generations, batches, probability} == {"not all converged"}


def learned_alone(generations):
    result = repeat("a", "b", (generations, 5))
    return result | {"tasks": result["tasks"][:1]}


@pytest.mark.parametrize(
    ("control", "a_generation"),
    [
        ("pathnet", [150, 150]),
        ("scratch", [150, 150]),
        ("finetune", [150, 50]),
        ("fixed_size", [50, 50]),
    ],
)
def test_minibatches_are_those_of_all_candidates_of_a_control(control, a_generation):
    result = repeat("a", "b", (10, 20), B=3, T=50, candi=20) | {"control": control}
    found = [tables.minibatches_a_generation(result, place) for place in range(2)]
    assert found == a_generation
    assert tables.minibatches(result, 0) == 10 * a_generation[0]
    assert tables.minibatches(result, 1) == 20 * a_generation[1]


def test_games_and_results_without_these_flags_have_no_minibatches():
    result = repeat("a", "b", (10, 20), B=3, T=50)
    assert tables.minibatches(result | {"script": "atari"}, 1) is None
    assert tables.minibatches(repeat("a", "b", (10, 20), B=3), 1) is None
    for nonsense in (None, "50", 1.5, True, -1, 10**400):
        assert tables.minibatches(repeat("a", "b", (1, 1), B=2, T=nonsense), 0) is None


def curve(*fitness):
    return {"generation": list(range(1, len(fitness) + 1)), "fitness": list(fitness)}


def test_generations_to_a_level_is_of_the_mean_of_the_last_winners():
    assert tables.generations_to(curve(0, 1, 0, 1, 1), 0.6, window=3) == 4
    assert tables.generations_to(curve(0, 1, 0, 1, 0), 0.7, window=3) is None
    assert tables.generations_to(curve(1, 1), 0.1, window=10) is None


@pytest.mark.parametrize("level", [0.1, 0.7, 0.9, 0.95, 0.99, 1])
def test_a_level_that_is_just_met_is_reached(level):
    """Though the mean of ten times a number may be rounded to less than it."""
    assert tables.generations_to(curve(0, *[level] * 12), level) == 11


def test_table_to_a_level_counts_the_repeats_that_reached_it():
    runs = [repeat("a", "b", (100, 100)) for _ in range(2)]
    for run, tenths in zip(runs, (20, 1000)):
        for task, steps in zip(run["tasks"], (tenths, 10)):
            task["curve"] = curve(*np.minimum(np.arange(100) / steps, 1))
    first, later = tables.generations_table(runs, 0.5).splitlines()[2:]
    assert first.split(" | ")[2:4] == ["1 of 2 converged", "16.0"]
    assert later.split(" | ")[2:4] == ["2", "11.0 ± 0.0"]


def controlled(seed, control, generations, converged=True, **flags):
    result = repeat("1v3", "1v2", (100, generations), seed=seed, **flags)
    for task in result["tasks"]:
        task["converged"] = converged
    return result | {"seed": seed, "control": control}


def test_controls_are_compared_on_the_same_seeds():
    found = [controlled(seed, "pathnet", 50 + seed) for seed in range(4)]
    found += [controlled(seed, "scratch", 100 + 2 * seed) for seed in range(4)]
    found += [controlled(seed, "finetune", 200, seed > 0) for seed in range(4)]
    rows = cells(tables.control_table(found))
    assert [row[:2] for row in rows] == [
        [task, control]
        for task in ("1: 1v3", "2: 1v2")
        for control in ("pathnet", "scratch", "finetune")
    ]
    assert [row[5] for row in rows[:3]] == ["", "", ""]
    # Every seed has the same ratio, and so has every resample.
    assert rows[3][5] == "2.00 [2.00, 2.00]"
    assert rows[4][5] == ""
    assert rows[5][2:4] == ["3 of 4 converged", "200.0 ± 0.0"]
    assert rows[5][5] == "not all converged"
    assert rows[5][-1] == "95.00 ± 0.00"


def summarized(seed, control, generations, at_the_end=0.95):
    result = controlled(seed, control, generations)
    for task in result["tasks"]:
        task["accuracy_test_after_all"] = at_the_end
    return result


def test_the_summary_of_a_run_compares_with_scratch_and_with_the_end():
    found = [
        summarized(seed, control, generations, at_the_end)
        for seed in range(2)
        for control, generations, at_the_end in (
            ("scratch", 100 + seed, 0.5),
            ("pathnet", 50, 0.95),
        )
    ]
    assert tables.summary(found).splitlines() == [
        "| task | generations | from scratch | speedup [95 %] | held-out % "
        "| after the last task % |",
        "| --- | --- | --- | --- | --- | --- |",
        "| 1: 1v3 | 100.0 ± 0.0 |  |  | 95.00 ± 0.00 | 95.00 ± 0.00 |",
        "| 2: 1v2 | 50.0 ± 0.0 | 100.5 ± 0.5 | 2.01 [2.00, 2.02] | 95.00 ± 0.00 "
        "| 95.00 ± 0.00 |",
    ]


def test_the_summary_has_no_column_that_would_be_empty():
    (header, _, *rows) = tables.summary([summarized(0, "pathnet", 50)]).splitlines()
    assert header == "| task | generations | held-out % | after the last task % |"
    assert rows[1] == "| 2: 1v2 | 50 | 95.00 | 95.00 |"
    found = [
        summarized(0, control, 50) for control in ("scratch", "finetune", "pathnet")
    ]
    (header, _, *rows) = tables.summary(found).splitlines()
    assert header.startswith("| task | control | generations | from scratch |")
    assert [row.split(" | ")[1] for row in rows] == ["finetune", "pathnet"] * 2
    (header, _, *rows) = tables.summary([summarized(0, "scratch", 50)]).splitlines()
    assert header.startswith("| task | generations | held-out %")
    assert len(rows) == 2


def test_controls_are_compared_at_equal_training():
    """A lone path that takes as many generations has had half the mini-batches."""
    found = [
        controlled(seed, control, generations + seed, B=2, T=50)
        for control, generations in (
            ("pathnet", 50),
            ("scratch", 100),
            ("finetune", 100),
        )
        for seed in range(3)
    ]
    rows = cells(tables.control_table(found))
    assert [row[5:8] for row in rows[:3]] == [["", "", ""]] * 3
    pathnet, scratch, finetune = rows[3:]
    assert pathnet[:5] == ["2: 1v2", "pathnet", "3", "51.0 ± 0.6", "5,100 ± 58"]
    assert pathnet[5] == pathnet[6] and pathnet[5].startswith("1.98 [")
    assert pathnet[7] == "1.00 [1.00, 1.00]"
    assert scratch[4:8] == ["10,100 ± 58", "", "", ""]
    even = "0.50 [0.50, 0.50]"
    assert finetune[4:8] == [
        "5,050 ± 29",
        "1.00 [1.00, 1.00]",
        "2.00 [2.00, 2.00]",
        even,
    ]
    found[0]["tasks"][1]["converged"] = False
    pathnet = cells(tables.control_table(found))[3]
    assert pathnet[2:4] == ["2 of 3 converged", "51.5 ± 0.5"]
    assert pathnet[5:8] == ["not all converged"] * 3


def test_controls_are_compared_up_to_a_level_too():
    found = []
    for control, tenths in (("pathnet", 20), ("scratch", 40)):
        result = controlled(0, control, 100, converged=False, B=2, T=50)
        for task in result["tasks"]:
            task["curve"] = curve(*np.minimum(np.arange(100) / tenths, 1))
        found.append(result)
    table = tables.control_table(found, 0.5)
    assert "| generations to 50 % | mini-batches |" in table
    assert cells(table)[2][2:8] == ["1", "16.0", "1,600", "1.62", "1.62", "1.00"]


def test_controls_are_compared_after_the_same_tasks():
    """Repeats of one seed that learned another task before are others."""
    found = []
    for before, scale in (("1v3", 1), ("4v5", 3)):
        for control, generations in (("pathnet", 50), ("scratch", 100)):
            for seed in range(2):
                result = controlled(seed, control, scale * generations)
                result["tasks"][0]["name"] = before
                found.append(result)
    rows = {
        (task, control): row
        for task, control, *row in cells(tables.control_table(found))
    }
    assert rows["2: 1v2", "pathnet"][0] == "4"
    assert rows["2: 1v2", "pathnet"][1] == "100.0 ± 28.9"
    assert rows["2: 1v2", "pathnet"][3] == "2.00 [2.00, 2.00]"
    assert rows["1: 1v3", "pathnet"][0] == "2"


def test_results_from_before_there_were_controls_are_of_pathnet():
    found = [controlled(0, control, 50) for control in ("pathnet", "scratch")]
    del found[0]["control"]
    assert [row[1] for row in cells(tables.control_table(found))][:2] == [
        "pathnet",
        "scratch",
    ]


@pytest.mark.parametrize("paired", [True, False])
def test_an_interval_needs_two_values_each_and_a_ratio(paired):
    assert tables.speedup_interval([3], [2], paired) is None
    assert tables.speedup_interval([3, 4], [0, 1], paired) is None
    assert tables.speedup_interval([3], [2, 3], paired=False) is None
    assert tables.speedup_interval([3, 4], [2], paired=False) is None


def test_the_text_of_a_speedup_says_no_more_than_is_known():
    assert tables.speedup_text([], [3], paired=False) == ""
    assert tables.speedup_text([3], [2], paired=False) == "1.50"
    assert tables.speedup_text([3, 3], [2, 2, 2], paired=False) == "1.50 [1.50, 1.50]"


@pytest.mark.parametrize(
    ("paired", "sizes"), [(True, (30, 30)), (False, (30, 30)), (False, (20, 40))]
)
def test_the_interval_of_a_speedup_covers_it(paired, sizes):
    """Of 60 samples with a true ratio of 2, an interval of 95 % holds it in most."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(60):
        first, second = rng.normal(200, 40, sizes[0]), rng.normal(100, 20, sizes[1])
        low, high = tables.speedup_interval(first, second, paired)
        covered += low < 2 < high
    assert 50 <= covered < 60


def test_the_interval_of_an_unpaired_speedup_is_that_of_a_plain_bootstrap():
    rng = np.random.default_rng(1)
    first, second = rng.normal(180, 30, 25), rng.normal(90, 20, 40)
    ratios = [
        rng.choice(first, len(first)).mean() / rng.choice(second, len(second)).mean()
        for _ in range(5000)
    ]
    expected = np.percentile(ratios, [2.5, 97.5])
    found = tables.speedup_interval(first, second, paired=False)
    np.testing.assert_allclose(found, expected, rtol=0.01)


def test_pairs_that_vary_together_have_a_narrow_interval():
    second = np.array([50.0, 100, 150, 200])
    paired = tables.speedup_interval(2 * second, second, paired=True)
    np.testing.assert_allclose(paired, [2, 2])
    low, high = tables.speedup_interval(2 * second, second, paired=False)
    assert low < 1.5 and high > 2.5


def test_settings_differ_by_control():
    found = [controlled(0, control, 50) for control in ("pathnet", "scratch")]
    assert set(tables.by_setting(found, {"seed"})) == {
        "control=pathnet",
        "control=scratch",
    }
    assert list(tables.by_setting(found, {"seed"}, ignored={"control"})) == [""]
    old = repeat("1v3", "1v2", (100, 50))  # from before there were controls
    assert list(tables.by_setting([found[0], old], {"seed"})) == [""]


def remembered(*rows):
    result = repeat("1v3", "1v2", (100, 50))
    for task, count in zip(result["tasks"], (9, 15)):
        task["modules_so_far"] = count
    return result | {"retention": list(rows)}


def test_retention_is_a_matrix_a_repeat():
    found = [remembered([0.5], [0.5, 0.75]), remembered([0.25], [0.25, 1])]
    names, accuracy = tables.retention(found)
    assert names == ["1v3", "1v2"]
    expected = [[[0.5, np.nan], [0.5, 0.75]], [[0.25, np.nan], [0.25, 1]]]
    np.testing.assert_array_equal(accuracy, expected)
    lines = tables.retention_table(found[:1]).splitlines()
    assert lines[0] == "| held-out % on | 1v3 | 1v2 | generations | modules so far |"
    assert lines[2] == "| after 1: 1v3 | 50.00 |  | 100 | 9 |"
    assert lines[3] == "| after 2: 1v2 | 50.00 | 75.00 | 50 | 15 |"


def test_retention_of_different_tasks_is_refused():
    other = repeat("1v2", "1v3", (1, 1)) | {"retention": [[0.5], [0.5, 0.5]]}
    with pytest.raises(ValueError, match="same tasks in the same order"):
        tables.retention([remembered([0.5], [0.5, 0.75]), other])
    with pytest.raises(KeyError, match="retention"):
        tables.retention([repeat("a", "b", (1, 1))])
    with pytest.raises(ValueError, match="no task"):
        tables.retention([])


def test_a_speedup_is_against_the_same_game_learned_before():
    def game(name, steps):
        curve = {"steps": [steps], "return": [20.0], "episodes": [30]}
        return {"name": name, "steps": steps, "score": 20.0, "curve": curve}

    tasks = [game("pong", 90), game("breakout", 50), game("pong", 30)]
    rows = cells(tables.score_table([{"seed": 0, "tasks": tasks}], levels=(0,)))
    assert [row[4:] for row in rows] == [["90", ""], ["50", ""], ["30", "3.00"]]

    repeats = [
        {"seed": seed, "tasks": [game("pong", 3000 * seed), game("pong", 1000)]}
        for seed in (1, 2)
    ]
    *_, mean = cells(tables.score_table(repeats, levels=(0, 99)))
    assert mean == [
        *("mean", "2: pong", "", "", "1,000 ± 0", "4.50 [3.00, 6.00]"),
        *("", "not all converged"),
    ]


def test_controls_of_games_are_compared_by_the_steps_to_a_score():
    def game(steps, score):
        curve = {"steps": [steps], "return": [score], "episodes": [30]}
        return {"name": "pong", "steps": steps, "score": score, "curve": curve}

    found = [
        {"seed": seed, "control": control, "tasks": [game(900, 20.0), game(*second)]}
        for seed in range(2)
        for control, second in (
            ("pathnet", (100 + 100 * seed, 20.0)),
            ("scratch", (300 + 300 * seed, 20.0)),
            ("finetune", (150, 20.0 - 30 * seed)),
        )
    ]
    rows = cells(tables.score_control_table(found, levels=(0, 15)))
    assert [row[:5] for row in rows] == [
        ["1: pong", "pathnet", "2", "900 ± 0", ""],
        ["1: pong", "scratch", "2", "900 ± 0", ""],
        ["1: pong", "finetune", "2", "900 ± 0", ""],
        ["2: pong", "pathnet", "2", "150 ± 50", "3.00 [3.00, 3.00]"],
        ["2: pong", "scratch", "2", "450 ± 150", ""],
        ["2: pong", "finetune", "2", "150, 1 never", "not all converged"],
    ]


def test_a_task_that_ended_on_its_score_reached_it():
    """The curve's last point holds other episodes as well."""
    curve = {"steps": [100, 200], "return": [0.0, 14.0], "episodes": [30, 40]}
    task = {"name": "pong", "steps": 190, "score": 15.0, "curve": curve}
    rows = tables.score_table([{"seed": 0, "tasks": [task]}]).splitlines()
    assert rows[-1] == "| 0 | 1: pong | 190 | 15.0 | 100 |  | 190 |  |"
    rows = tables.score_table([{"seed": 0, "tasks": [task | {"score": 14.9}]}])
    assert rows.splitlines()[-1].endswith("| 100 |  | never |  |")


def test_mean_curve_has_the_interval_of_students_t():
    curves = [
        {"generation": [1, 2, 3], "fitness": [level] * 3} for level in (0.4, 0.5, 0.6)
    ]
    generations, mean, margin = tables.mean_curve(curves)
    assert generations.tolist() == [1, 2, 3]
    assert mean == pytest.approx([0.5] * 3)
    # 4.3027 is the quantile of 97.5 % for two degrees of freedom.
    assert margin == pytest.approx([4.3027 * 0.1 / 3**0.5] * 3, rel=1e-4)


def test_mean_curve_goes_on_with_the_last_fitness():
    curves = [
        {"generation": [1], "fitness": [0.8]},
        {"generation": list(range(1, 101)), "fitness": [0.2] * 100},
    ]
    generations, mean, _ = tables.mean_curve(curves)
    assert len(generations) == 100
    assert mean == pytest.approx([0.5] * 100)


def test_mean_curve_smooths_over_the_window():
    spike = [0.0] * 100
    spike[50] = 1.0
    curve = {"generation": list(range(100)), "fitness": spike}
    _, mean, margin = tables.mean_curve([curve])
    assert mean.max() == pytest.approx(1 / tables.CURVE_WINDOW)
    assert np.count_nonzero(mean > 1e-12) == tables.CURVE_WINDOW
    assert not margin.any()


# ---- Sequences of tasks ----


def sequence(seed, control, rows, names=("a", "b", "c")):
    """A repeat with these held-out accuracies, a row after each task."""
    tasks = [{"name": name, "accuracy_test": row[-1]} for name, row in zip(names, rows)]
    return {"seed": seed, "control": control, "tasks": tasks, "retention": rows}


FORGETS = [[0.9], [0.6, 0.8], [0.5, 0.9, 0.7]]
SCRATCH = [[0.9], [0.9, 0.7], [0.9, 0.7, 0.9]]


def test_accuracy_forgetting_and_transfer():
    result, scratch = sequence(0, "finetune", FORGETS), sequence(0, "scratch", SCRATCH)
    assert tables.average_accuracy(result) == pytest.approx((0.5 + 0.9 + 0.7) / 3)
    assert tables.backward_transfer(result) == pytest.approx((-0.4 + 0.1) / 2)
    assert tables.forward_transfer(result, scratch) == pytest.approx((0.1 - 0.2) / 2)
    alone = sequence(0, "pathnet", [[0.9]])
    assert tables.average_accuracy(alone) == pytest.approx(0.9)
    assert tables.backward_transfer(alone) is None
    assert tables.forward_transfer(alone, alone) is None
    old = {"tasks": [{"name": "a", "accuracy_test": 0.9}] * 2, "seed": 0}
    assert tables.average_accuracy(old) is tables.backward_transfer(old) is None


def test_the_table_of_sequences():
    found = [sequence(seed, "finetune", FORGETS) for seed in range(2)]
    found += [sequence(0, "scratch", SCRATCH)]
    header, _, *rows, space, legend = tables.continual_table(found).splitlines()
    assert header == "| tasks | control | repeats | ACC % | BWT | FWT |"
    assert (space, legend) == ("", tables.CONTINUAL_LEGEND)
    assert rows == [
        "| a, b, c | finetune | 2 | 70.00 ± 0.00 | -15.00 ± 0.00 | -5.00 |",
        "| a, b, c | scratch | 1 | 83.33 | 0.00 |  |",
    ]
    names = [str(n) for n in range(7)]
    long = sequence(0, "pathnet", [[0.5] * (n + 1) for n in range(7)], names)
    assert "| 7 tasks | pathnet | 1 | 50.00 | 0.00 |  |" in tables.continual_table(
        [long]
    )


def test_there_is_no_table_of_sequences_of_one_task():
    assert tables.continual_table([sequence(0, "pathnet", [[0.9]])]) == ""
    old = {"tasks": [{"name": "a", "accuracy_test": 0.9}] * 2, "seed": 0}
    assert tables.continual_table([old]) == ""

"""Tests of the plots of results, all synthetic."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from image_helpers import count_colour
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from PIL import Image

from reports import colours, plots, style, tables


def repeats():
    orders = [(("1v3", 40), ("6v7", 10)), (("6v7", 30), ("1v3", 20))]
    return [
        {
            "seed": seed,
            "tasks": [{"name": n, "generations": g + seed} for n, g in order],
        }
        for seed in (0, 2)
        for order in orders
    ]


def test_by_task_tells_first_from_second():
    gathered = plots.by_task(repeats())
    generations = {
        name: {
            when: [task["generations"] for task in tasks] for when, tasks in g.items()
        }
        for name, g in gathered.items()
    }
    assert list(generations) == ["1v3", "6v7"]
    assert generations["1v3"] == {"first": [40, 42], "second": [20, 22]}
    assert generations["6v7"] == {"first": [30, 32], "second": [10, 12]}


def test_by_task_calls_places_after_the_second_later():
    sequence = {"tasks": [{"name": name} for name in "abca"]}
    gathered = plots.by_task([sequence, {"tasks": [{"name": "b"}]}])
    counts = {
        name: {when: len(tasks) for when, tasks in groups.items()}
        for name, groups in gathered.items()
    }
    assert counts == {
        "a": {"first": 1, "later": 1},
        "b": {"first": 1, "later": 1},
        "c": {"first": 0, "later": 1},
    }


def texts_of(first, second):
    axes = Figure().add_subplot()
    groups = {"first": first, "second": second}
    plots._draw_histograms(axes, "1v3", groups, plots._generation_edges({"": groups}))
    return titles(axes)


def titles(axes):
    """A panel's title, and the lines of its key from the top."""
    lines = [text.get_text() for text in axes.texts if isinstance(text, Annotation)]
    return axes.get_title(loc="left"), lines[::-1]


def written_on(axes):
    """The texts within a panel, which are not in its key."""
    return [t.get_text() for t in axes.texts if not isinstance(t, Annotation)]


def test_generations_panel_says_means_errors_and_speedup():
    title, lines = texts_of([40.0, 42.0], [20.0, 21.0])
    assert re.fullmatch(r"1v3: speedup 2\.00 \[1\.9\d, 2\.\d\d\]", title)
    assert lines == [
        "learned first: 41.0 ± 1.0 generations, n = 2",
        "learned second: 20.5 ± 0.5 generations, n = 2",
        "± standard error, [95 % confidence interval]",
    ]


def test_generations_panel_says_no_more_than_it_knows():
    title, lines = texts_of([], [20.0])
    assert title == "1v3: generations needed"
    assert lines == ["learned second: 20.0 generations, n = 1"]
    assert texts_of([3.0], [0.0])[0] == "1v3: generations needed"
    title, lines = texts_of([30.0], [20.0])
    assert title == "1v3: speedup 1.50"
    assert len(lines) == 2
    title, lines = texts_of([30.0, None], [None])
    assert title == "1v3: generations needed"
    assert lines == [
        "learned first: 30.0 generations, n = 1 of 2 converged",
        "learned second: 0 of 1 converged",
    ]


def test_generations_png_has_both_histograms(tmp_path):
    target = tmp_path / "generations.png"
    plots.plot_generations(target, repeats())
    assert list(tmp_path.iterdir()) == [target]
    with Image.open(target) as image:
        assert image.format == "PNG"
        pixels = np.array(image.convert("RGB"))
    left, right = np.array_split(pixels, 2, axis=1)
    for panel in (left, right):
        for colour in colours.TASK_COLOURS[:2]:
            assert count_colour(panel, colour) > 1000


def test_repeats_that_took_far_longer_are_named_and_do_not_press_the_others(panels_of):
    needed = [10 + seed % 7 for seed in range(40)] + [60, 70, 80, 1090]
    found = [learned("1v3", generations=generations) for generations in needed]
    (axes,) = panels_of(plots.plot_generations, found)
    assert axes.get_xlim()[1] < 45
    assert written_on(axes) == ["beyond: 60, 70, 80 and 1 more →"]
    mean = np.mean(needed)
    assert titles(axes)[1][0].startswith(f"learned first: {mean:.1f} ± ")


# Accuracies


@pytest.fixture
def panels_of(monkeypatch):
    """Draws a picture, and gives its panels instead of writing it."""
    figures = []
    monkeypatch.setattr(plots, "save_png", lambda _, figure: figures.append(figure))

    def draw(plot, results):
        plot("picture.png", results)
        return [axes for axes in figures[-1].axes if axes.axison]

    return draw


def learned(*names, **outcome):
    """A repeat of these tasks, each with that outcome."""
    return {"tasks": [{"name": name} | outcome for name in names]}


def test_accuracies_are_means_with_errors_and_a_dot_a_repeat(panels_of):
    found = [learned("1v3", "1v2", fitness=f, accuracy_test=0.5) for f in (0.9, 1.0)]
    found += [learned("1v2", "1v3", fitness=0.8, accuracy_test=0.6)]
    panel, other = panels_of(plots.plot_accuracies, found)
    key = ["learned first, n = 2", "learned second, n = 1", "mean ± standard error"]
    assert titles(panel) == ("1v3: final accuracy", key)
    names = [label.get_text() for label in panel.get_xticklabels()]
    assert names == ["training images", "held-out images"]
    errors = sorted(panel.containers, key=lambda bars: bars.lines[0].get_xdata()[0])
    means = [bars.lines[0] for bars in errors]
    assert [line.get_ydata()[0] for line in means] == pytest.approx([95, 80, 50, 60])
    one, two = colours.TASK_COLOURS[:2]
    assert [line.get_color() for line in means] == [one, two, one, two]
    (stem,) = errors[0].lines[2]
    np.testing.assert_allclose(stem.get_segments()[0][:, 1], [90, 100])
    dots = [line.get_ydata() for line in panel.lines if line.get_marker() == "."]
    assert sorted(value for values in dots for value in values) == pytest.approx(
        [50, 50, 60, 80, 90, 100]
    )
    # A picture's other panels have the same scale.
    assert panel.get_ylim() == other.get_ylim()
    values = {"95.00 ± 5.00", "50.00 ± 0.00", "80.00", "60.00"}
    assert set(written_on(panel)) == values


def test_accuracies_of_one_repeat_have_no_errors(panels_of):
    found = [learned("1v3", "1v2", fitness=0.9, accuracy_test=0.5)]
    for panel, when in zip(
        panels_of(plots.plot_accuracies, found), ("first", "second")
    ):
        assert titles(panel)[1] == [f"learned {when}, n = 1"]
        assert written_on(panel) == ["90.00", "50.00"]


def test_accuracies_say_where_held_out_images_have_selected(panels_of):
    found = learned("1v3", "1v2", fitness=0.9, accuracy_test=0.5)
    found["tasks"][1]["selected_by"] = "test"
    said = [
        [label.get_text() for label in panel.get_xticklabels()][1]
        for panel in panels_of(plots.plot_accuracies, [found])
    ]
    assert said == ["held-out images", "held-out images\n(winners selected by them)"]


# How often modules are used


@given(
    paths=arrays(int, st.tuples(*[st.integers(1, 4)] * 3), elements=st.integers(0, 5))
)
def test_module_usage_counts_the_paths(paths):
    n, layers, _ = paths.shape
    shares = plots.module_usage(paths, 6)
    assert shares.shape == (layers, 6)
    for layer, module in np.ndindex(layers, 6):
        users = sum(module in path[layer] for path in paths.tolist())
        assert shares[layer, module] == pytest.approx(users / n)


def drawn_cells(panel, layers, modules):
    """The colours of a panel's modules, float [L, M, 3]."""
    (mesh,) = panel.collections
    return np.asarray(mesh.get_array()).reshape(layers, modules, 3)


def test_usage_is_a_grid_a_task_and_place(panels_of):
    flags = {"L": 2, "M": 4, "N": 2}
    paths = [[[0, 1], [2, 2]], [[0, 3], [2, 1]]]
    found = [learned("1v3", "1v2", path=path) | {"flags": flags} for path in paths]
    found += [learned("1v2", path=paths[0]) | {"flags": flags}]
    panels = panels_of(plots.plot_usage, found)
    assert [titles(panel) for panel in panels] == [
        (
            f"{title}: use of modules",
            [f"% of best paths that use it, n = {n} (random: 50 %)"],
        )
        for title, n in [
            ("1v3, learned first", 2),
            ("1v2, learned first", 1),
            ("1v2, learned second", 2),
        ]
    ]
    percent = ["100", "50", "0", "50", "0", "50", "100", "0"]
    for place, panel in enumerate((panels[0], panels[2])):
        assert written_on(panel) == percent
        cells = drawn_cells(panel, 2, 4)
        full, pale = to_rgb(colours.task_colour(place)), to_rgb(colours.PALE)
        np.testing.assert_allclose(cells[0, 0], full)
        np.testing.assert_allclose(cells[1, 2], full)
        np.testing.assert_allclose(cells[0, 2], pale)
        np.testing.assert_allclose(cells[1, 1], np.add(full, pale) / 2)
        low, high = panel.get_ylim()
        assert low > high  # the first layer is on top
        assert panel.get_xlabel() == "module" and panel.get_ylabel() == "layer"


def test_usage_of_a_wide_grid_is_shown_by_colour_alone(panels_of):
    paths = [[[0], [90]], [[0], [5]], [[7], [6]]]
    flags = {"L": 2, "M": 100, "N": 1}
    found = [learned("1v3", path=path) | {"flags": flags} for path in paths]
    (panel,) = panels_of(plots.plot_usage, found)
    assert written_on(panel) == []
    line = "% of best paths that use it, n = 3 (random: 1 %)"
    assert titles(panel)[1] == [line, "full colour: 67 %"]
    cells = drawn_cells(panel, 2, 100)
    np.testing.assert_allclose(cells[0, 0], to_rgb(colours.task_colour(0)))


# Overlaps and retention


def recorded_repeats(*overlaps):
    tasks = [
        {
            "name": name,
            "generations": 100 + place,
            "modules_so_far": 9 + place,
            "path": [[0, 1, 2], [0, 1, 1 + place], [3, 3, 3]],
        }
        for place, name in enumerate(("1v3", "1v2"))
    ]
    result = {"tasks": tasks, "flags": {"L": 3, "M": 10, "N": 3}}
    result["retention"] = [[0.9], [0.9, 0.95]]
    return [result | {"overlap": overlap} for overlap in overlaps]


def test_overlaps_picture_says_mean_and_chance(panels_of):
    (axes,) = panels_of(plots.plot_overlaps, recorded_repeats(1, 2, 2, 3))
    assert [bar.get_height() for bar in axes.patches] == [0, 1, 2, 1, 0, 0, 0, 0, 0, 0]
    # Layers have 3 and 3 modules of 10, then 2 and 3 (the path names 1 twice), then 1 and 1.
    lines = ["mean 2.00 ± 0.41, n = 4", "random paths as wide: 1.60"]
    assert titles(axes) == ("1v3, then 1v2: overlap", lines)


def test_retention_picture_has_the_means(panels_of):
    found = recorded_repeats(1, 1)
    found[1]["retention"] = [[0.8], [0.7, 0.85]]
    (axes,) = panels_of(plots.plot_retention, found)
    texts = [text.get_text() for text in axes.texts]
    assert texts[:3] == ["85.00", "80.00", "90.00"]
    assert {"100", "101", "9", "10"} <= set(texts)
    # Five of ten points are lost of the first task: half of the way to the palest.
    full, half = (patch.get_facecolor()[:3] for patch in axes.patches[:2])
    assert full == to_rgb(colours.TASK_COLOURS[0])
    expected = style.shade(np.array([1 - 0.45 * 5 / plots.MOST_LOST]), full)[0]
    np.testing.assert_allclose(half, expected)
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "after 1v3",
        "after 1v2",
    ]


# Curves


def test_curves_picture_shows_first_and_second_in_their_colours(tmp_path):
    def task(name, level):
        steps = list(range(1, 60))
        curve = {"generation": steps, "fitness": [level] * len(steps)}
        return {"name": name, "curve": curve}

    results = [
        {"tasks": [task("one", 0.3), task("two", 0.9)]},
        {"tasks": [task("two", 0.5), task("one", 0.6)]},
    ]
    path = tmp_path / "curves.png"
    plots.plot_curves(path, results)
    pixels = np.asarray(Image.open(path).convert("RGB"))
    for place in (0, 1):
        assert count_colour(pixels, colours.task_colour(place)) > 500


def test_curves_have_a_labelled_band_within_what_can_be(panels_of):
    found = [
        learned("1v3", curve={"generation": [1, 2], "fitness": [level] * 2})
        for level in (0.2, 1.0)
    ]
    (panel,) = panels_of(plots.plot_curves, found)
    key = ["learned first, n = 2", "band: 95 % confidence interval of the mean"]
    assert titles(panel) == ("1v3: learning curve", key)
    (band,) = panel.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (0, 1)
    (line,) = panel.lines
    assert line.get_ydata() == pytest.approx([0.6, 0.6])


def test_a_single_curve_has_no_band(panels_of):
    found = [learned("1v3", curve={"generation": [1, 2], "fitness": [0.5] * 2})]
    (panel,) = panels_of(plots.plot_curves, found)
    assert titles(panel)[1] == ["learned first, n = 1"]


def test_controls_are_a_line_a_repeat_and_dashed_from_scratch(panels_of):
    curve = {"generation": [1, 2, 3], "fitness": [0.5] * 3}
    found = [
        learned("1v3", "1v2", curve=curve, generations=generations)
        | {"control": control}
        for control, generations in (("scratch", 9), ("pathnet", 3), ("pathnet", 4))
    ]
    (panel,) = panels_of(plots.plot_controls, found)
    title, key = titles(panel)
    assert title == "task 2, 1v2, after 1v3"
    assert key == [
        "from scratch, n = 1: 9 generations",
        "on the frozen path, n = 2: 4 generations",
    ]
    lines = [line for line in panel.lines if line.get_linestyle() != "None"]
    assert [line.get_linestyle() for line in lines] == ["--", "-", "-"]
    ends = [line for line in panel.lines if line.get_linestyle() == "None"]
    assert [list(line.get_xdata()) for line in ends] == [[3]] * 3


def test_controls_of_a_single_task_are_no_picture(tmp_path):
    with pytest.raises(ValueError, match="second task"):
        plots.plot_controls(tmp_path / "controls.png", [learned("1v3")])


def test_scores_are_a_line_a_repeat_and_task(panels_of):
    episodes = tables.SCORE_EPISODES

    def game(score):
        steps = [100_000, 200_000]
        return {"steps": steps, "return": [score] * 2, "episodes": [episodes] * 2}

    found = [learned("pong", "pong", curve=game(score)) for score in (3, 5)]
    (panel,) = panels_of(plots.plot_scores, found)
    key = ["learned as task 1, n = 2", "learned as task 2, n = 2"]
    assert titles(panel) == ("pong: learning curve", key)
    assert panel.get_xlabel() == "million agent steps of the task"
    one, two = colours.TASK_COLOURS[:2]
    assert [line.get_color() for line in panel.lines] == [one, one, two, two]
    assert [line.get_ydata()[-1] for line in panel.lines] == [3, 5, 3, 5]
    np.testing.assert_allclose(panel.lines[0].get_xdata(), [0.1, 0.2])


@pytest.mark.parametrize(
    "plot",
    [plots.plot_accuracies, plots.plot_curves, plots.plot_scores]
    + [plots.plot_generations, plots.plot_overlaps, plots.plot_usage]
    + [plots.plot_retention],
)
@pytest.mark.parametrize("results", [[], [{"tasks": []}]])
def test_a_picture_of_nothing_is_refused(tmp_path, plot, results):
    with pytest.raises(ValueError, match="they hold no"):
        plot(tmp_path / "picture.png", results)
    assert not list(tmp_path.iterdir())

"""What the frozen path gives when the second task has few training images.

    python benchmarks/few_examples.py --out_dir=logs/few_examples --figure=figures/few_examples.png

Held-out accuracy of second tasks with 10 to 5,000 training images, under PathNet and what
it is compared with, with presets/normalized.flags, in which what is frozen counts half,
and with all of it. A task ends when its few images are learned, or after 60 generations.
Started again, it goes on where it was stopped. Prints a Markdown table.
"""

import itertools
from functools import partial
from pathlib import Path

import repeats
from repeats import ROOT, Run

from common import commandline  # isort: skip

import numpy as np
from absl import flags
from matplotlib.figure import Figure
from scipy.special import stdtrit

from reports import tables
from reports.colours import BACKGROUND, INK, MUTED, TASK_COLOURS
from reports.style import despine, save_png

FLAGS = flags.FLAGS

PAIRS = (
    "1v3,1v2",
    "3v5,3v8",
    "4v5,4v9",
    "6v7,4v5",
    "0v1,2v3",
)  # the first three share a digit
SIZES = 10, 30, 100, 300, 1000, 5000
SEEDS = range(20)
CONTROLS = "scratch", "pathnet", "finetune", "random_frozen", "no_selection"
GENERATIONS = 60


def run(tasks: str, size: int, in_full: bool) -> Run:
    """The run of a pair of tasks, the second one with so many images.

    Under all controls with the preset; under PathNet alone if what is frozen counts in
    full.
    """
    given = (
        f"--flagfile={ROOT / 'presets' / 'normalized.flags'}",
        f"--tasks={tasks}",
        f"--train_images=all,{size}",
        f"--max_steps={GENERATIONS}",
    )
    name = f"{tasks}_images{size}"
    controls = CONTROLS
    if in_full:
        given, name, controls = (
            (*given, "--frozen_share=1"),
            f"{name}_full",
            ("pathnet",),
        )
    file = Path(FLAGS.out_dir) / f"{name}.jsonl"
    return Run(file, given, SEEDS[0], len(SEEDS), controls)


def accuracies(results: list[dict], control: str) -> np.ndarray:
    """Held-out accuracy of the second task in percent, by seed."""
    chosen = sorted(
        (result for result in results if result["control"] == control),
        key=lambda result: result["seed"],
    )
    return np.array([100 * result["tasks"][1]["accuracy_test"] for result in chosen])


def print_table(learned: dict) -> None:
    """Prints a row for each pair and size, and what PathNet gains on scratch."""
    heads = "".join(f" `{control}` |" for control in CONTROLS)
    print(
        f"| first, second | images |{heads} `pathnet` - `scratch` [95 %] | `pathnet`, "
        "`--frozen_share=1` | less `scratch` [95 %] |"
    )
    print("| --- " * (5 + len(CONTROLS)) + "|")
    for tasks, size in itertools.product(PAIRS, SIZES):
        of_control = {c: accuracies(learned[tasks, size, False], c) for c in CONTROLS}
        in_full = accuracies(learned[tasks, size, True], "pathnet")
        scratch = of_control["scratch"]
        cells = [
            *map(_mean, of_control.values()),
            _gain(of_control["pathnet"] - scratch),
            _mean(in_full),
            _gain(in_full - scratch),
        ]
        print(f"| {tasks.replace(',', ', ')} | {size:,} | {' | '.join(cells)} |")


def _mean(values):
    return "{:.1f} ± {:.1f}".format(*tables.mean_and_error(values))


def _gain(values):
    mean, margin = values.mean(), _margin(values)
    return f"{mean:+.1f} [{mean - margin:+.1f}, {mean + margin:+.1f}]"


def _margin(values):
    """Half of the 95 % confidence interval of the mean, by Student's t."""
    n = len(values)
    return stdtrit(n - 1, 0.975) * np.std(values, ddof=1) / np.sqrt(n)


def draw(filename: str, learned: dict) -> None:
    """Held-out accuracy against the number of images, a panel a pair of tasks."""
    figure = Figure(figsize=(13, 7.2), facecolor=BACKGROUND, layout="constrained")
    grid = figure.subplots(2, 3, sharex=True).ravel()
    for axes, tasks in zip(grid, PAIRS):
        for control, colour in zip(CONTROLS, (MUTED, *TASK_COLOURS)):
            values = [accuracies(learned[tasks, n, False], control) for n in SIZES]
            mean = np.mean(values, axis=1)
            margin = np.array([_margin(v) for v in values])
            axes.fill_between(
                SIZES, mean - margin, mean + margin, color=colour, alpha=0.2, lw=0
            )
            axes.plot(
                SIZES, mean, color=colour, lw=1.8, marker="o", ms=3, label=control
            )
        first, second = tasks.split(",")
        axes.set_title(f"{second} after {first}", loc="left", color=INK, weight="bold")
        axes.set_xscale("log")
        axes.tick_params(labelbottom=True)
        axes.set_xlabel("training images", color=INK)
        axes.set_ylabel("held-out accuracy, %", color=INK)
        despine(axes)
    grid[-1].set_axis_off()
    grid[-1].legend(
        *grid[0].get_legend_handles_labels(),
        frameon=False,
        labelcolor=MUTED,
        loc="center",
        title="band: 95 % confidence",
    )
    save_png(filename, figure)


def main():
    settings = list(itertools.product(PAIRS, SIZES, (False, True)))
    learned = dict(zip(settings, repeats.learn(run(*one) for one in settings)))
    print_table(learned)
    if FLAGS.figure is not None:
        draw(FLAGS.figure, learned)


if __name__ == "__main__":
    commandline.run(main, partial(repeats.define_flags, "accuracy against images"))

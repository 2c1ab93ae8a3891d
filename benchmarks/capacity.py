"""How many tasks a grid has room for: forty tasks in sequence, at several M.

    python benchmarks/capacity.py --out_dir=logs/capacity --figure=figures/capacity.png

Pairs of digits, drawn without repetition, without noise, under presets/normalized.flags.
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

from reports import tables
from reports.colours import BACKGROUND, INK, MUTED, TASK_COLOURS
from reports.style import despine, save_png

FLAGS = flags.FLAGS

TASKS = 40
MODULES = 10, 20, 50, 100, 200
SEEDS = range(3)
GENERATIONS = 300


def sequence(seed: int) -> str:
    """Forty of the 45 pairs of digits, in an order that the seed draws."""
    pairs = [f"{a}v{b}" for a, b in itertools.combinations(range(10), 2)]
    return ",".join(np.random.default_rng(seed).permutation(pairs)[:TASKS])


def run(M: int, seed: int) -> Run:
    """The run of a sequence at an M."""
    given = (
        f"--flagfile={ROOT / 'presets' / 'normalized.flags'}",
        f"--M={M}",
        f"--tasks={sequence(seed)}",
        "--noise=none",
        f"--max_steps={GENERATIONS}",
    )
    return Run(Path(FLAGS.out_dir) / f"M{M}_seed{seed}.jsonl", given, seed)


def print_table(learned: dict) -> None:
    """Prints, by M, how ten tasks at a time went, and what is remembered at the end."""
    parts = [range(start, start + 10) for start in range(0, TASKS, 10)]
    heads = [f"tasks {part[0] + 1} to {part[-1] + 1}" for part in parts]
    print(f"| M | {' | '.join(heads)} | modules used | ACC % | BWT |")
    print("| --- " * (4 + len(parts)) + "|")
    for M in MODULES:
        results = [learned[M, seed] for seed in SEEDS]
        cells = []
        for part in parts:
            tasks = [result["tasks"][place] for result in results for place in part]
            held_out = np.mean([100 * task["accuracy_test"] for task in tasks])
            generations = np.mean([task["generations"] for task in tasks])
            done = sum(task["converged"] for task in tasks)
            text = f"{held_out:.2f} % in {generations:.0f} generations"
            cells.append(
                text
                + f", {len(tasks) - done} of {len(tasks)} not converged"
                * (done < len(tasks))
            )
        used = np.mean([result["tasks"][-1]["modules_so_far"] for result in results])
        of_grid = results[0]["flags"]["L"] * M
        acc = tables.mean_and_error(
            [100 * result["average_accuracy"] for result in results]
        )
        bwt = np.mean([100 * result["backward_transfer"] for result in results])
        print(
            f"| {M} | {' | '.join(cells)} | {used:.0f} of {of_grid} | "
            f"{acc[0]:.2f} ± {acc[1]:.2f} | {bwt:.2f} |"
        )


def draw(filename: str, learned: dict) -> None:
    """Held-out accuracy and generations by the number of the task, a line an M."""
    figure = Figure(figsize=(11, 4.4), facecolor=BACKGROUND, layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    numbers = np.arange(1, TASKS + 1)
    for M, colour in zip(MODULES, TASK_COLOURS):
        tasks = [learned[M, seed]["tasks"] for seed in SEEDS]
        for axes, field, scale in (
            (left, "accuracy_test", 100),
            (right, "generations", 1),
        ):
            values = [[scale * task[field] for task in row] for row in tasks]
            axes.plot(
                numbers, np.mean(values, 0), color=colour, lw=1.6, label=f"M = {M}"
            )
    left.set_ylabel("held-out accuracy when learned, %", color=INK)
    right.set_ylabel("generations", color=INK)
    right.set_yscale("log")
    for axes in (left, right):
        axes.set_xlabel("number of the task", color=INK)
        despine(axes)
    figure.legend(
        *left.get_legend_handles_labels(),
        frameon=False,
        labelcolor=MUTED,
        ncols=len(MODULES),
        loc="outside lower center",
    )
    save_png(filename, figure)


def main():
    settings = list(itertools.product(MODULES, SEEDS))
    found = repeats.learn(run(*one) for one in settings)
    learned = {setting: result for setting, (result,) in zip(settings, found)}
    print_table(learned)
    if FLAGS.figure is not None:
        draw(FLAGS.figure, learned)


if __name__ == "__main__":
    commandline.run(main, partial(repeats.define_flags, "accuracy and generations"))

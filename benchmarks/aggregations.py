"""What the published speedup is made of: three aggregations, each at its best rate.

    python benchmarks/aggregations.py --out_dir=logs/aggregations --figure=figures/aggregations.png

For each aggregation and number of modules, the learning rate at which 1v3 is learned in
the fewest generations is searched with a few seeds; at that rate the second tasks of the
four published pairs are learned with PathNet and from scratch, with twenty others.
Started again, it goes on where it was stopped. Prints a Markdown table.
"""

from pathlib import Path

import repeats
from repeats import Run

from common import commandline  # isort: skip

import numpy as np
from absl import flags
from matplotlib.figure import Figure

from reports import tables
from reports.colours import BACKGROUND, INK, MUTED, task_colour
from reports.style import despine, save_png

FLAGS = flags.FLAGS

PAIRS = "1v3,1v2", "1v2,1v3", "6v7,4v5", "4v5,6v7"  # second tasks 1v2, 1v3, 4v5, 6v7
MODULES = 10, 20, 50
# Four rates a factor of 2 apart each, to begin with; the search goes on at an end where
# the best one is the last one.
RATES = {
    "average": [0.05, 0.1, 0.2, 0.4],
    "last_average": [0.025, 0.05, 0.1, 0.2],
    "sum": [0.0025, 0.005, 0.01, 0.02],
}
MOST_GENERATIONS = 3_000
SEARCHED = range(100, 105)  # seeds that the rate is searched with
MEASURED = range(20)  # seeds of the table
CONTROLS = "scratch", "pathnet"
SHOWN = "1v3,1v2"  # pair of the figure
SHOWN_GENERATIONS = 350


def run(
    aggregation: str, M: int, rate: float, tasks: str, seeds: range, *controls: str
) -> Run:
    """The run of one setting."""
    given = (
        f"--aggregation={aggregation}",
        f"--M={M}",
        f"--learning_rate={rate:.6g}",
        f"--tasks={tasks}",
        f"--max_steps={MOST_GENERATIONS}",
    )
    name = f"{aggregation}_M{M}_rate{rate:.6g}_{tasks}_seed{seeds[0]}.jsonl"
    return Run(Path(FLAGS.out_dir) / name, given, seeds[0], len(seeds), controls)


def best_rate(aggregation: str, M: int) -> tuple[float, dict[float, float]]:
    """The rate with the fewest generations, and the mean of each that was tried."""
    means, rates = {}, list(RATES[aggregation])
    while rates:
        learned = repeats.learn(
            run(aggregation, M, rate, "1v3", SEARCHED, "pathnet") for rate in rates
        )
        means |= dict(zip(rates, map(_mean, learned)))
        best, tried = min(means, key=means.get), sorted(means)
        rates = {tried[0]: [best / 2], tried[-1]: [2 * best]}.get(best, [])
    return best, means


def _mean(learned):
    """Mean generations of the first task, capped ones included; infinite if it diverged."""
    if learned is None:
        return np.inf
    return np.mean([result["tasks"][0]["generations"] for result in learned])


def measure() -> dict[tuple[str, int], tuple[float, dict[str, list]]]:
    """Of each aggregation and M the best rate, and the results of each pair of tasks."""
    found = {}
    for aggregation in RATES:
        for M in MODULES:
            rate, means = best_rate(aggregation, M)
            tried = ", ".join(f"{r:g}: {means[r]:.0f}" for r in sorted(means))
            print(f"{aggregation}, M = {M}: generations by rate: {tried}", flush=True)
            learned = repeats.learn(
                run(aggregation, M, rate, tasks, MEASURED, *CONTROLS) for tasks in PAIRS
            )
            found[aggregation, M] = rate, dict(zip(PAIRS, learned))
    return found


def print_table(found: dict) -> None:
    """Prints a row for each aggregation and M: generations of each second task."""
    heads = [f"{pair.split(',')[1]} after {pair.split(',')[0]}" for pair in PAIRS]
    print(f"\n| aggregation | M | rate | {' | '.join(heads)} |")
    print("| --- " * (3 + len(PAIRS)) + "|")
    for (aggregation, M), (rate, of_pairs) in found.items():
        cells = " | ".join(map(_cell, of_pairs.values()))
        print(f"| `{aggregation}` | {M} | {rate:g} | {cells} |")


def _cell(learned):
    """Generations with PathNet and from scratch, and the speedup."""
    if learned is None:
        return "diverged"
    of_control = {
        control: [
            tables.generations_needed(result["tasks"][1])
            for result in sorted(learned, key=lambda r: r["seed"])
            if result["control"] == control
        ]
        for control in CONTROLS
    }
    texts = []
    for control in ("pathnet", "scratch"):
        done = tables.not_none(of_control[control])
        text = f"{tables.mean_and_error(done)[0]:.0f}" if done else "none"
        if len(done) < len(MEASURED):
            text += f" ({len(done)} of {len(MEASURED)} converged)"
        texts.append(text)
    ratio = tables.speedup_text(of_control["scratch"], of_control["pathnet"], True)
    return f"{' / '.join(texts)}: {ratio}"


def draw(filename: str, found: dict) -> None:
    """Mean learning curves of one second task, a panel for each aggregation and M."""
    figure = Figure(figsize=(10.5, 8.4), facecolor=BACKGROUND, layout="constrained")
    grid = figure.subplots(len(MODULES), len(RATES), sharex=True, sharey=True)
    lines = {
        "scratch": {"label": "from scratch", "color": MUTED, "ls": "--"},
        "pathnet": {"label": "on the frozen path", "color": task_colour(1)},
    }
    for ((aggregation, M), (rate, of_pairs)), axes in zip(
        found.items(), np.transpose(grid).ravel()
    ):
        for control in CONTROLS:
            curves = [
                result["tasks"][1]["curve"]
                for result in of_pairs[SHOWN] or []
                if result["control"] == control
            ]
            if curves:
                steps, mean, margin = tables.mean_curve(curves)
                line = lines[control]
                low, high = np.clip([mean - margin, mean + margin], 0, 1)
                axes.fill_between(
                    steps, low, high, color=line["color"], alpha=0.25, lw=0
                )
                axes.plot(steps, mean, lw=1.8, **line)
        axes.set_title(
            f"{aggregation}, M = {M}, rate {rate:g}", loc="left", color=INK, fontsize=10
        )
        axes.set_xlim(0, SHOWN_GENERATIONS)
        axes.set_ylim(0.45, 1.01)
        despine(axes)
    for axes in grid[:, 0]:
        axes.set_ylabel("training accuracy", color=INK)
    for axes in grid[-1]:
        axes.set_xlabel("generation", color=INK)
    grid[0, 0].legend(frameon=False, labelcolor=MUTED, fontsize=9, loc="lower right")
    save_png(filename, figure)


def define_flags():
    with commandline.flag_group("Experiment", commandline.PLACE):
        flags.DEFINE_string("out_dir", None, "Folder of the results.", required=True)
        flags.DEFINE_string("figure", None, "Picture of the learning curves.")


def main():
    found = measure()
    print_table(found)
    if FLAGS.figure is not None:
        draw(FLAGS.figure, found)


if __name__ == "__main__":
    commandline.run(main, define_flags)

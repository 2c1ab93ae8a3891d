"""What the published speedup is made of: three aggregations, each at its best rates.

    python benchmarks/aggregations.py --out_dir=logs/aggregations --figure=figures/aggregations.png

For each aggregation and number of modules, and for PathNet and learning from scratch by
themselves, the learning rate at which 1v2 after 1v3 is learned in the fewest generations
is searched with a few seeds. At these rates the second tasks of the four published pairs
are learned, with twenty others. Where one of these diverges, all of them are learned
again at half the rate. Started again, it goes on where it was stopped. Prints a Markdown
table.
"""

from functools import partial
from pathlib import Path
from typing import NamedTuple

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


class Way(NamedTuple):
    """A way to learn.

    Attributes:
      title: for people. aggregation: of the grid.
      rates: to begin with, four of them a factor of 2 apart; the search goes on at an end
        where the best one is the last one. A single one is not searched.
      modules: M of the grids that it is measured with.
    """

    title: str
    aggregation: str
    rates: tuple[float, ...]
    modules: tuple[int, ...] = MODULES


WAYS = (
    Way("average, published rate", "average", (0.05,), (10,)),
    Way("average", "average", (0.4, 0.8, 1.6, 3.2)),
    Way("last_average", "last_average", (0.025, 0.05, 0.1, 0.2)),
    Way("sum", "sum", (0.0025, 0.005, 0.01, 0.02)),
)
MOST_GENERATIONS = 1_000
SEARCHED = range(100, 105)  # seeds that the rate is searched with
MEASURED = range(20)  # seeds of the table
CONTROLS = "pathnet", "scratch"
SHOWN = "1v3,1v2"  # pair of the figure
SHOWN_GENERATIONS = 250


class Setting(NamedTuple):
    """A way to learn, in a grid of M modules a layer, and who learns."""

    way: Way
    M: int
    control: str


class Measured(NamedTuple):
    """What a Setting comes to: its best rate, and the repeats of each pair of tasks."""

    rate: float
    of_pairs: dict[str, list[dict]]


def run(setting: Setting, rate: float, tasks: str, seeds: range) -> Run:
    """The run of a setting at a learning rate."""
    given = (
        f"--aggregation={setting.way.aggregation}",
        f"--M={setting.M}",
        f"--learning_rate={rate:.6g}",
        f"--tasks={tasks}",
        f"--max_steps={MOST_GENERATIONS}",
    )
    name = f"{setting.way.aggregation}_M{setting.M}_{setting.control}_rate{rate:.6g}"
    file = Path(FLAGS.out_dir) / f"{name}_{tasks}_seed{seeds[0]}.jsonl"
    return Run(file, given, seeds[0], len(seeds), (setting.control,))


def best_rate(setting: Setting) -> float:
    """The rate with the fewest generations; prints the mean of each that was tried."""
    means, rates = {}, setting.way.rates
    if len(rates) == 1:
        return rates[0]
    while rates:
        learned = repeats.learn(run(setting, rate, SHOWN, SEARCHED) for rate in rates)
        means |= dict(zip(rates, map(_mean, learned)))
        best, tried = min(means, key=means.get), sorted(means)
        rates = {tried[0]: [best / 2], tried[-1]: [2 * best]}.get(best, [])
    tried = ", ".join(f"{rate:g}: {means[rate]:.0f}" for rate in sorted(means))
    print(
        f"{setting.way.title}, M = {setting.M}, {setting.control}: generations by rate: "
        + tried,
        flush=True,
    )
    return best


def _mean(learned):
    """Mean generations of second tasks, capped ones included; infinite if one diverged."""
    if learned is None:
        return np.inf
    return np.mean([result["tasks"][1]["generations"] for result in learned])


def measure(setting: Setting) -> Measured:
    """Learns all pairs at the best rate at which none of them diverges."""
    rate = best_rate(setting)
    while True:
        learned = repeats.learn(run(setting, rate, tasks, MEASURED) for tasks in PAIRS)
        if None not in learned:
            return Measured(rate, dict(zip(PAIRS, learned)))
        rate /= 2


def print_table(found: dict[Setting, Measured]) -> None:
    """Prints a row for each aggregation and M: generations of each second task."""
    heads = [f"{pair.split(',')[1]} after {pair.split(',')[0]}" for pair in PAIRS]
    print(f"\n| aggregation | M | rates | {' | '.join(heads)} |")
    print("| --- " * (3 + len(PAIRS)) + "|")
    for way, M in _grids():
        pathnet, scratch = (found[way, M, control] for control in CONTROLS)
        rates = f"{pathnet.rate:g} / {scratch.rate:g}"
        cells = [
            _cell(*map(_generations, (pathnet.of_pairs[pair], scratch.of_pairs[pair])))
            for pair in PAIRS
        ]
        print(f"| {way.title} | {M} | {rates} | {' | '.join(cells)} |")


def _grids():
    """Each way with each number of modules that it is measured with."""
    return [(way, M) for way in WAYS for M in way.modules]


def _generations(learned):
    """Of the second task, by seed; None where it did not converge."""
    chosen = sorted(learned, key=lambda result: result["seed"])
    return [tables.generations_needed(result["tasks"][1]) for result in chosen]


def _cell(pathnet, scratch):
    """Generations with PathNet and from scratch, and the speedup."""
    texts = []
    for generations in (pathnet, scratch):
        done = tables.not_none(generations)
        text = f"{np.mean(done):.0f}" if done else "none"
        if len(done) < len(generations):
            text += f" ({len(done)} of {len(generations)} converged)"
        texts.append(text)
    return f"{' / '.join(texts)}: {tables.speedup_text(scratch, pathnet, True)}"


def draw(filename: str, found: dict[Setting, Measured]) -> None:
    """Mean learning curves of one second task, a panel for each way and M."""
    figure = Figure(figsize=(13, 8.4), facecolor=BACKGROUND, layout="constrained")
    grid = figure.subplots(len(MODULES), len(WAYS), sharex=True, sharey=True)
    for axes in grid.ravel():
        axes.set_axis_off()
    lines = {
        "scratch": {"label": "from scratch", "color": MUTED, "ls": "--"},
        "pathnet": {"label": "on the frozen path", "color": task_colour(1)},
    }
    for way, M in _grids():
        axes = grid[MODULES.index(M), WAYS.index(way)]
        axes.set_axis_on()
        for control, line in lines.items():
            learned = found[way, M, control].of_pairs[SHOWN]
            curves = [result["tasks"][1]["curve"] for result in learned]
            steps, mean, margin = tables.mean_curve(curves)
            low, high = np.clip([mean - margin, mean + margin], 0, 1)
            axes.fill_between(steps, low, high, color=line["color"], alpha=0.25, lw=0)
            axes.plot(steps, mean, lw=1.8, **line)
        axes.set_title(f"{way.title}, M = {M}", loc="left", color=INK, fontsize=10)
        axes.set_xlim(0, SHOWN_GENERATIONS)
        axes.set_ylim(0.45, 1.01)
        axes.tick_params(labelbottom=True, labelleft=True)
        axes.set_xlabel("generation", color=INK)
        despine(axes)
    first = grid[0, 0]
    first.set_ylabel("training accuracy", color=INK)
    first.legend(frameon=False, labelcolor=MUTED, fontsize=9, loc="lower right")
    save_png(filename, figure)


def main():
    settings = [Setting(*grid, control) for grid in _grids() for control in CONTROLS]
    found = {setting: measure(setting) for setting in settings}
    print_table(found)
    if FLAGS.figure is not None:
        draw(FLAGS.figure, found)


if __name__ == "__main__":
    commandline.run(main, partial(repeats.define_flags, "the learning curves"))

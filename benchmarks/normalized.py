"""Normalized layers: whether generations depend on M, and what being second gives.

    python benchmarks/normalized.py --out_dir=logs/normalized     # ten minutes on 2 cores

The four published pairs of tasks under presets/normalized.flags, at several M, each
second task also under the controls. Started again, it goes on where it was
stopped. Prints Markdown tables.
"""

from pathlib import Path

import repeats
from repeats import ROOT, Run

from common import commandline  # isort: skip

from absl import flags

from reports import tables

FLAGS = flags.FLAGS

MODULES = 10, 20, 50, 200
COMPARED = 10, 20  # at which second tasks are, too: the published one, the preset's
SEEDS = range(20)
CONTROLS = "scratch", "pathnet", "finetune", "random_frozen", "no_selection"
# Tasks -> generations of the first and of the second one, as published.
PAIRS = {
    "1v3,1v2": (169.25, 119.32),
    "1v2,1v3": (197.60, 83.64),
    "4v5,6v7": (271.68, 56.91),
    "6v7,4v5": (94.69, 150.31),
}


def run(M: int, tasks: str) -> Run:
    """The run of a pair of tasks at an M."""
    given = (
        f"--flagfile={ROOT / 'presets' / 'normalized.flags'}",
        f"--M={M}",
        f"--tasks={tasks}",
    )
    file = Path(FLAGS.out_dir) / f"M{M}_{tasks}.jsonl"
    controls = CONTROLS if M in COMPARED else ("pathnet",)
    return Run(file, given, SEEDS[0], len(SEEDS), controls)


def print_first(learned: dict) -> None:
    """Prints the generations of first tasks by M."""
    print(f"| first task | published | {' | '.join(f'M = {M}' for M in MODULES)} |")
    print("| --- | --- |" + " --- |" * len(MODULES))
    for tasks, (published, _) in PAIRS.items():
        means = [
            _mean(
                result["tasks"][0]["generations"] for result in _of(learned[M, tasks])
            )
            for M in MODULES
        ]
        print(f"| {tasks.split(',')[0]} | {published:.0f} | {' | '.join(means)} |")


def print_second(learned: dict, M: int) -> None:
    """Prints what the second tasks took under each control, and their accuracy."""
    print(
        f"\nM = {M}:\n\n| second task | published | {' | '.join(CONTROLS)} | speedup of "
        "pathnet | speedup of finetune in mini-batches | held-out % | \n"
        + "| --- " * (6 + len(CONTROLS))
        + "|"
    )
    for tasks, (_, published) in PAIRS.items():
        first, second = tasks.split(",")
        of_control = {c: _of(learned[M, tasks], c) for c in CONTROLS}
        generations = {
            c: [tables.generations_needed(r["tasks"][1]) for r in results]
            for c, results in of_control.items()
        }
        trained = {
            c: [tables.minibatches(r, 1) for r in results]
            for c, results in of_control.items()
        }
        cells = [
            f"{second} after {first}",
            f"{published:.0f}",
            *(_mean(generations[c]) for c in CONTROLS),
            tables.speedup_text(generations["scratch"], generations["pathnet"], True),
            tables.speedup_text(trained["scratch"], trained["finetune"], True),
            ", ".join(
                _mean((100 * r["tasks"][1]["accuracy_test"] for r in of_control[c]), 2)
                for c in CONTROLS
            ),
        ]
        print(f"| {' | '.join(cells)} |")


def _of(results, control="pathnet"):
    chosen = [result for result in results if result["control"] == control]
    return sorted(chosen, key=lambda result: result["seed"])


def _mean(values, digits=1):
    mean, error = tables.mean_and_error(list(values))
    return f"{mean:.{digits}f} ± {error:.{digits}f}"


def main():
    settings = [(M, tasks) for M in MODULES for tasks in PAIRS]
    learned = dict(zip(settings, repeats.learn(run(*one) for one in settings)))
    print_first(learned)
    for M in COMPARED:
        print_second(learned, M)


if __name__ == "__main__":
    commandline.run(main, repeats.define_flags)

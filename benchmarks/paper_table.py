"""The paper's binary MNIST table, predicted from one fitted number: the learning rate.

    python benchmarks/paper_table.py --out_dir=logs/paper_table     # half an hour on 2 cores

Fernando et al. 2017, section 3.1, give mean generations over random pairs of pairs of
digits: 195 from scratch, 167 with PathNet, 229 fine-tuned. With the paper's learning rate
nothing is learned here. So the rate is fitted, under presets/paper.flags, until learning
from scratch takes 195 generations on the mean; with nothing else changed the other two
figures are then predicted, on other pairs. Started again, it goes on where it was stopped.
Prints Markdown tables.
"""

from pathlib import Path

import repeats
from repeats import ROOT, Run

from common import commandline  # isort: skip

import numpy as np
from absl import flags
from scipy.stats import bootstrap

from reports import tables

FLAGS = flags.FLAGS

PUBLISHED = {"scratch": 195, "pathnet": 167, "finetune": 229}
RATES = 0.02, 0.04, 0.06, 0.08, 0.12
# Pairs of pairs that the rate is fitted on, and others that the table is predicted for. The
# number of one is its seed.
FITTED = range(20)
PREDICTED = range(20, 80)
CONTROLS = "scratch", "pathnet", "finetune", "fixed_size"


def pair_of_pairs(number: int) -> str:
    """Two tasks, drawn at random: two different pairs of two different digits."""
    rng = np.random.default_rng(number)
    while True:
        first, second = (sorted(rng.choice(10, 2, replace=False)) for _ in range(2))
        if first != second:
            return f"{first[0]}v{first[1]},{second[0]}v{second[1]}"


def run(number: int, rate: float, *controls: str) -> Run:
    """The run of a pair of pairs, at a learning rate."""
    given = (
        f"--flagfile={ROOT / 'presets' / 'paper.flags'}",
        f"--tasks={pair_of_pairs(number)}",
        f"--learning_rate={rate:.6g}",
    )
    name = f"{'_'.join(controls)}_rate{rate:.6g}_pair{number}.jsonl"
    return Run(Path(FLAGS.out_dir) / name, given, number, 1, controls)


def fit() -> float:
    """The rate at which learning from scratch takes as long as published."""
    print(
        "| learning rate | generations from scratch | converged |\n| --- | --- | --- |"
    )
    means = []
    for rate in RATES:
        learned = repeats.learn(run(number, rate, "scratch") for number in FITTED)
        tasks = [task for (result,) in learned for task in result["tasks"]]
        generations = [task["generations"] for task in tasks]
        mean, error = tables.mean_and_error(generations)
        done = sum(tables.generations_needed(task) is not None for task in tasks)
        print(
            f"| {rate} | {mean:.1f} ± {error:.1f} | {done} of {len(tasks)} |",
            flush=True,
        )
        means.append(mean)
    # Between two rates generations are nearly a power of the rate.
    at = np.log(PUBLISHED["scratch"])
    order = np.argsort(means)
    return float(np.exp(np.interp(at, np.log(means)[order], np.log(RATES)[order])))


def predict(rate: float) -> None:
    """Prints the table that follows from the rate, beside the published one."""
    learned = repeats.learn(run(number, rate, *CONTROLS) for number in PREDICTED)
    second = {control: [] for control in CONTROLS}
    trained = {control: [] for control in CONTROLS}
    converged = dict.fromkeys(CONTROLS, 0)
    for results in learned:
        for result in results:
            control, task = result["control"], result["tasks"][1]
            second[control].append(task["generations"])
            a_generation = tables.minibatches_a_generation(result, 1)
            trained[control].append(task["generations"] * a_generation)
            converged[control] += tables.generations_needed(task) is not None
    print(
        f"\nlearning rate {rate:.4f}, second task of {len(learned)} other pairs of pairs; "
        "speedups are against scratch\n\n"
        "| | published | generations | converged | published speedup | speedup | "
        "in mini-batches |\n| --- | --- | --- | --- | --- | --- | --- |"
    )
    for control in CONTROLS:
        mean, error = tables.mean_and_error(second[control])
        published = PUBLISHED.get(control)
        of_paper = f"{PUBLISHED['scratch'] / published:.2f}" if published else ""
        print(
            f"| `{control}` | {published or ''} | {mean:.1f} ± {error:.1f} "
            f"{_interval(second[control])} | {converged[control]} of {len(learned)} "
            f"| {of_paper} | {_speedup(second, control)} | {_speedup(trained, control)} |"
        )


def _interval(values):
    """A 95 % bootstrap interval of the mean."""
    rng = np.random.default_rng(0)
    found = bootstrap((values,), np.mean, method="percentile", rng=rng)
    return "[{:.0f}, {:.0f}]".format(*found.confidence_interval)


def _speedup(values, control):
    if control == "scratch":
        return "1"
    return tables.speedup_text(values["scratch"], values[control], paired=True)


def main():
    predict(fit())


if __name__ == "__main__":
    commandline.run(main, repeats.define_flags)

"""CIFAR-10 and SVHN: PathNet learns photographs, then house numbers, or the reverse.

    python cifar_svhn_pathnet.py                       # CIFAR-10, then SVHN
    python cifar_svhn_pathnet.py --cifar_first=0       # SVHN, then CIFAR-10
    python cifar_svhn_pathnet.py --data_dir=DIR        # files in DIR, no download
    python cifar_svhn_pathnet.py --tasks=cifar10,svhn,cifar10    # any number of tasks
    python cifar_svhn_pathnet.py --resume=logs/RUN     # after an interruption

Paths through the grid compete in tournaments for 500 generations. The last winner's path
is frozen, everything else starts again, and the second task is learned on top of it. The
last line, CIFAR10_SVHN,TASK1:0.3575,TASK2:0.5075,Done, has the training accuracy of the
last winner of each task.
"""

from absl import flags

from common import commandline
from supervised import datasets, experiment

FLAGS = flags.FLAGS

TITLES = {"cifar10": "CIFAR-10", "svhn": "SVHN"}

flags.DEFINE_bool("cifar_first", True, "Whether CIFAR-10 is task 1, or SVHN.")
flags.DEFINE_list(
    "tasks", None, "Data sets, such as cifar10,svhn,cifar10, in place of cifar_first."
)
flags.register_validator(
    "tasks",
    lambda v: v is None or (v and set(v) <= TITLES.keys()),
    f"must be a list of {' and '.join(TITLES)}",
)
# The published settings, [0, 1] and 0.2, leave SVHN at chance: see the README.
experiment.define_flags(
    M=20,
    N=5,
    centred=True,
    learning_rate=0.4,
    writeback="merge",
    max_steps=500,
    stop_accuracy=1.0,
)


def load(name):
    """A data set by name, or a generated one in its place."""
    if FLAGS.fake_data:
        rng = experiment.random_stream(FLAGS.seed, experiment.FAKE_DATA, len(name))
        return datasets.fake(32 * 32 * 3, 10, 10_000, 1_000, rng)
    loaders = {"cifar10": datasets.load_cifar10, "svhn": datasets.load_svhn}
    return loaders[name](FLAGS.data_dir)


def main():
    network = experiment.load_network("cifar_svhn", TITLES.__contains__)
    order = ("cifar10", "svhn") if FLAGS.cifar_first else ("svhn", "cifar10")
    names = experiment.task_names(network, FLAGS.tasks or order)
    data = {name: load(name) for name in dict.fromkeys(names)}
    images = min(len(dataset.train.labels) for dataset in data.values())

    run = experiment.Experiment("cifar_svhn", 32 * 32 * 3, 10, names, images, network)
    for repeat in run.repeats():
        for name in names:
            # Tournaments between paths, for max_steps generations.
            repeat.learn(
                experiment.Task(name, TITLES[name], data[name].train, data[name].test)
            )
            # The last winner's path is frozen and stays active; all else starts again.
            repeat.freeze()
        tasks = [
            f"TASK{number}:{outcome.last.best_fitness:.4f}"
            for number, outcome in enumerate(repeat.outcomes, 1)
        ]
        repeat.finish(f"{'_'.join(names).upper()},{','.join(tasks)},Done")


if __name__ == "__main__":
    commandline.run(main)

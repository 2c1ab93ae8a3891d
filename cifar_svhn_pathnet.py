"""CIFAR-10 and SVHN: PathNet learns photographs, then house numbers, or the reverse.

    python cifar_svhn_pathnet.py                       # CIFAR-10, then SVHN
    python cifar_svhn_pathnet.py --cifar_first=0       # SVHN, then CIFAR-10
    python cifar_svhn_pathnet.py --data_dir=DIR        # files in DIR, no download
    python cifar_svhn_pathnet.py --tasks=cifar10,svhn,cifar10    # any number of tasks
    python cifar_svhn_pathnet.py --resume=logs/RUN     # after an interruption

Paths through the grid compete in tournaments for 500 generations. The last winner's path
is frozen, everything else is re-initialized, and the second task is learned on top of it.
The last line, CIFAR10_SVHN,TASK1:0.3575,TASK2:0.5075,Done, has the training accuracy of
the last winner of each task.
"""

from common import commandline  # before all else: Ctrl-C is one line from here on

# isort: split
from supervised import datasets
from supervised.experiment import Experiment
from supervised.settings import (
    CIFAR_SVHN_TITLES,
    Settings,
    define_cifar_svhn_flags,
    of_task,
    read_cifar_svhn,
)
from supervised.streams import FAKE_DATA, TRAIN_IMAGES, random_stream
from supervised.tournaments import Task


def load(name: str, settings: Settings) -> datasets.Dataset:
    """A data set by name, or a generated one in its place."""
    if settings.fake_data:
        rng = random_stream(0, FAKE_DATA, len(name))  # the same data for all seeds
        return datasets.fake(32 * 32 * 3, 10, 10_000, 1_000, rng)
    loaders = {"cifar10": datasets.load_cifar10, "svhn": datasets.load_svhn}
    return loaders[name](settings.data_dirs[name])


def main() -> None:
    """Learns the tasks in sequence, as often as the flags say."""
    settings = read_cifar_svhn()
    loaded = {name: load(name, settings) for name in dict.fromkeys(settings.tasks)}
    data = {name: datasets.describe(dataset) for name, dataset in loaded.items()}
    classes = [10] * len(settings.tasks)
    experiment = Experiment(settings, 32 * 32 * 3, classes, data)
    for repeat in experiment.repeats():  # a seed each, under each control
        for number, name in enumerate(settings.tasks):
            train = datasets.few(
                loaded[name].train,
                of_task(settings.train_images, number),
                random_stream(repeat.seed, TRAIN_IMAGES, number),
            )
            task = Task(name, CIFAR_SVHN_TITLES[name], train, loaded[name].test)
            for tournament in repeat.tournaments(task):  # max_steps of them
                paths = tournament.draw()  # B candidates of the population
                fitness = tournament.train(paths)  # alike, on the same mini-batches
                tournament.overwrite_losers(fitness)  # by mutated copies of the winner
            repeat.freeze()  # the last winner's path; everything else is re-initialized
        accuracies = [outcome.last.best_fitness for outcome in repeat.outcomes]
        ends = [f"TASK{number}:{a:.4f}" for number, a in enumerate(accuracies, 1)]
        repeat.finish(f"{'_'.join(settings.tasks).upper()},{','.join(ends)},Done")


if __name__ == "__main__":
    commandline.run(main, define_cifar_svhn_flags)

"""Binary MNIST: PathNet learns to tell two digits apart, then two other digits.

    python binary_mnist_pathnet.py                                    # 1v3, then 1v2
    python binary_mnist_pathnet.py --a1=4 --a2=5 --b1=6 --b2=7 --seed=7
    python binary_mnist_pathnet.py --runs=30 --record=results         # 30 repeats
    python binary_mnist_pathnet.py --tasks=1v3,1v2,4v5,6v7            # any number of tasks
    python binary_mnist_pathnet.py --runs=20 --record=results --control=pathnet,scratch,finetune
    python binary_mnist_pathnet.py --save_dir=DIR
    python binary_mnist_pathnet.py --load_dir=DIR --tasks=4v5         # one more on top of it
    python binary_mnist_pathnet.py --resume=logs/RUN                  # after an interruption

Paths through the grid compete in tournaments until a winner classifies 99 % of its
training images. Its path is frozen, everything else is re-initialized, and the second
task is learned on top of it. The last line, Entire Iter:251,TASK1:169,TASK2:82,Overlap:2,
has the generations of both tasks and the number of modules that their best paths share.
"""

from common import commandline  # before all else: Ctrl-C is one line from here on

# isort: split
from supervised import datasets
from supervised.experiment import Experiment
from supervised.settings import (
    Settings,
    define_binary_mnist_flags,
    of_task,
    read_binary_mnist,
)
from supervised.streams import FAKE_DATA, NOISE, TRAIN_IMAGES, random_stream
from supervised.tournaments import Task


def load(settings: Settings) -> tuple[list, dict]:
    """Loads the images of each task, as they are.

    Returns:
      (pairs, data): for each task [train, test], a datasets.Split each; and what is
      recorded of the data set, by its name.
    """
    if settings.fake_data:
        rng = random_stream(0, FAKE_DATA, 0)  # the same data for all seeds
        dataset = datasets.fake(28 * 28, 10, 10_000, 1_000, rng)
    else:
        dataset = datasets.load_mnist(settings.data_dirs["mnist"])
    pairs = [
        [
            datasets.two_classes(split, *map(int, name.split("v")))
            for split in (dataset.train, dataset.test)
        ]
        for name in settings.tasks
    ]
    return pairs, {"mnist": datasets.describe(dataset)}


def with_noise(
    name: str, splits: list, settings: Settings, number: int, seed: int
) -> Task:
    """Two digits as task `number`, with the noise of one repeat on all their images."""
    rng = random_stream(seed, NOISE, number)
    share = of_task(settings.noise_shares, number)
    noisy = [
        datasets.Split(
            datasets.add_noise(split.images, settings.noise, rng, share), split.labels
        )
        for split in splits
    ]
    count = of_task(settings.train_images, number)
    train = datasets.few(noisy[0], count, random_stream(seed, TRAIN_IMAGES, number))
    return Task(name, name.replace("v", " vs "), train, noisy[1])


def main() -> None:
    """Learns the tasks in sequence, as often as the flags say."""
    settings = read_binary_mnist()
    pairs, data = load(settings)
    classes = [2] * len(settings.tasks)
    experiment = Experiment(settings, 28 * 28, classes, data)
    for repeat in experiment.repeats():  # a seed each, under each control
        for number, (name, splits) in enumerate(zip(settings.tasks, pairs)):
            task = with_noise(name, splits, settings, number, repeat.seed)
            for tournament in repeat.tournaments(task):  # until a winner is good enough
                paths = tournament.draw()  # B candidates of the population
                fitness = tournament.train(paths)  # alike, on the same mini-batches
                tournament.overwrite_losers(fitness)  # by mutated copies of the winner
            repeat.freeze()  # the best path; everything else is re-initialized
        generations = [outcome.generations for outcome in repeat.outcomes]
        tasks = [f"TASK{number}:{g}" for number, g in enumerate(generations, 1)]
        repeat.finish(
            f"Entire Iter:{sum(generations)},{','.join(tasks)},Overlap:{repeat.overlap()}"
        )


if __name__ == "__main__":
    commandline.run(main, define_binary_mnist_flags)

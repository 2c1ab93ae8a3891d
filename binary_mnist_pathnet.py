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
training images. Its path is frozen, everything else starts again, and the second task
is learned on top of it. The last line, Entire Iter:251,TASK1:169,TASK2:82,Overlap:2, has
the generations of both tasks and the number of modules that their best paths share.
"""

import re

from absl import flags

from common import commandline
from supervised import datasets, experiment

FLAGS = flags.FLAGS


def is_pair(name):
    """Whether a name is that of a task: two different digits, such as 1v3."""
    return re.fullmatch(r"([0-9])v(?!\1)[0-9]", name) is not None


flags.DEFINE_integer("a1", 1, "First digit of task 1.", 0, 9)
flags.DEFINE_integer("a2", 3, "Second digit of task 1.", 0, 9)
flags.DEFINE_integer("b1", 1, "First digit of task 2.", 0, 9)
flags.DEFINE_integer("b2", 2, "Second digit of task 2.", 0, 9)
flags.DEFINE_list(
    "tasks", None, "Pairs of digits, such as 1v3,1v2,4v5, in place of a1 to b2."
)
flags.DEFINE_enum(
    "noise",
    "salt",
    ["salt", "salt_and_pepper", "none"],
    "On half of the pixels, once a run: brighter by [0.5, 1); black or white; none.",
)
flags.register_multi_flags_validator(
    ["a1", "a2"], lambda f: f["a1"] != f["a2"], "a task needs two different digits"
)
flags.register_multi_flags_validator(
    ["b1", "b2"], lambda f: f["b1"] != f["b2"], "a task needs two different digits"
)
flags.register_validator(
    "tasks",
    lambda v: v is None or (v and all(map(is_pair, v))),
    "must be a list of pairs of two different digits, such as 1v3,1v2",
)
experiment.define_flags(
    M=10,
    N=3,
    centred=False,
    learning_rate=0.05,
    writeback="sum",
    max_steps=10_000,
    stop_accuracy=0.99,
)


def load(names):
    """Training and test images of each task, as they are."""
    if FLAGS.fake_data:
        rng = experiment.random_stream(FLAGS.seed, experiment.FAKE_DATA, 0)
        dataset = datasets.fake(28 * 28, 10, 10_000, 1_000, rng)
    else:
        dataset = datasets.load_mnist(FLAGS.data_dir)
    return [
        [
            datasets.two_classes(split, *map(int, name.split("v")))
            for split in (dataset.train, dataset.test)
        ]
        for name in names
    ]


def make_task(name, splits, rng):
    """Two digits as a task, with the noise of one repeat."""
    noisy = [
        datasets.Split(datasets.add_noise(split.images, FLAGS.noise, rng), split.labels)
        for split in splits
    ]
    return experiment.Task(name, name.replace("v", " vs "), *noisy)


def main():
    network = experiment.load_network("binary_mnist", is_pair)
    pairs = f"{FLAGS.a1}v{FLAGS.a2}", f"{FLAGS.b1}v{FLAGS.b2}"
    names = experiment.task_names(network, FLAGS.tasks or pairs)
    data = load(names)
    images = min(len(train.labels) for train, _ in data)

    run = experiment.Experiment("binary_mnist", 28 * 28, 2, names, images, network)
    for repeat in run.repeats():
        for number, (name, splits) in enumerate(zip(names, data)):
            rng = experiment.random_stream(repeat.seed, experiment.NOISE, number)
            # Tournaments between paths, until a winner is good enough.
            repeat.learn(make_task(name, splits, rng))
            # Its path is frozen and stays active; everything else starts again.
            repeat.freeze()
        generations = [outcome.generations for outcome in repeat.outcomes]
        tasks = [f"TASK{number}:{g}" for number, g in enumerate(generations, 1)]
        repeat.finish(
            f"Entire Iter:{sum(generations)},{','.join(tasks)},Overlap:{repeat.overlap()}"
        )


if __name__ == "__main__":
    commandline.run(main)

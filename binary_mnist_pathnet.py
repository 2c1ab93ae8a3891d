"""Binary MNIST: PathNet learns to tell two digits apart, then two other digits.

    python binary_mnist_pathnet.py                                    # 1v3, then 1v2
    python binary_mnist_pathnet.py --a1=4 --a2=5 --b1=6 --b2=7 --seed=7
    python binary_mnist_pathnet.py --runs=30 --record=results         # 30 repeats

Paths through the grid compete in tournaments until a winner classifies 99 % of its
training images. Its path is frozen, everything else starts again, and the second task
is learned on top of it. The last line, Entire Iter:251,TASK1:169,TASK2:82,Overlap:2, has
the generations of both tasks and the number of modules that their best paths share.
"""

from absl import flags

import commandline
import datasets
import supervised

FLAGS = flags.FLAGS

flags.DEFINE_integer("a1", 1, "First digit of task 1.", 0, 9)
flags.DEFINE_integer("a2", 3, "Second digit of task 1.", 0, 9)
flags.DEFINE_integer("b1", 1, "First digit of task 2.", 0, 9)
flags.DEFINE_integer("b2", 2, "Second digit of task 2.", 0, 9)
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
supervised.define_flags(
    M=10,
    N=3,
    centred=False,
    learning_rate=0.05,
    writeback="sum",
    max_steps=10_000,
    stop_accuracy=0.99,
)


def make_task(dataset, number, digits, seed):
    """Two digits of the data set, with noise, as task `number` of a repeat."""
    rng = supervised.random_stream(seed, supervised.NOISE, number)
    splits = []
    for split in (dataset.train, dataset.test):
        pair = datasets.two_classes(split, *digits)
        noisy = datasets.add_noise(pair.images, FLAGS.noise, rng)
        splits.append(datasets.Split(noisy, pair.labels))
    first, second = digits
    return supervised.Task(f"{first}v{second}", f"{first} vs {second}", *splits)


def main():
    if FLAGS.fake_data:
        rng = supervised.random_stream(FLAGS.seed, supervised.FAKE_DATA, 0)
        dataset = datasets.fake(28 * 28, 10, 10_000, 1_000, rng)
    else:
        dataset = datasets.load_mnist(FLAGS.data_dir)
    pairs = [(FLAGS.a1, FLAGS.a2), (FLAGS.b1, FLAGS.b2)]
    names = [f"{first}v{second}" for first, second in pairs]

    images = min(len(datasets.two_classes(dataset.train, *p).labels) for p in pairs)

    experiment = supervised.Experiment("binary_mnist", 28 * 28, 2, names, images)
    for repeat in experiment.repeats():
        for number, digits in enumerate(pairs):
            # Tournaments between paths, until a winner is good enough.
            repeat.learn(make_task(dataset, number, digits, repeat.seed))
            # Its path is frozen and stays active; everything else starts again.
            repeat.freeze()
        one, two = (outcome.generations for outcome in repeat.outcomes)
        repeat.finish(
            f"Entire Iter:{one + two},TASK1:{one},TASK2:{two},Overlap:{repeat.overlap()}"
        )


if __name__ == "__main__":
    commandline.run(main)

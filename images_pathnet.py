"""Your own images: PathNet learns to classify them, one task after the other.

    python images_pathnet.py                                          # digits 0-4, then 5-9
    python images_pathnet.py --tasks=mnist,mnist~1,mnist~2            # permuted MNIST
    python images_pathnet.py --tasks=one.npz,two.npz --size=28        # files of Keras, MedMNIST
    python images_pathnet.py --tasks=photos/                          # train/CLASS/*.png ...
    python images_pathnet.py --tasks=photos/:0-4,photos/:5-9 --size=32 --grey
    python images_pathnet.py --resume=logs/RUN                        # after an interruption

Paths through the grid compete in tournaments until a winner classifies 99 % of its
training images. Its path is frozen, everything else is re-initialized, and the next task
is learned on top of it. The last line, mnist:0-4_mnist:5-9,TASK1:0.9850,TASK2:0.9737,Done,
has the held-out accuracy of each task, after all of them.
"""

from common import commandline  # before all else: Ctrl-C is one line from here on

# isort: split
from common import folders
from supervised.experiment import Experiment
from supervised.image_tasks import ImageTasks
from supervised.settings import define_images_flags, read_images


def main() -> None:
    """Learns the tasks in sequence, as often as the flags say."""
    settings = read_images()
    images = ImageTasks(settings)
    experiment = Experiment(settings, images.inputs, images.classes, images.data)
    for repeat in experiment.repeats():  # a seed each, under each control
        for number in range(len(settings.tasks)):
            task = images.task(number, repeat.seed)
            for tournament in repeat.tournaments(task):  # until a winner is good enough
                paths = tournament.draw()  # B candidates of the population
                fitness = tournament.train(paths)  # alike, on the same mini-batches
                tournament.overwrite_losers(fitness)  # by mutated copies of the winner
            repeat.freeze()  # the best path; everything else is re-initialized
        names = "_".join(map(folders.last_part, settings.tasks))
        ends = [f"TASK{n}:{a:.4f}" for n, a in enumerate(repeat.accuracies(), 1)]
        repeat.finish(f"{names},{','.join(ends)},Done")


if __name__ == "__main__":
    commandline.run(main, define_images_flags)

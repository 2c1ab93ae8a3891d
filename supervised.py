"""What the supervised task scripts share: flags, the tournament loop, what is recorded.

A script defines its tasks and says, top to bottom, what happens to them:

    experiment = supervised.Experiment(...)   # the grid, built once
    for repeat in experiment.repeats():       # a seed each
        for task in tasks:
            repeat.learn(task)                # tournaments until a winner is good enough
            repeat.freeze()                   # its path; everything else starts again
        repeat.finish("...")                  # results and pictures, the last line
"""

import dataclasses
import datetime
import os
import sys
import time

import numpy as np
from absl import flags
from tqdm import tqdm

import datasets
import pathnet
import plotting
import recording
import results
from commandline import UserError

FLAGS = flags.FLAGS
flags.disclaim_key_flags()  # they are the script's, so that its --help shows them

# What random numbers are for: each use has a stream of its own.
FAKE_DATA, NOISE, POPULATION, TOURNAMENT = range(4)

PLAIN_LINE_EVERY = 50  # generations, where no terminal shows a progress bar
TEST_IMAGES = 2_000  # of the held-out images for that curve; the results use all
IMAGE_EVERY = 25  # generations between two pictures of the population


def define_flags(*, M, N, centred, learning_rate, writeback, max_steps, stop_accuracy):
    """The flags of a supervised script, with the defaults in which the scripts differ."""
    flags.DEFINE_integer("L", 3, "Layers of the grid.", lower_bound=1)
    flags.DEFINE_integer("M", M, "Modules a layer.", lower_bound=1)
    flags.DEFINE_integer(
        "N", N, "Most modules of a layer that a path uses.", lower_bound=1
    )
    flags.DEFINE_integer("filt", 20, "ReLU units of a module.", lower_bound=1)
    flags.DEFINE_enum(
        "aggregation",
        "average",
        pathnet.AGGREGATIONS,
        "Output of a layer: its active modules' sum over M, their sum, or their sum but "
        "over M in the last layer.",
    )
    flags.DEFINE_enum(
        "module_kinds",
        "mixed",
        pathnet.MODULE_KINDS,
        "Modules after layer 1: skip, linear and residual in turn, or linear alone.",
    )
    flags.DEFINE_bool(
        "fixed_path_active",
        True,
        "Frozen modules are active in every path, or in those that name them.",
    )
    flags.DEFINE_bool(
        "centred", centred, "Scale pixels to [-0.5, 0.5] instead of [0, 1]."
    )
    flags.DEFINE_integer(
        "candi", 20, "Candidate paths in the population.", lower_bound=2
    )
    flags.DEFINE_integer("B", 2, "Candidates of a tournament.", lower_bound=2)
    flags.DEFINE_enum(
        "tournament",
        "fair",
        ["fair", "sequential"],
        "Candidates start from the same parameters and see the same mini-batches, or "
        "are trained one after the other on the same parameters, all of them for good.",
    )
    flags.DEFINE_enum(
        "mutation",
        "uniform",
        pathnet.MUTATIONS,
        "A gene moves by -2 to 2 with probability 1/(L*N), or by -4 to -1 with twice that.",
    )
    flags.DEFINE_integer("T", 50, "Mini-batches a generation.", lower_bound=1)
    flags.DEFINE_integer("batch_num", 16, "Images of a mini-batch.", lower_bound=1)
    flags.DEFINE_enum(
        "optimizer", "sgd", pathnet.OPTIMIZERS, "Plain gradient descent, or Adam."
    )
    flags.DEFINE_float("learning_rate", learning_rate, "Of the optimizer.")
    flags.DEFINE_enum(
        "writeback",
        writeback,
        pathnet.WRITEBACKS,
        "Which changes persist after a tournament: the winner's, also the losers' in "
        "modules that no fitter candidate uses (merge), or the sum of all. Of no "
        "account in a sequential tournament.",
    )
    flags.DEFINE_float(
        "stop_accuracy", stop_accuracy, "Winner's training accuracy that ends a task."
    )
    flags.DEFINE_integer(
        "max_steps", max_steps, "Most generations a task.", lower_bound=1
    )
    flags.DEFINE_integer(
        "test_every",
        10,
        "Generations between two points of the held-out curve.",
        lower_bound=1,
    )
    flags.DEFINE_integer(
        "seed", 0, "Seed of the first repeat; the next has the next.", 0, 2**31 - 1
    )
    flags.DEFINE_integer("runs", 1, "Independent repeats.", lower_bound=1)
    flags.DEFINE_string(
        "data_dir", None, "Folder of the data; default: the script's own."
    )
    flags.DEFINE_bool("fake_data", False, "Tiny generated data, for a first try.")
    flags.DEFINE_string(
        "log_dir",
        "logs",
        "Where every run makes a folder of its own.",
        allow_override=True,
    )
    flags.DEFINE_enum(
        "record",
        "all",
        ["all", "results"],
        "What a repeat leaves: TensorBoard events, pictures and its line in "
        "results.jsonl, or that line alone.",
    )
    flags.register_validator(
        "learning_rate", lambda v: 0 < v < 1e6, "must be a positive number below 1e6"
    )
    flags.register_validator(
        "stop_accuracy", lambda v: 0 < v <= 1, "must lie in (0, 1]"
    )
    flags.register_validator("log_dir", lambda v: v, "must name a folder")
    flags.register_multi_flags_validator(
        ["N", "M"],
        lambda f: f["N"] <= f["M"],
        "N active modules of M: N may not exceed M",
    )
    flags.register_multi_flags_validator(
        ["B", "candi"],
        lambda f: f["B"] <= f["candi"],
        "B candidates are drawn from candi: B may not exceed candi",
    )
    flags.register_multi_flags_validator(
        ["optimizer", "writeback", "tournament"],
        lambda f: (
            (f["optimizer"], f["writeback"], f["tournament"]) != ("adam", "sum", "fair")
        ),
        "Adam's state cannot be summed over candidates: add --writeback=winner or "
        "--writeback=merge",
    )


def random_stream(seed, purpose, task, generation=0):
    """The generator for one purpose in one task and generation.

    Nothing depends on how many numbers were drawn before, so any generation can be
    computed again from the seed alone.
    """
    key = (purpose, task, generation)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


@dataclasses.dataclass(frozen=True)
class Task:
    """What is to be learned: a name for files and results, one for people, the data."""

    name: str
    title: str
    train: datasets.Split
    test: datasets.Split


@dataclasses.dataclass
class Generation:
    """One tournament of one task.

    Attributes:
      number: from 1 on.
      population: int [candi, L, N], after the tournament.
      path: int [L, N], the winner's. active: binary [L, M], with the fixed path.
      fitness: float [B]. loss: float [B]. winner: index into both.
    """

    number: int
    population: np.ndarray
    path: np.ndarray
    active: np.ndarray
    fitness: np.ndarray
    loss: np.ndarray
    winner: int

    @property
    def best_fitness(self):
        return float(self.fitness[self.winner])


@dataclasses.dataclass
class Outcome:
    """What became of a task.

    Attributes:
      task: the Task.
      last: its last Generation; the winner's path is the best path of the task.
      converged: whether that winner reached stop_accuracy.
      accuracy_test: of that path on held-out images, when the task ended.
      seconds: wall-clock time of its generations.
      curve: {"generation": [...], "fitness": [...]}, the winners'.
    """

    task: Task
    last: Generation
    converged: bool
    accuracy_test: float
    seconds: float
    curve: dict

    @property
    def generations(self):
        return self.last.number

    @property
    def geopath(self):
        """Binary [L, M], the best path alone."""
        return pathnet.to_geopath(self.last.path, self.last.active.shape[1])


class Experiment:
    """One call of a script: the grid, built once, and the folder of the run."""

    def __init__(self, name, inputs, classes, tasks, images):
        """Builds the grid as the flags say.

        Args:
          name: of the script, in file names and results.
          inputs: pixels of an image. classes: of each task.
          tasks: names of the tasks, in learning order.
          images: size of the smallest training set.

        Raises:
          UserError: a task has fewer images than a generation needs, or the grid or the
            population does not fit into memory.
          OSError: the folder of the run cannot be made.
        """
        self.name = name
        grid = pathnet.Grid(
            L=FLAGS.L,
            M=FLAGS.M,
            N=FLAGS.N,
            filt=FLAGS.filt,
            inputs=inputs,
            classes=classes,
            tasks=len(tasks),
            aggregation=FLAGS.aggregation,
            centred=FLAGS.centred,
            module_kinds=FLAGS.module_kinds,
            fixed_path_active=FLAGS.fixed_path_active,
        )
        training = pathnet.Training(
            # In a sequential tournament a candidate is trained alone.
            B=FLAGS.B if FLAGS.tournament == "fair" else 1,
            T=FLAGS.T,
            batch_num=FLAGS.batch_num,
            learning_rate=FLAGS.learning_rate,
            writeback=FLAGS.writeback,
            optimizer=FLAGS.optimizer,
        )
        _check_memory(grid, training)
        _check_images(training, images)
        now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        label = f"{name}__{'_'.join(tasks)}__seed{FLAGS.seed}__{now}"
        self.folder = recording.new_folder(FLAGS.log_dir, label)
        self.net = pathnet.PathNet(grid, training)

    def repeats(self):
        """Yields a Repeat for each seed."""
        for seed in range(FLAGS.seed, FLAGS.seed + FLAGS.runs):
            yield Repeat(self, seed)


class Repeat:
    """All tasks learned once, from one seed."""

    def __init__(self, experiment, seed):
        self._experiment = experiment
        self._net = experiment.net
        self.seed = seed
        self.outcomes = []
        grid = self._net.grid
        self._fixed_path = np.zeros([grid.L, grid.M], np.float32)
        self._trail = None
        if FLAGS.record == "all":
            folder = experiment.folder
            if FLAGS.runs > 1:
                folder = os.path.join(folder, f"seed_{seed}")
            self._trail = Trail(folder, self._net)

    def learn(self, task):
        """Tournaments between paths until a winner is good enough (section 2.2).

        Starts from new parameters for everything that is not frozen, and from a new
        population; gives up after max_steps generations, with the last winner.

        Raises:
          OSError: the events cannot be written.
        """
        net, seed, number = self._net, self.seed, len(self.outcomes)
        grid, fixed_path = net.grid, self._fixed_path
        started = time.monotonic()
        net.initialize(seed, number, fixed_path)
        population = pathnet.random_paths(
            random_stream(seed, POPULATION, number), FLAGS.candi, grid.L, grid.M, grid.N
        )
        mutation = pathnet.mutation_rule(FLAGS.mutation, grid.L, grid.N)
        curve = {"generation": [], "fitness": []}
        progress = _Progress(number, task)
        for generation in range(1, FLAGS.max_steps + 1):
            rng = random_stream(seed, TOURNAMENT, number, generation)
            drawn = pathnet.draw_candidates(rng, FLAGS.candi, FLAGS.B)
            paths = population[drawn]
            geopaths = pathnet.to_geopath(paths, grid.M)
            fitness, loss = self._compete(rng, geopaths, task, number)
            population[drawn], winner = pathnet.overwrite_losers(
                rng, paths, fitness, grid.M, **mutation
            )

            active = grid.active(geopaths[winner], fixed_path)
            now = Generation(
                generation, population, paths[winner], active, fitness, loss, winner
            )
            converged = now.best_fitness >= FLAGS.stop_accuracy
            ends = converged or generation == FLAGS.max_steps
            progress.show(now, ends)
            if recording.is_logged(generation) or ends:
                curve["generation"].append(generation)
                curve["fitness"].append(now.best_fitness)
                if self._trail:
                    self._trail.add(number, task, now, fixed_path, ends)
            if ends:
                break
        progress.close()
        accuracy = net.accuracy(active, task.test.images, task.test.labels, number)
        seconds = time.monotonic() - started
        outcome = Outcome(task, now, converged, accuracy, seconds, curve)
        self.outcomes.append(outcome)
        if FLAGS.runs == 1:
            print(_report(number, outcome, fixed_path), flush=True)

    def _compete(self, rng, geopaths, task, number):
        """Trains the candidates of a tournament: fitness and loss, float [B] each."""

        def train(candidates):
            batches = rng.choice(
                len(task.train.labels), FLAGS.T * FLAGS.batch_num, replace=False
            )
            return self._net.train(
                candidates,
                task.train.images[batches],
                task.train.labels[batches],
                number,
                self._fixed_path,
            )

        if FLAGS.tournament == "fair":
            return train(geopaths)
        # Each starts from what those before it left, and shuffles for itself.
        fitness, loss = zip(*[train(geopath[None]) for geopath in geopaths])
        return np.concatenate(fitness), np.concatenate(loss)

    def freeze(self):
        """Freezes the modules of the last best path; they stay active from now on."""
        self._fixed_path = np.maximum(self._fixed_path, self.outcomes[-1].geopath)

    def overlap(self):
        """Number of modules that the best paths of the last two tasks share."""
        first, second = self.outcomes[-2:]
        return pathnet.overlap(first.geopath, second.geopath)

    def finish(self, result_line):
        """Records the repeat, draws its pictures and prints its line, the last of all.

        Raises:
          OSError: something could not be written; what was written before is whole.
        """
        folder = self._experiment.folder
        retention = [
            self._net.accuracy(
                o.last.active, o.task.test.images, o.task.test.labels, number
            )
            for number, o in enumerate(self.outcomes)
        ]
        results.append(os.path.join(folder, "results.jsonl"), self._result(retention))
        if self._trail:
            self._trail.close(self.outcomes)
        if FLAGS.runs == 1:
            for number, (outcome, now) in enumerate(zip(self.outcomes[:-1], retention)):
                verdict = "unchanged" if now == outcome.accuracy_test else "CHANGED"
                print(
                    f"Task {number + 1} once more: held-out accuracy {now:.4f}, {verdict}"
                )
        if self.seed == FLAGS.seed + FLAGS.runs - 1:
            print(f"Results: {folder}\ntensorboard --logdir={folder}")
        print(result_line, flush=True)

    def _result(self, retention):
        """The object for results.jsonl."""
        tasks = [
            {
                "name": o.task.name,
                "generations": o.generations,
                "converged": o.converged,
                "fitness": o.last.best_fitness,
                "accuracy_test": o.accuracy_test,
                "accuracy_test_after_all": now,
                "path": o.last.path.tolist(),
                "seconds": round(o.seconds, 3),
                "curve": o.curve,
            }
            for o, now in zip(self.outcomes, retention)
        ]
        return {
            "script": self._experiment.name,
            "seed": self.seed,
            "flags": _flag_values(),
            "versions": recording.versions(),
            "tasks": tasks,
            "overlap": self.overlap(),
            "seconds": round(sum(o.seconds for o in self.outcomes), 3),
        }


class Trail:
    """What a repeat leaves to look at: TensorBoard events, paths.png, evolution.gif."""

    def __init__(self, folder, net):
        self._folder = folder
        self._net = net
        self._events = recording.Events(folder, net.graph)
        self._events.text("flags", _as_markdown(_flag_values()))
        self._snapshots = []
        self._before = 0  # generations of earlier tasks
        self._last = (0, time.monotonic())  # step and time of the last point

    def add(self, number, task, now, fixed_path, ends):
        """Adds a Generation of a task; `ends`: it is the task's last one."""
        family = f"task{number + 1}"
        curves = {
            f"{family}/fitness": now.best_fitness,
            f"{family}/mean_fitness": now.fitness.mean(),
            f"{family}/loss": now.loss[now.winner],
        }
        if now.number % FLAGS.test_every == 0 or ends:
            curves[f"{family}/accuracy_test"] = self._net.accuracy(
                now.active,
                task.test.images[:TEST_IMAGES],
                task.test.labels[:TEST_IMAGES],
                number,
            )
        self._events.scalars(now.number, curves)

        # The curves below go on from one task to the next.
        step, moment = self._before + now.number, time.monotonic()
        last_step, last_moment = self._last
        geopaths = pathnet.to_geopath(now.population, self._net.grid.M)
        best = pathnet.to_geopath(now.path, self._net.grid.M)
        self._events.scalars(
            step,
            {
                "evolution/diversity": pathnet.diversity(geopaths),
                "evolution/overlap": pathnet.overlap(best, fixed_path),
                "evolution/active_modules": now.active.sum(),
                "charts/generations_per_second": (step - last_step)
                / (moment - last_moment),
            },
        )
        self._last = (step, moment)
        if now.number % IMAGE_EVERY == 1 or ends:
            picture = plotting.population_image(geopaths)
            self._events.image(step, "evolution/population", picture)
        self._snapshots.append(
            plotting.Snapshot(
                task.title, now.number, now.best_fitness, geopaths, best, fixed_path
            )
        )
        if ends:
            self._before = step

    def close(self, outcomes):
        """Ends the events and draws the pictures."""
        self._events.close()
        plotting.draw_paths(
            os.path.join(self._folder, "paths.png"),
            [outcome.geopath for outcome in outcomes],
            [outcome.task.title for outcome in outcomes],
            self._net.grid.kinds(),
        )
        plotting.animate_evolution(
            os.path.join(self._folder, "evolution.gif"), self._snapshots
        )


class _Progress:
    """A progress bar on a terminal, a plain line now and then elsewhere."""

    def __init__(self, number, task):
        self._label = f"task {number + 1}, {task.title}"
        self._bar = None
        if sys.stderr.isatty():
            # Only without a stop_accuracy within reach is it known where the end is.
            total = FLAGS.max_steps if FLAGS.stop_accuracy == 1 else None
            self._bar = tqdm(
                total=total, desc=self._label, unit="gen", leave=FLAGS.runs == 1
            )

    def show(self, now, ends):
        if self._bar is None and (FLAGS.runs > 1 or now.number % PLAIN_LINE_EVERY):
            return
        geopaths = pathnet.to_geopath(now.population, now.active.shape[1])
        state = f"fitness {now.best_fitness:.4f}, diversity {pathnet.diversity(geopaths):.2f}"
        if self._bar is None:
            print(f"{self._label}, generation {now.number}: {state}", flush=True)
        else:
            self._bar.set_postfix_str(state, refresh=ends)
            self._bar.update()

    def close(self):
        if self._bar is not None:
            self._bar.close()


def _report(number, outcome, fixed_path):
    """How a task ended, with its path as a grid."""
    last = outcome.last
    ended = "" if outcome.converged else "not converged after "
    return (
        f"Task {number + 1}, {outcome.task.title}: {ended}{last.number} generations, "
        f"training accuracy {last.best_fitness:.4f}, "
        f"held-out accuracy {outcome.accuracy_test:.4f}\n"
        + pathnet.format_geopath(outcome.geopath, fixed_path)
    )


def _flag_values():
    """The values of all flags of the script, by name."""
    return {f.name: f.value for f in FLAGS.get_key_flags_for_module(sys.argv[0])}


def _as_markdown(values):
    rows = [f"| {name} | {value} |" for name, value in values.items()]
    return "\n".join(["| flag | value |", "| --- | --- |", *rows])


def _check_images(training, images):
    needed = training.T * training.batch_num
    if needed > images:
        raise UserError(
            f"flags --T={training.T} --batch_num={training.batch_num}: a generation needs "
            f"{needed} different images and a task has {images}"
        )


def _check_memory(grid, training):
    """Refuses what the machine cannot hold, before anything tries."""
    first = grid.filt * grid.inputs
    rest = (grid.L - 1) * grid.filt * grid.filt
    # Three copies at once when parameters are drawn, and what is gathered and trained.
    floats = 3 * grid.M * (first + rest) + 4 * training.B * grid.N * first
    images = training.T * training.batch_num * grid.inputs
    paths = 24 * FLAGS.candi * grid.L * grid.M + 16 * FLAGS.candi**2
    needed = 4 * floats + 5 * images + paths
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > available:
        raise UserError(
            f"flags --L={grid.L} --M={grid.M} --filt={grid.filt} --B={training.B} "
            f"--T={training.T} --batch_num={training.batch_num} --candi={FLAGS.candi}: "
            f"needs {needed / 2**30:.1f} GiB of memory and this machine has "
            f"{available / 2**30:.1f} GiB; make them smaller"
        )

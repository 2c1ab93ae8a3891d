"""What the supervised task scripts share: flags, the tournament loop, what is recorded.

A script defines its tasks and says, top to bottom, what happens to them:

    network = supervised.load_network(...)    # what an earlier run has learned, if any
    experiment = supervised.Experiment(...)   # the grid, built once
    for repeat in experiment.repeats():       # a seed each, under each control
        for task in tasks:
            repeat.learn(task)                # tournaments until a winner is good enough
            repeat.freeze()                   # its path; everything else starts again
        repeat.finish("...")                  # results and pictures, the last line

`Repeat` is PathNet; its subclasses after it are what PathNet is compared with.
"""

import dataclasses
import datetime
import os
import sys
import time

import numpy as np
from absl import flags
from tqdm import tqdm

import pathnet
import plotting
from common import checkpoint, commandline, folders, results
from common import events as recording
from common.commandline import UserError
from reports import pictures
from supervised import datasets
from supervised.generation import OPTIMIZERS, WRITEBACKS, TrainablePathNet, Training

FLAGS = flags.FLAGS
flags.disclaim_key_flags()  # they are the script's, so that its --help shows them

# What random numbers are for: each use has a stream of its own.
FAKE_DATA, NOISE, POPULATION, TOURNAMENT = range(4)

PLAIN_LINE_EVERY = 50  # generations, where no terminal shows a progress bar
TEST_IMAGES = 2_000  # of the held-out images for that curve; the results use all
IMAGE_EVERY = 25  # generations between two pictures of the population

CHECKPOINTS = "checkpoints"  # in the folder of a run, until it is finished

# Flags that a saved network keeps when further tasks are learned on it. With the same
# seed those tasks are learned as if the run had never ended.
KEPT_FLAGS = ("L", "M", "N", "filt", "aggregation", "module_kinds", "centred")
KEPT_FLAGS += ("fixed_path_active", "optimizer", "seed", "noise", "fake_data")


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
        pathnet.MIXTURES,
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
        "optimizer", "sgd", OPTIMIZERS, "Plain gradient descent, or Adam."
    )
    flags.DEFINE_float("learning_rate", learning_rate, "Of the optimizer.")
    flags.DEFINE_enum(
        "writeback",
        writeback,
        WRITEBACKS,
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
    flags.DEFINE_list(
        "control",
        ["pathnet"],
        "What each repeat is learned with, one or more of pathnet; scratch: every task on "
        "a new network; finetune: task 1's best path alone, trained on for every later "
        "task; fixed_size: a network of N modules a layer, without evolution.",
    )
    flags.DEFINE_string(
        "save_dir", None, "A new folder to store the finished network in."
    )
    flags.DEFINE_string(
        "load_dir", None, "A folder of --save_dir, to learn the tasks on top of."
    )
    flags.DEFINE_string(
        "resume",
        None,
        "The folder of a run that was interrupted, to go on with; its flags hold.",
    )
    flags.DEFINE_float(
        "checkpoint_seconds",
        30,
        "Between two checkpoints of a single repeat; 0: one a generation.",
        lower_bound=0,
    )
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
    flags.DEFINE_string(
        "results",
        None,
        "Of a batch: add the repeats to this file, numbered, and leave out those that it "
        "has; nothing else is recorded.",
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
    flags.register_validator(
        "control",
        lambda v: v and len(set(v)) == len(v) and set(v) <= CONTROLS.keys(),
        f"must be a list of {', '.join(CONTROLS)}, each at most once",
    )
    for name in ("save_dir", "load_dir", "resume"):
        flags.register_validator(name, lambda v: v != "", "must name a folder")
    for name in ("save_dir", "load_dir"):
        flags.register_multi_flags_validator(
            [name, "runs", "control"],
            lambda f, name=name: (
                f[name] is None or (f["runs"], f["control"]) == (1, ["pathnet"])
            ),
            f"--{name} is of one network: leave out --runs and --control",
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

    def entry(self):
        """What results.jsonl holds of it."""
        return {
            "name": self.task.name,
            "generations": self.generations,
            "converged": self.converged,
            "fitness": self.last.best_fitness,
            "accuracy_test": self.accuracy_test,
            "path": self.last.path.tolist(),
            "seconds": round(self.seconds, 3),
            "curve": self.curve,
        }


def load_network(script, is_task):
    """What to go on with: that of --resume or --load_dir, or an empty network.

    After --resume it is a State, and the flags are those of its run.

    Args:
      script: name of the script that loads it.
      is_task: whether a name is that of a task of the script.

    Raises:
      UserError: there is none, it is damaged, or it was made by another script or with
        other flags.
      OSError: a file cannot be read.
    """
    folder = FLAGS.resume or FLAGS.load_dir
    if FLAGS.resume is not None:
        network = _load_state(folder)
    elif folder is not None:
        network = checkpoint.read_network(folder)
    else:
        network = checkpoint.Network()
    if folder is not None and network.script != script:
        raise UserError(
            f"{folder}: its network is of {network.script}_pathnet.py; load it there"
        )
    unknown = [name for name in task_names(network, ()) if not is_task(name)]
    if unknown:
        raise UserError(f"{folder}: its network knows an unknown task, {unknown[0]}")
    if FLAGS.resume is not None:
        _take_flags(network.flags)
    if FLAGS.save_dir is not None:
        checkpoint.refuse_existing(FLAGS.save_dir)
    if FLAGS.resume is not None or folder is None:
        return network
    values = commandline.flag_values()
    other = [
        f"--{name}={network.flags.get(name)}"
        for name in KEPT_FLAGS
        if name in values and values[name] != network.flags.get(name)
    ]
    if other:
        raise UserError(
            f"{folder}: its network was made with other flags: add {' '.join(other)}"
        )
    return network


def _load_state(folder):
    """The State of an interrupted run; UserError if there is none in its folder."""
    folders.occupy(folder)
    state = checkpoint.load_state(os.path.join(folder, CHECKPOINTS))
    if state is None and os.path.exists(os.path.join(folder, "results.jsonl")):
        raise UserError(
            f"flag --resume={folder}: nothing to go on with, results.jsonl in there has "
            "the results"
        )
    if state is None:
        raise UserError(
            f"flag --resume={folder}: holds no checkpoint of a single repeat; start the "
            "run again"
        )
    return state


def _take_flags(values):
    """Sets the flags to those of an interrupted run.

    Raises:
      UserError: another value was given explicitly, or they are of another version.
    """
    names = run_flags()
    if values.keys() != names.keys():
        raise UserError(f"flag --resume={FLAGS.resume}: made by another version")
    for name, value in values.items():
        if FLAGS[name].present and FLAGS[name].value != value:
            raise UserError(
                f"flag --{name}={FLAGS[name].value}: the run in {FLAGS.resume} has "
                f"{value}; leave it out"
            )
    for name, value in values.items():
        FLAGS[name].value = value
    FLAGS.validate_all_flags()


def run_flags():
    """The flags of a run by name, the same in every process that goes on with it."""
    values = commandline.flag_values()
    return {name: value for name, value in values.items() if name != "resume"}


def task_names(network, more):
    """Names of all tasks of a run: those that a network knows, and more to learn."""
    if isinstance(network, checkpoint.State):
        return network.names
    return [*(task["name"] for task in network.tasks), *more]


class Experiment:
    """One call of a script: the grid, built once, and the folder of the run."""

    def __init__(self, name, inputs, classes, tasks, images, network=None):
        """Builds the grid as the flags say.

        Args:
          name: of the script, in file names and results.
          inputs: pixels of an image. classes: of each task.
          tasks: names of the tasks, in learning order, those of `network` first.
          images: size of the smallest training set.
          network: the checkpoint.Network to go on with.

        Raises:
          UserError: a task has fewer images than a generation needs, the grid or the
            population does not fit into memory, or the network not into the grid.
          OSError: the folder of the run cannot be made.
        """
        self.name = name
        self.network = network or checkpoint.Network()
        self.tasks = list(tasks)
        self.results = []
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
        training = Training(
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
        self.net = TrainablePathNet(grid, training, alone="finetune" in FLAGS.control)
        if "fixed_size" in FLAGS.control:
            # N modules a layer are all there is, and one candidate.
            self.selected_net = TrainablePathNet(
                dataclasses.replace(grid, M=grid.N),
                dataclasses.replace(training, B=1),
            )
        resumed = isinstance(self.network, checkpoint.State)
        if self.network.parameters:
            self._restore_network(len(tasks) if resumed else len(self.network.tasks))
        self.checkpoints = None
        if resumed:
            self.folder = FLAGS.resume
        elif FLAGS.results is None:
            now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
            label = f"{name}__{'_'.join(tasks)}__seed{FLAGS.seed}__{now}"
            self.folder = folders.new(FLAGS.log_dir, label)
            folders.occupy(self.folder)
        if _is_single() and len(FLAGS.control) == 1:
            self.checkpoints = os.path.join(self.folder, CHECKPOINTS)

    def repeats(self):
        """Yields a Repeat for each seed, under each control; a batch's missing ones."""
        done = set()
        if FLAGS.results is not None:
            done = results.batch(FLAGS.results, self.name, run_flags())
        for seed in range(FLAGS.seed, FLAGS.seed + FLAGS.runs):
            for control in FLAGS.control:
                if (seed, control) not in done:
                    yield CONTROLS[control](self, seed)

    def is_last(self, repeat):
        """Whether nothing is learned after this repeat."""
        return (repeat.seed, repeat.control) == (
            FLAGS.seed + FLAGS.runs - 1,
            FLAGS.control[-1],
        )

    def _restore_network(self, heads):
        """Gives the grid the parameters of the loaded network, with so many heads."""
        loaded, folder = self.network, FLAGS.resume or FLAGS.load_dir
        net = self.selected_net if FLAGS.control == ["fixed_size"] else self.net
        values = net.parameters()
        if loaded.parameters.keys() != values.keys():
            raise UserError(f"{folder}: its network has other parameters than the grid")
        for name, value in values.items():
            array = loaded.parameters[name]
            # The grid has a head for each task, the network for those that it knows.
            is_head = name.startswith("output/")
            shape = (heads, *value.shape[1:]) if is_head else value.shape
            if array.shape != shape:
                raise UserError(
                    f"{folder}: {name} is of shape {list(array.shape)}, and the grid "
                    f"needs {list(shape)}"
                )
            values[name] = (
                np.concatenate([array, value[len(array) :]]) if is_head else array
            )
        net.set_parameters(values)


class Repeat:
    """All tasks learned once, from one seed: PathNet.

    What the controls do otherwise are `begin` and `freeze`.
    """

    control = "pathnet"

    def __init__(self, experiment, seed):
        self._experiment = experiment
        self._net = self.choose_net(experiment)
        self.seed = seed
        self.outcomes = []
        self.retention = []  # a row a task: accuracy then on each task up to it
        grid = self._net.grid
        self._fixed_path = np.zeros([grid.L, grid.M], np.float32)
        self._checkpoint_due = time.monotonic()
        self._trail = None
        if FLAGS.record == "all" and FLAGS.results is None:
            folder = experiment.folder
            if FLAGS.runs > 1:
                folder = os.path.join(folder, f"seed_{seed}")
            if len(FLAGS.control) > 1:
                folder = os.path.join(folder, self.control)
            self._trail = Trail(folder, self._net)

    def choose_net(self, experiment):
        """The grid to learn on."""
        return experiment.net

    def begin(self, number):
        """What a task starts from.

        Draws new parameters for all that is not frozen, and a new population.

        Returns:
          int [candi, L, N], the population.
        """
        grid = self._net.grid
        self._net.initialize(self.seed, number, self._fixed_path)
        return pathnet.random_paths(
            random_stream(self.seed, POPULATION, number),
            FLAGS.candi,
            grid.L,
            grid.M,
            grid.N,
        )

    def freeze(self):
        """Freezes the modules of the last best path; they stay active from now on."""
        self._fixed_path = np.maximum(self._fixed_path, self.outcomes[-1].geopath)

    def learn(self, task):
        """Tournaments between paths until a winner is good enough (section 2.2).

        Gives up after max_steps generations, with the last winner. A task that the
        loaded network knows is not learned again, and one that it has begun goes on.

        Raises:
          OSError: the events or a checkpoint cannot be written.
        """
        number = len(self.outcomes)
        if number < len(self._experiment.network.tasks):
            self._recall(task)
            return
        net, seed = self._net, self.seed
        grid, fixed_path = net.grid, self._fixed_path
        _note_crowding(number, task, grid, fixed_path)
        started = time.monotonic()
        state = self._begun(number) or checkpoint.State(population=self.begin(number))
        started -= state.seconds
        population, curve = state.population, state.curve
        B = min(FLAGS.B, len(population))
        mutation = pathnet.mutation_rule(FLAGS.mutation, grid.L, grid.N)
        progress = _Progress(number, task, state.generation)
        if self._trail:
            self._trail.begin(state.generation)
        for generation in range(state.generation + 1, FLAGS.max_steps + 1):
            if self._is_checkpoint_due():
                self._save_state(generation - 1, population, curve, started)
            rng = random_stream(seed, TOURNAMENT, number, generation)
            drawn = pathnet.draw_candidates(rng, len(population), B)
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
        self.retention.append(
            [
                net.accuracy(
                    o.last.active, o.task.test.images, o.task.test.labels, earlier
                )
                for earlier, o in enumerate(self.outcomes)
            ]
            + [accuracy]
        )
        self.outcomes.append(outcome)
        if _is_single():
            print(_report(number, outcome, fixed_path), flush=True)

    def _begun(self, number):
        """The State of a task that an interrupted run has begun, else None."""
        known = self._experiment.network
        if isinstance(known, checkpoint.State) and number == len(known.tasks):
            return known
        return None

    def _is_checkpoint_due(self):
        """From the first generation on, so that any moment finds a checkpoint."""
        return (
            self._experiment.checkpoints is not None
            and time.monotonic() >= self._checkpoint_due
        )

    def _save_state(self, generation, population, curve, started):
        """Writes a checkpoint of a task that has had so many generations."""
        experiment, grid = self._experiment, self._net.grid
        os.stat(experiment.folder)  # raises if it was deleted: it must not come back
        if self._trail:
            self._trail.flush()
        state = checkpoint.State(
            script=experiment.name,
            flags=run_flags(),
            tasks=self._known_tasks([outcome.entry() for outcome in self.outcomes]),
            active=np.reshape(
                [outcome.last.active for outcome in self.outcomes], (-1, grid.L, grid.M)
            ),
            fixed_path=self._fixed_path,
            parameters=self._net.parameters(),
            names=experiment.tasks,
            generation=generation,
            seconds=time.monotonic() - started,
            curve=curve,
            population=population,
        )
        checkpoint.save_state(experiment.checkpoints, state)
        self._checkpoint_due = time.monotonic() + FLAGS.checkpoint_seconds

    def _recall(self, task):
        """Takes up what the loaded network knows of a task."""
        number, network = len(self.outcomes), self._experiment.network
        known, active = network.tasks[number], network.active[number]
        path, fitness = np.array(known["path"]), np.array([known["fitness"]])
        last = Generation(
            known["generations"],
            path[None],
            path,
            active,
            fitness,
            loss=np.array([np.nan]),
            winner=0,
        )
        outcome = Outcome(
            task,
            last,
            known["converged"],
            known["accuracy_test"],
            known["seconds"],
            known["curve"],
        )
        self.outcomes.append(outcome)
        self.retention.append(known["retention"])
        if self._trail:
            self._trail.recall(task, outcome, self._fixed_path)
        print(_report(number, outcome, self._fixed_path), flush=True)

    def _compete(self, rng, geopaths, task, number):
        """Trains the candidates of a tournament: fitness and loss, float [B] each."""

        def train(candidates):
            batches = rng.choice(
                len(task.train.labels), FLAGS.T * FLAGS.batch_num, replace=False
            )
            return self._net.train(
                candidates,
                task.train.images.take(batches, 0),
                task.train.labels[batches],
                number,
                self._fixed_path,
            )

        if FLAGS.tournament == "fair":
            return train(geopaths)
        # Each starts from what those before it left, and shuffles for itself.
        fitness, loss = zip(*[train(geopath[None]) for geopath in geopaths])
        return np.concatenate(fitness), np.concatenate(loss)

    def overlap(self):
        """Number of modules that are on the best paths of two tasks or more."""
        return pictures.count_overlap([outcome.geopath for outcome in self.outcomes])

    def finish(self, result_line):
        """Records the repeat, draws its pictures and prints its line, the last of all.

        Raises:
          OSError: something could not be written; what was written before is whole.
        """
        experiment, result = self._experiment, self._result()
        if FLAGS.results is not None:
            number = results.append(FLAGS.results, result)
            print(f"{number} Iteration,  {result_line}", flush=True)
            return
        folder = experiment.folder
        if not self._is_recorded():
            results.append(os.path.join(folder, "results.jsonl"), result)
        if FLAGS.save_dir is not None:
            self._save(result)
        if self._trail:
            self._trail.close(self.outcomes, result)
        if experiment.checkpoints is not None:
            checkpoint.discard(experiment.checkpoints)
        if _is_single():
            for number, outcome in enumerate(self.outcomes[:-1]):
                now = self.retention[-1][number]
                verdict = "unchanged" if now == outcome.accuracy_test else "CHANGED"
                print(
                    f"Task {number + 1} once more: held-out accuracy {now:.4f}, {verdict}"
                )
            if len(self.outcomes) > 2:
                print(f"\n{results.retention_table([result])}\n")
        if len(FLAGS.control) > 1:
            print(f"Seed {self.seed}, {self.control}:")
            experiment.results.append(result)
        if experiment.is_last(self):
            if len(FLAGS.control) > 1:
                print(f"\n{results.control_table(experiment.results)}\n")
            print(f"Results: {folder}\ntensorboard --logdir={folder}")
        print(result_line, flush=True)

    def _is_recorded(self):
        """Whether the run was killed after its line had been written."""
        if not isinstance(self._experiment.network, checkpoint.State):
            return False
        file = os.path.join(self._experiment.folder, "results.jsonl")
        return len(results.batch(file, self._experiment.name, run_flags())) > 0

    def _known_tasks(self, entries):
        """Entries of results.jsonl with what a network holds besides of each task."""
        return [
            {**task, "title": outcome.task.title, "retention": row}
            for task, outcome, row in zip(entries, self.outcomes, self.retention)
        ]

    def _save(self, result):
        """Stores the network in --save_dir."""
        network = checkpoint.Network(
            script=self._experiment.name,
            flags=result["flags"],
            tasks=self._known_tasks(result["tasks"]),
            active=np.stack([outcome.last.active for outcome in self.outcomes]),
            fixed_path=self._fixed_path,
            parameters=self._net.parameters(),
        )
        checkpoint.write_network(FLAGS.save_dir, network)
        print(f"Saved: {FLAGS.save_dir}")

    def _result(self):
        """The object for results.jsonl."""
        used = np.cumsum([outcome.geopath for outcome in self.outcomes], axis=0) > 0
        tasks = [
            {
                **o.entry(),
                "accuracy_test_after_all": now,
                "modules_so_far": int(modules.sum()),
            }
            for o, now, modules in zip(self.outcomes, self.retention[-1], used)
        ]
        return {
            "script": self._experiment.name,
            "seed": self.seed,
            "control": self.control,
            "flags": run_flags(),
            "versions": recording.versions(),
            "tasks": tasks,
            "overlap": self.overlap(),
            "retention": self.retention,
            "seconds": round(sum(o.seconds for o in self.outcomes), 3),
        }


class Scratch(Repeat):
    """The control "scratch": nothing is frozen, so every task has a new network."""

    control = "scratch"

    def freeze(self):
        pass


class FineTune(Repeat):
    """The control "finetune": task 1's best path, trained on for every later task.

    All its parameters are kept and none is frozen; only the output layer is new.
    """

    control = "finetune"

    def begin(self, number):
        if number == 0:
            return super().begin(number)
        everything = np.ones_like(self._fixed_path)
        self._net.initialize(self.seed, number, everything)
        return self.outcomes[0].last.path[None]  # a population of one does not evolve

    def freeze(self):
        pass


class FixedSize(Repeat):
    """The control "fixed_size": as many modules as a path may use, and no others.

    Every task has a new network, of which all modules are active.
    """

    control = "fixed_size"

    def choose_net(self, experiment):
        return experiment.selected_net

    def begin(self, number):
        grid = self._net.grid
        self._net.initialize(self.seed, number, self._fixed_path)
        return np.tile(np.arange(grid.N), (1, grid.L, 1))

    def freeze(self):
        pass


CONTROLS = {kind.control: kind for kind in (Repeat, Scratch, FineTune, FixedSize)}


class Trail:
    """What a repeat leaves to look at: events, paths.png, evolution.gif, retention.png."""

    def __init__(self, folder, net):
        self._folder = folder
        self._net = net
        self._events = recording.Events(folder, net.graph)
        self._events.text("flags", recording.as_markdown(run_flags()))
        self._snapshots = []
        self._before = 0  # generations of earlier tasks
        self._last = None  # step and time of the last point

    def begin(self, generation):
        """Goes on with a task that has had so many generations."""
        self._last = (self._before + generation, time.monotonic())

    def flush(self):
        """Hands over the events so far."""
        self._events.flush()

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
            picture = pictures.population_image(geopaths)
            self._events.image(step, "evolution/population", picture)
        self._snapshots.append(
            pictures.Snapshot(
                task.title, now.number, now.best_fitness, geopaths, best, fixed_path
            )
        )
        if ends:
            self._before = step

    def recall(self, task, outcome, fixed_path):
        """Adds the end of a task that was learned in an earlier process."""
        self._before += outcome.generations
        best = outcome.geopath
        self._snapshots.append(
            pictures.Snapshot(
                task.title,
                outcome.generations,
                outcome.last.best_fitness,
                best[None],
                best,
                fixed_path,
            )
        )

    def close(self, outcomes, result):
        """Ends the events and draws the pictures."""
        self._events.close()
        pictures.draw_paths(
            os.path.join(self._folder, "paths.png"),
            [outcome.geopath for outcome in outcomes],
            [outcome.task.title for outcome in outcomes],
            self._net.grid.kinds(),
        )
        pictures.animate_evolution(
            os.path.join(self._folder, "evolution.gif"), self._snapshots
        )
        if len(outcomes) > 2:
            plotting.plot_retention(
                os.path.join(self._folder, "retention.png"), [result]
            )


def _is_single():
    """Whether this is one repeat, to be told about in full."""
    return FLAGS.runs == 1 and FLAGS.results is None


class _Progress:
    """A progress bar on a terminal, a plain line now and then elsewhere."""

    def __init__(self, number, task, done):
        self._label = f"task {number + 1}, {task.title}"
        self._bar = None
        if sys.stderr.isatty() and FLAGS.results is None:
            # Only without a stop_accuracy within reach is it known where the end is.
            total = FLAGS.max_steps if FLAGS.stop_accuracy == 1 else None
            self._bar = tqdm(
                total=total,
                desc=self._label,
                unit="gen",
                initial=done,
                leave=FLAGS.runs == 1,
            )

    def show(self, now, ends):
        if self._bar is None and (not _is_single() or now.number % PLAIN_LINE_EVERY):
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


def _note_crowding(number, task, grid, fixed_path):
    """Says so where the frozen modules leave a layer fewer than a path may use."""
    free = grid.M - fixed_path.sum(1).astype(int)
    crowded = [
        f"{count} of {grid.M} in layer {layer}"
        for layer, count in enumerate(free, 1)
        if count < grid.N
    ]
    if crowded:
        print(
            f"note: task {number + 1}, {task.title}: fewer modules are free than the "
            f"{grid.N} that a path may use: {', '.join(crowded)}",
            file=sys.stderr,
        )


def _report(number, outcome, fixed_path):
    """How a task ended, with its path as a grid."""
    return pathnet.format_task(
        number, outcome.task.title, outcome.entry(), outcome.geopath, fixed_path
    )


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
    if training.optimizer == "adam":
        floats *= 3  # two moments for each
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

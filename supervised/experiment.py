"""An experiment: repeats of the same tasks, a seed each, under each control.

experiment = Experiment(settings, inputs, classes, data)
for repeat in experiment.repeats():                    # a seed each, under each control
    for task in tasks:
        for tournament in repeat.tournaments(task):    # until a winner is good enough
            paths = tournament.draw()                  # B candidates of the population
            fitness = tournament.train(paths)          # alike, on the same mini-batches
            tournament.overwrite_losers(fitness)       # by mutated copies of the winner
        repeat.freeze()                                # its path; all else is re-initialized
    repeat.finish("...")                               # results and pictures, the last line
"""

import dataclasses
import datetime
import functools
import os
import time
from collections.abc import Iterator, Sequence

import numpy as np

import pathnet
from common import events, folders, network, results
from common.batch import Batch
from common.commandline import UserError
from reports import tables
from reports.population import count_overlap
from supervised import checkpoints, display, outcomes, pictures, recorder, sizes
from supervised.controls import CONTROLS, PathNet
from supervised.generation import TrainablePathNet
from supervised.outcomes import Outcome
from supervised.settings import Settings, of_task
from supervised.streams import TOURNAMENT, random_stream
from supervised.tournaments import Generation, Task, Tournament, Trainer

CHANCE_GENERATIONS = 300  # so many at chance in sequence, and the user is told
CHANCE_MARGIN = 0.05  # of fitness above the share of the most frequent class


class Experiment:
    """One call of a script: the grid, built once, and the folder of the run.

    Attributes:
      settings: of the script. data: what is learned from, by name of the data set.
      folder: of the run; None for a batch's share.
      display: what prints. pictures: what draws.
      first_task: of the last repeat; what further controls of its seed begin with.
    """

    def __init__(
        self, settings: Settings, inputs: int, classes: Sequence[int], data: dict
    ):
        """Builds the grid.

        Args:
          settings: of the script.
          inputs: pixels of an image. classes: number of them, for each task.
          data: what `datasets.describe` says of each data set, by name. It is recorded:
            results of other data are results of another setting.

        Raises:
          UserError: the grid or the population does not fit into memory, or the network
            not into the grid. Or the results file is damaged.
          OSError: the folder of the run cannot be made, or its results cannot be written.
        """
        self.settings = settings
        self.data = data
        self._check_data()
        self._check_few_images(classes)
        grid = pathnet.Grid(**settings.grid, inputs=inputs, classes=tuple(classes))
        training = settings.training
        sizes.check_memory(grid, training, settings.candi)
        # A sequential tournament, as well as fine-tuning, trains a candidate alone.
        alone = "finetune" in settings.controls or "sequential" in settings.tournaments
        self._nets = {False: TrainablePathNet(grid, training, alone=alone)}
        if any(CONTROLS[name].fixed_size for name in settings.controls):
            # N modules a layer are all there is, and one candidate.
            self._nets[True] = TrainablePathNet(
                dataclasses.replace(grid, M=grid.N), dataclasses.replace(training, B=1)
            )
        if settings.network.parameters:
            (control,) = settings.controls
            self._restore(self.net_of(CONTROLS[control]))
        self.folder = None if settings.results_file else self._make_folder()
        results.check_appendable(self._results_file())
        self._compile_ahead()
        self.display = self._choose_display()
        self.pictures = self._choose_pictures()
        self.first_task: FirstTask | None = None

    def repeats(self) -> "Iterator[Repeat]":
        """Yields a Repeat for each seed, under each control; of a batch this share."""
        settings = self.settings
        seeds = range(settings.seed, settings.seed + settings.runs)
        wanted = ((seed, name) for seed in seeds for name in settings.controls)
        if settings.results_file is not None:
            shared = Batch(
                settings.results_file,
                settings.script,
                settings.flags,
                settings.may_differ,
                self.data,
            )
            wanted = shared.claim(wanted)
        elif any(CONTROLS[name].freezes for name in settings.controls):
            display.note_capacity(self._nets[False].grid, len(settings.tasks))
        for seed, name in wanted:
            repeat = Repeat(self, seed, CONTROLS[name])
            with repeat.checkpoints:
                yield repeat

    def net_of(self, control: PathNet) -> TrainablePathNet:
        """The grid that is learned on under a control."""
        return self._nets[control.fixed_size]

    def is_last(self, seed: int, control: str) -> bool:
        """Whether nothing is learned after this repeat."""
        settings = self.settings
        last = settings.seed + settings.runs - 1, settings.controls[-1]
        return (seed, control) == last

    def recorder_of(self, seed: int, control: str) -> recorder.Recorder:
        """What records a repeat, in a folder of its own if there are several."""
        settings = self.settings
        if not self._records():
            return recorder.NoRecorder()
        names = [f"seed_{seed}"] if settings.runs > 1 else []
        names += [control] if len(settings.controls) > 1 else []
        folder = folders.below(self.folder, *names)
        net = self.net_of(CONTROLS[control])
        return recorder.Recorder(folder, net, settings.test_every, settings.flags)

    def checkpoints(self) -> checkpoints.Checkpoints:
        """Those of this run: only a single repeat is resumed."""
        settings = self.settings
        if self.folder and settings.runs == len(settings.controls) == 1:
            return checkpoints.Checkpoints(self.folder, settings.checkpoint_seconds)
        return checkpoints.NoCheckpoints()

    def append(self, result: dict) -> int:
        """Appends a repeat to the results; returns its place in them, from 1 on.

        A run that was killed after its line had been written has it already.
        """
        settings, file = self.settings, self._results_file()
        if settings.resume:
            held = results.batch(
                file, settings.script, settings.flags, settings.may_differ, self.data
            )
            if held:
                return len(held)
        return results.append(file, result)

    def _records(self):
        """Whether repeats leave events and pictures."""
        return self.settings.records and self.folder is not None

    def _results_file(self):
        """Where its repeats go."""
        file = self.settings.results_file
        return file or os.path.join(self.folder, "results.jsonl")

    def _make_folder(self):
        settings = self.settings
        if settings.resume is not None:
            return settings.resume
        now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        tasks = folders.joined([folders.named(name) for name in settings.tasks])
        label = f"{settings.script}__{tasks}__seed{settings.seed}__{now}"
        folder = folders.new(settings.log_dir, label)
        folders.occupy(folder)
        checkpoints.mark(folder, settings.script, settings.flags)
        return folder

    def _check_data(self):
        """Raises UserError where a network was learned from other data than these."""
        loaded, folder = self.settings.network, self.settings.loaded_from
        for name, description in self.data.items():
            if loaded.data.get(name, description) != description:
                is_own = os.path.isabs(name)
                remedy = "put that back" if is_own else "name theirs in --data_dir"
                raise UserError(
                    f"{folder}: was learned from other data, {name} {loaded.data[name]}, "
                    f"than these, {description}; {remedy}"
                )

    def _check_few_images(self, classes):
        """Raises UserError where a class would be left without a training image."""
        for number, count in enumerate(classes):
            kept = of_task(self.settings.train_images, number)
            if kept is not None and kept < count:
                raise UserError(
                    f"flag --train_images: {kept} for task {number + 1}, which has {count} "
                    f"classes: leave it {count} or more"
                )

    def _compile_ahead(self):
        """Has compiled, in a thread, what the first tasks run under the first control."""
        settings, first = self.settings, len(self.settings.network.tasks)
        control = CONTROLS[settings.controls[0]]
        freezes = any(CONTROLS[name].freezes for name in settings.controls)
        shapes = [
            (
                settings.B if settings.is_fair(task) and not control.fixed_size else 1,
                freezes and task > 0,
            )
            for task in range(first, min(first + 2, len(settings.tasks)))
        ]
        self.net_of(control).compile_ahead(*dict.fromkeys(shapes))

    def _choose_display(self):
        settings = self.settings
        # Only without a stop_accuracy within reach is it known where the end is.
        total = settings.max_steps if settings.stop_accuracy == 1 else None
        if settings.results_file is not None:
            return display.BatchDisplay(total)
        kind = display.SingleDisplay if settings.runs == 1 else display.RepeatsDisplay
        return kind(self.folder, settings.controls, total, settings.records)

    def _choose_pictures(self):
        if self._records():
            return pictures.Pictures(self.folder, self.settings.controls)
        return pictures.NoPictures()

    def _restore(self, net):
        """Gives a grid the parameters of the loaded network."""
        loaded, folder = self.settings.network, self.settings.loaded_from
        values = net.parameters()
        if loaded.parameters.keys() != values.keys():
            raise UserError(f"{folder}: its network has other parameters than the grid")
        for name, value in values.items():
            array = loaded.parameters[name]
            # The grid has an output layer for each task; a finished network has them for
            # the tasks that it has learned, an interrupted run for all of its tasks.
            if name.startswith("output/") and not self.settings.resume:
                array = pathnet.widened(net.grid, name, array, len(loaded.tasks))
            if array.shape != value.shape:
                raise UserError(
                    f"{folder}: {name} is of shape {list(array.shape)}, and the grid "
                    f"needs {list(value.shape)}"
                )
            values[name] = array
        net.set_parameters(values)


class Repeat:
    """All tasks learned once, from one seed, under one control.

    Attributes:
      seed: of all that is drawn. control: name of the control.
      outcomes: of the tasks so far. checkpoints: of the repeat, while it goes on.
    """

    def __init__(self, experiment: Experiment, seed: int, control: PathNet):
        self.seed = seed
        self.outcomes: list[Outcome] = []
        self._experiment = experiment
        self._settings = experiment.settings
        self.control = control.name
        self._control = control
        self._net = experiment.net_of(control)
        self._retention = []  # a row a task: accuracy then on each task up to it
        grid = self._net.grid
        self._fixed_path = np.zeros([grid.L, grid.M], np.float32)
        self._is_over = False  # whether the last task has ended and is not frozen yet
        self.checkpoints = experiment.checkpoints()
        self._recorder = experiment.recorder_of(seed, control.name)

    def tournaments(self, task: Task) -> Iterator[Tournament]:
        """Tournaments between paths until a winner is good enough (section 2.2).

        Gives up after max_steps generations, with the last winner. There are none of a
        task that the loaded network has learned; one that it has begun goes on.

        Yields:
          Tournament, on which the caller calls draw, train and overwrite_losers.

        Raises:
          RuntimeError: one of these three was left out, or the task before this one was
            not frozen.
          UserError: training diverged.
          OSError: the events or a checkpoint cannot be written.
        """
        if self._is_over:
            raise RuntimeError("freeze was not called after the task before this one")
        number, fixed_path = len(self.outcomes), self._fixed_path
        if number < len(self._settings.network.tasks):
            self._recall(task)
            return
        if number == 0 and self._shares_first_task():
            self._take_over(self._experiment.first_task)
            return
        display.note_crowding(number, task, self._net.grid, fixed_path)
        learning = self._begin(number, task)
        progress = self._experiment.display.progress(number, task, learning.generation)
        self._recorder.begin(number, task, learning.generation)
        self.checkpoints.begin_task()
        try:
            while not learning.ended:
                if self.checkpoints.are_due():
                    self._save_checkpoint(learning)
                    self.checkpoints.stop_if_asked()
                tournament = self._tournament(task, number, learning)
                yield tournament
                now = tournament.generation()
                self._check_is_finite(task, now.number, now.loss)
                learning.add(now, self._settings)
                progress.show(now, learning.ended)
                if learning.generations_at_chance == CHANCE_GENERATIONS:
                    display.note_chance(number, task, now, self._net.grid)
                if learning.is_logged:
                    self._recorder.add(number, task, now, fixed_path, learning.ended)
        finally:
            progress.close()
        self._end(task, number, learning)

    def freeze(self) -> None:
        """Freezes the modules of the last best path, as the control says.

        Raises:
          RuntimeError: the tournaments of the task did not come to their end.
        """
        if not self._is_over:
            raise RuntimeError(
                "the task is not over: its tournaments come to an end first"
            )
        geopaths = [outcome.geopath for outcome in self.outcomes]
        self._fixed_path = self._control.frozen(self.seed, self._fixed_path, geopaths)
        self._is_over = False

    def overlap(self) -> int:
        """Number of modules that are on the best paths of two tasks or more."""
        return count_overlap([outcome.geopath for outcome in self.outcomes])

    def accuracies(self) -> list[float]:
        """Held-out accuracy on each task so far, after the last of them."""
        return self._retention[-1]

    def finish(self, line: str) -> None:
        """Records the repeat, draws its pictures and prints its line, the last of all.

        Raises:
          OSError: something could not be written; what was written before is whole.
        """
        experiment, result = self._experiment, self._result()
        place = experiment.append(result)
        if self._settings.save_dir is not None:
            self._save(result)
            experiment.display.network_saved(self._settings.save_dir)
        (shown,) = tables.with_short_names([result])
        self._recorder.close(shown)
        experiment.pictures.add(
            pictures.Learned(
                self._recorder.folder,
                self.outcomes,
                shown,
                self._recorder.snapshots,
                self._net.grid.kinds(),
            )
        )
        is_last = experiment.is_last(self.seed, self.control)
        if is_last:
            experiment.pictures.finish()
        self.checkpoints.discard()
        experiment.display.repeat_ended(self.outcomes, shown, line, place, is_last)

    def _begin(self, number, task):
        """What a task starts from, or what an interrupted run had come to in it."""
        state = self._settings.network
        if isinstance(state, network.State) and number == len(state.tasks):
            return Learning(
                task, state.population, state.generation, state.curve, state.seconds
            )
        settings, kept = self._settings, self._fixed_path
        if settings.fixed_path_random:
            kept = np.zeros_like(kept)
        paths = [outcome.last.path for outcome in self.outcomes]
        started = time.monotonic()
        population = self._control.population(
            self._net, self.seed, kept, paths, settings.candi, settings.replacement
        )
        return Learning(task, population, seconds=time.monotonic() - started)

    def _tournament(self, task, number, learning):
        """The next tournament of a task."""
        settings, grid = self._settings, self._net.grid
        generation, population = learning.generation + 1, learning.population
        training = settings.training
        return Tournament(
            generation,
            population,
            min(settings.B, len(population)),
            random_stream(self.seed, TOURNAMENT, number, generation),
            Trainer(
                self._net,
                task,
                number,
                self._fixed_path,
                generation,
                images=training.T * training.batch_num,
                fair=settings.is_fair(number),
                in_order=settings.in_order,
                selects_by_test=settings.selects_by_test(number),
            ),
            pathnet.mutation_rule(
                settings.mutation,
                grid.L,
                grid.N,
                settings.paths,
                settings.mutation_rate,
            ),
            functools.partial(self._control.selection, enough=settings.stop_accuracy),
        )

    def _check_is_finite(self, task, generation, *values):
        """Ends the run where numbers overflow: nothing can be learned from there on.

        Raises:
          UserError: one of the values, arrays, is not finite.
        """
        if all(np.isfinite(array).all() for array in values):
            return
        rate = self._settings.training.learning_rate
        is_average = self._net.grid.aggregation == "average"
        raise UserError(
            f"seed {self.seed}, {task.title}: training diverged in generation "
            f"{generation}, its loss is not finite; nothing of it is kept: choose a "
            f"--learning_rate below {rate:g}"
            + ("" if is_average else " or --aggregation=average")
        )

    def _end(self, task, number, learning):
        """Measures what was learned, and what is left of the tasks before."""
        parameters = self._net.parameters().values()
        self._check_is_finite(task, learning.generation, *parameters)
        last, train, test = learning.last, task.train, task.test
        seen = train.images.take(last.batches, 0), train.labels[last.batches]
        outcome = Outcome(
            task=task.without_training(),
            last=last,
            converged=last.best_fitness >= self._settings.stop_accuracy,
            accuracy_train=self._net.accuracy(last.active, *seen, number),
            accuracy_test=self._net.accuracy(
                last.active, test.images, test.labels, number
            ),
            seconds=learning.seconds(),
            curve=learning.curve,
            selected_by_test=self._settings.selects_by_test(number),
        )
        earlier = [
            self._net.accuracy(o.last.active, o.task.test.images, o.task.test.labels, k)
            for k, o in enumerate(self.outcomes)
        ]
        self._retention.append([*earlier, outcome.accuracy_test])
        self.outcomes.append(outcome)
        self._is_over = True
        self._experiment.display.task_ended(number, outcome, self._fixed_path)
        display.note_kept(number, outcome, self._settings.training.writeback)
        if (
            number == 0
            and len(self._settings.controls) > 1
            and self._control.first_task_alike
        ):
            self._experiment.first_task = FirstTask(
                self.seed,
                outcome,
                self._net.parameters(),
                list(self._recorder.snapshots),
            )

    def _shares_first_task(self):
        """Whether another control has just learned the first task of this seed, alike."""
        learned = self._experiment.first_task
        return (
            learned is not None
            and learned.seed == self.seed
            and self._control.first_task_alike
        )

    def _take_over(self, learned):
        """Takes over a first task as another control has learned it."""
        self._net.set_parameters(learned.parameters)
        self.outcomes.append(learned.outcome)
        self._retention.append([learned.outcome.accuracy_test])
        self._recorder.recall(learned.outcome, self._fixed_path, learned.snapshots)
        self._is_over = True

    def _recall(self, task):
        """Takes up what the loaded network has of a task that it has learned."""
        number, loaded = len(self.outcomes), self._settings.network
        entry = loaded.tasks[number]
        outcome = outcomes.from_network(
            task.without_training(), entry, loaded.active[number]
        )
        self.outcomes.append(outcome)
        self._retention.append(entry["retention"])
        self._recorder.recall(outcome, self._fixed_path)
        self._is_over = True
        self._experiment.display.task_ended(number, outcome, self._fixed_path)

    def _save_checkpoint(self, learning):
        """Writes a checkpoint of a task that goes on."""
        self._recorder.flush()
        entries = [outcome.entry() for outcome in self.outcomes]
        self.checkpoints.save(
            network.State(
                **self._learned(entries),
                names=self._settings.tasks,
                generation=learning.generation,
                seconds=learning.seconds(),
                curve=learning.curve,
                population=learning.population,
                run=self.checkpoints.run,
            )
        )

    def _save(self, result):
        """Stores the finished network in --save_dir.

        A run that was killed after that has done it already: the settings have been
        compared as they were read.
        """
        settings = self._settings
        if settings.resume is None or not os.path.lexists(settings.save_dir):
            learned = network.Network(**self._learned(result["tasks"]))
            network.write_network(settings.save_dir, learned)

    def _learned(self, entries):
        """Arguments of `network.Network`, with these entries of results.jsonl."""
        grid = self._net.grid
        tasks = [
            {**entry, "title": outcome.task.title, "retention": row}
            for entry, outcome, row in zip(entries, self.outcomes, self._retention)
        ]
        active = [outcome.last.active for outcome in self.outcomes]
        return {
            "script": self._settings.script,
            "flags": self._settings.flags,
            "data": self._settings.network.data | self._experiment.data,
            "tasks": tasks,
            "active": np.reshape(active, (-1, grid.L, grid.M)),
            "fixed_path": self._fixed_path,
            "parameters": self._net.parameters(),
        }

    def _result(self):
        """The object for results.jsonl."""
        used = np.cumsum([outcome.geopath for outcome in self.outcomes], axis=0) > 0
        tasks = [
            {
                **outcome.entry(),
                "accuracy_test_after_all": now,
                "modules_so_far": int(modules.sum()),
            }
            for outcome, now, modules in zip(self.outcomes, self._retention[-1], used)
        ]
        remembered = {"retention": self._retention}
        return {
            "script": self._settings.script,
            "seed": self.seed,
            "control": self.control,
            "flags": self._settings.flags,
            "data": self._experiment.data,
            "versions": events.versions(),
            "tasks": tasks,
            "overlap": self.overlap(),
            **remembered,
            "average_accuracy": tables.average_accuracy(remembered),
            "backward_transfer": tables.backward_transfer(remembered),
            "seconds": round(sum(o.seconds for o in self.outcomes), 3),
        }


@dataclasses.dataclass(frozen=True)
class FirstTask:
    """A first task, which the controls of a seed begin with alike.

    Attributes:
      seed: of the repeat. outcome: of the task.
      parameters: of the grid when it had ended, as of `pathnet.PathNet.parameters`.
      snapshots: its generations, as of `recorder.Recorder`.
    """

    seed: int
    outcome: Outcome
    parameters: dict[str, np.ndarray]
    snapshots: list


class Learning:
    """How far a task has come.

    Attributes:
      population: int [candi, L, N], which its tournaments change.
      generation: number of those that are over.
      curve: {"generation": [...], "fitness": [...]}, of the winners.
      last: its last Generation. ended: whether the task is over.
      is_logged: whether the last generation is a point of the curves.
      generations_at_chance: how many of the last ones, in sequence, were no better than
        guessing.
    """

    def __init__(self, task, population, generation=0, curve=None, seconds=0.0):
        self.population = population
        self.generation = generation
        self.curve = curve or {"generation": [], "fitness": []}
        self.last: Generation | None = None
        self.ended = False
        self.is_logged = False
        self.generations_at_chance = 0
        labels = np.bincount(task.train.labels)
        self._chance = labels.max() / labels.sum()
        self._started = time.monotonic() - seconds

    def add(self, now: Generation, settings: Settings) -> None:
        """Adds the next generation."""
        self.last, self.generation = now, now.number
        converged = now.best_fitness >= settings.stop_accuracy
        self.ended = converged or now.number == settings.max_steps
        self.is_logged = events.is_logged(now.number) or self.ended
        if now.best_fitness < self._chance + CHANCE_MARGIN:
            self.generations_at_chance += 1
        else:
            self.generations_at_chance = 0
        if self.is_logged:
            self.curve["generation"].append(now.number)
            self.curve["fitness"].append(now.best_fitness)

    def seconds(self) -> float:
        """Wall-clock time of the task so far."""
        return time.monotonic() - self._started

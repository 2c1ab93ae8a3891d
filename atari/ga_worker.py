"""The GA worker: looks at the population, carries out what the loop decides on it.

The loop itself stands in atari_pathnet.py. What happens between two of its looks is
here: connecting, restoring, checkpoints, the end of a task, SIGTERM.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterator

import numpy as np

import pathnet
from a3c import ConvGrid, Learning
from atari import checkpoints, sessions, settings
from atari.cluster import Cluster
from atari.ga_graph import GaGraph
from atari.look import Look, NewPaths
from atari.recorder import Recorder
from atari.scores import Curve, Episode, credit, scores
from atari.sessions import LOST
from atari.stopping import Stopping
from common import checkpoint, folders
from common import tf1 as tf
from common.commandline import UserError, say

# Tells what draws frozen modules at random from what draws in a look.
FROZEN = 1


class GaWorker:
    """What the GA worker remembers from one look to the next, and how it acts.

    `looks` is a generator, and the script decides: `freeze` and `hand_out` note down a
    decision, which is carried out when the script asks for the next look.

    Args:
      role: the cluster and this process of it.
      grid, learning: what is built, and how it learns.
      plan: games, seed, control, times, folders; see settings.GaWorker.
    """

    def __init__(
        self, role: Cluster, grid: ConvGrid, learning: Learning, plan: settings.GaWorker
    ) -> None:
        self._role, self._grid, self._plan = role, grid, plan
        self._max_time_step = learning.max_time_step
        self.graph = GaGraph(role, grid, learning)
        self._recorder = Recorder(
            plan.folder, plan.games, plan.flags, grid.M, self._max_time_step
        )
        self._stopping = Stopping()
        self._flags = plan.flags  # under which the last task was learned
        self._results = None  # the folder that has the results, once it does
        self._state = None  # the ClusterState of the last look
        self._decision = None  # an actor to freeze, or NewPaths; None before the loop's
        self._begin_task([], Curve(self._max_time_step))

    # The loop -------------------------------------------------------------------------

    def looks(self) -> Iterator[Look]:
        """Looks of which each asks for a decision, until all tasks are over.

        Whatever happens to the servers: when they are lost it connects again, and goes
        on from the last checkpoint if need be. SIGTERM, SIGHUP and Ctrl-C end it with a
        last checkpoint.

        Raises:
          UserError: another cluster keeps its checkpoints in the same folder, or they
            were made with other settings.
          OSError: that folder cannot be made or written.
          RuntimeError: the loop did not decide on a look.
        """
        for folder in (self._plan.folder, self._plan.checkpoint_dir):
            os.makedirs(folder, exist_ok=True)
        folders.occupy(self._plan.checkpoint_dir)
        self._load()  # refuses that of other settings before anything is started
        server = sessions.serve(self._role, self._plan.threads)
        while True:
            try:
                with sessions.connect(server, self._role, self.graph.graph) as session:
                    self._stopping.listen()
                    self.set_up(session)
                    yield from self._looks(session)
                    self.record(session)
                    # Only now: without servers, nobody could take this one's place.
                    with contextlib.suppress(*LOST):
                        self.graph.leave(session)
                return
            except LOST as error:
                say(
                    f"lost the parameter servers, trying again ({sessions.cause(error)})"
                )
                # There is nothing to save without them, and no end to waiting for them.
                self._stop_if_asked()
                self._stopping.unlisten()
                time.sleep(1)
            finally:
                self.close()

    def freeze(self, best: int) -> None:
        """The path of this actor is frozen, and the next task begins.

        Raises:
          RuntimeError: the task is not over.
        """
        if not self._look.task_is_over:
            raise RuntimeError("freeze(best) ends a task: look.task_is_over is false")
        self._decision = best

    def hand_out(self, new: NewPaths) -> None:
        """The losers of a tournament go on with their new paths, without a score.

        Raises:
          RuntimeError: the task is over.
        """
        if self._look.task_is_over:
            raise RuntimeError(
                "hand_out(new_paths): the task is over, freeze its best path"
            )
        self._decision = new

    def _looks(self, session):
        """The looks of one session."""
        saved = time.monotonic()
        while (look := self.observe(session)) is not None:
            if self.asks_for_decision(look):
                yield look
                self.carry_out(session)
            if self.all_tasks_are_over():
                continue  # nothing is left to wait for: the next look is none
            if self._stopping.asked:
                self.save(session)
                say("stopped, with a checkpoint")
                self._stop_if_asked()
            if time.monotonic() - saved > self._plan.checkpoint_seconds:
                self.save(session)
                saved = time.monotonic()
            self._stopping.sleep(self._plan.tournament_seconds)

    def asks_for_decision(self, look: Look) -> bool:
        """Whether the loop sees this look.

        Fine-tuning goes on with the best path of the first task: nothing evolves.
        """
        evolves = self._plan.control != "finetune" or self._state.task == 0
        return look.task_is_over or evolves

    def all_tasks_are_over(self) -> bool:
        """Whether there is an outcome of every task."""
        return len(self._outcomes) == len(self._plan.games)

    def _stop_if_asked(self):
        """Ends this process if a signal has asked for it."""
        if self._stopping.asked == signal.SIGINT:
            raise KeyboardInterrupt
        if self._stopping.asked:
            raise SystemExit(128 + self._stopping.asked)

    # One look -------------------------------------------------------------------------

    def observe(self, session) -> Look | None:
        """Counts the episodes that have ended; None once all tasks are over.

        Raises:
          LOST: the servers cannot be reached, or have lost what they held.
        """
        state = self.graph.read(session)
        if not state.ready:
            raise tf.errors.AbortedError(None, None, "a server was started again")
        if state.task >= len(self._plan.games):
            return None
        episodes = self.graph.take_episodes(session)
        episodes = episodes[episodes[:, 0] == state.task]
        returns, played = credit(state.returns, state.played, state.versions, episodes)
        for episode in map(Episode._make, episodes):
            self._curve.add(episode.steps, episode.episodic_return)
        self.graph.assign(session, returns=returns, played=played)
        self._state = state._replace(returns=returns, played=played)
        self._recorder.add(self._state, episodes, self._curve.score())
        self._decision = None
        self._look = Look(
            self._rng(state.task, state.generation, state.steps),
            state.paths,
            scores(returns, played),
            self._plan.B,
            self._grid.M,
            task_is_over=self._curve.has_reached(self._plan.stop_score)
            or state.steps >= self._max_time_step,
            selects=self._plan.control != "no_selection",
        )
        return self._look

    def carry_out(self, session) -> None:
        """Does what the loop has decided on the last look.

        Raises:
          RuntimeError: the loop has left out one of its verbs.
          LOST: as of `observe`.
        """
        look, decision = self._look, self._decision
        if decision is None:
            _check_nothing_is_left_out(look)
        elif look.task_is_over:
            self._end_task(session, decision)
        else:
            self._overwrite(session, decision)

    def _overwrite(self, session, new):
        """The winner's score is kept; those of the losers belong to their old paths."""
        state = self._state
        lost = np.isin(np.arange(self._role.actors), new.losers)
        self.graph.assign(
            session,
            paths=new.paths,
            versions=state.versions + lost,
            returns=np.where(lost, 0, state.returns),
            played=np.where(lost, 0, state.played),
            generation=state.generation + 1,
        )

    def _end_task(self, session, best):
        """Freezes the path of an actor, and begins the next task if there is one."""
        state, game = self._state, self._plan.games[self._state.task]
        geopath = pathnet.to_geopath(state.paths[best], self._grid.M)
        outcome = {
            "name": game,
            "generations": state.generation,
            "steps": state.steps,
            "score": self._curve.score(),
            "path": state.paths[best].tolist(),
            "curve": self._curve.points(),
        }
        self.graph.switch(session, **self._next_task(best, geopath))
        say(
            f"task {state.task + 1}, {game}: over after {state.steps:,} steps, score "
            f"{self._curve.score()}"
        )
        print(pathnet.format_geopath(geopath, state.fixed_paths.max(0)), flush=True)
        self.close()
        self._begin_task([*self._outcomes, outcome], Curve(self._max_time_step))
        self.save(session)

    def _next_task(self, best, geopath):
        """The arguments of GaGraph.switch: as in the paper, or of a control."""
        state, control = self._state, self._plan.control
        nothing, everything = np.zeros_like(geopath), np.ones_like(geopath)
        fixed_path = state.fixed_paths.max(0)
        frozen = geopath
        if control in ("scratch", "finetune"):
            frozen = nothing
        elif control == "random_frozen":
            rng = self._rng(state.task, 0, 0, FROZEN)
            frozen = pathnet.random_modules(rng, fixed_path, geopath)
        kept = pathnet.freeze(fixed_path, frozen)
        paths = self._random_paths(state.task + 1)
        if control == "random_frozen":
            kept = nothing  # untrained
        elif control == "finetune":
            kept = everything
            paths = np.repeat(state.paths[best : best + 1], self._role.actors, 0)
        return {
            "seed": (self._plan.seed, state.task + 1),
            "geopath": frozen,
            "kept": kept,
            "inherit": control == "finetune",
            "paths": paths,
        }

    def _random_paths(self, task):
        grid, rng = self._grid, self._rng(task)
        return pathnet.random_paths(rng, self._role.actors, grid.L, grid.M, grid.N)

    def _rng(self, *key):
        return np.random.default_rng(
            np.random.SeedSequence(self._plan.seed, spawn_key=key)
        )

    # Setting up, and saving -----------------------------------------------------------

    def set_up(self, session) -> None:
        """Makes the servers ready: as they are, from a checkpoint, or anew.

        Raises:
          UserError: the checkpoint was made with other settings.
        """
        if self.graph.is_initialized(session):
            state = self.graph.read(session)
            if state.ready and self._remembers(state.task):
                say("the parameter servers are as they were left")
                return
        self.graph.clear(session)
        self.graph.set_ready(session, False)
        loaded = self._load()
        if loaded is None and self._plan.load_dir is not None:
            self._begin_after_learned(session)
        elif loaded is None:
            paths = self._random_paths(0)
            self.graph.initialize(session, (self._plan.seed, 0), paths)
            self._begin_task([], Curve(self._max_time_step))
            say("new parameters, a new population")
        else:
            about, arrays = loaded
            self._remember(about, arrays)
            self.graph.restore(session, arrays)
            task, steps = int(arrays["task"]), int(arrays["steps"])
            where = (
                "the end" if about.is_finished else f"task {task + 1}, {steps:,} steps"
            )
            say(f"resuming from a checkpoint: {where}")
        self.graph.set_ready(session, True)

    def _begin_after_learned(self, session):
        """Begins the first task after those of another run, as if they were of this one.

        Raises:
          UserError: that run has other settings, or is not over.
        """
        folder = self._plan.load_dir
        about, arrays = checkpoints.learned(folder, self._about())
        learned = len(about.games)
        path = np.array(about.outcomes[-1]["path"])
        paths = np.repeat(path[None], self._role.actors, 0)
        self.graph.initialize(session, (self._plan.seed, 0), paths)
        # As it was when the last of those tasks ended, but for modules that had no part
        # in its best path: these are new already, and stay so under every control.
        fixed_paths = np.zeros_like(self.graph.read(session).fixed_paths)
        fixed_paths[: learned - 1] = arrays["fixed_paths"][: learned - 1]
        names = checkpoints.parameter_shapes(about.grid)
        self.graph.assign(
            session,
            task=learned - 1,
            fixed_paths=fixed_paths,
            **{name: arrays[name] for name in names},
        )
        self._state = self.graph.read(session)
        geopath = pathnet.to_geopath(path, self._grid.M)
        self.graph.switch(session, **self._next_task(0, geopath))
        self._begin_task(list(about.outcomes), Curve(self._max_time_step))
        say(f"on top of what was learned in {folder}: {', '.join(about.games)}")

    def _remembers(self, task):
        """Whether this process remembers how the tasks before this one went.

        After a death of this process alone that is in the checkpoint. One of an earlier
        task says too little: then that process died as it ended the task.
        """
        if len(self._outcomes) != task or not self._curve.recent:
            loaded = self._load()
            if loaded is not None and int(loaded[1]["task"]) == task:
                self._remember(*loaded)
        return len(self._outcomes) == task

    def _load(self):
        """The newest checkpoint as (About, arrays), or None; UserError if it is another's."""
        folder = self._plan.checkpoint_dir
        loaded = checkpoints.load(folder)
        if loaded is not None:
            decisive = self._plan.decisive
            checkpoints.check_same_settings(loaded[0], self._about(), decisive, folder)
        return loaded

    def _remember(self, about, arrays):
        if about.is_finished:
            self._flags, self._results = about.flags, about.results
        then = about.flags["max_time_step"]
        curve = Curve(then, arrays["curve"], arrays["recent"])
        self._begin_task(about.outcomes, curve.over(self._max_time_step))

    def _begin_task(self, outcomes, curve):
        """The task after those with these outcomes; `curve` is what it has so far."""
        self._outcomes, self._curve = outcomes, curve

    def _about(self):
        return checkpoints.About(
            grid=self._grid,
            games=self._plan.games,
            actors=self._role.actors,
            flags=self._flags,
            outcomes=self._outcomes,
            results=self._results,
        )

    def save(self, session) -> None:
        """Writes a checkpoint.

        Raises:
          UserError: training diverged; the checkpoint before is the last one.
          OSError: it cannot be written; the one before is whole.
        """
        arrays = self.graph.read_all(session)
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise UserError(
                f"task {int(arrays['task']) + 1}: training diverged within "
                f"{int(arrays['steps']):,} steps, a parameter is not finite; nothing of "
                "it is kept: choose a lower --learning_rate"
            )
        number = sum(outcome["steps"] for outcome in self._outcomes)
        number += int(arrays["steps"])
        arrays |= {"curve": self._curve.values, "recent": np.array(self._curve.recent)}
        about = self._about().to_json()
        checkpoint.save(self._plan.checkpoint_dir, number, about, arrays)

    def record(self, session) -> None:
        """Records the run once all tasks are over, and that this was done.

        Raises:
          OSError: something cannot be written.
        """
        if self._results is None:
            self.finish()
            self.save(session)

    def finish(self) -> str:
        """Records the run, unless that was done; returns the last line to print.

        The line says so where it was another run that has learned these tasks.

        Raises:
          OSError: something cannot be written.
        """
        folder = os.path.abspath(self._plan.folder)
        if self._results not in (None, folder):
            return checkpoints.nothing_to_do(self._about(), self._plan.checkpoint_dir)
        plan, about = self._plan, self._about()
        line = self._recorder.finish(plan.seed, plan.control, about)
        self._results = folder
        return line

    def close(self) -> None:
        """Ends the curves that are being written."""
        self._recorder.close()


def _check_nothing_is_left_out(look):
    """Raises RuntimeError, with the verb, if a loop decided nothing where it has to."""
    if look.task_is_over:
        missing = "the task is over: freeze(look.best())"
    elif look.drawn is None:
        missing = "no actors were drawn: look.draw()"
    elif look.all_have_played(look.drawn):
        missing = (
            "all actors that were drawn have played: "
            "hand_out(look.overwrite_losers(drawn))"
        )
    else:
        return
    raise RuntimeError(f"the loop over worker.looks() leaves something out; {missing}")

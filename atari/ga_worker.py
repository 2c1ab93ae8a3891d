"""The GA worker: compares actors, mutates their paths, and ends one task for the next.

It also keeps what a user wants to have: checkpoints, TensorBoard's curves of the whole
cluster, status.json for the display, and the line in results.jsonl at the end.
"""

import collections
import dataclasses
import json
import os
import signal
import time

import numpy as np

import pathnet
from atari import parameter_servers
from atari.parameter_servers import LOST
from common import checkpoint, folders, results
from common import events as recording
from common import tf1 as tf
from common.commandline import UserError, say
from reports.paths import draw_paths, population_image

UNSET = -1000.0  # score of an actor that has not finished an episode on its path
BINS = 1000  # of agent steps, in which the curve of a task is kept
IMAGE_SECONDS = 60  # between two pictures of the population


# --------------------------------------------------------------------------------------
# Decisions
# --------------------------------------------------------------------------------------


def scores(returns, played):
    """Score of each actor: the mean return of the episodes on its path, or UNSET.

    Args:
      returns: float [actors], sums over these episodes. played: int [actors], how many.
    """
    return np.where(played > 0, returns / np.maximum(played, 1), UNSET)


def tournament(rng, paths, score, B, M, **mutation):
    """One look of the GA worker: B actors are drawn and, once all have played, compared.

    The best keeps its path and its score; each other gets a mutated copy (the rule of
    `pathnet.overwrite_losers`, as in the supervised tasks) and an unset score.

    Args:
      rng: numpy Generator. paths: int [actors, L, N]. score: float [actors], or UNSET.
      B: actors to draw. M: modules a layer. **mutation: as of `pathnet.mutate`.

    Returns:
      (paths, losers): the new paths, and the indices of the actors that got one; None
      if one of those drawn has not finished an episode yet.
    """
    drawn = pathnet.draw_candidates(rng, len(paths), B)
    if (score[drawn] == UNSET).any():
        return None
    paths = paths.copy()
    paths[drawn], winner = pathnet.overwrite_losers(
        rng, paths[drawn], score[drawn], M, **mutation
    )
    return paths, np.delete(drawn, winner)


def credit(returns, played, versions, episodes):
    """Adds the returns of episodes to the actors that played them on their present path.

    Args:
      returns, played: float and int [actors], so far. versions: int [actors].
      episodes: float [n, len(EPISODE)], rows of one task.

    Returns:
      New (returns, played). An episode begun on an earlier path does not count.
    """
    returns, played = returns.copy(), played.copy()
    for row in episodes:
        episode = dict(zip(parameter_servers.EPISODE, row))
        actor = int(episode["actor"])
        if episode["version"] == versions[actor]:
            returns[actor] += episode["episodic_return"]
            played[actor] += 1
    return returns, played


class Curve:
    """Mean return over agent steps of one task, in bins: bounded, however long it takes.

    Attributes:
      sums, counts: float [BINS], over the episodes that ended in a bin.
      recent: the returns of the last results.SCORE_EPISODES episodes.
    """

    def __init__(self, max_time_step, values=None, recent=()):
        self._width = max_time_step / BINS
        self._values = np.zeros([2, BINS]) if values is None else np.array(values)
        self.recent = collections.deque(recent, results.SCORE_EPISODES)

    def add(self, steps, episodic_return):
        at = min(int(steps / self._width), BINS - 1)
        self._values[:, at] += episodic_return, 1
        self.recent.append(episodic_return)

    @property
    def values(self):
        return self._values

    def score(self):
        """Mean return of the last results.SCORE_EPISODES episodes; None before there are any."""
        return float(np.mean(self.recent)) if self.recent else None

    def over(self, max_time_step):
        """The same curve, as it is kept for another number of steps."""
        curve = Curve(max_time_step, recent=self.recent)
        middles = (np.arange(BINS) + 0.5) * self._width
        bins = np.minimum((middles / curve._width).astype(int), BINS - 1)
        np.add.at(curve._values, (slice(None), bins), self._values)
        return curve

    def points(self):
        """{"steps": [...], "return": [...], "episodes": [...]}, a point a filled bin."""
        sums, counts = self._values
        filled = np.flatnonzero(counts)
        return {
            "steps": [int((b + 1) * self._width) for b in filled],
            "return": [round(float(sums[b] / counts[b]), 3) for b in filled],
            "episodes": [int(counts[b]) for b in filled],
        }


# --------------------------------------------------------------------------------------
# The worker
# --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the GA worker is told.

    Attributes:
      games: names of the tasks. B: actors compared. seed: of all that it draws.
      tournament_seconds, checkpoint_seconds: between two looks, two checkpoints.
      stop_score: score that ends a task, or None.
      control: "pathnet"; "scratch": nothing is frozen, every task starts on new
        parameters; "finetune": the best path of the first task is trained on, alone.
      folder: of the run. checkpoint_dir: of the checkpoints.
      flags: {name: value}, for results and checkpoints.
    """

    games: tuple
    B: int
    seed: int
    tournament_seconds: float
    checkpoint_seconds: float
    stop_score: float
    control: str
    folder: str
    checkpoint_dir: str
    flags: dict


class GaWorker:
    """The graph of the GA worker and what it remembers from one look to the next."""

    def __init__(self, role, grid, learning, settings):
        self._grid, self._settings = grid, settings
        self._actors = role.actors
        self._max_time_step = learning.max_time_step
        self.graph = tf.Graph()
        with (
            self.graph.as_default(),
            tf.device(role.device),
        ):
            self._shared = parameter_servers.Shared(
                grid, role.actors, len(role.ps), learning
            )
            self._build()
        self.graph.finalize()
        self._begin([])

    def _begin(self, outcomes, curve=None):
        """Forgets one task for the next."""
        self._outcomes = outcomes
        self._curve = curve or Curve(self._max_time_step)
        self._events = None
        self._pictured = 0.0

    def _build(self):
        shared, grid = self._shared, self._grid
        self._state = {name: v.read_value() for name, v in shared.state().items()}
        self._uninitialized = tf.report_uninitialized_variables()
        self._seed = tf.placeholder(tf.int64, [2], "seed")
        self._geopath = tf.placeholder(tf.float32, [grid.L, grid.M], "geopath")
        self._kept = tf.placeholder(tf.float32, [grid.L, grid.M], "kept")
        self._inherit = tf.placeholder(tf.bool, [], "inherit")
        self._paths = tf.placeholder(tf.int64, shared.paths.shape, "paths")
        self._zero = tf.global_variables_initializer()
        self._initialize = shared.initialize(self._seed)
        self._switch = shared.switch(
            self._seed, self._geopath, self._kept, self._inherit, self._paths
        )
        self._restored = {
            name: tf.placeholder(v.dtype.base_dtype, v.shape)
            for name, v in shared.state().items()
        }
        self._restore = tf.group(
            *[v.assign(self._restored[name]) for name, v in shared.state().items()]
        )
        self._ready = tf.placeholder(tf.bool, [], "ready")
        self._set_ready = shared.ready.assign(self._ready)
        self._waiting = shared.episodes.size()
        self._take = tf.placeholder(tf.int32, [], "take")
        self._episodes = shared.episodes.dequeue_many(self._take)
        self._population = {
            name: tf.placeholder(v.dtype.base_dtype, v.shape, f"new_{name}")
            for name, v in self._population_variables().items()
        }
        self._set_population = tf.group(
            *[
                variable.assign(self._population[name])
                for name, variable in self._population_variables().items()
            ]
        )
        self._look = dict(
            self._population_variables(),
            task=shared.task,
            steps=shared.steps,
            fixed_paths=shared.fixed_paths,
            ready=shared.ready,
        )
        self._look = {name: v.read_value() for name, v in self._look.items()}

    def _population_variables(self):
        shared = self._shared
        return {
            "paths": shared.paths,
            "versions": shared.versions,
            "returns": shared.returns,
            "played": shared.played,
            "generation": shared.generation,
        }

    # Setting up -----------------------------------------------------------------------

    def set_up(self, session):
        """Makes the servers ready: as they are, from a checkpoint, or anew.

        Raises:
          UserError: the checkpoint was made with other settings.
        """
        if not len(session.run(self._uninitialized)):
            now = session.run(self._look)
            if now["ready"] and self._remembers(int(now["task"])):
                say("the parameter servers are as they were left")
                return
        session.run(self._zero)
        session.run(self._set_ready, {self._ready: False})
        loaded = checkpoint.load(self._settings.checkpoint_dir)
        if loaded is None:
            self._start_anew(session)
            say("new parameters, a new population")
        else:
            self._go_on(session, *loaded)
        session.run(self._set_ready, {self._ready: True})

    def _start_anew(self, session):
        session.run(self._initialize, {self._seed: [self._settings.seed, 0]})
        self._change(session, paths=self._random_paths(0))
        self._begin([])

    def _go_on(self, session, facts, arrays):
        self._check(facts)
        self._remember(facts, arrays)
        session.run(
            self._restore,
            {self._restored[name]: arrays[name] for name in self._restored},
        )
        say(
            f"goes on from a checkpoint: task {int(arrays['task']) + 1}, "
            f"{int(arrays['steps']):,} steps"
        )

    def _remembers(self, task):
        """Whether it is known here how the tasks before this one went.

        After a death of this process alone that is in the checkpoint. Of an earlier task
        it tells too little: then that process died as it ended the task.
        """
        if len(self._outcomes) != task or not self._curve.recent:
            loaded = checkpoint.load(self._settings.checkpoint_dir)
            if loaded is not None:
                self._check(loaded[0])
                if int(loaded[1]["task"]) == task:
                    self._remember(*loaded)
        return len(self._outcomes) == task

    def _remember(self, facts, arrays):
        then = facts["flags"]["max_time_step"]
        curve = Curve(then, arrays["curve"], arrays["recent"])
        self._begin(facts["outcomes"], curve.over(self._max_time_step))

    def _facts(self):
        grid = dataclasses.asdict(self._grid)
        return {
            "grid": {name: list(v) if isinstance(v, tuple) else v for name, v in grid.items()},
            "games": list(self._settings.games),
            "actors": self._actors,
            "flags": self._settings.flags,
            "outcomes": self._outcomes,
        }  # fmt: skip

    def _check(self, facts):
        """Raises UserError if a checkpoint's settings are not this run's."""
        folder, mine = self._settings.checkpoint_dir, self._facts()
        if "grid" not in facts:
            raise UserError(f"flag --checkpoint_dir={folder}: no checkpoints of Atari")
        pairs = [("games", facts["games"], mine["games"])]
        pairs += [("worker_hosts_num", facts["actors"], mine["actors"])]
        pairs += [(n, facts["grid"].get(n), mine["grid"][n]) for n in mine["grid"]]
        for name, theirs, ours in pairs:
            if theirs != ours:
                raise UserError(
                    f"flag --checkpoint_dir={folder}: made with --{name}="
                    f"{_as_flag(theirs)}, and this run has {_as_flag(ours)}; name "
                    "another folder or give the same flags"
                )

    # Looking --------------------------------------------------------------------------

    def look(self, session):
        """What the GA worker does every few seconds; true once all tasks are over.

        Raises:
          LOST: the servers cannot be reached, or have lost what they held.
        """
        now = session.run(self._look)
        if not now["ready"]:
            raise tf.errors.AbortedError(None, None, "a server was started again")
        if now["task"] >= len(self._settings.games):
            return True
        episodes = self._arrived(session, now)
        returns, played = credit(
            now["returns"], now["played"], now["versions"], episodes
        )
        for row in episodes:
            episode = dict(zip(parameter_servers.EPISODE, row))
            self._curve.add(episode["steps"], episode["episodic_return"])
        now = self._change(session, **now | {"returns": returns, "played": played})
        self._log(now, episodes)

        score = self._curve.score()
        enough = (
            self._settings.stop_score is not None
            and len(self._curve.recent) == results.SCORE_EPISODES
            and score >= self._settings.stop_score
        )
        if enough or now["steps"] >= self._max_time_step:
            return self._end_task(session, now)
        if self._settings.control == "finetune" and now["task"] > 0:
            return False  # nothing evolves
        rng = self._rng(now["task"], now["generation"], now["steps"])
        result = tournament(
            rng, now["paths"], scores(returns, played), self._settings.B, self._grid.M
        )
        if result is not None:
            paths, losers = result
            versions = now["versions"].copy()
            versions[losers] += 1
            returns[losers], played[losers] = 0, 0
            self._change(
                session,
                paths=paths,
                versions=versions,
                returns=returns,
                played=played,
                generation=now["generation"] + 1,
            )
        return False

    def _arrived(self, session, now):
        """The episodes that the actors have told of since the last look."""
        waiting = session.run(self._waiting)
        episodes = session.run(self._episodes, {self._take: waiting})
        return episodes[episodes[:, 0] == now["task"]]

    def _change(self, session, **values):
        """Sets the variables of the population that are given; returns all values."""
        now = session.run(self._look) | values
        session.run(
            self._set_population,
            {self._population[name]: now[name] for name in self._population},
        )
        return now

    def _end_task(self, session, now):
        """Freezes the best path and begins the next task; true if there is none."""
        task = int(now["task"])
        best = int(np.argmax(scores(now["returns"], now["played"])))
        geopath = pathnet.to_geopath(now["paths"][best], self._grid.M)
        outcomes = [
            *self._outcomes,
            {
                "name": self._settings.games[task],
                "generations": int(now["generation"]),
                "steps": int(now["steps"]),
                "score": self._curve.score(),
                "path": now["paths"][best].tolist(),
                "curve": self._curve.points(),
            },
        ]
        session.run(self._switch, self._next(now, best, geopath))
        say(
            f"task {task + 1}, {self._settings.games[task]}: over after "
            f"{int(now['steps']):,} steps, score {self._curve.score()}"
        )
        print(pathnet.format_geopath(geopath, now["fixed_paths"].max(0)), flush=True)
        self.close()
        self._begin(outcomes)
        self.save(session)
        return len(outcomes) == len(self._settings.games)

    def _next(self, now, best, geopath):
        """What the switch to the next task is fed: the paper's way, or a control's."""
        task, control = int(now["task"]), self._settings.control
        nothing, everything = np.zeros_like(geopath), np.ones_like(geopath)
        frozen = geopath if control == "pathnet" else nothing
        kept = np.maximum(now["fixed_paths"].max(0), frozen)
        paths = self._random_paths(task + 1)
        if control == "finetune":
            kept = everything
            paths = np.repeat(now["paths"][best : best + 1], self._actors, 0)
        return {
            self._seed: [self._settings.seed, task + 1],
            self._geopath: frozen,
            self._kept: kept,
            self._inherit: control == "finetune",
            self._paths: paths,
        }

    def _random_paths(self, task):
        grid, rng = self._grid, self._rng(task)
        return pathnet.random_paths(rng, self._actors, grid.L, grid.M, grid.N)

    def _rng(self, *key):
        key = [int(k) for k in key]
        return np.random.default_rng(
            np.random.SeedSequence(self._settings.seed, spawn_key=key)
        )

    # What is kept ---------------------------------------------------------------------

    def save(self, session):
        """Writes a checkpoint.

        Raises:
          OSError: it cannot be written; the one before is whole.
        """
        arrays = session.run(self._state)
        number = sum(outcome["steps"] for outcome in self._outcomes)
        number += int(arrays["steps"])
        arrays |= {"curve": self._curve.values, "recent": np.array(self._curve.recent)}
        checkpoint.save(self._settings.checkpoint_dir, number, self._facts(), arrays)

    def finish(self):
        """Appends the line of the run to results.jsonl; returns the last line to print."""
        geopaths = [
            pathnet.to_geopath(np.array(o["path"]), self._grid.M)
            for o in self._outcomes
        ]
        results.append(
            os.path.join(self._settings.folder, "results.jsonl"),
            {
                "script": "atari",
                "seed": self._settings.seed,
                "control": self._settings.control,
                "flags": self._settings.flags,
                "versions": recording.versions(),
                "tasks": self._outcomes,
                "overlap": pathnet.overlap(*geopaths[-2:]) if len(geopaths) > 1 else None,
            },
        )  # fmt: skip
        draw_paths(
            os.path.join(self._settings.folder, "paths.png"),
            geopaths,
            list(self._settings.games),
            np.full([self._grid.L, self._grid.M], "linear"),
        )
        names = "_".join(self._settings.games).upper()
        steps = [f"TASK{n}:{o['steps']}" for n, o in enumerate(self._outcomes, 1)]
        return ",".join([names, *steps, "Done"])

    def _log(self, now, episodes):
        """Curves of the cluster, and status.json."""
        task, steps = int(now["task"]), int(now["steps"])
        game = self._settings.games[task]
        moment = time.monotonic()
        if self._events is None:
            name = f"task{task + 1}_{game}"
            self._events = recording.Events(os.path.join(self._settings.folder, name))
            self._events.text("flags", recording.as_markdown(self._settings.flags))
            self._last = (steps, moment)
            speed = 0.0
        else:
            last_steps, last_moment = self._last
            speed = (steps - last_steps) / max(moment - last_moment, 1e-3)
            self._last = (steps, moment)
        geopaths = pathnet.to_geopath(now["paths"], self._grid.M)
        fixed_path = now["fixed_paths"].max(0)
        score = scores(now["returns"], now["played"])
        best = geopaths[int(np.argmax(score))]
        values = {
            "charts/steps_per_second": speed,
            "evolution/generation": now["generation"],
            "evolution/diversity": pathnet.diversity(geopaths),
            "evolution/overlap": pathnet.overlap(best, fixed_path),
        }
        if len(episodes):
            column = parameter_servers.EPISODE.index("episodic_return")
            values["charts/episodic_return"] = episodes[:, column].mean()
        self._events.scalars(steps, values)
        if moment - self._pictured > IMAGE_SECONDS:
            self._pictured = moment
            picture = population_image(geopaths)
            self._events.image(steps, "evolution/population", picture)
        _write_json(
            os.path.join(self._settings.folder, "status.json"),
            {
                "task": task,
                "game": game,
                "steps": steps,
                "steps_per_second": speed,
                "generation": int(now["generation"]),
                "score": self._curve.score(),
                "actors": [
                    {
                        "score": float(s) if n else None,
                        "episodes": int(n),
                        "path": _short(geopath),
                    }
                    for s, n, geopath in zip(score, now["played"], geopaths)
                ],
                "fixed_path": _short(fixed_path) if fixed_path.any() else None,
            },
        )

    def close(self):
        if self._events:
            self._events.close()
            self._events = None


def run(role, grid, learning, settings, threads):
    """Looks, until all tasks are over, whatever happens to the servers.

    SIGTERM ends it with a last checkpoint.

    Raises:
      UserError: another cluster keeps its checkpoints in the same folder, or they were
        made with other settings.
      OSError: that folder cannot be made or written.
    """
    os.makedirs(settings.checkpoint_dir, exist_ok=True)
    folders.occupy(settings.checkpoint_dir)
    stopped = []
    server = parameter_servers.serve(role, threads)
    worker = GaWorker(role, grid, learning, settings)
    while True:
        try:
            with parameter_servers.connect(server, role, worker.graph, say) as session:
                signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
                worker.set_up(session)
                saved = time.monotonic()
                over = False
                while not over:
                    over = worker.look(session)
                    due = time.monotonic() - saved > settings.checkpoint_seconds
                    if over or due or stopped:
                        worker.save(session)
                        saved = time.monotonic()
                    if stopped and not over:
                        say("stopped, with a checkpoint")
                        raise SystemExit(128 + signal.SIGTERM)
                    _sleep(settings.tournament_seconds, stopped)
                print(worker.finish(), flush=True)
                return
        except LOST as error:
            say(
                f"lost the parameter servers, trying again ({parameter_servers.cause(error)})"
            )
            if stopped:
                raise SystemExit(128 + signal.SIGTERM) from error
            # There is nothing to save without them, and no end to waiting for them.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            time.sleep(1)
        finally:
            worker.close()


def _sleep(seconds, stopped):
    """Sleeps, but not on after SIGTERM."""
    end = time.monotonic() + seconds
    while not stopped and time.monotonic() < end:
        time.sleep(min(0.1, seconds))


def _short(geopath):
    """A geopath [L, M] in a few characters: the active modules of each layer."""
    separator = "" if geopath.shape[1] <= 10 else ","
    layers = [separator.join(map(str, np.flatnonzero(row))) for row in geopath]
    return " ".join(layers)


def _as_flag(value):
    """A value as it is written on the command line."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value).lower()


def _write_json(filename, value):
    partial = f"{filename}.partial"
    with open(partial, "w") as file:
        json.dump(value, file)
    os.replace(partial, filename)

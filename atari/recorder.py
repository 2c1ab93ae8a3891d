"""What a cluster leaves for people: curves, status.json, results.jsonl, a picture."""

import json
import os
import time
from collections.abc import Sequence

import numpy as np

import a3c
import pathnet
from atari import checkpoints
from atari.ga_graph import ClusterState
from atari.scores import scores
from common import disk, events, folders, results
from reports import tensorboard
from reports.paths import draw_paths
from reports.population import population_picture

IMAGE_SECONDS = 60  # between two pictures of the population

# What the curves show, for TensorBoard.
DESCRIPTIONS = {
    "charts/episodic_return": "Mean return of the episodes since the last point.",
    "speed/steps_per_second": "Agent steps a second, of all actors.",
    "evolution/generation": "Tournaments of the task so far.",
    "evolution/diversity": "Mean Jaccard distance between two actors' paths: 1 if no two "
    "share a module, 0 if all are alike.",
    "evolution/overlap": "Modules of the best path that are frozen.",
}


class Recorder:
    """Writes TensorBoard's curves of the whole cluster and its status, look by look.

    Args:
      folder: of the run. games: names of the tasks. flags: {name: value}, to show.
      M: number of modules in a layer. max_time_step: the most agent steps of a task.
    """

    def __init__(
        self,
        folder: str,
        games: Sequence[str],
        flags: dict,
        M: int,
        max_time_step: int,
    ) -> None:
        self._folder, self._games, self._flags = folder, games, flags
        self._M, self._max_time_step = M, max_time_step
        self._events = None
        self._last = None  # (steps, moment) of the look before, in this task
        self._pictured = 0.0

    def add(
        self, state: ClusterState, episodes: np.ndarray, score: float | None
    ) -> None:
        """Records a look.

        Args:
          state: of the cluster. episodes: float [n, len(EPISODE)], new ones of the task.
          score: of the task; None if there is none yet.

        Raises:
          OSError: something cannot be written.
        """
        moment = time.monotonic()
        if self._events is None:
            self._begin_task(state.task)
            self._last = (state.steps, moment)
        last_steps, last_moment = self._last
        speed = (state.steps - last_steps) / max(moment - last_moment, 1e-3)
        self._last = (state.steps, moment)
        geopaths = pathnet.to_geopath(state.paths, self._M)
        self._add_curves(state, episodes, geopaths, speed)
        if moment - self._pictured > IMAGE_SECONDS:
            self._pictured = moment
            picture = population_picture(geopaths, state.fixed_paths.max(0))
            self._events.image(state.steps, "evolution/population", picture)
        self._write_status(state, geopaths, speed, score)

    def _begin_task(self, task):
        name = f"task{task + 1}_{self._games[task]}"
        folder = folders.below(self._folder, name)
        self._events = events.Events(folder, descriptions=DESCRIPTIONS)
        self._events.text("flags", events.as_markdown(self._flags))

    def _add_curves(self, state, episodes, geopaths, speed):
        best = geopaths[int(np.argmax(scores(state.returns, state.played)))]
        values = {
            "speed/steps_per_second": speed,
            "evolution/generation": state.generation,
            "evolution/diversity": pathnet.diversity(geopaths),
            "evolution/overlap": pathnet.overlap(best, state.fixed_paths.max(0)),
        }
        if len(episodes):
            column = a3c.EPISODE.index("episodic_return")
            values["charts/episodic_return"] = episodes[:, column].mean()
        self._events.scalars(state.steps, values)

    def _write_status(self, state, geopaths, speed, score):
        fixed_path = state.fixed_paths.max(0)
        every_score = scores(state.returns, state.played)
        actors = [
            {
                "score": float(actor_score) if played else None,
                "episodes": int(played),
                "path": active_modules(geopath),
            }
            for actor_score, played, geopath in zip(every_score, state.played, geopaths)
        ]
        status = {
            "task": state.task,
            "game": self._games[state.task],
            "steps": state.steps,
            "max_time_step": self._max_time_step,
            "steps_per_second": speed,
            "generation": state.generation,
            "score": score,
            "actors": actors,
            "fixed_path": active_modules(fixed_path) if fixed_path.any() else None,
        }
        target = os.path.join(self._folder, "status.json")
        disk.write_atomically(target, json.dumps(status).encode())

    def close(self) -> None:
        """Ends the curves of a task: those of the next look are another task's."""
        if self._events:
            self._events.close()
        self._events, self._pictured = None, 0.0

    def finish(self, seed: int, control: str, about: checkpoints.About) -> str:
        """Appends the line of the run to results.jsonl, and draws its paths.

        The line is appended once, even if the process that did so died after it.

        Args:
          seed, control: of the run.
          about: the outcomes of all its tasks, and what they were learned with.

        Returns:
          The last line to print: the agent steps of each task.
        Raises:
          OSError: something cannot be written.
        """
        outcomes, L = about.outcomes, about.grid.L
        geopaths = [pathnet.to_geopath(np.array(o["path"]), self._M) for o in outcomes]
        result = {
            "script": "atari",
            "seed": seed,
            "control": control,
            "flags": about.flags,
            "versions": events.versions(),
            "tasks": outcomes,
            "overlap": pathnet.overlap(*geopaths[-2:]) if len(geopaths) > 1 else None,
        }
        if not checkpoints.is_recorded(self._folder, outcomes):
            results.append(os.path.join(self._folder, "results.jsonl"), result)
            tensorboard.write_row(self._folder, result)
        draw_paths(
            os.path.join(self._folder, "paths.png"),
            geopaths,
            list(self._games),
            np.full([L, self._M], "linear"),
        )
        names = "_".join(self._games).upper()
        steps = [f"TASK{n}:{o['steps']}" for n, o in enumerate(outcomes, 1)]
        return ",".join([names, *steps, "Done"])


def active_modules(geopath: np.ndarray) -> str:
    """A geopath [L, M] in a few characters: the active modules of each layer."""
    separator = "" if geopath.shape[1] <= 10 else ","
    layers = [separator.join(map(str, np.flatnonzero(row))) for row in geopath]
    return " ".join(layers)

"""Watching what was learned: plays the best path of a checkpoint, and makes a GIF."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image
from tqdm import tqdm

import a3c
import pathnet
from atari import checkpoints, environments, settings
from atari.scores import scores
from common import disk
from common.commandline import UserError

FRAME_MS = 60  # of the GIF; an agent step, 4 frames, takes 67 ms in the game
GIF_FRAMES = 100  # of the GIF at least: short episodes follow each other in it


def play(plan: settings.Play) -> None:
    """Plays a task of a checkpoint and prints the return of each episode.

    The checkpoint holds all settings: none has to be given again.

    Raises:
      UserError: there is no such checkpoint, it is damaged, or it has no such task.
      OSError: the GIF cannot be written.
    """
    folder = plan.checkpoint_dir
    loaded = checkpoints.load(folder)
    if loaded is None:
        raise UserError(f"flag --checkpoint_dir={folder}: no checkpoint there")
    about, arrays = loaded
    begun = min(int(arrays["task"]) + 1, len(about.games))
    task = (begun if plan.task is None else plan.task) - 1
    if task >= begun:
        raise UserError(
            f"flag --play_task={plan.task}: the checkpoint in {folder} has begun "
            f"{begun} of its tasks"
        )
    game, path = about.games[task], best_path(arrays, about, task)
    print(f"Task {task + 1}, {game}, on the path")
    print(pathnet.format_geopath(pathnet.to_geopath(path, about.grid.M)))
    act = policy(arrays, about, task, path, plan.seed)
    returns, frames = [], []
    needed = GIF_FRAMES if plan.gif else 0
    while len(returns) < plan.episodes or len(frames) < needed:
        shown = frames if len(frames) < needed else None
        returns.append(play_episode(game, act, plan.seed + len(returns), shown))
        print(f"episode {len(returns)}: return {returns[-1]:g}", flush=True)
    if plan.gif:
        write_gif(plan.gif, frames)
    print(f"mean return {np.mean(returns):.2f} over {len(returns)} episodes")


def best_path(arrays: dict, about: checkpoints.About, task: int) -> np.ndarray:
    """The best path of a task, so far if it is not over: int [L, N]."""
    if task < len(about.outcomes):
        return np.array(about.outcomes[task]["path"])
    score = scores(arrays["returns"], arrays["played"])
    return arrays["paths"][np.argmax(score)]


def policy(
    arrays: dict, about: checkpoints.About, task: int, path: np.ndarray, seed: int
) -> Callable:
    """How to act on a path of a checkpoint.

    Args:
      arrays, about: of the checkpoint. task: index. path: int [L, N].
      seed: of the actions that are drawn.

    Returns:
      function from observation uint8 [1, 84, 84, 4] and state float32 [2, 1, 256] to
      actions int64 [1] and the new state.
    """
    # As it was when this task was on: only earlier tasks' paths are fixed.
    fixed_paths = np.array(arrays["fixed_paths"])
    fixed_paths[task:] = 0
    fixed_path = fixed_paths.max(0)
    geopath = pathnet.to_geopath(path, about.grid.M)
    head = f"task{task + 1}/"
    # Nothing is learned here. Of a rollout no more than its last step is kept.
    learning = a3c.Learning(t_max=1)
    network = a3c.PathSession(a3c.PathGraph(about.grid, learning, task, 1, seed))
    network.load(
        _modules(arrays, geopath * (1 - fixed_path), about.grid.N),
        {name: arrays[head + name] for name in about.grid.head_shapes(task)},
    )
    network.load_fixed(_modules(arrays, fixed_path, about.grid.frozen_slots(task)))
    return lambda observation, state: network.act(observation, state, 0)


def _modules(arrays, active, slots):
    """[L] of a3c.Modules from a checkpoint's arrays; active is binary [L, M]."""
    index = np.argsort(-active, axis=1, kind="stable")[:, :slots]
    return [
        a3c.Modules(
            rows,
            active[layer, rows],
            arrays[f"layer{layer + 1}/kernel"][rows],
            arrays[f"layer{layer + 1}/bias"][rows],
        )
        for layer, rows in enumerate(index)
    ]


def play_episode(game: str, act: Callable, seed: int, frames: list | None) -> float:
    """Plays one episode.

    Args:
      game: its name. act: as of `policy`. seed: of the environment.
      frames: takes the episode's frames, uint8 [height, width, 3] each, if it is a list.
        A second environment with the same seed and the same actions shows what the
        first one's player does not see: colours.

    Returns:
      The episode's return.
    """
    environment = environments.make(game, 1, threads=1)
    observation, _ = environment.reset(seed=seed)
    screen = environments.Screen(game, seed) if frames is not None else None
    if screen:
        frames.append(screen.picture())
    state = np.zeros([2, 1, a3c.UNITS], np.float32)
    episodic_return, ended = 0.0, False
    progress = tqdm(unit=" steps", disable=None, leave=False)
    while not ended:
        seen = environments.channels_last(observation)
        actions, state = act(seen, state)
        observation, rewards, over, cut, _ = environment.step(actions)
        episodic_return += float(rewards[0])
        ended = bool(over[0] or cut[0])
        progress.update()
        if screen:
            frames.append(screen.step(actions))
    progress.close()
    environment.close()
    return episodic_return


def write_gif(filename: str, frames: list[np.ndarray]) -> None:
    """Writes frames, uint8 [height, width, 3] each, as a GIF, whole or not at all."""
    first, *rest = (Image.fromarray(frame).quantize(32) for frame in frames)
    content = io.BytesIO()
    first.save(
        content, "GIF", save_all=True, append_images=rest, duration=FRAME_MS, loop=0
    )
    disk.write_atomically(filename, content.getvalue())

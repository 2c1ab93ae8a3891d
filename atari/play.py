"""Watching what was learned: plays the best path of a checkpoint, and records it."""

import os

import numpy as np
from PIL import Image
from tqdm import tqdm

import a3c
import pathnet
from atari import environments, parameter_servers
from atari import ga_worker as atari_ga_worker
from common import checkpoint
from common import tf1 as tf
from common.commandline import UserError

FRAME_MS = 60  # of the GIF; an agent step, 4 frames, takes 67 ms in the game


def play(checkpoint_dir, number, episodes, record, seed):
    """Plays a task of a checkpoint and prints the return of each episode.

    The checkpoint holds all settings: none has to be given again.

    Args:
      checkpoint_dir: folder with checkpoints.
      number: of the task, from 1, or None for the last one begun.
      episodes: how many to play. record: file for a GIF of the first, or None.

    Raises:
      UserError: there is no such checkpoint, or it has no such task.
      OSError: the GIF cannot be written.
    """
    loaded = checkpoint.load(checkpoint_dir)
    if loaded is None:
        raise UserError(f"flag --checkpoint_dir={checkpoint_dir}: no checkpoint there")
    facts, arrays = loaded
    begun = min(int(arrays["task"]) + 1, len(facts["games"]))
    task = (begun if number is None else number) - 1
    if task >= begun:
        raise UserError(
            f"flag --play_task={number}: the checkpoint in {checkpoint_dir} has begun "
            f"{begun} of its tasks"
        )
    game, path = facts["games"][task], best_path(arrays, facts, task)
    print(f"Task {task + 1}, {game}, on the path")
    print(pathnet.format_geopath(pathnet.to_geopath(path, facts["grid"]["M"])))
    act = policy(arrays, facts, task, path, seed)
    returns = []
    for episode in range(episodes):
        film = record if episode == 0 else None
        returns.append(play_episode(game, act, seed + episode, film))
        print(f"episode {episode + 1}: return {returns[-1]:g}", flush=True)
    print(f"mean return {np.mean(returns):.2f} over {episodes} episodes")


def best_path(arrays, facts, task):
    """The best path of a task: int [L, N]; of the one that is on, the best so far."""
    if task < len(facts["outcomes"]):
        return np.array(facts["outcomes"][task]["path"])
    score = atari_ga_worker.scores(arrays["returns"], arrays["played"])
    return arrays["paths"][np.argmax(score)]


def policy(arrays, facts, task, path, seed):
    """A function from observation uint8 [1, 84, 84, 4] and state to action and state."""
    values = facts["grid"]
    grid = parameter_servers.Grid(
        **{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    )
    graph = tf.Graph()
    with graph.as_default():
        tf.set_random_seed(seed)
        # Nothing is learned here: any settings of learning will do.
        learning = parameter_servers.Learning(*[1] * 10)
        shared = parameter_servers.Shared(grid, facts["actors"], 0, learning)
        actor = a3c.Actor(shared, 0, task, 1, "/cpu:0")
        state = shared.state()
        given = {
            name: tf.placeholder(v.dtype.base_dtype, v.shape)
            for name, v in state.items()
        }
        restore = tf.group(*[v.assign(given[name]) for name, v in state.items()])
        zero = [tf.global_variables_initializer(), tf.local_variables_initializer()]
    graph.finalize()
    # As it was when this task was on: only earlier tasks' paths are fixed.
    arrays = {name: np.array(arrays[name]) for name in given}
    arrays["fixed_paths"][task:] = 0
    arrays["paths"][0] = path
    session = tf.Session(graph=graph)
    session.run(zero)
    session.run(restore, {given[name]: arrays[name] for name in given})
    session.run([actor.pull, actor.pull_fixed])
    return lambda observation, state: session.run(
        actor.act, {actor.observation: observation, actor.state: state}
    )


def play_episode(game, act, seed, film=None):
    """Plays one episode; returns its return.

    Args:
      film: file for a GIF of it, or None. A second environment with the same seed and
        the same actions shows what the first one's player does not see: colours.
    """
    environment = environments.make(game, 1, threads=1)
    observation, _ = environment.reset(seed=seed)
    screen = environments.Screen(game, seed) if film else None
    frames = [screen.picture()] if film else []
    state = np.zeros([2, 1, parameter_servers.UNITS], np.float32)
    episodic_return, ended = 0.0, False
    progress = tqdm(unit=" steps", disable=None, leave=False)
    while not ended:
        seen = environments.channels_last(observation)
        actions, state = act(seen, state)
        observation, rewards, over, cut, _ = environment.step(actions)
        episodic_return += float(rewards[0])
        ended = bool(over[0] or cut[0])
        progress.update()
        if film:
            frames.append(screen.step(actions))
    progress.close()
    environment.close()
    if film:
        write_gif(film, frames)
    return episodic_return


def write_gif(filename, frames):
    """Writes frames, uint8 [height, width, 3] each, as a GIF, whole or not at all."""
    first, *rest = (Image.fromarray(frame).quantize(32) for frame in frames)
    partial = f"{filename}.partial"
    first.save(
        partial, "GIF", save_all=True, append_images=rest, duration=FRAME_MS, loop=0
    )
    os.replace(partial, filename)

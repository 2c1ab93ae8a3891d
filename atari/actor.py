"""An actor: plays on its path, and pushes what it learns to the parameter servers."""

import faulthandler
import functools
import os
import time

import numpy as np

import a3c
from atari import environments, parameter_servers
from atari.parameter_servers import LOST
from common import events as recording
from common import tf1 as tf
from common.commandline import say

LOG_SECONDS = 5  # between two points of an actor's curves

# The longest that a rollout may take, before this process ends for another to take its
# place: the time limit of a run does not cover all that may go wrong around it.
HUNG_SECONDS = 3 * parameter_servers.RUN_SECONDS


class Player:
    """The environments of an actor, and what goes on in them from rollout to rollout.

    Attributes:
      state: float32 [2, E, 256], the LSTM's, zero where an episode has just begun.
    """

    def __init__(self, game, count, threads, seed):
        self._environments = environments.make(game, count, threads)
        observation, _ = self._environments.reset(seed=seed)
        self._observation = environments.channels_last(observation)
        self.state = np.zeros([2, count, parameter_servers.UNITS], np.float32)
        self._returns = np.zeros(count)
        self._lengths = np.zeros(count, int)
        self._versions = None

    def close(self):
        self._environments.close()

    def play(self, act, t_max, version):
        """Plays t_max steps in every environment.

        Args:
          act: function from observation uint8 [E, 84, 84, 4], state and step of the
            rollout to actions [E] and the new state.
          version: of the path that `act` plays on.

        Returns:
          (rollout, episodes): arrays by the names of a3c.Actor's placeholders; and the
          episodes that ended: [n] of (version, return, length in steps), version -1 for
          one that was not played on one path from its first step to its last.
        """
        count = len(self._returns)
        shape = [t_max, count]
        rollout = {
            "actions": np.empty(shape, np.int64),
            "rewards": np.empty(shape, np.float32),
            "ends": np.empty(shape, np.float32),
        }
        if self._versions is None:
            self._versions = np.full(count, version)
        self._versions[self._versions != version] = -1
        episodes = []
        for t in range(t_max):
            actions, self.state = act(self._observation, self.state, t)
            observation, rewards, over, cut, _ = self._environments.step(actions)
            self._observation = environments.channels_last(observation)
            ends = over | cut
            rollout["actions"][t] = actions
            rollout["rewards"][t] = np.clip(rewards, -1, 1)
            rollout["ends"][t] = ends
            self._returns += rewards
            self._lengths += 1
            for e in np.flatnonzero(ends):
                episodes.append((self._versions[e], self._returns[e], self._lengths[e]))
            self.state = self.state * ~ends[:, None]
            self._returns[ends] = 0
            self._lengths[ends] = 0
            self._versions[ends] = version
        following = {"observation": self._observation, "state": self.state}
        return rollout | following, episodes


def run(role, grid, learning, games, envs, threads, seed, folder):
    """Plays and learns until all tasks are over, whatever happens to the servers."""
    server = parameter_servers.serve(role, threads)
    task = 0
    while task < len(games):
        graph = tf.Graph()
        with graph.as_default():
            shared = parameter_servers.Shared(grid, role.actors, len(role.ps), learning)
            actor = a3c.Actor(shared, role.index, task, envs, role.device)
            local = tf.local_variables_initializer()
        graph.finalize()
        try:
            with parameter_servers.connect(server, role, graph, say) as session:
                session.run(local)
                now = _wait_until_ready(session, actor)
                if now == task:
                    say(f"task {task + 1}, {games[task]}")
                    player = Player(
                        games[task], envs, threads, _seed(seed, role.index, task)
                    )
                    events = Curves(folder, role.index, task, games[task], graph)
                    try:
                        now = _learn(session, actor, player, events, role.index, task)
                    finally:
                        faulthandler.cancel_dump_traceback_later()
                        player.close()
                        events.close()
                task = now
        except LOST as error:
            say(
                f"lost the parameter servers, trying again ({parameter_servers.cause(error)})"
            )
            time.sleep(1)
    say("all tasks are over")


def _learn(session, actor, player, curves, number, task):
    """Rollouts until the task is over: returns the task that is on then."""
    act = functools.partial(_act, session, actor)
    session.run(actor.pull_fixed)
    while True:
        faulthandler.dump_traceback_later(HUNG_SECONDS, exit=True)
        (ready, now, version, steps), _ = session.run([actor.observed, actor.pull])
        if now != task:
            return int(now)
        if not ready:
            time.sleep(0.5)
            continue
        rollout, episodes = player.play(act, actor.t_max, version)
        finished = [(task, number, v, r, n, steps) for v, r, n in episodes]
        feed = {getattr(actor, name): values for name, values in rollout.items()}
        feed[actor.finished] = np.reshape(
            np.array(finished, float), [-1, len(parameter_servers.EPISODE)]
        )
        accepted, losses = session.run(actor.push, feed)
        if not accepted:
            time.sleep(0.1)  # the GA worker is about to end the task
        curves.add(int(steps), rollout["actions"].size, episodes, losses)


def _act(session, actor, observation, state, step):
    """Actions and the new state; see a3c.Actor.act."""
    feed = {actor.observation: observation, actor.state: state, actor.step: step}
    while True:
        try:
            return session.run(actor.act, feed)
        except tf.errors.AbortedError as error:
            # All of it runs in this process: a refused run has left nothing behind.
            if not parameter_servers.is_refused(error):
                raise


def _wait_until_ready(session, actor):
    """Waits for the GA worker to set up what is shared: returns the task that is on."""
    since = said = time.monotonic()
    while True:
        try:
            ready, task, _, _ = session.run(actor.observed)
            if ready:
                return int(task)
        except tf.errors.FailedPreconditionError:
            pass  # variables that nobody has initialized yet
        if time.monotonic() - said > 15:
            said = time.monotonic()
            say(f"waiting for the GA worker for {said - since:.0f} s")
        time.sleep(0.2)


class Curves:
    """TensorBoard curves of one actor in one task, over agent steps of the cluster.

    The first actor shows its graph as well: that of the others is the same.
    """

    def __init__(self, folder, number, task, game, graph):
        name = os.path.join(folder, f"task{task + 1}_{game}", f"actor_{number}")
        self._events = recording.Events(name, graph if number == 0 else None)
        self._forget()

    def _forget(self):
        self._since, self._steps, self._returns = time.monotonic(), 0, []

    def add(self, at, steps, episodes, losses):
        """A rollout of `steps` that began at step `at` of the task."""
        self._steps += steps
        self._returns += [episodic_return for _, episodic_return, _ in episodes]
        seconds = time.monotonic() - self._since
        if seconds < LOG_SECONDS:
            return
        values = dict(losses) | {"charts/steps_per_second": self._steps / seconds}
        if self._returns:
            values["charts/episodic_return"] = np.mean(self._returns)
        self._events.scalars(at, values)
        self._forget()

    def close(self):
        self._events.close()


def _seed(seed, number, task):
    """A seed for the games of an actor: another one for each actor, task and start."""
    key = (number, task, time.time_ns() % 2**32)
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1)[0] // 2)

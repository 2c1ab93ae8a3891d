"""A process of actors: each plays on its path, and pushes what it learns to the servers.

The actors of a process take turns, a rollout each. Whose turn it is has the process's
network: it loads the modules of its path, plays and learns.
"""

import contextlib
import faulthandler
import itertools
import os
import time
from collections.abc import Callable

import numpy as np

import a3c
from atari import environments, sessions, settings
from atari.cluster import Cluster
from atari.exchange import Exchange
from atari.parameter_servers import Shared
from atari.sessions import LOST
from common import events, folders
from common import tf1 as tf
from common.commandline import say

LOG_SECONDS = 5  # between two points of an actor's curves

# The longest that a rollout may take, before this process ends for another to take its
# place: the time limit of a run does not cover all that may go wrong around it.
HUNG_SECONDS = 3 * sessions.RUN_SECONDS

# What the curves of an actor show, for TensorBoard.
DESCRIPTIONS = {
    "charts/episodic_return": "Mean return of its episodes since the last point.",
    "speed/steps_per_second": "Agent steps a second, of this actor.",
    "charts/gradient_norm": "Norm of its gradient before it is clipped.",
    "charts/learning_rate": "Learning rate of the step that the gradient was taken with.",
    "losses/policy_loss": "Policy loss of a rollout, per agent step.",
    "losses/value_loss": "Value loss of a rollout, per agent step.",
    "losses/entropy": "Entropy of the policy, per agent step.",
}


class Player:
    """The environments of an actor, and what goes on in them from rollout to rollout.

    Args:
      game: its name. count: number of environments, E. threads: that step them.
      seed: of the environments.

    Attributes:
      state: float32 [2, E, 256], the LSTM's, zero where an episode has just begun.
    """

    def __init__(self, game: str, count: int, threads: int, seed: int) -> None:
        self._environments = environments.make(game, count, threads)
        observation, _ = self._environments.reset(seed=seed)
        self._observation = environments.channels_last(observation)
        self.state = np.zeros([2, count, a3c.UNITS], np.float32)
        self._returns = np.zeros(count)
        self._lengths = np.zeros(count, int)
        self._versions = None

    def close(self) -> None:
        """Closes the environments."""
        self._environments.close()

    def play(self, act: Callable, t_max: int, version: int) -> tuple[dict, list]:
        """Plays t_max steps in every environment.

        Args:
          act: function from observation uint8 [E, 84, 84, 4], state and step of the
            rollout to actions [E] and the new state.
          version: of the path that `act` plays on.

        Returns:
          (rollout, episodes): arrays by the names of a3c.PathSession.learn's arguments; and the
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


class Actor:
    """One of the actors of this process, in one task.

    Args:
      number: of the actor. task: index of the task. plan: as of `run`.
      network: a3c.PathSession with the frozen modules; of all actors of the process.
    """

    def __init__(
        self, number: int, task: int, network: a3c.PathSession, plan: settings.Actor
    ) -> None:
        self._number, self._task, self._network = number, task, network
        game, seed = plan.games[task], _seed(plan.seed, number, task)
        self._player = Player(game, plan.environments, plan.threads, seed)
        self._curves = Curves(plan.folder, number, task, game, network.path.graph)

    def roll_out(self, exchange: Exchange, session) -> int:
        """Pulls, plays t_max steps, and pushes: returns the task that is on.

        Nothing is played while the servers are not ready, or once another task is on.
        """
        observed, modules, head = exchange.pull(session, self._number)
        if observed.task != self._task:
            return int(observed.task)
        if not observed.ready:
            time.sleep(0.5)
            return self._task
        self._network.load(modules, head)
        rollout, episodes = self._player.play(
            self._network.act, self._network.path.t_max, observed.version
        )
        gradients, of_head, losses = self._network.learn(**rollout)
        finished = [
            (self._task, self._number, v, r, n, observed.steps) for v, r, n in episodes
        ]
        steps = rollout["actions"].size
        accepted, rate = exchange.push(
            session,
            [m._replace(kernel=k, bias=b) for m, (k, b) in zip(modules, gradients)],
            of_head,
            steps,
            np.reshape(np.array(finished, float), [-1, len(a3c.EPISODE)]),
        )
        if not accepted:
            time.sleep(0.1)  # the GA worker is about to end the task
        losses["charts/learning_rate"] = rate
        self._curves.add(int(observed.steps), steps, episodes, losses)
        return self._task

    def close(self) -> None:
        """Ends its games and its curves."""
        self._player.close()
        self._curves.close()


def run(
    role: Cluster, grid: a3c.ConvGrid, learning: a3c.Learning, plan: settings.Actor
) -> None:
    """Plays and learns until all tasks are over, whatever happens to the servers.

    Args:
      role: the cluster and this process of it.
      grid, learning: what is built, and how it learns.
      plan: games, number of environments and threads, seed, folder.

    Raises:
      OSError: the folder cannot be made or written.
    """
    os.makedirs(plan.folder, exist_ok=True)
    server = sessions.serve(role, plan.threads)
    task = 0
    while task < len(plan.games):
        graph = tf.Graph()
        with graph.as_default():
            shared = Shared(grid, role.actors, len(role.ps), learning)
            exchange = Exchange(shared, task, plan.environments, role.device)
            leave = shared.leave(role.index)
        graph.finalize()
        try:
            with sessions.connect(server, role, graph) as session:
                current = _wait_until_ready(session, exchange)
                if current == task:
                    say(f"task {task + 1}, {plan.games[task]}")
                    path = a3c.PathGraph(grid, learning, task, plan.environments)
                    network = a3c.PathSession(path, plan.threads)
                    with contextlib.closing(network):
                        network.load_fixed(exchange.pull_fixed(session))
                        current = _play_task(
                            session, exchange, network, role, task, plan
                        )
                task = current
                if task == len(plan.games):
                    session.run(leave)
        except LOST as error:
            say(f"lost the parameter servers, trying again ({sessions.cause(error)})")
            time.sleep(1)
    say("all tasks are finished")


def _play_task(session, exchange, network, role, task, plan):
    """Plays and learns a task until it is over: returns the one that is on then."""
    with contextlib.ExitStack() as stack:
        stack.callback(faulthandler.cancel_dump_traceback_later)
        actors = []
        for number in role.own_actors:
            actors.append(Actor(number, task, network, plan))
            stack.callback(actors[-1].close)
        # In turns: one actor keeps a core busy, and nobody waits for more of them.
        for actor in itertools.cycle(actors):
            faulthandler.dump_traceback_later(HUNG_SECONDS, exit=True)
            if (current := actor.roll_out(exchange, session)) != task:
                return current


def _wait_until_ready(session, exchange):
    """Waits for the GA worker to set up what is shared: returns the task that is on."""
    since = said = time.monotonic()
    while True:
        try:
            observed = exchange.observe(session)
            if observed.ready:
                return int(observed.task)
        except tf.errors.FailedPreconditionError:
            pass  # variables that nobody has initialized yet
        if time.monotonic() - said > 15:
            said = time.monotonic()
            say(f"waiting for the GA worker for {said - since:.0f} s")
        time.sleep(0.2)


class Curves:
    """TensorBoard curves of one actor in one task, over agent steps of the cluster.

    The first actor shows its graph as well: that of the others is the same.

    Args:
      folder: of the run. number: of the actor. task: its index. game: its name.
      graph: tf.Graph of the actor.
    """

    def __init__(self, folder: str, number: int, task: int, game: str, graph) -> None:
        own = folders.below(folder, f"task{task + 1}_{game}", f"actor_{number}")
        graph = graph if number == 0 else None
        self._events = events.Events(own, graph, DESCRIPTIONS)
        self._begin_point()

    def _begin_point(self):
        self._since, self._steps, self._returns = time.monotonic(), 0, []

    def add(self, at: int, steps: int, episodes: list[tuple], losses: dict) -> None:
        """Adds a rollout of `steps` agent steps that began at step `at` of the task.

        Args:
          episodes: that ended in it, as of Player.play. losses: by tag.

        Raises:
          OSError: a point cannot be written.
        """
        self._steps += steps
        self._returns += [episodic_return for _, episodic_return, _ in episodes]
        seconds = time.monotonic() - self._since
        if seconds < LOG_SECONDS:
            return
        values = dict(losses) | {"speed/steps_per_second": self._steps / seconds}
        if self._returns:
            values["charts/episodic_return"] = np.mean(self._returns)
        self._events.scalars(at, values)
        self._begin_point()

    def close(self) -> None:
        """Ends the file of curves."""
        self._events.close()


def _seed(seed, number, task):
    """A seed for the games of an actor: different for each actor, task and start."""
    key = (number, task, time.time_ns() % 2**32)
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1)[0] // 2)

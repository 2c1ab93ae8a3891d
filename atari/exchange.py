"""What an actor's process takes from the parameter servers and gives to them."""

from typing import NamedTuple

import numpy as np

from a3c import EPISODE, Modules
from atari.parameter_servers import Shared
from common import tf1 as tf


class Observed(NamedTuple):
    """What is seen of the cluster in the same run as what is pulled.

    Attributes:
      ready: bool, whether the servers hold anything. task: int, the one that is on.
      version: int, of the actor's path. steps: int, agent steps of the task so far.
    """

    ready: bool
    task: int
    version: int
    steps: int


class Exchange:
    """Pull and push, for one task, as ops of the default graph.

    The servers pick the modules of a path: only those travel, whatever M is.

    Args:
      shared: the variables that all processes share. task: index of the task.
      envs: environments of an actor. device: name of this process's device.

    A session that a method takes is one of the graph, an actor is the index of one.
    """

    def __init__(self, shared: Shared, task: int, envs: int, device: str) -> None:
        self._shared, self._task = shared, task
        with tf.device(device), tf.name_scope("exchange"):
            self._actor = tf.placeholder(tf.int64, [], "actor")
            self._build_pull()
            self._build_push(envs)

    def _build_pull(self):
        shared, grid = self._shared, self._shared.grid
        with tf.device(shared.first_server):
            ready, task = shared.ready.read_value(), shared.task.read_value()
            # Who sees the new task sees its parameters, too.
            with tf.control_dependencies([ready, task]):
                version = shared.versions[self._actor]
                path = tf.reduce_max(tf.one_hot(shared.paths[self._actor], grid.M), 1)
                fixed_path = shared.fixed_path()
                steps = shared.steps.read_value()
            on, index = tf.math.top_k(path * (1 - fixed_path), grid.N)
            fixed = tf.math.top_k(fixed_path, grid.frozen_slots(self._task))
        self._observed = Observed(ready, task, version, steps)
        head = shared.heads[self._task]
        head = {name: variable.read_value() for name, variable in head.items()}
        self._pulled = self._observed, self._modules(on, index), head
        self._fixed = self._modules(*fixed)

    def _modules(self, on, index):
        """[L] of Modules; on and index are [L, slots]."""
        shared, layers = self._shared, []
        for layer, (kernel, bias) in enumerate(zip(shared.kernels, shared.biases)):
            with tf.colocate_with(kernel.handle):
                kernels = tf.gather(kernel, index[layer])
            with tf.colocate_with(bias.handle):
                biases = tf.gather(bias, index[layer])
            layers.append(Modules(index[layer], on[layer], kernels, biases))
        return layers

    def _build_push(self, envs):
        shared, entries = self._shared, []
        self._given_modules, self._given_head = [], {}
        for kernel, bias in zip(shared.kernels, shared.biases):
            index = tf.placeholder(tf.int32, [None])
            given = [
                tf.placeholder(tf.float32, [None, *variable.shape[1:]])
                for variable in (kernel, bias)
            ]
            entries += [(kernel, given[0], index), (bias, given[1], index)]
            self._given_modules.append((index, *given))
        for name, variable in shared.heads[self._task].items():
            self._given_head[name] = tf.placeholder(tf.float32, variable.shape)
            entries.append((variable, self._given_head[name], None))
        self._steps = tf.placeholder(tf.int64, [], "steps")
        self._episodes = tf.placeholder(tf.float64, [None, len(EPISODE)], "episodes")
        accepted = shared.apply(self._task, entries, envs, self._steps, self._episodes)
        rate = shared.learning.rate(shared.steps.read_value())
        self._pushed = accepted, rate

    def observe(self, session) -> Observed:
        """What is seen of the cluster; the version is that of the first actor."""
        return Observed(*session.run(self._observed, {self._actor: 0}))

    def pull(self, session, actor: int) -> tuple[Observed, list[Modules], dict]:
        """The modules of an actor's path that are not frozen, and the task's own parameters.

        Returns:
          (observed, modules, head): as of a3c.PathGraph, [L] of Modules with N slots, and
          a dict; arrays.
        """
        return session.run(self._pulled, {self._actor: actor})

    def pull_fixed(self, session) -> list[Modules]:
        """The frozen modules, [L]; they do not change while the task is on."""
        return session.run(self._fixed)

    def push(
        self,
        session,
        modules: list[Modules],
        head: dict,
        steps: int,
        episodes: np.ndarray,
    ) -> tuple[bool, float]:
        """Has gradients applied; see Shared.apply.

        Args:
          modules: [L] of Modules, gradients in place of kernels and biases.
          head: gradients of the task's own parameters, by name.
          steps: agent steps that they are of. episodes: float64 [n, len(EPISODE)].

        Returns:
          (accepted, rate): whether the task is still on, and the learning rate.
        """
        feed = {self._steps: steps, self._episodes: episodes}
        for given, layer in zip(self._given_modules, modules):
            index, _, kernel, bias = layer.filled()
            feed |= zip(given, (index, kernel, bias))
        feed |= {given: head[name] for name, given in self._given_head.items()}
        return session.run(self._pushed, feed)

"""The graph of the GA worker: how it reads and writes what all processes share."""

from typing import NamedTuple

import numpy as np

from a3c import ConvGrid, Learning
from atari.cluster import Cluster
from atari.parameter_servers import Shared
from common import tf1 as tf


class ClusterState(NamedTuple):
    """What the GA worker reads at a look; the fields are those of `Shared`.

    Attributes:
      ready: bool. task, steps, generation: int.
      paths: int64 [actors, L, N]. versions: int64 [actors].
      returns: float64 [actors]. played: int64 [actors].
      fixed_paths: float32 [tasks, L, M].
    """

    ready: bool
    task: int
    steps: int
    generation: int
    paths: np.ndarray
    versions: np.ndarray
    returns: np.ndarray
    played: np.ndarray
    fixed_paths: np.ndarray


class GaGraph:
    """All ops of the GA worker. A session that a method takes is one of `graph`.

    Args:
      role: the cluster and this process of it.
      grid, learning: what is built, and how it learns.

    Attributes:
      graph: tf.Graph, finalized.
    """

    def __init__(self, role: Cluster, grid: ConvGrid, learning: Learning) -> None:
        self.graph = tf.Graph()
        with self.graph.as_default(), tf.device(role.device):
            shared = Shared(grid, role.actors, len(role.ps), learning)
            self._build_reads(shared)
            self._build_writes(shared)
            self._build_switch(shared)
            self._leave = shared.leave(role.actor_processes)
        self.graph.finalize()

    def _build_reads(self, shared):
        self._state = {name: v.read_value() for name, v in shared.state().items()}
        # Used by an op: TensorFlow has a warning for what a refused run leaves unused.
        self._uninitialized = tf.identity(tf.report_uninitialized_variables())
        self._cluster_state = ClusterState(
            *[getattr(shared, name).read_value() for name in ClusterState._fields]
        )
        self._waiting = shared.episodes.size()
        self._count = tf.placeholder(tf.int32, [], "count")
        self._episodes = shared.episodes.dequeue_many(self._count)

    def _build_writes(self, shared):
        self._clear = tf.global_variables_initializer()
        self._given_ready = tf.placeholder(tf.bool, [], "ready")
        self._set_ready = shared.ready.assign(self._given_ready)
        # A placeholder, and the op that assigns it, for every variable by its name.
        self._given, self._assign = {}, {}
        for name, variable in shared.state().items():
            given = tf.placeholder(variable.dtype.base_dtype, variable.shape)
            self._given[name], self._assign[name] = given, variable.assign(given).op

    def _build_switch(self, shared):
        grid = shared.grid
        self._seed = tf.placeholder(tf.int64, [2], "seed")
        self._geopath = tf.placeholder(tf.float32, [grid.L, grid.M], "geopath")
        self._kept = tf.placeholder(tf.float32, [grid.L, grid.M], "kept")
        self._inherit = tf.placeholder(tf.bool, [], "inherit")
        self._paths = tf.placeholder(tf.int64, shared.paths.shape, "paths")
        self._initialize = shared.initialize(self._seed)
        self._switch = shared.switch(
            self._seed, self._geopath, self._kept, self._inherit, self._paths
        )

    def is_initialized(self, session) -> bool:
        """Whether all variables hold something."""
        return not len(session.run(self._uninitialized))

    def read(self, session) -> ClusterState:
        """What is needed for a look."""
        now = session.run(self._cluster_state)
        return now._replace(
            ready=bool(now.ready),
            task=int(now.task),
            steps=int(now.steps),
            generation=int(now.generation),
        )

    def read_all(self, session) -> dict[str, np.ndarray]:
        """All variables but `ready`, by name: what a checkpoint holds."""
        return session.run(self._state)

    def take_episodes(self, session) -> np.ndarray:
        """The episodes that actors have reported since the last call.

        Returns:
          float64 [n, len(EPISODE)].
        """
        return session.run(self._episodes, {self._count: session.run(self._waiting)})

    def assign(self, session, **values) -> None:
        """Sets the variables of these names, and no other."""
        self._assign_all(session, values)

    def initialize(self, session, seed: tuple[int, int], paths: np.ndarray) -> None:
        """Draws all parameters, and sets the paths of the population."""
        session.run(self._initialize, {self._seed: seed})
        self.assign(session, paths=paths)

    def restore(self, session, arrays: dict[str, np.ndarray]) -> None:
        """Sets all variables to what `read_all` has read; others in `arrays` are ignored."""
        self._assign_all(session, {name: arrays[name] for name in self._given})

    def clear(self, session) -> None:
        """Sets everything to zero: nothing is ready."""
        session.run(self._clear)

    def set_ready(self, session, ready: bool) -> None:
        """Tells the actors whether they can go on."""
        session.run(self._set_ready, {self._given_ready: ready})

    def switch(
        self,
        session,
        seed: tuple[int, int],
        geopath: np.ndarray,
        kept: np.ndarray,
        inherit: bool,
        paths: np.ndarray,
    ) -> None:
        """Ends a task and begins the next; arguments as of `Shared.switch`."""
        feed = {
            self._seed: seed,
            self._geopath: geopath,
            self._kept: kept,
            self._inherit: inherit,
            self._paths: paths,
        }
        session.run(self._switch, feed)

    def leave(self, session) -> None:
        """Tells the servers that this process does not need them any more."""
        session.run(self._leave)

    def _assign_all(self, session, values):
        session.run(
            [self._assign[name] for name in values],
            {self._given[name]: value for name, value in values.items()},
        )

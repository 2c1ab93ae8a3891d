"""A parameter server: it serves until all tasks are finished and nobody needs it."""

import time

from atari import sessions
from atari.cluster import Cluster
from atari.parameter_servers import departures
from common import tf1 as tf
from common.commandline import say

LOOK_SECONDS = 0.5  # between two looks at who has left

# How long actors that are cut off, or that are being started again, are waited for once
# the GA worker has left: as long as it takes them to notice the end.
GRACE_SECONDS = 2 * sessions.RUN_SECONDS

LINGER_SECONDS = 2  # for the answer to whoever has left last to arrive


def run(role: Cluster, threads: int) -> None:
    """Serves the cluster until its workers have left, as they do after the last task.

    Args:
      role: the cluster and this process of it.
      threads: that compute.

    Raises:
      UserError: its port is in use.
    """
    server = sessions.serve(role, threads)
    say(f"parameter server {role.index} serves on {role.ps[role.index]}")
    with tf.Graph().as_default() as graph, tf.device(role.device):
        queue = departures()
        waiting = queue.size()
        count = tf.placeholder(tf.int32, [])
        taken = queue.dequeue_many(count)
    graph.finalize()
    config = tf.ConfigProto(device_filters=[role.device.removesuffix("/cpu:0")])
    with tf.Session(server.target, graph=graph, config=config) as session:

        def left():
            return session.run(taken, {count: session.run(waiting)}).tolist()

        _wait_for_all(left, role)
    say("all tasks are finished")
    time.sleep(LINGER_SECONDS)


def _wait_for_all(left, role):
    """Waits until all workers have left; for the actors not for ever after the GA worker.

    Args:
      left: function that gives the indices of workers that have left since its last call.
      role: the cluster.
    """
    gone, end = set(), float("inf")
    while len(gone) < len(role.workers) and time.monotonic() < end:
        gone.update(left())
        if role.actor_processes in gone:
            end = min(end, time.monotonic() + GRACE_SECONDS)
        time.sleep(LOOK_SECONDS)

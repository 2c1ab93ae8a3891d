"""Sessions with the parameter servers, and what it looks like when these are lost.

Importing this module imports TensorFlow, whose classes it names.
"""

import os

from atari.cluster import PS, WORKER, Cluster, wait_for_servers
from common import tf1 as tf
from common.commandline import UserError

# What a run raises when a parameter server has died, was restarted, or is cut off.
LOST = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.NotFoundError,
    tf.errors.UnavailableError,
)

# A proxy for pages of the web is none for a cluster, but gRPC would go through it.
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")

RUN_SECONDS = 60  # the longest that one run may take before its servers count as lost


def cause(error: Exception) -> str:
    """A LOST error as one line."""
    return f"{type(error).__name__}: {' '.join(error.message.split())[:200]}"


def is_refused(error: Exception) -> bool:
    """Whether a run was refused because its number was that of an earlier one.

    TensorFlow numbers runs at random, and the numbers repeat: of the first 165,000 runs
    of a trivial graph nine were refused. Nothing is run where a run is refused.
    """
    return "RunGraph (Worker) request was received twice" in error.message


def serve(role: Cluster, threads: int):
    """Starts this process's server, which reaches the others without any proxy.

    Args:
      role: the cluster and this process of it.
      threads: that compute; one more runs ops.

    Returns:
      tf.train.Server.
    Raises:
      UserError: its port is in use.
    """
    config = tf.ConfigProto(
        intra_op_parallelism_threads=threads,
        inter_op_parallelism_threads=threads + 1,  # one may wait for a server
    )
    for name in _PROXIES:
        os.environ.pop(name, None)
    spec = tf.train.ClusterSpec({PS: list(role.ps), WORKER: list(role.workers)})
    try:
        return tf.train.Server(spec, role.job, role.index, config=config)
    except tf.errors.UnknownError as error:
        host = (role.ps if role.job == PS else role.workers)[role.index]
        raise UserError(
            f"{role.name()}: cannot listen on the port of {host} (is it in use?)"
        ) from error


def connect(server, role: Cluster, graph):
    """A tf.Session of this process, once all parameter servers can be reached."""
    wait_for_servers(role.ps)
    config = tf.ConfigProto(
        # Other workers may come and go.
        device_filters=[f"/job:{PS}", f"/job:{role.job}/task:{role.index}"],
        operation_timeout_in_ms=1000 * RUN_SECONDS,
    )
    return _Session(server.target, graph=graph, config=config)


class _Session(tf.Session):
    """A session that passes on the servers' errors as they are, and repeats refused runs.

    TensorFlow looks for names of ops in the text of an error, to add where they were
    made, and takes hours over one that quotes a feed of screens.

    A refused run is repeated under another number. Whatever changes shared variables
    waits for values from all processes that take part, and one that refuses sends none:
    a refused run has changed nothing.
    """

    def _do_call(self, fn, *args):
        while True:
            try:
                return fn(*args)
            except tf.errors.AbortedError as error:
                if not is_refused(error):
                    raise

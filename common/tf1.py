"""TensorFlow 1.x: `from common import tf1 as tf`, then tf.placeholder, tf.Session, ...

TensorFlow is imported when the first of its names is used, so that importing a module
of this project costs no seconds where nothing is computed: for --help, for tables and
pictures, in the process that only watches a cluster. What is done around the import,
and why, stands in `load`.
"""

import contextlib
import functools
import gc
import os
import re
import sys

import numpy as np

from common import interrupts

# What TensorFlow's C++ code writes before its log level counts, and its search for a
# GPU on a machine that has none. Every other line reaches the user.
_START_UP_NOTE = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog|[IW]\d{4} |E\d{4} .*cuInit"
)

_XLA_FLAGS = (
    # The kernels here are so small that compiling and scheduling them for parallel
    # execution costs more than it gains: 100 MB, a second at start, a tenth of the speed.
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_enable_concurrency_optimized_scheduler=false",
    "--xla_cpu_parallel_codegen_split_count=1",
)


def __getattr__(name):
    """A name of tensorflow.compat.v1 (Python calls this for names not defined here)."""
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(load(), name)


@functools.cache
def load():
    """Imports TensorFlow, once; returns the module tensorflow.compat.v1."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Nothing here uses Keras. TensorFlow imports it all the same, for a second and
    # 50 MB, unless it is told to use the old one, which it can do without.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    # The first device that is made decides how many threads compute for all sessions that
    # do not say it, and takes one a core unless it is told. A generation is so small that
    # to share it out costs a fifth of its time, and twice the processor's.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    # The user's own flags come last, and win.
    os.environ["XLA_FLAGS"] = " ".join([*_XLA_FLAGS, os.environ.get("XLA_FLAGS", "")])
    # TensorFlow's hundreds of thousands of objects stay until the end: looking for
    # garbage among them, as they are made and when the interpreter ends, takes a second.
    gc.disable()
    with interrupts.exiting_at_once(), _without_start_up_notes():
        import tensorflow.compat.v1 as tf

        tf.logging.set_verbosity(tf.logging.ERROR)
        tf.disable_v2_behavior()
        tf.enable_resource_variables()
        # The search for a GPU writes its note now, not when the first session starts.
        tf.config.list_physical_devices("GPU")
    gc.freeze()
    gc.enable()
    return tf


@contextlib.contextmanager
def _without_start_up_notes():
    """Passes on what is written to file descriptor 2, but for start-up notes.

    The C++ code writes to the descriptor itself, so that no setting of Python's stderr
    reaches it. A process of its own passes the lines on, so that the last words of a
    process that dies during the import are passed on as well.
    """
    if sys.stderr is None:
        yield
        return
    sys.stderr.flush()
    read_end, write_end = os.pipe()
    reader = os.fork()
    if reader == 0:
        os.close(write_end)
        with open(read_end, "rb") as lines:
            for line in lines:
                if not _START_UP_NOTE.match(line):
                    os.write(2, line)
        os._exit(0)
    os.close(read_end)
    terminal = os.dup(2)
    os.dup2(write_end, 2)
    os.close(write_end)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(terminal, 2)
        os.close(terminal)
        os.waitpid(reader, 0)


def make_callable(session, fetches, feeds, target=None):
    """A function of the feeds' values that returns the fetches' values.

    What names stand for is looked up here, once; `session.run` does so at every call,
    for a twentieth of the time of a generation. (The public `make_callable` is no more
    than `session.run` where there are feeds.)

    Args:
      session: a tf.Session of this process, with no server.
      fetches, feeds: lists of tensors. target: an op to run as well, or None.
    """
    from tensorflow.core.protobuf import config_pb2

    options = config_pb2.CallableOptions(
        feed=[tensor.name for tensor in feeds],
        fetch=[tensor.name for tensor in fetches],
        target=[] if target is None else [target.name],
    )
    run = session._make_callable_from_options(options)
    dtypes = [tensor.dtype.as_numpy_dtype for tensor in feeds]

    def call(*values):
        return run(*map(np.asarray, values, dtypes))

    return call

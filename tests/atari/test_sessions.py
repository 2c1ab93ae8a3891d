"""Tests of sessions.py: what it looks like when servers fail."""

import socket

import pytest
from test_parameter_servers import connected, servers  # noqa: F401, a fixture

from atari import sessions
from atari.cluster import PS, Cluster
from common import tf1 as tf
from common.commandline import UserError


def test_the_cause_of_a_failed_run_is_one_line_of_what_happened(servers):  # noqa: F811
    with tf.Graph().as_default() as graph:
        empty = tf.get_variable("never_written", [])
    with (
        connected(servers, graph) as session,
        pytest.raises(sessions.LOST) as failed,
    ):
        session.run(empty)
    line = sessions.cause(failed.value)
    assert line.startswith("FailedPreconditionError: ")
    assert "never_written" in line
    assert "\n" not in line
    assert "Detected at node" not in line
    assert not sessions.is_refused(failed.value)


def test_a_server_whose_port_is_in_use():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        host = f"localhost:{taken.getsockname()[1]}"
        role = Cluster((host,), ("a:1", "b:1", "c:1"), PS, 0)
        with pytest.raises(UserError, match=f"ps_0: cannot listen .* {host}"):
            sessions.serve(role, 1)


def test_a_run_that_was_refused_as_one_run_before_is_repeated():
    """Any other error is passed on."""
    twice = "The same RunGraph (Worker) request was received twice. send { tensor ..."
    errors = [tf.errors.AbortedError(None, None, text) for text in ("lost", twice)]

    def run(feed):
        if errors:
            raise errors.pop()
        return feed

    with sessions._Session(graph=tf.Graph()) as session:
        with pytest.raises(tf.errors.AbortedError, match="lost"):
            session._do_call(run, 1)
        assert session._do_call(run, 1) == 1

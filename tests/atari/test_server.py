"""Tests of server.py: when a parameter server ends. That it does: test_atari_pathnet.py."""

import time

import pytest

from atari import server
from atari.cluster import PS, Cluster

pytestmark = pytest.mark.slow

ROLE = Cluster(("a:1",), ("b:1", "c:1", "d:1"), PS, 0)
GA_WORKER = 2


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(server, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(server, "GRACE_SECONDS", 0.2)


def looks(*departures):
    """What each look at the queue finds; then nothing, and then the test ends."""
    left = [*departures, *[[]] * 100]

    def look():
        if not left:
            raise TimeoutError
        return left.pop(0)

    return look


def test_it_ends_when_all_workers_have_left():
    look = looks([1], [], [GA_WORKER, 1], [0])
    server._wait_for_all(look, ROLE)
    assert look() == []


def test_an_actor_that_died_is_not_waited_for_long_after_the_ga_worker_has_left():
    since = time.monotonic()
    server._wait_for_all(looks([0], [GA_WORKER]), ROLE)
    assert 0.2 <= time.monotonic() - since < 0.9


def test_the_ga_worker_is_waited_for_as_long_as_it_takes():
    with pytest.raises(TimeoutError):
        server._wait_for_all(looks([0], [1]), ROLE)

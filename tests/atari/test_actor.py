"""Tests of actor.py: what one actor's rollouts consist of."""

import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from a3c import UNITS
from atari import actor as atari_actor
from atari import environments
from atari.actor import Player

pytestmark = pytest.mark.slow


class Scripted:
    """Environments that tell the time: observation n shows n mod 256 everywhere.

    Args:
      rewards: [steps, E]. ends: for each environment the steps, from 1, that end an
        episode; every second of these cuts it off instead.
    """

    def __init__(self, rewards, ends):
        self._rewards, self._ends = rewards, ends
        self._now = 0
        self.taken = []

    def reset(self, seed):
        return self._show(), {}

    def step(self, actions):
        self.taken.append(actions)
        rewards = np.array(self._rewards[self._now], float)
        self._now += 1
        over = np.array([self._now in ends[0::2] for ends in self._ends])
        cut = np.array([self._now in ends[1::2] for ends in self._ends])
        return self._show(), rewards, over, cut, {}

    def _show(self):
        shape = [len(self._ends), 4, 84, 84]
        screens = np.full(shape, self._now % 256, np.uint8)
        screens[:, :, 0, 0] = np.arange(4)  # which frame it is
        return screens


@pytest.fixture
def player(monkeypatch):
    def make(rewards, ends):
        scripted = Scripted(rewards, ends)
        monkeypatch.setattr(environments, "make", lambda *_: scripted)
        return Player("any", len(ends), 1, 0), scripted

    return make


def counting(observation, state, step):
    """Acts by the clock of the observation; the state counts steps."""
    assert step in range(3)
    assert observation.shape == (2, 84, 84, 4)
    assert observation.dtype == np.uint8
    assert np.array_equal(observation[0, 0, 0], range(4))
    return observation[:, 1, 1, 0] % 3, state + 1


def test_rollouts_follow_on_one_another(player):
    rewards = np.zeros([6, 2])
    rewards[1] = 5, -0.5
    rewards[4] = -7, 1
    actor, scripted = player(rewards, [[3], []])
    first, _ = actor.play(counting, 3, version=0)
    second, _ = actor.play(counting, 3, version=0)

    for rollout, after in ((first, 3), (second, 6)):
        assert rollout["observation"].shape == (2, 84, 84, 4)
        assert (rollout["observation"][:, 1, 1, 0] == after).all()
    actions = np.concatenate([first["actions"], second["actions"]])
    assert np.array_equal(actions, np.array(scripted.taken))
    assert np.array_equal(actions[:, 0], [0, 1, 2, 0, 1, 2])
    # Rewards are cut to +-1.
    assert first["rewards"].tolist() == [[0, 0], [1, -0.5], [0, 0]]
    assert second["rewards"].tolist() == [[0, 0], [-1, 1], [0, 0]]
    assert first["ends"].tolist() == [[0, 0], [0, 0], [1, 0]]
    assert not second["ends"].any()


def test_the_lstm_is_carried_over_rollouts_and_starts_anew_with_an_episode(player):
    actor, _ = player(np.zeros([6, 2]), [[2, 5], []])
    assert actor.state.shape == (2, 2, UNITS)
    assert actor.state.dtype == np.float32
    assert not actor.state.any()
    first, _ = actor.play(counting, 3, version=0)
    second, _ = actor.play(counting, 3, version=0)
    # Three steps; the first environment's episode ended after the second of them.
    for rollout, steps in ((first, (1, 3)), (second, (1, 6))):
        assert (rollout["state"][:, 0] == steps[0]).all()
        assert (rollout["state"][:, 1] == steps[1]).all()
    assert np.array_equal(actor.state, second["state"])


def test_episodes_are_told_with_the_path_that_played_all_of_them(player):
    """Returns are whole, not cut to +-1; an episode that spans two paths is nobody's."""
    rewards = np.tile([[3.0, -1.0]], [9, 1])
    actor, _ = player(rewards, [[2, 5, 8], [9]])
    _, episodes = actor.play(counting, 3, version=7)
    assert episodes == [(7, 6.0, 2)]
    _, episodes = actor.play(counting, 3, version=8)  # one spans both
    assert episodes == [(-1, 9.0, 3)]
    _, episodes = actor.play(counting, 3, version=8)
    assert episodes == [(8, 9.0, 3), (-1, -9.0, 9)]


def test_curves_are_means_since_the_last_point(monkeypatch, tmp_path):
    written = []
    clock = types.SimpleNamespace(now=100.0)
    monkeypatch.setattr(atari_actor.time, "monotonic", lambda: clock.now)
    events = types.SimpleNamespace(scalars=lambda *call: written.append(call))
    monkeypatch.setattr(atari_actor.events, "Events", lambda *_: events)
    curves = atari_actor.Curves(str(tmp_path), 2, 0, "catch", None)
    for seconds, episodes in ((2, [(0, 4.0, 9)]), (2, []), (4, [(-1, 8.0, 9)])):
        clock.now += seconds
        curves.add(640, 160, episodes, {"losses/entropy": 0.5})
    assert written == [
        (
            640,
            {
                "losses/entropy": 0.5,
                "speed/steps_per_second": 60.0,
                "charts/episodic_return": 6.0,
            },
        )
    ]


def test_seeds_of_the_games_differ_between_actors_tasks_and_starts():
    seeds = {
        atari_actor._seed(0, number, task)
        for number in range(5)
        for task in range(3)
        for _ in range(3)
    }
    assert len(seeds) == 45
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_a_process_whose_actor_hangs_ends_itself(tmp_path):
    """For the launcher to start another: even if it hangs within one call."""
    script = tmp_path / "hangs.py"
    script.write_text(
        "import types; from atari import actor as atari_actor\n"
        "atari_actor.HUNG_SECONDS = 0.2\n"
        "class Actor:\n"
        "  def __init__(self, number, *_): self.number = number\n"
        "  def close(self): pass\n"
        "  def roll_out(self, *_):\n"
        "    while self.number == 1: pass\n"
        "    return 0\n"
        "atari_actor.Actor = Actor\n"
        "role = types.SimpleNamespace(own_actors=range(3))\n"
        "atari_actor._play_task(None, None, None, role, 0, None)\n"
    )
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(atari_actor.__file__).parent.parent)},
        timeout=120,
    )
    assert done.returncode == 1
    assert "Timeout" in done.stderr and "in roll_out" in done.stderr


def test_actors_of_a_process_take_turns_until_the_task_is_over(monkeypatch):
    """And all of them are closed, however it ends."""
    turns, closed = [], []

    class Actor:
        def __init__(self, number, task, network, plan):
            self.number = number
            assert (task, network) == (1, "the network")

        def roll_out(self, exchange, session):
            turns.append(self.number)
            return 2 if len(turns) == 8 else 1

        def close(self):
            closed.append(self.number)

    monkeypatch.setattr(atari_actor, "Actor", Actor)
    role = types.SimpleNamespace(own_actors=range(5, 8))
    assert atari_actor._play_task(None, None, "the network", role, 1, None) == 2
    assert turns == [5, 6, 7, 5, 6, 7, 5, 6]
    assert sorted(closed) == [5, 6, 7]

"""Tests of ga_worker.py: a worker with servers of its own, under the script's loop."""

import json
import types
from dataclasses import replace

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_parameter_servers import LEARNING

import atari_pathnet
import pathnet
from a3c import ConvGrid
from atari import settings
from atari.ga_worker import GaWorker
from atari.parameter_servers import Shared
from atari.scores import SCORE_EPISODES
from common import checkpoint, results
from common import tf1 as tf
from common.commandline import UserError

pytestmark = pytest.mark.slow

ACTORS = 3
GRID = ConvGrid(2, 4, 2, (12,), (12,), actions=(3, 3), use_lstm=False)


def look(worker, session):
    """One look, decided on by the script's own loop; true once all tasks are over."""
    seen = worker.observe(session)
    if seen is not None and worker.asks_for_decision(seen):
        one = types.SimpleNamespace(
            looks=lambda: [seen], freeze=worker.freeze, hand_out=worker.hand_out
        )
        atari_pathnet.evolve(one)
        worker.carry_out(session)
    return worker.all_tasks_are_over()


def flags(folder, **changes):
    made = {"max_time_step": 1000, "seed": 1, "t_max": 20, "log_dir": str(folder)}
    return made | changes


class World:
    """Servers that outlive a worker, and what actors would do to them.

    Each start() is a worker's process: it knows only what it finds.
    """

    def __init__(self, folder):
        self.folder = folder
        self._server = tf.train.Server.create_local_server()
        self.settings = settings.GaWorker(
            games=("catch", "catch"),
            B=ACTORS,
            seed=1,
            tournament_seconds=0,
            checkpoint_seconds=0,
            stop_score=None,
            control="pathnet",
            folder=str(folder),
            checkpoint_dir=str(folder / "checkpoints"),
            flags=flags(folder),
            decisive={"seed": 0, "t_max": 20},
        )
        folder.mkdir()
        with tf.Graph().as_default() as graph:
            self._shared = Shared(GRID, ACTORS, 0, LEARNING)
            self._rows = tf.placeholder(tf.float64, [None, 6])
            self._tell = self._shared.episodes.enqueue_many(self._rows)
            self._steps = tf.placeholder(tf.int64, [])
            self._step = self._shared.steps.assign_add(self._steps)
            self._values = {
                n: v.read_value()
                for n, v in (
                    self._shared.state() | {"ready": self._shared.ready}
                ).items()
            }
            self._lose = tf.global_variables_initializer()
        self._session = tf.Session(self._server.target, graph=graph)

    def start(self, **changes):
        role = types.SimpleNamespace(
            actors=ACTORS, actor_processes=ACTORS, ps=(), device="/cpu:0"
        )
        plan = replace(self.settings, **changes)
        worker = GaWorker(role, GRID, LEARNING, plan)
        session = tf.Session(self._server.target, graph=worker.graph.graph)
        worker.set_up(session)
        return worker, session

    def values(self):
        return self._session.run(self._values)

    def play(self, returns, steps=100, versions=None, task=0):
        """Every actor plays one episode."""
        now = self.values()
        versions = now["versions"] if versions is None else versions
        rows = [
            (task, actor, versions[actor], returns[actor], 11, now["steps"])
            for actor in range(ACTORS)
        ]
        self._session.run(self._tell, {self._rows: rows})
        self._session.run(self._step, {self._steps: steps})

    def lose(self):
        """The servers die and are started again: all is zero, nothing is ready."""
        self._session.run(self._lose)


@pytest.fixture(scope="module")
def server_world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("world") / "0")


@pytest.fixture
def world(server_world, tmp_path):
    server_world.lose()
    server_world.folder = tmp_path / "run"
    server_world.folder.mkdir()
    server_world.settings = replace(
        server_world.settings,
        folder=str(server_world.folder),
        checkpoint_dir=str(server_world.folder / "checkpoints"),
        flags=flags(server_world.folder),
    )
    return server_world


def test_a_new_population(world):
    world.start()
    now = world.values()
    assert now["ready"] and now["task"] == now["steps"] == now["generation"] == 0
    assert not now["played"].any() and not now["fixed_paths"].any()
    assert now["paths"].shape == (ACTORS, 2, 2)
    assert len({path.tobytes() for path in now["paths"]}) > 1
    for name in "layer1/kernel", "layer2/kernel", "task2/policy/kernel":
        assert now[name].any()


def test_a_look_compares_once_all_have_played(world):
    worker, session = world.start()
    first = world.values()
    assert not look(worker, session)
    assert world.values()["generation"] == 0

    world.play([1, 5, 3])
    assert not look(worker, session)
    now = world.values()
    assert now["generation"] == 1
    assert np.array_equal(now["paths"][1], first["paths"][1])
    assert (now["versions"] - first["versions"]).tolist() == [1, 0, 1]
    # The winner's score is kept, the others' are unset.
    assert now["returns"].tolist() == [0, 5, 0]
    assert now["played"].tolist() == [0, 1, 0]

    # Episodes begun on the old paths do not count.
    world.play([9, -5, 9], versions=first["versions"])
    assert not look(worker, session)
    now = world.values()
    assert now["generation"] == 1
    assert now["returns"].tolist() == [0, 0, 0]
    assert now["played"].tolist() == [0, 2, 0]

    status = json.loads((world.folder / "status.json").read_text())
    assert (status["task"], status["steps"], status["generation"]) == (0, 200, 1)
    assert [actor["score"] for actor in status["actors"]] == [None, 0.0, None]
    worker.close()


def finish_task(world, worker, session, task, best):
    """Plays until the steps of a task are spent: what look() answers then."""
    returns = [0.0] * ACTORS
    returns[best] = 4.0
    world.play(returns, steps=1000, task=task)
    return look(worker, session)


def test_two_tasks_and_the_last_line(world):
    worker, session = world.start()
    best = world.values()["paths"][2]
    assert not finish_task(world, worker, session, 0, best=2)
    now = world.values()
    assert now["task"] == 1 and now["steps"] == 0 and now["generation"] == 0
    assert np.array_equal(now["fixed_paths"][0], pathnet.to_geopath(best, 4))
    # Episodes of the first task that are told late belong to nobody.
    world.play([9, 9, 9], steps=0, task=0)
    assert not look(worker, session)
    assert not world.values()["played"].any()

    assert finish_task(world, worker, session, 1, best=0)
    assert look(worker, session)
    line = worker.finish()
    assert line == "CATCH_CATCH,TASK1:1000,TASK2:1000,Done"
    [entry] = results.read([world.folder / "results.jsonl"])
    assert entry["script"] == "atari" and entry["seed"] == 1
    assert [task["steps"] for task in entry["tasks"]] == [1000, 1000]
    assert entry["tasks"][0]["path"] == best.tolist()
    assert entry["tasks"][0]["score"] == pytest.approx(4 / 3)
    assert entry["tasks"][0]["curve"]["episodes"] == [3]
    assert (world.folder / "paths.png").stat().st_size > 1000
    row = EventAccumulator(str(world.folder / "summary")).Reload()
    assert [point.value for point in row.Scalars("task2/steps")] == [1000]
    worker.close()
    # Curves reach the end of their task.
    for task in 1, 2:
        events = EventAccumulator(str(world.folder / f"task{task}_catch")).Reload()
        last = events.Scalars("charts/episodic_return")[-1]
        assert (last.step, last.value) == (1000, pytest.approx(4 / 3))


def test_a_task_ends_on_a_score(world):
    worker, session = world.start(stop_score=2.0)
    for episode in range(SCORE_EPISODES // ACTORS):
        assert world.values()["task"] == 0
        world.play([2, 2, 1 if episode == 0 else 2], steps=1)
        look(worker, session)
    assert world.values()["task"] == 0  # one return of 1 is among the last thirty
    world.play([2, 2, 2], steps=1)
    look(worker, session)
    assert world.values()["task"] == 1
    worker.close()


def test_a_network_that_diverged_is_not_saved(world, monkeypatch):
    worker, session = world.start()
    worker.save(session)
    kept = checkpoint.saved(world.settings.checkpoint_dir)
    arrays = worker.graph.read_all(session)
    broken = next(n for n, a in arrays.items() if a.dtype == np.float32 and a.size)
    arrays[broken] = np.full_like(arrays[broken], np.nan)
    monkeypatch.setattr(worker.graph, "read_all", lambda _: dict(arrays))
    with pytest.raises(UserError, match="task 1: training diverged within .* steps"):
        worker.save(session)
    assert checkpoint.saved(world.settings.checkpoint_dir) == kept
    worker.close()


def test_a_worker_that_dies_goes_on_with_what_the_servers_hold(world):
    worker, session = world.start()
    world.play([1, 5, 3])
    look(worker, session)
    worker.save(session)
    before = world.values()
    again, session = world.start()
    after = world.values()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    world.play([0, 0, 0])
    look(again, session)
    again.save(session)
    # Its curve holds the episodes from before and after.
    _, arrays = checkpoint.load(world.settings.checkpoint_dir)
    assert arrays["curve"][1].sum() == 6
    worker.close()
    again.close()


def test_servers_that_die_come_back_from_the_last_checkpoint(world):
    worker, session = world.start()
    finish_task(world, worker, session, 0, best=1)
    world.play([1, 5, 3], steps=300, task=1)
    look(worker, session)
    worker.save(session)
    before = world.values()
    world.play([1, 5, 3], steps=300, task=1)  # lost
    world.lose()
    with pytest.raises(tf.errors.AbortedError):
        look(worker, session)
    worker.set_up(session)
    after = world.values()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert after["ready"] and after["task"] == 1 and after["steps"] == 300

    # A new process does the same, and remembers how the first task went.
    world.lose()
    again, session = world.start()
    after = world.values()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert finish_task(world, again, session, 1, best=0)
    assert again.finish() == "CATCH_CATCH,TASK1:1000,TASK2:1300,Done"
    worker.close()
    again.close()


def finish_both_tasks(world):
    """A worker that has learned both tasks, as far as its last checkpoint."""
    worker, session = world.start()
    finish_task(world, worker, session, 0, best=2)
    finish_task(world, worker, session, 1, best=0)
    return worker, session


LAST_LINE = "CATCH_CATCH,TASK1:1000,TASK2:1000,Done"


def lines(folder):
    return (folder / "results.jsonl").read_text().splitlines()


def everything(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize(("noted", "lost"), [(False, False), (True, True)])
def test_the_line_of_a_run_is_written_once_whenever_its_worker_dies(world, lost, noted):
    """After the line, or after the checkpoint that says so; alone, or with the servers."""
    worker, session = finish_both_tasks(world)
    if noted:
        worker.record(session)
    else:
        worker.finish()
    before = lines(world.folder)
    if lost:
        world.lose()
    again, session = world.start()
    assert look(again, session)
    again.record(session)
    assert again.finish() == LAST_LINE
    assert lines(world.folder) == before and len(before) == 1


def test_a_worker_that_died_before_the_line_writes_it(world):
    finish_both_tasks(world)
    again, session = world.start()
    assert look(again, session)
    again.record(session)
    assert again.finish() == LAST_LINE
    assert len(lines(world.folder)) == 1
    assert (world.folder / "paths.png").exists()


def start_other_run(world):
    other = world.folder / "other"
    other.mkdir()
    world.lose()
    changed = flags(other, max_time_step=5000)
    return other, *world.start(folder=str(other), flags=changed)


def test_another_run_on_a_finished_checkpoint_says_so_and_writes_nothing(world):
    worker, session = finish_both_tasks(world)
    worker.record(session)
    other, worker, session = start_other_run(world)
    before = everything(world.folder)
    assert look(worker, session)
    worker.record(session)
    assert worker.finish() == (
        f"Nothing to do: all tasks in {world.settings.checkpoint_dir} are finished; the "
        f"results are in {world.folder}"
    )
    assert everything(world.folder) == before and not list(other.iterdir())


def test_another_run_records_what_died_unrecorded_as_it_was_learned(world):
    finish_both_tasks(world)
    other, worker, session = start_other_run(world)
    assert look(worker, session)
    worker.record(session)
    assert worker.finish() == LAST_LINE
    [entry] = results.read([other / "results.jsonl"])
    assert entry["flags"] == flags(world.folder)


def start_and_save(world):
    """A worker that made a checkpoint after 900 of the first task's 1,000 steps."""
    worker, session = world.start()
    world.play([1, 5, 3], steps=900)
    look(worker, session)
    worker.save(session)
    return worker, session


def assert_goes_on(world, worker, session):
    """From that checkpoint: both tasks are ended, the first one's 900 steps counted."""
    assert not finish_task(world, worker, session, 0, best=1)
    assert finish_task(world, worker, session, 1, best=1)
    assert worker.finish() == "CATCH_CATCH,TASK1:1900,TASK2:1000,Done"
    worker.close()


def test_a_worker_that_dies_as_it_ends_a_task_ends_it_again(world, monkeypatch):
    """The servers are one task ahead of the last checkpoint: it must not be forgotten."""
    worker, session = start_and_save(world)

    class Death(Exception):
        pass

    def die(_):
        raise Death

    monkeypatch.setattr(worker, "save", die)
    with pytest.raises(Death):
        finish_task(world, worker, session, 0, best=1)
    assert world.values()["task"] == 1
    again, session = world.start()
    now = world.values()
    assert (now["task"], now["steps"], now["ready"]) == (0, 900, True)
    assert_goes_on(world, again, session)
    worker.close()


def test_a_worker_that_is_cut_off_as_it_ends_a_task_ends_it_again(world, monkeypatch):
    """The same when it lives on, and only the servers' answer was lost."""
    worker, session = start_and_save(world)
    switch = worker.graph.switch

    def switch_without_answer(*arguments, **named):
        switch(*arguments, **named)
        raise tf.errors.UnavailableError(None, None, "lost")

    monkeypatch.setattr(worker.graph, "switch", switch_without_answer)
    world.play([0, 4, 0], steps=100)
    with pytest.raises(tf.errors.UnavailableError):
        look(worker, session)
    assert world.values()["task"] == 1
    monkeypatch.undo()
    worker.set_up(session)
    assert world.values()["task"] == 0
    assert_goes_on(world, worker, session)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        (
            {"games": ("catch", "pong")},
            "made with --games=catch,catch, and this run has",
        ),
        ({"grid": {"M": 5}}, "made with --M=4, and this run has 5"),
        (
            {"grid": {"kernel_num": (10,)}},
            "made with --kernel_num=12, and this run has 10",
        ),
        (
            {"grid": {"use_lstm": True}},
            "made with --use_lstm=false, and this run has true",
        ),
        ({"actors": 4}, "made with --worker_hosts_num=3, and this run has 4"),
        ({"flags": flags("", seed=2)}, "made with --seed=1, and this run has 2"),
        ({"flags": flags("", t_max=5)}, "made with --t_max=20, and this run has 5"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(world, monkeypatch, changes, fault):
    worker, session = world.start()
    worker.save(session)
    world.lose()
    monkeypatch.setattr(f"{__name__}.GRID", replace(GRID, **changes.pop("grid", {})))
    monkeypatch.setattr(f"{__name__}.ACTORS", changes.pop("actors", ACTORS))
    with pytest.raises(UserError) as refused:
        world.start(**changes)
    text = str(refused.value)
    assert fault in text
    assert text.startswith(f"flag --checkpoint_dir={world.settings.checkpoint_dir}: ")
    assert not world.values()["ready"]


def test_a_checkpoint_of_something_else_is_refused(world):
    checkpoint.save(world.settings.checkpoint_dir, 1, {"script": "mnist"}, {})
    with pytest.raises(UserError, match="no checkpoints of Atari"):
        world.start()


CONTROLS = "scratch", "finetune", "pathnet", "random_frozen", "no_selection"


def modules_alike(before, after):
    """Of layer 1: bool [M], whose parameters are the same."""
    return (after["layer1/kernel"] == before["layer1/kernel"]).all((1, 2, 3, 4))


def expect_handed_on(control, best, before, after):
    """What a task's best path, int [L, N], has become in the next one."""
    geopath = pathnet.to_geopath(best, 4)
    frozen = after["fixed_paths"][0]
    if control in ("scratch", "finetune"):
        assert not frozen.any()
    elif control == "random_frozen":
        assert np.array_equal(frozen.sum(1), geopath.sum(1))
    else:
        assert np.array_equal(frozen, geopath)
    same = modules_alike(before, after)
    if control == "finetune":
        assert same[geopath[0] > 0].all()
    elif control in ("scratch", "random_frozen"):
        assert not same.any()
    else:
        assert np.array_equal(same, geopath[0] > 0)
    assert (after["paths"] == best).all() == (control == "finetune")


@pytest.mark.parametrize("control", CONTROLS)
def test_what_the_controls_hand_on(world, control):
    """scratch freezes nothing; finetune keeps all, on the best path alone; ..."""
    worker, session = world.start(control=control)
    before = world.values()
    finish_task(world, worker, session, 0, best=1)
    after = world.values()
    expect_handed_on(control, before["paths"][1], before, after)
    if control == "finetune":
        assert modules_alike(before, after).all()
        world.play([1, 5, 3], task=1)
        look(worker, session)
        assert np.array_equal(world.values()["paths"], after["paths"])
    worker.close()


def learned_by_another(world, folder):
    """A finished run of one task: (its best path, its arrays)."""
    worker, session = world.start(checkpoint_dir=str(folder / "both"))
    best = world.values()["paths"][2]
    finish_task(world, worker, session, 0, best=2)
    worker.close()
    facts, arrays = checkpoint.load(str(folder / "both"))
    for name in "games", "outcomes":
        facts[name] = facts[name][:1]
    facts["grid"]["actions"] = facts["grid"]["actions"][:1]
    arrays = {n: v for n, v in arrays.items() if not n.startswith("task2")}
    arrays["fixed_paths"] = arrays["fixed_paths"][:1]
    checkpoint.save(str(folder / "one"), 1, facts, arrays)
    return best, arrays


@pytest.mark.parametrize("control", ["pathnet", "finetune", "random_frozen"])
def test_a_run_begins_after_what_another_has_learned(world, tmp_path, control):
    """With the same as if it had learned the first task itself."""
    best, before = learned_by_another(world, tmp_path)
    world.lose()
    another_seed = {"seed": 2, "flags": flags(world.folder, seed=2)}
    worker, session = world.start(
        control=control, load_dir=str(tmp_path / "one"), **another_seed
    )
    after = world.values()
    assert after["task"] == 1 and after["ready"] and after["steps"] == 0
    assert np.array_equal(after["task1/policy/kernel"], before["task1/policy/kernel"])
    expect_handed_on(control, best, before, after)
    assert finish_task(world, worker, session, 1, best=0)
    line = worker.finish()
    assert line.startswith("CATCH_CATCH,TASK1:1000,TASK2:") and line.endswith("Done")
    worker.close()
    (result,) = results.read([world.folder / "results.jsonl"])
    assert [task["name"] for task in result["tasks"]] == ["catch", "catch"]
    assert result["tasks"][0]["path"] == best.tolist()


def test_what_another_run_has_learned_is_not_needed_to_go_on(world, tmp_path):
    learned_by_another(world, tmp_path)
    world.lose()
    worker, session = world.start(load_dir=str(tmp_path / "one"))
    worker.save(session)
    worker.close()
    world.lose()
    worker, _ = world.start(load_dir=str(tmp_path / "moved away"))
    assert world.values()["task"] == 1
    worker.close()


def test_without_selection_the_winner_is_drawn(world):
    """Of many tournaments the best of three wins about a third."""
    worker, session = world.start(control="no_selection")
    wins = 0
    for _ in range(60):
        versions = world.values()["versions"]
        world.play([1, 5, 3], steps=10)
        look(worker, session)
        wins += world.values()["versions"][1] == versions[1]
    assert 8 < wins < 35
    worker.close()


@pytest.mark.parametrize(
    ("verbs", "missing"),
    [
        ("", r"no actors were drawn: look\.draw\(\)"),
        ("draw", r"hand_out\(look\.overwrite_losers\(drawn\)\)"),
        ("draw overwrite_losers", r"hand_out\(look\.overwrite_losers\(drawn\)\)"),
    ],
)
def test_a_loop_that_leaves_out_a_verb_is_told_which(world, verbs, missing):
    worker, session = world.start()
    world.play([1, 5, 3])
    seen = worker.observe(session)
    if "draw" in verbs:
        drawn = seen.draw()
    if "overwrite_losers" in verbs:
        seen.overwrite_losers(drawn)
    before = world.values()
    with pytest.raises(RuntimeError, match=missing):
        worker.carry_out(session)
    assert world.values()["generation"] == before["generation"]
    worker.close()


def test_a_loop_that_does_not_freeze_or_freezes_too_soon_is_told_so(world):
    worker, session = world.start()
    world.play([1, 5, 3])
    seen = worker.observe(session)
    with pytest.raises(RuntimeError, match="look.task_is_over is false"):
        worker.freeze(seen.best())
    world.play([1, 5, 3], steps=1000)
    seen = worker.observe(session)
    worker.observe(session)
    with pytest.raises(RuntimeError, match="the task is over, freeze its best path"):
        worker.hand_out(seen.overwrite_losers(seen.draw()))
    with pytest.raises(
        RuntimeError, match=r"the task is over: freeze\(look.best\(\)\)"
    ):
        worker.carry_out(session)
    worker.close()


def test_a_change_of_some_variables_leaves_the_others_and_what_was_read(world):
    worker, session = world.start()
    state = worker.graph.read(session)
    read = {name: np.copy(value) for name, value in state._asdict().items()}
    before = world.values()
    worker.graph.assign(session, played=np.array([4, 5, 6]))
    after = world.values()
    assert after["played"].tolist() == [4, 5, 6]
    others = before.keys() - {"played"}
    assert all(np.array_equal(before[name], after[name]) for name in others)
    assert all(np.array_equal(read[n], v) for n, v in state._asdict().items())

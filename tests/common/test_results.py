"""Appending to results files, and reading them."""

import errno
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from fuzzing import FUZZ_CASES, assert_is_one_line, damaged
from hypothesis import given, settings
from hypothesis import strategies as st

from common import results
from common.commandline import UserError

ROOT = Path(results.__file__).parent.parent
MAY_DIFFER = {"seed"}  # flags in which repeats of a batch may differ


def start_python(code, *args, **popen):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    code = "import sys; from common import results\n" + code
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.Popen(command, cwd=ROOT, **pipes, **popen)


def repeat(first, second, generations, **flags):
    """One repeat as the scripts write it, two tasks long."""
    names = (first, second)
    return {
        "flags": {"seed": 0, "M": 10, **flags},
        "tasks": [
            {"name": n, "generations": g, "fitness": 0.99, "accuracy_test": 0.95}
            for n, g in zip(names, generations)
        ],
    }


def write(path, *repeats):
    path.write_text("".join(json.dumps(r) + "\n" for r in repeats))
    return path


def test_read_keeps_the_order_of_files_and_lines(tmp_path):
    one = write(tmp_path / "1", repeat("a", "b", (4, 2)), repeat("a", "b", (5, 2)))
    two = write(tmp_path / "2", repeat("a", "b", (6, 2)))
    read = results.read([one, two])
    assert [r["tasks"][0]["generations"] for r in read] == [4, 5, 6]


def test_read_counts_a_repeat_once_however_often_its_file_is_named(tmp_path):
    one = write(tmp_path / "1", repeat("a", "b", (4, 2)), repeat("a", "b", (5, 2)))
    copy = tmp_path / "copy"
    copy.write_bytes(one.read_bytes())
    with copy.open("a") as file:
        file.write(json.dumps(repeat("a", "b", (6, 2))) + "\n")
    read = results.read([one, one, copy])
    assert [r["tasks"][0]["generations"] for r in read] == [4, 5, 6]


def of_a_game(**changes):
    """A repeat of one game, with these changes of the task."""
    curve = {"steps": [9, 18], "return": [0.5, 1], "episodes": [1, 30]}
    task = {"name": "pong", "generations": 1, "steps": 18, "score": 1.0, "curve": curve}
    result = {"script": "atari", "seed": 0, "flags": {}, "tasks": [task | changes]}
    return json.dumps(result)


def of_a_task(**changes):
    """A repeat of a supervised task, with these changes of it."""
    result = repeat("a", "b", (1, 1))
    result["tasks"][0] |= changes
    return json.dumps(result)


def of_a_repeat(**changes):
    """A repeat with these changes of its other fields."""
    return json.dumps(repeat("a", "b", (1, 1)) | changes)


NAN = float("nan")
FROM_1 = "tasks[0].generations is not a whole number from 1 on"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "it is not JSON"),
        ("{}{}", "it is not JSON"),
        ("[]", "it is not an object"),
        ("3", "it is not an object"),
        ("{}", 'it has no "flags"'),
        ('{"tasks": 1, "flags": {}}', "tasks is not a list"),
        ('{"tasks": [3], "flags": {}}', "tasks[0] is not an object"),
        ('{"tasks": [{"name": "a"}], "flags": {}}', 'tasks[0] has no "generations"'),
        ('{"tasks": [], "flags": 2}', "flags is not an object"),
        ("[" * 100_000, "it is not JSON, or too large"),
        ('{"tasks": [1%s], "flags": {}}' % ("0" * 9999), "not JSON, or too large"),
        (of_a_task(generations=10**400), FROM_1),
        (of_a_task(generations="x"), FROM_1),
        (of_a_task(generations=1.5), FROM_1),
        (of_a_task(generations=-5), FROM_1),
        (of_a_task(generations=True), FROM_1),
        (of_a_task(fitness=NAN), "tasks[0].fitness is not a number from 0 to 1"),
        (of_a_task(fitness=True), "tasks[0].fitness is not a number from 0 to 1"),
        (of_a_task(accuracy_test=None), "tasks[0].accuracy_test is not a number"),
        (of_a_task(name=[]), "tasks[0].name is not printable text"),
        (of_a_task(name="\ud800"), "tasks[0].name is not printable text"),
        (of_a_task(name="\x1b[31m"), "tasks[0].name is not printable text"),
        (of_a_task(converged="yes"), "tasks[0].converged is not true or false"),
        (of_a_task(path=[["0"]]), "tasks[0].path[0][0] is not a whole number from 0"),
        (of_a_task(curve={"generation": [1]}), 'tasks[0].curve has no "fitness"'),
        (of_a_task(curve=[]), "tasks[0].curve is not an object"),
        (of_a_task(modules_so_far=-1), "tasks[0].modules_so_far is not a whole"),
        (of_a_repeat(seed=[]), "seed is not a whole number from 0 on"),
        (of_a_repeat(control="\x1b[2J"), "control is not printable text"),
        (of_a_repeat(script=3), "script is not printable text"),
        (of_a_repeat(overlap="2"), "overlap is not a whole number from 0 to"),
        (of_a_repeat(retention=[[0.5], [NAN, 1]]), "retention[1][0] is not a number"),
        (of_a_repeat(retention=[[0.5]]), "retention has not each task's accuracy"),
        (of_a_repeat(flags={"M": 10**12}), "flags.M is not a whole number from 1 to"),
        (of_a_repeat(flags={"a": {"b": 1}}), "flags holds something that is no value"),
        (of_a_repeat(script="atari", seed=0), 'tasks[0] has no "steps"'),
        (of_a_repeat(script="atari", tasks=[]), 'it has no "seed"'),
        (of_a_game(steps=1.5), "tasks[0].steps is not a whole number from 0 on"),
        (of_a_game(score="1"), "tasks[0].score is not a number"),
        (of_a_game(score=NAN), "tasks[0].score is not a number"),
        (of_a_game(curve=3), "tasks[0].curve is not an object"),
        (of_a_game(curve={}), 'tasks[0].curve has no "steps"'),
        (
            of_a_game(curve={"steps": [1], "return": [], "episodes": [1]}),
            "tasks[0].curve has lists of several lengths",
        ),
        (
            of_a_game(curve={"steps": [1], "return": ["x"], "episodes": [1]}),
            "tasks[0].curve.return[0] is not a number",
        ),
        ("\x00\xff", "it is not JSON"),
    ],
)
def test_read_names_the_line_that_is_no_result(tmp_path, line, reason):
    path = write(tmp_path / "results.jsonl", repeat("a", "b", (1, 1)))
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=r"results\.jsonl, line 2: ") as caught:
        results.read([path])
    assert reason in str(caught.value)
    assert "; remove the line or name another file" in str(caught.value)


def test_read_takes_a_game(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text(of_a_game() + "\n")
    (game,) = results.read([path])
    assert game["tasks"][0]["score"] == 1.0


def test_read_takes_a_game_in_which_no_episode_ended(tmp_path):
    path = tmp_path / "results.jsonl"
    curve = {"steps": [], "return": [], "episodes": []}
    path.write_text(of_a_game(score=None, curve=curve) + "\n")
    (game,) = results.read([path])
    assert game["tasks"][0]["score"] is None


def test_read_takes_fields_that_it_does_not_know(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text(of_a_task(diverged=True) + "\n" + of_a_repeat(data={"a": [NAN]}))
    assert len(results.read([path])) == 2


# ---- Lines that were not ended ----


def test_an_object_without_a_line_break_stays_one_of_its_own(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text('{"by": "hand"}')
    assert results.append(path, {"second": 2}) == 2
    assert path.read_text() == '{"by": "hand"}\n{"second": 2}\n'


@pytest.mark.parametrize("kept", [1, 10, -1])
def test_a_line_of_a_writer_that_was_killed_spoils_no_other(tmp_path, capsys, kept):
    path = write(tmp_path / "results.jsonl", repeat("a", "b", (1, 1)))
    with path.open("a") as file:
        file.write(json.dumps(repeat("a", "b", (2, 2)))[:kept])
    assert len(results.read([path])) == 1
    results.append(path, repeat("a", "b", (3, 3)))
    read = results.read([path])
    assert [result["tasks"][0]["generations"] for result in read] == [1, 3]
    told = f"{path}, line 2: unfinished, passed over\n"
    assert all(line.endswith(told) for line in capsys.readouterr().err.splitlines(True))


# ---- Before anything is learned ----


def test_a_file_to_append_to_may_be_new_empty_or_hold_results(tmp_path):
    path = tmp_path / "results.jsonl"
    results.check_appendable(path)
    assert not path.exists()
    path.touch()
    results.check_appendable(path)
    write(path, repeat("a", "b", (1, 1)))
    before = path.read_bytes()
    results.check_appendable(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "make",
    [
        Path.mkdir,
        os.mkfifo,
        lambda path: path.symlink_to(path),
        lambda path: path.write_text("{}\n"),
        lambda path: path.write_bytes(bytes(99)),
    ],
    ids=["folder", "pipe", "link", "JSON", "zeros"],
)
def test_what_is_no_results_file_is_refused_and_kept(tmp_path, make):
    path = tmp_path / "results.jsonl"
    make(path)
    with pytest.raises(UserError, match="results.jsonl"):
        results.check_appendable(path)
    assert os.path.lexists(path)


@pytest.mark.parametrize("filename", ["nowhere/results.jsonl", "file/results.jsonl"])
def test_a_place_where_no_file_can_be_made_is_refused(tmp_path, filename):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be made there"):
        results.check_appendable(tmp_path / filename)


def test_a_file_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "results.jsonl", repeat("a", "b", (1, 1)))

    def refuse(name, mode="r", **options):
        if "a" in mode:
            raise PermissionError(errno.EACCES, "Permission denied", str(name))
        return open(name, mode, **options)

    monkeypatch.setattr(results, "open", refuse, raising=False)
    with pytest.raises(PermissionError):
        results.check_appendable(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=10,
)


@settings(deadline=None, max_examples=30)
@given(values=st.lists(st.dictionaries(st.text(), json_values), max_size=4))
def test_results_are_one_line_each(tmp_path_factory, values):
    """Also if they contain line breaks of any kind."""
    filename = tmp_path_factory.mktemp("results") / "results.jsonl"
    for value in values:
        results.append(str(filename), value)
    content = filename.read_text() if values else ""
    assert content.count("\n") == len(values)
    assert [json.loads(line) for line in content.split("\n")[:-1]] == values


def test_appends_of_several_processes_keep_all_lines_whole(tmp_path):
    filename = tmp_path / "results.jsonl"
    processes, lines, size = 4, 25, 200_000
    code = f"""
print("ready", flush=True)
sys.stdin.readline()
for line in range({lines}):
    filler = [sys.argv[2] * {size}]
    results.append(sys.argv[1], [int(sys.argv[2]), line, filler])
"""
    running = [
        start_python(code, filename, number, stdin=subprocess.PIPE)
        for number in range(processes)
    ]
    for process in running:
        assert process.stdout.readline() == "ready\n"
    for process in running:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in running:
        assert process.communicate(timeout=120)[1] == ""
    found = [json.loads(line) for line in filename.read_text().splitlines()]
    assert [len(filler[0]) for _, _, filler in found] == [size] * processes * lines
    assert sorted(line[:2] for line in found) == [
        [number, line] for number in range(processes) for line in range(lines)
    ]


@pytest.mark.parametrize("room", [0, 1, 5_000])
def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path, room):
    """The disk is full before the line, after its first byte, or half way."""
    filename = tmp_path / "results.jsonl"
    results.append(str(filename), {"first": 1})
    before = filename.read_bytes()
    code = """
try:
    results.append(sys.argv[1], ["x" * 10_000])
except OSError as error:
    print(error.filename, error.strerror, sep="|")
"""
    limit = len(before) + room
    stdout, stderr = start_python(
        code,
        filename,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    ).communicate(timeout=60)
    assert stderr == ""
    name, reason = stdout.strip().split("|")
    assert name == str(filename) and reason
    assert filename.read_bytes() == before
    results.append(str(filename), {"second": 2})
    assert filename.read_bytes() == before + b'{"second": 2}\n'


def test_a_flush_that_fails_takes_the_line_back(tmp_path, monkeypatch):
    """As on a network file system, which tells only then that the disk is full."""
    filename = tmp_path / "results.jsonl"
    results.append(str(filename), {"first": 1})
    before = filename.read_bytes()

    def full(descriptor):
        assert os.fstat(descriptor).st_size > len(before)
        raise OSError(122, "Disk quota exceeded")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="quota") as caught:
        results.append(str(filename), {"second": 2})
    assert caught.value.filename == str(filename)
    assert filename.read_bytes() == before


def test_taking_a_line_back_spares_that_of_another(tmp_path, monkeypatch):
    """Someone else who appends in the meantime has to wait."""
    filename = tmp_path / "results.jsonl"
    results.append(str(filename), {"first": 1})
    before = filename.read_bytes()
    flush = os.fsync
    other = Thread(target=results.append, args=(str(filename), {"other": 3}))

    def full(_):
        monkeypatch.setattr(os, "fsync", flush)
        other.start()
        other.join(timeout=0.5)  # it would be done by now if it did not wait
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        results.append(str(filename), {"second": 2})
    other.join()
    assert filename.read_bytes() == before + b'{"other": 3}\n'


def test_a_result_that_is_no_json_leaves_no_trace(tmp_path):
    filename = tmp_path / "results.jsonl"
    with pytest.raises(TypeError):
        results.append(str(filename), {"array": np.zeros(2)})
    assert not filename.exists()


def test_results_need_a_folder(tmp_path):
    filename = str(tmp_path / "nowhere" / "results.jsonl")
    with pytest.raises(FileNotFoundError) as caught:
        results.append(filename, {})
    assert caught.value.filename == filename


def test_damaged_batches_are_refused_or_read(tmp_path):
    """PATHNET_FUZZ_CASES sets how many."""
    file = tmp_path / "results.jsonl"
    result = repeat("a", "b", (4, 2)) | {"script": "trial", "seed": 3}
    write(file, result | {"control": "pathnet"}, result | {"control": "scratch"})
    content, refused = file.read_bytes(), 0
    for seed in range(FUZZ_CASES):
        file.write_bytes(damaged(content, np.random.default_rng(seed)))
        try:
            held = results.batch(file, "trial", {"M": 10}, MAY_DIFFER, {})
        except UserError as error:
            refused += 1
            assert_is_one_line(error, file)
        else:
            assert all(type(number) is int for number, _ in held), f"seed {seed}"
    assert refused > FUZZ_CASES / 4


@pytest.mark.parametrize("change", [{"seed": None}, {"seed": []}, {"control": {}}])
def test_a_batch_of_nonsense_is_refused(tmp_path, change):
    result = repeat("a", "b", (4, 2)) | {"script": "trial", "seed": 3, "control": "x"}
    file = write(tmp_path / "results.jsonl", result | change)
    with pytest.raises(UserError, match=r"results\.jsonl.*(no repeat|not a result)"):
        results.batch(file, "trial", {"M": 10}, MAY_DIFFER, {})


def test_a_batch_goes_on_with_the_same_data_only(tmp_path):
    result = repeat("a", "b", (4, 2)) | {"script": "trial", "seed": 3, "control": "x"}
    file = write(tmp_path / "results.jsonl", result | {"data": {"mnist": "one"}})
    arguments = file, "trial", {"M": 10}, MAY_DIFFER
    assert results.batch(*arguments, {"mnist": "one"}) == {(3, "x")}
    with pytest.raises(UserError, match=r"other data: mnist one\); name"):
        results.batch(*arguments, {"mnist": "two"})


def test_a_batch_holds_repeats_that_differ_only_where_they_may(tmp_path):
    result = repeat("a", "b", (4, 2)) | {"script": "trial", "control": "x"}
    file = write(tmp_path / "results.jsonl", *(result | {"seed": s} for s in (3, 4)))
    flags = {"seed": 7, "M": 10}
    assert results.batch(file, "trial", flags, MAY_DIFFER, {}) == {(3, "x"), (4, "x")}
    with pytest.raises(UserError, match=r"other settings \(--seed=0\); name"):
        results.batch(file, "trial", flags, (), {})
    with pytest.raises(UserError, match=r"other settings \(--M=10\); name"):
        results.batch(file, "trial", flags | {"M": 5}, MAY_DIFFER, {})
    with pytest.raises(UserError, match=r"other settings \(trial_pathnet\.py\); name"):
        results.batch(file, "other", flags, MAY_DIFFER, {})
    assert results.batch(tmp_path / "missing", "trial", flags, MAY_DIFFER, {}) == set()

"""Claiming the repeats of a batch: each is learned, and by one process at a time."""

import errno
import fcntl
import json
import os
import subprocess
import sys
from itertools import zip_longest
from pathlib import Path
from types import SimpleNamespace

import pytest

from common import batch, results
from common.commandline import UserError

ROOT = Path(results.__file__).parent.parent
REPEATS = [(seed, "pathnet") for seed in range(6)]


def share(folder, name="results.jsonl", **flags):
    """What a process of a batch in a folder knows of it."""
    flags = {"M": 10, "log_dir": "logs"} | flags
    return batch.Batch(folder / name, "trial", flags, {"log_dir"}, {})


def append(folder, repeat, name="results.jsonl", **flags):
    seed, control = repeat
    about = {"script": "trial", "seed": seed, "control": control, "tasks": []}
    results.append(folder / name, about | {"flags": {"M": 10} | flags})


def learn(folder, claimed, name="results.jsonl"):
    """Learns what is claimed; yields each repeat when it is learned."""
    for repeat in claimed:
        append(folder, repeat, name)
        yield repeat


@pytest.fixture(params=["with locks", "without locks"])
def locks(request, monkeypatch):
    """File systems with locks, and others, where flock fails."""
    if request.param == "without locks":

        def missing(file, operation):
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

        without = SimpleNamespace(flock=missing, LOCK_EX=2, LOCK_NB=4)
        monkeypatch.setattr(batch, "fcntl", without)
    return request.param


def test_processes_that_learn_together_learn_each_repeat_once(tmp_path):
    names = ["results.jsonl", "results-1.jsonl", "results-2.jsonl"]
    shares = [
        learn(tmp_path, share(tmp_path, name).claim(iter(REPEATS)), name)
        for name in names
    ]
    learned = [repeat for turn in zip_longest(*shares) for repeat in turn if repeat]
    assert sorted(learned) == REPEATS
    assert share(tmp_path).learned() == set(REPEATS)
    assert share(tmp_path).files() == [str(tmp_path / name) for name in sorted(names)]


def test_what_a_process_is_at_no_other_one_learns(tmp_path, locks):
    at_work = share(tmp_path).claim(iter(REPEATS))
    assert next(at_work) == REPEATS[0]
    others = share(tmp_path, "results-1.jsonl").claim(iter(REPEATS))
    assert [next(others) for _ in REPEATS[1:]] == REPEATS[1:]


def test_what_a_process_left_behind_another_one_learns(tmp_path, locks):
    killed = share(tmp_path, "results-3.jsonl").claim(iter(REPEATS))
    append(tmp_path, next(killed), "results-3.jsonl")
    assert next(killed) == REPEATS[1]
    killed.close()
    again = learn(tmp_path, share(tmp_path).claim(iter(REPEATS)))
    assert sorted(again) == REPEATS[1:]
    assert share(tmp_path).learned() == {*REPEATS}
    assert list(share(tmp_path).claim(iter(REPEATS))) == []


def test_what_another_process_learned_since_is_not_learned_again(tmp_path, locks):
    slow = share(tmp_path).claim(iter(REPEATS))
    assert next(slow) == REPEATS[0]
    quick = share(tmp_path, "results-1.jsonl").claim(iter(REPEATS[1:]))
    assert list(learn(tmp_path, quick, "results-1.jsonl")) == REPEATS[1:]
    append(tmp_path, REPEATS[0])
    assert list(slow) == []


def test_a_claim_ends_with_its_process_however_that_ends(tmp_path):
    code = (
        "import sys; from common.batch import Batch\n"
        "claimed = Batch(sys.argv[1], 'trial', {}, (), {}).claim(iter([(0, 'pathnet')]))\n"
        "next(claimed)\n"
        "print('claimed', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "results.jsonl")],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout.readline() == b"claimed\n"
        assert list(share(tmp_path).claim(iter(REPEATS[:1]))) == []
        process.kill()
    assert list(share(tmp_path).claim(iter(REPEATS[:1]))) == REPEATS[:1]


def test_controls_are_repeats_of_their_own(tmp_path):
    wanted = [(3, "pathnet"), (3, "scratch")]
    append(tmp_path, wanted[0])
    assert list(share(tmp_path).claim(iter(wanted))) == wanted[1:]


def test_a_file_of_another_name_stands_alone(tmp_path):
    append(tmp_path, REPEATS[0], "other.jsonl", M=5)
    append(tmp_path, REPEATS[1], "trial.jsonl")
    assert share(tmp_path, "trial.jsonl").learned() == {REPEATS[1]}
    claimed = share(tmp_path, "trial.jsonl").claim(iter(REPEATS))
    assert next(claimed) == REPEATS[0]
    assert next(share(tmp_path).claim(iter(REPEATS))) == REPEATS[0]


def test_other_settings_in_any_file_of_the_batch_are_refused(tmp_path):
    append(tmp_path, REPEATS[0], "results-7.jsonl", M=5)
    with pytest.raises(UserError, match=r"results-7\.jsonl: .*\(--M=5\)"):
        next(share(tmp_path).claim(iter(REPEATS)))


@pytest.mark.parametrize("name", ["results.jsonl", "claims"])
def test_what_cannot_be_written_is_found_before_anything_is_learned(tmp_path, name):
    kind = "file" if name == "claims" else "folder"
    (tmp_path / name).touch() if kind == "file" else (tmp_path / name).mkdir()
    with pytest.raises(OSError) as caught:
        next(share(tmp_path).claim(iter(REPEATS)))
    assert str(tmp_path / name) in caught.value.filename


def test_a_line_that_is_being_written_is_waited_for(tmp_path):
    append(tmp_path, REPEATS[0])
    file = tmp_path / "results.jsonl"
    whole = file.read_text()
    with file.open("a") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        writer.write(whole[:9])
        writer.flush()
        code = (
            "import sys; from common import results\n"
            "print('begins', flush=True)\n"
            "print(len(results.batch(sys.argv[1], 'trial', {}, ())), flush=True)"
        )
        command = [sys.executable, "-c", code, str(file)]
        reader = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
        assert reader.stdout.readline() == b"begins\n"
        writer.write(json.dumps(json.loads(whole) | {"seed": 9})[9:] + "\n")
    with reader:
        assert reader.stdout.read() == b"2\n"

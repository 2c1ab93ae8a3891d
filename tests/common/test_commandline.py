"""Tests of commandline.py, each with a small script in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from common import commandline

ROOT = Path(commandline.__file__).parent.parent
BUFFERED = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}

SCRIPT = """
import os, signal, sys
from absl import flags
from common import commandline

FLAGS = flags.FLAGS

def define_flags():
    with commandline.flag_group("Sizes", commandline.NETWORK):
        flags.DEFINE_integer("size", 3, "How large.", lower_bound=1)
    flags.register_validator("size", lambda v: v != 13, "no 13 here")

signal.signal(signal.SIGINT, signal.default_int_handler)

def main():
    print("size", FLAGS.size)
    exec(os.environ["BODY"])

if __name__ == "__main__":
    commandline.run(main, define_flags)
"""


@pytest.fixture
def script(tmp_path):
    """Runs a script `tool.py` whose main prints its flag and does what it is told."""
    (tmp_path / "tool.py").write_text(SCRIPT)

    def run(*args, body="", stderr=subprocess.PIPE):
        return subprocess.run(
            [sys.executable, "tool.py", *args],
            cwd=tmp_path,
            env=BUFFERED | {"PYTHONPATH": str(ROOT), "BODY": body},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            timeout=60,
        )

    return run


def assert_refused(done, line, status=2):
    """The whole of stderr is this one line."""
    assert done.stderr == f"tool.py: {line}\n"
    assert done.returncode == status


def test_a_script_that_succeeds(script):
    done = script("--size=5")
    assert (done.returncode, done.stdout, done.stderr) == (0, "size 5\n", "")


def test_user_error_is_one_line(script):
    """Also if its message has several, and after what was printed before."""
    done = script(body="raise commandline.UserError('flag --size:\\n  too  small')")
    assert_refused(done, "flag --size: too small")
    assert done.stdout == "size 3\n"


def test_what_was_printed_comes_before_the_mistake(script):
    """Where both go to the same place, as in `python tool.py >log 2>&1`."""
    body = "raise commandline.UserError('mistake')"
    done = script(body=body, stderr=subprocess.STDOUT)
    assert done.stdout == "size 3\ntool.py: mistake\n"


@pytest.mark.parametrize(
    "argument, told",
    [
        ("--size=large", "flag --size=large: "),
        ("--size=0", "flag --size=0: "),
        ("--size=13", "flag --size=13: no 13 here"),
        ("--sise=4", "Unknown command line flag 'sise'. Did you mean: size ?"),
        ("--size", "Missing value for flag --size"),
        ("--nosize", "Unknown command line flag 'nosize'"),
    ],
)
def test_a_wrong_flag_is_one_line(script, argument, told):
    done = script(argument)
    assert told in done.stderr
    assert_refused(done, done.stderr.removeprefix("tool.py: ").removesuffix("\n"))
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.parametrize("arguments", [["7"], ["--size=2", "7", "8"], ["--", "7"]])
def test_a_positional_argument_is_refused(script, arguments):
    done = script(*arguments)
    assert_refused(done, "unexpected argument '7': write options as --name=value")


def test_a_script_that_takes_files_is_given_them(tmp_path):
    """In their order, without the flags; a mistake in a flag is still one line."""
    (tmp_path / "tool.py").write_text(
        "from common import commandline\ncommandline.run(print, with_files=True)\n"
    )
    for arguments, stdout, stderr in [
        (["b", "--nohelp", "a"], "['b', 'a']\n", ""),
        ([], "[]\n", ""),
        (["a", "--size=3"], "", "tool.py: Unknown command line flag 'size'\n"),
    ]:
        done = subprocess.run(
            [sys.executable, "tool.py", *arguments],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.stdout, done.stderr) == (stdout, stderr)
        assert done.returncode == (2 if stderr else 0)


@pytest.mark.parametrize(
    "body, told",
    [
        ("open('nowhere/file')", "nowhere/file: No such file or directory"),
        ("os.mkdir('tool.py')", "tool.py: File exists"),
        ("open('.')", ".: Is a directory"),
        (
            "raise OSError(28, 'No space left\\non device', 'f')",
            "f: No space left on device",
        ),
    ],
)
def test_a_file_or_folder_that_fails_is_one_line(script, body, told):
    assert_refused(script(body=body), told)


def test_control_c_is_one_line_with_status_130(script):
    assert_refused(
        script(body="signal.raise_signal(signal.SIGINT)"), "interrupted", 130
    )


@pytest.mark.parametrize(
    "body, told",
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        (
            "raise OSError('an OSError without a file')",
            "OSError: an OSError without a file",
        ),
        ("{}['key']", "KeyError: 'key'"),
    ],
)
def test_a_defect_keeps_its_traceback(script, body, told):
    done = script(body=body)
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.endswith(told + "\n")


def test_a_benchmark_that_is_not_there_is_one_line(scripts, tmp_path):
    done = scripts.run(tmp_path, "benchmarks/speed.py", "mnist", "minst")
    told = "speed.py: no job 'minst': name mnist or cifar\n"
    assert (done.status, done.stdout, done.stderr) == (2, "", told)


@pytest.mark.parametrize("status", [0, 3])
def test_main_may_exit(script, status):
    done = script(body=f"sys.exit({status})")
    assert (done.returncode, done.stderr) == (status, "")


@pytest.mark.parametrize("argument", ["--help", "-?"])
def test_help_shows_the_flags(script, argument):
    done = script(argument)
    assert "Sizes:\n  --size\n      How large. Default: 3." in done.stdout
    assert (done.returncode, done.stderr) == (0, "")

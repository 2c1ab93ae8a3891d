"""Tests of commandline.py, each with a small script in a process of its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

from common import commandline, interrupts

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
        flags.DEFINE_float("rate", 0.5, "How often.", 0, 1)
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

    def run(*args, body="", env=None, **streams):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.run(
            [sys.executable, "tool.py", *args],
            cwd=tmp_path,
            env=BUFFERED | {"PYTHONPATH": str(ROOT), "BODY": body} | (env or {}),
            timeout=60,
            **{"text": True} | pipes | streams,
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
        ("--rate=nan", "flag --rate=nan: must be a number"),
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


@pytest.mark.parametrize("content", [None, b"\x7fELF\xff\xfe", b"\0"])
def test_a_flag_file_that_is_none_is_one_line(script, tmp_path, content):
    if content is None:
        (tmp_path / "some.flags").mkdir()
    else:
        (tmp_path / "some.flags").write_bytes(content)
    done = script("--flagfile=some.flags")
    assert done.returncode == 2
    assert done.stderr.startswith("tool.py: ") and done.stderr.count("\n") == 1


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


def test_control_c_that_c_plus_plus_has_replaced_is_one_line(script):
    text = "MISMATCH: ORIGINAL UnavailableError REPLACED BY KeyboardInterrupt: <EMPTY>"
    assert_refused(script(body=f"raise RuntimeError({text!r})"), "interrupted", 130)
    other = script(body="raise RuntimeError('another')")
    assert other.returncode == 1
    assert "RuntimeError: another" in other.stderr


# ---- Ctrl-C while a script is imported ----

SCRIPTS = ["plotting.py", "pathnet.py", "atari_pathnet.py"]
SCRIPTS += ["binary_mnist_pathnet.py", "cifar_svhn_pathnet.py", "images_pathnet.py"]

# Python imports this by itself. It sends Ctrl-C as one of the modules is looked for.
SITE = """
import os, signal, sys

class Interrupter:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["INTERRUPTED"]:
            signal.raise_signal(signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupter())
"""


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("module", ["absl", "absl.flags", "numpy"])
def test_control_c_while_a_script_is_imported_is_one_line(tmp_path, name, module):
    (tmp_path / "sitecustomize.py").write_text(SITE)
    done = subprocess.run(
        [sys.executable, ROOT / name, "--help"],
        env=os.environ | {"PYTHONPATH": str(tmp_path), "INTERRUPTED": module},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("", f"{name}: interrupted\n")
    assert done.returncode == 130


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_imports_nothing_before_control_c_is_one_line(name):
    """But for what Python has in memory before it begins."""
    lines = (ROOT / name).read_text().splitlines()
    first = next(line for line in lines if line.startswith(("import ", "from ")))
    assert first.startswith("from common import commandline  #")


def test_control_c_while_tensorflow_is_imported_is_one_line(script, tmp_path):
    """What is imported there may swallow an exception, so that there is none."""
    (tmp_path / "tensorflow.py").write_text(
        "import contextlib, signal\n"
        "with contextlib.suppress(KeyboardInterrupt):\n"
        "    signal.raise_signal(signal.SIGINT)\n"
    )
    body = "from common import tf1; tf1.load()"
    done = script(body=body, env={"PYTHONPATH": f"{tmp_path}:{ROOT}"})
    assert_refused(done, "interrupted", 130)


def test_control_c_at_the_end_of_a_script_is_one_line(script):
    """As it would be in a function that is called at exit."""
    body = "import atexit; atexit.register(signal.raise_signal, signal.SIGINT)"
    done = script(body=body)
    assert_refused(done, "interrupted", 130)
    assert done.stdout == "size 3\n"


def test_control_c_does_not_count_where_it_is_ignored(script):
    """As in the jobs that a shell script has in the background."""
    body = "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    body += "with commandline.interrupts.exiting_at_once():\n"
    body += "    signal.raise_signal(signal.SIGINT)"
    assert script(body=body).returncode == 0


def test_a_process_that_imports_the_project_keeps_its_control_c():
    assert signal.getsignal(signal.SIGINT) is not interrupts._exit


# ---- Output that cannot be written ----


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("body", ["", "print(end='', flush=True)", "sys.exit(0)"])
def test_a_full_output_is_one_line(script, body, unbuffered):
    """Noticed while it is written or, at the latest, at the end."""
    with open("/dev/full", "w") as full:
        done = script(body=body, stdout=full, env={"PYTHONUNBUFFERED": unbuffered})
    assert_refused(done, "standard output: No space left on device")


def test_a_mistake_is_told_where_the_output_is_full(script):
    with open("/dev/full", "w") as full:
        body = "raise commandline.UserError('mistake')"
        done = script(body=body, stdout=full)
    assert_refused(done, "mistake")


def test_a_full_log_does_not_stop_a_script(script):
    with open("/dev/full", "w") as full:
        done = script(body="commandline.say('hello'); print('end')", stderr=full)
    assert (done.returncode, done.stdout) == (0, "size 3\nend\n")


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_streams_are_empty_ones(script, closed):
    """A file that is opened next does not take their place."""
    body = "print(file=sys.stderr); commandline.say('hello'); assert not sys.stdin.read()\n"
    body += "assert open('data', 'w').fileno() > 2"
    done = script(body=body, preexec_fn=lambda: [os.close(n) for n in closed])
    assert done.returncode == 0, done.stderr


@pytest.fixture
def unread():
    """The end of a pipe that nobody reads any more, as after `| head -1`."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    yield write_end
    os.close(write_end)


def test_an_output_that_nobody_reads_is_no_traceback(script, unread):
    done = script(body="print('x' * 10**6)", stdout=unread)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_script_minds_that_nobody_reads(name, unread):
    done = subprocess.run(
        [sys.executable, ROOT / name, "--help"],
        stdout=unread,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("encoding", ["ascii", "ascii:strict", "latin-1", "cp437"])
def test_an_encoding_that_lacks_characters_is_no_traceback(script, encoding):
    body = "print('1 ± 2, \u6f22'); raise commandline.UserError('± \u6f22')"
    done = script(body=body, env={"PYTHONIOENCODING": encoding}, text=False)
    assert done.returncode == 2
    plus_minus = "±".encode(encoding.partition(":")[0], "replace").replace(b"?", b"+/-")
    assert done.stdout.splitlines()[1] == b"1 " + plus_minus + b" 2, \\u6f22"
    assert done.stderr == b"tool.py: " + plus_minus + b" \\u6f22\n"


# ---- What comes from files ----


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ± 漢\nnext line", "plain, ± 漢\nnext line"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("\x9b2J\r\b\x7f\0", "\\x9b2J\\r\\x08\\x7f\\x00"),
        ("\u202eabc\u2028\udcff", "\\u202eabc\\u2028\\udcff"),
    ],
)
def test_control_characters_are_shown_as_escapes(text, shown):
    assert commandline.printable(text) == shown


def test_control_characters_of_a_mistake_or_a_log_reach_no_terminal(script):
    body = r"commandline.say('\x1b[2J'); open('\x1b]0;title\x07/file')"
    done = script(body=body)
    assert done.returncode == 2
    log, mistake = done.stderr.splitlines()
    assert log.endswith(r" \x1b[2J")
    assert mistake == r"tool.py: \x1b]0;title\x07/file: No such file or directory"


@pytest.fixture
def some_flags(monkeypatch):
    """Flags of several types, in the place of the process's own."""
    values = flags.FlagValues()
    flags.DEFINE_integer("size", 3, "", 1, flag_values=values)
    flags.DEFINE_float("rate", None, "", 0, flag_values=values)
    flags.DEFINE_enum("kind", "a", ["a", "b"], "", flag_values=values)
    flags.DEFINE_bool("fast", False, "", flag_values=values)
    flags.DEFINE_string("name", None, "", flag_values=values)
    monkeypatch.setattr(commandline.flags, "FLAGS", values)


@pytest.mark.parametrize(
    ("name", "value"),
    [("size", 5), ("rate", 0.5), ("rate", None), ("kind", "b"), ("fast", True)]
    + [("name", "x"), ("name", None)],
)
def test_a_flag_of_an_earlier_process_is_taken(some_flags, name, value):
    assert commandline.parsed(name, value) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [("size", 0), ("size", "5"), ("size", 5.0), ("size", True), ("size", None)]
    + [("rate", -1.0), ("rate", float("nan")), ("rate", "x"), ("rate", 10**400)]
    + [("kind", "c"), ("kind", []), ("fast", "yes"), ("fast", 1), ("name", 3)],
)
def test_a_flag_that_nobody_could_give_is_refused(some_flags, name, value):
    with pytest.raises(ValueError, match=f"flag --{name} cannot be "):
        commandline.parsed(name, value)


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


@pytest.mark.parametrize("arguments", [["--help"], ["-?"], ["--size=13", "--help"]])
def test_help_shows_the_flags(script, arguments):
    """Also beside a flag that is wrong, and so where a required one is missing."""
    done = script(*arguments)
    assert "Sizes:\n  --size\n      How large. Default: 3." in done.stdout
    assert (done.returncode, done.stderr) == (0, "")

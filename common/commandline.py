"""The command line: flags in groups, and every mistake as one line with exit status 2.

A script defines its flags with absl, in groups that say what they decide, and runs:

    def define_flags():
        with commandline.flag_group("The grid", commandline.NETWORK):
            flags.DEFINE_integer("L", 3, "Number of layers.", lower_bound=1)

    if __name__ == "__main__":
        commandline.run(main, define_flags)
"""

from common import interrupts  # before all else: Ctrl-C is one line from here on

# isort: split
from common import packages  # noqa: F401, before any of them is imported

# isort: split
import codecs
import contextlib
import dataclasses
import io
import math
import os
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from typing import IO

from absl import flags, logging  # noqa: F401

# absl.logging has a log_dir of its own, which a script's replaces. It is imported here,
# before that: TensorFlow imports it, too, and its log_dir would replace the script's.

# What a flag decides: every flag has exactly one of these. `results` groups repeats by
# the first two, a batch must agree in all but the last two, and a saved network keeps
# the first and the seed that REPEAT names.
NETWORK = "network"  # what is built, and of which data
LEARNING = "learning"  # how it learns, and for how long
TASKS = "tasks"  # what is learned, and in which order
REPEAT = "repeat"  # which repeats are learned
PLACE = "place"  # where things lie, and what is shown


_HELP = {"--help", "-help", "-?", "--?"}  # arguments that ask for it


class UserError(Exception):
    """A mistake that the user can correct: one line that names the flag or file and what to do."""


@dataclasses.dataclass(frozen=True)
class FlagGroup:
    """Flags that --help shows together.

    Attributes:
      title: what stands above them. decides: NETWORK, LEARNING, TASKS, REPEAT or PLACE.
      names: of the flags, in the order of their definitions.
    """

    title: str
    decides: str
    names: tuple[str, ...]


_groups: list[FlagGroup] = []


@contextlib.contextmanager
def flag_group(title: str, decides: str) -> Iterator[None]:
    """Within it flags are defined; they become a group. Groups do not nest."""
    before = {name: flags.FLAGS[name] for name in flags.FLAGS}
    yield
    # A flag that replaces another one of its name belongs to the group, too.
    names = tuple(n for n in flags.FLAGS if flags.FLAGS[n] is not before.get(n))
    _groups.append(FlagGroup(title, decides, names))


def flag_names(*decisions: str) -> list[str]:
    """Names of the script's flags that decide one of these, in order; of all, if none."""
    return [
        name
        for group in _groups
        for name in group.names
        if not decisions or group.decides in decisions
    ]


def flag_values() -> dict:
    """The values of all flags of the script, by name, in the order of definition."""
    return {name: flags.FLAGS[name].value for name in flag_names()}


def given_flags() -> dict[str, str]:
    """The flags that the user gave, by name, each as an argument that says the same."""
    given = [name for name in flag_names() if flags.FLAGS[name].present]
    return {name: flags.FLAGS[name].serialize() for name in given}


def decided_by(define_flags: Callable[[], None]) -> dict[str, str]:
    """What each flag that `define_flags` defines decides, by name.

    The flags are only looked at: none of them is a flag of this script afterwards.
    """
    before, groups = set(flags.FLAGS), list(_groups)
    _groups.clear()
    try:
        define_flags()
        return {name: group.decides for group in _groups for name in group.names}
    finally:
        for name in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, name)
        _groups[:] = groups


def run(
    main: Callable, define_flags: Callable = lambda: None, with_files=False
) -> None:
    """Runs a script: `main()` with its flags parsed, mistakes reported in one line.

    With `with_files`, the arguments that are no flags are given to main as a list.

    Exit status 0 if main returns or --help was asked for, 2 for a mistake in a flag or
    a file, a folder or an output that cannot be written, 130 for Ctrl-C. Any other
    exception is a defect of the program and keeps its traceback.
    """
    _prepare_streams()
    with _one_line_for_mistakes():
        interrupts.raise_exceptions()
        define_flags()
        flags.DEFINE_bool("help", False, "Show this help.", short_name="?")
        if _HELP.intersection(sys.argv[1:]):  # also where a flag is missing or wrong
            print(_help())
            return
        try:
            files = flags.FLAGS(sys.argv)[1:]
        except UnicodeDecodeError as error:
            raise UserError(
                f"flag --flagfile: names a file of no text: {error}"
            ) from error
        _refuse_nan()
        if with_files:
            main(files)
        elif files:
            raise UserError(
                f"unexpected argument '{files[0]}': write options as --name=value"
            )
        else:
            main()


def _refuse_nan() -> None:
    """Raises UserError where a flag is NaN, which lies within any bounds for absl."""
    for name in flags.FLAGS:
        value = flags.FLAGS[name].value
        if isinstance(value, float) and math.isnan(value):
            raise UserError(f"flag --{name}=nan: must be a number")


def say(message: str) -> None:
    """A line for whoever reads the log, with the time of day."""
    line = f"{time.strftime('%H:%M:%S')} {printable(message)}"
    with contextlib.suppress(OSError):  # a log that is full is no reason to stop
        print(line, file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """A text with its control characters as escapes, such as \\x1b; line breaks stay.

    What comes from a file may hold commands to the terminal, and so may a file's name.
    """
    return "".join(c if c.isprintable() or c == "\n" else _escape(c) for c in text)


def parsed(name: str, value: object) -> object:
    """A flag's value from a file, which must be one that the command line could give.

    Args:
      name: of the flag.
      value: as `flag_values` returned it in an earlier process.

    Raises:
      ValueError: it is none.
    """
    flag = flags.FLAGS[name]
    if value is None and flag.default is None:
        return None
    try:
        found = flag.parser.parse(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"flag --{name} cannot be {value!r}") from error
    if type(found) is not type(value) or found != value:
        raise ValueError(f"flag --{name} cannot be {value!r}")
    return found


# ---- Output and mistakes ----


class _Output(io.TextIOWrapper):
    """Standard output, whose errors name it as those of any other file do."""

    def write(self, text: str) -> int:
        with self._named_errors():
            return super().write(text)

    def flush(self) -> None:
        with self._named_errors():
            super().flush()

    @contextlib.contextmanager
    def _named_errors(self):
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, "standard output") from error


def _prepare_streams() -> None:
    """Makes the standard streams fit for whatever is printed.

    What an encoding lacks is replaced by something readable. A stream that is closed
    becomes the null device, or the next file that is opened would take its place.
    """
    codecs.register_error("readable", _readable)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115, it stays open
    with contextlib.suppress(OSError):  # it has become a terminal, which cannot seek
        sys.stderr.reconfigure(errors="readable")
    stdout = sys.stdout
    options = {
        "line_buffering": stdout.line_buffering,
        "write_through": stdout.write_through,
    }
    sys.stdout = _Output(stdout.detach(), stdout.encoding, "readable", **options)


def _readable(error: UnicodeEncodeError) -> tuple[str, int]:
    """What is printed for characters that the encoding lacks."""
    lacking = error.object[error.start : error.end]
    return "".join("+/-" if c == "±" else _escape(c) for c in lacking), error.end


def _escape(character: str) -> str:
    """A character as Python writes it in ASCII, such as \\x1b."""
    return ascii(character)[1:-1]


@contextlib.contextmanager
def _one_line_for_mistakes() -> Iterator[None]:
    try:
        try:
            yield
        finally:
            interrupts.exit_at_once()
            _flush_log()
            # Here, since at the interpreter's end an error has a traceback.
            if isinstance(sys.exception(), SystemExit | None):
                sys.stdout.flush()
    except (UserError, flags.Error) as error:
        _exit(error, 2)
    except BrokenPipeError:
        _drop(sys.stdout)  # nobody reads it any more: say nothing
        sys.exit(1)
    except OSError as error:
        if error.filename is None:
            raise
        _exit(f"{error.filename}: {error.strerror}", 2)
    except KeyboardInterrupt as error:
        _exit(str(error) or "interrupted", interrupts.STATUS)
    except RuntimeError as error:
        # What Ctrl-C becomes while TensorFlow makes an exception of an error in C++.
        if "REPLACED BY KeyboardInterrupt" not in str(error):
            raise
        _exit("interrupted", interrupts.STATUS)


def _exit(message: object, status: int) -> None:
    """Ends the process with a line on stderr, after all that was printed before."""
    try:
        sys.stdout.flush()
    except OSError:
        _drop(sys.stdout)
    line = printable(" ".join(str(message).split()))
    with contextlib.suppress(OSError):
        print(f"{os.path.basename(sys.argv[0])}: {line}", file=sys.stderr)
    _flush_log()
    sys.exit(status)


def _flush_log() -> None:
    """Writes what is left for stderr, if that is possible."""
    try:
        sys.stderr.flush()
    except OSError:
        _drop(sys.stderr)


def _drop(stream: IO) -> None:
    """Spares the interpreter's end another error of a stream."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _help() -> str:
    """The script's docstring and its flags, group by group."""
    parts = [(sys.modules["__main__"].__doc__ or "").strip()]
    for group in _groups:
        parts.append("\n".join([f"{group.title}:", *map(_flag_help, group.names)]))
    parts.append("--flagfile=FILE reads flags from a file, one a line.")
    return "\n\n".join(parts)


def _flag_help(name: str) -> str:
    flag = flags.FLAGS[name]
    default = "none" if flag.default is None else flag.default_as_str.strip("'")
    text = f"{flag.help} Default: {default}."
    body = textwrap.fill(text, 88, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return f"  --{'[no]' if flag.boolean else ''}{name}\n{body}"

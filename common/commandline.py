"""The command line: absl flags, and every mistake as one line with exit status 2."""

import os
import sys
import time

from absl import app, flags


class UserError(Exception):
    """What the user can mend: one line that names the flag or file and what to do."""


def run(main, with_files=False):
    """Runs a script: `main()` with the flags parsed, mistakes told in one line.

    With `with_files`, the arguments that are no flags are given to main as a list.

    Exit status 0 if main returns or --help was asked for, 2 for a mistake in a flag or
    a file or a folder that cannot be written, 130 for Ctrl-C. Any other exception is a
    defect of the program and keeps its traceback.
    """

    def parse(argv):
        try:
            unread = flags.FLAGS(argv)
        except SystemExit:  # absl's way to end once it has shown help, as a failure
            sys.exit(0)
        if len(unread) > 1 and not with_files:
            raise UserError(
                f"unexpected argument '{unread[1]}': write options as --name=value"
            )
        return unread

    def call(argv):
        return main(argv[1:]) if with_files else main()

    app.run(
        lambda argv: _tell(call, argv), flags_parser=lambda argv: _tell(parse, argv)
    )


def flag_values():
    """The values of all flags of the script, by name."""
    return {f.name: f.value for f in flags.FLAGS.get_key_flags_for_module(sys.argv[0])}


def say(message):
    """A line for whoever reads the log, with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr, flush=True)


def _tell(function, argv):
    try:
        return function(argv)
    except (UserError, flags.Error) as error:
        _exit(error, 2)
    except BrokenPipeError:
        # Nobody reads the output any more: say nothing, not even at the interpreter's end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.filename is None:
            raise
        _exit(f"{error.filename}: {error.strerror}", 2)
    except KeyboardInterrupt:
        _exit("interrupted", 130)


def _hook(kind, error, traceback):
    """Ctrl-C while a script still imports TensorFlow: a line, no traceback."""
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


sys.excepthook = _hook


def _exit(message, status):
    line = " ".join(str(message).split())
    sys.stdout.flush()
    print(f"{os.path.basename(sys.argv[0])}: {line}", file=sys.stderr)
    sys.exit(status)

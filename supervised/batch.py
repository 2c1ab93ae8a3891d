"""A batch: repeats of a script over all cores, a seed each.

    ./auto_binary_mnist_pathnet.sh                           # 1,000 repeats
    ./auto_binary_mnist_pathnet.sh 100 --a1=4 --a2=5 --b1=6 --b2=7
    ./auto_cifar_svhn_pathnet.sh 20 --cifar_first=0          # 100 without a number
    ./auto_images_pathnet.sh 20 --tasks=photos/:0-4,photos/:5-9
    sbatch --array=0-9 auto_binary_mnist_pathnet.sh          # over ten tasks of Slurm

A process for each core; each takes the next repeat that no other one has. Started again,
a batch goes on where it stopped. It ends with the tables of all its repeats, their
pictures and a folder for TensorBoard. From the environment:

    FIRST_SEED   of the batch [0]; --seed=N says the same
    JOBS         processes at a time [the cores]
    BATCH_DIR    folder of the results [one in logs/ that is named after the flags]

Several batches with one folder, such as the tasks of a Slurm array, share the work.
"""

import contextlib
import functools
import hashlib
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from common import commandline, results
from common.batch import Batch
from common.commandline import PLACE, REPEAT, UserError
from supervised import settings

ROOT = Path(__file__).resolve().parent.parent
DEFINE_FLAGS = {
    "binary_mnist": settings.define_binary_mnist_flags,
    "cifar_svhn": settings.define_cifar_svhn_flags,
    "images": settings.define_images_flags,
}
# Flags of the scripts that a batch sets itself or has no use for: what to do instead.
NOT_OF_A_BATCH = {
    "runs": "the number of repeats is the first argument",
    "results": "set BATCH_DIR in the environment",
    "log_dir": "set BATCH_DIR in the environment",
    "save_dir": "it is of a single repeat",
    "load_dir": "it is of a single repeat",
    "resume": "start the batch again, and it goes on",
}
PICTURES = ("generations", "curves", "accuracies", "usage", "retention")
MOST_JOBS = 1024
POLL_SECONDS = 0.2
STOP_SECONDS = 10  # until a process that has been told to end is killed


def main(script: str, count: str) -> None:
    """Learns what is missing of a batch, then makes its tables, pictures and curves.

    Args:
      script: name of the script, without _pathnet.py.
      count: number of repeats, as the user wrote it.

    Raises:
      UserError: a flag, the number of repeats or a variable of the environment is wrong,
        or the folder holds repeats of other settings or cannot be written.
      OSError: the folder cannot be made or read.
      SystemExit: a process failed, or a signal ended the batch.
    """
    given, values = commandline.given_flags(), commandline.flag_values()
    _refuse_flags(given)
    first = _first_seed(given, values["seed"])
    repeats = _number("number of repeats", count, 1, settings.LAST_SEED + 1 - first)
    jobs, task = _jobs(), _array_task()
    folder = os.environ.get("BATCH_DIR") or _folder(script, sys.argv[1:])
    os.makedirs(folder, exist_ok=True)
    filename = os.path.join(folder, f"results{task}.jsonl")
    batch = Batch(filename, script, values, commandline.flag_names(REPEAT, PLACE), {})
    seeds, controls = range(first, first + repeats), values["control"]
    missing = _count_missing(batch, seeds, controls)
    if missing:
        results.check_appendable(filename)
        arguments = given | {
            "seed": f"--seed={first}",
            "runs": f"--runs={repeats}",
            "results": f"--results={filename}",
            "log_dir": f"--log_dir={folder}",
        }
        command = [sys.executable, str(ROOT / f"{script}_pathnet.py")]
        command.extend(arguments.values())
        _run(command, min(jobs, missing))
        missing = _count_missing(batch, seeds, controls)
    if missing:
        line = (
            f"Not learned yet: {missing} that other processes have taken. Should these "
            "have ended, the same command learns them."
        )
    else:
        wanted = [f"--{name}={os.path.join(folder, name)}.png" for name in PICTURES]
        wanted.append(f"--tensorboard={os.path.join(folder, 'tensorboard')}")
        _run([sys.executable, str(ROOT / "plotting.py"), *wanted, "--", *batch.files()])
        line = f"Results: {' '.join(batch.files())}"
    print(line, flush=True)


def _refuse_flags(given):
    """Raises UserError where the user gave a flag that is not the user's to give."""
    for name, instead in NOT_OF_A_BATCH.items():
        if name in given:
            raise UserError(f"flag --{name}: leave it out of a batch: {instead}")


def _count_missing(batch, seeds, controls):
    """How many repeats of these seeds under these controls are not learned yet."""
    learned = sum(
        seed in seeds and control in controls for seed, control in batch.learned()
    )
    return len(seeds) * len(controls) - learned


# --------------------------------------------------------------------------------------
# The environment
# --------------------------------------------------------------------------------------


def _number(what, text, least, most):
    """A whole number that the user wrote; raises UserError unless it lies in a range."""
    if not re.fullmatch(r"0|[1-9][0-9]{0,9}", text) or not least <= int(text) <= most:
        raise UserError(
            f"{what}: must be a whole number from {least} to {most}: {text!r}"
        )
    return int(text)


def _first_seed(given, seed):
    """The batch's first seed: that of the flag, or of the environment."""
    text = os.environ.get("FIRST_SEED")
    if not text:
        return seed
    first = _number("FIRST_SEED", text, 0, settings.LAST_SEED)
    if "seed" in given and seed != first:
        raise UserError(f"flag --seed={seed}: FIRST_SEED is {first}; leave out one")
    return first


def _jobs():
    """How many processes to run at a time."""
    if text := os.environ.get("JOBS"):
        return _number("JOBS", text, 1, MOST_JOBS)
    cores = len(os.sched_getaffinity(0))
    if text := os.environ.get("SLURM_CPUS_ON_NODE"):  # those that the job has of them
        cores = min(cores, _number("SLURM_CPUS_ON_NODE", text, 1, 2**31))
    return min(cores, MOST_JOBS)


def _array_task():
    """What tells the files of a task of a Slurm array from those of the others."""
    text = os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"-{_number('SLURM_ARRAY_TASK_ID', text, 0, 2**32)}" if text else ""


def _folder(script, arguments):
    """The folder of a batch, which the same command finds again from anywhere."""
    logs = ROOT / "logs"
    logs.mkdir(exist_ok=True)
    given = list(_without_seed(arguments))
    words = [re.sub(r"[^A-Za-z0-9.=,]", "", word) for word in given]
    name = f"batch__{script}_pathnet__{'_'.join(words)}"
    tells_apart = all(re.fullmatch(r"--?[A-Za-z0-9.=,_]*", word) for word in given)
    if not tells_apart or len(name) > os.pathconf(logs, "PC_NAME_MAX"):
        digest = hashlib.sha256(os.fsencode("\0".join(given))).hexdigest()
        name = f"{name[:100]}__{digest[:12]}"
    return os.path.relpath(logs / name)


def _without_seed(arguments):
    """The arguments but for --seed: further seeds belong to the same batch."""
    rest = iter(arguments)
    for argument in rest:
        if re.fullmatch("--?seed", argument):
            next(rest, None)
        elif not re.match("--?seed=", argument):
            yield argument


# --------------------------------------------------------------------------------------
# Processes
# --------------------------------------------------------------------------------------


def _run(command: Sequence[str], count: int = 1) -> None:
    """Runs a command in a number of processes, until all of them have ended.

    Raises:
      UserError: so many processes cannot be started.
      SystemExit: one of them failed, or a signal came for this process. None of them is
        left then in either case.
    """
    # One thread each: more would only take turns.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    processes, errors = [], _Errors()
    with _caught_signals() as caught:
        try:
            while len(processes) < count and not caught:
                process = subprocess.Popen(
                    command,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                )
                processes.append(process)
                errors.add(process)
            while not caught and any(process.poll() is None for process in processes):
                ready = errors.wait()
                if not caught:  # else they say no more than that they are ended, too
                    errors.pass_on(ready)
        except BlockingIOError as error:
            raise UserError(
                f"JOBS={count}: only {len(processes)} processes can be started "
                f"({error.strerror}); set a lower number"
            ) from error
        finally:
            _end(processes)
    if caught:
        _exit(f"ended by {signal.Signals(caught[0]).name}", 128 + caught[0])
    errors.pass_on(errors.wait())
    for status in filter(None, [process.returncode for process in processes]):
        if status > 0:
            sys.exit(status)  # it has said why
        _exit(f"a process was ended by {signal.Signals(-status).name}", 128 - status)


def _exit(reason, status):
    with contextlib.suppress(OSError):  # the terminal may be gone
        print(
            f"{sys.argv[0]}: {reason}; the same command goes on where it stopped",
            file=sys.stderr,
            flush=True,
        )
    sys.exit(status)


@contextlib.contextmanager
def _caught_signals() -> Iterator[list[int]]:
    """Collects the signals that are to end this process; ignored ones stay ignored."""
    caught, handlers = [], {}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            handlers[number] = signal.signal(number, lambda n, _: caught.append(n))
    try:
        yield caught
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _end(processes):
    """Ends those processes that have not ended yet."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    for process in processes:
        try:
            process.wait(max(0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class _Errors:
    """Passes on the lines that processes write to stderr.

    But for those that another process has written before, so that a mistake is one line
    however many processes come upon it.
    """

    def __init__(self):
        self._selector = selectors.DefaultSelector()
        self._first = {}  # by line: the process that wrote it first
        self._begun = {}  # by process: its line that has not come to its end

    def add(self, process: subprocess.Popen) -> None:
        os.set_blocking(process.stderr.fileno(), False)
        self._selector.register(process.stderr, selectors.EVENT_READ, process)

    def wait(self) -> list[subprocess.Popen]:
        """Returns, after a moment at most, the processes that have written something."""
        return [key.data for key, _ in self._selector.select(POLL_SECONDS)]

    def pass_on(self, processes: Sequence[subprocess.Popen]) -> None:
        """Passes on what these processes have written."""
        for process in processes:
            written = process.stderr.read()
            if not written:  # it has ended, with its last line
                self._selector.unregister(process.stderr)
                written = b"\n" if self._begun.get(process) else b""
            *lines, rest = (self._begun.get(process, b"") + written).split(b"\n")
            self._begun[process] = rest
            for line in lines:
                if self._first.setdefault(line, process) is process:
                    sys.stderr.buffer.write(line + b"\n")
        sys.stderr.flush()


if __name__ == "__main__":
    script, count, *arguments = sys.argv[1:]
    if arguments and not arguments[0].startswith("-"):
        count, *arguments = arguments
    sys.argv = [f"auto_{script}_pathnet.sh", *arguments]
    commandline.run(functools.partial(main, script, count), DEFINE_FLAGS[script])

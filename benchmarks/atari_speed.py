"""Speed and memory of the Atari cluster on this machine, from one run.

    python benchmarks/atari_speed.py        # about 6 minutes; make bench

Agent steps a second (one step is four frames) while the cluster learns Pong, against the
emulator alone with the same threads and against the plain way (plain_a3c.py). Prints
Markdown tables.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import environments  # noqa: E402

CORES = len(os.sched_getaffinity(0))
SETTLE, MEASURE = 25, 30  # seconds


def emulator():
    """The ceiling: eight environments, random actions, nothing learned."""
    count = 8
    games = environments.make("pong", count, threads=CORES)
    games.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(50):
        games.step(rng.integers(0, 6, count))
    started, steps = time.monotonic(), 0
    while time.monotonic() - started < 10:
        games.step(rng.integers(0, 6, count))
        steps += count
    games.close()
    return steps / (time.monotonic() - started)


def free_ports(count):
    """The first of so many ports that are free now."""
    for first in range(20_000, 60_000, 50):
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(socket.socket()).bind(("", port))
            except OSError:
                continue
            return first
    raise RuntimeError("no free ports")


def plain(workers=2):
    """The plain way, with a parameter server and so many actors."""
    first = free_ports(workers + 1)
    script = [sys.executable, str(ROOT / "benchmarks" / "plain_a3c.py")]
    roles = [("ps", 0)] + [("worker", n) for n in range(workers)]
    with tempfile.TemporaryFile("w+") as output:
        processes = [
            subprocess.Popen(
                [*script, job, str(index), str(first), str(workers)],
                stdout=output if (job, index) == ("worker", 0) else subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for job, index in roles
        ]

        def count():
            output.seek(0)
            return int(output.read().split("\n")[-2])

        try:
            time.sleep(SETTLE)
            before, moment = count(), time.monotonic()
            time.sleep(MEASURE)
            return (count() - before) / (time.monotonic() - moment)
        finally:
            for process in processes:
                process.kill()
                process.wait()


def cluster(**flags):
    """A whole cluster while it learns.

    Returns:
      (steps a second, bytes sent a step, memory of each process in MB by its name).
    """
    with tempfile.TemporaryDirectory() as folder:
        # A look a second: so finely can its steps be counted.
        flags = {"log_dir": folder, "tournament_seconds": 1, **flags}
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "atari_pathnet.py")]
            + [f"--{name}={value}" for name, value in flags.items()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            status = Path(folder)
            while True:
                found = list(status.glob("*/status.json"))
                if found and json.loads(found[0].read_text())["steps"]:
                    break
                if process.poll() is not None:
                    raise RuntimeError("the cluster ended before it began")
                time.sleep(0.5)
            time.sleep(SETTLE)
            (before, moment), bytes_before = read_steps(found[0]), sent(process.pid)
            time.sleep(MEASURE)
            (after, later), bytes_after = read_steps(found[0]), sent(process.pid)
            steps = after - before
            return (
                steps / (later - moment),
                (bytes_after - bytes_before) / steps,
                memory(process.pid),
            )
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()


def read_steps(status):
    """Agent steps, as of when the GA worker wrote them."""
    while True:
        with contextlib.suppress(FileNotFoundError):
            moment = os.stat(status).st_mtime
            steps = json.loads(status.read_text())["steps"]
            if os.stat(status).st_mtime == moment:
                return steps, moment


def memory(launcher):
    """Resident memory in MB of the processes that a launcher started, by name."""
    sizes = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_text().split("\0")
            role = dict(
                w.split("=", 1) for w in words if w.startswith("--") and "=" in w
            )
            fields = (process / "stat").read_text().rsplit(")", 1)[1].split()
            if "--job_name" in role and int(fields[1]) == launcher:
                name = f"{role['--job_name']} {role['--task_index']}"
                pages = int((process / "statm").read_text().split()[1])
                sizes[name] = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    return sizes


def sent(process):
    """Bytes sent so far over the loopback of a process's network."""
    for line in Path(f"/proc/{process}/net/dev").read_text().splitlines():
        name, _, counters = line.partition(":")
        if name.strip() == "lo":
            return int(counters.split()[8])
    raise RuntimeError("no loopback")


def larger_clusters(bytes_a_step, steps_an_actor):
    """What the figures of one run mean for parameter servers on a network of their own.

    Args:
      bytes_a_step: that travel for one agent step.
      steps_an_actor: a second, of one actor with a core of its own.
    """
    print("\n| link of a parameter server | actors that fill it | agent steps/s |")
    print("| --- | --- | --- |")
    for name, bits in (("1 Gbit/s", 1e9), ("10 Gbit/s", 1e10), ("25 Gbit/s", 2.5e10)):
        # Both ways share what was counted; a link carries its rate in each of them.
        steps = 2 * bits / 8 / bytes_a_step
        print(f"| {name} | {steps / steps_an_actor:.0f} | {steps:,.0f} |")


def main():
    print(f"{CORES} cores\n")
    ceiling, slow = emulator(), plain()
    print(
        "| agent steps a second | steps/s | of the emulator alone | of the plain way |"
    )
    print("| --- | --- | --- | --- |")

    def row(name, speed):
        print(f"| {name} | {speed:.0f} | {speed / ceiling:.0%} | {speed / slow:.1f}x |")

    row(f"emulator alone, {CORES} threads", ceiling)
    row("the plain way, 2 actors", slow)
    small, small_bytes, sizes = cluster(ps_hosts_num=1, worker_hosts_num=2, B=2)
    row("2 actors", small)
    wide, wide_bytes, _ = cluster(ps_hosts_num=1, worker_hosts_num=2, B=2, M=40)
    row("2 actors, M=40", wide)
    many, many_bytes, many_sizes = cluster()
    row("default: 10 actors", many)
    print(f"\nM=40 against M=10: {wide / small:.2f}x the steps a second")
    print("\n| | kB sent an agent step |\n| --- | --- |")
    print(f"| 2 actors | {small_bytes / 1e3:.1f} |")
    print(f"| 2 actors, M=40 | {wide_bytes / 1e3:.1f} |")
    print(f"| default: 10 actors | {many_bytes / 1e3:.1f} |")
    larger_clusters(small_bytes, small / 2)
    for name, values in (("2 actors", sizes), ("default", many_sizes)):
        each = ", ".join(f"{role} {size:.0f}" for role, size in sorted(values.items()))
        print(f"\nMemory, {name}: {sum(values.values()):.0f} MB in all; {each}")


if __name__ == "__main__":
    main()

"""Speed and memory of the Atari cluster on this machine, from one run.

    python benchmarks/atari_speed.py        # about 10 minutes; make bench

Agent steps a second (one step is four frames) while the cluster learns Pong, against the
emulator alone with the same threads and against the plain way (plain_a3c.py): medians
of rounds in each of which all take their turn. Prints Markdown tables.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from atari import environments  # noqa: E402

CORES = len(os.sched_getaffinity(0))
ROUNDS = 3
SETTLE, MEASURE = 15, 20  # seconds


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
            while os.fstat(output.fileno()).st_size == 0:
                if any(process.poll() is not None for process in processes):
                    raise RuntimeError("the plain way ended before it began")
                time.sleep(0.5)
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
            process.terminate()
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
    """Memory in MB of the processes that a launcher started.

    Returns:
      {name: (resident, proportional)}: in the second, what n processes share, such as
      the pages of TensorFlow's libraries, counts as an n-th for each of them.
    """
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
                lines = (process / "smaps_rollup").read_text().splitlines()[1:]
                kb = {key: int(value) for key, value, *_ in map(str.split, lines)}
                sizes[name] = kb["Rss:"] * 1.024e-3, kb["Pss:"] * 1.024e-3
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
    print(f"{CORES} cores, medians of {ROUNDS} rounds\n")
    two = {"ps_hosts_num": 1, "worker_hosts_num": 2, "B": 2}
    clusters = {
        "2 actors": two,
        "2 actors, M=40": two | {"M": 40},
        "default: 10 actors": {},
    }
    alone, slow = [], []
    runs = {name: [] for name in clusters}
    for _ in range(ROUNDS):
        alone.append(emulator())
        slow.append(plain())
        for name, flags in clusters.items():
            runs[name].append(cluster(**flags))
    print(
        "| agent steps a second | steps/s | of the emulator alone | of the plain way |"
    )
    print("| --- | --- | --- | --- |")
    speeds = {
        f"emulator alone, {CORES} threads": alone,
        "the plain way, 2 actors": slow,
    } | {name: [speed for speed, *_ in rounds] for name, rounds in runs.items()}
    for name, each in speeds.items():
        of_alone = np.median(np.divide(each, alone))
        of_slow = np.median(np.divide(each, slow))
        print(f"| {name} | {np.median(each):.0f} | {of_alone:.0%} | {of_slow:.1f}x |")
    small, wide = speeds["2 actors"], speeds["2 actors, M=40"]
    print(
        f"\nM=40 against M=10: {np.median(np.divide(wide, small)):.2f}x the steps a "
        "second"
    )
    print("\n| | kB sent an agent step |\n| --- | --- |")
    sent_a_step = {
        name: np.median([count for _, count, _ in rounds])
        for name, rounds in runs.items()
    }
    for name, count in sent_a_step.items():
        print(f"| {name} | {count / 1e3:.1f} |")
    larger_clusters(sent_a_step["2 actors"], np.median(small) / 2)
    print("\n| memory in MB, resident (proportional share) | |\n| --- | --- |")
    for name, rounds in runs.items():
        *_, sizes = rounds[-1]
        each = [f"{role} {r:.0f} ({p:.0f})" for role, (r, p) in sorted(sizes.items())]
        print(f"| {name} | {', '.join(each)} |")
        print(f"| in all | ({sum(p for _, p in sizes.values()):.0f}) |")


if __name__ == "__main__":
    main()

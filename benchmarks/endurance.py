"""Memory and disk of one very long run: 100,000 generations of the real script.

    python benchmarks/endurance.py        # some ten minutes

The learning rate is so small that no task is ever done, and the mini-batches so few that
it does not take a day. Prints a Markdown table.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GENERATIONS = 50_000  # of each of the two tasks
EVERY = 10_000
FLAGS = ["--learning_rate=1e-9", "--T=2", f"--max_steps={GENERATIONS}"]


def size_kb(folder, pattern):
    return sum(file.stat().st_size for file in folder.rglob(pattern)) / 1e3


def resident_mb(process):
    with open(f"/proc/{process}/status") as file:
        fields = dict(line.split(":", 1) for line in file)
    return int(fields["VmRSS"].split()[0]) / 1e3


def main():
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, ROOT / "binary_mnist_pathnet.py", *FLAGS]
            + [f"--log_dir={folder}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        print("| task, generation | resident memory | event files |")
        print("| --- | --- | --- |")
        for line in process.stdout:
            progress = re.match(r"task (\d), .*, generation (\d+):", line)
            if progress and int(progress[2]) % EVERY == 0:
                events = size_kb(Path(folder), "events.*")
                memory = resident_mb(process.pid)
                print(
                    f"| {progress[1]}, {int(progress[2]):,} | {memory:.0f} MB | {events:,.0f} kB |",
                    flush=True,
                )
        if process.wait() != 0:
            raise RuntimeError("the run failed")


if __name__ == "__main__":
    main()

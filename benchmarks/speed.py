"""Speed and memory on one core, as medians and ratios from one run.

    python benchmarks/speed.py [mnist] [cifar]     # both without an argument; make bench

What a generation is compared with runs in turn with it, so that a machine whose speed
drifts slows both. Prints Markdown tables.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

# Before numpy: one thread, and no tuning of its matrix products left over from a shell.
os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(name, None)
ALL_CORES = os.sched_getaffinity(0)
os.sched_setaffinity(0, {max(ALL_CORES)})

import numpy as np  # noqa: E402
import scipy.io  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from masked_pathnet import MaskedPathNet  # noqa: E402

import pathnet  # noqa: E402
from common import commandline  # noqa: E402
from supervised import generation  # noqa: E402

SHAPES = {
    "mnist": {"L": 3, "M": 10, "N": 3, "filt": 20, "inputs": 784, "classes": (2, 2)},
    "cifar": {"L": 3, "M": 20, "N": 5, "filt": 20, "inputs": 3072, "classes": (10, 10)},
}
WRITEBACKS = {"mnist": "sum", "cifar": "merge"}  # the scripts' defaults
SCRIPTS = {"mnist": "binary_mnist_pathnet.py", "cifar": "cifar_svhn_pathnet.py"}
IMAGES = 12_000
SEVERAL = 8  # generations that are compared with a slow one, so that caches are warm


class Generations:
    """Generations on random images, drawn and gathered as the scripts do."""

    def __init__(
        self,
        name,
        B=2,
        T=50,
        batch_num=16,
        network=generation.TrainablePathNet,
        **shape,
    ):
        self.grid = pathnet.Grid(**SHAPES[name] | shape)
        training = generation.Training(B, T, batch_num, 0.05, WRITEBACKS[name])
        self.net = network(self.grid, training)
        self.rng = np.random.default_rng(0)
        grid = self.grid
        self.images = self.rng.integers(0, 256, (IMAGES, grid.inputs), dtype=np.uint8)
        self.labels = self.rng.integers(0, grid.most_classes, IMAGES)
        self.fixed_path = np.zeros([grid.L, grid.M], np.float32)
        self.count = T * batch_num
        self.B = B
        paths = pathnet.random_paths(self.rng, 20, grid.L, grid.M, grid.N)
        self.geopaths = pathnet.to_geopath(paths, grid.M)

    def __call__(self):
        drawn = pathnet.draw_candidates(self.rng, 20, self.B)
        batches = self.rng.choice(IMAGES, self.count, replace=False)
        self.net.train(
            self.geopaths[drawn],
            self.images.take(batches, 0),
            self.labels[batches],
            0,
            self.fixed_path,
        )

    def several(self):
        for _ in range(SEVERAL):
            self()


def bounds(shape, B=2, T=50, batch_num=16):
    """The first layer's products and updates alone, in numpy: both weight layouts."""
    rng = np.random.default_rng(0)
    inputs, units = shape["inputs"], B * shape["N"] * shape["filt"]
    images = rng.random((T, batch_num, inputs), dtype=np.float32)
    grads = rng.random((batch_num, units), dtype=np.float32) * 1e-6
    by_input = rng.random((inputs, units), dtype=np.float32)
    by_unit = np.ascontiguousarray(by_input.T)

    def input_major():
        for x in images:
            x @ by_input
            np.subtract(by_input, x.T @ grads, out=by_input)

    def unit_major():
        for x in images:
            x @ by_unit.T
            np.subtract(by_unit, grads.T @ x, out=by_unit)

    return input_major, unit_major


def medians(functions, rounds=8, calls=8):
    """Median seconds a call of each function, run in turn, after a warm-up."""
    seconds = [[] for _ in functions]
    for function in functions:
        function()
    for _ in range(rounds):
        for times, function in zip(seconds, functions):
            function()  # brings its data back into the caches
            for _ in range(calls):
                start = time.perf_counter()
                function()
                times.append(time.perf_counter() - start)
    return [float(np.median(times)) for times in seconds]


def compare_generation(name):
    """Seconds a generation against the bound and against the masked loop."""
    shape = SHAPES[name]
    ours = Generations(name)
    ours_alone, *bound = medians([ours, *bounds(shape)])
    masked = Generations(name, network=MaskedPathNet)
    logging = Generations(name, network=partial(MaskedPathNet, histograms=True))
    several, *slow = medians([ours.several, masked, logging], rounds=3, calls=1)
    print(f"\n### {name}: one generation, B=2, T=50, batch 16, one thread\n")
    print("| what | seconds | ratio |\n| --- | --- | --- |")
    print(f"| ours | {ours_alone:.4f} | 1 |")
    print(
        f"| bound: layer 1's products alone, numpy | {min(bound):.4f} | "
        f"ours takes {ours_alone / min(bound):.2f}x the bound |"
    )
    for label, seconds in zip(("", ", with histograms of the parameters"), slow):
        print(
            f"| all M modules masked, a session.run a mini-batch{label} | "
            f"{seconds:.3f} | ours is {seconds * SEVERAL / several:.0f}x as fast |"
        )


def compare_shapes(title, variants):
    """Seconds a generation of several variants, run in turn."""
    seconds = medians(list(variants.values()), rounds=4, calls=5)
    print(
        f"\n### {title}\n\n| variant | seconds a generation | ratio |\n| --- | --- | --- |"
    )
    for label, value in zip(variants, seconds):
        print(f"| {label} | {value:.4f} | {value / seconds[0]:.2f} |")


def compare_aggregations(name):
    """Seconds a generation with and without normalized layers."""
    compare_shapes(f"{name}: aggregations", {
        aggregation: Generations(name, aggregation=aggregation)
        for aggregation in ("average", "normalized")
    })  # fmt: skip


# Runs a script and prints its peak RSS: the kernel's figure for a child starts from
# that of this process.
WITH_PEAK = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    status = open("/proc/self/status").read()
    print(status.split("VmHWM:")[1].split()[0])
"""


def run_process(code, *args, cores=None):
    """Wall seconds and output of Python code in a process of its own, on `cores`."""
    start = time.perf_counter()
    process = subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=cores and (lambda: os.sched_setaffinity(0, cores)),
    )
    return time.perf_counter() - start, process.stdout


def whole_process(name, runs, *options, cores=None):
    """The script with default flags, in a process of its own, on `cores`."""
    walls, peaks = [], []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(runs):
            flags = [f"--log_dir={folder}", f"--seed={seed}", *options]
            wall, output = run_process(WITH_PEAK, SCRIPTS[name], *flags, cores=cores)
            *_, last_line, peak = output.splitlines()
            walls.append(wall)
            peaks.append(int(peak) / 1024)
    where = f"{len(cores or {0})} core" + "s" * (len(cores or {0}) > 1)
    print(
        f"\n### {name}: whole process, both tasks, default flags, {where}, {runs} runs\n"
    )
    print(f"- wall: median {np.median(walls):.1f} s, longest {max(walls):.1f} s")
    print(f"- peak RSS: {max(peaks):.0f} MiB")
    print(f"- last line: {last_line}")


def import_and_graph(name):
    """Seconds until the script could train: import, graph, first parameters."""
    code = (
        "import time; start = time.perf_counter()\n"
        "import pathnet, numpy as np\n"
        "from supervised import experiment, generation\n"
        f"grid = pathnet.Grid(**{SHAPES[name]})\n"
        "training = generation.Training(2, 50, 16, 0.05)\n"
        "net = generation.TrainablePathNet(grid, training)\n"
        "net.initialize(0, 0, np.zeros([grid.L, grid.M]))\n"
        "print(time.perf_counter() - start)"
    )
    seconds = [float(run_process(code, cores=ALL_CORES)[1]) for _ in range(5)]
    print(f"- of which import and graph: median {np.median(seconds):.1f} s")


def resident_mb():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def endurance(name, generations=10_000):
    """Op count and memory over many generations."""
    ours = Generations(name)
    for _ in range(500):
        ours()
    ops, memory = len(ours.net.graph.get_operations()), resident_mb()
    for _ in range(generations - 500):
        ours()
    print(f"\n### {name}: {generations:,} generations in one process\n")
    print(
        f"- ops: {ops} after 500 generations, {len(ours.net.graph.get_operations())} at the end"
    )
    print(f"- RSS: {resident_mb() - memory:+.1f} MB since generation 500")


def write_full_size_files(folder):
    """Random images in the official formats and sizes of CIFAR-10 and SVHN."""
    rng = np.random.default_rng(0)
    batches = Path(folder, "cifar-10-batches-bin")
    batches.mkdir()
    names = [f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin"]
    for name in names:
        records = rng.integers(0, 256, (10_000, 3073), dtype=np.uint8)
        records[:, 0] %= 10
        records.tofile(batches / name)
    for name, count in (("train", 73_257), ("test", 26_032)):
        images = rng.integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        labels = rng.integers(1, 11, (count, 1)).astype(np.uint8)
        file = Path(folder, f"{name}_32x32.mat")
        scipy.io.savemat(file, {"X": images, "y": labels}, do_compression=True)


def loading(folder):
    """Seconds to load both full-size data sets."""
    code = (
        "import sys, time\n"
        "from supervised import datasets\n"
        "start = time.perf_counter()\n"
        "kept = datasets.load_cifar10(sys.argv[1]), datasets.load_svhn(sys.argv[1])\n"
        "print(time.perf_counter() - start)"
    )
    seconds = float(run_process(code, folder)[1])
    print(
        f"- of which loading both data sets (full size, random pixels): {seconds:.1f} s"
    )


def mnist():
    compare_generation("mnist")
    compare_shapes("mnist: modules a layer", {
        f"M = {M}": Generations("mnist", M=M) for M in (10, 100, 1000)
    })  # fmt: skip
    compare_aggregations("mnist")
    compare_shapes("mnist: candidates", {
        f"B = {B}": Generations("mnist", B=B) for B in (2, 4, 8)
    })  # fmt: skip
    compare_shapes("mnist: mini-batches", {
        f"T = {T}": Generations("mnist", T=T) for T in (25, 50, 100)
    })  # fmt: skip
    whole_process("mnist", 5, cores=ALL_CORES)
    import_and_graph("mnist")
    endurance("mnist")


def cifar():
    compare_generation("cifar")
    compare_shapes("cifar: modules a layer", {
        f"M = {M}": Generations("cifar", M=M) for M in (20, 200, 2000)
    })  # fmt: skip
    compare_aggregations("cifar")
    with tempfile.TemporaryDirectory() as folder:
        write_full_size_files(folder)
        whole_process("cifar", 1, f"--data_dir={folder}")
        loading(folder)


JOBS = {"mnist": mnist, "cifar": cifar}


def main(names):
    for name in names:
        if name not in JOBS:
            raise commandline.UserError(f"no job '{name}': name {' or '.join(JOBS)}")
    for name in names or JOBS:
        JOBS[name]()


if __name__ == "__main__":
    commandline.run(main, with_files=True)

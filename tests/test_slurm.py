"""A batch as an array of a real Slurm, which lives for this test."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common import results

ROOT = Path(results.__file__).parent.parent
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"
PROGRAMS = ["munged", "slurmctld", "slurmd", "sbatch", "squeue", "sinfo", "scancel"]
TINY = ["--fake_data", "--max_steps=2", "--T=2", "--L=1", "--M=4", "--N=2"]
TIMEOUT = 180  # seconds, for what takes fewer than 30 on a quiet machine

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(shutil.which(program, path=PATH) for program in PROGRAMS),
        reason="needs Slurm: .ci/run installs it",
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="slurmd runs as root alone"),
]

# Three processors, whatever the machine has; no cgroups, no mail, no waiting.
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=1
SlurmdParameters=config_overrides
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs=3
PartitionName=all Nodes=ALL Default=YES State=UP
"""


def wait_until(condition):
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture
def slurm(tmp_path):
    """Calls a command of Slurm and returns what it prints; its daemons run meanwhile."""
    (tmp_path / "key").write_bytes(secrets.token_bytes(1024))
    (tmp_path / "key").chmod(0o400)
    (tmp_path / "state").mkdir()
    host = socket.gethostname().partition(".")[0]
    text = CONFIGURATION.format(host=host, folder=tmp_path, ports=free_ports(2))
    (tmp_path / "slurm.conf").write_text(text)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
    env = kept | {
        "PATH": PATH,
        "SLURM_CONF": str(tmp_path / "slurm.conf"),
        "BATCH_DIR": str(tmp_path / "batch"),
    }

    def call(*command):
        return subprocess.check_output(command, cwd=ROOT, env=env, text=True).strip()

    munge = ["munged", "--foreground", "--force"]
    for kind in ("key-file", "seed-file", "log-file", "pid-file", "socket"):
        name = "key" if kind == "key-file" else f"munge.{kind.removesuffix('-file')}"
        munge.append(f"--{kind}={tmp_path / name}")
    daemons = []
    try:
        for command in (munge, ["slurmctld", "-D"], ["slurmd", "-D"]):
            with (tmp_path / f"{command[0]}.out").open("w") as log:
                daemon = subprocess.Popen(command, env=env, stdout=log, stderr=log)
            daemons.append(daemon)
            if command is munge:
                wait_until((tmp_path / "munge.socket").exists)
        wait_until(lambda: is_idle(env))
        yield call
        call("scancel", "--user=root")
        wait_until(lambda: not call("squeue", "--noheader"))
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait()


def is_idle(env):
    """Whether the node takes jobs."""
    command = ["sinfo", "--noheader", "--format=%t"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    return done.stdout.strip() == "idle"


def process_of(results_file):
    """Id of the process that learns for a results file, or None."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"--results={results_file}".encode() in (
                process / "cmdline"
            ).read_bytes().split(b"\0"):
                return int(process.name)
        except OSError:
            pass  # it has ended
    return None


def test_a_task_that_was_killed_is_submitted_again_alone(slurm, tmp_path):
    """Three tasks, six seeds: whatever happens to a task, each seed is learned once."""
    folder = tmp_path / "batch"

    def submit(array):
        output = f"--output={tmp_path}/%a.txt"
        script = ["auto_binary_mnist_pathnet.sh", "6", *TINY]
        return slurm("sbatch", "--parsable", f"--array={array}", output, *script)

    job = submit("0-4:2")
    stopped = folder / "results-2.jsonl"
    wait_until(stopped.exists)  # it has claimed a seed, or is about to
    os.kill(process_of(stopped), signal.SIGSTOP)
    wait_until(lambda: slurm("squeue", "--noheader", "--format=%K") == "2")
    slurm("scancel", f"{job}_2")
    wait_until(lambda: not slurm("squeue", "--noheader"))
    assert process_of(stopped) is None
    before = {file.name: file.read_text() for file in folder.glob("*.jsonl")}
    assert len(results.read(folder.glob("*.jsonl"))) == 5

    submit("2")
    wait_until(lambda: not slurm("squeue", "--noheader"))
    said = (tmp_path / "2.txt").read_text()
    assert "1 Iteration,  Entire Iter:" in said and " of 6 converged |" in said
    seeds = [result["seed"] for result in results.read(folder.glob("*.jsonl"))]
    assert sorted(seeds) == list(range(6))
    for name in ("results-0.jsonl", "results-4.jsonl"):
        assert (folder / name).read_text() == before[name]
    assert (folder / "generations.png").exists()

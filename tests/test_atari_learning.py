"""Does a cluster learn? A real one on Catch, with its GA worker, twice."""

import subprocess
import sys
from pathlib import Path

import atari_pathnet
import results

ROOT = Path(atari_pathnet.__file__).parent


def test_a_cluster_learns_catch_and_learns_it_again_sooner(tmp_path):
    """From chance, about -0.7, to 29 of 30 balls caught; the frozen path is of use."""
    command = [sys.executable, ROOT / "atari_pathnet.py"]
    command += [f"--flagfile={ROOT / 'presets' / 'catch.flags'}"]
    done = subprocess.run(
        [*command, f"--log_dir={tmp_path}"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("*/results.jsonl")
    (result,) = results.read([file])
    first, second = result["tasks"]
    assert first["score"] >= 0.9 and second["score"] >= 0.9
    assert first["generations"] > 0
    # Half way up, where a score of 30 episodes depends least on luck.
    sooner, later = (results.steps_to(task["curve"], 0.5) for task in (second, first))
    assert sooner < later

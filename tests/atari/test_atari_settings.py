"""Tests of settings.py: every flag in one group, and what the values become."""

import subprocess
import sys
from pathlib import Path

import pytest

from atari import settings
from common.commandline import LEARNING, NETWORK, PLACE, REPEAT, TASKS

ROOT = Path(settings.__file__).parent.parent

PLACES = {
    "log_dir",
    "job_name",
    "task_index",
    "ps_hosts",
    "worker_hosts",
    "st_port_num",
}
PLACES |= {
    "checkpoint_dir",
    "isolate",
    "checkpoint_seconds",
    "actors_per_process",
    "load_dir",
}
PLACES |= {"play", "play_task", "play_episodes", "play_gif"}
NETWORKS = {"L", "M", "N", "kernel_num", "stride_size", "use_lstm"}


def in_a_new_process(code):
    """What a script prints that starts with a clean command line."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_what_each_flag_decides():
    code = (
        "from atari import settings; from common import commandline\n"
        "for name, what in commandline.decided_by(settings.define_flags).items():\n"
        "    print(name, what)"
    )
    words = in_a_new_process(code)
    decided = dict(zip(words[::2], words[1::2]))
    by_decision = {
        what: {name for name, decides in decided.items() if decides == what}
        for what in (NETWORK, LEARNING, TASKS, REPEAT, PLACE)
    }
    assert by_decision[PLACE] == PLACES
    assert by_decision[NETWORK] == NETWORKS
    assert by_decision[TASKS] == {"games"}
    assert by_decision[REPEAT] == {"seed"}
    assert {"t_max", "B", "control", "threads"} <= by_decision[LEARNING]
    assert "record" not in decided


@pytest.mark.parametrize("name", ["play_gif", "record"])
def test_the_gif_has_its_own_flag_and_the_name_of_earlier_versions(name):
    code = (
        "from absl import flags; from atari import settings\n"
        "settings.define_flags()\n"
        f"flags.FLAGS(['x', '--play', '--checkpoint_dir=d', '--{name}=pong.gif'])\n"
        "print(settings.play().gif)"
    )
    assert in_a_new_process(code) == ["pong.gif"]


def test_settings_and_the_launcher_do_without_tensorflow():
    code = (
        "import sys; from atari import launch, settings; import atari_pathnet\n"
        "print('tensorflow' in sys.modules)"
    )
    assert in_a_new_process(code) == ["False"]


def test_help_texts_begin_with_a_noun():
    code = (
        "from absl import flags; from atari import settings; from common import "
        "commandline\nsettings.define_flags()\n"
        "for name in commandline.flag_names(): print(flags.FLAGS[name].help.split()[0])"
    )
    assert "Of" not in in_a_new_process(code)

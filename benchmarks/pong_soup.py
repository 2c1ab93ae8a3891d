"""What a game gains from another one: a matrix of transfers between variants of a game.

    python benchmarks/pong_soup.py --out_dir=logs/soup --results=figures/pong_soup.jsonl
    python benchmarks/pong_soup.py --game=catch --seeds=5 --out_dir=logs/catch_soup \\
        --results=figures/catch_soup.jsonl -- --flagfile=presets/catch.flags

The game is learned once for each seed; then each of its variants on top of that under
every control, and from scratch (Pong Soup, Rusu et al. 2016, arXiv 1606.04671, section
5.1). One cluster after the other, hours of them for Pong: started again, it goes on
where it was stopped. What comes out is in the results file, as each cell is done:

    python plotting.py figures/pong_soup.jsonl --transfer=figures/pong_soup.png

Arguments after -- are for atari_pathnet.py.
"""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
from absl import flags
from PIL import Image
from repeats import ROOT
from tqdm import tqdm

from atari import environments
from common import commandline, results
from common.commandline import UserError

FLAGS = flags.FLAGS

# Those of the paper, and of catch those that can be told apart on its screens.
VARIANTS = {
    "pong": ("noisy", "black", "white", "zoom", "hflip", "vflip", "vhflip"),
    "catch": ("hflip", "vflip", "inverted"),
}
CONTROLS = "scratch", "pathnet", "finetune", "random_frozen", "no_selection"
# The most agent steps of the game that is learned first, and of each variant.
STEPS = {"pong": (4_000_000, 2_000_000), "catch": (200_000, 100_000)}


def define_flags() -> None:
    with commandline.flag_group("Experiment", commandline.PLACE):
        flags.DEFINE_enum("game", "pong", list(VARIANTS), "What variants are made of.")
        flags.DEFINE_string("out_dir", None, "Folder of the runs.", required=True)
        flags.DEFINE_string("results", None, "Results file, one line a cell.")
        flags.DEFINE_string("strip", None, "Picture of all variants, and no more.")
        flags.DEFINE_integer("seeds", 1, "Number of seeds.", lower_bound=1)
        flags.DEFINE_list("variants", None, "Some of the variants; default: all.")
        flags.DEFINE_list("controls", list(CONTROLS), "Some of the controls.")
        flags.DEFINE_integer("first_steps", None, "Most agent steps of the game.")
        flags.DEFINE_float("first_score", None, "Score that ends it.")
        flags.DEFINE_string(
            "learned",
            None,
            "Checkpoints of the game, of runs that have learned it, in place of learning it "
            "here; {seed} stands for the seed.",
        )
        flags.DEFINE_integer("steps", None, "Most agent steps of each variant.")


def main(given: list[str]) -> None:
    check_flags()
    game = FLAGS.game
    names = FLAGS.variants or VARIANTS[game]
    if FLAGS.strip is not None:
        draw_strip(FLAGS.strip, [game, *(f"{game}_{name}" for name in names)])
        return
    cells = list(itertools.product(range(FLAGS.seeds), names, FLAGS.controls))
    done = _done()
    first_ends = [f"--max_time_step={FLAGS.first_steps or STEPS[game][0]}"]
    if FLAGS.first_score is not None:
        first_ends.append(f"--stop_score={FLAGS.first_score}")
    for seed, name, control in tqdm(cells, unit=" cells"):
        if (seed, f"{game}_{name}", control) in done:
            continue
        if FLAGS.learned is not None:
            source = FLAGS.learned.replace("{seed}", str(seed))
        else:
            first = *first_ends, f"--games={game}", f"--seed={seed}"
            source = _learn(f"{game}_seed{seed}", *given, *first)
        folder = _learn(
            f"{game}_{name}_{control}_seed{seed}",
            *given,
            f"--games={game},{game}_{name}",
            f"--load_dir={source}",
            f"--seed={seed}",
            f"--control={control}",
            f"--max_time_step={FLAGS.steps or STEPS[game][1]}",
        )
        (result,) = results.read(folder.glob("atari__*/results.jsonl"))
        results.append(FLAGS.results, result)


def check_flags() -> None:
    """Before hours of learning, rather than after them.

    Raises:
      UserError: a flag is missing, names what there is not, or would be of no effect.
    """
    if FLAGS.results is None and FLAGS.strip is None:
        raise UserError("flag --results: name a results file")
    for flag, known in (("variants", environments.VARIANTS), ("controls", CONTROLS)):
        for name in FLAGS[flag].value or ():
            if name not in known:
                raise UserError(
                    f"flag --{flag}: there is no {name!r}; take some of {','.join(known)}"
                )
    if FLAGS.learned is not None:
        for flag in ("first_steps", "first_score"):
            if FLAGS[flag].value is not None:
                raise UserError(
                    f"flag --{flag}: of no effect with --learned, which names runs that "
                    "have learned the game; leave one of the two out"
                )


def _done():
    """The cells that the results file has: (seed, game, control) each."""
    if not Path(FLAGS.results).exists():
        return set()
    return {
        (result["seed"], result["tasks"][1]["name"], result["control"])
        for result in results.read([FLAGS.results])
    }


def _learn(name, *given):
    """Runs a cluster to its end, or goes on with it: the folder that has its runs."""
    folder = Path(FLAGS.out_dir) / name
    finished = subprocess.run(
        [
            sys.executable,
            str(ROOT / "atari_pathnet.py"),
            *given,
            f"--log_dir={folder}",
            f"--checkpoint_dir={folder / 'checkpoints'}",
        ],
        capture_output=True,
        text=True,
    )
    if finished.returncode:
        raise UserError(f"{folder}: its run failed: {finished.stderr.splitlines()[-1]}")
    return folder


def draw_strip(filename: str, games: list[str]) -> None:
    """The same moment of each game, side by side."""
    shown = []
    for game in games:
        environment = environments.make(game, 1, threads=1)
        screens, _ = environment.reset(seed=0)
        for _ in range(90 if FLAGS.game == "pong" else 3):
            screens, *_ = environment.step(np.array([0]))
        environment.close()
        shown.append(np.pad(screens[0, -1], 2, constant_values=255))
    strip = Image.fromarray(np.concatenate(shown, 1))
    strip.resize((2 * strip.width, 2 * strip.height), Image.Resampling.NEAREST).save(
        filename
    )


if __name__ == "__main__":
    commandline.run(main, define_flags, with_files=True)

"""Figures of results: tables and pictures made of any number of results files.

    python plotting.py logs/*/results.jsonl --generations=generations.png

prints a table of all results and draws what the flags name, each into its own file:

    --generations   the generations that each task took, learned first and second
    --curves        how training accuracy grew over them
    --accuracies    training and held-out accuracy when the task was done
    --usage         how often each module is on the best path
    --overlaps      how many modules the best paths share
    --retention     how well each task is remembered after the later ones
    --scores        scores of Atari games over agent steps
"""

import contextlib
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import flags

from common import commandline
from common import results as recorded
from reports import plots

FLAGS = flags.FLAGS

# By the flag that names the file.
PICTURES = {
    "generations": (plots.plot_generations, "Histograms of generations"),
    "curves": (plots.plot_curves, "Learning curves"),
    "accuracies": (plots.plot_accuracies, "Training and held-out accuracies"),
    "usage": (plots.plot_usage, "How often each module is on the best path"),
    "overlaps": (plots.plot_overlaps, "Histograms of the overlap"),
    "retention": (plots.plot_retention, "Retention matrix"),
    "scores": (plots.plot_scores, "Scores of Atari games"),
}


def setting_filename(filename: str, setting: str, number: int) -> Path:
    """Where the picture of one setting goes, such as curves_control=scratch.png.

    Args:
        setting: its label, which ends the name; "" for the only one.
        number: of the setting, which takes the place of a label too long for a name.
    """
    path = Path(filename)
    label = re.sub(r"[^\w.,=-]+", "_", setting)
    if len(label) > 100:
        label = str(number)
    return path.with_stem(f"{path.stem}_{label}") if label else path


def main(filenames: Sequence[str]) -> None:
    """Prints a table for each setting in the results files, and draws the pictures."""
    if not filenames:
        raise commandline.UserError("name one or more results.jsonl files")
    results = recorded.read(filenames)
    if not results:
        raise commandline.UserError(f"{', '.join(filenames)}: no results in there yet")
    levels = [float(level) for level in FLAGS.score_levels]
    settings = recorded.by_setting(results)
    for setting, group in settings.items():
        with _telling("level"):
            table = (
                recorded.score_table(group, levels)
                if _of_games(group)
                else recorded.table(group, FLAGS.level)
            )
        print(f"{setting}\n\n{table}\n".lstrip())
        if FLAGS.retention:
            with _telling("retention"):
                print(f"{recorded.retention_table(group)}\n")
    for setting, group in recorded.by_setting(results, ignored={"control"}).items():
        if len({result.get("control", "pathnet") for result in group}) > 1:
            table = (
                recorded.score_control_table(group, levels)
                if _of_games(group)
                else recorded.control_table(group)
            )
            print(f"{setting}\n\n{table}\n".lstrip())
    for flag, (plot, _) in PICTURES.items():
        if not FLAGS[flag].value:
            continue
        for number, (setting, group) in enumerate(settings.items(), 1):
            picture = setting_filename(FLAGS[flag].value, setting, number)
            with _telling(flag):
                plot(picture, group)
            print(f"Picture: {picture}" + (f" of {setting}" if setting else ""))


def _of_games(results: Sequence[dict]) -> bool:
    return all(result.get("script") == "atari" for result in results)


@contextlib.contextmanager
def _telling(flag: str) -> Iterator[None]:
    """Tells the user if the results lack what a flag asks for."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        lack = f"they have no {error}" if isinstance(error, KeyError) else error
        raise commandline.UserError(
            f"flag --{flag}: does not fit these results, as {lack}; name others or "
            "leave the flag out"
        ) from error


def _is_png(filename: str | None) -> bool:
    """Whether a picture may go there; an empty name, like none, draws nothing."""
    return not filename or Path(filename).suffix.lower() == ".png"


def _are_numbers(values: Sequence[str]) -> bool:
    try:
        return all(math.isfinite(float(value)) for value in values)
    except ValueError:
        return False


def define_flags() -> None:
    with commandline.flag_group("Pictures", commandline.PLACE):
        for flag, (_, what) in PICTURES.items():
            flags.DEFINE_string(flag, None, f"{what}: a PNG file to draw.")
            # Or a flag without its value would take, and overwrite, the next results file.
            flags.register_validator(flag, _is_png, "name a picture that ends in .png")
    with commandline.flag_group("Tables", commandline.PLACE):
        flags.DEFINE_float(
            "level",
            None,
            "Training accuracy up to which generations are counted, in place of those "
            "until the task ended.",
            0,
            1,
        )
        flags.DEFINE_list(
            "score_levels",
            ["0", "15"],
            "Scores of games up to which agent steps are counted.",
        )
    flags.register_validator("score_levels", _are_numbers, "separate numbers by commas")


if __name__ == "__main__":
    commandline.run(main, define_flags, with_files=True)

"""Tables and pictures made of any number of results files.

    python plotting.py logs/*/results.jsonl --generations=generations.png
    python plotting.py logs/*/results.jsonl --tensorboard=DIR

prints tables of all results and draws each picture that a flag names. Results of
several settings, such as --control makes, have tables and a picture each. With
--tensorboard it makes a folder that TensorBoard shows: the mean curves of all settings
over each other, and a table with a row a repeat.
"""

from common import commandline  # before all else: Ctrl-C is one line from here on

# isort: split
import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from absl import flags

from atari import settings as atari_settings
from common import results as results_files
from common import shell
from reports import plots, tables, tensorboard, transfer
from supervised import settings as supervised_settings

# By the flag that names the file: what draws it, and what it shows.
PICTURES = {
    "generations": (
        plots.plot_generations,
        "histograms of the generations that each task took, learned first and second",
    ),
    "curves": (
        plots.plot_curves,
        "training accuracy over generations, learned first and second",
    ),
    "controls": (
        plots.plot_controls,
        "training accuracy over generations of later tasks under each control",
    ),
    "accuracies": (
        plots.plot_accuracies,
        "training and held-out accuracy of each task when it was done",
    ),
    "usage": (plots.plot_usage, "how often each module is on the best path"),
    "overlaps": (
        plots.plot_overlaps,
        "histograms of how many modules the best paths share",
    ),
    "retention": (
        plots.plot_retention,
        "how well each task is remembered after the later ones, also printed",
    ),
    "scores": (plots.plot_scores, "scores of Atari games over agent steps"),
    "transfer": (
        transfer.plot_transfer,
        "what second Atari games gain under each control, as a matrix",
    ),
}


@dataclass(frozen=True)
class Options:
    """What the user asks for.

    Attributes:
      level: training accuracy up to which generations are counted, or None.
      score_levels: scores of games up to which agent steps are counted.
      pictures: file names by flag, of the pictures to draw.
      tensorboard: folder to write for TensorBoard, or None.
    """

    level: float | None
    score_levels: tuple[float, ...]
    pictures: dict[str, str]
    tensorboard: str | None = None


def define_flags() -> None:
    """Defines the flags of this command."""
    with commandline.flag_group("Pictures", commandline.PLACE):
        for name, (_, what) in PICTURES.items():
            flags.DEFINE_string(name, None, f"PNG file to draw: {what}.")
            # Or a flag without its value would take, and overwrite, the next results file.
            flags.register_validator(name, _is_png, "name a picture that ends in .png")
        flags.DEFINE_string(
            "tensorboard",
            None,
            "Folder to make for TensorBoard, of mean curves with their bands and a table "
            "with a row a repeat.",
        )
    with commandline.flag_group("Tables", commandline.PLACE):
        flags.DEFINE_float(
            "level", None, "Count generations up to this training accuracy.", 0, 1
        )
        flags.DEFINE_list(
            "score_levels",
            ["0", "15"],
            "Scores of games up to which agent steps are counted.",
        )
        flags.register_validator(
            "score_levels", _are_numbers, "separate numbers by commas"
        )


def _is_png(filename: str | None) -> bool:
    """Whether a picture may go there; an empty name, like none, draws nothing."""
    return not filename or Path(filename).suffix.lower() == ".png"


def _are_numbers(values: Sequence[str]) -> bool:
    try:
        return all(math.isfinite(float(value)) for value in values)
    except ValueError:
        return False


def _options() -> Options:
    """The flags of this command."""
    values = commandline.flag_values()
    return Options(
        level=values["level"],
        score_levels=tuple(map(float, values["score_levels"])),
        pictures={name: values[name] for name in PICTURES if values[name]},
        tensorboard=values["tensorboard"] or None,
    )


def not_settings() -> set[str]:
    """Names of the task scripts' flags that make no setting, but tell its repeats apart.

    What is learned in which order, which repeats are, and where files lie.
    """
    not_setting = {commandline.TASKS, commandline.REPEAT, commandline.PLACE}
    return {
        name
        for define in (
            supervised_settings.define_binary_mnist_flags,
            supervised_settings.define_cifar_svhn_flags,
            supervised_settings.define_images_flags,
            atari_settings.define_flags,
        )
        for name, decides in commandline.decided_by(define).items()
        if decides in not_setting
    }


def main(filenames: Sequence[str]) -> None:
    """Prints and draws what the flags ask for; raises what `show` does."""
    if not filenames:
        raise commandline.UserError("name one or more results.jsonl files")
    show(filenames, _options())


def show(filenames: Sequence[str], options: Options) -> None:
    """Prints tables for each setting in the results files, and draws the pictures.

    Args:
      filenames: of the results files.
      options: what is asked for.

    Raises:
      UserError: the files hold nothing, or lack what a flag asks for.
      OSError: a file cannot be read, or a picture or an event cannot be written.
    """
    results = tables.with_short_names(results_files.read(filenames))
    if not results:
        raise commandline.UserError(f"{', '.join(filenames)}: no results in there yet")
    names = not_settings()
    settings = tables.by_setting(results, names)
    over_controls = tables.by_setting(results, names, {"control"})
    _print_tables(settings, options)
    _print_control_tables(over_controls, options)
    _print_continual_tables(over_controls)
    for name, filename in options.pictures.items():
        is_of_controls = name in ("controls", "transfer")
        _draw_picture(name, filename, over_controls if is_of_controls else settings)
    if options.tensorboard:
        _write_tensorboard(options.tensorboard, results, names)


def _print_tables(settings: dict[str, list[dict]], options: Options) -> None:
    """Prints the tables of each setting, and what is remembered if that is drawn."""
    for setting, results in settings.items():
        with _explained("level"):
            found = (
                [tables.score_table(results, options.score_levels)]
                if _are_games(results)
                else [
                    tables.generations_table(results, options.level),
                    tables.comparison_table(results, options.level),
                ]
            )
        _print_table(setting, "\n\n".join(filter(None, found)))
        if "retention" in options.pictures:
            with _explained("retention"):
                _print_table("", tables.retention_table(results))


def _print_control_tables(settings: dict[str, list[dict]], options: Options) -> None:
    """Prints a comparison of the controls where a setting has several."""
    for setting, results in settings.items():
        if len({result.get("control", "pathnet") for result in results}) > 1:
            with _explained():
                table = (
                    tables.score_control_table(results, options.score_levels)
                    if _are_games(results)
                    else tables.control_table(results, options.level)
                )
            _print_table(setting, table)


def _print_continual_tables(settings: dict[str, list[dict]]) -> None:
    """Prints what sequences of tasks come to: accuracy, forgetting and transfer."""
    for setting, results in settings.items():
        make = (
            transfer.transfer_table if _are_games(results) else tables.continual_table
        )
        if table := make(results):
            _print_table(setting, table)


def _print_table(setting: str, table: str) -> None:
    print(commandline.printable(f"{setting}\n\n{table}\n".lstrip()))


def _draw_picture(name: str, filename: str, settings: dict[str, list[dict]]) -> None:
    """Draws a picture that was asked for, one a setting."""
    plot, _ = PICTURES[name]
    for number, (setting, results) in enumerate(settings.items(), 1):
        picture = setting_filename(filename, setting, number)
        with _explained(name):
            plot(picture, results)
        line = f"Picture: {picture}" + (f" of {setting}" if setting else "")
        print(commandline.printable(line))


def _write_tensorboard(folder: str, results: Sequence[dict], names: set[str]) -> None:
    """Writes a folder for TensorBoard, and prints the commands that show it."""
    with _explained("tensorboard"):
        written, lacking = tensorboard.write(folder, results, names)
    if lacking:
        line = f"No mean curve, as the results have none: {', '.join(lacking)}"
        print(commandline.printable(line))
    for what, part in (
        ("Mean curves", tensorboard.MEAN),
        ("Table of repeats", tensorboard.REPEATS),
    ):
        path = os.path.join(written, part)
        if os.path.isdir(path):
            print(commandline.printable(f"{what}: {shell.tensorboard(path)}"))


def setting_filename(filename: str, setting: str, number: int) -> Path:
    """Where the picture of one setting goes, such as curves_control=scratch.png.

    Args:
      filename: of the picture, as the user named it.
      setting: its label, which ends the name; "" for the only one.
      number: of the setting, which takes the place of a label too long for a name.
    """
    path = Path(filename)
    label = tables.as_filename(setting, str(number))
    return path.with_stem(f"{path.stem}_{label}") if label else path


def _are_games(results: Sequence[dict]) -> bool:
    return all(map(tables.is_game, results))


@contextlib.contextmanager
def _explained(flag: str | None = None) -> Iterator[None]:
    """Makes a UserError of what is raised where results lack what is asked for.

    Args:
      flag: that asks for it; None for what is always printed.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        lack = f"they have no {error}" if isinstance(error, KeyError) else error
        if flag is None:
            raise commandline.UserError(
                f"no table of controls fits these results, as {lack}; name others"
            ) from error
        raise commandline.UserError(
            f"flag --{flag}: does not fit these results, as {lack}; name others or "
            "leave the flag out"
        ) from error


if __name__ == "__main__":
    commandline.run(main, define_flags, with_files=True)

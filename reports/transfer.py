"""Transfer between games: how much a second game gains from the first, as a matrix.

The score of a run is the area under its learning curve, relative to that of learning the
same game from scratch (Rusu et al. 2016, arXiv 1606.04671, section 5.1).
"""

import os
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from reports import tables
from reports.colours import BACKGROUND, INK, TASK_COLOURS
from reports.style import despine, save_png

# The return of a player who gets nothing right, by the game that variants are made of.
# Of another game it is the least score of all that was learned of it.
LEAST_RETURN = {"pong": -21.0, "catch": -1.0, "boxing": -100.0, "freeway": 0.0}

SCRATCH = "scratch"
POINTS = 1001  # of a curve, at which its area is taken


def area(task: dict, steps: int) -> float | None:
    """Mean height of a learning curve over the first agent steps of a task.

    Args:
      task: its entry of results.jsonl. steps: agent steps. Before its first point a curve
        is as high as there, and after its last one likewise.

    Returns:
      The score on average; None if there are too few episodes for one.
    """
    at, scores = tables.running_score(task["curve"])
    if len(at) == 0:
        return None
    return float(np.interp(np.linspace(0, steps, POINTS), at, scores).mean())


def gains(results: Sequence[dict]) -> dict[str, dict[str, list[float]]]:
    """The areas of second games in percent of those from scratch, seed by seed.

    Above the least return of the game, and up to the steps that the longest of the runs
    from scratch took. Repeats that have no score are left out.

    Args:
      results: repeats of atari_pathnet.py as in results.jsonl, of two games each.

    Returns:
      {game: {control: [n]}}; without scratch itself, of which all are 100.
    """
    found: dict[tuple[str, str], dict[int, dict]] = {}
    for result in results:
        if len(result["tasks"]) == 2:
            task, control = result["tasks"][1], result.get("control", "pathnet")
            if area(task, task["steps"]) is not None:
                found.setdefault((task["name"], control), {})[result["seed"]] = task
    compared: dict[str, dict[str, list[float]]] = {}
    for (game, control), repeats in found.items():
        scratch = found.get((game, SCRATCH), {})
        seeds = [seed for seed in repeats if seed in scratch]
        if control != SCRATCH and seeds:
            steps = max(scratch[seed]["steps"] for seed in seeds)
            least = _least_return(game, found)
            heights = [
                [area(repeat[seed], steps) - least for repeat in (repeats, scratch)]
                for seed in seeds
            ]
            values = [100 * ours / theirs for ours, theirs in heights if theirs > 0]
            if values:
                compared.setdefault(game, {})[control] = values
    return compared


def _least_return(game, found):
    """The least return of a game; `found` has its tasks by (game, control) and seed."""
    known = LEAST_RETURN.get(game.split("_")[0])
    if known is not None:
        return known
    tasks = [t for (name, _), of in found.items() if name == game for t in of.values()]
    return min(tables.running_score(task["curve"])[1].min() for task in tasks)


def _columns(compared: Mapping[str, Mapping[str, Sequence[float]]]) -> list[str]:
    """The controls, in the order in which they come."""
    return list(dict.fromkeys(c for row in compared.values() for c in row))


def transfer_table(results: Sequence[dict]) -> str:
    """A Markdown table of `gains`, and their mean and median over games; "" without any."""
    compared = gains(results)
    if len(compared) < 2:
        return ""
    controls = _columns(compared)
    rows = [
        f"| second game | repeats | {' | '.join(controls)} |",
        "| --- " * (2 + len(controls)) + "|",
    ]
    for game, row in compared.items():
        repeats = max(map(len, row.values()))
        cells = [_text(row.get(control, [])) for control in controls]
        rows.append(f"| {game} | {repeats} | {' | '.join(cells)} |")
    for name, statistic in (("mean", np.mean), ("median", np.median)):
        cells = [
            f"{statistic([np.mean(row[c]) for row in compared.values() if c in row]):.0f}"
            for c in controls
        ]
        rows.append(f"| *{name}* | | {' | '.join(cells)} |")
    return (
        "Area under the learning curve, in percent of learning from scratch:\n\n"
        + "\n".join(rows)
    )


def _text(values):
    if not values:
        return ""
    mean, error = tables.mean_and_error(values)
    return f"{mean:.0f}" if len(values) == 1 else f"{mean:.0f} ± {error:.0f}"


def plot_transfer(filename: str | os.PathLike, results: Sequence[dict]) -> None:
    """Draws the matrix of `gains`, games by controls, as a PNG file.

    Args:
      filename: the picture; an existing file is replaced.
      results: as of `gains`.

    Raises:
      ValueError: there is nothing to compare.
      OSError: the file cannot be written; an existing one then stays as it was.
    """
    compared = gains(results)
    if not compared:
        raise ValueError("no second game was learned from scratch and otherwise")
    controls, games = _columns(compared), list(compared)
    cells = np.full([len(games), len(controls)], np.nan)
    for place, row in enumerate(compared.values()):
        for control, values in row.items():
            cells[place, controls.index(control)] = np.mean(values)
    size = 2.6 + 1.35 * len(controls), 1.2 + 0.42 * len(games)
    figure = Figure(figsize=size, facecolor=BACKGROUND, layout="constrained")
    axes = figure.subplots()
    # Twice as much is as far from none at all as half as much.
    colours = LinearSegmentedColormap.from_list(
        "transfer", [TASK_COLOURS[1], BACKGROUND, TASK_COLOURS[0]]
    )
    exponents = np.log2(np.clip(cells, 1, None) / 100)
    axes.imshow(exponents, colours, vmin=-2, vmax=2, aspect="auto")
    for (y, x), value in np.ndenumerate(cells):
        if np.isfinite(value):
            axes.text(x, y, f"{value:.0f}", ha="center", va="center", color=INK)
    axes.set_xticks(range(len(controls)), controls)
    axes.set_yticks(range(len(games)), games)
    axes.set_title(
        "Area under the learning curve, % of scratch",
        loc="left",
        color=INK,
        weight="bold",
        fontsize=10,
    )
    despine(axes)
    save_png(filename, figure)

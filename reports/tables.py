"""Statistics of results, and Markdown tables made of them."""

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np

SCORE_EPISODES = 30  # whose mean return is the score of a game, as in atari/scores.py
NOT_CONVERGED = "not all converged"  # in place of a speedup
# What of a game tells one learning of it from another.
_OUTCOME = ("name", "generations", "steps", "score")


# --------------------------------------------------------------------------------------
# Groups of results
# --------------------------------------------------------------------------------------


def by_setting(
    results: Sequence[dict],
    not_settings: Collection[str],
    ignored: Collection[str] = (),
) -> dict[str, list[dict]]:
    """Groups results by the flags and data in which they differ, whichever run made them.

    A repeat is there once, however many files hold it: see `distinct`.

    Args:
      results: repeats, as `common.results.read` returns them.
      not_settings: names of the flags that make no setting, but tell its repeats apart:
        where files lie, which repeats are learned, which tasks in which order.
      ignored: names of further flags to ignore; "control" is that of the repeat.

    Returns:
      dict from a label such as "writeback=sum" ("" if all are alike) to results.
    """
    settings = [_setting(result, {*not_settings, *ignored}) for result in results]
    names = dict.fromkeys(name for setting in settings for name in setting)
    varying = [name for name in names if _varies(settings, name)]
    groups: dict[str, list[dict]] = {}
    for setting, result in zip(settings, results):
        label = ", ".join(f"{name}={setting.get(name)}" for name in varying)
        groups.setdefault(label, []).append(result)
    return {label: distinct(group) for label, group in groups.items()}


def distinct(results: Sequence[dict]) -> list[dict]:
    """Each repeat once, the first time it is there.

    Args:
      results: of one setting, or of settings that differ in their control.
    """
    seen, kept = set(), []
    for result in results:
        key = _identity(result, result["tasks"])
        if result.get("seed") is None or key not in seen:
            kept.append(result)
        seen.add(key)
    return kept


def _identity(result: dict, tasks: Sequence[dict]) -> str:
    """What tells the learning of a repeat's tasks, or of its first ones, from others.

    The seed decides all of it, so that what differs, such as a last digit between two
    kinds of processors, makes no other repeat. Actors that play at the same time make
    every run of a game another one: it is the same only if its outcomes are.
    """
    parts = [result.get("seed"), result.get("control", "pathnet")]
    of_task = _OUTCOME if result.get("script") == "atari" else ("name",)
    return repr(parts + [[task.get(name) for name in of_task] for task in tasks])


def _setting(result: dict, left_out: Collection[str]) -> dict:
    """What makes the setting of a repeat, by name: flags, the control, the data."""
    flags = result["flags"] | {"control": result.get("control", "pathnet")}
    setting = {name: value for name, value in flags.items() if name not in left_out}
    for name, description in result.get("data", {}).items():
        setting[f"data:{name}"] = description
    return setting


def _varies(settings: Sequence[dict], name: str) -> bool:
    """Whether these differ in a name; earlier results do not say what their data were."""
    is_of_data = name.startswith("data:")
    values = [s.get(name) for s in settings if name in s or not is_of_data]
    return len(set(map(str, values))) > 1


def learned(results: Sequence[dict]) -> Iterator[tuple[int, str | None, dict]]:
    """Every task that was learned, once.

    Repeats of one seed that begin with the same tasks learn these in the same way: they
    are there twice where only what follows differs.

    Args:
      results: repeats of one setting.

    Yields:
      (place, before, task): the place in the learning order, from 0 on; the name of the
      task before it, or None; and what was recorded of it.
    """
    seen = set()
    for result in results:
        before = None
        for place, task in enumerate(result["tasks"]):
            learning = _identity(result, result["tasks"][: place + 1])
            if result.get("seed") is None or learning not in seen:
                yield place, before, task
            seen.add(learning)
            before = task["name"]


# --------------------------------------------------------------------------------------
# Statistics
# --------------------------------------------------------------------------------------


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean of [n] values and its standard error; NaN where n is too small for one."""
    n = len(values)
    mean = float(np.mean(values)) if n else float("nan")
    error = float(np.std(values, ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    return mean, error


def speedup(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Mean of `first` over mean of `second`; None where there is no such ratio."""
    if len(first) == 0 or len(second) == 0 or np.mean(second) == 0:
        return None
    return float(np.mean(first) / np.mean(second))


def speedup_interval(
    first: Sequence[float], second: Sequence[float], paired: bool
) -> tuple[float, float] | None:
    """A 95 % confidence interval of `speedup`: the bootstrap's percentiles.

    Args:
      first, second: the two samples.
      paired: whether the values belong together in pairs, such as the repeats of one
        seed, which are then drawn together; else the samples are drawn independently.

    Returns:
      (low, high), or None where a sample has fewer than two values or `second` a 0.
    """
    if min(len(first), len(second)) < 2 or not np.all(second):
        return None
    from scipy.stats import bootstrap  # only here: it takes half a second to import

    interval = bootstrap(
        (first, second),
        lambda first, second, axis: np.mean(first, axis) / np.mean(second, axis),
        paired=paired,
        method="percentile",
        batch=1000,  # resamples at a time: all of them of many repeats are a gigabyte
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def speedup_text(
    first: Sequence[float | None], second: Sequence[float | None], paired: bool
) -> str:
    """A speedup with its interval, such as "1.87 [1.70, 2.05]"; "" without a speedup.

    Args:
      first, second: the two samples, None where a repeat did not converge: then there is
        no speedup, and the text says so.
      paired: as of `speedup_interval`.
    """
    if None in (*first, *second):
        return NOT_CONVERGED if len(first) and len(second) else ""
    ratio = speedup(first, second)
    if ratio is None:
        return ""
    interval = speedup_interval(first, second, paired)
    return f"{ratio:.2f}" + (" [{:.2f}, {:.2f}]".format(*interval) if interval else "")


def generations_needed(task: dict, level: float | None = None) -> int | None:
    """Generations until a task converged, or its curve reached a level; None if never."""
    if level is not None:
        return generations_to(task["curve"], level)
    return task["generations"] if task.get("converged", True) else None


def converged_text(generations: Sequence[int | None]) -> str:
    """How many repeats there are, and of how many of them it is known what they needed."""
    n, k = len(generations), len(not_none(generations))
    return str(n) if k == n else f"{k} of {n} converged"


def generations_to(
    curve: Mapping[str, Sequence[float]], level: float, window: int = 10
) -> int | None:
    """The generation at which the mean of the last `window` winners reached a level.

    Args:
      curve: {"generation": [...], "fitness": [...]}, as in results.jsonl, which keeps
        every winner up to generation 1,000 and fewer from there on.
      level: of fitness, in [0, 1].
      window: how many winners to average.

    Returns:
      The generation, or None if that never happened.
    """
    fitness = np.array(curve["fitness"])
    if len(fitness) < window:
        return None
    means = np.convolve(fitness, np.ones(window) / window, "valid")
    # Rounding leaves the mean of ten times 0.9 a last bit below 0.9.
    reached = np.flatnonzero(means >= level - 1e-9)
    return curve["generation"][reached[0] + window - 1] if len(reached) else None


def running_score(
    curve: Mapping[str, Sequence[float]],
) -> tuple[np.ndarray, np.ndarray]:
    """Mean return of the last SCORE_EPISODES episodes, over agent steps.

    Args:
      curve: {"steps": [...], "return": [...], "episodes": [...]}: how many episodes
        ended up to a step and since the one before, and their mean return.

    Returns:
      (steps, score), float [n] each, from where there are that many episodes; a point
      may take in a few more.
    """
    steps = np.array(curve["steps"], float)
    counts = np.cumsum([0, *curve["episodes"]])
    sums = np.cumsum([0, *np.multiply(curve["return"], curve["episodes"])])
    ends = np.flatnonzero(counts >= SCORE_EPISODES)
    # The last point before so many episodes ago.
    begins = np.searchsorted(counts, counts[ends] - SCORE_EPISODES, "right") - 1
    means = (sums[ends] - sums[begins]) / (counts[ends] - counts[begins])
    return steps[ends - 1], means


def steps_to(curve: Mapping[str, Sequence[float]], level: float) -> int | None:
    """Agent steps until the score first reached a level; None if it never did."""
    steps, scores = running_score(curve)
    reached = np.flatnonzero(scores >= level)
    return int(steps[reached[0]]) if len(reached) else None


def retention(results: Sequence[dict]) -> tuple[list[str], np.ndarray]:
    """What is left of each task after each later one, over repeats of the same tasks.

    Args:
      results: repeats of the supervised scripts.

    Returns:
      (names, accuracy): the tasks, and a float array [repeats, tasks, tasks] of
      held-out accuracy on the column's task after the row's, NaN where the column's
      comes later.

    Raises:
      ValueError: the repeats hold no task, or not the same ones in the same order.
      KeyError: one is of Atari or from before this was recorded.
    """
    orders = {tuple(task["name"] for task in result["tasks"]) for result in results}
    if not any(orders):
        raise ValueError("they hold no task")
    if len(orders) > 1:
        raise ValueError("they are not of the same tasks in the same order")
    (names,) = orders
    accuracy = np.full([len(results), len(names), len(names)], np.nan)
    for matrix, result in zip(accuracy, results):
        for place, row in enumerate(result["retention"]):
            matrix[place, : len(row)] = row
    return list(names), accuracy


# --------------------------------------------------------------------------------------
# Tables of supervised tasks
# --------------------------------------------------------------------------------------


def table(results: Sequence[dict], level: float | None = None) -> str:
    """A Markdown table: each task, learned first and after each other task.

    Columns: repeats, and how many of them converged if not all did; generations of
    those that did, training accuracy of the last winner and held-out accuracy as
    mean ± standard error. The speedup is generations learned first divided by
    generations learned after another task, with a bootstrap interval: other repeats
    learned the task first, so the two are independent samples. There is none where a
    repeat did not converge: how many generations it needs is not known.

    Args:
      results: repeats of one setting.
      level: of fitness; if given, a task has converged where its curve reached it.

    Raises:
      KeyError: there is a level, and a result has no curve.
    """
    groups: dict[tuple[str, str | None], list[dict]] = {}
    for _, before, task in sorted(learned(results), key=lambda entry: entry[0]):
        groups.setdefault((task["name"], before), []).append(task)
    needed = {
        key: [generations_needed(task, level) for task in tasks]
        for key, tasks in groups.items()
    }
    what = "generations" if level is None else f"generations to {100 * level:g} %"
    rows = [
        f"| task | learned | repeats | {what} | speedup [95 %] | training % | held-out % |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (name, before), tasks in groups.items():
        generations, first = needed[name, before], needed.get((name, None))
        ratio = ""
        if before is not None and first is None:
            ratio = f"needs a run with {name} first"
        elif before is not None:
            ratio = speedup_text(first, generations, paired=False)
        cells = [
            name,
            "first" if before is None else f"after {before}",
            converged_text(generations),
            _mean_text(not_none(generations), 1),
            ratio,
            _mean_text([100 * task["fitness"] for task in tasks], 2),
            _held_out_text(tasks),
        ]
        rows.append(_row(cells))
    return "\n".join(rows)


def control_table(results: Sequence[dict]) -> str:
    """A Markdown table: each task under each control, compared with `scratch`.

    Generations are those of the repeats that converged. The speedup is the generations
    of the control "scratch", of the same seeds after the same tasks, divided by those of
    this one, with a bootstrap interval, where all of them converged; for every task but
    the first.
    """
    rows = [
        "| task | control | repeats | converged | generations | speedup [95 %] | held-out % |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for place, name, control, repeats, scratch in _controls(results):
        tasks = list(repeats.values())
        cells = [
            f"{place + 1}: {name}",
            control,
            str(len(tasks)),
            str(sum(task["converged"] for task in tasks)),
            _mean_text(not_none(map(generations_needed, tasks)), 1),
            _paired_speedup(scratch, repeats, generations_needed),
            _held_out_text(tasks),
        ]
        rows.append(_row(cells))
    return "\n".join(rows)


def retention_table(results: Sequence[dict]) -> str:
    """A Markdown table of `retention`, with generations and modules used so far.

    Raises:
      ValueError, KeyError: as `retention`.
    """
    names, accuracy = retention(results)
    digits = 1 if len(results) > 1 else 0
    heads = [
        name + (" (selected by it)" if selected_by_test(tasks) else "")
        for name, *tasks in zip(names, *(result["tasks"] for result in results))
    ]
    rows = [
        f"| held-out % on | {' | '.join(heads)} | generations | modules so far |",
        "| --- |" + " --- |" * (len(names) + 2),
    ]
    for place, name in enumerate(names):
        tasks = [result["tasks"][place] for result in results]
        percent = 100 * accuracy[:, place, : place + 1]
        cells = [
            f"after {place + 1}: {name}",
            *(_mean_text(list(values), 2) for values in percent.T),
            *[""] * (len(names) - place - 1),
            _generations_text(tasks, digits),
            _mean_text([task["modules_so_far"] for task in tasks], digits),
        ]
        rows.append(_row(cells))
    return "\n".join(rows)


# --------------------------------------------------------------------------------------
# Tables of games
# --------------------------------------------------------------------------------------


def score_table(results: Sequence[dict], levels: Sequence[float] = (0, 15)) -> str:
    """A Markdown table of games: agent steps of each task until its score reached levels.

    A row for each repeat and task, and the speedup of each task against the first of
    the same game in the same repeat.
    """
    rows = [
        "| seed | task | agent steps | last score | "
        + " | ".join(f"steps to {level:g} | speedup" for level in levels)
        + " |",
        "| --- " * (4 + 2 * len(levels)) + "|",
    ]
    for result in results:
        first: dict[tuple[str, float], int | None] = {}
        for place, task in enumerate(result["tasks"]):
            cells = [str(result["seed"]), f"{place + 1}: {task['name']}"]
            score = "none" if task["score"] is None else f"{task['score']:.1f}"
            cells += [f"{task['steps']:,}", score]
            for level in levels:
                needed = _steps_needed(task, level)
                earlier = first.get((task["name"], level))
                first.setdefault((task["name"], level), needed)
                cells.append("never" if needed is None else f"{needed:,}")
                cells.append(f"{earlier / needed:.2f}" if earlier and needed else "")
            rows.append(_row(cells))
    return "\n".join(rows)


def score_control_table(
    results: Sequence[dict], levels: Sequence[float] = (0, 15)
) -> str:
    """As `control_table`, of games: agent steps until the score reached levels."""
    rows = [
        "| task | control | repeats | "
        + " | ".join(f"steps to {level:g} | speedup [95 %]" for level in levels)
        + " |",
        "| --- " * (3 + 2 * len(levels)) + "|",
    ]
    for place, name, control, repeats, scratch in _controls(results):
        cells = [f"{place + 1}: {name}", control, str(len(repeats))]
        for level in levels:
            needed = functools.partial(_steps_needed, level=level)
            steps = [n for n in map(needed, repeats.values()) if n is not None]
            never = len(repeats) - len(steps)
            cells += [
                _mean_text(steps, 0) + (f", {never} never" if never else ""),
                _paired_speedup(scratch, repeats, needed),
            ]
        rows.append(_row(cells))
    return "\n".join(rows)


# --------------------------------------------------------------------------------------
# Parts of tables
# --------------------------------------------------------------------------------------


def _controls(
    results: Sequence[dict],
) -> Iterator[tuple[int, str, str, dict[tuple, dict], dict[tuple, dict]]]:
    """Yields (place, task name, control, its repeats, those of scratch to compare with).

    Repeats are {(names of the tasks before, seed): task}; there is nothing to compare
    the first task with, nor scratch itself.
    """
    groups: dict[tuple[int, str], dict[str, dict]] = {}
    for result in results:
        names = tuple(task["name"] for task in result["tasks"])
        for place, task in enumerate(result["tasks"]):
            of_control = groups.setdefault((place, task["name"]), {})
            repeats = of_control.setdefault(result.get("control", "pathnet"), {})
            repeats[names[:place], result["seed"]] = task
    for (place, name), of_control in groups.items():
        for control, repeats in of_control.items():
            compared = place > 0 and control != "scratch"
            scratch = of_control.get("scratch", {}) if compared else {}
            yield place, name, control, repeats, scratch


def _paired_speedup(
    scratch: Mapping[tuple, dict],
    repeats: Mapping[tuple, dict],
    needed: Callable[[dict], float | None],
) -> str:
    """What scratch needed divided by what the same repeats needed, as text."""
    pairs = [
        (needed(scratch[repeat]), needed(task))
        for repeat, task in repeats.items()
        if repeat in scratch
    ]
    return speedup_text(*zip(*pairs), paired=True) if pairs else ""


def _generations_text(tasks: Sequence[dict], digits: int) -> str:
    """Mean generations, and how many repeats converged if not all did."""
    needed = [generations_needed(task) for task in tasks]
    text = _mean_text([task["generations"] for task in tasks], digits)
    if None not in needed:
        return text
    return f"{text}, " + (converged_text(needed) if len(tasks) > 1 else "not converged")


def selected_by_test(tasks: Iterable[dict]) -> bool:
    """Whether held-out images have selected the winners of one of these tasks."""
    return any(task.get("selected_by") == "test" for task in tasks)


def _held_out_text(tasks: Sequence[dict]) -> str:
    """Mean held-out accuracy in percent, and whether the winners were selected by it."""
    text = _mean_text([100 * task["accuracy_test"] for task in tasks], 2)
    return text + (" (selected by it)" if selected_by_test(tasks) else "")


def not_none(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _steps_needed(task: dict, level: float) -> int | None:
    """As `steps_to`, of a game; one that ended on its score has reached it."""
    needed = steps_to(task["curve"], level)
    has_score = task["score"] is not None
    if needed is None and has_score and task["score"] >= level:
        return task["steps"]  # within the last point of the curve
    return needed


def _mean_text(values: Sequence[float], digits: int) -> str:
    """Mean ± standard error, as far as there are enough values for them."""
    if not values:
        return ""
    mean, error = mean_and_error(values)
    margin = f" ± {error:.{digits}f}" if np.isfinite(error) else ""
    return f"{mean:.{digits}f}{margin}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"

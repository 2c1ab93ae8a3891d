"""Statistics of results, and Markdown tables made of them."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from common import folders

SCORE_EPISODES = 30  # whose mean return is the score of a game, as in atari/scores.py
CONTINUAL_LEGEND = (
    "ACC: mean held-out accuracy over all tasks, after the last one. BWT: mean change of the "
    "earlier tasks since each was learned. FWT: mean gain over learning from scratch."
)
MOST_NAMED = 6  # tasks of a sequence that a table names
CURVE_WINDOW = 10  # recorded generations that a point of a curve is the mean of
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
    differing = differences(results, {*not_settings, *ignored})
    groups: dict[str, list[dict]] = {}
    for setting, result in zip(differing, results):
        label = ", ".join(f"{name}={value}" for name, value in setting.items())
        groups.setdefault(label, []).append(result)
    return {label: distinct(group) for label, group in groups.items()}


def differences(results: Sequence[dict], not_settings: Collection[str]) -> list[dict]:
    """Of each result the flags, the control and the data in which they differ, by name.

    Args: as of `by_setting`.
    """
    settings = [_setting(result, not_settings) for result in results]
    names = dict.fromkeys(name for setting in settings for name in setting)
    varying = [name for name in names if _varies(settings, name)]
    return [{name: setting.get(name) for name in varying} for setting in settings]


def as_filename(label: str, otherwise: str | None = None) -> str:
    """A label as part of a file's name; `otherwise`, if given, of one that is too long."""
    if otherwise is not None and len(label) > 100:
        return otherwise
    return re.sub(r"[^\w.,=-]+", "_", label)


def with_short_names(results: Sequence[dict]) -> list[dict]:
    """Results with tasks that are named by paths named by the last part of these.

    As they are, if two paths end alike.
    """
    names = {task["name"] for result in results for task in result["tasks"]}
    short = {name: folders.last_part(name) for name in names}
    if len(set(short.values())) < len(names):
        return list(results)
    return [
        result
        | {"tasks": [task | {"name": short[task["name"]]} for task in result["tasks"]]}
        for result in results
    ]


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
    of_task = _OUTCOME if is_game(result) else ("name",)
    return repr(parts + [[task.get(name) for name in of_task] for task in tasks])


def is_game(result: dict) -> bool:
    """Whether a result is of atari_pathnet.py."""
    return result.get("script") == "atari"


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
    for one in learnings(results):
        yield one.place, one.before, one.task


class Learning(NamedTuple):
    """A task of a repeat. place: of the task in the learning order, from 0 on."""

    result: dict
    place: int

    @property
    def task(self) -> dict:
        """What was recorded of it."""
        return self.result["tasks"][self.place]

    @property
    def before(self) -> str | None:
        """The name of the task before it."""
        return self.result["tasks"][self.place - 1]["name"] if self.place else None


def learnings(results: Sequence[dict]) -> Iterator[Learning]:
    """As `learned`, each with its whole repeat."""
    seen = set()
    for result in results:
        for place in range(len(result["tasks"])):
            learning = _identity(result, result["tasks"][: place + 1])
            if result.get("seed") is None or learning not in seen:
                yield Learning(result, place)
            seen.add(learning)


def by_predecessor(
    results: Sequence[dict],
) -> dict[tuple[str, str | None], list[Learning]]:
    """What was learned, by the name of the task and of the one before it, or None."""
    groups: dict[tuple[str, str | None], list[Learning]] = {}
    for one in sorted(learnings(results), key=lambda one: one.place):
        groups.setdefault((one.task["name"], one.before), []).append(one)
    return groups


class OfControl(NamedTuple):
    """A task under a control.

    Attributes:
      title: of the task, with its place. name: of the control.
      learned: the task of each repeat.
      pairs: two lists of one length, the task under "scratch" and under this control, of
        the same seeds after the same tasks; empty for the first task and for "scratch".
    """

    title: str
    name: str
    learned: list[Learning]
    pairs: tuple[list[Learning], list[Learning]]


def controls(results: Sequence[dict]) -> Iterator[OfControl]:
    """Yields each task under each control; a task learned twice counts once."""
    groups: dict[tuple[int, str], dict[str, dict]] = {}
    for result in results:
        names = tuple(task["name"] for task in result["tasks"])
        for place, name in enumerate(names):
            of_control = groups.setdefault((place, name), {})
            repeats = of_control.setdefault(result.get("control", "pathnet"), {})
            repeats[names[:place], result["seed"]] = Learning(result, place)
    for (place, name), of_control in groups.items():
        for control, repeats in of_control.items():
            is_compared = place > 0 and control != "scratch"
            scratch = of_control.get("scratch", {}) if is_compared else {}
            both = [repeat for repeat in repeats if repeat in scratch]
            pairs = [scratch[key] for key in both], [repeats[key] for key in both]
            title = f"{place + 1}: {name}"
            yield OfControl(title, control, list(repeats.values()), pairs)


def when(before: str | None) -> str:
    """When a task was learned: "first", or "after" the task before it."""
    return "first" if before is None else f"after {before}"


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


def interquartile_mean(values: Sequence[float], axis: int = -1) -> float | np.ndarray:
    """Mean of the middle half of the values: a quarter is left out at either end.

    A few repeats that take very long, as there are, do not move it, and it needs fewer
    repeats than the median (Agarwal et al. 2021, arXiv 2108.13264).
    """
    from scipy.stats import trim_mean  # only here: it takes half a second to import

    return trim_mean(values, 0.25, axis)


def probability_sooner(
    first: Sequence[float], second: Sequence[float], paired: bool, axis: int = -1
) -> float | np.ndarray:
    """P(second < first), where ties count half.

    Args:
      first, second: the two samples, along `axis`, the last one.
      paired: whether the values belong together in pairs, which are then compared; else
        every value is compared with every one of the other sample. That is the
        Mann-Whitney statistic U as a share of all pairs.
    """
    from scipy.stats import rankdata

    first, second = np.asarray(first, float), np.asarray(second, float)
    if paired:
        return np.mean((second < first) + (second == first) / 2, axis)
    n, m = first.shape[-1], second.shape[-1]
    # A value's rank counts those of both samples that are no larger, ties half.
    ranks = rankdata(np.concatenate([first, second], -1), axis=-1)[..., :n].sum(-1)
    return (ranks - n * (n + 1) / 2) / (n * m)


def _bootstrap(
    samples: Sequence[Sequence[float]], statistic: Callable, paired: bool = False
) -> tuple[float, float]:
    """A 95 % confidence interval, (low, high): the bootstrap's percentiles.

    Args:
      samples: of two values or more each. statistic: of them, along an `axis`.
      paired: as of `speedup_interval`.
    """  # fmt: skip
    from scipy.stats import bootstrap  # only here: it takes half a second to import

    interval = bootstrap(
        samples,
        statistic,
        paired=paired,
        method="percentile",
        batch=1000,  # resamples at a time: all of them of many repeats are a gigabyte
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(interval.low), float(interval.high)


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

    def ratio(first, second, axis):
        return np.mean(first, axis) / np.mean(second, axis)

    return _bootstrap((first, second), ratio, paired)


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


def probability_text(
    first: Sequence[float | None], second: Sequence[float | None], paired: bool
) -> str:
    """`probability_sooner` with its interval, such as "0.93 [0.86, 0.98]".

    Args:
      first, second, paired: as of `speedup_text`, which says as much of capped repeats.
    """
    if None in (*first, *second):
        return NOT_CONVERGED if len(first) and len(second) else ""
    if not len(first) or not len(second):
        return ""

    def probability(first, second, axis):
        return probability_sooner(first, second, paired, axis)

    text = f"{probability(first, second, -1):.2f}"
    if min(len(first), len(second)) < 2:
        return text
    low, high = _bootstrap((first, second), probability, paired)
    return f"{text} [{low:.2f}, {high:.2f}]"


def statistic_text(values: Sequence[float | None], statistic: Callable) -> str:
    """A statistic with its bootstrap interval, such as "139.0 [131.5, 147.0]".

    Args:
      values: None where a repeat did not converge: then the text says so.
      statistic: of values along an `axis`.
    """
    if not len(values) or None in values:
        return NOT_CONVERGED if len(values) else ""
    text = f"{statistic(values, axis=-1):.1f}"
    if len(values) < 2:
        return text
    low, high = _bootstrap((values,), statistic)
    return f"{text} [{low:.1f}, {high:.1f}]"


def generations_needed(task: dict, level: float | None = None) -> int | None:
    """Generations until a task converged, or its curve reached a level; None if never."""
    if level is not None:
        return generations_to(task["curve"], level)
    return task["generations"] if task.get("converged", True) else None


def minibatches(result: dict, place: int) -> int | None:
    """Mini-batches that a task was trained on, until it converged or was given up.

    Args:
      result: a repeat, as `common.results.read` returns it. place: of the task, from 0.

    Returns:
      The number, or None where there is none: of games, and of results that do not say
      what a generation was.
    """  # fmt: skip
    a_generation = minibatches_a_generation(result, place)
    return a_generation and a_generation * result["tasks"][place]["generations"]


def minibatches_a_generation(result: dict, place: int) -> int | None:
    """Mini-batches of a generation: T for each candidate that it trains.

    A tournament trains B candidates. Fine-tuning trains a single one from the second
    task on, and a network of the selected size has no other: see supervised/controls.py.

    Args, Returns: as of `minibatches`.
    """
    B, T = (result["flags"].get(name) for name in "BT")
    are_counts = all(type(n) is int and 0 < n < 2**31 for n in (B, T))
    if is_game(result) or not are_counts:
        return None
    control = result.get("control", "pathnet")
    is_alone = control == "fixed_size" or (control == "finetune" and place > 0)
    return T if is_alone else B * T


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


def mean_curve(
    curves: Sequence[dict],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean of fitness curves, smoothed over `CURVE_WINDOW` points, and its margin.

    A curve that ends earlier than others counts with its last fitness from there on.

    Args:
      curves: {"generation": [...], "fitness": [...]} each, generations ascending.

    Returns:
      (generations, mean, margin), float arrays of one length. At each generation
      mean ± margin is the 95 % confidence interval of the mean by Student's t; the
      margin is 0 for a single curve, which has no interval.
    """
    generations = np.unique(np.concatenate([curve["generation"] for curve in curves]))
    smooth = []
    for curve in curves:
        fitness = np.interp(generations, curve["generation"], curve["fitness"])
        window = np.ones(min(CURVE_WINDOW, len(fitness)))
        # Near the ends the mean is over what lies within the window.
        weight = np.convolve(np.ones(len(fitness)), window, "same")
        smooth.append(np.convolve(fitness, window, "same") / weight)
    n = len(curves)
    margin = 0 * smooth[0]
    if n > 1:
        from scipy.special import stdtrit  # only here, as most runs draw no curves

        error = np.std(smooth, axis=0, ddof=1) / np.sqrt(n)
        margin = stdtrit(n - 1, 0.975) * error
    return generations.astype(float), np.mean(smooth, axis=0), margin


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


def average_accuracy(result: dict) -> float | None:
    """ACC: mean held-out accuracy over all tasks, after the last one.

    Lopez-Paz and Ranzato 2017, "Gradient Episodic Memory" (arXiv 1706.08840), equation 2.
    None where a result does not say what was left of each task.
    """
    rows = result.get("retention")
    return float(np.mean(rows[-1])) if rows else None


def backward_transfer(result: dict) -> float | None:
    """BWT: mean change of the earlier tasks' accuracy since each was learned (equation 3).

    Below 0 they were forgotten. None for a single task, and as `average_accuracy`.
    """
    rows = result.get("retention")
    if not rows or len(rows) < 2:
        return None
    learned = [row[-1] for row in rows[:-1]]
    return float(np.mean(np.subtract(rows[-1][:-1], learned)))


def forward_transfer(result: dict, scratch: dict) -> float | None:
    """FWT: mean gain in accuracy over the same learner from scratch, from task 2 on.

    Equation 4 compares untrained networks, whose accuracy is that of guessing here; this
    compares tasks when they have been learned, so that transfer of either sign shows.

    Args:
      result: a repeat. scratch: the repeat of the same seed and tasks that learned each
        of them on a new network.
    """  # fmt: skip
    places = range(1, len(result["tasks"]))
    gains = [
        result["tasks"][place]["accuracy_test"]
        - scratch["tasks"][place]["accuracy_test"]
        for place in places
    ]
    return float(np.mean(gains)) if gains else None


# --------------------------------------------------------------------------------------
# Tables of supervised tasks
# --------------------------------------------------------------------------------------


def continual_table(results: Sequence[dict]) -> str:
    """A Markdown table: ACC, BWT and FWT of each sequence of tasks under each control.

    In percent, as mean ± standard error over the repeats; FWT over those seeds that
    learned the same tasks from scratch, too. A line below says what they are. "" where no
    repeat has two tasks.

    Args:
      results: repeats of the supervised scripts.
    """
    groups: dict[tuple, dict[int, dict]] = {}
    for result in results:
        names = tuple(task["name"] for task in result["tasks"])
        if len(names) > 1 and average_accuracy(result) is not None:
            key = names, result.get("control", "pathnet")
            groups.setdefault(key, {})[result["seed"]] = result
    if not groups:
        return ""
    rows = [
        "| tasks | control | repeats | ACC % | BWT | FWT |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for (names, control), repeats in groups.items():
        scratch = {} if control == "scratch" else groups.get((names, "scratch"), {})
        columns = (
            [average_accuracy(result) for result in repeats.values()],
            [backward_transfer(result) for result in repeats.values()],
            [
                forward_transfer(result, scratch[seed])
                for seed, result in repeats.items()
                if seed in scratch
            ],
        )
        cells = [_mean_text([100 * v for v in not_none(c)], 2) for c in columns]
        label = ", ".join(names) if len(names) <= MOST_NAMED else f"{len(names)} tasks"
        rows.append(_row([label, control, str(len(repeats)), *cells]))
    return "\n".join([*rows, "", CONTINUAL_LEGEND])


def summary(results: Sequence[dict]) -> str:
    """A small Markdown table of one run: how each task was learned, and is remembered.

    A row for each task under each control, but for "scratch": that is what the others
    are compared with, if the run has it. Generations and accuracies are means ± standard
    error over the seeds, and the speedup is generations from scratch divided by those
    needed here, with a bootstrap interval over the same seeds. The last column is the
    held-out accuracy once more, after the last task.

    Args:
      results: repeats of one run.
    """
    every = list(controls(results))
    names = list(dict.fromkeys(of_control.name for of_control in every))
    shown = [name for name in names if name != "scratch"] or names
    is_compared = shown != names
    heading = ["task"]
    heading += ["control"] if len(shown) > 1 else []
    heading += ["generations"]
    heading += ["from scratch", "speedup [95 %]"] if is_compared else []
    heading += ["held-out %", "after the last task %"]
    rows = [_row(heading), _row(["---"] * len(heading))]
    digits = 1 if len(results) > len(names) else 0
    for of_control in every:
        if of_control.name not in shown:
            continue
        scratch, here = of_control.pairs
        cells = [of_control.title]
        cells += [of_control.name] if len(shown) > 1 else []
        cells += [_generations_text(_tasks(of_control.learned), digits)]
        if is_compared:
            needed = [_generations_needed(side, None) for side in (scratch, here)]
            cells += [
                _generations_text(_tasks(scratch), digits) if scratch else "",
                speedup_text(*needed, paired=True),
            ]
        tasks = _tasks(of_control.learned)
        at_the_end = [100 * task["accuracy_test_after_all"] for task in tasks]
        cells += [_held_out_text(tasks), _mean_text(at_the_end, 2)]
        rows.append(_row(cells))
    return "\n".join(rows)


def generations_table(results: Sequence[dict], level: float | None = None) -> str:
    """A Markdown table: what each task took, learned first and after each other task.

    Columns: repeats, and how many of them converged if not all did; generations of
    those that did, as mean ± standard error; their median and interquartile mean, each
    with a bootstrap interval, unless a repeat did not converge; training accuracy of the
    last winner and held-out accuracy, as mean ± standard error.

    Args:
      results: repeats of one setting.
      level: of fitness; if given, a task has converged where its curve reached it.

    Raises:
      KeyError: there is a level, and a result has no curve.
    """
    rows = [
        f"| task | learned | repeats | {_generations_heading(level)} | median [95 %] "
        "| IQM [95 %] | training % | held-out % |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (name, before), group in by_predecessor(results).items():
        generations = _generations_needed(group, level)
        cells = [
            name,
            when(before),
            converged_text(generations),
            _mean_text(not_none(generations), 1),
            statistic_text(generations, np.median),
            statistic_text(generations, interquartile_mean),
            *_accuracies(group),
        ]
        rows.append(_row(cells))
    return "\n".join(rows)


def comparison_table(results: Sequence[dict], level: float | None = None) -> str:
    """A Markdown table: each task learned after another, compared with it learned first.

    The speedup is what the task took when it was learned first, divided by what it took
    after another task, in generations and in mini-batches; the probability is that of a
    repeat that takes fewer generations than one that learned the task first. Each has a
    bootstrap interval: other repeats learned the task first, so the two are independent
    samples. There are none where a repeat did not converge.

    Args, Raises: as of `generations_table`.

    Returns:
      The table, if there is anything to compare; then a line of the tasks that nobody
      learned first. "" where all were learned first.
    """
    groups, rows, alone = by_predecessor(results), [], []
    for (name, before), group in groups.items():
        first = groups.get((name, None))
        if before is not None and first:
            compared = _comparison(first, group, level, paired=False)
            rows.append(_row([name, when(before), *compared]))
        elif before is not None:
            alone.append(name)
    parts = []
    if rows:
        heading = f"| task | compared with first | {_COMPARISON_HEADING} |"
        parts.append("\n".join([heading, "| --- | --- | --- | --- | --- |", *rows]))
    if alone:
        names = ", ".join(dict.fromkeys(alone))
        parts.append(
            f"Not compared with first: {names}, which no repeat learned first."
        )
    return "\n\n".join(parts)


def control_table(results: Sequence[dict], level: float | None = None) -> str:
    """A Markdown table: each task under each control, compared with `scratch`.

    At equal training: in generations and in mini-batches, of which a lone path has fewer
    a generation than a tournament. The speedup is what "scratch" took with the same seed
    after the same tasks, divided by what this control took, for every task but the
    first; the probability is that of fewer generations than "scratch" took. Each has a
    bootstrap interval, where all repeats converged.

    Args, Raises: as of `generations_table`.
    """
    rows = [
        f"| task | control | repeats | {_generations_heading(level)} | mini-batches "
        f"| {_COMPARISON_HEADING} | held-out % |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for of_control in controls(results):
        group = of_control.learned
        generations = _generations_needed(group, level)
        cells = [
            of_control.title,
            of_control.name,
            converged_text(generations),
            _mean_text(not_none(generations), 1),
            _mean_text(not_none(_minibatches_needed(group, level)), 0),
            *_comparison(*of_control.pairs, level, paired=True),
            _accuracies(group)[1],
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
    the same game in the same repeat. Where there are several of these, a last row has
    their means, and the speedup with a 95 % bootstrap interval.
    """
    rows = [
        "| seed | task | agent steps | last score | "
        + " | ".join(f"steps to {level:g} | speedup" for level in levels)
        + " |",
        "| --- " * (4 + 2 * len(levels)) + "|",
    ]
    again: dict[str, dict[float, list]] = {}  # of a game that was learned before
    for result in results:
        first: dict[tuple[str, float], int | None] = {}
        for place, task in enumerate(result["tasks"]):
            title = f"{place + 1}: {task['name']}"
            cells = [str(result["seed"]), title]
            score = "none" if task["score"] is None else f"{task['score']:.1f}"
            cells += [f"{task['steps']:,}", score]
            for level in levels:
                needed, key = _steps_needed(task, level), (task["name"], level)
                cells += ["never" if needed is None else f"{needed:,}", ""]
                if key not in first:
                    first[key] = needed
                    continue
                pair = first[key], needed
                again.setdefault(title, {}).setdefault(level, []).append(pair)
                if None not in pair:
                    cells[-1] = f"{pair[0] / needed:.2f}"
            rows.append(_row(cells))
    rows += [
        _mean_row(title, pairs.values())
        for title, pairs in again.items()
        if len(pairs[levels[0]]) > 1
    ]
    return "\n".join(rows)


def _mean_row(title, pairs_of_levels):
    """The last row of `score_table`: of each level (first, second) steps of repeats."""
    cells = ["mean", title, "", ""]
    for pairs in pairs_of_levels:
        firsts, seconds = zip(*pairs)
        cells.append(_mean_text(not_none(seconds), 0))
        cells.append(speedup_text(firsts, seconds, paired=True))
    return _row(cells)


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
    for of_control in controls(results):
        group = of_control.learned
        cells = [of_control.title, of_control.name, str(len(group))]
        for level in levels:
            needed, *pairs = (
                [_steps_needed(one.task, level) for one in side]
                for side in (group, *of_control.pairs)
            )
            never = needed.count(None)
            steps = _mean_text(not_none(needed), 0), f"{never} never" if never else ""
            cells += [", ".join(filter(None, steps)), speedup_text(*pairs, paired=True)]
        rows.append(_row(cells))
    return "\n".join(rows)


# --------------------------------------------------------------------------------------
# Parts of tables
# --------------------------------------------------------------------------------------


_COMPARISON_HEADING = (
    "speedup in generations [95 %] | in mini-batches [95 %] | P(sooner) [95 %]"
)


def _tasks(group: Iterable[Learning]) -> list[dict]:
    return [one.task for one in group]


def _generations_needed(
    group: Iterable[Learning], level: float | None
) -> list[int | None]:
    """`generations_needed` of each task."""
    return [generations_needed(one.task, level) for one in group]


def _minibatches_needed(
    group: Iterable[Learning], level: float | None
) -> list[float | None]:
    """The mini-batches of these generations; [] if a result does not say how many."""
    needed = []
    for one in group:
        a_generation = minibatches_a_generation(one.result, one.place)
        if a_generation is None:
            return []
        generations = generations_needed(one.task, level)
        # As floats, since nonsensical results may multiply to more than an int64.
        needed.append(
            None if generations is None else float(generations) * a_generation
        )
    return needed


def _comparison(
    first: Sequence[Learning],
    second: Sequence[Learning],
    level: float | None,
    paired: bool,
) -> list[str]:
    """The cells under _COMPARISON_HEADING."""
    generations, minibatches = (
        [needed(side, level) for side in (first, second)]
        for needed in (_generations_needed, _minibatches_needed)
    )
    return [
        speedup_text(*generations, paired),
        speedup_text(*minibatches, paired) if all(minibatches) else "",
        probability_text(*generations, paired),
    ]


def _generations_heading(level: float | None) -> str:
    return "generations" if level is None else f"generations to {100 * level:g} %"


def _accuracies(group: Sequence[Learning]) -> list[str]:
    """Training and held-out accuracy in percent."""
    fitness = [100 * one.task["fitness"] for one in group]
    return [_mean_text(fitness, 2), _held_out_text(_tasks(group))]


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
    margin = f" ± {error:,.{digits}f}" if np.isfinite(error) else ""
    return f"{mean:,.{digits}f}{margin}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"

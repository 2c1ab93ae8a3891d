"""results.jsonl: appending to it, reading those of many runs, the table made of them."""

import errno
import fcntl
import functools
import json
import os

import numpy as np

from common.commandline import UserError

# Flags that tell repeats of one setting apart: where things lie, what is learned, and
# in which order.
NO_SETTING = {"seed", "runs", "data_dir", "log_dir", "record", "fake_data"}
NO_SETTING |= {"job_name", "task_index", "ps_hosts", "worker_hosts", "st_port_num"}
NO_SETTING |= {"checkpoint_dir", "isolate", "play", "play_task", "play_episodes"}
NO_SETTING |= {"a1", "a2", "b1", "b2", "cifar_first", "tasks"}
NO_SETTING |= {"save_dir", "load_dir", "test_every", "results", "checkpoint_seconds"}

# What of a task tells one learning of it from another.
OUTCOME = ("name", "generations", "steps", "fitness", "accuracy_test")

# What a line raises that is no result, such as deep nesting or a number of 999 digits.
NO_RESULT = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RecursionError,
    OverflowError,
)


def append(filename, result):
    """Appends one object to a results.jsonl file: the whole line or none of it.

    Safe against other processes that append to the same file, and against a full disk.

    Returns:
      How many lines the file has now.
    Raises:
      OSError: the line could not be written; the file is as it was.
    """
    line = (json.dumps(result) + "\n").encode()
    with open(filename, "ab+", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        size = os.fstat(file.fileno()).st_size
        try:
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
        except OSError as error:
            os.ftruncate(file.fileno(), size)
            raise OSError(error.errno, error.strerror, filename) from error
        file.seek(0)
        chunks = iter(lambda: file.read(2**20), b"")
        return sum(chunk.count(b"\n") for chunk in chunks)


def batch(filename, script, flags, may_differ):
    """What a batch has already: the (seed, control) of each repeat in its file.

    Args:
      filename: of the batch; need not exist yet. script, flags: of this run.
      may_differ: names of flags in which the repeats of one batch may differ.

    Raises:
      UserError: the file holds repeats of other settings, or something else.
      OSError: it cannot be read.
    """
    if not os.path.exists(filename):
        return set()
    held = read([filename])
    for result in held:
        other = [
            f"--{name}={result['flags'].get(name)}"
            for name, value in flags.items()
            if name not in may_differ and result["flags"].get(name) != value
        ]
        if result.get("script") != script:
            other = [f"{result.get('script')}_pathnet.py"]
        if other:
            raise UserError(
                f"flag --results={filename}: holds repeats of other settings "
                f"({' '.join(other)}); name another file"
            )
        if (
            type(result.get("seed")) is not int
            or type(result.get("control")) is not str
        ):
            raise UserError(
                f"{filename}: holds something that is no repeat of a batch; name another "
                "file"
            )
    return {(result["seed"], result["control"]) for result in held}


def read(filenames):
    """Reads results files.

    A line that was there before, as in a file named twice or a copy of it, is the same
    repeat and counts once.

    Returns:
      list of dicts, a repeat each, as the scripts write them.
    Raises:
      UserError: a line is not such an object; names file and line.
      OSError: a file cannot be read.
    """
    results, seen = [], set()
    for filename in filenames:
        with open(filename, encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                line = line.strip()
                if line in seen:
                    continue
                seen.add(line)
                try:
                    result = json.loads(line)
                    _check(result)
                except NO_RESULT as error:
                    raise UserError(
                        f"{filename}, line {number}: not a result of this project's "
                        "scripts; remove the line or name another file"
                    ) from error
                results.append(result)
    return results


def _check(result):
    """Raises one of NO_RESULT where a table could not be made of the result."""
    result["flags"].items()
    for task in result["tasks"]:
        task["name"].encode()
        float(task["generations"])
        if result.get("script") == "atari":
            result["seed"], int(task["steps"]), float(task["score"])
            running_score(task["curve"])
        else:
            float(task["fitness"]), float(task["accuracy_test"])


def by_setting(results, ignored=()):
    """Groups results by the flags in which they differ, however many runs made them.

    Args:
      ignored: names of flags that make no difference; "control" is that of the repeat.

    Returns:
      dict from a label such as "writeback=sum" ("" if all are alike) to results.
    """
    settings = [
        {
            name: value
            for name, value in (
                result["flags"] | {"control": result.get("control", "pathnet")}
            ).items()
            if name not in NO_SETTING and name not in ignored
        }
        for result in results
    ]
    names = dict.fromkeys(name for setting in settings for name in setting)
    varying = [n for n in names if len({str(s.get(n)) for s in settings}) > 1]
    groups = {}
    for setting, result in zip(settings, results):
        label = ", ".join(f"{name}={setting.get(name)}" for name in varying)
        groups.setdefault(label, []).append(result)
    return groups


def learned(results):
    """Every task that was learned, once.

    Repeats of one seed that begin with the same tasks learn these in the same way, so
    that two results files hold it twice where only what follows differs.

    Args:
      results: repeats of one setting.
    Yields:
      (place, before, task): from 0 on, the name of the task before it or None, and what
      was recorded of it.
    """
    seen = set()
    for result in results:
        before, learning = None, repr(result.get("seed"))
        for place, task in enumerate(result["tasks"]):
            learning += repr([task.get(name) for name in OUTCOME])
            if result.get("seed") is None or learning not in seen:
                yield place, before, task
            seen.add(learning)
            before = task["name"]


def mean_and_error(values):
    """Mean of [n] values and its standard error; NaN where n is too small for one."""
    n = len(values)
    mean = float(np.mean(values)) if n else float("nan")
    error = float(np.std(values, ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    return mean, error


def speedup(first, second):
    """Mean of `first` over mean of `second`; None where there is no such ratio."""
    if len(first) == 0 or len(second) == 0 or np.mean(second) == 0:
        return None
    return float(np.mean(first) / np.mean(second))


def speedup_interval(first, second, paired):
    """A 95 % interval for `speedup`, by the bootstrap's percentiles.

    Args:
      paired: whether the values belong together in pairs, such as the repeats of one
        seed, which are then drawn together; else both samples are drawn by themselves.

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


def speedup_text(first, second, paired):
    """A speedup with its interval, such as "1.87 [1.70, 2.05]"; "" without a speedup."""
    ratio = speedup(first, second)
    if ratio is None:
        return ""
    interval = speedup_interval(first, second, paired)
    return f"{ratio:.2f}" + (" [{:.2f}, {:.2f}]".format(*interval) if interval else "")


def generations_to(curve, level, window=10):
    """The generation at which the mean of the last `window` winners reached a level.

    Args:
      curve: {"generation": [...], "fitness": [...]}, as in results.jsonl, which keeps
        every winner up to generation 1,000 and fewer from there on.

    Returns:
      int, or None if that never happened.
    """
    fitness = np.array(curve["fitness"])
    if len(fitness) < window:
        return None
    means = np.convolve(fitness, np.ones(window) / window, "valid")
    # Rounding leaves the mean of ten times 0.9 a last bit below 0.9.
    reached = np.flatnonzero(means >= level - 1e-9)
    return curve["generation"][reached[0] + window - 1] if len(reached) else None


SCORE_EPISODES = 30  # that a score is the mean return of


def running_score(curve):
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


def steps_to(curve, level):
    """Agent steps until the score first reached a level; None if it never did."""
    steps, scores = running_score(curve)
    reached = np.flatnonzero(scores >= level)
    return int(steps[reached[0]]) if len(reached) else None


def _steps_needed(task, level):
    """As steps_to, of a game; one that ended on its score has reached it."""
    needed = steps_to(task["curve"], level)
    if needed is None and task["score"] >= level:
        return task["steps"]  # within the last point of the curve
    return needed


def score_table(results, levels=(0, 15)):
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
        first = {}
        for place, task in enumerate(result["tasks"]):
            cells = [str(result["seed"]), f"{place + 1}: {task['name']}"]
            cells += [f"{task['steps']:,}", f"{task['score']:.1f}"]
            for level in levels:
                needed = _steps_needed(task, level)
                earlier = first.get((task["name"], level))
                first.setdefault((task["name"], level), needed)
                cells.append("never" if needed is None else f"{needed:,}")
                cells.append(f"{earlier / needed:.2f}" if earlier and needed else "")
            rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def table(results, level=None):
    """A Markdown table: each task, learned first and after each other task.

    Columns: repeats; generations, training accuracy of the last winner and held-out
    accuracy as mean ± standard error. With a `level` of fitness, generations are those
    that it took to reach it, and repeats those that did, of all. The speedup is
    generations learned first divided by generations learned after another task, with a
    bootstrap interval: other repeats learned the task first, so the two are independent
    samples. Where no repeat did there is no speedup.
    """
    groups = {}
    for _, before, task in learned(results):
        groups.setdefault((task["name"], before), []).append(task)
    needed = {key: _generations(tasks, level) for key, tasks in groups.items()}
    what = "generations" if level is None else f"generations to {100 * level:g} %"
    rows = [
        f"| task | learned | repeats | {what} | speedup [95 %] | training % | held-out % |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, before in sorted(groups, key=lambda key: (key[0], key[1] or "")):
        tasks, generations = groups[name, before], needed[name, before]
        ratio = ""
        if before is not None:
            first = needed.get((name, None), [])
            ratio = speedup_text(first, generations, paired=False)
        cells = [
            name,
            "first" if before is None else f"after {before}",
            str(len(tasks)) if level is None else f"{len(generations)} of {len(tasks)}",
            _spread(generations, 1),
            ratio,
            _spread([100 * task["fitness"] for task in tasks], 2),
            _spread([100 * task["accuracy_test"] for task in tasks], 2),
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def control_table(results):
    """A Markdown table: each task under each control, compared with `scratch`.

    The speedup is the generations of the control "scratch", of the same seeds after the
    same tasks, divided by those of this one, with a bootstrap interval; for every task
    but the first.
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
            _spread([task["generations"] for task in tasks], 1),
            _paired_speedup(scratch, repeats, lambda task: task["generations"]),
            _spread([100 * task["accuracy_test"] for task in tasks], 2),
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def score_control_table(results, levels=(0, 15)):
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
                _spread(steps, 0) + (f", {never} never" if never else ""),
                _paired_speedup(scratch, repeats, needed),
            ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _controls(results):
    """Yields (place, task name, control, its repeats, those of scratch to compare with).

    Repeats are {(names of the tasks before, seed): task}; there is nothing to compare
    the first task with, nor scratch itself.
    """
    groups = {}
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


def _paired_speedup(scratch, repeats, needed):
    """What scratch needed divided by what the same repeats needed, as text."""
    pairs = [
        (needed(scratch[repeat]), needed(task))
        for repeat, task in repeats.items()
        if repeat in scratch
    ]
    pairs = [pair for pair in pairs if None not in pair]
    return speedup_text(*zip(*pairs), paired=True) if pairs else ""


def retention(results):
    """What is left of each task after each later one, over repeats of the same tasks.

    Returns:
      (names, accuracy): the tasks, and a float array [repeats, tasks, tasks], NaN where
      the column's task comes after the row's.
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


def retention_table(results):
    """A Markdown table of `retention`, with generations and modules used so far."""
    names, accuracy = retention(results)
    digits = 1 if len(results) > 1 else 0
    rows = [
        f"| held-out % on | {' | '.join(names)} | generations | modules so far |",
        "| --- |" + " --- |" * (len(names) + 2),
    ]
    for place, name in enumerate(names):
        tasks = [result["tasks"][place] for result in results]
        cells = [
            f"after {place + 1}: {name}",
            *(
                _spread(list(100 * accuracy[:, place, column]), 2)
                if column <= place
                else ""
                for column in range(len(names))
            ),
            _spread([task["generations"] for task in tasks], digits),
            _spread([task["modules_so_far"] for task in tasks], digits),
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _generations(tasks, level):
    """Generations of the tasks, or of those that reached the level, until they did."""
    if level is None:
        return [task["generations"] for task in tasks]
    reached = [generations_to(task["curve"], level) for task in tasks]
    return [generation for generation in reached if generation is not None]


def _spread(values, digits):
    if not values:
        return ""
    mean, error = mean_and_error(values)
    return f"{mean:.{digits}f}" + (
        f" ± {error:.{digits}f}" if np.isfinite(error) else ""
    )

"""results.jsonl: appending to it, reading those of many runs, the table made of them."""

import errno
import fcntl
import json
import os

import numpy as np

from commandline import UserError

# Flags that tell repeats of one setting apart: where things lie, what is learned, and
# in which order.
NO_SETTING = {"seed", "runs", "data_dir", "log_dir", "record", "fake_data"}
NO_SETTING |= {"job_name", "task_index", "ps_hosts", "worker_hosts", "st_port_num"}
NO_SETTING |= {"checkpoint_dir", "isolate", "play", "play_task", "play_episodes"}
NO_SETTING |= {"a1", "a2", "b1", "b2", "cifar_first"}


def append(filename, result):
    """Appends one object to a results.jsonl file: the whole line or none of it.

    Safe against other processes that append to the same file, and against a full disk.

    Raises:
      OSError: the line could not be written; the file is as it was.
    """
    line = (json.dumps(result) + "\n").encode()
    with open(filename, "ab", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        size = os.fstat(file.fileno()).st_size
        try:
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
        except OSError as error:
            os.ftruncate(file.fileno(), size)
            raise OSError(error.errno, error.strerror, filename) from error


def read(filenames):
    """Reads results files.

    Returns:
      list of dicts, a repeat each, as the scripts write them.
    Raises:
      UserError: a line is not such an object; names file and line.
      OSError: a file cannot be read.
    """
    results = []
    for filename in filenames:
        with open(filename, encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                try:
                    result = json.loads(line)
                    for task in result["tasks"]:
                        task["name"], float(task["generations"])
                    result["flags"].items()
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise UserError(
                        f"{filename}, line {number}: not a result of this project's "
                        "scripts; remove the line or name another file"
                    ) from error
                results.append(result)
    return results


def by_setting(results):
    """Groups results by the flags in which they differ, however many runs made them.

    Returns:
      dict from a label such as "writeback=sum" ("" if all are alike) to results.
    """
    settings = [
        {k: v for k, v in result["flags"].items() if k not in NO_SETTING}
        for result in results
    ]
    names = dict.fromkeys(name for setting in settings for name in setting)
    varying = [n for n in names if len({str(s.get(n)) for s in settings}) > 1]
    groups = {}
    for setting, result in zip(settings, results):
        label = ", ".join(f"{name}={setting.get(name)}" for name in varying)
        groups.setdefault(label, []).append(result)
    return groups


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


def generations_to(curve, level, window=10):
    """The generation at which the mean of the last `window` winners reached a level.

    Args:
      curve: {"generation": [...], "fitness": [...]}, as in results.jsonl.
    Returns:
      int, or None if that never happened.
    """
    fitness = np.array(curve["fitness"])
    if len(fitness) < window:
        return None
    means = np.convolve(fitness, np.ones(window) / window, "valid")
    reached = np.flatnonzero(means >= level)
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


def score_table(results, levels=(0, 15)):
    """A Markdown table of games: agent steps of each task until its score reached levels.

    A row for each repeat and task, and the speedup of each task against the first of
    the same game in the same repeat.
    """
    rows = [
        "| seed | task | agent steps | last score | "
        + " | ".join(f"steps to {level:+d} | speedup" for level in levels)
        + " |",
        "| --- " * (4 + 2 * len(levels)) + "|",
    ]
    for result in results:
        first = {}
        for place, task in enumerate(result["tasks"]):
            cells = [str(result["seed"]), f"{place + 1}: {task['name']}"]
            cells += [f"{task['steps']:,}", f"{task['score']:.1f}"]
            for level in levels:
                needed = steps_to(task["curve"], level)
                earlier = first.setdefault((task["name"], level), needed)
                cells.append("never" if needed is None else f"{needed:,}")
                again = place > 0 and needed and earlier
                cells.append(f"{earlier / needed:.2f}" if again else "")
            rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def table(results, level=None):
    """A Markdown table: each task, learned first and after each other task.

    Columns: repeats; generations, training accuracy of the last winner and held-out
    accuracy as mean ± standard error. With a `level` of fitness, generations are those
    that it took to reach it, and repeats those that did, of all. The speedup is
    generations learned first divided by generations learned after another task.
    """
    groups = {}
    for result in results:
        before = None
        for task in result["tasks"]:
            groups.setdefault((task["name"], before), []).append(task)
            before = task["name"]
    needed = {key: _generations(tasks, level) for key, tasks in groups.items()}
    what = "generations" if level is None else f"generations to {100 * level:g} %"
    rows = [
        f"| task | learned | repeats | {what} | speedup | training % | held-out % |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, before in sorted(groups, key=lambda key: (key[0], key[1] or "")):
        tasks, generations = groups[name, before], needed[name, before]
        ratio = None
        if before is not None:
            ratio = speedup(needed.get((name, None), []), generations)
        cells = [
            name,
            "first" if before is None else f"after {before}",
            str(len(tasks)) if level is None else f"{len(generations)} of {len(tasks)}",
            _spread(generations, 1),
            "" if ratio is None else f"{ratio:.2f}",
            _spread([100 * task["fitness"] for task in tasks], 2),
            _spread([100 * task["accuracy_test"] for task in tasks], 2),
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

"""The settings of a sweep: its jobs, with those that are repetitions of each other as one row.

Jobs that differ in a seed alone repeat a setting. The row of a setting has the fields of a job's
row (it stands for the job whose figure is the median), with means, their standard errors and how
many repetitions there are.

Which settings are worse than the best by more than chance is asked by Tukey's test, which allows
for the best being chosen because it looks best: over sweeps in which all settings are equally good,
one in twenty names any. Repetitions that all settings share (the same seeds, the same folds) are
blocks: what makes a seed or a fold hard for all of them is taken out first. A single run without
folds has but the standard error of its validation figure, over examples.

Source: J. W. Tukey, The problem of multiple comparisons, 1953; for blocks: W. G. Cochran,
G. M. Cox, Experimental Designs, 1957, chapter 4.
"""

import itertools
import math
import statistics
from collections import Counter
from typing import Any, NamedTuple

import numpy as np

Row = dict[str, Any]
METRICS = ("val_loss", "val_accuracy")
TEST = ("test_loss", "test_accuracy")  # of the winner alone
FOLDS = ("cv_loss", "cv_loss_error", "cv_accuracy", "cv_accuracy_error")  # of a cross-validation
OPTIMUM = "above_optimum"  # at most, as a share of the lowest objective
REPETITIONS = ("seed", "data.split_seed")  # keys in which repetitions of a setting differ
PAIRS = 6  # of swept keys that are shown against each other, at most
VALUES = 40  # of a key in a pair, at most
CHANCE = 0.05  # share of sweeps of equal settings in which any is called worse


def reported_split(metrics: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the split that speaks for new examples: test, or val or train where it is empty."""
    return next((name, metrics[name]) for name in ("test", "val", "train") if metrics[name])


def settings_of(jobs: list[Row], swept: list[str], objective: str) -> list[Row]:
    """Return a row for each setting, in the order of the jobs.

    Besides the fields of a job's row it has:

    repetitions : how many of its jobs completed, those that were given twice counted once.
    jobs : the names of all its jobs.
    <metric>_error : the standard error of each metric: over repetitions, where there are two or
        more, else that of the job.
    """
    keys = [key for key in swept if key not in REPETITIONS]
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for job in jobs:
        groups.setdefault(_values(job, keys), []).append(job)
    return [_setting(group, swept, objective) for group in groups.values()]


def _values(job: Row, keys: list[str]) -> tuple[Any, ...]:
    """Return the values of keys, of which 1 is 1.0, however they were written."""
    return tuple(job[key] if is_number(job[key]) else repr(job[key]) for key in keys)


def _setting(group: list[Row], swept: list[str], objective: str) -> Row:
    # A job that was given twice says nothing that it has not said before: it is one repetition.
    ranked = list({_values(job, swept): job for job in rank(group, objective)[::-1]}.values())[::-1]
    # Of an even number the better one of the two in the middle.
    row = dict(ranked[(len(ranked) - 1) // 2] if ranked else group[0])
    row |= {"repetitions": len(ranked), "jobs": [job["job"] for job in group]}
    if len(ranked) > 1:
        names = [*METRICS, *(name for name in FOLDS if not name.endswith("_error")), OPTIMUM]
        for name in names:
            values = [job[name] for job in ranked if job[name] is not None]
            row[name] = statistics.fmean(values) if values else None
            row[f"{name}_error"] = _error(values)
    return row


def _error(values: list[float]) -> float | None:
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def mark_worse(settings: list[Row], jobs: list[Row], swept: list[str], objective: str) -> None:
    """Put `worse` into each setting: whether it is worse than the best by more than chance.

    It is None for all where nothing is known of the chance, and for a setting without a figure.
    """
    done = [row for row in settings if is_done(row, objective)]
    for row in settings:
        row["worse"] = None
    if len(done) < 2:
        return
    best = rank(done, objective)[0]
    blocks = _blocks(done, jobs, swept, objective)
    span = None if blocks is None else honest_difference(blocks)
    for row in done:
        reach = span if span is not None else _of_examples(best, row, len(done), objective)
        if reach is not None:
            row["worse"] = bool(abs(row[objective] - best[objective]) > reach)


def honest_difference(blocks: np.ndarray, chance: float = CHANCE) -> float:
    """Return by how much two means must differ to be different beyond chance.

    q s / sqrt(n), where s^2 is what is left of the variance (K settings, n blocks) without the
    means of settings and blocks, and q the studentized range of K means with (K - 1)(n - 1) degrees
    of freedom.

    Parameters
    ----------
    blocks : (K, n) a figure of each setting in each block, both at least 2.
    chance : the share of such tables of equal settings in which any two differ by more.
    """
    from scipy.stats import studentized_range  # takes a second to import

    n_settings, n = blocks.shape
    residuals = blocks - blocks.mean(axis=1, keepdims=True) - blocks.mean(axis=0) + blocks.mean()
    freedom = (n_settings - 1) * (n - 1)
    error = math.sqrt(float((residuals**2).sum()) / freedom / n)
    return float(studentized_range.ppf(1 - chance, n_settings, freedom)) * error


def _blocks(
    done: list[Row], jobs: list[Row], swept: list[str], objective: str
) -> np.ndarray | None:
    """Return a figure of each setting in each seed and fold (K, n); None where they share none."""
    by_name = {job["job"]: job for job in jobs}
    repeated = [key for key in REPETITIONS if key in swept]
    figures: list[dict[Any, float]] = []
    for row in done:
        blocks: dict[Any, float] = {}
        for job in (by_name[name] for name in row["jobs"]):
            if is_done(job, objective):
                seeds = tuple(job[key] for key in repeated)
                values = job.get("folds") or [job[objective]]
                blocks |= {(*seeds, k): value for k, value in enumerate(values)}
        figures.append(blocks)
    shared = [block for block in figures[0] if all(block in blocks for blocks in figures)]
    if len(shared) < 2:
        return None
    return np.array([[blocks[block] for block in shared] for blocks in figures], dtype=np.float64)


def _of_examples(best: Row, row: Row, n_settings: int, objective: str) -> float | None:
    """Return how far two settings must differ, by the standard errors over examples.

    That of a difference is taken for independent examples. These are the same, so that it is too
    large rather than too small; Bonferroni's bound over all pairs stands in for Tukey's range.
    """
    errors = [error for of in (best, row) if (error := of.get(f"{objective}_error")) is not None]
    if len(errors) < 2:
        return None
    pairs = n_settings * (n_settings - 1) / 2
    z = statistics.NormalDist().inv_cdf(1 - CHANCE / (2 * pairs))
    return z * math.hypot(*errors)


def near_best(settings: list[Row], objective: str) -> list[Row]:
    """Return the settings within one standard error of the best, best first.

    Empty where that error is not known.

    Source: L. Breiman et al., Classification and Regression Trees, 1984, section 3.4.3.
    """
    ranked = rank(settings, objective)
    error = ranked[0].get(f"{objective}_error") if ranked else None
    if error is None:
        return []
    best = ranked[0][objective]
    return [row for row in ranked if abs(row[objective] - best) <= error]


def strongest_near(settings: list[Row], objective: str) -> Row | None:
    """Return the setting with the strongest penalty among those near the best, the best of these.

    None where the penalty was not swept.
    """
    near = [row for row in near_best(settings, objective) if is_number(row.get("reg"))]
    return max(near, key=lambda row: float(row["reg"]), default=None)


def metrics_of(jobs: list[Row]) -> list[str]:
    """Return the names of the figures that the jobs or the settings of a sweep have."""
    folds = [name for name in FOLDS if any(job.get(name) is not None for job in jobs)]
    return [*folds, *METRICS, OPTIMUM]


def figures_of(jobs: list[Row], swept: list[str]) -> list[str]:
    """Return the columns of a table of jobs: what was swept, the step that came of it, figures."""
    has_lr = "lr" not in swept and any(job["resolved_lr"] is not None for job in jobs)
    return [*swept, *(["resolved_lr"] if has_lr else []), *metrics_of(jobs)]


def rank(jobs: list[Row], objective: str) -> list[Row]:
    """Return the completed jobs, best first: the lowest loss, or the highest accuracy."""
    done = [job for job in jobs if is_done(job, objective)]
    sign = -1 if objective.endswith("accuracy") else 1
    return sorted(done, key=lambda job: sign * job[objective])


def best_job(jobs: list[Row], objective: str) -> Row | None:
    """Return the best completed job, the first of equals."""
    return next(iter(rank(jobs, objective)), None)


def is_done(job: Row, objective: str) -> bool:
    """Return whether a job completed with a figure to be judged by."""
    return bool(job["status"] == "completed" and job[objective] is not None)


def status_counts(jobs: list[Row]) -> dict[str, int]:
    """Return how many jobs have each status."""
    return dict(Counter(job["status"] for job in jobs))


def is_number(value: Any) -> bool:
    """Return whether a swept value is a number, and so has a place on an axis."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def distinct(jobs: list[Row], key: str) -> list[Any]:
    """Return the values of a swept key, in order."""
    values = list(dict.fromkeys(job[key] for job in jobs if job[key] is not None))
    return sorted(values) if all(map(is_number, values)) else sorted(values, key=str)


class Drawn(NamedTuple):
    """What is drawn of a sweep.

    Attributes
    ----------
    rows : settings, or the repetitions of one.
    swept : the keys in which they differ.
    keys : those of them that have values.
    pairs : those that are drawn against each other. Two keys of many values, as a search tries
        them, hardly ever meet twice: they are no pair.
    """

    rows: list[Row]
    swept: list[str]
    keys: list[str]
    pairs: list[tuple[str, str]]


def drawn(summary: dict[str, Any]) -> Drawn:
    """Return what is drawn of a sweep, from its summary."""
    of = ("settings", "keys") if summary["keys"] else ("jobs", "swept")
    rows, swept = (summary[name] for name in of)
    keys = [key for key in swept if distinct(rows, key)]
    few = [key for key in keys if len(distinct(rows, key)) <= VALUES]
    return Drawn(rows, swept, keys, list(itertools.combinations(few, 2))[:PAIRS])

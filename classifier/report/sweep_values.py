"""What the jobs of a sweep say together: which is the best, and for each value of a key.

A job is a row of the sweep's summary: its status, its swept keys and its metrics.
"""

import itertools
from typing import Any

Row = dict[str, Any]
METRICS = ("val_loss", "val_accuracy")
TEST = ("test_loss", "test_accuracy")  # of the winner alone
FOLDS = ("cv_loss", "cv_loss_error", "cv_accuracy", "cv_accuracy_error")  # of a cross-validation
OPTIMUM = "above_optimum"  # at most, as a share of the lowest objective
REPETITIONS = ("seed", "data.split_seed")  # keys in which repetitions of a setting differ
PAIRS = 6  # of swept keys that are shown against each other, at most
VALUES = 40  # of a key in a pair, at most


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


def best_job(jobs: list[Row], objective: str, given: Row | None = None) -> Row | None:
    """Return the best completed job, the first of equals, of those with the values given."""
    wanted = (given or {}).items()
    ranked = rank([job for job in jobs if all(job[k] == v for k, v in wanted)], objective)
    return ranked[0] if ranked else None


def is_done(job: Row, objective: str) -> bool:
    """Return whether a job completed with a figure to be judged by."""
    return bool(job["status"] == "completed" and job[objective] is not None)


def status_counts(jobs: list[Row]) -> dict[str, int]:
    """Return how many jobs have each status."""
    statuses = [job["status"] for job in jobs]
    return {status: statuses.count(status) for status in dict.fromkeys(statuses)}


def is_number(value: Any) -> bool:
    """Return whether a swept value is a number, and so has a place on an axis."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def distinct(jobs: list[Row], key: str) -> list[Any]:
    """Return the values of a swept key, in order."""
    values = list(dict.fromkeys(job[key] for job in jobs if job[key] is not None))
    return sorted(values) if all(map(is_number, values)) else sorted(values, key=str)


def shown_keys(jobs: list[Row], swept: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the swept keys that have values, and the pairs of them that are shown.

    Two keys of many values, as a search tries them, hardly ever meet twice: they are no pair.
    """
    keys = [key for key in swept if any(job[key] is not None for job in jobs)]
    few = [key for key in keys if len(distinct(jobs, key)) <= VALUES]
    return keys, list(itertools.combinations(few, 2))[:PAIRS]


def best_of_pairs(
    jobs: list[Row], pair: tuple[str, str], objective: str
) -> tuple[list[Any], list[Any], list[list[Row | None]]]:
    """Return the values of two keys, and a line of best jobs for each value of the second."""
    columns, lines = (distinct(jobs, key) for key in pair)
    best: dict[tuple[Any, Any], Row] = {}
    for job in rank(jobs, objective):
        best.setdefault((job[pair[0]], job[pair[1]]), job)
    return columns, lines, [[best.get((column, line)) for column in columns] for line in lines]

"""The settings of a sweep: its jobs, with those that are repetitions of each other as one row.

Jobs that differ in a seed alone repeat a setting. The row of a setting has the fields of a job's
row (it stands for the job whose figure is the median), with means, their standard errors and how
many repetitions there are.

Two settings may differ by chance for two reasons, and what is said of them counts both:

- The repetitions. What makes a seed, a split or a fold hard for both settings is taken out: it is
  their difference in each that is looked at.
- The examples that were held out. Seeds share them: the error over examples, paired where the
  predictions are kept, is added, as in Clark's min F'. Of a single run it is all that is known, and
  it is not paired. Splits hold out others, so that their spread
  has both in it; but they take them from the same data, again and again: the variance of the mean
  of n splits is not s^2 / n but s^2 (1 / n + validation examples / training examples). The folds of
  a run hold out each example once; those of another run the same examples once more, so that it
  adds nothing.

Of few splits or folds the variance of one pair is hardly known. It is taken to be that of all
settings together, or its own where that is larger, as of a setting that is less stable.

Source: H. H. Clark, The language-as-fixed-effect fallacy, Journal of Verbal Learning and Verbal
Behavior 1973; for splits: C. Nadeau, Y. Bengio, Inference for the generalization error, Machine
Learning 2003; for all settings together: W. G. Cochran, G. M. Cox, Experimental Designs, 1957,
chapter 4.
"""

import functools
import itertools
import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from classifier.evaluation import Difference, Source, paired
from classifier.fit import nearness

Row = dict[str, Any]
METRICS = ("val_loss", "val_accuracy")
TEST = ("test_loss", "test_accuracy")  # of the winner alone
FOLDS = ("cv_loss", "cv_loss_error", "cv_accuracy", "cv_accuracy_error")  # of a cross-validation
RESOLVED = ("resolved_reg", "resolved_lr")  # what came of reg=auto, and of lr in any case
OPTIMUM = "above_optimum"  # at most, as a share of the lowest objective
MEANS = (*METRICS, "cv_loss", "cv_accuracy", OPTIMUM)  # over repetitions
REPETITIONS = ("seed", "data.split_seed")  # keys in which repetitions of a setting differ
PAIRS = 6  # of swept keys that are shown against each other, at most
VALUES = 40  # of a key in a pair, at most
READ = 64  # predictions of jobs in memory, at most

# Returns a job's predictions of its validation examples by its folder, None where it keeps none.
Reader = Callable[[str], Any]
Cell = tuple[Any, ...]  # which repetition a job is: its data, its seeds, its number of folds


def reported_split(metrics: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the split that speaks for new examples: test, or val or train where it is empty."""
    return next((name, metrics[name]) for name in ("test", "val", "train") if metrics[name])


def near_optimum(report: dict[str, Any]) -> float | None:
    """Return how far a run's objective is above its lowest value, at most, as a share of that.

    None where that is not known, and where the bound is so wide that it says nothing.
    """
    relative: float | None = (report.get("certificate") or {}).get("relative")
    return relative if nearness(relative) else None


def settings_of(jobs: list[Row], swept: list[str], objective: str) -> list[Row]:
    """Return a row for each setting, in the order of the jobs.

    Besides the fields of a job's row it has:

    repetitions : how many of its jobs completed, those that were given twice counted once.
    jobs : the names of all its jobs.
    <metric>_error : the standard error of each metric: over repetitions, where there are two or
        more, else that of the job.
    total_error : the standard error of the objective from both sources of chance, None where one is
        not known. over says which they are, as "5 seeds, on the same 144 validation examples".
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
        for name in MEANS:
            values = [job[name] for job in ranked if job[name] is not None]
            row[name] = statistics.fmean(values) if values else None
            spread = statistics.stdev(values) if len(values) > 1 else None
            row[f"{name}_error"] = spread and spread / math.sqrt(len(values))
    sources = _sources(ranked, objective) if ranked else None
    row["over"] = repetitions_of(ranked, objective).over if ranked else None
    row["total_error"] = sources and math.sqrt(sum(variance for variance, _ in sources))
    return row


class Repetitions(NamedTuple):
    """What was drawn again for the mean figure of a setting.

    Attributes
    ----------
    over : all that the figure is over, in words.
    share : of the variance of one repetition, which that of the mean is.
    freedom : degrees of freedom of the spread over the repetitions.
    is_one_split : whether all have the same held-out examples, whose error is to be added.
    """

    over: str
    share: float
    freedom: int
    is_one_split: bool = False


def repetitions_of(jobs: Sequence[Row], name: str) -> Repetitions:
    """Return what was drawn again for the mean of a figure over completed jobs of a setting."""
    n, n_splits, n_val = len(jobs), len({_cell(job)[:2] for job in jobs}), jobs[0]["val_n"]
    if name.startswith("cv"):
        k = len(jobs[0]["folds"])
        return Repetitions(f"{k} folds" + f" of each of {n} runs" * (n > 1), 1 / k, k - 1)
    if n_splits > 1:
        share = 1 / n_splits + n_val / jobs[0]["train_n"]
        return Repetitions(f"{n_splits} splits of the data", share, n_splits - 1)
    over = f"{n} seeds, on the same " * (n > 1) + f"{n_val:,} validation examples"
    return Repetitions(over, 1 / n, n - 1, True)


def _cell(job: Row) -> Cell:
    seeds = (job.get(key) for key in REPETITIONS)
    return job["examples"], job["val_n"], *seeds, len(job["folds"] or ())


def _figures(jobs: Iterable[Row], name: str) -> np.ndarray:
    """Return a figure of each job, or of each of its folds, one after the other."""
    folds = name.startswith("cv")
    return np.array([x for job in jobs for x in (job["folds"] if folds else [job[name]])])


def _sources(jobs: Sequence[Row], name: str) -> list[Source] | None:
    """Return the sources of chance of the mean over a setting's jobs; None if one is not known."""
    of, figures = repetitions_of(jobs, name), _figures(jobs, name)
    sources = [(float(figures.var(ddof=1)) * of.share, of.freedom)] if len(figures) > 1 else []
    if of.is_one_split:
        errors = [job[f"{name}_error"] for job in jobs]
        if None in errors:
            return None
        sources.append((statistics.fmean(error**2 for error in errors), jobs[0]["val_n"] - 1))
    return sources


class Chance(NamedTuple):
    """What chance does to a figure of the settings of a sweep, or of several.

    Attributes
    ----------
    name : of the figure.
    jobs : by the job that stands for a setting, its completed jobs by their repetition.
    read : what gives the predictions of a job.
    variance, freedom : of one fold or split, without the means of settings and of these.
    """

    name: str
    jobs: dict[str, dict[Cell, Row]]
    read: Reader
    variance: float = 0.0
    freedom: int = 0

    def difference(self, one: Row, two: Row) -> Difference | None:
        """Return how two settings differ in the repetitions that both have.

        Where these are fewer than two, or no predictions are kept, their own errors are added. Of
        the same examples these are too large, which leaves room for the seed, of which a single run
        says nothing. None where an error is not known.
        """
        cells = [self.jobs[row["job"]] for row in (one, two)]
        sides = [[*of.values()] for of in cells]
        first, second = ([of[cell] for cell in cells[0] if cell in cells[1]] for of in cells)
        apart = _figures(second, self.name) - _figures(first, self.name)
        if len(apart) > 1:
            of, variance = repetitions_of(first, self.name), float(apart.var(ddof=1))
            if not of.is_one_split:
                variance, freedom = max(variance, 2 * self.variance), max(self.freedom, of.freedom)
                return Difference(float(apart.mean()), [(variance * of.share, freedom)], of.over)
            examples = self._examples(first), self._examples(second)
            if examples[0] is not None and examples[1] is not None:
                over_seeds = variance * of.share, of.freedom
                return paired(examples[0], examples[1], of.over, [over_seeds])
        own = [_sources(jobs, self.name) for jobs in sides]
        if own[0] is None or own[1] is None:
            return None
        over = dict.fromkeys(repetitions_of(jobs, self.name).over for jobs in sides)
        return Difference(two[self.name] - one[self.name], own[0] + own[1], " and ".join(over))

    def _examples(self, jobs: list[Row]) -> np.ndarray | None:
        """Return the mean figure of each held-out example over jobs; None where one is not kept."""
        figures = []
        for job in jobs:
            kept = self.read(job["folder"])
            if kept is None or not kept.are_of(job["val_n"], job["val_accuracy"]):
                return None
            figures.append(kept.figure(self.name.removeprefix("val_")))
        return np.asarray(np.mean(figures, axis=0, dtype=np.float64))


def chance_of(settings: list[Row], jobs: list[Row], name: str, read: Reader) -> Chance:
    """Return what chance does to a figure of settings, from their jobs.

    The variance is that of the splits, or the folds, that all K settings share, n of them: it has
    (K - 1)(n - 1) degrees of freedom.
    """
    read = functools.lru_cache(READ)(read)  # the best is compared with all others: half the files
    by_name = {job["job"]: job for job in jobs if is_done(job, name)}
    done = {
        row["job"]: {_cell(by_name[job]): by_name[job] for job in row["jobs"] if job in by_name}
        for row in settings
        if is_done(row, name)
    }
    first, *others = done.values() or [{}]
    cells = [cell for cell in first if all(cell in of for of in others)]
    table = np.array([_figures([of[cell] for cell in cells], name) for of in done.values()])
    if table.size == 0 or min(table.shape) < 2:
        return Chance(name, done, read)
    table -= table.mean(axis=1, keepdims=True)
    table -= table.mean(axis=0)
    freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
    return Chance(name, done, read, float((table**2).sum()) / freedom, freedom)


def mark_worse(settings: list[Row], jobs: list[Row], objective: str, read: Reader) -> None:
    """Put `worse` into each setting: whether it is worse than the best by more than chance.

    Over sweeps in which all settings are equally good, one in twenty names any: the best was chosen
    because it looks best, so that all pairs of settings count as tests. `worse` is None where the
    chance is not known, and for a setting without a figure.
    """
    chance, best = chance_of(settings, jobs, objective, read), best_job(settings, objective)
    sign, n_tests = -1 if objective.endswith("accuracy") else 1, math.comb(len(chance.jobs), 2)
    for row in settings:
        row["worse"] = False if row is best and n_tests else None
        if best is not None and row is not best and row["job"] in chance.jobs:
            apart = chance.difference(best, row)
            if apart is not None:
                row["worse"] = sign * apart.value > 0 and apart.is_real(n_tests)


def near_best(settings: list[Row], objective: str) -> list[Row]:
    """Return the settings within one standard error of the best, best first.

    Empty where that error is not known.

    Source: L. Breiman et al., Classification and Regression Trees, 1984, section 3.4.3.
    """
    ranked = rank(settings, objective)
    error = ranked[0].get("total_error") if ranked else None
    if error is None:
        return []
    best = ranked[0][objective]
    return [row for row in ranked if abs(row[objective] - best) <= error]


def strongest_near(settings: list[Row], objective: str) -> Row | None:
    """Return the setting with the strongest penalty among those near the best, the best of these.

    None where the penalty was not swept, or some have chosen it themselves.
    """
    near = near_best(settings, objective)
    if not all(is_number(row.get("reg")) for row in near):
        return None
    return max(near, key=lambda row: float(row["reg"]), default=None)


def metrics_of(jobs: list[Row]) -> list[str]:
    """Return the names of the figures that the jobs or the settings of a sweep have."""
    known = [n for n in (*FOLDS, *METRICS) if any(job.get(n) is not None for job in jobs)]
    return [*(known or METRICS), OPTIMUM]


def figures_of(jobs: list[Row], swept: list[str]) -> list[str]:
    """Return the columns of a table of jobs: what was swept, the step that came of it, figures."""
    known = []
    for name in RESOLVED:
        key = name.removeprefix("resolved_")
        is_auto = key not in swept or any(job[key] == "auto" for job in jobs)
        if is_auto and any(job.get(name) is not None for job in jobs):
            known.append(name)
    return [*swept, *known, *metrics_of(jobs)]


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


def drawn(summary: dict[str, Any]) -> tuple[list[Row], list[str], list[str], list[tuple[str, str]]]:
    """Return what is drawn of a sweep, from its summary.

    Returns
    -------
    Its rows, settings or the repetitions of one; the keys in which they differ; those of them that
    have values; pairs of these to be drawn against each other. Two keys of many values, as a search
    tries them, hardly ever meet twice: they are no pair.
    """
    of = ("settings", "keys") if summary["keys"] else ("jobs", "swept")
    rows, swept = (summary[name] for name in of)
    keys = [key for key in swept if distinct(rows, key)]
    few = [key for key in keys if len(distinct(rows, key)) <= VALUES]
    return rows, swept, keys, list(itertools.combinations(few, 2))[:PAIRS]

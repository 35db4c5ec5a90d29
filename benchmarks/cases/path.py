"""A path of certified penalties beside one fit of LogisticRegression, and folds beside its CV."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import StratifiedKFold

from benchmarks import problems
from benchmarks.cases.optimum import certified, fewest
from benchmarks.machine import n_threads
from benchmarks.measure import take_turns, with_cpu
from benchmarks.peers import Weights, program, scikit
from benchmarks.problems import Problem
from benchmarks.table import OURS, Bar, Row, Table
from classifier.fit import Fit
from classifier.held_out import evaluate_held_out

REG = 1e-4  # of the one fit
CLOSE = 1e-3
FIRST, LAST = -1, -5  # decades of a path
LIMIT = 120.0  # seconds of a fit of scikit-learn's
FOLDS = 5


def mnist(rounds: int, quick: bool) -> Table:
    """Time a path at the size of MNIST."""
    return beside_one(problems.mnist(1_000, 20) if quick else problems.mnist(), 0.5, rounds, quick)


def probe(rounds: int, quick: bool) -> Table:
    """Time a path on embeddings that are nearly separable."""
    return beside_one(problems.probe(300, 20) if quick else problems.probe(), 0.6, rounds, quick)


def digits(rounds: int, quick: bool) -> Table:
    """Time a path on scikit-learn's digits."""
    return beside_one(problems.digits(), 2.0, rounds, quick)


def beside_one(problem: Problem, most: float, rounds: int, quick: bool) -> Table:
    """Time 45 penalties beside one of scikit-learn's, which they may take `most` times as long."""
    optimum = problems.objective(problem, certified(problem, REG, 1e-6)(), REG)

    def close(weights: Weights) -> bool:
        return problems.objective(problem, weights, REG) <= optimum * (1 + CLOSE)

    prepare = partial(scikit.prepare_logistic, problem, REG, "lbfgs")
    search = fewest(prepare, close, LIMIT)
    theirs = "LogisticRegression, one penalty"
    regs = np.logspace(FIRST, LAST, 5 if quick else 45)
    contenders: dict[str, Callable[[], Callable[[], tuple[Any, float]]]] = {
        OURS: with_cpu(partial(_prepare, problem, regs)),
        theirs: with_cpu(partial(prepare, search.passes)),
    }
    timings = take_turns(contenders, rounds, warm_up=False)
    fits, cpu = timings[OURS].result
    passes = sum(len(fit.history) for fit in fits)
    remark = f"{passes} passes of a model, at most {_worst(fits):.2%} above, {cpu:.3g} s of CPU"
    _, their_cpu = timings[theirs].result
    given_up = "" if search.close else ", given up"
    ratio = timings[OURS].median / timings[theirs].median
    of_cpu = cpu / their_cpu
    return Table(
        f"{len(regs)} penalties, certified: {problem.name}, {problem.shape}",
        f"reg 1e{FIRST} to 1e{LAST}; LogisticRegression reg {REG:g}, to {CLOSE:.1%} above the "
        f"optimum; float32, {n_threads()} threads.",
        [
            Row(OURS, timings[OURS], remark),
            Row(
                theirs,
                timings[theirs],
                f"{search.passes} passes{given_up}, {their_cpu:.3g} s of CPU",
            ),
        ],
        []
        if quick
        else [
            Bar("the path in times the one fit", ratio, most),
            Bar("the same in seconds of CPU", of_cpu, most),
        ],
    )


def folds(rounds: int, quick: bool) -> Table:
    """Time ten penalties with five folds beside LogisticRegressionCV's."""
    problem = problems.probe(300, 20) if quick else problems.probe()
    regs = np.logspace(FIRST, LAST, 3 if quick else 10)
    fold = np.empty(len(problem.y), dtype=np.int16)
    for number, (_, out) in enumerate(StratifiedKFold(FOLDS).split(problem.X, problem.y)):
        fold[out] = number
    contenders = {
        OURS: with_cpu(partial(_prepare, problem, regs, fold)),
        f"{OURS}, no weaker than needed": with_cpu(
            partial(_prepare, problem, regs, fold, all_penalties=False)
        ),
    }
    timings = take_turns(contenders, rounds, warm_up=False)
    rows, chosen = [], []
    for name, timing in timings.items():
        fits, cpu = timing.result
        best = _best(problem, regs, fold, fits)
        chosen.append(f"{best:.3g}")
        passes = sum(len(fit.history) for fit in fits)
        rows.append(
            Row(name, timing, f"reg {best:.3g}, {passes} passes of a model, {cpu:.3g} s of CPU")
        )
    theirs = "LogisticRegressionCV"
    other = take_turns({theirs: with_cpu(partial(_prepare_cv, problem, regs, fold))}, 1)[theirs]
    model, cpu = other.result
    best = 1 / (2 * model.C_ * _kept(problem))
    excess = _excess(problem, regs, fold, timings[OURS].result[0], model)
    rows.append(
        Row(theirs, other, f"reg {best:.3g}, up to {excess:.1%} above ours, {cpu:.3g} s of CPU")
    )
    table = Table(
        f"{len(regs)} penalties and {FOLDS} folds: {problem.name}, {problem.shape}",
        f"reg 1e{FIRST} to 1e{LAST}, chosen by the mean loss; certified to {CLOSE:.1%}, and as "
        f"many iterations as LogisticRegressionCV has by default; float32, {n_threads()} threads.",
        rows,
        absent=[] if {*chosen} == {f"{best:.3g}"} else ["the choices differ"],
    )
    if not quick:
        table.bars += table.faster_than(theirs, 20.0)
    return table


def _prepare(
    problem: Problem,
    regs: np.ndarray,
    fold: np.ndarray | None = None,
    *,
    all_penalties: bool = True,
) -> Callable[[], list[Fit]]:
    """Make a path ready; what is timed finds the preconditioner too."""
    return lambda: program.make_full_batch(
        problem, regs, tol=CLOSE, epochs=5_000, folds=fold, all_penalties=all_penalties
    ).run()


def _worst(fits: list[Fit]) -> float:
    return max(fit.certificate.relative for fit in fits if fit.certificate)


def _kept(problem: Problem) -> float:
    """Return of how many examples a mean is, where one fold is left out."""
    return len(problem.y) * (1 - 1 / FOLDS)


def _prepare_cv(
    problem: Problem, regs: np.ndarray, fold: np.ndarray
) -> Callable[[], LogisticRegressionCV]:
    """Make scikit-learn's ready, with the same penalty on the mean loss of each fold's rest."""
    model = LogisticRegressionCV(
        Cs=1 / (2 * regs * _kept(problem)),
        cv=[(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(FOLDS)],
        scoring="neg_log_loss",
        l1_ratios=(0,),
        use_legacy_attributes=False,
    )

    def run() -> LogisticRegressionCV:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return model.fit(problem.X, problem.y)

    return run


def _best(problem: Problem, regs: np.ndarray, fold: np.ndarray, fits: list[Fit]) -> float:
    """Return the penalty with the lowest mean loss on the folds, of those that were trained."""
    models = np.arange(len(regs), len(fits))
    theta = np.stack([fits[g].theta for g in models], axis=1)
    split = program.with_folds(problem, fold)
    loss = evaluate_held_out(split, theta, (models // len(regs) - 1).astype(fold.dtype)).loss
    loss[[fits[g].status == "skipped" for g in models]] = np.inf
    return float(regs[loss.reshape(FOLDS, -1).mean(axis=0).argmin()])


def _excess(
    problem: Problem,
    regs: np.ndarray,
    fold: np.ndarray,
    fits: list[Fit],
    model: LogisticRegressionCV,
) -> float:
    """Return how far an objective of scikit-learn's is above this program's, at most."""
    worst = 0.0
    for k in range(FOLDS):
        rest = problem.select(fold != k)
        for place, reg in enumerate(regs):
            fit = fits[(k + 1) * len(regs) + place]
            theirs = model.coefs_paths_[k, 0, place]
            reached = problems.objective(rest, (theirs[:, :-1].T, theirs[:, -1]), reg)
            ours = problems.objective(rest, (fit.W, fit.b), reg)
            worst = max(worst, reached / ours - 1)
    return worst

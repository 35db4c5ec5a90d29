"""Cases of training, from Python: epochs, stacks, the way to the optimum, paths of penalties.

The optimum is where L-BFGS of this program has certified that it is within a millionth of that. For
each contender the smallest number of passes that gets close enough is searched for, and fits of
that many are then timed, in turns; its time includes all that it needs, as the preconditioner.
"""

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from benchmarks import peers
from benchmarks.measure import OURS, Prepare, Row, Table, Timing, take_turns, time_once
from benchmarks.peers import LOGISTIC, Settings, Weights, certified
from benchmarks.problems import Problem, objective
from classifier.optimizers import measure_scale
from data.dataset import Split
from data.machine import blas_threads

REG = 1e-4  # the program's default
CLOSE = 1e-3  # a relative distance from the optimum
ROUNDING = 1e-6  # of the optimum, which is certified to this
LIMIT = 60.0  # seconds of a fit
FOLDS = 5


def epochs(
    problem: Problem, batch_size: int, n_epochs: int, rounds: int, sizes: Sequence[int] = (1,)
) -> Table:
    """Time epochs of stacks of some sizes, and of peers; all times are of a model.

    The objective that each ends with stands beside its time, and the rate of its two products: a
    product of large arrays is as fast as can be.
    """
    lr = 1 / measure_scale(problem.design, np.random.default_rng(0)).smoothness(REG)  # lr=auto
    settings = Settings(lr, REG, batch_size, n_epochs)
    stacks = {f"{OURS}, {n} models" if n > 1 else OURS: n for n in sizes}
    there, absent = peers.present(peers.OF_EPOCHS)
    contenders: dict[str, Prepare[Weights]] = {
        **{name: partial(peers.train_stack, problem, settings, n) for name, n in stacks.items()},
        **{name: partial(prepare, problem, settings) for name, prepare in there.items()},
    }
    rows = []
    for name, timing in take_turns(contenders, rounds).items():
        of_one = timing.divided_by(n_epochs * stacks.get(name, 1))
        rate = 4.0 * problem.X.size * problem.n_classes / of_one.median  # of two products
        remark = f"objective {objective(problem, timing.result, REG):.5f}, {rate / 1e9:.0f} GFLOP/s"
        rows.append(Row(name, of_one, remark))
    large = 512 if len(problem.X) < 1_000 else 4096  # a quick run has few examples
    A = np.full((large, large), 1e-3, dtype=np.float32)
    most = 2.0 * large**3 / min(time_once(lambda: lambda: A @ A).median for _ in range(3))
    title = f"{'Stacks: an' if len(sizes) > 1 else 'An'} epoch: {problem.name}, {problem.shape}"
    setting = f"batch size {batch_size}, lr {lr:.3g}, reg {REG:g}, constant, float32, "
    setting += f"{blas_threads()} threads, objective after {n_epochs} epoch{'s' * (n_epochs > 1)}. "
    setting += f"A large product: {most / 1e9:.0f} GFLOP/s."
    return Table(title, setting, rows, absent)


def fewest(
    prepare: Callable[[int], Callable[[], Weights]], close: Callable[[Weights], bool], limit: float
) -> tuple[int, Timing[Weights]]:
    """Return the fewest passes that come close, or up to a fifth more, and the time of these.

    The search is given up when twice the passes that were not enough would take longer than
    `limit` seconds: they are returned all the same.
    """
    low, passes = 0, 1
    while not close((timing := time_once(partial(prepare, passes))).result):
        if 2 * timing.median > limit:
            return passes, timing
        low, passes = passes, 2 * passes
    while passes - low > max(1, low // 5):
        middle = (low + passes) // 2
        if close((tried := time_once(partial(prepare, middle))).result):
            passes, timing = middle, tried
        else:
            low = middle
    return passes, timing


def optimum(problem: Problem, regs: Sequence[float], rounds: int, quick: bool) -> Table:
    """Time everyone to within 0.1 % of the optimum, and this program until it is certified."""
    there, notes = peers.present(peers.OF_OPTIMUM)
    rows = []
    for reg in regs:
        lowest = objective(problem, certified(problem, reg, ROUNDING), reg)

        def above(weights: Weights) -> float:
            return objective(problem, weights, reg) / lowest - 1  # noqa: B023

        def close(weights: Weights) -> bool:
            return above(weights) <= CLOSE

        ready: dict[str, Prepare[Weights]] = {
            f"{OURS}, certified": partial(partial, certified, problem, reg, CLOSE)
        }
        passes = dict.fromkeys(ready, "")
        for name, prepare in there.items():
            n, timing = fewest(partial(prepare, problem, reg), close, 0.1 if quick else LIMIT)
            passes[name] = f"{n} passes, "
            if close(timing.result):
                ready[name] = partial(prepare, problem, reg, n)
            else:
                spent = f"{n} passes, {timing.median:.1f} s"
                notes.append(f"{name}, reg {reg:g}: given up after {spent}")
        # The search has warmed everyone.
        for name, timing in take_turns(ready, rounds, warm_up=False).items():
            remark = f"{passes[name]}{above(timing.result):.3%} above"
            rows.append(Row(f"{name}, reg {reg:g}", timing, remark))
    title = f"To within {CLOSE:.1%} of the optimum: {problem.name}, {problem.shape}"
    return Table(title, f"float32, {blas_threads()} threads.", rows, notes)


def path(problem: Problem, rounds: int, quick: bool) -> Table:
    """Time 45 penalties, each certified, beside one of scikit-learn's."""
    lowest = objective(problem, certified(problem, REG, ROUNDING), REG)
    prepare = partial(peers.OF_OPTIMUM[LOGISTIC][1], problem, REG)

    def close(weights: Weights) -> bool:
        return objective(problem, weights, REG) <= lowest * (1 + CLOSE)

    n, timing = fewest(prepare, close, LIMIT)
    theirs = f"{LOGISTIC}, one penalty{'' if close(timing.result) else ', given up'}"
    regs = np.logspace(-1, -5, 5 if quick else 45)
    contenders: dict[str, Prepare[Any]] = {
        OURS: partial(
            peers.train_full_batch, Split(problem.design, problem.y), problem.n_classes, regs, CLOSE
        ),
        theirs: partial(prepare, n),
    }
    timings = take_turns(contenders, rounds, warm_up=False)
    worst = max(fit.certificate.relative for fit in timings[OURS].result)
    passes = sum(len(fit.history) for fit in timings[OURS].result)
    ours = f"{passes} passes of a model, at most {worst:.2%} above"
    rows = [Row(OURS, timings[OURS], ours), Row(theirs, timings[theirs], f"{n} passes")]
    setting = f"reg 1e-1 to 1e-5; {LOGISTIC}: reg {REG:g}, to {CLOSE:.1%} above the optimum; "
    setting += f"float32, {blas_threads()} threads."
    title = f"{len(regs)} penalties, certified: {problem.name}, {problem.shape}"
    return Table(title, setting, rows)


def folds(problem: Problem, rounds: int, quick: bool) -> Table:
    """Time ten penalties with five folds, the two estimators beside each other."""
    from sklearn.linear_model import LogisticRegressionCV

    from classifier import SoftmaxClassifierCV

    regs = np.logspace(-1, -5, 3 if quick else 10)
    kept = len(problem.y) * (1 - 1 / FOLDS)  # examples of a mean, where one fold is left out
    ours = SoftmaxClassifierCV(reg=regs, cv=FOLDS, all_penalties=True, random_state=0)
    theirs = LogisticRegressionCV(Cs=1 / (2 * regs * kept), cv=FOLDS, scoring="neg_log_loss")

    def fit(model: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # theirs ends after its 100 iterations
            model.fit(problem.X, problem.y)

    models = {OURS: ours, "LogisticRegressionCV": theirs}
    ready = {name: partial(partial, fit, model) for name, model in models.items()}
    timings = take_turns(ready, rounds, warm_up=False)
    chosen = ours.reg_, 1 / (2 * np.ravel(theirs.C_)[0] * kept)
    pairs = zip(timings.items(), chosen, strict=True)
    rows = [Row(name, timing, f"reg {reg:.3g}") for (name, timing), reg in pairs]
    setting = f"reg 1e-1 to 1e-5, chosen by the mean loss; ours to {CLOSE:.1%}, theirs with the "
    setting += f"100 iterations of its default; float32, {blas_threads()} threads."
    title = f"{len(regs)} penalties and {FOLDS} folds: {problem.name}, {problem.shape}"
    return Table(title, setting, rows)

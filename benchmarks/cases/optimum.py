"""Time to reach within 0.1 % of the optimal objective.

The optimum is what `LogisticRegression(solver="lbfgs")` finds at a tight tolerance. For each
contender the smallest number of passes that gets within 0.1 % of it is searched for, and fits of
that many are then timed, in turns. A pass is an iteration of a solver, and an epoch of this
program, whose cosine schedule ends there; its time includes finding its learning rate.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks import problems
from benchmarks.machine import n_threads
from benchmarks.measure import Timing, take_turns, time_once
from benchmarks.peers import Settings, Weights, program, scikit
from benchmarks.problems import Problem
from benchmarks.table import OURS, Bar, Row, Table
from classifier.schedules import Cosine

NEWTON = 8_000  # parameters up to which a Hessian of all classes is worth having
AS_IT_COMES = {"lr_scale": 1.0, "batch_size": 64, "momentum": 0.9, "nesterov": False}
TUNED = {"lr_scale": 100.0, "batch_size": 256, "momentum": 0.97, "nesterov": True}
SWEPT = f"{OURS}, tuned"  # what small sweeps find best for both problems
SETTINGS = {SWEPT: TUNED, OURS: AS_IT_COMES}

Prepare = Callable[[int], Callable[[], Weights]]  # a number of passes -> the timed fit


@dataclasses.dataclass(frozen=True)
class Goal:
    """What counts as close to the optimum, and how long one may take.

    `close` is a relative distance, `tight` the largest entry of the gradient at what is called the
    optimum, `limit` the seconds of a fit, and `patience` those of others beside the faster of this
    program's settings.
    """

    reg: float = 1e-4
    close: float = 1e-3
    tight: float = 3e-5
    limit: float = 20.0
    patience: float = 4.0


QUICK = Goal(reg=1e-2, limit=1.0)


@dataclasses.dataclass(frozen=True)
class Found:
    """The fewest passes that come close, or those after which the search was given up."""

    passes: int
    seconds: float
    close: bool


def mnist(rounds: int, quick: bool) -> Table:
    """Time the way to the optimum at the size of MNIST."""
    if quick:
        return race(problems.mnist(1_000, 20), QUICK, rounds)
    return race(problems.mnist(), Goal(), rounds, judged=True)


def cifar(rounds: int, quick: bool) -> Table:
    """Time the way to the optimum at the size of CIFAR-10."""
    if quick:
        return race(problems.cifar(1_000, 40), QUICK, rounds)
    return race(problems.cifar(), Goal(), rounds, judged=True)


def race(problem: Problem, goal: Goal, rounds: int, *, judged: bool = False) -> Table:
    """Time everyone at the fewest passes that lead close to the optimum."""
    tight = scikit.prepare_logistic(problem, goal.reg, "lbfgs", 10_000, tol=goal.tight)()
    optimum = problems.objective(problem, tight, goal.reg)

    def excess(weights: Weights) -> float:
        return problems.objective(problem, weights, goal.reg) / optimum - 1

    contenders = _contenders(problem, goal)
    found: dict[str, Found] = {}
    limit = goal.limit
    for name, prepare in contenders.items():
        found[name] = fewest(prepare, lambda weights: excess(weights) <= goal.close, limit)
        if found[name].close and name in SETTINGS:
            limit = min(limit, goal.patience * found[name].seconds)
    ready = {
        name: partial(contenders[name], search.passes)
        for name, search in found.items()
        if search.close
    }
    timings = take_turns(ready, rounds, warm_up=False)  # the search has warmed everyone
    rows = [
        Row(name, timing, f"{found[name].passes} passes, {excess(timing.result):.3%} above")
        for name, timing in timings.items()
    ]
    return Table(
        f"To within {goal.close:.1%} of the optimum: {problem.name}, {problem.shape}",
        f"reg {goal.reg:g}, optimum {optimum:.6f}, float32, {n_threads()} threads. This program: "
        f"lr=auto, cosine schedule, {_words(AS_IT_COMES)}; tuned: {_words(TUNED)}.",
        rows,
        _bars(timings, found) if judged else [],
        [
            f"{name}: given up after {search.passes} passes, {search.seconds:.1f} s"
            for name, search in found.items()
            if not search.close
        ],
        base=next(iter(timings), OURS),
    )


def fewest(prepare: Prepare, close: Callable[[Weights], bool], limit: float) -> Found:
    """Search for the fewest passes that come close; up to a fifth more may be found.

    The search is given up when twice the passes that were not enough would take longer than
    `limit` seconds.
    """

    def attempt(passes: int) -> Found:
        seconds, weights = time_once(partial(prepare, passes))
        return Found(passes, seconds, close(weights))

    low, best = 0, attempt(1)
    while not best.close:
        if 2 * best.seconds > limit:
            return best
        low, best = best.passes, attempt(2 * best.passes)
    while best.passes - low > max(1, low // 5):
        middle = attempt((low + best.passes) // 2)
        if middle.close:
            best = middle
        else:
            low = middle.passes
    return best


def _contenders(problem: Problem, goal: Goal) -> dict[str, Prepare]:
    """Return this program, as it comes and after a sweep, and the solvers that suit the size."""
    small = problem.X.shape[1] * problem.n_classes <= NEWTON
    solvers = [name for name in scikit.SOLVERS if small or name != "newton-cholesky"]
    return {
        **{name: partial(_prepare, problem, goal.reg, chosen) for name, chosen in SETTINGS.items()},
        **{
            f"LogisticRegression, {solver}": partial(
                scikit.prepare_logistic, problem, goal.reg, solver
            )
            for solver in solvers
        },
    }


def _prepare(
    problem: Problem, reg: float, chosen: dict[str, Any], epochs: int
) -> Callable[[], Weights]:
    def run() -> Weights:
        own = {key: value for key, value in chosen.items() if key != "lr_scale"}
        lr = chosen["lr_scale"] * problem.auto_lr(reg)
        settings = Settings(lr=lr, reg=reg, epochs=epochs, **own)
        training = program.make_training(problem, settings, Cosine(warmup_steps=0))
        (fit,) = training.run()
        return fit.W, fit.b

    return run


def _words(chosen: dict[str, Any]) -> str:
    return " ".join(f"{key}={value:g}" for key, value in chosen.items())


def _bars(timings: dict[str, Timing[Weights]], found: dict[str, Found]) -> list[Bar]:
    """Judge the faster of this program's two settings beside every solver.

    A solver that was given up has taken the seconds until then, and this program has none where it
    was given up itself.
    """
    ours = min((timings[name].median for name in SETTINGS if name in timings), default=None)
    bars = []
    for name, search in found.items():
        if name not in SETTINGS:
            theirs = timings[name].median if name in timings else search.seconds
            ratio = theirs / ours if ours else 0.0
            bars.append(Bar(f"faster than {name}", ratio, 1.0, at_least=True))
    return bars

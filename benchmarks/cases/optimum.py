"""Time to reach within 0.1 % of the optimal objective.

The optimum is what `LogisticRegression(solver="lbfgs")` finds at a tight tolerance. For each
contender the smallest number of passes that gets within 0.1 % of it is searched for, and fits of
that many are then timed, in turns. A pass is an iteration of a solver, and an epoch of this
program, whose cosine schedule ends there; its time includes finding its learning rate.
"""

import dataclasses
from collections.abc import Callable
from functools import partial

from benchmarks import problems
from benchmarks.machine import n_threads
from benchmarks.measure import Timing, take_turns, time_once
from benchmarks.peers import Settings, Weights, program, scikit
from benchmarks.problems import Problem
from benchmarks.table import OURS, Bar, Row, Table
from classifier.schedules import Cosine

NEWTON = 8_000  # parameters up to which a Hessian of all classes is worth having
BATCH_SIZE = 64  # the program's default
LR_SCALE = 16.0  # what a small sweep over lr_scale finds best for both problems
SWEPT = f"{OURS}, lr_scale={LR_SCALE:g}"

Prepare = Callable[[int], Callable[[], Weights]]  # a number of passes -> the timed fit


@dataclasses.dataclass(frozen=True)
class Goal:
    """What counts as close to the optimum, and how long one may take.

    `close` is a relative distance, `tight` the largest entry of the gradient at what is called the
    optimum, `limit` the seconds of a fit.
    """

    reg: float = 1e-4
    close: float = 1e-3
    tight: float = 1e-5
    limit: float = 60.0


QUICK = Goal(reg=1e-2, limit=1.0)


def mnist(rounds: int, quick: bool) -> Table:
    """Time the way to the optimum at the size of MNIST."""
    if quick:
        return race(problems.mnist(1_000, 20), QUICK, rounds)
    return _with_bars(race(problems.mnist(), Goal(), rounds))


def cifar(rounds: int, quick: bool) -> Table:
    """Time the way to the optimum at the size of CIFAR-10."""
    if quick:
        return race(problems.cifar(1_000, 40), QUICK, rounds)
    return _with_bars(race(problems.cifar(), Goal(), rounds))


def race(problem: Problem, goal: Goal, rounds: int) -> Table:
    """Time everyone at the fewest passes that lead close to the optimum."""
    tight = scikit.prepare_logistic(problem, goal.reg, "lbfgs", 10_000, tol=goal.tight)()
    optimum = problems.objective(problem, tight, goal.reg)
    small = problem.X.shape[1] * problem.n_classes <= NEWTON
    left_out = [] if small else [f"left out: newton-cholesky (over {NEWTON:,} parameters)"]

    def excess(weights: Weights) -> float:
        return problems.objective(problem, weights, goal.reg) / optimum - 1

    ready: dict[str, Callable[[], Callable[[], Weights]]] = {}
    passes: dict[str, int] = {}
    for name, prepare in _contenders(problem, goal.reg, small).items():
        try:
            passes[name] = fewest(prepare, lambda w: excess(w) <= goal.close, goal.limit)
        except TimeoutError as error:
            left_out.append(f"{name}: {error}")
        else:
            ready[name] = partial(prepare, passes[name])
    timings = take_turns(ready, rounds, warm_up=False)  # the search has warmed everyone

    def remark(name: str, timing: Timing[Weights]) -> str:
        return f"{passes[name]} passes, {excess(timing.result):.3%} above"

    rows = [Row(name, timing, remark(name, timing)) for name, timing in timings.items()]
    return Table(
        f"To within {goal.close:.1%} of the optimum: {problem.name}, {problem.shape}",
        f"reg {goal.reg:g}, optimum {optimum:.6f}, float32, {n_threads()} threads. This program: "
        f"batch size {BATCH_SIZE}, lr=auto, momentum 0.9, cosine schedule.",
        rows,
        absent=left_out,
        base=OURS if OURS in timings else next(iter(timings)),
    )


def fewest(prepare: Prepare, close: Callable[[Weights], bool], limit: float) -> int:
    """Return the fewest passes that come close, or up to a tenth more.

    Raises
    ------
    TimeoutError
        When twice the passes that were not enough would take longer than `limit` seconds.
    """

    def is_close(passes: int) -> bool:
        seconds, weights = time_once(partial(prepare, passes))
        if close(weights):
            return True
        if 2 * seconds > limit:
            raise TimeoutError(f"not there after {passes} passes, {seconds:.1f} s")
        return False

    low, high = 0, 1
    while not is_close(high):
        low, high = high, 2 * high
    while high - low > max(1, low // 10):
        middle = (low + high) // 2
        if is_close(middle):
            high = middle
        else:
            low = middle
    return high


def _contenders(problem: Problem, reg: float, small: bool) -> dict[str, Prepare]:
    """Return this program, as it comes and after a sweep, and the solvers that suit the size."""
    solvers = [name for name in scikit.SOLVERS if small or name != "newton-cholesky"]
    return {
        OURS: partial(_prepare, problem, reg, 1.0),
        SWEPT: partial(_prepare, problem, reg, LR_SCALE),
        **{
            f"LogisticRegression, {solver}": partial(scikit.prepare_logistic, problem, reg, solver)
            for solver in solvers
        },
    }


def _prepare(problem: Problem, reg: float, lr_scale: float, epochs: int) -> Callable[[], Weights]:
    def run() -> Weights:
        settings = Settings(lr_scale * problem.auto_lr(reg), reg, BATCH_SIZE, epochs)
        training = program.make_training(problem, settings, Cosine(warmup_steps=0))
        (fit,) = training.run()
        return fit.W, fit.b

    return run


def _with_bars(table: Table) -> Table:
    """Judge the faster of this program's two settings beside every solver."""
    ours = [row.timing.median for row in table.rows if row.name in {OURS, SWEPT}]
    for row in table.rows:
        if row.name not in {OURS, SWEPT}:
            ratio = row.timing.median / min(ours) if ours else 0.0
            table.bars.append(Bar(f"faster than {row.name}", ratio, 1.0, at_least=True))
    return table

"""L-BFGS to its certified end beside LogisticRegression, penalty by penalty.

scikit-learn is given the fewest iterations that bring it to the same objective, or as many as the
time limit of the search allows.
"""

from collections.abc import Sequence
from functools import partial

from benchmarks import problems
from benchmarks.cases.optimum import certified, fewest
from benchmarks.machine import n_threads
from benchmarks.measure import take_turns, with_cpu
from benchmarks.peers import Weights, scikit
from benchmarks.problems import Problem
from benchmarks.table import OURS, Bar, Row, Table

CLOSE = 1e-3
ROUNDING = 1e-6  # of an objective: less is no difference in float32
LIMIT = 60.0  # seconds of a fit


def mnist(rounds: int, quick: bool) -> Table:
    """Time penalties of all sizes at the size of MNIST."""
    if quick:
        return beside(problems.mnist(1_000, 20), [1e-3, 1e-1], rounds, 1.0, judged=False)
    return beside(problems.mnist(), [1, 1e-2, 1e-6], rounds)


def separable(rounds: int, quick: bool) -> Table:
    """Time a small penalty where two hundred classes are nearly separable."""
    if quick:
        return beside(problems.separable(500, 20, 5), [1e-4], rounds, 1.0, judged=False)
    return beside(problems.separable(), [1e-6], rounds)


def digits(rounds: int, quick: bool) -> Table:
    """Time penalties of all sizes on scikit-learn's digits."""
    if quick:
        return beside(problems.digits(), [1e-2], rounds, 1.0, judged=False)
    return beside(problems.digits(), [1, 1e-2, 1e-4, 1e-6], rounds)


def wide(rounds: int, quick: bool) -> Table:
    """Time three penalties with a thousand classes."""
    if quick:
        return beside(problems.embeddings(500, 20, 5), [1e-2], rounds, 1.0, judged=False)
    return beside(problems.embeddings(), [1e-3, 1e-4, 1e-5], 1, 120.0, judged=False)


def beside(
    problem: Problem,
    regs: Sequence[float],
    rounds: int,
    limit: float = LIMIT,
    *,
    judged: bool = True,
) -> Table:
    """Time both for each penalty; `limit` is of the seconds of a fit of scikit-learn's."""
    rows: list[Row] = []
    bars: list[Bar] = []
    for reg in regs:
        reached = problems.objective(problem, certified(problem, reg, CLOSE)(), reg)
        goal = reached * (1 + ROUNDING)

        def close(weights: Weights) -> bool:
            return problems.objective(problem, weights, reg) <= goal  # noqa: B023

        prepare = partial(scikit.prepare_logistic, problem, reg, "lbfgs")
        search = fewest(prepare, close, limit)
        ours, theirs = f"{OURS}, reg {reg:g}", f"LogisticRegression, reg {reg:g}"
        contenders = {
            ours: with_cpu(partial(certified, problem, reg, CLOSE)),
            theirs: with_cpu(partial(prepare, search.passes)),
        }
        timings = take_turns(contenders, rounds, warm_up=False)
        ratio = timings[theirs].median / timings[ours].median
        for name, timing in timings.items():
            weights, cpu = timing.result
            far = problems.objective(problem, weights, reg) / reached - 1
            remark = f"{search.passes} passes, {far:+.3%}, " if name == theirs else ""
            rows.append(Row(name, timing, f"{remark}{cpu:.3g} s of CPU"))
        if judged:
            more = "" if search.close else ", given up"
            bars.append(Bar(f"faster than {theirs}{more}", ratio, 1.0, at_least=True))
    return Table(
        f"Penalties, certified to {CLOSE:.1%}: {problem.name}, {problem.shape}",
        f"float32, {n_threads()} threads; LogisticRegression to the same objective, or as near as "
        f"a fit of {limit:g} s brings it.",
        rows,
        bars,
        base=rows[0].name,
    )

"""Stacks of models that share every minibatch, beside one model after the other."""

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks import limits, problems
from benchmarks.machine import n_threads
from benchmarks.measure import take_turns
from benchmarks.peers import PEERS, PYTORCH, Settings, present, program
from benchmarks.problems import Problem
from benchmarks.table import Bar, Row, Table
from classifier.schedules import Constant

REG = 1e-4
SIZES = (1, 4, 16, 64)
SGEMM = "limit: a large sgemm"


def stacks(rounds: int, quick: bool) -> Table:
    """Time an epoch of each stack at the size of CIFAR-10; every time is that of one model."""
    problem = problems.cifar(500) if quick else problems.cifar()
    settings = Settings(problem.auto_lr(REG), REG, 256, epochs=1)
    peers, absent = present([peer for peer in PEERS if peer.name == PYTORCH])
    contenders: dict[str, Callable[[], Callable[[], Any]]] = {
        **{_name(size): partial(_prepare, problem, settings, size) for size in SIZES},
        **{peer.name: partial(peer.prepare, problem, settings) for peer in peers},
        SGEMM: limits.prepare_sgemm,
    }
    timings = take_turns(contenders, rounds)
    sgemm = limits.sgemm_flops() / timings.pop(SGEMM).median
    sizes = {_name(size): size for size in SIZES}
    of_one = {name: timing.divided_by(sizes.get(name, 1)) for name, timing in timings.items()}
    flops = 4.0 * problem.X.size * problem.n_classes  # two products, 2 flops a multiplication
    table = Table(
        f"Stacks: an epoch a model, {problem.shape}",
        f"{settings}, constant, float32, {n_threads()} threads. A large sgemm: {_rate(sgemm)}.",
        [Row(name, timing, _rate(flops / timing.median)) for name, timing in of_one.items()],
        absent=absent,
        base=_name(max(SIZES)),
    )
    if not quick:
        table.bars += table.faster_than(PYTORCH, 8.0)
        share = 100 * flops / table.median(table.base) / sgemm
        table.bars.append(Bar("rate of 64 models beside the large sgemm's", share, 65, "%", True))
    return table


def _name(size: int) -> str:
    return f"this program, {size} model{'s' * (size > 1)}"


def _rate(flops_per_second: float) -> str:
    return f"{flops_per_second / 1e9:.0f} GFLOP/s"


def _prepare(problem: Problem, settings: Settings, n_models: int) -> Callable[[], Any]:
    training = program.make_training(problem, settings, Constant(warmup_steps=0), n_models)
    return lambda: [fit.theta for fit in training.run()]

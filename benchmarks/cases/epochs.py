"""Epochs of one model: this program, its peers, and the limits of the machine."""

from functools import partial

from benchmarks import limits, problems
from benchmarks.machine import n_threads
from benchmarks.measure import Prepare, take_turns
from benchmarks.peers import PEERS, PYTORCH, Settings, Weights, present
from benchmarks.problems import Problem
from benchmarks.table import OURS, Bar, Row, Table

REG = 1e-4  # the program's default


def digits(rounds: int, quick: bool) -> Table:
    """Time steps so small that what counts is the work around the arithmetic."""
    problem = problems.digits()
    table = compare(problem, 64, 2 if quick else 50, rounds)
    return _with_bars(table, [(PYTORCH, 5.0)], quick)


def mnist(rounds: int, quick: bool) -> Table:
    """Time an epoch at the size of MNIST."""
    problem = problems.mnist(600) if quick else problems.mnist()
    return compare(problem, 256, 1, rounds)


def cifar(rounds: int, quick: bool) -> Table:
    """Time an epoch at the size of CIFAR-10."""
    problem = problems.cifar(500) if quick else problems.cifar()
    table = compare(problem, 256, 1, rounds)
    least = [(PYTORCH, 1.8), ("PyTorch, DataLoader", 3.0), ("SGDClassifier", 10.0)]
    return _with_products(_with_bars(table, least, quick), quick)


def probe(rounds: int, quick: bool) -> Table:
    """Time an epoch of a linear probe: many classes on embeddings."""
    problem = problems.embeddings(1_000, 64, 50) if quick else problems.embeddings()
    return _with_products(compare(problem, 256, 1, rounds), quick)


def compare(problem: Problem, batch_size: int, epochs: int, rounds: int) -> Table:
    """Time epochs of everyone who is there, and state the objective they end with."""
    settings = Settings(problem.auto_lr(REG), REG, batch_size, epochs)
    peers, absent = present(PEERS)
    products = partial(limits.prepare_products, problem, batch_size, epochs)
    contenders: dict[str, Prepare[Weights | None]] = {
        **{peer.name: partial(peer.prepare, problem, settings) for peer in peers},
        limits.READ: partial(limits.prepare_read, problem),
        limits.PRODUCTS: products,
        limits.TURNED: partial(products, turned=True),
    }
    timings = take_turns(contenders, rounds)
    rows = []
    for name, timing in timings.items():
        remark = ""
        if timing.result is not None:
            remark = f"objective {problems.objective(problem, timing.result, REG):.5f}"
        read_once = 1 if name == limits.READ else epochs
        rows.append(Row(name, timing.divided_by(read_once), remark))
    steps = -(-len(problem.y) // batch_size)
    return Table(
        f"An epoch: {problem.name}, {problem.shape}",
        f"{settings}, constant, float32, {n_threads()} threads, {steps} steps an epoch; "
        f"objective after {epochs} epoch{'s' * (epochs > 1)}.",
        rows,
        absent=absent,
    )


def _with_bars(table: Table, least: list[tuple[str, float]], quick: bool) -> Table:
    """Add the bars "so many times faster than", which are of the full size only."""
    if not quick:
        for name, limit in least:
            table.bars += table.faster_than(name, limit)
    return table


def _with_products(table: Table, quick: bool) -> Table:
    """Add the bar "at most so many times the bare products", which is of the full size only."""
    if not quick:
        floor = min(table.median(limits.PRODUCTS), table.median(limits.TURNED))
        times = table.median(OURS) / floor
        table.bars.append(Bar("an epoch, in times the faster two products", times, 1.25))
    return table

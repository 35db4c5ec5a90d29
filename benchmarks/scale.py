"""A case of more than one process: passes over files by this one, by Ray's workers, on a device.

What ImageNet's probe takes on many machines is predicted from these, by the formula of
docs/scale.md; on a GPU that holds it, it is trained.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import peers, problems
from benchmarks.measure import Prepare, Row, Table, take_turns, time_once
from classifier import lbfgs
from classifier.coordinates import Coordinates
from classifier.engine import Engine, open_engine
from classifier.kernel import Sums
from classifier.shards import on_device, sum_up
from data.dataset import Sharded, Split
from data.files.arrays import join_rows, open_npy
from data.machine import blas_team, blas_threads
from data.preprocessing import AffineMap

FILES = 16
IMAGENET = 1_281_167, 2_048, 1_000  # examples, features, classes
PASSES = 39  # that a penalty of an ImageNet's probe is reckoned to take, to 0.1 %
MACHINES = ((1, 32), (8, 32), (64, 32))  # how many, and their cores
OWN = f"the driver's own work, {IMAGENET[1]:,} x {IMAGENET[2]:,}"
NETWORK = 1.25e9  # bytes a second between two machines


def scale(rounds: int, quick: bool) -> Table:
    """Time passes, the exchange and the driver's own work; predict an ImageNet's probe."""
    n, n_features, n_classes = (2_000, 30, 5) if quick else (200_000, 1_024, 100)
    n_workers, rng = blas_threads(), np.random.default_rng(0)
    theta = rng.standard_normal((n_classes, 1, n_features + 1)).astype(np.float32) / n_features
    features = AffineMap(np.zeros(n_features), np.ones(n_features))
    # A cluster takes longer than a quick run.
    kind, is_there = ("ray" if find_spec("ray") and not quick else "local"), find_spec("torch")
    engine = Engine(kind=kind, shards=n_workers, threads=1, memory=None, address=None)
    with tempfile.TemporaryDirectory() as folder, open_engine(engine) as spread:
        paths = [Path(folder) / f"{number:02d}.npy" for number in range(FILES)]
        for path in paths:
            np.save(path, rng.standard_normal((n // FILES, n_features), dtype=np.float32))
        rows = join_rows([open_npy(str(path)) for path in paths])
        here = Split(features.design_matrix(rows), rng.integers(n_classes, size=n))
        there = spread({"train": Split(rows, here.y)})["train"].X
        passes = {f"one process, {n_workers} threads": here}
        if isinstance(there, Sharded):
            passes[f"{n_workers} workers of Ray, rows held"] = Split(
                there.prepared(features), here.y
            )
        if is_there:
            passes["PyTorch on the CPU, one thread"] = on_device(here, "cpu")
        contenders: dict[str, Prepare[Any]] = {
            name: partial(partial, sum_up, examples, theta, with_gradient=True)
            for name, examples in passes.items()
        }
        if isinstance(there, Sharded):
            exchange = partial(there.prepared(features).total, _nothing, (), theta.shape)
            contenders["their exchange: weights there, sums back"] = lambda: exchange
        contenders[OWN] = partial(_driver, *((30, 20) if quick else IMAGENET[1:]))
        timings = take_turns(contenders, rounds)
    flops = 4.0 * n * n_features * n_classes
    rates = {name: flops / timings[name].median for name in passes}
    lines = [
        Row(name, timing, f"{rates[name] / 1e9:.0f} GFLOP/s" if name in rates else "")
        for name, timing in timings.items()
    ]
    missing = [("Ray", kind == "ray"), ("PyTorch", is_there)]
    notes = [
        f"not measured: {name} is not installed, or the run is quick"
        for name, is_measured in missing
        if not is_measured
    ]
    per_core = max(rates.values()) / n_workers
    notes += [_predicted(per_core, timings[OWN].median, *machines) for machines in MACHINES]
    title = f"A pass over {FILES} files: {n:,} x {n_features:,}, {n_classes:,} classes"
    setting = "float32; loss and gradient of one model."
    return Table(title, setting, lines, notes + _on_gpu(quick=quick))


def _nothing(_: Any, shape: tuple[int, ...], *__: Any) -> Sums:
    return Sums.zeros(shape, with_gradient=True)


def _driver(n_features: int, n_classes: int) -> Callable[[], None]:
    """Return what a pass takes beside the sums: directions, scales and a trial, with ten pairs."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((4096, n_features + 1), dtype=np.float32)
    X[:, -1] = 1
    with blas_team() as threads:
        coordinates = Coordinates(Split(X, np.zeros(len(X), int)), rng, threads)
    theta = rng.standard_normal((n_classes, 1, n_features + 1), dtype=np.float32)
    state = lbfgs.init(theta - theta.mean(axis=0), coordinates)
    curvature, reg = np.geomspace(1e-4, 1, n_features + 1), np.array([1e-4])

    def step() -> None:  # on a parabola, whose minimum is far away
        lbfgs.aim(state, coordinates, reg)
        tried = lbfgs.trial(state, coordinates)
        gradient = curvature * tried
        value = np.einsum("cgd,cgd->g", gradient, tried) / 2
        lbfgs.tell(state, tried, value, gradient, coordinates)

    def run() -> None:
        with blas_team() as coordinates.team:
            step()

    for _ in range(3 * Coordinates.memory // 2):
        run()
    return run


def _predicted(per_core: float, driver: float, machines: int, cores: int) -> str:
    """Say what an ImageNet's probe is predicted to take, by the formula of docs/scale.md."""
    n, n_features, n_classes = IMAGENET
    products = 4.0 * n * n_features * n_classes / (per_core * machines * cores)
    # Weights in float32 to each machine by a tree, and sums in float64 back likewise.
    hops = int(np.ceil(np.log2(machines)))
    exchange = hops * 12 * n_features * n_classes / NETWORK
    seconds = PASSES * (products + exchange + driver)
    return (
        f"predicted for {n:,} x {n_features:,}, {n_classes:,} classes, one penalty of {PASSES} "
        f"passes on {machines} x {cores} cores like these: {seconds:.0f} s"
    )


def _on_gpu(*, quick: bool) -> list[str]:
    """Train an ImageNet's probe on a GPU that holds it, or say that it is not measured."""
    what, sizes = "an ImageNet's probe on a GPU", (3_000, 20, 10) if quick else IMAGENET
    if find_spec("torch") is None:
        return [f"{what}: not measured here, PyTorch is not installed"]
    import torch

    needed = 6 * sizes[0] * sizes[1]  # bytes of its rows, and half as much for the blocks of a pass
    if not quick and not (torch.cuda.is_available() and torch.cuda.mem_get_info()[0] > needed):
        return [f"{what}: not measured here, there is none with {needed / 1e9:.0f} GB"]
    problem, lines = problems.make("", *sizes, decay=0.3, apart=2.0), list[str]()
    train = on_device(Split(problem.design, problem.y), "cpu" if quick else "cuda")
    sum_up(train, np.zeros((sizes[2], 1, sizes[1] + 1), np.float32))  # which puts the rows there
    for n_models in (1, 45):
        regs = np.geomspace(1e-4, 1e-8, n_models)
        timing = time_once(partial(peers.train_full_batch, train, sizes[2], regs, 1e-3))
        worst = max(fit.certificate.relative for fit in timing.result if fit.certificate)
        taken = f"{timing.median:.1f} s, at most {worst:.2%} above"
        lines.append(f"{what}, {n_models} penalties: {taken}")
    return lines

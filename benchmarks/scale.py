"""A case of more than one process: passes over files by this one, by Ray's workers, on a device.

What ImageNet's probe takes on many machines is predicted from these, by the formula of
docs/scale.md; on a GPU that holds it, it is trained.
"""

import dataclasses
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Prepare, Row, Table, take_turns
from classifier import lbfgs
from classifier.blas import n_threads, team
from classifier.coordinates import Coordinates
from classifier.engine import Engine, open_engine
from classifier.fit import PerModel
from classifier.kernel import Sums
from classifier.optimizers import Lbfgs
from classifier.optimum import FullBatchTraining
from classifier.shards import on_device, sum_up
from data.dataset import Sharded, Split
from data.files.arrays import join_rows, open_npy
from data.preprocessing import AffineMap

FILES = 16
IMAGENET = 1_281_167, 2_048, 1_000  # examples, features, classes
PASSES = 39  # that a penalty of an ImageNet's probe is reckoned to take, to 0.1 %
MACHINES = ((1, 32), (8, 32), (64, 32))  # how many, and their cores
EXCHANGE = "their exchange: weights there, sums back"
GRADIENT: dict[str, Any] = {"with_gradient": True}
NETWORK = 1.25e9  # bytes a second between two machines


def scale(rounds: int, quick: bool) -> Table:
    """Time passes, the exchange and the driver's own work; predict an ImageNet's probe."""
    n, n_features, n_classes = (2_000, 30, 5) if quick else (200_000, 1_024, 100)
    n_workers, notes, rng = n_threads(), list[str](), np.random.default_rng(0)
    theta = rng.standard_normal((n_classes, 1, n_features + 1)).astype(np.float32) / n_features
    features = AffineMap(np.zeros(n_features), np.ones(n_features))
    ray = Engine(kind="ray", shards=n_workers, threads=1, memory=None, address=None)
    is_there = find_spec("ray") and not quick  # a cluster takes longer than a quick run
    engine = dataclasses.replace(ray, kind="ray" if is_there else "local")
    with tempfile.TemporaryDirectory() as folder, open_engine(engine) as spread:
        paths = [Path(folder) / f"{number:02d}.npy" for number in range(FILES)]
        for path in paths:
            np.save(path, rng.standard_normal((n // FILES, n_features), dtype=np.float32))
        rows = join_rows([open_npy(str(path)) for path in paths])
        here = Split(features.design_matrix(rows), rng.integers(n_classes, size=n))
        there = spread({"train": Split(rows, here.y)})["train"]
        contenders: dict[str, Prepare[Any]] = {
            f"one process, {n_workers} threads": lambda: partial(sum_up, here, theta, **GRADIENT)
        }
        if isinstance(there.X, Sharded):
            design = there.X.prepared(features)
            held, nothing = Split(design, here.y), partial(design.total, _nothing, (), theta.shape)
            contenders |= {
                f"{n_workers} workers of Ray, rows held": lambda: partial(
                    sum_up, held, theta, **GRADIENT
                ),
                EXCHANGE: lambda: nothing,
            }
        else:
            notes.append("workers: not measured here, Ray is not installed, or the run is quick")
        if find_spec("torch"):
            on_cpu = on_device(here, "cpu")
            contenders["PyTorch on the CPU, one thread"] = lambda: partial(
                sum_up, on_cpu, theta, **GRADIENT
            )
        else:
            notes.append("a device: not measured here, PyTorch is not installed")
        size = (30, 20) if quick else IMAGENET[1:]
        own = f"the driver's own work, {size[0]:,} x {size[1]:,}"
        contenders[own] = partial(_driver, *size)
        timings = take_turns(contenders, rounds)
    flops, rates, lines = 4.0 * n * n_features * n_classes, [0.0], []
    for name, timing in timings.items():
        is_pass = name not in (own, EXCHANGE)
        rates += [flops / timing.median] * is_pass
        lines.append(Row(name, timing, f"{rates[-1] / 1e9:.0f} GFLOP/s" * is_pass))
    driver = timings[own].median
    notes += [_predicted(max(rates) / n_workers, driver, *machines) for machines in MACHINES]
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
    with team() as threads:
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
        with team() as coordinates.team:
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


class _Made:
    """Rows (N, D + 1) that a device made itself: classes apart in all features, and the bias."""

    def __init__(self, n: int, n_features: int, n_classes: int, device: str) -> None:
        import torch

        random = torch.Generator(device).manual_seed(0)
        like: dict[str, Any] = {"generator": random, "device": device}
        self.dtype = np.dtype(np.float32)
        self.shape, self.y = (n, n_features + 1), torch.randint(n_classes, (n,), **like)
        self.tensor = torch.empty(self.shape, device=device)
        means = 3 * torch.randn((n_classes, n_features), **like) / n_features**0.5
        for start in range(0, n, 2**16):
            part = slice(start, start + 2**16)
            rows = self.tensor[part, :-1]
            rows.normal_(generator=random)
            rows += means[self.y[part]]
        self.tensor[:, -1] = 1

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, place: slice | np.ndarray) -> np.ndarray:
        rows: np.ndarray = self.tensor[place].cpu().numpy()
        return rows


def _on_gpu(*, quick: bool) -> list[str]:
    """Train an ImageNet's probe on a GPU, of rows made there, or say that it is not measured."""
    what = "an ImageNet's probe on a GPU"
    if find_spec("torch") is None:
        return [f"{what}: not measured here, PyTorch is not installed"]
    import torch

    device, sizes = ("cpu", (3_000, 20, 10)) if quick else ("cuda", IMAGENET)
    needed = 6 * sizes[0] * sizes[1]  # rows, and half as much for the blocks of a pass
    if not quick and not (torch.cuda.is_available() and torch.cuda.mem_get_info()[0] > needed):
        return [f"{what}: not measured here, there is none with {needed / 1e9:.0f} GB"]
    made = _Made(*sizes, device)
    train, lines = on_device(Split(made, made.y.cpu().numpy()), device), list[str]()
    sum_up(train, np.zeros((sizes[2], 1, sizes[1] + 1), np.float32))  # which puts them there
    for n_models in (1, 45):
        zeros = np.zeros(n_models)
        numbers = PerModel(
            zeros, np.geomspace(1e-4, 1e-8, n_models), zeros, zeros, zeros.astype(int) - 1
        )
        begun = time.perf_counter()
        fits = FullBatchTraining(
            *(train, train.select(slice(0, 0)), sizes[2], numbers),
            optimizer=Lbfgs(tol=1e-3, all_penalties=True),
            epochs=1000,
            rng=np.random.default_rng(0),
        ).run()
        seconds = time.perf_counter() - begun
        worst = max(fit.certificate.relative for fit in fits if fit.certificate)
        lines.append(f"{what}, {n_models} penalties: {seconds:.1f} s, at most {worst:.2%} above")
    return lines

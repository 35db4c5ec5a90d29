"""Cases of whole commands, as the shell sees them: interpreter, imports, work and files."""

import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import problems
from benchmarks.measure import OURS, Row, Table, Timing, take_turns

ROOT = Path(__file__).resolve().parents[1]
TRAIN = "python train.py"
SEARCH = "import sys, benchmarks.commands as c; c.grid_search(int(sys.argv[1]))"
SCALES = [0.03, 0.1, 0.3, 1, 2, 3, 5, 10]
REGS = [0, 1e-6, 1e-5, 1e-4, 3e-4, 1e-3, 1e-2, 1e-1]
FILE_BYTES = 6 * 10**9
Ran = tuple[str, Path]  # what was printed, and where
Remark = Callable[[Timing[Ran]], str]


def prepare_process(
    arguments: Iterable[str], folder: Path, *, fails: bool = False
) -> Callable[[], Callable[[], Ran]]:
    """Return what runs this Python in a new folder; its run returns what is printed, and where.

    Raises
    ------
    RuntimeError
        By the run, when the process does not succeed, or does not fail where it should: a time
        would then be that of something else.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    streams: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    command = [sys.executable, *arguments]

    def run(place: Path) -> Ran:
        done = subprocess.run(command, cwd=place, env=environment, check=False, **streams)
        if (done.returncode != 0) != fails:
            raise RuntimeError(f"{command}: exit code {done.returncode}\n{done.stdout}")
        return done.stdout, place

    return lambda: partial(run, Path(tempfile.mkdtemp(dir=folder)))


def _table(
    title: str,
    commands: dict[str, list[str]],
    rounds: int,
    remark: Remark,
    *,
    warm_up: bool = False,
) -> Table:
    """Time what follows `python` in each command; the one with lr=-1 has to fail."""
    with tempfile.TemporaryDirectory() as folder:
        contenders = {
            name: prepare_process(arguments, Path(folder), fails="lr=-1" in arguments)
            for name, arguments in commands.items()
        }
        timings = take_turns(contenders, rounds, warm_up=warm_up)
        rows = [Row(name, timing, remark(timing)) for name, timing in timings.items()]
    return Table(title, "Each is a process of its own, in an empty folder, with its files.", rows)


def _reports(timing: Timing[Ran]) -> list[dict[str, Any]]:
    """Return the reports that the last run left, of a sweep those of its jobs."""
    paths = timing.result[1].rglob("report.json")
    return [json.loads(path.read_bytes()) for path in paths if path.parent.name != "best"]


def _training(timing: Timing[Ran]) -> str:
    return f"training {sum(report['seconds']['training'] for report in _reports(timing)):.2f} s"


def _train(*arguments: str) -> list[str]:
    return [str(ROOT / "train.py"), *arguments]


def _grid(scales: Iterable[float], regs: Iterable[float]) -> list[str]:
    lists = (",".join(f"{value:g}" for value in values) for values in (scales, regs))
    return ["-m", *(f"{key}={text}" for key, text in zip(("lr_scale", "reg"), lists, strict=True))]


def commands(rounds: int, quick: bool) -> Table:  # noqa: ARG001 (they are quick)
    """Time runs on the digits, the help, and the line that tells a mistake."""
    named = {TRAIN: _train()}
    named |= {f"{TRAIN} {name}": _train(name) for name in ("report.plots=false", "--help", "lr=-1")}
    return _table("Whole commands", named, rounds, _training, warm_up=True)


def images(rounds: int, quick: bool) -> Table:
    """Time runs and a sweep on 50,000 images, and one on 100,000 embeddings in 1,000 classes."""
    from data.sources.generated import SyntheticCifar

    n, side = (600, 2) if quick else (50_000, 8)
    made = ["data=synthetic_cifar", f"data.n_samples={n}", "epochs=3", "batch_size=256"]
    source = SyntheticCifar(n_samples=n // 5 * 6, val_fraction=0.0, test_fraction=0.0)
    train = source.load(np.random.default_rng(0)).train
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "cifar-10-batches-bin"
        root.mkdir()
        planes = np.asarray(train.X).transpose(0, 3, 1, 2).reshape(len(train), -1)
        records = np.split(np.column_stack([train.y.astype(np.uint8), planes]), 6)
        names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
        for name, part in zip(names, records, strict=True):
            (root / f"{name}.bin").write_bytes(part.tobytes())
        classes = "\n".join(f"class{c}" for c in range(10))
        (root / "batches.meta.txt").write_text(classes, encoding="utf-8")
        official = ["data=cifar10", f"data.root={root}", "epochs=10", "batch_size=256"]
        problem = problems.embeddings(quick=quick)
        np.savez(f"{place}/probe.npz", X=problem.X, y=problem.y)
        embeddings = [f"data.train={place}/probe.npz", "epochs=3", "batch_size=256"]
        named = {
            "one job, synthetic_cifar": _train(*made),
            "64 jobs of these": _train(*_grid(SCALES[:side], REGS[:side]), *made),
            "CIFAR-10's binary files, 10 epochs": _train(*official),
            "a probe, 1,000 classes, 3 epochs": _train(*embeddings),
        }
        return _table("Whole commands on images and embeddings", named, rounds, _training)


def sweep(rounds: int, quick: bool) -> Table:
    """Time a sweep on the digits and a grid search, and state the best validation accuracy.

    Everyone trains on the same 1,294 examples and judges on the same 144; nobody refits.
    """
    side = 2 if quick else 8
    grid = [*_grid(SCALES[:side], REGS[:side]), "objective=val_accuracy"]
    named = {
        OURS: _train(*grid),
        f"one of its jobs, {TRAIN}": _train(),
        "GridSearchCV, LogisticRegression": ["-c", SEARCH, str(side**2)],
    }

    def best(timing: Timing[Ran]) -> str:
        of_jobs = [report["metrics"]["val"]["accuracy"] for report in _reports(timing)]
        return f"best validation accuracy {max(of_jobs or [float(timing.result[0])]):.4f}"

    return _table(f"A sweep of {side**2} jobs, whole", named, rounds, best)


def grid_search(n: int) -> None:
    """Search n penalties of `LogisticRegression`, which has no step size, on the digits.

    They are split and standardised as by `python train.py`.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, PredefinedSplit

    from classifier.runs.preparation import generator
    from data.sources.generated import Digits

    warnings.simplefilter("ignore")  # of searches that have not converged
    dataset = Digits(val_fraction=0.1, test_fraction=0.2).load(generator(0, "data"))
    parts = [np.asarray(split.X).reshape(len(split), -1) for split in (dataset.train, dataset.val)]
    X = (np.concatenate(parts) - parts[0].mean(axis=0)) / (parts[0].std(axis=0) + 1e-12)
    fold = np.repeat([-1, 0], [len(part) for part in parts])  # -1: never held out
    model, grid = LogisticRegression(max_iter=1000), {"C": np.logspace(-4, 4, n)}
    search = GridSearchCV(model, grid, cv=PredefinedSplit(fold), refit=False, n_jobs=-1)
    search.fit(X, np.concatenate([dataset.train.y, dataset.val.y]))
    print(f"{search.best_score_:.4f}")


def streamed(rounds: int, quick: bool) -> Table:
    """Time runs on a pair of .npy files that the machine has in its cache, and on an .npz file."""
    problem = problems.cifar(quick=quick)
    size = problem.X.nbytes
    times = 2 if quick else -(-FILE_BYTES // size)

    def rate(timing: Timing[Ran]) -> str:
        (report,) = _reports(timing)
        read = report["epochs"] * report["metrics"]["train"]["n"] * size / len(problem.y)
        return f"epochs read {read / report['seconds']['training'] / 1e9:.2f} GB/s"

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        np.savez(place / "mine.npz", X=problem.X, y=problem.y)
        shape = (times * len(problem.y), problem.X.shape[1])
        X = np.lib.format.open_memmap(place / "X.npy", "w+", dtype=np.float32, shape=shape)
        for part in np.split(X, times):
            part[:] = problem.X
        X.flush()
        np.save(place / "y.npy", np.tile(problem.y, times))
        train = _train("epochs=4", "batch_size=256", "report.plots=false")
        pair = [f"data.train_X={place / 'X.npy'}", f"data.train_y={place / 'y.npy'}"]
        named = {"in memory": [*train, f"data.train={place / 'mine.npz'}"]}
        named[f"from a file of {X.nbytes / 1e9:.1f} GB"] = [*train, *pair]
        return _table("A file larger than what is kept in memory", named, rounds, rate)

"""Whole commands on as many images and embeddings as people have, beside what they train."""

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from benchmarks.cases.commands import ROOT, Ran, prepare_process, training
from benchmarks.measure import Timing, take_turns
from benchmarks.official import BATCHES, write_cifar10
from benchmarks.table import Bar, Row, Table
from data.sources.synthetic_cifar import Source

SIZE = 10_000  # images of a batch of CIFAR's
SCALES = [0.03, 0.1, 0.3, 1, 3, 10, 20, 30]
REGS = [0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1]
BATCH = "batch_size=256"
ONE, STACK = "one job, synthetic_cifar", "64 jobs of these"
OFFICIAL = "CIFAR-10's layout, 10 epochs"
PROBE = "a probe, 1,000 classes, 3 epochs"
MANY = "1,000 jobs on the digits"


def images(rounds: int, quick: bool) -> Table:
    """Time runs on 50,000 images and a sweep of 64 jobs, every file and picture made."""
    made = ["data=synthetic_cifar", f"data.n_samples={500 if quick else 50_000}", "epochs=3", BATCH]
    side = 2 if quick else 8
    grid = ["-m", f"lr_scale={_values(SCALES[:side])}", f"reg={_values(REGS[:side])}"]
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "official"
        _write_official(root, 10 if quick else SIZE)
        official = ["data=cifar10", f"data.root={root}", "epochs=10", BATCH]
        commands = {ONE: made, STACK: [*grid, *made], OFFICIAL: official}
        timings = take_turns(_processes(commands, place), rounds, warm_up=False)
        alone, stack, whole = (timings[name] for name in (ONE, STACK, OFFICIAL))
        bars = [
            Bar(f"{STACK}, beside one", stack.median / alone.median, 3),
            Bar(f"{OFFICIAL}, whole beside training", whole.median / training(whole), 2),
        ]
        return _table("Whole commands on 50,000 images", timings, bars, ONE, quick)


def probe(rounds: int, quick: bool) -> Table:
    """Time a run on 100,000 embeddings of 1,024 numbers in 1,000 classes."""
    n, n_classes = (1_000, 10) if quick else (100_000, 1_000)
    rng = np.random.default_rng(0)
    y = rng.integers(0, n_classes, n)
    centres = 0.3 * rng.standard_normal((n_classes, 1024), dtype=np.float32)
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "probe.npz"
        np.savez(file, X=centres[y] + rng.standard_normal((n, 1024), dtype=np.float32), y=y)
        command = ["data=arrays", f"data.train={file}", "epochs=3", BATCH]
        timings = take_turns(_processes({PROBE: command}, place), rounds, warm_up=False)
        share = timings[PROBE].median / training(timings[PROBE])
        bars = [Bar("whole beside training", share, 1.5)]
        return _table("A whole command on embeddings", timings, bars, PROBE, quick)


def thousand(rounds: int, quick: bool) -> Table:
    """Time a sweep of a thousand jobs on the digits."""
    scales, regs = (
        np.geomspace(1e-3, 2, 2 if quick else 25),
        np.geomspace(1e-9, 10, 2 if quick else 40),
    )
    grid = ["-m", f"lr_scale={_values(scales)}", f"reg={_values(regs)}"]
    with tempfile.TemporaryDirectory() as place:
        timings = take_turns(_processes({MANY: grid}, place), rounds, warm_up=False)
        each = 1e3 * timings[MANY].median / (len(scales) * len(regs))
        return _table(
            "A thousand jobs, whole", timings, [Bar("a job", each, 25, " ms")], MANY, quick
        )


def _processes(
    commands: dict[str, list[str]], place: str
) -> dict[str, Callable[[], Callable[[], Ran]]]:
    train = str(ROOT / "train.py")
    return {name: prepare_process([train, *own], Path(place)) for name, own in commands.items()}


def _table(
    title: str, timings: dict[str, Timing[Ran]], bars: list[Bar], base: str, quick: bool
) -> Table:
    setting = "Each is a process of its own, in an empty folder, with all that it writes."
    rows = [Row(name, timing, _remark(timing)) for name, timing in timings.items()]
    return Table(title, setting, rows, [] if quick else bars, base=base)


def _remark(timing: Timing[Ran]) -> str:
    return f"training {training(timing):.2f} s"


def _write_official(root: Path, size: int) -> None:
    n = size * len(BATCHES)
    source = Source(n_samples=n, val_fraction=0.0, test_fraction=0.0)
    train = source.load(np.random.default_rng(0)).train
    write_cifar10(root, np.asarray(train.X), train.y)


def _values(values: Iterable[float]) -> str:
    return ",".join(f"{value:g}" for value in values)

"""A file larger than what is kept in memory, beside the same kind of data in memory."""

import csv
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import problems
from benchmarks.cases.commands import ROOT
from benchmarks.measure import Timing
from benchmarks.problems import Problem
from benchmarks.table import Bar, Row, Table

FILE_BYTES = 6 * 10**9
EPOCHS = 4  # the first of which starts threads and fills the machine's cache of files
MEMORY, FILE = "in memory", "from the file"
MEASURED = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""


def streamed(rounds: int, quick: bool) -> Table:  # noqa: ARG001 (epochs are the rounds)
    """Time an epoch of `python train.py data=arrays` from a pair of .npy files, once cached.

    Times are of 50,000 examples; the memory is the largest resident set of the process.
    """
    problem = problems.cifar(500) if quick else problems.cifar()
    times = 2 if quick else math.ceil(FILE_BYTES / problem.X.nbytes)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        size = _write(problem, times, place)
        runs = {
            FILE: _run(place, ["data.train_X=X.npy", "data.train_y=y.npy"], times),
            MEMORY: _run(place, ["data.train=mine.npz"], 1),
        }
    rows = [
        Row(name, timing, f"at most {resident / 2**20:,.0f} MiB resident")
        for name, (timing, resident) in runs.items()
    ]
    table = Table(
        f"A file of {size / 1e9:.1f} GB, an epoch of {problem.shape}",
        f"batch size 256, float32, {EPOCHS} epochs of which the first does not count.",
        rows,
        base=MEMORY,
    )
    if not quick:
        rate = 100 * table.median(MEMORY) / table.median(FILE)
        table.bars += [
            Bar("rate beside that in memory", rate, 50, "%", at_least=True),
            Bar("resident memory", runs[FILE][1] / 1e9, 1.0, " GB"),
        ]
    return table


def _write(problem: Problem, times: int, place: Path) -> int:
    """Write the data once as an .npz and `times` over as a pair; return the pair's bytes."""
    np.savez(place / "mine.npz", X=problem.X, y=problem.y)
    n = len(problem.y)
    shape = (times * n, problem.X.shape[1])
    X = np.lib.format.open_memmap(place / "X.npy", "w+", dtype=np.float32, shape=shape)
    for start in range(0, len(X), n):
        X[start : start + n] = problem.X
    X.flush()
    np.save(place / "y.npy", np.tile(problem.y, times))
    return int(X.nbytes)


def _run(place: Path, data: list[str], times: int) -> tuple[Timing[None], int]:
    """Train in a process of its own; return its epochs' times and its peak of memory in bytes."""
    arguments = [
        *("data=arrays", *data, "data.val_fraction=0", "data.test_fraction=0", "batch_size=256"),
        *(f"epochs={EPOCHS}", "report.plots=false", f"hydra.run.dir=run{times}"),
    ]
    # A process begins with the memory of the one that started it, so a small one does that.
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, sys.executable, str(ROOT / "train.py"), *arguments],
        cwd=place,
        capture_output=True,
        text=True,
        check=True,
    )
    with (place / f"run{times}/history.csv").open(newline="", encoding="utf-8") as file:
        seconds = [float(row["seconds"]) / times for row in csv.DictReader(file)]
    return Timing(seconds[1:], None), 1024 * int(done.stderr.split()[-1])

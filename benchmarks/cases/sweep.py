"""A whole sweep over step size and penalty on the digits, beside scikit-learn's grid search."""

import json
import tempfile
from pathlib import Path

from benchmarks.cases.commands import ROOT, prepare_process
from benchmarks.measure import take_turns
from benchmarks.table import OURS, Bar, Row, Table

LR_SCALES = [0.03, 0.1, 0.3, 1, 2, 3, 5, 10]
REGS = [0, 1e-6, 1e-5, 1e-4, 3e-4, 1e-3, 1e-2, 1e-1]
SEARCH = ["-m", "benchmarks.grid_search"]
PLOTTED = f"{OURS}, with the plots of all jobs"
ALONE = "one run, python train.py"


def sweep(rounds: int, quick: bool) -> Table:
    """Time each search as a process of its own, and state the best validation accuracy.

    Everyone trains on the same 1,294 examples and judges on the same 144; nobody refits.
    """
    side = 2 if quick else 8
    grid = [
        "-m",
        *(f"lr_scale={_values(LR_SCALES[:side])}", f"reg={_values(REGS[:side])}"),
        *("objective=val_accuracy", "hydra.sweep.dir=sweep"),
    ]
    train = [str(ROOT / "train.py"), *grid]
    searches = {
        OURS: train,
        ALONE: [str(ROOT / "train.py")],
        **({} if quick else {PLOTTED: [*train, "report.plots=all"]}),
        "GridSearchCV, LogisticRegression": [*SEARCH, "logistic", str(side)],
        "GridSearchCV, SGDClassifier": [*SEARCH, "sgd", str(side)],
    }
    with tempfile.TemporaryDirectory() as folder:
        contenders = {name: prepare_process(a, Path(folder)) for name, a in searches.items()}
        timings = take_turns(contenders, rounds, warm_up=False)
        rows = [
            Row(name, timing, f"best validation accuracy {_best(*timing.result):.4f}")
            for name, timing in timings.items()
            if name != ALONE
        ]
        rows.insert(1, Row(ALONE, timings[ALONE]))
    times = timings[OURS].median / timings[ALONE].median
    rival = timings["GridSearchCV, LogisticRegression"].median / timings[OURS].median
    bars = [
        Bar("64 jobs beside one run", times, 4),
        Bar("faster than GridSearchCV, LogisticRegression", rival, 1, at_least=True),
    ]
    setting = f"{side} x {side} jobs on the digits, float32 and float64 as each has it by default."
    title = f"A sweep of {side**2} jobs, whole"
    return Table(title, setting, rows, [] if quick else bars)


def _values(values: list[float]) -> str:
    return ",".join(f"{value:g}" for value in values)


def _best(printed: str, place: Path) -> float:
    """Return the accuracy of the best job: of the sweep's summary, or what was printed last."""
    summary = place / "sweep" / "sweep.json"
    if summary.exists():
        return float(json.loads(summary.read_text(encoding="utf-8"))["best"]["val_accuracy"])
    return float(printed.rsplit(maxsplit=1)[-1])

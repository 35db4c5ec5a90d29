"""What trackers report of a run: settings, curves and figures, read from the run's folder."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from classifier.fit import Epoch
from classifier.report.settings import near_optimum
from classifier.runs.artifacts import PATH, TRACKER, copied_to, read_history
from classifier.runs.config import Value, labels_of
from classifier.runs.folder import SWEEP
from classifier.sweep.folders import Record
from data.errors import printable

CURVES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr")  # of the history
ARTIFACTS = ("sweep.*", SWEEP, PATH, *copied_to(TRACKER), ".hydra/config.yaml")


class Scalar(NamedTuple):
    """A figure, with the epoch it belongs to and its time in seconds since 1970."""

    name: str
    value: float
    epoch: int
    time: float


def span(records: Sequence[Record]) -> tuple[float, float]:
    """Return when the first run was begun and the last one ended, in seconds since 1970.

    Hydra writes its own config once, at the very beginning; the status is written last.
    """
    names = (".hydra/hydra.yaml", "status.json")
    places = [record.folder / name for record in records for name in names]
    times = [place.stat().st_mtime for place in places if place.exists()]
    return min(times), max(times)


def labels(record: Record) -> dict[str, str]:
    """Return the name and the tags of a run, where it has any."""
    name, tags = labels_of(record.config)
    return {k: text for k, text in (("name", name), ("tags", ", ".join(tags))) if text}


def texts(record: Record) -> dict[str, str]:
    """Return the status of a run and why it is so, and its labels."""
    return {"status": record.status, "reason": str(record.reason)} | labels(record)


def scalars(record: Record, told: int = 0) -> list[Scalar]:
    """Return the curves of a run, and the figures of the weights it kept at their epoch.

    Of the curves it is what comes after so many epochs, which a tracker was told of already.
    """
    (begun, end), history = span([record]), record.folder / "history.csv"
    points = curves(read_history(history), begun, told) if history.exists() else []
    if record.report:
        epoch, kept = record.report["best_epoch"], final_figures(record.report)
        points += [Scalar(name, value, epoch, end) for name, value in kept.items()]
    return points


def curves(history: Sequence[Epoch], begun: float, told: int) -> list[Scalar]:
    """Return what is finite of the curves of a run that was begun at a time; see `scalars`."""
    points, time = list[Scalar](), begun
    for row in history:
        time += row.seconds
        points += [Scalar(name, getattr(row, name), row.epoch, time) for name in CURVES]
    known = [point for point in points if point.value is not None and math.isfinite(point.value)]
    return [point for point in known if point.epoch > told]


def final_figures(report: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of a report: test_loss, best_val_loss, best_train_loss and so on.

    Those of the best epoch's weights on the training and validation splits have names apart from
    the curves'.
    """
    figures = {"objective": report["objective"], "optimum_relative": near_optimum(report)}
    figures |= {f"resolved_{name}": report[name] for name in ("lr", "reg")}  # lr is a curve
    names = {"train": "best_train", "val": "best_val", "test": "test"}
    parts = {names[split]: metrics for split, metrics in report["metrics"].items()}
    parts["cv"] = report.get("cross_validation")
    for name, part in parts.items():
        figures |= {f"{name}_{key}": value for key, value in (part or {}).items()}
    finite = {k: v for k, v in figures.items() if isinstance(v, float) and math.isfinite(v)}
    return finite | {"best_epoch": report["best_epoch"]}


def files(folder: Path) -> list[Path]:
    """Return the files of a run or a sweep worth keeping elsewhere: all but its checkpoint."""
    return sorted({p for pattern in ARTIFACTS for p in folder.glob(pattern) if p.is_file()})


def as_text(value: Value) -> str:
    """Return a config's value as it is written in YAML: null, true, 0.1, text."""
    return printable(value) if isinstance(value, str) else json.dumps(value)

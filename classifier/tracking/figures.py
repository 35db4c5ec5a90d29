"""What trackers report of a run: settings, curves and figures, read from the run's folder."""

import json
import math
from collections.abc import Sequence
from itertools import accumulate
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


def span(*folders: Path) -> tuple[float, float]:
    """Return when the first run was begun and the last one ended, in seconds since 1970.

    Hydra writes its own config once, at the very beginning; the status is written last.
    """
    names = (".hydra/hydra.yaml", "status.json")
    places = [folder / name for folder in folders for name in names]
    times = [place.stat().st_mtime for place in places if place.exists()]
    return min(times), max(times)


def label_texts(record: Record) -> dict[str, str]:
    """Return the name and the tags of a run, where it has any."""
    name, tags = labels_of(record.config)
    return {k: text for k, text in (("name", name), ("tags", ", ".join(tags))) if text}


class Listener:
    """A run that a tracker is told of, perhaps while it goes on: of each epoch once."""

    _last_epoch = 0

    def tell(self, scalars: Sequence[Scalar]) -> None:
        """Tell those scalars of a run that the tracker does not have."""
        new = [s for s in scalars if s.name not in CURVES or s.epoch > self._last_epoch]
        if new:
            self.write(new)
            self._last_epoch = max(scalar.epoch for scalar in new)

    def write(self, scalars: Sequence[Scalar]) -> None:
        """Hand scalars to the tracker."""
        raise NotImplementedError


def scalars(record: Record) -> list[Scalar]:
    """Return the curves of a run, and the figures of the weights it kept at their epoch."""
    (begun, end), history = span(record.folder), record.folder / "history.csv"
    points = curves(read_history(history), begun) if history.exists() else []
    if record.report:
        epoch, kept = record.report["best_epoch"], final_figures(record.report)
        points += [Scalar(name, value, epoch, end) for name, value in kept.items()]
    return points


def curves(history: Sequence[Epoch], begun: float) -> list[Scalar]:
    """Return the curves of a run that was begun at a time, without what is not finite."""
    ends = accumulate((row.seconds for row in history), initial=begun)
    points = [
        Scalar(name, getattr(row, name), row.epoch, time)
        for row, time in zip(history, [*ends][1:], strict=True)
        for name in CURVES
    ]
    return [point for point in points if point.value is not None and math.isfinite(point.value)]


def final_figures(report: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of a report: test_loss, best_val_loss, best_train_loss and so on.

    Those of the best epoch's weights on the training and validation splits have names apart from
    the curves'.
    """
    figures = {"objective": report["objective"], "resolved_reg": report["reg"]}
    figures["resolved_lr"] = report["lr"]  # lr is a curve
    near = {"relative": near_optimum(report)}
    parts = {"cv": report.get("cross_validation"), "optimum": near}
    for split, metrics in report["metrics"].items():
        parts["test" if split == "test" else f"best_{split}"] = metrics
    for name, part in parts.items():
        figures |= {f"{name}_{key}": value for key, value in (part or {}).items()}
    finite = {k: v for k, v in figures.items() if isinstance(v, float) and math.isfinite(v)}
    return finite | {"best_epoch": report["best_epoch"]}


def artifacts(folder: Path) -> list[Path]:
    """Return the files of a run or a sweep worth keeping elsewhere: all but its checkpoint."""
    return sorted({p for pattern in ARTIFACTS for p in folder.glob(pattern) if p.is_file()})


def as_text(value: Value) -> str:
    """Return a config's value as it is written in YAML: null, true, 0.1, text."""
    return printable(value) if isinstance(value, str) else json.dumps(value)

"""What trackers report of a run: settings, curves and figures, read from the run's folder."""

import json
import math
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from classifier.fit import Epoch
from classifier.report.sweep_figures import PATH
from classifier.runs.artifacts import TRACKER, copied_to, read_history
from classifier.runs.config import Value, labels_of
from classifier.runs.folder import SWEEP
from classifier.sweep.folders import Record
from data.console import printable

CURVES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr")  # of the history
ARTIFACTS = ("sweep.*", SWEEP, PATH, *copied_to(TRACKER), ".hydra/config.yaml")


class Scalar(NamedTuple):
    """A figure, with the epoch it belongs to and its time in seconds since 1970."""

    name: str
    value: float
    epoch: int
    time: float


def span(folder: Path) -> tuple[float, float]:
    """Return when a run was begun and when it ended, in seconds since 1970.

    Hydra writes its own config once, at the very beginning; the status is written last.
    """
    places = [folder / ".hydra/hydra.yaml", folder / "status.json"]
    times = [place.stat().st_mtime for place in places if place.exists()]
    return min(times), max(times)


def label_texts(record: Record) -> dict[str, str]:
    """Return the name and the tags of a run, where it has any."""
    labels = labels_of(record.config)
    texts = {"name": labels.name, "tags": labels.shown}
    return {key: value for key, value in texts.items() if value}


def scalars(record: Record) -> list[Scalar]:
    """Return the curves of a run, and the figures of the weights it kept at their epoch."""
    begun, end = span(record.folder)
    history = record.folder / "history.csv"
    kept = final_figures(record.report) if record.report else {}
    return curves(read_history(history) if history.exists() else [], begun) + [
        Scalar(name, value, int(kept["best_epoch"]), end)
        for name, value in kept.items()
        if math.isfinite(value)
    ]


def scalars_after(record: Record, epoch: int) -> list[Scalar]:
    """Return the scalars of a run but for its curves up to an epoch, which a tracker has."""
    return [one for one in scalars(record) if one.name not in CURVES or one.epoch > epoch]


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
    # lr is the curve of the schedule.
    figures = {"objective": report["objective"]}
    figures |= {} if report["lr"] is None else {"resolved_lr": report["lr"]}
    for split, metrics in report["metrics"].items():
        kept = split if split == "test" else f"best_{split}"
        figures |= {f"{kept}_{name}": value for name, value in (metrics or {}).items()}
    for name, part in (("cv", "cross_validation"), ("optimum", "certificate")):
        figures |= {f"{name}_{key}": value for key, value in (report.get(part) or {}).items()}
    figures = {name: value for name, value in figures.items() if isinstance(value, float)}
    return figures | {"best_epoch": report["best_epoch"]}


def artifacts(folder: Path) -> list[Path]:
    """Return the files of a run or a sweep worth keeping elsewhere: all but its checkpoint."""
    paths = {path for pattern in ARTIFACTS for path in folder.glob(pattern)}
    return sorted(path for path in paths if path.is_file())


def as_text(value: Value) -> str:
    """Return a config's value as it is written in YAML: null, true, 0.1, text."""
    return printable(value) if isinstance(value, str) else json.dumps(value)

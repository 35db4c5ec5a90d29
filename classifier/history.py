"""The history of a run: a row an epoch, and its CSV file."""

import csv
import io
from pathlib import Path
from typing import NamedTuple

from classifier.files import write_text


class Epoch(NamedTuple):
    """A row of the history.

    The training figures are means over the epoch's minibatches, each taken before its update; the
    validation figures are those at the epoch's end, None without a validation split. Losses are
    in nats and without the penalty. lr is that of the epoch's last step; seconds are this epoch's.
    """

    epoch: int
    step: int
    lr: float
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    seconds: float


def write_history(path: Path, rows: list[Epoch]) -> None:
    """Write history.csv; a figure that does not exist is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Epoch._fields)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_history(path: Path) -> list[Epoch]:
    """Read a file that `write_history` wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        next(rows)
        return [_parse(*row) for row in rows]


def _parse(epoch: str, step: str, *figures: str) -> Epoch:
    return Epoch(int(epoch), int(step), *(float(f) if f else None for f in figures))  # type: ignore[arg-type]

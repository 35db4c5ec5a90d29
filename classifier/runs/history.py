"""history.csv: a row an epoch."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from classifier.fit import Epoch
from data.files.store import write_text


def write_history(path: Path, rows: Sequence[Epoch]) -> None:
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

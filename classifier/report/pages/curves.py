"""The validation loss of a sweep's jobs by epoch, for its page to show where one points."""

import json
import math
from pathlib import Path
from urllib.parse import quote

from classifier.report.sweep_values import Row
from classifier.runs.history import read_history

CURVES = 300  # jobs of which a page has one, at most
POINTS = 40  # of a curve, at most


def curves(sweep: Path, jobs: list[Row], links: dict[str, str]) -> str:
    """Return the curves of the first jobs as JSON: by link a list of epochs and one of losses."""
    found = {}
    for job in jobs[:CURVES]:
        curve = _curve(sweep / job["folder"] / "history.csv")
        if curve is not None and links[job["job"]]:
            found[quote(links[job["job"]])] = curve
    return json.dumps(found, separators=(",", ":"))


def _curve(path: Path) -> tuple[list[int], list[float]] | None:
    """Return epochs and validation losses of a job, training losses where there are none."""
    try:
        history = read_history(path)
    except (OSError, ValueError, TypeError, StopIteration):  # none, or cut short
        return None
    losses = [(row.epoch, row.val_loss) for row in history if row.val_loss is not None]
    losses = losses or [(row.epoch, row.train_loss) for row in history]
    known = [(epoch, loss) for epoch, loss in losses if math.isfinite(loss)]
    if len(known) < 2:
        return None
    step = max(1.0, (len(known) - 1) / (POINTS - 1))
    last = round((len(known) - 1) / step)
    kept = [known[round(k * step)] for k in range(last + 1)]
    return [epoch for epoch, _ in kept], [float(f"{loss:.3g}") for _, loss in kept]

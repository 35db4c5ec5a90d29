"""The curves of compared runs over each other, one colour a run."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from classifier.report.charts import Axis, Chart, Dot, Zone, loss_axis, span
from classifier.report.pages.compared import Compared

POINTS = 400  # of a line at most, and stripes to point at: a drawing has about as many pixels


class Series(NamedTuple):
    """A figure of a run by epoch; `is_main` of the one of its two that speaks for new examples."""

    run: Compared
    figures: dict[int, float]
    is_main: bool


def curve(runs: Sequence[Compared], figure: str) -> Chart:
    """Return the loss or the accuracy of all runs by epoch, on the same axes."""
    is_loss = figure == "loss"
    series = [one for run in runs for one in _series(run, figure)]
    known = [value for one in series for value in one.figures.values()]
    last = max((row.epoch for run in runs for row in run.history), default=1)
    chart = Chart(
        "Loss" if is_loss else "Accuracy",
        "epoch",
        "cross-entropy, nats an example" if is_loss else "% of examples",
        x=Axis(0.5, last + 0.5),
        y=loss_axis(known) if is_loss else span(known),
    )
    chart.x_ticks = [(t, f"{t:.0f}") for t in chart.x.ticks() if t == round(t)]
    for one in series:
        _draw(chart, one)
    _add_stripes_to_point_at(chart, [one for one in series if one.is_main], last)
    return chart


def _series(run: Compared, figure: str) -> list[Series]:
    """Return validation and training by epoch; training alone where there is no validation."""
    unit = 1.0 if figure == "loss" else 100.0
    val, train = (
        {
            row.epoch: unit * value
            for row in run.history
            if (value := getattr(row, f"{split}_{figure}")) is not None and math.isfinite(value)
        }
        for split in ("val", "train")
    )
    return (
        [Series(run, train, False), Series(run, val, True)] if val else [Series(run, train, True)]
    )


def _draw(chart: Chart, series: Series) -> None:
    """Draw a line, and on a main one the epoch whose weights were kept."""
    run, figures, is_main = series
    points = list(figures.items())
    step = max(1, -(-len(points) // POINTS))
    drawn = dict(points[(len(points) - 1) % step :: step])  # the last one among them
    label, kind = (run.letter, run.kind) if is_main else ("", f"{run.kind} mean")
    chart.add_line(label, kind, [*drawn], [*drawn.values()])
    epoch = run.report["best_epoch"]
    kept = figures.get(epoch) if is_main else None
    if kept is not None and (kept > 0 or not chart.y.log):
        at = chart.at_x(epoch), chart.at_y(kept)
        text = f"{run.letter}, kept: epoch {epoch}, {kept:.4g}"
        chart.dots.append(Dot(*at, 4.5, run.kind, text))


def _add_stripes_to_point_at(chart: Chart, series: list[Series], last: int) -> None:
    """Let a pointer over an epoch show the figures of all runs."""
    step = max(1, -(-last // POINTS))
    width = chart.at_x(1 + step) - chart.at_x(1)
    for epoch in range(1, last + 1, step):
        known = [one for one in series if epoch in one.figures]
        said = ", ".join(f"{one.run.letter} {one.figures[epoch]:.4g}" for one in known)
        chart.zones.append(Zone(chart.at_x(epoch - 0.5), width, f"epoch {epoch}: {said}"))

"""The picture of a sweep, from the rows of its summary."""

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from classifier.report.settings import REPETITIONS
from classifier.report.sweep_values import (
    Row,
    best_job,
    best_of_pairs,
    is_done,
    is_number,
    shown_keys,
)

WIDE, HIGH, TITLE = 5.2, 4.0, 0.3  # inches of a panel, and of the title above all
LEFT, RIGHT, BOTTOM, TOP = 0.75, 0.2, 0.75, 0.25  # of a panel, around its axes, at least
LABEL, BAR = 0.42, 1.12  # inches of an axis without the names of its values, of a colour bar
NAME = 24  # characters of a value that are shown
POINT, LINE, LOST = "#1f77b4", "#d95f02", "#b2182b"


def sweep_figure(rows: list[Row], swept: list[str], objective: str) -> Figure:
    """Draw the objective against every swept key, and a heat map for each pair of keys.

    A number is drawn on the scale it was swept on, anything else as bars. Jobs that diverged or
    failed are crosses at the worse edge; the best job is ringed. Each heat map shows the best
    objective over whatever else was swept.
    """
    keys, pairs = shown_keys(rows, swept)
    panels = max(1, len(keys) + len(pairs))
    columns = min(3, panels)
    lines = -(-panels // columns)
    figure = Figure(figsize=(WIDE * columns, HIGH * lines + TITLE), dpi=110)
    axes = [_panel(figure, k, columns, lines) for k in range(panels)]
    for ax, key in zip(axes, keys, strict=False):
        known = [row for row in rows if row[key] is not None]
        numbers = all(is_number(row[key]) for row in known) and key not in REPETITIONS
        (_draw_numbers if numbers else _draw_bars)(ax, known, key, objective)
    for ax, pair in zip(axes[len(keys) :], pairs, strict=False):
        known = [row for row in rows if None not in (row[pair[0]], row[pair[1]])]
        _draw_heat_map(figure, ax, known, pair, objective)
    done = sum(row["status"] == "completed" for row in rows)
    said = f"{done} of {len(rows)} jobs completed; the best by {objective} is ringed"
    figure.suptitle(said, y=1 - 0.08 / (HIGH * lines + TITLE))
    return figure


def _panel(figure: Figure, number: int, columns: int, lines: int) -> Axes:
    """Return the axes of a panel, at a fixed place: a layout engine would draw all twice."""
    line, column = divmod(number, columns)
    width, height = WIDE * columns, HIGH * lines + TITLE
    left, bottom = WIDE * column + LEFT, HIGH * (lines - 1 - line) + BOTTOM
    size = (WIDE - LEFT - RIGHT) / width, (HIGH - BOTTOM - TOP) / height
    return figure.add_axes((left / width, bottom / height, *size))


def _make_room(axes: Axes, left: float = LEFT, bottom: float = BOTTOM, right: float = 0.0) -> None:
    """Let there be so many inches at the left and below, and more at the right."""
    assert isinstance(axes.figure, Figure)
    width, height = axes.figure.get_size_inches()
    place = axes.get_position()
    more, up = max(0.0, left - LEFT), max(0.0, bottom - BOTTOM)
    size = place.width - (more + right) / width, place.height - up / height
    axes.set_position((place.x0 + more / width, place.y0 + up / height, *size))


def _longest(names: list[str], font: float) -> float:
    """Return about the inches that the longest of some names takes, and the axis with them."""
    return LABEL + 0.0085 * font * max(map(len, names), default=0)


def _draw_numbers(axes: Axes, rows: list[Row], key: str, objective: str) -> None:
    values = sorted({row[key] for row in rows})
    _set_scale(axes, values)
    done = [row for row in rows if is_done(row, objective)]
    axes.plot(
        *([row[key] for row in done], [row[objective] for row in done]),
        "o",
        color=POINT,
        alpha=0.6,
        label="a job",
    )
    best = [best_job(rows, objective, {key: value}) for value in values]
    found = [(row[key], row[objective]) for row in best if row is not None]
    axes.plot(*zip(*found, strict=True), color=LINE, label="best") if found else None
    _mark(axes, rows, [row[key] for row in rows], objective)
    axes.set_xlabel(key)
    axes.set_ylabel(objective)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)


def _draw_bars(axes: Axes, rows: list[Row], key: str, objective: str) -> None:
    """Draw a bar a job, grouped by value."""
    ordered = sorted(rows, key=lambda row: str(row[key]))
    places = list(range(len(ordered)))
    heights = [row[objective] if is_done(row, objective) else 0 for row in ordered]
    values = [str(row[key]) for row in ordered]
    distinct = list(dict.fromkeys(values))
    axes.bar(places, heights, color=[f"C{distinct.index(v) % 10}" for v in values])
    _mark(axes, ordered, places, objective)
    middles = [float(np.mean([p for p in places if values[p] == v])) for v in distinct]
    rotation = 90 if max(map(len, distinct)) * len(distinct) > 40 else 0
    names = [v[:NAME] for v in distinct]
    axes.set_xticks(middles, names, rotation=rotation, parse_math=False)
    if rotation:
        _make_room(axes, bottom=_longest(names, 10))
    axes.set_xlabel(f"{key} (a bar a job)")
    axes.set_ylabel(objective)


def _draw_heat_map(
    figure: Figure, axes: Axes, rows: list[Row], pair: tuple[str, str], objective: str
) -> None:
    columns, lines, best = best_of_pairs(rows, pair, objective)
    cells = [[math.nan if row is None else row[objective] for row in line] for line in best]
    colours = "viridis" if objective.endswith("accuracy") else "viridis_r"
    image = axes.imshow(cells, cmap=colours, origin="lower", aspect="auto")
    names = [
        [f"{v:.3g}" if isinstance(v, float) else str(v)[:NAME] for v in vs]
        for vs in (columns, lines)
    ]
    _make_room(axes, _longest(names[1], 8), _longest(names[0], 8), right=BAR - RIGHT)
    place, width = axes.get_position(), figure.get_size_inches()[0]
    bar = figure.add_axes((place.x1 + 0.15 / width, place.y0, 0.16 / width, place.height))
    figure.colorbar(image, cax=bar, label=objective)
    axes.set_xticks(range(len(columns)), names[0], rotation=90, fontsize=8, parse_math=False)
    axes.set_yticks(range(len(lines)), names[1], fontsize=8, parse_math=False)
    axes.set_xlabel(pair[0])
    axes.set_ylabel(pair[1])
    axes.set_title("best of the others; white: none completed", fontsize=8, y=1)


def _set_scale(axes: Axes, values: list[float]) -> None:
    """Take a log axis for values over a decade or more, with a linear piece around zero."""
    positive = [v for v in values if v > 0]
    if not positive or values[0] < 0 or positive[-1] < 10 * positive[0]:
        return
    if values[0] > 0:
        axes.set_xscale("log")
    else:
        axes.set_xscale("symlog", linthresh=positive[0])


def _mark(axes: Axes, rows: list[Row], places: list[Any], objective: str) -> None:
    """Ring the best job and cross those that diverged or failed."""
    lost = [p for p, row in zip(places, rows, strict=True) if not is_done(row, objective)]
    if lost:
        edge = 0.02 if objective.endswith("accuracy") else 0.98
        axes.plot(
            *(lost, [edge] * len(lost)),
            "x",
            color=LOST,
            transform=axes.get_xaxis_transform(),
            label="diverged or failed",
        )
    best = best_job(rows, objective)
    if best is not None:
        place = places[rows.index(best)]
        axes.plot([place], [best[objective]], "o", ms=13, mfc="none", mec=LOST, mew=1.5)

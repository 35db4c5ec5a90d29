"""The picture of a sweep, from the rows of its summary."""

import itertools
import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Row = dict[str, Any]
POINT, LINE, LOST = "#1f77b4", "#d95f02", "#b2182b"
PAIRS = 6  # heat maps, at most


def sweep_figure(rows: list[Row], swept: list[str], objective: str) -> Figure:
    """Draw the objective against every swept key, and a heat map for each pair of keys.

    A number is drawn on the scale it was swept on, anything else as bars. Jobs that diverged or
    failed are crosses at the worse edge; the best job is ringed. Each heat map shows the best
    objective over whatever else was swept.
    """
    keys = [key for key in swept if any(row[key] is not None for row in rows)]
    pairs = list(itertools.combinations(keys, 2))[:PAIRS]
    panels = max(1, len(keys) + len(pairs))
    columns = min(3, panels)
    lines = -(-panels // columns)
    figure = Figure(figsize=(5.2 * columns, 4.2 * lines), dpi=110, layout="constrained")
    axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for spare in axes[panels:]:
        spare.axis("off")
    for ax, key in zip(axes, keys, strict=False):
        known = [row for row in rows if row[key] is not None]
        numbers = _are_numbers([row[key] for row in known]) and key != "seed"
        (_draw_numbers if numbers else _draw_bars)(ax, known, key, objective)
    for ax, pair in zip(axes[len(keys) :], pairs, strict=False):
        known = [row for row in rows if None not in (row[pair[0]], row[pair[1]])]
        _draw_heat_map(figure, ax, known, pair, objective)
    done = sum(row["status"] == "completed" for row in rows)
    figure.suptitle(f"{done} of {len(rows)} jobs completed; the best by {objective} is ringed")
    return figure


def _draw_numbers(axes: Axes, rows: list[Row], key: str, objective: str) -> None:
    values = sorted({row[key] for row in rows})
    _set_scale(axes, values)
    done = [row for row in rows if _is_done(row, objective)]
    axes.plot(
        *([row[key] for row in done], [row[objective] for row in done]),
        "o",
        color=POINT,
        alpha=0.6,
        label="a job",
    )
    found = [(v, _best(rows, {key: v}, objective)) for v in values]
    found = [(v, best) for v, best in found if best is not None]
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
    heights = [row[objective] if _is_done(row, objective) else 0 for row in ordered]
    values = [str(row[key]) for row in ordered]
    distinct = list(dict.fromkeys(values))
    axes.bar(places, heights, color=[f"C{distinct.index(v) % 10}" for v in values])
    _mark(axes, ordered, places, objective)
    middles = [float(np.mean([p for p in places if values[p] == v])) for v in distinct]
    rotation = 90 if max(map(len, distinct)) * len(distinct) > 40 else 0
    axes.set_xticks(middles, [v[:24] for v in distinct], rotation=rotation, parse_math=False)
    axes.set_xlabel(f"{key} (a bar a job)")
    axes.set_ylabel(objective)


def _draw_heat_map(
    figure: Figure, axes: Axes, rows: list[Row], pair: tuple[str, str], objective: str
) -> None:
    columns, lines = (_distinct(rows, key) for key in pair)
    cells = np.full((len(lines), len(columns)), np.nan)
    for (i, line), (j, column) in itertools.product(enumerate(lines), enumerate(columns)):
        best = _best(rows, {pair[0]: column, pair[1]: line}, objective)
        cells[i, j] = math.nan if best is None else best
    colours = "viridis" if objective.endswith("accuracy") else "viridis_r"
    image = axes.imshow(cells, cmap=colours, origin="lower", aspect="auto")
    figure.colorbar(image, ax=axes, label=objective)
    names = [
        [f"{v:.3g}" if isinstance(v, float) else str(v) for v in vs] for vs in (columns, lines)
    ]
    axes.set_xticks(range(len(columns)), names[0], rotation=90, fontsize=8, parse_math=False)
    axes.set_yticks(range(len(lines)), names[1], fontsize=8, parse_math=False)
    axes.set_xlabel(pair[0])
    axes.set_ylabel(pair[1])
    axes.set_title("best of the others; white: none completed", fontsize=8)


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
    lost = [p for p, row in zip(places, rows, strict=True) if not _is_done(row, objective)]
    if lost:
        edge = 0.02 if objective.endswith("accuracy") else 0.98
        axes.plot(
            *(lost, [edge] * len(lost)),
            "x",
            color=LOST,
            transform=axes.get_xaxis_transform(),
            label="diverged or failed",
        )
    best = _best(rows, {}, objective)
    if best is not None:
        index = next(i for i, row in enumerate(rows) if row[objective] == best)
        axes.plot([places[index]], [best], "o", ms=13, mfc="none", mec=LOST, mew=1.5)


def _best(rows: list[Row], given: Row, objective: str) -> float | None:
    values = [
        row[objective]
        for row in rows
        if _is_done(row, objective) and all(row[k] == v for k, v in given.items())
    ]
    if not values:
        return None
    return float(max(values) if objective.endswith("accuracy") else min(values))


def _distinct(rows: list[Row], key: str) -> list[Any]:
    values = list(dict.fromkeys(row[key] for row in rows))
    return sorted(values) if _are_numbers(values) else sorted(values, key=str)


def _are_numbers(values: list[Any]) -> bool:
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


def _is_done(row: Row, objective: str) -> bool:
    return bool(row["status"] == "completed" and row[objective] is not None)

"""The figures of a sweep, described from the rows of its summary."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from classifier.fit import SKIPPED
from classifier.report.chart import Axis, Chart, Dot, Grid, Line, Shade, span
from classifier.report.settings import REPETITIONS, Row, distinct, drawn, is_done, is_number, rank

SWEEP_PLOT = "sweep.png"
FAINTEST = 0.05  # share of the colour that the worst has in a heat map
FEW = 12  # values of a number that all may have a tick of their own
TINY, HUGE = 1e-200, 1e200  # between them numbers have a place on an axis, with room around it
MANY = 60  # values of a key through whose best a line says something, at most
NAME = 24  # characters of a value that are shown
PATH_FIGURES = (
    ("loss", "loss", "cross-entropy (nats per example)", 1.0),
    ("accuracy", "accuracy", "accuracy (% of examples)", 100.0),
    ("weight_norm", "length of the weights", "length of the weights, |W|", 1.0),
)


def value_text(value: Any, form: str = ".4g") -> str:
    """Return a value of a key as it is shown."""
    return format(value, form) if isinstance(value, float) else str(value)


def key_axis(rows: list[Row], key: str) -> Axis:
    """Return the axis for a key of rows that all have a value of it.

    Seeds and names are categories: no line leads from one to another. Numbers over a decade or more
    are on a logarithmic scale.
    """
    values = distinct(rows, key)
    names = [(float(k), value_text(v, ".3g")[:NAME]) for k, v in enumerate(values)]
    if key in REPETITIONS or not all(is_number(v) and abs(v) < HUGE for v in values):
        return Axis(-0.5, len(values) - 0.5, False, key, names, values)
    positive = [value for value in values if value > 0]
    log = bool(positive) and values[0] >= 0 and positive[0] >= TINY
    log = log and positive[-1] >= 10 * positive[0]
    zero = positive[0] / 10 if log and values[0] == 0 else 0.0
    numbers = [float(value) or zero for value in values]
    axis = span(numbers, key, log=log)
    named = [(number, text) for number, (_, text) in zip(numbers, names, strict=True)]
    if len(values) > FEW:
        first = [(zero, "0")] if zero else []
        named = [*first, *((v, f"{v:.3g}") for v in axis.round_values() if v > 2 * zero)]
    return dataclasses.replace(axis, named=named, zero=zero)


def is_log(rows: list[Row], objective: str) -> bool:
    """Return whether the objective is drawn on a logarithmic scale: losses over a decade."""
    figures = [row[objective] for row in rows if is_done(row, objective)]
    return objective.endswith("loss") and max(figures, default=1) > 10 * min(figures, default=1) > 0


def error_of(row: Row, objective: str) -> float:
    """Return the standard error over repetitions or folds; 0 where there is one of them."""
    repeated = row.get("repetitions", 1) > 1 or objective.startswith("cv_")
    return row.get(f"{objective}_error") or 0.0 if repeated else 0.0


def few(rows: list[Row], objective: str, most: int) -> list[Row]:
    """Return at most so many rows, in order: the best, and evenly from it to the worst."""
    ranked = rank(rows, objective) + [row for row in rows if not is_done(row, objective)]
    names = {row["job"] for row in ranked[:: max(1, -(-len(rows) // most))]}
    return [row for row in rows if row["job"] in names]


def key_chart(
    rows: list[Row], key: str, objective: str, jobs: Sequence[Row], winner: str, most: int = 10**6
) -> Chart:
    """Return the objective by a swept key, with a line through the best of each number.

    Parameters
    ----------
    rows : settings or jobs, of which at most `most` are drawn; a dot leads where `link` says.
    jobs : the single jobs of settings with repetitions: faint, behind their means.
    winner : the job whose dot has a ring; it comes last, in front.
    """
    rows = [row for row in rows if row[key] is not None]
    axis, log = key_axis(rows, key), is_log(rows, objective)
    ranked = {row[key]: row for row in reversed(rank(rows, objective))}  # the best by its value
    # Of many values each was tried once or twice, as a search does it: a line says nothing.
    values = [] if axis.values else distinct(rows, key)
    best = [ranked[value] for value in values if value in ranked and len(values) <= MANY]
    rows = few(rows, objective, most)
    done = [row for row in rows if is_done(row, objective)]
    repeated = {name for row in rows if row.get("repetitions", 1) > 1 for name in row["jobs"]}
    single = [job for job in jobs if job["job"] in repeated and is_done(job, objective)]
    ends = [row[objective] + s * error_of(row, objective) for row in done for s in (-1, 0, 1)]
    ends += [job[objective] for job in single]
    y = span([end for end in ends if end > 0 or not log], objective, log=log)
    chart = Chart(f"{objective} by {key}", axis, y)
    chart.add_line("best", "val", [axis.number(r[key]) for r in best], [r[objective] for r in best])
    for job in single[:most]:
        chart.marks.append(Dot(axis.number(job[key]), job[objective], 2.5, "faint"))
    worst, statuses = y.low if objective.endswith("accuracy") else y.high, set()
    for row in sorted(rows, key=lambda row: bool(row["job"] == winner)):
        x, error = axis.number(row[key]), error_of(row, objective)
        kind, value = "best" if row["job"] == winner else "dot", row[objective]
        if not is_done(row, objective):
            kind, value = "skipped" if row["status"] == SKIPPED else "lost", worst
            statuses.add(row["status"])
        elif error:
            ends = [(x, max(value - error, y.low)), (x, value + error)]
            chart.marks.append(Line("", "error", ends))
        text = f"job {row['job']}: {key} {value_text(row[key])}, {figure_text(row, objective)}"
        chart.marks.append(Dot(x, value, 5, kind, text, row.get("link", "")))
    has_errors = any(error_of(row, objective) for row in done)
    name = "mean, standard error" if has_errors else "a setting" if jobs else "a job"
    chart.keys = [
        ("faint", "a job" * bool(single)),
        ("dot", name),
        ("lost", " or ".join(sorted(statuses - {SKIPPED, "completed"}))),
        ("skipped", SKIPPED * (SKIPPED in statuses)),
    ]
    return chart


def figure_text(row: Row, objective: str) -> str:
    """Return the objective of a row with its error, or why there is none."""
    if not is_done(row, objective):
        return str(row["status"])
    error = error_of(row, objective)
    return f"{objective} {row[objective]:.4g}" + (f" ± {error:.2g}" if error else "")


def shade_of(figures: list[float], objective: str) -> Callable[[float], float]:
    """Return what gives a figure's share of the colour: the best has it whole, losses by log."""
    low, high = min(figures, default=0.0), max(figures, default=1.0)
    ends = (low, high) if objective.endswith("accuracy") else (high, low)
    goodness = Axis(*ends, log=objective.endswith("loss") and low > 0)

    def shade(figure: float) -> float:
        return 0.5 if high == low else FAINTEST + (1 - FAINTEST) * goodness.place(figure)

    return shade


def heat_map(rows: list[Row], pair: tuple[str, str], objective: str, winner: str) -> Grid:
    """Return the best objective of each two values of a pair of keys, whatever the others."""
    rows = [row for row in rows if None not in (row[pair[0]], row[pair[1]])]
    columns, lines = (distinct(rows, key) for key in pair)
    best = {(row[pair[0]], row[pair[1]]): row for row in reversed(rank(rows, objective))}
    figures = [row[objective] for row in best.values()]
    shade = shade_of(figures, objective)

    def shown(column: Any, value: Any) -> Shade:
        here = f"{pair[0]} {value_text(column)}, {pair[1]} {value_text(value)}"
        row = best.get((column, value))
        if row is None:
            return Shade("", None, f"{here}: none completed")
        hover = f"{here}: {objective} {row[objective]:.4g}, job {row['job']}"
        kind = "best" if row["job"] == winner else ""
        text, share = f"{row[objective]:.3g}", shade(row[objective])
        return Shade(text, share, hover, row.get("link", ""), kind)

    cells = [(value_text(value), [shown(column, value) for column in columns]) for value in lines]
    title = f"{objective} by {pair[0]} (columns) and {pair[1]} (rows)"
    low, high = min(figures, default=0.0), max(figures, default=1.0)
    steps = np.linspace if objective.endswith("accuracy") or low <= 0 else np.geomspace
    scale = [
        (shade(figure), f"{figure:.3g}") for figure in steps(low, high, 6 if low < high else 1)
    ]
    note = "best of the others; white: none completed"
    return Grid(title, *pair, [*map(value_text, columns)], cells, scale, objective, note)


def path_charts(rows: list[Row], best: Row | None, strongest: Row | None) -> list[Chart]:
    """Return loss, accuracy and length of the weights by penalty.

    Parameters
    ----------
    rows : of `classifier.sweep.summary.path_rows` or of the report of a run, which may be none.
    best : the job that was chosen.
    strongest : that with the strongest penalty within one standard error of it, or None.
    """
    if not rows or best is None:
        return []
    references = [(best["reg"], f"best: {best['reg']:.3g}", "dashed")]
    if strongest is not None and strongest["reg"] != best["reg"]:
        text = f"strongest within one standard error: {strongest['reg']:.3g}"
        references.append((strongest["reg"], text, "dotted"))
    charts = []
    regs = [float(row["reg"]) for row in rows]
    for name, title, label, unit in PATH_FIGURES:
        most = 100.0 if name == "accuracy" else math.inf
        values, errors, train = (
            [unit * row.get(figure, 0.0) for row in rows]
            for figure in (name, f"{name}_error", f"train_{name}")
        )
        train = train if f"train_{name}" in rows[0] else []
        low = [value - error for value, error in zip(values, errors, strict=True)]
        high = [min(value + error, most) for value, error in zip(values, errors, strict=True)]
        log = name == "weight_norm" and max(values) > 10 * min(values) > 0
        y = span([*train, *low, *high], label, log=log)
        y = dataclasses.replace(y, high=min(y.high, 1.02 * most))
        chart = Chart(f"{title} by reg", span(regs, "reg", log=True), y)
        if any(errors):
            area = [*zip(regs, low, strict=True), *list(zip(regs, high, strict=True))[::-1]]
            chart.marks.append(Line(f"one standard error over {best['over']}", "band", area))
        if train:
            chart.add_line("training", "train", regs, train)
        chart.add_line("held out" if train else "", "val", regs, values)
        for reg, text, dash in reversed(references):
            if reg > 0:  # 0 has no place on the axis
                chart.add_reference(float(reg), text, dash)
        for row, value, error in zip(rows, values, errors, strict=True):
            text = f"reg {row['reg']:.3g}: {name} {value:.4g}" + f" ± {error:.2g}" * bool(error)
            chart.marks.append(Dot(float(row["reg"]), value, 4, "dot", text, row.get("link", "")))
        charts.append(chart)
    return charts


def path_of(report: dict[str, Any]) -> list[Chart]:
    """Return the charts of the penalties that a run has chosen from, if it has."""
    found = report.get("reg_path")
    if found is None:
        return []
    rows = [row for row in reversed(found["penalties"]) if row["loss"] is not None]
    best, strongest = (
        {"reg": found[name], "over": found["over"]} for name in ("best", "one_standard_error")
    )
    return path_charts(rows, best, strongest)


def sweep_panels(summary: dict[str, Any]) -> tuple[str, list[Chart | Grid]]:
    """Return the heading of a sweep's picture, and its panels: the keys, and pairs of them."""
    objective, best = summary["objective"], summary["best"]
    rows, _, keys, pairs = drawn(summary)
    ranked = rank(rows, objective)
    name = next((row["job"] for row in (best, *ranked) if row), "")
    panels: list[Chart | Grid] = [
        key_chart(rows, key, objective, summary["jobs"], name) for key in keys
    ]
    panels += [heat_map(rows, pair, objective, name) for pair in pairs]
    done = sum(row["status"] == "completed" for row in rows)
    kind = "settings" if any(len(row.get("jobs", "")) > 1 for row in rows) else "jobs"
    is_best = not ranked or ranked[0]["job"] == name
    ringed = f"the best by {objective}" if is_best else "the median"
    return f"{done} of {len(rows)} {kind} completed; {ringed} is ringed", panels

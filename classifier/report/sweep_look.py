"""How a sweep is drawn, in its picture and on its page alike: colours, scales, error bars."""

import math
from collections.abc import Callable
from typing import Literal

from classifier.report.sweep_values import REPETITIONS, Row, distinct, is_done, is_number, rank

# Those of page.css in daylight.
POINT, LINE, MARK, SOFT, CARD = "#1f6fb2", "#c4540a", "#b3261e", "#59636e", "#ffffff"
FAINTEST = 0.05  # share of the colour that the worst has in a heat map
FEW = 12  # values of a number that all may have a tick of their own
TINY, HUGE = 1e-200, 1e200  # between them numbers have a place on an axis, with room around it
MANY = 60  # values of a key through whose best a line says something, at most
WIDTH = 0.6  # of the room of a category over which its rows are spread

Scale = Literal["linear", "log", "symlog"]


def is_category(rows: list[Row], key: str) -> bool:
    """Return whether the values of a key have no order that a line may follow, or no place."""
    values = distinct(rows, key)
    return key in REPETITIONS or not all(is_number(v) and abs(v) < HUGE for v in values)


def scale_of(values: list[float]) -> Scale:
    """Return the scale on which sorted numbers were swept.

    It is a logarithmic one for a decade or more. Where 0 is among them, it stands a decade below
    the smallest other: "symlog".
    """
    positive = [value for value in values if value > 0]
    if not positive or values[0] < 0 or positive[-1] < 10 * positive[0] or positive[0] < TINY:
        return "linear"
    return "log" if values[0] > 0 else "symlog"


def is_log(rows: list[Row], objective: str) -> bool:
    """Return whether the objective is drawn on a logarithmic scale: losses over a decade."""
    figures = [row[objective] for row in rows if is_done(row, objective)]
    return objective.endswith("loss") and max(figures, default=1) > 10 * min(figures, default=1) > 0


def error_of(row: Row, objective: str) -> float | None:
    """Return the standard error over repetitions or folds; None where there is one of them."""
    repeated = row.get("repetitions", 1) > 1 or objective.startswith("cv_")
    error: float | None = row.get(f"{objective}_error")
    return error if repeated else None


def spaced(
    wanted: list[tuple[float, str]], place: Callable[[float], float], gap: float
) -> list[tuple[float, str]]:
    """Return those of some ticks, (number, text), that stand at least `gap` apart, from the first.

    Parameters
    ----------
    place : gives where a number stands, from 0 to 1.
    """
    kept: list[tuple[float, str]] = []
    for number, text in wanted:
        if not kept or place(number) - place(kept[-1][0]) >= gap:
            kept.append((number, text))
    return kept


def bounds(rows: list[Row], objective: str) -> list[float]:
    """Return all figures of the rows that completed, with the ends of their error bars."""
    done = [row for row in rows if is_done(row, objective)]
    ends = [row[objective] for row in done]
    for row in done:
        error = error_of(row, objective)
        ends += [row[objective] - error, row[objective] + error] if error else []
    return ends


def best_at(rows: list[Row], key: str, objective: str) -> list[Row]:
    """Return the best row for each value of a key, in the order of the values.

    None of more values than `MANY`, each of which was tried once or twice, as a search does it.
    """
    if len(distinct(rows, key)) > MANY:
        return []
    best: dict[object, Row] = {}
    for row in rank(rows, objective):
        best.setdefault(row[key], row)
    return [best[value] for value in distinct(rows, key) if value in best]


def spread(rows: list[Row], key: str) -> list[float]:
    """Return where rows stand whose key is a category: beside each other around its number."""
    values = distinct(rows, key)
    number = {value: k for k, value in enumerate(values)}
    counts = dict.fromkeys(values, 0)
    for row in rows:
        counts[row[key]] += 1
    seen = dict.fromkeys(values, 0)
    places = []
    for row in rows:
        value = row[key]
        places.append(number[value] + WIDTH * ((seen[value] + 0.5) / counts[value] - 0.5))
        seen[value] += 1
    return places


def shade_of(figures: list[float], objective: str) -> Callable[[float], float]:
    """Return what gives a figure's share of the colour: the best has it whole, losses by log."""
    low, high = min(figures, default=0.0), max(figures, default=1.0)
    accuracy = objective.endswith("accuracy")

    def shade(figure: float) -> float:
        if high == low:
            return 0.5
        share = (figure - low) / (high - low)
        if not accuracy:
            share = 1 - (math.log(figure / low) / math.log(high / low) if low > 0 else share)
        return FAINTEST + (1 - FAINTEST) * share

    return shade

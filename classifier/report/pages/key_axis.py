"""Where the values of a swept key stand on an axis of a page: on the scale they were swept on."""

import dataclasses
from typing import Any

from classifier.report.charts import Axis, span
from classifier.report.pages.page import cell
from classifier.report.sweep_look import FEW, is_category, scale_of, spaced
from classifier.report.sweep_values import Row, distinct

LETTERS = 12  # of the name of a category that are shown


@dataclasses.dataclass(frozen=True)
class KeyAxis:
    """An axis for the values of a key.

    Attributes
    ----------
    axis : of numbers; of a category's values these are 0, 1, ...
    values : all of them, in order.
    category : whether they are no numbers on a scale.
    zero : the number that stands for 0 where the scale is logarithmic.
    """

    axis: Axis
    values: list[Any]
    category: bool
    zero: float = 0.0

    def number(self, value: Any) -> float:
        """Return the number on the axis of a value."""
        if self.category:
            return float(self.values.index(value))
        return float(value) or self.zero

    def ticks(self, gap: float) -> list[tuple[float, str]]:
        """Return (number, text) of values, or round numbers, at least `gap` of the axis apart."""
        own = self.category or len(self.values) <= FEW
        wanted = [(self.number(v), _text(v)) for v in self.values] if own else []
        wanted = wanted or [(number, _text(number)) for number in self.axis.ticks()]
        if not own and self.zero:
            wanted.insert(0, (self.zero, "0"))
        return spaced(wanted, self.axis.place, gap)


def _text(value: Any) -> str:
    return cell(value, "{:.3g}").text[:LETTERS]


def key_axis(rows: list[Row], key: str) -> KeyAxis:
    """Return the axis for a key of rows that all have a value of it."""
    values = distinct(rows, key)
    if is_category(rows, key):
        return KeyAxis(Axis(-0.5, len(values) - 0.5), values, category=True)
    scale = scale_of(values)
    zero = next(value for value in values if value > 0) / 10 if scale == "symlog" else 0.0
    numbers = [float(value) or zero for value in values]
    return KeyAxis(span(numbers, log=scale != "linear"), values, category=False, zero=zero)

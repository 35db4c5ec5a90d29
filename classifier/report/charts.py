"""Charts for the pages: places in a drawing of WIDTH x HEIGHT, from plain numbers."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

from classifier.fit import Epoch

WIDTH, HEIGHT = 420, 260
LEFT, RIGHT, TOP, BOTTOM = 48, 8, 10, 36  # room around the axes
TICKS = 6  # of an axis, about


@dataclasses.dataclass(frozen=True)
class Axis:
    """Where values from low to high stand on an axis, linear or logarithmic, and its ticks."""

    low: float
    high: float
    log: bool = False

    @functools.cached_property
    def _logs(self) -> tuple[float, float]:
        return math.log(self.low), math.log(self.high)

    def place(self, value: float) -> float:
        """Return where a value stands: 0 for low, 1 for high."""
        if self.log:  # no quotient, which may overflow
            low, high = self._logs
            return (math.log(value) - low) / (high - low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Return round values from low to high."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            factors = (1, 2, 5) if self.high < 100 * self.low else (1,)
            values = [factor * 10.0**decade for decade in decades for factor in factors]
        else:
            step = 10 ** math.floor(math.log10((self.high - self.low) / TICKS))
            step *= next(f for f in (1, 2, 5, 10) if (self.high - self.low) / (f * step) <= TICKS)
            first = math.ceil(self.low / step - 1e-9)
            values = [k * step for k in range(first, math.floor(self.high / step + 1e-9) + 1)]
        return [value for value in values if self.low <= value <= self.high * (1 + 1e-9)]


class Line(NamedTuple):
    """A polyline: `points` as SVG wants them, `kind` a class of the style sheet."""

    label: str
    kind: str
    points: str


class Dot(NamedTuple):
    """A circle with a text to hover on, and a link where there is one."""

    x: float
    y: float
    radius: float
    kind: str
    text: str
    link: str = ""


class Zone(NamedTuple):
    """A stripe over the whole height with a text to hover on."""

    x: float
    width: float
    text: str


@dataclasses.dataclass
class Chart:
    """What a template draws.

    Attributes
    ----------
    title, x_label, y_label : its texts.
    x, y : the axes.
    x_ticks : (place, text) of each, where they are not numbers of the axis.
    lines, dots, zones : what stands between them.
    marks : (x, text) of vertical lines.
    picture : the URI of one behind all, from axis to axis.
    keys : (kind, text) of colours that no line has.
    """

    title: str
    x_label: str
    y_label: str
    x: Axis
    y: Axis
    x_ticks: list[tuple[float, str]] | None = None
    lines: list[Line] = dataclasses.field(default_factory=list)
    dots: list[Dot] = dataclasses.field(default_factory=list)
    zones: list[Zone] = dataclasses.field(default_factory=list)
    marks: list[tuple[float, str]] = dataclasses.field(default_factory=list)
    picture: str = ""
    keys: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    def add_line(
        self, label: str, kind: str, xs: Sequence[float], ys: Sequence[float | None]
    ) -> None:
        """Draw a line through the points whose y is a number the axis has a place for."""
        places = [
            f"{self.at_x(x):.1f},{self.at_y(y):.1f}"
            for x, y in zip(xs, ys, strict=True)
            if y is not None and math.isfinite(y) and (y > 0 or not self.y.log)
        ]
        if places:
            self.lines.append(Line(label, kind, " ".join(places)))

    def at_x(self, value: float) -> float:
        """Return the place of x in the drawing."""
        return LEFT + self.x.place(value) * (WIDTH - LEFT - RIGHT)

    def at_y(self, value: float) -> float:
        """Return the place of y in the drawing, where down is more."""
        return TOP + (1 - self.y.place(value)) * (HEIGHT - TOP - BOTTOM)

    def ticks_x(self) -> list[tuple[float, str]]:
        """Return (place in the drawing, text) of the ticks below."""
        if self.x_ticks is not None:
            return [(self.at_x(value), text) for value, text in self.x_ticks]
        return [(self.at_x(value), f"{value:g}") for value in self.x.ticks()]

    def ticks_y(self) -> list[tuple[float, str]]:
        """Return (place in the drawing, text) of the ticks at the left."""
        return [(self.at_y(value), f"{value:.6g}") for value in self.y.ticks()]


def loss_axis(losses: Sequence[float]) -> Axis:
    """Return an axis for losses, a logarithmic one where they differ by more than tenfold."""
    above = [loss for loss in losses if loss > 0]
    return span(above, log=max(above, default=1.0) > 10 * min(above, default=1.0))


def loss_values(history: Sequence[Epoch], n_classes: int) -> list[float]:
    """Return the losses of a run that a chart has places for, and that of guessing, ln C."""
    losses = [loss for row in history for loss in (row.train_loss, row.val_loss)]
    known = [loss for loss in losses if loss is not None and math.isfinite(loss)]
    return [*known, math.log(n_classes)]


def span(values: Sequence[float], *, log: bool = False, room: float = 0.05) -> Axis:
    """Return an axis for values, with a little room at both ends."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if log:
        more = room * (math.log(high) - math.log(low)) or math.log(2)
        return Axis(low * math.exp(-more), high * math.exp(more), log=True)
    margin = room * (high - low) or 0.5 * abs(high) or 0.5
    return Axis(low - margin, high + margin)

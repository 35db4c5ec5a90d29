"""One description of each figure, from plain numbers, and where its parts stand in a drawing.

`text` writes a drawing as SVG, `png` paints the same one into a file. Neither reads a text.
"""

import dataclasses
import math
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

WIDTH, HEIGHT = 420, 260  # of a chart on a page
LETTER = 13  # the size of letters, in the same units
ABOVE = 10  # the axes
TICKS = 6  # of an axis, about

# Those of page.css in daylight, by the same names.
COLOURS = {
    "card": "#ffffff",
    "ink": "#1d2329",
    "soft": "#59636e",
    "rule": "#dfe3e6",
    "train": "#1f6fb2",
    "val": "#c4540a",
    "heat": "#1f6fb2",
    "bad": "#b3261e",
}
# Of classes and of compared runs, which share them where they are more; the eye tells few more
# apart. The style sheet has them as --a to --h.
HUES = ("#1f6fb2", "#c4540a", "#1a7f45", "#8241b0", "#b3261e", "#7a6a00", "#0b7d86", "#b3307f")
DARK = 0.75  # share of a colour above which letters on it are white
DASHES = {"": "", "dashed": "5 4", "dotted": "1.5 3"}  # of lines: drawn and left out, in turn


def rgb(colour: str) -> np.ndarray:
    """Return a colour "#rrggbb" as three numbers from 0 to 255."""
    return np.array(list(bytes.fromhex(colour[1:])), dtype=np.float64)


def room(text: str, letter: float = LETTER) -> float:
    """Return about the width of a text: capitals are wider than others, Chinese letters twice."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    capitals = sum(letter.isupper() + (letter in "MWmw") for letter in text)
    return letter * (0.58 * len(text) + 0.4 * wide + 0.2 * capitals)


def one_line(text: str) -> str:
    """Return a text with another character for each that cannot be printed, as that of a line."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def short(name: str, length: int = 18) -> str:
    """Cut a long name in its middle, for names often differ at their end; an empty one is ""."""
    name = one_line(name) or '""'
    half = length // 2
    return name if len(name) <= length else f"{name[:half]}…{name[1 - half :]}"


@dataclasses.dataclass(frozen=True)
class Axis:
    """Where values from low to high stand on an axis, linear or logarithmic, and its ticks.

    Attributes
    ----------
    label : what is written beside it.
    named : (value, text) of its ticks; round values where it is None.
    values : of a category: these have no order, and stand at 0, 1, ...; long names are turned
        below x, and beside y each has a line of its own.
    zero : the number that stands for 0 on a logarithmic axis of values that may be 0.
    """

    low: float
    high: float
    log: bool = False
    label: str = ""
    named: Sequence[tuple[float, str]] | None = None
    values: Sequence[Any] = ()
    zero: float = 0.0

    def place(self, value: float) -> float:
        """Return where a value stands: 0 for low, 1 for high."""
        if self.log:  # no quotient, which may overflow
            low = math.log(self.low)
            return (math.log(value) - low) / (math.log(self.high) - low)
        return (value - self.low) / (self.high - self.low)

    def number(self, value: Any) -> float:
        """Return the number on the axis of a value, or of one of a category."""
        return float(self.values.index(value) if self.values else float(value) or self.zero)

    def has(self, value: float | None) -> bool:
        """Return whether there is a place for a value."""
        return value is not None and math.isfinite(value) and (value > 0 or not self.log)

    def round_values(self) -> list[float]:
        """Return round values from low to high."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            factors = (1, 2, 5) if self.high < 1000 * self.low else (1,)
            values = [factor * 10.0**decade for decade in decades for factor in factors]
        else:
            step = 10 ** math.floor(math.log10((self.high - self.low) / TICKS))
            step *= next(f for f in (1, 2, 5, 10) if (self.high - self.low) / (f * step) <= TICKS)
            first = math.ceil(self.low / step - 1e-9)
            values = [k * step for k in range(first, math.floor(self.high / step + 1e-9) + 1)]
        return [value for value in values if self.low <= value <= self.high * (1 + 1e-9)]

    def ticks(self) -> Sequence[tuple[float, str]]:
        """Return (value, text) of the ticks."""
        if self.named is not None:
            return self.named
        return [(value, f"{value:.6g}") for value in self.round_values()]


def span(values: Sequence[float], label: str = "", *, log: bool = False) -> Axis:
    """Return an axis for values, with a little room at both ends."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if log:
        more = 0.05 * (math.log(high) - math.log(low)) or math.log(2)
        return Axis(low * math.exp(-more), high * math.exp(more), True, label)
    margin = 0.05 * (high - low) or 0.5 * abs(high) or 0.5
    return Axis(low - margin, high + margin, False, label)


def loss_axis(losses: Sequence[float], label: str) -> Axis:
    """Return an axis for losses, a logarithmic one where they differ by more than tenfold."""
    above = [loss for loss in losses if loss > 0]
    return span(above, label, log=max(above, default=1.0) > 10 * min(above, default=1.0))


class Line(NamedTuple):
    """A line through points, or of the kind `band` what these surround.

    `kind` is a class of the style sheet, `dash` of DASHES.
    """

    label: str
    kind: str
    points: Sequence[tuple[float, float]]
    dash: str = ""


class Dot(NamedTuple):
    """A circle with a text to hover on, and a link where there is one."""

    x: float
    y: float
    radius: float
    kind: str
    text: str = ""
    link: str = ""


class Box(NamedTuple):
    """A rectangle, or a stripe over the whole height, with a text to hover on."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    text: str = ""


class Text(NamedTuple):
    """A text at a place, to which its `anchor` (start, middle, end) stands."""

    x: float
    y: float
    text: str
    anchor: str = "middle"
    turned: bool = False
    letter: float = LETTER
    kind: str = ""


class Picture(NamedTuple):
    """An image, (height, width, 3) from 0 to 255, over a rectangle."""

    x: float
    y: float
    width: float
    height: float
    image: np.ndarray
    kind: str = ""


Mark = Line | Dot | Box | Text | Picture


def moved(mark: Mark, to: Callable[[float, float], tuple[float, float]]) -> Mark:
    """Return a mark whose points are where a function of x and y says."""
    if isinstance(mark, Line):
        return mark._replace(points=[to(*point) for point in mark.points])
    x, y = to(mark.x, mark.y)
    if isinstance(mark, Dot | Text):
        return mark._replace(x=x, y=y)
    end, other = to(mark.x + mark.width, mark.y + mark.height)
    return mark._replace(x=x, y=min(y, other), width=end - x, height=abs(other - y))


class Drawing(NamedTuple):
    """Marks in a rectangle, from the back to the front; down is more."""

    width: float
    height: float
    marks: Sequence[Mark]


@dataclasses.dataclass
class Chart:
    """What is drawn between two axes.

    Attributes
    ----------
    title : what it shows.
    x, y : the axes.
    marks : what stands between them, in their numbers, from the back to the front. Of a rectangle
        x and y are the lower left corner.
    keys : (kind, text) of what no line explains.
    """

    title: str
    x: Axis
    y: Axis
    marks: list[Mark] = dataclasses.field(default_factory=list)
    keys: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    def add_line(
        self, label: str, kind: str, xs: Sequence[float], ys: Sequence[float | None], dash: str = ""
    ) -> None:
        """Add a line through the points whose y is a number the axis has a place for."""
        points = [(x, y) for x, y in zip(xs, ys, strict=True) if y is not None and self.y.has(y)]
        if points:
            self.marks.append(Line(label, kind, points, dash))

    def add_reference(self, x: float, label: str, dash: str) -> None:
        """Add a vertical line behind all others."""
        self.marks.insert(0, Line(label, "reference", [(x, self.y.high), (x, self.y.low)], dash))

    def legend(self) -> list[tuple[str, str, str]]:
        """Return (kind, dash, text) of all that has a name, vertical lines after the others."""
        lines = [mark for mark in self.marks if isinstance(mark, Line) and mark.label]
        lines.sort(key=lambda line: line.kind == "reference")
        keys = [(kind, "", text) for kind, text in self.keys if text]
        return [*((line.kind, line.dash, line.label) for line in lines), *keys]

    def drawing(
        self, width: float = WIDTH, height: float = HEIGHT, *, name_y: bool = False
    ) -> Drawing:
        """Return where all stands in so much room, more of it below for long names of ticks.

        Where y is a category, the height is that of its values.

        Parameters
        ----------
        name_y : whether the label of y stands beside its axis.
        """
        x_ticks, y_ticks = self.x.ticks(), self.y.ticks()
        if self.y.values:
            height = ABOVE + 36 + (LETTER + 4) * len(self.y.values)
        left = 10 + max([38.0, *(room(text) for _, text in y_ticks)]) + (LETTER + 4) * name_y
        end = width - max([8.0, *(room(text) / 2 + 2 for _, text in x_ticks[-1:])])
        wanted = max([0.0, *(room(text) + 6 for _, text in x_ticks)]) * len(x_ticks)
        turned = bool(self.x.values) and wanted > end - left
        below = 36 + max((room(text) - LETTER for _, text in x_ticks), default=0) * turned
        low, height = height - 36, height + below - 36

        def at(x: float, y: float) -> tuple[float, float]:
            place = self.x.place(x), self.y.place(y)
            return left + place[0] * (end - left), low - place[1] * (low - ABOVE)

        rows = [(at(self.x.low, value)[1], text) for value, text in y_ticks]
        columns = [(at(value, self.y.low)[0], text) for value, text in x_ticks]
        columns = apart(columns, (LETTER + 1) * turned)
        names = [
            Text(x + LETTER / 3, low + 6, text, "end", turned=True)
            if turned
            else Text(x, low + 14, text)
            for x, text in columns
        ]
        return Drawing(
            width,
            height,
            [
                *(moved(mark, at) for mark in self.marks if isinstance(mark, Picture)),
                *(Line("", "grid", [(left, y), (end, y)]) for y, _ in rows),
                *(Line("", "grid", [(x, ABOVE), (x, low)]) for x, _ in columns),
                *(Text(left - 5, y + LETTER / 3, text, "end") for y, text in rows),
                *names,
                Text((left + end) / 2, height - 4, self.x.label),
                *[Text(LETTER, (ABOVE + low) / 2, self.y.label, turned=True)] * name_y,
                *(moved(mark, at) for mark in self.marks if not isinstance(mark, Picture)),
            ],
        )


def apart(ticks: Sequence[tuple[float, str]], gap: float = 0) -> list[tuple[float, str]]:
    """Return the ticks, from the first one, that have a gap between them: without one, room."""
    kept: list[tuple[float, str]] = []
    for place, text in ticks:
        last, before = kept[-1] if kept else (math.inf, "")
        if abs(place - last) >= (gap or (room(text) + room(before)) / 2 + 6):
            kept.append((place, text))
    return kept


class Shade(NamedTuple):
    """A cell of a grid: its text, its share of the colour, a text to hover on, a link, its kind."""

    text: str
    share: float | None
    hover: str
    link: str = ""
    kind: str = ""


@dataclasses.dataclass
class Grid:
    """Coloured cells: the better or the more, the stronger the colour.

    Attributes
    ----------
    title : what it shows.
    x_label, y_label : what its columns and its lines are.
    columns : their names.
    lines : (name, cells) of each.
    scale : (share, text) of some colours.
    scale_label : what these are of.
    note : what stands above it in a picture.
    """

    title: str
    x_label: str
    y_label: str
    columns: list[str]
    lines: list[tuple[str, list[Shade]]]
    scale: list[tuple[float, str]] = dataclasses.field(default_factory=list)
    scale_label: str = ""
    note: str = ""


def shades(shares: np.ndarray) -> np.ndarray:
    """Return shares of the colour, of any shape, as colours (..., 3): as page.css mixes them."""
    card, heat = rgb(COLOURS["card"]), rgb(COLOURS["heat"])
    colours: np.ndarray = card + shares[..., None] * (heat - card)
    return colours


Pictures = Sequence[tuple[str, np.ndarray]]  # small images with their names

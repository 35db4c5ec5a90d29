"""What is printed: tables whose first column is a ratio, and the bars under them."""

import dataclasses
from collections.abc import Sequence

from benchmarks.measure import Timing

OURS = "this program"
HEADER = ["ratio", "median", "lowest to highest", "runs", "contender", "remark"]


@dataclasses.dataclass
class Row:
    """One contender's times and a word on what it has reached."""

    name: str
    timing: Timing
    remark: str = ""


@dataclasses.dataclass(frozen=True)
class Bar:
    """A limit that a figure has to keep.

    text says what is measured, value is the figure, and unit follows both numbers.
    """

    text: str
    value: float
    limit: float
    unit: str = "x"
    at_least: bool = False

    def __str__(self) -> str:
        """One line: the limit, the figure, met or not."""
        met = self.value >= self.limit if self.at_least else self.value <= self.limit
        kind = "at least" if self.at_least else "at most"
        return (
            f"bar: {self.text}, {kind} {self.limit:g}{self.unit}: "
            f"{self.value:.2f}{self.unit}, {'met' if met else 'NOT met'}"
        )


@dataclasses.dataclass
class Table:
    """The rows of a case. Ratios are to the row named `base`; above 1 is slower than it."""

    title: str
    setting: str
    rows: list[Row]
    bars: list[Bar] = dataclasses.field(default_factory=list)
    absent: Sequence[str] = ()
    base: str = OURS

    def median(self, name: str) -> float:
        """Return a row's median seconds."""
        return next(row.timing.median for row in self.rows if row.name == name)

    def __contains__(self, name: str) -> bool:
        return any(row.name == name for row in self.rows)

    def faster_than(self, name: str, limit: float) -> list[Bar]:
        """Return the bar "`limit` times faster than `name`"; none where that is absent."""
        if name not in self:
            return []
        ratio = self.median(name) / self.median(self.base)
        return [Bar(f"faster than {name}", ratio, limit, at_least=True)]

    def __str__(self) -> str:
        """Markdown."""
        base = self.median(self.base)
        lines = [HEADER, *(_cells(row, base) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        padded = [[c.ljust(w) for c, w in zip(line, widths, strict=True)] for line in lines]
        padded.insert(1, ["-" * width for width in widths])
        parts = [f"## {self.title}", "", self.setting, ""]
        parts += [f"| {' | '.join(line)} |" for line in padded]
        remarks = [*self.absent, *map(str, self.bars)]
        return "\n".join([*parts, "", *(f"- {line}" for line in remarks)]).rstrip() + "\n"


def _cells(row: Row, base: float) -> list[str]:
    timing = row.timing
    low, high = min(timing.seconds), max(timing.seconds)
    return [
        f"{timing.median / base:.2f}",
        duration(timing.median),
        f"{duration(low)} to {duration(high)}",
        str(len(timing.seconds)),
        row.name,
        row.remark,
    ]


def duration(seconds: float) -> str:
    """Return seconds with three digits, in the unit that suits them."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"

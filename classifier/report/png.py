"""Pictures as files: the drawings of charts and grids, arranged below a heading and painted.

Places are computed here, not by a layout engine of matplotlib's, which would draw all twice; nor
are there its axes, of which each takes longer than all that stands on it.
"""

import io
import itertools
from collections.abc import Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from classifier.report.chart import (
    COLOURS,
    DARK,
    DASHES,
    HUES,
    LETTER,
    Box,
    Chart,
    Dot,
    Drawing,
    Grid,
    Line,
    Mark,
    Picture,
    Pictures,
    Text,
    room,
    shades,
    short,
)

DPI, UNITS = 110, 80  # pixels of an inch, and units of a drawing
# Of a chart in a picture of its own, of one about as high as wide, and of one of several.
ALONE, SQUARE, PANEL = (560.0, 330.0), (420.0, 400.0), (416.0, 280.0)
COLUMNS = 3  # of panels
ROW = LETTER + 6  # of a text
CELL, SMALL = 34.0, 11.0  # of a grid with texts in its cells, and of one without
MANY = 20  # lines or columns of a grid from which its cells are small
TEMPLATE, TITLE = 110.0, 20.0  # the width of a class's weights, and the room for its name
BAR = 12.0  # the width of a scale of colours
PNG = {"compress_level": 2}  # twice as quick as 6, for files a tenth larger


class Style(NamedTuple):
    """How marks of a kind look, as page.css says it: colours of COLOURS, or none."""

    stroke: str = ""
    width: float = 2.0
    fill: str = ""
    alpha: float = 1.0
    dash: str = ""


STYLES = {
    "grid": Style("rule", 1),
    "frame": Style("soft", 1),
    "train": Style("train", fill="train", alpha=0.6),
    "val": Style("val", fill="val", alpha=0.6),
    "chance": Style("soft", 1),
    "reference": Style("soft", 1),
    "error": Style("train", 1.2, alpha=0.6),
    "band": Style("", 0, "val", 0.2),
    "dot": Style("", 0, "train", 0.6),
    "before": Style("", 0, "val", 0.6),
    "faint": Style("", 0, "train", 0.25),
    "best": Style("bad", 2.5, "train", 0.6),
    "lost": Style("bad", 1, dash="dashed"),
    "skipped": Style("soft", 1, dash="dashed"),
    "framed": Style("bad", 2.5),
    "plain": Style("", 0, "soft"),
    "plain held-out": Style("ink", 1, "soft"),
    **{f"class-{c}": Style("", 0, hue) for c, hue in enumerate(HUES)},
    **{f"class-{c} held-out": Style("ink", 1, hue) for c, hue in enumerate(HUES)},
}


class Sheet:
    """A picture: drawings at their places, below each other."""

    def __init__(self, heading: str, letter: float = LETTER + 2) -> None:
        self.drawings: list[tuple[float, float, Drawing]] = []
        self.width, self.height = 0.0, 4.0
        self.headings = [(line, letter) for line in heading.splitlines()]
        self.height += sum(letter + 5 for _, letter in self.headings) + 4

    def add(self, *drawings: Drawing) -> None:
        """Put drawings beside each other, below what is there."""
        x = 0.0
        for drawing in drawings:
            self.drawings.append((x, self.height, drawing))
            x += drawing.width
        self.width = max(self.width, x)
        self.height += max(drawing.height for drawing in drawings)

    def _repr_png_(self) -> bytes:
        """Return the picture, for a notebook to show."""
        file = io.BytesIO()
        self.save(file)
        return file.getvalue()

    def save(self, file: BinaryIO) -> None:
        """Paint the picture, and write it as PNG."""
        longest = max((room(line, letter) for line, letter in self.headings), default=0)
        width = max(self.width, longest + 20)
        y, heads = 0.0, []
        for line, letter in self.headings:
            y += letter + 5
            heads.append(Text(width / 2, y, line, letter=letter, kind="ink"))
        paint(
            [(0, 0, Drawing(width, self.height, heads)), *self.drawings], width, self.height, file
        )


def charts_sheet(
    heading: str, panels: Sequence[Chart | Grid], size: tuple[float, float] = PANEL
) -> Sheet:
    """Return a picture of charts and grids, each of a size, with its legend below."""
    sheet = Sheet(heading)
    for k in range(0, len(panels), COLUMNS):
        drawings = [
            with_legend(panel, *size) if isinstance(panel, Chart) else grid_drawing(panel, size)
            for panel in panels[k : k + COLUMNS]
        ]
        sheet.add(*drawings)
    return sheet


def with_legend(chart: Chart, width: float, height: float) -> Drawing:
    """Return the drawing of a chart with the label of y, and what its colours mean below it."""
    drawing = chart.drawing(width, height, name_y=True)
    marks, x, y = [*drawing.marks], 20.0, drawing.height + ROW
    for kind, dash, text in chart.legend():
        wide = 26 + room(text, LETTER - 1) + 14
        if x > 20 and x + wide > width:
            x, y = 20.0, y + ROW
        middle = y - LETTER / 3
        if (kind, text) in chart.keys:
            marks.append(Dot(x + 10, middle, 5, kind))
        elif kind == "band":
            corners = [(x + a * 20, middle + b * 4) for a, b in ((0, 1), (1, 1), (1, -1), (0, -1))]
            marks.append(Line("", kind, corners))
        else:
            marks.append(Line("", kind, [(x, middle), (x + 20, middle)], dash))
        marks.append(Text(x + 26, y, text, "start", letter=LETTER - 1))
        x += wide
    return Drawing(width, y + 12, marks)


def grid_drawing(grid: Grid, size: tuple[float, float] | None = None) -> Drawing:
    """Return the drawing of a grid with a scale of its colours; its cells fill a size, if given."""
    n = max(len(grid.lines), len(grid.columns))
    columns, lines = map(short, grid.columns), (short(name) for name, _ in grid.lines)
    shown, beside = list(columns), list(lines)
    letter = 7.5 if n > MANY else 11.0
    left = LETTER + 16 + max((room(name, letter) for name in beside), default=0)
    names = max((room(name, letter) for name in shown), default=0)
    right = BAR + 40 + LETTER + max((room(text, 11) for _, text in grid.scale), default=0)
    top = 8.0 if size is None else ROW
    if size is None:
        wide = tall = CELL if n <= MANY else SMALL
        wide = tall = max(wide, 200 / n)
    else:
        turned = names > (size[0] - left - right) / len(grid.columns) - 4
        wide = max(20.0, size[0] - left - right) / len(grid.columns)
        tall = max(80.0, size[1] - top - 30 - (names if turned else letter)) / len(grid.lines)
    turned = names > wide - 4
    end, low = left + wide * len(grid.columns), top + tall * len(grid.lines)
    marks: list[Mark] = _cells(grid, left, top, wide, tall)
    for i, name in enumerate(beside):
        y = top + (i + 0.5) * tall + letter / 3
        marks.append(Text(left - 6, y, name, "end", letter=letter))
    for j, name in enumerate(shown):
        x = left + (j + 0.5) * wide
        y, anchor = (low + 6, "end") if turned else (low + letter + 4, "middle")
        marks.append(Text(x + turned * letter / 3, y, name, anchor, turned, letter))
    below = low + (names if turned else letter) + 10
    marks.append(Text((left + end) / 2, below + LETTER, grid.x_label))
    marks.append(Text(LETTER, (top + low) / 2, grid.y_label, turned=True))
    marks.append(Box(left, top, end - left, low - top, "frame"))
    if size is not None:
        note = "best of the others; white: none completed"
        marks.append(Text((left + end) / 2, top - 6, note, letter=11))
    colours = shades(np.linspace(1, 0, 128)[:, None])
    marks += scale_marks(colours, grid.scale, grid.scale_label, end + 12, top, low - top)
    width = end + right if size is None else size[0]
    return Drawing(max(width, end + right), below + LETTER + 8, marks)


def _cells(grid: Grid, left: float, top: float, wide: float, tall: float) -> list[Mark]:
    shares = np.array([[cell.share or 0.0 for cell in cells] for _, cells in grid.lines])
    size = wide * len(grid.columns), tall * len(grid.lines)
    marks: list[Mark] = [Picture(left, top, *size, shades(shares))]
    for i, (_, cells) in enumerate(grid.lines):
        for j, cell in enumerate(cells):
            x, y = left + j * wide, top + i * tall
            if cell.text and room(cell.text, 10) < wide and tall > 12:
                kind = "card" if (cell.share or 0) > DARK else "ink"
                place = x + wide / 2, y + tall / 2 + 4
                marks.append(Text(*place, cell.text, letter=10, kind=kind))
            if cell.kind == "best":
                marks.append(Box(x, y, wide, tall, "framed"))
    return marks


def scale_marks(
    colours: np.ndarray,
    ticks: Sequence[tuple[float, str]],
    label: str,
    x: float,
    y: float,
    height: float,
) -> list[Mark]:
    """Return a bar of colours from share 1 above to 0 below, with its ticks."""
    label_x = x + BAR + 12 + max((room(text, 11) for _, text in ticks), default=0) + LETTER
    heights = [(y + (1 - share) * height + 4, text) for share, text in ticks]
    return [
        Picture(x, y, BAR, height, colours),
        Box(x, y, BAR, height, "frame"),
        *(Text(x + BAR + 5, at, text, "start", letter=11) for at, text in heights),
        Text(label_x, y + height / 2, label, turned=True),
    ]


def pictures_sheet(pictures: Pictures) -> Sheet:
    """Return a picture of small images with their names, and the scale of their colours."""
    named = pictures.named
    columns = min(len(named), 5 if len(named) <= 20 else 10)
    high, wide = named[0][1].shape[:2]
    tall = TEMPLATE * float(np.clip(high / wide, 0.3, 3.0))
    marks: list[Mark] = []
    for i, (name, image) in enumerate(named):
        x = 12 + (i % columns) * 1.08 * TEMPLATE
        y = (i // columns) * (tall + TITLE) + TITLE
        marks.append(Picture(x, y, TEMPLATE, tall, image))
        marks.append(Text(x + TEMPLATE / 2, y - 4, name, letter=11, kind="ink"))
    width, height = 12 + columns * 1.08 * TEMPLATE, -(-len(named) // columns) * (tall + TITLE)
    if pictures.scale is not None:
        marks += scale_marks(*pictures.scale, width + 4, TITLE, height - TITLE)
        width += 90
    sheet = Sheet(pictures.heading, LETTER)
    sheet.add(Drawing(max(width, 360), height + 12, marks))
    return sheet


def colour_of(name: str) -> str:
    """Return a colour by its name in COLOURS, or itself; nothing of none."""
    return COLOURS.get(name, name) or "none"


def paint(
    drawings: Sequence[tuple[float, float, Drawing]], width: float, height: float, file: BinaryIO
) -> None:
    """Write drawings, each moved right and down by so much, as one PNG file."""
    from matplotlib.figure import Figure
    from matplotlib.transforms import Affine2D

    card = COLOURS["card"]
    figure = Figure(figsize=(width / UNITS, height / UNITS), dpi=DPI, facecolor=card)
    scale = DPI / UNITS
    order = itertools.count(1)
    for x, y, drawing in drawings:
        to = Affine2D().translate(x, y).scale(scale, -scale).translate(0, height * scale)
        for _, same in itertools.groupby(drawing.marks, type):
            kinds: dict[str, list[Any]] = {}  # what looks alike is painted at once
            for mark in same:
                kinds.setdefault(mark.kind + getattr(mark, "dash", ""), []).append(mark)
            for marks in kinds.values():
                for artist in _artists(figure, marks, to):
                    artist.set_zorder(next(order))
    figure.savefig(file, format="png", facecolor=card, pil_kwargs=PNG)


def _artists(figure: Any, marks: Sequence[Any], to: Any) -> list[Any]:
    """Put marks of one kind into a figure; return what they became."""
    first = marks[0]
    if isinstance(first, Text):
        return [_text(figure, mark, to) for mark in marks]
    if isinstance(first, Picture):
        return [_picture(figure, mark, to) for mark in marks]
    if isinstance(first, Box) and first.kind == "zone":
        return []
    return [_shapes(figure, marks, to)]


def _text(figure: Any, mark: Text, to: Any) -> Any:
    return figure.text(
        *(mark.x, mark.y, mark.text),
        ha={"start": "left", "middle": "center", "end": "right"}[mark.anchor],
        va="baseline",
        rotation_mode="anchor",
        rotation=90 if mark.turned else 0,
        fontsize=mark.letter * 72 / UNITS * 0.92,
        color=colour_of(mark.kind or "soft"),
        transform=to,
        parse_math=False,
        usetex=False,
    )


def _picture(figure: Any, mark: Picture, to: Any) -> Any:
    from matplotlib.image import BboxImage
    from matplotlib.transforms import Bbox

    (x0, y0), (x1, y1) = to.transform(
        [(mark.x, mark.y + mark.height), (mark.x + mark.width, mark.y)]
    )
    image = BboxImage(Bbox([[x0, y0], [x1, y1]]), interpolation="nearest", origin="upper")
    pixels = np.round(mark.image).astype(np.uint8)
    image.set_data(pixels if pixels.ndim == 3 else np.stack(3 * [pixels], axis=-1))
    image.set_alpha(0.25 if mark.kind == "behind" else None)
    return figure.add_artist(image)


def _shapes(figure: Any, marks: Sequence[Any], to: Any) -> Any:
    from matplotlib.collections import CircleCollection, LineCollection, PolyCollection
    from matplotlib.colors import to_rgba
    from matplotlib.transforms import IdentityTransform

    shapes: Any
    first = marks[0]
    style = STYLES[first.kind]
    points = 72 / UNITS
    look: dict[str, Any] = {"linewidths": style.width * points}
    if dash := getattr(first, "dash", "") or style.dash:
        look["linestyles"] = [(0, [float(n) / style.width for n in DASHES[dash].split()])]
    edge: Any = to_rgba(colour_of(style.stroke), 1 if style.fill else style.alpha)
    face = to_rgba(colour_of(style.fill), style.alpha)
    if isinstance(first, Dot):
        sizes = [np.pi * (mark.radius * points) ** 2 for mark in marks]
        places = [(mark.x, mark.y) for mark in marks]
        shapes = CircleCollection(sizes, offsets=places, offset_transform=to, **look)
        edge = "none" if style.stroke == style.fill else edge  # of what may be a line too
        shapes.set(facecolors=face, edgecolors=edge, transform=IdentityTransform())
    elif isinstance(first, Box):
        corners = [
            [
                (m.x, m.y),
                (m.x + m.width, m.y),
                (m.x + m.width, m.y + m.height),
                (m.x, m.y + m.height),
            ]
            for m in marks
        ]
        shapes = PolyCollection(corners, edgecolors=edge, facecolors="none", transform=to, **look)
    else:
        lines = [mark.points for mark in marks]
        if style.stroke:
            shapes = LineCollection(lines, colors=edge, transform=to, **look)
        else:
            shapes = PolyCollection(lines, facecolors=face, transform=to, **look)
    return figure.add_artist(shapes)

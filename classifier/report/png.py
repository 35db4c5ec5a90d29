"""Pictures as files: the drawings of charts and grids, arranged below a heading and painted.

They are painted with Pillow: it takes a tenth of matplotlib's time and memory, needs no process
of its own beside the training, and reads no text as a formula.
"""

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
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
    one_line,
    room,
    shades,
    short,
)

DPI, UNITS = 110, 80  # pixels of an inch, and units of a drawing
PIXEL = DPI / UNITS
# Of a chart in a picture of its own, of one about as high as wide, and of one of several.
ALONE, SQUARE, PANEL = (560.0, 330.0), (420.0, 400.0), (416.0, 280.0)
COLUMNS = 3  # of panels
HEADING = LETTER + 2.0  # the size of its letters
ROW = LETTER + 6  # of a text
CELL, SMALL = 34.0, 11.0  # of a grid with texts in its cells, and of one without
LEAST = 240.0  # the longer side of a grid
MANY = 20  # lines or columns of a grid from which its cells are small
TEMPLATE, TITLE = 110.0, 20.0  # the width of a class's weights, and the room for its name
BAR = 12.0  # the width of a scale of colours
COMPRESSION = 2  # twice as quick as 6, for files a tenth larger
FINE = 2  # pixels each way of which the mean is taken
BEHIND = 0.25  # how opaque an image behind a chart is
FONT = "mpl-data/fonts/ttf/DejaVuSans.ttf"


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
    "for": Style("", 0, "bad", 0.75),
    "against": Style("", 0, "train", 0.75),
    "plain held-out": Style("ink", 1, "soft"),
    **{f"class-{c}": Style("", 0, hue) for c, hue in enumerate(HUES)},
    **{f"class-{c} held-out": Style("ink", 1, hue) for c, hue in enumerate(HUES)},
}


Size = tuple[float, float]


class Plot(NamedTuple):
    """A picture: what stands in it, below a heading, and how large each chart is."""

    heading: str
    panels: Sequence[Chart | Grid | Pictures]
    size: Size = PANEL

    def save(self, file: BinaryIO) -> None:
        """Paint the picture, and write it as PNG."""
        from PIL import Image

        lines = self.heading.splitlines()
        width = max([0.0, *(room(line, HEADING) + 20 for line in lines)])
        below = y = 8.0 + (HEADING + 5) * len(lines)
        places: list[tuple[float, float, Drawing]] = []
        drawings = [drawing_of(panel, self.size) for panel in self.panels]
        for k in range(0, len(drawings), COLUMNS):
            row = drawings[k : k + COLUMNS]
            ends = [*itertools.accumulate((drawing.width for drawing in row), initial=0.0)]
            places += [(x, y, drawing) for x, drawing in zip(ends, row, strict=False)]
            width, y = max(width, ends[-1]), y + max(drawing.height for drawing in row)
        heads: list[Mark] = [
            Text(width / 2, (k + 1) * (HEADING + 5), line, letter=HEADING, kind="ink")
            for k, line in enumerate(lines)
        ]
        sheet = Image.new("RGB", (pixels(width), pixels(y)), COLOURS["card"])
        for left, top, drawing in [(0.0, 0.0, Drawing(width, below, heads)), *places]:
            sheet.paste(paint(drawing), (pixels(left), pixels(top)))
        sheet.save(file, "PNG", compress_level=COMPRESSION, dpi=(DPI, DPI))


def drawing_of(panel: Chart | Grid | Pictures, size: Size = PANEL) -> Drawing:
    """Return the drawing of a panel with all that explains it; a chart's is of a size."""
    if isinstance(panel, Chart):
        return with_legend(panel, *size)
    return grid_drawing(panel) if isinstance(panel, Grid) else pictures_drawing(panel)


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
            marks.append(Box(x, middle - 4, 20, 8, kind))
        else:
            marks.append(Line("", kind, [(x, middle), (x + 20, middle)], dash))
        marks.append(Text(x + 26, y, text, "start", letter=LETTER - 1))
        x += wide
    return Drawing(width, y + 12, marks)


def grid_drawing(grid: Grid) -> Drawing:
    """Return the drawing of a grid with a scale of its colours."""
    n = max(len(grid.lines), len(grid.columns))
    shown, beside = [*map(short, grid.columns)], [short(name) for name, _ in grid.lines]
    letter = 7.5 if n > MANY else 11.0
    left = LETTER + 16 + max(room(name, letter) for name in beside)
    names = max(room(name, letter) for name in shown)
    right = BAR + 40 + LETTER + max((room(text, 11) for _, text in grid.scale), default=0)
    top = ROW if grid.note else 8.0
    cell = max(CELL if n <= MANY else SMALL, LEAST / n)
    turned = names > cell - 4
    end, low = left + cell * len(grid.columns), top + cell * len(grid.lines)
    marks: list[Mark] = _cells(grid, left, top, cell)
    for i, name in enumerate(beside):
        y = top + (i + 0.5) * cell + letter / 3
        marks.append(Text(left - 6, y, name, "end", letter=letter))
    for j, name in enumerate(shown):
        x = left + (j + 0.5) * cell
        y, anchor = (low + 6, "end") if turned else (low + letter + 4, "middle")
        marks.append(Text(x + turned * letter / 3, y, name, anchor, turned, letter))
    below = low + (names if turned else letter) + 10
    marks.append(Text((left + end) / 2, below + LETTER, grid.x_label))
    marks.append(Text(LETTER, (top + low) / 2, grid.y_label, turned=True))
    marks.append(Box(left, top, end - left, low - top, "frame"))
    marks.append(Text((left + end) / 2, top - 6, grid.note, letter=11))
    colours = shades(np.linspace(1, 0, 128)[:, None])
    marks += scale_marks(colours, grid.scale, grid.scale_label, end + 12, top, low - top)
    return Drawing(end + right, below + LETTER + 8, marks)


def _cells(grid: Grid, left: float, top: float, size: float) -> list[Mark]:
    shares = np.array([[cell.share or 0.0 for cell in cells] for _, cells in grid.lines])
    sides = size * len(grid.columns), size * len(grid.lines)
    marks: list[Mark] = [Picture(left, top, *sides, shades(shares))]
    for (i, j), share in np.ndenumerate(shares):
        cell, x, y = grid.lines[i][1][j], left + j * size, top + i * size
        if cell.text and room(cell.text, 10) < size:
            kind = "card" if share > DARK else "ink"
            marks.append(Text(x + size / 2, y + size / 2 + 4, cell.text, letter=10, kind=kind))
        if cell.kind == "best":
            marks.append(Box(x, y, size, size, "framed"))
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


def pictures_drawing(pictures: Pictures) -> Drawing:
    """Return the drawing of small images with their names, and the scale of their colours."""
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
    return Drawing(max(width, 360), height + 12, marks)


def pixels(units: float) -> int:
    """Return units of a drawing in pixels."""
    return round(units * PIXEL)


def paint(drawing: Drawing) -> Any:
    """Return an image of a drawing: its shapes, and in front of them its texts.

    Shapes are drawn with `FINE` times as many pixels each way, of which the mean is taken.
    """
    from PIL import Image, ImageDraw

    size = FINE * pixels(drawing.width), FINE * pixels(drawing.height)
    fine = Image.new("RGB", size, COLOURS["card"])
    pen = ImageDraw.Draw(fine, "RGBA")
    for mark in drawing.marks:
        if not isinstance(mark, Text) and mark.kind != "zone":
            _shape(fine, pen, mark)
    image = fine.reduce(FINE)
    for mark in drawing.marks:
        if isinstance(mark, Text):
            _write(image, mark)
    return image


def _ink(colour: str, alpha: float) -> tuple[int, ...] | None:
    """Return a colour of COLOURS or HUES with its opacity; None of none."""
    return (*bytes.fromhex(COLOURS.get(colour, colour)[1:]), round(255 * alpha)) if colour else None


def _shape(image: Any, pen: Any, mark: Any) -> None:
    """Draw a mark into a fine image, with its pen."""
    from PIL import Image

    scale = FINE * PIXEL
    if isinstance(mark, Box | Picture):
        edges = mark.x, mark.y, mark.x + mark.width, mark.y + mark.height
        left, top, right, bottom = (round(edge * scale) for edge in edges)
    if isinstance(mark, Picture):
        picture = Image.fromarray(np.round(mark.image).astype(np.uint8))
        size = right - left, bottom - top
        opaque = Image.new("L", size, round(255 * (BEHIND if mark.kind == "behind" else 1)))
        image.paste(picture.resize(size, Image.Resampling.NEAREST), (left, top), opaque)
        return
    style = STYLES[mark.kind]
    fill = _ink(style.fill, style.alpha)
    stroke = _ink(style.stroke, 1.0 if fill else style.alpha)  # that of a shape is opaque
    width = max(1, round(style.width * scale))
    if isinstance(mark, Box):
        pen.rectangle((left, top, right, bottom), fill, stroke, width if stroke else 0)
        return
    if isinstance(mark, Line):
        points = [(x * scale, y * scale) for x, y in mark.points]
        dash = mark.dash
    else:
        x, y, r = mark.x * scale, mark.y * scale, mark.radius * scale
        pen.ellipse((x - r, y - r, x + r, y + r), fill)
        if style.stroke == style.fill:  # as of what may be a line too
            return
        turns = np.linspace(0, 2 * np.pi, 60)
        points = [*zip(x + r * np.cos(turns), y + r * np.sin(turns), strict=True)]
        fill, dash = None, style.dash
    if style.stroke:
        for part in dashed(points, [scale * float(n) for n in DASHES[dash].split()]):
            pen.line(part, stroke, width, "curve")
    elif fill:
        pen.polygon(points, fill)


def dashed(points: Sequence[tuple[float, float]], lengths: Sequence[float]) -> Iterator[Any]:
    """Yield the parts of a line that are drawn, where lengths are drawn and left out in turn."""
    if not lengths:
        yield points
        return
    places = np.array(points)
    passed = np.append(0, np.cumsum(np.hypot(*np.diff(places, axis=0).T)))
    for begin in np.arange(0, passed[-1], sum(lengths)):
        end = min(begin + lengths[0], passed[-1])
        between = passed[(passed > begin) & (passed < end)]
        part = [np.interp([begin, *between, end], passed, column) for column in places.T]
        yield [*zip(*part, strict=True)]


@functools.cache
def font(letter: float) -> Any:
    """Return the font of texts whose letters have a size, in units of a drawing.

    It is that of matplotlib's files, which has the letters of most scripts. Matplotlib itself is
    not imported: it would take 0.25 s of CPU and 37 MB.
    """
    from PIL import ImageFont

    package = find_spec("matplotlib")
    place = Path(package.origin if package and package.origin else "").parent / FONT
    try:
        return ImageFont.truetype(
            place, 0.92 * letter * PIXEL, layout_engine=ImageFont.Layout.BASIC
        )
    except OSError:  # as some distributions keep fonts elsewhere
        return ImageFont.load_default(0.92 * letter * PIXEL)


def _write(image: Any, mark: Text) -> None:
    from PIL import Image, ImageDraw

    face, colour = font(mark.letter), COLOURS[mark.kind or "soft"]
    text = one_line(mark.text)
    above, below = face.getmetrics()
    length = math.ceil(face.getlength(text))
    stencil = Image.new("L", (max(1, length), above + below))
    ImageDraw.Draw(stencil).text((0, above), text, 255, face, "ls")
    before = {"start": 0.0, "middle": 0.5, "end": 1.0}[mark.anchor] * length
    left, top = mark.x * PIXEL - before, mark.y * PIXEL - above
    if mark.turned:
        stencil = stencil.transpose(Image.Transpose.ROTATE_90)
        left, top = mark.x * PIXEL - above, mark.y * PIXEL + before - length
    image.paste(colour, (round(left), round(top)), stencil)

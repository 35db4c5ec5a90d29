"""Pictures as files: the drawings of charts and grids, arranged below a heading and painted.

They are painted with Pillow: it takes a tenth of matplotlib's time and memory, needs no process
of its own beside the training, and reads no text as a formula.
"""

import functools
import math
from collections.abc import Sequence
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
    "lost": Style("bad", 1),
    "skipped": Style("soft", 1),
    "framed": Style("bad", 2.5),
    "plain": Style("", 0, "soft"),
    "for": Style("", 0, "bad", 0.75),
    "against": Style("", 0, "train", 0.75),
    "plain held-out": Style("ink", 1, "soft"),
    **{f"class-{c}": Style("", 0, hue) for c, hue in enumerate(HUES)},
    **{f"class-{c} held-out": Style("ink", 1, hue) for c, hue in enumerate(HUES)},
}


class Plot(NamedTuple):
    """A picture: what stands in it, below a heading, and how large each chart is."""

    heading: str
    panels: Sequence[Chart | Grid | Pictures]
    size: tuple[float, float] = PANEL

    def save(self, file: BinaryIO) -> None:
        """Paint the picture, and write it as PNG."""
        from PIL import Image

        lines, step = self.heading.splitlines(), HEADING + 5
        drawings = [drawing_of(panel, self.size) for panel in self.panels]
        rows = [drawings[k : k + COLUMNS] for k in range(0, len(drawings), COLUMNS)]
        widths = [sum(drawing.width for drawing in row) for row in rows]
        width = max(widths + [room(line, HEADING) + 20 for line in lines])
        heads: list[Mark] = [
            Text(width / 2, (k + 1) * step, line, letter=HEADING, kind="ink")
            for k, line in enumerate(lines)
        ]
        rows.insert(0, [Drawing(width, 8 + step * len(lines), heads)])
        heights = [max(drawing.height for drawing in row) for row in rows]
        sheet = Image.new("RGB", (pixels(width), pixels(sum(heights))), COLOURS["card"])
        for k, row in enumerate(rows):
            left, top = 0.0, sum(heights[:k])
            for drawing in row:
                sheet.paste(paint(drawing), (pixels(left), pixels(top)))
                left += drawing.width
        sheet.save(file, "PNG", compress_level=COMPRESSION, dpi=(DPI, DPI))


def drawing_of(panel: Chart | Grid | Pictures, size: tuple[float, float] = PANEL) -> Drawing:
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
    bar = end + 12  # of the colours, from share 1 above to 0 below
    marks.append(Picture(bar, top, BAR, low - top, shades(np.linspace(1, 0, 128)[:, None])))
    marks.append(Box(bar, top, BAR, low - top, "frame"))
    for share, text in grid.scale:
        y = top + (1 - share) * (low - top) + 4
        marks.append(Text(bar + BAR + 5, y, text, "start", letter=11))
    right = bar + BAR + LETTER + 12 + max((room(text, 11) for _, text in grid.scale), default=0)
    marks.append(Text(right, (top + low) / 2, grid.scale_label, turned=True))
    return Drawing(right + 16, below + LETTER + 8, marks)


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


def pictures_drawing(pictures: Pictures) -> Drawing:
    """Return the drawing of small images with their names."""
    columns = min(len(pictures), 5 if len(pictures) <= 20 else 10)
    high, wide = pictures[0][1].shape[:2]
    tall = TEMPLATE * float(np.clip(high / wide, 0.3, 3.0))
    marks: list[Mark] = []
    for i, (name, image) in enumerate(pictures):
        x = 12 + (i % columns) * 1.08 * TEMPLATE
        y = (i // columns) * (tall + TITLE) + TITLE
        marks.append(Picture(x, y, TEMPLATE, tall, image))
        marks.append(Text(x + TEMPLATE / 2, y - 4, name, letter=11, kind="ink"))
    height = -(-len(pictures) // columns) * (tall + TITLE)
    return Drawing(max(360, 12 + columns * 1.08 * TEMPLATE), height + 12, marks)


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
        if not isinstance(mark, Text) and mark.kind != "zone":  # which is to point at
            _shape(fine, pen, mark)
    image = fine.reduce(FINE)
    for mark in drawing.marks:
        if isinstance(mark, Text):
            _write(image, mark)
    return image


def _ink(colour: str, alpha: float) -> tuple[int, ...] | None:
    """Return a colour of COLOURS or HUES with its opacity; None of none."""
    return (*bytes.fromhex(COLOURS.get(colour, colour)[1:]), round(255 * alpha)) if colour else None


def _shape(fine: Any, pen: Any, mark: Any) -> None:
    """Draw a mark into a fine image, with its pen."""
    from PIL import Image

    scale = FINE * PIXEL
    if isinstance(mark, Box | Picture):
        edges = mark.x, mark.y, mark.x + mark.width, mark.y + mark.height
        left, top, right, bottom = (round(edge * scale) for edge in edges)
    if isinstance(mark, Picture):
        share = BEHIND if mark.kind == "behind" else 1.0
        pixels = np.round(255 + share * (mark.image - 255)).astype(np.uint8)
        size = right - left, bottom - top
        fine.paste(Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST), (left, top))
        return
    style = STYLES[mark.kind]
    fill, width = _ink(style.fill, style.alpha), max(1, round(style.width * scale))
    stroke = _ink(style.stroke, 1.0 if fill else style.alpha)  # that of a shape is opaque
    if isinstance(mark, Box):
        pen.rectangle((left, top, right, bottom), fill, stroke, width)
    elif isinstance(mark, Dot):
        edge = stroke if style.stroke != style.fill else None  # as of what may be a line too
        x, y, r = mark.x, mark.y, mark.radius + style.width / 2 * bool(edge)
        corners = (scale * place for place in (x - r, y - r, x + r, y + r))
        pen.ellipse([*corners], fill, edge, width)
    elif stroke:
        for part in dashed(scale * np.array(mark.points), scale, mark.dash):
            pen.line([*map(tuple, part)], stroke, width, "curve")
    else:
        pen.polygon([*map(tuple, scale * np.array(mark.points))], fill)


def dashed(points: np.ndarray, scale: float, dash: str) -> Sequence[np.ndarray]:
    """Return the parts of a line that are drawn; one with dashes has two points."""
    if not dash:
        return [points]
    drawn, left_out = (scale * float(length) for length in DASHES[dash].split())
    length = math.dist(*points)
    begins = np.arange(0, length, drawn + left_out)
    ends = np.minimum(begins + drawn, length)
    shares = np.stack([begins, ends], axis=1)[..., None] / length
    return [*(points[0] + shares * (points[1] - points[0]))]


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

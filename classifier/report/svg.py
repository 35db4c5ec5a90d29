"""A drawing as SVG, and images as data URIs, for the pages: in Python, for a template takes long.

No text of a user is markup.
"""

import base64
import itertools
import struct
import zlib
from collections.abc import Iterator
from urllib.parse import quote

import numpy as np
from markupsafe import Markup, escape

from classifier.report.chart import DASHES, LETTER, Chart, Dot, Line, Mark, Picture, Text


def chart_html(chart: Chart) -> Markup:
    """Return a chart as a figure of HTML, with what its colours mean below it."""
    title, of_x, of_y = escape(chart.title), escape(chart.x.label), escape(chart.y.label)
    drawing = chart.drawing()
    svg = "\n".join(itertools.chain.from_iterable(map(_svg, drawing.marks)))
    keys = "".join(
        f'<span class="key {kind}{" " * bool(dash)}{dash}">{escape(text)}</span>'
        for kind, dash, text in chart.legend()
    )
    return Markup(
        f'<figure class="chart">\n<figcaption>{title}</figcaption>\n'
        f'<svg viewBox="0 0 {drawing.width:.4g} {drawing.height:.4g}" role="group" '
        f'aria-label="{title}: {of_y} by {of_x}">'
        f'\n{svg}\n</svg>\n<p class="legend"><span>{of_y}</span>{keys}</p>\n</figure>'
    )


def _svg(mark: Mark) -> Iterator[str]:
    if isinstance(mark, Line):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in mark.points)
        dash = f' stroke-dasharray="{DASHES[mark.dash]}"' if mark.dash else ""
        yield f'<polyline class="{mark.kind}" points="{points}"{dash}/>'
    elif isinstance(mark, Dot):
        text = escape(mark.text)
        circle = (
            f'<circle class="{mark.kind}" cx="{mark.x:.1f}" cy="{mark.y:.1f}" '
            f'r="{mark.radius:.1f}"><title>{text}</title></circle>'
        )
        link = quote(mark.link)
        yield f'<a href="{link}" aria-label="{text}">{circle}</a>' if link else circle
    elif isinstance(mark, Text):
        turn = f' transform="rotate(-90 {mark.x:.1f} {mark.y:.1f})"' if mark.turned else ""
        turn += "" if mark.letter == LETTER else f' style="font-size:{mark.letter:g}px"'
        place = f'x="{mark.x:.1f}" y="{mark.y:.1f}" text-anchor="{mark.anchor}"{turn}'
        yield f"<text {place}>{escape(mark.text)}</text>"
    else:
        place = (
            f'x="{mark.x:.1f}" y="{mark.y:.1f}" width="{mark.width:.1f}" height="{mark.height:.1f}"'
        )
        if isinstance(mark, Picture):
            yield f'<image href="{data_uri(mark.image)}" {place} preserveAspectRatio="none"/>'
        else:
            yield f'<rect class="{mark.kind}" {place}><title>{escape(mark.text)}</title></rect>'


def data_uri(image: np.ndarray) -> str:
    """Return an image of values from 0 to 255, (height, width) or (height, width, 3)."""
    png = _png(np.round(image).astype(np.uint8))
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _png(image: np.ndarray) -> bytes:
    """Return grey values (height, width) or colours (height, width, 3) as a PNG file.

    Source: Portable Network Graphics Specification, W3C, chapters 5 and 11.
    """
    height, width = image.shape[:2]
    kind = 2 if image.ndim == 3 else 0
    header = struct.pack(">2I5B", width, height, 8, kind, 0, 0, 0)
    rows = np.zeros((height, 1 + image[0].size), np.uint8)  # a row begins with its filter, none
    rows[:, 1:] = image.reshape(height, -1)
    chunks = (b"IHDR" + header, b"IDAT" + zlib.compress(rows.tobytes()), b"IEND")
    written = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)

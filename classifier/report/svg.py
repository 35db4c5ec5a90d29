"""A drawing as SVG, and images as data URIs, for the pages: in Python, for a template takes long.

No text of a user is markup.
"""

import base64
import io
from urllib.parse import quote

import numpy as np
from markupsafe import Markup, escape

from classifier.report.chart import DASHES, LETTER, Box, Chart, Dot, Line, Mark, Text


def chart_html(chart: Chart) -> Markup:
    """Return a chart as a figure of HTML, with what its colours mean below it."""
    title, of_x, of_y = escape(chart.title), escape(chart.x.label), escape(chart.y.label)
    drawing = chart.drawing()
    svg = "\n".join(map(_svg, drawing.marks))
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


def _svg(mark: Mark) -> str:
    if isinstance(mark, Line):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in mark.points)
        dash = f' stroke-dasharray="{DASHES[mark.dash]}"' if mark.dash else ""
        return f'<polyline class="{mark.kind}" points="{points}"{dash}/>'
    place = f'x="{mark.x:.1f}" y="{mark.y:.1f}"'
    if isinstance(mark, Text):
        turn = f' transform="rotate(-90 {mark.x:.1f} {mark.y:.1f})"' if mark.turned else ""
        turn += "" if mark.letter == LETTER else f' style="font-size:{mark.letter:g}px"'
        return f'<text {place} text-anchor="{mark.anchor}"{turn}>{escape(mark.text)}</text>'
    if isinstance(mark, Dot):
        text, link = escape(mark.text), quote(mark.link)
        circle = (
            f'<circle class="{mark.kind}" cx="{mark.x:.1f}" cy="{mark.y:.1f}" '
            f'r="{mark.radius:.1f}"><title>{text}</title></circle>'
        )
        return f'<a href="{link}" aria-label="{text}">{circle}</a>' if link else circle
    place += f' width="{mark.width:.1f}" height="{mark.height:.1f}"'
    if isinstance(mark, Box):
        return f'<rect class="{mark.kind}" {place}><title>{escape(mark.text)}</title></rect>'
    return f'<image href="{data_uri(mark.image)}" {place} preserveAspectRatio="none"/>'


def data_uri(image: np.ndarray) -> str:
    """Return an image of values from 0 to 255, (height, width) or (height, width, 3)."""
    from PIL import Image  # costs start-up

    file = io.BytesIO()
    Image.fromarray(np.round(image).astype(np.uint8)).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"

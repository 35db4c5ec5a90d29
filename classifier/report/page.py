"""What the pages share: the templates, and in Python, for these take long, charts and tables.

A page is one file: nothing in it is fetched from anywhere, and text from data is escaped.
"""

import base64
import functools
import hashlib
import io
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from classifier.evaluation import accuracy_interval
from classifier.fit import nearness
from classifier.report.chart import DASHES, LETTER, Box, Chart, Dot, Line, Mark, Text, short
from classifier.report.settings import near_optimum, reported_split
from data.errors import class_name, printable

TEMPLATES = Path(__file__).parent / "templates"
WIDE = 40  # characters from which a cell is given room


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


def td(value: Any, form: str = ".4g") -> Markup:
    """Return the cell of a value: what it shows, and as data-value what it is sorted by.

    Floats are written with `form`; None, and what is not finite, is no value.
    """
    return Markup(_cell(value, form))


def tr(rows: Iterable[Any], form: str = ".4g") -> Markup:
    """Return the rows of a table, of values or of dicts of them, as HTML.

    Of a long training they are most of its page; a template takes three times as long.
    """
    values = (row.values() if isinstance(row, dict) else row for row in rows)
    return Markup("\n".join(f"<tr>{''.join(_cell(v, form) for v in row)}</tr>" for row in values))


def _cell(value: Any, form: str) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return '<td class="number" data-value="">–</td>'
    if isinstance(value, int | float) and not isinstance(value, bool):
        text = format(value, form) if isinstance(value, float) else str(value)
        return f'<td class="number" data-value="{value!r}">{text}</td>'
    text = escape(value)
    wide = ' class="wide"' if len(str(value)) > WIDE else ""
    return f'<td{wide} data-value="{text}">{text}</td>'


def at(report: dict[str, Any], place: str) -> Any:
    """Return what stands in a nested dict at a place, as "metrics.val.loss"; None of nothing."""
    value: Any = report
    for key in place.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def template(name: str) -> Any:
    """Return a template of pages or texts; what is no text of the program is escaped in pages."""
    return _environment().get_template(name)


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        autoescape=lambda name: not str(name).endswith(".txt"),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals |= {
        "style": Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
        "script": Markup(script),
        "script_hash": f"sha256-{digest}",
        "chart": chart_html,
        "interval": lambda split: accuracy_interval(split["accuracy"], split["n"]),
        "reported_split": reported_split,
        "strongest": lambda sides: sorted(
            sides["for"] + sides["against"], key=lambda named: -abs(named[1])
        ),
        "percent": "{:.2%}".format,
        "td": td,
        "tr": tr,
    }
    environment.filters |= {"at": at, "class_name": class_name, "printable": printable}
    environment.filters |= {"short": short, "near_optimum": near_optimum, "nearness": nearness}
    return environment

"""What the pages share: the templates, their style and script, and the cells of their tables.

A page is one file: nothing in it is fetched from anywhere, and text from data is escaped.
"""

import base64
import functools
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from classifier.report.svg import chart_html

TEMPLATES = Path(__file__).parent / "templates"
WIDE = 40  # characters from which a cell is given room


class Cell(NamedTuple):
    """A cell of a table: what it shows, what it is sorted by, where it leads, what follows."""

    text: str
    value: str
    number: bool = False
    link: str = ""
    more: Markup = Markup()


def cell(value: Any, form: str = "{:.4g}", link: str = "") -> Cell:
    """Return the cell of a value; floats are written with `form`, None is no value."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return Cell("–", "", number=True)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Cell(str(value), str(value), link=link)
    text = form.format(value) if isinstance(value, float) else str(value)
    return Cell(text, repr(value), number=True, link=link)


def html(rows: Markup | Sequence[Sequence[Cell]]) -> Markup:
    """Return the rows of a table as HTML: here, for a template takes three times as long."""
    if isinstance(rows, Markup):
        return rows
    return Markup("\n".join(f"<tr>{''.join(map(_cell_html, row))}</tr>" for row in rows))


def numbers(rows: Sequence[Sequence[float | None]]) -> Markup:
    """Return rows of figures alone as HTML, as `html` does for their cells in three times the time.

    Of a long training they are most of its page.
    """
    return Markup("\n".join(f"<tr>{''.join(map(_number_html, row))}</tr>" for row in rows))


def _number_html(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return '<td class="number" data-value="">–</td>'
    text = f"{value:.5g}" if isinstance(value, float) else value
    return f'<td class="number" data-value="{value!r}">{text}</td>'


def _cell_html(cell: Cell) -> str:
    if cell.number and not cell.link and not cell.more:  # digits need no escape
        return f'<td class="number" data-value="{cell.value}">{cell.text}</td>'
    kind = "number" if cell.number else "wide" if len(cell.value) > WIDE else ""
    kind = f' class="{kind}"' if kind else ""
    text = str(escape(cell.text))
    if cell.link:
        text = f'<a href="{escape(quote(cell.link))}">{text}</a>'
    return f'<td{kind} data-value="{escape(cell.value)}">{text}{cell.more}</td>'


def percent(share: float) -> str:
    """Return a share as a percentage."""
    return f"{share:.2%}"


def render(template: str, **values: Any) -> str:
    """Return the page that a template makes of some values."""
    return _environment().get_template(template).render(**values)


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals |= {
        "style": Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
        "script": Markup(script),
        "script_hash": f"sha256-{digest}",
        "percent": percent,
    }
    environment.filters |= {"html": html, "chart_html": chart_html}
    return environment

"""What the pages share: the templates, their style and script, and the cells of their tables.

A page is one file: nothing in it is fetched from anywhere, and text from data is escaped.
"""

import base64
import functools
import hashlib
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from classifier.report.svg import chart_html
from classifier.report.text import interval

TEMPLATES = Path(__file__).parent / "templates"
WIDE = 40  # characters from which a cell is given room


def td(value: Any, form: str = ".4g") -> Markup:
    """Return the cell of a value: what it shows, and as data-value what it is sorted by.

    Floats are written with `form`; None, and what is not finite, is no value.
    """
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return Markup('<td class="number" data-value="">–</td>')
    if isinstance(value, int | float) and not isinstance(value, bool):
        text = format(value, form) if isinstance(value, float) else str(value)
        return Markup(f'<td class="number" data-value="{value!r}">{text}</td>')
    text = escape(value)
    wide = ' class="wide"' if len(str(value)) > WIDE else ""
    return Markup(f'<td{wide} data-value="{text}">{text}</td>')


def tr(rows: Iterable[Any], form: str = ".4g") -> Markup:
    """Return the rows of a table, of values or of dicts of them, as HTML.

    Of a long training they are most of its page; a template takes three times as long.
    """
    values = (row.values() if isinstance(row, dict) else row for row in rows)
    return Markup("\n".join(f"<tr>{''.join(td(v, form) for v in row)}</tr>" for row in values))


def at(report: dict[str, Any], place: str) -> Any:
    """Return what stands in a nested dict at a place, as "metrics.val.loss"; None of nothing."""
    value: Any = report
    for key in place.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def template(name: str) -> Any:
    """Return a template of the pages."""
    return _environment().get_template(name)


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
        "chart": chart_html,
        "interval": interval,
        "percent": "{:.2%}".format,
        "td": td,
        "tr": tr,
    }

    environment.filters["at"] = at
    return environment

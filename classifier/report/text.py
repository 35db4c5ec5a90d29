"""What is said of a run and of a sweep: the templates, and what is wrong with a model.

The page of a run and its log say the same sentences of a model that is bad but finite. A page is
one file: nothing in it is fetched from anywhere, and text from data is escaped. Charts and tables
are written in Python, for in a template these take long.
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
from markupsafe import Markup, escape

from classifier.evaluation import accuracy_interval
from classifier.fit import nearness
from classifier.report.chart import DASHES, LETTER, Box, Chart, Dot, Line, Mark, Text, short
from classifier.report.settings import OPTIMUM, near_optimum, reported_split
from data.errors import class_name, printable

TEMPLATES = Path(__file__).parent / "templates"
WIDE = 40  # characters from which a cell is given room
CALIBRATION = 0.1  # an expected calibration error from which it is flagged
# Times 2 / L, from where a step is flagged. Momentum makes full-batch steps stable beyond, which is
# no help against the noise of minibatches; these can curve several times as much as all examples.
UNSTABLE = 2.0
FAR = 100  # times lr=auto, or the curvature of the data: what lies beyond is flagged
ROUNDING = 1e-6  # relative; what a loss that is equal to that of guessing may be below it


def text_of(part: str, *values: Any) -> str:
    """Return a part of report.txt, or the whole report_text, by its name in the template."""
    return str(getattr(template("report.txt").module, part)(*values)).rstrip()


def flags(report: dict[str, Any]) -> list[str]:
    """Return a sentence for each thing that is wrong, from the content of report.json."""
    if report.get("status") != "diverged":
        return [*settings_flags(report), *figures_flags(report)]
    diverged = f"Training diverged; the weights are those of epoch {report['best_epoch']}."
    return [diverged, *figures_flags(report)]


def settings_flags(report: dict[str, Any]) -> list[str]:
    """Return a sentence for each setting that is far outside what the data ask for.

    Parameters
    ----------
    report : lr, auto_lr and largest_stable_lr, null where they are not known, reg and smoothness.
    """
    flags = []
    lr, stable, auto = (report.get(key) for key in ("lr", "largest_stable_lr", "auto_lr"))
    if lr is not None and stable is not None and lr > UNSTABLE * stable:
        flags.append(
            f"lr={lr:.4g} is {lr / stable:.2g} times 2/L = {stable:.4g}, up to which full-batch "
            "steps are stable: the loss may jump about, or diverge. Use lr=auto, or a smaller lr."
        )
    elif lr is not None and auto is not None and not auto / FAR**2 <= lr <= auto * FAR:
        size, end = ("large", "diverge or stay bad") if lr > auto else ("small", "hardly move")
        flags.append(
            f"lr={lr:.4g} is very {size} beside lr=auto, {auto:.4g} here: training may {end}."
        )
    reg = report["reg"]
    curvature = report["smoothness"] - 2 * reg  # of the data; rounding may leave nothing of it
    if reg > FAR / 2 * curvature:
        flags.append(
            f"reg={reg:.4g} outweighs the data, whose curvature is {max(curvature, 0):.4g}: the "
            "weights stay near zero."
        )
    return flags


def figures_flags(report: dict[str, Any]) -> list[str]:
    """Return a sentence for each figure that is bad, of the split that speaks for new examples.

    A bad loss may stand beside a good accuracy. The loss is convex in a factor of all scores, and
    at 0 it is that of guessing: where it is more than that at 1, the best factor is less than 1.
    """
    flags, (name, split) = [], reported_split(report["metrics"])
    n_classes = report["data"]["n_classes"]
    guessing = math.log(n_classes)
    bad = guessing * (1 - ROUNDING)
    of, worse = (name, split) if split["loss"] >= bad else ("train", report["metrics"]["train"])
    if worse["loss"] >= bad:
        ways, why = ["lr=auto", "a smaller lr"], ""
        if worse["loss"] <= guessing * (1 + ROUNDING):
            ways, why = (
                ["lr=auto", "less reg", "more epochs"],
                ": all classes are about as probable",
            )
        elif worse["accuracy"] > _largest_share(worse):
            ways, accuracy = ["calibrate=true", *ways], f"{worse['accuracy']:.2%}"
            why = f", while the accuracy is {accuracy}: the model is far too sure where it is wrong"
        flags.append(
            f"The loss of {worse['loss']:.4g} on {of} is no better than that of guessing, "
            f"ln {n_classes} = {guessing:.4g}{why}.{_advice(report, ways)}"
        )
    share = _largest_share(split)
    if 0 < share < 1 and split["accuracy"] <= share:
        flags.append(
            f"The accuracy of {split['accuracy']:.2%} on {name} is no better than always naming "
            f"the largest class ({share:.2%})."
            + _advice(report, ["a smaller lr", "less reg", "more epochs", "other features"])
        )
    error = split.get("expected_calibration_error", 0.0)
    if error > CALIBRATION and error > 2 * calibration_by_chance(split):
        flags.append(
            f"The calibration error on {name} is {error:.2f}: its probabilities are off by so much "
            f"on average.{_advice(report, ['calibrate=true', 'less reg', 'a smaller lr'])}"
        )
    return flags


def _advice(report: dict[str, Any], ways: list[str]) -> str:
    """Return those ways to a better model that a run leaves open, as a sentence; or nothing."""
    closed = set() if report["metrics"].get("val") else {"calibrate=true"}
    if report.get("lr") is None:  # it goes to the optimum
        closed |= {"lr=auto", "a smaller lr", "more epochs"}
    if "reg_path" in report:
        closed |= {"less reg"}
    *others, last = [way for way in ways if way not in closed] or [""]
    return f" Use {', '.join([*others, ''])}{'or ' * bool(others)}{last}." if last else ""


def _largest_share(split: dict[str, Any]) -> float:
    """Return the accuracy of always naming the largest class."""
    most = max((c["support"] for c in split.get("per_class", [])), default=split["n"])
    return float(most / max(split["n"], 1))


def calibration_by_chance(split: dict[str, Any]) -> float:
    """Return about the calibration error of a perfectly calibrated model on so few examples.

    In a bin of n examples of confidence p the share of right ones has the standard deviation
    s = sqrt(p (1 - p) / n), and is off by sqrt(2 / pi) s on average, as a normal variable is.
    """
    bins = list(zip(*split["reliability"].values(), strict=True))
    off = sum(n * math.sqrt(2 / math.pi * p * (1 - p) / n) for n, p, _ in bins if n)
    return float(off / split["n"])


def shown(value: Any, column: str = "") -> str:
    """Return a value, of a column of a sweep's table, as a reader wants it."""
    if value is None:
        return "-"
    if column == OPTIMUM:
        return f"{value:.2%}"
    return f"{value:.4g}" if isinstance(value, float) and math.isfinite(value) else printable(value)


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
def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # cost start-up

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        autoescape=lambda name: not str(name).endswith(".txt"),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = (
        (TEMPLATES / f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals |= {
        "style": Markup(style),
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
    environment.filters |= {
        "at": at,
        "class_name": class_name,
        "printable": printable,
        "short": short,
    }
    environment.filters |= {"near_optimum": near_optimum, "nearness": nearness}
    return environment

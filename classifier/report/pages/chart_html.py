"""A chart as HTML: in Python, for a template takes five times as long."""

from collections.abc import Iterator
from urllib.parse import quote

from markupsafe import Markup, escape

from classifier.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Chart, Dot

LOW, END = HEIGHT - BOTTOM, WIDTH - RIGHT  # where the axes end: below, and at the right
UPRIGHT = f'y1="{TOP}" y2="{LOW}"'  # of a line over the whole height


def chart_html(chart: Chart) -> Markup:
    """Return a chart as a figure of HTML, with what its colours mean below it."""
    title, of_x, of_y = escape(chart.title), escape(chart.x_label), escape(chart.y_label)
    svg = "\n".join(_svg(chart))
    return Markup(
        f'<figure class="chart">\n<figcaption>{title}</figcaption>\n'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="group" aria-label="{title}: {of_y} by {of_x}">'
        f'\n{svg}\n</svg>\n<p class="legend"><span>{of_y}</span>{_legend(chart)}</p>\n</figure>'
    )


def _svg(chart: Chart) -> Iterator[str]:
    """Yield what is drawn, from the back to the front."""
    if chart.picture:
        yield (
            f'<image href="{chart.picture}" x="{LEFT}" y="{TOP}" width="{END - LEFT}" '
            f'height="{LOW - TOP}" preserveAspectRatio="none"/>'
        )
    for at, text in chart.ticks_y():
        yield (
            f'<line class="grid" x1="{LEFT}" x2="{END}" y1="{at:.1f}" y2="{at:.1f}"/>'
            f'<text x="{LEFT - 5}" y="{at:.1f}" text-anchor="end" dominant-baseline="middle">'
            f"{escape(text)}</text>"
        )
    for at, text in chart.ticks_x():
        yield (
            f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" {UPRIGHT}/>'
            f'<text x="{at:.1f}" y="{LOW + 14}" text-anchor="middle">{escape(text)}</text>'
        )
    middle = (LEFT + END) / 2
    yield f'<text x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">{escape(chart.x_label)}</text>'
    for at, _ in chart.marks:
        yield f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" {UPRIGHT}/>'
    for line in chart.lines:
        yield f'<polyline class="{line.kind}" points="{line.points}"/>'
    for zone in chart.zones:
        yield (
            f'<rect class="zone" x="{zone.x:.1f}" width="{zone.width:.1f}" y="{TOP}" '
            f'height="{LOW - TOP}"><title>{escape(zone.text)}</title></rect>'
        )
    yield from map(_dot, chart.dots)


def _dot(dot: Dot) -> str:
    text = escape(dot.text)
    circle = (
        f'<circle class="{dot.kind}" cx="{dot.x:.1f}" cy="{dot.y:.1f}" r="{dot.radius:.1f}">'
        f"<title>{text}</title></circle>"
    )
    return f'<a href="{quote(dot.link)}" aria-label="{text}">{circle}</a>' if dot.link else circle


def _legend(chart: Chart) -> str:
    lines = [(line.kind, line.label) for line in chart.lines if line.label]
    keys = [*lines, *(("mark", text) for _, text in chart.marks), *chart.keys]
    return "".join(f'<span class="key {kind}">{escape(text)}</span>' for kind, text in keys)

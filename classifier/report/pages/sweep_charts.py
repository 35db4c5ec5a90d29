"""The charts of a sweep's page: the objective by each swept key, and by all of them at once."""

from collections.abc import Iterator, Sequence
from urllib.parse import quote

from markupsafe import Markup, escape

from classifier.report.charts import Chart, Dot, span
from classifier.report.pages.key_axis import KeyAxis, key_axis
from classifier.report.pages.page import cell
from classifier.report.sweep_look import best_at, bounds, error_of, is_log, shade_of, spread
from classifier.report.sweep_values import Row, is_done, rank

GAP = 0.13  # of the width of a chart between the ticks of a key, at least
HIGH, TOP, LOW, LEFT = 300, 34, 286, 60  # of parallel axes


def few(rows: list[Row], objective: str, most: int) -> list[Row]:
    """Return at most so many rows, in order: half the best, half evenly from the others."""
    if len(rows) <= most:
        return rows
    done = rank(rows, objective)
    ordered = done + [row for row in rows if not is_done(row, objective)]
    half = most // 2
    rest, left = ordered[half:], most - half
    kept = ordered[:half] + [rest[k * len(rest) // left] for k in range(left)]
    names = {row["job"] for row in kept}
    return [row for row in rows if row["job"] in names]


def key_chart(
    rows: list[Row],
    key: str,
    objective: str,
    links: dict[str, str],
    most: int,
    jobs: Sequence[Row],
    winner: str,
) -> Chart:
    """Return the objective by a swept key.

    Parameters
    ----------
    rows : settings or jobs, of which at most `most` are drawn.
    links : where the dot of each job leads.
    jobs : the single jobs of settings with repetitions: faint, behind their means.
    winner : the job whose dot has a ring.
    """
    rows = [row for row in rows if row[key] is not None]
    axis, log = key_axis(rows, key), is_log(rows, objective)
    best = [] if axis.category else best_at(rows, key, objective)
    rows = few(rows, objective, most)
    names = {name for row in rows if row.get("repetitions", 1) > 1 for name in row["jobs"]}
    single = [job for job in jobs if job["job"] in names and is_done(job, objective)]
    figures = bounds(rows, objective) + [job[objective] for job in single]
    y = span([figure for figure in figures if figure > 0 or not log], log=log)
    chart = Chart(f"{objective} by {key}", key, objective, x=axis.axis, y=y)
    chart.x_ticks = axis.ticks(GAP)
    numbers = spread(rows, key) if axis.category else [axis.number(row[key]) for row in rows]
    of_best = [axis.number(row[key]) for row in best]
    chart.add_line("best", "val", of_best, [row[objective] for row in best])
    place_of = {job: x for row, x in zip(rows, numbers, strict=True) for job in row.get("jobs", [])}
    for job in single[:most]:
        place = chart.at_x(place_of[job["job"]]), chart.at_y(job[objective])
        chart.dots.append(Dot(*place, 2.5, "faint", ""))
    _add_rows(chart, rows, numbers, key, objective, links, winner)
    return chart


def _add_rows(
    chart: Chart,
    rows: list[Row],
    numbers: list[float],
    key: str,
    objective: str,
    links: dict[str, str],
    winner: str,
) -> None:
    """Draw a dot for each row, with its error bar; the winner comes last, in front."""
    worst = chart.y.low if objective.endswith("accuracy") else chart.y.high
    pairs = sorted(zip(rows, numbers, strict=True), key=lambda pair: pair[0]["job"] == winner)
    for row, number in pairs:
        lost = not is_done(row, objective)
        y = worst if lost else row[objective]
        kind = "lost" if lost else "best" if row["job"] == winner else "dot"
        error = None if lost else error_of(row, objective)
        if error:
            chart.add_line("", "error", [number, number], [max(y - error, chart.y.low), y + error])
        text = f"job {row['job']}: {key} {cell(row[key]).text}, {figure_text(row, objective)}"
        place = chart.at_x(number), chart.at_y(y)
        chart.dots.append(Dot(*place, 5, kind, text, links[row["job"]]))


def figure_text(row: Row, objective: str) -> str:
    """Return the objective of a row with its error, or why there is none."""
    if not is_done(row, objective):
        return str(row["status"])
    error = error_of(row, objective)
    return f"{objective} {row[objective]:.4g}" + (f" ± {error:.2g}" if error else "")


def parallel(
    rows: list[Row], keys: list[str], objective: str, links: dict[str, str], most: int
) -> Markup:
    """Return parallel coordinates: an axis for each key and the objective, a line for each row.

    Source: A. Inselberg, The plane with parallel coordinates, The Visual Computer 1985.
    """
    known = [
        row for row in rows if is_done(row, objective) and all(row[k] is not None for k in keys)
    ]
    known = few(known, objective, most)
    figures = [row[objective] for row in known]
    axes = [key_axis(known, key) for key in keys]
    log = is_log(known, objective)
    axes.append(KeyAxis(span(figures, log=log), sorted(set(figures)), category=False))
    apart = max(130, min(220, 900 // len(keys)))
    width = 2 * LEFT + apart * len(keys)
    title = f"All keys at once, {len(known)} lines"
    columns = [(LEFT + k * apart, axis) for k, axis in enumerate(axes)]
    # The axes in front, for their ticks to be read.
    drawn = [*_lines(known, columns, keys, objective, links), *_axes(columns, [*keys, objective])]
    svg = "\n".join(drawn)
    return Markup(
        f'<figure class="chart wide"><figcaption>{title}</figcaption>\n'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{title}">\n'
        f'<svg width="{width}" height="{HIGH}" viewBox="0 0 {width} {HIGH}" role="group" '
        f'aria-label="{title}">\n{svg}\n</svg>\n</div></figure>'
    )


def _axes(axes: list[tuple[int, KeyAxis]], names: list[str]) -> Iterator[str]:
    for (x, axis), name in zip(axes, names, strict=True):
        yield f'<text x="{x}" y="14" text-anchor="middle">{escape(name[-18:])}</text>'
        yield f'<line class="axis" x1="{x}" x2="{x}" y1="{TOP}" y2="{LOW}"/>'
        for number, text in axis.ticks(0.08):
            y = _height(axis, number)
            yield f'<text x="{x - 5}" y="{y:.1f}" text-anchor="end">{escape(text)}</text>'


def _lines(
    rows: list[Row],
    axes: list[tuple[int, KeyAxis]],
    keys: list[str],
    objective: str,
    links: dict[str, str],
) -> Iterator[str]:
    """Yield a line a row, the worst first and the best in front."""
    shade = shade_of([row[objective] for row in rows], objective)
    ranked = rank(rows, objective)
    for row in reversed(ranked):
        values = [*(row[key] for key in keys), row[objective]]
        points = " ".join(
            f"{x},{_height(axis, axis.number(value)):.1f}"
            for (x, axis), value in zip(axes, values, strict=True)
        )
        said = ", ".join(f"{key} {cell(row[key]).text}" for key in keys)
        text = escape(f"job {row['job']}: {said}, {figure_text(row, objective)}")
        kind = ' class="best"' if row is ranked[0] else ""
        line = (
            f'<polyline{kind} style="--share:{shade(row[objective]):.3g}" points="{points}">'
            f"<title>{text}</title></polyline>"
        )
        link = links[row["job"]]
        yield f'<a href="{quote(link)}" aria-label="{text}">{line}</a>' if link else line


def _height(axis: KeyAxis, number: float) -> float:
    return LOW - axis.axis.place(number) * (LOW - TOP)

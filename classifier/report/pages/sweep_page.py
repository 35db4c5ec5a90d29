"""The page of a sweep, sweep.html, from the content of its summary."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup, escape

from classifier.report.chart import Grid, span
from classifier.report.names import SWEEP_PLOT
from classifier.report.pages.page import Cell, cell, html, percent, render
from classifier.report.pages.run_page import command
from classifier.report.settings import (
    Row,
    figures_of,
    is_done,
    metrics_of,
    near_best,
    rank,
    shown_keys,
    shown_rows,
    status_counts,
)
from classifier.report.sweep_figures import (
    KeyAxis,
    few,
    figure_text,
    heat_map,
    is_log,
    key_axis,
    key_chart,
    path_charts,
    shade_of,
)
from classifier.report.text import differences, test_interval
from classifier.runs.artifacts import PAGE, read_history
from data.files.store import write_text

NAME = "sweep.html"
DOTS = 1600  # in all charts of the keys, about
LINES = 300  # through all keys, at most
CELLS, OPEN = 2500, 50  # of all heat maps of a page, about, and lines that are not folded away
FIRST = 50  # rows that are shown before all are asked for
BYTES = 500_000  # of the rows of a page, at most
JOBS = 8  # of a setting that are linked, at most
CURVES = 300  # jobs of which a page has a curve, at most
POINTS = 40  # of a curve, at most
HIGH, TOP, LOW, LEFT = 310, 34, 286, 60  # of parallel axes


def write_sweep_page(sweep: Path, summary: dict[str, Any]) -> None:
    """Write the page of the sweep in a folder, into it, from its summary and the runs' folders."""
    objective = summary["objective"]
    links = {job["job"]: _link(sweep, job) for job in summary["jobs"]}
    shown, swept = shown_rows(summary)
    jobs, rows, path = (
        [row | {"link": links[row["job"]]} for row in listed]
        for listed in (summary["jobs"], shown, summary["path"])
    )
    keys, pairs = shown_keys(rows, swept)
    columns = table_columns(rows, swept, objective, jobs, is_one=not summary["keys"])
    listed = table_rows(rows, columns, objective, jobs)
    most = max(50, DOTS // max(4, len(keys)))
    done = rank(rows, objective)
    winner = summary["best"]["job"] if summary["best"] else ""
    page = render(
        "sweep.html",
        place="/".join(sweep.resolve().parts[-2:]),
        objective=objective,
        swept=summary["swept"],
        statuses=status_counts(jobs),
        is_one=not summary["keys"],
        command=command(sweep),
        edges=summary["edges"],
        not_certified=summary.get("not_certified", 0),
        differences=differences(summary),
        strongest=summary["one_standard_error"],
        path=path_charts(path, summary["best"], summary["one_standard_error"]),
        columns=columns,
        rows=listed,
        n_listed=len(listed),
        n_rows=len(rows),
        first=FIRST,
        picture=SWEEP_PLOT,
        n_drawn=min(most, len(rows)),
        charts=[key_chart(rows, key, objective, jobs, winner, most) for key in keys if done],
        heat_maps=_heat_maps(rows, pairs, objective, winner) if done else [],
        n_pairs=len(pairs),
        parallel=parallel(rows, keys, objective) if done and len(keys) > 2 else "",
        curves=curves(sweep, _in_order(done, jobs)),
        **_winner(sweep, summary, links),
    )
    write_text(sweep / NAME, page)


def _winner(sweep: Path, summary: dict[str, Any], links: dict[str, str]) -> dict[str, Any]:
    """Return what the page says of the winner: its figures, those of the test split among them."""
    best, interval = summary["best"], test_interval(summary["best"])
    if best is None:
        return {"best": None}
    figures = [(key, cell(best[key]).text, "") for key in summary["keys"]]
    for name in metrics_of(summary["settings"]):
        if not name.endswith("_error") and best[name] is not None:
            error = best.get(f"{name}_error")
            note = "" if error is None else f"± {error:.2g}"
            figures.append((name, cell(best[name]).text, note))
    tested = []
    if interval is not None:
        low, high = (percent(end) for end in interval)
        error = best["test_loss_error"]
        note = "" if error is None else f"± {error:.2g}"
        tested = [
            ("test accuracy", percent(best["test_accuracy"]), f"{low} to {high} (95 %)"),
            ("test loss", f"{best['test_loss']:.4f}", note),
        ]
    repetitions = [job for job in summary["jobs"] if job["job"] in best["jobs"]]
    return {
        "best": best,
        "flags": setting_flags(best, repetitions),
        "figures": figures,
        "tested": tested,
        "best_link": links[best["job"]],
        "best_page": f"best/{PAGE}" if (sweep / "best" / PAGE).exists() else "",
        "best_command": command(sweep / best["folder"]),
    }


def _link(sweep: Path, job: Row) -> str:
    """Return where a job's row leads: its page, or the log of a job that has none."""
    names = (f"{job['folder']}/{name}" for name in (PAGE, "train.log"))
    return next((name for name in names if (sweep / name).exists()), "")


def _in_order(done: list[Row], jobs: list[Row]) -> list[Row]:
    """Return the jobs, those of the best settings first, each that stands for its setting before.

    The first is the winner, with whose curve the page compares all others.
    """
    stands = {row["job"] for row in done}
    place = {name: k for k, row in enumerate(done) for name in row.get("jobs", [row["job"]])}
    return sorted(
        jobs, key=lambda job: (place.get(job["job"], len(done)), job["job"] not in stands)
    )


def _heat_maps(
    rows: list[Row], pairs: list[tuple[str, str]], objective: str, winner: str
) -> list[tuple[Grid, bool]]:
    """Return a heat map for each pair, and whether it is folded away, as long as there is room."""
    maps: list[tuple[Grid, bool]] = []
    cells = lines = 0
    for pair in pairs:
        grid = heat_map(rows, pair, objective, winner)
        cells += len(grid.columns) * len(grid.lines)
        lines += len(grid.lines)
        if maps and cells > CELLS:
            break
        maps.append((grid, bool(maps) and lines > OPEN))
    return maps


def parallel(rows: list[Row], keys: list[str], objective: str) -> Markup:
    """Return parallel coordinates: an axis for each key and the objective, a line for each row.

    Source: A. Inselberg, The plane with parallel coordinates, The Visual Computer 1985.
    """
    known = [
        row for row in rows if is_done(row, objective) and all(row[k] is not None for k in keys)
    ]
    known = few(known, objective, LINES)
    of_objective = span([row[objective] for row in known], log=is_log(known, objective))
    axes = [*(key_axis(known, key) for key in keys), KeyAxis(of_objective, [])]
    apart = max(130, min(220, 900 // len(keys)))
    columns = [(LEFT + k * apart, axis) for k, axis in enumerate(axes)]
    width = 2 * LEFT + apart * len(keys)
    title = f"All keys at once, {len(known)} lines"
    # The axes in front, for their ticks to be read.
    svg = [*_lines(known, columns, keys, objective), *_axes(columns, [*keys, objective])]
    return Markup(
        f'<figure class="chart wide"><figcaption>{title}</figcaption>\n'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{title}">\n'
        f'<svg width="{width}" height="{HIGH}" viewBox="0 0 {width} {HIGH}" role="group" '
        f'aria-label="{title}">\n{chr(10).join(svg)}\n</svg>\n</div></figure>'
    )


def _lines(
    rows: list[Row], axes: list[tuple[int, KeyAxis]], keys: list[str], objective: str
) -> Iterator[str]:
    """Yield a line a row, the worst first and the best in front."""
    shade = shade_of([row[objective] for row in rows], objective)
    ranked = rank(rows, objective)
    for row in reversed(ranked):
        places = zip(axes, [*keys, objective], strict=True)
        points = " ".join(
            f"{x},{_height(axis, axis.number(row[key])):.1f}" for (x, axis), key in places
        )
        values = ", ".join(f"{key} {cell(row[key]).text}" for key in keys)
        text = escape(f"job {row['job']}: {values}, {figure_text(row, objective)}")
        kind = ' class="best"' if row is ranked[0] else ""
        share = f'style="--share:{shade(row[objective]):.3g}"'
        line = f'<polyline{kind} {share} points="{points}"><title>{text}</title></polyline>'
        link = quote(row["link"])
        yield f'<a href="{link}" aria-label="{text}">{line}</a>' if link else line


def _axes(axes: list[tuple[int, KeyAxis]], names: list[str]) -> Iterator[str]:
    for (x, axis), name in zip(axes, names, strict=True):
        yield f'<text x="{x}" y="14" text-anchor="middle">{escape(name[-18:])}</text>'
        yield f'<line class="axis" x1="{x}" x2="{x}" y1="{TOP}" y2="{LOW}"/>'
        above = float(HIGH)
        for number, text in axis.axis.ticks():
            y = _height(axis, number)
            if y <= above - 20:  # else the texts would touch
                above = y
                yield f'<text x="{x - 5}" y="{y:.1f}" text-anchor="end">{escape(text[:12])}</text>'


def _height(axis: KeyAxis, number: float) -> float:
    return LOW - axis.axis.place(number) * (LOW - TOP)


def table_columns(
    rows: list[Row], keys: list[str], objective: str, jobs: list[Row], *, is_one: bool
) -> list[str]:
    """Return the names of the columns: but for those in which nothing stands."""
    figures = figures_of(rows, keys)  # of which errors stand beside their figures
    ranked = [] if is_one else ["standing"]  # repetitions of one setting have no order
    columns = ["job", *ranked, *(name for name in figures if not name.endswith("_error"))]
    repeated = any(len(row.get("jobs", "")) > 1 for row in rows)
    columns += ["jobs"] if repeated else ["status"]
    flagged = any(row.get("flags") for row in rows)
    flagged |= any(job["status"] == "diverged" for job in jobs)
    columns += ["flags"] if flagged else []
    lost = any(not is_done(row, objective) for row in rows)
    return [*columns, "best_epoch", "seconds", *(["reason"] if lost else [])]


def table_rows(
    rows: list[Row], columns: list[str], objective: str, jobs: list[Row]
) -> list[list[Cell]]:
    """Return the rows, as many as the page has room for."""
    done = rank(rows, objective)
    near = {row["job"] for row in near_best(rows, objective)}
    figures = metrics_of(rows)
    by_name = {job["job"]: job for job in jobs}
    listed, size = [], 0
    for row in [*done, *(row for row in rows if not is_done(row, objective))]:
        repetitions = [by_name[name] for name in row.get("jobs", [])]
        standing = "worse" if row.get("worse") else "near" if row["job"] in near else ""
        special = {
            "job": cell(row["job"], link=row["link"]),
            "standing": cell("best" if row in done[:1] else standing),
            "jobs": _jobs(repetitions),
            "flags": _flags(setting_flags(row, repetitions)),
        }
        special |= {name: _figure(row, name) for name in figures if name in columns}
        cells = [special[name] if name in special else cell(row[name]) for name in columns]
        size += len(html([cells]))
        if size > BYTES:
            break
        listed.append(cells)
    return listed


def _figure(row: Row, name: str) -> Cell:
    """Return the cell of a figure with its standard error, where that is known."""
    error = row.get(f"{name}_error")
    figure = cell(row[name])
    return figure._replace(more=Markup(f" ± {error:.2g}")) if error and figure.value else figure


def _jobs(jobs: list[Row]) -> Cell:
    """Return the links to the jobs of a setting, and what became of those that did not complete."""
    shown = [
        Markup(f'<a href="{quote(link)}">{escape(name)}</a>') if link else escape(name)
        for name, link in ((job["job"], job["link"]) for job in jobs[:JOBS])
    ]
    lost = {status: n for status, n in status_counts(jobs).items() if status != "completed"}
    others = "".join(f", {n} {status}" for status, n in lost.items())
    rest = f" and {len(jobs) - JOBS} more" * (len(jobs) > JOBS)
    more = Markup('<span class="jobs">') + Markup(" ").join(shown) + rest + Markup("</span>")
    return Cell(f"{len(jobs)}{others}: ", repr(len(jobs)), number=True, more=more)


def setting_flags(row: Row, jobs: list[Row]) -> list[str]:
    """Return the flags of a setting: those of the job that stands for it, and of all its jobs."""
    lost = sum(job["status"] == "diverged" for job in jobs)
    flag = f"{lost} of {len(jobs)} repetitions diverged, and are not in the mean: use a smaller lr."
    return [*(row.get("flags") or []), *([flag] if len(jobs) > 1 and lost else [])]


def _flags(sentences: list[str]) -> Cell:
    if not sentences:
        return Cell("", "")
    texts = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
    more = Markup(f"<details><summary>⚑ {len(sentences)}</summary>{texts}</details>")
    return Cell("", repr(len(sentences)), more=more)


def curves(sweep: Path, jobs: list[Row]) -> str:
    """Return the curves of the first jobs as JSON: by link a list of epochs and one of losses."""
    by_link = {}
    for job in jobs[:CURVES]:
        curve = _curve(sweep / job["folder"] / "history.csv")
        if curve is not None and job["link"]:
            by_link[quote(job["link"])] = curve
    return json.dumps(by_link, separators=(",", ":"))


def _curve(path: Path) -> tuple[list[int], list[float]] | None:
    """Return epochs and validation losses of a job, training losses where there are none."""
    try:
        history = read_history(path)
    except (OSError, ValueError, TypeError, StopIteration):  # none, or cut short
        return None
    losses = [(row.epoch, row.val_loss) for row in history if row.val_loss is not None]
    losses = losses or [(row.epoch, row.train_loss) for row in history]
    known = [(epoch, loss) for epoch, loss in losses if math.isfinite(loss)]
    if len(known) < 2:
        return None
    step = max(1.0, (len(known) - 1) / (POINTS - 1))
    last = round((len(known) - 1) / step)
    kept = [known[round(k * step)] for k in range(last + 1)]
    return [epoch for epoch, _ in kept], [float(f"{loss:.3g}") for _, loss in kept]

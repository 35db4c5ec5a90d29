"""The page of a sweep, sweep.html, from the content of its summary."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from classifier.report.charts import Axis, Chart, Dot, span
from classifier.report.pages.page import Cell, cell, render
from classifier.report.pages.path import path_charts
from classifier.report.pages.run import NAME as RUN_PAGE
from classifier.report.pages.run import command
from classifier.report.settings import shown_rows
from classifier.report.sweep_values import (
    Row,
    best_job,
    best_of_pairs,
    distinct,
    figures_of,
    is_done,
    metrics_of,
    rank,
    shown_keys,
    status_counts,
)
from data.files.whole import write_text

NAME = "sweep.html"
LABELS = 8  # values of a key that are written below a chart, at most


def write_sweep_page(sweep: Path, summary: dict[str, Any]) -> None:
    """Write the page of the sweep in a folder, into it, from its summary and the runs' folders."""
    objective = summary["objective"]
    jobs, swept = shown_rows(summary)
    keys, pairs = shown_keys(jobs, swept)
    ranked = rank(jobs, objective)
    lost = [job for job in jobs if not is_done(job, objective)]
    columns = ["job", "status", *figures_of(jobs, swept)]
    columns += ["best_epoch", "seconds", *(["reason"] if lost else [])]
    links = {job["job"]: _link(sweep, job) for job in summary["jobs"]}
    best = summary["best"]
    page = render(
        "sweep.html",
        place="/".join(sweep.resolve().parts[-2:]),
        objective=objective,
        swept=swept,
        statuses=status_counts(summary["jobs"]),
        best=best,
        best_link=links[best["job"]] if best else "",
        best_values=[(key, cell(best[key]).text) for key in summary["keys"]] if best else [],
        best_command=command(sweep / best["folder"]) if best else "",
        command=command(sweep),
        metrics=metrics_of(jobs),
        strongest=summary.get("one_standard_error"),
        path=path_charts(summary["path"], best, links),
        edges=summary["edges"],
        columns=columns,
        rows=[_cells(job, columns, links[job["job"]]) for job in [*ranked, *lost]],
        charts=[_chart(jobs, key, objective, links) for key in keys if ranked],
        heat_maps=[_heat_map(jobs, pair, objective, links) for pair in pairs],
    )
    write_text(sweep / NAME, page)


def _link(sweep: Path, job: Row) -> str:
    """Return where a job's row leads: its page, or the log of a job that has none."""
    names = (f"{job['folder']}/{name}" for name in (RUN_PAGE, "train.log"))
    return next((name for name in names if (sweep / name).exists()), "")


def _cells(job: Row, columns: list[str], link: str) -> list[Cell]:
    return [cell(job[name], link=link if name == "job" else "") for name in columns]


def _chart(jobs: list[Row], key: str, objective: str, links: dict[str, str]) -> Chart:
    """Return the objective by a swept key, its values in order at equal distances."""
    values = distinct(jobs, key)
    done = [job for job in jobs if is_done(job, objective) and job[key] is not None]
    figures = [job[objective] for job in done]
    log = objective.endswith("loss") and max(figures, default=1) > 10 * min(figures, default=1) > 0
    step = -(-len(values) // LABELS)
    chart = Chart(
        f"{objective} by {key}",
        f"{key}, in order",
        objective,
        x=Axis(-0.5, len(values) - 0.5),
        y=span(figures, log=log),
        x_ticks=[
            (float(k), cell(values[k], "{:.3g}").text[:12]) for k in range(0, len(values), step)
        ],
    )
    found = [best_job(jobs, objective, {key: value}) for value in values]
    places = [float(k) for k, job in enumerate(found) if job]
    chart.add_line("best", "val", places, [job[objective] for job in found if job])
    best = best_job(jobs, objective)
    for job in (job for job in jobs if job[key] is not None):
        lost = not is_done(job, objective)
        worst = chart.y.low if objective.endswith("accuracy") else chart.y.high
        y = worst if lost else job[objective]
        kind = "lost" if lost else "best" if job is best else "dot"
        text = f"job {job['job']}: {key} {cell(job[key]).text}, "
        text += job["status"] if lost else f"{objective} {job[objective]:.4g}"
        x = chart.at_x(values.index(job[key]))
        chart.dots.append(Dot(x, chart.at_y(y), 5, kind, text, links[job["job"]]))
    return chart


def _heat_map(
    jobs: list[Row], pair: tuple[str, str], objective: str, links: dict[str, str]
) -> dict[str, Any]:
    """Return the best objective of each two values, the better the darker."""
    columns, lines, best = best_of_pairs(jobs, pair, objective)
    figures = [job[objective] for line in best for job in line if job]
    goodness = _goodness(figures, objective)

    def shown(job: Row | None, column: Any, value: Any) -> dict[str, Any]:
        here = f"{pair[0]} {cell(column).text}, {pair[1]} {cell(value).text}"
        if job is None:
            return {"text": "", "share": None, "hover": f"{here}: none completed", "link": ""}
        figure = job[objective]
        hover = f"{here}: {objective} {figure:.4g}, job {job['job']}"
        link = links[job["job"]]
        return {"text": f"{figure:.3g}", "share": goodness(figure), "hover": hover, "link": link}

    rows = [
        (cell(value).text, [shown(job, c, value) for job, c in zip(line, columns, strict=True)])
        for value, line in zip(lines, best, strict=True)
    ]
    names = [cell(column).text for column in columns]
    return {"pair": pair, "columns": names, "lines": rows}


def _goodness(figures: list[float], objective: str) -> Callable[[float], float]:
    """Return what gives a figure's shade: 0.05 for the worst, 1 for the best, losses by log."""
    low, high = min(figures, default=0.0), max(figures, default=1.0)
    accuracy = objective.endswith("accuracy")

    def goodness(figure: float) -> float:
        if high == low:
            return 0.5
        share = (figure - low) / (high - low)
        if not accuracy:
            share = 1 - (math.log(figure / low) / math.log(high / low) if low > 0 else share)
        return 0.05 + 0.95 * share

    return goodness

"""The page of a sweep, sweep.html, from the content of its summary."""

import itertools
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from classifier.report import settings, sweep_figures
from classifier.report.chart import apart, span
from classifier.report.figures import by_epoch
from classifier.report.pages.draw import command
from classifier.report.settings import Row, is_done, rank
from classifier.report.sweep_figures import heat_map, is_log, key_axis, key_chart, value_text
from classifier.report.text import template
from classifier.runs.artifacts import PAGE, read_history
from data.files.store import write_text

NAME = "sweep.html"
DOTS = 1600  # in all charts of the keys, about
LINES = 300  # through all keys, at most
CELLS = 2500  # of all heat maps of a page, about
ROWS = 800  # of the table, at most
CURVES = 300  # jobs of which a page has a curve, at most
POINTS = 40  # of a curve, at most
LEFT, TOP, LOW = 60, 34, 286  # ends of parallel axes


def write_sweep_page(sweep: Path, summary: dict[str, Any]) -> None:
    """Write the page of the sweep in a folder, into it, from its summary and the runs' folders."""
    objective, best = summary["objective"], summary["best"]
    jobs = {job["job"]: job | {"link": _link(sweep, job)} for job in summary["jobs"]}
    shown, swept, keys, pairs = settings.drawn(summary)
    rows = [_with_jobs(row, jobs) for row in shown]
    path = [row | {"link": jobs[row["job"]]["link"]} for row in summary["path"]]
    done = rank(rows, objective)
    listed = [*done, *(row for row in rows if not is_done(row, objective))]
    most, winner = max(50, DOTS // max(4, len(keys))), best["job"] if best else ""
    drawn, every = keys if done else [], [*jobs.values()]
    maps = [heat_map(rows, pair, objective, winner) for pair in pairs if done]
    sizes = itertools.accumulate(len(grid.columns) * len(grid.lines) for grid in maps)
    page = template("sweep.html").render(
        place="/".join(sweep.resolve().parts[-2:]),
        summary=summary,
        status_counts=settings.status_counts,
        command=command(sweep),
        path=sweep_figures.path_charts(path, best, summary["one_standard_error"]),
        figures=[n for n in settings.figures_of(rows, swept) if not n.endswith("_error")],
        metrics=settings.metrics_of(summary["settings"]),
        rows=listed[:ROWS],
        n_rows=len(rows),
        near=[row["job"] for row in settings.near_best(rows, objective)],
        n_drawn=len(sweep_figures.few(rows, objective, most)),
        charts=[key_chart(rows, key, objective, every, winner, most) for key in drawn],
        # The first one in any case.
        heat_maps=[
            grid for grid, n in zip(maps, sizes, strict=True) if grid is maps[0] or n <= CELLS
        ],
        n_pairs=len(pairs),
        parallel=parallel(rows, keys, objective) if len(drawn) > 2 else None,
        curves=curves(sweep, done, every),
        best=best and _with_jobs(best, jobs),
        best_page=f"best/{PAGE}" if (sweep / "best" / PAGE).exists() else "",
        best_command=command(sweep / best["folder"]) if best else "",
    )
    write_text(sweep / NAME, page)


def _with_jobs(row: Row, jobs: dict[str, Row]) -> Row:
    """Return a row with where it leads, its jobs, and its flags: those of all of them too."""
    group = [jobs[name] for name in row.get("jobs", [])]
    lost = sum(job["status"] == "diverged" for job in group)
    flags = [*(row.get("flags") or [])]
    if len(group) > 1 and lost:
        few = f"{lost} of {len(group)} repetitions diverged, and are not in the mean"
        flags.append(f"{few}: use a smaller lr.")
    return row | {"link": jobs[row["job"]]["link"], "group": group, "flags": flags}


def _link(sweep: Path, job: Row) -> str:
    """Return where a job's row leads: its page, or the log of a job that has none."""
    names = (f"{job['folder']}/{name}" for name in (PAGE, "train.log"))
    return next((name for name in names if (sweep / name).exists()), "")


def parallel(rows: list[Row], keys: list[str], objective: str) -> dict[str, Any]:
    """Return parallel coordinates: an axis for each key and the objective, a line for each row.

    The lines come worst first, so that the best is in front.

    Source: A. Inselberg, The plane with parallel coordinates, The Visual Computer 1985.
    """
    shown = [row for row in rank(rows, objective) if all(row[key] is not None for key in keys)]
    shown = sweep_figures.few(shown, objective, LINES)
    scales = {key: key_axis(shown, key) for key in keys}
    scales[objective] = span([row[objective] for row in shown], log=is_log(shown, objective))
    shade = sweep_figures.shade_of([row[objective] for row in shown], objective)
    axes = []
    for k, (name, scale) in enumerate(scales.items()):
        x = LEFT + k * max(130, min(220, 900 // len(keys)))
        ticks = [(LOW - scale.place(number) * (LOW - TOP), text) for number, text in scale.ticks()]
        axes.append((x, name, apart(ticks, 20)))
    lines = []
    for row in reversed(shown):
        places = [scale.place(scale.number(row[name])) for name, scale in scales.items()]
        points = [
            f"{x},{LOW - y * (LOW - TOP):.1f}" for (x, *_), y in zip(axes, places, strict=True)
        ]
        values = ", ".join(f"{key} {value_text(row[key])}" for key in keys)
        text = f"job {row['job']}: {values}, {sweep_figures.figure_text(row, objective)}"
        share = f"{shade(row[objective]):.3g}"
        lines.append(
            {"points": " ".join(points), "text": text, "share": share, "link": row["link"]}
        )
    return {"ends": (TOP, LOW), "axes": axes, "lines": lines}


def curves(sweep: Path, done: list[Row], jobs: list[Row]) -> str:
    """Return the curves of some jobs as JSON: by link a list of epochs and one of losses.

    They are of the validation split, or of training where there are no losses of that. The jobs of
    the best settings come first, each that stands for its setting before: the first is the winner,
    with whose curve the page compares all others.
    """
    place = {name: k for k, row in enumerate(done) for name in row.get("jobs", [row["job"]])}
    stands = {row["job"] for row in done}
    last = len(done)
    jobs = sorted(jobs, key=lambda job: (place.get(job["job"], last), job["job"] not in stands))
    by_link = {}
    for job in jobs[:CURVES]:
        try:
            train, val = by_epoch(read_history(sweep / job["folder"] / "history.csv"), "loss")
        except (OSError, ValueError, TypeError, StopIteration):  # none, or cut short
            continue
        finite = [*(val or train).items()]
        if len(finite) > 1 and job["link"]:
            n = min(POINTS, len(finite))
            places = np.linspace(0, len(finite) - 1, n).round().astype(int).tolist()
            epochs, values = zip(*(finite[place] for place in places), strict=True)
            by_link[quote(job["link"])] = epochs, [float(f"{value:.3g}") for value in values]
    return json.dumps(by_link, separators=(",", ":"))

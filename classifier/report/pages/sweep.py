"""The page of a sweep, sweep.html, from the content of its summary."""

from pathlib import Path
from typing import Any

from classifier.report.names import SWEEP_PLOT
from classifier.report.pages.curves import curves
from classifier.report.pages.heat_map import heat_maps
from classifier.report.pages.page import cell, percent, render
from classifier.report.pages.path import path_charts
from classifier.report.pages.run import NAME as RUN_PAGE
from classifier.report.pages.run import command
from classifier.report.pages.sweep_charts import key_chart, parallel
from classifier.report.pages.sweep_table import FIRST, setting_flags, table_columns, table_rows
from classifier.report.settings import shown_rows
from classifier.report.sweep_text import differences, test_interval
from classifier.report.sweep_values import (
    Row,
    metrics_of,
    rank,
    shown_keys,
    status_counts,
)
from data.files.store import write_text

NAME = "sweep.html"
DOTS = 1600  # in all charts of the keys, about
LINES = 300  # through all keys, at most


def write_sweep_page(sweep: Path, summary: dict[str, Any]) -> None:
    """Write the page of the sweep in a folder, into it, from its summary and the runs' folders."""
    objective, jobs = summary["objective"], summary["jobs"]
    rows, swept = shown_rows(summary)
    keys, pairs = shown_keys(rows, swept)
    columns = table_columns(rows, swept, objective, jobs)
    links = {job["job"]: _link(sweep, job) for job in jobs}
    listed = table_rows(rows, columns, objective, jobs, links)
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
        path=path_charts(summary["path"], summary["best"], summary["one_standard_error"], links),
        columns=columns,
        rows=listed,
        n_listed=len(listed),
        n_rows=len(rows),
        first=FIRST,
        picture=SWEEP_PLOT,
        n_drawn=min(most, len(rows)),
        charts=[key_chart(rows, key, objective, links, most, jobs, winner) for key in keys if done],
        heat_maps=heat_maps(rows, pairs, objective, links) if done else [],
        n_pairs=len(pairs),
        parallel=parallel(rows, keys, objective, links, LINES) if done and len(keys) > 2 else "",
        curves=curves(sweep, _in_order(done, jobs), links),
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
    own = [job for job in summary["jobs"] if job["job"] in best["jobs"]]
    return {
        "best": best,
        "flags": setting_flags(best, own),
        "figures": figures,
        "tested": tested,
        "best_link": links[best["job"]],
        "best_page": f"best/{RUN_PAGE}" if (sweep / "best" / RUN_PAGE).exists() else "",
        "best_command": command(sweep / best["folder"]),
    }


def _link(sweep: Path, job: Row) -> str:
    """Return where a job's row leads: its page, or the log of a job that has none."""
    names = (f"{job['folder']}/{name}" for name in (RUN_PAGE, "train.log"))
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

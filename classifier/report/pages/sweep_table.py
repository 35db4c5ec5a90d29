"""The table of a sweep's page: a row a setting, best first."""

from urllib.parse import quote

from markupsafe import Markup, escape

from classifier.report.pages.page import Cell, cell, html
from classifier.report.settings import near_best
from classifier.report.sweep_values import (
    Row,
    figures_of,
    is_done,
    metrics_of,
    rank,
    status_counts,
)

FIRST = 50  # rows that are shown before all are asked for
BYTES = 500_000  # of the rows of a page, at most
JOBS = 8  # of a setting that are linked, at most


def table_columns(rows: list[Row], keys: list[str], objective: str, jobs: list[Row]) -> list[str]:
    """Return the names of the columns: but for those in which nothing stands."""
    figures = figures_of(rows, keys)  # of which errors stand beside their figures
    ranked = ["standing"] if rows is not jobs else []  # repetitions of one setting have no order
    columns = ["job", *ranked, *(name for name in figures if not name.endswith("_error"))]
    repeated = any(len(row.get("jobs", "")) > 1 for row in rows)
    columns += ["jobs"] if repeated else ["status"]
    flagged = any(row.get("flags") for row in rows)
    flagged |= any(job["status"] == "diverged" for job in jobs)
    columns += ["flags"] if flagged else []
    lost = any(not is_done(row, objective) for row in rows)
    return [*columns, "best_epoch", "seconds", *(["reason"] if lost else [])]


def table_rows(
    rows: list[Row], columns: list[str], objective: str, jobs: list[Row], links: dict[str, str]
) -> list[list[Cell]]:
    """Return the rows, as many as the page has room for."""
    done = rank(rows, objective)
    near = {row["job"] for row in near_best(rows, objective)}
    figures = metrics_of(rows)
    by_name = {job["job"]: job for job in jobs}
    listed, size = [], 0
    for row in [*done, *(row for row in rows if not is_done(row, objective))]:
        own = [by_name[name] for name in row.get("jobs", [])]
        special = {
            "job": cell(row["job"], link=links[row["job"]]),
            "standing": cell(_standing(row, done, near)),
            "jobs": _jobs(own, links),
            "flags": _flags(setting_flags(row, own)),
        }
        cells = [
            special[name]
            if name in special
            else _figure(row, name)
            if name in figures
            else cell(row[name])
            for name in columns
        ]
        size += len(html([cells]))
        if size > BYTES:
            break
        listed.append(cells)
    return listed


def _standing(row: Row, done: list[Row], near: set[str]) -> str:
    if done and row is done[0]:
        return "best"
    return "worse" if row.get("worse") else "near" if row["job"] in near else ""


def _figure(row: Row, name: str) -> Cell:
    """Return the cell of a figure with its standard error, where that is known."""
    error = row.get(f"{name}_error")
    found = cell(row[name])
    return found._replace(more=Markup(f" ± {error:.2g}")) if error and found.value else found


def _jobs(jobs: list[Row], links: dict[str, str]) -> Cell:
    """Return the links to the jobs of a setting, and what became of those that did not complete."""
    shown = [
        Markup(f'<a href="{quote(link)}">{escape(name)}</a>') if link else escape(name)
        for name, link in ((job["job"], links[job["job"]]) for job in jobs[:JOBS])
    ]
    lost = {status: n for status, n in status_counts(jobs).items() if status != "completed"}
    said = "".join(f", {n} {status}" for status, n in lost.items())
    rest = f" and {len(jobs) - JOBS} more" * (len(jobs) > JOBS)
    more = Markup('<span class="jobs">') + Markup(" ").join(shown) + rest + Markup("</span>")
    return Cell(f"{len(jobs)}{said}: ", repr(len(jobs)), number=True, more=more)


def setting_flags(row: Row, jobs: list[Row]) -> list[str]:
    """Return the flags of a setting: those of the job that stands for it, and of all its jobs."""
    lost = sum(job["status"] == "diverged" for job in jobs)
    said = f"{lost} of {len(jobs)} repetitions diverged, and are not in the mean: use a smaller lr."
    return [*(row.get("flags") or []), *([said] if len(jobs) > 1 and lost else [])]


def _flags(sentences: list[str]) -> Cell:
    if not sentences:
        return Cell("", "")
    said = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
    more = Markup(f"<details><summary>⚑ {len(sentences)}</summary>{said}</details>")
    return Cell("", repr(len(sentences)), more=more)

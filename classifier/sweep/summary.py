"""The summary of a sweep, made from the files on disk: python -m classifier.sweep.summary FOLDER.

It works as well on a sweep that is still running or was killed. The best job is the one with the
best validation figure; the test split never takes part in the choice.
"""

import contextlib
import csv
import io
import math
import sys
from pathlib import Path
from typing import Any

from classifier.fit import SKIPPED
from classifier.report.flags import flags
from classifier.report.pages.draw import draw_beside, failure_told
from classifier.report.pages.sweep_page import write_sweep_page
from classifier.report.settings import (
    FOLDS,
    METRICS,
    OPTIMUM,
    REPETITIONS,
    TEST,
    best_job,
    mark_worse,
    near_best,
    settings_of,
    status_counts,
    strongest_near,
)
from classifier.runs.config import flatten
from classifier.runs.folder import FINISHED, kind_of, read_report
from classifier.runs.results import falls_short
from classifier.sweep.edges import find_edges
from classifier.sweep.records import Record, read_records, settings, with_whole_numbers
from classifier.sweep.reg_path import path_rows
from classifier.sweep.table import table
from classifier.sweep.winner import check_best, copy_best, crown
from data.console import console, printable
from data.errors import InputError, one_line
from data.files.store import refuse_links, write_json, write_text


def summarise(sweep: Path, *, ended: bool = False, must_show: bool = False) -> dict[str, Any]:
    """Write a sweep's tables, picture, page and best/; return the content of sweep.json.

    Parameters
    ----------
    sweep : a folder with a folder a job.
    ended : whether it has just come to its end. If so, and no job is left to be trained, the winner
        is evaluated on the test split, and drawn.
    must_show : whether an error of the page or of a picture is raised; otherwise it is told.

    Returns
    -------
    swept : the keys in which the jobs differ. keys : those in which settings do.
    objective : the figure the best is chosen by, "val_loss" or "val_accuracy", "cv_loss" or
        "cv_accuracy" of a cross-validation.
    jobs : a dict a job: number, status, reason, the swept keys, the resolved lr, the validation
        metrics and their standard errors, the best epoch, the seconds, flags and the folder.
    settings : a dict a setting, as `classifier.report.settings` makes them of jobs, with `worse`.
    best : the best setting, or None: its job is the winner, of which it has the test metrics too.
    near : how many settings are within one standard error of the best. one_standard_error : of
        them, the one with the strongest penalty. path : figures by penalty, where that alone was
        swept. not_certified : how many models are not proven to be as near to their optimum as
        optimizer.tol asks for. edges : the swept numbers whose best lies at an end, and
        not at a limit of its key.

    Raises
    ------
    InputError
        When something else stands at best/, or in it, than the files of a winner and exports.
    """
    check_best(sweep / "best")
    records = read_records(sweep)
    swept = swept_keys(records)
    objective = _objective(records)
    jobs = [_row(record, swept, objective) for record in records]
    keys = [key for key in swept if key not in REPETITIONS]
    rows = settings_of(jobs, swept, objective)
    mark_worse(rows, jobs, swept, objective)
    best = best_job(rows, objective)
    if best is not None:
        if ended and all(record.status in (*FINISHED, "failed") for record in records):
            crown(sweep / best["folder"])
        best |= _test_figures(sweep / best["folder"])
    summary = {
        "swept": swept,
        "keys": keys,
        "objective": objective,
        "jobs": jobs,
        "settings": rows,
        "best": best,
        "near": len(near_best(rows, objective)),
        "one_standard_error": strongest_near(rows, objective),
        "path": path_rows(records, jobs, swept),
        "edges": find_edges(rows, keys, best),
        "not_certified": sum(
            falls_short(record.report)
            for record in records
            if record.report is not None and record.status == "completed"
        ),
    }
    write_json(sweep / "sweep.json", summary)
    write_text(sweep / "sweep.csv", _csv(jobs, swept, best))
    if best is not None:
        copy_best(sweep, sweep / best["folder"])
    _show(sweep, summary, must_show=must_show)
    return summary


def _show(sweep: Path, summary: dict[str, Any], *, must_show: bool) -> None:
    """Write the page and the pictures of a sweep; tell of what cannot be made, or raise it."""

    def guarded(what: str) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if must_show else failure_told(sweep, what)

    def page() -> None:
        with guarded("page is"):
            write_sweep_page(sweep, summary)

    with guarded("pictures are"):
        draw_beside("sweep", sweep, meanwhile=page)


def finish_sweep(sweep: Path, *, ended: bool = False, quiet: bool = False) -> str:
    """Write the summary as `summarise` does, print its table, and say what is not complete.

    With `quiet` no table is printed.
    """
    summary = summarise(sweep, ended=ended)
    if not quiet:
        print(table(summary, sweep))
    counts = status_counts(summary["jobs"])
    if not counts:
        return f"{printable(sweep)}: no job of this sweep has begun"
    lost = {status: n for status, n in counts.items() if status not in ("completed", SKIPPED)}
    if not lost:
        return ""
    listed = ", ".join(f"{n} {printable(status)}" for status, n in lost.items())
    place = printable(sweep / "sweep.csv")
    return f"{listed} of {len(summary['jobs'])} jobs: the reasons are in {place}"


def swept_keys(records: list[Record]) -> list[str]:
    """Return the keys that all jobs have and in which they differ, in the order of the config."""
    configs = [settings(with_whole_numbers(r.config)) for r in records if r.config]
    names = {name: None for config in configs for name in config}
    shared = [name for name in names if all(name in config for config in configs)]
    return [name for name in shared if len({repr(config[name]) for config in configs}) > 1]


def _objective(records: list[Record]) -> str:
    configs = [record.config for record in records if record.config]
    named = str(configs[0]["objective"]) if configs else "val_loss"
    on_folds = bool(configs) and all(config.get("cv") is not None for config in configs)
    return named.replace("val_", "cv_") if on_folds else named


def _row(record: Record, swept: list[str], objective: str) -> dict[str, Any]:
    flat = flatten(record.config)
    report = (record.report or {}) if record.status in FINISHED else {}
    row: dict[str, Any] = {"job": record.folder.name, "status": record.status}
    # A value that is null is one as any other; a job that has no config has none.
    row |= {key: "null" if key in flat and flat[key] is None else flat.get(key) for key in swept}
    row = {key: printable(value) if isinstance(value, str) else value for key, value in row.items()}
    row["resolved_lr"] = report.get("lr")
    row |= _figures(report, "val")
    folds = report.get("cross_validation")
    row |= {name: folds[name.removeprefix("cv_")] if folds else None for name in FOLDS}
    row["folds"] = folds[f"{objective.removeprefix('cv_')}_of_folds"] if folds else None
    row[OPTIMUM] = (report.get("certificate") or {}).get("relative")
    row["best_epoch"] = report.get("best_epoch")
    row["seconds"] = sum(report["seconds"].values()) if "seconds" in report else None
    # Rows say nothing of the test split, also where it was looked at for one of them.
    row["flags"] = flags(report | {"metrics": report["metrics"] | {"test": None}}) if report else []
    return row | {"folder": record.folder.name, "reason": record.reason}


def _figures(report: dict[str, Any], split: str) -> dict[str, float | None]:
    """Return loss and accuracy of a split, and their standard errors over its examples."""
    names = [f"{split}_{name}" for name in ("loss", "accuracy")]
    found = report.get("metrics", {}).get(split)
    if not found:
        return dict.fromkeys([*names, *(f"{name}_error" for name in names)])
    share, n = found["accuracy"], found["n"]
    values = found["loss"], share, found.get("loss_error"), math.sqrt(share * (1 - share) / n)
    return dict(zip([*names, *(f"{name}_error" for name in names)], values, strict=True))


def _test_figures(winner: Path) -> dict[str, Any]:
    """Return what is known of the winner on the test split, with how many examples that has."""
    report = read_report(winner) or {}
    figures = _figures(report, "test")
    test = report.get("metrics", {}).get("test")
    return figures | {"test_n": test["n"] if test else None}


def _csv(jobs: list[dict[str, Any]], swept: list[str], best: dict[str, Any] | None) -> str:
    text = io.StringIO()
    figures = [*METRICS, *FOLDS, *TEST, OPTIMUM]
    fixed = ["resolved_lr", *figures, "best_epoch", "seconds", "folder", "reason"]
    columns = ["job", "status", *swept, *fixed]
    writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for job in jobs:
        is_best = best is not None and job["job"] == best["job"]
        writer.writerow(job | ({name: best[name] for name in TEST} if is_best and best else {}))
    return text.getvalue()


def main(arguments: list[str]) -> None:
    """Summarise the sweep in the folder given: python -m classifier.sweep.summary FOLDER."""
    if {"--help", "-h"} & {*arguments}:
        print(__doc__)
        return
    if len(arguments) != 1 or kind_of(Path(arguments[0])) != "sweep":
        sys.exit("usage: python -m classifier.sweep.summary FOLDER, the folder of a sweep")
    folder = Path(arguments[0])
    try:
        refuse_links(folder)
        finish_sweep(folder)
    except (InputError, OSError) as error:
        sys.exit(one_line(error))
    except Exception as error:  # files of something else, or that someone has changed
        sys.exit(printable(f"{folder}: its files cannot be summarised ({error!r})"))


if __name__ == "__main__":
    with console():
        main(sys.argv[1:])

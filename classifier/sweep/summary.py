"""The summary of a sweep, made from the files on disk: python -m classifier.sweep.summary FOLDER.

It works as well on a sweep that is still running or was killed. The best job is the one with the
best validation figure; the test split never takes part in the choice.
"""

import csv
import io
import math
import os
import shutil
import statistics
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from classifier.export.formats import FORMATS
from classifier.fit import SKIPPED
from classifier.report.pages.spare import draw_beside
from classifier.report.pages.sweep import write_sweep_page
from classifier.report.sweep_values import (
    FOLDS,
    METRICS,
    OPTIMUM,
    best_job,
    figures_of,
    metrics_of,
    one_standard_error,
    rank,
    status_counts,
)
from classifier.runs.claim import kind_of
from classifier.runs.folder import FINISHED
from classifier.runs.job import Value, flatten
from classifier.runs.report import falls_short
from classifier.sweep.edges import find_edges, no_penalty
from classifier.sweep.records import Record, read_records, settings
from classifier.sweep.reg_path import path_rows
from data.console import escape_unknown_characters, printable
from data.errors import InputError, one_line
from data.files.places import is_folder, is_plain_file, is_there, refuse_links
from data.files.whole import whole_folder, write_json, write_text

SHOWN = 10  # jobs in the table
BEST = ("model.npz", "report.json", "report.txt")  # what is copied of the winner


def summarise(sweep: Path) -> dict[str, Any]:
    """Write a sweep's tables, picture, page and best/; return the content of sweep.json.

    Parameters
    ----------
    sweep : a folder with a folder a job.

    Returns
    -------
    swept : the keys in which the jobs differ.
    objective : the figure the best is chosen by, "val_loss" or "val_accuracy", "cv_loss" or
        "cv_accuracy" of a cross-validation.
    jobs : a dict a job: number, status, reason, the swept keys, the resolved lr, the validation
        and test metrics, the best epoch, the seconds and the folder.
    best : the best of them, or None. one_standard_error : the job with the strongest penalty within
        one standard error of it, where there is a cross-validation. path : figures by penalty,
        where that alone was swept. not_certified : how many models are not proven to be as near to
        their optimum as optimizer.tol asks for. edges : the swept numbers whose best lies at an
        end, and not at a limit of its key.
    seeds : where seed is swept, each other setting with mean, standard deviation and n.

    Raises
    ------
    InputError
        When best/ holds what was not made here, and would be removed.
    """
    _check_best(sweep / "best")
    records = read_records(sweep)
    swept = swept_keys(records)
    objective = _objective(records)
    jobs = [_row(record, swept) for record in records]
    best = best_job(jobs, objective)
    summary = {
        "swept": swept,
        "objective": objective,
        "jobs": jobs,
        "best": best,
        "one_standard_error": one_standard_error(jobs, swept, best),
        "path": path_rows(records, jobs, swept),
        "edges": find_edges(jobs, swept, best),
        "not_certified": sum(
            falls_short(record.report)
            for record in records
            if record.report is not None and record.status == "completed"
        ),
        "seeds": _seeds(jobs, swept, objective) if "seed" in swept else [],
    }
    write_json(sweep / "sweep.json", summary)
    write_text(sweep / "sweep.csv", _csv(jobs, swept))
    if best is not None:
        _copy_best(sweep, Path(sweep / best["folder"]))
    draw_beside("sweep", sweep, meanwhile=partial(write_sweep_page, sweep, summary))
    return summary


def finish_sweep(sweep: Path) -> str:
    """Write the summary, print its table, and say what is not complete, or nothing."""
    summary = summarise(sweep)
    print(table(summary, sweep))
    counts = status_counts(summary["jobs"])
    lost = {status: n for status, n in counts.items() if status not in ("completed", SKIPPED)}
    if not lost:
        return ""
    listed = ", ".join(f"{n} {printable(status)}" for status, n in lost.items())
    place = printable(sweep / "sweep.csv")
    return f"{listed} of {len(summary['jobs'])} jobs: the reasons are in {place}"


def swept_keys(records: list[Record]) -> list[str]:
    """Return the keys that all jobs have and in which they differ, in the order of the config."""
    configs = [settings(record.config) for record in records if record.config]
    names = {name: None for config in configs for name in config}
    shared = [name for name in names if all(name in config for config in configs)]
    return [name for name in shared if len({repr(config[name]) for config in configs}) > 1]


def _objective(records: list[Record]) -> str:
    configs = [record.config for record in records if record.config]
    named = str(configs[0]["objective"]) if configs else "val_loss"
    on_folds = bool(configs) and all(config.get("cv") is not None for config in configs)
    return named.replace("val_", "cv_") if on_folds else named


def _row(record: Record, swept: list[str]) -> dict[str, Any]:
    flat = flatten(record.config)
    report = (record.report or {}) if record.status in FINISHED else {}
    row: dict[str, Any] = {"job": record.folder.name, "status": record.status}
    # A value that is null is one as any other; a job that has no config has none.
    row |= {key: "null" if key in flat and flat[key] is None else flat.get(key) for key in swept}
    row = {key: printable(value) if isinstance(value, str) else value for key, value in row.items()}
    row["resolved_lr"] = report.get("lr")
    for name in METRICS:
        split, figure = name.split("_")
        metrics = report.get("metrics", {}).get(split)
        row[name] = metrics[figure] if metrics else None
    folds = report.get("cross_validation")
    row |= {name: folds[name.removeprefix("cv_")] if folds else None for name in FOLDS}
    row[OPTIMUM] = (report.get("certificate") or {}).get("relative")
    row["best_epoch"] = report.get("best_epoch")
    row["seconds"] = sum(report["seconds"].values()) if "seconds" in report else None
    return row | {"folder": record.folder.name, "reason": record.reason}


def _seeds(jobs: list[dict[str, Any]], swept: list[str], objective: str) -> list[dict[str, Any]]:
    """Group the jobs that differ in the seed alone: mean, standard deviation and n of each."""
    others = [key for key in swept if key != "seed"]
    groups: dict[str, list[dict[str, Any]]] = {}
    for job in rank(jobs, objective):
        groups.setdefault(repr([job[key] for key in others]), []).append(job)
    rows = []
    for group in groups.values():
        row: dict[str, Any] = {key: group[0][key] for key in others} | {"n": len(group)}
        for name in metrics_of(jobs):
            values = [job[name] for job in group if job[name] is not None]
            row[f"{name}_mean"] = statistics.fmean(values) if values else None
            row[f"{name}_std"] = statistics.stdev(values) if len(values) > 1 else None
        rows.append(row)
    return rows


def _csv(jobs: list[dict[str, Any]], swept: list[str]) -> str:
    text = io.StringIO()
    figures = [*METRICS, *FOLDS, OPTIMUM]
    fixed = ["resolved_lr", *figures, "best_epoch", "seconds", "folder", "reason"]
    writer = csv.DictWriter(text, ["job", "status", *swept, *fixed], lineterminator="\n")
    writer.writeheader()
    writer.writerows(jobs)
    return text.getvalue()


def _check_best(best: Path) -> None:
    """Refuse a best/ with other files than those of a winner, and the exports of its model."""
    own = {*BEST, *(f"model{form.suffix}" for form in FORMATS.values())}
    found = sorted(best.iterdir()) if is_folder(best) else [best] if is_there(best) else []
    others = [path for path in found if path.name not in own or not is_plain_file(path)]
    if others:
        raise InputError(
            f"{others[0]}: stands where the best model is put; move it elsewhere, and make "
            f"the summary: python -m classifier.sweep.summary {best.parent}"
        )


def _copy_best(sweep: Path, folder: Path) -> None:
    """Put the winner's files into best/, whole: a copy takes the place of an earlier one."""
    best, earlier = sweep / "best", sweep / f".earlier.{os.getpid()}.part"
    with whole_folder(best) as beside:
        for name in BEST:
            shutil.copy2(folder / name, beside / name)
        if best.exists():  # moved first: Windows refuses that while a file in it is open
            best.rename(earlier)
    shutil.rmtree(earlier, ignore_errors=True)


def table(summary: dict[str, Any], sweep: Path) -> str:
    """Return the best jobs, what to know about them, and where they are, for a terminal."""
    jobs, swept, objective = summary["jobs"], summary["swept"], summary["objective"]
    best = rank(jobs, objective)[:SHOWN]
    columns = ["job", *figures_of(jobs, swept)]
    cells = [columns] + [[_cell(job[column]) for column in columns] for job in best]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in cells]
    for edge in summary["edges"]:
        lines.append(
            f"The best {edge['key']}, {_cell(edge['value'])}, is the {edge['side']} tried: "
            "widen the sweep"
        )
    lines += filter(None, [no_penalty(jobs, swept, summary["best"])])
    if summary["not_certified"]:
        lines.append(
            f"{summary['not_certified']} models are not proven to be as near to their optimum as "
            "optimizer.tol asks for: give more epochs"
        )
    if summary["best"] is None and any(job["status"] == "completed" for job in jobs):
        lines.append(f"There is no {objective} to choose by: give cv=5, or data.val_fraction=0.1")
    if strongest := summary["one_standard_error"]:
        lines.append(
            f"The strongest penalty within one standard error of the best: reg="
            f"{_cell(strongest['reg'])}, job {strongest['job']}"
        )
    for group in summary["seeds"][:SHOWN]:
        others = ", ".join(f"{k}={_cell(group[k])}" for k in swept if k != "seed")
        mean, std = _cell(group[f"{objective}_mean"]), _cell(group[f"{objective}_std"])
        lines.append(f"{others or 'all seeds'}: {objective} {mean} +- {std} (n={group['n']})")
    lines += _reasons(jobs)
    counts = status_counts(jobs)
    listed = ", ".join(f"{n} {printable(status)}" for status, n in counts.items())
    place = printable(sweep)
    best_in = f", best in {place}/best" * (summary["best"] is not None)
    return "\n".join([*lines, f"{len(jobs)} jobs: {listed}; {place}/sweep.csv{best_in}"])


def _reasons(jobs: list[dict[str, Any]]) -> list[str]:
    """Return why jobs did not complete, each reason once, with how many have it."""
    lost = [(job["status"], job["reason"]) for job in jobs if job["status"] != "completed"]
    counts = Counter(lost).most_common()
    lines = [f"{n} {status}: {reason or 'no reason known'}" for (status, reason), n in counts]
    more = len(lines) - SHOWN
    return lines[:SHOWN] + [f"and {more} other reasons"] * (more > 0)


def _cell(value: Value) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) and math.isfinite(value) else printable(value)


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
    escape_unknown_characters()
    main(sys.argv[1:])

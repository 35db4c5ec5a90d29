"""The summary of a sweep, made from the files on disk: python -m classifier.sweep.summary FOLDER.

It works as well on a sweep that is still running or was killed. The best job is the one with the
best validation figure; the test split never takes part in the choice.
"""

import contextlib
import csv
import functools
import io
import logging
import math
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # Ctrl-C ends the imports, which take a second, without a traceback
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

from classifier.fit import SKIPPED
from classifier.report import settings
from classifier.report.pages.draw import draw, failure_told, show_run
from classifier.report.pages.sweep_page import write_sweep_page
from classifier.report.settings import Row
from classifier.report.text import flags, shown, template, text_of
from classifier.runs.artifacts import PAGE, PLOTS, read_validation
from classifier.runs.config import Config, fields_of, flatten
from classifier.runs.folder import FINISHED, kind_of, read_report
from classifier.runs.results import falls_short, open_test
from classifier.sweep import folders
from classifier.sweep.folders import Record
from data.errors import InputError, console, one_line, printable
from data.files.store import refuse_links, remove_parts, write_json, write_text

log = logging.getLogger(__name__)
METRIC = ("loss", "accuracy")
HELD_OUT = (*METRIC, "loss_error", "accuracy_error")  # of a row of a path
FEWEST = 5  # penalties that make a path
SPLITS = ("train", "val")
SHOWN = 10  # settings in the table, and reasons below it


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
    jobs : a dict a job: number, status, reason, the seeds and the swept keys, the fingerprint of
        the examples, how many are for training and validation, the resolved lr, the validation
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
    folders.check_best(sweep / "best")
    records = list(folders.each_record(sweep))
    swept, objective = swept_keys(records), _objective(records)
    jobs = [_row(record, swept, objective) for record in records]
    keys = [key for key in swept if key not in settings.REPETITIONS]
    rows = settings.settings_of(jobs, swept, objective)
    settings.mark_worse(rows, jobs, objective, functools.partial(read_validation, sweep))
    best = settings.best_job(rows, objective)
    if best is not None:
        winner = sweep / best["folder"]
        if ended and all(record.status in (*FINISHED, "failed") for record in records):
            _evaluate_winner(winner)
        report = read_report(winner) or {}
        test = report.get("metrics", {}).get("test")
        best |= _figures(report, "test") | {"test_n": test["n"] if test else None}
    done = [r.report for r in records if r.report is not None and r.status == "completed"]
    summary = {
        "swept": swept,
        "keys": keys,
        "objective": objective,
        "jobs": jobs,
        "settings": rows,
        "best": best,
        "near": len(settings.near_best(rows, objective)),
        "one_standard_error": settings.strongest_near(rows, objective),
        "path": path_rows(records, jobs, swept),
        "edges": find_edges(rows, keys, best) if best else [],
        "not_certified": sum(map(falls_short, done)),
    }
    write_json(sweep / "sweep.json", summary)
    about = [*settings.TEST, settings.OPTIMUM, "best_epoch", "seconds", "folder", "reason"]
    columns = ["job", "status", *swept, *settings.RESOLVED, *settings.METRICS, *settings.FOLDS]
    test = {name: best[name] for name in settings.TEST} if best else {}
    of_jobs = [job | test if best and job["job"] == best["job"] else job for job in jobs]
    _csv(sweep / "jobs.csv", columns + about, of_jobs)
    # Of a setting: the number of repetitions, means with their standard errors, the standing.
    means = [name for figure in settings.MEANS for name in (figure, f"{figure}_error")]
    columns = ["job", *keys, *settings.RESOLVED, "n", *means, "total_error", "over", "worse"]
    counts = [{"n": row["repetitions"], "jobs": len(row["jobs"])} for row in rows]
    of_settings = [row | count for row, count in zip(rows, counts, strict=True)]
    _csv(sweep / "sweep.csv", [*columns, *settings.TEST, "jobs", "folder"], of_settings)
    if best is not None:
        folders.copy_best(sweep, winner)
    with contextlib.nullcontext() if must_show else failure_told(sweep, "page"):
        write_sweep_page(sweep, summary)
    with contextlib.nullcontext() if must_show else failure_told(sweep, "sweep"):
        draw("sweep", sweep)
    return summary


def _evaluate_winner(folder: Path) -> None:
    """Evaluate the winner of a sweep on the test split, and draw it.

    What a kill has left undone of it is made up for. What keeps the test split from being read, as
    data that are gone, is told, and the sweep is none the worse.
    """
    try:
        remove_parts(folder)
        open_test(folder)
    except (InputError, OSError, MemoryError) as error:
        log.warning("the winner is not evaluated on the test split: %s", printable(one_line(error)))
    report = read_report(folder)
    plots = report is not None and report["config"]["report"]["plots"] not in ("none", False)
    if not all((folder / name).is_file() for name in (PAGE, *(PLOTS if plots else ()))):
        show_run(folder, plots)


def finish_sweep(sweep: Path, *, ended: bool = False, quiet: bool = False) -> str:
    """Write the summary as `summarise` does, print its table, and return what is not complete.

    With `quiet` no table is printed.
    """
    summary = summarise(sweep, ended=ended)
    jobs, place = summary["jobs"], printable(sweep)
    if not jobs:
        return f"{place}: no job of this sweep has begun"
    if not quiet:
        print(table(summary, sweep))
    lost = _listed([job for job in jobs if job["status"] not in ("completed", SKIPPED)])
    return lost and f"{lost} of {len(jobs)} jobs: the reasons are in {place}/jobs.csv"


def swept_keys(records: list[Record]) -> list[str]:
    """Return the keys that all jobs have and in which they differ, in the order of the config."""
    configs = [folders.comparable(record.config) for record in records if record.config]
    first = configs[0] if configs else {}
    shared = [name for name in first if all(name in config for config in configs)]
    return [name for name in shared if len({repr(config[name]) for config in configs}) > 1]


def _objective(records: list[Record]) -> str:
    configs = [record.config for record in records if record.config]
    named = str(configs[0]["objective"]) if configs else "val_loss"
    on_folds = bool(configs) and all(config.get("cv") is not None for config in configs)
    return named.replace("val_", "cv_") if on_folds else named


def _row(record: Record, swept: list[str], objective: str) -> Row:
    config, folder = flatten(record.config), record.folder.name
    report = (record.report or {}) if record.status in FINISHED else {}
    # A value that is null is one as any other; a job that has no config has none.
    values = {key: "null" if config[key] is None else config[key] for key in config}
    values = {key: printable(v) if isinstance(v, str) else v for key, v in values.items()}
    folds = report.get("cross_validation")
    # Rows say nothing of the test split, also where it was looked at for one of them.
    without_test = report and report | {"metrics": report["metrics"] | {"test": None}}
    return {
        "job": folder,
        "status": record.status,
        **{key: values.get(key) for key in (*settings.REPETITIONS, *swept)},
        "examples": report.get("data", {}).get("fingerprint"),
        **{f"{name}_n": (report.get("metrics", {}).get(name) or {}).get("n") for name in SPLITS},
        "resolved_reg": report["reg"] if "reg_path" in report else None,
        "resolved_lr": report.get("lr"),
        **_figures(report, "val"),
        **{name: folds and folds[name.removeprefix("cv_")] for name in settings.FOLDS},
        "folds": folds and folds[f"{objective.removeprefix('cv_')}_of_folds"],
        settings.OPTIMUM: settings.near_optimum(report),
        "best_epoch": report.get("best_epoch"),
        "seconds": sum(report["seconds"].values()) if "seconds" in report else None,
        "flags": flags(without_test) if without_test else [],
        "folder": folder,
        "reason": record.reason,
    }


def _figures(report: dict[str, Any], split: str) -> dict[str, float | None]:
    """Return loss and accuracy of a split, and their standard errors over its examples."""
    names = [f"{split}_{name}" for name in HELD_OUT]
    metrics = report.get("metrics", {}).get(split)
    if not metrics:
        return dict.fromkeys(names)
    accuracy = metrics["accuracy"]
    error = math.sqrt(accuracy * (1 - accuracy) / metrics["n"])
    values = metrics["loss"], accuracy, metrics.get("loss_error"), error
    return dict(zip(names, values, strict=True))


def find_edges(rows: list[Row], keys: list[str], best: Row) -> list[dict[str, Any]]:
    """Return the swept numbers whose best value is the first or the last of those tried.

    Of two values one is always the best; and where a value stands at the limit of its key, as
    reg=0, nothing lies beyond.

    Returns
    -------
    A dict each: key, value and side, "smallest" or "largest".
    """
    edges = []
    for key in keys:
        tried, field = settings.distinct(rows, key), fields_of(Config).get(key)
        limits = field.metadata.get("limits", {}) if field is not None else {}
        if len(tried) > 2 and all(map(settings.is_number, tried)):
            for side, end, limit in (("smallest", 0, "minimum"), ("largest", -1, "maximum")):
                if best[key] == tried[end] != limits.get(limit):
                    edges.append({"key": key, "value": tried[end], "side": side})
    return edges


def path_rows(records: list[Record], jobs: list[Row], swept: list[str]) -> list[Row]:
    """Return a row a penalty, from weak to strong; none where more than the penalty was swept.

    Parameters
    ----------
    records, jobs : the jobs as they stand on disk, and as rows of the summary.
    swept : the keys in which they differ.

    Returns
    -------
    Rows with reg, job, weight_norm, train_loss, train_accuracy, and of held-out examples loss and
    accuracy with their standard errors: those of the folds where there are any, else those of the
    validation split, of which the accuracy's error is the binomial one and the loss's not known.
    """
    rows: list[Row] = []
    for record, job in zip(records, jobs, strict=True) if swept == ["reg"] else ():
        report, split = record.report or {}, "val" if job["cv_loss"] is None else "cv"
        # A penalty of 0 has no place on a logarithmic axis; old versions kept no norm.
        is_on_axis = settings.is_number(job["reg"]) and job["reg"] > 0
        if is_on_axis and settings.is_done(job, f"{split}_loss") and "weight_norm" in report:
            row = {"reg": job["reg"], "job": job["job"], "weight_norm": report["weight_norm"]}
            row |= {f"train_{name}": report["metrics"]["train"][name] for name in METRIC}
            row |= {name: job[f"{split}_{name}"] for name in HELD_OUT}
            rows.append(row | ({"loss_error": 0.0} if split == "val" else {}))
    return sorted(rows, key=lambda row: float(row["reg"])) if len(rows) >= FEWEST else []


def _csv(path: Path, columns: list[str], rows: list[Row]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def table(summary: dict[str, Any], sweep: Path) -> str:
    """Return what a terminal shows of the summary: the best settings, what to know, the place."""
    jobs, rows, keys = summary["jobs"], summary["settings"], summary["keys"]
    repeated = any(len(row["jobs"]) > 1 for row in rows)
    columns = ["job", *settings.figures_of(rows, keys)]
    if repeated:  # the errors stand beside the means
        columns = [name for name in columns if not name.endswith("_error")]
        columns.insert(1, "repetitions")

    def figure(row: Row, column: str) -> str:
        error = row.get(f"{column}_error") if repeated and column != settings.OPTIMUM else None
        return shown(row[column], column) + (f" +- {error:.2g}" if error is not None else "")

    ranked = settings.rank(rows, summary["objective"])[:SHOWN]
    cells = [columns, *([figure(row, column) for column in columns] for row in ranked)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lost = [job for job in jobs if job["status"] != "completed"]
    reasons = Counter((printable(job["status"]), job["reason"]) for job in lost).most_common()
    text: str = template("sweep.txt").render(
        **summary,
        lines=["  ".join(map(str.rjust, row, widths)) for row in cells],
        counts=settings.status_counts(jobs),
        repeated=repeated,
        differences=text_of("differences", summary).splitlines(),
        reasons=reasons,
        most=SHOWN,
        listed=_listed(jobs),
        place=printable(sweep),
        shown=shown,
    )
    return text


def _listed(jobs: list[Row]) -> str:
    """Return how many jobs have each status, in words."""
    counts = settings.status_counts(jobs).items()
    return ", ".join(f"{n} {printable(status)}" for status, n in counts)


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

"""The path of the penalty, where a sweep has gone along one: figures of each model, by reg."""

from typing import Any

from classifier.report.settings import Row, is_done, is_number
from classifier.sweep.records import Record

FEWEST = 5  # penalties that make a path


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
    if swept != ["reg"]:
        return []
    rows = [
        _row(record.report, job)
        for record, job in zip(records, jobs, strict=True)
        if record.report is not None and _is_on_it(record.report, job)
    ]
    return sorted(rows, key=lambda row: float(row["reg"])) if len(rows) >= FEWEST else []


def _is_on_it(report: dict[str, Any], job: Row) -> bool:
    """Return whether a job has a place on a logarithmic axis, and figures of held-out examples."""
    held_out = job.get("cv_loss") is not None or is_done(job, "val_loss")
    of_this_version = "weight_norm" in report
    return held_out and of_this_version and is_number(job["reg"]) and job["reg"] > 0


def _row(report: dict[str, Any], job: Row) -> Row:
    train = report["metrics"]["train"]
    row = {"reg": job["reg"], "job": job["job"], "weight_norm": report["weight_norm"]}
    row |= {"train_loss": train["loss"], "train_accuracy": train["accuracy"]}
    return row | _held_out(report)


def _held_out(report: dict[str, Any]) -> Row:
    found, val = report.get("cross_validation"), report["metrics"]["val"]
    if found is not None:
        return {name: found[name] for name in ("loss", "loss_error", "accuracy", "accuracy_error")}
    p = val["accuracy"]
    error = (p * (1 - p) / val["n"]) ** 0.5
    return {"loss": val["loss"], "loss_error": 0.0, "accuracy": p, "accuracy_error": error}

"""The path of the penalty, where a sweep has gone along one: figures of each model, by reg."""

from typing import Any

from classifier.report.sweep_values import Row, is_done, is_number
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
    rows = []
    for record, job in zip(records, jobs, strict=True):
        report = record.report
        name = "cv_loss" if job.get("cv_loss") is not None else "val_loss"
        if report is None or not is_number(job["reg"]) or job["reg"] <= 0 or not is_done(job, name):
            continue
        train = report["metrics"]["train"]
        row = {"reg": job["reg"], "job": job["job"], "weight_norm": report["weight_norm"]}
        row |= {"train_loss": train["loss"], "train_accuracy": train["accuracy"]}
        rows.append(row | _held_out(report))
    return sorted(rows, key=lambda row: float(row["reg"])) if len(rows) >= FEWEST else []


def _held_out(report: dict[str, Any]) -> Row:
    found, val = report.get("cross_validation"), report["metrics"]["val"]
    if found is not None:
        return {name: found[name] for name in ("loss", "loss_error", "accuracy", "accuracy_error")}
    p = val["accuracy"]
    error = (p * (1 - p) / val["n"]) ** 0.5
    return {"loss": val["loss"], "loss_error": 0.0, "accuracy": p, "accuracy_error": error}

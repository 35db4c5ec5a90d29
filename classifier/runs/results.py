"""What a trained model leaves: every file of its run."""

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np

from classifier.fit import STUCK, Fit
from classifier.model import LinearModel
from classifier.report.flags import figures_flags
from classifier.report.names import EXAMPLES, MISTAKES, PAGE, PLOTS, REGIONS, TEMPLATES
from classifier.report.text import (
    calibration_text,
    certified,
    cross_validation_text,
    metrics_table,
    report_text,
    reported_split,
)
from classifier.runs.evaluated import Evaluated, Found
from classifier.runs.examples import write_examples
from classifier.runs.folder import read_report, write_status
from classifier.runs.history import write_history
from classifier.runs.job import Job
from classifier.runs.log import log
from classifier.runs.predictions import NAME as PREDICTIONS
from classifier.runs.predictions import Predictions, write_predictions
from classifier.runs.preparation import Prepared
from classifier.runs.report import falls_short
from data.console import printable
from data.dataset import Dataset
from data.errors import InputError
from data.files.store import from_here, remove, write_json, write_text, write_whole

MODEL = "model.npz"
REPORT = (  # said of it
    *("report.json", "report.txt", PAGE, MISTAKES, PREDICTIONS),
    *(*PLOTS, TEMPLATES, EXAMPLES, REGIONS),
)


def keep_fit(job: Job, fit: Fit, prepared: Prepared) -> LinearModel:
    """Write what training made, whatever becomes of its evaluation; return the model."""
    dataset = prepared.dataset
    model = LinearModel(
        fit.W, fit.b, dataset.classes, prepared.features, dataset.image_shape, job.plain
    )
    report = read_report(job.folder)
    if report is not None and not _is_reported(report, fit, model, job.folder / MODEL):
        for name in REPORT:  # of an earlier model: the evaluation of this one may fail
            remove(job.folder / name)
    model.save(job.folder / MODEL)
    write_history(job.folder / "history.csv", fit.history)
    return model


def _is_reported(report: dict[str, Any], fit: Fit, model: LinearModel, place: Path) -> bool:
    """Return whether a report is of this model, which then stands there already."""
    try:
        stands = LinearModel.load(place)
    except (OSError, InputError):
        return False
    return (
        report.get("epochs") == len(fit.history)
        and stands.temperature == model.temperature
        and np.array_equal(stands.W, model.W)
        and np.array_equal(stands.b, model.b)
    )


def write_results(evaluated: Evaluated, dataset: Dataset) -> None:
    """Write what an evaluation leaves; the model stands there as it was before calibration."""
    folder, report = evaluated.job.folder, evaluated.report
    if "calibration" in report:
        evaluated.model.save(folder / MODEL)
    write_mistakes(folder, report["metrics"], dataset)
    write_predictions(folder, predictions(dataset, evaluated.found))
    write_examples(folder, dataset)
    write_json(folder / "report.json", report)
    write_text(folder / "report.txt", report_text(report))


def finish(evaluated: Evaluated, *, of_sweep: bool) -> None:
    """Write the status, which comes last, when all else stands; log what came of the run.

    What is wrong with a model is a warning, but not of each job of a sweep, whose page has it.
    """
    report = evaluated.report
    write_status(evaluated.job.folder, report["status"], report["ended"])
    _log_outcome(evaluated.job, report, logging.INFO if of_sweep else logging.WARNING)


def selection_metric(report: dict[str, Any], name: str) -> float:
    """Return a report's val_loss or val_accuracy; nan without a validation split.

    Where there is a cross-validation, the mean over its folds.
    """
    split, figure = name.split("_")
    metrics = report.get("cross_validation", report["metrics"][split])
    return float(metrics[figure]) if metrics else math.nan


def predictions(dataset: Dataset, found: Found) -> dict[str, Predictions]:
    """Return what is kept of the predictions on each split that was evaluated."""
    return {
        name: Predictions(dataset.splits()[name].y, own.predicted, own.log_p)
        for name, own in found.items()
        if name != "train" and own is not None and len(own.predicted) > 0
    }


def write_mistakes(folder: Path, metrics: dict[str, Any], dataset: Dataset) -> None:
    """Write the most confident mistakes where they are images, X (n, ...), in their order."""
    if dataset.image_shape is None:
        return
    name, split = reported_split(metrics)
    rows = np.array([mistake["index"] for mistake in split["mistakes"]], dtype=np.int64)
    images = dataset.splits()[name].X[rows].reshape(len(rows), *dataset.image_shape)
    write_whole(folder / MISTAKES, lambda file: np.savez(file, X=images))


def _log_outcome(job: Job, report: dict[str, Any], flagged: int) -> None:
    folder = job.folder
    own = {"folder": folder}
    if report["status"] == "diverged":
        log.error("%s", report["ended"], extra=own)
    else:
        log.info("%s; the best was epoch %d", report["ended"], report["best_epoch"], extra=own)
    if "cross_validation" in report:
        log.info("%s", cross_validation_text(report["cross_validation"]), extra=own)
    if falls_short(report):
        more = "" if report["ended"] == STUCK else "more epochs, "
        advice = f"give {more}a larger optimizer.tol, or a larger reg"
        log.warning("%s: %s", certified(report), advice, extra=own)
    for sentence in figures_flags(report):  # those of the settings were logged before training
        log.log(flagged, "%s", sentence, extra=own)
    if "calibration" in report:
        log.info("%s", calibration_text(report), extra=own)
        if report["calibration"]["temperature"] == 1:
            log.warning("validation says nothing of the temperature: not calibrated", extra=own)
    log.info("\n%s\n%s", metrics_table(report["metrics"]), printable(from_here(folder)), extra=own)

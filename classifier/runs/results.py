"""What a trained model leaves: its evaluation, its report and every file of its run."""

import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from classifier.calibration import fit_temperature
from classifier.evaluation import evaluate, minimised
from classifier.fit import STUCK, Fit
from classifier.model import LinearModel
from classifier.report.names import MISTAKES, PAGE, PLOTS, TEMPLATES
from classifier.report.text import (
    calibration_text,
    certified,
    cross_validation_text,
    metrics_table,
    report_text,
    reported_split,
)
from classifier.runs.config import Config
from classifier.runs.folder import read_report, write_status
from classifier.runs.history import write_history
from classifier.runs.job import Job
from classifier.runs.log import log, timed
from classifier.runs.preparation import Prepared
from classifier.runs.report import falls_short, gather
from classifier.runs.trained import Trained
from data.console import printable
from data.dataset import Dataset
from data.errors import InputError
from data.files.whole import from_here, remove, write_json, write_text, write_whole

MODEL = "model.npz"
REPORT = "report.json", "report.txt", PAGE, MISTAKES, *PLOTS, TEMPLATES  # what is said of it

# Makes what a person looks at in the folder of a run, now or soon; and its plots, where asked to.
Show = Callable[[Path, bool], object]


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


def evaluate_fit(
    job: Job,
    trained: Trained,
    model: LinearModel,
    prepared: Prepared,
    seconds: dict[str, float],
    after_block: Callable[[], None],
) -> tuple[LinearModel, dict[str, Any]]:
    """Return a trained model, calibrated where that is asked for, and its report.

    Parameters
    ----------
    job, trained, model, prepared : the run, what training made of it, and the data it used.
    seconds : what the parts of the run took so far.
    after_block : called after each block of examples; what it raises ends the evaluation.
    """
    dataset, seconds = prepared.dataset, dict(seconds)
    measure = functools.partial(_evaluate, job.config, prepared, after_block)
    with timed(seconds, "evaluation"):
        metrics = measure(model)
    loss, calibration = minimised(metrics["train"]), {}  # before calibration
    if job.config.calibrate:
        before = _calibration(metrics)
        with timed(seconds, "calibration"):
            temperature = fit_temperature(model, dataset.val.X, dataset.val.y)
            model = dataclasses.replace(model, temperature=temperature)
            metrics = measure(model)
        calibration = {"calibration": {"temperature": temperature, "before": before}}
    return model, gather(job, trained, prepared, loss, metrics, seconds) | calibration


def write_results(
    job: Job, model: LinearModel, report: dict[str, Any], dataset: Dataset, show: Show
) -> None:
    """Write what an evaluation leaves; the status comes last, when all else stands.

    Parameters
    ----------
    job : the run, whose model stands there as it was before calibration.
    model, report : as `evaluate_fit` returned them.
    dataset : what was evaluated.
    show : makes the page of the run's folder, and the plots where the config asks for them.
    """
    if "calibration" in report:
        model.save(job.folder / MODEL)
    if dataset.image_shape is not None:
        _write_mistakes(job.folder / MISTAKES, report["metrics"], dataset)
    write_json(job.folder / "report.json", report)
    write_text(job.folder / "report.txt", report_text(report))
    show(job.folder, job.config.report.plots)
    write_status(job.folder, report["status"], report["ended"])
    _log_outcome(job, report)


def selection_metric(report: dict[str, Any], name: str) -> float:
    """Return a report's val_loss or val_accuracy; nan without a validation split.

    Where there is a cross-validation, the mean over its folds.
    """
    split, figure = name.split("_")
    metrics = report.get("cross_validation", report["metrics"][split])
    return float(metrics[figure]) if metrics else math.nan


def _evaluate(
    config: Config, prepared: Prepared, after_block: Callable[[], None], model: LinearModel
) -> dict[str, Any]:
    own = config.report.top_k, prepared.class_weights, config.label_smoothing, after_block
    splits = prepared.dataset.splits()
    return {name: evaluate(model, split.X, split.y, *own) for name, split in splits.items()}


def _calibration(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return of each split what a temperature changes: it leaves every prediction as it was."""
    figures = ("loss", "expected_calibration_error", "reliability")
    return {n: split and {f: split[f] for f in figures} for n, split in metrics.items()}


def _write_mistakes(path: Path, metrics: dict[str, Any], dataset: Dataset) -> None:
    """Write the images of the most confident mistakes, X (n, ...), in their order."""
    name, split = reported_split(metrics)
    rows = np.array([mistake["index"] for mistake in split["mistakes"]], dtype=np.int64)
    assert dataset.image_shape is not None
    images = dataset.splits()[name].X[rows].reshape(len(rows), *dataset.image_shape)
    write_whole(path, lambda file: np.savez(file, X=images))


def _log_outcome(job: Job, report: dict[str, Any]) -> None:
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
    if report["metrics"]["train"]["loss"] >= math.log(report["data"]["n_classes"]):
        log.warning("the kept weights are no better than guessing", extra=own)
    if "calibration" in report:
        log.info("%s", calibration_text(report), extra=own)
        if report["calibration"]["temperature"] == 1:
            log.warning("validation says nothing of the temperature: not calibrated", extra=own)
    log.info("\n%s\n%s", metrics_table(report["metrics"]), printable(from_here(folder)), extra=own)

"""What a trained model leaves: its evaluation, its report and every file of its run."""

import dataclasses
import functools
import math
import os
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from classifier.calibration import fit_temperature
from classifier.curvature import Scale
from classifier.evaluation import evaluate, minimised
from classifier.fit import Fit
from classifier.model import LinearModel
from classifier.report.names import MISTAKES, PAGE, PLOTS, TEMPLATES
from classifier.report.text import calibration_text, metrics_table, report_text, reported_split
from classifier.runs.config import Config
from classifier.runs.folder import read_report, write_status
from classifier.runs.history import write_history
from classifier.runs.job import Job
from classifier.runs.log import log, timed
from classifier.runs.preparation import Prepared
from classifier.stacked_loss import penalty
from data.console import printable
from data.dataset import Dataset
from data.errors import InputError
from data.files.whole import from_here, write_json, write_text, write_whole

MODEL = "model.npz"
REPORT = "report.json", "report.txt", PAGE, MISTAKES, *PLOTS, TEMPLATES  # what is said of it
PACKAGES = ("numpy", "scikit-learn", "hydra-core", "matplotlib", "tqdm")

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
            (job.folder / name).unlink(missing_ok=True)
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
    fit: Fit,
    model: LinearModel,
    prepared: Prepared,
    seconds: dict[str, float],
    after_block: Callable[[], None],
) -> tuple[LinearModel, dict[str, Any]]:
    """Return a trained model, calibrated where that is asked for, and its report.

    Parameters
    ----------
    job, fit, model, prepared : the run, what training made of it, and the data it used.
    seconds : what the parts of the run took so far.
    after_block : called after each block of examples; what it raises ends the evaluation.
    """
    dataset, seconds = prepared.dataset, dict(seconds)
    measure = functools.partial(_evaluate, job.config, prepared, after_block)
    with timed(seconds, "evaluation"):
        metrics = measure(model)
    calibration = {}
    if job.config.calibrate:
        before = _calibration(metrics)
        with timed(seconds, "calibration"):
            temperature = fit_temperature(model, dataset.val.X, dataset.val.y)
            model = dataclasses.replace(model, temperature=temperature)
            metrics = measure(model)
        calibration = {"calibration": {"temperature": temperature, "before": before}}
    return model, _report(job, fit, prepared, metrics, seconds) | calibration


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
    _log_outcome(job.folder, report)


def selection_metric(report: dict[str, Any], name: str) -> float:
    """Return a report's val_loss or val_accuracy; nan without a validation split."""
    split, figure = name.split("_")
    metrics = report["metrics"][split]
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


def _log_outcome(folder: Path, report: dict[str, Any]) -> None:
    own = {"folder": folder}
    if report["status"] == "diverged":
        log.error("%s", report["ended"], extra=own)
    else:
        log.info("%s; the best was epoch %d", report["ended"], report["best_epoch"], extra=own)
    if report["metrics"]["train"]["loss"] >= math.log(report["data"]["n_classes"]):
        log.warning("the kept weights are no better than guessing", extra=own)
    if "calibration" in report:
        log.info("%s", calibration_text(report), extra=own)
        if report["calibration"]["temperature"] == 1:
            log.warning("validation says nothing of the temperature: not calibrated", extra=own)
    log.info("\n%s\n%s", metrics_table(report["metrics"]), printable(from_here(folder)), extra=own)


def _ended(config: Config, fit: Fit, scale: Scale) -> str:
    """Say why training ended, with what to do about it where it diverged."""
    return fit.ended + (_advice(config, fit, scale) if fit.status == "diverged" else "")


def _advice(config: Config, fit: Fit, scale: Scale) -> str:
    stable = config.optimizer.stable_lr(scale, config.reg)
    auto = config.optimizer.auto_lr(scale, config.reg)
    bound = "" if stable is None else f"the largest step sure to be stable is 2/L = {stable:.4g}: "
    return (
        f" with lr={fit.lr:.4g}; {bound}use lr=auto ({auto:.4g} here) or less; the best weights "
        f"so far, of epoch {fit.best_epoch}, are kept"
    )


def _report(
    job: Job, fit: Fit, prepared: Prepared, metrics: dict[str, Any], seconds: dict[str, float]
) -> dict[str, Any]:
    """Gather every number of a run: the content of report.json."""
    config, dataset = job.config, prepared.dataset
    weight_penalty = float(penalty(fit.theta[:, None], np.array([config.reg]))[0])
    return {
        "status": fit.status,
        "metrics": metrics,
        "objective": minimised(metrics["train"]) + weight_penalty,
        "config": job.plain,
        "lr": fit.lr,
        "reg": config.reg,
        "smoothness": prepared.scale.smoothness(config.reg),
        "largest_stable_lr": config.optimizer.stable_lr(prepared.scale, config.reg),
        "best_epoch": fit.best_epoch,
        "epochs": len(fit.history),
        "ended": _ended(config, fit, prepared.scale),
        "gradient_check": {"max_relative_error": prepared.gradient_error},
        "seconds": seconds,
        "data": {
            "name": dataset.name,
            "origin": dataset.origin,
            "n_features": dataset.n_features,
            "n_classes": len(dataset.classes),
            "image_shape": dataset.image_shape,
            "fingerprint": dataset.fingerprint,
        },
        "machine": {"host": platform.node(), "process": os.getpid()},
        "versions": _versions(),
    }


@functools.cache
def _versions() -> dict[str, str]:
    """Return the versions of Python and of the packages; looked up once, for a sweep's sake."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}

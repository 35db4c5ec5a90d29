"""What a trained model leaves: its evaluation, its report and every file of its run."""

import dataclasses
import functools
import math
import os
import platform
import statistics
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from classifier.calibration import fit_temperature
from classifier.certificate import Certificate
from classifier.curvature import Scale
from classifier.evaluation import evaluate, minimised
from classifier.fit import Fit
from classifier.model import LinearModel
from classifier.optimizers import Lbfgs, MinibatchOptimizer
from classifier.report.names import MISTAKES
from classifier.report.text import (
    calibration_text,
    certified,
    metrics_table,
    report_text,
    reported_split,
)
from classifier.runs.config import Config
from classifier.runs.folder import write_status
from classifier.runs.history import write_history
from classifier.runs.job import Job
from classifier.runs.log import log, timed
from classifier.runs.preparation import Prepared
from classifier.runs.trained import Trained
from classifier.stacked_loss import penalty
from data.console import printable
from data.dataset import Dataset
from data.files.whole import from_here, write_json, write_text, write_whole

MODEL = "model.npz"
PACKAGES = ("numpy", "scikit-learn", "hydra-core", "matplotlib", "tqdm")

# Makes what a person looks at in the folder of a run, now or soon; and its plots, where asked to.
Show = Callable[[Path, bool], object]


def keep_fit(job: Job, fit: Fit, prepared: Prepared) -> LinearModel:
    """Write what training made, whatever becomes of its evaluation; return the model."""
    dataset = prepared.dataset
    model = LinearModel(
        fit.W, fit.b, dataset.classes, prepared.features, dataset.image_shape, job.plain
    )
    model.save(job.folder / MODEL)
    write_history(job.folder / "history.csv", fit.history)
    return model


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
    calibration = {}
    if job.config.calibrate:
        before = _calibration(metrics)
        with timed(seconds, "calibration"):
            temperature = fit_temperature(model, dataset.val.X, dataset.val.y)
            model = dataclasses.replace(model, temperature=temperature)
            metrics = measure(model)
        calibration = {"calibration": {"temperature": temperature, "before": before}}
    return model, _report(job, trained, prepared, metrics, seconds) | calibration


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
    if _falls_short(job.config, report):
        log.warning("%s: give more epochs, or a larger optimizer.tol", certified(report), extra=own)
    if report["metrics"]["train"]["loss"] >= math.log(report["data"]["n_classes"]):
        log.warning("the kept weights are no better than guessing", extra=own)
    if "calibration" in report:
        log.info("%s", calibration_text(report), extra=own)
        if report["calibration"]["temperature"] == 1:
            log.warning("validation says nothing of the temperature: not calibrated", extra=own)
    log.info("\n%s\n%s", metrics_table(report["metrics"]), printable(from_here(folder)), extra=own)


def _falls_short(config: Config, report: dict[str, Any]) -> bool:
    """Return whether a model is not proven to be as near to its optimum as was asked for."""
    optimizer, certificate = config.optimizer, report["certificate"]
    if not isinstance(optimizer, Lbfgs) or report["status"] != "completed" or config.reg == 0:
        return False
    relative = certificate and certificate["relative"]
    return relative is None or bool(relative > optimizer.tol)


def _ended(config: Config, fit: Fit, scale: Scale) -> str:
    """Say why training ended, with what to do about it where it diverged."""
    optimizer, ended = config.optimizer, fit.ended
    if fit.status == "diverged" and isinstance(optimizer, MinibatchOptimizer):
        ended += _advice(config, optimizer, fit, scale)
    return ended


def _advice(config: Config, optimizer: MinibatchOptimizer, fit: Fit, scale: Scale) -> str:
    stable = optimizer.stable_lr(scale, config.reg)
    auto = optimizer.auto_lr(scale, config.reg)
    bound = "" if stable is None else f"the largest step sure to be stable is 2/L = {stable:.4g}: "
    return (
        f" with lr={fit.lr:.4g}; {bound}use lr=auto ({auto:.4g} here) or less; the best weights "
        f"so far, of epoch {fit.best_epoch}, are kept"
    )


def _report(
    job: Job,
    trained: Trained,
    prepared: Prepared,
    metrics: dict[str, Any],
    seconds: dict[str, float],
) -> dict[str, Any]:
    """Gather every number of a run: the content of report.json."""
    config, dataset, fit = job.config, prepared.dataset, trained.fit
    square_norm = float(penalty(fit.theta[:, None], np.ones(1))[0])
    stable = None
    if isinstance(config.optimizer, MinibatchOptimizer):
        stable = config.optimizer.stable_lr(prepared.scale, config.reg)
    report = {
        "status": fit.status,
        "metrics": metrics,
        "objective": minimised(metrics["train"]) + config.reg * square_norm,
        "certificate": _certificate(fit.certificate),
        "weight_norm": math.sqrt(square_norm),
        "config": job.plain,
        "lr": None if math.isnan(fit.lr) else fit.lr,
        "reg": config.reg,
        "smoothness": prepared.scale.smoothness(config.reg),
        "largest_stable_lr": stable,
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
    if trained.fold_losses:
        report["cross_validation"] = _cross_validation(trained)
    return report


def _certificate(certificate: Certificate | None) -> dict[str, float | None] | None:
    """Return how near to its optimum a model is; null where nothing is known."""
    if certificate is None:
        return None
    figures = dataclasses.asdict(certificate) | {"relative": certificate.relative}
    return {key: value if math.isfinite(value) else None for key, value in figures.items()}


def _cross_validation(trained: Trained) -> dict[str, Any]:
    """Return mean and standard error over the folds, and the figures of each."""
    found: dict[str, Any] = {"folds": len(trained.fold_losses)}
    for name, values in (("loss", trained.fold_losses), ("accuracy", trained.fold_accuracies)):
        found[name] = statistics.fmean(values)
        found[f"{name}_error"] = statistics.stdev(values) / math.sqrt(len(values))
        found[f"{name}_of_folds"] = values
    return found


@functools.cache
def _versions() -> dict[str, str]:
    """Return the versions of Python and of the packages; looked up once, for a sweep's sake."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}

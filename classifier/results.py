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
from classifier.config import Config
from classifier.evaluation import evaluate, minimised
from classifier.files import from_here, write_json, write_text, write_whole
from classifier.history import write_history
from classifier.job import Job, log, timed, write_status
from classifier.learning_rate import Scale
from classifier.model import LinearModel
from classifier.preparation import Prepared
from classifier.report.names import MISTAKES
from classifier.report.text import calibration_text, metrics_table, report_text, reported_split
from classifier.stacked_loss import penalty
from classifier.training import Fit
from data.dataset import Dataset

PACKAGES = ("numpy", "scikit-learn", "hydra-core", "matplotlib", "tqdm")

Draw = Callable[[Path], object]


def write_results(
    job: Job, fit: Fit, prepared: Prepared, seconds: dict[str, float], draw: Draw
) -> dict[str, Any]:
    """Evaluate one model, write everything its run leaves, and return the report.

    Parameters
    ----------
    job, fit, prepared : the run, what training made of it, and the data it used.
    seconds : what the parts of the run took so far.
    draw : makes the plots in a run's folder, now or soon.
    """
    dataset = prepared.dataset
    model = LinearModel(
        fit.W, fit.b, dataset.classes, prepared.features, dataset.image_shape, job.plain
    )
    if fit.status == "diverged":
        fit.ended += _advice(job.config, fit, prepared.scale)
    with timed(seconds, "evaluation"):
        trained_on = prepared.class_weights, job.config.label_smoothing
        metrics = _evaluate(model, dataset, job.config.report.top_k, *trained_on)
    report = _report(job, fit, prepared, metrics, seconds)
    if job.config.calibrate:
        with timed(seconds, "calibration"):
            temperature = fit_temperature(model, dataset.val.X, dataset.val.y)
            model = dataclasses.replace(model, temperature=temperature)
            report["metrics"] = _evaluate(model, dataset, job.config.report.top_k, *trained_on)
        report["calibration"] = {"temperature": temperature, "before": _calibration(metrics)}
    model.save(job.folder / "model.npz")
    if dataset.image_shape is not None:
        _write_mistakes(job.folder / MISTAKES, report["metrics"], dataset)
    write_history(job.folder / "history.csv", fit.history)
    write_json(job.folder / "report.json", report)
    write_text(job.folder / "report.txt", report_text(report))
    from classifier.report.run_page import write_run_page  # its packages cost start-up

    write_run_page(job.folder)
    if job.config.report.plots:
        draw(job.folder)
    write_status(job.folder, report["status"], fit.ended)
    _log_outcome(job.folder, report)
    return report


def _evaluate(
    model: LinearModel,
    dataset: Dataset,
    top_k: int,
    class_weights: np.ndarray | None,
    label_smoothing: float,
) -> dict[str, Any]:
    return {
        name: evaluate(model, split.X, split.y, top_k, class_weights, label_smoothing)
        for name, split in dataset.splits().items()
    }


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


def draw_now(folder: Path) -> None:
    """Draw a run's plots in this process; matplotlib is imported only here."""
    from classifier.report.plots import draw_run

    draw_run(folder)


def is_drawn(folder: Path) -> bool:
    """Return whether the plots of a run stand in its folder: the last is written last."""
    return (folder / "loss_curve.png").exists()


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
    log.info("\n%s\n%s", metrics_table(report["metrics"]), from_here(folder), extra=own)


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
        "ended": fit.ended,
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

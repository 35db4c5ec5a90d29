"""What a trained model leaves: its evaluation, its report and every file of its run."""

import functools
import math
import os
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from classifier.config import Config
from classifier.evaluation import evaluate
from classifier.files import write_json, write_text
from classifier.history import write_history
from classifier.job import Job, log, timed, write_status
from classifier.learning_rate import Scale
from classifier.model import LinearModel
from classifier.preparation import Prepared
from classifier.report.text import metrics_table, report_text
from classifier.stacked_loss import penalty
from classifier.training import Fit

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
        top_k = job.config.report.top_k
        metrics = {
            name: evaluate(model, split.X, split.y, top_k, prepared.class_weights)
            for name, split in dataset.splits().items()
        }
    report = _report(job, fit, prepared, metrics, seconds)
    model.save(job.folder / "model.npz")
    write_history(job.folder / "history.csv", fit.history)
    write_json(job.folder / "report.json", report)
    write_text(job.folder / "report.txt", report_text(report))
    if job.config.report.plots:
        draw(job.folder)
    write_status(job.folder, report["status"], fit.ended)
    _log_outcome(job.folder, report)
    return report


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
    log.info("\n%s\n%s", metrics_table(report["metrics"]), os.path.relpath(folder), extra=own)


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
    config, dataset, train = job.config, prepared.dataset, metrics["train"]
    weight_penalty = float(penalty(fit.theta[:, None], np.array([config.reg]))[0])
    return {
        "status": fit.status,
        "metrics": metrics,
        "objective": train.get("weighted_loss", train["loss"]) + weight_penalty,
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

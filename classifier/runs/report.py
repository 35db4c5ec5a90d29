"""Every number of a run: the content of report.json."""

import functools
import math
import os
import platform
import statistics
from importlib.metadata import version
from typing import Any

import numpy as np

from classifier.certificate import Certificate
from classifier.curvature import Scale
from classifier.fit import Fit
from classifier.kernel import penalty
from classifier.optimizers import MinibatchOptimizer
from classifier.runs.config import Config
from classifier.runs.job import Job
from classifier.runs.preparation import Prepared
from classifier.runs.trained import Trained
from classifier.runs.trainer import step_figures

PACKAGES = ("numpy", "scikit-learn", "hydra-core", "matplotlib", "tqdm")


def gather(
    job: Job,
    trained: Trained,
    prepared: Prepared,
    objective: float,
    metrics: dict[str, Any],
    seconds: dict[str, float],
) -> dict[str, Any]:
    """Gather every number of a run: the content of report.json.

    Parameters
    ----------
    objective : what was minimised, with the penalty.
    metrics : the figures of each split, after calibration.
    """
    config, dataset, fit = job.config, prepared.dataset, trained.fit
    square_norm = float(penalty(fit.theta[:, None], np.ones(1))[0])
    report = {
        "status": fit.status,
        "metrics": metrics,
        "objective": objective,
        "certificate": _certificate(fit.certificate),
        "weight_norm": math.sqrt(square_norm),
        "config": job.plain,
        **step_figures(config, fit.lr, prepared.scale),
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


def falls_short(report: dict[str, Any]) -> bool:
    """Return whether a run is not proven to be as near to its optimum as it was asked to be.

    Without a penalty nothing can be proven, and nothing is asked.
    """
    config = report["config"]
    asked = config.get("choices", {}).get("optimizer") == "lbfgs" and config["reg"] > 0
    if not asked or report["status"] != "completed":
        return False
    relative = (report.get("certificate") or {}).get("relative")
    return relative is None or bool(relative > config["optimizer"]["tol"])


def _certificate(certificate: Certificate | None) -> dict[str, float | None] | None:
    """Return how near to its optimum a model is; null where nothing is known."""
    if certificate is None:
        return None
    names = ("objective", "gradient_norm", "excess", "relative")
    figures = {name: getattr(certificate, name) for name in names}
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

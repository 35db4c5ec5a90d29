"""One model out of a path of penalties: what reg=auto trains, chooses and reports.

The path is one stack. Its penalties are judged by the folds where there are any, else by the
validation split; what is known of each stands in the report of the run.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from classifier.fit import nearness
from classifier.optimum import Path, search
from classifier.runs.artifacts import Checkpoint
from classifier.runs.config import Job
from classifier.runs.log import Noted, log
from classifier.runs.preparation import Prepared, make_trainer, penalties_of
from classifier.runs.results import Trained
from classifier.shards import evaluate_held_out
from classifier.solver import Training

KNOWN = ("completed", "interrupted")  # statuses of models that are worth a figure
FIGURES = ("loss", "accuracy", "loss_error", "accuracy_error")  # of held-out examples
COLUMNS = (  # of the table of penalties
    *("reg", "status", "loss", "loss_error", "accuracy", "accuracy_error", "train_loss"),
    *("train_accuracy", "weight_norm", "above_optimum", "epochs"),
)


# Trains models, which are jobs with a penalty each, and judges them.
Train = Callable[[Sequence[Job], Training], list[Trained]]


def first_models(job: Job, prepared: Prepared, earlier: Checkpoint | None) -> list[Job]:
    """Return the models of a run with reg=auto to begin with, or those that its checkpoint has."""
    regs = penalties_of(job.config, prepared.mean_square)
    return _models(job, earlier.regs if earlier and len(earlier.regs) >= len(regs) else regs)


def _models(job: Job, regs: np.ndarray) -> list[Job]:
    """Return a job with each of some penalties."""
    log.info("reg=auto: %d penalties from %.3g to %.3g", len(regs), regs[0], regs[-1])
    configs = [dataclasses.replace(job.config, reg=reg) for reg in regs.tolist()]
    return [dataclasses.replace(job, config=config) for config in configs]


def choose_penalty(
    job: Job,
    prepared: Prepared,
    models: Sequence[Job],
    begun: Training,
    train: Train,
    stop: Noted,
) -> Trained:
    """Train a path of penalties, and return the model of the one that is chosen.

    Parameters
    ----------
    job : of a run with reg=auto.
    prepared : its data.
    models, begun : that `first_models` returned, and their training.
    train : trains and judges models.
    stop : says whether the run is asked to stop, and no more penalties are to be tried.
    """
    config, metric = job.config, job.config.objective.removeprefix("val_")
    trained, rows = list[Trained](), list[dict[str, Any]]()

    def train_path(regs: np.ndarray, before: Training | None) -> tuple[Training, Path]:
        nonlocal trained, rows
        if before is None:
            training, trained = begun, train(models, begun)
        else:
            more = _models(job, regs)
            training = make_trainer(more, prepared)
            training.adopt(before)
            trained = train(more, training)
        rows = _rows(trained, prepared)
        sign = -1 if metric == "accuracy" else 1
        cost, error = (
            np.array([math.nan if row[name] is None else row[name] for row in rows])
            for name in (metric, f"{metric}_error")
        )
        return training, Path(regs, sign * cost, error)

    regs = np.array([float(model.config.reg) for model in models])
    training, path = search(regs, train_path, lambda: not stop())
    chosen = trained[path.chosen(config.reg_choice)]
    for fit in training.fits:
        if fit.status == "interrupted":
            chosen.fit.status, chosen.fit.ended = fit.status, fit.ended
    report = {
        "by": "val" if config.cv is None else "cv",
        "n": (n := config.cv or len(prepared.val)),
        "over": f"{n:,} validation examples" if config.cv is None else f"{n} folds",
        "metric": metric,
        "choice": config.reg_choice,
        "best": float(path.regs[path.best]),
        "one_standard_error": float(path.regs[path.strongest]),
        "penalties": rows,
    }
    return dataclasses.replace(chosen, path=report)


def _rows(trained: Sequence[Trained], prepared: Prepared) -> list[dict[str, Any]]:
    """Return what is known of each penalty, from strong to weak.

    Returns
    -------
    A dict each: reg, status, epochs, weight_norm, above_optimum (as a share of the objective),
    train_loss, train_accuracy, and of held-out examples loss and accuracy with their standard
    errors: over the folds where there are any, else over the validation examples. What is not known
    is None.
    """
    known = [g for g, one in enumerate(trained) if one.fit.certificate and one.fit.status in KNOWN]
    held_out = dict[int, tuple[float, ...]]()
    if prepared.train.folds is not None:
        for g in known:
            if folds := trained[g].cross_validation:
                held_out[g] = tuple(folds[name] for name in FIGURES)
    elif known:
        theta = np.stack([trained[g].fit.theta for g in known], axis=1)
        val = prepared.val
        loss, accuracy, error = evaluate_held_out(val, theta)
        # Weights that differ are worth fewer examples (L. Kish, Survey Sampling, 1965, 11.7).
        effective = (
            len(val) if val.weights is None else len(val) ** 2 / np.square(val.weights).sum()
        )
        error *= math.sqrt(len(val) / effective)
        binomial = np.sqrt(accuracy * (1 - accuracy) / effective)
        held_out = dict(zip(known, zip(loss, accuracy, error, binomial, strict=True), strict=True))
    return [_row(one, held_out.get(g)) for g, one in enumerate(trained)]


def _row(one: Trained, held_out: Sequence[float] | None) -> dict[str, Any]:
    fit, row = one.fit, {"reg": one.job.config.reg, "status": one.fit.status}
    if fit.certificate is not None:
        relative = fit.certificate.relative
        row |= {
            "epochs": len(fit.history),
            "weight_norm": float(np.linalg.norm(fit.W)),
            "above_optimum": relative if nearness(relative) else math.nan,
            "train_loss": fit.certificate.loss,
            "train_accuracy": fit.certificate.accuracy,
        }
    row |= dict(zip(FIGURES, map(float, held_out), strict=True)) if held_out else {}
    is_number = {key: isinstance(value, str) or math.isfinite(value) for key, value in row.items()}
    return {key: row.get(key) if is_number.get(key) else None for key in COLUMNS}

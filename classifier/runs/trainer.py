"""The training of some jobs: by minibatches or on all examples, with the numbers of each model."""

import math
from collections.abc import Sequence

import numpy as np

from classifier.curvature import Scale
from classifier.minibatch import MinibatchTraining
from classifier.model_stack import PerModel, kept_share
from classifier.optimizers import Lbfgs, MinibatchOptimizer
from classifier.report.flags import settings_flags
from classifier.runs.config import Config
from classifier.runs.job import Job
from classifier.runs.log import log
from classifier.runs.preparation import Prepared, generator
from classifier.solver import Training
from data.errors import InputError

FLOAT32 = np.finfo(np.float32)


def make_trainer(jobs: Sequence[Job], prepared: Prepared) -> Training:
    """Return the training of some jobs, before its first step.

    Its models are those of the jobs and then, for each fold, those of the jobs without it.
    """
    config = jobs[0].config
    own = prepared.train, prepared.val, len(prepared.dataset.classes)
    optimizer = config.optimizer
    if isinstance(optimizer, Lbfgs):
        from classifier.full_batch import FullBatchTraining  # its parts of scipy cost start-up

        log.info(
            "L-BFGS to %.2g above the optimum, in %d passes at most", optimizer.tol, config.epochs
        )
        rng = generator(config.seed, "curvature")
        lr = np.full(len(jobs), np.nan)
        _warn_of_settings(jobs, lr, prepared.scale)
        models = per_model(jobs, lr, prepared)
        return FullBatchTraining(*own, models, optimizer=optimizer, epochs=config.epochs, rng=rng)
    assert isinstance(optimizer, MinibatchOptimizer)
    lr = np.array([_resolve_lr(job, optimizer, prepared.scale) for job in jobs])
    _warn_of_settings(jobs, lr, prepared.scale)
    training = MinibatchTraining(
        *own,
        per_model(jobs, lr, prepared),
        optimizer=optimizer,
        schedule=config.schedule,
        early_stopping=config.early_stopping,
        batch_size=config.batch_size,
        epochs=config.epochs,
        rng=generator(config.seed, "order"),
    )
    if config.schedule.warmup_steps >= config.epochs * len(training.batches):
        log.warning("schedule.warmup_steps is longer than the training: lr is never reached")
    return training


def per_model(jobs: Sequence[Job], lr: np.ndarray, prepared: Prepared) -> PerModel:
    """Return the numbers of the models of some jobs, those of their folds behind them."""
    n_stacks = 1 + (jobs[0].config.cv or 0)
    fold = np.repeat(np.arange(-1, n_stacks - 1), len(jobs))
    numbers = [(j.config.reg, j.config.momentum, j.config.label_smoothing) for j in jobs]
    reg, momentum, smoothing = (np.tile(column, n_stacks) for column in np.array(numbers).T)
    kept = kept_share(prepared.train, fold)
    return PerModel(np.tile(lr, n_stacks), reg, momentum, smoothing, fold, kept)


def _resolve_lr(job: Job, optimizer: MinibatchOptimizer, scale: Scale) -> float:
    config: Config = job.config
    auto = config.lr == "auto"
    lr = optimizer.auto_lr(scale, config.reg) if auto else float(config.lr)
    lr *= config.lr_scale
    if not float(FLOAT32.tiny) <= lr <= float(FLOAT32.max):
        reason = (
            f"{lr:.3g} here, for the features are of size {np.sqrt(scale.eigenvalue):.1e}; use "
            "preprocessing=standardize"
        )
        raise InputError(f"lr={config.lr}: {reason if auto else 'not a step float32 can take'}")
    stable = optimizer.stable_lr(scale, config.reg)
    bound = "" if stable is None else f", sure to be stable up to 2/L = {stable:.4g}"
    chosen = " (auto)" if auto else ""
    own = {"folder": job.folder}
    log.info("lr %.4g%s%s", lr, chosen, bound, extra=own)
    return lr


def _warn_of_settings(jobs: Sequence[Job], lr: np.ndarray, scale: Scale) -> None:
    """Log before training what the pages of the runs say of their settings."""
    for job, step in zip(jobs, lr, strict=True):
        for sentence in settings_flags(step_figures(job.config, float(step), scale)):
            log.warning("%s", sentence, extra={"folder": job.folder})


def step_figures(config: Config, lr: float, scale: Scale) -> dict[str, float | None]:
    """Return lr, reg and what they are measured by: keys of report.json.

    Parameters
    ----------
    lr : nan where the optimizer has none.
    """
    optimizer, reg = config.optimizer, config.reg
    stable = auto = None
    if isinstance(optimizer, MinibatchOptimizer):
        stable, auto = optimizer.stable_lr(scale, reg), optimizer.auto_lr(scale, reg)
    return {
        "lr": None if math.isnan(lr) else lr,
        "auto_lr": auto,
        "largest_stable_lr": stable,
        "reg": reg,
        "smoothness": scale.smoothness(reg),
    }

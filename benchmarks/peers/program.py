"""The program itself: the training loops that `train.py` runs, from Python."""

import dataclasses
from collections.abc import Callable

import numpy as np

from benchmarks.peers.settings import Settings, Weights
from benchmarks.problems import Problem
from classifier.fit import EarlyStopping
from classifier.full_batch import FullBatchTraining
from classifier.model_stack import PerModel, kept_share
from classifier.optimizers import Lbfgs, Sgd
from classifier.schedules import Constant, Schedule
from classifier.training import Training
from data.dataset import Split


def prepare(problem: Problem, settings: Settings) -> Callable[[], Weights]:
    """Make a training of one model ready."""
    training = make_training(problem, settings, Constant(warmup_steps=0))

    def run() -> Weights:
        (fit,) = training.run()
        return fit.W, fit.b

    return run


def make_training(
    problem: Problem, settings: Settings, schedule: Schedule, n_models: int = 1
) -> Training:
    """Make a training of a stack of equal models; nothing is held out and nothing ends it early."""
    per_model = settings.lr, settings.reg, settings.momentum, 0.0
    return Training(
        problem.split,
        Split(problem.design[:0], problem.y[:0]),
        problem.n_classes,
        PerModel.whole(*(np.full(n_models, number) for number in per_model)),
        optimizer=Sgd(nesterov=settings.nesterov),
        schedule=schedule,
        early_stopping=EarlyStopping(monitor="val_loss", patience=None),
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        rng=np.random.default_rng(settings.seed),
    )


def make_full_batch(
    problem: Problem,
    regs: np.ndarray,
    *,
    tol: float,
    epochs: int,
    folds: np.ndarray | None = None,
    all_penalties: bool = True,
) -> FullBatchTraining:
    """Make a training with L-BFGS: each penalty on all examples and, with folds, without each."""
    n_folds = 0 if folds is None else int(folds.max()) + 1
    reg = np.tile(regs, n_folds + 1)
    fold = np.repeat(np.arange(-1, n_folds), len(regs))
    train = with_folds(problem, folds)
    zeros = np.zeros(len(reg))
    return FullBatchTraining(
        train,
        Split(problem.design[:0], problem.y[:0]),
        problem.n_classes,
        PerModel(zeros, reg, zeros, zeros, fold, kept_share(train, fold)),
        optimizer=Lbfgs(all_penalties=all_penalties, tol=tol),
        epochs=epochs,
        rng=np.random.default_rng(0),
    )


def with_folds(problem: Problem, folds: np.ndarray | None) -> Split:
    """Return what is trained on, with the fold of each example."""
    return dataclasses.replace(problem.split, folds=folds)

"""The program itself: the training loop that `train.py` runs, from Python."""

from collections.abc import Callable

import numpy as np

from benchmarks.peers.settings import Settings, Weights
from benchmarks.problems import Problem
from classifier.fit import EarlyStopping
from classifier.model_stack import PerModel
from classifier.optimizers import Sgd
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

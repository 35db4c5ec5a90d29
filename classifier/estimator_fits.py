"""The two trainings of the estimators: to the optimum, and by minibatches."""

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from classifier.certificate import Certificate
from classifier.curvature import measure_scale
from classifier.fit import DIVERGED, DONE, STUCK, EarlyStopping, Fit
from classifier.full_batch import FullBatchTraining
from classifier.hyperparameters import Hyperparameters
from classifier.minibatch import MinibatchTraining
from classifier.model_stack import PerModel, kept_share
from classifier.optimizers import Adam, Lbfgs, MinibatchOptimizer, Sgd
from classifier.schedules import Constant, Cosine, Exponential, Schedule, Step
from classifier.shards import certify_weights
from data.dataset import Split
from data.errors import InputError

OPTIMIZERS: dict[str, MinibatchOptimizer] = {
    "sgd": Sgd(nesterov=False),
    "adam": Adam(beta2=0.999, epsilon=1e-8),
}
# What parameters that only minibatches have are where nobody asks for minibatches by them.
NOT_GIVEN: dict[str, Any] = {
    "lr": "auto",
    "batch_size": None,
    "momentum": None,
    "schedule": None,
    "early_stopping": False,
}
FULL = ("auto", "lbfgs")  # what optimizer may be besides those
SCHEDULES: dict[str, Schedule] = {
    "constant": Constant(warmup_steps=0),
    "cosine": Cosine(warmup_steps=0),
    "step": Step(warmup_steps=0, gamma=0.1, every=30),
    "exponential": Exponential(warmup_steps=0, gamma=0.95),
}


def choose_optimizer(
    given: Any, tol: float, parameters: Mapping[str, Any], *, partial: bool = False
) -> Lbfgs | MinibatchOptimizer:
    """Return what takes the steps.

    Parameters
    ----------
    given : 'auto', 'lbfgs', or what takes minibatches, by its name or itself.
    parameters : those that only minibatches have, some of them given, which asks for minibatches.
    partial : whether the examples come part by part.

    Raises
    ------
    InputError
        When there is no such optimizer, or it has no such parameter.
    """
    full = Lbfgs(all_penalties=True, tol=tol)
    asking = {
        name: value
        for name, value in parameters.items()
        if not (isinstance(value, type(NOT_GIVEN[name])) and value == NOT_GIVEN[name])
    }
    if isinstance(given, str) and given == "auto":
        given = "sgd" if asking or partial else "lbfgs"
    if not (isinstance(given, str) and given == "lbfgs"):
        kind = MinibatchOptimizer
        found: MinibatchOptimizer = look_up("optimizer", given, OPTIMIZERS, kind, FULL)
        return found
    if partial:
        raise InputError("optimizer=lbfgs: partial_fit takes minibatches; use 'auto' or 'sgd'")
    for name, value in asking.items():
        raise InputError(
            f"{name}={value}: optimizer='lbfgs' sees all examples at once and has no such "
            f"parameter; leave {name} out, or use optimizer='sgd'"
        )
    return full


def per_model(
    train: Split, reg: np.ndarray, label_smoothing: float, fold: np.ndarray | None = None
) -> PerModel:
    """Return the numbers of models that differ in penalty and fold (G,), without lr and momentum.

    Parameters
    ----------
    train : the examples, with their folds where models leave one out.
    """
    n = len(reg)
    fold = np.full(n, -1) if fold is None else fold
    smoothing, nothing = np.full(n, label_smoothing), np.zeros(n)
    return PerModel(np.full(n, math.nan), reg, nothing, smoothing, fold, kept_share(train, fold))


def to_optimum(
    train: Split,
    n_classes: int,
    models: PerModel,
    optimizer: Lbfgs,
    epochs: int,
    rng: np.random.Generator,
    *,
    theta: np.ndarray | None = None,
    verbose: int = 0,
) -> list[Fit]:
    """Train models to their optima; warn, once, where some do not come as near as asked for.

    Parameters
    ----------
    train : design matrix (N, D + 1), class indices, weights, folds.
    theta : (C, G, D + 1) that they start from, or None for a path.
    """
    training = FullBatchTraining(
        train,
        train.select(slice(0, 0)),
        n_classes,
        models,
        optimizer=optimizer,
        epochs=epochs,
        rng=rng,
    )
    if theta is not None:
        training.start_from(theta.astype(train.X.dtype))
    fits = training.run(_teller(verbose, _bounds))
    for fit in fits:
        if fit.status == DIVERGED:
            _warn(fit.ended)
    short = [fit for fit in fits if fit.ended in (DONE, STUCK)]
    if short:
        which = f"{len(short)} of {len(fits)} models: " if len(fits) > 1 else ""
        _warn(
            f"{which}{short[0].ended} ({epochs}), {_bounds(short)}; tol={optimizer.tol:g} asks for "
            "less: use more epochs, a larger tol or a larger reg"
        )
    return fits


def minibatch_training(
    train: Split,
    val: Split,
    n_classes: int,
    numbers: Hyperparameters,
    optimizer: MinibatchOptimizer,
    schedule: Schedule,
    early_stopping: EarlyStopping,
    rng: np.random.Generator,
    *,
    bold: bool,
) -> MinibatchTraining:
    """Return a training before its first step; a bold one makes the most of lr='auto'."""
    lr = numbers.lr
    if lr == "auto":
        scale = measure_scale(train.X, rng, train.weights)
        own = numbers.reg, numbers.momentum, numbers.batch_size
        lr = optimizer.bold_lr(scale, *own) if bold else optimizer.auto_lr(scale, numbers.reg)
    models = per_model(train, np.array([numbers.reg]), numbers.label_smoothing)
    models = dataclasses.replace(
        models, lr=np.array([float(lr)]), momentum=np.array([numbers.momentum])
    )
    return MinibatchTraining(
        train,
        val,
        n_classes,
        models,
        optimizer=optimizer,
        schedule=schedule,
        early_stopping=early_stopping,
        batch_size=numbers.batch_size,
        epochs=numbers.epochs,
        rng=rng,
    )


def by_minibatches(training: MinibatchTraining, *, lr_is_auto: bool, verbose: int = 0) -> Fit:
    """Train a model; warn where it diverges."""
    (fit,) = training.run(_teller(verbose, _losses))
    if fit.status == DIVERGED:
        _warn_of_step(fit, lr_is_auto=lr_is_auto, stacklevel=7)
    return fit


def certified(fit: Fit, train: Split, models: PerModel, *, lr_is_auto: bool) -> Certificate:
    """Return how far a model is from its optimum; warn where its last step was a divergence."""
    found = fit.certificate
    if found is None:
        (found,) = certify_weights(train, fit.theta[:, None], models)
        if fit.status != DIVERGED and not fit.keeps(fit.theta, found.objective, loss=found.loss):
            fit.ended = f"diverged in epoch {len(fit.history)}"
            _warn_of_step(fit, lr_is_auto=lr_is_auto)
    return found


def _warn_of_step(fit: Fit, *, lr_is_auto: bool, stacklevel: int = 6) -> None:
    advice = "use a smaller one" if lr_is_auto else "use lr='auto' or a smaller one"
    _warn(f"{fit.ended} with lr={fit.lr:.4g}: {advice}", stacklevel=stacklevel)


def look_up(
    name: str, value: Any, choices: Mapping[str, Any], kind: type, others: Sequence[str] = ()
) -> Any:
    """Return what a parameter names, or the object it is, of this kind."""
    if isinstance(value, kind):
        return value
    if not isinstance(value, str) or value not in choices:
        known = ", ".join([*others, *choices])
        raise InputError(f"{name}={value}: must be one of {known}, or an object")
    return choices[value]


def generator(random: np.random.RandomState) -> np.random.Generator:
    """Return a generator that this one seeds."""
    return np.random.default_rng(random.randint(2**31 - 1, size=4))


def _warn(message: str, stacklevel: int = 5) -> None:
    warnings.warn(message, ConvergenceWarning, stacklevel=stacklevel)


def _teller(verbose: int, words: Callable[[list[Fit]], str]) -> Callable[[list[Fit]], None]:
    """Return what prints a line after each epoch, or every so many, of the models in it."""
    if not isinstance(verbose, Integral) or verbose < 0:
        raise InputError(f"verbose={verbose}: must be a whole number at least 0")

    def tell(fits: list[Fit]) -> None:
        if verbose:
            print(f"epoch {fits[0].history[-1].epoch}: {words(fits)}")

    return tell


def _losses(fits: list[Fit]) -> str:
    row = fits[0].history[-1]
    val = "" if row.val_loss is None else f", held-out loss {row.val_loss:.6g}"
    return f"training loss {row.train_loss:.6g}{val}"


def _bounds(fits: list[Fit]) -> str:
    """Say where a model is; of several, the one that is the farthest from its optimum."""
    found = [fit.certificate for fit in fits if fit.certificate is not None]
    if not found:
        return DIVERGED
    worst = max(found, key=lambda c: c.relative)
    several = f"{len(fits)} models, the farthest with " if len(fits) > 1 else ""
    known = f"at most {worst.relative:.2g} of it above the lowest"
    if worst.relative == math.inf:
        known = "not known how far above the lowest"
    return f"{several}objective {worst.objective:.6g}, {known}"

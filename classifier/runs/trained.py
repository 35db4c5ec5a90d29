"""What is known of models once they are trained: how near their optimum, how good on folds."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from classifier.fit import DIVERGED, Fit
from classifier.model_stack import PerModel
from classifier.runs.preparation import Prepared
from classifier.shards import certify_weights, evaluate_held_out
from data.dataset import Split

AT_ONCE = 2**24  # weights whose gradients are summed up in one pass


@dataclasses.dataclass(frozen=True)
class Trained:
    """A job's model, and of its cross-validation the loss and accuracy of each fold, if any."""

    fit: Fit
    fold_losses: list[float] = dataclasses.field(default_factory=list)
    fold_accuracies: list[float] = dataclasses.field(default_factory=list)


def judge(
    fits: Sequence[Fit],
    models: PerModel,
    n_jobs: int,
    prepared: Prepared,
    after_block: Callable[[], None],
) -> list[Trained]:
    """Return what is known of each job's model.

    Parameters
    ----------
    fits, models : of the jobs and then, for each fold, of the jobs without it.
    n_jobs : how many jobs there are.
    prepared : what they were trained on.
    after_block : called now and then; what it raises ends this.
    """

    def stop() -> str:
        after_block()
        return ""

    _certify(fits[:n_jobs], models, prepared.train, stop)
    wrong = [g for g, fit in enumerate(fits[:n_jobs]) if not _is_kept(fit)]
    for g in wrong:  # what the last step made of it was in no epoch's figures
        fits[g].theta[...], fits[g].best_epoch, fits[g].certificate = 0, 0, None
        fits[g].ended = f"diverged in epoch {len(fits[g].history)}"
    if wrong:
        _certify(fits[:n_jobs], models, prepared.train, stop)
    if prepared.train.folds is None:
        return [Trained(fit) for fit in fits[:n_jobs]]
    losses, accuracies = _on_folds(fits, models, n_jobs, prepared.train, after_block)
    columns = zip(fits[:n_jobs], losses.T.tolist(), accuracies.T.tolist(), strict=True)
    return [_of_folds(*own, fits[g::n_jobs][1:]) for g, own in enumerate(columns)]


def _certify(fits: Sequence[Fit], models: PerModel, train: Split, stop: Callable[[], str]) -> None:
    """Give each model that took part in an epoch the certificate that it lacks."""
    unknown = [g for g, fit in enumerate(fits) if fit.certificate is None and fit.history]
    size = max(1, AT_ONCE // fits[0].theta.size)
    for chosen in (unknown[i : i + size] for i in range(0, len(unknown), size)):
        theta = np.stack([fits[g].theta for g in chosen], axis=1)
        found = certify_weights(train, theta, models.select(chosen), stop)
        for g, certificate in zip(chosen, found, strict=True):
            fits[g].certificate = certificate


def _is_kept(fit: Fit) -> bool:
    if fit.status != "completed" or fit.certificate is None:
        return True
    return fit.keeps(fit.theta, fit.certificate.objective, loss=fit.certificate.loss)


def _of_folds(
    fit: Fit, losses: list[float], accuracies: list[float], without: Sequence[Fit]
) -> Trained:
    """Return a job's model with its figures on the folds, unless one diverged without its fold."""
    finite = [math.isfinite(loss) for loss in losses]
    lost = [k for k, own in enumerate(without) if own.status == DIVERGED or not finite[k]]
    if lost and fit.status == "completed":
        fit.status, fit.ended = DIVERGED, f"the model without fold {lost[0] + 1} diverged"
    return Trained(fit, losses, accuracies) if all(finite) else Trained(fit)


def _on_folds(
    fits: Sequence[Fit],
    models: PerModel,
    n_jobs: int,
    train: Split,
    after_block: Callable[[], None],
) -> tuple[np.ndarray, np.ndarray]:
    """Return loss and accuracy (K, n_jobs) of the models on the folds they were not trained on."""
    found = []
    for first in range(n_jobs, len(fits), n_jobs):
        fold = range(first, first + n_jobs)
        theta = np.stack([fits[g].theta for g in fold], axis=1)
        found.append(evaluate_held_out(train, theta, models.select(fold))[:2])
        after_block()
    losses, accuracies = zip(*found, strict=True)
    return np.array(losses), np.array(accuracies)

"""What is known of models once they are trained: how near their optimum, how good on folds."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from classifier.fit import Fit
from classifier.full_loss import certify_weights
from classifier.held_out import evaluate_held_out
from classifier.model_stack import PerModel
from classifier.runs.preparation import Prepared
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

    unknown = [g for g in range(n_jobs) if fits[g].certificate is None and fits[g].history]
    size = max(1, AT_ONCE // fits[0].theta.size)
    for chosen in (unknown[i : i + size] for i in range(0, len(unknown), size)):
        theta = np.stack([fits[g].theta for g in chosen], axis=1)
        found = certify_weights(prepared.train, theta, models.select(chosen), stop)
        for g, certificate in zip(chosen, found, strict=True):
            fits[g].certificate = certificate
    if prepared.train.folds is None:
        return [Trained(fit) for fit in fits[:n_jobs]]
    losses, accuracies = _on_folds(fits, models, n_jobs, prepared.train, after_block)
    columns = zip(fits[:n_jobs], losses.T.tolist(), accuracies.T.tolist(), strict=True)
    return [Trained(*column) for column in columns]


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
        own = slice(first, first + n_jobs)
        theta = np.stack([fit.theta for fit in fits[own]], axis=1)
        found.append(evaluate_held_out(train, theta, models.fold[own])[:2])
        after_block()
    losses, accuracies = zip(*found, strict=True)
    return np.array(losses), np.array(accuracies)

"""Sums over all examples, shard by shard: theta in, `Sums` out.

The rows are cut into shards, whose number depends on the data alone. Each gives its sums, and these
are added up in a fixed order; so no bit depends on how many threads there are. Whoever asks cannot
tell where a shard stands: in memory, or in a file, whose rows are read and prepared on the way.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from classifier import blas
from classifier.certificate import Certificate, Pass, certify
from classifier.kernel import Kernel, Rows, Sums, penalty
from classifier.model_stack import PerModel, of_mean_one
from data.dataset import Split
from data.machine import Team, row_parts

BLOCK = 2**18  # scores of a block: what the processor's cache holds
ROWS = 2**10  # examples that a block has at least: with fewer, products are slower
LONG = 2**22  # multiplications of a pass from which it is cut into shards at all
SHARDS = 64  # at most
READ = 2**22  # bytes of prepared examples that are read of a file at a time


class HeldOut(NamedTuple):
    """Means over held-out examples, (G,) each: loss, accuracy, standard error of the loss."""

    loss: np.ndarray
    accuracy: np.ndarray
    error: np.ndarray


def sum_up(
    examples: Split,
    theta: np.ndarray,
    models: PerModel | None = None,
    *,
    held_out: bool = False,
    with_gradient: bool = False,
    stop: Callable[[], str] = lambda: "",
    team: Team | None = None,
) -> Sums | None:
    """Return the sums over all examples, or None where there was a reason to stop.

    Parameters
    ----------
    examples : design matrix (N, D + 1), in memory or in a file; class indices, weights or None, and
        folds, where models have one.
    theta : (C, G, D + 1) weights and bias.
    models : label smoothing and fold of each; None: none has any.
    held_out : whether the examples of a model are those of its fold, and not all others.
    with_gradient : whether the gradient and the spread are wanted too.
    stop : asked after each shard for a reason to stop.
    team : threads that share the shards; None: as many as the BLAS has now.
    """
    total = Sums.zeros(theta.shape, with_gradient=with_gradient)
    if len(examples) == 0:
        return total
    smoothing = models.label_smoothing if models is not None and with_gradient else None
    fold = None
    if models is not None and examples.folds is not None and (models.fold >= 0).any():
        fold = models.fold[:, None]
    size = max(1, min(max(BLOCK // max(1, theta[..., 0].size), ROWS), len(examples)))

    def sum_shard(shard: slice) -> Sums:
        kernel = Kernel(theta.shape, size, theta.dtype.type, smoothing)
        blocks = _blocks(examples, shard, size, fold, held_out=held_out)
        return kernel.sums(theta, blocks, with_gradient=with_gradient)

    shards = cut(len(examples), theta.size)
    with contextlib.nullcontext(team) if team else blas.team(len(shards)) as threads:
        for sums in threads.map(sum_shard, shards):
            total.merge(sums)
            if stop():
                return None
    return total


def cut(n: int, n_weights: int) -> list[slice]:
    """Return the shards of n rows, for weights of so many numbers: about equal, an even number."""
    n_shards = 1
    if n * n_weights >= LONG:
        n_shards = max(1, min(SHARDS, 2 * (n // (2 * ROWS))))
    ends = [n * k // n_shards for k in range(n_shards + 1)]
    return [slice(*pair) for pair in itertools.pairwise(ends)]


def _blocks(
    examples: Split, shard: slice, size: int, fold: np.ndarray | None, *, held_out: bool
) -> Iterator[Rows]:
    """Yield the rows of a shard, `size` at a time; they are read of a file some more at once."""
    row_bytes = examples.X.shape[1] * examples.X.dtype.itemsize
    for window in row_parts(shard.stop, max(size, READ // row_bytes), shard.start):
        read = examples.select(window)
        for part in row_parts(len(read), size):
            X, weights = np.asarray(read.X[part]), None
            if read.weights is not None:
                weights = read.weights[part]
            if fold is not None and read.folds is not None:
                kept = (fold == read.folds[part]) == held_out
                weights = kept.astype(X.dtype) if weights is None else kept * weights
            yield Rows(X, read.y[part].astype(np.int64, copy=False), weights)


class Objective:
    """The objective of G models over all examples, and its gradient.

        L_g = sum_i w_gi (logsumexp(f_gi) - f_gi[y_i]) / sum_i w_gi  +  reg_g * sum(W_g ** 2)

    Parameters
    ----------
    examples : as of `sum_up`.
    n_classes : C.
    models : reg, label smoothing, fold and kept share of each model.
    """

    def __init__(self, examples: Split, n_classes: int, models: PerModel) -> None:
        self.examples, self.n_classes, self.models = of_mean_one(examples), n_classes, models
        self._totals = len(examples) * models.kept
        # (C, G, D + 1) what label smoothing adds to the gradient for each unit of it, once known
        self._smoothed: np.ndarray | None = None

    def __call__(
        self,
        theta: np.ndarray,
        stop: Callable[[], str] = lambda: "",
        team: Team | None = None,
    ) -> Pass | None:
        """Make a pass; return None where it was stopped.

        Parameters
        ----------
        theta : (C, G, D + 1) weights and bias, of the type of the examples.
        stop, team : as of `sum_up`.
        """
        smoothing = self.models.label_smoothing
        if smoothing.any() and self._smoothed is None:
            # At zero the gradient of the loss is X^T (1 / C - (1 - e) Y - e / C) / N, and what
            # smoothing adds to the loss is linear: e times theta's product with X^T (Y - 1 / C).
            start = self._sums(np.zeros_like(theta), stop, team)
            if start is None:
                return None
            assert start.gradient is not None
            self._smoothed = -start.gradient / (self._totals * (1 - smoothing))[:, None]
        sums = self._sums(theta, stop, team)
        return None if sums is None else self._finished(theta, sums)

    def _sums(self, theta: np.ndarray, stop: Callable[[], str], team: Team | None) -> Sums | None:
        return sum_up(self.examples, theta, self.models, with_gradient=True, stop=stop, team=team)

    def _finished(self, theta: np.ndarray, sums: Sums) -> Pass:
        """Return means for sums, with the penalty in them."""
        assert sums.gradient is not None
        assert sums.spread is not None
        _, loss, accuracy, _ = sums.figures / self._totals
        gradient = sums.gradient / self._totals[:, None]
        gradient[..., :-1] += 2 * self.models.reg[:, None] * theta[..., :-1]
        objective = loss + penalty(theta.astype(np.float64), self.models.reg)
        if self._smoothed is not None:
            added = np.einsum("cgd,cgd->g", self._smoothed, theta, dtype=np.float64)
            objective += self.models.label_smoothing * added
        return Pass(objective, loss, accuracy, gradient, sums.spread / self._totals)


def certify_weights(
    examples: Split, theta: np.ndarray, models: PerModel, stop: Callable[[], str] = lambda: ""
) -> list[Certificate]:
    """Return how far from their optima models (C, G, D + 1) are: one pass, which is not stopped.

    Parameters
    ----------
    examples, models : as of `Objective`.
    theta : weights and bias.
    stop : called now and then; what it raises ends this.
    """
    result = Objective(examples, len(theta), models)(theta, stop)
    assert result is not None
    return certify(result, models.reg)


def evaluate_held_out(
    examples: Split,
    theta: np.ndarray,
    models: PerModel | None = None,
    team: Team | None = None,
) -> HeldOut:
    """Evaluate models on a split or, where they have folds, each on the fold it was not trained on.

    Parameters
    ----------
    examples : design matrix (N, D + 1), class indices, weights or None, and folds.
    theta : (C, G, D + 1) weights and bias.
    models : the fold of each; None: they have none.
    team : as of `sum_up`.
    """
    sums = sum_up(examples, theta, models, held_out=True, team=team)
    assert sums is not None
    total, *figures = sums.figures
    loss, accuracy, squares = np.stack(figures) / total
    variance = np.maximum(squares - loss**2, 0)
    return HeldOut(loss, accuracy, np.sqrt(variance / np.maximum(total - 1, 1)))

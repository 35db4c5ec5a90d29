"""The objective of a stack of models over all examples: the one thing that full batches need.

    L_g = sum_i w_gi (logsumexp(f_gi) - f_gi[y_i]) / sum_i w_gi  +  reg_g * sum(W_g ** 2)

A call is one pass: theta in, losses and gradients of all models out, whether the examples stand in
memory or in a file. Products are made in the type of the examples, sums over examples in float64,
block by block in a fixed order. Threads have half the rows each, or as many as there are cores.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from classifier import blas
from classifier.certificate import Certificate, Pass, certify
from classifier.model_stack import PerModel, of_mean_one
from classifier.parallel_stack import PARTED
from classifier.stacked_loss import StackedLoss, penalty
from classifier.team import Team
from data.dataset import Split
from data.minibatches import Batch
from data.streamed import row_windows

BLOCK = 2**18  # scores of a block: what the processor's cache holds
ROWS = 2**10  # examples that a block has at least: with fewer, products are slower


class FullLoss:
    """The objective of G models and its gradient.

    Parameters
    ----------
    examples : design matrix (N, D + 1), in memory or in a file; class indices; weights or None;
        folds, where models have one.
    n_classes : C.
    models : reg, label smoothing, fold and kept share of each model.
    smoothed : (C, G, D + 1) what label smoothing adds to the gradient for each unit of it, where
        that is known; else the first call finds it.
    n_threads : that share a long pass; None: as many as the BLAS has now.
    """

    def __init__(
        self,
        examples: Split,
        n_classes: int,
        models: PerModel,
        smoothed: np.ndarray | None = None,
        n_threads: int | None = None,
    ) -> None:
        self.examples, self.n_classes, self.models = of_mean_one(examples), n_classes, models
        self._n_threads = n_threads or blas.n_threads()
        self._totals = len(examples) * models.kept
        self._smoothed = smoothed
        self._losses: list[StackedLoss] = []  # of the threads, with their buffers

    def select(self, keep: np.ndarray) -> "FullLoss":
        """Return the objective of some of the models."""
        models = self.models.select(keep)
        smoothed = None if self._smoothed is None else self._smoothed[:, keep]
        return FullLoss(self.examples, self.n_classes, models, smoothed, self._n_threads)

    def __call__(self, theta: np.ndarray, stop: Callable[[], str] = lambda: "") -> Pass | None:
        """Make a pass.

        Parameters
        ----------
        theta : (C, G, D + 1) weights and bias, of the type of the examples.
        stop : asked now and then for a reason to stop.

        Returns
        -------
        None where it was stopped.
        """
        smoothing = self.models.label_smoothing
        if smoothing.any() and self._smoothed is None:
            # At zero the gradient of the loss is X^T (1 / C - (1 - e) Y - e / C) / N, and what
            # smoothing adds to the loss is linear: e times theta's product with X^T (Y - 1 / C).
            start = self._sums(np.zeros_like(theta), stop)
            if start is None:
                return None
            self._smoothed = -start.gradient / (self._totals * (1 - smoothing))[:, None]
        sums = self._sums(theta, stop)
        return None if sums is None else self._finished(theta, sums)

    def _finished(self, theta: np.ndarray, sums: "_Sums") -> Pass:
        """Return means for sums, with the penalty in them."""
        loss, accuracy = sums.figures / self._totals
        gradient = sums.gradient / self._totals[:, None]
        gradient[..., :-1] += 2 * self.models.reg[:, None] * theta[..., :-1]
        objective = loss + penalty(theta.astype(np.float64), self.models.reg)
        if self._smoothed is not None:
            added = np.einsum("cgd,cgd->g", self._smoothed, theta, dtype=np.float64)
            objective += self.models.label_smoothing * added
        return Pass(objective, loss, accuracy, gradient, sums.spread / self._totals)

    def _sums(self, theta: np.ndarray, stop: Callable[[], str]) -> "_Sums | None":
        n_models, n_columns = theta.shape[1:]
        n_scores = max(1, theta[..., 0].size)
        long = n_scores * n_columns * len(self.examples) >= PARTED
        n_parts = self._n_threads if long else 1
        size = max(1, min(max(BLOCK // n_scores, ROWS), len(self.examples)))
        if not self._losses:
            shape = self.n_classes, n_models, n_columns - 1
            own = size, theta.dtype.type, self.models.label_smoothing
            self._losses = [StackedLoss(*shape, *own, with_spread=True) for _ in range(n_parts)]
        parts = [(loss, _Sums.zeros(theta.shape)) for loss in self._losses]

        def add(part: int, window: Batch) -> None:
            loss, sums = parts[part]
            first, end = (len(window.y) * p // n_parts for p in (part, part + 1))
            for start in range(first, end, size):
                rows = slice(start, min(start + size, end))
                sums.add(loss, theta, self._weighted(window, rows))

        with Team(n_parts) as each:
            for window in row_windows(self.examples):
                each(lambda part: add(part, window))  # noqa: B023
                if stop():
                    return None
        for _, sums in parts[1:]:
            parts[0][1].merge(sums)
        return parts[0][1]

    def _weighted(self, window: Batch, rows: slice) -> Batch:
        """Return some rows; what an example weighs for a model that leaves its fold out is zero."""
        weights = None if window.weights is None else window.weights[rows]
        if window.folds is not None and (self.models.fold >= 0).any():
            kept = self.models.fold[:, None] != window.folds[rows]
            weights = kept.astype(window.X.dtype) if weights is None else kept * weights
        return Batch(window.X[rows], window.y[rows].astype(np.int64, copy=False), weights)


def certify_weights(
    examples: Split, theta: np.ndarray, models: PerModel, stop: Callable[[], str] = lambda: ""
) -> list[Certificate]:
    """Return how far from their optima models (C, G, D + 1) are: one pass, which is not stopped.

    Parameters
    ----------
    examples, models : as of `FullLoss`.
    theta : weights and bias.
    stop : called now and then; what it raises ends this.
    """
    result = FullLoss(examples, len(theta), models)(theta, stop)
    assert result is not None
    return certify(result, models.reg)


@dataclasses.dataclass
class _Sums:
    """Sums over examples: loss and rightness (2, G), gradient (C, G, D + 1), p (1 - p) (C, G)."""

    figures: np.ndarray
    gradient: np.ndarray
    spread: np.ndarray

    @classmethod
    def zeros(cls, shape: tuple[int, ...]) -> "_Sums":
        """Return those of no examples, for weights of this shape."""
        return cls(np.zeros((2, shape[1])), np.zeros(shape), np.zeros(shape[:2]))

    def add(self, loss: StackedLoss, theta: np.ndarray, block: Batch) -> None:
        """Add those of a block."""
        outcome = loss.loss_and_gradient(theta, block.X, block.y, block.weights)
        self.figures += [figures.sum(axis=1, dtype=np.float64) for figures in outcome.figures()]
        self.gradient += loss.gradient * len(block.y)
        assert loss.spread is not None
        self.spread += loss.spread * np.float64(len(block.y))

    def merge(self, other: "_Sums") -> None:
        """Add those of other examples."""
        self.figures += other.figures
        self.gradient += other.gradient
        self.spread += other.spread

"""The loss of `classifier.stacked_loss` for many classes, which threads divide among them.

Each block of classes takes its own maximum away, so that no thread waits for another between its
scores and their exponentials: with f the scores, m_k the maximum and s_k the sum of exp(f - m_k) in
block k, and m the largest m_k,

    sum_c exp(f_c - m) = sum_k s_k exp(m_k - m)
    softmax_c = exp(f_c - m_k) exp(m_k - m) / sum_c exp(f_c - m)        for c in block k

(M. Milakov and N. Gimelshein, Online normalizer calculation for softmax, 2018). The blocks are the
same whatever the number of threads, and so are the sums.
"""

import numpy as np

from classifier.outcome import Outcome
from classifier.stacked_loss import StackedLoss
from classifier.team import Team, share
from data.minibatches import Fill

BLOCK = 96  # classes: BLAS rounds products cut at multiples of 48 as it does whole ones
MANY = 2 * BLOCK  # classes from which they are divided


class ManyClasses(StackedLoss):
    """As `StackedLoss`, class by class; without the spread."""

    def _softmax(
        self,
        theta: np.ndarray,
        X: np.ndarray,
        y: np.ndarray,
        weights: np.ndarray | None,
    ) -> tuple[Outcome, np.ndarray]:
        """Return the outcome, exp(m_k - m) / sum (K, G, B), and in the scores exp(f - m_k)."""
        n_classes, n_models, n_columns = self.gradient.shape
        if len(y) != self._scores.shape[1]:
            self._set_rows(len(y))
        S = self._scores.reshape(n_classes, n_models, len(y))
        top, sums = np.empty((2, -(-n_classes // BLOCK), n_models, len(y)), dtype=S.dtype)
        correct = np.empty(S.shape[1:], dtype=S.dtype)

        def part(number: int) -> None:
            own = share(n_classes, number, self._team.n, BLOCK)
            f = S[own]
            np.matmul(theta[own].reshape(-1, n_columns), X.T, out=f.reshape(-1, len(y)))
            for k, block in _blocks(own):
                np.maximum.reduce(S[block], axis=0, out=top[k])
                S[block] -= top[k]
            at = _of_classes(y, own)
            correct[:, at] = S[y[at], :, at].T
            np.exp(f, out=f)
            for k, block in _blocks(own):
                np.add.reduce(S[block], axis=0, out=sums[k])

        self._team(part)
        below = top - top.max(axis=0)
        correct += below[y // BLOCK, :, np.arange(len(y))].T
        scale = np.exp(below)
        exp_sum = (sums * scale).sum(axis=0)
        return Outcome(correct, exp_sum, y, weights, n_classes), scale / exp_sum

    def loss(
        self, theta: np.ndarray, X: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None
    ) -> Outcome:
        """Return what becomes of each example; as `StackedLoss.loss`."""
        return self._softmax(theta, X, y, weights)[0]

    def loss_and_gradient(
        self,
        theta: np.ndarray,
        X: np.ndarray,
        y: np.ndarray,
        weights: np.ndarray | None = None,
        fill: Fill | None = None,
    ) -> Outcome:
        """Return what `loss` returns and leave the gradient, as `StackedLoss` does."""
        if fill is not None:
            fill(slice(len(X)))
        outcome, scale = self._softmax(theta, X, y, weights)
        mean = (
            np.full(1, 1 / len(y), scale.dtype)
            if weights is None
            else weights / scale.dtype.type(len(y))
        )
        mean = np.broadcast_to(mean, scale.shape[1:])
        scale *= mean
        n_classes, n_models, n_columns = self.gradient.shape
        S = self._scores.reshape(n_classes, n_models, len(y))
        smoothing = 0.0 if self._smoothing is None else self._smoothing

        def part(number: int) -> None:
            own = share(n_classes, number, self._team.n, BLOCK)
            for k, block in _blocks(own):
                S[block] *= scale[k]
            if self._smoothing is not None:
                S[own] -= mean * smoothing / n_classes
            at = _of_classes(y, own)
            S[y[at], :, at] -= (mean * (1 - smoothing))[:, at].T
            gradient = self.gradient[own].reshape(-1, n_columns)
            np.matmul(S[own].reshape(-1, len(y)), X, out=gradient)

        self._team(part)
        return outcome


def _blocks(own: slice) -> list[tuple[int, slice]]:
    """Return the blocks of classes in a slice that begins with one, each with its number."""
    starts = range(own.start, own.stop, BLOCK)
    return [(start // BLOCK, slice(start, min(start + BLOCK, own.stop))) for start in starts]


def _of_classes(y: np.ndarray, own: slice) -> np.ndarray:
    """Return which examples have one of these classes."""
    return np.flatnonzero((y >= own.start) & (y < own.stop))


def make_loss(
    n_classes: int,
    n_models: int,
    n_features: int,
    batch_size: int,
    dtype: type[np.floating] = np.float32,
    label_smoothing: np.ndarray | None = None,
    team: Team | None = None,
) -> StackedLoss:
    """Return the loss that training computes; as the constructor of `StackedLoss`."""
    kind = ManyClasses if n_classes >= MANY else StackedLoss
    return kind(n_classes, n_models, n_features, batch_size, dtype, label_smoothing, team=team)

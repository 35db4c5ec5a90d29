"""The loss and gradient of a stack of models on one minibatch: what training spends its time on.

G models share the minibatch. Their weights and biases are one array theta (C, G, D + 1),
class-major, whose last feature is the bias; the design matrix X (B, D + 1) ends in a column of
ones. Then all scores are one matrix product, (C * G, D + 1) @ (D + 1, B), and so is the gradient.
With the classes first the softmax runs over the leading axis, where numpy stays vectorised.

The mathematics is that of `classifier.loss`, with a bias that is never penalised and optional
sample weights w_i:

    L_g  = sum_i w_i (logsumexp(f_gi) - f_gi[y_i]) / sum_i w_i  +  reg_g * sum(W_g ** 2)

Label smoothing puts (1 - e) Y + e / C in the place of the one-hot labels Y (C. Szegedy et al.,
Rethinking the Inception Architecture, 2016). That adds a term linear in the scores:

    e_g sum_i w_i (f_gi[y_i] - mean_c f_gi[c]) / sum_i w_i
"""

import numpy as np

from classifier.blas import cut_helps
from classifier.outcome import Outcome
from classifier.team import Team, share
from data.minibatches import Fill

SMALL = 10**6  # multiplications up to which OpenBLAS does not pack a product's factors
FEW = 1200  # scores up to which it does not, where they are products of rows with rows
WIDE = 128  # rows of theta from which BLAS is fast without any of this
CUT = 32  # rows or columns of X that such a product must have to be worth it
LONG = 512  # features from which a packed product of few rows of theta is faster turned round
FILLED = 128  # rows of X that are filled and multiplied at a time, however many threads there are
UNIT = 96  # columns of which a thread has a multiple: BLAS rounds them as those of the whole


class StackedLoss:
    """Cross-entropy and gradient of G models; the large buffers are allocated once.

    Parameters
    ----------
    n_classes, n_models, n_features : C, G and D.
    batch_size : the most rows a minibatch may have.
    dtype : of theta, of the design matrix and of every buffer.
    label_smoothing : (G,) e of each model, or None; of the gradient, losses are without it.
    with_spread : whether `loss_and_gradient` leaves the spread too.
    team : threads that divide the gradient among them, and the scores where they fill X.

    Attributes
    ----------
    gradient : (C, G, D + 1), what the last call of `loss_and_gradient` left.
    wants_to_fill : whether it is faster where it fills X itself.
    spread : (C, G), likewise: the mean of p (1 - p), what the loss curves by in each bias alone.
    """

    def __init__(
        self,
        n_classes: int,
        n_models: int,
        n_features: int,
        batch_size: int,
        dtype: type[np.floating] = np.float32,
        label_smoothing: np.ndarray | None = None,
        *,
        with_spread: bool = False,
        team: Team | None = None,
    ) -> None:
        n_scores, n_columns = max(1, n_classes * n_models), n_features + 1
        self._smoothing: np.ndarray | None = None
        if label_smoothing is not None and label_smoothing.any():
            self._smoothing = label_smoothing[:, None].astype(dtype)
        self.gradient = np.empty((n_classes, n_models, n_columns), dtype=dtype)
        self.spread = np.empty((n_classes, n_models), dtype=dtype) if with_spread else None
        self._buffer = np.empty(n_scores * batch_size, dtype=dtype)
        self._set_rows(batch_size)
        self._team = team or Team(1)
        # Packing copies both factors, which costs a narrow product as much as the product itself,
        # so those of a few models are cut into small ones: by rows, and by columns, of X.
        self._rows, self._columns = batch_size, n_columns
        if cut_helps():
            small = min(SMALL // (n_scores * n_columns), FEW // n_scores)
            self._rows = batch_size if n_scores >= WIDE else small
            self._columns = SMALL // (n_scores * batch_size)
        elif n_scores < WIDE and n_columns >= LONG:
            self._rows = 0
        self.wants_to_fill = self._rows == 0  # such products gain where two threads share the rows

    def _set_rows(self, n: int) -> None:
        """Make the scores (C * G, n) a part of the buffer, and say where class 0's stand in it."""
        n_classes, n_models, _ = self.gradient.shape
        self._scores = self._buffer[: n_classes * n_models * n].reshape(-1, n)
        self._places = np.arange(n_models * n).reshape(n_models, n)

    def loss(
        self, theta: np.ndarray, X: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None
    ) -> Outcome:
        """Return what becomes of each example.

        Parameters
        ----------
        theta : (C, G, D + 1) weights and bias.
        X : (B, D + 1) design matrix.
        y : (B,) class indices.
        weights : (B,) of the examples, or None.
        """
        self._score(theta, X)
        outcome, *_ = self._forward(y, weights)
        return outcome

    def loss_and_gradient(
        self,
        theta: np.ndarray,
        X: np.ndarray,
        y: np.ndarray,
        weights: np.ndarray | None = None,
        fill: Fill | None = None,
    ) -> Outcome:
        """Return what `loss` returns, and leave the gradient of the mean loss, without the penalty.

        Parameters
        ----------
        theta, X, y : as in `loss`.
        weights : (B,) or (G, B) by which the losses are multiplied before the mean, or None for
            ones. With weights whose mean over all examples is one, the mean over the minibatches
            of an epoch is L's.
        fill : puts the rows into X, where they are not there yet.
        """
        self._score(theta, X, fill)
        outcome, S, places = self._forward(y, weights)
        share: float | np.ndarray = 1.0 / len(y)
        if weights is not None:
            share = weights / S.dtype.type(len(y))
        # From the exponentials to share * (S - Y), in place.
        S *= share / outcome.exp_sum
        if self.spread is not None:
            self._spread(S, share)
        if self._smoothing is None:
            S.reshape(-1)[places] -= share
        else:
            S -= share * self._smoothing / len(S)
            S.reshape(-1)[places] -= share * (1 - self._smoothing)
        self._gradient(X)
        return outcome

    def _spread(self, S: np.ndarray, share: float | np.ndarray) -> None:
        """Put the sums of share * p (1 - p) into `spread`, where S (C, G, B) is share * p."""
        if isinstance(share, float):
            squares = np.einsum("cgb,cgb->cg", S, S) / share
        else:
            inverse = 1 / np.maximum(share, np.finfo(S.dtype).tiny)
            squares = np.einsum("cgb,cgb,gb->cg", S, S, np.broadcast_to(inverse, S.shape[1:]))
        np.subtract(S.sum(axis=2), squares, out=self.spread)

    def _forward(
        self, y: np.ndarray, weights: np.ndarray | None
    ) -> tuple[Outcome, np.ndarray, np.ndarray]:
        """Return the outcome, exp(f - max f) (C, G, B), and where in it the correct classes are."""
        n_classes, n_models, _ = self.gradient.shape
        S = self._scores.reshape(n_classes, n_models, len(y))
        S -= np.maximum.reduce(S, axis=0)
        places = self._places + y * (n_models * len(y))
        correct = S.reshape(-1)[places]
        np.exp(S, out=S)
        outcome = Outcome(correct, np.add.reduce(S, axis=0), y, weights, n_classes)
        return outcome, S, places

    def _score(self, theta: np.ndarray, X: np.ndarray, fill: Fill | None = None) -> None:
        """Put theta X^T (C * G, B) into the scores."""
        if len(X) != self._scores.shape[1]:
            self._set_rows(len(X))
        theta = theta.reshape(-1, theta.shape[2])
        if fill is None:
            self._score_rows(theta, X, self._scores)
            return

        def part(number: int) -> None:
            own = share(len(X), number, self._team.n, FILLED)
            for start in range(own.start, own.stop, FILLED):
                rows = slice(start, min(own.stop, start + FILLED))
                fill(rows)
                self._score_rows(theta, X[rows], self._scores[:, rows])

        self._team(part)

    def _score_rows(self, theta: np.ndarray, X: np.ndarray, scores: np.ndarray) -> None:
        if self._rows < min(CUT, len(X)):  # the other way round BLAS takes up to twice as long
            scores[...] = (X @ theta.T).T
        else:
            _multiply(theta, X.T, scores, self._rows)

    def _gradient(self, X: np.ndarray) -> None:
        """Put S X (C * G, D + 1) into `gradient`, where S stands in the scores."""
        gradient, n = self.gradient.reshape(-1, X.shape[1]), self._team.n
        size = self._columns if self._columns >= CUT else X.shape[1]
        if n == 1:
            _multiply(self._scores, X, gradient, size)
            return
        unit = size if size < X.shape[1] else UNIT

        def part(number: int) -> None:
            columns = share(X.shape[1], number, n, unit)
            _multiply(self._scores, X[:, columns], gradient[:, columns], size)

        self._team(part)


def _multiply(A: np.ndarray, B: np.ndarray, out: np.ndarray, size: int) -> None:
    """Put A B into out by products with `size` columns of B each.

    One call of numpy makes them all: during a long one other threads can go on.
    """
    width = B.shape[1]
    if width <= size and out.flags.c_contiguous:
        np.dot(A, B, out=out)  # of the same BLAS, and half a microsecond quicker than matmul
        return
    whole = width - width % size
    if whole:
        np.matmul(A, _cut(B[:, :whole], size), out=_cut(out[:, :whole], size))
    if whole < width:
        np.matmul(A, B[:, whole:], out=out[:, whole:])


def _cut(A: np.ndarray, size: int) -> np.ndarray:
    """View A (M, k * size) as its k parts (k, M, size)."""
    return A.reshape(len(A), A.shape[1] // size, size).transpose(1, 0, 2)


def penalty(theta: np.ndarray, reg: np.ndarray) -> np.ndarray:
    """Return reg_g * sum(W_g ** 2), (G,), without the bias."""
    W = theta[..., :-1]
    penalties: np.ndarray = reg * np.einsum("cgd,cgd->g", W, W)
    return penalties


def smoothing_term(
    theta: np.ndarray, X: np.ndarray, y: np.ndarray, label_smoothing: np.ndarray
) -> np.ndarray:
    """Return what label smoothing adds to the mean loss, (G,).

    Parameters
    ----------
    theta, X, y : as in `StackedLoss.loss`.
    label_smoothing : (G,).
    """
    scores = (theta.reshape(-1, theta.shape[2]) @ X.T).reshape(*theta.shape[:2], len(X))
    own = scores[y, :, np.arange(len(y))].T
    terms: np.ndarray = label_smoothing * (own - scores.mean(axis=0)).mean(axis=1)
    return terms


def with_penalty_gradient(
    gradient: np.ndarray, theta: np.ndarray, twice_reg: np.ndarray, out: np.ndarray | None = None
) -> np.ndarray:
    """Return a gradient with 2 reg W added to it, and nothing for the bias.

    Parameters
    ----------
    gradient, theta : (..., D + 1).
    twice_reg : 2 reg, broadcast against theta.
    out : an array for the result, or None.
    """
    out = np.multiply(theta, twice_reg, out=out)
    out[..., -1] = 0
    out += gradient
    return out

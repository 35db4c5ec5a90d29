"""The loss and gradient of a stack of models on one minibatch: what training spends its time on.

G models share the minibatch. Their weights and biases are one array theta (C, G, D + 1),
class-major, whose last feature is the bias; the design matrix X (B, D + 1) ends in a column of
ones. Then all scores are one matrix product, (C * G, D + 1) @ (D + 1, B), and so is the gradient.
With the classes first the softmax runs over the leading axis, where numpy stays vectorised.

The mathematics is that of `classifier.loss`, with a bias that is never penalised and optional
sample weights w_i:

    L_g  = sum_i w_i (logsumexp(f_gi) - f_gi[y_i]) / sum_i w_i  +  reg_g * sum(W_g ** 2)
"""

import numpy as np

SMALL = 10**6  # multiplications up to which OpenBLAS does not pack a product's factors
CACHED = 2**16  # weights of each array that stay in the processor's cache
WIDE = 128  # rows of theta from which BLAS is fast without any of this
CUT = 32  # rows or columns of X that such a product must have to be worth it


class StackedLoss:
    """Cross-entropy and gradient of G models; the large buffers are allocated once.

    Parameters
    ----------
    n_classes, n_models, n_features : C, G and D.
    batch_size : the most rows a minibatch may have.
    dtype : of theta, of the design matrix and of every buffer.

    Attributes
    ----------
    gradient : (C, G, D + 1), what the last call of `loss_and_gradient` left.
    """

    def __init__(
        self,
        n_classes: int,
        n_models: int,
        n_features: int,
        batch_size: int,
        dtype: type[np.floating] = np.float32,
    ) -> None:
        n_scores, n_columns = max(1, n_classes * n_models), n_features + 1
        self.gradient = np.empty((n_classes, n_models, n_columns), dtype=dtype)
        self._scores = np.empty(n_scores * batch_size, dtype=dtype)
        self._places = np.arange(n_models * batch_size)
        size = min(n_classes, max(1, n_classes * CACHED // (n_scores * n_columns)))
        self._scratch = np.empty((size, n_models, n_columns), dtype=dtype)
        # Packing copies both factors, which costs a narrow product as much as the product itself,
        # so those of a few models are cut into small ones: by rows, and by columns, of X.
        self._rows = batch_size if n_scores >= WIDE else SMALL // (n_scores * n_columns)
        self._columns = SMALL // (n_scores * batch_size)

    def loss(self, theta: np.ndarray, X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return each example's cross-entropy and whether the model classes it rightly.

        Parameters
        ----------
        theta : (C, G, D + 1) weights and bias.
        X : (B, D + 1) design matrix.
        y : (B,) class indices.

        Returns
        -------
        loss : (G, B), logsumexp(f) - f[y], without the penalty.
        right : (G, B) booleans; equal scores of all classes decide for the first.
        """
        loss, right, *_ = self._forward(theta, X, y)
        return loss, right

    def loss_and_gradient(
        self,
        theta: np.ndarray,
        X: np.ndarray,
        y: np.ndarray,
        reg: np.ndarray,
        weights: np.ndarray | None = None,
    ) -> tuple[np.ndarray, ...]:
        """Return what `loss` returns, and leave the gradient of the mean loss with the penalty.

        Parameters
        ----------
        theta, X, y : as in `loss`.
        reg : (G,) weights of the penalty, as `penalty` has it.
        weights : (B,) sample weights w_i of the mean, or None for ones.
        """
        loss, right, S, exp_sum, correct = self._forward(theta, X, y)
        share: float | np.ndarray = 1.0 / len(y)  # w_i / sum(w)
        if weights is not None:
            share = (weights / weights.sum()).astype(S.dtype)
        # From the exponentials to share * (S - Y), in place.
        S *= share / exp_sum
        S.reshape(-1)[correct] -= share
        self._gradient(S, X)
        self._add_penalty(theta, reg)
        return loss, right

    def _forward(self, theta: np.ndarray, X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return loss (G, B), right (G, B), and what the gradient needs.

        That is exp(f - max f) (C, G, B), its sums (G, B), and where the correct classes are in it.
        """
        n_classes, n_models, _ = self.gradient.shape
        S = self._score(theta, X).reshape(n_classes, n_models, len(y))
        S -= np.maximum.reduce(S, axis=0)
        place = self._places[: n_models * len(y)].reshape(n_models, len(y))
        place = place + y * (n_models * len(y))
        correct = S.reshape(-1)[place]
        np.exp(S, out=S)
        exp_sum = np.add.reduce(S, axis=0)
        # The largest score is now 0. A sum of C means that all are, and argmax takes the first.
        right = (correct == 0) & ((exp_sum < n_classes) | (y == 0))
        return np.log(exp_sum) - correct, right, S, exp_sum, place

    def _score(self, theta: np.ndarray, X: np.ndarray) -> np.ndarray:
        """Return the scores (C * G, B), theta X^T."""
        theta = theta.reshape(-1, theta.shape[2])
        scores = self._scores[: len(theta) * len(X)].reshape(len(theta), len(X))
        if self._rows < min(CUT, len(X)):  # the other way round BLAS takes up to twice as long
            scores[...] = (X @ theta.T).T
        else:
            _multiply(theta, X.T, scores, self._rows)
        return scores

    def _gradient(self, S: np.ndarray, X: np.ndarray) -> None:
        """Put S X (C * G, D + 1) into `gradient`."""
        S = S.reshape(-1, len(X))
        size = self._columns if self._columns >= CUT else X.shape[1]
        _multiply(S, X, self.gradient.reshape(len(S), -1), size)

    def _add_penalty(self, theta: np.ndarray, reg: np.ndarray) -> None:
        """Add 2 reg W to `gradient`, a few classes at a time: so they stay in the cache."""
        twice = (2 * reg)[:, None]
        size = len(self._scratch)
        for start in range(0, len(theta), size):
            classes = theta[start : start + size]
            decay = np.multiply(classes, twice, out=self._scratch[: len(classes)])
            decay[..., -1] = 0
            self.gradient[start : start + size] += decay


def _multiply(A: np.ndarray, B: np.ndarray, out: np.ndarray, size: int) -> None:
    """Put A B into out by products with `size` columns of B each.

    One call of numpy makes them all: during a long one other threads can go on.
    """
    width = B.shape[1]
    whole = width - width % size if width > size else 0
    if whole > 0:
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

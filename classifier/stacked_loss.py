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
        self.gradient = np.empty((n_classes, n_models, n_features + 1), dtype=dtype)
        self._scores = np.empty(n_classes * n_models * batch_size, dtype=dtype)

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
        loss, right, _, _ = self._forward(theta, X, y)
        return loss, right

    def loss_and_gradient(
        self,
        theta: np.ndarray,
        X: np.ndarray,
        y: np.ndarray,
        reg: np.ndarray,
        weights: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean cross-entropy and the share classed rightly; leave the gradient.

        Parameters
        ----------
        theta, X, y : as in `loss`.
        reg : (G,) weights of the penalty.
        weights : (B,) sample weights w_i, or None for ones.

        Returns
        -------
        loss : (G,) weighted mean without the penalty; `penalty` gives that.
        accuracy : (G,) weighted share.

        `gradient` is then that of loss + penalty with respect to theta.
        """
        loss, right, S, exp_sum = self._forward(theta, X, y)
        n_classes, n_models, n_columns = self.gradient.shape
        share: float | np.ndarray = 1.0 / len(y)  # w_i / sum(w)
        if weights is not None:
            share = (weights / weights.sum()).astype(S.dtype)
        # From the exponentials to share * (S - Y), in place.
        S.shape = (n_classes, n_models, len(y))
        S *= share / exp_sum
        flat = S.reshape(-1)
        flat[self._correct(y)] -= share

        gradient = self.gradient.reshape(n_classes * n_models, n_columns)
        np.matmul(S.reshape(-1, len(y)), X, out=gradient)
        self.gradient[..., :-1] += (2 * reg)[:, None] * theta[..., :-1]
        if weights is None:
            return loss.mean(axis=1), right.mean(axis=1)
        return loss @ share, right @ share

    def _forward(self, theta: np.ndarray, X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return loss (G, B), right (G, B), exp(f - max f) (C, G, B) and its sums (G, B)."""
        n_classes, n_models, n_columns = self.gradient.shape
        scores = self._scores[: n_classes * n_models * len(y)].reshape(-1, len(y))
        np.matmul(theta.reshape(n_classes * n_models, n_columns), X.T, out=scores)
        S = scores.reshape(n_classes, n_models, len(y))
        S -= S.max(axis=0)
        correct = S.reshape(-1)[self._correct(y)]
        np.exp(S, out=S)
        exp_sum = S.sum(axis=0)
        # The largest score is now 0. A sum of C means that all are, and argmax takes the first.
        right = (correct == 0) & ((exp_sum < n_classes) | (y == 0))
        return np.log(exp_sum) - correct, right, S, exp_sum

    def _correct(self, y: np.ndarray) -> np.ndarray:
        """Return where the scores of the correct classes lie in the flat (C, G, B) buffer."""
        n_models = self.gradient.shape[1]
        within_class = np.arange(n_models * len(y)).reshape(n_models, len(y))
        place: np.ndarray = within_class + y * (n_models * len(y))
        return place


def penalty(theta: np.ndarray, reg: np.ndarray) -> np.ndarray:
    """Return reg_g * sum(W_g ** 2), (G,), without the bias."""
    W = theta[..., :-1]
    penalties: np.ndarray = reg * np.einsum("cgd,cgd->g", W, W)
    return penalties

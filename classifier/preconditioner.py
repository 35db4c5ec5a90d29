"""Coordinates in which the objective curves by about one in every direction.

The Hessian of the softmax loss is at most X^T diag(w) X / (2 sum(w)) in every direction of the
logits (D. Bohning, Multinomial logistic regression algorithm, 1992). So with

    A_g = X^T diag(w) X / (2 sum(w)) + 2 reg_g I = T_g^-T T_g^-1

of the centred features, weights W_g = T_g V_g of all classes have curvatures of one at most in V.
The bias is that of the centred features, which no direction of W moves: its curvature is 1 / 2.

The second moments come from all examples or, where there are many features, from a sample. A share
of their mean is added to the diagonal: for what a sample misses, and because the bound is far above
the truth once most examples are told apart. There A says 1/2 where the data curve by a hundredth of
it, and is right where the penalty alone curves, in directions in which the data hardly vary. L-BFGS
then takes steps a hundred times too long in these, and rounding grows from pass to pass: with fewer
examples than features, ten times as many passes were needed.
"""

import dataclasses

import numpy as np
from scipy import linalg

from data.dataset import Split
from data.streamed import row_windows

EXACT = 2**10  # features up to which the moments are those of all examples
SAMPLE = 2**12  # examples that stand for all, where they are not
# Times the mean of the diagonal, added to it, where these are the moments of:
ALL_DAMPING = 0.01  # all examples
SAMPLE_DAMPING = 0.03  # a sample
FEW_DAMPING = 0.1  # fewer than 4 examples a feature, which can nearly always be told apart
LARGEST = 2**13  # features from which only the diagonal is used: a factor would take gigabytes
FACTORED = 4  # penalties up to which each gets a factor of its own; from there on one basis for all


@dataclasses.dataclass(frozen=True)
class Moments:
    """The centred second moments of features (D,): matrix (D, D), or (D,) of its diagonal alone."""

    mean: np.ndarray
    matrix: np.ndarray


def measure_moments(examples: Split, rng: np.random.Generator) -> Moments:
    """Measure a design matrix (N, D + 1), whose last column is that of the bias.

    Where there is no bias that column is zero, and then the features are not centred.

    Parameters
    ----------
    examples : the design matrix, in memory or in a file, and weights or None.
    rng : chooses the sample, where one is taken.
    """
    n, n_features = len(examples), examples.X.shape[1] - 1
    sampled = n_features > EXACT and n > SAMPLE
    if sampled:
        examples = examples.select(np.sort(rng.choice(n, SAMPLE, replace=False)))
    total, mean = 0.0, np.zeros(n_features)
    for window in row_windows(examples):
        weights = np.ones(len(window.y)) if window.weights is None else window.weights
        total += float(weights.sum(dtype=np.float64))
        mean += (weights * window.X[:, -1]).astype(np.float64) @ window.X[:, :-1]
    mean /= total
    full = n_features <= LARGEST
    matrix = np.zeros((n_features, n_features) if full else n_features, dtype=examples.X.dtype)
    for window in row_windows(examples):
        for start in range(0, len(window.y), SAMPLE):
            rows = slice(start, start + SAMPLE)
            X = window.X[rows, :-1] - mean.astype(matrix.dtype)
            if window.weights is not None:
                X *= np.sqrt(window.weights[rows] / total).astype(matrix.dtype)[:, None]
            else:
                X *= total**-0.5
            matrix += X.T @ X if full else np.einsum("nd,nd->d", X, X)
    diagonal = np.einsum("dd->d", matrix) if full else matrix
    damping = SAMPLE_DAMPING if sampled else ALL_DAMPING
    diagonal += (FEW_DAMPING if n < 4 * n_features else damping) * diagonal.mean()
    return Moments(mean, matrix)


class Preconditioner:
    """The coordinates of G models; arrays (C, G, D + 1), of classes, models, and bias last."""

    def __init__(self, moments: Moments, reg: np.ndarray) -> None:
        self._mean = moments.mean.astype(moments.matrix.dtype)
        self._reg = reg
        self._floor = np.finfo(np.float32).eps * float(moments.matrix.max(initial=1e-30))
        self._factors: dict[float, np.ndarray] = {}
        self._basis: np.ndarray | None = None
        self._moments = moments.matrix
        if moments.matrix.ndim == 2 and len(set(reg.tolist())) <= FACTORED:
            for r in set(reg.tolist()):
                A = moments.matrix / 2
                np.einsum("dd->d", A)[...] += 2 * r + self._floor
                self._factors[r] = linalg.cholesky(A, lower=True, overwrite_a=True)
        elif moments.matrix.ndim == 2:
            self._moments, self._basis = linalg.eigh(moments.matrix)

    def to_weights(self, v: np.ndarray, models: np.ndarray) -> np.ndarray:
        """Return the weights of coordinates v (C, len(models), D + 1) of some models."""
        theta = np.empty_like(v)
        theta[..., :-1] = self._apply(v[..., :-1], models, transposed=False)
        theta[..., -1] = np.sqrt(2) * v[..., -1] - theta[..., :-1] @ self._mean
        return theta

    def to_coordinates(self, gradient: np.ndarray, models: np.ndarray) -> np.ndarray:
        """Return the gradient in the coordinates of some models, from that in their weights."""
        v = np.empty(gradient.shape, dtype=self._mean.dtype)
        # W alone, with the bias of the centred features fixed.
        inner = gradient[..., :-1] - gradient[..., -1:] * self._mean
        v[..., :-1] = self._apply(inner.astype(v.dtype), models, transposed=True)
        v[..., -1] = np.sqrt(2) * gradient[..., -1]
        return v

    def _apply(self, W: np.ndarray, models: np.ndarray, *, transposed: bool) -> np.ndarray:
        """Return T_g W_g, or T_g^T W_g, for W (C, len(models), D)."""
        if self._factors:
            result = np.empty_like(W)
            for place, g in enumerate(models):
                L = self._factors[float(self._reg[g])]
                own = np.ascontiguousarray(W[:, place].T)
                trans = 0 if transposed else 1
                result[:, place] = linalg.solve_triangular(
                    L, own, lower=True, trans=trans, overwrite_b=True, check_finite=False
                ).T
            return result
        curvature = np.maximum(self._moments, 0) / 2 + 2 * self._reg[models, None] + self._floor
        scale = (1 / np.sqrt(curvature)).astype(self._mean.dtype)
        found: np.ndarray
        if self._basis is None:
            found = W * scale
        elif transposed:
            found = (W.reshape(-1, W.shape[2]) @ self._basis).reshape(W.shape) * scale
        else:
            found = ((W * scale).reshape(-1, W.shape[2]) @ self._basis.T).reshape(W.shape)
        return found

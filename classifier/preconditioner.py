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

from classifier import blas
from classifier.team import Team
from data.dataset import Split
from data.errors import InputError
from data.minibatches import Batch
from data.streamed import row_windows

EXACT = 2**9  # features up to which the moments are those of all examples
SAMPLE = 2**13  # examples that stand for all, where they are not
MANY = 2**11  # features from which half as many do: their products cost several passes
CHUNK = 2**12  # examples whose products are summed up in their own type
DAMPING = 0.03  # times the mean of the diagonal, added where a sample stands for all
FEW = 0.25  # times that mean, at most, for examples that are few
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
    n_sampled = SAMPLE if n_features < MANY else SAMPLE // 2
    sampled = n_features > EXACT and n > n_sampled
    if sampled:
        examples = examples.select(np.sort(rng.choice(n, n_sampled, replace=False)))
    total, mean = 0.0, np.zeros(n_features)
    for window in row_windows(examples):
        weights = np.ones(len(window.y)) if window.weights is None else window.weights
        total += float(weights.sum(dtype=np.float64))
        mean += (weights * window.X[:, -1]).astype(np.float64) @ window.X[:, :-1]
    mean /= total
    full = n_features <= LARGEST
    shape, dtype = (n_features, n_features) if full else (n_features,), examples.X.dtype
    parts = [np.zeros(shape, dtype=dtype) for _ in range(blas.n_threads())]

    @np.errstate(over="ignore", invalid="ignore")  # of this thread; it is refused below
    def add(part: int, window: Batch) -> None:
        for start in range(part * CHUNK, len(window.y), len(parts) * CHUNK):
            rows = slice(start, start + CHUNK)
            X = window.X[rows, :-1] - mean.astype(dtype)
            if window.weights is not None:
                X *= np.sqrt(window.weights[rows] / total).astype(dtype)[:, None]
            else:
                X *= total**-0.5
            parts[part] += X.T @ X if full else np.einsum("nd,nd->d", X, X)

    with Team(len(parts)) as each:
        for window in row_windows(examples):
            each(lambda part: add(part, window))  # noqa: B023
    matrix = sum(parts[1:], parts[0])
    if not np.isfinite(matrix).all():
        raise InputError(
            f"the prepared features are too large: {dtype} cannot hold their squares; use "
            "preprocessing=standardize"
        )
    diagonal = np.einsum("dd->d", matrix) if full else matrix
    # With few examples a feature the classes come apart, and the loss curves less than the bound.
    few = min(n_features / n, FEW)
    diagonal += (few + DAMPING * sampled) * diagonal.mean()
    return Moments(mean, matrix)


class Preconditioner:
    """The coordinates of G models; arrays (C, G, D + 1), of classes, models, and bias last."""

    def __init__(self, moments: Moments, reg: np.ndarray) -> None:
        self._mean = moments.mean.astype(moments.matrix.dtype)
        self._reg = reg
        self._floor = np.finfo(np.float32).eps * float(moments.matrix.max(initial=1e-30))
        self._factors: dict[float, np.ndarray] = {}
        self._solve = linalg.get_blas_funcs("trsm", dtype=moments.matrix.dtype)
        self._basis: np.ndarray | None = None
        self._moments = moments.matrix
        if moments.matrix.ndim == 2 and len(set(reg.tolist())) <= FACTORED:
            for r in set(reg.tolist()):
                A = moments.matrix / 2
                np.einsum("dd->d", A)[...] += 2 * r + self._floor
                self._factors[r] = linalg.cholesky(A, lower=True, overwrite_a=True)
        elif moments.matrix.ndim == 2:
            # 'evd' takes half the time of scipy's default; scipy 1.11 has none of one number.
            driver = "evd" if len(moments.matrix) > 1 else "ev"
            self._moments, self._basis = linalg.eigh(moments.matrix, driver=driver)

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
                # BLAS itself: what scipy.linalg does around it takes longer than it on little data.
                own, trans = W[:, place].T, 0 if transposed else 1
                result[:, place] = self._solve(1, L, own, lower=1, trans_a=trans).T
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

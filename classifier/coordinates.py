"""How the objective curves along the leading directions of the features, class by class.

In the weights of class c the Hessian of the softmax loss is X^T diag(p_c (1 - p_c)) X / N, apart
from what couples the classes. With Q the leading eigenvectors of X^T X, z = Q^T x of the centred
features, p at the present weights, and a_c = mean_i p_ic (1 - p_ic), the curvature of the objective
in class c along direction j is taken to be

    a_c^0.85 v_jc^0.95 + 2 reg,  v_jc = mean_i p_ic (1 - p_ic) z_ij^2 / a_c + (D / N) mean x^2

The bias is one more feature, whose value is one and which has no penalty. All that is orthogonal to
Q shares one value a class. The last term stands for what few examples for each feature do not show;
the powers, which measurements chose, keep flat directions, which the classes share, from steps that
are too long.

A sample of the examples stands for all. The eigenvectors are those of Nystrom's approximation from
random directions (N. Halko, P. Martinsson and J. Tropp, Finding Structure with Randomness, 2011,
section 5.5), so that no matrix of D x D is made, and only gradients are turned.

Of sparse examples with many features the features themselves are the directions: `Diagonal`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from data.dataset import SparseRows, Split, row_size
from data.errors import InputError
from data.machine import Team, row_parts

SAMPLE = 2**12  # examples in which the directions are found, at most
SCORED = 2**10  # of these whose scores say how the loss curves, at least; or an eighth of all
VALUES = 2**24  # of features in the sample, at most
LEADING = 2**8  # directions that have a curvature of their own
SPARE = 2**4  # random directions more than those, in which they are found
LARGEST = 2**13  # features of sparse examples up to which directions are found
OF_FEATURE, FAINT = 0.7, 1e-20  # power of the curvature along a feature; what that is at least
OF_CLASS, OF_DIRECTION = 0.85, 0.95  # powers of a_c and of v_jc
FEW = 0.25  # features for each example, at most, in D / N
LEAST = 1e-7  # that a_c is taken to be
BLOCK = 2**9  # examples of the sample that a thread has at a time, where there is much to do
MUCH = 2**24  # multiplications
LONG = 2**18  # numbers that a thread turns at a time


class Coordinates:
    """The directions, and a sample of the examples that says how the loss curves along them.

    Weights and gradients (C, G, D + 1) are those of centred features, f = (x - mean) W + b', so
    that no direction of W moves the bias along; theta is (W, b) of the features as they are.

    Parameters
    ----------
    examples : design matrix (N, D + 1), in memory or in a file; its last column is that of the
        bias. Where that is zero there is no bias, and the features are not centred.
    rng : chooses the sample.
    team : threads that share what is long.

    Attributes
    ----------
    team : as given; of another training run it is another one.
    n_columns, n_scales : D + 1; K + 2, of the directions, the bias and all the rest.
    memory : pairs that L-BFGS keeps.
    """

    memory = 10

    def __init__(self, examples: Split, rng: np.random.Generator, team: Team) -> None:
        self.team, self.n_columns = team, examples.X.shape[1]
        n_features = self.n_columns - 1
        rows, shares, n_counted = _sample(examples, rng, SAMPLE, n_features)
        X, n = np.array(rows), len(rows)
        self._mean = np.asarray((shares * X[:, -1]).astype(X.dtype) @ X, np.float64)
        self._mean[-1] = 0  # that of the bias stays
        X -= self._mean.astype(X.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            norms = np.einsum("nd,nd->n", X[:, :-1], X[:, :-1])
            squares = np.array([shares @ norms, self._mean @ self._mean]) / max(1, n_features)
        _check_squares(squares[0], X.dtype)
        rounding = float(np.finfo(X.dtype).eps * squares.sum())
        unseen = max(min(n_features / n_counted, FEW) * squares[0], rounding, 1e-30)
        self._directions = self._find(X, shares, rng)
        scored = slice(None, None, -(-n // max(SCORED, min(len(examples) // 8, n))))
        self._X, shares = X[scored].copy(), shares[scored] / shares[scored].sum()
        z = self._X @ self._directions
        n_others = n_features + 1 - z.shape[1]
        rest = (norms[scored] - np.einsum("nk,nk->n", z[:, :-1], z[:, :-1])) / max(1, n_others)
        self._squares = np.column_stack([z**2, np.maximum(rest, 0)])
        self._squares[:, -2] = 1  # of the bias, whose moment is a_c
        self._squares *= shares[:, None].astype(X.dtype)
        self._has_rest, self.n_scales = n_others > 0, self._squares.shape[1]
        self._has_penalty = (np.arange(self.n_scales) != self.n_scales - 2).astype(X.dtype)
        self._unseen = X.dtype.type(unseen) * self._has_penalty

    def _find(self, X: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the leading eigenvectors of X^T X, the bias as the last, (D + 1, K + 1)."""
        X, n_features, w = X[:, :-1], X.shape[1] - 1, shares[:, None].astype(X.dtype)
        n = LEADING + SPARE
        if n_features <= n:
            moments = self._sum(lambda rows: X[rows].T @ (w[rows] * X[rows]), len(X), n_features**2)
            _, vectors = np.linalg.eigh(moments)
        elif len(X) <= n:
            root = (np.sqrt(w) * X).T
            vectors = _leading(root, root.T @ root, X.dtype)
        else:
            random = rng.standard_normal((n_features, n), np.float32).astype(X.dtype, copy=False)
            cost = n_features * n
            Y = self._sum(lambda rows: X[rows].T @ (w[rows] * (X[rows] @ random)), len(X), cost)
            # With Y = X^T X O of random O the approximation is Y (O^T Y)^-1 Y^T.
            Y = Y.astype(np.float64)
            core = random.T @ Y
            root = _leading(Y, core + core.T, X.dtype)
            vectors = _leading(root, root.T @ root, X.dtype)[:, -LEADING:]
        directions = np.zeros((n_features + 1, vectors.shape[1] + 1), dtype=X.dtype)
        directions[:-1, :-1], directions[-1, -1] = vectors, 1
        return directions

    def _sum(self, do: Callable[[slice], np.ndarray], n: int, cost: int) -> np.ndarray:
        """Return the sum of what is done for n rows, by blocks where these are worth it."""
        if n * cost < MUCH:
            return do(slice(n))
        return np.asarray(sum(self.team.map(do, row_parts(n, BLOCK))))

    def scales(self, theta: np.ndarray, reg: np.ndarray) -> np.ndarray:
        """Return one over the curvature along each direction, the bias and the rest.

        Parameters
        ----------
        theta : (C, G, D + 1) weights and bias of G models.
        reg : (G,) their penalties.

        Returns
        -------
        (C, G, K + 2), of the type of theta.
        """
        weights = theta.reshape(-1, theta.shape[2]).copy()
        weights[:, -1] += weights @ self._mean

        def moments(rows: slice) -> np.ndarray:
            p = _spreads(weights @ self._X[rows].T, len(theta))
            return np.asarray(p @ self._squares[rows])

        curvature = self._sum(moments, len(self._X), weights.size).reshape(*theta.shape[:2], -1)
        a = np.maximum(curvature[..., -2:-1], LEAST)  # the moment of the bias
        curvature /= a
        curvature[..., -2] = 1
        curvature += self._unseen
        curvature **= OF_DIRECTION
        curvature *= a**OF_CLASS
        curvature += 2 * reg[:, None].astype(theta.dtype) * self._has_penalty
        scales: np.ndarray = 1 / curvature
        if not self._has_rest:
            scales[..., -1] = 0
        return scales

    def apply(self, scales: np.ndarray, gradients: np.ndarray) -> np.ndarray:
        """Return gradients (..., G, C, D + 1) times the scales (G, C, K + 2) of each direction."""
        along, rest, Q = scales[..., :-1], scales[..., -1:], self._directions

        def scaled(classes: slice) -> np.ndarray:
            part = gradients[..., classes, :]
            result: np.ndarray = (part @ Q * (along - rest)[..., classes, :]) @ Q.T
            if self._has_rest:
                result += rest[..., classes, :] * part
            return result

        n_classes = gradients.shape[-2]
        parts = row_parts(n_classes, max(1, LONG * n_classes // max(1, gradients.size)))
        return np.concatenate([*self.team.map(scaled, parts)], axis=-2)

    def centred(self, gradient: np.ndarray) -> np.ndarray:
        """Return the gradient by the weights of the centred features, from that by theta."""
        centred: np.ndarray = gradient[..., -1:] * -self._mean
        centred += gradient
        return centred

    def uncentred(self, direction: np.ndarray) -> np.ndarray:
        """Return how theta moves along a direction (G, C, D + 1).

        What all classes have in common is taken off: the loss does not depend on it.
        """
        common = np.add.reduce(direction, axis=1, keepdims=True) / direction.shape[1]
        moved: np.ndarray = direction - common
        moved[..., -1] -= moved @ self._mean
        return moved


class Diagonal(Coordinates):
    """The features themselves as directions, for sparse examples with many of them.

    The curvature in class c along feature j is taken to be

        (v_jc + 2 reg)^0.7,  v_jc = (mean_i p_ic (1 - p_ic) x_ij^2 + a_c mean_i x_ij^2) / 2

    The first mean is that of a sample, which shows rare features too seldom, and the second that of
    all. To centre the features would fill their zeros; it is weights and gradients that are
    centred. The power, which measurements chose, is that of the bias too: W and bias would not suit
    each other otherwise. With this a memory of five pairs is as good as one of ten, and each of
    them is long.
    """

    memory = 5

    def __init__(self, examples: Split, rng: np.random.Generator, team: Team) -> None:
        self.team, self.n_columns = team, examples.X.shape[1]
        self.n_scales, rows = self.n_columns, examples.X
        assert isinstance(rows, SparseRows)
        weights = np.ones(len(rows)) if examples.weights is None else examples.weights
        each = (weights / weights.sum()).astype(rows.dtype)
        self._mean = np.asarray(each @ rows.matrix, np.float64)
        self._mean *= self._mean[-1]  # without a bias nothing is centred
        self._mean[-1] = 0
        with np.errstate(over="ignore", invalid="ignore"):
            self._moments = each @ rows.squared().matrix
        _check_squares(self._moments.sum(), rows.dtype)
        sample, shares, _ = _sample(examples, rng, SCORED, row_size(rows))
        self._X, self._squares = sample.matrix, sample.squared().matrix
        self._shares = shares.astype(rows.dtype)

    def scales(self, theta: np.ndarray, reg: np.ndarray) -> np.ndarray:
        """Return one over the curvature along each feature and the bias, (C, G, D + 1)."""
        weights = theta.reshape(-1, theta.shape[2])
        p = _spreads(weights @ self._X.T, len(theta)) * self._shares
        a = np.maximum(p.sum(axis=1, keepdims=True), LEAST)
        curvature = np.ascontiguousarray(p @ self._squares)
        curvature += a * self._moments
        curvature /= 2
        curvature = curvature.reshape(theta.shape)
        curvature[..., :-1] += 2 * reg[:, None].astype(theta.dtype)
        np.maximum(curvature, FAINT, out=curvature)
        return np.asarray(curvature**-OF_FEATURE, theta.dtype)

    def apply(self, scales: np.ndarray, gradients: np.ndarray) -> np.ndarray:
        """Return gradients (..., G, C, D + 1) times the scales (G, C, D + 1)."""
        return np.asarray(gradients * scales)


def find_coordinates(examples: Split, rng: np.random.Generator, team: Team) -> Coordinates:
    """Return the coordinates that suit a design matrix; parameters are those of `Coordinates`."""
    is_wide = isinstance(examples.X, SparseRows) and examples.X.shape[1] - 1 > LARGEST
    return (Diagonal if is_wide else Coordinates)(examples, rng, team)


def _sample(
    examples: Split, rng: np.random.Generator, most: int, n_values: int
) -> tuple[Any, np.ndarray, int]:
    """Return some examples that count, the shares of their weights, and how many count at all.

    They are `most` at most, and as many as hold VALUES where each of them holds n_values.
    """
    weights = np.ones(len(examples)) if examples.weights is None else examples.weights
    counted = np.flatnonzero(weights)
    n = min(len(counted), most, max(1, VALUES // max(1, n_values)))
    rows = np.sort(rng.choice(counted, n, replace=False))
    return examples.X[rows], weights[rows] / weights[rows].sum(), len(counted)


def _check_squares(squares: float, dtype: np.dtype) -> None:
    if not np.isfinite(squares):
        raise InputError(
            f"the prepared features are too large: {dtype} cannot hold their squares; "
            "standardize them, or give them in other units"
        )


def _spreads(scores: np.ndarray, n_classes: int) -> np.ndarray:
    """Return p (1 - p) of scores (C * G, N), which are overwritten, in the same shape."""
    p = scores.reshape(n_classes, -1)
    p -= p.max(axis=0)
    np.exp(p, out=p)
    p /= p.sum(axis=0)
    p -= p * p
    return p.reshape(scores.shape)


def _leading(A: np.ndarray, products: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return A V values^(-1/2), for the eigenvectors V of products that are not rounding."""
    values, vectors = np.linalg.eigh(products)
    kept = values > values.max(initial=0) * np.finfo(dtype).eps
    return np.asarray(A @ (vectors[:, kept] / np.sqrt(values[kept])))

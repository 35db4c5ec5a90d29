"""How large the prepared data are, as a step sees it: what lr=auto and the stable step rest on.

The Hessian of the softmax loss is at most 1/2 in every direction of the logits (D. Bohning,
Multinomial logistic regression algorithm, 1992), so with the bias column in X the objective's
gradient is Lipschitz with

    L = lambda_max(X^T X) / (2 N)  +  2 reg

and a full gradient step is stable up to 2 / L (Y. Nesterov, Introductory Lectures on Convex
Optimization, 2004, section 1.2.3). L is estimated on a sample of the examples.
"""

import dataclasses
from typing import Any

import numpy as np

from classifier import blas
from data.dataset import Examples, SparseRows

SAMPLE = 2048  # rows that the figures are estimated from
ITERATIONS = 50
TOLERANCE = 1e-3  # relative; the step does not need more


@dataclasses.dataclass(frozen=True)
class Scale:
    """The size of a design matrix.

    Attributes
    ----------
    eigenvalue : lambda_max(X^T X) / N; with weights w, lambda_max(X^T diag(w) X) / sum(w).
    l1_norm : the mean over examples of sum_j |x_ij|.
    square_norm : the mean over examples of |x_i|^2, weighted as the eigenvalue.
    n : N.
    """

    eigenvalue: float
    l1_norm: float
    square_norm: float
    n: int

    def smoothness(self, reg: float) -> float:
        """Return L, the Lipschitz constant of the objective's gradient."""
        return self.eigenvalue / 2 + 2 * reg

    def minibatch_noise(self, batch_size: int) -> float:
        """Return by how much a random minibatch's L is above that of all, as far as steps suffer.

        On a quadratic, steps on random minibatches of B examples stay bounded in mean square below
        2 / (L + mean |x|^2 / (2 B)), less where the minibatch is a good part of all.

        Source: S. Ma, R. Bassily and M. Belkin, The Power of Interpolation, ICML 2018.
        """
        B = min(batch_size, self.n)
        return self.square_norm / 2 * (self.n - B) / (B * max(self.n - 1, 1))


def measure_scale(
    design: Examples, rng: np.random.Generator, weights: np.ndarray | None = None
) -> Scale:
    """Measure a design matrix on a sample of its rows.

    Products are made in the type of the design matrix, which is right to far less than what a
    sample tells, of values that are scaled so that no square is too large for it.

    Parameters
    ----------
    design : (N, D + 1) prepared features and the column of ones.
    rng : chooses the sample, and the start of the power iteration.
    weights : (N,), what each example counts, or None.
    """
    n = len(design)
    rows = slice(None) if n <= SAMPLE else np.sort(rng.choice(n, SAMPLE, replace=False))
    X = design[rows]
    is_sparse = isinstance(X, SparseRows)
    X = X.matrix if is_sparse else X
    unit = float(max(X.max(), -X.min()))
    X = X / X.dtype.type(unit)
    counts = None if weights is None else weights[rows]
    l1_norms = abs(X).sum(axis=1, dtype=np.float64)
    l1_norm = unit * float(np.average(l1_norms, weights=counts))
    if counts is not None:
        roots = np.sqrt(counts / counts.mean())[:, None].astype(X.dtype)
        X = X.multiply(roots).tocsr() if is_sparse else X * roots
    squares = X.power(2).sum(axis=1) if is_sparse else np.einsum("nd,nd->n", X, X)
    square_norm = float(squares.mean(dtype=np.float64))
    with blas.one_thread():  # short products
        eigenvalue = _largest_eigenvalue(X, rng)
    return Scale(unit * unit * eigenvalue, l1_norm, unit * unit * square_norm, n)


def _largest_eigenvalue(X: Any, rng: np.random.Generator) -> float:
    """Return lambda_max(X^T X) / N by power iteration; X (N, D) may be sparse."""
    vector: np.ndarray = rng.standard_normal((X.shape[1],)).astype(X.dtype)
    estimate = 0.0
    for _ in range(ITERATIONS):
        vector /= float(np.linalg.norm(vector))
        vector = X.T @ (X @ vector) / X.shape[0]
        previous = estimate
        estimate = float(np.linalg.norm(vector))
        if abs(estimate - previous) <= TOLERANCE * estimate:
            break
    return estimate

"""The kernel: scores, losses and gradient of a stack of models on some rows.

Training, validation, certificate, evaluation and prediction all go through it. G models share the
rows. Their weights and biases are one array theta (C, G, D + 1), class-major, whose last feature is
the bias; the design matrix X (B, D + 1) ends in a column of ones. Then all scores are one matrix
product, (C * G, D + 1) @ (D + 1, B), and so is the gradient. With the classes first the softmax
runs over the leading axis, where numpy stays vectorised.

The mathematics is that of `classifier.loss`, with a bias that is never penalised and optional
weights w_i of the rows:

    J_g  = sum_i w_i (logsumexp(f_gi) - f_gi[y_i]) / sum_i w_i  +  reg_g * sum(W_g ** 2)

Label smoothing puts (1 - smoothing) Y + smoothing / C in the place of the one-hot labels Y (C.
Szegedy et al., Rethinking the Inception Architecture, 2016). That adds a term linear in the scores:

    smoothing_g sum_i w_i (f_gi[y_i] - mean_c f_gi[c]) / sum_i w_i
"""

import functools
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from data.dataset import SparseRows
from data.machine import blas, row_parts

SMALL = 10**6  # multiplications up to which OpenBLAS does not pack a product's factors
FEW = 1200  # scores up to which it does not, where they are products of rows with rows
WIDE = 128  # rows of theta from which BLAS is fast without any of this
CUT = 32  # rows or columns of X that such a product must have to be worth it
TURNED = 2**10  # features of a sparse product that are turned at a time: the cache holds them
LONG = 512  # features from which a packed product of few rows of theta is faster turned round
CUT_HELPS = "SkylakeX"  # kernels of OpenBLAS that cut products were measured to be faster with
PAIRED = 32  # classes up to which the curvature in each pair of biases is summed: NOTES.md


class Rows(NamedTuple):
    """Some rows of a design matrix, in memory.

    X is (B, D + 1), dense or sparse, y (B,) class indices; weights is what each row counts, (B,) or
    for each model (G, B), or None where all count one.
    """

    X: np.ndarray | SparseRows
    y: np.ndarray
    weights: np.ndarray | None = None


class Sums(NamedTuple):
    """Sums over rows, each times its weight, in float64.

    Attributes
    ----------
    figures : (4, G) of one (the weights), loss, whether the class is right, and squared loss.
    gradient : (C, G, D + 1) of the gradient of the loss, without the penalty; or empty.
    spread : what the loss curves by in the biases: of few classes (C, G, C) of p_c p_k, of many,
        where that takes its time, (C, G, 1) of p_c (1 - p_c); or empty.
    """

    figures: np.ndarray
    gradient: np.ndarray
    spread: np.ndarray

    @classmethod
    def zeros(cls, shape: tuple[int, ...], *, with_gradient: bool) -> "Sums":
        """Return those of no rows, for weights of this shape (C, G, D + 1)."""
        shapes = (shape, spread_shape(shape)) if with_gradient else (0, 0)
        return cls(np.zeros((4, shape[1])), *map(np.zeros, shapes))

    def merge(self, other: "Sums") -> "Sums":
        """Add those of other rows to these, and return them."""
        for total, more in zip(self, other, strict=True):
            np.add(total, more, out=total)
        return self


def spread_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the shape of `Sums.spread`, for weights of this shape (C, G, D + 1)."""
    n_classes, n_models, _ = shape
    return n_classes, n_models, n_classes if n_classes <= PAIRED else 1


class Kernel:
    """Scores, losses and gradient of G models; the large buffers are allocated once.

    Parameters
    ----------
    shape : (C, G, D + 1) of theta.
    size : the most rows that come at a time.
    dtype : of theta, of the design matrix and of every buffer.
    label_smoothing : (G,), of each model, or None; of the gradient, losses are without it.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        size: int,
        dtype: type[np.floating] = np.float32,
        label_smoothing: np.ndarray | None = None,
    ) -> None:
        self.shape, self.size = shape, size
        self._smoothing: np.ndarray | None = None
        if label_smoothing is not None and label_smoothing.any():
            self._smoothing = label_smoothing[:, None].astype(dtype)
        n_scores, n_columns = max(1, shape[0] * shape[1]), shape[2]
        self._buffer = np.empty(n_scores * size, dtype=dtype)
        # Packing copies both factors, which costs a narrow product as much as the product itself,
        # so those of a few models are cut into small ones: by rows, and by columns, of X. Without
        # it a step of one model on 3,072 features takes 1.6 to 1.9 times as long. Kernels of
        # OpenBLAS that pack small products too gain where a long one is turned round.
        self._rows, self._columns = size, n_columns
        if cut_helps():
            small = min(SMALL // (n_scores * n_columns), FEW // n_scores)
            self._rows = size if n_scores >= WIDE else small
            self._columns = SMALL // (n_scores * max(size, 1))
        elif n_scores < WIDE and n_columns >= LONG:
            self._rows = 0

    def scores(self, theta: np.ndarray, X: np.ndarray | SparseRows) -> np.ndarray:
        """Return f (C, G, B) = theta X^T, in a buffer that the next call overwrites."""
        n_classes, n_models, n_columns = self.shape
        theta = theta.reshape(-1, n_columns)
        scores = self._buffer[: len(theta) * len(X)].reshape(-1, len(X))
        if isinstance(X, SparseRows):
            scores[...] = (X.matrix @ np.ascontiguousarray(theta.T)).T
        elif self._rows < min(CUT, len(X)):  # the other way round BLAS takes up to twice as long
            scores[...] = (X @ theta.T).T
        else:
            _multiply(theta, X.T, scores, self._rows)
        return scores.reshape(n_classes, n_models, len(X))

    def forward(
        self, theta: np.ndarray, X: np.ndarray | SparseRows, y: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the losses of the rows, and whether the class is right, both (G, B).

        A class is right whose score is the highest, and the first of those that are equal to it
        where the scores of all classes are.

        Parameters
        ----------
        theta : (C, G, D + 1) weights and bias.
        X : (B, D + 1) design matrix.
        y : (B,) class indices.
        """
        self._S = S = self.scores(theta, X)
        n_classes, n_models, n_rows = S.shape
        S -= np.maximum.reduce(S, axis=0)
        of_class_0 = np.arange(n_models * n_rows).reshape(n_models, n_rows)  # in the flat scores
        self._places = of_class_0 + y * (n_models * n_rows)
        correct = S.reshape(-1)[self._places]
        np.exp(S, out=S)
        self._exp_sum = np.add.reduce(S, axis=0)
        # The largest score is now 0. A sum of C means that all are.
        right = (correct == 0) & ((self._exp_sum < n_classes) | (y == 0))
        return np.log(self._exp_sum) - correct, right

    def backward(
        self,
        X: np.ndarray | SparseRows,
        weights: np.ndarray | None,
        total: float | np.ndarray,
        out: np.ndarray,
        spread: np.ndarray | None = None,
    ) -> None:
        """Put X^T diag(w) (S - Y) / total into `out`, after `forward` of the same rows.

        Parameters
        ----------
        X : (B, D + 1) as given to `forward`.
        weights : as of `Rows`.
        total : what the sum is divided by; with weights it may be (G, 1), a number a model.
        out : (C, G, D + 1), C-contiguous.
        spread : as of `Sums`, or None: for these sums, divided by total.
        """
        S = self._S
        share: float | np.ndarray = 1.0 / total
        if weights is not None:
            share = (weights / total).astype(S.dtype, copy=False)
        S *= share / self._exp_sum
        if spread is not None:
            self._measure_spread(share, spread)
        if self._smoothing is None:
            S.reshape(-1)[self._places] -= share
        else:
            S -= share * self._smoothing / len(S)
            S.reshape(-1)[self._places] -= share * (1 - self._smoothing)
        n_columns = self.shape[2]
        if isinstance(X, SparseRows):
            sums = X.matrix.T @ np.ascontiguousarray(S.reshape(-1, len(X)).T)
            # Numbers that stand side by side in one stand far apart in the other.
            for part in row_parts(n_columns, TURNED):
                out.reshape(-1, n_columns)[:, part] = sums[part].T
            return
        size = self._columns if self._columns >= CUT else n_columns
        _multiply(S.reshape(-1, len(X)), X, out.reshape(-1, n_columns), size)

    def _measure_spread(self, share: float | np.ndarray, spread: np.ndarray) -> None:
        """Put the sums over the rows into `spread`, where S (C, G, B) is share * p."""
        S = self._S
        P = S / np.maximum(share, np.finfo(S.dtype).tiny)
        if spread.shape[2] == 1:
            np.subtract(S.sum(axis=2), np.einsum("cgb,cgb->cg", S, P), out=spread[..., 0])
            return
        spread[...] = 0
        for part in row_parts(S.shape[2], SMALL // len(S) ** 2):
            products = np.matmul(S[..., part].transpose(1, 0, 2), P[..., part].transpose(1, 2, 0))
            spread += products.transpose(1, 0, 2)

    def sums(self, theta: np.ndarray, blocks: Iterable[Rows], *, with_gradient: bool) -> Sums:
        """Return the sums over blocks of rows: products in theta's type, their sums in float64."""
        shapes = (self.shape, spread_shape(self.shape)) if with_gradient else (0, 0)
        gradient, spread = (np.empty(shape, theta.dtype) for shape in shapes)
        total = Sums.zeros(self.shape, with_gradient=with_gradient)
        for X, y, weights in blocks:
            losses, right = self.forward(theta, X, y)
            figures = np.array([np.ones_like(losses), losses, right, losses], np.float64)
            figures[3] *= figures[1]
            if weights is not None:
                figures *= weights
            if with_gradient:
                self.backward(X, weights, len(y), gradient, spread)
            # The gradient is a mean, in theta's type, whose digits a sum of many rows would use up.
            gradient *= len(y)
            total.merge(Sums(figures.sum(axis=2), gradient, spread * np.float64(len(y))))
        return total


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
    penalties: np.ndarray = reg * np.einsum("cgd,cgd->g", W, W, dtype=np.float64)
    return penalties


def with_penalty_gradient(
    gradient: np.ndarray, theta: np.ndarray, twice_reg: np.ndarray
) -> np.ndarray:
    """Return a gradient with 2 reg W added to it, and nothing for the bias.

    Parameters
    ----------
    gradient, theta : (..., D + 1).
    twice_reg : 2 reg, broadcast against theta.
    """
    total: np.ndarray = theta * twice_reg
    total[..., -1] = 0
    total += gradient
    return total


@functools.cache
def cut_helps() -> bool:
    """Return whether narrow products are faster when they are cut into small ones.

    OpenBLAS copies the factors of a large product into a layout of its own first, and its kernels
    for AVX-512 have a way without that for small ones. What other libraries do is unknown.
    """
    dependencies = np.show_config(mode="dicts").get("Build Dependencies", {})
    built = str(dependencies.get("blas", {}).get("name"))
    libraries = [lib for lib in blas().lib_controllers if lib.internal_api == "openblas"]
    # Another package may bring an OpenBLAS of its own.
    of_numpy = [lib for lib in libraries if "numpy" in lib.filepath] or libraries
    return "openblas" in built and {lib.architecture for lib in of_numpy} == {CUT_HELPS}

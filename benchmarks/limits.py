"""What the machine can do at most: the floor under every epoch."""

from collections.abc import Callable

import numpy as np

from benchmarks.problems import Problem

LARGE = 4096  # rows and columns of the large product
READ = "limit: a read of X"
PRODUCTS = "limit: the two products, X W and X^T S"
TURNED = "limit: the same products, W^T X^T and S^T X"


def prepare_read(problem: Problem) -> Callable[[], None]:
    """Multiply X by one vector: as fast as memory gives it."""
    vector = np.ones(problem.X.shape[1], dtype=np.float32)
    out = np.empty(len(problem.X), dtype=np.float32)

    def run() -> None:
        np.matmul(problem.X, vector, out=out)

    return run


def prepare_products(
    problem: Problem, batch_size: int, epochs: int, *, turned: bool = False
) -> Callable[[], None]:
    """Multiply contiguous minibatches by weights and by scores: no shuffle, softmax or update.

    Which way round BLAS is faster depends on the sizes, so both are measured.
    """
    X, n_classes = problem.X, problem.n_classes
    W = np.full((X.shape[1], n_classes), 1e-3, dtype=np.float32)
    S = np.empty((batch_size, n_classes), dtype=np.float32)
    if turned:
        W, S = np.ascontiguousarray(W.T), np.ascontiguousarray(S.T)
    dW = np.empty_like(W)

    def run() -> None:
        for _ in range(epochs):
            for start in range(0, len(X), batch_size):
                rows = X[start : start + batch_size]
                if turned:
                    np.matmul(W, rows.T, out=S[:, : len(rows)])
                    np.matmul(S[:, : len(rows)], rows, out=dW)
                else:
                    np.matmul(rows, W, out=S[: len(rows)])
                    np.matmul(rows.T, S[: len(rows)], out=dW)

    return run


def prepare_sgemm(size: int = LARGE) -> Callable[[], None]:
    """One product of two square float32 matrices, which BLAS is best at."""
    A = np.full((size, size), 1e-3, dtype=np.float32)
    out = np.empty_like(A)

    def run() -> None:
        np.matmul(A, A, out=out)

    return run


def sgemm_flops(size: int = LARGE) -> float:
    """Return the floating point operations of `prepare_sgemm`."""
    return 2.0 * size**3

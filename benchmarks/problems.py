"""Made data with the traits that make real images and embeddings hard for an optimizer.

Neighbouring pixels of photographs are alike, so a few directions hold most of the variance and the
rest decays as a power of its rank. The examples here are

    x = (z * k ** -decay) Q + noise,    z = apart * k ** -0.5 * prototype[y] + normal

with an orthogonal random Q, latent directions k = 1 ... RANK, and white noise in every feature;
then every feature is brought to mean 0 and variance 1, the program's default. The classes
overlap: no model can tell them all apart, so the optimum of the objective is a place inside, found
only by going there.
"""

import dataclasses

import numpy as np
from scipy.special import logsumexp

from data.preprocessing import Preprocessing, measure

RANK = 256
NOISE = 0.3  # standard deviation a feature, beside latent ones that begin with 1


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """Training data, as every contender gets them.

    design (N, D + 1) float32 ends in a column of ones, as this program takes it; X (N, D) float32
    is the same without, C-contiguous, for all others.
    """

    name: str
    X: np.ndarray
    design: np.ndarray
    y: np.ndarray
    n_classes: int

    @property
    def shape(self) -> str:
        """N x D and C, to be read."""
        return f"{len(self.X):,} x {self.X.shape[1]:,}, {self.n_classes:,} classes"


def make(
    name: str, n_examples: int, n_features: int, n_classes: int, *, decay: float, apart: float
) -> Problem:
    """Make a problem, the same for the same arguments.

    Parameters
    ----------
    decay : of the spectrum. Variances fall as k ** (-2 decay).
    apart : how far the classes are from each other, in standard deviations of z.
    """
    rng = np.random.default_rng([n_examples, n_features, n_classes])
    rank = min(RANK, n_features)
    directions, _ = np.linalg.qr(rng.standard_normal((n_features, rank)))
    loadings = directions.T * np.sqrt(n_features) * np.arange(1, rank + 1)[:, None] ** -decay
    prototypes = rng.standard_normal((n_classes, rank), dtype=np.float32)
    prototypes *= apart * np.arange(1, rank + 1, dtype=np.float32) ** -0.5
    y = rng.integers(n_classes, size=n_examples)
    X = np.empty((n_examples, n_features), dtype=np.float32)
    for start in range(0, n_examples, 8192):  # a few at a time: temporaries as large as X are not
        rows = slice(start, start + 8192)
        latent = prototypes[y[rows]]
        latent += rng.standard_normal(latent.shape, dtype=np.float32)
        np.matmul(latent, loadings.astype(np.float32), out=X[rows])
        X[rows] += NOISE * rng.standard_normal(X[rows].shape, dtype=np.float32)
    return _standardized(name, X, y, n_classes)


def mnist(*, quick: bool = False) -> Problem:
    """Make 28 x 28 features with the spectrum and about the accuracy of MNIST."""
    size = (1_000, 20, 10) if quick else (60_000, 784, 10)
    return make("MNIST-sized", *size, decay=0.4, apart=1.2)


def cifar(*, quick: bool = False) -> Problem:
    """Make 32 x 32 x 3 features with the spectrum and about the accuracy of CIFAR-10."""
    return make("CIFAR-sized", 500 if quick else 50_000, 3_072, 10, decay=0.75, apart=0.4)


def embeddings(*, quick: bool = False) -> Problem:
    """Make features as a deep network leaves them, with a flatter spectrum."""
    size = (1_000, 64, 50) if quick else (100_000, 1_024, 1_000)
    return make("embeddings", *size, decay=0.3, apart=2.0)


def probe(*, quick: bool = False) -> Problem:
    """Make embeddings of few examples, which ten classes nearly separate."""
    size = (300, 20, 10) if quick else (5_085, 1_280, 10)
    return make("embeddings", *size, decay=0.3, apart=2.0)


def digits() -> Problem:
    """Return the 1,437 training examples of four fifths of scikit-learn's digits."""
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    rows = np.random.default_rng(0).permutation(len(y))[:1437]
    return _standardized("digits", X[rows].astype(np.float32), y[rows], 10)


def _standardized(name: str, X: np.ndarray, y: np.ndarray, n_classes: int) -> Problem:
    design = np.asarray(Preprocessing(method="standardize").fit(measure(X)).design_matrix(X))
    return Problem(name, np.ascontiguousarray(design[:, :-1]), design, y, n_classes)


def objective(problem: Problem, weights: tuple[np.ndarray, np.ndarray], reg: float) -> float:
    """Return mean cross-entropy + reg * sum(W ** 2) over all training data, in float64.

    Parameters
    ----------
    weights : W (D, C) and b (C,).
    """
    W, b = (np.asarray(array, dtype=np.float64) for array in weights)
    total = 0.0
    for start in range(0, len(problem.X), 4096):
        logits, y = problem.X[start : start + 4096] @ W + b, problem.y[start : start + 4096]
        total += float(np.sum(logsumexp(logits, axis=1) - logits[np.arange(len(y)), y]))
    return total / len(problem.X) + reg * float(np.sum(W**2))

"""How far a model is from its optimum, at most, by the gradient where it stands.

L is 2 reg strongly convex in W. With the bias at its optimum, therefore,

    L - L* <= |dL/dW|^2 / (4 reg)

(Y. Nesterov, Introductory Lectures on Convex Optimization, 2004, theorem 2.1.10). What a bias is
short of its optimum is added to second order, class by class: (dL/db_c)^2 / (2 mean p_c (1 - p_c)).
Without a penalty there is no such bound.
"""

import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What a pass proves of one model.

    Attributes
    ----------
    objective : L, where the model stands.
    gradient_norm : |dL/d(W, b)|.
    excess : the most that L is above its lowest value; inf without a penalty.
    """

    objective: float
    gradient_norm: float
    excess: float

    @property
    def relative(self) -> float:
        """The same relative to the lowest value there can be; inf where that may be zero."""
        lowest = self.objective - self.excess
        return self.excess / lowest if lowest > 0 else math.inf


def certify(
    objective: np.ndarray, gradient: np.ndarray, spread: np.ndarray, reg: np.ndarray
) -> list[Certificate]:
    """Return the certificate of each of G models.

    Parameters
    ----------
    objective, gradient, spread : (G,), (C, G, D + 1) and (C, G), of a `classifier.full_loss.Pass`.
    reg : (G,).
    """
    W, b = gradient[..., :-1], gradient[..., -1]
    squares = np.einsum("cgd,cgd->g", W, W)
    tiny = np.finfo(np.float64).tiny
    of_bias = (b**2 / np.maximum(2 * spread, tiny)).sum(axis=0)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        excess = np.where(reg > 0, squares / (4 * reg) + of_bias, math.inf)
    norms = np.sqrt(squares + (b**2).sum(axis=0))
    rows = zip(objective, norms, excess, strict=True)
    return [Certificate(*map(float, row)) for row in rows]

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


@dataclasses.dataclass
class Pass:
    """What a pass over the examples says of G models.

    Attributes
    ----------
    objective : (G,) L, with label smoothing where a model has it.
    loss, accuracy : (G,) weighted means, without penalty and smoothing.
    gradient : (C, G, D + 1) of the objective, float64.
    spread : (C, G) weighted means of p (1 - p), the curvature of the loss in each bias alone.
    """

    objective: np.ndarray
    loss: np.ndarray
    accuracy: np.ndarray
    gradient: np.ndarray
    spread: np.ndarray


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What a pass proves of one model.

    Attributes
    ----------
    objective : L, where the model stands.
    gradient_norm : |dL/d(W, b)|.
    excess : the most that L is above its lowest value; inf without a penalty.
    loss, accuracy : of the training examples, by their weights, without penalty and smoothing.
    """

    objective: float
    gradient_norm: float
    excess: float
    loss: float
    accuracy: float

    @property
    def relative(self) -> float:
        """The same relative to the lowest value there can be; inf where that may be zero."""
        lowest = self.objective - self.excess
        return self.excess / lowest if lowest > 0 else math.inf


def certify(found: Pass, reg: np.ndarray) -> list[Certificate]:
    """Return the certificate of each of G models, with the penalties reg (G,), for a pass."""
    W, b = found.gradient[..., :-1], found.gradient[..., -1]
    squares = np.einsum("cgd,cgd->g", W, W)
    tiny = np.finfo(np.float64).tiny
    of_bias = (b**2 / np.maximum(2 * found.spread, tiny)).sum(axis=0)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        excess = np.where(reg > 0, squares / (4 * reg) + of_bias, math.inf)
    norms = np.sqrt(squares + (b**2).sum(axis=0))
    rows = zip(found.objective, norms, excess, found.loss, found.accuracy, strict=True)
    return [Certificate(*map(float, row)) for row in rows]

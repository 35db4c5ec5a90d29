"""What the scores of a stack of models say of examples: losses, and whether the class is right."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Outcome(NamedTuple):
    """What the scores f (C, G, B) of G models say of B examples; the figures are computed lazily.

    Attributes
    ----------
    correct : (G, B), f[y] - max f.
    exp_sum : (G, B), the sum of exp(f - max f) over the classes.
    y : (B,) class indices.
    weights : (B,) of the examples, or None.
    n_classes : C.
    """

    correct: np.ndarray
    exp_sum: np.ndarray
    y: np.ndarray
    weights: np.ndarray | None
    n_classes: int

    @property
    def loss(self) -> np.ndarray:
        """(G, B) cross-entropy, logsumexp(f) - f[y], without the penalty."""
        losses: np.ndarray = np.log(self.exp_sum) - self.correct
        return losses

    @property
    def right(self) -> np.ndarray:
        """(G, B), whether the class is right; equal scores of all decide for the first."""
        # The largest score is now 0. A sum of C means that all are, and argmax takes the first.
        rights: np.ndarray = (self.correct == 0) & ((self.exp_sum < self.n_classes) | (self.y == 0))
        return rights

    def figures(self) -> tuple[np.ndarray, np.ndarray]:
        """Return loss and rightness (G, B), each times the example's weight."""
        if self.weights is None:
            return self.loss, self.right
        return self.loss * self.weights, self.right * self.weights


def join(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the outcomes of several minibatches as one."""
    *arrays, _, n_classes = zip(*outcomes, strict=True)
    correct, exp_sum, y = (np.concatenate(parts, axis=-1) for parts in arrays)
    weights = [outcome.weights for outcome in outcomes if outcome.weights is not None]
    return Outcome(
        correct, exp_sum, y, np.concatenate(weights, axis=-1) if weights else None, n_classes[0]
    )

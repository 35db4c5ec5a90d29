"""Which penalty is best: a path of them, each judged on examples that it was not trained on.

A path runs from strong to weak in equal steps of the logarithm. While its best penalty stands at an
end, and the last decade before it brought more than the standard error of the best figure and than
0.001, the path is made a decade longer there.

Source: L. Breiman et al., Classification and Regression Trees, 1984, section 3.4.3, for the choice
of the strongest penalty within one standard error of the best.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from classifier.solver import Training

STRONGEST, WEAKEST = 1e-1, 1e-5  # of a path, for features with a mean square of one
NUMBER = 45  # penalties: eleven a decade
LONGEST = 12.0  # decades, however good the best penalty at an end is
LEAST = 1e-3  # nats, or share of the examples: the loss of separable classes falls for ever


@dataclasses.dataclass(frozen=True)
class Path:
    """What is known of R penalties.

    Attributes
    ----------
    regs : (R,) the penalties, from strong to weak.
    cost : (R,) what is to be lowest on held-out examples, nan where it is not known.
    error : (R,) its standard error, likewise.
    """

    regs: np.ndarray
    cost: np.ndarray
    error: np.ndarray

    @property
    def best(self) -> int:
        """The place of the lowest cost, of equal ones the strongest; the first if none is known."""
        return 0 if np.isnan(self.cost).all() else int(np.nanargmin(self.cost))

    @property
    def strongest(self) -> int:
        """The place of the strongest penalty within one standard error of the best."""
        return int(np.argmax(self.cost <= self.cost[self.best] + self.error[self.best]))

    def chosen(self, rule: str) -> int:
        """Return the place of the penalty that one of `RULES` chooses."""
        return self.best if rule == "best" else self.strongest

    def longer(self) -> np.ndarray:
        """Return the penalties of a path that is a decade longer, or none where this one will do.

        It is longer by a step at least. The cost falls towards the end where it is lowest. If it
        falls by more than its standard error, and by `LEAST`, over the last decade, it may fall on.
        """
        decades = math.log10(self.regs[0] / self.regs[-1])
        nothing, at_an_end = self.regs[:0], self.best in (0, len(self.regs) - 1)
        if not at_an_end or not 0 < decades <= LONGEST - 1 or np.isnan(self.cost[self.best]):
            return nothing
        n = max(1, round((len(self.regs) - 1) / decades))
        at_weak_end = self.best > 0
        last = self.cost[-n - 1 :] if at_weak_end else self.cost[: n + 1]
        if not np.nanmax(last) - self.cost[self.best] > max(LEAST, self.error[self.best]):
            return nothing
        beyond = 10.0 ** (np.arange(1, n + 1) * decades / (len(self.regs) - 1))
        if at_weak_end:
            return np.concatenate([self.regs, self.regs[-1] / beyond])
        return np.concatenate([self.regs[0] * beyond[::-1], self.regs])


def search(
    regs: np.ndarray,
    train: Callable[[np.ndarray, Training | None], tuple[Training, Path]],
    may_grow: Callable[[], bool],
) -> tuple[Training, Path]:
    """Train a path of penalties, and longer ones while these promise more.

    Parameters
    ----------
    regs : (R,) the penalties to begin with, from strong to weak.
    train : trains models with some penalties, and says what they cost; it is given the training of
        those that are trained already.
    may_grow : whether other penalties may be tried than these.
    """
    training, path = train(regs, None)
    while may_grow() and len(regs := path.longer()):
        training, path = train(regs, training)
    return training, path

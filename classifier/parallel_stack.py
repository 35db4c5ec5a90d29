"""A stack of models in parts, each of which a thread trains where the steps are long.

The threads of a single model share its steps.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from classifier import blas
from classifier.fit import Fit
from classifier.model_stack import ModelStack, PerModel
from classifier.optimizers import MinibatchOptimizer, State
from classifier.team import Team

BLOCK = 2**23  # scores, or features, in a block of validation at most
PARTED = 2**22  # multiplications from which a step is worth dividing among threads

EachPart = Callable[[Callable[[ModelStack], Any]], list[Any]]


@dataclasses.dataclass
class Members:
    """The models in a stack, and all that moves with them.

    Attributes
    ----------
    fits : what training has made of each so far.
    models : the numbers of each.
    theta : (C, G, D + 1) weights and bias.
    optimizer : the optimizer's state, arrays of theta's shape.
    sums : (2, G) loss and accuracy, summed over the examples of the epoch under way.
    """

    fits: list[Fit]
    models: PerModel
    theta: np.ndarray
    optimizer: State
    sums: np.ndarray

    def select(self, columns: Sequence[int] | np.ndarray) -> "Members":
        """Return some of the models."""
        kept = list(columns)
        return Members(
            [self.fits[g] for g in kept],
            self.models.select(kept),
            take_models(self.theta, kept),
            {name: take_models(array, kept) for name, array in self.optimizer.items()},
            take_models(self.sums, kept),
        )


class ParallelStack:
    """Trains some models; each thread has a part of them, where steps are long.

    Parameters
    ----------
    members : the models.
    optimizer : takes their steps.
    batch_size, n_val : rows that are trained on, and evaluated, at a time, at most.

    Attributes
    ----------
    to_fill : whether minibatches come to it with an X that it fills itself.
    """

    def __init__(
        self, members: Members, optimizer: MinibatchOptimizer, batch_size: int, n_val: int
    ) -> None:
        self.fits, self.models = members.fits, members.models
        n_classes, n_models, n_columns = members.theta.shape
        self.block = max(1, BLOCK // max(n_classes * n_models, n_columns))
        long = members.theta.size * batch_size >= PARTED
        n_threads = blas.n_threads() if long else 1
        n_parts = max(1, min(n_models, n_threads))
        self._team = Team(n_parts if n_models > 1 else n_threads)
        val_size = max(1, min(self.block, n_val))
        self.parts = []
        for columns in np.array_split(np.arange(n_models), n_parts):
            part = members.select(columns)
            own = part.models, part.theta, part.optimizer, part.sums
            team = self._team if n_parts == 1 else None
            self.parts.append(ModelStack(*own, optimizer, batch_size, val_size, team))
        # Whatever the number of threads, for the bits depend on it.
        self.to_fill = long and n_models == 1 and self.parts[0].wants_to_fill

    @property
    def members(self) -> Members:
        """All models as they are now."""
        states = [part.state for part in self.parts]
        return Members(
            self.fits,
            self.models,
            np.concatenate([part.theta for part in self.parts], axis=1),
            {name: np.concatenate([s[name] for s in states], axis=1) for name in states[0]},
            self.sums,
        )

    @property
    def sums(self) -> np.ndarray:
        """(2, G) loss and accuracy, summed over the examples of the epoch under way."""
        return np.concatenate([part.sums for part in self.parts], axis=1)

    def weights(self) -> list[np.ndarray]:
        """Return a view of each model's weights, (C, D + 1)."""
        return [part.theta[:, g] for part in self.parts for g in range(part.theta.shape[1])]

    @contextlib.contextmanager
    def threads(self) -> Iterator[EachPart]:
        """Yield what calls a function with every part of the stack, each part in a thread.

        BLAS is kept to one thread. For small products it gains little from a second, and waits for
        it where cores are busy; large ones are divided here, with all that is around them.
        """
        with blas.one_thread(), self._team:
            if len(self.parts) > 1:
                yield lambda do: self._team(lambda part: do(self.parts[part]))
            else:
                yield lambda do: [do(self.parts[0])]


def take_models(array: np.ndarray, columns: Sequence[int]) -> np.ndarray:
    """Return some models of an array that has models on its second axis."""
    return np.ascontiguousarray(array[:, list(columns)])

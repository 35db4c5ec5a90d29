"""What a model says of each example, as an evaluation needs it: in float32, tile by tile.

An evaluation must cost no more than an epoch of training, which is in float32, so the scores are
made as training makes them: classes first, of several models at once, in tiles that stay in the
cache and are passed over as few times as can be. The sum of exponentials is kept relative to the
largest score so far.

What float32 rounds away changes a mean loss by less than 1e-6, but it could change which of two
classes is predicted. A bound of the rounding says of which examples it cannot; the few others, and
those of scores so large that their probabilities suffer, are to be asked again in float64.

Source: M. Milakov, N. Gimelshein, Online normalizer calculation for softmax, 2018.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from classifier.model import LinearModel
from data.preprocessing import AffineMap, flatten

ROWS = 255  # of a tile, classes times models: classes are counted in bytes
SCORES = 2**18  # of a tile: a megabyte
FEATURES = 2**21  # of the examples that are asked about at a time
LARGE = 256.0  # scores from which float32 rounds probabilities too much
PICKED = 8  # examples of a tile are picked out where fewer than one in so many is looked at
NUMBERS = np.arange(ROWS, dtype=np.uint8)[:, None]  # of the classes of a tile
UNIT = float(np.finfo(np.float32).eps) / 2  # what float32 rounds, relatively


class Said(NamedTuple):
    """What a model says of B examples, each (B,); of a stack, (G, B).

    Attributes
    ----------
    predicted : the class with the highest score, the first of equal ones.
    in_top : whether the right class is among those with the highest scores.
    confidence : the probability of the predicted class.
    log_p : the log-probability of the right class.
    ahead : the score of the right class less the mean of all, where that matters.
    """

    predicted: np.ndarray
    in_top: np.ndarray
    confidence: np.ndarray
    log_p: np.ndarray
    ahead: np.ndarray


def exact(scores: np.ndarray, labels: np.ndarray, top_k: int) -> Said:
    """Return what scores (B, C) in float64, which are overwritten, say of examples of classes (B,).

    An example is in the top when less than `top_k` classes have a higher score than the right one.
    """
    each = np.arange(len(scores))
    own, predicted = scores[each, labels], scores.argmax(axis=1)
    best, mean = scores[each, predicted], scores.mean(axis=1)
    # Equal scores rank in class order, as argmax decides too.
    earlier = np.arange(scores.shape[1]) < labels[:, None]
    ranks = ((scores > own[:, None]) | ((scores == own[:, None]) & earlier)).sum(axis=1)
    scores -= best[:, None]
    log_sum = np.log(np.exp(scores, out=scores).sum(axis=1))
    log_p = own - best - log_sum
    return Said(predicted, ranks < top_k, np.exp(-log_sum), log_p, own - mean)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is asked at a time: models, of each the classes in a tile, and examples."""

    models: int
    classes: int
    block: int
    n_columns: int

    @classmethod
    def of(cls, model: LinearModel, n: int) -> "Sizes":
        """Return those for models like this one, of C classes and D features, and n examples."""
        n_classes, n_columns = len(model.b), len(model.W) + 1
        classes = min(n_classes, ROWS)
        models = ROWS // classes
        block = max(1, min(n, SCORES // (classes * models), FEATURES // n_columns))
        return cls(models, classes, block, n_columns)


class Workspace:
    """What a thread asks models of one shape and one preprocessing with, in float32.

    Parameters
    ----------
    features : the preprocessing.
    sizes : of what is asked at a time.

    Attributes
    ----------
    sizes : as given.
    """

    def __init__(self, features: AffineMap, sizes: Sizes) -> None:
        self.sizes = sizes
        self._features = features
        self._tile = np.empty(sizes.classes * sizes.models * sizes.block, dtype=np.float32)
        self._design = np.ones((sizes.block, sizes.n_columns), dtype=np.float32)

    def prepare(self, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the design matrix (B, D + 1) of raw examples, and the norms of its rows (B,)."""
        x = self._design[: len(raw)]
        self._features.fill(flatten(raw), x[:, :-1])
        with np.errstate(over="ignore", invalid="ignore"):
            return x, np.sqrt(np.einsum("bd,bd->b", x, x))

    def scores(self, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return the scores (c, G * B) of theta (c, G, D + 1), in the place of the last."""
        n_classes, n_models, n_columns = theta.shape
        tile = self._tile[: n_classes * n_models * len(x)].reshape(-1, len(x))
        np.dot(theta.reshape(-1, n_columns), x.T, out=tile)
        return tile.reshape(n_classes, -1)


class Rounded:
    """G models of one shape and one preprocessing, in float32.

    Parameters
    ----------
    models : as many as `Sizes` says, or fewer.
    top_k : (G,) as `exact` has it.
    smoothed : whether it matters how far the score of the right class is ahead.
    """

    def __init__(self, models: Sequence[LinearModel], top_k: np.ndarray, *, smoothed: bool) -> None:
        n_features, n_classes = models[0].W.shape
        self._top_k = top_k[:, None]
        with np.errstate(over="ignore", invalid="ignore"):
            self._theta = np.empty((n_classes, len(models), n_features + 1), dtype=np.float32)
            for theta, model in zip(self._theta.swapaxes(0, 1), models, strict=True):
                theta[:, :-1] = model.W.T / np.float32(model.temperature)
                theta[:, -1] = model.b / np.float32(model.temperature)
            self._mean = self._theta.mean(axis=0) if smoothed else None
            squares = np.einsum("cgd,cgd->cg", self._theta, self._theta, dtype=np.float64)
            self._reach = np.sqrt(squares.max(axis=0)).astype(np.float32)[:, None]

    def ask(
        self, workspace: Workspace, x: np.ndarray, norms: np.ndarray, labels: np.ndarray
    ) -> tuple[Said, np.ndarray]:
        """Return what the models say of examples, all (G, B), and of which they are sure.

        Parameters
        ----------
        workspace : of models like these; used by this thread alone.
        x, norms : the examples, as its `prepare` returned them.
        labels : (B,) class indices.
        """
        shape, size = (self._theta.shape[1], len(x)), workspace.sizes.classes
        # What float32 cannot hold makes the bound so: the example is asked again.
        with np.errstate(over="ignore", invalid="ignore"):
            # No score is larger than this, and none is rounded by more than a part of it.
            bound = self._reach * norms
            tile = workspace.scores(self._theta[:size], x)
            if size == len(self._theta):
                own = tile.reshape(size, *shape)[labels, :, np.arange(len(x))].T
            else:
                own = np.einsum("bd,bgd->gb", x, np.take(self._theta, labels, axis=0))
            error, top_k = UNIT * (x.shape[1] + 12) * bound, np.broadcast_to(self._top_k, shape)
            so_far = _SoFar(own.ravel(), error.ravel(), top_k.ravel())
            so_far.add(0, tile)
            for start in range(size, len(self._theta), size):
                so_far.add(start, workspace.scores(self._theta[start : start + size], x))
            log_sum = np.log(so_far.total).reshape(shape)
            predicted, best = so_far.predicted.reshape(shape), so_far.best.reshape(shape)
            # The score of a class that is predicted is the best one, and not only nearly so.
            behind = np.where(predicted == labels, 0.0, own - best)
            said = Said(
                predicted,
                (so_far.at_most <= so_far.top_k).reshape(shape),
                np.exp(-log_sum),
                behind - log_sum,
                own if self._mean is None else own - self._mean @ x.T,
            )
        return said, so_far.sure().reshape(shape) & (bound < LARGE)


class _SoFar:
    """What some of the classes say of B examples, each (B,).

    Parameters
    ----------
    own : scores of the right classes.
    error : by which a score may be rounded.
    top_k : as `exact` has it, of each.

    Attributes
    ----------
    best, predicted : the highest score, and the class that has it.
    total : the sum of exp(score - best).
    rivals : how many classes may truly have the highest score.
    at_least, at_most : how many scores are as high as the right one's, that one among the latter;
        not counted any further where `top_k` are higher.
    """

    def __init__(self, own: np.ndarray, error: np.ndarray, top_k: np.ndarray) -> None:
        self.top_k, self._error = top_k, 2 * error  # that of a difference
        self._low = own - self._error
        self._high = np.nextafter(own + self._error, np.float32(np.inf))
        self.best = np.full(len(own), -np.inf, dtype=np.float32)
        self.total = np.zeros(len(own))
        counts = np.zeros((4, len(own)), dtype=np.int64)
        self.predicted, self.rivals, self.at_least, self.at_most = counts

    def add(self, start: int, tile: np.ndarray) -> None:
        """Look at the scores (c, B) of the classes from `start` on, which are overwritten."""
        highest = np.maximum.reduce(tile, axis=0)
        best = np.maximum(self.best, highest)
        least = best - self._error
        some = _some((self.at_least < self.top_k) & (highest >= self._low))
        scores = tile[:, some]
        self.at_least[some] += _count(scores >= self._high[some])
        self.at_most[some] += _count(scores >= self._low[some])
        self.rivals[self.best < least] = 0
        some = _some(highest >= least)
        near = tile[:, some] >= least[some]
        self.rivals[some] += _count(near)
        # Numpy's argmax over the leading axis takes ten times as long. Where there are rivals, this
        # may be one of them: the example is asked again.
        places = np.maximum.reduce(near.view(np.uint8) * NUMBERS[: len(near)], axis=0)
        better = highest[some] > self.best[some]
        self.predicted[some] = np.where(better, start + places.astype(int), self.predicted[some])
        tile -= best
        self.total *= np.exp((self.best - best).astype(np.float64))
        self.total += np.add.reduce(np.exp(tile, out=tile), axis=0)
        self.best = best

    def sure(self) -> np.ndarray:
        """Return of which examples it is sure what is predicted, and what is in the top."""
        sures: np.ndarray = (self.rivals == 1) & (
            (self.at_least >= self.top_k) | (self.at_most <= self.top_k)
        )
        return sures


def _some(wanted: np.ndarray) -> np.ndarray | slice:
    """Return which examples (B,) are wanted; all where picking them out would cost more."""
    if np.count_nonzero(wanted) * PICKED > len(wanted):
        return slice(None)
    return np.flatnonzero(wanted)


def _count(mask: np.ndarray) -> np.ndarray:
    """Return how many classes (c, B) are true, of each example."""
    counts: np.ndarray = np.add.reduce(mask.view(np.uint8), axis=0, dtype=np.uint8)
    return counts

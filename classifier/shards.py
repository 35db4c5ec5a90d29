"""Sums over all examples, shard by shard: theta in, `Sums` out.

The rows are cut into shards, whose number depends on the sizes alone. Each gives its sums, and
these are added up in a fixed order; so no bit depends on how many threads there are. Whoever asks
cannot tell where a shard stands: in memory, or in a file, whose rows are read and prepared on the
way.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from classifier.fit import Certificate, PerModel
from classifier.kernel import Kernel, Rows, Sums, penalty, with_penalty_gradient
from data.dataset import Elsewhere, Examples, Sharded, SparseRows, Split, row_size
from data.errors import InputError
from data.machine import Team, blas_team, row_parts

BLOCK = 2**18  # scores of a block: what the processor's cache holds
ROWS = 2**10  # examples that a block has at least: with fewer, products are slower
LONG = 2**22  # multiplications from which work is cut into shards at all
SHARDS = 64  # at most
SPARSE = 2**24  # scores of a block of sparse examples, at most
MANY = 20  # times as many values as features in a shard of these
UNEVEN = 1e-6  # by which the mean of weights may differ from one
READ = 2**22  # bytes of prepared examples that are read of a file at a time
ESTIMATED = 0.03  # of an excess, from which on the estimate for the bias is not relied on
LEAST = 1e-14  # mean p_c p_k that any two classes are taken to have at least
TINY = np.finfo(np.float64).tiny


class HeldOut(NamedTuple):
    """Means over held-out examples, (G,) each: loss, accuracy, standard error of the loss."""

    loss: np.ndarray
    accuracy: np.ndarray
    error: np.ndarray


def of_mean_one(split: Split) -> Split:
    """Return a split whose weights, where it has any, have the mean one and the type of X.

    A split that has such weights is returned itself: to divide them again would round them again.
    """
    if split.weights is None or len(split) == 0:
        return split
    mean, dtype = split.weights.mean(), split.X.dtype
    if split.weights.dtype == dtype and abs(mean - 1) <= UNEVEN:
        return split
    return dataclasses.replace(split, weights=(split.weights / mean).astype(dtype))


def kept_share(examples: Split, fold: np.ndarray) -> np.ndarray:
    """Return what share of the weight of all examples is not in the fold of each model, (G,)."""
    if examples.folds is None:
        return np.ones(len(fold))
    of_folds = np.bincount(examples.folds, examples.weights)
    return 1 - np.where(fold < 0, 0, of_folds[fold] / of_folds.sum())


def row_weights(
    rows: Split, fold: np.ndarray | None, *, held_out: bool = False
) -> np.ndarray | None:
    """Return what each row counts: for each model (G, B) where models have folds, else as it is.

    Parameters
    ----------
    fold : (G,) that each model leaves out, or None.
    held_out : whether the rows of a model are those of its fold, and not all others.
    """
    if fold is None or rows.folds is None:
        return rows.weights
    kept: np.ndarray = ((fold[:, None] == rows.folds) == held_out).astype(rows.X.dtype)
    return kept if rows.weights is None else kept * rows.weights


def n_shards(n: int, work: int, fewest: int, most: int) -> int:
    """Return into how many shards n rows are cut, of `fewest` rows at least; 1 for little work."""
    shards = 1
    while work >= shards * LONG and shards < most and n >= 2 * shards * fewest:
        shards *= 2
    return shards


def on_device(examples: Split, device: str | None) -> Split:
    """Return examples with their rows on a device of PyTorch's, or as they are where it is None.

    Nothing is sent there before the first pass.

    Raises
    ------
    InputError
        When they are sparse, PyTorch is not installed, or there is no such device.
    """
    if device is None:
        return examples
    if isinstance(examples.X, SparseRows | Elsewhere):
        raise InputError(f"device={device}: takes dense rows of this machine alone; leave it out")
    try:
        from classifier.torch_kernel import DeviceRows
    except ModuleNotFoundError:
        raise InputError(f"device={device}: torch is not installed: pip install torch") from None
    return dataclasses.replace(examples, X=DeviceRows(examples.X, device))


def sum_up(
    examples: Split,
    theta: np.ndarray,
    models: PerModel | None = None,
    *,
    held_out: bool = False,
    with_gradient: bool = False,
    stop: Callable[[], str] = lambda: "",
    team: Team | None = None,
) -> Sums | None:
    """Return the sums over all examples, or None where there was a reason to stop.

    Parameters
    ----------
    examples : design matrix (N, D + 1), in memory or in a file; class indices, weights or None, and
        folds, where models have one.
    theta : (C, G, D + 1) weights and bias.
    models : label smoothing and fold of each; None: none has any.
    held_out : as of `row_weights`.
    with_gradient : whether the gradient and the spread are wanted too.
    stop : asked after each shard for a reason to stop.
    team : threads that share the shards; None: as many as the BLAS has now.
    """
    if isinstance(examples.X, Sharded):
        columns = examples.y, examples.weights, examples.folds
        how = {"models": models, "held_out": held_out, "with_gradient": with_gradient}
        sums: Sums | None = examples.X.total(_sum_shard, columns, theta, how, stop=stop)
        return sums
    smoothing = models.label_smoothing if models is not None and with_gradient else None
    fold = models.fold if models is not None and (models.fold >= 0).any() else None
    if isinstance(examples.X, Elsewhere):
        rows: Any = examples.X  # `DeviceRows`, without an import of PyTorch
        sums = rows.sum_up(examples, theta, smoothing, fold, held_out, with_gradient, stop)
        return sums
    n, n_scores = len(examples), max(1, theta[..., 0].size)
    size, fewest, longest = max(BLOCK // n_scores, ROWS), ROWS, n
    if isinstance(examples.X, SparseRows):
        # The gradient of a block is dense and takes its time: a shard is one block, and has several
        # times as many values as there are features.
        size = longest = max(SPARSE // n_scores, ROWS)
        fewest = max(ROWS, MANY * examples.X.shape[1] // row_size(examples.X))
    n_parts = n_shards(n, n * n_scores * row_size(examples.X), fewest, SHARDS)
    length = max(1, min(-(-n // n_parts), longest))
    size = min(size, length)

    def sum_shard(shard: slice) -> Sums:
        kernel = Kernel(theta.shape, size, theta.dtype.type, smoothing)
        blocks = _blocks(examples, shard, size, fold, held_out=held_out)
        return kernel.sums(theta, blocks, with_gradient=with_gradient)

    shards, total = row_parts(n, length), Sums.zeros(theta.shape, with_gradient=with_gradient)
    with contextlib.nullcontext(team) if team else blas_team(len(shards)) as threads:
        for sums in threads.map(sum_shard, shards):
            total.merge(sums)
            if stop():
                return None
    return total


def _sum_shard(
    X: Examples, y: Any, weights: Any, folds: Any, theta: Any, how: Any, stop: Any
) -> Sums | None:
    """Return the sums over a shard of examples, where it stands; parameters as of `sum_up`."""
    return sum_up(Split(X, y, weights, folds), theta, **how, stop=stop)


def _blocks(
    examples: Split, shard: slice, size: int, fold: np.ndarray | None, *, held_out: bool
) -> Iterator[Rows]:
    """Yield the rows of a shard, `size` at a time; they are read of a file some more at once."""
    row_bytes = row_size(examples.X) * examples.X.dtype.itemsize
    for window in row_parts(shard.stop, max(size, READ // row_bytes), shard.start):
        read = examples.select(window)
        for part in row_parts(len(read), size):
            rows = read.select(part)
            weights = row_weights(rows, fold, held_out=held_out)
            X = rows.X if isinstance(rows.X, SparseRows) else np.asarray(rows.X)
            yield Rows(X, rows.y.astype(np.int64, copy=False), weights)


class Objective:
    """The objective of G models over all examples, its gradient, and how far the optimum is.

        J_g = sum_i w_gi (logsumexp(f_gi) - f_gi[y_i]) / sum_i w_gi  +  reg_g * sum(W_g ** 2)

    J is 2 reg strongly convex in W. With the bias at its optimum, therefore,

        J - J* <= |dJ/dW|^2 / (4 reg)

    (Y. Nesterov, Introductory Lectures on Convex Optimization, 2004, theorem 2.1.10). For what the
    bias is short of its optimum an estimate is added, to second order: `_bias_step`. `settled`
    tells more. Without a penalty there is no such bound.

    Parameters
    ----------
    examples : as of `sum_up`.
    models : reg, label smoothing and fold of each model.
    smoothed : (C, G, D + 1) what a unit of label smoothing adds to the gradient, where it is known.
    """

    def __init__(
        self, examples: Split, models: PerModel, smoothed: np.ndarray | None = None
    ) -> None:
        self.examples, self.models = of_mean_one(examples), models
        self._totals = len(examples) * kept_share(examples, models.fold)
        self._smoothed = smoothed

    def __call__(
        self,
        theta: np.ndarray,
        stop: Callable[[], str] = lambda: "",
        team: Team | None = None,
    ) -> tuple[list[Certificate], np.ndarray] | None:
        """Make a pass; return certificates and gradient, float64, or None where it was stopped.

        Parameters
        ----------
        theta : (C, G, D + 1) weights and bias, of the type of the examples.
        stop, team : as of `sum_up`.
        """
        smoothing, reg = self.models.label_smoothing, self.models.reg
        pass_at = functools.partial(
            sum_up, self.examples, models=self.models, with_gradient=True, stop=stop, team=team
        )
        if smoothing.any() and self._smoothed is None:
            # At zero the gradient of the loss is (1 - smoothing) X^T (1 / C - Y) / N, and what
            # is added to the loss is linear: smoothing times theta's product with X^T (Y - 1 / C).
            start = pass_at(np.zeros_like(theta))
            if start is None:
                return None
            self._smoothed = -start.gradient / (self._totals * (1 - smoothing))[:, None]
        sums = pass_at(theta)
        if sums is None:
            return None
        _, loss, accuracy, _ = sums.figures / self._totals
        mean_gradient = sums.gradient / self._totals[:, None]
        gradient = with_penalty_gradient(mean_gradient, theta, 2 * reg[:, None])
        objective = loss + penalty(theta, reg)
        if self._smoothed is not None:
            added = np.einsum("cgd,cgd->g", self._smoothed, theta, dtype=np.float64)
            objective += smoothing * added
        of_W = gradient[..., :-1]
        squares = np.einsum("cgd,cgd->g", of_W, of_W)
        norms = np.sqrt(squares + (gradient[..., -1] ** 2).sum(axis=0))
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            self._step = _bias_step(gradient[..., -1], sums.spread / self._totals[:, None])
            # Twice what the step would gain, to second order, since it also changes the gradient in
            # W, which is not computed.
            self._of_bias = (gradient[..., -1] * self._step).sum(axis=0)
            excess = np.where(reg > 0, squares / (4 * reg) + self._of_bias, math.inf)
        figures = np.array([objective, norms, excess, loss, accuracy]).T
        return [Certificate(*row) for row in figures.tolist()], gradient

    def settled(
        self,
        theta: np.ndarray,
        certificates: Sequence[Certificate],
        models: Iterable[int],
        stop: Callable[[], str] = lambda: "",
        team: Team | None = None,
    ) -> list[Certificate] | None:
        """Return the certificates of a pass, those of some models without its estimate.

        Where the estimate is more than a small part of the excess, another pass is made, with the
        bias where Newton's step takes it. What that gains is then known, and what the bias is still
        short of is of higher order.

        Parameters
        ----------
        theta, certificates : of the last pass.
        models : whose certificates count.
        stop, team : as there; None is returned where it was stopped.
        """
        made = list(certificates)
        unsure = [g for g in models if self._of_bias[g] > ESTIMATED * made[g].excess]
        if not unsure:
            return made
        moved = np.ascontiguousarray(theta[:, unsure])
        moved[..., -1] -= self._step[:, unsure].astype(theta.dtype)
        smoothed = None if self._smoothed is None else self._smoothed[:, unsure]
        there = Objective(self.examples, self.models.select(unsure), smoothed)
        result = there(moved, stop, team)
        if result is None:
            return None
        for g, other in zip(unsure, result[0], strict=True):
            excess = made[g].objective - other.objective + other.excess
            # Where the step gains nothing, the bound from there holds here all the more.
            made[g] = made[g]._replace(excess=max(other.excess, excess))
        return made


def _bias_step(slopes: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Return H^+ g of each model, (C, G), where H is the Hessian of the loss in the bias.

    Parameters
    ----------
    slopes : g = dJ/db, (C, G); its sum over the classes is zero.
    spread : mean p_c p_k, whose negatives are H but for its diagonal, (C, G, C); or that alone,
        (C, G, 1), in the place of H.
    """
    step: np.ndarray
    if spread.shape[2] == 1:
        step = slopes / np.maximum(2 * spread[..., 0], TINY)
        return step
    # The rows of H have the sum zero, as one bias for all classes changes nothing: the last class
    # is left out. The diagonal is computed from these sums, which float32 alone would not keep.
    products = spread.transpose(1, 0, 2) + LEAST
    H = np.eye(len(slopes)) * products.sum(axis=2, keepdims=True) - products
    step = np.zeros_like(slopes)
    step[:-1] = np.linalg.solve(H[:, :-1, :-1], slopes[:-1].T[..., None])[..., 0].T
    return step


def certify_weights(
    examples: Split, theta: np.ndarray, models: PerModel, stop: Callable[[], str] = lambda: ""
) -> list[Certificate]:
    """Return how far from their optima models (C, G, D + 1) are: one pass or two, not stopped.

    Parameters
    ----------
    examples, models : as of `Objective`.
    theta : weights and bias.
    stop : called now and then; what it raises ends this.
    """
    objective = Objective(examples, models)
    result = objective(theta, stop)
    assert result is not None
    certificates = objective.settled(theta, result[0], range(theta.shape[1]), stop)
    assert certificates is not None
    return certificates


def evaluate_held_out(
    examples: Split,
    theta: np.ndarray,
    models: PerModel | None = None,
    team: Team | None = None,
) -> HeldOut:
    """Evaluate models on a split or, where they have folds, each on the fold it was not trained on.

    Parameters
    ----------
    examples : design matrix (N, D + 1), class indices, weights or None, and folds.
    theta : (C, G, D + 1) weights and bias.
    models : the fold of each; None: they have none.
    team : as of `sum_up`.
    """
    sums = sum_up(examples, theta, models, held_out=True, team=team)
    assert sums is not None
    total, *figures = sums.figures
    loss, accuracy, squares = np.stack(figures) / total
    variance = np.maximum(squares - loss**2, 0)
    return HeldOut(loss, accuracy, np.sqrt(variance / np.maximum(total - 1, 1)))


def evaluate_folds(
    examples: Split, thetas: Sequence[np.ndarray], models: PerModel
) -> Iterator[HeldOut]:
    """Yield the figures of the models of each fold on the examples that it leaves out.

    They are evaluated fold by fold, for the memory's sake.

    Parameters
    ----------
    examples : design matrix (N, D + 1), class indices, weights or None, and folds.
    thetas : G weights and biases (C, D + 1).
    models : reg, label smoothing and fold of each.
    """
    for fold in np.unique(models.fold[models.fold >= 0]):
        places = np.flatnonzero(models.fold == fold).tolist()
        theta = np.stack([thetas[g] for g in places], axis=1)
        yield evaluate_held_out(examples, theta, models.select(places))

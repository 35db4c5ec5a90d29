"""A path of penalties: few are solved, the rest start from a curve through these.

The optimum is a smooth function of log(reg). So of many penalties a few, about two a decade, are
solved from zero in one stack; a cubic spline of their weights in log(reg) is so near the other
optima that most of these need one pass or two. A model that leaves a fold out starts from the one
with the same penalty on all examples or, where enough penalties of its fold are known, from these.

J. Friedman, T. Hastie and R. Tibshirani, Regularization Paths for Generalized Linear Models via
Coordinate Descent, 2010, start each penalty from its stronger neighbour.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy.interpolate import CubicSpline

from classifier.model_stack import PerModel

APART = 0.5  # decades between the penalties that are solved from zero
FEWEST = 5  # penalties from which this is worth it
DECADE = 10.0


def stages(models: PerModel) -> list[list[int]]:
    """Return the models to be trained at once, stage by stage.

    First some penalties, then the folds of these, then the other penalties, then their folds.
    """
    whole = np.flatnonzero(models.fold < 0).tolist()
    groups: dict[float, list[int]] = {}
    for g in whole:
        groups.setdefault(float(models.label_smoothing[g]), []).append(g)
    first = {g for group in groups.values() for g in _spread(models.reg, group)}
    found = []
    for part in ([g for g in whole if g in first], [g for g in whole if g not in first]):
        own = {_setting(models, g) for g in part}
        left_out = np.flatnonzero(models.fold >= 0).tolist()
        found += [part, [g for g in left_out if _setting(models, g) in own]]
    return [stage for stage in found if stage]


def start(models: PerModel, wanted: Sequence[int], known: dict[int, np.ndarray]) -> np.ndarray:
    """Return the weights (C, len(wanted), D + 1) that some models start from.

    Parameters
    ----------
    wanted : the models; they have folds, all of them or none.
    known : the weights (C, D + 1) of models that are trained, at least one.
    """
    whole = {_setting(models, g): g for g in known if models.fold[g] < 0}
    columns = []
    for g in wanted:
        alike = models.label_smoothing == models.label_smoothing[g]
        alike &= models.fold == models.fold[g]
        own = sorted((k for k in known if alike[k]), key=lambda k: _at(models.reg[k]))
        if models.fold[g] >= 0 and len(own) < FEWEST:
            columns.append(known[whole[_setting(models, g)]])
            continue
        columns.append(_interpolated(models.reg, g, own, known))
    return np.stack(columns, axis=1)


def folds_of(models: PerModel, g: int) -> list[int]:
    """Return the models that leave a fold out and are otherwise as model g."""
    left_out = np.flatnonzero(models.fold >= 0).tolist()
    return [f for f in left_out if _setting(models, f) == _setting(models, g)]


def weaker_than_needed(
    reg: Sequence[float], loss: Sequence[float], error: Sequence[float]
) -> float | None:
    """Return the penalty from which on down none is needed, or None.

    Parameters
    ----------
    reg : of models that are trained, from strong to weak, none left out.
    loss, error : on held-out examples, and its standard error.

    Where the loss has risen by more than the best one's standard error over a decade or more,
    weaker penalties only bring it further up.
    """
    best = int(np.argmin(loss))
    for r, value in zip(reg[best:], loss[best:], strict=True):
        if r * DECADE <= reg[best] * (1 + 1e-9) and value > loss[best] + error[best]:
            return float(r)
    return None


def _setting(models: PerModel, g: int) -> tuple[float, float]:
    return float(models.reg[g]), float(models.label_smoothing[g])


def _at(reg: float | np.ndarray) -> float:
    return math.log10(reg) if reg > 0 else -math.inf


def _spread(reg: np.ndarray, group: list[int]) -> list[int]:
    """Return the models of a group that are solved from zero: both ends, and some between."""
    positive = [g for g in group if reg[g] > 0]
    logs = np.log10(reg[positive])
    if len(set(logs.tolist())) < FEWEST:
        return group
    n_places = 1 + int((logs.max() - logs.min()) / APART + 1e-6)
    wanted = np.linspace(logs.min(), logs.max(), n_places)
    nearest = np.abs(logs - wanted[:, None]).argmin(axis=1)
    return [positive[place] for place in dict.fromkeys(nearest.tolist())]


def _interpolated(
    reg: np.ndarray, g: int, own: list[int], known: dict[int, np.ndarray]
) -> np.ndarray:
    """Return the weights at a penalty of the curve through those of others, sorted by it."""
    places = {_at(reg[k]): k for k in own if reg[k] > 0}
    if reg[g] <= 0 or len(places) < 2:  # no penalty has no logarithm, and one point no curve
        return known[own[0]]
    shares = CubicSpline(list(places), np.eye(len(places)))(_at(reg[g]))
    weights = np.zeros_like(known[own[0]])
    for share, k in zip(shares, places.values(), strict=True):
        weights += float(share) * known[k]
    return weights

"""L-BFGS for a stack of models: what is known of each search, as one dict of arrays.

Models stand on the last axis but one of every array: theta, gradient and direction (G, P), the
P = C (D + 1) numbers of a model class by class; the last M differences of weights s and of
gradients y (M, G, P); scales (G, C (K + 2)) of the coordinates, which say what M is; the inverse of
R, below, (M, G, M); curvature s . y and projections s . gradient (G, M); and numbers (G, 1).
So one index takes some of the models. A pair that a model does not have is zero. Whoever minimises
computes the objective at the trials of all models, in one pass.

Sources: J. Nocedal and S. Wright, Numerical Optimization, 2nd edition, algorithm 7.5; its two loops
as products with all pairs at once: R. Byrd, J. Nocedal and R. Schnabel, Representations of
Quasi-Newton Matrices, 1994. With R = (s_i . y_j) of pairs i not younger than j, the first loop
solves R a = S^T g, and the second R^T c = diag(R) a - Y^T r, where r = ratio H0 (g - Y a). The
result is r + S c. The inverse of R gets a column with a pair, and loses a row and a column with it.
"""

import numpy as np

from classifier.coordinates import Coordinates
from data.machine import Team, row_parts

DECREASE = 1e-4  # share of the decrease along the slope that a step must bring
ROUNDING = 1e-6  # of the value: differences below it say nothing in float32
TINY = float(np.finfo(np.float32).tiny)  # products below it are zero, or have lost their digits
SHORTENED = 12  # times a step is shortened before a direction is given up
PROGRESS = 1e-9  # of the value: what it must fall by
STALE = 30  # trials in a row without progress after which there is none to be had
LONG = 2**18  # numbers of a model's weights that a thread has at a time
OFTEN, SELDOM = 6, 5  # passes in each of which the scales are renewed, then in each so many

State = dict[str, np.ndarray]
COUNTS = ("shortened", "stale", "n_pairs", "passes")
NUMBERS = {"value": np.inf, "slope": -np.finfo(np.float64).max, "step": 0.0, "lowest": np.inf}


def init(theta: np.ndarray, coordinates: Coordinates) -> State:
    """Return models (C, G, D + 1) that have not made a pass yet."""
    n_classes, n_models, n_columns = theta.shape
    one, dtype = (n_models, n_classes * n_columns), theta.dtype
    memory, n_scales = coordinates.memory, coordinates.n_scales
    return {
        "theta": _flat(theta),
        "gradient": np.zeros(one, dtype),
        "direction": np.zeros(one, dtype),
        "scales": np.zeros((n_models, n_classes * n_scales), dtype),
        "s": np.zeros((memory, *one), dtype),
        "y": np.zeros((memory, *one), dtype),
        "inverse": np.zeros((memory, n_models, memory)),
        "curvature": np.zeros((n_models, memory)),
        "projections": np.zeros((n_models, memory)),
        **{name: np.full((n_models, 1), start) for name, start in NUMBERS.items()},
        **{name: np.zeros((n_models, 1), np.int64) for name in COUNTS},
    }


def trial(state: State, coordinates: Coordinates) -> np.ndarray:
    """Return the weights (C, G, D + 1) to be tried."""
    direction = coordinates.uncentred(_by_class(state["direction"], coordinates))
    step = state["step"].astype(direction.dtype)[..., None]
    tried = _by_class(state["theta"], coordinates) + step * direction
    return np.ascontiguousarray(tried.transpose(1, 0, 2))


def tell(
    state: State,
    tried: np.ndarray,
    values: np.ndarray,
    by_theta: np.ndarray,
    coordinates: Coordinates,
) -> np.ndarray:
    """Go on from a trial; return which models have moved to it, (G,).

    Those have a new pair. The step of the others is shorter; after many times their pairs are
    forgotten.

    Parameters
    ----------
    values, by_theta : (G,) and (C, G, D + 1), the objective at the trial and its gradient.
    """
    value = values[:, None]
    better = value < state["lowest"] - PROGRESS * np.abs(value)
    state["lowest"] = np.where(better, value, state["lowest"])
    state["stale"] = np.where(better, 0, state["stale"] + 1)
    gradient = _flat(coordinates.centred(by_theta).astype(tried.dtype))
    slope = _dot(gradient, state["direction"])
    moved = (state["passes"] == 0) | _is_accepted(state, value, slope)
    state["passes"] = state["passes"] + 1
    _remember(state, gradient, slope, moved, coordinates.team)
    _shorten(state, value, moved)
    _put(state, moved, theta=_flat(tried), gradient=gradient, value=value)
    return np.ravel(moved)


def aim(state: State, coordinates: Coordinates, reg: np.ndarray) -> None:
    """Give models that have moved, or forgotten their pairs, a new direction.

    Parameters
    ----------
    reg : (G,) their penalties.
    """
    passes = state["passes"]
    aimless = (state["shortened"] == 0) & (passes > 0)  # the first pass is at the start
    if not aimless.any():
        return
    renewed = aimless & ((passes <= OFTEN) | (passes % SELDOM == 0))
    if renewed.any():
        theta = _by_class(state["theta"], coordinates).transpose(1, 0, 2)
        scales = coordinates.scales(np.ascontiguousarray(theta), reg)
        _put(state, renewed, scales=_flat(scales))
    _put(state, aimless, direction=-_two_loops(state, coordinates))
    state["slope"] = _dot(state["gradient"], state["direction"])
    uphill = ~(state["slope"] < 0)
    if uphill.any():  # of rounding alone
        _forget(state, uphill[:, 0])
        _put(state, uphill, direction=-_two_loops(state, coordinates))
        state["slope"] = _dot(state["gradient"], state["direction"])


def is_stuck(state: State) -> np.ndarray:
    """Return for which models no step brings the value down any more, (G,)."""
    given_up = (state["shortened"] >= SHORTENED) & (state["n_pairs"] == 0)
    return np.ravel(given_up | (state["stale"] >= STALE))


def _flat(array: np.ndarray) -> np.ndarray:
    """Return an array (C, G, D) as (G, C * D)."""
    n_classes, n_models, n_columns = array.shape
    return array.transpose(1, 0, 2).reshape(n_models, n_classes * n_columns)


def _by_class(array: np.ndarray, coordinates: Coordinates) -> np.ndarray:
    """Return weights (..., G, P) as (..., G, C, D + 1)."""
    return array.reshape(*array.shape[:-1], -1, coordinates.n_columns)


def _put(state: State, models: np.ndarray, **arrays: np.ndarray) -> None:
    """Put new arrays into the state, for some models (G, 1)."""
    everyone = models.all()  # then nothing is copied
    for name, new in arrays.items():
        state[name] = new if everyone else np.where(models, new, state[name])


def _is_accepted(state: State, value: np.ndarray, turned: np.ndarray) -> np.ndarray:
    """Return whether the step of each model is good enough, (G, 1).

    Where values differ by rounding alone their derivatives tell what they cannot: W. Hager and
    H. Zhang, A New Conjugate Gradient Method with Guaranteed Descent and an Efficient Line
    Search, SIAM J. Optim. 2005, equation (4.1).

    Parameters
    ----------
    turned : (G, 1) the slope along the direction, at the trial.
    """
    before, slope = state["value"], state["slope"]
    is_lower = value <= before + DECREASE * state["step"] * slope
    is_flat = value <= before + ROUNDING * np.abs(before)
    return np.asarray(is_lower | (is_flat & (turned <= (2 * DECREASE - 1) * slope)))


def _shorten(state: State, value: np.ndarray, moved: np.ndarray) -> None:
    """Go to the minimum of the parabola through what is known, within bounds; 1 where moved."""
    step, slope = state["step"], state["slope"]
    rise = value - state["value"] - step * slope
    minimum = np.clip(-step * slope / (2 * rise), 0.1, 0.5)
    factor = np.where(np.isfinite(rise) & (rise > 0), minimum, 0.1)
    shortened = state["shortened"] + 1
    given_up = (shortened >= SHORTENED) & (state["n_pairs"] > 0) & ~moved
    _forget(state, given_up[:, 0])
    state["step"] = np.where(moved | given_up, 1.0, step * factor)
    state["shortened"] = np.where(moved | given_up, 0, shortened)


def _remember(
    state: State, gradient: np.ndarray, slope: np.ndarray, moved: np.ndarray, team: Team
) -> None:
    """Put the pairs of models that have moved in the place of their oldest.

    Parameters
    ----------
    gradient, slope : (G, P) and (G, 1) where the models have moved to.
    """
    step, before, places = state["step"], state["slope"], state["n_pairs"] % len(state["s"])
    curvature = step * (slope - before)  # s . y
    is_pair = moved & (curvature >= TINY)
    paired = np.flatnonzero(is_pair).tolist()
    for g in paired:
        place = places[g, 0]
        np.multiply(state["direction"][g], step[g].astype(gradient.dtype), out=state["s"][place, g])
        np.subtract(gradient[g], state["gradient"][g], out=state["y"][place, g])
        state["curvature"][g, place] = curvature[g, 0]
        state["projections"][g, place] = step[g, 0] * before[g, 0]
    projections = _dots(state["s"], gradient, team)
    for g in paired:
        place, inverse = places[g, 0], state["inverse"][:, g]
        inverse[place] = inverse[:, place] = 0
        products = projections[g] - state["projections"][g]  # of all s with y
        inverse[:, place] = inverse @ products / -curvature[g, 0]
        inverse[place, place] = 1 / curvature[g, 0]
    state["n_pairs"] = state["n_pairs"] + is_pair
    _put(state, moved, projections=projections)


def _forget(state: State, models: np.ndarray) -> None:
    """Forget the pairs of some models."""
    if models.any():
        for name in ("s", "y", "inverse", "curvature", "projections", "n_pairs"):
            state[name][..., models, :] = 0


def _two_loops(state: State, coordinates: Coordinates) -> np.ndarray:
    """Return the inverse Hessian's approximation times the gradient, (G, P)."""
    S, Y, gradient, team = state["s"], state["y"], state["gradient"], coordinates.team
    models, newest = np.arange(len(gradient)), (state["n_pairs"][:, 0] - 1) % len(state["s"])
    inverse = state["inverse"].transpose(1, 0, 2)
    a = (inverse @ state["projections"][..., None])[..., 0]
    y = Y[newest, models]
    both = np.empty((2, *y.shape), y.dtype)  # so that y takes no products of its own
    both[0], both[1] = gradient - _combine(Y, a, team), y
    scales = state["scales"].reshape(len(gradient), -1, coordinates.n_scales)
    r, Hy = coordinates.apply(scales, _by_class(both, coordinates)).reshape(both.shape)
    below = _dot(y, Hy)  # zero without a pair
    ratio = state["curvature"][models, newest][:, None] / np.where(below > 0, below, 1)
    r *= np.where(below > 0, ratio, 1).astype(r.dtype)
    c = state["curvature"] * a - _dots(Y, r, team)
    return np.asarray(r + _combine(S, (c[:, None] @ inverse)[:, 0], team))


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the products of each model, (G, 1)."""
    return np.asarray((a[:, None] @ b[..., None])[:, 0], np.float64)


def _dots(pairs: np.ndarray, vectors: np.ndarray, team: Team) -> np.ndarray:
    """Return the products of all pairs with a vector (G, P) of each model, (G, M)."""

    def products(part: slice) -> np.ndarray:
        of_part = pairs[..., part].transpose(1, 0, 2) @ vectors[:, part, None]
        return np.asarray(of_part[..., 0], np.float64)

    return np.asarray(sum(team.map(products, row_parts(pairs.shape[2], LONG))))


def _combine(pairs: np.ndarray, factors: np.ndarray, team: Team) -> np.ndarray:
    """Return the sums of all pairs by factors (G, M), (G, P)."""
    rows = factors.astype(pairs.dtype)[:, None]

    def combined(part: slice) -> np.ndarray:
        return np.asarray((rows @ pairs[..., part].transpose(1, 0, 2))[:, 0])

    return np.concatenate([*team.map(combined, row_parts(pairs.shape[2], LONG))], axis=1)

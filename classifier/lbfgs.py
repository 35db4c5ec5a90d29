"""L-BFGS for a stack of models: what is known of each search, as one dict of arrays.

Models stand on the last but one axis of every array: theta, gradient and direction (C, G, D + 1),
the last `MEMORY` differences of weights s and of gradients y (MEMORY, C, G, D + 1), products
(MEMORY, G, MEMORY) of s_i and y_j, scales (C, G, K + 2) of the coordinates, and numbers (G, 1). So
one index takes some of the models. A pair that a model does not have is zero. Whoever minimises
computes the objective at the trials of all models, in one pass.

Sources: J. Nocedal and S. Wright, Numerical Optimization, 2nd edition, algorithm 7.5; its two loops
as products with all pairs at once: R. Byrd, J. Nocedal and R. Schnabel, Representations of
Quasi-Newton Matrices, 1994.
"""

from collections.abc import Callable

import numpy as np

from classifier.certificate import Pass
from classifier.coordinates import Coordinates
from data.machine import in_order, row_parts

MEMORY = 10  # pairs kept
DECREASE = 1e-4  # share of the decrease along the slope that a step must bring
ROUNDING = 1e-6  # of the value: differences below it say nothing in float32
TINY = float(np.finfo(np.float32).tiny)  # products below it are zero, or have lost their digits
SHORTENED = 12  # times a step is shortened before a direction is given up
PROGRESS = 1e-9  # of the value: what it must fall by
STALE = 30  # trials in a row without progress after which there is none to be had
LONG = 2**21  # numbers of the pairs of some classes that a thread has at a time
OFTEN, SELDOM = 6, 5  # passes in each of which the scales are renewed, then in each so many

State = dict[str, np.ndarray]
COUNTS = ("shortened", "stale", "n_pairs", "passes")
NUMBERS = {"value": np.inf, "slope": -np.finfo(np.float64).max, "step": 0.0, "lowest": np.inf}


def init(theta: np.ndarray, n_scales: int) -> State:
    """Return models (C, G, D + 1) that have not made a pass yet."""
    n_classes, n_models, _ = theta.shape
    pairs = (MEMORY, *theta.shape)
    return {
        "theta": theta,
        "gradient": np.zeros_like(theta),
        "direction": np.zeros_like(theta),
        "scales": np.zeros((n_classes, n_models, n_scales), theta.dtype),
        "s": np.zeros(pairs, theta.dtype),
        "y": np.zeros(pairs, theta.dtype),
        "products": np.zeros((MEMORY, n_models, MEMORY)),
        **{name: np.full((n_models, 1), start) for name, start in NUMBERS.items()},
        **{name: np.zeros((n_models, 1), np.int64) for name in COUNTS},
    }


def trial(state: State, coordinates: Coordinates) -> np.ndarray:
    """Return the weights (C, G, D + 1) to be tried."""
    step = state["step"].astype(state["theta"].dtype)
    return np.asarray(state["theta"] + step * coordinates.uncentred(state["direction"]))


def tell(state: State, tried: np.ndarray, found: Pass, coordinates: Coordinates) -> np.ndarray:
    """Go on from a trial; return which models have moved to it, (G,).

    Those have a new pair. The step of the others is shorter; after many times their pairs are
    forgotten.
    """
    value, gradient = found.objective[:, None], coordinates.centred(found.gradient)
    better = value < state["lowest"] - PROGRESS * np.abs(value)
    state["lowest"] = np.where(better, value, state["lowest"])
    state["stale"] = np.where(better, 0, state["stale"] + 1)
    moved = (state["passes"] == 0) | _is_accepted(state, value, gradient)
    state["passes"] = state["passes"] + 1
    gradient = gradient.astype(tried.dtype)
    _remember(state, gradient, moved[:, 0], coordinates)
    _shorten(state, value, moved)
    _put(state, moved, theta=tried, gradient=gradient, value=value)
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
        _put(state, renewed, scales=coordinates.scales(state["theta"], reg))
    _put(state, aimless, direction=-_two_loops(state, coordinates))
    state["slope"] = _dot(state["gradient"], state["direction"])
    uphill = ~(state["slope"] < 0)
    if uphill.any():  # of rounding alone
        _forget(state, uphill[:, 0])
        _put(state, uphill, direction=-coordinates.apply(state["scales"], state["gradient"]))
        state["slope"] = _dot(state["gradient"], state["direction"])


def is_stuck(state: State) -> np.ndarray:
    """Return for which models no step brings the value down any more, (G,)."""
    given_up = (state["shortened"] >= SHORTENED) & (state["n_pairs"] == 0)
    return np.ravel(given_up | (state["stale"] >= STALE))


def _put(state: State, models: np.ndarray, **arrays: np.ndarray) -> None:
    """Put new arrays into the state, for some models (G, 1)."""
    everyone = models.all()  # then nothing is copied
    for name, new in arrays.items():
        state[name] = new if everyone else np.where(models, new, state[name])


def _is_accepted(state: State, value: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Return whether the step of each model is good enough, (G, 1).

    Where values differ by rounding alone their derivatives tell what they cannot: W. Hager and
    H. Zhang, A New Conjugate Gradient Method with Guaranteed Descent and an Efficient Line
    Search, SIAM J. Optim. 2005, equation (4.1).
    """
    before, slope = state["value"], state["slope"]
    is_lower = value <= before + DECREASE * state["step"] * slope
    is_flat = value <= before + ROUNDING * np.abs(before)
    turned = _dot(gradient, state["direction"]) <= (2 * DECREASE - 1) * slope
    return np.asarray(is_lower | (is_flat & turned))


def _shorten(state: State, value: np.ndarray, moved: np.ndarray) -> None:
    """Go to the minimum of the parabola through what is known, within bounds; 1 where moved."""
    if moved.all():
        state["step"], state["shortened"] = np.ones(moved.shape), np.zeros(moved.shape, np.int64)
        return
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
    state: State, gradient: np.ndarray, moved: np.ndarray, coordinates: Coordinates
) -> None:
    """Put the pairs of models that have moved in the place of their oldest."""
    s = state["step"].astype(gradient.dtype) * state["direction"]
    y = gradient - state["gradient"]
    is_pair = moved & (np.minimum(_dot(s, y), _dot(y, y)) >= TINY)[:, 0]
    models = np.flatnonzero(is_pair)
    if not len(models):
        return
    places = state["n_pairs"][models, 0] % MEMORY
    for name, new in (("s", s), ("y", y)):
        state[name][places, :, models] = new[:, models].transpose(1, 0, 2)
    state["products"][:, models, places] = _dots(state["s"], y, coordinates)[models, :, 0].T
    state["n_pairs"] = state["n_pairs"] + is_pair[:, None]


def _forget(state: State, models: np.ndarray) -> None:
    """Forget the pairs of some models."""
    if models.any():
        for name in ("s", "y", "products", "n_pairs"):
            state[name][..., models, :] = 0


def _two_loops(state: State, coordinates: Coordinates) -> np.ndarray:
    """Return the inverse Hessian's approximation times the gradient, (C, G, D + 1).

    With R = (s_i . y_j) of pairs i not younger than j, the first loop solves R a = S^T g, and the
    second R^T c = diag(R) a - Y^T r, where r = ratio H0 (g - Y a). The result is r + S c.
    """
    S, Y, gradient, n_pairs = (state[name] for name in ("s", "y", "gradient", "n_pairs"))
    age = (np.arange(MEMORY) - n_pairs) % MEMORY  # of the oldest 0
    products = state["products"].transpose(1, 0, 2)
    R = np.where(age[:, :, None] <= age[:, None], products, 0)
    diagonal = np.einsum("gii->gi", R)
    curvature = diagonal[..., None].copy()
    diagonal += diagonal == 0  # of pairs that are not there
    ratio = _ratio(state, curvature[..., 0], coordinates)
    inverse = np.linalg.inv(R)
    a = inverse @ _dots(S, gradient, coordinates)

    def turn(classes: slice) -> np.ndarray:
        q = gradient[classes] - _combine(Y[:, classes], a)
        return coordinates.apply(state["scales"][classes], q)

    r: np.ndarray = _by_classes(turn, Y, coordinates)
    r *= ratio
    c = inverse.transpose(0, 2, 1) @ (curvature * a - _dots(Y, r, coordinates))
    r += _by_classes(lambda classes: _combine(S[:, classes], c), S, coordinates)
    return r


def _ratio(state: State, curvature: np.ndarray, coordinates: Coordinates) -> np.ndarray:
    """Return s.y / y.H0 y of each model's newest pair, (G, 1); 1 without one."""
    places, models = (state["n_pairs"][:, 0] - 1) % MEMORY, np.arange(len(curvature))
    y = np.ascontiguousarray(state["y"][places, :, models].transpose(1, 0, 2))
    below = _dot(y, coordinates.apply(state["scales"], y))
    ratio = curvature[models, places][:, None] / np.where(below > 0, below, 1)
    return np.where(below > 0, ratio, 1).astype(y.dtype)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the products of each model, (G, 1)."""
    products: np.ndarray = np.einsum("cgd,cgd->cg", a, b).sum(axis=0, dtype=np.float64)
    return products[:, None]


def _dots(pairs: np.ndarray, a: np.ndarray, coordinates: Coordinates) -> np.ndarray:
    """Return the products of all pairs with a (C, G, D + 1) of each model, (G, MEMORY, 1)."""

    def products(classes: slice) -> np.ndarray:
        return np.asarray(pairs[:, classes].transpose(1, 2, 0, 3) @ a[classes, :, :, None])

    return np.asarray(_by_classes(products, pairs, coordinates).sum(axis=0, dtype=np.float64))


def _combine(pairs: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Return the sums of all pairs by factors (G, MEMORY, 1), (C, G, D + 1)."""
    rows = factors.astype(pairs.dtype).transpose(0, 2, 1)
    return np.asarray((rows @ pairs.transpose(1, 2, 0, 3))[:, :, 0])


def _by_classes(
    do: Callable[[slice], np.ndarray], pairs: np.ndarray, coordinates: Coordinates
) -> np.ndarray:
    """Return what is done for all classes (C, ...); where that is long several threads do it."""
    n_classes = pairs.shape[1]
    size = max(1, LONG * n_classes // max(1, pairs.size))
    parts = list(in_order(do, row_parts(n_classes, size), coordinates.n_threads))
    return parts[0] if len(parts) == 1 else np.concatenate(parts)

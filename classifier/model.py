"""A trained classifier that stands alone: weights, preprocessing, class names, config; a file."""

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from classifier.kernel import Kernel
from data.dataset import Elsewhere, Examples, SparseRows, row_size
from data.errors import InputError, damage_told
from data.files.arrays import NpyRows, read_sealed, write_sealed
from data.labels import check_labels
from data.machine import row_parts
from data.preprocessing import AffineMap, check_finite, check_kind

if TYPE_CHECKING:  # of which most runs have none: its import costs start-up
    from data.encoding import Encoding

FORMAT = 3  # of model.npz; another number is another layout
BLOCK_BYTES = 2**22  # of float64 features or scores at a time: what the cache holds
FITTED = 2**23  # scores of examples, spread evenly, that a temperature is fitted to, at most
COLDEST, HOTTEST = 0.01, 100.0  # temperatures


@dataclasses.dataclass(frozen=True)
class LinearModel:
    """p(class | x) = softmax(((x - shift) / scale W + b) / temperature).

    Attributes
    ----------
    W : (D, C) float32 weights.
    b : (C,) float32 bias.
    classes : (C,) names of the classes, integers or strings.
    features : the preprocessing, fitted.
    image_shape : shape of an example where examples are images, else None.
    config : the configuration of the run it comes from.
    temperature : what calibration divides the scores by; 1 without.
    encoding : what made features of the columns of a table, where examples were that.
    """

    W: np.ndarray
    b: np.ndarray
    classes: np.ndarray
    features: AffineMap
    image_shape: tuple[int, ...] | None
    config: dict[str, Any]
    temperature: float = 1.0
    encoding: "Encoding | None" = None

    def score_blocks(self, X: Examples) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield (rows, scores (len(rows), C)) of raw examples X (N, ...), as `score_blocks` does.

        Raises
        ------
        InputError
            When an example has another number of features than the model, or its values are
            not finite or too large.
        """
        X = self.examples(X)
        if isinstance(X, np.ndarray | SparseRows):
            check_finite(X)
        return score_blocks(self.features, self.theta(), X)

    def log_probability_blocks(self, X: Examples) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield (rows, log p (len(rows), C)) of raw examples, as `score_blocks` does the scores."""
        return ((rows, log_softmax(scores)) for rows, scores in self.score_blocks(X))

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return the (N, C) float64 probabilities of raw examples X (N, ...)."""
        blocks = [np.exp(log_p) for _, log_p in self.log_probability_blocks(X)]
        return np.concatenate(blocks) if blocks else np.empty((0, len(self.classes)))

    def theta(self) -> np.ndarray:
        """Return weights and bias (C, D + 1) of prepared features, in float64.

        The temperature is in them.
        """
        theta: np.ndarray = np.vstack([self.W, self.b]).T.astype(np.float64) / self.temperature
        return theta

    def examples(self, X: Examples) -> Examples:
        """Return raw examples X (N, ...), which must have as many features as the model.

        Raises
        ------
        InputError
            When they have not, or are not numbers.
        """
        X = X if isinstance(X, NpyRows | SparseRows | Elsewhere) else np.asarray(X)
        check_kind(X, "X")
        n_features = math.prod(X.shape[1:])
        if n_features != len(self.W):
            raise InputError(f"X has {n_features} features an example, the model has {len(self.W)}")
        return X

    def save(self, path: Path) -> None:
        """Write the model as an .npz file that loads without pickles."""
        arrays = {
            "W": np.ascontiguousarray(self.W),
            "b": self.b,
            "classes": self.classes,
            "shift": self.features.shift,
            "scale": self.features.scale,
            "image_shape": np.array(self.image_shape or (), dtype=np.int64),
            "config": np.array(json.dumps(self.config)),
            "temperature": np.array(self.temperature),
        }
        if self.encoding is not None:
            arrays |= self.encoding.to_arrays()
        write_sealed(path, FORMAT, arrays)

    @classmethod
    def load(cls, path: Path) -> "LinearModel":
        """Read a model that `save` wrote.

        Raises
        ------
        FileNotFoundError, InputError
            When there is no such file; when it is not a model, is damaged or of another format.
        """
        arrays = read_sealed(path, "model", FORMAT)
        # Whoever writes a seal can write anything under it.
        with damage_told(f"{path}: a damaged model file"):
            W, b, shift, scale = (arrays[name] for name in ("W", "b", "shift", "scale"))
            classes, temperature = arrays["classes"], float(arrays["temperature"])
            with np.errstate(over="ignore"):
                double = [a.astype(np.float64, casting="same_kind") for a in (shift, scale)]
            encoding = None
            if "encoding" in arrays:
                from data.encoding import Encoding

                encoding = Encoding.from_arrays(arrays, str(path))
            image_shape = tuple(int(n) for n in arrays["image_shape"].reshape(-1)) or None
            n_features, n_classes = W.shape
            fits = [
                W.size > 0 and {a.dtype.kind for a in (W, b, shift, scale)} == {"f"},
                shift.shape == scale.shape == (n_features,),
                b.shape == classes.shape == (n_classes,) and classes.dtype.kind in "iuU",
                all(np.isfinite(a).all() for a in (W, b, *double)) and double[1].all(),
                0 < temperature < math.inf,
                not image_shape or (min(image_shape) > 0 and math.prod(image_shape) == n_features),
                encoding is None or len(encoding.names) == n_features,
            ]
            if not all(fits):
                raise ValueError("its arrays do not fit together or hold no usable numbers")
            check_labels(classes, f"{path}: its classes")
            # JSON has no word for these; exports write the config again.
            config = json.loads(str(arrays["config"]), parse_constant=lambda _: None)
        features = AffineMap(*double)
        return cls(W, b, classes, features, image_shape, config, temperature, encoding)


def score_blocks(
    features: AffineMap, theta: np.ndarray, X: Examples
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield (rows, scores (len(rows), C)) of raw examples X (N, ...), in float64.

    Float32 would round large scores by more than probabilities should differ. The scores of a block
    may be overwritten, and are by those of the next.

    Parameters
    ----------
    features : the preprocessing.
    theta : (C, D + 1) weights and bias of prepared features.

    Raises
    ------
    InputError
        When values are too large for any score.
    """
    size = max(1, BLOCK_BYTES // (8 * max(len(theta), row_size(X) + 1)))
    kernel = Kernel((len(theta), 1, theta.shape[1]), min(size, len(X)), np.float64)
    design = np.ones((0 if isinstance(X, SparseRows) else kernel.size, theta.shape[1]))
    for rows in row_parts(len(X), size):
        raw = X[rows]
        if isinstance(raw, SparseRows):
            x: Any = features.design_matrix(raw, np.float64)
        else:
            x = design[: len(raw)]
            features.transform(raw, x[:, :-1])
        with np.errstate(over="ignore", invalid="ignore"):
            scores = kernel.scores(theta, x)[:, 0].T
        if not np.isfinite(scores).all():
            value = abs(getattr(raw, "matrix", raw)).max()
            raise InputError(f"X holds values (up to {value:.1e}) too large for any score")
        yield rows, scores


def fold(features: AffineMap, theta: np.ndarray, advice: str) -> tuple[np.ndarray, np.ndarray]:
    """Return coefficients (C, D) and intercepts (C,) of flat examples as they come, in float64.

    The preprocessing is in them: f = X coef^T + intercept. Float32 would lose the spread of
    features that lie far from zero, as times in seconds do.

    Parameters
    ----------
    features : the preprocessing.
    theta : (C, D + 1) weights and bias of prepared features.
    advice : what to do where float64 cannot hold the coefficients.

    Raises
    ------
    InputError
        When features are so small, for a spread, that it cannot.
    """
    # x W / scale + (b - shift / scale W)
    with np.errstate(over="ignore", invalid="ignore"):
        coef = theta[:, :-1] / features.scale
        # Of the rounded coefficients, which then cost a large mean no digit.
        intercept = theta[:, -1] - coef @ features.shift
    if not np.isfinite(np.column_stack([coef, intercept])).all():
        raise InputError(
            f"features with a spread of {features.scale.min():.1e} have coefficients that float64 "
            f"cannot hold; {advice}"
        )
    return coef, intercept


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """Return the log-probabilities (N, C), in float64, of scores (N, C): f - logsumexp(f)."""
    log_p = scores.astype(np.float64)
    log_p -= log_p.max(axis=1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))
    return log_p


def fit_temperature(model: LinearModel, X: Examples, y: np.ndarray) -> float:
    """Return the temperature T > 0 with the lowest cross-entropy of softmax(f / T).

    The derivative by 1 / T, the mean of sum_c p_c f_c - f_y, rises with 1 / T, so its only zero is
    found by a bracketing search. A temperature never changes which class is the most probable.
    Where there is none between 0.01 and 100 it is 1: of examples that are all right, the lower
    the better, which says nothing of others.

    Source: C. Guo et al., On Calibration of Modern Neural Networks, ICML 2017.

    Parameters
    ----------
    model : with the temperature 1.
    X : (N, ...) raw examples that the model was not trained on.
    y : (N,) class indices.
    """
    from scipy.optimize import brentq

    n = min(len(y), max(1, FITTED // len(model.classes)))
    rows = np.linspace(0, len(y) - 1, n).astype(np.int64)
    # Log-probabilities are scores too: a constant of the example less.
    scores = np.concatenate([log_p for _, log_p in model.log_probability_blocks(X[rows])])
    if np.ptp(scores) == 0:  # nothing was learned
        return 1.0
    right = scores[np.arange(n), y[rows]]

    def slope(log_temperature: float) -> float:
        p = np.exp(log_softmax(scores * math.exp(-log_temperature)))
        return float(np.mean(np.einsum("nc,nc->n", p, scores) - right))

    low, high = math.log(COLDEST), math.log(HOTTEST)
    if slope(low) <= 0 or slope(high) >= 0:
        return 1.0
    return math.exp(brentq(slope, low, high))

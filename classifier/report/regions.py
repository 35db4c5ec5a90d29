"""Examples of two features, and the class that a linear model gives to each place between them."""

from typing import NamedTuple

import numpy as np

from classifier.model import LinearModel
from classifier.report.charts import Axis, span

# Of the classes, which share them where they are more; the eye tells few more apart. The style
# sheet has them as --a to --h.
HUES = ("#1f6fb2", "#c4540a", "#1a7f45", "#8241b0", "#b3261e", "#7a6a00", "#0b7d86", "#b3307f")


class Shown(NamedTuple):
    """Examples that a picture shows.

    Attributes
    ----------
    X : (n, 2) raw examples.
    y : (n,) their class indices.
    is_val : (n,) whether each is of the validation split; the others are training examples.
    """

    X: np.ndarray
    y: np.ndarray
    is_val: np.ndarray


class Regions(NamedTuple):
    """Where a model puts the border between its classes.

    Attributes
    ----------
    x, y : the axes of the two features, with room for all examples.
    winner : (height, width) the class index at each place, the largest y first.
    predicted : (n,) the class index of each example.
    """

    x: Axis
    y: Axis
    winner: np.ndarray
    predicted: np.ndarray


def regions(model: LinearModel, X: np.ndarray, size: int) -> Regions:
    """Return the class that a model of two features gives to each place of a picture.

    Parameters
    ----------
    model : the model.
    X : (n, 2) raw examples that are in the picture.
    size : its width in pixels; its height is 3/5 of that.
    """
    x, y = (span([float(value) for value in column]) for column in X.T)
    W, features = model.W.astype(np.float64), model.features
    scores = []
    for d, (axis, n) in enumerate(((x, size), (y, 3 * size // 5))):
        centres = axis.low + (np.arange(n) + 0.5) / n * (axis.high - axis.low)  # of the pixels
        scores.append(W[d][:, None] * ((centres - features.shift[d]) / features.scale[d]))
    across, up = scores[0], scores[1] + model.b[:, None]
    winner = np.array([np.argmax(across + row[:, None], axis=0) for row in up.T[::-1]])
    return Regions(x, y, winner, np.argmax(model.predict_proba(X), axis=1))

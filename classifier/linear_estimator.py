"""What scikit-learn asks of a linear softmax classifier besides its training."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from classifier.model import log_softmax
from data.dataset import Split
from data.errors import InputError
from data.labels import class_weights
from data.preprocessing import AffineMap


class LinearEstimator(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A linear softmax classifier once it is trained, however that is done.

    Who trains it sets the preprocessing `_features`, then calls `_set_classes` and `_set_weights`.
    """

    class_weight: str | Mapping[Any, float] | None
    _features: AffineMap

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the scores (N, C) of X (N, D); of two classes the difference, (N,)."""
        scores = self._scores(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: Any) -> np.ndarray:
        """Return the labels (N,) with the highest scores."""
        best = self._scores(X).argmax(axis=1)
        labels: np.ndarray = self.classes_[best]
        return labels

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return log p (N, C), in float64."""
        return log_softmax(self._scores(X))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return p (N, C), in float64."""
        probabilities: np.ndarray = np.exp(self.predict_log_proba(X))
        return probabilities

    def _check(
        self, X: Any, y: Any, sample_weight: Any, *, reset: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Return arrays of the examples that count at all."""
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], reset=reset)
        check_classification_targets(y)
        if sample_weight is None:
            return X, y, None
        weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        counts = weights > 0
        if not counts.any():
            raise InputError("sample_weight: all weights are zero, no example counts")
        return X[counts], y[counts], weights[counts]

    def _set_classes(self, classes: np.ndarray) -> None:
        if len(classes) < 2:
            raise InputError(f"a classifier needs two classes or more, y has 1 class: {classes}")
        self.classes_ = classes

    def _class_weights(self, given: Split) -> np.ndarray | None:
        if self.class_weight is None:
            return None
        totals = np.bincount(given.y, weights=given.weights, minlength=len(self.classes_))
        return class_weights(self.class_weight, self.classes_, totals)

    def _set_weights(self, theta: np.ndarray) -> None:
        """Keep theta (C, D + 1) of the prepared features, and what it is of those as they come."""
        self._theta = theta
        # x W / scale + (b - shift / scale W)
        coef = theta[:, :-1] / self._features.scale
        intercept = theta[:, -1] - coef @ self._features.shift
        if len(self.classes_) == 2:
            coef, intercept = coef[1:] - coef[:1], intercept[1:] - intercept[:1]
        self.coef_, self.intercept_ = coef, intercept

    def _scores(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        design = self._features.design_matrix(X, X.dtype.type)
        scores: np.ndarray = design @ self._theta.T
        return scores

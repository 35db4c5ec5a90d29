"""What scikit-learn asks of a linear softmax classifier besides its training."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from classifier.model import log_softmax, score_blocks
from data.console import class_name
from data.dataset import Split
from data.errors import InputError
from data.labels import check_exact, class_indices, class_weights, places_of, scaled
from data.preprocessing import AffineMap, Preprocessing, Statistics, measure

GROWN = 10  # times its earlier scale, for a feature to be another one


class LinearEstimator(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A linear softmax classifier once it is trained, however that is done.

    Who trains it calls `_check`, `_set_classes`, `_weighted`, `_set_features` and `_design`, and
    then `_set_weights`. From then on `coef_` and `intercept_` are the model: all that is predicted,
    and all that a training goes on from, is computed from them.
    """

    class_weight: str | Mapping[Any, float] | None
    preprocessing: str
    fit_intercept: bool
    classes_: np.ndarray
    coef_: np.ndarray
    intercept_: np.ndarray
    _statistics: Statistics
    _features: AffineMap
    _exponent: int

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

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy on X (N, D) and labels y (N,), with sample weights (N,) or None."""
        if sample_weight is not None:  # of which the sum may be more than a float holds
            sample_weight, _ = scaled(np.asarray(sample_weight, dtype=np.float64))
        return float(super().score(X, y, sample_weight))

    def _check(
        self, X: Any, y: Any, sample_weight: Any, *, reset: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Return examples (N, D), labels (N,), and weights (N,) where any are given."""
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], reset=reset)
        check_exact(y, "y")
        check_classification_targets(y)
        if not isinstance(self.fit_intercept, bool | np.bool_):
            raise InputError(f"fit_intercept={self.fit_intercept}: must be True or False")
        if sample_weight is None:
            return X, y, None
        return (
            X,
            y,
            _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True),
        )

    def _set_classes(self, classes: np.ndarray) -> None:
        if len(classes) < 2:
            raise InputError(f"a classifier needs two classes or more, y has 1 class: {classes}")
        self.classes_ = classes

    def _named(self, y: np.ndarray) -> np.ndarray:
        """Return the classes (N,) that labels name, of which one may be text and one numbers."""
        kinds = {y.dtype.kind, self.classes_.dtype.kind}
        if len(kinds & {*"biuf"}) == 1 < len(kinds) or kinds == {"i", "u"}:
            labels = y if y.dtype.kind in "iu" else y.astype(str)
            named: np.ndarray = self.classes_[class_indices(labels, self.classes_, "y")]
            return named
        if len(unknown := np.setdiff1d(y, self.classes_)):
            raise InputError(f"y holds {class_name(unknown[0])}, which is not among the classes")
        return y

    def _check_is_like_the_last(self, X: np.ndarray, y: np.ndarray) -> None:
        """Raise InputError where a warm start has no weights for these examples."""
        classes, n_features = np.unique(y), np.shape(self.coef_)[1]
        if not np.array_equal(classes, self.classes_):
            raise InputError(f"warm_start: y holds the classes {classes}, not {self.classes_}")
        if X.shape[1] != n_features:
            raise InputError(f"warm_start: X has {X.shape[1]} features, not {n_features}")

    def _weighted(
        self,
        X: np.ndarray,
        y: np.ndarray,
        weights: np.ndarray | None,
        folds: np.ndarray | None = None,
    ) -> Split:
        """Return the examples that count at all, with class indices and all that they weigh.

        The weights are times 2 ** `_exponent`, which their sums might not be.
        """
        self._exponent = 0
        if weights is not None:
            weights, self._exponent = scaled(weights)
        examples = Split(X, np.searchsorted(self.classes_, y), weights, folds)
        of_class = self._class_weights(examples)
        if of_class is not None:
            own, of_own = scaled(of_class)
            weights, of_both = scaled(own[examples.y] * (1 if weights is None else weights))
            self._exponent += of_own + of_both
            examples = dataclasses.replace(examples, weights=weights)
        if weights is None:
            return examples
        if not (counts := weights > 0).any():
            raise InputError("sample_weight, class_weight: all are zero, no example counts")
        return examples if counts.all() else examples.select(counts)

    def _measured(self, examples: Split) -> Statistics:
        """Return the statistics of examples that `_weighted` returned, or of some of them."""
        return measure(examples.X, examples.weights, self._exponent)

    def _class_weights(self, examples: Split) -> np.ndarray | None:
        given, n_classes = self.class_weight, len(self.classes_)
        if given is None:
            return None
        if isinstance(given, Mapping):
            places = places_of(self.classes_)
            own = {name: given[name] for name in given if name in places or str(name) in places}
            # OneVsRestClassifier gives each of its problems the weights of all classes.
            given = own if len(own) >= n_classes else given
        totals = np.bincount(examples.y, weights=examples.weights, minlength=n_classes)
        return class_weights(given, self.classes_, totals, zero_allowed=True)

    def _set_features(self, statistics: Statistics) -> None:
        """Choose the preprocessing for examples of these statistics."""
        try:
            preprocessing = Preprocessing(method=self.preprocessing)
        except InputError as error:
            message = str(error).replace("method=", "preprocessing=")
            raise InputError(message) from error
        self._statistics, features = statistics, preprocessing.fit(statistics)
        if not self.fit_intercept:  # a shift would be an intercept by another name
            features = dataclasses.replace(features, shift=np.zeros_like(features.shift))
        self._features = features

    def _add_statistics(self, statistics: Statistics) -> None:
        """Choose the preprocessing for these examples and all earlier ones.

        The model stays as it is, but for features that varied much less before: what was learned of
        them there says too much here, and their weights stay those of the prepared features.
        """
        before = self._features
        at_mean = self.intercept_ + self.coef_ @ before.shift
        self._set_features(self._statistics.merge(statistics))
        shrunk = self.coef_ * (before.scale / self._features.scale)
        grown = self._features.scale > GROWN * before.scale
        coef = np.where(grown, shrunk, self.coef_)
        self.intercept_ = at_mean - coef @ before.shift
        self.coef_ = coef

    def _design(self, examples: Split) -> Split:
        """Return prepared examples (N, D + 1); without a bias its column is zero."""
        design = np.asarray(self._features.design_matrix(examples.X, examples.X.dtype.type))
        design[:, -1] = self.fit_intercept
        return dataclasses.replace(examples, X=design)

    def _set_weights(self, theta: np.ndarray) -> None:
        """Keep theta (C, D + 1) of the prepared features as weights of those that come."""
        self.coef_, self.intercept_ = self._unprepared(theta)

    def _unprepared(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return coefficients and intercepts for features as they come, in float64.

        Float32 would lose the spread of features that lie far from zero, as times in seconds do.
        """
        # x W / scale + (b - shift / scale W)
        with np.errstate(over="ignore", invalid="ignore"):
            coef = theta[:, :-1] / self._features.scale
            intercept = (theta[:, -1] - coef @ self._features.shift) * self.fit_intercept
        held = np.isfinite(coef).all() and np.isfinite(intercept).all()
        if np.isfinite(theta).all() and not held:
            raise InputError(
                f"X holds features with a spread of {self._features.scale.min():.1e}, for which "
                "float64 cannot hold coefficients; give them in other units"
            )
        if len(self.classes_) == 2:
            coef, intercept = coef[1:] - coef[:1], intercept[1:] - intercept[:1]
        return coef, intercept

    def _theta(self) -> np.ndarray:
        """Return the weights (C, D + 1) of prepared features that say the same, in float64."""
        coef = np.asarray(self.coef_, dtype=np.float64)
        intercept = np.asarray(self.intercept_, dtype=np.float64)
        if len(self.classes_) == 2:
            coef, intercept = np.vstack([-coef, coef]) / 2, np.array([-1, 1]) * intercept / 2
        bias = intercept + coef @ self._features.shift
        return np.column_stack([coef * self._features.scale, bias])

    def _scores(self, X: Any) -> np.ndarray:
        """Return f (N, C) in float64, of prepared features: they are small, and lose few digits."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        scores = np.empty((len(X), max(2, len(self.classes_))))
        for rows, block in score_blocks(self._features, self._theta(), X):
            scores[rows] = block
        return scores

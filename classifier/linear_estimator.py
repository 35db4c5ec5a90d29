"""What the estimators share: scikit-learn's contract, the features, the way to the optimum."""

import dataclasses
import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.random import Generator
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from classifier.fit import DIVERGED, DONE, STUCK, Fit, PerModel, nearness
from classifier.model import fold, log_softmax, score_blocks
from classifier.optimizers import DEVICES, Lbfgs
from classifier.optimum import FullBatchTraining
from classifier.shards import on_device
from data.dataset import SparseRows, Split, row_size, sparse_rows
from data.errors import InputError
from data.labels import check_exact, class_weights, places_of, scaled
from data.options import Options, option
from data.preprocessing import METHODS, Preprocessing, Statistics, measure

# Of sparse examples, whose zeros a shift would fill. Divided by their spread, as standardised, rare
# words would count most: 20 newsgroups then take a thousand passes.
UNSHIFTED = {"standardize": "scale", "center": "none"}
FLOATS = [np.float64, np.float32]  # types that examples keep
GROWN = 10  # times its earlier scale, for a feature to be another one
PASSES = 1000  # epochs of training to the optimum, which as a rule takes some tens


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class LinearEstimator(ClassifierMixin, BaseEstimator, Options):  # type: ignore[misc]
    """A linear softmax classifier and what its training needs, however it is trained.

    From the first fit on `coef_` and `intercept_` are the model: all that is predicted, and all
    that a training goes on from, is computed from them. The parameters are those of the estimators.
    """

    tol: float = option(above=0, maximum=1, default=1e-3)
    epochs: int | None = option(minimum=1, default=None)
    label_smoothing: float = option(minimum=0, below=1, default=0.0)
    preprocessing: str = option(choices=METHODS, default="standardize")
    fit_intercept: bool = True
    class_weight: Any = None
    device: str | None = option(choices=DEVICES, default=None)
    random_state: Any = None
    verbose: int = 0

    def __post_init__(self) -> None:
        """Check nothing: scikit-learn wants `fit` to do so, after `set_params` too."""

    def __sklearn_tags__(self) -> Any:
        """Say what scikit-learn asks."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the scores (N, C) of X (N, D); of two classes the difference, (N,)."""
        scores = self._scores(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: Any) -> np.ndarray:
        """Return the labels (N,) with the highest scores."""
        best = self._scores(X).argmax(axis=1)
        return np.asarray(self.classes_[best])

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return log p (N, C), in float64."""
        return log_softmax(self._scores(X))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return p (N, C), in float64."""
        return np.asarray(np.exp(self.predict_log_proba(X)))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy on X (N, D) and labels y (N,), with sample weights (N,) or None."""
        if sample_weight is not None:  # of which the sum may be more than a float holds
            sample_weight, _ = scaled(np.asarray(sample_weight, dtype=np.float64))
        return float(super().score(X, y, sample_weight))

    def _check(
        self, X: Any, y: Any, sample_weight: Any, *, reset: bool
    ) -> tuple[np.ndarray | SparseRows, np.ndarray, np.ndarray | None]:
        """Check the parameters; return examples (N, D), labels (N,), and weights (N,) or None."""
        super().__post_init__()
        X, y = validate_data(self, X, y, dtype=FLOATS, accept_sparse="csr", reset=reset)
        check_exact(y, "y")
        check_classification_targets(y)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(
                sample_weight, X, dtype=np.float64, ensure_non_negative=True
            )
        return (sparse_rows(X) if issparse(X) else X), y, sample_weight

    def _weighted(self, examples: Split) -> Split:
        """Return the examples that count at all, with all that they weigh.

        The weights are times 2 ** `_exponent`, which their sums might not be.
        """
        if len(self.classes_) < 2:
            raise InputError(f"y has 1 class, {self.classes_}: a classifier needs two or more")
        weights, wanted, self._exponent = examples.weights, self.class_weight, 0
        if weights is None and wanted is None:
            return examples
        weights, exponent = scaled(np.ones(len(examples)) if weights is None else weights)
        totals = np.bincount(examples.y, weights, len(self.classes_))
        if isinstance(wanted, Mapping):
            # OneVsRestClassifier gives each of its problems the weights of all classes.
            places = places_of(self.classes_)
            named = {n: w for n, w in wanted.items() if n in places or str(n) in places}
            wanted = named if len(named) >= len(self.classes_) else wanted
        of_class = class_weights(
            {} if wanted is None else wanted, self.classes_, totals, zero_allowed=True
        )
        weights, of_both = scaled(weights * of_class[examples.y])
        self._exponent = exponent + of_both
        examples, counts = dataclasses.replace(examples, weights=weights), weights > 0
        if not counts.any():
            raise InputError("sample_weight, class_weight: all are zero, no example counts")
        return examples if counts.all() else examples.select(counts)

    def _set_features(self, examples: Split, earlier: Statistics | None = None) -> None:
        """Choose the preprocessing for examples that `_weighted` returned, and for earlier ones."""
        statistics = measure(examples.X, examples.weights, self._exponent)
        self._statistics = statistics if earlier is None else earlier.merge(statistics)
        is_sparse, method = isinstance(examples.X, SparseRows), self.preprocessing
        method = UNSHIFTED.get(method, method) if is_sparse else method
        features = Preprocessing(method=method).fit(self._statistics)
        if not self.fit_intercept:  # a shift would be an intercept by another name
            features = dataclasses.replace(features, shift=np.zeros_like(features.shift))
        self._features = features

    def _design(self, examples: Split) -> Split:
        """Return prepared examples (N, D + 1); without a bias its column is zero."""
        dtype = np.float32 if self.device == "mps" else examples.X.dtype.type  # it has no float64
        design: Any = self._features.design_matrix(examples.X, dtype)
        if isinstance(design, SparseRows):  # the bias is the last value of each row
            values, _, ends = design.arrays
            values[ends[1:] - 1] = bool(self.fit_intercept)
        else:
            design[:, -1] = bool(self.fit_intercept)
        return on_device(dataclasses.replace(examples, X=design), self.device)

    def _to_optimum(
        self, train: Split, reg: np.ndarray, fold: np.ndarray, rng: Generator, *, everything: bool
    ) -> FullBatchTraining:
        """Return the training of models with penalties reg (G,).

        Parameters
        ----------
        train : prepared examples, with their folds where models leave one out.
        fold : (G,) the fold that each leaves out, -1 for none.
        rng : of `FullBatchTraining`.
        everything : whether to train also penalties that turn out weaker than needed.
        """
        smoothing, unused = np.full(len(reg), self.label_smoothing), np.full(len(reg), math.nan)
        return FullBatchTraining(
            train,
            train.select(slice(0, 0)),
            len(self.classes_),
            PerModel(unused, reg, unused, smoothing, fold),
            optimizer=Lbfgs(all_penalties=everything, tol=self.tol),
            # The examples as they came, and prepared.
            taken=2 * train.X.dtype.itemsize * row_size(train.X) * len(train),
            epochs=self.epochs or PASSES,
            rng=rng,
        )

    def _tell(self, fits: list[Fit]) -> None:
        """Print a line after an epoch, where that is asked for."""
        if self.verbose:
            print(f"epoch {fits[0].history[-1].epoch}: {_progress(fits)}")

    def _warn(self, fits: list[Fit]) -> None:
        """Warn where models diverged and, once, where some are not as near as `tol` asks for."""
        by_lr = "diverged with lr={:.4g}: use lr='auto' or a smaller one"
        messages = [
            fit.ended if math.isnan(fit.lr) else by_lr.format(fit.lr)
            for fit in fits
            if fit.status == DIVERGED
        ]
        short = [fit for fit in fits if fit.ended in (DONE, STUCK) and math.isnan(fit.lr)]
        if short:
            messages.append(
                f"{short[0].ended} ({self.epochs or PASSES}), {_progress(short)}; "
                f"tol={self.tol:g} asks for {100 * self.tol:g} %: use more epochs, a larger tol or "
                "a larger reg"
            )
        for message in messages:  # for whoever called `fit`, which has a decorator
            warnings.warn(message, ConvergenceWarning, stacklevel=4)

    def _keep_weights(self, fit: Fit) -> None:
        """Keep a model, and how far it is from its optimum where that is known."""
        self.coef_, self.intercept_ = self._unprepared(fit.theta)
        if fit.certificate is not None:
            self.objective_, self.excess_ = fit.certificate.objective, fit.certificate.relative

    def _unprepared(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return coefficients and intercepts for features as they come, in float64."""
        coef, intercept = fold(self._features, theta, "give them in other units")
        intercept *= bool(self.fit_intercept)
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

    def _add_to_features(self, examples: Split) -> None:
        """Choose the preprocessing for these examples and all earlier ones.

        The model stays as it is, but for features that varied much less before: what was learned of
        them there says too much here, and their weights stay those of the prepared features.
        """
        before = self._features
        at_mean = self.intercept_ + self.coef_ @ before.shift
        self._set_features(examples, self._statistics)
        grown = self._features.scale > GROWN * before.scale
        self.coef_ = self.coef_ * np.where(grown, before.scale / self._features.scale, 1.0)
        self.intercept_ = at_mean - self.coef_ @ before.shift

    def _scores(self, X: Any) -> np.ndarray:
        """Return f (N, C) in float64, of prepared features: they are small, and lose few digits."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=FLOATS, accept_sparse="csr", reset=False)
        theta, features = self._theta(), self._features
        if issparse(X):
            X = sparse_rows(X)
            theta[:, -1] -= theta[:, :-1] @ (features.shift / features.scale)
            features = dataclasses.replace(features, shift=np.zeros_like(features.shift))
        blocks = score_blocks(features, theta, X)
        return np.concatenate([scores.copy() for _, scores in blocks])


def generator(random: np.random.RandomState) -> Generator:
    """Return a generator that this one seeds."""
    return np.random.default_rng(random.randint(2**31 - 1, size=4))


def _progress(fits: list[Fit]) -> str:
    """Say where a model is; of several, the one that is the farthest from its optimum."""
    worst = max(fits, key=lambda fit: fit.certificate.relative if fit.certificate else -1.0)
    row = worst.history[-1]
    figures = {"training loss": row.train_loss, "held-out loss": row.val_loss}
    if worst.certificate is not None:
        figures["objective"] = worst.certificate.objective
    words = [f"{name} {value:.6g}" for name, value in figures.items() if value is not None]
    if worst.certificate and (near := nearness(worst.certificate.relative)):
        words.append(near)
    return f"{len(fits)} models, the farthest with " * (len(fits) > 1) + ", ".join(words)

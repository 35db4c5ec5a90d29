"""The penalty chosen by cross-validation, as a scikit-learn estimator: one training for all."""

import math
from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.model_selection import check_cv
from sklearn.utils import check_random_state

from classifier import blas
from classifier.estimator import PASSES
from classifier.estimator_fits import generator, per_model, to_optimum
from classifier.fit import DIVERGED, SKIPPED, Fit
from classifier.hyperparameters import Hyperparameters
from classifier.linear_estimator import LinearEstimator
from classifier.model_stack import PerModel
from classifier.optimizers import Lbfgs
from classifier.shards import evaluate_held_out
from data.dataset import Split
from data.errors import InputError, one_line
from data.preprocessing import AffineMap, Statistics

SCORINGS = ("neg_log_loss", "accuracy")
CHOICES = ("best", "1se")
STRONGEST, WEAKEST = 1e-1, 1e-5  # of a path, for features with a mean square of one


class SoftmaxClassifierCV(LinearEstimator):
    """`SoftmaxClassifier` with the penalty chosen by cross-validation.

    All penalties and folds are one stack: few penalties are solved, the others start from a curve
    through these, and folds from the model on all examples, each until it is certified. The model
    on all examples with the chosen penalty is there already; nothing is fitted again. The
    preprocessing is fitted on all examples, which shows the folds each other's means and spreads
    and no label.

    Parameters
    ----------
    reg : penalties, or how many, from 1e-1 to 1e-5 in equal steps of the logarithm, times the mean
        square of the preprocessed features that vary, which is one of standardised ones.
    cv : number of stratified folds, or a splitter or pairs of indices or masks, whose test parts
        hold each example once.
    scoring : 'neg_log_loss' or 'accuracy' on the fold left out, weighted as in training.
    choice : 'best', or '1se' for the strongest penalty within one standard error of the best score.
    all_penalties : whether to train also those that are weaker than needed: after the loss on the
        folds has risen, by more than its standard error, over a decade of penalties. It is set
        where accuracy is the score, which may rise with the loss.
    tol, epochs : of each model, as of `SoftmaxClassifier`.
    label_smoothing, preprocessing, fit_intercept, class_weight, random_state, verbose : likewise.

    Attributes
    ----------
    classes_, coef_, intercept_, n_features_in_, feature_names_in_ : as of `SoftmaxClassifier`.
    regs_ : (R,) the penalties, from strong to weak.
    Cs_ : (R,) what `LogisticRegression` calls the same: 1 / (2 reg N), of two classes 1 / (reg N);
        N is the sum of the weights.
    reg_, C_ : the one chosen.
    reg_1se_ : the strongest within one standard error of the best.
    scores_ : (K, R) on each fold left out; nan of penalties that were not needed.
    coefs_paths_ : (K, R, C, D + 1), of two classes (K, R, 1, D + 1), of the models of each fold,
        the intercept last; nan likewise.
    n_iter_ : (K + 1, R) passes of the models on all examples, and of those of each fold.
    objective_, excess_ : of the chosen model, as of `SoftmaxClassifier`.
    """

    def __init__(
        self,
        *,
        reg: Any = 45,
        cv: Any = 5,
        scoring: str = "neg_log_loss",
        choice: str = "best",
        all_penalties: bool = False,
        tol: float = 1e-3,
        epochs: int | None = None,
        label_smoothing: float = 0.0,
        preprocessing: str = "standardize",
        fit_intercept: bool = True,
        class_weight: str | Mapping[Any, float] | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.reg = reg
        self.cv = cv
        self.scoring = scoring
        self.choice = choice
        self.all_penalties = all_penalties
        self.tol = tol
        self.epochs = epochs
        self.label_smoothing = label_smoothing
        self.preprocessing = preprocessing
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.random_state = random_state
        self.verbose = verbose

    @blas.within_cores()
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "SoftmaxClassifierCV":
        """Train on X (N, D) and labels y (N,), with sample weights (N,) or None.

        Warns with a ConvergenceWarning where models end farther from their optimum than `tol`.

        Raises
        ------
        ValueError
            When a parameter, the data or the weights cannot be used.
        """
        for name, choices in (("scoring", SCORINGS), ("choice", CHOICES)):
            if getattr(self, name) not in choices:
                message = f"{name}={getattr(self, name)}: must be one of {', '.join(choices)}"
                raise InputError(message)
        X, y, weights = self._check(X, y, sample_weight, reset=True)
        self._set_classes(np.unique(y))
        given = self._weighted(X, y, weights, _folds(self.cv, X, y))
        n_folds = _check_folds(given)
        self._set_features(statistics := self._measured(given))
        train = self._design(given)
        self.regs_ = _penalties(self.reg, statistics, self._features)
        fold = np.repeat(np.arange(-1, n_folds), len(self.regs_))
        numbers = self._numbers()
        reg = np.tile(self.regs_, n_folds + 1)
        models = per_model(train, reg, numbers.label_smoothing, fold)
        fits = self._train(train, models, numbers.epochs)
        inverse = self.regs_ * statistics.weight * min(2, len(self.classes_) - 1)
        self.Cs_ = np.ldexp(1 / inverse, -statistics.exponent)
        self._score(train, fits, models)
        self._choose(fits)
        return self

    def _numbers(self) -> Hyperparameters:
        """Return the numbers, checked; those of minibatches are not used."""
        return Hyperparameters(
            lr="auto",
            reg=0.0,
            batch_size=1,
            epochs=PASSES if self.epochs is None else self.epochs,
            momentum=0.0,
            label_smoothing=self.label_smoothing,
        )

    def _train(self, train: Split, models: PerModel, epochs: int) -> list[Fit]:
        everything = self.all_penalties or self.scoring == "accuracy"
        optimizer = Lbfgs(all_penalties=everything, tol=self.tol)
        rng = generator(check_random_state(self.random_state))
        own = len(self.classes_), models, optimizer, epochs, rng
        fits = to_optimum(train, *own, verbose=self.verbose)
        self.n_iter_ = np.array([len(fit.history) for fit in fits]).reshape(-1, len(self.regs_))
        return fits

    def _score(self, train: Split, fits: list[Fit], models: PerModel) -> None:
        """Evaluate the models of the folds, those of a fold at once."""
        n_regs = len(self.regs_)
        scores, paths = [], []
        for first in range(n_regs, len(fits), n_regs):
            fold = range(first, first + n_regs)
            theta = np.stack([fits[g].theta for g in fold], axis=1)
            held_out = evaluate_held_out(train, theta, models.select(fold))
            scores.append(held_out.accuracy if self.scoring == "accuracy" else -held_out.loss)
            thetas = [fits[g].theta for g in fold]
            paths.append([np.column_stack(self._unprepared(theta)) for theta in thetas])
        missing = np.reshape([fit.status in (SKIPPED, DIVERGED) for fit in fits], (-1, n_regs))
        self.scores_, self.coefs_paths_ = np.array(scores), np.array(paths)
        for array in (self.scores_, self.coefs_paths_):
            array[:, missing.any(axis=0)] = math.nan

    def _choose(self, fits: list[Fit]) -> None:
        """Keep the model on all examples that the scores speak for."""
        mean = self.scores_.mean(axis=0)
        error = self.scores_.std(axis=0, ddof=1) / math.sqrt(len(self.scores_))
        best = int(np.nanargmax(mean))  # the strongest of equal ones
        strongest = int(np.argmax(mean >= mean[best] - error[best]))
        chosen = best if self.choice == "best" else strongest
        self.reg_, self.C_ = float(self.regs_[chosen]), float(self.Cs_[chosen])
        self.reg_1se_ = float(self.regs_[strongest])
        certificate = fits[chosen].certificate
        assert certificate is not None
        self.objective_, self.excess_ = certificate.objective, certificate.relative
        self._set_weights(fits[chosen].theta)


def _penalties(given: Any, statistics: Statistics, features: AffineMap) -> np.ndarray:
    """Return penalties (R,), each once, from strong to weak."""
    if isinstance(given, Integral) and not isinstance(given, bool) and int(given) > 0:
        square = (
            statistics.spread**2 + (statistics.mean - features.shift) ** 2
        ) / features.scale**2
        size = float(square[square > 0].mean()) if square.any() else 1.0
        return size * np.geomspace(STRONGEST, WEAKEST, int(given))
    try:
        found = np.unique(np.asarray(given, dtype=np.float64))[::-1]
    except (TypeError, ValueError):
        found = np.empty(0)
    if np.ndim(given) != 1 or len(found) == 0 or not (np.isfinite(found) & (found > 0)).all():
        raise InputError(f"reg={given}: must be penalties above 0, or how many")
    return found


def _folds(cv: Any, X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the fold that each example is left out in, (N,)."""
    folds, count = np.full(len(y), -1), np.zeros(len(y), dtype=np.int64)
    are_pairs = isinstance(cv, Iterable) and not isinstance(cv, str)
    name = "cv" if are_pairs else f"cv={cv}"  # pairs would fill pages
    try:
        splits = [(train, test) for train, test in check_cv(cv, y, classifier=True).split(X, y)]
    except (TypeError, ValueError) as error:
        reason = "must be pairs of a train and a test part" if are_pairs else one_line(error)
        raise InputError(f"{name}: {reason}") from error
    for k, split in enumerate(splits):
        train, test = (_rows(part, len(y), f"{name}: fold {k + 1}") for part in split)
        folds[test] = k
        np.add.at(count, test, 1)
        if len(np.setdiff1d(np.arange(len(y)), train)) != len(test) or np.isin(test, train).any():
            raise InputError(f"{name}: fold {k + 1} is not trained on all examples but its own")
    if not (count == 1).all():
        raise InputError(f"{name}: the test parts must hold each example once")
    return folds.astype(np.int64)


def _rows(part: Any, n: int, where: str) -> np.ndarray:
    """Return the indices of examples that are given by their indices, or by a mask."""
    rows = np.asarray(part)
    if rows.dtype == bool and rows.shape == (n,):
        return np.flatnonzero(rows)
    if rows.ndim != 1 or rows.dtype.kind not in "iu" or not ((rows >= -n) & (rows < n)).all():
        raise InputError(f"{where} must be indices of {n} examples, or masks of {n} booleans")
    counted: np.ndarray = rows.astype(np.int64) % n  # below zero from the end
    return counted


def _check_folds(examples: Split) -> int:
    """Return how many folds there are; raise InputError where not two of them count."""
    assert examples.folds is not None
    found, n_folds = np.unique(examples.folds), int(examples.folds.max()) + 1
    if len(found) < max(n_folds, 2):
        raise InputError(f"cv: examples that count are in {len(found)} folds; it takes two or more")
    return n_folds

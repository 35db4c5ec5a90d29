"""The penalty chosen by cross-validation, as a scikit-learn estimator: one training for all."""

import copy
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.model_selection import check_cv
from sklearn.utils import check_random_state

from classifier.fit import DIVERGED, RULES, SKIPPED, Fit
from classifier.linear_estimator import LinearEstimator, generator
from classifier.optimum import NUMBER, STRONGEST, WEAKEST, Path, search
from classifier.shards import evaluate_folds
from classifier.solver import Training
from data.dataset import Examples, Split
from data.errors import InputError, one_line
from data.machine import within_cores
from data.options import option


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
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
        square of the preprocessed features that vary, which is one of standardised ones. While the
        best of these is at an end, and the last decade before it brought more than a standard
        error and than 0.001, a decade is added there, to twelve decades at most.
    cv : number of stratified folds, or a splitter or pairs of indices or masks, whose test parts
        hold each example once.
    scoring : 'neg_log_loss' or 'accuracy' on the fold left out, weighted as in training.
    choice : 'best', or '1se' for the strongest penalty within one standard error of the best score.
    all_penalties : whether to train also those that are weaker than needed: after the loss on the
        folds has risen, by more than its standard error, over a decade of penalties. It is set
        where accuracy is the score, which may rise with the loss.
    tol, epochs : of each model, as of `SoftmaxClassifier`.
    label_smoothing, preprocessing, fit_intercept, class_weight : likewise.
    device, random_state, verbose : likewise.

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

    reg: Any = NUMBER
    cv: Any = 5
    scoring: str = option(choices=("neg_log_loss", "accuracy"), default="neg_log_loss")
    choice: str = option(choices=RULES, default="best")
    all_penalties: bool = False

    @within_cores()
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "SoftmaxClassifierCV":
        """Train on X (N, D) and labels y (N,), with sample weights (N,) or None.

        Warns with a ConvergenceWarning where models end farther from their optimum than `tol`.

        Raises
        ------
        ValueError
            When a parameter, the data or the weights cannot be used.
        """
        X, y, weights = self._check(X, y, sample_weight, reset=True)
        self.classes_, labels = np.unique(y, return_inverse=True)
        folds = _folds(self.cv, X, y)
        examples = self._weighted(Split(X, labels, weights, folds))
        assert examples.folds is not None
        n_folds, counting = int(folds.max()) + 1, len(np.unique(examples.folds))
        if counting < max(n_folds, 2):
            raise InputError(f"cv: examples that count are in {counting} folds, not in all")
        self._set_features(examples)
        train, rng = self._design(examples), generator(check_random_state(self.random_state))
        everything = self.all_penalties or self.scoring == "accuracy"

        def train_path(regs: np.ndarray, earlier: Training | None) -> tuple[Training, Path]:
            reg, fold = np.tile(regs, n_folds + 1), np.repeat(np.arange(-1, n_folds), len(regs))
            # The same numbers for each: a path that grows is that of a longer one.
            training = self._to_optimum(train, reg, fold, copy.deepcopy(rng), everything=everything)
            if earlier is not None:
                training.adopt(earlier)
            return training, self._judge(training, training.run(self._tell), regs)

        training, path = search(self._penalties(), train_path, lambda: np.ndim(self.reg) == 0)
        self._warn(training.fits)
        n_regs, self.regs_ = len(path.regs), path.regs
        self.n_iter_ = np.reshape([len(fit.history) for fit in training.fits], (-1, n_regs))
        of_folds = [np.column_stack(self._unprepared(f.theta)) for f in training.fits[n_regs:]]
        self.coefs_paths_ = np.reshape(of_folds, (n_folds, n_regs, *of_folds[0].shape))
        self.coefs_paths_[np.isnan(self.scores_)] = math.nan
        # With two classes LogisticRegression penalises the difference of their weights alone.
        weight, halves = self._statistics.weight, min(2, len(self.classes_) - 1)
        self.Cs_ = np.ldexp(1 / (self.regs_ * weight * halves), -self._statistics.exponent)
        chosen = path.chosen(self.choice)
        self.reg_, self.C_ = float(self.regs_[chosen]), float(self.Cs_[chosen])
        self.reg_1se_ = float(self.regs_[path.strongest])
        self._keep_weights(training.fits[chosen])
        return self

    def _judge(self, training: Training, fits: Sequence[Fit], regs: np.ndarray) -> Path:
        """Keep the scores (K, R) of the folds; return what each penalty costs."""
        held_out = evaluate_folds(training.train, [fit.theta for fit in fits], training.models)
        by_accuracy = self.scoring == "accuracy"
        self.scores_ = np.array([one.accuracy if by_accuracy else -one.loss for one in held_out])
        missing = np.reshape([fit.status in (SKIPPED, DIVERGED) for fit in fits], (-1, len(regs)))
        self.scores_[:, missing.any(axis=0)] = math.nan
        error = self.scores_.std(axis=0, ddof=1) / math.sqrt(len(self.scores_))
        return Path(regs, -self.scores_.mean(axis=0), error)

    def _penalties(self) -> np.ndarray:
        """Return the penalties (R,) to begin with, each once, from strong to weak."""
        regs = np.asarray(self.reg)
        are_numbers = regs.dtype.kind in ("iuf" if regs.ndim else "iu")
        if (
            not are_numbers
            or regs.ndim > 1
            or regs.size == 0
            or not ((regs > 0) & (regs < math.inf)).all()
        ):
            raise InputError(f"reg={self.reg}: must be penalties above 0, or how many")
        if regs.ndim:
            return np.unique(regs.astype(np.float64))[::-1]
        size = self._features.mean_square(self._statistics)
        return size * np.geomspace(STRONGEST, WEAKEST, int(self.reg))


def _folds(cv: Any, X: Examples, y: np.ndarray) -> np.ndarray:
    """Return the fold that each example is left out in, (N,)."""
    rows, folds, wholes, tests = np.arange(len(y)), np.full(len(y), -1), [], [np.empty(0, int)]
    try:
        for k, (train, test) in enumerate(check_cv(cv, y, classifier=True).split(X, y)):
            tests.append(rows[np.asarray(test)])
            wholes.append(np.concatenate([rows[np.asarray(train)], tests[-1]]))
            folds[tests[-1]] = k
        wholes.append(np.concatenate(tests))
    except (TypeError, ValueError, IndexError) as error:
        raise InputError(
            f"cv: {one_line(error)}; give a number of folds, a splitter, or pairs of indices or "
            "masks of a train and a test part"
        ) from error
    if not all(np.array_equal(np.sort(whole), rows) for whole in wholes):
        raise InputError("cv: each example must be in one test part and in all other train parts")
    return folds

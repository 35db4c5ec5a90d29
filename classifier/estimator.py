"""The classifier as scikit-learn estimators, trained as train.py trains."""

import copy
import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.model_selection import check_cv, train_test_split
from sklearn.utils import check_random_state

from classifier.fit import DIVERGED, RULES, SKIPPED, EarlyStopping, Fit, PerModel
from classifier.linear_estimator import LinearEstimator, generator
from classifier.minibatch import MinibatchTraining
from classifier.optimizers import (
    OPTIMIZERS,
    SCHEDULES,
    MinibatchOptimizer,
    Schedule,
    State,
    measure_scale,
)
from classifier.optimum import NUMBER, STRONGEST, WEAKEST, Path, search
from classifier.shards import certify_weights, evaluate_folds
from classifier.solver import Training
from data.dataset import Examples, SparseRows, Split
from data.errors import InputError, damage_told
from data.labels import check_exact, class_indices
from data.machine import within_cores
from data.options import option

EPOCHS, BATCH_SIZE, MOMENTUM, SCHEDULE = 100, 64, 0.9, "cosine"  # of minibatches, unless given
ASKING = ("lr", "batch_size", "momentum", "schedule", "early_stopping")  # for minibatches


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class SoftmaxClassifier(LinearEstimator):
    """A linear softmax classifier, trained to its optimum or by minibatch gradient descent.

    It minimises mean_i w_i (logsumexp(f_i) - f_i[y_i]) / mean(w) + reg * sum(W ** 2) with scores
    f = x W + b of the preprocessed features x; the bias b has no penalty. w_i is the weight of an
    example times that of its class, in the preprocessing too.

    Parameters
    ----------
    reg : weight of the penalty, without a 1/2; `LogisticRegression`'s C is 1 / (2 * reg * N), and
        of two classes 1 / (reg * N).
    tol : of 'lbfgs': how far above its lowest value the objective may be, relative to that.
    epochs : passes over the training data, at most; None is 1,000 of 'lbfgs', 100 of minibatches.
    optimizer : 'lbfgs' goes to the optimum, with nothing to tune; 'sgd', 'adam', or an object of
        `classifier.optimizers` take minibatches. 'auto' is 'lbfgs', or 'sgd' in `partial_fit` and
        where any of the parameters of minibatches is given, which are the next five.
    lr : step size, or 'auto', from the data: 1 / L with early stopping, as in the program, and
        where a fit is continued; otherwise, to come close to the optimum, longer by up to
        (1 + momentum) / (1 - momentum), the less the minibatches differ.
    batch_size : examples a step at most, about equal in an epoch; None is 64.
    momentum : share of the old velocity; Adam's beta1; None is 0.9.
    schedule : 'cosine', 'constant', 'step', 'exponential', or an object of `classifier.optimizers`;
        None is 'cosine'.
    early_stopping : whether to hold out a part of the data, keep the epoch with the lowest loss on
        it, and end after `patience` epochs without a better one.
    patience, validation_fraction : of early stopping; the fraction is above 0 and below 1.
    label_smoothing : share of a label that is spread over all classes.
    preprocessing : 'standardize', 'center', 'scale' or 'none'; of a sparse X the first is 'scale',
        as by scikit-learn's MaxAbsScaler, and the second 'none', for a shift would fill the zeros.
    fit_intercept : whether there is a bias. Without one the preprocessing does not shift features
        either, which would be a bias of the features as they come: it scales them only.
    class_weight : None, 'balanced', or a dict from classes to weights.
    warm_start : whether `fit` begins with the weights of the last fit.
    device : 'cuda', 'mps' or 'cpu': where 'lbfgs' makes its passes, by PyTorch, on MPS in float32;
        None: by numpy.
    random_state : seed or generator, of the order of the examples and of the held-out part.
    verbose : 1 prints a line after each epoch.

    Attributes
    ----------
    classes_ : (C,) labels, sorted; also those of which no example has a weight.
    coef_, intercept_ : (C, D) and (C,) for features as they come, before preprocessing; of two
        classes (1, D) and (1,), of the difference between the second and the first. They are the
        model: what is written to them counts.
    n_features_in_, feature_names_in_ : of the data.
    n_iter_ : epochs trained.
    objective_, excess_ : what is minimised, after the last `fit`, and how far it is at most above
        its lowest value, relative to that; inf without a penalty.
    lr_ : the step size used; nan of 'lbfgs'.
    loss_curve_ : the mean training loss of each epoch, without penalty and label smoothing.
    validation_scores_ : the accuracy on the held-out part after each epoch; None without.
    """

    reg: float = option(minimum=0, maximum=1e15, default=1e-4)
    optimizer: Any = "auto"
    lr: float | str = option(above=0, maximum=1e30, choices=("auto",), default="auto")
    batch_size: int | None = option(minimum=1, default=None)
    momentum: float | None = option(minimum=0, maximum=0.9999, default=None)
    schedule: Any = None
    early_stopping: bool = False
    patience: int = option(minimum=1, default=20)
    validation_fraction: float = option(above=0, below=1, default=0.1)
    warm_start: bool = False

    @within_cores()
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "SoftmaxClassifier":
        """Train on X (N, D) and labels y (N,), with sample weights (N,) or None.

        Warns with a ConvergenceWarning where training ends farther from the optimum than `tol`, or
        by minibatches diverges.

        Raises
        ------
        ValueError
            When a parameter, the data or the weights cannot be used.
        """
        is_warm = self.warm_start and hasattr(self, "coef_")
        X, y, weights = self._check(X, y, sample_weight, reset=not is_warm)
        optimizer = self._find_optimizer(X, "lbfgs")
        classes, labels = np.unique(y, return_inverse=True)
        if is_warm and not np.array_equal(classes, self.classes_):
            raise InputError(f"warm_start: y holds the classes {classes}, not {self.classes_}")
        self.classes_: np.ndarray = classes
        random = check_random_state(self.random_state)
        train, val = self._hold_out(self._weighted(Split(X, labels, weights)), random)
        self._set_features(train)
        train, val, rng = self._design(train), self._design(val), generator(random)
        training: Any
        if optimizer is None:
            reg, fold = np.array([self.reg]), np.array([-1])
            training = self._to_optimum(train, reg, fold, rng, everything=True)
        else:
            is_bold = not is_warm and not self.early_stopping
            length = self.epochs or EPOCHS, self.schedule or SCHEDULE
            training = self._by_minibatches(train, val, optimizer, rng, *length, is_bold=is_bold)
        if is_warm:
            training.start_from(self._theta()[:, None])
        (fit,) = training.run(self._tell)
        if fit.certificate is None:  # of minibatches, and of what diverged at once
            (fit.certificate,) = certify_weights(train, fit.theta[:, None], training.models)
            fit.keeps(fit.theta, fit.certificate.objective, loss=fit.certificate.loss)
        self._warn([fit])
        self._keep(fit, is_first=True)
        self._steps = 0, State()
        return self

    @within_cores()
    def partial_fit(
        self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None
    ) -> "SoftmaxClassifier":
        """Train for one more epoch, on these examples alone, with minibatches and a constant step.

        The optimizer goes on where the last call left it. The preprocessing is that of all examples
        seen so far, and lr='auto' is measured anew in each call, so that a first call with few
        examples, or equal ones, does no harm. The classes are those of the first call.

        Parameters
        ----------
        X, y, sample_weight : as in `fit`.
        classes : every label there will be; needed in the first call.
        """
        is_first = not hasattr(self, "coef_")
        X, y, weights = self._check(X, y, sample_weight, reset=is_first)
        if self.early_stopping:
            raise InputError("early_stopping=True: partial_fit holds nothing out; set it to False")
        if self.class_weight == "balanced":
            raise InputError("class_weight='balanced' needs all examples: give partial_fit a dict")
        optimizer = self._find_optimizer(X, "sgd")
        if optimizer is None:
            raise InputError("optimizer=lbfgs: partial_fit takes minibatches; use 'auto' or 'sgd'")
        if is_first and classes is None:
            raise InputError("classes must be passed on the first call to partial_fit")
        distinct = self.classes_ if classes is None else np.unique(classes)
        check_exact(distinct, "classes")
        if is_first:
            self.classes_ = distinct
        elif not np.array_equal(distinct, self.classes_):
            raise InputError(f"classes={classes} are not those of the first call: {self.classes_}")
        examples = self._weighted(Split(X, class_indices(y, self.classes_, "y"), weights))
        if is_first:
            self._set_features(examples)
            self._steps = 0, State()  # epochs, and the state of the optimizer after them
        else:
            self._add_to_features(examples)
        train, rng = self._design(examples), generator(check_random_state(self.random_state))
        nothing, epochs = train.select(slice(0, 0)), self._steps[0] + 1
        training = self._by_minibatches(train, nothing, optimizer, rng, epochs, "constant")
        if not is_first:
            training.start_from(self._theta()[:, None], *self._steps)
        (fit,) = training.run(self._tell)
        self._warn([fit])
        self._keep(fit, is_first=is_first)
        self._steps = (training.epoch, training.arrays) if training.stack else (0, {})
        return self

    def _find_optimizer(self, X: Any, usual: str) -> MinibatchOptimizer | None:
        """Return what takes the steps, None for L-BFGS; raise InputError where others misfit it.

        'auto' is the usual one where no parameter of minibatches is given.
        """
        asking = [name for name in ASKING if getattr(self, name) != getattr(type(self), name)]
        optimizer = ("sgd" if asking else usual) if self.optimizer == "auto" else self.optimizer
        if optimizer == "lbfgs" and asking:
            given = f"{asking[0]}={getattr(self, asking[0])}: optimizer='lbfgs' sees all examples"
            raise InputError(f"{given} at once; leave {asking[0]} out, or use optimizer='sgd'")
        if optimizer == "lbfgs":
            return None
        if isinstance(X, SparseRows):
            raise InputError("X is sparse: minibatches take dense examples; use optimizer='lbfgs'")
        if self.device is not None:
            raise InputError(f"device={self.device}: is for optimizer='lbfgs' alone; leave it out")
        chosen: MinibatchOptimizer
        chosen = _look_up("optimizer", optimizer, OPTIMIZERS, MinibatchOptimizer)
        return chosen

    def _hold_out(self, examples: Split, random: np.random.RandomState) -> tuple[Split, Split]:
        """Return what is trained on, and what early stopping looks at."""
        if not self.early_stopping:
            return examples, examples.select(slice(0, 0))
        rows, share = np.arange(len(examples)), float(self.validation_fraction)
        with damage_told(f"validation_fraction={share}: no part may lack a class"):
            kept, held_out = train_test_split(
                rows, test_size=share, stratify=examples.y, random_state=random
            )
        return examples.select(kept), examples.select(held_out)

    def _by_minibatches(
        self,
        train: Split,
        val: Split,
        optimizer: MinibatchOptimizer,
        rng: np.random.Generator,
        epochs: int,
        schedule: Any,
        *,
        is_bold: bool = False,
    ) -> MinibatchTraining:
        """Return a training before its first step; a bold one makes the most of lr='auto'."""
        momentum = MOMENTUM if self.momentum is None else self.momentum
        lr, batch_size = self.lr, self.batch_size or BATCH_SIZE
        if lr == "auto":
            scale = measure_scale(train.X, rng, train.weights)
            bold = optimizer.bold_lr(scale, self.reg, momentum, batch_size)
            lr = bold if is_bold else optimizer.auto_lr(scale, self.reg)
        numbers = np.array([[lr], [self.reg], [momentum], [self.label_smoothing]], dtype=np.float64)
        rates, penalties, momenta, smoothings = numbers
        models = PerModel(rates, penalties, momenta, smoothings, fold=np.array([-1]))
        return MinibatchTraining(
            train,
            val,
            len(self.classes_),
            models,
            optimizer=optimizer,
            schedule=_look_up("schedule", schedule, SCHEDULES, Schedule),
            early_stopping=EarlyStopping(monitor="val_loss", patience=self.patience),
            batch_size=batch_size,
            epochs=epochs,
            rng=rng,
        )

    def _keep(self, fit: Fit, *, is_first: bool) -> None:
        self._keep_weights(fit)
        self.lr_, losses = fit.lr, [row.train_loss for row in fit.history]
        self.loss_curve_: list[float] = losses if is_first else self.loss_curve_ + losses
        self.n_iter_ = len(self.loss_curve_)
        scores = [row.val_accuracy for row in fit.history if row.val_accuracy is not None]
        self.validation_scores_ = scores or None


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
            fits = training.run(self._tell)
            held_out = evaluate_folds(training.train, [fit.theta for fit in fits], training.models)
            figures = [
                one.accuracy if self.scoring == "accuracy" else -one.loss for one in held_out
            ]
            self.scores_ = np.array(figures)
            missing = [fit.status in (SKIPPED, DIVERGED) for fit in fits]
            self.scores_[:, np.reshape(missing, (-1, len(regs))).any(axis=0)] = math.nan
            error = self.scores_.std(axis=0, ddof=1) / math.sqrt(n_folds)
            return training, Path(regs, -self.scores_.mean(axis=0), error)

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

    def _penalties(self) -> np.ndarray:
        """Return the penalties (R,) to begin with, each once, from strong to weak."""
        regs = np.asarray(self.reg)
        are_numbers = regs.dtype.kind in ("iuf" if regs.ndim else "iu")
        is_list = regs.ndim < 2 and regs.size > 0
        if not (are_numbers and is_list and ((regs > 0) & (regs < math.inf)).all()):
            raise InputError(f"reg={self.reg}: must be penalties above 0, or how many")
        if regs.ndim:
            return np.unique(regs.astype(np.float64))[::-1]
        size = self._features.mean_square(self._statistics)
        return size * np.geomspace(STRONGEST, WEAKEST, int(self.reg))


def _look_up(name: str, value: Any, choices: Mapping[str, Any], kind: Any) -> Any:
    """Return what a parameter names, or the object it is, of this kind."""
    chosen = choices[value]() if isinstance(value, str) and value in choices else value
    if not isinstance(chosen, kind):
        raise InputError(
            f"{name}={value}: must be one of {', '.join(choices)}, an object or left out"
        )
    return chosen


def _folds(cv: Any, X: Examples, y: np.ndarray) -> np.ndarray:
    """Return the fold that each example is left out in, (N,)."""
    rows, folds, wholes, tests = np.arange(len(y)), np.full(len(y), -1), [], [np.empty(0, int)]
    parts = "pairs of indices or masks of a train and a test part"
    with damage_told(f"cv: must be a number of folds, a splitter, or {parts}"):
        for k, (train, test) in enumerate(check_cv(cv, y, classifier=True).split(X, y)):
            tests.append(rows[np.asarray(test)])
            wholes.append(np.concatenate([rows[np.asarray(train)], tests[-1]]))
            folds[tests[-1]] = k
        wholes.append(np.concatenate(tests))
    if not all(np.array_equal(np.sort(whole), rows) for whole in wholes):
        raise InputError("cv: each example must be in one test part and in all other train parts")
    return folds

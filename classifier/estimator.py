"""The classifier as a scikit-learn estimator, trained as train.py trains."""

from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state

from classifier import blas
from classifier.estimator_fits import (
    NOT_GIVEN,
    SCHEDULES,
    by_minibatches,
    certified,
    choose_optimizer,
    generator,
    look_up,
    minibatch_training,
    per_model,
    to_optimum,
)
from classifier.fit import EarlyStopping, Fit
from classifier.hyperparameters import Hyperparameters
from classifier.linear_estimator import LinearEstimator
from classifier.minibatch import MinibatchTraining
from classifier.optimizers import Lbfgs, MinibatchOptimizer, State
from classifier.schedules import Schedule
from data.dataset import Split
from data.errors import InputError
from data.labels import check_exact

PASSES = 1000  # epochs of training to the optimum, which as a rule takes some tens
MINIBATCHES: dict[str, Any] = {
    "epochs": 100,
    "batch_size": 64,
    "momentum": 0.9,
    "schedule": "cosine",
}


class SoftmaxClassifier(LinearEstimator):
    """A linear softmax classifier, trained to its optimum or by minibatch gradient descent.

    It minimises mean_i w_i (logsumexp(f_i) - f_i[y_i]) / mean(w) + reg * sum(W ** 2) with scores
    f = x W + b of the preprocessed features x; the bias b has no penalty. w_i is the weight of an
    example times that of its class, in the preprocessing too.

    Parameters
    ----------
    reg : weight of the penalty, without a 1/2; `LogisticRegression`'s C is 1 / (2 * reg * N).
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
    schedule : 'cosine', 'constant', 'step', 'exponential', or an object of `classifier.schedules`;
        None is 'cosine'.
    early_stopping : whether to hold out a part of the data, keep the epoch with the lowest loss on
        it, and end after `patience` epochs without a better one.
    patience, validation_fraction : of early stopping; the fraction is above 0 and below 1.
    label_smoothing : share of a label that is spread over all classes.
    preprocessing : 'standardize', 'center', 'scale' or 'none'.
    fit_intercept : whether there is a bias. Without one the preprocessing does not shift features
        either, which would be a bias of the features as they come: it scales them only.
    class_weight : None, 'balanced', or a dict from classes to weights.
    warm_start : whether `fit` begins with the weights of the last fit.
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

    n_iter_: int
    loss_curve_: list[float]
    _optimizer_epochs: int  # since its state was new
    _optimizer_state: State

    def __init__(
        self,
        *,
        reg: float = 1e-4,
        tol: float = 1e-3,
        epochs: int | None = None,
        optimizer: str | MinibatchOptimizer = "auto",
        lr: float | str = "auto",
        batch_size: int | None = None,
        momentum: float | None = None,
        schedule: str | Schedule | None = None,
        early_stopping: bool = False,
        patience: int = 20,
        validation_fraction: float = 0.1,
        label_smoothing: float = 0.0,
        preprocessing: str = "standardize",
        fit_intercept: bool = True,
        class_weight: str | Mapping[Any, float] | None = None,
        warm_start: bool = False,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.reg = reg
        self.tol = tol
        self.epochs = epochs
        self.optimizer = optimizer
        self.lr = lr
        self.batch_size = batch_size
        self.momentum = momentum
        self.schedule = schedule
        self.early_stopping = early_stopping
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.label_smoothing = label_smoothing
        self.preprocessing = preprocessing
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    @blas.within_cores()
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "SoftmaxClassifier":
        """Train on X (N, D) and labels y (N,), with sample weights (N,) or None.

        Warns with a ConvergenceWarning where training ends farther from the optimum than `tol`, or
        by minibatches diverges.

        Raises
        ------
        ValueError
            When a parameter, the data or the weights cannot be used.
        """
        optimizer = self._optimizer()
        X, y, weights = self._check(X, y, sample_weight, reset=True)
        goes_on = self.warm_start and hasattr(self, "coef_")
        if goes_on:
            self._check_is_like_the_last(X, y)
        self._set_classes(np.unique(y))
        random = check_random_state(self.random_state)
        train, val = self._hold_out(self._weighted(X, y, weights), random)
        self._set_features(self._measured(train))
        train, val, rng = self._design(train), self._design(val), generator(random)
        theta = self._theta()[:, None] if goes_on else None
        numbers = self._numbers(optimizer)
        models = per_model(train, np.array([numbers.reg]), numbers.label_smoothing)
        if isinstance(optimizer, Lbfgs):
            own = len(self.classes_), models, optimizer, numbers.epochs, rng
            (fit,) = to_optimum(train, *own, theta=theta, verbose=self.verbose)
        else:
            bold = not goes_on and not self.early_stopping
            fit = self._by_minibatches(self._training(train, val, optimizer, rng, bold), theta)
        found = certified(fit, train, models, lr_is_auto=self.lr == "auto")
        self.objective_, self.excess_ = found.objective, found.relative
        self._forget()
        self._keep(fit)
        return self

    @blas.within_cores()
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
        optimizer = self._optimizer(partial=True)
        assert isinstance(optimizer, MinibatchOptimizer)
        first = not hasattr(self, "coef_")
        X, y, weights = self._check(X, y, sample_weight, reset=first)
        if first and classes is None:
            raise InputError("classes must be passed on the first call to partial_fit")
        if classes is not None:
            check_exact(np.asarray(classes), "classes")
        if first:
            self._set_classes(np.unique(classes))
        elif classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise InputError(f"classes={classes} are not those of the first call: {self.classes_}")
        given = self._weighted(X, self._named(y), weights)
        statistics = self._measured(given)
        if first:
            self._set_features(statistics)
            self._forget()
        else:
            self._add_statistics(statistics)
        data, rng = self._design(given), generator(check_random_state(self.random_state))
        nothing, epoch = data.select(slice(0, 0)), self._optimizer_epochs
        training = self._training(data, nothing, optimizer, rng, partial=True)
        theta = None if first else self._theta()[:, None]
        self._keep(self._by_minibatches(training, theta, epoch, self._optimizer_state))
        self._optimizer_epochs = training.epoch if training.stack else 0
        self._optimizer_state = training.arrays if training.stack else {}
        return self

    def _optimizer(self, *, partial: bool = False) -> Lbfgs | MinibatchOptimizer:
        """Return what takes the steps; raise InputError where other parameters do not fit it."""
        if partial and self.early_stopping:
            raise InputError("early_stopping=True: partial_fit holds nothing out; set it to False")
        if partial and self.class_weight == "balanced":
            raise InputError("class_weight='balanced' needs all examples: give partial_fit a dict")
        parameters = {name: getattr(self, name) for name in NOT_GIVEN}
        return choose_optimizer(self.optimizer, self.tol, parameters, partial=partial)

    def _numbers(self, optimizer: Lbfgs | MinibatchOptimizer) -> Hyperparameters:
        epochs = PASSES if isinstance(optimizer, Lbfgs) else MINIBATCHES["epochs"]
        return Hyperparameters(
            lr=self.lr,
            reg=self.reg,
            batch_size=MINIBATCHES["batch_size"] if self.batch_size is None else self.batch_size,
            epochs=epochs if self.epochs is None else self.epochs,
            momentum=MINIBATCHES["momentum"] if self.momentum is None else self.momentum,
            label_smoothing=self.label_smoothing,
        )

    def _hold_out(self, given: Split, random: np.random.RandomState) -> tuple[Split, Split]:
        """Return what is trained on, and what early stopping looks at."""
        share = self.validation_fraction
        if not isinstance(share, Real) or isinstance(share, bool) or not 0 < share < 1:
            raise InputError(f"validation_fraction={share}: must be a number above 0 and below 1")
        if not self.early_stopping:
            return given, given.select(slice(0, 0))
        try:
            kept, held_out = train_test_split(
                np.arange(len(given)), test_size=float(share), stratify=given.y, random_state=random
            )
        except ValueError as error:
            raise InputError(
                f"validation_fraction={share}: {len(given)} examples cannot be parted so that both "
                "parts hold each class; give more examples or set early_stopping=False"
            ) from error
        return given.select(kept), given.select(held_out)

    def _training(
        self,
        train: Split,
        val: Split,
        optimizer: MinibatchOptimizer,
        rng: np.random.Generator,
        bold: bool = False,
        partial: bool = False,
    ) -> MinibatchTraining:
        """Return a training before its first step; a part of one is an epoch long."""
        numbers = self._numbers(optimizer)
        schedule = MINIBATCHES["schedule"] if self.schedule is None else self.schedule
        if partial:
            schedule, numbers.epochs = "constant", self._optimizer_epochs + 1
        return minibatch_training(
            train,
            val,
            len(self.classes_),
            numbers,
            optimizer,
            look_up("schedule", schedule, SCHEDULES, Schedule),
            EarlyStopping(monitor="val_loss", patience=self.patience),
            rng,
            bold=bold,
        )

    def _by_minibatches(
        self, training: MinibatchTraining, theta: np.ndarray | None, *state: Any
    ) -> Fit:
        if theta is not None:
            training.start_from(theta, *state)
        is_auto = self.lr == "auto"
        fit = by_minibatches(training, lr_is_auto=is_auto, verbose=self.verbose)
        rows = fit.history if len(training.val) else []
        self.validation_scores_ = [row.val_accuracy for row in rows] or None
        return fit

    def _forget(self) -> None:
        """Begin to count."""
        self.n_iter_, self.loss_curve_ = 0, []
        self._optimizer_epochs, self._optimizer_state = 0, {}

    def _keep(self, fit: Fit) -> None:
        self._set_weights(fit.theta)
        self.lr_ = fit.lr
        self.n_iter_ += len(fit.history)
        self.loss_curve_ += [row.train_loss for row in fit.history]

"""The classifier as a scikit-learn estimator, trained by the loop that train.py uses."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state

from classifier import blas
from classifier.curvature import measure_scale
from classifier.fit import EarlyStopping
from classifier.hyperparameters import Hyperparameters
from classifier.linear_estimator import LinearEstimator
from classifier.model_stack import PerModel
from classifier.optimizers import Adam, MinibatchOptimizer, Sgd
from classifier.schedules import Constant, Cosine, Exponential, Schedule, Step
from classifier.training import Training
from data.dataset import Split
from data.errors import InputError
from data.preprocessing import AffineMap, Preprocessing
from data.statistics import measure

OPTIMIZERS: dict[str, MinibatchOptimizer] = {
    "sgd": Sgd(nesterov=False),
    "adam": Adam(beta2=0.999, epsilon=1e-8),
}
SCHEDULES: dict[str, Schedule] = {
    "constant": Constant(warmup_steps=0),
    "cosine": Cosine(warmup_steps=0),
    "step": Step(warmup_steps=0, gamma=0.1, every=30),
    "exponential": Exponential(warmup_steps=0, gamma=0.95),
}


class SoftmaxClassifier(LinearEstimator):
    """A linear softmax classifier, trained by minibatch gradient descent.

    It minimises mean_i w_i (logsumexp(f_i) - f_i[y_i]) / mean(w) + reg * sum(W ** 2) with scores
    f = x W + b of the preprocessed features x; the bias b has no penalty. Parameters have the names
    and the defaults of the program's config, but for `early_stopping`.

    Parameters
    ----------
    lr : step size, or 'auto', from the data: 1 / L with early stopping, as in the program, and
        where a fit is continued; otherwise, to come close to the optimum, longer by up to
        (1 + momentum) / (1 - momentum), the less the minibatches differ.
    reg : weight of the penalty, without a 1/2; `LogisticRegression`'s C is 1 / (2 * reg * N).
    batch_size : examples a step at most; the minibatches of an epoch are about equal in size.
    epochs : passes over the training data, at most.
    momentum : share of the old velocity; Adam's beta1.
    label_smoothing : share of a label that is spread over all classes.
    optimizer : 'sgd', 'adam', or an object of `classifier.optimizers`.
    schedule : 'cosine', 'constant', 'step', 'exponential', or an object of `classifier.schedules`.
    preprocessing : 'standardize', 'center', 'scale' or 'none'.
    early_stopping : whether to hold out a part of the data, keep the epoch with the lowest loss on
        it, and end after `patience` epochs without a better one.
    patience, validation_fraction : of early stopping.
    class_weight : None, 'balanced', or a dict from classes to weights.
    warm_start : whether `fit` begins with the weights of the last fit.
    random_state : seed or generator, of the order of the examples and of the held-out part.

    Attributes
    ----------
    classes_ : (C,) labels, sorted.
    coef_, intercept_ : (C, D) and (C,) for features as they come, before preprocessing; of two
        classes (1, D) and (1,), of the difference between the second and the first.
    n_features_in_, feature_names_in_ : of the data.
    n_iter_ : epochs trained.
    lr_ : the step size used.
    loss_curve_ : the mean training loss of each epoch, without penalty and label smoothing.
    validation_scores_ : the accuracy on the held-out part after each epoch; None without.
    """

    def __init__(
        self,
        *,
        lr: float | str = "auto",
        reg: float = 1e-4,
        batch_size: int = 64,
        epochs: int = 100,
        momentum: float = 0.9,
        label_smoothing: float = 0.0,
        optimizer: str | MinibatchOptimizer = "sgd",
        schedule: str | Schedule = "cosine",
        preprocessing: str = "standardize",
        early_stopping: bool = False,
        patience: int = 20,
        validation_fraction: float = 0.1,
        class_weight: str | Mapping[Any, float] | None = None,
        warm_start: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.lr = lr
        self.reg = reg
        self.batch_size = batch_size
        self.epochs = epochs
        self.momentum = momentum
        self.label_smoothing = label_smoothing
        self.optimizer = optimizer
        self.schedule = schedule
        self.preprocessing = preprocessing
        self.early_stopping = early_stopping
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.class_weight = class_weight
        self.warm_start = warm_start
        self.random_state = random_state

    @blas.within_cores()
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "SoftmaxClassifier":
        """Train on X (N, D) and labels y (N,), with sample weights (N,) or None.

        Raises
        ------
        ValueError
            When a parameter, the data or the weights cannot be used.
        """
        X, y, weights = self._check(X, y, sample_weight, reset=True)
        before = None
        if self.warm_start and hasattr(self, "_theta"):
            before = self._features, self._theta
        classes = np.unique(y)
        if before is not None and not np.array_equal(classes, self.classes_):
            raise InputError(f"warm_start: y holds the classes {classes}, not {self.classes_}")
        self._set_classes(classes)
        given = Split(X, np.searchsorted(classes, y), weights)
        random = check_random_state(self.random_state)
        train, val = given, given.select(slice(0, 0))
        if self.early_stopping:
            kept, held_out = train_test_split(
                np.arange(len(y)),
                test_size=self.validation_fraction,
                stratify=given.y,
                random_state=random,
            )
            train, val = given.select(kept), given.select(held_out)
        self._set_features(train)
        of_class = self._class_weights(given)
        train, val = (self._design(split, of_class) for split in (train, val))
        rng = _generator(random)
        self._set_lr(train, rng, bold=before is None and not self.early_stopping)
        schedule = _look_up("schedule", self.schedule, SCHEDULES, Schedule)
        training = self._training(train, val, schedule, self.epochs, rng)
        if before is not None:
            training.start_from(self._translate(*before)[:, None])
        self.loss_curve_: list[float] = []
        self._optimizer_state: dict[str, np.ndarray] = {}
        self._run(training)
        return self

    @blas.within_cores()
    def partial_fit(
        self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None
    ) -> "SoftmaxClassifier":
        """Train for one more epoch, on these examples alone, with a constant step.

        The optimizer goes on where the last call left it. The step, the preprocessing and the
        classes are those of the first call.

        Parameters
        ----------
        X, y, sample_weight : as in `fit`.
        classes : every label there will be; needed in the first call.
        """
        if self.class_weight == "balanced":
            raise InputError("class_weight='balanced' needs all examples: give partial_fit a dict")
        first = not hasattr(self, "_theta")
        X, y, weights = self._check(X, y, sample_weight, reset=first)
        if first and classes is None:
            raise InputError("classes must be passed on the first call to partial_fit")
        if first:
            self._set_classes(np.unique(classes))
        elif classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise InputError(f"classes={classes} are not those of the first call: {self.classes_}")
        if len(unknown := np.setdiff1d(y, self.classes_)):
            raise InputError(f"y holds {unknown[0]}, which is not among the classes")
        given = Split(X, np.searchsorted(self.classes_, y), weights)
        if first:
            self._set_features(given)
            self.loss_curve_ = []
        data = self._design(given, self._class_weights(given))
        rng = _generator(check_random_state(self.random_state))
        if first:
            self._set_lr(data, rng, bold=False)
        epoch = 0 if first else self.n_iter_
        nothing = data.select(slice(0, 0))
        training = self._training(data, nothing, SCHEDULES["constant"], epoch + 1, rng)
        if not first:
            training.start_from(self._theta[:, None], epoch, self._optimizer_state)
        self._run(training)
        state = training.state()
        self._optimizer_state = state.optimizer if state.stack else {}
        return self

    def _set_features(self, train: Split) -> None:
        try:
            preprocessing = Preprocessing(method=self.preprocessing)
        except InputError as error:
            message = str(error).replace("method=", "preprocessing=")
            raise InputError(message) from error
        self._features = preprocessing.fit(measure(train.X, train.weights))

    def _design(self, given: Split, of_class: np.ndarray | None) -> Split:
        """Return the design matrix, and weights with those of the classes (C,) in them."""
        weights = given.weights
        if of_class is not None:
            weights = of_class[given.y] * (1 if weights is None else weights)
        design = self._features.design_matrix(given.X, given.X.dtype.type)
        return Split(design, given.y, weights)

    def _numbers(self) -> Hyperparameters:
        return Hyperparameters(
            lr=self.lr,
            reg=self.reg,
            batch_size=self.batch_size,
            epochs=self.epochs,
            momentum=self.momentum,
            label_smoothing=self.label_smoothing,
        )

    def _optimizer(self) -> MinibatchOptimizer:
        found: MinibatchOptimizer = _look_up(
            "optimizer", self.optimizer, OPTIMIZERS, MinibatchOptimizer
        )
        return found

    def _set_lr(self, train: Split, rng: np.random.Generator, *, bold: bool) -> None:
        numbers = self._numbers()
        if numbers.lr == "auto":
            scale = measure_scale(train.X, rng, train.weights)
            optimizer = self._optimizer()
            if bold:
                own = numbers.reg, numbers.momentum, numbers.batch_size
                self.lr_ = float(optimizer.bold_lr(scale, *own))
            else:
                self.lr_ = float(optimizer.auto_lr(scale, numbers.reg))
        else:
            self.lr_ = float(numbers.lr)

    def _training(
        self, train: Split, val: Split, schedule: Schedule, epochs: int, rng: np.random.Generator
    ) -> Training:
        numbers = self._numbers()
        per_model = self.lr_, numbers.reg, numbers.momentum, numbers.label_smoothing
        return Training(
            train,
            val,
            len(self.classes_),
            PerModel.whole(*(np.array([number]) for number in per_model)),
            optimizer=self._optimizer(),
            schedule=schedule,
            early_stopping=EarlyStopping(monitor="val_loss", patience=self.patience),
            batch_size=numbers.batch_size,
            epochs=epochs,
            rng=rng,
        )

    def _run(self, training: Training) -> None:
        """Train, and keep what came of it."""
        (fit,) = training.run()
        if fit.status == "diverged":
            warnings.warn(
                f"{fit.ended} with lr={self.lr_:.4g}: use lr='auto' or a smaller one",
                ConvergenceWarning,
                stacklevel=3,
            )
        self._set_weights(fit.theta)
        self.n_iter_ = fit.history[-1].epoch
        self.loss_curve_ += [row.train_loss for row in fit.history]
        self.validation_scores_ = (
            [row.val_accuracy for row in fit.history] if len(training.val) else None
        )

    def _translate(self, features: AffineMap, theta: np.ndarray) -> np.ndarray:
        """Return weights for these features that give the scores of theta (C, D + 1) for others."""
        coef = theta[:, :-1] / features.scale
        bias = theta[:, -1] + coef @ (self._features.shift - features.shift)
        return np.column_stack([coef * self._features.scale, bias]).astype(theta.dtype)


def _generator(random: np.random.RandomState) -> np.random.Generator:
    return np.random.default_rng(random.randint(2**31 - 1, size=4))


def _look_up(name: str, value: Any, choices: Mapping[str, Any], kind: type) -> Any:
    """Return what a parameter names, or the object it is, of this kind."""
    if isinstance(value, kind):
        return value
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"{name}={value}: must be one of {', '.join(choices)}, or an object")
    return choices[value]

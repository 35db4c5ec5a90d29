"""From a data set to what all models of a stack train on."""

import dataclasses

import numpy as np

from classifier import gradient_check
from classifier.config import Config
from classifier.job import RunError, log, timed
from classifier.learning_rate import Scale, measure_scale
from data.dataset import Dataset, Split
from data.preprocessing import AffineMap


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What all models of a stack share, ready for training.

    train and val hold design matrices; gradient_error is the figure of the check, None where it
    was left out.
    """

    dataset: Dataset
    features: AffineMap
    train: Split
    val: Split
    scale: Scale
    gradient_error: float | None


def load_dataset(config: Config) -> Dataset:
    """Load the data set of a config: the same for equal data settings and equal seeds."""
    dataset: Dataset = config.data.load(generator(config.seed, "data"))
    return dataset


def prepare(
    dataset: Dataset,
    config: Config,
    reg: np.ndarray,
    seconds: dict[str, float],
    *,
    checked: bool = False,
    gradient_error: float | None = None,
) -> Prepared:
    """Fit the preprocessing, measure the data and check the gradient.

    Parameters
    ----------
    dataset : what is trained on.
    config : preprocessing, seed and check_gradient are used.
    reg : (G,) penalty of each model of the stack, for the gradient check.
    seconds : takes what the parts took.
    checked, gradient_error : whether the gradient was checked before, and what that gave.

    Raises
    ------
    InputError, RunError
        When the data cannot be prepared, or the gradient is wrong.
    """
    _log_dataset(dataset)
    with timed(seconds, "preprocessing"):
        features = config.preprocessing.fit(dataset.train.X)
        train = Split(features.design_matrix(dataset.train.X), dataset.train.y)
        val = Split(features.design_matrix(dataset.val.X), dataset.val.y)
        scale = measure_scale(train.X, generator(config.seed, "scale"))
    error = gradient_error
    if config.check_gradient and not checked:
        with timed(seconds, "gradient_check"):
            rng = generator(config.seed, "check")
            error = _check_gradient(train, len(dataset.classes), reg, rng)
    return Prepared(dataset, features, train, val, scale, error)


def generator(seed: int, purpose: str) -> np.random.Generator:
    """Return a generator for one purpose, so that no purpose changes what another draws."""
    return np.random.default_rng([seed, *purpose.encode()])


def _log_dataset(dataset: Dataset) -> None:
    sizes = ", ".join(f"{len(s)} {name}" for name, s in dataset.splits().items())
    log.info(
        "%s: %s examples, %d features, %d classes",
        *(dataset.name, sizes, dataset.n_features, len(dataset.classes)),
    )
    if len(dataset.val) + len(dataset.test) == 0:
        log.warning("no example is held out: the figures say nothing of new examples")


def _check_gradient(
    train: Split, n_classes: int, reg: np.ndarray, rng: np.random.Generator
) -> float:
    error = gradient_check.check_stacked_gradient(train.X, train.y, n_classes, reg, rng)
    log.info("gradient check: largest relative error %.1e", error)
    if not error <= gradient_check.LIMIT:
        raise RunError(
            f"gradient check: relative error {error:.1e}, over {gradient_check.LIMIT:g}: the "
            "gradient is wrong, nothing was trained (check_gradient=false skips the check)"
        )
    return error

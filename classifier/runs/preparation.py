"""From a data set to what all models of a stack train on, and to their training."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from classifier import gradient_check
from classifier.curvature import SAMPLE, Scale, measure_scale
from classifier.fit import PerModel
from classifier.lbfgs import MEMORY
from classifier.minibatch import MinibatchTraining
from classifier.optimizers import Lbfgs, MinibatchOptimizer
from classifier.report.flags import settings_flags
from classifier.runs.config import Config, Job
from classifier.runs.log import RunError, log, timed
from classifier.solver import Training
from data.batches import window_bytes
from data.dataset import Dataset, Split, class_counts
from data.errors import InputError, class_name, printable
from data.files.arrays import NpyRows
from data.labels import class_weights, scaled
from data.machine import STREAMED, check_room, memory
from data.preprocessing import AffineMap, PreparedRows, Statistics, check_finite, measure
from data.sources import SeededSource
from data.splits import stratified_folds

SIZES = (1e-3, 1e4)  # of prepared features, between which one step suits them and the bias
UNIT, ROUNDED = 2.0**-24, 1e-3  # what float32 rounds, relatively; of a spread, what is told
# Arrays of a model's size: weights, gradient, best weights, up to two moments, scratch;
MINIBATCH = 6
FULL_BATCH = 16 + 2 * MEMORY  # or the pairs of L-BFGS, and the sums of a pass in float64.
COPIED = 1.5  # times as many while a checkpoint is written
KEPT = 16  # a prepared validation split beside a file takes one part in so many of the memory
FLOAT32 = np.finfo(np.float32)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What all models of a stack share, ready for training.

    train and val hold design matrices; gradient_error is the figure of the check, None where it
    was left out; class_weights (C,) are what an example of each class counts, None where all do;
    seconds are what the parts of the preparation took.
    """

    dataset: Dataset
    features: AffineMap
    train: Split
    val: Split
    scale: Scale
    gradient_error: float | None
    class_weights: np.ndarray | None
    seconds: dict[str, float]


def load_dataset(config: Config) -> Dataset:
    """Load the data set of a config: the same for equal data settings."""
    return load_source(config.data)


def load_source(source: SeededSource) -> Dataset:
    """Load the data of a source, drawn and split with its own seed."""
    return source.load(generator(source.split_seed, "data"))


def check_dataset(dataset: Dataset, config: Config) -> None:
    """Refuse data that a config asks for more than they hold, before anything is prepared.

    Raises
    ------
    InputError
        When there is no such class or no validation split, or there are fewer examples than folds.
    """
    if config.calibrate and len(dataset.val) == 0:
        raise InputError("calibrate=true: there is no validation split; see data.val_fraction")
    if config.cv is not None and config.cv > len(dataset.train):
        raise InputError(
            f"cv={config.cv}: there are {len(dataset.train)} training examples; use fewer folds"
        )
    find_class_weights(config.class_weight, dataset)


def prepare(
    dataset: Dataset, configs: Sequence[Config], gradient_error: float | None = None
) -> Prepared:
    """Fit the preprocessing, measure the data and check the gradient.

    Parameters
    ----------
    dataset : what is trained on.
    configs : of the models of a stack; the first stands for what they share.
    gradient_error : what the check of the gradient gave, where it was checked before.

    Raises
    ------
    InputError, RunError
        When the data cannot be prepared, or the gradient is wrong.
    """
    config = configs[0]
    seconds: dict[str, float] = {}
    _log_dataset(dataset)
    check_dataset(dataset, config)
    _check_room(dataset, configs)
    with timed(seconds, "preprocessing"):
        statistics = measure(dataset.train.X)
        for held_out in (dataset.val.X, dataset.test.X):
            if isinstance(held_out, NpyRows):  # others were checked when they were read
                check_finite(held_out)
        features = config.preprocessing.fit(statistics)
        of_class = find_class_weights(config.class_weight, dataset)
        designs = [features.design_matrix(dataset.train.X)]
        late = _is_prepared_late(dataset)
        X = dataset.val.X
        designs.append(PreparedRows(features, X) if late else features.design_matrix(X))
        train, val = (
            Split(X, split.y, None if of_class is None else of_class[split.y])
            for X, split in zip(designs, (dataset.train, dataset.val), strict=True)
        )
        if config.cv is not None:
            folds = stratified_folds(train.y, config.cv, generator(config.seed, "folds"))
            train = dataclasses.replace(train, folds=folds)
        scale = measure_scale(train.X, generator(config.seed, "scale"), train.weights)
        _check_size(statistics, features, config.preprocessing.hint)
    if config.check_gradient and gradient_error is None:
        with timed(seconds, "gradient_check"):
            rng = generator(config.seed, "check")
            gradient_error = _check_gradient(train, len(dataset.classes), configs, rng)
    return Prepared(dataset, features, train, val, scale, gradient_error, of_class, seconds)


def copies(*, full_batch: bool, cv: int | None) -> int:
    """Return how many arrays of a model's size its training takes, those of its folds included."""
    return (FULL_BATCH if full_batch else MINIBATCH) * (1 + (cv or 0))


def _is_prepared_late(dataset: Dataset) -> bool:
    """Return whether a validation split in memory is prepared anew each epoch, block by block.

    What was held out of a file may take half a gigabyte once it is prepared. The figures are the
    same either way.
    """
    if not isinstance(dataset.train.X, NpyRows) or isinstance(dataset.val.X, NpyRows):
        return False
    return 4 * len(dataset.val) * (dataset.n_features + 1) > memory() // KEPT


def _check_room(dataset: Dataset, configs: Sequence[Config]) -> None:
    """Refuse what would not fit once the data are prepared and the models are made."""
    row = 4 * (dataset.n_features + 1)
    splits, n_train = dataset.splits().values(), len(dataset.train)
    labels = 2 * 8 * sum(map(len, splits))  # and the order of an epoch
    batch = row * min(configs[0].batch_size, n_train)
    if isinstance(dataset.train.X, NpyRows):
        kept = not isinstance(dataset.val.X, NpyRows) and not _is_prepared_late(dataset)
        prepared, buffers = row * len(dataset.val) * kept, 2 * window_bytes() + batch
    else:
        prepared, buffers = row * (n_train + len(dataset.val)), 2 * batch
    n_rows = len(configs) * len(dataset.classes)
    scores = 4 * n_rows * min(configs[0].batch_size, n_train)
    arrays = copies(full_batch=isinstance(configs[0].optimizer, Lbfgs), cv=configs[0].cv)
    sample = 2 * row * min(SAMPLE, n_train)  # twice, and gone before there are models
    parts = {
        "the examples": dataset.nbytes + labels,
        "their prepared copies": prepared,
        "training": max(sample, buffers + int(COPIED * arrays) * row * n_rows + scores),
    }
    fewer = ", or a smaller hydra.launcher.max_stack" if len(configs) > 1 else ""
    check_room(dataset.origin, parts, STREAMED + fewer)


def find_class_weights(wanted: Any, dataset: Dataset) -> np.ndarray | None:
    """Return what an example of each class counts, (C,) float32, or None where all count the same.

    The largest is in [1/2, 1), for only what they say of each other counts. Names are compared as
    text: YAML reads 1 as a number, and JSON as text, whatever the labels are.
    """
    if wanted is None:
        return None
    if isinstance(wanted, Mapping):
        texts = {str(name): weight for name, weight in wanted.items()}
        if len(texts) < len(wanted):
            raise InputError(f"class_weight={dict(wanted)}: a class has two weights")
        wanted = texts
    counts = class_counts(dataset.train.y, len(dataset.classes))
    weights = scaled(class_weights(wanted, dataset.classes, counts))[0].astype(np.float32)
    if not weights.all():
        name = class_name(dataset.classes[int(np.argmin(weights))])
        raise InputError(
            f"class_weight: the examples of class {name} would not count beside those with the "
            "largest weight; let the largest be at most 1e38 times the smallest"
        )
    return weights


def _check_size(statistics: Statistics, features: AffineMap, hint: str) -> None:
    """Say when prepared features suit no step, or have few digits in float64 or float32."""
    low, high = (
        (end - features.shift) / features.scale for end in (statistics.low, statistics.high)
    )
    spread, merged = statistics.spread / features.scale, statistics.is_merged
    sizes = np.maximum(high, -low)
    largest = float(sizes.max())
    if merged.any():
        log.warning(
            "the values of %d features, up to %.1e, differ by hardly more than float64 can tell "
            "apart: they are taken for constant; subtract a constant before saving, which is exact "
            "in integers",
            merged.sum(),
            np.maximum(statistics.high, -statistics.low)[merged].max(),
        )
    if (UNIT * sizes > ROUNDED * spread)[(low != high) & ~merged].any():
        log.warning(
            "some prepared features lie so far from zero for their spread that training sees them "
            "rounded to float32%s",
            hint,
        )
    if (low == high).all():
        log.warning("every feature is constant: only the frequencies of the classes can be learned")
    elif not SIZES[0] <= largest <= SIZES[1]:
        log.warning(
            "the prepared features are of size %.0e beside the bias's 1: one step cannot suit "
            "both, and training may stay far from its optimum%s",
            largest,
            hint,
        )


def generator(seed: int, purpose: str) -> np.random.Generator:
    """Return a generator for one purpose, so that no purpose changes what another draws."""
    return np.random.default_rng([seed, *purpose.encode()])


def _log_dataset(dataset: Dataset) -> None:
    sizes = ", ".join(f"{len(split)} {name}" for name, split in dataset.splits().items())
    shape, name = dataset.train.X.shape[1:], printable(dataset.name)
    features = f"{dataset.n_features} features"
    features += f" ({' x '.join(map(str, shape))})" if len(shape) > 1 else ""
    log.info("%s: %s examples, %s, %d classes", name, sizes, features, len(dataset.classes))
    counts = class_counts(dataset.train.y, len(dataset.classes))
    if len(dataset.val) + len(dataset.test) and counts.min() == 1:
        single = np.flatnonzero(counts == 1)
        line = "%d classes have a single training example, class %s first: too few to judge by"
        log.warning(line, len(single), class_name(dataset.classes[single[0]]))
    if len(dataset.val) + len(dataset.test) == 0:
        log.warning("no example is held out: the figures say nothing of new examples")


def _check_gradient(
    train: Split, n_classes: int, configs: Sequence[Config], rng: np.random.Generator
) -> float:
    reg, smoothing = np.array([(c.reg, c.label_smoothing) for c in configs]).T
    error = gradient_check.check_stacked_gradient(train.X, train.y, n_classes, reg, smoothing, rng)
    log.info("gradient check: largest relative error %.1e", error)
    if not error <= gradient_check.LIMIT:
        raise RunError(
            f"gradient check: relative error {error:.1e}, over {gradient_check.LIMIT:g}: the "
            "gradient is wrong, nothing was trained (check_gradient=false skips the check)"
        )
    return error


def make_trainer(jobs: Sequence[Job], prepared: Prepared) -> Training:
    """Return the training of some jobs, before its first step.

    Its models are those of the jobs and then, for each fold, those of the jobs without it.
    """
    config, scale = jobs[0].config, prepared.scale
    optimizer, epochs = config.optimizer, config.epochs
    if isinstance(optimizer, Lbfgs):
        log.info("L-BFGS to %.2g above the optimum, in %d passes at most", optimizer.tol, epochs)
        lr = np.full(len(jobs), np.nan)
    else:
        assert isinstance(optimizer, MinibatchOptimizer)
        lr = np.array([_resolve_lr(job, optimizer, scale) for job in jobs])
    for job, step in zip(jobs, lr, strict=True):  # what the pages of the runs say of it
        for sentence in settings_flags(step_figures(job.config, float(step), scale)):
            log.warning("%s", sentence, extra={"folder": job.folder})
    n_stacks = 1 + (config.cv or 0)
    fold = np.repeat(np.arange(-1, n_stacks - 1), len(jobs))
    numbers = [(j.config.reg, j.config.momentum, j.config.label_smoothing) for j in jobs]
    reg, momentum, smoothing = (np.tile(column, n_stacks) for column in np.array(numbers).T)
    models = PerModel(np.tile(lr, n_stacks), reg, momentum, smoothing, fold)
    problem = prepared.train, prepared.val, len(prepared.dataset.classes), models
    if isinstance(optimizer, Lbfgs):
        from classifier.optimum import FullBatchTraining  # its parts of scipy cost start-up

        rng = generator(config.seed, "curvature")
        return FullBatchTraining(*problem, optimizer=optimizer, epochs=epochs, rng=rng)
    training = MinibatchTraining(
        *problem,
        optimizer=optimizer,
        schedule=config.schedule,
        early_stopping=config.early_stopping,
        batch_size=config.batch_size,
        epochs=epochs,
        rng=generator(config.seed, "order"),
    )
    if config.schedule.warmup_steps >= epochs * len(training.batches):
        log.warning("schedule.warmup_steps is longer than the training: lr is never reached")
    return training


def _resolve_lr(job: Job, optimizer: MinibatchOptimizer, scale: Scale) -> float:
    config, is_auto = job.config, job.config.lr == "auto"
    lr = optimizer.auto_lr(scale, config.reg) if is_auto else float(config.lr)
    lr *= config.lr_scale
    if not float(FLOAT32.tiny) <= lr <= float(FLOAT32.max):
        reason = (
            f"{lr:.3g} here, for the features are of size {np.sqrt(scale.eigenvalue):.1e}"
            f"{config.preprocessing.hint or '; give lr as a number'}"
        )
        raise InputError(f"lr={config.lr}: {reason if is_auto else 'not a step float32 can take'}")
    stable = optimizer.stable_lr(scale, config.reg)
    bound = "" if stable is None else f", sure to be stable up to 2/L = {stable:.4g}"
    log.info("lr %.4g%s%s", lr, " (auto)" * is_auto, bound, extra={"folder": job.folder})
    return lr


def step_figures(config: Config, lr: float, scale: Scale) -> dict[str, float | None]:
    """Return lr, reg and what they are measured by: keys of report.json.

    Parameters
    ----------
    lr : nan where the optimizer has none.
    """
    optimizer, reg = config.optimizer, config.reg
    stable = auto = None
    if isinstance(optimizer, MinibatchOptimizer):
        stable, auto = optimizer.stable_lr(scale, reg), optimizer.auto_lr(scale, reg)
    return {
        "lr": None if math.isnan(lr) else lr,
        "auto_lr": auto,
        "largest_stable_lr": stable,
        "reg": reg,
        "smoothness": scale.smoothness(reg),
    }

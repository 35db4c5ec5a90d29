"""From a data set to what all models of a stack train on, and to their training."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from classifier.engine import Spread
from classifier.fit import PerModel
from classifier.gradient_check import LIMIT, check_stacked_gradient
from classifier.minibatch import MinibatchTraining, window_bytes
from classifier.optimizers import SAMPLE, Lbfgs, MinibatchOptimizer, Scale, measure_scale
from classifier.optimum import ARRAYS, COPIED, STRONGEST, WAITING, WEAKEST, FullBatchTraining
from classifier.report.text import settings_flags
from classifier.runs.config import AUTO, LARGEST, Config, Job, by_folds, check_ends
from classifier.runs.log import RunError, log, timed
from classifier.shards import of_mean_one, on_device
from classifier.solver import Training
from data.dataset import Dataset, Sharded, SparseRows, Split, class_counts, row_size
from data.errors import InputError, class_name, printable
from data.files.arrays import NpyRows
from data.labels import class_weights, scaled
from data.machine import STREAMED, check_room
from data.preprocessing import AffineMap, PreparedRows, Statistics, check_finite, measure
from data.sources import SeededSource
from data.splits import stratified_folds

SIZES = (1e-3, 1e4)  # of prepared features, between which one step suits them and the bias
UNIT, ROUNDED = 2.0**-24, 1e-3  # what float32 rounds, relatively; of a spread, what is told
# Arrays of a model's size: weights, gradient, best weights, up to two moments, scratch.
MINIBATCH = 6
FLOAT32 = np.finfo(np.float32)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What all models of a stack share, ready for training.

    splits are those of the data set, whose rows stand where the engine has them, as they come;
    train and val hold design matrices; mean_square is that of their features;
    gradient_error is the figure of the check, None where it was left out; class_weights (C,) are
    what an example of each class counts, None where all do.
    """

    dataset: Dataset
    splits: dict[str, Split]
    features: AffineMap
    train: Split
    val: Split
    scale: Scale
    mean_square: float
    gradient_error: float | None
    class_weights: np.ndarray | None


def load_dataset(source: SeededSource) -> Dataset:
    """Load the data set of a source, drawn and split with its own seed."""
    return source.load(generator(source.split_seed, "data"))


def check_dataset(dataset: Dataset, config: Config) -> np.ndarray | None:
    """Refuse data that a config asks for more than they hold; return its class weights.

    Raises
    ------
    InputError
        When there is no such class or no validation split, or there are fewer examples than folds;
        when the device of the config is not there, or takes no such examples.
    """
    on_device(dataset.train, config.device)
    is_sparse, n_train = isinstance(dataset.train.X, SparseRows), len(dataset.train)
    wrong, way_out = "", "add experiment=text, or optimizer=lbfgs preprocessing=scale"
    key = "calibrate=true" if config.calibrate else "reg=auto"
    if len(dataset.val) == 0 and (config.calibrate or (config.reg == AUTO and config.cv is None)):
        folds = "leave out" if by_folds(config.reg, config.cv) else "data.val_fraction, or add"
        wrong, way_out = f"{key}: there is no validation split", f"give data.val, or {folds} cv"
    elif config.cv is not None and config.cv > n_train:
        wrong, way_out = f"cv={config.cv}: there are {n_train} training examples", "use fewer folds"
    elif is_sparse and not isinstance(config.optimizer, Lbfgs):
        name = type(config.optimizer).__name__.lower()
        wrong = f"optimizer={name}: minibatches would make the rows of {dataset.origin} dense"
    elif is_sparse and config.preprocessing.shifts:
        method = config.preprocessing.method
        wrong = f"preprocessing={method}: a shift would make the rows of {dataset.origin} dense"
    if wrong:
        raise InputError(f"{wrong}; {way_out}")
    return find_class_weights(config.class_weight, dataset)


def prepare(
    dataset: Dataset,
    configs: Sequence[Config],
    seconds: dict[str, float],
    gradient_error: float | None = None,
    spread: Spread = dict,
) -> Prepared:
    """Fit the preprocessing, measure the data and check the gradient.

    Parameters
    ----------
    dataset : what is trained on.
    configs : of the models of a stack; the first stands for what they share.
    seconds : is given what the parts of the preparation took.
    gradient_error : what the check of the gradient gave, where it was checked before.
    spread : puts the rows where the engine has them.

    Raises
    ------
    InputError, RunError
        When the data cannot be prepared, or the gradient is wrong.
    """
    config = configs[0]
    _log_dataset(dataset)
    class_weights = check_dataset(dataset, config)
    _check_room(dataset, configs)
    with timed(seconds, "preprocessing"):
        splits = spread(dataset.splits())
        train, val = splits["train"], splits["val"]
        statistics = measure(train.X, train.weights)
        for held_out in (val.X, splits["test"].X):
            if isinstance(held_out, NpyRows | Sharded):  # others were checked when they were read
                check_finite(held_out)
        features = config.preprocessing.fit(statistics)
        # What was held out of a file may take half a gigabyte once it is prepared: it is prepared
        # anew each epoch, block by block, as the rest of the file is.
        is_late = isinstance(train.X, NpyRows) and isinstance(val.X, np.ndarray)
        of_val = PreparedRows(features, val.X) if is_late else features.design_matrix(val.X)
        train, val = (
            of_mean_one(Split(X, split.y, example_weights(split, class_weights)))
            for X, split in ((features.design_matrix(train.X), train), (of_val, val))
        )
        if config.cv is not None:
            folds = stratified_folds(train.y, config.cv, generator(config.seed, "folds"))
            train = dataclasses.replace(train, folds=folds)
        scale = measure_scale(train.X, generator(config.seed, "scale"), train.weights)
        _check_size(statistics, features, config.preprocessing.hint)
        mean_square = features.mean_square(statistics)
    if config.check_gradient and gradient_error is None:
        with timed(seconds, "gradient_check"):
            regs = [penalties_of(each, mean_square) for each in configs]
            smoothing = np.repeat([each.label_smoothing for each in configs], [*map(len, regs)])
            penalties = np.concatenate(regs), smoothing, generator(config.seed, "check")
            gradient_error = check_stacked_gradient(
                train.X, train.y, len(dataset.classes), *penalties
            )
        log.info("gradient check: largest relative error %.1e", gradient_error)
        if not gradient_error <= LIMIT:
            raise RunError(
                f"gradient check: relative error {gradient_error:.1e}, over {LIMIT:g}: the "
                "gradient is wrong, nothing was trained (check_gradient=false skips the check)"
            )
    train, val = (on_device(split, config.device) for split in (train, val))
    measured = features, train, val, scale, mean_square
    return Prepared(dataset, splits, *measured, gradient_error, class_weights)


def penalties_of(config: Config, mean_square: float) -> np.ndarray:
    """Return the penalty of a run or, with reg=auto, those of its path, from strong to weak.

    Parameters
    ----------
    config : of the run.
    mean_square : of its preprocessed features.

    Raises
    ------
    InputError
        When the strongest penalty is not above the weakest.
    """
    if config.reg != AUTO:
        return np.array([float(config.reg)])
    path = config.reg_path
    strongest = path["from"] or STRONGEST * mean_square
    weakest = path["to"] or WEAKEST * mean_square
    if not strongest <= LARGEST:
        raise InputError(
            f"reg=auto: the preprocessed features are of size {math.sqrt(mean_square):.1e}, too "
            f"large for a penalty to suit them{config.preprocessing.hint}"
        )
    check_ends(strongest, weakest)
    return np.geomspace(strongest, weakest, path["n"])


def copies(*, full_batch: bool, cv: int | None) -> int:
    """Return how many arrays of a model's size its training takes, those of its folds included."""
    return (ARRAYS if full_batch else MINIBATCH) * (1 + (cv or 0))


def _data_bytes(dataset: Dataset) -> dict[str, int]:
    """Return what the data take once they are prepared, by what takes it."""
    labels = 2 * 8 * sum(map(len, dataset.splits().values()))  # and the order of an epoch
    is_file = isinstance(dataset.train.X, NpyRows)
    n_prepared = 0 if is_file else len(dataset.train) + len(dataset.val)
    return {
        "the examples": dataset.nbytes + labels,
        "their prepared copies": _example_bytes(dataset) * n_prepared,
    }


def _example_bytes(dataset: Dataset) -> int:
    """Return what a prepared example takes."""
    if isinstance(dataset.train.X, SparseRows):
        return 8 * (row_size(dataset.train.X) + 2)  # value and column
    return 4 * (dataset.n_features + 1)


def _check_room(dataset: Dataset, configs: Sequence[Config]) -> None:
    """Refuse what would not fit once the data are prepared and the models are made.

    Of models that go to their optima one at least has to fit with its search, and of the others
    their weights: they wait for their turn.
    """
    row, n_train, cv = 4 * (dataset.n_features + 1), len(dataset.train), configs[0].cv
    n_models = sum(config.reg_path["n"] if config.reg == AUTO else 1 for config in configs)
    size, n_rows = min(configs[0].batch_size, n_train), n_models * len(dataset.classes)
    is_file = isinstance(dataset.train.X, NpyRows)
    training = (2 * window_bytes() if is_file else row * size) + row * size
    if isinstance(configs[0].optimizer, Lbfgs):
        of_model, n_rows = row * len(dataset.classes), n_rows * (1 + (cv or 0))
        training += int(COPIED * ARRAYS) * of_model + WAITING * row * n_rows
    else:
        training += int(COPIED * copies(full_batch=False, cv=cv)) * row * n_rows + 4 * n_rows * size
    sample = 2 * _example_bytes(dataset) * min(SAMPLE, n_train)  # gone before there are models
    parts = _data_bytes(dataset) | {"training": max(sample, training)}
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
    y, n_classes = dataset.train.y.astype(np.int64), len(dataset.classes)
    counts = np.bincount(y, dataset.train.weights, n_classes)
    weights = scaled(class_weights(wanted, dataset.classes, counts))[0].astype(np.float32)
    if not weights.all():
        name = class_name(dataset.classes[int(np.argmin(weights))])
        raise InputError(
            f"class_weight: the examples of class {name} would not count beside those with the "
            "largest weight; let the largest be at most 1e38 times the smallest"
        )
    return weights


def example_weights(split: Split, class_weights: np.ndarray | None) -> np.ndarray | None:
    """Return what each example of a split counts, (N,): its own weight times that of its class."""
    if class_weights is None:
        return split.weights
    of_class: np.ndarray = class_weights[split.y]
    return of_class if split.weights is None else of_class * split.weights


def _check_size(statistics: Statistics, features: AffineMap, hint: str) -> None:
    """Say when prepared features suit no step, or have few digits in float64 or float32."""
    merged, scale = statistics.is_merged, features.scale
    low, high = ((end - features.shift) / scale for end in (statistics.low, statistics.high))
    sizes, is_constant = np.maximum(high, -low), low == high
    is_rounded = UNIT * sizes > ROUNDED * statistics.spread / scale
    if merged.any():
        largest = np.maximum(statistics.high, -statistics.low)[merged].max()
        log.warning(
            f"the values of {merged.sum()} features, up to {largest:.1e}, differ by hardly more "
            "than float64 can tell apart: they are taken for constant; subtract a constant before "
            "saving, which is exact in integers"
        )
    if is_rounded[~is_constant & ~merged].any():
        log.warning(
            "some prepared features lie so far from zero for their spread that training sees them "
            f"rounded to float32{hint}"
        )
    if is_constant.all():
        log.warning("every feature is constant: only the frequencies of the classes can be learned")
    elif not SIZES[0] <= sizes.max() <= SIZES[1]:
        log.warning(
            f"the prepared features are of size {sizes.max():.0e} beside the bias's 1: one step "
            f"cannot suit both, and training may stay far from its optimum{hint}"
        )


def generator(seed: int, purpose: str) -> np.random.Generator:
    """Return a generator for one purpose, so that no purpose changes what another draws."""
    return np.random.default_rng([seed, *purpose.encode()])


def _log_dataset(dataset: Dataset) -> None:
    sizes = ", ".join(f"{len(split)} {name}" for name, split in dataset.splits().items())
    shape, n_classes = dataset.train.X.shape[1:], len(dataset.classes)
    axes = f" ({' x '.join(map(str, shape))})" if len(shape) > 1 else ""
    name, features = printable(dataset.name), f"{dataset.n_features} features{axes}"
    for note in dataset.notes:
        log.info("%s", note)
    log.info("%s: %s examples, %s, %d classes", name, sizes, features, n_classes)
    if len(dataset.val) + len(dataset.test) == 0:
        log.warning("no example is held out: the figures say nothing of new examples")
        return
    single = np.flatnonzero(class_counts(dataset.train.y, n_classes) == 1)
    if len(single):
        line = "%d classes have a single training example, class %s first: too few to judge by"
        log.warning(line, len(single), class_name(dataset.classes[single[0]]))


def make_trainer(jobs: Sequence[Job], prepared: Prepared) -> Training:
    """Return the training of some jobs, before its first step.

    Its models are those of the jobs and then, for each fold, those of the jobs without it.
    """
    config, n_jobs, n_classes = jobs[0].config, len(jobs), len(prepared.dataset.classes)
    steps = [_find_lr(job, prepared.scale) for job in jobs]
    n_stacks = 1 + (config.cv or 0)
    fold = np.repeat(np.arange(-1, n_stacks - 1), n_jobs)
    names = ("reg", "momentum", "label_smoothing")
    numbers = [steps, *([getattr(job.config, name) for job in jobs] for name in names)]
    lr, reg, momentum, smoothing = np.tile(np.array(numbers), n_stacks)
    models = PerModel(lr, reg, momentum, smoothing, fold)
    problem = prepared.train, prepared.val, n_classes, models
    if isinstance(config.optimizer, Lbfgs):
        optimizer, epochs = config.optimizer, config.epochs
        # The accuracy may rise with the loss.
        if jobs[0].plain["reg"] == AUTO and config.objective == "val_accuracy":
            optimizer = dataclasses.replace(optimizer, all_penalties=True)
        rng = generator(config.seed, "curvature")
        taken = sum(_data_bytes(prepared.dataset).values())
        return FullBatchTraining(*problem, optimizer=optimizer, taken=taken, epochs=epochs, rng=rng)
    assert isinstance(config.optimizer, MinibatchOptimizer)
    training = MinibatchTraining(
        *problem,
        optimizer=config.optimizer,
        schedule=config.schedule,
        early_stopping=config.early_stopping,
        batch_size=config.batch_size,
        epochs=config.epochs,
        rng=generator(config.seed, "order"),
    )
    if config.schedule.warmup_steps >= config.epochs * len(training.batches):
        log.warning("schedule.warmup_steps is longer than the training: lr is never reached")
    return training


def _find_lr(job: Job, scale: Scale) -> float:
    """Return the learning rate of a job, nan where it has none."""
    config, lr = job.config, step_figures(job.config, scale)["lr"]
    if lr is not None and not float(FLOAT32.tiny) <= lr <= float(FLOAT32.max):
        size, hint = np.sqrt(scale.eigenvalue), config.preprocessing.hint
        reason = f"{lr:.3g} here, for the features are of size {size:.1e}"
        reason += hint or "; give lr as a number"
        refused = reason if config.lr == AUTO else "not a step float32 can take"
        raise InputError(f"lr={config.lr}: {refused}")
    return math.nan if lr is None else lr


def log_plan(jobs: Sequence[Job], scale: Scale) -> None:
    """Log what there is to say of jobs before they are trained, of each in its own file."""
    config = jobs[0].config
    if isinstance(config.optimizer, Lbfgs):
        tol, epochs = 100 * config.optimizer.tol, config.epochs
        log.info("L-BFGS to within %g %% of the lowest objective, %d passes at most", tol, epochs)
    for job in jobs if config.reg != AUTO else ():
        step, own = step_figures(job.config, scale), {"folder": job.folder}
        lr, stable = step["lr"], step["largest_stable_lr"]
        if lr is not None:
            bound = f", full-batch steps are stable up to 2/L = {stable:.4g}" if stable else ""
            log.info("lr %.4g%s%s", lr, " (auto)" * (job.config.lr == AUTO), bound, extra=own)
        for sentence in settings_flags(step):  # what the page of the run says of it
            log.warning("%s", sentence, extra=own)


def step_figures(config: Config, scale: Scale) -> dict[str, float | None]:
    """Return lr, reg and what they are measured by: keys of report.json.

    Those of lr are None where the optimizer has no learning rate.
    """
    optimizer, reg = config.optimizer, float(config.reg)
    lr = stable = auto = None
    if isinstance(optimizer, MinibatchOptimizer):
        stable, auto = optimizer.stable_lr(scale, reg), optimizer.auto_lr(scale, reg)
        lr = config.lr_scale * (auto if config.lr == AUTO else float(config.lr))
    return {
        "lr": lr,
        "auto_lr": auto,
        "largest_stable_lr": stable,
        "reg": reg,
        "smoothness": scale.smoothness(reg),
    }

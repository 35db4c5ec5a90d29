"""What trained models are worth: certificates, figures on folds and on splits, and their reports.

The jobs of a sweep leave the test split alone, so that it can judge the winner: a model chosen
among many by the figures of one split looks better there than it is. So the test split takes no
part in any choice, and is evaluated for the chosen model alone, by `open_test`.

The training figures are those of the pass that says how near to the optimum a model is. Training
examples are evaluated in full where that pass does not tell all, or no others are there.
"""

import dataclasses
import functools
import math
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from classifier.evaluation import Measured, evaluate_stack, minimised, strongest_features
from classifier.fit import DIVERGED, DONE, Fit, PerModel
from classifier.kernel import penalty
from classifier.model import LinearModel, fit_temperature
from classifier.optimizers import Lbfgs
from classifier.runs.artifacts import MODEL, Contents, Predictions, read_predictions, write_files
from classifier.runs.config import CONFIGS, Job, by_folds, has_role, schemas, without_validation
from classifier.runs.folder import locked, needed_report, read_received
from classifier.runs.log import log, timed
from classifier.runs.preparation import (
    Prepared,
    example_weights,
    find_class_weights,
    load_dataset,
    step_figures,
)
from classifier.shards import certify_weights, evaluate_folds
from data.dataset import Dataset, Split, class_counts
from data.errors import InputError, one_line
from data.options import PLACE

CERTIFIED = 2**24  # weights whose gradients are summed up in one pass
BOUNDS = ("objective", "gradient_norm", "excess", "relative")  # of a certificate, as reported
# Of the data, as reported.
DESCRIBED = ("name", "origin", "n_features", "image_shape", "fingerprint", "test_fingerprint")
PACKAGES = ("numpy", "scikit-learn", "hydra-core", "matplotlib", "tqdm")

# Of a model, by the name of the split: what is found, why it cannot be, or None of an empty split.
Evaluations = dict[str, Any]

_kept: list[Dataset] = []  # that of the last jobs of a sweep in this process, if there is one


@dataclasses.dataclass(frozen=True)
class Trained:
    """A job, its fit and its model, and of its cross-validation loss and accuracy of each fold.

    path is what `classifier.runs.reg_path` reports of the penalties that it was chosen from.
    """

    job: Job
    fit: Fit
    model: LinearModel
    folds: list[tuple[float, float]]
    path: dict[str, Any] | None = None

    @property
    def cross_validation(self) -> dict[str, Any] | None:
        """The figures of the folds with their means and standard errors, as reported."""
        if not self.folds:
            return None
        cv: dict[str, Any] = {"folds": len(self.folds)}
        for k, name in enumerate(("loss", "accuracy")):
            cv[f"{name}_of_folds"] = values = [fold[k] for fold in self.folds]
            cv[name] = statistics.fmean(values)
            cv[f"{name}_error"] = statistics.stdev(values) / math.sqrt(len(values))
        return cv


def judge(
    jobs: Sequence[Job],
    fits: Sequence[Fit],
    models: PerModel,
    prepared: Prepared,
    after_block: Callable[[], None],
) -> list[Trained]:
    """Return what is known of each job's model: how near its optimum, how good on folds.

    Parameters
    ----------
    jobs : that were trained.
    fits, models : of the jobs and then, for each fold, of the jobs without it.
    prepared : what they were trained on.
    after_block : called now and then; what it raises ends this.
    """
    n_jobs, dataset, train = len(jobs), prepared.dataset, prepared.train
    _certify(fits[:n_jobs], models, train, after_block)
    held_out = []  # losses and accuracies of the models of each fold
    for one in evaluate_folds(train, [fit.theta for fit in fits], models):
        held_out.append((one.loss, one.accuracy))
        after_block()
    trained, n_halfway = list[Trained](), 0
    for g, (job, fit) in enumerate(zip(jobs, fits[:n_jobs], strict=True)):
        folds = [(float(losses[g]), float(accuracies[g])) for losses, accuracies in held_out]
        without = fits[n_jobs + g :: n_jobs]
        # On its way a model may still know its fold: it began at the model of all examples.
        to_optimum = isinstance(job.config.optimizer, Lbfgs)
        n_halfway += to_optimum and any(one.ended == DONE for one in without)
        are_known = _end_with_folds(fit, without, [loss for loss, _ in folds])
        model = LinearModel(
            *(fit.W, fit.b, dataset.classes, prepared.features, dataset.image_shape, job.plain),
            encoding=dataset.encoding,
        )
        trained.append(Trained(job, fit, model, folds if are_known else []))
    if n_halfway:
        log.warning(
            "the folds of %d of %d models used up their epochs before they were near their optima: "
            "their figures may be too good, for they began at the model of all examples; give more "
            "epochs",
            *(n_halfway, n_jobs),
        )
    return trained


def _certify(
    fits: Sequence[Fit], models: PerModel, train: Split, after_block: Callable[[], None]
) -> None:
    """Put a certificate into fits that have none, of models that begin a stack."""

    def stop() -> str:
        after_block()
        return ""

    size = max(1, CERTIFIED // fits[0].theta.size)
    unknown = [g for g, fit in enumerate(fits) if fit.certificate is None and fit.history]
    while some := unknown[:size]:
        del unknown[:size]
        theta = np.stack([fits[g].theta for g in some], axis=1)
        certificates = certify_weights(train, theta, models.select(some), stop)
        for g, certificate in zip(some, certificates, strict=True):
            fit = fits[g]
            fit.certificate, figures = certificate, (fit.theta, certificate.objective)
            if fit.status == "completed" and not fit.keeps(*figures, loss=certificate.loss):
                # What the last step made of it was in no epoch's figures: it is as it began.
                fit.theta[...], fit.best_epoch = 0, 0
                fit.ended = f"diverged in epoch {len(fit.history)}"
                unknown.append(g)


def _end_with_folds(fit: Fit, without: Sequence[Fit], losses: Sequence[float]) -> bool:
    """End a model as those that leave a fold out; return whether their figures are known."""
    are_known = True
    for k, (one, loss) in enumerate(zip(without, losses, strict=True), start=1):
        status, ended = one.status, one.ended
        if status == DIVERGED or not math.isfinite(loss):
            status, ended = DIVERGED, f"the model without fold {k} diverged"
        if status in (DIVERGED, "interrupted") and fit.status == "completed":
            fit.status, fit.ended = status, ended
        are_known &= one.status != "interrupted" and math.isfinite(loss)
    return are_known


def evaluate_models(
    stack: Sequence[Trained],
    prepared: Prepared,
    seconds: dict[str, float],
    after_block: Callable[[], None],
    *,
    of_sweep: bool,
) -> list[Contents | InputError]:
    """Evaluate models of one stack; return what their files hold, or why one cannot be measured.

    Parameters
    ----------
    stack : jobs with their models.
    prepared : the data that they were trained on.
    seconds : what the parts of the run took so far, for each of them.
    after_block : called after each block of examples; what it raises ends the evaluation.
    of_sweep : whether they are the jobs of a sweep.
    """
    dataset, class_weights = prepared.dataset, prepared.class_weights
    splits = {name: s for name, s in prepared.splits.items() if name != "test" or not of_sweep}
    held_out = any(len(split) for name, split in splits.items() if name != "train")
    calibrate = stack[0].job.config.calibrate
    certified = all(one.fit.certificate is not None for one in stack)
    if held_out and certified and not calibrate and prepared.train.weights is None:
        del splits["train"]
    configs, parts = [one.job.config for one in stack], dict[str, float]()
    measured = [
        Measured(one.model, config.report.top_k, config.label_smoothing)
        for one, config in zip(stack, configs, strict=True)
    ]
    with timed(parts, "evaluation"):
        after = before = _evaluate(measured, splits, class_weights, after_block)
    if calibrate:
        with timed(parts, "calibration"):
            X, y = dataset.val.X, dataset.val.y
            measured = [_at(one, fit_temperature(one.model, X, y)) for one in measured]
            after = _evaluate(measured, splits, class_weights, after_block)
    seconds = seconds | {name: value / len(stack) for name, value in parts.items()}
    results: list[Contents | InputError] = []
    for trained, (model, *_), cold, warm in zip(stack, measured, before, after, strict=True):
        if errors := [e for e in (*cold.values(), *warm.values()) if isinstance(e, InputError)]:
            results.append(errors[0])
            continue
        report = _report(trained, model, cold, warm, prepared, seconds)
        predictions = predictions_of(dataset, warm)
        results.append(Contents(model, trained.fit.history, report, predictions))
    return results


def _at(measured: Measured, temperature: float) -> Measured:
    return measured._replace(model=dataclasses.replace(measured.model, temperature=temperature))


def _evaluate(
    measured: Sequence[Measured],
    splits: Mapping[str, Split],
    class_weights: np.ndarray | None,
    after_block: Callable[[], None] = lambda: None,
) -> list[Evaluations]:
    """Return the evaluation of each model on each of the splits."""
    columns = [
        evaluate_stack(
            measured, split.X, split.y, example_weights(split, class_weights), after_block
        )
        for split in splits.values()
    ]
    return [dict(zip(splits, row, strict=True)) for row in zip(*columns, strict=True)]


def predictions_of(dataset: Dataset, evaluations: Evaluations) -> dict[str, Predictions]:
    """Return what is kept of the predictions on each split that was evaluated."""
    return {
        name: Predictions(dataset.splits()[name].y, one.predicted, one.log_p)
        for name, one in evaluations.items()
        if name != "train" and one and len(one.predicted) > 0
    }


def _report(
    trained: Trained,
    model: LinearModel,
    before: Evaluations,
    after: Evaluations,
    prepared: Prepared,
    seconds: dict[str, float],
) -> dict[str, Any]:
    """Return every number of a run, before calibration and after it: the content of report.json."""
    config, dataset, fit = trained.job.config, prepared.dataset, trained.fit
    step = step_figures(config, prepared.scale)
    cold, metrics = (_metrics(figures, fit, dataset) for figures in (before, after))
    bounds = None
    if fit.certificate is not None:
        objective = fit.certificate.objective
        figures = {name: getattr(fit.certificate, name) for name in BOUNDS}
        bounds = {name: x if math.isfinite(x) else None for name, x in figures.items()}
    else:  # stopped before the end of an epoch
        of_weights = penalty(fit.theta[:, None].astype(np.float64), np.array([step["reg"]]))
        objective = minimised(cold["train"]) + float(of_weights[0])
    report: dict[str, Any] = {
        "status": fit.status,
        "metrics": metrics,
        "objective": objective,
        "certificate": bounds,
        "weight_norm": math.sqrt(float(penalty(fit.theta[:, None], np.ones(1))[0])),
        "config": trained.job.plain,
        **step,
        "best_epoch": fit.best_epoch,
        "epochs": len(fit.history),
        "ended": fit.ended + _advice(fit, step),
        "gradient_check": {"max_relative_error": prepared.gradient_error},
        "seconds": seconds,
        "data": {
            "n_classes": len(dataset.classes),
            **{name: getattr(dataset, name) for name in DESCRIBED},
        },
        "machine": {"host": platform.node(), "process": os.getpid()},
        "versions": _versions(),
    }
    if dataset.encoding is not None:
        counts = class_counts(dataset.train.y, len(dataset.classes))
        report["features"] = strongest_features(model, dataset.encoding.names, counts)
    if (folds := trained.cross_validation) is not None:
        report["cross_validation"] = folds
    if trained.path is not None:
        report["reg_path"] = trained.path
    if config.calibrate:
        before_it = {name: split and calibrated_figures(split) for name, split in cold.items()}
        report["calibration"] = {"temperature": model.temperature, "before": before_it}
    return report


def _metrics(evaluations: Evaluations, fit: Fit, dataset: Dataset) -> dict[str, Any]:
    """Return the figures of each split: in part of one that is known in part, None of others."""
    metrics: dict[str, Any] = dict.fromkeys(dataset.splits())
    if fit.certificate is not None:
        loss, accuracy = fit.certificate.loss, fit.certificate.accuracy
        metrics["train"] = {"n": len(dataset.train), "loss": loss, "accuracy": accuracy}
    return metrics | {name: one and one.figures for name, one in evaluations.items()}


def calibrated_figures(split: dict[str, Any]) -> dict[str, Any]:
    """Return of a split what a temperature changes: it leaves every prediction as it was."""
    return {name: split[name] for name in ("loss", "expected_calibration_error", "reliability")}


@functools.cache
def _versions() -> dict[str, str]:
    """Return the versions of Python and of the packages; looked up once, for a sweep's sake."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def _advice(fit: Fit, step: dict[str, float | None]) -> str:
    """Return what to do about a training by minibatches that diverged; nothing of any other."""
    if fit.status != DIVERGED or step["auto_lr"] is None:
        return ""
    stable = step["largest_stable_lr"]
    bound = "" if stable is None else f"full-batch steps are stable up to 2/L = {stable:.4g}: "
    return (
        f" with lr={fit.lr:.4g}; {bound}use lr=auto ({step['auto_lr']:.4g} here) or less; the best "
        f"weights so far, of epoch {fit.best_epoch}, are kept"
    )


def falls_short(report: dict[str, Any]) -> bool:
    """Return whether a run is not proven to be as near to its optimum as it was asked to be.

    Without a penalty nothing can be proven, and nothing is asked.
    """
    config = report["config"]
    asked = config.get("choices", {}).get("optimizer") == "lbfgs" and report["reg"] > 0
    if not asked or report["status"] != "completed":
        return False
    relative = (report.get("certificate") or {}).get("relative")
    return relative is None or bool(relative > config["optimizer"]["tol"])


def selection_metric(report: dict[str, Any], name: str) -> float:
    """Return a report's val_loss or val_accuracy; nan without a validation split.

    Where there is a cross-validation, the mean over its folds.
    """
    split, figure = name.split("_")
    metrics = report.get("cross_validation", report["metrics"][split])
    return float(metrics[figure]) if metrics else math.nan


def keep(dataset: Dataset | None) -> None:
    """Keep the data of jobs for `open_test`, which else loads them again; None: let them go."""
    _kept[:] = [] if dataset is None else [dataset]


def open_test(folder: Path) -> None:
    """Evaluate the model of a run on its test split, and add the figures to its report.

    Its page and its plots are then to be made again, and are removed. Nothing is done where the
    figures are there already, or there is no test split.

    Raises
    ------
    InputError, OSError
        When the run left no model or report; when its data are not there or not the same any more.
    """
    report = needed_report(folder)
    if report["metrics"].get("test"):
        return
    with locked(folder):
        model, config = LinearModel.load(folder / MODEL), read_received(folder)[0]
        fingerprint = report["data"]["fingerprint"]
        kept = next((one for one in _kept if one.fingerprint == fingerprint), None)
        dataset = kept or _load_dataset(folder, config)
        if dataset.fingerprint != fingerprint:
            raise InputError(
                f"{folder}: the data are not those that it was trained on; bring them back"
            )
        if len(dataset.test) == 0:
            return
        measured = [Measured(model, config["report"]["top_k"], config["label_smoothing"])]
        if "calibration" in report:
            measured.append(_at(measured[0], 1.0))
        weights = find_class_weights(config["class_weight"], dataset)
        found = [one["test"] for one in _evaluate(measured, {"test": dataset.test}, weights)]
        if errors := [one for one in found if isinstance(one, InputError)]:
            raise errors[0]
        report["metrics"]["test"] = found[0].figures
        if "calibration" in report:
            report["calibration"]["before"]["test"] = calibrated_figures(found[1].figures)
        try:
            predictions = read_predictions(folder)
        except FileNotFoundError:  # of splits that are too large
            predictions = {}
        predictions |= predictions_of(dataset, {"test": found[0]})
        write_files("test", folder, Contents(model, (), report, predictions), dataset)


def _load_dataset(folder: Path, config: dict[str, Any]) -> Dataset:
    """Load the data of a run as its config says, which may come from anyone."""
    keys = {*config["data"]}
    for kind in schemas()["data"].values():
        names = {field.name for field in dataclasses.fields(kind)}
        if keys <= names and all(has_role(f"data.{name}", PLACE) for name in names - keys):
            break
    else:
        raise InputError(f"{folder}: its data are of no source that there is")
    # Where something is put is not kept with a run: it is as the program's own file has it.
    path = CONFIGS / "data" / f"{config['choices']['data']}.yaml"
    try:
        places: Any = OmegaConf.load(path) if path.is_file() else OmegaConf.create()
        places.pop("defaults", None)
        merged = OmegaConf.merge(OmegaConf.structured(kind), places, config["data"])
        source: Any = OmegaConf.to_object(merged)
        is_whole = by_folds(config.get("reg"), config.get("cv"))
        return load_dataset(without_validation(source) if is_whole else source)
    except InputError as error:
        raise InputError(f"{folder}: data.{error}") from error
    except OmegaConfBaseException as error:
        raise InputError(f"{folder}: data: {one_line(error)}") from error

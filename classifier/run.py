"""One training run, or a stack of them: from a config to a folder of results."""

import contextlib
import dataclasses
import logging
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from classifier import gradient_check
from classifier.config import Config, make_config
from classifier.evaluation import evaluate
from classifier.files import point_to, write_json, write_text
from classifier.history import write_history
from classifier.learning_rate import Scale, measure_scale
from classifier.model import LinearModel
from classifier.report.text import metrics_table, report_text
from classifier.stacked_loss import penalty
from classifier.training import Fit, PerModel, Training
from data.dataset import Dataset, Split
from data.errors import InputError, one_line
from data.preprocessing import AffineMap

log = logging.getLogger(__name__)
FLOAT32 = np.finfo(np.float32)
SHOWN = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")  # beside the bar
PACKAGES = ("numpy", "scikit-learn", "hydra-core", "matplotlib", "tqdm")


class RunError(Exception):
    """A run ended without a usable result; the message is one line for a person."""


# What one line tells in full; anything else is an error of this program.
EXPECTED = (InputError, OSError, RunError, MemoryError, KeyboardInterrupt)


@dataclasses.dataclass(frozen=True)
class Job:
    """One model to train.

    config is checked; plain is the same as plain values, with the choice of each config group
    under "choices"; folder is where the results go.
    """

    config: Config
    plain: dict[str, Any]
    folder: Path


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What all models of a stack share, ready for training."""

    dataset: Dataset
    features: AffineMap
    train: Split
    val: Split
    scale: Scale
    gradient_error: float | None


def run_composed(composed: DictConfig) -> None:
    """Run the job that Hydra has made a folder for: what train.py does.

    A failure has been told when it comes back; alone it ends the process with exit code 1, in a
    sweep it goes on to Hydra.
    """
    hydra = HydraConfig.get()
    alone = hydra.mode == RunMode.RUN
    folder = Path(hydra.runtime.output_dir)
    try:
        job = make_job(composed, dict(hydra.runtime.choices), folder)
        if alone:
            _point_latest(Path(job.config.outputs) / "latest", folder)
        run([job], progress=alone)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if alone:
            raise SystemExit(1) from error
        raise


def make_job(composed: DictConfig, choices: dict[str, Any], folder: Path) -> Job:
    """Check a composed config; what is wrong with it is told as for any run that fails.

    Parameters
    ----------
    composed : the config without Hydra's part.
    choices : what was chosen of each config group, as Hydra keeps it.
    folder : where the run is put.
    """
    with _failures_told([folder]):
        config = make_config(composed)
    plain = cast(dict[str, Any], OmegaConf.to_container(composed, resolve=True))
    own = {group: name for group, name in choices.items() if not group.startswith("hydra")}
    return Job(config, plain | {"choices": own}, folder)


def _point_latest(link: Path, folder: Path) -> None:
    try:
        point_to(link, folder)
    except OSError as error:  # the run is worth more than its nickname
        log.warning("%s does not point to this run: %s", link, one_line(error))


def run(jobs: Sequence[Job], progress: bool = False) -> list[dict[str, Any]]:
    """Train the models of some jobs as one stack and write each job's results to its folder.

    Parameters
    ----------
    jobs : configs that differ in lr, reg and momentum only, each with a folder of its own.
    progress : whether to show a bar, where stderr is a terminal.

    Returns
    -------
    The content of each job's report.json.

    Raises
    ------
    InputError, OSError
        When something the user gave cannot be used; every job's status is then `failed`.
    RunError
        When a model diverged, or the gradient is wrong. Its results are written all the same.
    """
    for job in jobs:
        job.folder.mkdir(parents=True, exist_ok=True)
        _write_status(job.folder, "running")
    with _failures_told([job.folder for job in jobs]):
        seconds: dict[str, float] = {}
        prepared = _prepare(jobs, seconds)
        fits = _train(jobs, prepared, seconds, progress)
        reports = [
            _finish(job, fit, prepared, dict(seconds)) for job, fit in zip(jobs, fits, strict=True)
        ]
    if any(fit.diverged for fit in fits):
        raise RunError("; ".join(fit.ended for fit in fits if fit.diverged))
    return reports


def _prepare(jobs: Sequence[Job], seconds: dict[str, float]) -> Prepared:
    config = jobs[0].config
    with _timed(seconds, "data"):
        dataset: Dataset = config.data.load(_generator(config.seed, "data"))
    sizes = ", ".join(f"{len(s)} {name}" for name, s in dataset.splits().items())
    log.info(
        "%s: %s examples, %d features, %d classes",
        *(dataset.name, sizes, dataset.n_features, len(dataset.classes)),
    )
    if len(dataset.val) + len(dataset.test) == 0:
        log.warning("no example is held out: the figures say nothing of new examples")
    with _timed(seconds, "preprocessing"):
        features = config.preprocessing.fit(dataset.train.X)
        train = Split(features.design_matrix(dataset.train.X), dataset.train.y)
        val = Split(features.design_matrix(dataset.val.X), dataset.val.y)
        scale = measure_scale(train.X, _generator(config.seed, "scale"))
    error = None
    if config.check_gradient:
        with _timed(seconds, "gradient_check"):
            error = _check_gradient(jobs, train, len(dataset.classes))
    return Prepared(dataset, features, train, val, scale, error)


def _check_gradient(jobs: Sequence[Job], train: Split, n_classes: int) -> float:
    reg = np.array([job.config.reg for job in jobs])
    rng = _generator(jobs[0].config.seed, "check")
    error = gradient_check.check_stacked_gradient(train.X, train.y, n_classes, reg, rng)
    log.info("gradient check: largest relative error %.1e", error)
    if not error <= gradient_check.LIMIT:
        raise RunError(
            f"gradient check: relative error {error:.1e}, over {gradient_check.LIMIT:g}: the "
            "gradient is wrong, nothing was trained (check_gradient=false skips the check)"
        )
    return error


def _train(
    jobs: Sequence[Job], prepared: Prepared, seconds: dict[str, float], progress: bool
) -> list[Fit]:
    config = jobs[0].config
    models = PerModel(
        lr=np.array([_resolve_lr(job.config, prepared.scale) for job in jobs]),
        reg=np.array([job.config.reg for job in jobs]),
        momentum=np.array([job.config.momentum for job in jobs]),
    )
    training = Training(
        prepared.train,
        prepared.val,
        len(prepared.dataset.classes),
        models,
        optimizer=config.optimizer,
        schedule=config.schedule,
        early_stopping=config.early_stopping,
        batch_size=config.batch_size,
        epochs=config.epochs,
        rng=_generator(config.seed, "order"),
    )
    if config.schedule.warmup_steps >= config.epochs * len(training.batches):
        log.warning("schedule.warmup_steps is longer than the training: lr is never reached")
    # disable=None: no bar where stderr is not a terminal.
    bar = tqdm(total=config.epochs, unit="epoch", leave=False, disable=None if progress else True)

    def show(fits: list[Fit]) -> None:
        row = fits[0].history[-1]._asdict()
        figures = {key: row[key] for key in SHOWN if row[key] is not None}
        bar.set_postfix({key: f"{value:.4f}" for key, value in figures.items()}, refresh=False)
        bar.update()

    with _timed(seconds, "training"), bar:
        return training.run(show)


def _resolve_lr(config: Config, scale: Scale) -> float:
    auto = config.lr == "auto"
    lr = config.optimizer.auto_lr(scale, config.reg) if auto else float(config.lr)
    if not float(FLOAT32.tiny) <= lr <= float(FLOAT32.max):
        reason = (
            f"{lr:.3g} here, for the features are of size {np.sqrt(scale.eigenvalue):.1e}; use "
            "preprocessing=standardize"
        )
        raise InputError(f"lr={config.lr}: {reason if auto else 'not a step float32 can take'}")
    stable = config.optimizer.stable_lr(scale, config.reg)
    bound = "" if stable is None else f", sure to be stable up to 2/L = {stable:.4g}"
    log.info("lr %.4g%s%s", lr, " (auto)" * auto, bound)
    return lr


def _finish(job: Job, fit: Fit, prepared: Prepared, seconds: dict[str, float]) -> dict[str, Any]:
    """Evaluate one model and write everything its run leaves."""
    dataset = prepared.dataset
    model = LinearModel(
        fit.W, fit.b, dataset.classes, prepared.features, dataset.image_shape, job.plain
    )
    if fit.diverged:
        fit.ended += _advice(job.config, fit, prepared.scale)
    with _timed(seconds, "evaluation"):
        top_k = job.config.report.top_k
        metrics = {n: evaluate(model, s.X, s.y, top_k) for n, s in dataset.splits().items()}
    report = _report(job, fit, prepared, metrics, seconds)
    model.save(job.folder / "model.npz")
    write_history(job.folder / "history.csv", fit.history)
    write_json(job.folder / "report.json", report)
    write_text(job.folder / "report.txt", report_text(report))
    if job.config.report.plots:
        from classifier.report.plots import draw_run

        draw_run(job.folder)
    _write_status(job.folder, report["status"], fit.ended)
    if fit.diverged:
        log.error("%s", fit.ended)
    else:
        log.info("%s; the best was epoch %d", fit.ended, fit.best_epoch)
    if report["metrics"]["train"]["loss"] >= np.log(len(dataset.classes)):
        log.warning("the kept weights are no better than guessing")
    log.info("\n%s\n%s", metrics_table(metrics), os.path.relpath(job.folder))
    return report


def _advice(config: Config, fit: Fit, scale: Scale) -> str:
    stable = config.optimizer.stable_lr(scale, config.reg)
    auto = config.optimizer.auto_lr(scale, config.reg)
    bound = "" if stable is None else f"the largest step sure to be stable is 2/L = {stable:.4g}: "
    return (
        f" with lr={fit.lr:.4g}; {bound}use lr=auto ({auto:.4g} here) or less; the best weights "
        f"so far, of epoch {fit.best_epoch}, are kept"
    )


def _report(
    job: Job, fit: Fit, prepared: Prepared, metrics: dict[str, Any], seconds: dict[str, float]
) -> dict[str, Any]:
    """Gather every number of a run: the content of report.json."""
    config, dataset = job.config, prepared.dataset
    weight_penalty = float(penalty(fit.theta[:, None], np.array([config.reg]))[0])
    return {
        "status": "diverged" if fit.diverged else "completed",
        "metrics": metrics,
        "objective": metrics["train"]["loss"] + weight_penalty,
        "config": job.plain,
        "lr": fit.lr,
        "reg": config.reg,
        "smoothness": prepared.scale.smoothness(config.reg),
        "largest_stable_lr": config.optimizer.stable_lr(prepared.scale, config.reg),
        "best_epoch": fit.best_epoch,
        "epochs": len(fit.history),
        "ended": fit.ended,
        "gradient_check": {"max_relative_error": prepared.gradient_error},
        "seconds": seconds,
        "data": {
            "name": dataset.name,
            "origin": dataset.origin,
            "n_features": dataset.n_features,
            "n_classes": len(dataset.classes),
            "image_shape": dataset.image_shape,
            "fingerprint": dataset.fingerprint,
        },
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
    }


def _generator(seed: int, purpose: str) -> np.random.Generator:
    """Return a generator for one purpose, so that no purpose changes what another draws."""
    return np.random.default_rng([seed, *purpose.encode()])


@contextlib.contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[part] = time.perf_counter() - start


@contextlib.contextmanager
def _failures_told(folders: Sequence[Path]) -> Iterator[None]:
    """Write why a run ended early into its status and its log, and let the error go on."""
    try:
        yield
    except BaseException as error:
        expected = isinstance(error, EXPECTED)
        reason = one_line(error) if expected else f"internal error: {error!r}"
        status = "failed"
        if isinstance(error, KeyboardInterrupt):
            status, reason = "interrupted", "stopped by Ctrl-C"
        log.error("%s", reason)
        log.debug("traceback", exc_info=error)
        for folder in folders:
            _write_status(folder, status, reason)
        raise


def _write_status(folder: Path, status: str, reason: str | None = None) -> None:
    write_json(folder / "status.json", {"status": status, "reason": reason})

"""One training run, or a stack of them: from a config to a folder of results."""

import contextlib
import math
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from classifier import blas
from classifier.checkpoint import NAME as CHECKPOINT
from classifier.checkpoint import Checkpoint, Checkpoints, read_checkpoint
from classifier.config import Config
from classifier.files import from_here
from classifier.interruption import exit_code, stop_later
from classifier.job import (
    Job,
    RunError,
    failures_told,
    locked_runs,
    log,
    make_job,
    timed,
    write_status,
)
from classifier.latest import LINK as LATEST
from classifier.latest import point_latest
from classifier.learning_rate import Scale
from classifier.model_stack import PerModel
from classifier.preparation import Prepared, generator, load_dataset, prepare
from classifier.results import Draw, draw_now, write_results
from classifier.tracking.track import track
from classifier.training import Fit, Training
from data.dataset import Dataset
from data.errors import InputError, one_line

FLOAT32 = np.finfo(np.float32)
SHOWN = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")  # beside the bar


def run_composed(composed: DictConfig) -> float:
    """Run the job that Hydra has made a folder for: what train.py does.

    Returns
    -------
    The figure that `objective` names, for a search; nan where the run has none.

    Raises
    ------
    SystemExit
        With exit code 1 where a run on its own failed, which has been told by then. The jobs of
        a sweep raise nothing: their statuses say it, and the sweep's summary.
    """
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    if hydra.mode != RunMode.RUN:
        return _run_in_folder(composed, folder, alone=False)
    try:
        return _run_in_folder(composed, folder, alone=True)
    finally:  # also of a run that failed or was stopped
        track(composed, folder)


def _run_in_folder(composed: DictConfig, folder: Path, *, alone: bool) -> float:
    try:
        job = make_job(composed, dict(HydraConfig.get().runtime.choices), folder)
        if alone:
            _point_latest(Path(job.config.outputs), folder)
        (report,) = run([job], progress=alone)
    except KeyboardInterrupt as stop:
        log.info("python train.py resume=%s goes on with it", from_here(folder))
        sys.exit(exit_code(stop))
    except Exception as error:
        if alone:
            raise SystemExit(1) from error
        return math.nan
    return objective_of(report, job.config.objective)


def objective_of(report: dict[str, Any], name: str) -> float:
    """Return a report's val_loss or val_accuracy; nan without a validation split."""
    split, figure = name.split("_")
    metrics = report["metrics"][split]
    return float(metrics[figure]) if metrics else math.nan


def run(
    jobs: Sequence[Job],
    *,
    checkpoint: Path | None = None,
    dataset: Dataset | None = None,
    draw: Draw = draw_now,
    progress: bool = False,
) -> list[dict[str, Any]]:
    """Train the models of some jobs as one stack and write each job's results to its folder.

    Parameters
    ----------
    jobs : configs that differ in the numbers of a model and in report only, each with a folder.
    checkpoint : where the stack's checkpoint is, or will be; None: the first job's folder. What
        stands there is gone on with.
    dataset : that of these jobs; None: load it.
    draw : makes the plots in a run's folder, now or soon.
    progress : whether to show a bar, where stderr is a terminal.

    Returns
    -------
    The content of each job's report.json.

    Raises
    ------
    InputError, OSError
        When something the user gave cannot be used; every job's status is then `failed`.
    RunError
        When a model diverged, or the gradient is wrong. Results are written all the same.
    Stopped
        When SIGINT or SIGTERM ended the training early; with checkpoint and results written.
    """
    folders = [job.folder for job in jobs]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}
    with _locked(folders), blas.within_cores(), contextlib.ExitStack() as exits:
        for folder in folders:
            write_status(folder, "running")
        with failures_told(folders):
            place = folders[0] / CHECKPOINT if checkpoint is None else checkpoint
            prepared, training, checkpoints = _begin(jobs, place, dataset, seconds)
            # From here on a signal lets the minibatch end, and the results be written.
            stop = exits.enter_context(stop_later())
            with timed(seconds, "training"):
                fits = _train(training, checkpoints, stop, progress)
        reports = _write_all(jobs, fits, prepared, seconds, draw)
    if any(fit.status == "diverged" for fit in fits):
        raise RunError("; ".join(fit.ended for fit in fits if fit.status == "diverged"))
    return reports


def _begin(
    jobs: Sequence[Job], place: Path, dataset: Dataset | None, seconds: dict[str, float]
) -> tuple[Prepared, Training, Checkpoints]:
    """Prepare a training, and put it where its checkpoint says it was, if there is one."""
    earlier = read_checkpoint(place) if place.exists() else None
    config = jobs[0].config
    if dataset is None:
        with timed(seconds, "data"):
            dataset = load_dataset(config)
    prepared = _prepare(jobs, dataset, earlier, seconds)
    training = _training(jobs, prepared)
    if earlier is not None:
        earlier.restore(training, jobs, dataset.fingerprint)
        log.info("goes on after step %d, in epoch %d", training.step, training.epoch + 1)
    whose = (jobs, dataset.fingerprint, prepared.gradient_error)
    return prepared, training, Checkpoints(place, *whose, config.checkpoint.every)


@contextlib.contextmanager
def _locked(folders: Sequence[Path]) -> Iterator[None]:
    with contextlib.ExitStack() as exits:
        try:
            exits.enter_context(locked_runs(folders))
        except InputError as error:  # not told in the folder: that is another process's
            log.error("%s", error)
            raise
        yield


def _prepare(
    jobs: Sequence[Job], dataset: Dataset, earlier: Checkpoint | None, seconds: dict[str, float]
) -> Prepared:
    configs = [job.config for job in jobs]
    if earlier is None:
        return prepare(dataset, configs, seconds)
    error = earlier.gradient_error
    return prepare(dataset, configs, seconds, checked=error is not None, gradient_error=error)


def _training(jobs: Sequence[Job], prepared: Prepared) -> Training:
    config = jobs[0].config
    models = PerModel(
        lr=np.array([_resolve_lr(job, prepared.scale) for job in jobs]),
        reg=np.array([job.config.reg for job in jobs]),
        momentum=np.array([job.config.momentum for job in jobs]),
        label_smoothing=np.array([job.config.label_smoothing for job in jobs]),
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
        rng=generator(config.seed, "order"),
    )
    if config.schedule.warmup_steps >= config.epochs * len(training.batches):
        log.warning("schedule.warmup_steps is longer than the training: lr is never reached")
    return training


def _train(
    training: Training, checkpoints: Checkpoints, stop: Callable[[], str], progress: bool
) -> list[Fit]:
    from tqdm import tqdm  # costs start-up

    # tqdm's own lock is for several processes. From Python 3.14 on it takes a process of its own,
    # which complains on stderr of a lock that is left when this one is killed.
    tqdm.set_lock(threading.RLock())
    # disable=None: no bar where stderr is not a terminal.
    bar = tqdm(
        total=training.epochs,
        initial=training.epoch,
        unit="epoch",
        leave=False,
        disable=None if progress else True,
    )

    def after_epoch(fits: list[Fit]) -> None:
        row = fits[0].history[-1]._asdict()
        figures = {key: row[key] for key in SHOWN if row[key] is not None}
        bar.set_postfix({key: f"{value:.4f}" for key, value in figures.items()}, refresh=False)
        bar.update()
        checkpoints.after_epoch(training)

    with bar:
        fits = training.run(after_epoch, stop)
    checkpoints.write(training)
    return fits


def _write_all(
    jobs: Sequence[Job],
    fits: Sequence[Fit],
    prepared: Prepared,
    seconds: dict[str, float],
    draw: Draw,
) -> list[dict[str, Any]]:
    """Write each job's results; one's full disk or odd class name is not another's."""
    reports, errors = [], []
    for job, fit in zip(jobs, fits, strict=True):
        try:
            with failures_told([job.folder]):
                reports.append(write_results(job, fit, prepared, dict(seconds), draw))
        except Exception as error:
            errors.append(error)
    if errors:
        raise errors[0]
    return reports


def _resolve_lr(job: Job, scale: Scale) -> float:
    config: Config = job.config
    auto = config.lr == "auto"
    lr = config.optimizer.auto_lr(scale, config.reg) if auto else float(config.lr)
    lr *= config.lr_scale
    if not float(FLOAT32.tiny) <= lr <= float(FLOAT32.max):
        reason = (
            f"{lr:.3g} here, for the features are of size {np.sqrt(scale.eigenvalue):.1e}; use "
            "preprocessing=standardize"
        )
        raise InputError(f"lr={config.lr}: {reason if auto else 'not a step float32 can take'}")
    stable = config.optimizer.stable_lr(scale, config.reg)
    bound = "" if stable is None else f", sure to be stable up to 2/L = {stable:.4g}"
    own = {"folder": job.folder}
    log.info("lr %.4g%s%s", lr, " (auto)" * auto, bound, extra=own)
    return lr


def _point_latest(outputs: Path, folder: Path) -> None:
    try:
        point_latest(outputs, folder)
    except OSError as error:  # the run is worth more than its nickname
        log.warning("%s does not point to this run: %s", outputs / LATEST, one_line(error))

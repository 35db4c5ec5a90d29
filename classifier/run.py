"""One training run, or a stack of them: from a config to a folder of results."""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from tqdm import tqdm

from classifier.config import Config
from classifier.files import point_to
from classifier.job import Job, RunError, failures_told, log, make_job, timed, write_status
from classifier.learning_rate import Scale
from classifier.preparation import Prepared, generator, load_dataset, prepare
from classifier.results import Draw, draw_now, write_results
from classifier.training import Fit, PerModel, Training
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
    alone = hydra.mode == RunMode.RUN
    folder = Path(hydra.runtime.output_dir)
    try:
        job = make_job(composed, dict(hydra.runtime.choices), folder)
        if alone:
            _point_latest(Path(job.config.outputs) / "latest", folder)
        (report,) = run([job], progress=alone)
    except KeyboardInterrupt:
        sys.exit(130)
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
    dataset: Dataset | None = None,
    draw: Draw = draw_now,
    progress: bool = False,
) -> list[dict[str, Any]]:
    """Train the models of some jobs as one stack and write each job's results to its folder.

    Parameters
    ----------
    jobs : configs that differ in lr, lr_scale, reg, momentum and report only, each with a folder.
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
    """
    folders = [job.folder for job in jobs]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        write_status(folder, "running")
    seconds: dict[str, float] = {}
    with failures_told(folders):
        if dataset is None:
            with timed(seconds, "data"):
                dataset = load_dataset(jobs[0].config)
        reg = np.array([job.config.reg for job in jobs])
        prepared = prepare(dataset, jobs[0].config, reg, seconds)
        fits = _train(jobs, prepared, seconds, progress)
    reports, errors = [], []
    for job, fit in zip(jobs, fits, strict=True):
        # One job's full disk or odd class name is not another's.
        try:
            with failures_told([job.folder]):
                reports.append(write_results(job, fit, prepared, dict(seconds), draw))
        except Exception as error:
            errors.append(error)
    if errors:
        raise errors[0]
    if any(fit.diverged for fit in fits):
        raise RunError("; ".join(fit.ended for fit in fits if fit.diverged))
    return reports


def _train(
    jobs: Sequence[Job], prepared: Prepared, seconds: dict[str, float], progress: bool
) -> list[Fit]:
    config = jobs[0].config
    models = PerModel(
        lr=np.array([_resolve_lr(job, prepared.scale) for job in jobs]),
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
        rng=generator(config.seed, "order"),
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

    with timed(seconds, "training"), bar:
        return training.run(show)


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


def _point_latest(link: Path, folder: Path) -> None:
    try:
        point_to(link, folder)
    except OSError as error:  # the run is worth more than its nickname
        log.warning("%s does not point to this run: %s", link, one_line(error))

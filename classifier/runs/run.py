"""One training run, or a stack of them: from a config to a folder of results."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from classifier import blas
from classifier.fit import Fit
from classifier.runs.checkpoint import NAME as CHECKPOINT
from classifier.runs.checkpoint import Checkpoint, Checkpoints, read_checkpoint
from classifier.runs.claim import mark
from classifier.runs.conclude import Show, conclude
from classifier.runs.folder import FINISHED, locked_runs, read_status, write_status
from classifier.runs.interruption import stop_later
from classifier.runs.job import Job
from classifier.runs.log import RunError, failures_recorded, log, timed
from classifier.runs.preparation import Prepared, load_dataset, prepare
from classifier.runs.progress import Watch, said_when_long
from classifier.runs.trained import judge
from classifier.runs.trainer import make_trainer
from classifier.solver import Training
from data.dataset import Dataset
from data.errors import InputError, one_line


def run(
    jobs: Sequence[Job],
    *,
    checkpoint: Path | None = None,
    dataset: Dataset | None = None,
    show: Show = lambda *_: None,
    watch: Watch = lambda _: None,
    of_sweep: bool = False,
) -> list[dict[str, Any]]:
    """Train the models of some jobs as one stack and write each job's results to its folder.

    Parameters
    ----------
    jobs : configs that differ in the numbers of a model and in report only, each with a folder.
    checkpoint : where the stack's checkpoint is, or will be; None: the first job's folder. From a
        checkpoint that exists the training goes on.
    dataset : that of these jobs; None: load it.
    show : makes the page and the plots of a run's folder, now or soon.
    watch : is told of the training when it begins, after each epoch and its checkpoint, and when
        it has ended.
    of_sweep : whether these are jobs of a sweep, which leave the test split alone.

    Returns
    -------
    The content of each job's report.json, but for those that were skipped.

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
    place = folders[0] / CHECKPOINT if checkpoint is None else checkpoint
    with _locked(folders, place.parent), blas.within_cores(), contextlib.ExitStack() as exits:
        with _as_it_was(folders):
            prepared, training, checkpoints = _begin(jobs, place, dataset)
        with failures_recorded(folders):
            seconds = dict(prepared.seconds)
            # From here on a signal lets the minibatch end, and the results be written.
            stop = exits.enter_context(stop_later())
            with timed(seconds, "training"):
                fits = _train(training, checkpoints, stop, watch)
                own = training.models, len(jobs), prepared, stop.raise_when_overdue
                with said_when_long("trained; measures how far from the optimum", log):
                    trained = judge(fits, *own)
        reports = conclude(
            jobs, trained, prepared, seconds, show, stop.raise_when_overdue, of_sweep=of_sweep
        )
    if diverged := [report["ended"] for report in reports if report["status"] == "diverged"]:
        raise RunError("; ".join(diverged))
    return reports


@contextlib.contextmanager
def _as_it_was(folders: Sequence[Path]) -> Iterator[None]:
    """Set the statuses to running, and record failures; a run that was finished stays so then."""
    before = {folder: read_status(folder) for folder in folders}
    try:
        with failures_recorded(folders):
            for folder in folders:
                write_status(folder, "running")
            yield
    except BaseException:
        for folder, earlier in before.items():
            if earlier["status"] in FINISHED:
                write_status(folder, **earlier)
        raise


def _begin(
    jobs: Sequence[Job], place: Path, dataset: Dataset | None
) -> tuple[Prepared, Training, Checkpoints]:
    """Prepare a training, and put it where its checkpoint says it was, if there is one."""
    earlier = read_checkpoint(place) if place.exists() else None
    config = jobs[0].config
    loading: dict[str, float] = {}
    if dataset is None:
        with timed(loading, "data"):
            dataset = load_dataset(config)
    prepared = _prepare(jobs, dataset, earlier)
    prepared = dataclasses.replace(prepared, seconds=loading | prepared.seconds)
    training = make_trainer(jobs, prepared)
    if earlier is not None:
        earlier.restore(training, jobs, dataset.trained_on)
        log.info("resumes after step %d, in epoch %d", training.step, training.epoch + 1)
    whose = (jobs, dataset.trained_on, prepared.gradient_error)
    return prepared, training, Checkpoints(place, *whose, config.checkpoint.every)


@contextlib.contextmanager
def _locked(folders: Sequence[Path], stack: Path) -> Iterator[None]:
    """Make the folders, where they are not there, and keep other processes out of them."""
    with contextlib.ExitStack() as exits:
        try:
            for folder in folders:
                folder.mkdir(parents=True, exist_ok=True)
            exits.enter_context(locked_runs(folders, stack))
            for folder in folders:
                mark(folder, "run")
        except (InputError, OSError) as error:  # not recorded: it is another process's, or no place
            log.error("%s", one_line(error))
            raise
        yield


def _prepare(jobs: Sequence[Job], dataset: Dataset, earlier: Checkpoint | None) -> Prepared:
    configs = [job.config for job in jobs]
    if earlier is None:
        return prepare(dataset, configs)
    error = earlier.gradient_error
    return prepare(dataset, configs, checked=error is not None, gradient_error=error)


def _train(
    training: Training, checkpoints: Checkpoints, stop: Callable[[], str], watch: Watch
) -> list[Fit]:
    def after_epoch(_: list[Fit]) -> None:
        checkpoints.after_epoch(training)
        watch(training)

    watch(training)
    fits = training.run(after_epoch, stop)
    checkpoints.write(training)
    watch(training)
    return fits

"""One training run, or a stack of them: from a config to a folder of results.

The order of the files makes a kill harmless. The models are written first, for an evaluation may
fail; the status, which says that a job is completed, is written when all its other files stand
there.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from classifier.engine import Spread, open_engine
from classifier.fit import SKIPPED, STUCK, Fit
from classifier.report.text import figures_flags, settings_flags, text_of
from classifier.runs.artifacts import (
    CHECKPOINT,
    Checkpoints,
    Contents,
    read_checkpoint,
    write_files,
)
from classifier.runs.config import AUTO, Config, Job
from classifier.runs.folder import NOT_BEGUN, locked_runs, read_status, write_status
from classifier.runs.log import (
    Noted,
    RunError,
    Watch,
    failures_recorded,
    log,
    said_when_long,
    stop_later,
    timed,
)
from classifier.runs.preparation import Prepared, load_dataset, log_plan, make_trainer, prepare
from classifier.runs.reg_path import choose_penalty, first_models
from classifier.runs.results import Trained, evaluate_models, falls_short, judge
from classifier.solver import Training
from data.dataset import Dataset
from data.errors import InputError, one_line, printable
from data.files.store import flush, from_here
from data.machine import within_cores

EVALUATED = 2**23  # predictions that are kept at a time, of all models
# Makes what a person looks at in the folder of a run, now or soon; and its plots, where asked to.
Show = Callable[[Path, bool], object]


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
    checkpoint : of the stack, which goes on from it where it exists; None: in the first folder.
    dataset : that of these jobs; None: load it.
    show : makes the page and the plots of a run's folder, now or soon.
    watch : is told of the training as it begins, after each epoch and its checkpoint, at its end.
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
    path = folders[0] / CHECKPOINT if checkpoint is None else checkpoint
    seconds: dict[str, float] = {}
    with contextlib.ExitStack() as exits:
        exits.enter_context(within_cores())
        try:
            exits.enter_context(locked_runs(folders, path.parent))
        except (InputError, OSError) as error:  # not recorded: it is another process's, or no place
            log.error("%s", one_line(error))
            raise
        with failures_recorded(folders):
            spread = exits.enter_context(open_engine(jobs[0].config.engine))
            prepared, models, training = _begin(jobs, path, dataset, seconds, spread)
            for folder in folders:
                write_status(folder, "running")
            # From here on a signal lets the minibatch end, and the results be written.
            stop = exits.enter_context(stop_later())
            train = partial(_train, prepared=prepared, path=path, watch=watch, stop=stop)
            with timed(seconds, "training"):
                if jobs[0].config.reg == AUTO:
                    trained = [choose_penalty(jobs[0], prepared, models, training, train, stop)]
                else:
                    trained = train(models, training)
        seconds = {part: value / len(jobs) for part, value in seconds.items()}
        reports = _conclude(
            trained, prepared, seconds, show, stop.raise_when_overdue, of_sweep=of_sweep
        )
    if diverged := [report["ended"] for report in reports if report["status"] == "diverged"]:
        raise RunError("; ".join(diverged))
    return reports


def _begin(
    jobs: Sequence[Job],
    path: Path,
    dataset: Dataset | None,
    seconds: dict[str, float],
    spread: Spread,
) -> tuple[Prepared, Sequence[Job], Training]:
    """Prepare a training, and put it where its checkpoint says it was, if there is one.

    Its models are the jobs or, with reg=auto, the one job with each penalty of its path.
    """
    earlier = read_checkpoint(path) if path.exists() else None
    configs = [job.config for job in jobs]
    if dataset is None:
        with timed(seconds, "data"):
            dataset = load_dataset(configs[0].source)
    error = None if earlier is None else earlier.gradient_error
    prepared = prepare(dataset, configs, seconds, error, spread)
    log_plan(jobs, prepared.scale)
    models = first_models(jobs[0], prepared, earlier) if configs[0].reg == AUTO else jobs
    training = make_trainer(models, prepared)
    if earlier is not None:
        earlier.restore(training, models, dataset.trained_on)
        log.info("resumes after step %d, in epoch %d", training.step, training.epoch + 1)
        if moved := earlier.moved(models[0]):
            log.info("%s", moved)
    elif read_status(jobs[0].folder)["status"] != NOT_BEGUN:
        log.info("there is no %s to go on from: the training begins anew", CHECKPOINT)
    return prepared, models, training


def _train(
    models: Sequence[Job],
    training: Training,
    *,
    prepared: Prepared,
    path: Path,
    watch: Watch,
    stop: Noted,
) -> list[Trained]:
    """Train models as one stack, with checkpoints; return what is known of each."""
    config, whose = models[0].config, (prepared.dataset.trained_on, prepared.gradient_error)
    checkpoints = Checkpoints(path, models, *whose, config.checkpoint.every)

    def after_epoch(_: list[Fit]) -> None:
        checkpoints.after_epoch(training)
        watch(training)

    watch(training)
    fits = training.run(after_epoch, stop)
    checkpoints.write(training)
    watch(training)
    with said_when_long("trained; measures how far from the optimum", log):
        return judge(models, fits, training.models, prepared, stop.raise_when_overdue)


def _conclude(
    trained: Sequence[Trained],
    prepared: Prepared,
    seconds: dict[str, float],
    show: Show,
    after_block: Callable[[], None],
    *,
    of_sweep: bool,
) -> list[dict[str, Any]]:
    """Write what training made of each job, evaluate it, and write its results.

    What goes wrong with a job is recorded in its folder, and raised when the others are done.
    """
    errors: list[Exception] = []
    reports, kept, dataset = [], list[Trained](), prepared.dataset
    ended: list[Path] = []
    for one in trained:
        if one.fit.status == SKIPPED:
            write_status(one.job.folder, SKIPPED, one.fit.ended)
            continue
        with _recorded([one], errors):
            contents = Contents(one.model, one.fit.history, {}, {})
            write_files("training", one.job.folder, contents, dataset)
            kept.append(one)
    size = max(1, EVALUATED // max(1, *map(len, dataset.splits().values())))
    for some in (kept[start : start + size] for start in range(0, len(kept), size)):
        results: Sequence[Contents | InputError] = []
        with _recorded(some, errors), said_when_long("trained; evaluates the model", log):
            results = evaluate_models(some, prepared, seconds, after_block, of_sweep=of_sweep)
        for one, result in zip(some, results, strict=False):
            folder = one.job.folder
            with _recorded([one], errors):
                if isinstance(result, InputError):
                    raise result
                write_files("evaluation", folder, result, dataset)
                show(folder, is_drawn(one.job.config, of_sweep=of_sweep))
                write_status(folder, result.report["status"], result.report["ended"])
                ended.append(folder / "status.json")
                _log_outcome(folder, result.report, of_sweep=of_sweep)
                reports.append(result.report)
    # Written last, so they alone are flushed: a journal keeps the order of what came before.
    flush(ended)
    if errors:
        raise errors[0]
    return reports


@contextlib.contextmanager
def _recorded(stack: Sequence[Trained], errors: list[Exception]) -> Iterator[None]:
    """Record an error of the block in the folders of trained jobs, and keep it: others go on."""
    trained = "training is done, and resume evaluates the model without it"
    try:
        with failures_recorded([one.job.folder for one in stack]):
            try:
                yield
            except (InputError, OSError, MemoryError) as error:
                raise RunError(f"evaluation: {one_line(error)}; {trained}") from error
            except KeyboardInterrupt as stop:
                stop.args = (f"{stop} during the evaluation; {trained}",)
                raise
    except Exception as error:
        errors.append(error)


def is_drawn(config: Config, *, of_sweep: bool) -> bool:
    """Return whether the plots of a run are drawn as soon as it has ended."""
    return config.report.plots == "all" or (config.report.plots == "best" and not of_sweep)


def _log_outcome(folder: Path, report: dict[str, Any], *, of_sweep: bool) -> None:
    """Log what came of a run; what is wrong with a model of a sweep its page warns of."""

    def say(line: str, level: int = logging.INFO) -> None:
        log.log(level, "%s", line, extra={"folder": folder})

    quiet = logging.INFO if of_sweep else logging.WARNING
    if report["status"] == "diverged":
        say(report["ended"], logging.ERROR)
    else:
        say(f"{report['ended']}; the best was epoch {report['best_epoch']}")
    flags = figures_flags(report)  # of settings: said before
    if "reg_path" in report:  # only now is it known what the settings are
        flags = [*settings_flags(report), *flags]
    elif "cross_validation" in report:
        say(text_of("cross_validation_text", report["cross_validation"]))
    if falls_short(report):
        more = "" if report["ended"] == STUCK else "more epochs, "
        asked = f"optimizer.tol asks for {100 * report['config']['optimizer']['tol']:g} %"
        advice = f"give {more}a larger optimizer.tol, or a larger reg"
        say(f"{text_of('certified', report)}; {asked}: {advice}", logging.WARNING)
    for sentence in flags:
        say(sentence, quiet)
    if "calibration" in report:
        say(text_of("calibration_text", report))
        if report["calibration"]["temperature"] == 1:
            say("validation says nothing of the temperature: not calibrated", logging.WARNING)
    choice = [text_of("choice_text", report)] if "reg_path" in report else []
    parts = text_of("metrics_table", report["metrics"]), text_of("headline", report), *choice
    say("\n" + "\n".join([*filter(None, parts), printable(from_here(folder))]))

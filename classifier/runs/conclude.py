"""What becomes of a stack that was trained: models, evaluations, files and statuses of its jobs.

The order makes a kill harmless. The models are written first, for an evaluation may fail; the
status, which says that a job is completed, is written when all its other files stand there.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from classifier.fit import SKIPPED
from classifier.runs.config import Config
from classifier.runs.evaluated import Evaluated, Member, at_once, evaluate_jobs
from classifier.runs.folder import write_status
from classifier.runs.job import Job
from classifier.runs.log import RunError, failures_recorded, log
from classifier.runs.preparation import Prepared
from classifier.runs.progress import said_when_long
from classifier.runs.results import finish, keep_fit, write_results
from classifier.runs.trained import Trained
from data.errors import InputError, one_line
from data.files.store import from_here

# Makes what a person looks at in the folder of a run, now or soon; and its plots, where asked to.
Show = Callable[[Path, bool], object]


def conclude(
    jobs: Sequence[Job],
    trained: Sequence[Trained],
    prepared: Prepared,
    seconds: dict[str, float],
    show: Show,
    after_block: Callable[[], None],
    *,
    of_sweep: bool,
) -> list[dict[str, Any]]:
    """Write what training made of each job, evaluate it, and write its results.

    Parameters
    ----------
    jobs, trained : the jobs of a stack, and what training made of each.
    prepared : the data that they were trained on.
    seconds : what the parts of the run took so far, for all jobs together.
    show : makes the page of a run's folder, and its plots.
    after_block : called after each block of examples that is evaluated.
    of_sweep : whether these are jobs of a sweep.

    Returns
    -------
    The reports, but for jobs that were skipped.

    Raises
    ------
    Exception
        The first one that a job met; the others have their results all the same.
    """
    errors = _Errors()
    members = _keep(jobs, trained, prepared, errors)
    own = {part: value / len(jobs) for part, value in seconds.items()}
    reports, size = [], at_once(prepared)
    for some in (members[start : start + size] for start in range(0, len(members), size)):
        found: Sequence[Evaluated | InputError] = []
        evaluating = said_when_long("trained; evaluates the model", log)
        with errors.of(some), _trained_already(some), evaluating:
            found = evaluate_jobs(some, prepared, own, after_block, of_sweep=of_sweep)
        for member, result in zip(some, found, strict=False):
            with errors.of([member]):
                with _trained_already([member]):
                    if isinstance(result, InputError):
                        raise result
                    write_results(result, prepared.dataset)
                    show(result.job.folder, is_drawn(result.job.config, of_sweep=of_sweep))
                finish(result, of_sweep=of_sweep)
                reports.append(result.report)
    errors.raise_first()
    return reports


def is_drawn(config: Config, *, of_sweep: bool) -> bool:
    """Return whether the plots of a run are drawn as soon as it has ended."""
    return config.report.plots == "all" or (config.report.plots == "best" and not of_sweep)


def _keep(
    jobs: Sequence[Job], trained: Sequence[Trained], prepared: Prepared, errors: "_Errors"
) -> list[Member]:
    """Write the models; return those that are to be evaluated."""
    members = []
    for job, own in zip(jobs, trained, strict=True):
        if own.fit.status == SKIPPED:
            write_status(job.folder, SKIPPED, own.fit.ended)
            continue
        with errors.of([job]):
            members.append(Member(job, own, keep_fit(job, own.fit, prepared)))
    return members


class _Errors:
    """What goes wrong with some jobs, recorded in their folders, while others go on."""

    def __init__(self) -> None:
        self._errors: list[Exception] = []

    @contextlib.contextmanager
    def of(self, jobs: Sequence[Job | Member]) -> Iterator[None]:
        """Record an error of the block for its jobs, and keep it."""
        own = [job.job if isinstance(job, Member) else job for job in jobs]
        try:
            with failures_recorded([job.folder for job in own]):
                yield
        except Exception as error:
            self._errors.append(error)

    def raise_first(self) -> None:
        """Raise the first of them, if there is one."""
        if self._errors:
            raise self._errors[0]


@contextlib.contextmanager
def _trained_already(members: Sequence[Member]) -> Iterator[None]:
    """Say of an evaluation that fails what there is, and how it is finished."""
    place = from_here(members[0].job.folder)
    kept = f"the model stands in {place}, and resume evaluates it without training"
    if len(members) > 1:
        kept = "the models stand in their folders, and resume evaluates them without training"
    try:
        yield
    except (InputError, OSError, MemoryError) as error:
        raise RunError(f"evaluation: {one_line(error)}; {kept}") from error
    except KeyboardInterrupt as stop:
        stop.args = (f"{stop} during the evaluation; {kept}",)
        raise

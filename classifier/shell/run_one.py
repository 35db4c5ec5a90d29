"""What train.py does with the config that Hydra has composed: one run, in its folder."""

import logging
import math
import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from classifier.report.pages.draw import show_run
from classifier.runs import log as logs
from classifier.runs.artifacts import CHECKPOINT, MODEL
from classifier.runs.config import Job, make_config, plain_config, refuse_unused
from classifier.runs.folder import LINK, point_latest
from classifier.runs.results import selection_metric
from classifier.runs.run import run
from classifier.solver import Training
from classifier.tracking.track import Tracking
from data.errors import one_line, printable
from data.files.store import from_here


def run_one(composed: DictConfig) -> float:
    """Run the job that Hydra has made a folder for.

    Returns
    -------
    The figure that the key `objective` names, for a search; nan where the run has none.

    Raises
    ------
    SystemExit
        With exit code 1 where a run on its own failed, after its reason has been shown. The jobs
        of a sweep raise nothing: their statuses say it, and the sweep's summary.
    """
    hydra = HydraConfig.get()
    folder, is_alone = Path(hydra.runtime.output_dir), hydra.mode == RunMode.RUN
    if composed.quiet:  # warnings and errors alone, on stderr; stdout is for the folder of a run
        for handler in logging.getLogger().handlers:
            is_stdout = handler.name == "console"
            handler.setLevel(logging.CRITICAL + 1 if is_stdout else logging.WARNING)
    tracking, is_latest = Tracking(composed, folder), False

    def watch(training: Training) -> None:
        nonlocal is_latest
        show_epochs(training)
        # A run is the newest one as soon as it has something to go on with.
        if not is_latest and any((folder / name).exists() for name in (CHECKPOINT, MODEL)):
            is_latest = True
            try:
                point_latest(Path(str(composed.outputs)), folder)
            except OSError as error:  # the run is worth more than its nickname
                link = Path(str(composed.outputs)) / LINK
                logs.log.warning("%s does not point to this run: %s", link, one_line(error))
        tracking(training)

    def show(folder: Path, plots: bool) -> None:
        what = "evaluated; draws the plots" if plots else "evaluated; makes the page"
        with logs.said_when_long(what, logs.log):
            show_run(folder, plots)

    try:
        with logs.failures_recorded([folder]):
            config = make_config(composed)
            refuse_unused(config, hydra.overrides.task)
        job = Job(config, plain_config(composed, dict(hydra.runtime.choices)), folder)
        if not is_alone:
            (report,) = run([job], show=show, of_sweep=True)
        else:
            with logs.Progress(logs.log.info, shown=not composed.quiet) as progress:
                show_epochs = logs.watch_epochs(progress)
                (report,) = run([job], show=show, watch=watch)
    except KeyboardInterrupt as stop:
        logs.log.info("resume it with: python train.py resume=%s", printable(from_here(folder)))
        sys.exit(logs.exit_code(stop))
    except Exception as error:
        if is_alone:
            raise SystemExit(1) from error
        return math.nan
    finally:  # also of a run that failed or was stopped
        if is_alone:
            tracking.end()
        if is_alone and composed.quiet:
            print(printable(from_here(folder)))
    return selection_metric(report, config.objective)

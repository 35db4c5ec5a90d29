"""What train.py does with the config that Hydra has composed: one run, in its folder."""

import math
import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from classifier.report.pages.show import show_run
from classifier.runs.config import refuse_unused
from classifier.runs.interruption import exit_code
from classifier.runs.job import make_job
from classifier.runs.latest import LINK, point_latest
from classifier.runs.log import failures_recorded, log
from classifier.runs.results import selection_metric
from classifier.runs.run import run
from classifier.tracking.track import track
from data.console import printable
from data.errors import one_line
from data.files.whole import from_here


def run_composed(composed: DictConfig) -> float:
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
    folder = Path(hydra.runtime.output_dir)
    if hydra.mode != RunMode.RUN:
        return _run_in_folder(composed, folder, alone=False)
    try:
        return _run_in_folder(composed, folder, alone=True)
    finally:  # also of a run that failed or was stopped
        track(composed, folder)


def _run_in_folder(composed: DictConfig, folder: Path, *, alone: bool) -> float:
    try:
        with failures_recorded([folder]):
            hydra = HydraConfig.get()
            job = make_job(composed, dict(hydra.runtime.choices), folder)
            refuse_unused(job.config, hydra.overrides.task)
        if alone:
            _point_latest(Path(job.config.outputs), folder)
        (report,) = run([job], show=show_run, progress=alone, of_sweep=not alone)
    except KeyboardInterrupt as stop:
        log.info("resume it with: python train.py resume=%s", printable(from_here(folder)))
        sys.exit(exit_code(stop))
    except Exception as error:
        if alone:
            raise SystemExit(1) from error
        return math.nan
    return selection_metric(report, job.config.objective)


def _point_latest(outputs: Path, folder: Path) -> None:
    try:
        point_latest(outputs, folder)
    except OSError as error:  # the run is worth more than its nickname
        log.warning("%s does not point to this run: %s", outputs / LINK, one_line(error))

"""`tracker=none|tensorboard|mlflow`: hands a run to the tracker, and says when that fails."""

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from classifier.runs.config import REMOVABLE
from data.console import printable
from data.errors import InputError, one_line

PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow"}


def tracker_of(config: DictConfig) -> str:
    """Return the tracker that a composed config names; `~tracker` removes it."""
    return str(OmegaConf.select(config, "tracker", default=REMOVABLE["tracker"]))


def check_tracker(config: DictConfig, *, is_sweep: bool = False) -> None:
    """Raise InputError where a composed config's tracker cannot be used."""
    if config.tracker_live and is_sweep:
        raise InputError("tracker_live=true: a tracker is told of a sweep at its end; leave it out")
    tracker = tracker_of(config)
    if tracker == "none":
        if config.tracker_live:
            raise InputError("tracker_live=true: there is no tracker; add tracker=tensorboard")
        return
    if tracker not in PACKAGES:
        raise InputError(f"tracker={tracker}: must be one of none, {', '.join(PACKAGES)}")
    if tracker == "mlflow":
        try:
            OmegaConf.to_object(config.mlflow)
        except InputError as error:
            raise InputError(f"mlflow.{error}") from error
    package = PACKAGES[tracker]
    if find_spec(package) is None:
        raise InputError(
            f"tracker={tracker}: {package} is not installed: pip install -r requirements-extras.txt"
        )


def track(
    config: DictConfig, folder: Path, *, is_sweep: bool = False, listener: Any = None
) -> None:
    """Hand a tracker a run, or a sweep and all its jobs, in place of what it has of them.

    A tracker that fails costs nothing but itself: one line on stderr says so, and the results
    stand in their files.

    Parameters
    ----------
    config : the composed config of the run or of the sweep, which names the tracker.
    folder : of the run, or of the sweep with a folder a job.
    listener : what the tracker has of the run already, that `classifier.tracking.live` told it.
    """
    tracker = tracker_of(config)
    if tracker == "none":
        return
    try:
        from classifier.sweep.records import read_record, read_records

        records = read_records(folder) if is_sweep else [read_record(folder)]
        sweep = folder if is_sweep else None
        with silence():
            if tracker == "tensorboard":
                from classifier.tracking.event_files import write_events

                write_events(records, sweep, listener)
            else:
                from classifier.tracking.mlflow_store import store

                place: Any = OmegaConf.to_object(config.mlflow)
                store(records, sweep, place, listener)
    except Exception as error:
        failure = f"tracker={tracker}: not tracked: {reason(error)}"
        print(f"{failure}; the results stand in {printable(folder)}", file=sys.stderr)


def reason(error: BaseException) -> str:
    """Return in one line what a tracker's exception is about, which its own often hide."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    return one_line(error)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep a package's warnings and logs, of its own concerns, from the terminal."""
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)

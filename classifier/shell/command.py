"""The shell's side of the program: one line for a mistake, a folder of its own for a run."""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from classifier.report.pages import draw
from classifier.runs.config import CONFIGS, Config, make_config, settle_values, without_hydra
from classifier.runs.hints import explain
from classifier.runs.log import SweepStopped, exit_code, stop_at_once
from classifier.runs.progress import said_when_long
from classifier.shell.arguments import explain_arguments, refuse_arguments
from classifier.shell.console import hush_sweep
from classifier.shell.hydra_settings import check_hydra, check_size, check_stacked
from classifier.shell.hydra_versions import compose_once, lazy_help
from classifier.shell.resume import resume_run, resumed_arguments
from classifier.shell.settle import settle_run, settle_sweep
from classifier.shell.sweep_choice import check_sweep_choice, check_swept_keys
from classifier.tracking.track import check_tracker, track
from data.errors import InputError
from data.options import Options

log = logging.getLogger(__name__)
TRACEBACK = "HYDRA_FULL_ERROR"  # Hydra's variable: 1 shows tracebacks


def run_command(main: Callable[[], Any], schema: type[Options]) -> None:
    """Run a Hydra entry point; a mistake ends it with one line on stderr and exit code 1.

    Parameters
    ----------
    main : the function that `hydra.main` made.
    schema : of its config.
    """
    refuse_arguments(sys.argv[1:], schema)
    if {"--help", "-h"} & {*sys.argv[1:]}:
        print(_help(schema))
        return
    # Hydra's parser wants its flags before the overrides.
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda given: given not in ("-m", "--multirun"))
    # Processes that a launcher starts import this program from wherever they are.
    root = str(CONFIGS.parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    wanted = os.environ.get(TRACEBACK) == "1"
    os.environ[TRACEBACK] = "1"  # Hydra then hands its errors on instead of printing several lines
    try:
        with stop_at_once(), lazy_help():
            if schema is Config:
                sys.argv[1:] = resumed_arguments(sys.argv[1:])
            compose_once(CONFIGS)
            if _draws_plots(schema):
                draw.start()
            try:
                main()
            except SweepStopped as stop:
                end_sweep(stop.config, ended=False)
                raise
            finally:
                draw.end()
    except KeyboardInterrupt as stop:
        sys.exit(exit_code(stop))
    except SystemExit as end:
        if wanted and isinstance(end.__cause__, Exception):
            raise end.__cause__ from None
        raise
    except Exception as error:
        if wanted:
            raise
        sys.exit(explain_arguments(error, sys.argv[1:], schema))


def end_sweep(config: DictConfig, *, ended: bool) -> str:
    """Summarise and track the sweep of a composed config; say what is not complete, or nothing.

    `ended` is false for a sweep that was stopped.
    """
    from classifier.sweep.summary import finish_sweep

    sweep = Path(str(config.hydra.sweep.dir))
    with said_when_long("makes the summary", log):
        incomplete = finish_sweep(sweep, ended=ended, quiet=bool(config.quiet))
    track(config, sweep, is_sweep=True)
    return incomplete


def _draws_plots(schema: type[Options]) -> bool:
    """Return whether this will draw the plots of a run, as far as the command line tells."""
    others = "-", "report.plots=false", "report.plots=none"
    return schema is Config and not any(given.startswith(others) for given in sys.argv[1:])


def _help(schema: type[Options]) -> str:
    """Return the help text of a program's config, with the choices of each group.

    Hydra itself would list every group first, its own among them.
    """
    name = "train" if schema is Config else "predict"
    config = OmegaConf.load(CONFIGS / f"{name}.yaml")
    choices = {
        group.name: ", ".join(sorted(path.stem for path in group.glob("*.yaml")))
        for group in CONFIGS.iterdir()
        if group.is_dir()
    }
    return str(OmegaConf.select(config, "hydra.help.template")).format(**choices)


class Guard(Callback):
    """Before a run: refuse a bad config, then claim a folder that no other run has."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Check the config and claim `hydra.run.dir`; with `resume`, take those of that run.

        Raises
        ------
        SystemExit
            With one line; Hydra turns any other exception of a callback into a warning.
        """
        try:
            check_hydra(config)
            if config.resume is not None:
                resume_run(config)
                make_config(without_hydra(config))
                check_tracker(config)
                return
            check_sweep_choice(config, sys.argv[1:], multirun=False)
            make_config(without_hydra(config))
            check_tracker(config)
            settle_values(config)
            settle_run(config)
        except Exception as error:
            raise SystemExit(explain_arguments(error, sys.argv[1:], Config)) from error

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Claim `hydra.sweep.dir`: a new folder, or the one the user named to go on in.

        Raises
        ------
        SystemExit
            With one line.
        """
        try:
            check_hydra(config)
            check_sweep_choice(config, sys.argv[1:], multirun=True)
            check_swept_keys(config)
            check_stacked(config)
            check_size(config)
            check_tracker(config, is_sweep=True)
            if any(o.startswith("resume=") for o in config.hydra.overrides.task):
                raise InputError("resume: continues one run or sweep; leave out -m")
            settle_sweep(config)
            if config.quiet:
                hush_sweep(config)
            draw.start()
        except Exception as error:
            raise SystemExit(explain(error, Config)) from error

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Summarise and track a sweep that was not stopped, whatever launched its jobs.

        Raises
        ------
        SystemExit
            With one line, when not every job completed.
        """
        if sys.exception() is not None:  # Hydra 1.4 comes here from a sweep that was refused too
            return
        try:
            incomplete = end_sweep(config, ended=True)
        except Exception as error:
            raise SystemExit(explain(error, Config)) from error
        if incomplete:
            raise SystemExit(incomplete)

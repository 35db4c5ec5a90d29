"""The shell's side of the program: one line for a mistake, a folder of its own for a run."""

import contextlib
import dataclasses
import itertools
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.override_parser.types import Quote, QuotedString
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from classifier.runs.config import CONFIGS, Config, make_config, schemas, settle_values
from classifier.runs.folder import STACKED, SWEEP, Kind, claim, groups, write_status
from classifier.runs.log import SweepStopped, exit_code, said_when_long, stop_at_once
from classifier.shell.hints import choices_of, explain, refuse_arguments
from classifier.shell.hydra_compat import check_run, check_sweep, compose_once, lazy_help
from classifier.shell.resume import resume_run, resumed_arguments
from classifier.tracking.track import Tracking, check_tracker
from data.errors import InputError, printable
from data.files.store import from_here, is_there
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
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda argument: argument not in ("-m", "--multirun"))
    # Processes that a launcher starts import this program from wherever they are.
    root = str(CONFIGS.parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    os.environ.pop("HYDRA_MAIN_MODULE", None)  # of another program: Hydra would look there for ours
    compose_once()
    wanted = os.environ.get(TRACEBACK) == "1"
    os.environ[TRACEBACK] = "1"  # Hydra then hands its errors on instead of printing several lines
    try:
        with stop_at_once(), lazy_help():
            if schema is Config:
                sys.argv[1:] = with_files(resumed_arguments(sys.argv[1:]))
            try:
                main()
            except SweepStopped as stop:
                end_sweep(stop.config, ended=False)
                raise
    except KeyboardInterrupt as stop:
        print(_stopped(stop), file=sys.stderr)
        sys.exit(exit_code(stop))
    except SystemExit as end:
        if wanted and isinstance(end.__cause__, Exception):
            raise end.__cause__ from None
        raise
    except Exception as error:
        if wanted:
            raise
        sys.exit(explain(error, schema))


def with_files(arguments: list[str]) -> list[str]:
    """Return the arguments, with data=files where a key of it is given and no data are chosen.

    An experiment chooses the data too.
    """
    keys = {
        name: {f"data.{field.name}" for field in dataclasses.fields(source)}
        for name, source in schemas()["data"].items()
    }
    ours = keys.pop("files").difference(*keys.values())
    given = {argument.partition("=")[0] for argument in arguments}
    is_chosen = not given.isdisjoint(("data", "experiment", "resume"))
    return arguments if is_chosen or ours.isdisjoint(given) else [*arguments, "data=files"]


def _stopped(stop: KeyboardInterrupt) -> str:
    """Say that a signal ended the program, and how to go on with what it had begun.

    A run that has no status yet gets one, where it has its config, so that it can be resumed.
    """
    folder, line = Guard.folder, str(stop) or "stopped by Ctrl-C"
    if folder is None:
        return line
    is_run = (folder / ".hydra/overrides.yaml").exists()
    if not (is_run or (folder / SWEEP).exists()):
        return f"{line}; give the command again"
    if is_run and not is_there(folder / "status.json"):
        write_status(folder, "interrupted", line)
    return f"{line}; resume it with: python train.py resume={printable(from_here(folder))}"


def end_sweep(config: DictConfig, *, ended: bool) -> str:
    """Summarise and track the sweep of a composed config; say what is not complete, or nothing.

    `ended` is false for a sweep that was stopped.
    """
    from classifier.sweep.summary import finish_sweep

    sweep = Path(str(config.hydra.sweep.dir))
    with said_when_long("makes the summary", log):
        incomplete = finish_sweep(sweep, ended=ended, quiet=bool(config.quiet))
    Tracking(config, sweep).end(is_sweep=True)
    return incomplete


def _help(schema: type[Options]) -> str:
    """Return the help text of a program's config, with the choices of each group.

    Hydra itself would list every group first, its own among them.
    """
    name = "train" if schema is Config else "predict"
    config = OmegaConf.load(CONFIGS / f"{name}.yaml")
    choices = {group: ", ".join(choices_of(group)) for group in groups()}
    return str(OmegaConf.select(config, "hydra.help.template")).format(**choices)


class BelowError(logging.Filter):
    """Lets through what goes to stdout; errors go to stderr."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is less than an error."""
        return record.levelno < logging.ERROR


class Guard(Callback):
    """Before a run: refuse a bad config, then claim a folder that no other run has.

    Attributes
    ----------
    folder : that of the run or the sweep of this process, once it is claimed.
    """

    folder: ClassVar[Path | None] = None

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Check the config and claim `hydra.run.dir`; with `resume`, take those of that run.

        Raises
        ------
        SystemExit
            With one line; Hydra turns any other exception of a callback into a warning.
        """
        with _told():
            check_run(config, sys.argv[1:])
            is_new = config.resume is None
            if not is_new:
                resume_run(config)
            make_config(config)
            check_tracker(config)
            if is_new:
                settle_values(config)
                _claim_folder(config, "run")
            Guard.folder = Path(config.hydra.run.dir)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Claim `hydra.sweep.dir`: a new folder, or the one the user named to go on in.

        Raises
        ------
        SystemExit
            With one line.
        """
        with _told():
            check_sweep(config)
            check_tracker(config, is_sweep=True)
            if any(o.startswith("resume=") for o in config.hydra.overrides.task):
                raise InputError("resume: continues one run or sweep; leave out -m")
            _claim_folder(config, "sweep")
            Guard.folder = Path(config.hydra.sweep.dir)
            if config.quiet:  # warnings and errors alone of whatever launches the jobs
                logging.getLogger().setLevel(logging.WARNING)
                with read_write(config.hydra), open_dict(config.hydra):  # launchers set it anew
                    OmegaConf.update(config.hydra, "hydra_logging.root.level", "WARNING")

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Summarise and track a sweep that was not stopped, whatever launched its jobs.

        Raises
        ------
        SystemExit
            With one line, when not every job completed.
        """
        if sys.exception() is not None:  # Hydra 1.4 comes here from a sweep that was refused too
            return
        with _told():
            if incomplete := end_sweep(config, ended=True):
                sys.exit(incomplete)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """End the program with one line where the block fails: Hydra would warn of it and go on."""
    try:
        yield
    except Exception as error:
        raise SystemExit(explain(error, Config)) from error


def _claim_folder(config: DictConfig, kind: Kind) -> None:
    """Claim the folder of a run or a sweep before Hydra writes there: the one named, or a new one.

    Of a new one that is there already, folder-2, folder-3, ... is taken. The config then names the
    folder, also where it is composed again: every launcher composes the config of each job anew
    from the overrides of the sweep, and a folder that is named after the time would then be another
    one, which nobody has claimed.

    Raises
    ------
    InputError
        When the folder that was named has a run already, or is not this program's; when it is a
        sweep's, and its launcher would begin anew there.
    """
    key, hydra = f"hydra.{kind}.dir", config.hydra
    if not OmegaConf.select(config, key):
        raise InputError(f"{key}: names no folder")
    folder = named = Path(str(OmegaConf.select(config, key)))
    others = [o for o in hydra.overrides.hydra if not o.startswith(f"{key}=")]
    if len(others) == len(hydra.overrides.hydra):  # it is not named: a new one
        folder.parent.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(2):
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                break
            folder = named.with_name(f"{named.name}-{number}")
    claim(folder, kind)
    launcher = hydra.runtime.choices["hydra/launcher"]
    # Also that of a process that was faster.
    if kind == "run" and (folder / "status.json").exists():
        raise InputError(f"{key}={folder}: holds a run already; name another folder")
    if kind == "sweep" and launcher != STACKED and any(p.is_dir() for p in folder.iterdir()):
        raise InputError(
            f"hydra/launcher={launcher}: would write job 0 again, and {folder} has jobs; leave "
            "out hydra/launcher, or name a new folder"
        )
    quoted = QuotedString(str(folder), Quote.single).with_quotes()
    with read_write(hydra), open_dict(hydra):
        hydra[kind].dir = str(folder)
        hydra.overrides.hydra = [*others, f"{key}={quoted}"]

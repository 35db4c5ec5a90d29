"""The shell's side of the program: one line for a mistake, a folder of its own for a run."""

import dataclasses
import difflib
import logging
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.errors import MissingConfigException, OverrideParseException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from classifier.config import Config, make_config, schemas
from data.errors import InputError, one_line
from data.options import describe

TRACEBACK = "HYDRA_FULL_ERROR"  # Hydra's variable: 1 shows tracebacks


def run_command(main: Callable[[], Any]) -> None:
    """Run a Hydra entry point; a mistake ends it with one line on stderr and exit code 1."""
    wanted = os.environ.get(TRACEBACK) == "1"
    os.environ[TRACEBACK] = "1"  # Hydra then hands its errors on instead of printing several lines
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except SystemExit as end:
        if wanted and isinstance(end.__cause__, Exception):
            raise end.__cause__ from None
        raise
    except Exception as error:
        if wanted:
            raise
        sys.exit(explain(error))


class Guard(Callback):
    """Before a run: refuse a bad config, then claim a folder that no other run has."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Check the config and settle `hydra.run.dir`.

        Raises
        ------
        SystemExit
            With one line; Hydra turns any other exception of a callback into a warning.
        """
        try:
            make_config(without_hydra(config))
            folder = Path(str(OmegaConf.select(config, "hydra.run.dir")))
            chosen = any(o.startswith("hydra.run.dir=") for o in config.hydra.overrides.hydra)
            settled = _claim_named(folder) if chosen else _claim_new(folder)
        except (InputError, OSError) as error:
            raise SystemExit(explain(error)) from error
        with read_write(config), open_dict(config):
            config.hydra.run.dir = str(settled)


class BelowError(logging.Filter):
    """Lets through what goes to stdout; errors go to stderr."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is less than an error."""
        return record.levelno < logging.ERROR


def without_hydra(config: DictConfig) -> DictConfig:
    """Return a composed config without Hydra's own part."""
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


def _claim_new(folder: Path) -> Path:
    """Make the folder, or the first of folder-2, folder-3, ... that is not there yet."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    number, candidate = 1, folder
    while True:
        try:
            candidate.mkdir()
            return candidate
        except FileExistsError:
            number += 1
            candidate = folder.with_name(f"{folder.name}-{number}")


def _claim_named(folder: Path) -> Path:
    """Make the folder the user named, unless it holds a run already."""
    if (folder / "status.json").exists():
        raise InputError(f"hydra.run.dir={folder}: holds a run already; name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def explain(error: Exception) -> str:
    """Say in one line what was wrong and what is allowed."""
    message = str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _explain_choice(error.missing_cfg_file, list(error.options or []))
    if isinstance(error, OverrideParseException):
        return f"{error.override}: not an override; write key=value ({message.splitlines()[0]})"
    if match := re.match(r"Could not override '(.+?)'\.\nTo append .* use \+(.+)", message):
        return f"{match[2]}: there is no such key{_suggest_key(match[1])}"
    if match := re.match(r"Error merging override (([^=]+)=.*)", message):
        field = _all_fields().get(match[2].lstrip("+"))
        allowed = f"must be {describe(field)}" if field else "not a value this key can have"
        return f"{match[1]}: {allowed}"
    if message.startswith("Config group override must be"):
        return "a group (data, optimizer, ...) needs a choice; python train.py --help lists them"
    return one_line(error)


def _explain_choice(missing: str, options: list[str]) -> str:
    group, _, name = missing.rpartition("/")
    if not group:
        return f"{missing}: there is no such config file"
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]}?" if close else ""
    choices = f"choose one of {', '.join(options)}" if options else "--help lists the choices"
    return f"{group}={name}: there is no such {group}{hint}; {choices}"


def _suggest_key(given: str) -> str:
    known = _all_fields()
    if given in known:
        return f" with this choice of {given.partition('.')[0]}"
    close = difflib.get_close_matches(given, list(known), n=1, cutoff=0.5)
    return (
        f"; did you mean {close[0]}?" if close else "; python train.py --help lists the main ones"
    )


def _all_fields() -> dict[str, dataclasses.Field[Any]]:
    """Return the field behind each key of the command line, whatever the groups chosen."""
    fields = {field.name: field for field in dataclasses.fields(Config)}
    chosen = schemas()
    for name, field in list(fields.items()):
        for schema in chosen.get(name, {"": field.type}).values():
            if dataclasses.is_dataclass(schema):
                fields |= {f"{name}.{inner.name}": inner for inner in dataclasses.fields(schema)}
    return fields

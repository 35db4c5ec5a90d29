"""Which folder a run or a sweep gets: settled, and claimed, before Hydra writes there."""

from pathlib import Path

from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from classifier.runs.folder import STACKED, Kind, claim
from data.errors import InputError


def settle_run(config: DictConfig) -> None:
    """Settle `hydra.run.dir`: the folder that was named, or a new one.

    Raises
    ------
    InputError
        When the folder that was named has a run already, or is not this program's.
    """
    folder = _named(config, "run")
    if _is_chosen(config, "run"):
        _refuse_second_run(folder)
        claim(folder, "run")
        _refuse_second_run(folder)  # another process may have been faster
    else:
        folder = _claim_new(folder, "run")
    _put(config, "run", folder)


def settle_sweep(config: DictConfig) -> None:
    """Settle `hydra.sweep.dir`: a new folder, or the one that was named, to go on in.

    Raises
    ------
    InputError
        When the folder that was named is not a sweep's, or its launcher would begin anew there.
    """
    folder = _named(config, "sweep")
    if _is_chosen(config, "sweep"):
        claim(folder, "sweep")
        launcher = config.hydra.runtime.choices["hydra/launcher"]
        if launcher != STACKED and any(path.is_dir() for path in folder.iterdir()):
            raise InputError(
                f"hydra/launcher={launcher}: would write job 0 again, and {folder} has jobs; leave "
                "out hydra/launcher, or name a new folder"
            )
    else:
        folder = _claim_new(folder, "sweep")
    _put(config, "sweep", folder)


def _named(config: DictConfig, kind: Kind) -> Path:
    folder = OmegaConf.select(config, f"hydra.{kind}.dir")
    if not folder:
        raise InputError(f"hydra.{kind}.dir: names no folder")
    return Path(folder)


def _is_chosen(config: DictConfig, kind: Kind) -> bool:
    return any(o.startswith(f"hydra.{kind}.dir=") for o in config.hydra.overrides.hydra)


def _put(config: DictConfig, kind: Kind, folder: Path) -> None:
    """Let the config name the folder that was claimed, also where it is composed again.

    Every launcher composes the config of each job anew from the overrides of the sweep, and a
    folder that is named after the time would then be another one, which nobody has claimed.
    """
    key = f"hydra.{kind}.dir="
    quoted = QuotedString(str(folder), Quote.single).with_quotes()
    others = [o for o in config.hydra.overrides.hydra if not o.startswith(key)]
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra[kind].dir = str(folder)
        config.hydra.overrides.hydra = [*others, f"{key}{quoted}"]


def _refuse_second_run(folder: Path) -> None:
    if (folder / "status.json").exists():
        raise InputError(f"hydra.run.dir={folder}: holds a run already; name another folder")


def _claim_new(folder: Path, kind: Kind) -> Path:
    """Make the folder, or the first of folder-2, folder-3, ... that is not there yet."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    number, candidate = 1, folder
    while True:
        try:
            candidate.mkdir()
            break
        except FileExistsError:
            number += 1
            candidate = folder.with_name(f"{folder.name}-{number}")
    claim(candidate, kind)
    return candidate

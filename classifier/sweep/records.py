"""The jobs of a sweep as they stand on disk: what a summary or a resumed sweep starts from."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from classifier.runs.config import Value, flatten, has_role
from classifier.runs.folder import read_config, read_report, read_status
from data.options import LABEL, PLACE


@dataclasses.dataclass(frozen=True)
class Record:
    """One job's folder: its config with the choices of the groups, its status and its report."""

    folder: Path
    config: dict[str, Value]
    status: str
    reason: str | None
    report: dict[str, Any] | None


def read_records(sweep: Path) -> list[Record]:
    """Read every job under a sweep's folder, in the order of their numbers."""
    return list(each_record(sweep))


def each_record(sweep: Path) -> Iterator[Record]:
    """Yield every job under a sweep's folder, one in memory at a time.

    A job whose files are missing or cut short, as after a kill, has not begun.
    """
    folders = {path.parent for path in sweep.glob("*/status.json")}
    folders |= {path.parent.parent for path in sweep.glob("*/.hydra/config.yaml")}
    return map(read_record, sorted(folders, key=_order))


def read_record(folder: Path) -> Record:
    """Read one job's folder."""
    status, report = read_status(folder), read_report(folder)
    # A report has the config too, and JSON is read a hundred times faster than YAML.
    config = report["config"] if report is not None else read_config(folder)
    return Record(folder, config, status["status"], status["reason"], report)


def _order(folder: Path) -> tuple[int, int, str]:
    name = folder.name
    return (0, int(name), name) if name.isdigit() else (1, 0, name)


def settings(config: dict[str, Value]) -> dict[str, Value]:
    """Return what makes a run what it is, flattened: its config but for its place and its name."""
    return {
        key: value
        for key, value in flatten(config).items()
        if not (has_role(key, PLACE) or has_role(key, LABEL))
    }


def config_key(config: dict[str, Value]) -> str:
    """Return a text that two configs share exactly when they are the same job.

    Where a run is put and who hears of it does not matter, and 1 is 1.0.
    """
    return json.dumps(settings(with_whole_numbers(config)), sort_keys=True)


def with_whole_numbers(value: Value) -> Value:
    """Return a config in which every number that is written in several ways is written in one."""
    if isinstance(value, dict):
        return {key: with_whole_numbers(part) for key, part in value.items()}
    if isinstance(value, list):
        return [with_whole_numbers(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value

"""JSON and YAML that anyone may have written, read as plain values: texts, numbers, lists."""

import json
from pathlib import Path
from typing import Any

import yaml

from data.errors import InputError, one_line
from data.files.places import check_file

LIMITS = {".json": 2**28, ".yaml": 2**20}  # bytes of a file; YAML is read slowly
DEPTH = 50  # lists and dicts in each other
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the quick one is not everywhere


def read_plain(path: Path) -> Any:
    """Read a .json or .yaml file.

    Raises
    ------
    FileNotFoundError, InputError
        When there is no such file; when it is damaged, too large or a device, or it is YAML with
        an anchor, an alias or a tag: those make other things than plain values.
    """
    check_file(str(path))
    limit = LIMITS[path.suffix]
    if path.stat().st_size > limit:
        raise InputError(f"{path}: larger than the {limit} bytes that are read of such a file")
    content = path.read_bytes()
    try:
        return json.loads(content) if path.suffix == ".json" else _yaml(content)
    except Exception as error:  # damaged text raises nearly anything
        raise InputError(f"{path}: cannot be read ({one_line(error)})") from error


def _yaml(content: bytes) -> Any:
    depth = 0
    for event in yaml.parse(content, LOADER):
        if isinstance(event, yaml.AliasEvent) or any(map(vars(event).get, ("anchor", "tag"))):
            raise ValueError("an anchor, an alias or a tag is no plain value")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH:
            raise ValueError("lists and dicts in each other, too deep")
    return yaml.load(content, LOADER)

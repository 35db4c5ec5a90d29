"""JSON and YAML of plain values (texts, numbers, lists): read, whoever wrote it, and YAML made."""

import functools
import json
from pathlib import Path
from typing import Any

import yaml

from data.errors import InputError, one_line
from data.files.places import check_file

LIMITS = {".json": 2**28, ".yaml": 2**20}  # bytes of a file; YAML is read slowly
DEPTH = 50  # lists and dicts in each other
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the quick one is not everywhere
QUICK_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


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


def yaml_text(value: Any) -> str:
    """Return plain values as YAML, which YAML 1.1, 1.2 and OmegaConf read as the same values."""
    options: dict[str, Any] = {
        "default_flow_style": False,
        "allow_unicode": True,
        "sort_keys": False,
    }
    try:
        return str(yaml.dump(value, Dumper=_dumper(QUICK_DUMPER), **options))
    except UnicodeEncodeError:  # parts of odd file names, which the quick one refuses
        return str(yaml.dump(value, Dumper=_dumper(yaml.SafeDumper), **options))


@functools.cache
def _dumper(base: Any) -> Any:
    """Return a dumper that names nothing by an anchor, and quotes texts that look like numbers."""

    def represent(dumper: Any, text: str) -> Any:
        style = None if text.isprintable() else '"'  # some line breaks are lost without
        if style is None and _is_other_elsewhere(text):
            style = "'"
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    made = type("Dumper", (base,), {"ignore_aliases": lambda *_: True})
    made.add_representer(str, represent)  # type: ignore[attr-defined]
    return made


def _is_other_elsewhere(text: str) -> bool:
    """Return whether a text may be no text for OmegaConf or YAML 1.1, where it is for PyYAML."""
    try:
        float(text)  # 1e-3
    except ValueError:
        return text in ("y", "Y", "n", "N")
    return True

"""Arguments that are no overrides: dashes, spaces, colons, what names code, a lone file."""

import re
import sys
from collections.abc import Sequence

from hydra.errors import OverrideParseException

from classifier.runs.config import Fields, fields_of
from classifier.runs.hints import explain, translated, value_to_write
from data.errors import printable
from data.options import Options

# Hydra's own, of which it takes abbreviations too, and values as in --cfg=job and -cn=NAME.
FLAGS = (
    "--help --hydra-help --version --cfg --resolve --package --run --multirun --shell-completion "
    "--config-path --config-name --config-dir --experimental-rerun --info"
).split()
SHORT = ("-h", "-c", "-p", "-r", "-m", "-sc", "-cp", "-cn", "-cd", "-i")
# Errors that name a key and not what was given to it.
MISPLACED = re.compile(
    r"Could not append to config. An item is already at '(.+)'|(\S+): this key can be neither added"
    r"|Could not override '(.+)'. No match in the defaults list"
)


def refuse_arguments(arguments: Sequence[str], schema: type[Options]) -> None:
    """Refuse what would run code, and keys that are written as flags.

    Raises
    ------
    SystemExit
        With one line.
    """
    for place, argument in enumerate(arguments):
        if "_target_" in argument:
            sys.exit(printable(f"{argument}: what code runs is not chosen on the command line"))
        flag = re.fullmatch(r"--?([A-Za-z][\w.-]*)(=.*)?", argument)
        if flag is None or argument.partition("=")[0] in (*FLAGS, *SHORT):
            continue
        fields, (name, value) = fields_of(schema), flag.groups()
        value = _following(arguments[place + 1 :]) if value is None else value[1:]
        if name in fields:
            written = _written(name, value, fields)
            sys.exit(printable(f"{argument}: write {written}, without dashes"))
        if line := translated(argument, name, value, fields):
            sys.exit(printable(line))
        if not (argument.startswith(SHORT) or any(own.startswith(f"--{name}") for own in FLAGS)):
            sys.exit(printable(f"{argument}: there is no such flag; write KEY=VALUE, see --help"))


def explain_arguments(error: Exception, arguments: Sequence[str], schema: type[Options]) -> str:
    """Say in one line what was wrong on a command line, as `explain` does.

    Parameters
    ----------
    error : what Hydra raised, or this program.
    arguments : of the command line, for what the error does not tell.
    schema : of the program's config.
    """
    fields, line = fields_of(schema), None
    if isinstance(error, OverrideParseException) and error.override in arguments:
        line = _no_override(arguments, arguments.index(error.override), fields)
    elif found := MISPLACED.match(str(error)):
        (key,) = filter(None, found.groups())
        given = next((a for a in arguments if a.lstrip("+").startswith(f"{key}=")), "")
        value = given.partition("=")[2]
        if key not in fields:
            line = translated(given, key, value, fields)
        elif given.startswith("+"):
            written = _written(key, value, fields)
            line = f"{given}: there is such a key already; write {written}, without the +"
    return printable(line) if line else explain(error, schema)


def _no_override(arguments: Sequence[str], place: int, fields: Fields) -> str | None:
    """Return the line about an argument that is a part of an override; None where it is none."""
    given, before = arguments[place], arguments[place - 1] if place else ""
    if before.endswith("=") and before[:-1] in fields:
        return f"{given}: write {_written(before[:-1], given, fields)}, without spaces"
    if re.fullmatch(r"[^=]+\.npz", given):
        own = "input" if "input" in fields else "data=arrays data.train"
        return f"{given}: a file is given as {own}={given}"
    parts = re.fullmatch(r"([\w.-]+)(?:(?::|==)(.*))?", given)
    if parts is None:
        return None
    key, value = parts[1], parts[2] or _following(arguments[place + 1 :])
    if key in fields:
        return f"{given}: write {_written(key, value, fields)}"
    return translated(given, key, value, fields)


def _written(key: str, value: str, fields: Fields) -> str:
    return f"{key}={value_to_write(key, value, fields)}"


def _following(arguments: Sequence[str]) -> str:
    """Return the value in the arguments after a key: `0.1`, `= 0.1`, `=0.1`; or nothing."""
    first, *others = arguments or [""]
    if first in ("=", ":", "=="):
        return _following(others)
    value = first.removeprefix("=")
    return "" if "=" in value or value.startswith("-") else value

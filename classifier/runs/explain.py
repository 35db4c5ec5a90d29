"""What was wrong on the command line: Hydra's errors in plain words, one line each."""

import difflib
import re
from collections.abc import Callable

from hydra.errors import MissingConfigException, OverrideParseException

from classifier.runs.config import Fields, fields_of
from data.console import printable
from data.errors import one_line
from data.options import Options, describe


def explain(error: Exception, schema: type[Options]) -> str:
    """Say in one line what was wrong and what is allowed.

    Parameters
    ----------
    error : what Hydra raised, or this program.
    schema : of the program's config, whose keys can be suggested.
    """
    return printable(_explained(error, schema))


def _explained(error: Exception, schema: type[Options]) -> str:
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _no_such_choice(error.missing_cfg_file, list(error.options or []))
    fields = fields_of(schema)
    for pattern, describe_match in _PATTERNS:
        if match := re.match(pattern, str(error)):
            return describe_match(match, fields)
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override}: not an override; write key=value, and a value with special "
            "characters in quotes of its own: key='\"value\"'"
        )
    return one_line(error)


def _no_such_key(match: re.Match[str], fields: Fields) -> str:
    key, given = match.groups()
    if key in fields:
        return f"{given}: there is no such key with this choice of {key.partition('.')[0]}"
    close = difflib.get_close_matches(key, list(fields), n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else "--help lists the main ones"
    return f"{given}: there is no such key; {hint}"


def _not_allowed(match: re.Match[str], fields: Fields) -> str:
    given, key = match.groups()
    field = fields.get(key.lstrip("+"))
    return f"{given}: {f'must be {describe(field)}' if field else 'not a value of this key'}"


def _no_such_choice(missing: str, options: list[str]) -> str:
    group, _, name = missing.rpartition("/")
    if not group:
        return f"{missing}: there is no such config file"
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]}" if close else ""
    choices = f"choose one of {', '.join(options)}" if options else "--help lists the choices"
    kind = "data set" if group == "data" else group
    return f"{group}={name}: there is no such {kind}{hint}; {choices}"


# How Hydra begins its messages, and what to say instead.
_PATTERNS: list[tuple[str, Callable[[re.Match[str], Fields], str]]] = [
    (r"Could not override '(.+?)'\.\nTo append .* use \+(.+)", _no_such_key),
    (r"Error merging override (([^=]+)=.*)", _not_allowed),
    (r"Error merging override (~.+)", lambda m, _: f"{m[1]}: this key cannot be removed"),
    (
        r"Ambiguous value for argument '(.+)'",
        lambda m, _: f"{m[1]}: several values are a sweep; add -m",
    ),
    (
        r"Config group override must be",
        lambda *_: "a group (data, optimizer, ...) needs a choice; --help lists them",
    ),
]

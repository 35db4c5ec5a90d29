"""What was wrong on the command line: Hydra's errors in plain words, one line each."""

import difflib
import re
from collections.abc import Callable

from hydra.errors import MissingConfigException, OverrideParseException

from classifier.runs.config import CONFIGS, Fields, fields_of
from data.console import printable
from data.errors import one_line
from data.options import Options, accepts, describe


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
    if key not in fields:
        return unknown_key(given, key, fields)
    from classifier.runs.nearest import choices_with

    group, named = key.partition(".")[0], " or ".join(choices_with(key))
    add = f"; add {named}" if named else ""
    return f"{given}: there is no such key with this choice of {group}{add}"


def is_known(key: str, fields: Fields) -> bool:
    """Return whether a key, or a group, is one of the program's or of Hydra's."""
    return key in fields or key.startswith("hydra") or (CONFIGS / key).is_dir()


def unknown_key(given: str, key: str, fields: Fields) -> str:
    """Say how what is given to an unknown key is given here, or what the key is spelt like."""
    from classifier.runs.words import similar_words, translated

    value = given.partition("=")[2]
    if line := translated(given, key, value, fields):
        return line
    candidates = similar_words(fields)
    close = difflib.get_close_matches(key, list(candidates), n=1)
    hint = f"did you mean {candidates[close[0]]}?" if close else "--help lists the main ones"
    return f"{given}: there is no such key; {hint}"


def _not_allowed(match: re.Match[str], fields: Fields) -> str:
    given, key = match.groups()
    field = fields.get(key.lstrip("+"))
    if field is None and not is_known(key.lstrip("+"), fields):
        return unknown_key(given, key, fields)
    said = f"must be {describe(field)}" if field else "not a value of this key"
    return f"{given}: {said}{_meant(key, given.partition('=')[2], fields)}"


def _meant(key: str, value: str, fields: Fields) -> str:
    from classifier.runs.nearest import value_hint

    return value_hint(key, value, fields.get(key))


def _no_such_choice(missing: str, options: list[str]) -> str:
    from classifier.runs.nearest import examples, nearest_choice

    group, _, name = missing.rpartition("/") if "hydra" in missing else missing.partition("/")
    if not name:
        return f"{missing}: there is no such config file"
    if group == "data" and (own := examples(name)):
        return f"{group}={name}: your own examples are given as {own}"
    close = nearest_choice(group, name, options)
    hint = f"; did you mean {close}" if close else ""
    choices = f"choose one of {', '.join(options)}" if options else "--help lists the choices"
    kind = "data set" if group == "data" else group
    return f"{group}={name}: there is no such {kind}{hint}; {choices}"


def _several(match: re.Match[str], fields: Fields) -> str:
    given = match[1]
    key, _, value = given.partition("=")
    if not is_known(key, fields):
        return unknown_key(given, key, fields)
    number = value.replace(",", ".")  # 0,1 may be meant as a number
    meant = re.fullmatch(r"\d+,\d+", value) and key in fields and accepts(number, fields[key])
    either = f", or write {key}={number}" if meant else ""
    return f"{given}: several values are a sweep; add -m{either}"


# How the messages of Hydra and of the checked config begin, and what to say instead.
_PATTERNS: list[tuple[str, Callable[[re.Match[str], Fields], str]]] = [
    (r"Could not override '(.+?)'\.\nTo append .* use \+(.+)", _no_such_key),
    (r"Error merging override (([^=]+)=.*)", _not_allowed),
    (r"Error merging override (~.+)", lambda m, _: f"{m[1]}: this key cannot be removed"),
    (r"Ambiguous value for argument '(.+)'", _several),
    (
        r"In 'sweep/(\w+)': ConfigKeyError.*\nKey '\w+' not in 'GridSweeperConf'",
        lambda m, _: f"sweep={m[1]}: is a search; add -m hydra/sweeper=optuna",
    ),
    (r"([\w.]+)=(.*): must be .*", lambda m, fields: m[0] + _meant(m[1], m[2], fields)),
    (
        r"Config group override must be",
        lambda *_: "a group (data, optimizer, ...) needs a choice; --help lists them",
    ),
]

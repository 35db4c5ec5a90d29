"""What was meant by a mistake on the command line: one line in plain words, whoever raised it."""

import contextlib
import difflib
import functools
import re
import sys
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import OmegaConf

from classifier.runs.config import CONFIGS, Fields, fields_of
from data.errors import one_line, printable
from data.files.store import read_plain
from data.options import Options, accepts, describe

NONE = ("none", "null", "off", "false", "no", "0")
# Of a penalty of another program, v: reg, which has no 1/2.
PENALTIES: dict[str, Callable[[float], float]] = {
    "same": lambda v: v,
    "half": lambda v: v / 2,
    "inverse": lambda v: 1 / (2 * v),
}

# Hydra's own flags, of which it takes abbreviations too, and values as in --cfg=job and -cn=NAME.
FLAGS = (
    "--help --hydra-help --version --cfg --resolve --package --run --multirun --shell-completion "
    "--config-path --config-name --config-dir --experimental-rerun --info"
).split()
SHORT = ("-h", "-c", "-p", "-r", "-m", "-sc", "-cp", "-cn", "-cd", "-i")


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
        flag = re.fullmatch(r"--?([A-Za-z][\w.-]*)(?:=(.*))?", argument)
        if flag is None or argument.partition("=")[0] in (*FLAGS, *SHORT):
            continue
        fields, (name, value) = fields_of(schema), flag.groups()
        value = _following(arguments[place + 1 :]) if value is None else value
        line = _meant(argument, name, value, fields, ", without dashes")
        if not (
            line or argument.startswith(SHORT) or any(f.startswith(f"--{name}") for f in FLAGS)
        ):
            line = f"{argument}: there is no such flag; write KEY=VALUE, see --help"
        if line:
            sys.exit(printable(line))


def explain(error: Exception, schema: type[Options], arguments: Sequence[str] = ()) -> str:
    """Say in one line what was wrong and what is allowed.

    Parameters
    ----------
    error : what Hydra raised, or this program.
    schema : of the program's config, whose keys can be suggested.
    arguments : of the command line, where they are known, for what the error does not tell.
    """
    fields, line = fields_of(schema), None
    if isinstance(error, OverrideParseException):
        if error.override in arguments:
            line = _no_override(arguments, arguments.index(error.override), fields)
        line = line or (
            f"{error.override}: not an override; write key=value, and a value with special "
            "characters in quotes of its own: key='\"value\"'"
        )
    elif isinstance(error, MissingConfigException) and error.missing_cfg_file:
        line = _no_such_choice(error.missing_cfg_file, list(error.options or []))
    for pattern, say in [] if line else _PATTERNS:
        if match := re.match(pattern, str(error)):
            line = say(match, fields, arguments)
            break
    for pattern, said in {} if line else names_elsewhere()["errors"].items():
        if match := re.match(pattern, str(error)):
            line = said.format(*match.groups())
    return printable(line or one_line(error))


def _no_override(arguments: Sequence[str], place: int, fields: Fields) -> str | None:
    """Return the line about an argument that is a part of an override; None where it is none."""
    argument, before = arguments[place], arguments[place - 1] if place else ""
    if before.endswith("=") and before[:-1] in fields:
        return _meant(argument, before[:-1], argument, fields, ", without spaces")
    if re.fullmatch(r"[^=]+\.(npz|npy|csv|tsv|parquet|arrow|safetensors|pt|h5|svm)", argument):
        key = "input" if "input" in fields else "data.train"
        return f"{argument}: a file is given as {key}={argument}"
    parts = re.fullmatch(r"([\w.-]+)(?:(?::|==)(.*))?", argument)
    if parts is None:
        return None
    return _meant(argument, parts[1], parts[2] or _following(arguments[place + 1 :]), fields)


def _misplaced(match: re.Match[str], fields: Fields, arguments: Sequence[str]) -> str | None:
    """Return the line about a key that is added though it is there, or set though it is not."""
    key = match[1]  # the error does not say what was given to it
    override = next((a for a in arguments if a.lstrip("+").startswith(f"{key}=")), "")
    if key in fields and not override.startswith("+"):
        return None
    return _meant(override, key, override.partition("=")[2], fields, ", without the +")


def _meant(written: str, key: str, value: str, fields: Fields, how: str = "") -> str | None:
    """Return the line about a key and a value that are written in another way, or None."""
    if key not in fields:
        return translated(written, key, value, fields)
    value = value if _accepted(key, value, fields) else "VALUE"
    return f"{written}: write {key}={value}{how}"


def _following(arguments: Sequence[str]) -> str:
    """Return the value in the arguments after a key: `0.1`, `= 0.1`, `=0.1`; or nothing."""
    first, *others = arguments or [""]
    if first in ("=", ":", "=="):
        return _following(others)
    value = first.removeprefix("=")
    return "" if "=" in value or value.startswith("-") else value


@functools.cache
def names_elsewhere() -> dict[str, Any]:
    """Return hints.yaml: what other programs call keys and values."""
    table: dict[str, Any] = read_plain(Path(__file__).with_suffix(".yaml"))
    return table


def is_known(key: str, fields: Fields) -> bool:
    """Return whether a key, or a group, is one of the program's or of Hydra's."""
    return key in fields or key.startswith("hydra") or (CONFIGS / key).is_dir()


def unknown_key(override: str, key: str, fields: Fields) -> str:
    """Say what the key of an override is called here, or what it is spelt like."""
    if line := translated(override, key, override.partition("=")[2], fields):
        return line
    words = {w: key for key, ws in names_elsewhere()["keys"].items() if key in fields for w in ws}
    words |= {name: name for name in fields}
    close = difflib.get_close_matches(key, list(words), n=1)
    hint = f"did you mean {words[close[0]]}?" if close else "--help lists the main ones"
    return f"{override}: there is no such key; {hint}"


def translated(override: str, key: str, value: str, fields: Fields) -> str | None:
    """Return the line about a key that has another name here; None where it is no such word.

    Parameters
    ----------
    override : what was written.
    key, value : its parts; the key may be in another program's group, as in trainer.max_epochs.
    fields : the program's keys.
    """
    if key.startswith("hydra"):
        return None
    for word in dict.fromkeys(map(_plain, (key, key.rpartition(".")[2]))):
        if name := _key_called(word, fields):
            return f"{override}: the key is {name}; {_advice(name, value, fields)}"
        for entry in names_elsewhere()["lines"]:
            if word in map(_plain, entry["words"]) and fields.keys() >= {*entry["keys"]}:
                penalties = _penalties(value, fields) if "reg" in fields else {}
                return f"{override}: {str(entry['line']).format(**penalties)}"
    return None


def _plain(word: str) -> str:
    """Return a word without what its spellings differ in."""
    return re.sub(r"[-_]", "", word).lower()


def _key_called(word: str, fields: Fields) -> str | None:
    """Return the key that has a name, or is called so elsewhere, or is the only one to end so."""
    others = names_elsewhere()["keys"].items()
    keys = [key for key in fields if _plain(key) == word]
    keys += [key for key, ws in others if key in fields and word in map(_plain, ws)]
    ends = [key for key in fields if _plain(key.rpartition(".")[2]) == word]
    return next(iter(keys), ends[0] if len(ends) == 1 else None)


def _advice(key: str, value: str, fields: Fields) -> str:
    """Say how the key is given the value, and what it can be where the value is none of it."""
    names = choices_of(key)
    if not value:
        advice = f"write {key}=VALUE"
    elif key == "data" and (overrides := _examples(value)):
        advice = f"write {overrides}"
    elif names:
        near = _nearest_choice(key, value, names)
        advice = f"write {key}={near}" if near else f"it must be one of {', '.join(names)}"
    elif _accepted(key, value, fields):
        advice = f"write {key}={value}"
    else:
        hint = _value_hint(key, value, fields).removeprefix("; ")
        advice = hint or f"it must be {describe(fields[key])}"
    choices, group = _choices_with(key), key.partition(".")[0]
    defaults = OmegaConf.load(CONFIGS / "train.yaml").defaults
    chosen = {f"{group}={entry[group]}" for entry in defaults if group in entry}
    needed = f", with {' or '.join(choices)}" if choices and chosen.isdisjoint(choices) else ""
    return advice + needed


def choices_of(group: str) -> list[str]:
    """Return the choices of a config group; nothing where it is none."""
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def _choices_with(key: str) -> list[str]:
    """Return the choices of a key's group that have the key, as schedule=step."""
    group, _, name = key.partition(".")
    files = {choice: CONFIGS / group / f"{choice}.yaml" for choice in choices_of(group)}
    return [f"{group}={choice}" for choice, file in files.items() if name in OmegaConf.load(file)]


def _accepted(key: str, value: str, fields: Fields) -> bool:
    """Return whether a key takes a value, or each of several; of a formula it is not known."""
    if "(" in value or "$" in value or choices_of(key):
        return True
    return all(accepts(one, fields[key]) for one in value.split(","))


def _penalties(value: str, fields: Fields) -> dict[str, str]:
    """Return what a penalty of another program is as reg, or the word VALUE where it is none."""
    penalties = dict.fromkeys(PENALTIES, "VALUE")
    for name, convert in PENALTIES.items():
        with contextlib.suppress(ValueError, ZeroDivisionError):
            values = ",".join(f"{convert(float(one)):.6g}" for one in value.split(","))
            if _accepted("reg", values, fields):
                penalties[name] = values
    return penalties


def _no_such_key(match: re.Match[str], fields: Fields, _: Sequence[str]) -> str:
    key, override = match.groups()
    if key not in fields:
        return unknown_key(override, key, fields)
    group, choices = key.partition(".")[0], " or ".join(_choices_with(key))
    add = f"; add {choices}" if choices else ""
    return f"{override}: there is no such key with this choice of {group}{add}"


def _not_allowed(match: re.Match[str], fields: Fields, _: Sequence[str]) -> str:
    override, key = match.groups()
    field = fields.get(key.lstrip("+"))
    if field is None and not is_known(key.lstrip("+"), fields):
        return unknown_key(override, key, fields)
    limits = f"must be {describe(field)}" if field else "not a value of this key"
    return f"{override}: {limits}{_value_hint(key, override.partition('=')[2], fields)}"


def _no_such_choice(missing: str, options: list[str]) -> str:
    group, _, name = missing.rpartition("/") if "hydra" in missing else missing.partition("/")
    if not name:
        return f"{missing}: there is no such config file"
    if group == "data" and (overrides := _examples(name)):
        return f"{group}={name}: your own examples are given as {overrides}"
    hint = f"; did you mean {near}" if (near := _nearest_choice(group, name, options)) else ""
    choices = f"choose one of {', '.join(options)}" if options else "--help lists the choices"
    kind = "data set" if group == "data" else group
    return f"{group}={name}: there is no such {kind}{hint}; {choices}"


def _nearest_choice(group: str, name: str, options: list[str]) -> str | None:
    """Return the choice of a group that a name stands for or is spelt like, or None."""
    table = names_elsewhere()["choices"].get(group, {})
    meant = {word: choice for choice, words in table.items() for word in (choice, *words)}
    close = difflib.get_close_matches(name.lower(), options, n=1, cutoff=0.5)
    return meant.get(name.lower(), close[0] if close else None)


def _several(match: re.Match[str], fields: Fields, _: Sequence[str]) -> str:
    key, _, value = match[1].partition("=")
    if not is_known(key, fields):
        return unknown_key(match[1], key, fields)
    number = value.replace(",", ".")  # 0,1 may be meant as a number
    meant = re.fullmatch(r"\d+,\d+", value) and key in fields and accepts(number, fields[key])
    either = f", or write {key}={number}" if meant else ""
    return f"{match[1]}: several values are a sweep; add -m{either}"


def _examples(name: str) -> str | None:
    """Return the overrides for what was given as data=... and is a file or a folder, or None."""
    path, quoted = Path(name), f"'{name}'" if re.search(r"\s", name) else name
    text = path.name.lower()
    with contextlib.suppress(OSError):  # no folder, or closed to us
        text += "/ " + " ".join(sorted(part.name.lower() for part in path.iterdir()))
    rows = names_elsewhere()["examples"].items()
    lines = (line.format(quoted) for pattern, line in rows if re.search(pattern, text))
    return next(lines, None)


def _value_hint(key: str, value: str, fields: Fields) -> str:
    """Return what was meant by a value that is not allowed, as '; write reg=0', or nothing."""
    low, whole, field = value.lower(), _whole(value.lower()), fields.get(key)
    for pattern, line in names_elsewhere()["values"].get(key, {}).items():
        if re.fullmatch(pattern, whole or low):
            return f"; {line.format(whole)}"
    if field is None:
        return ""
    words, wanted = ["null", "0", "auto"] if low in NONE else [whole], describe(field)
    for word in filter(None, words):
        is_meant = "number" in wanted if word.isdigit() else word in wanted.split(" or ")
        if is_meant and accepts(word, field):
            return f"; write {key}={word}"
    close = difflib.get_close_matches(low, field.metadata.get("choices", ()), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _whole(text: str) -> str | None:
    """Return the digits of a whole number, as 1000 for 1e3; None of anything else."""
    if not re.fullmatch(r"[0-9]+(\.[0-9]*)?(e\+?[0-9][0-9]?)?", text):
        return None
    number = Decimal(text)
    return f"{number:.0f}" if number == number.to_integral_value() else None


# How the messages of Hydra and of the checked config begin, and what to say instead.
_PATTERNS: list[tuple[str, Callable[[re.Match[str], Fields, Sequence[str]], str | None]]] = [
    (r"Could not append to config. An item is already at '(.+)'", _misplaced),
    (r"(\S+): this key can be neither added", _misplaced),
    (r"Could not override '(.+)'. No match in the defaults list", _misplaced),
    (r"Could not override '(.+?)'\.\nTo append .* use \+(.+)", _no_such_key),
    (r"Error merging override (([^=]+)=.*)", _not_allowed),
    (r"Ambiguous value for argument '(.+)'", _several),
    (r"([\w.]+)=(.*): must be .*", lambda m, fields, _: m[0] + _value_hint(m[1], m[2], fields)),
]

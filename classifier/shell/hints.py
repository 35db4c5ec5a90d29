"""What was meant by a mistake on the command line: one line in plain words, whoever raised it."""

import contextlib
import difflib
import functools
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import OmegaConf

from classifier.runs.config import CONFIGS, Fields, fields_of
from data.errors import one_line, printable
from data.files.store import read_plain
from data.options import Options, accepts, describe

NONE = ("none", "null", "off", "false", "no", "0")
FILE = r"[^=]+\.(npz|npy|csv|tsv|parquet|arrow|safetensors|pt|h5|svm)"
# Of a penalty of another program, v: reg, which has no 1/2.
PENALTIES: dict[str, Callable[[float], float]] = {
    "same": lambda v: v,
    "half": lambda v: v / 2,
    "inverse": lambda v: 1 / (2 * v),
}

# Hydra's own flags, of which it takes abbreviations too, and values as in --cfg=job and -cn=NAME.
MANY = ("-m", "--multirun")
FLAGS = (
    "--help --hydra-help --version --cfg --resolve --package --run --multirun --shell-completion "
    "--config-path --config-name --config-dir --experimental-rerun --info"
).split()
SHORT = ("-h", "-c", "-p", "-r", "-m", "-sc", "-cp", "-cn", "-cd", "-i")


def refuse_arguments(arguments: Sequence[str], schema: type[Options]) -> None:
    """Refuse what would run code, keys that there are not, and what is written in another way.

    Raises
    ------
    SystemExit
        With one line.
    """
    fields, before = fields_of(schema), ""
    for place, argument in enumerate(arguments):
        if "_target_" in argument:
            sys.exit(printable(f"{argument}: what code runs is not chosen on the command line"))
        takes_it = before in (*FLAGS, *SHORT) and before not in MANY
        line = None if takes_it else _wrong(argument, arguments[place + 1 :], fields)
        if line is not None:
            sys.exit(printable(line))
        before = argument


def _wrong(argument: str, after: Sequence[str], fields: Fields) -> str | None:
    """Return the line about an argument that is no override, or names no key, or None.

    `after` are the arguments behind it, for a key and its value may be written apart.
    """
    is_train = "input" not in fields
    if re.fullmatch(FILE, argument):
        return f"{argument}: a file is given as {'data.train' if is_train else 'input'}={argument}"
    parts = re.fullmatch(r"(--?|\+?)([A-Za-z][\w.-]*)(?:(==|[:=])(.*))?", argument)
    if parts is None or argument.partition("=")[0] in (*FLAGS, *SHORT):
        return None
    sign, key, equals, value = parts.groups()
    is_override = (sign, equals) == ("", "=")
    if not value:
        behind = next((part for part in after if part not in (":", "=", "==")), "")
        value = behind.removeprefix("=")
        value = "" if "=" in value or value.startswith("-") else value
        is_override &= not value
    is_group = key.startswith("hydra") or (is_train and (CONFIGS / key).is_dir())
    if is_override and (key in fields or is_group):
        return None
    line = translated(argument, key, value, fields)
    if line is None and is_override:
        words = {
            word: meant for word, meant in _words(frozenset(fields)).items() if meant in fields
        }
        close = difflib.get_close_matches(_plain(key), [*words], n=1)
        hint = f"did you mean {words[close[0]]}?" if close else "--help lists the main ones"
        line = f"{argument}: there is no such key; {hint}"
    is_flag = argument.startswith(SHORT) or any(flag.startswith(f"--{key}") for flag in FLAGS)
    if line is None and sign.startswith("-") and not is_flag:
        line = f"{argument}: there is no such flag; write KEY=VALUE, see --help"
    return line


def explain(error: Exception, schema: type[Options]) -> str:
    """Say in one line what was wrong and what is allowed.

    Parameters
    ----------
    error : what Hydra raised, or this program.
    schema : of the program's config, whose keys can be suggested.
    """
    fields, text, line = fields_of(schema), str(error), one_line(error)
    if isinstance(error, OverrideParseException):
        line = (
            f"{error.override}: not an override; write key=value, and a value with special "
            "characters in quotes of its own: key='\"value\"'"
        )
    elif isinstance(error, MissingConfigException) and error.missing_cfg_file:
        line = _no_such_choice(error.missing_cfg_file, list(error.options or []))
    elif match := re.match(r"Could not override '(.+?)'\.\nTo append .* use \+(.+)", text):
        key, override = match.groups()
        line = f"{override}: there is no such key"
        if choices := _choices_with(key):
            group = key.partition(".")[0]
            line += f" with this choice of {group}; add {' or '.join(choices)}"
    elif match := re.match(r"Error merging override (([^=~]+)=(.*))", text):
        field = fields.get(match[2].lstrip("+"))
        limits = f"must be {describe(field)}" if field else "not a value of this key"
        line = f"{match[1]}: {limits}{_value_hint(match[2], match[3], fields)}"
    elif match := re.match(r"([\w.]+)=(.*): must be .*", text):
        line = match[0] + _value_hint(match[1], match[2], fields)
    for pattern, said in names_elsewhere()["errors"].items():
        if match := re.match(pattern, text):
            line = said.format(*match.groups())
    return printable(line)


@functools.cache
def names_elsewhere() -> dict[str, Any]:
    """Return hints.yaml: what other programs call keys and values."""
    table: dict[str, Any] = read_plain(Path(__file__).with_suffix(".yaml"))
    return table


@functools.cache
def _words(keys: frozenset[str]) -> dict[str, str]:
    """Return what each word means here: one of the program's keys, or a line of what is said of it.

    In this order: what a key is called, what others call it, how one key alone ends, the lines.
    """
    table, words = names_elsewhere(), dict[str, str]()
    for entry in reversed(table["lines"]):
        if keys >= {*entry["keys"]}:
            words |= dict.fromkeys(map(_plain, entry["words"]), entry["line"])
    ends = [_plain(key.rpartition(".")[2]) for key in keys]
    words |= {end: key for end, key in zip(ends, keys, strict=True) if ends.count(end) == 1}
    for key, others in reversed(table["keys"].items()):
        if key in keys:
            words |= dict.fromkeys(map(_plain, others), key)
    return words | {_plain(key): key for key in keys}


def _plain(word: str) -> str:
    """Return a word without what its spellings differ in."""
    return word.replace("-", "").replace("_", "").lower()


def translated(override: str, key: str, value: str, fields: Fields) -> str | None:
    """Return the line about a key that is written in another way; None where it is no such word.

    Parameters
    ----------
    override : what was written.
    key, value : its parts; the key may be in another program's group, as in trainer.max_epochs.
    fields : the program's keys.
    """
    words = _words(frozenset(fields))
    meant = words.get(_plain(key)) or words.get(_plain(key.rpartition(".")[2]))
    if meant is None or key.startswith("hydra"):
        return None
    if meant not in fields:
        penalties = _penalties(value, fields["reg"]) if "reg" in fields else {}
        return f"{override}: {meant.format(**penalties)}"
    called = "" if meant == key else f"the key is {meant}; "
    return f"{override}: {called}{_advice(meant, value, fields)}"


def _advice(key: str, value: str, fields: Fields) -> str:
    """Say how the key is given the value, and what it can be where the value is none of it."""
    names = choices_of(key)
    if not value:
        return f"write {key}=VALUE"
    if key == "data" and (overrides := _examples(value)):
        return f"write {overrides}"
    if names:
        near = _nearest_choice(key, value, names)
        return f"write {key}={near}" if near else f"it must be one of {', '.join(names)}"
    is_formula = "(" in value or "$" in value
    if is_formula or all(accepts(one, fields[key]) for one in value.split(",")):
        return f"write {key}={value}"
    hint = _value_hint(key, value, fields).removeprefix("; ")
    return hint or f"it must be {describe(fields[key])}"


def choices_of(group: str) -> list[str]:
    """Return the choices of a config group; nothing where it is none."""
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def _choices_with(key: str) -> list[str]:
    """Return the choices of a key's group that have the key, as schedule=step."""
    group, _, name = key.partition(".")
    files = {choice: CONFIGS / group / f"{choice}.yaml" for choice in choices_of(group)}
    return [f"{group}={choice}" for choice, file in files.items() if name in OmegaConf.load(file)]


def _penalties(value: str, reg: Any) -> dict[str, str]:
    """Return what a penalty of another program is as reg, or the word VALUE where it is none."""
    penalties = dict.fromkeys(PENALTIES, "VALUE")
    for name, convert in PENALTIES.items():
        with contextlib.suppress(ValueError, ZeroDivisionError):
            values = [f"{convert(float(one)):.6g}" for one in value.split(",")]
            if all(accepts(one, reg) for one in values):
                penalties[name] = ",".join(values)
    return penalties


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
    low, field = value.lower(), fields.get(key)
    with contextlib.suppress(ValueError):
        low = f"{float(low):.0f}" if float(low).is_integer() else low  # 1e3 is meant as 1000
    for pattern, line in names_elsewhere()["values"].get(key, {}).items():
        if re.fullmatch(pattern, low):
            return f"; {line.format(low)}"
    if field is None:
        return ""
    wanted = describe(field)
    for word in ("null", "0", "auto") if low in NONE else (low,):
        is_meant = "number" in wanted if word.isdigit() else word in wanted.split(" or ")
        if is_meant and accepts(word, field):
            return f"; write {key}={word}"
    close = difflib.get_close_matches(low, field.metadata.get("choices", ()), n=1)
    return f"; did you mean {close[0]}?" if close else ""

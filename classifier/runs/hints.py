"""What was meant by a mistake on the command line: one line in plain words, whoever raised it."""

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

NONE = ("none", "null", "off", "false", "no")
EVERYTHING = ("all", "full", "auto", "-1", "none", "null")
UNREAD = (".csv", ".tsv", ".txt", ".parquet", ".mat", ".pkl", ".h5", ".hdf5", ".pt", ".json")
SAVED = 'data=arrays data.train=FILE.npz, a file made by numpy.savez("FILE.npz", X=X, y=y)'

# Hydra's own flags, of which it takes abbreviations too, and values as in --cfg=job and -cn=NAME.
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
        flag = re.fullmatch(r"--?([A-Za-z][\w.-]*)(?:=(.*))?", argument)
        if flag is None or argument.partition("=")[0] in (*FLAGS, *SHORT):
            continue
        fields, (name, value) = fields_of(schema), flag.groups()
        value = _following(arguments[place + 1 :]) if value is None else value
        if name in fields:
            sys.exit(
                printable(f"{argument}: write {_written(name, value, fields)}, without dashes")
            )
        if line := translated(argument, name, value, fields):
            sys.exit(printable(line))
        if not (argument.startswith(SHORT) or any(own.startswith(f"--{name}") for own in FLAGS)):
            sys.exit(printable(f"{argument}: there is no such flag; write KEY=VALUE, see --help"))


def explain(error: Exception, schema: type[Options], arguments: Sequence[str] = ()) -> str:
    """Say in one line what was wrong and what is allowed.

    Parameters
    ----------
    error : what Hydra raised, or this program.
    schema : of the program's config, whose keys can be suggested.
    arguments : of the command line, where they are known, for what the error does not tell.
    """
    fields, text = fields_of(schema), str(error)
    line: str | None = None
    if isinstance(error, OverrideParseException):
        if error.override in arguments:
            line = _no_override(arguments, arguments.index(error.override), fields)
    elif misplaced := MISPLACED.match(text):
        (key,) = filter(None, misplaced.groups())
        line = _misplaced(key, arguments, fields)
    if line is None and isinstance(error, MissingConfigException) and error.missing_cfg_file:
        line = _no_such_choice(error.missing_cfg_file, list(error.options or []))
    matches = ((re.match(pattern, text), say) for pattern, say in _PATTERNS)
    line = line or next((say(match, fields) for match, say in matches if match), None)
    if line is None and isinstance(error, OverrideParseException):
        line = (
            f"{error.override}: not an override; write key=value, and a value with special "
            "characters in quotes of its own: key='\"value\"'"
        )
    return printable(line or one_line(error))


def _no_override(arguments: Sequence[str], place: int, fields: Fields) -> str | None:
    """Return the line about an argument that is a part of an override; None where it is none."""
    argument, before = arguments[place], arguments[place - 1] if place else ""
    if before.endswith("=") and before[:-1] in fields:
        return f"{argument}: write {_written(before[:-1], argument, fields)}, without spaces"
    if re.fullmatch(r"[^=]+\.npz", argument):
        key = "input" if "input" in fields else "data=arrays data.train"
        return f"{argument}: a file is given as {key}={argument}"
    parts = re.fullmatch(r"([\w.-]+)(?:(?::|==)(.*))?", argument)
    if parts is None:
        return None
    key, value = parts[1], parts[2] or _following(arguments[place + 1 :])
    if key in fields:
        return f"{argument}: write {_written(key, value, fields)}"
    return translated(argument, key, value, fields)


def _misplaced(key: str, arguments: Sequence[str], fields: Fields) -> str | None:
    """Return the line about a key that is added though it is there, or set though it is not."""
    override = next((a for a in arguments if a.lstrip("+").startswith(f"{key}=")), "")
    value = override.partition("=")[2]
    if key not in fields:
        return translated(override, key, value, fields)
    if not override.startswith("+"):
        return None
    written = _written(key, value, fields)
    return f"{override}: there is such a key already; write {written}, without the +"


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
                values = _penalties(value, fields) if entry["keys"] == ["reg"] else {}
                return f"{override}: {str(entry['line']).format(**values)}"
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
        nearest = _nearest_choice(key, value, names)
        advice = f"write {key}={nearest}" if nearest else f"it must be one of {', '.join(names)}"
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


def _written(key: str, value: str, fields: Fields) -> str:
    """Return an override; with the word VALUE where the key refuses the value."""
    return f"{key}={value if _accepted(key, value, fields) else 'VALUE'}"


def _penalties(value: str, fields: Fields) -> dict[str, str]:
    """Return what a penalty of another program is as reg, which has no 1/2."""

    def reg(convert: Callable[[float], float]) -> str:
        try:
            values = ",".join(f"{convert(float(one)):.6g}" for one in value.split(","))
        except (ValueError, ZeroDivisionError):
            values = "VALUE"
        return _written("reg", values, fields)

    inverse = reg(lambda v: 1 / (2 * v)).removeprefix("reg=")
    same = _written("reg", value, fields)
    return {"same": same, "half": reg(lambda v: v / 2), "inverse": inverse}


def _no_such_key(match: re.Match[str], fields: Fields) -> str:
    key, override = match.groups()
    if key not in fields:
        return unknown_key(override, key, fields)
    group, choices = key.partition(".")[0], " or ".join(_choices_with(key))
    add = f"; add {choices}" if choices else ""
    return f"{override}: there is no such key with this choice of {group}{add}"


def _not_allowed(match: re.Match[str], fields: Fields) -> str:
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
    close = _nearest_choice(group, name, options)
    hint = f"; did you mean {close}" if close else ""
    choices = f"choose one of {', '.join(options)}" if options else "--help lists the choices"
    kind = "data set" if group == "data" else group
    return f"{group}={name}: there is no such {kind}{hint}; {choices}"


def _nearest_choice(group: str, name: str, options: list[str]) -> str | None:
    """Return the choice of a group that a name stands for or is spelt like, or None."""
    low = name.lower()
    for choice, words in names_elsewhere()["choices"].get(group, {}).items():
        if low == choice or low in words:
            return str(choice)
    return next(iter(difflib.get_close_matches(low, options, n=1, cutoff=0.5)), None)


def _several(match: re.Match[str], fields: Fields) -> str:
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
    by_suffix = dict.fromkeys(UNREAD, SAVED) | {
        ".npz": f"data=arrays data.train={quoted}",
        ".npy": f"data=arrays data.train_X={quoted} data.train_y=LABELS.npy",
    }
    if path.suffix in by_suffix:
        return by_suffix[path.suffix]
    try:
        inside = {part.name for part in path.iterdir()}
    except OSError:  # no folder, or closed to us
        if not name.endswith((".tar.gz", ".tgz")):
            return None
        inside = set()
    names = " ".join([path.name, *inside]).lower()
    if re.search("cifar-?100", names) or {"train", "meta"} <= inside:
        return f"data=cifar100 data.root={quoted}"
    if re.search("cifar|data_batch_1", names):
        return f"data=cifar10 data.root={quoted}"
    return "data=arrays data.train=FILE.npz, or data=cifar10 data.root=FOLDER for CIFAR-10's files"


def _value_hint(key: str, value: str, fields: Fields) -> str:
    """Return what was meant by a value that is not allowed, as '; write reg=0', or nothing."""
    low, whole, field = value.lower(), _whole(value.lower()), fields.get(key)
    if key == "early_stopping":
        if low in NONE or whole == "0":
            return "; write early_stopping.patience=null, to train all epochs"
        return f"; write early_stopping.patience={whole or 20}, the epochs without a better one"
    if key == "batch_size" and low in EVERYTHING:
        return "; optimizer=lbfgs takes all examples at once"
    if field is None:
        return ""
    words = ["null", "auto", "0"] if low in NONE else ["null", "0"] if whole == "0" else [whole]
    wanted = describe(field)
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
_PATTERNS: list[tuple[str, Callable[[re.Match[str], Fields], str]]] = [
    (r"Could not override '(.+?)'\.\nTo append .* use \+(.+)", _no_such_key),
    (r"Error merging override (([^=]+)=.*)", _not_allowed),
    (r"Error merging override (~.+)", lambda m, _: f"{m[1]}: this key cannot be removed"),
    (
        r"Sweep parameters '(.+)' requires --multirun",
        lambda m, _: f"{m[1]}: several values are a sweep; add -m",
    ),
    (r"Ambiguous value for argument '(.+)'", _several),
    (
        r"In 'sweep/(\w+)': ConfigKeyError.*\nKey '\w+' not in 'GridSweeperConf'",
        lambda m, _: f"sweep={m[1]}: is a search; add -m hydra/sweeper=optuna",
    ),
    (r"([\w.]+)=(.*): must be .*", lambda m, fields: m[0] + _value_hint(m[1], m[2], fields)),
    (
        r"Config group override must be",
        lambda *_: "a group (data, optimizer, ...) needs a choice; --help lists them",
    ),
]

"""What was meant by a mistake on the command line: one line in plain words, whoever raised it."""

import difflib
import functools
import re
from collections.abc import Callable
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


@functools.cache
def names_elsewhere() -> dict[str, Any]:
    """Return hints.yaml: what other programs call keys and values; texts are lists of words."""

    def split(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: split(inner) for key, inner in value.items()}
        return value.split()

    table: dict[str, Any] = read_plain(Path(__file__).with_suffix(".yaml"))
    return table | {name: split(part) for name, part in table.items() if name != "half"}


def explain(error: Exception, schema: type[Options]) -> str:
    """Say in one line what was wrong and what is allowed.

    Parameters
    ----------
    error : what Hydra raised, or this program.
    schema : of the program's config, whose keys can be suggested.
    """
    fields, line = fields_of(schema), ""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        line = _no_such_choice(error.missing_cfg_file, list(error.options or []))
    matches = ((re.match(pattern, str(error)), say) for pattern, say in _PATTERNS)
    line = line or next((say(match, fields) for match, say in matches if match), "")
    if not line and isinstance(error, OverrideParseException):
        line = (
            f"{error.override}: not an override; write key=value, and a value with special "
            "characters in quotes of its own: key='\"value\"'"
        )
    return printable(line or one_line(error))


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
    table = names_elsewhere()
    for word in dict.fromkeys(map(_plain, (key, key.rpartition(".")[2]))):
        if "reg" in fields and (line := _penalty(word, value, fields)):
            return f"{override}: {line}"
        if name := _key_called(word, fields):
            line = f"the key is {name}; {_advice(name, value, fields)}{_choices_needed(name)}"
            return f"{override}: {line}"
        if _is_one_of(word, table["printed"]):
            quiet = "write quiet=true, for warnings and mistakes alone, or leave it out"
            none = "what is printed is not chosen by a key; leave it out"
            return f"{override}: {quiet if 'quiet' in fields else none}"
        for line, words in table["none"].items():
            if _is_one_of(word, words):
                return f"{override}: {line}"
    return None


def choices_of(group: str) -> list[str]:
    """Return the choices of a config group; nothing where it is none."""
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def value_to_write(key: str, value: str, fields: Fields) -> str:
    """Return a value, to be written after its key; the word VALUE where the key refuses it."""
    return value if _accepted(key, value, fields) else "VALUE"


def _accepted(key: str, value: str, fields: Fields) -> bool:
    """Return whether a key takes a value, or each of several; of a formula it is not known."""
    if "(" in value or "$" in value or choices_of(key):
        return True
    return all(accepts(one, fields[key]) for one in value.split(","))


def _plain(word: str) -> str:
    """Return a word without what its spellings differ in."""
    return re.sub(r"[-_]", "", word).lower()


def _is_one_of(word: str, words: list[str]) -> bool:
    return word in map(_plain, words)


def _key_called(word: str, fields: Fields) -> str | None:
    """Return the key that has a name, or is called so elsewhere, or is the only one to end so."""
    keys = [key for key in fields if _plain(key) == word]
    others = names_elsewhere()["keys"].items()
    keys += [key for key, words in others if key in fields and _is_one_of(word, words)]
    ends = [key for key in fields if _plain(key.rpartition(".")[2]) == word]
    return next(iter(keys), ends[0] if len(ends) == 1 else None)


def _advice(key: str, value: str, fields: Fields) -> str:
    """Say how the key is given the value, and what it can be where the value is none of it."""
    if not value:
        return f"write {key}=VALUE"
    if key == "data" and (overrides := _examples(value)):
        return f"write {overrides}"
    if not _accepted(key, value, fields):
        hint = _value_hint(key, value, fields).removeprefix("; ")
        return hint or f"it must be {describe(fields[key])}"
    if names := choices_of(key):
        nearest = _nearest_choice(key, value, names)
        return f"write {key}={nearest}" if nearest else f"it must be one of {', '.join(names)}"
    return f"write {key}={value}"


def _choices_with(key: str) -> list[str]:
    """Return the choices of a key's group that have the key, as schedule=step."""
    group, _, name = key.partition(".")
    files = {choice: CONFIGS / group / f"{choice}.yaml" for choice in choices_of(group)}
    return [f"{group}={choice}" for choice, file in files.items() if name in OmegaConf.load(file)]


def _choices_needed(key: str) -> str:
    """Return the choices that a key asks for, where the default of its group has no such key."""
    choices, group = _choices_with(key), key.partition(".")[0]
    defaults = OmegaConf.load(CONFIGS / "train.yaml").defaults
    chosen = {f"{group}={entry[group]}" for entry in defaults if group in entry}
    return f", with {' or '.join(choices)}" if choices and chosen.isdisjoint(choices) else ""


def _penalty(word: str, value: str, fields: Fields) -> str | None:
    """Return how a penalty is turned into reg, which multiplies sum(W ** 2) without a 1/2."""

    def reg(convert: Callable[[float], float]) -> str:
        try:
            values = ",".join(f"{convert(float(one)):.6g}" for one in value.split(","))
        except (ValueError, ZeroDivisionError):
            return "VALUE"
        return value_to_write("reg", values, fields)

    table, half = names_elsewhere(), reg(lambda v: v / 2)
    for other, owner in table["half"].items():
        if word == _plain(other):
            return f"the key is reg, half the {owner}; write reg={half}"
    if _is_one_of(word, table["penalty"]):
        return (
            "the key is reg, of reg * sum(W ** 2) without a 1/2; write "
            f"reg={value_to_write('reg', value, fields)}, or where yours has the 1/2 reg={half}"
        )
    if _is_one_of(word, table["inverse"]):
        share = reg(lambda v: 1 / (2 * v))
        number = "" if share == "VALUE" else f": {share} / N"
        return (
            f"the key is reg, which is 1 / (2 * C * N) for N training examples{number}; "
            "write reg=NUMBER"
        )
    return None


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
        inside = [part.name for part in path.iterdir()]
    except OSError:  # no folder, or closed to us
        if not name.endswith((".tar.gz", ".tgz")):
            return None
        inside = []
    names = " ".join([path.name, *inside]).lower()
    if "cifar-100" in names or "cifar100" in names or {"train", "meta"} <= {*inside}:
        return f"data=cifar100 data.root={quoted}"
    if "cifar" in names or "data_batch_1" in names:
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
    wanted, whole = describe(field), "0" if low in NONE else whole
    words = ("null", "auto") if low in NONE else ("null",) if whole == "0" else ()
    meant = [word for word in words if word in wanted.split(" or ")]
    meant += [whole] if whole and "number" in wanted else []
    for text in meant:
        if accepts(text, field):
            return f"; write {key}={text}"
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

"""Values that other programs have, and which of this one's come nearest to them.

Read only when a value has been refused, for the sentence about it.
"""

import dataclasses
import difflib
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from classifier.runs.config import CONFIGS, Fields
from data.options import accepts, describe

# Of the choices of each group: what others call them, or what they have in their place.
CHOICES = {
    "optimizer": {
        "sgd": "gd gradient_descent msgd",
        "adam": "adamw adamax nadam radam amsgrad adagrad rmsprop",
        "lbfgs": "l-bfgs bfgs newton newton-cg newton-cholesky liblinear sag saga irls cg",
    },
    "schedule": {
        "constant": "none null const fixed",
        "cosine": "cos cosine_annealing cosineannealinglr linear poly onecycle",
        "step": "steplr multistep multisteplr staircase",
        "exponential": "exp exponentiallr",
    },
    "preprocessing": {
        "standardize": "standardise standard standardscaler zscore z-score normalize normalise "
        "true",
        "scale": "minmax min-max minmaxscaler maxabs maxabsscaler",
        "center": "mean centre centered demean",
        "none": "null false raw identity",
    },
    "data": {
        "arrays": "npz npy numpy custom file",
        "blobs": "make_blobs toy",
        "cifar10": "cifar cifar-10 cifar_10",
        "cifar100": "cifar-100 cifar_100",
    },
}
NONE = ("none", "null", "off", "false", "no")
EVERYTHING = ("all", "full", "auto", "-1", "none", "null")
UNREAD = (".csv", ".tsv", ".txt", ".parquet", ".mat", ".pkl", ".h5", ".hdf5", ".pt", ".json")
SAVED = 'data=arrays data.train=FILE.npz, a file made by numpy.savez("FILE.npz", X=X, y=y)'


def choices_of(group: str) -> list[str]:
    """Return the choices of a config group; nothing where it is none."""
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def choices_with(key: str) -> list[str]:
    """Return the choices of a key's group that have the key, as schedule=step."""
    group, _, name = key.partition(".")
    files = {choice: CONFIGS / group / f"{choice}.yaml" for choice in choices_of(group)}
    return [f"{group}={choice}" for choice, file in files.items() if name in OmegaConf.load(file)]


def nearest_choice(group: str, name: str, options: list[str]) -> str | None:
    """Return the choice of a group that a name stands for or is spelt like, or None."""
    low = name.lower()
    for choice, words in CHOICES.get(group, {}).items():
        if low == choice or low in words.split():
            return choice
    close = difflib.get_close_matches(low, options, n=1, cutoff=0.5)
    return close[0] if close else None


def examples(given: str) -> str | None:
    """Return the overrides for what was given as data=... and is a file or a folder, or None."""
    path, quoted = Path(given), f"'{given}'" if re.search(r"\s", given) else given
    own = {
        ".npz": f"data=arrays data.train={quoted}",
        ".npy": f"data=arrays data.train_X={quoted} data.train_y=LABELS.npy",
    }
    own |= dict.fromkeys(UNREAD, SAVED)
    if path.suffix in own:
        return own[path.suffix]
    names = _names(path)
    if names is None and not given.endswith((".tar.gz", ".tgz")):
        return None
    told = " ".join([path.name, *(names or ())]).lower()
    if "cifar-100" in told or "cifar100" in told or {"train", "meta"} <= {*(names or ())}:
        return f"data=cifar100 data.root={quoted}"
    if "cifar" in told or "data_batch_1" in told:
        return f"data=cifar10 data.root={quoted}"
    return "data=arrays data.train=FILE.npz, or data=cifar10 data.root=FOLDER for CIFAR-10's files"


def _names(path: Path) -> list[str] | None:
    """Return the names in a folder; None where it is none, or closed to us."""
    try:
        return [part.name for part in path.iterdir()]
    except OSError:
        return None


def value_hint(key: str, value: str, field: dataclasses.Field[Any] | None) -> str:
    """Return what was meant by a value that is not allowed, as '; write reg=0', or nothing."""
    low = value.lower()
    if key == "early_stopping":
        return _early_stopping(low)
    if key == "batch_size" and low in EVERYTHING:
        return "; optimizer=lbfgs takes all examples at once"
    if field is None:
        return ""
    wanted, whole = describe(field), "0" if low in NONE else _whole(low)
    words = ("null", "auto") if low in NONE else ("null",) if whole == "0" else ()
    meant = [word for word in words if word in wanted.split(" or ")]
    meant += [whole] if whole and "number" in wanted else []
    for text in meant:
        if accepts(text, field):
            return f"; write {key}={text}"
    close = difflib.get_close_matches(low, field.metadata.get("choices", ()), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def accepted(key: str, value: str, fields: Fields) -> bool:
    """Return whether a key takes a value, or each of several; of a formula it is not known."""
    if "(" in value or "$" in value or choices_of(key):
        return True
    return all(accepts(one, fields[key]) for one in value.split(","))


def value_to_write(key: str, value: str, fields: Fields) -> str:
    """Return a value, to be written after its key; the word VALUE where the key refuses it."""
    return value if accepted(key, value, fields) else "VALUE"


def _whole(text: str) -> str | None:
    """Return the digits of a whole number, as 1000 for 1e3; None of anything else."""
    if not re.fullmatch(r"[0-9]+(\.[0-9]*)?(e\+?[0-9][0-9]?)?", text):
        return None
    number = Decimal(text)
    return f"{number:.0f}" if number == number.to_integral_value() else None


def _early_stopping(value: str) -> str:
    patience = _whole(value)
    if value in NONE or patience == "0":
        return "; write early_stopping.patience=null, to train all epochs"
    return f"; write early_stopping.patience={patience or 20}, the epochs without a better one"

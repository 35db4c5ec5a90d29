"""Dataclasses whose fields carry their own limits.

Every config group (a data source, an optimizer, a schedule) is a dataclass that derives from
`Options`. A field made by `option` states what values are allowed; a value outside is refused
when the object is made, from the command line and from Python in the same words.
"""

import contextlib
import dataclasses
import math
import numbers
import operator
import re
import types
from typing import Any, get_args

from data.errors import InputError

# Roles, which a field names: what a key of the config is to whoever treats all keys alike.
PER_MODEL = "per model"  # the models of a stack may differ in it
REPORTING = "reporting"  # a resumed run may change it: it changes no step of the training
PLACE = "place"  # where something is put and who hears of it: runs that differ in it are the same
LABEL = "label"  # what a run is called: it is kept, and runs that differ in it are the same
SECRET = "secret"  # may hold a password: it stands in the run's own config and nowhere else

_LIMITS = {
    "minimum": ("at least", operator.ge),
    "above": ("above", operator.gt),
    "below": ("below", operator.lt),
    "maximum": ("at most", operator.le),
}
_BOOLEANS = "true false yes no on off y n 1 0".split()  # as Hydra reads them
_TYPES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def option(
    *,
    choices: tuple[str, ...] = (),
    roles: tuple[str, ...] = (),
    default: Any = dataclasses.MISSING,
    **limits: float,
) -> Any:
    """Declare a dataclass field with limits: minimum, above, below and maximum.

    Text must be one of `choices`, where there are any. Roles are words for whoever asks for the
    fields that have them.
    """
    metadata = {"limits": limits, "choices": choices, "roles": roles}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass
class Options:
    """A dataclass that checks its fields against their limits.

    Raises
    ------
    InputError
        When a value is not allowed; the message names the field, the value and the limits.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check_value(field.name, getattr(self, field.name), field)


def check_value(name: str, value: Any, field: dataclasses.Field[Any]) -> None:
    """Raise InputError, with the name and the value, where a field may not have the value."""
    if not _is_allowed(value, field):
        raise InputError(f"{name}={value}: must be {describe(field)}")


def describe(field: dataclasses.Field[Any]) -> str:
    """Say in words what values a field may have."""
    kinds, choices = _kinds(field), field.metadata.get("choices", ())
    if choices and kinds[0] is str:
        return "one of " + ", ".join(choices) + " or null" * (type(None) in kinds)
    number = next((kind for kind in (float, int) if kind in kinds), kinds[0])
    limits = field.metadata.get("limits", {})
    kind = _TYPES.get(number, f"a group of keys, as in {field.name}.KEY=VALUE")
    bounds = " and ".join(f"{_LIMITS[name][0]} {limit:g}" for name, limit in limits.items())
    return " or ".join([*choices, f"{kind} {bounds}".strip()] + ["null"] * (type(None) in kinds))


def accepts(text: str, field: dataclasses.Field[Any]) -> bool:
    """Return whether a field may have the value that a text of the command line stands for."""
    if text.lower() == "null":
        return _is_allowed(None, field)
    kinds = _kinds(field)
    if str in kinds and re.match(r"[+-]?0[0-9]", text):
        return False  # Hydra reads 007 as text
    if text not in field.metadata.get("choices", ()):
        for kind in (int, float):
            if kind in kinds:
                with contextlib.suppress(ValueError):
                    return _is_allowed(kind(text), field)
    return text.lower() in _BOOLEANS if bool in kinds else _is_allowed(text, field)


def _kinds(field: dataclasses.Field[Any]) -> tuple[Any, ...]:
    return get_args(field.type) if isinstance(field.type, types.UnionType) else (field.type,)


def _is_allowed(value: Any, field: dataclasses.Field[Any]) -> bool:
    choices = field.metadata.get("choices", ())
    if isinstance(value, str):
        return value in choices if choices else value != "" and field.type in (str, str | None, Any)
    kinds, limits = _kinds(field), field.metadata.get("limits", {})
    if value is None:
        return type(None) in kinds or Any in kinds
    if not limits:
        return True
    number: Any = numbers.Real if float in kinds else numbers.Integral
    if not isinstance(value, number) or isinstance(value, bool):
        return False
    inside = all(_LIMITS[name][1](value, limit) for name, limit in limits.items())
    return inside and -math.inf < value < math.inf

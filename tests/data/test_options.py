import contextlib
import dataclasses
import math
import re

import pytest

from data.errors import InputError
from data.options import Options, accepts, describe, option


@dataclasses.dataclass(kw_only=True)
class Example(Options):
    share: float = option(minimum=0, below=1)
    count: int | None = option(minimum=1, maximum=9)
    step: int | float | str = option(above=0, choices=("auto",))
    kind: str = option(choices=("one", "two"))
    flag: bool


GOOD = {"share": 0.0, "count": 1, "step": "auto", "kind": "one", "flag": True}
WORDS = {
    "share": "a number at least 0 and below 1",
    "count": "a whole number at least 1 and at most 9 or null",
    "step": "auto or a number above 0",
    "kind": "one of one, two",
    "flag": "true or false",
}
GOOD_VALUES = [("share", 0), ("share", 0.999), ("count", None), ("count", 9), ("step", 0.1)]
GOOD_VALUES += [("step", 3), ("step", 10**400), ("kind", "two"), ("flag", False)]
BAD_VALUES = [("share", 1.0), ("share", -0.1), ("share", math.nan), ("share", True), ("share", "x")]
BAD_VALUES += [("count", 0), ("count", 10), ("count", 1.5), ("count", True), ("step", 0)]
BAD_VALUES += [("step", math.inf), ("step", "fast"), ("kind", "three"), ("kind", "")]


@pytest.mark.parametrize(("name", "value"), [*GOOD_VALUES, *BAD_VALUES])
def test_values_outside_are_refused_with_the_limits(name, value):
    (field,) = (field for field in dataclasses.fields(Example) if field.name == name)
    assert describe(field) == WORDS[name]
    is_good = (name, value) in GOOD_VALUES
    text = "null" if value is None else str(value)
    assert accepts(text, field) == is_good or len(text) > 300 or text == "True"
    words = re.escape(f"{name}={value}: must be {WORDS[name]}")
    with contextlib.nullcontext() if is_good else pytest.raises(InputError, match=words + "$"):
        Example(**GOOD | {name: value})

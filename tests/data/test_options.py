import dataclasses
import math

import pytest

from data.errors import InputError
from data.options import Options, describe, option


@dataclasses.dataclass(kw_only=True)
class Example(Options):
    share: float = option(minimum=0, below=1)
    count: int | None = option(minimum=1)
    step: int | float | str = option(above=0, choices=("auto",))
    kind: str = option(choices=("one", "two"))
    flag: bool


GOOD = {"share": 0.0, "count": 1, "step": "auto", "kind": "one", "flag": True}


@pytest.mark.parametrize(
    "change", [{}, {"share": 0.999}, {"count": None}, {"step": 0.1}, {"step": 3}, {"kind": "two"}]
)
def test_allowed_values(change):
    Example(**GOOD | change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"share": 1.0}, "share=1.0: must be a number at least 0 and below 1"),
        ({"share": -0.1}, "share=-0.1: must be"),
        ({"share": math.nan}, "share=nan: must be"),
        ({"count": 0}, "count=0: must be a whole number at least 1 or null"),
        ({"step": 0}, "step=0: must be auto or a number above 0"),
        ({"step": math.inf}, "step=inf: must be"),
        ({"step": "fast"}, "step=fast: must be auto or a number above 0"),
        ({"kind": "three"}, "kind=three: must be one of one, two"),
    ],
)
def test_values_outside_are_refused_with_the_limits(change, words):
    with pytest.raises(InputError, match=words):
        Example(**GOOD | change)


def test_plain_fields_are_described_by_their_type():
    (flag,) = (field for field in dataclasses.fields(Example) if field.name == "flag")
    assert describe(flag) == "true or false"

"""What the picture of a sweep and its page share: scales, colours, places."""

import itertools
import re

import pytest

from classifier.report import sweep_look
from classifier.report.pages.key_axis import key_axis
from classifier.report.pages.page import TEMPLATES
from classifier.report.sweep_look import (
    best_at,
    bounds,
    error_of,
    is_category,
    is_log,
    scale_of,
    shade_of,
    spaced,
    spread,
)


def row(loss, status="completed", **more):
    return {"status": status, "val_loss": loss} | more


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([0.1, 0.5], "linear"),
        ([0.1, 1], "log"),
        ([0, 0.1, 1], "symlog"),
        ([0, 0.5, 0.9], "linear"),
        ([-1, 1, 100], "linear"),
        ([0], "linear"),
        ([], "linear"),
    ],
)
def test_a_key_has_the_scale_it_was_swept_on(values, scale):
    assert scale_of(values) == scale


def test_seeds_and_names_are_categories():
    rows = [{"seed": 1, "lr": 0.1, "nesterov": True, "optimizer": "sgd"}]
    assert [is_category(rows, key) for key in rows[0]] == [True, False, True, True]


def test_losses_over_a_decade_are_logarithmic_but_no_accuracies():
    assert is_log([row(0.1), row(1.1), row(None, "failed")], "val_loss")
    assert not is_log([row(0.2), row(1.1), row(99, "diverged")], "val_loss")
    assert not is_log([row(0.0), row(1.1)], "val_loss")
    assert not is_log([row(1, val_accuracy=0.01), row(1, val_accuracy=0.9)], "val_accuracy")


def test_error_bars_are_of_repetitions_and_folds_alone():
    single = row(1.0, val_loss_error=0.5)
    repeated = single | {"repetitions": 3}
    assert error_of(single, "val_loss") is None
    assert error_of(repeated, "val_loss") == 0.5
    assert error_of({"cv_loss_error": 0.1}, "cv_loss") == 0.1
    assert bounds([single, repeated, row(9.0, "failed")], "val_loss") == [1.0, 1.0, 0.5, 1.5]


def test_the_line_goes_through_the_best_of_each_value():
    rows = [row(2.0, lr=1), row(1.0, lr=1), row(3.0, lr=0.1), row(0.1, "diverged", lr=5)]
    assert best_at(rows, "lr", "val_loss") == [rows[2], rows[1]]
    assert best_at([row(1.0, lr=k) for k in range(61)], "lr", "val_loss") == []


def test_the_rows_of_a_category_stand_beside_each_other_around_it():
    rows = [row(1, key=key) for key in "abab" + "a"]
    places = spread(rows, "key")
    assert places == pytest.approx([-0.2, 0.85, 0.0, 1.15, 0.2])


def test_the_best_has_the_whole_colour():
    shade = shade_of([0.1, 1.0, 10.0], "val_loss")
    assert [shade(x) for x in (0.1, 1.0, 10.0)] == pytest.approx([1.0, 0.525, 0.05])
    shade = shade_of([0.5, 0.75, 1.0], "val_accuracy")
    assert [shade(x) for x in (0.5, 0.75, 1.0)] == pytest.approx([0.05, 0.525, 1.0])


def test_ticks_keep_apart():
    wanted = [(x, str(x)) for x in (0.0, 0.05, 0.1, 0.5, 0.55, 1.0)]
    assert [x for x, _ in spaced(wanted, float, 0.1)] == [0.0, 0.1, 0.5, 1.0]


def test_zero_stands_a_decade_below_the_smallest_on_a_logarithmic_axis():
    axis = key_axis([{"reg": reg} for reg in (0, 0.001, 0.1)], "reg")
    places = [axis.axis.place(axis.number(reg)) for reg in (0, 0.001, 0.01, 0.1)]
    gaps = [b - a for a, b in itertools.pairwise(places)]
    assert gaps == pytest.approx([gaps[0]] * 3)
    assert [text for _, text in axis.ticks(0.1)] == ["0", "0.001", "0.1"]


def test_the_picture_has_the_colours_of_the_page():
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    for name, colour in (("train", "POINT"), ("heat", "POINT"), ("val", "LINE"), ("bad", "MARK")):
        assert re.search(rf"--{name}: (#\w+);", style)[1] == getattr(sweep_look, colour)

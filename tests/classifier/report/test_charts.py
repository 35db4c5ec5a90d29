import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, Chart, span

sizes = st.floats(1e-6, 1e6)


@given(begin=st.floats(-1e4, 1e4), size=sizes)
def test_linear_ticks_are_round_even_and_few(begin, size):
    low = begin * size
    axis = Axis(low, low + size)
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 7
    assert all(low - 1e-6 * size <= tick <= low + size * (1 + 1e-6) for tick in ticks)
    steps = [b - a for a, b in itertools.pairwise(ticks)]
    assert steps == pytest.approx([steps[0]] * len(steps), rel=1e-3)
    mantissa = steps[0] / 10 ** math.floor(math.log10(steps[0]) + 1e-3)
    assert min(abs(mantissa - m) for m in (1, 2, 5)) < 1e-2


@given(low=sizes, factor=st.floats(10, 1e8))
def test_log_ticks_are_powers_of_ten_or_a_few_between(low, factor):
    ticks = Axis(low, low * factor, log=True).ticks()
    assert ticks
    assert all(low <= tick <= low * factor * (1 + 1e-9) for tick in ticks)
    mantissas = {round(tick / 10 ** math.floor(math.log10(tick) + 1e-9), 6) for tick in ticks}
    assert mantissas <= ({1, 2, 5} if low * factor < 100 * low else {1})


def test_values_stand_where_they_should():
    chart = Chart("t", "x", "y", Axis(0, 10), Axis(1, 100, log=True))
    assert chart.at_x(0) == LEFT
    assert chart.at_x(10) == WIDTH - RIGHT
    assert chart.at_y(100) == TOP
    assert chart.at_y(1) == pytest.approx(HEIGHT - BOTTOM)
    assert chart.at_y(10) == pytest.approx((TOP + HEIGHT - BOTTOM) / 2)


def test_a_line_leaves_out_what_has_no_place():
    chart = Chart("t", "x", "y", Axis(0, 4), Axis(1, 100, log=True))
    chart.add_line("loss", "train", [0, 1, 2, 3, 4], [1.0, None, math.nan, 0.0, 100.0])
    (line,) = chart.lines
    assert line.points == f"{LEFT:.1f},{HEIGHT - BOTTOM:.1f} {WIDTH - RIGHT:.1f},{TOP:.1f}"
    chart.add_line("nothing", "val", [0], [None])
    assert len(chart.lines) == 1


@pytest.mark.parametrize("values", [[], [0.0], [3.0, 3.0], [-1.0, 5.0]])
@pytest.mark.parametrize("log", [False, True])
def test_a_span_has_room_for_whatever_there_is(values, log):
    if log and any(value <= 0 for value in values or [0]):
        return
    axis = span(values, log=log)
    assert all(0 < axis.place(value) < 1 for value in values)
    assert len(axis.ticks()) >= 1

"""A chart's axes, and its drawing: as SVG on a page, and painted into a file."""

import base64
import io
import itertools
import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from classifier.report.chart import (
    COLOURS,
    DASHES,
    HUES,
    Axis,
    Box,
    Chart,
    Dot,
    Drawing,
    Line,
    Picture,
    Text,
)
from classifier.report.png import PIXEL, drawing_of, font, paint
from classifier.report.text import TEMPLATES, chart_html, data_uri

sizes = st.floats(1e-6, 1e6)


@given(begin=st.floats(-1e4, 1e4), size=sizes)
def test_linear_ticks_are_round_even_and_few(begin, size):
    low = begin * size
    ticks = Axis(low, low + size).round_values()
    assert 2 <= len(ticks) <= 7
    assert all(low - 1e-6 * size <= tick <= low + size * (1 + 1e-6) for tick in ticks)
    steps = [b - a for a, b in itertools.pairwise(ticks)]
    assert steps == pytest.approx([steps[0]] * len(steps), rel=1e-3)
    mantissa = steps[0] / 10 ** math.floor(math.log10(steps[0]) + 1e-3)
    assert min(abs(mantissa - m) for m in (1, 2, 5)) < 1e-2


@given(low=sizes, factor=st.floats(10, 1e8))
def test_log_ticks_are_powers_of_ten_or_a_few_between(low, factor):
    ticks = Axis(low, low * factor, log=True).round_values()
    assert ticks
    assert all(low <= tick <= low * factor * (1 + 1e-9) for tick in ticks)
    mantissas = {round(tick / 10 ** math.floor(math.log10(tick) + 1e-9), 6) for tick in ticks}
    assert mantissas <= ({1, 2, 5} if low * factor < 1000 * low else {1})


def test_values_stand_where_they_should():
    chart = Chart("t", Axis(0, 10, label="x"), Axis(1, 100, log=True, label="y"))
    chart.add_line("a", "train", [0, 10, 5, 3, 4], [100, 1, 10, None, math.nan])
    chart.add_line("nothing has a place", "val", [0, 1], [None, -1.0])
    chart.marks.append(Box(5, 1, 5, 99, "zone", "s"))
    chart.marks.append(Picture(0, 1, 5, 99, np.zeros((1, 1, 3))))
    image, *marks = chart.drawing().marks  # behind all others
    grid = [m.points for m in marks if isinstance(m, Line) and m.kind == "grid"]
    (line,) = [m.points for m in marks if isinstance(m, Line) and m.kind != "grid"]
    first, last, middle = line
    columns = [a[0] for a, b in grid if a[0] == b[0]]
    rows = [a[1] for a, b in grid if a[1] == b[1]]
    assert (first[0], last[0]) == (columns[0], columns[-1])
    assert first[1] == min(rows) < last[1] == max(rows)  # down is more
    assert middle == pytest.approx(((first[0] + last[0]) / 2, (first[1] + last[1]) / 2))
    (stripe,) = (m for m in marks if isinstance(m, Box))
    size = (last[0] - first[0]) / 2, last[1] - first[1]
    assert stripe[:4] == pytest.approx((middle[0], first[1], *size))
    assert image[:4] == pytest.approx((*first, *size))


@pytest.mark.parametrize("width", [200, 420, 560])
@pytest.mark.parametrize(
    "axes",
    [
        (Axis(-4, 100, label="x"), Axis(0, 1, label="a label")),
        (Axis(1e-9, 1e5, log=True), Axis(1e-12, 1e-9)),
        (
            Axis(-0.5, 19.5, named=[(k, f"a name, {k}") for k in range(20)], values=[*range(20)]),
            Axis(-1e6, 1e6),
        ),
    ],
)
def test_no_text_is_cut_and_none_touches_another(axes, width, check_room):
    chart = Chart("t", *axes, keys=[("dot", "the first key"), ("best", "another key")])
    check_room(drawing_of(chart, (width, 260)))


def test_a_chart_shows_its_parts_where_they_stand_and_no_text_of_it_is_code():
    evil = '<b a="1">&\''
    chart = Chart(evil, Axis(0.0, 10.0, label="reg"), Axis(1.0, 100.0, True, evil))
    chart.marks += [
        Line(evil, "band", [(0, 1), (10, 10), (10, 1)]),
        Dot(6, 10, 3.0, "best", evil, "a b/<x>.html"),
    ]
    chart.add_line(evil, "val", [0, 10], [1, 100])
    chart.add_reference(6, evil, "dotted")
    chart.add_reference(5, evil, "dashed")
    chart.marks.append(Box(1, 1, 1, 99, "zone", evil))
    chart.keys = [("dot", evil), ("lost", "")]
    figure = ElementTree.fromstring(chart_html(chart))
    svg = figure.find("svg")
    assert svg.get("viewBox") == "0 0 420 260"
    assert svg.get("aria-label") == f"{evil}: {evil} by reg"
    assert figure.find("figcaption").text == evil
    drawn = {mark.kind: mark for mark in chart.drawing().marks}
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in drawn["val"].points)
    assert svg.find("polyline[@class='val']").attrib == {"class": "val", "points": points}
    dashes = [m.get("stroke-dasharray") for m in svg.findall("polyline[@class='reference']")]
    assert dashes == [DASHES["dashed"], DASHES["dotted"]]
    assert svg.find("rect/title").text == evil
    linked, best = svg.find("a"), drawn["best"]
    assert linked.attrib == {"href": "a%20b/%3Cx%3E.html", "aria-label": evil}
    place = {"class": "best", "cx": f"{best.x:.1f}", "cy": f"{best.y:.1f}", "r": "3.0"}
    assert linked.find("circle").attrib == place
    ticks = [text.text for text in svg.findall("text")]
    assert ticks == [*map(str, (1, 2, 5, 10, 20, 50, 100)), *map(str, range(0, 11, 2)), "reg"]
    keys = [(key.get("class"), key.text) for key in figure.findall("p/span")]
    kinds = ["key band", "key val", "key reference dashed", "key reference dotted", "key dot"]
    assert keys == [(None, evil), *((kind, evil) for kind in kinds)]
    # The picture has the same texts, and besides those of the legend.
    pictured = [mark.text for mark in drawing_of(chart).marks if isinstance(mark, Text)]
    assert sorted(pictured) == sorted([*ticks, evil, *[evil] * len(kinds)])


def test_what_is_painted_has_the_colours_of_the_page():
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    for name, colour in (COLOURS | dict(zip("abcdefgh", HUES, strict=True))).items():
        assert re.search(rf"--{name}: (#\w+);", style)[1] == colour


def mixed(kind, alpha):
    return tuple(round(255 + alpha * (part - 255)) for part in bytes.fromhex(COLOURS[kind][1:]))


@pytest.mark.parametrize(
    ("mark", "colour", "share"),
    [
        (Line("", "train", [(0, 20), (80, 20)]), mixed("train", 1), 2 / 40),
        (Line("", "train", [(0, 20), (80, 20)], "dashed"), mixed("train", 1), 2 / 40 * 5 / 9),
        (Line("", "band", [(0, 0), (80, 0), (80, 20), (0, 20)]), mixed("val", 0.2), 0.5),
        (Dot(40, 20, 15, "dot"), mixed("train", 0.6), math.pi * 15**2 / 3200),
        (Dot(40, 20, 15, "train"), mixed("train", 0.6), math.pi * 15**2 / 3200),
        (Dot(40, 20, 15, "faint"), mixed("train", 0.25), math.pi * 15**2 / 3200),
        (Dot(40, 20, 8, "lost"), mixed("bad", 1), 2 * math.pi * 8 / 3200),
        (Box(20, 10, 40, 20, "framed"), mixed("bad", 1), 2.5 * 110 / 3200),
        (Box(20, 10, 40, 20, "zone"), mixed("soft", 1), 0),
        (Picture(0, 0, 80, 20, np.full((1, 1, 3), 10.0)), (10, 10, 10), 0.5),
        (Picture(0, 0, 80, 20, np.full((1, 1, 3), 15.0), "behind"), (195, 195, 195), 0.5),
    ],
)
def test_a_mark_is_painted_in_its_colour_as_large_as_it_is(mark, colour, share):
    painted = np.asarray(paint(Drawing(80, 40, [mark])))
    darker = (255.0 - painted).mean(axis=(0, 1))
    assert darker == pytest.approx(share * (255.0 - np.array(colour)), rel=0.2, abs=0.1)


@pytest.mark.parametrize(("anchor", "begin"), [("start", 0), ("middle", 0.5), ("end", 1)])
@pytest.mark.parametrize("turned", [False, True])
def test_a_text_stands_at_its_place(anchor, begin, turned):
    text = Text(150, 150, "HHHHHHHH", anchor, turned)
    painted = np.asarray(paint(Drawing(300, 300, [text]))).min(axis=-1) < 128
    ys, xs = ([where.min() / PIXEL, where.max() / PIXEL] for where in np.nonzero(painted))
    long = font(text.letter).getlength(text.text) / PIXEL
    along = 150 + begin * long - long if turned else 150 - begin * long
    expected = [along, along + long]
    assert (ys if turned else xs) == pytest.approx(expected, abs=3)
    assert (xs if turned else ys)[1] == pytest.approx(150, abs=1.5)  # baseline


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 3)])
def test_an_image_on_a_page_is_itself(shape):
    image = np.arange(np.prod(shape)).reshape(shape) * 9.0
    kind, _, content = data_uri(image).partition(",")
    assert kind == "data:image/png;base64"
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
    np.testing.assert_array_equal(pixels, image)

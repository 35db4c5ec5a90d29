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
from matplotlib.figure import Figure
from matplotlib.image import imread

from classifier.report import chart as charts
from classifier.report import png
from classifier.report.chart import COLOURS, DASHES, HUES, Axis, Chart, Dot, Line, Text, span
from classifier.report.pages.page import TEMPLATES
from classifier.report.svg import chart_html, data_uri

sizes = st.floats(1e-6, 1e6)


@given(begin=st.floats(-1e4, 1e4), size=sizes)
def test_linear_ticks_are_round_even_and_few(begin, size):
    low = begin * size
    axis = Axis(low, low + size)
    ticks = axis.round_values()
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


def points_of(chart, kind):
    """Return the points of the lines of a kind, where they are drawn."""
    marks = chart.drawing().marks
    return [mark.points for mark in marks if isinstance(mark, Line) and mark.kind == kind]


def test_values_stand_where_they_should():
    chart = Chart("t", Axis(0, 10, label="x"), Axis(1, 100, log=True, label="y"))
    chart.add_line("a", "train", [0, 10, 5], [100, 1, 10])
    ((first, last, middle),) = points_of(chart, "train")
    grid = points_of(chart, "grid")
    assert {first[0], last[0]} == {x for line in grid[:3] for x, _ in line}  # the whole width
    assert {first[1], last[1]} == {y for line in grid[-3:] for _, y in line}
    assert middle == pytest.approx(((first[0] + last[0]) / 2, (first[1] + last[1]) / 2))


def test_a_line_leaves_out_what_has_no_place():
    chart = Chart("t", Axis(0, 4), Axis(1, 100, log=True))
    chart.add_line("loss", "train", [0, 1, 2, 3, 4], [1.0, None, math.nan, 0.0, 100.0])
    assert [line.points for line in chart.lines] == [[(0, 1.0), (4, 100.0)]]
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


@pytest.mark.parametrize("width", [200, 420, 560])
@pytest.mark.parametrize(
    "axes",
    [
        (Axis(-4, 100), Axis(0, 1)),
        (Axis(1e-9, 1e5, log=True), Axis(1e-12, 1e-9)),
        (
            Axis(-0.5, 19.5, named=[(k, f"a name, {k}") for k in range(20)], category=True),
            Axis(-1e6, 1e6),
        ),
    ],
)
def test_no_tick_is_cut_and_none_touches_another(axes, width):
    drawing = Chart("t", *axes).drawing(width, 260)
    texts = [mark for mark in drawing.marks if isinstance(mark, Text) and mark.text]
    boxes = [box_of(text) for text in texts]
    for left, top, right, bottom in boxes:
        assert left >= 0
        assert top >= 0
        assert right <= drawing.width
        assert bottom <= drawing.height
    for (a, b, c, d), (e, f, g, h) in itertools.combinations(boxes, 2):
        assert c <= e or g <= a or d <= f or h <= b


def box_of(text):
    """Return about where a text stands, a little less than its letters' height."""
    long, high = charts.room(text.text, 0.9 * text.letter), 0.7 * text.letter
    before = {"start": 0, "middle": long / 2, "end": long}[text.anchor]
    if text.turned:
        return text.x - high, text.y + before - long, text.x, text.y + before
    return text.x - before, text.y - high, text.x - before + long, text.y


def evil_chart(evil='<b a="1">&\''):
    chart = Chart(evil, Axis(0.0, 10.0, label="reg"), Axis(1.0, 100.0, True, evil))
    chart.add_line(evil, "val", [0, 10], [1, 100])
    chart.references = [(5, evil, "dashed"), (6, evil, "dotted")]
    chart.bands = [(evil, [(0, 1), (10, 10), (10, 1)])]
    chart.zones = [(1.0, 2.0, evil)]
    chart.dots = [Dot(6, 10, 3.0, "best", evil, "a b/<x>.html"), Dot(1, 2, 3, "dot", "t")]
    chart.keys = [("dot", evil)]
    return chart


def test_a_chart_shows_its_parts_where_they_stand_and_no_text_of_it_is_code():
    chart = evil_chart()
    evil = chart.title
    figure = ElementTree.fromstring(chart_html(chart))
    svg = figure.find("svg")
    assert svg.get("viewBox") == "0 0 420 260"
    assert svg.get("aria-label") == f"{evil}: {evil} by reg"
    assert figure.find("figcaption").text == evil
    (line,) = points_of(chart, "val")
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in line)
    assert svg.find("polyline[@class='val']").attrib == {"class": "val", "points": points}
    dashes = [m.get("stroke-dasharray") for m in svg.findall("polyline[@class='reference']")]
    assert dashes == [DASHES["dashed"], DASHES["dotted"]]
    assert svg.find("rect/title").text == evil
    linked = svg.find("a")
    assert linked.attrib == {"href": "a%20b/%3Cx%3E.html", "aria-label": evil}
    best = next(m for m in chart.drawing().marks if isinstance(m, Dot))
    place = {"class": "best", "cx": f"{best.x:.1f}", "cy": f"{best.y:.1f}", "r": "3.0"}
    assert linked.find("circle").attrib == place
    assert svg.find("circle/title").text == "t"
    ticks = [text.text for text in svg.findall("text")]
    y_ticks = [1, 2, 5, 10, 20, 50, 100]
    assert ticks == [*map(str, y_ticks), *map(str, range(0, 11, 2)), "reg"]
    keys = [(span.get("class"), span.text) for span in figure.findall("p/span")]
    kinds = ["key val", "key band", "key reference dashed", "key reference dotted", "key dot"]
    assert keys == [(None, evil), *((kind, evil) for kind in kinds)]


def test_a_picture_has_the_marks_and_the_dashes_of_the_page(monkeypatch):
    """What is painted is what the page shows: the same drawing, with the same dashes."""
    painted = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: painted.append(self))
    chart = evil_chart()
    png.charts_sheet("heading", [chart], png.ALONE).save(io.BytesIO())
    (figure,) = painted
    drawn = {text.get_text() for text in figure.texts}
    page = ElementTree.fromstring(chart_html(chart))
    assert {text.text for text in page.iter("text")} <= drawn
    assert {span.text for span in page.findall("p/span")} <= drawn
    lines = [c for c in figure.findobj() if type(c).__name__ == "LineCollection"]
    dashes = [c.get_linestyle()[0][1] for c in lines]
    for name in ("dashed", "dotted"):
        wanted = [float(n) for n in DASHES[name].split()]
        assert any(
            dash is not None and np.allclose(np.multiply(dash, png.UNITS / 72), wanted)
            for dash in dashes
        )


def test_the_picture_has_the_colours_of_the_page():
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    names = COLOURS | dict(zip("abcdefgh", HUES, strict=True))
    for name, colour in names.items():
        assert re.search(rf"--{name}: (#\w+);", style)[1] == colour


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 3)])
def test_an_image_on_a_page_is_itself(shape):
    image = np.arange(np.prod(shape)).reshape(shape) * 9.0
    kind, _, content = data_uri(image).partition(",")
    assert kind == "data:image/png;base64"
    pixels = np.round(255 * imread(io.BytesIO(base64.b64decode(content)), "png"))
    np.testing.assert_array_equal(pixels, image)

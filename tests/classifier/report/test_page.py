"""Tables and charts of the pages as HTML, and their templates, compiled once."""

import math
import sys
from xml.etree import ElementTree

import pytest

from classifier.report.charts import Axis, Chart, Dot, Zone
from classifier.report.pages import page
from classifier.report.pages.chart_html import chart_html
from classifier.report.pages.page import cell, html, numbers


def test_figures_are_written_as_cells_are():
    rows = [(1, 12345678, 0.1, None), (2, 0, math.inf, -1e-9), (3, 7, math.nan, 2 / 3)]
    assert numbers(rows) == html([[cell(value, "{:.5g}") for value in row] for row in rows])


def test_a_chart_shows_its_parts_where_they_stand_and_no_text_of_it_is_code():
    evil = '<b a="1">&\''
    chart = Chart(evil, "reg", evil, Axis(0.0, 10.0), Axis(1.0, 100.0, log=True))
    chart.add_line(evil, "val", [0, 10], [1, 100])
    chart.marks = [(chart.at_x(5), evil)]
    chart.zones = [Zone(50.0, 7.0, evil)]
    chart.dots = [Dot(60.04, 70.06, 3.0, "best", evil, "a b/<x>.html"), Dot(1, 2, 3, "dot", "t")]
    figure = ElementTree.fromstring(chart_html(chart))
    svg = figure.find("svg")
    assert svg.get("viewBox") == "0 0 420 260"
    assert svg.get("aria-label") == f"{evil}: {evil} by reg"
    assert figure.find("figcaption").text == evil
    assert svg.find("polyline").attrib == {"class": "val", "points": "48.0,224.0 412.0,10.0"}
    mark = svg.find("line[@class='mark']")
    assert mark.attrib == {"class": "mark", "x1": "230.0", "x2": "230.0", "y1": "10", "y2": "224"}
    assert svg.find("rect/title").text == evil
    linked = svg.find("a")
    assert linked.attrib == {"href": "a%20b/%3Cx%3E.html", "aria-label": evil}
    place = {"class": "best", "cx": "60.0", "cy": "70.1", "r": "3.0"}
    assert linked.find("circle").attrib == place
    assert svg.find("circle/title").text == "t"
    ticks = [text.text for text in svg.findall("text")]
    assert ticks == [*(f"{y:g}" for y in (1, 10, 100)), *map(str, range(0, 11, 2)), "reg"]
    keys = [(span.get("class"), span.text) for span in figure.findall("p/span")]
    assert keys == [(None, evil), ("key val", evil), ("key mark", evil)]


@pytest.fixture
def templates(tmp_path, monkeypatch):
    """A folder of one template, which a process that is new there reads."""
    for file in page.TEMPLATES.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "own.html").write_text("{{ 1 + 1 }}", encoding="utf-8")
    monkeypatch.setattr(page, "TEMPLATES", tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    compiled = []
    compile_ = page.Environment.compile
    monkeypatch.setattr(
        page.Environment,
        "compile",
        lambda *given, **named: compiled.append(given[2]) or compile_(*given, **named),
    )

    def rendered():
        page._environment.cache_clear()
        compiled.clear()
        return page.render("own.html"), [*compiled]

    yield tmp_path, rendered
    page._environment.cache_clear()


def test_a_template_is_compiled_once_and_again_where_it_has_changed(templates):
    folder, rendered = templates
    assert rendered() == ("2", ["own.html"])
    assert rendered() == ("2", [])
    (folder / "own.html").write_text("{{ 2 + 1 }}", encoding="utf-8")
    assert rendered() == ("3", ["own.html"])
    (kept,) = folder.glob("__pycache__/own.*")
    kept.write_bytes(kept.read_bytes()[:-20])
    assert rendered() == ("3", ["own.html"])


def test_where_nothing_may_be_written_a_template_is_compiled_at_every_start(templates, monkeypatch):
    folder, rendered = templates
    (folder / "__pycache__").write_text("in the way", encoding="utf-8")
    assert [rendered() for _ in range(2)] == 2 * [("2", ["own.html"])]
    (folder / "__pycache__").unlink()
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert [rendered() for _ in range(2)] == 2 * [("2", ["own.html"])]
    assert not (folder / "__pycache__").exists()

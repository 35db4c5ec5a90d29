"""Tables of the pages as HTML."""

import math

from classifier.report.pages.page import cell, html, numbers


def test_figures_are_written_as_cells_are():
    rows = [(1, 12345678, 0.1, None), (2, 0, math.inf, -1e-9), (3, 7, math.nan, 2 / 3)]
    assert numbers(rows) == html([[cell(value, "{:.5g}") for value in row] for row in rows])

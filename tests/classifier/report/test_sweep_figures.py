"""What the picture of a sweep and its page share: scales, colours, places."""

import itertools

import numpy as np
import pytest

from classifier.report.chart import Dot, Line
from classifier.report.png import PANEL, drawing_of
from classifier.report.sweep_figures import (
    few,
    heat_map,
    key_axis,
    key_chart,
    path_charts,
    path_of,
    sweep_panels,
)


def job(name="0", lr=0.1, loss=1.0, status="completed", **more):
    figures = {"val_loss": loss, "val_accuracy": None if loss is None else 1 - loss / 10}
    return {"job": name, "lr": lr, "status": status} | figures | more


def of_kind(chart, kind, *names):
    return [m for m in chart.marks if isinstance(m, kind) and (not names or m.kind in names)]


@pytest.mark.parametrize(
    ("values", "is_log"),
    [
        *((of, False) for of in ((0.1, 0.5), (0, 0.5, 0.9), (-1, 1, 100), (0,), ())),
        *((of, True) for of in ((0.1, 1), (0, 0.1, 1))),
    ],
)
def test_a_key_has_the_scale_it_was_swept_on(values, is_log):
    axis = key_axis([{"lr": value} for value in values], "lr")
    assert (axis.log, axis.zero > 0, axis.values) == (is_log, is_log and 0 in values, ())


def test_zero_stands_a_decade_below_the_smallest_and_seeds_and_names_are_categories():
    axis = key_axis([{"reg": reg} for reg in (0, 0.001, 0.1)], "reg")
    places = [axis.place(axis.number(reg)) for reg in (0, 0.001, 0.01, 0.1)]
    assert np.diff(places) == pytest.approx([places[1] - places[0]] * 3)
    assert [text for _, text in axis.ticks()] == ["0", "0.001", "0.1"]
    rows = [{"seed": 1, "lr": 0.1, "nesterov": True, "optimizer": "sgd"}]
    assert [bool(key_axis(rows, key).values) for key in rows[0]] == [True, False, True, True]


def test_error_bars_are_of_repetitions_and_folds_alone_before_faint_jobs():
    jobs = [job(str(k), 1, loss) for k, loss in enumerate([1.0, 2.0, 6.0])]
    mean = jobs[1] | {"val_loss": 3.0, "val_loss_error": 0.5, "repetitions": 3, "jobs": list("012")}
    rows = [mean, job("9", 0, 1.0, val_loss_error=0.5), job("3", 2, 99.0, "failed")]
    chart = key_chart(rows, "lr", "val_loss", jobs, "1")
    faint, (bar,) = of_kind(chart, Dot, "faint"), of_kind(chart, Line, "error")
    assert [(dot.x, dot.y) for dot in faint] == [(1, 1.0), (1, 2.0), (1, 6.0)]
    assert bar.points == [(1, 2.5), (1, 3.5)]
    assert chart.marks.index(faint[-1]) < chart.marks.index(bar)
    assert chart.y.low < 1
    assert 6 < chart.y.high < 7
    keys = {"val": "best", "faint": "a job", "dot": "mean, standard error", "lost": "failed"}
    assert {kind: text for kind, _, text in chart.legend()} == keys
    folds = job("2", 2, 1.0, cv_loss=1.0, cv_loss_error=0.25)
    (bar,) = of_kind(key_chart([folds], "lr", "cv_loss", [], "0"), Line, "error")
    assert [y for _, y in bar.points] == [0.75, 1.25]


def test_the_line_goes_through_the_best_of_each_value():
    rows = [job("0", 1, 2.0), job("1", 1, 1.0), job("2", 0.1, 3.0), job("3", 5, 0.1, "diverged")]
    (line,) = of_kind(key_chart(rows, "lr", "val_loss", [], ""), Line)
    assert line.points == [(0.1, 3.0), (1, 1.0)]
    (line,) = of_kind(key_chart(rows, "lr", "val_accuracy", [], ""), Line)
    assert line.points == [(0.1, 0.7), (1, 0.9)]
    many = [job(str(k), k, 1.0) for k in range(61)]  # as of a search
    assert not of_kind(key_chart(many, "lr", "val_loss", [], ""), Line)
    named = [job(str(k), name, 1.0) for k, name in enumerate("ab")]
    assert not of_kind(key_chart(named, "lr", "val_loss", [], ""), Line)


@pytest.mark.parametrize("objective", ["val_loss", "val_accuracy"])
def test_what_has_no_figure_stands_at_the_worse_edge(objective):
    statuses = ("failed", "diverged", "skipped")
    rows = [job(status, k, None, status) for k, status in enumerate(statuses)]
    chart = key_chart([*rows, job()], "lr", objective, rows, "0")
    worst = chart.y.low if objective == "val_accuracy" else chart.y.high
    assert [dot.y for dot in of_kind(chart, Dot, "lost", "skipped")] == [worst] * 3
    texts = {kind: text for kind, _, text in chart.legend()}
    assert (texts["lost"], texts["skipped"]) == ("diverged or failed", "skipped")
    chart = key_chart([job()], "lr", objective, [], "0")
    assert not {"lost", "skipped"} & {kind for kind, *_ in chart.legend()}


@pytest.mark.parametrize("strongest", [None, 1e-2, 1e-1])
def test_the_best_penalty_is_dashed_and_the_strongest_near_it_is_dotted(strongest):
    names = ("loss", "train_loss", "train_accuracy", "loss_error")
    accuracy = {"accuracy": 0.25, "accuracy_error": 0.9}
    path = [
        dict.fromkeys(names, 0.5) | accuracy | {"reg": 10.0**-k, "weight_norm": 10.0**k}
        for k in range(5)
    ]
    best = {"reg": 1e-2, "over": "5 folds"}
    charts = path_charts(path, best, strongest and {"reg": strongest})
    expected = [("best: 0.01", "dashed", 1e-2)]
    if strongest == 1e-1:
        expected.append(("strongest within one standard error: 0.1", "dotted", 1e-1))
    for chart in charts:
        lines = of_kind(chart, Line, "reference")
        assert [(line.label, line.dash, line.points[0][0]) for line in lines] == expected
    assert [chart.y.log for chart in charts] == [False, False, True]
    bands = [of_kind(chart, Line, "band") for chart in charts]
    assert bands[0][0].label == "one standard error over 5 folds"
    ends = [{y for _, y in band[0].points} for band in bands[:2]]
    assert [sorted(of) for of in ends] == [
        [0.0, 1.0],
        [pytest.approx(-65), 100],
    ]  # no accuracy is above 100 %
    assert (bands[2], charts[1].y.high) == ([], 102)
    assert [{y for _, y in of_kind(c, Line, "val")[0].points} for c in charts[:2]] == [{0.5}, {25}]
    assert [len(of_kind(chart, Line, "train")) for chart in charts] == [1, 1, 0]
    assert path_charts([], {"reg": 1}, None) == path_charts(path, None, None) == path_of({}) == []
    unknown = dict.fromkeys(path[0]) | {"reg": 1e-9}
    found = {"best": 1e-2, "one_standard_error": strongest or 1e-2, "over": "5 folds"}
    again = path_of({"reg_path": found | {"penalties": [*path, unknown]}})
    assert again == path_charts(path[::-1], best, strongest and {"reg": strongest})


@pytest.mark.parametrize("objective", ["val_loss", "val_accuracy"])
def test_the_best_is_ringed_in_the_darkest_of_places(objective):
    values = [(1, 4, 0.5), (2, 4, 0.1), (2, 8, 0.4), (1, 8, 0.3)]
    rows = [job(str(k), lr, loss, reg=reg) for k, (lr, reg, loss) in enumerate(values)]
    rows.append(job("4", 3, 9.0, "failed", reg=8))
    last = of_kind(key_chart(rows, "lr", objective, [], "1"), Dot)[-1]
    assert (last.kind, last.x, last.y) == ("best", 2, rows[1][objective])  # in front
    rows = [row | {"link": row["job"]} for row in rows]
    grid = heat_map(rows, ("lr", "reg"), objective, "1")
    assert (grid.columns, [name for name, _ in grid.lines]) == (["1", "2", "3"], ["4", "8"])
    cells = [[cell.text for cell in cells] for _, cells in grid.lines]
    four, eight = [[rows[k][objective] for k in pair] for pair in ((0, 1), (3, 2))]
    assert cells == [[*(f"{value:.3g}" for value in of), ""] for of in (four, eight)]
    best = grid.lines[0][1][1]
    assert (best.kind, best.link, best.share) == ("best", "1", pytest.approx(1))
    assert grid.lines[0][1][0].share == pytest.approx(0.05)
    assert grid.scale[0][1] == f"{min(four + eight):.3g}"
    assert sorted(share for share, _ in grid.scale)[:: len(grid.scale) - 1] == [0.05, 1]


def test_of_many_rows_the_best_and_evenly_some_of_all_others_are_drawn():
    rows = [job(str(k), loss=float(k * 7919 % 1000)) for k in range(1000)]
    rows[9] |= {"status": "failed"}
    kept = few(rows, "val_loss", 100)
    losses = [row["val_loss"] for row in kept if row["status"] == "completed"]
    assert np.diff(sorted(losses)) == pytest.approx([10] * 99, abs=1)
    assert min(losses) == 0
    assert kept == [row for row in rows if row in kept]


def test_what_stands_in_a_picture_has_room(check_room):
    """No text leaves the picture or touches another one, in the font that it is written in."""
    values = itertools.product(["adam", "a very long optimizer's name"], ["std", "none"], [0.1, 2])
    rows = [
        job(str(k), lr, 0.1 + k, optimizer=o, preprocessing=p)
        for k, (o, p, lr) in enumerate(values)
    ]
    keys = ["optimizer", "preprocessing", "lr"]
    summary = {"jobs": rows, "settings": rows, "keys": keys, "swept": keys, "best": rows[0]}
    heading, panels = sweep_panels(summary | {"objective": "val_loss"})
    assert heading == "8 of 8 jobs completed; the best by val_loss is ringed"
    assert len(panels) == 3 + 3
    for panel in panels:
        check_room(drawing_of(panel, PANEL))

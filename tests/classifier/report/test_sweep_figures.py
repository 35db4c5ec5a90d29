"""What the picture of a sweep and its page share: scales, colours, places."""

import io
import itertools
import statistics

import pytest
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from classifier.report.png import charts_sheet
from classifier.report.sweep_figures import (
    best_at,
    error_of,
    heat_map,
    is_log,
    key_axis,
    key_chart,
    path_charts,
    places,
    shade_of,
    sweep_panels,
)


def row(loss, status="completed", **more):
    return {"status": status, "val_loss": loss} | more


@pytest.mark.parametrize(
    ("values", "is_log", "has_zero"),
    [
        ([0.1, 0.5], False, False),
        ([0.1, 1], True, False),
        ([0, 0.1, 1], True, True),
        ([0, 0.5, 0.9], False, False),
        ([-1, 1, 100], False, False),
        ([0], False, False),
        ([], False, False),
    ],
)
def test_a_key_has_the_scale_it_was_swept_on(values, is_log, has_zero):
    axis = key_axis([{"lr": value} for value in values], "lr")
    assert (axis.axis.log, axis.zero > 0, axis.axis.category) == (is_log, has_zero, False)


def test_seeds_and_names_are_categories():
    rows = [{"seed": 1, "lr": 0.1, "nesterov": True, "optimizer": "sgd"}]
    assert [key_axis(rows, key).axis.category for key in rows[0]] == [True, False, True, True]


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
    rows = [one | {"job": str(k), "jobs": [], "lr": k} for k, one in enumerate((single, repeated))]
    chart = key_chart([*rows, row(9.0, "failed", lr=2, job="2")], "lr", "val_loss", [], "0")
    assert chart.bars == [(1, 0.5, 1.5)]
    assert chart.y.low < 0.5
    assert 1.5 < chart.y.high < 2


def test_the_line_goes_through_the_best_of_each_value():
    rows = [row(2.0, lr=1), row(1.0, lr=1), row(3.0, lr=0.1), row(0.1, "diverged", lr=5)]
    assert best_at(rows, "lr", "val_loss") == [rows[2], rows[1]]
    assert best_at([row(1.0, lr=k) for k in range(61)], "lr", "val_loss") == []


def test_the_rows_of_a_category_stand_beside_each_other_around_it():
    rows = [row(1, key=key) for key in "abab" + "a"]
    numbers = places(rows, "key", key_axis(rows, "key"))
    assert numbers == pytest.approx([-0.2, 0.85, 0.0, 1.15, 0.2])


def test_the_best_has_the_whole_colour():
    shade = shade_of([0.1, 1.0, 10.0], "val_loss")
    assert [shade(x) for x in (0.1, 1.0, 10.0)] == pytest.approx([1.0, 0.525, 0.05])
    shade = shade_of([0.5, 0.75, 1.0], "val_accuracy")
    assert [shade(x) for x in (0.5, 0.75, 1.0)] == pytest.approx([0.05, 0.525, 1.0])


def test_zero_stands_a_decade_below_the_smallest_on_a_logarithmic_axis():
    axis = key_axis([{"reg": reg} for reg in (0, 0.001, 0.1)], "reg")
    places = [axis.axis.place(axis.number(reg)) for reg in (0, 0.001, 0.01, 0.1)]
    gaps = [b - a for a, b in itertools.pairwise(places)]
    assert gaps == pytest.approx([gaps[0]] * 3)
    assert [text for _, text in axis.axis.ticks()] == ["0", "0.001", "0.1"]


@pytest.mark.parametrize(
    ("statuses", "keys"),
    [
        (["completed", "diverged"], [("lost", "diverged")]),
        (["failed", "diverged"], [("lost", "diverged or failed")]),
        (["skipped", "skipped"], [("skipped", "skipped")]),
        (["skipped", "interrupted"], [("lost", "interrupted"), ("skipped", "skipped")]),
    ],
)
@pytest.mark.parametrize("objective", ["val_loss", "val_accuracy"])
def test_what_has_no_figure_stands_at_the_worse_edge_under_its_own_name(statuses, keys, objective):
    rows = [
        {"job": str(k), "status": status, "lr": k, objective: 0.5 if k == 0 else None}
        for k, status in enumerate(["completed", *statuses])
    ]
    chart = key_chart(rows, "lr", objective, rows, "0")
    lost = [dot for dot in chart.dots if dot.kind in ("lost", "skipped")]
    worst = chart.y.low if objective == "val_accuracy" else chart.y.high
    without = [one for one in rows[1:] if one["status"] != "completed" or one[objective] is None]
    assert {dot.y for dot in lost} == {worst}
    assert len(lost) == len(without)
    assert [key for key in chart.keys if key[0] in ("lost", "skipped")] == keys


@pytest.mark.parametrize("strongest", [None, 1e-2, 1e-1])
def test_the_best_penalty_is_dashed_and_the_strongest_near_it_is_dotted(strongest):
    names = ("loss", "accuracy", "train_loss", "train_accuracy", "loss_error", "accuracy_error")
    path = [
        dict.fromkeys(names, 0.5) | {"reg": 10.0**-k, "weight_norm": 10.0**k, "job": str(k)}
        for k in range(5)
    ]
    near = strongest and {"reg": strongest}
    charts = path_charts(path, {"reg": 1e-2}, near)
    expected = [(1e-2, "best: 0.01", "dashed")]
    if strongest == 1e-1:
        expected.append((1e-1, "strongest within one standard error: 0.1", "dotted"))
    assert [chart.references for chart in charts] == [expected] * 3
    assert [chart.y.log for chart in charts] == [False, False, True]
    ((label, area),) = charts[0].bands
    assert label == "one standard error"
    assert {y for _, y in area} == {0.0, 1.0}
    assert charts[2].bands == []


def job(name, lr, reg, loss, status="completed"):
    figures = {"status": status, "val_loss": loss, "val_accuracy": 1 - loss}
    return {"job": name, "lr": lr, "reg": reg, "resolved_lr": lr} | figures


@pytest.mark.parametrize("objective", ["val_loss", "val_accuracy"])
def test_the_best_is_ringed_in_the_darkest_of_places(objective):
    values = [(1, 4, 0.5), (2, 4, 0.1), (2, 8, 0.4), (1, 8, 0.3)]
    rows = [job(str(k), *of) for k, of in enumerate(values)]
    rows.append(job("4", 3, 8, 9, "failed"))
    chart = key_chart(rows, "lr", objective, [], "1")
    assert chart.dots[-1].kind == "best"  # in front
    assert (chart.dots[-1].x, chart.dots[-1].y) == (2, rows[1][objective])
    rows = [row | {"link": row["job"]} for row in rows]
    grid = heat_map(rows, ("lr", "reg"), objective, "1")
    assert (grid.columns, [name for name, _ in grid.lines]) == (["1", "2", "3"], ["4", "8"])
    cells = [[cell.text for cell in cells] for _, cells in grid.lines]
    four, eight = [[rows[k][objective] for k in pair] for pair in ((0, 1), (3, 2))]
    assert cells[0] == [*(f"{value:.3g}" for value in four), ""]
    assert cells[1] == [*(f"{value:.3g}" for value in eight), ""]
    best = grid.lines[0][1][1]
    assert (best.kind, best.link) == ("best", "1")
    assert best.share == pytest.approx(1)
    assert grid.lines[0][1][0].share == pytest.approx(0.05)
    assert grid.scale[0][1] == f"{min(four + eight):.3g}"
    assert sorted(share for share, _ in grid.scale)[:: len(grid.scale) - 1] == [0.05, 1]


def test_the_picture_has_error_bars_of_repetitions_before_their_jobs():
    losses = [1.0, 2.0, 6.0]
    jobs = [job(str(k), 0.1, 0, loss) for k, loss in enumerate(losses)]
    error = statistics.stdev(losses) / 3**0.5
    mean = jobs[1] | {"val_loss": 3.0, "val_loss_error": error, "repetitions": 3}
    chart = key_chart([mean | {"jobs": list("012")}], "lr", "val_loss", jobs, "1")
    assert [(dot.x, dot.y) for dot in chart.dots if dot.kind == "faint"] == [
        (0.1, loss) for loss in losses
    ]
    assert chart.bars == [(0.1, 3 - error, 3 + error)]
    assert chart.keys == [("faint", "a job"), ("dot", "mean, standard error")]


def test_what_stands_in_a_picture_has_room(monkeypatch):
    """No text leaves the picture or touches another one, as matplotlib draws them."""
    painted = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: painted.append(self))
    values = itertools.product(["adam", "a very long optimizer's name"], ["std", "none"], [0.1, 2])
    rows = [
        {"optimizer": o, "preprocessing": p, "lr": lr, "status": "completed", "val_loss": 0.1 + k}
        | {"job": str(k)}
        for k, (o, p, lr) in enumerate(values)
    ]
    keys = ["optimizer", "preprocessing", "lr"]
    summary = {"jobs": rows, "settings": rows, "keys": keys, "swept": keys, "best": rows[0]}
    heading, panels = sweep_panels(summary | {"objective": "val_loss"})
    assert len(panels) == 3 + 3
    charts_sheet(heading, panels).save(io.BytesIO())
    (figure,) = painted
    width, height = figure.get_size_inches() * figure.dpi
    boxes = [text.get_window_extent() for text in figure.texts if text.get_text()]
    for box in boxes:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height
    for one, other in itertools.combinations(boxes, 2):
        overlap = Bbox.intersection(one, other)
        assert overlap is None or min(overlap.width, overlap.height) < 2

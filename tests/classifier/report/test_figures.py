"""The figures of a run, its texts and its plots, against scikit-learn, scipy and numpy."""

import dataclasses
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageFont
from scipy.special import softmax
from scipy.stats import binomtest
from sklearn import metrics

from classifier.evaluation import evaluate, strongest_features
from classifier.report import figures
from classifier.report.chart import HUES, Box, Dot, Line, Picture, Text, one_line, rgb, shades
from classifier.report.pages.draw import draw
from classifier.report.png import Plot, drawing_of
from classifier.report.text import text_of
from data.files.store import write_json

ERROR = "expected_calibration_error"
NAMES = ["$^$", "${$", "a$\\foo$", "$\\mathrm{K}^{0}_{L}$", "_b", "日本語", "", "two\nlines"]


def of_kind(chart, kind):
    return [mark for mark in chart.marks if isinstance(mark, kind)]


def test_curves_show_the_history_the_kept_epoch_and_the_line_of_guessing(run_of, history_of):
    report = run_of(n_classes=3).report
    history = history_of((2.0, 1.0, 0.5), (1.5, 0.9, None))
    chart = figures.curve(history, report, "loss")
    lines = {line.label: [*zip(*line.points, strict=True)] for line in of_kind(chart, Line)}
    assert lines["training, mean of the epoch"] == [(1, 2, 3), (2, 1, 0.5)]
    assert lines["validation, after the epoch"] == [(1, 2), (1.5, 0.9)]
    assert lines["guessing, 1.10"] == [(0.5, 3.5), pytest.approx([np.log(3)] * 2)]
    assert lines["kept: epoch 2"][0] == (2, 2)
    stripes = of_kind(chart, Box)
    texts = ["epoch 2: training 1, validation 0.9", "epoch 3: training 0.5"]
    assert ([stripe.text for stripe in stripes[1:]], stripes[1].x) == (texts, 1.5)
    dots = [(1, 2), (2, 1), (3, 0.5), (1, 1.5), (2, 0.9)]  # a short run's lines have dots
    assert [(dot.x, dot.y) for dot in of_kind(chart, Dot)] == dots
    chart = figures.curve(history, report, "accuracy")
    assert [line.points[1][1] for line in of_kind(chart, Line)[1:]] == pytest.approx([55, 50])
    assert "%" in chart.y.label


def test_of_many_epochs_some_are_drawn_and_the_last_one():
    chart = figures.over_epochs(
        "loss", [figures.Series("", "train", "", {e: 1 / e for e in range(1, 2502)})], 1, 2501
    )
    (line,) = of_kind(chart, Line)
    assert 800 < len(line.points) <= 1000
    assert line.points[-1] == (2501, 1 / 2501)
    assert 300 < len(of_kind(chart, Box)) <= 400


@pytest.mark.parametrize(
    ("last", "is_log"), [(0.21, False), (0.19, True), (1e9, True), (np.inf, False)]
)
def test_losses_over_more_than_a_tenfold_are_on_a_logarithmic_axis(
    last, is_log, run_of, history_of
):
    chart = figures.curve(history_of((2.0, 1.0, last)), run_of(n_classes=3).report, "loss")
    finite = [loss for loss in (2.0, 1.0, last) if loss < np.inf]
    assert chart.y.log == is_log
    assert all(0 < chart.y.place(loss) < 1 for loss in (*finite, np.log(3)))
    (line,) = [line for line in of_kind(chart, Line) if line.kind == "train"]
    assert [y for _, y in line.points] == finite


def test_a_cell_has_the_colour_and_the_count_of_its_true_class_taken_for_its_column(run_of):
    run = run_of(0.3, n=(9, 9, 400))
    X, y = run.splits["test"]
    predicted = run.model.predict_proba(X).argmax(axis=1)
    shares = metrics.confusion_matrix(y, predicted, normalize="true")  # rows are the true classes
    assert np.abs(shares - shares.T).max() > 0.05
    grid = figures.confusions(run.report)
    assert (grid.y_label, grid.x_label) == ("true class", "predicted class")
    found = np.array([[cell.share for cell in cells] for _, cells in grid.lines])
    np.testing.assert_allclose(found, np.sqrt(shares))
    counts = metrics.confusion_matrix(y, predicted)
    n = counts[1].sum()
    assert grid.lines[1][1][2].hover == (
        f"class 1 taken for class 2: {counts[1, 2]} of {n}, {counts[1, 2] / n:.1%}"
    )
    drawing = drawing_of(grid)
    image, bar = of_kind(drawing, Picture)
    np.testing.assert_allclose(image.image, shades(np.sqrt(shares)))
    np.testing.assert_allclose(bar.image[[0, -1], 0], shades(np.array([1, 0])))
    ticks = {mark.text: mark.y - bar.y for mark in of_kind(drawing, Text)}
    assert (ticks["1.0"], ticks["0.0"]) == pytest.approx((4, bar.height + 4))
    shown = np.zeros_like(counts)
    for text in (mark for mark in drawing.marks if isinstance(mark, Text) and mark.letter == 10):
        column = int((text.x - image.x) / (image.width / 4))
        row = int((text.y - 4 - image.y) / (image.height / 4))
        assert text.kind == ("card" if np.sqrt(shares[row, column]) > 0.75 else "ink")
        shown[row, column] = int(text.text)
    np.testing.assert_array_equal(shown, counts)


@pytest.mark.parametrize("n_classes", [20, 21, 110])
def test_of_many_classes_the_counts_and_of_more_some_classes_are_left_out(n_classes, run_of):
    report = run_of(0.1, n_classes=n_classes, n=(9, 9, 500)).report
    test, grid = report["metrics"]["test"], figures.confusions(report)
    assert any(cell.text for _, cells in grid.lines for cell in cells) == (n_classes <= 20)
    assert len(grid.columns) == len(grid.lines) == min(n_classes, 100)
    assert bool(figures.part_of_classes(report)) == (n_classes > 100)
    # Shares are of all examples of a class.
    recall = {c["class"]: c["recall"] for c in test["per_class"]}
    diagonal = [(cells[k].share or 0) ** 2 for k, (_, cells) in enumerate(grid.lines)]
    assert diagonal == pytest.approx([recall[c] for c in test["confusion_classes"]])


def test_a_reliability_diagram_has_a_point_a_bin_before_and_after(run_of):
    run, (X, y) = run_of(), run_of().splits["test"]
    warm = dataclasses.replace(run.model, temperature=4.0)
    after = {"test": evaluate(warm, X, y, 3), "val": None}
    calibrated = {"temperature": 4.0, "before": run.report["metrics"]}
    chart = figures.reliability(run.report | {"calibration": calibrated, "metrics": after})
    for model, kind in ((run.model, "before"), (warm, "dot")):
        dots = [dot for dot in of_kind(chart, Dot) if dot.kind == kind]
        scores = (X - 0.25) / 2 @ model.W.astype(float) + model.b
        p = softmax(scores / model.temperature, axis=1)
        sure, right = p.max(axis=1), p.argmax(axis=1) == y
        bins = np.digitize(sure, np.linspace(0, 1, 16), right=True)
        expected = [
            (100 * sure[bins == k].mean(), 100 * right[bins == k].mean()) for k in np.unique(bins)
        ]
        np.testing.assert_allclose([(dot.x, dot.y) for dot in dots], expected, rtol=1e-5)
        areas = np.square([dot.radius for dot in dots]) - 9
        np.testing.assert_allclose(areas, 280 / 300 * np.unique(bins, return_counts=True)[1])
    assert chart.keys == [
        ("before", f"before calibration: error {run.report['metrics']['test'][ERROR]:.4f}"),
        ("dot", f"after calibration: error {after['test'][ERROR]:.4f}"),
    ]


@pytest.mark.parametrize(
    ("image_shape", "n_classes"), [((4, 4), 3), ((4, 4, 3), 110), ((4, 5, 1), 110), ((1, 16), 3)]
)
def test_templates_share_one_symmetric_scale(image_shape, n_classes, run_of):
    model = run_of(image_shape=image_shape, n_classes=n_classes).model
    title, (pictures,) = figures.templates(model)
    shown = min(n_classes, 100)
    assert [name for name, _ in pictures] == [f"class {c}" for c in range(shown)]
    assert (f"the first 100 of {n_classes} classes" in title) == (n_classes > 100)
    limit, is_coloured = np.abs(model.W[:, :100]).max(), image_shape[2:] == (3,)
    size = (model.W.T[:shown] / limit).reshape(shown, *image_shape)
    if is_coloured:
        expected = 255 * (0.5 + size / 2)
        assert f"grey is 0; bright (to {limit:.2g}) speaks for the class, dark against it" in title
    else:
        size = size.reshape(*size.shape[:3], 1)
        expected = 255 + abs(size) * (np.where(size > 0, figures.FOR, figures.AGAINST) - 255.0)
        assert f"white is 0; red (to {limit:.2g}) speaks for the class, blue against it" in title
    np.testing.assert_allclose([image for _, image in pictures], expected, atol=1e-3)
    images = [mark for mark in drawing_of(pictures).marks if isinstance(mark, Picture)]
    assert len(images) == shown
    nothing = dataclasses.replace(model, W=0 * model.W)
    assert "nothing was learned" in figures.templates(nothing)[0]


FEATURES = [
    *("age", "age is missing", "city = (other)", 'note: "refund"', "<b>&amp;", "$x^2$", "a_b", ""),
    *("city = אוסלו", "name = محمد", "日本 = 東京都千代田区" * 3, "MARITAL STATUS = NEVER MARRIED"),
    *("W" * 90, "🐈‍⬛ = 猫", "two\nlines\u202e"),
    *(f"column {d} = a value that is as long as {d} others" for d in range(39)),
]


@pytest.mark.parametrize(("n_classes", "n_features"), [(2, 4), (12, 54)])
def test_the_strongest_features_have_the_largest_weights_of_either_sign(
    n_classes, n_features, run_of, check_room
):
    run = run_of(n_classes=n_classes, image_shape=(n_features,))
    run.model.W[1] = 0  # says nothing of any class
    counts = np.random.default_rng(5).permutation(n_classes)
    strongest = strongest_features(run.model, FEATURES[:n_features], counts)
    assert [*strongest] == [f"class {c}" for c in range(n_classes) if counts[c] >= n_classes - 10]
    charts = figures.features(run.report | {"features": json.loads(json.dumps(strongest))})
    for chart, (name, sides) in zip(charts, strongest.items(), strict=True):
        own = sorted(zip(run.model.W[:, int(name.split()[1])], FEATURES, strict=False))
        ends = [(float(w), f) for w, f in own if w > 0][:-11:-1], [p for p in own if p[0] < 0][:10]
        told = [[(weight, feature) for feature, weight in sides[s]] for s in ("for", "against")]
        assert told == [*map(list, ends)]
        boxes, bars = of_kind(chart, Box), sorted(ends[0] + ends[1])  # the higher the more for it
        assert [box.y for box in boxes] == pytest.approx(np.arange(len(bars)) - 0.35)
        for box, (weight, feature), (_, beside) in zip(boxes, bars, chart.y.named, strict=True):
            assert (box.x, box.width) == (min(weight, 0), abs(weight))
            assert box.kind == ("for" if weight > 0 else "against")
            named, (begin, *end) = one_line(feature) or '""', beside.split("…")
            assert box.text == f"{named}: {weight:+.4g}"
            assert named.startswith(begin)
            assert named.endswith("".join(end))
            assert bool(end) == (len(named) > 27)
        assert name in chart.title
        assert name in chart.x.label
        assert (chart.x.low, chart.x.high) == (charts[0].x.low, charts[0].x.high)
        check_room(drawing_of(chart))


@pytest.mark.parametrize(
    ("shape", "dtype"), [((2, 3), np.uint8), ((2, 3, 1), np.float32), ((2, 3, 3), np.int16)]
)
def test_examples_share_one_scale_from_black_to_white(shape, dtype):
    X = (np.arange(2 * np.prod(shape)).reshape(2, *shape) * 5 + 3).astype(dtype)
    expected = (X.astype(float) - X.min()) / (X.max() - X.min()) * 255
    for picture, values in zip(figures.example_images(X), expected, strict=True):
        np.testing.assert_allclose(picture, values[..., 0] if shape[2:] == (1,) else values, atol=1)
    assert (figures.example_images(np.full((1, 2, 2), 7.0))[0] == 0).all()
    assert figures.example_images(X[:0]) == []


@pytest.mark.parametrize("n_classes", [2, 12])
def test_a_place_has_the_class_that_the_model_predicts_there(n_classes, run_of):
    model = run_of(image_shape=(2,), n_classes=n_classes).model
    X = np.random.default_rng(3).normal(size=(50, 2)) * [1.0, 100.0]
    is_val = np.arange(50) < 20
    chart = figures.regions(model, figures.Shown(X, np.full(50, n_classes - 1), is_val), 40)
    (picture,) = of_kind(chart, Picture)
    axes = ((chart.x, 40), (chart.y, 24))
    xs, ys = (np.linspace(axis.low, axis.high, 2 * n + 1)[1::2] for axis, n in axes)
    grid = np.stack(np.meshgrid(xs, ys[::-1]), axis=-1).reshape(-1, 2)
    winner = np.argmax(model.predict_proba(grid), axis=1).reshape(24, 40) % len(HUES)
    np.testing.assert_array_equal(picture.image, np.array([*map(rgb, HUES)])[winner])
    predicted = np.argmax(model.predict_proba(X), axis=1)
    kind = f"class-{(n_classes - 1) % len(HUES)}"
    for dot, x, guess, held in zip(of_kind(chart, Dot), X, predicted, is_val.tolist(), strict=True):
        assert (dot.x, dot.y, dot.kind) == (*x, kind + " held-out" * held)
        told = f"{'validation' if held else 'training'}, class {n_classes - 1}"
        assert dot.text == told + f", taken for class {guess}" * bool(guess != n_classes - 1)
    assert [text for _, text in chart.keys[2:]] == [*model.classes] * (n_classes <= len(HUES))
    assert (chart.x.label, chart.y.label) == ("feature 1", "feature 2")
    model = dataclasses.replace(model, encoding=SimpleNamespace(names=["age", "$ = <b>"]))
    chart = figures.regions(model, figures.Shown(X, np.full(50, 0), is_val), 40)
    assert (chart.x.label, chart.y.label) == ("age", "$ = <b>")


@pytest.mark.parametrize("kind", ["images", "two features", "named features"])
def test_every_plot_can_be_drawn_again_from_the_files(kind, leave, monkeypatch):
    """Whatever the names of the classes and of the data, which are drawn as they are."""
    written = []
    own = ImageFont.FreeTypeFont.getmask2
    monkeypatch.setattr(
        ImageFont.FreeTypeFont,
        "getmask2",
        lambda self, text, *a, **b: written.append(text) or own(self, text, *a, **b),
    )
    shape = (4, 4) if kind == "images" else (2,)
    run = leave(n_classes=8, names=NAMES, image_shape=shape)
    rng = np.random.default_rng(2)
    if kind == "two features":
        y = np.arange(80) % 8
        np.savez(run.folder / "examples.npz", X=rng.normal(size=(80, 2)), y=y, is_val=y == 0)
    if kind == "named features":
        strongest = strongest_features(run.model, ["$x_1$", "<b>"], np.ones(8))
        write_json(run.folder / "report.json", run.report | {"features": strongest})
    draw("run", run.folder)
    names = {"accuracy_curve", "confusion_matrix", "loss_curve", "reliability_diagram"}
    own = {"images": "weights", "two features": "decision_regions", "named features": "features"}
    names |= {own[kind]}
    assert {path.stem for path in run.folder.glob("*.png")} == names
    for path in run.folder.glob("*.png"):
        pixels = np.asarray(Image.open(path))
        assert min(pixels.shape[:2]) >= 200
        assert pixels.std() > 5
    # In the legend of the regions or over its template, and at both sides of the matrix.
    cut = ["$\\mathrm{…{0}_{L}$", '""', "two\N{REPLACEMENT CHARACTER}lines"]
    shown = [*NAMES[:3], *NAMES[4:6], *cut]
    times = dict.fromkeys(shown, 3)
    if kind == "named features":  # a chart names its class in a sentence
        times = dict.fromkeys(shown, 2) | {f"weight, for class {name}": 1 for name in shown}
        times |= dict.fromkeys(["$x_1$", "<b>"], 8)
    assert {text: written.count(text) for text in times} == times


def test_panels_stand_in_rows_of_three_below_the_heading():
    panels, file = [[("", np.full((1, 1, 3), 50.0 * k))] for k in range(1, 5)], io.BytesIO()
    Plot("heading", panels).save(file)
    pixels = np.asarray(Image.open(file))[..., 0]
    (y, x), *others = [np.median(np.argwhere(pixels == 50 * k), axis=0) for k in range(1, 5)]
    assert y == pytest.approx(141, abs=2)  # half an image below its name and the heading
    assert others[:2] == [pytest.approx((y, x + step), abs=1) for step in (495, 990)]
    assert others[2] == pytest.approx((y + 195, x), abs=1)


def test_a_picture_that_fails_costs_no_other(leave):
    folder = leave().folder
    (folder / "confusion_matrix.png").mkdir()
    with pytest.raises(FileExistsError, match="not a regular file"):
        draw("run", folder)
    assert len([path for path in folder.glob("*.png") if path.is_file()]) == 4


@pytest.mark.parametrize("reported", ["test", "val", "train"])
def test_all_speak_of_the_test_split_or_where_it_is_empty_of_the_next_best(reported, run_of):
    report = (run := run_of(0.3)).report
    for name in ("test", "val")[: ("test", "val", "train").index(reported)]:
        report["metrics"][name] = None
    split = report["metrics"][reported]
    text = text_of("report_text", json.loads(json.dumps(report)))
    X, y = run.splits[reported]
    right = np.sum(run.model.predict_proba(X).argmax(axis=1) == y)
    seen = "training" if reported == "train" else "new"
    sentence = f"{right} of {len(y)} {seen} images right ({100 * right / len(y):.1f} %)"
    assert text.startswith(f"{sentence}\n\nmine: ")
    f1, top, off = (f"{split[key]:.4f}" for key in ("macro_f1", "top_k_accuracy", ERROR))
    words = f"top-3 accuracy {top}, macro F1 {f1}, expected calibration error {off}"
    assert f"\n{reported}: {words}\n" in text
    for c in split["per_class"]:
        row = f"{c['precision']:10.4f}{c['recall']:10.4f}{c['f1']:10.4f}{c['support']:10}\n"
        assert f"\n{c['class']}  {row}" in text
    worst = split["confusions"][0]
    assert f"{worst['count']}  {worst['true']} taken for {worst['predicted']}" in text
    values = {"accuracy": f" {split['accuracy']:.2%}", "loss": f" {split['loss']:.4f}"}
    for figure, value in (values | {"reliability": ""}).items():
        assert (
            figures.heading(report, figure)
            == f"mine: {reported} {figure}{value}  (lr 0.25, reg 0.0001)"
        )
    chart = figures.reliability(report)
    assert f"of the {reported} examples" in figures.confusions(report).title.lower()
    assert chart.title == f"Reliability, {reported}"
    shown = {dot.text.split()[0] for dot in of_kind(chart, Dot)}
    assert shown == {str(n) for n in split["reliability"]["n"] if n}


@pytest.mark.parametrize(("right", "n"), [(0, 7), (348, 360)])
def test_an_accuracy_has_wilsons_interval_and_a_loss_its_standard_error(right, n):
    split = {"n": n, "loss": 0.5, "loss_error": 0.0123, "accuracy": right / n}
    old = {"n": n, "loss": 0.5, "accuracy": right / n}  # of an earlier version
    table = text_of("metrics_table", {"train": split, "val": old, "test": split})
    _, train, val, test = (line.split() for line in table.splitlines())
    between = binomtest(right, n).proportion_ci(0.95, "wilson")
    shown = f"{right / n:.4f} ({between.low:.3f} to {between.high:.3f})".split()
    assert test == ["test", str(n), "0.5000", "+-", "0.012", *shown]
    assert val == ["val", str(n), "0.5000", *shown]
    assert train == ["train", str(n), "0.5000", shown[0]]


def test_the_text_says_how_it_ended_how_near_its_optimum_and_what_calibration_changed(run_of):
    report = run_of().report
    text = text_of("report_text", report)
    assert "\ncompleted: all epochs done; best epoch 2 of 3\n" in text
    near = "(training loss + penalty), within 25.00 % of the lowest objective there is"
    assert near in text
    assert near not in text_of("report_text", report | {"certificate": None})
    ended = "diverged in epoch 2 with lr=9"
    text = text_of("report_text", report | {"status": "diverged", "ended": ended})
    assert f"\n{ended}; best" in text
    before, after = report["metrics"], run_of(2.0).report["metrics"]
    calibration = {"temperature": 4.0, "before": before | {"train": None}}
    text = text_of("report_text", report | {"calibration": calibration, "metrics": after})
    for name in ("val", "test"):
        loss, error = (
            f"{before[name][key]:.4f} -> {after[name][key]:.4f}" for key in ("loss", ERROR)
        )
        assert f"  {name:<6}loss {loss}, calibration error {error}\n" in text
    assert "  train " not in text

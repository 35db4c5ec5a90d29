import dataclasses
import json
import warnings

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.image import imread
from matplotlib.mathtext import MathTextParser
from scipy.special import softmax
from sklearn import metrics

from classifier.evaluation import evaluate
from classifier.fit import Epoch
from classifier.model import LinearModel
from classifier.report import png
from classifier.report.chart import Picture, Text, shades
from classifier.report.figures import (
    confusions,
    curve,
    heading,
    part_of_classes,
    reliability,
    templates,
)
from classifier.report.pages.draw import draw
from classifier.report.text import report_text
from classifier.runs.artifacts import read_history, write_history
from data.files.store import write_json
from data.preprocessing import AffineMap


def model_of(n_classes, image_shape=(4, 4), names=None):
    rng = np.random.default_rng(0)
    n_features = int(np.prod(image_shape))
    names = [f"class {c}" for c in range(n_classes)] if names is None else names
    return LinearModel(
        rng.standard_normal((n_features, n_classes)).astype(np.float32),
        np.zeros(n_classes, np.float32),
        np.array(names),
        AffineMap(np.zeros(n_features), np.ones(n_features)),
        image_shape,
        {},
    )


def report_of(model, n=300):
    rng = np.random.default_rng(1)
    X = rng.standard_normal((n, *model.image_shape))
    y = rng.integers(0, len(model.classes), n)
    figures = evaluate(model, X, y, 5)
    return {
        "status": "completed",
        "ended": "all epochs done",
        "metrics": {"train": figures, "val": figures, "test": figures},
        "objective": 1.0,
        "config": {"class_weight": None, "label_smoothing": 0.0},
        "certificate": {"objective": 1.0, "gradient_norm": 0.5, "excess": 0.2, "relative": 0.25},
        "lr": 0.25,
        "reg": 1e-4,
        "best_epoch": 2,
        "epochs": 3,
        "data": {
            "name": "mine",
            "n_features": 16,
            "n_classes": len(model.classes),
            "image_shape": list(model.image_shape),
        },
    }


def history_of(train=(2.0, 1.0, 0.5), val=(1.5, 0.9, 1.1)):
    return [
        Epoch(i + 1, 10 * (i + 1), 0.1, t, 0.5, v, None if v is None else 0.4, 0.01)
        for i, (t, v) in enumerate(zip(train, val, strict=True))
    ]


def lines_of(chart):
    return {line.label: [*zip(*line.points, strict=True)] for line in chart.lines}


def test_curves_show_the_history_with_the_kept_epoch_and_the_test_figure():
    report = report_of(model_of(3))
    chart = curve(history_of(), report, "loss")
    lines = lines_of(chart)
    assert lines["training, mean of the epoch"] == [(1, 2, 3), (2, 1, 0.5)]
    assert lines["validation, after the epoch"] == [(1, 2, 3), (1.5, 0.9, 1.1)]
    assert chart.references == [(2, "kept: epoch 2", "dashed")]
    assert lines["guessing, 1.10"][1] == pytest.approx([np.log(3)] * 2)
    assert f"test loss {report['metrics']['test']['loss']:.4f}" in heading(report, "loss")
    assert chart.x.label == "epoch"
    assert "nats" in chart.y.label
    assert chart.zones[1] == (1.5, 2.5, "epoch 2: training 1, validation 0.9")
    chart = curve(history_of(), report, "accuracy")
    assert chart.lines[0].points[0] == (1, 50)
    assert f"test accuracy {report['metrics']['test']['accuracy']:.2%}" in heading(
        report, "accuracy"
    )
    assert "%" in chart.y.label


@pytest.mark.parametrize(("lowest", "is_log"), [(0.21, False), (0.19, True), (1e-5, True)])
def test_losses_over_more_than_a_tenfold_are_on_a_logarithmic_axis(lowest, is_log):
    axis = curve(history_of((2.0, 1.0, lowest)), report_of(model_of(3)), "loss").y
    assert axis.log == is_log
    assert axis.low < lowest
    assert 2.0 < axis.high < 4
    assert axis.low < np.log(3) < axis.high
    assert not is_log or axis.low > 0


def test_curves_of_a_diverged_run_without_validation():
    history = history_of((2.0, 1e9, np.inf), (None, None, None))
    chart = curve(history, report_of(model_of(3)), "loss")
    assert chart.y.log
    assert not any("validation" in line.label for line in chart.lines)
    assert len(chart.lines[0].points) == 2


@pytest.mark.parametrize("n_classes", [2, 20, 21, 100, 130])
def test_the_confusion_matrix_is_annotated_up_to_20_classes(n_classes):
    report = report_of(model_of(n_classes), n=2000)
    grid = confusions(report)
    counts = np.array(report["metrics"]["test"]["confusion_matrix"])
    texts = [[cell.text for cell in cells] for _, cells in grid.lines]
    if n_classes <= 20:
        assert texts == [[str(n) if n else "" for n in row] for row in counts.tolist()]
    else:
        assert not any(map(any, texts))
    assert len(grid.columns) == len(grid.lines) == min(n_classes, 100)
    assert bool(part_of_classes(report)) == (n_classes > 100)


def test_a_cell_has_the_colour_and_the_count_of_its_true_class_taken_for_its_column():
    model = model_of(4)
    rng = np.random.default_rng(1)
    X, y = rng.standard_normal((300, 4, 4)), rng.integers(0, 4, 300)
    predicted = (X.reshape(300, 16) @ model.W).argmax(axis=1)
    shares = metrics.confusion_matrix(y, predicted, normalize="true")  # rows are the true classes
    assert np.abs(shares - shares.T).max() > 0.05
    grid = confusions(report_of(model))
    found = np.array([[cell.share for cell in cells] for _, cells in grid.lines])
    np.testing.assert_allclose(found, np.sqrt(shares))
    assert (grid.y_label, grid.x_label) == ("true class", "predicted class")
    drawing = png.grid_drawing(grid)
    image = next(mark for mark in drawing.marks if isinstance(mark, Picture))
    np.testing.assert_allclose(image.image, shades(np.sqrt(shares)))
    for text in (mark for mark in drawing.marks if isinstance(mark, Text) and mark.letter == 10):
        column = int((text.x - image.x) / (image.width / 4))
        row = int((text.y - 4 - image.y) / (image.height / 4))
        assert text.kind == ("card" if np.sqrt(shares[row, column]) > 0.75 else "ink")
        assert int(text.text) == np.sum((y == row) & (predicted == column))


def test_shares_are_of_all_examples_of_a_class_also_where_not_all_classes_are_shown():
    report = report_of(model_of(130), n=2000)
    test = report["metrics"]["test"]
    found = [cells[k].share or 0 for k, (_, cells) in enumerate(confusions(report).lines)]
    recall = {c["class"]: c["recall"] for c in test["per_class"]}
    np.testing.assert_allclose(
        np.square(found), [recall[c] for c in test["confusion_classes"]], atol=1e-12
    )


def test_a_reliability_diagram_has_a_point_a_bin_before_and_after():
    model = model_of(3)
    report = report_of(model)
    warm = report_of(dataclasses.replace(model, temperature=4.0))
    report["calibration"] = {"temperature": 4.0, "before": report["metrics"]}
    report["metrics"] = warm["metrics"]
    chart = reliability(report)
    rng = np.random.default_rng(1)
    X, y = rng.standard_normal((300, 16)), rng.integers(0, 3, 300)
    for temperature, kind in ((1.0, "before"), (4.0, "dot")):
        dots = [dot for dot in chart.dots if dot.kind == kind]
        p = softmax(X @ model.W.astype(float) / temperature, axis=1)
        sure, right = p.max(axis=1), p.argmax(axis=1) == y
        bins = np.digitize(sure, np.linspace(0, 1, 16), right=True)
        expected = [
            (100 * sure[bins == k].mean(), 100 * right[bins == k].mean()) for k in np.unique(bins)
        ]
        np.testing.assert_allclose([(dot.x, dot.y) for dot in dots], expected, rtol=1e-6)
        areas = np.square([dot.radius for dot in dots]) - 9
        np.testing.assert_allclose(areas, 280 / 300 * np.unique(bins, return_counts=True)[1])
    error = warm["metrics"]["test"]["expected_calibration_error"]
    assert ("dot", f"after calibration: error {error:.4f}") in chart.keys


def test_a_model_that_learned_nothing_says_so():
    model = model_of(3)
    nothing = LinearModel(0 * model.W, model.b, model.classes, model.features, (4, 4), {})
    assert "nothing was learned" in templates(nothing).heading


def test_long_names_that_differ_at_their_end_stay_apart():
    names = [f"a name that many classes share, {c}" for c in range(3)]
    drawing = png.grid_drawing(confusions(report_of(model_of(3, names=names))))
    drawn = [mark.text for mark in drawing.marks if isinstance(mark, Text) and "…" in mark.text]
    assert len(set(drawn)) == 3


@pytest.mark.parametrize("image_shape", [(4, 4), (4, 4, 3), (4, 5, 1), (1, 16), (16, 1)])
@pytest.mark.parametrize("n_classes", [3, 130])
def test_templates_share_one_symmetric_scale(image_shape, n_classes):
    model = model_of(n_classes, image_shape)
    pictures = templates(model)
    shown = min(n_classes, 100)
    assert [name for name, _ in pictures.named] == [f"class {c}" for c in range(shown)]
    limit = np.abs(model.W[:, :100]).max()
    for c, (_, image) in enumerate(pictures.named):
        size = model.W[:, c].reshape(image_shape) / limit
        if image_shape[2:] == (3,):
            np.testing.assert_allclose(image, 255 * (0.5 + size / 2), atol=1e-3)
            continue
        size = size.reshape(image_shape[:2])
        red, green, blue = np.moveaxis(image, -1, 0)
        assert (red >= blue).all(where=size > 0)  # red speaks for the class
        assert (red <= blue).all(where=size < 0)
        np.testing.assert_allclose(green, 255 - np.abs(size) * np.where(size > 0, 231, 153))
    if image_shape[2:] == (3,):
        assert f"(to {limit:.2g})" in pictures.heading
    else:
        _, ticks, label = pictures.scale
        assert (ticks[0], ticks[-1]) == ((0, f"{-limit:.2g}"), (1, f"{limit:.2g}"))
        assert label == "weight"
    drawn = [m for _, _, d in png.pictures_sheet(pictures).drawings for m in d.marks]
    assert len([m for m in drawn if isinstance(m, Picture)]) == shown + (pictures.scale is not None)


def run_in(folder):
    folder.mkdir(exist_ok=True)
    model = model_of(3, names=["<b>", "$x\t", "日本語"])
    write_history(folder / "history.csv", history_of())
    write_json(folder / "report.json", report_of(model))
    model.save(folder / "model.npz")
    return folder


def test_every_plot_can_be_drawn_again_from_the_files(tmp_path):
    run_in(tmp_path)
    assert read_history(tmp_path / "history.csv") == history_of()
    with warnings.catch_warnings(record=True) as caught:
        draw("run", tmp_path)
    assert not caught
    names = "accuracy_curve confusion_matrix loss_curve reliability_diagram weights".split()
    names = [f"{name}.png" for name in names]
    assert sorted(path.name for path in tmp_path.glob("*.png")) == names
    for name in names:
        pixels = imread(tmp_path / name)
        assert min(pixels.shape[:2]) >= 200
        assert pixels[..., :3].std() > 0.02


NAMES = [
    "$^$",
    "${$",
    "a$\\foo$",
    "$\\mathrm{K}^{0}_{L}$",
    "_background",
    "$0-$50k",
    "",
    "two\nlines",
]


def odd_run_in(folder):
    """A run on two features whose classes and data have names that matplotlib may read."""
    model = model_of(len(NAMES), (2, 1), sorted(NAMES))
    rng = np.random.default_rng(2)
    y = np.arange(80) % len(NAMES)
    write_history(folder / "history.csv", history_of((2.0, 1.0, 0.1)))
    report = report_of(model)
    report["data"]["name"] = "$^$ ${"
    write_json(folder / "report.json", report)
    model.save(folder / "model.npz")
    np.savez(folder / "examples.npz", X=rng.normal(size=(80, 2)), y=y, is_val=y == 0)


def odd_sweep_in(folder):
    """A sweep over the penalty, over nine decades and 0, and over data with such names."""
    regs = [0.0, *(float(reg) for reg in np.geomspace(1e-8, 10, 14))]
    done = {"status": "completed", "seed": 0}
    jobs = [
        done | {"job": str(k), "reg": reg, "data.train": NAMES[k % 8], "val_loss": 10.0 ** (-k % 5)}
        for k, reg in enumerate(regs)
    ]
    keys = {"swept": ["reg", "data.train"], "keys": ["reg", "data.train"], "objective": "val_loss"}
    names = ("loss", "accuracy", "train_loss", "train_accuracy", "loss_error", "accuracy_error")
    path = [dict.fromkeys(names, 0.5) | {"reg": r, "weight_norm": 1 / r} for r in regs[1:]]
    path = [row | {"job": "1"} for row in path]
    own = {"jobs": jobs, "settings": jobs, "best": jobs[4], "path": path}
    write_json(folder / "sweep.json", keys | own | {"one_standard_error": None})


@pytest.mark.parametrize("asked", [{}, {"text.usetex": True, "axes.formatter.use_mathtext": True}])
@pytest.mark.parametrize("kind", ["run", "sweep"])
def test_no_text_of_a_user_is_read_as_a_formula(kind, asked, tmp_path, monkeypatch):
    drawn = []

    def refuse(*_, **__):
        pytest.fail("a text is read as a formula")

    def draw_text(self, gc, x, y, text, *rest, **options):
        drawn.append(text)
        return own(self, gc, x, y, text, *rest, **options)

    own = RendererAgg.draw_text
    monkeypatch.setattr(RendererAgg, "draw_text", draw_text)
    monkeypatch.setattr(MathTextParser, "parse", refuse)
    monkeypatch.setattr(RendererAgg, "draw_tex", refuse)
    (odd_run_in if kind == "run" else odd_sweep_in)(tmp_path)
    with rc_context(asked):
        draw(kind, tmp_path)
    assert not [text for text in drawn if "mathdefault" in text]
    if kind == "sweep":
        assert {*NAMES[:6]} <= {*drawn}
        return
    assert (tmp_path / "decision_regions.png").exists()
    cut = {"$\\mathrm{…{0}_{L}$", "two\N{REPLACEMENT CHARACTER}lines", '""'}
    shown = {*NAMES[:3], *NAMES[4:6], *cut}
    # In the legend of the regions, over its template, and at both sides of the matrix.
    assert {text: drawn.count(text) for text in shown} == dict.fromkeys(shown, 4)


def test_a_picture_that_fails_costs_no_other(tmp_path):
    run_in(tmp_path)
    (tmp_path / "confusion_matrix.png").mkdir()
    with pytest.raises(FileExistsError, match="not a regular file"):
        draw("run", tmp_path)
    assert len([path for path in tmp_path.glob("*.png") if path.is_file()]) == 4


def test_the_text_has_the_figures_of_the_report():
    report = report_of(model_of(4))
    text = report_text(json.loads(json.dumps(report)))
    test = report["metrics"]["test"]
    for c in test["per_class"]:
        line = next(line for line in text.splitlines() if line.startswith(c["class"]))
        assert [f"{c[key]:.4f}" for key in ("precision", "recall", "f1")] == line.split()[2:5]
    worst = test["confusions"][0]
    assert f"{worst['count']}  {worst['true']} taken for {worst['predicted']}" in text
    assert f"{test['macro_f1']:.4f}" in text


def test_the_text_says_how_it_ended_and_what_calibration_changed():
    model = model_of(4)
    report = report_of(model)
    assert "\ncompleted: all epochs done; best epoch 2 of 3\n" in report_text(report)
    warm = report_of(dataclasses.replace(model, temperature=4.0))["metrics"]
    calibrated = {"calibration": {"temperature": 4.0, "before": report["metrics"]}}
    text = report_text({**report, **calibrated, "metrics": warm, "status": "diverged"})
    cold, error = report["metrics"]["val"], "expected_calibration_error"
    assert f"loss {cold['loss']:.4f} -> {warm['val']['loss']:.4f}, " in text
    assert f"calibration error {cold[error]:.4f} -> {warm['val'][error]:.4f}" in text
    ended = "diverged in epoch 2 with lr=9"
    assert f"\n{ended}; best" in report_text({**report, "status": "diverged", "ended": ended})


@pytest.mark.parametrize("reported", ["test", "val", "train"])
def test_all_speak_of_the_test_split_or_where_it_is_empty_of_the_next_best(reported):
    model = model_of(4)
    report = report_of(model)
    rng = np.random.default_rng(2)
    for name, n in (("train", 70), ("val", 80), ("test", 90)):
        X, y = rng.standard_normal((n, 4, 4)), rng.integers(0, 4, n)
        report["metrics"][name] = evaluate(model, X, y, 2)
    for name in ("test", "val")[: ("test", "val", "train").index(reported)]:
        report["metrics"][name] = None
    split = report["metrics"][reported]
    text = report_text(report)
    assert f"\n{reported}: top-2 accuracy {split['top_k_accuracy']:.4f}, macro F1 " in text
    assert f"macro F1 {split['macro_f1']:.4f}" in text
    accuracy = f"{reported} accuracy {split['accuracy']:.2%}"
    assert accuracy in heading(report, "accuracy")
    assert f"{reported} reliability" in heading(report, "reliability")
    assert f"of the {reported} examples" in confusions(report).title.lower()
    assert reliability(report).title == f"Reliability, {reported}"
    shown = {dot.text.split()[0] for dot in reliability(report).dots}
    assert shown == {str(n) for n in split["reliability"]["n"] if n}

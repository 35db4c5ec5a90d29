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
from classifier.report.pages import spare
from classifier.report.pages.draw import COPIED, draw
from classifier.report.plots import (
    accuracy_curve,
    confusion_matrix,
    loss_curve,
    reliability_diagram,
    weight_templates,
)
from classifier.report.text import report_text
from classifier.runs.history import read_history, write_history
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


def test_curves_show_the_history_with_the_kept_epoch_and_the_test_figure():
    report = report_of(model_of(3))
    axes = loss_curve(history_of(), report).axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    np.testing.assert_array_equal(lines["training, mean of the epoch"].get_ydata(), [2, 1, 0.5])
    np.testing.assert_array_equal(lines["validation, after the epoch"].get_ydata(), [1.5, 0.9, 1.1])
    assert lines["kept: epoch 2"].get_xdata()[0] == 2
    assert lines["guessing, 1.10"].get_ydata()[0] == pytest.approx(np.log(3))
    assert f"{report['metrics']['test']['loss']:.4f}" in axes.get_title()
    assert axes.get_xlabel() == "epoch"
    assert "nats" in axes.get_ylabel()
    assert axes.get_legend() is not None
    axes = accuracy_curve(history_of(), report).axes[0]
    assert axes.lines[0].get_ydata()[0] == 50
    assert f"{report['metrics']['test']['accuracy']:.2%}" in axes.get_title()
    assert "%" in axes.get_ylabel()


@pytest.mark.parametrize(("lowest", "scale"), [(0.21, "linear"), (0.19, "log")])
def test_losses_over_more_than_a_tenfold_are_on_a_logarithmic_axis(lowest, scale):
    axes = loss_curve(history_of((2.0, 1.0, lowest)), report_of(model_of(3))).axes[0]
    assert axes.get_yscale() == scale
    low, high = axes.get_ylim()
    assert 0 < low < lowest
    assert 2.0 < high < 2.5


def test_curves_of_a_diverged_run_without_validation():
    history = history_of((2.0, 1e9, np.inf), (None, None, None))
    axes = loss_curve(history, report_of(model_of(3))).axes[0]
    assert axes.get_yscale() == "log"
    assert not any("validation" in line.get_label() for line in axes.lines)


@pytest.mark.parametrize("n_classes", [2, 20, 21, 100, 130])
def test_the_confusion_matrix_is_annotated_up_to_20_classes(n_classes):
    report = report_of(model_of(n_classes), n=2000)
    figure = confusion_matrix(report)
    axes = figure.axes[0]
    counts = np.array(report["metrics"]["test"]["confusion_matrix"])
    if n_classes <= 20:
        written = {
            (t.get_position()[1], t.get_position()[0]): int(t.get_text()) for t in axes.texts
        }
        assert written == {(r, c): counts[r, c] for r, c in np.argwhere(counts)}
    else:
        assert len(axes.texts) == 0
    shown = min(n_classes, 100)
    assert len(axes.get_xticklabels()) == len(axes.get_yticklabels()) == shown
    assert ("with the most errors" in axes.get_title()) == (n_classes > 100)
    spacing = figure.get_size_inches()[1] * 72 / (shown + 15)
    assert spacing >= axes.get_yticklabels()[0].get_fontsize()  # names do not overlap


def test_a_cell_has_the_colour_and_the_count_of_its_true_class_taken_for_its_column():
    model = model_of(4)
    rng = np.random.default_rng(1)
    X, y = rng.standard_normal((300, 4, 4)), rng.integers(0, 4, 300)
    predicted = (X.reshape(300, 16) @ model.W).argmax(axis=1)
    shares = metrics.confusion_matrix(y, predicted, normalize="true")  # rows are the true classes
    assert np.abs(shares - shares.T).max() > 0.05
    axes = confusion_matrix(report_of(model)).axes[0]
    (image,) = axes.images
    np.testing.assert_allclose(image.get_array(), shares)
    assert (image.origin, image.norm.vmin, image.norm.vmax) == ("upper", 0, 1)
    for text in axes.texts:  # a dark cell has white figures
        column, row = text.get_position()
        assert text.get_color() == ("white" if shares[row, column] > 0.3 else "black")
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("true class", "predicted class")


def test_shares_are_of_all_examples_of_a_class_also_where_not_all_classes_are_shown():
    report = report_of(model_of(130), n=2000)
    test = report["metrics"]["test"]
    shares = confusion_matrix(report).axes[0].images[0].get_array()
    recall = {c["class"]: c["recall"] for c in test["per_class"]}
    np.testing.assert_allclose(np.diag(shares), [recall[c] for c in test["confusion_classes"]])


def test_a_reliability_diagram_has_a_point_a_bin_before_and_after():
    model = model_of(3)
    report = report_of(model)
    warm = report_of(dataclasses.replace(model, temperature=4.0))
    report["calibration"] = {"temperature": 4.0, "before": report["metrics"]}
    report["metrics"] = warm["metrics"]
    axes = reliability_diagram(report).axes[0]
    (legend,) = axes.figure.legends
    axes.figure.canvas.draw()
    assert legend.get_window_extent().y1 < axes.get_tightbbox().y0  # it covers no point
    before, _, after, _ = axes.collections  # each with an empty one for the legend
    rng = np.random.default_rng(1)
    X, y = rng.standard_normal((300, 16)), rng.integers(0, 3, 300)
    for temperature, points in ((1.0, before), (4.0, after)):
        p = softmax(X @ model.W.astype(float) / temperature, axis=1)
        sure, right = p.max(axis=1), p.argmax(axis=1) == y
        bins = np.digitize(sure, np.linspace(0, 1, 16), right=True)
        expected = [
            (100 * sure[bins == k].mean(), 100 * right[bins == k].mean()) for k in np.unique(bins)
        ]
        np.testing.assert_allclose(points.get_offsets(), expected, rtol=1e-6)
        areas = points.get_sizes() - 12
        np.testing.assert_allclose(areas / 2, np.unique(bins, return_counts=True)[1])
    error = warm["metrics"]["test"]["expected_calibration_error"]
    assert f"after calibration: error {error:.4f}" in {
        text.get_text() for text in legend.get_texts()
    }


def test_a_model_that_learned_nothing_says_so():
    model = model_of(3)
    nothing = LinearModel(0 * model.W, model.b, model.classes, model.features, (4, 4), {})
    assert "nothing was learned" in weight_templates(nothing).get_suptitle()


def test_long_names_that_differ_at_their_end_stay_apart():
    names = [f"a name that many classes share, {c}" for c in range(3)]
    axes = confusion_matrix(report_of(model_of(3, names=names))).axes[0]
    assert len({label.get_text() for label in axes.get_yticklabels()}) == 3


@pytest.mark.parametrize("image_shape", [(4, 4), (4, 4, 3), (4, 5, 1), (1, 16), (16, 1)])
@pytest.mark.parametrize("n_classes", [3, 130])
def test_templates_share_one_symmetric_scale(image_shape, n_classes):
    model = model_of(n_classes, image_shape)
    figure = weight_templates(model)
    images = figure.axes[0].images
    assert len(images) == min(n_classes, 100)
    limit = np.abs(model.W[:, :100]).max()
    for c, image in enumerate(images):
        assert image.get_clim() == (-limit, limit)
        red, _, blue, _ = image.cmap(0.9)
        assert red > blue  # red speaks for the class
        template = model.W[:, c].reshape(image_shape)
        if image_shape[2:] == (3,):
            expected = 0.5 + template / (2 * limit)
            assert expected.min() >= 0
            assert expected.max() <= 1
            np.testing.assert_allclose(image.get_array(), expected, atol=1e-6)
        else:
            np.testing.assert_array_equal(image.get_array(), template.reshape(image_shape[:2]))


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


def test_the_spare_process_draws_a_run_on_two_cores_and_tells_of_an_error_in_its_copy(
    tmp_path, monkeypatch
):
    here, there = run_in(tmp_path / "here"), run_in(tmp_path / "there")
    draw("run", here)
    monkeypatch.setattr(spare, "cores", lambda: 2)
    spare.start()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(spare, "draw", None)  # would be called where the other failed
            spare.draw_beside("run", there)
        names = {path.name for path in here.glob("*.png")}
        assert len(names) == 5
        assert {path.name for path in there.glob("*.png")} == names
        assert all((here / name).read_bytes() == (there / name).read_bytes() for name in names)
        broken = run_in(tmp_path / "broken")
        (broken / COPIED[0]).mkdir()
        with pytest.raises(FileExistsError, match="not a regular file"):
            spare.draw_beside("run", broken)
    finally:
        spare.end()


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
    assert accuracy in confusion_matrix(report).axes[0].get_title()
    assert accuracy in accuracy_curve(history_of(), report).axes[0].get_title()
    assert f"{reported} reliability" in reliability_diagram(report).axes[0].get_title()

"""What the page of a run says of its figures, its classes and examples of two features."""

import dataclasses
import itertools
import json
import re

import numpy as np
import pytest
from scipy.stats import binomtest

from classifier.evaluation import evaluate
from classifier.fit import Epoch
from classifier.model import LinearModel
from classifier.report.chart import HUES, rgb
from classifier.report.figures import Shown, curve, regions
from classifier.report.pages.draw import draw
from classifier.report.pages.run_page import class_tables, confused_pairs, write_run_page
from classifier.report.text import metrics_table
from classifier.runs.artifacts import DRAWN, read_examples, write_examples, write_history
from data.dataset import Dataset, Split
from data.errors import InputError
from data.files.store import write_json
from data.preprocessing import AffineMap


def model_of(n_classes, n_features=2, seed=0):
    rng = np.random.default_rng(seed)
    return LinearModel(
        rng.standard_normal((n_features, n_classes)).astype(np.float32),
        rng.standard_normal(n_classes).astype(np.float32),
        np.array([f"class {c}" for c in range(n_classes)]),
        AffineMap(np.full(n_features, 0.5), np.full(n_features, 2.0)),
        None,
        {},
    )


def figures_of(model, n, seed=1):
    rng = np.random.default_rng(seed)
    X = 3 * rng.standard_normal((n, len(model.W)))
    y = np.argmax(model.predict_proba(X), axis=1)
    wrong = rng.random(n) < 0.3
    y[wrong] = rng.integers(0, len(model.classes), int(wrong.sum()))
    return evaluate(model, X, y, 5)


def dataset_of(n_train, n_val, n_features=2, image_shape=None):
    rng = np.random.default_rng(2)
    splits = [
        Split(rng.standard_normal((n, n_features)), rng.integers(0, 3, n))
        for n in (n_train, n_val, 0)
    ]
    return Dataset("mine", *splits, np.array(["a", "b", "c"]), image_shape, "here")


def folder_with_run(folder, model, n=400):
    figures = figures_of(model, n)
    report = {
        "status": "completed",
        "ended": "all epochs done",
        "metrics": {"train": figures, "val": figures, "test": figures},
        "objective": 1.0,
        "config": {
            "class_weight": None,
            "label_smoothing": 0.0,
            "lr": 0.1,
            "report": {"plots": "best"},
        },
        "certificate": None,
        "lr": 0.25,
        "reg": 1e-4,
        "best_epoch": 2,
        "epochs": 3,
        "seconds": {"training": 1.0},
        "data": {
            "name": "mine",
            "origin": "here",
            "n_features": len(model.W),
            "n_classes": len(model.classes),
            "image_shape": None,
        },
    }
    kept = "smoothness largest_stable_lr gradient_check machine versions".split()
    write_json(folder / "report.json", report | dict.fromkeys(kept) | {"smoothness": 1.0})
    write_history(folder / "history.csv", history_of(2.0, 1.0, 0.5))
    model.save(folder / "model.npz")
    return report


def history_of(*losses):
    return [Epoch(i + 1, 10, 0.1, v, 0.5, v / 2, 0.4, 0.01) for i, v in enumerate(losses)]


@pytest.mark.parametrize(("right", "n"), [(0, 7), (7, 7), (348, 360), (1, 3), (59_999, 60_000)])
def test_an_accuracy_has_wilsons_interval_and_a_loss_its_standard_error(right, n):
    split = {"n": n, "loss": 0.5, "loss_error": 0.0123, "accuracy": right / n}
    old = {"n": n, "loss": 0.5, "accuracy": right / n}  # of an earlier version
    table = metrics_table({"train": split, "val": old, "test": split})
    train, val, test = table.splitlines()[1:]
    between = binomtest(right, n).proportion_ci(0.95, "wilson")
    shown = f"{right / n:.4f} ({between.low:.3f} to {between.high:.3f})"
    assert test.split() == ["test", str(n), "0.5000", "+-", "0.012", *shown.split()]
    assert val.split() == ["val", str(n), "0.5000", *shown.split()]
    assert train.split() == ["train", str(n), "0.5000", f"{right / n:.4f}"]
    assert max(map(len, table.splitlines())) <= 72


def test_the_page_says_how_far_off_its_figures_may_be(tmp_path):
    report = folder_with_run(tmp_path, model_of(3))
    write_run_page(tmp_path)
    page, test = (tmp_path / "report.html").read_text(encoding="utf-8"), report["metrics"]["test"]
    between = binomtest(round(400 * test["accuracy"]), 400).proportion_ci(0.95, "wilson")
    assert f"{100 * between.low:.1f} to {100 * between.high:.1f}% (95% interval)" in page
    assert f"± {test['loss_error']:.2g} (standard error)" in page
    assert page.count(f">{between.low:.4f} to {between.high:.4f}<") == 2  # val and test


@pytest.mark.parametrize("seed", range(5))
def test_classes_that_are_taken_for_each_other_are_one_pair(seed):
    rng = np.random.default_rng(seed)
    names = [f"c{i}" for i in range(8)]
    matrix = rng.integers(0, 4, (8, 8))
    pairs = confused_pairs(names, matrix.tolist())
    both = {
        frozenset((names[i], names[j])): matrix[i, j] + matrix[j, i]
        for i, j in itertools.combinations(range(8), 2)
    }
    counts = [pair["a_for_b"] + pair["b_for_a"] for pair in pairs]
    assert counts == sorted((n for n in both.values() if n > 1), reverse=True)[:10]
    for pair, count in zip(pairs, counts, strict=True):
        assert both[frozenset((pair["a"], pair["b"]))] == count
        assert pair["a_for_b"] >= pair["b_for_a"]
        assert matrix[names.index(pair["a"]), names.index(pair["b"])] == pair["a_for_b"]
    assert confused_pairs(["a", "b"], [[9, 1], [0, 9]]) == []  # one alone is no pattern


def test_the_matrix_says_which_classes_and_how_many_examples_it_leaves_out(tmp_path):
    for n_classes, is_part in ((150, True), (3, False)):
        split = folder_with_run(tmp_path, model_of(n_classes, 20), 3000)["metrics"]["test"]
        write_run_page(tmp_path)
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        outside = 3000 - np.sum(split["confusion_matrix"])
        said = f"is of the 100 of 150 classes with the most errors; {outside:,} of 3,000 examples"
        assert (said in page) == is_part == (0 < outside < 3000)


def test_of_many_classes_the_worst_and_the_best_are_shown():
    split = figures_of(model_of(60, 20), 4000)
    split["per_class"][7] |= {"support": 0, "f1": 0.0}  # of which nothing is known
    shown = class_tables(split)
    (_, worst), (_, best) = shown["class_ends"]
    f1 = sorted(c["f1"] for c in split["per_class"] if c["support"])
    assert [float(row[3].value) for row in worst] == f1[:10]
    assert [float(row[3].value) for row in best] == f1[::-1][:10]
    assert "class 7" not in {row[0].text for row in (*worst, *best)}
    assert len(shown["classes"]) == 60
    assert class_tables(figures_of(model_of(30, 20), 500))["class_ends"] == []


def test_a_page_of_a_thousand_classes_is_small(tmp_path):
    folder_with_run(tmp_path, model_of(1000, 20), n=5000)
    write_run_page(tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert len(page) < 1_000_000
    assert "<summary>All 1000 classes, as a table</summary>" in page
    assert "taken for class 1: 1<" not in page  # of confusions of one there are hundreds


def test_a_page_of_long_names_and_confusions_everywhere_is_below_two_megabytes(tmp_path):
    model = model_of(1000, 20)
    names = np.array([f"{c:04} {'of a name that goes on ' * 4}" for c in range(1000)])
    report = folder_with_run(tmp_path, dataclasses.replace(model, classes=names), n=5000)
    test = report["metrics"]["test"]
    test["confusion_matrix"] = (1 + np.arange(10_000).reshape(100, 100) % 3).tolist()
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    report["metrics"]["test"] = test
    write_json(tmp_path / "report.json", report)
    write_run_page(tmp_path)
    assert len((tmp_path / "report.html").read_text(encoding="utf-8")) < 2_000_000


def test_the_page_has_the_line_for_guessing_where_the_axis_has_it(tmp_path):
    history, report = history_of(0.05, 0.02, 0.01), folder_with_run(tmp_path, model_of(3))
    write_history(tmp_path / "history.csv", history)
    write_run_page(tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    (points,) = re.findall(r'<polyline class="chance" points="(.*?)"', page)[:1]
    axis = curve(history, report, "loss").y
    height = 10 + (1 - axis.place(float(np.log(3)))) * (260 - 10 - 36)
    assert {float(point.split(",")[1]) for point in points.split()} == {round(height, 1)}
    assert "guessing, 1.10" in page


@pytest.mark.parametrize("n_classes", [2, 3, 12])
def test_a_place_has_the_class_that_the_model_predicts_there(n_classes):
    model = model_of(n_classes)
    X = np.random.default_rng(3).normal(size=(50, 2)) * [1.0, 100.0]
    shown = Shown(X, np.zeros(50, int), np.zeros(50, bool))
    chart = regions(model, shown, 40)
    assert chart.image.shape == (24, 40, 3)
    hues = [tuple(rgb(hue)) for hue in HUES]
    winner = [[hues.index(tuple(pixel)) for pixel in line] for line in chart.image]
    xs = chart.x.low + (np.arange(40) + 0.5) / 40 * (chart.x.high - chart.x.low)
    ys = chart.y.high - (np.arange(24) + 0.5) / 24 * (chart.y.high - chart.y.low)
    grid = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
    expected = np.argmax(model.predict_proba(grid), axis=1).reshape(24, 40)
    np.testing.assert_array_equal(winner, expected % len(HUES))
    predicted = np.argmax(model.predict_proba(X), axis=1)
    for dot, guess in zip(chart.dots, predicted, strict=True):
        assert dot.text == "training, class 0" + f", taken for class {guess}" * bool(guess)
    assert chart.x.low < X[:, 0].min() < X[:, 0].max() < chart.x.high


def test_some_examples_of_two_features_are_kept_and_no_others(tmp_path):
    dataset = dataset_of(1000, 30)
    write_examples(tmp_path, dataset)
    shown = read_examples(tmp_path / "examples.npz")
    assert (len(shown.y), shown.is_val.sum()) == (DRAWN // 2 + 30, 30)
    rows = {tuple(x): label for x, label in zip(dataset.train.X, dataset.train.y, strict=True)}
    assert all(rows[tuple(x)] == y for x, y, is_val in zip(*shown, strict=True) if not is_val)
    np.testing.assert_array_equal(shown.X[shown.is_val], dataset.val.X)
    np.testing.assert_array_equal(shown.y[shown.is_val], dataset.val.y)
    assert (tmp_path / "examples.npz").stat().st_size < 20_000
    for name, other in (("a", dataset_of(9, 9, 3)), ("b", dataset_of(9, 9, 2, (1, 2)))):
        (tmp_path / name).mkdir()
        write_examples(tmp_path / name, other)
        assert not list((tmp_path / name).iterdir())


def test_examples_that_are_none_are_refused(tmp_path):
    path = tmp_path / "examples.npz"
    np.savez(path, X=np.zeros((3, 4)), y=np.zeros(3, int), is_val=np.zeros(3, bool))
    with pytest.raises(InputError, match=r"examples\.npz: are not examples of two features"):
        read_examples(path)


def test_examples_are_drawn_on_the_page_and_in_a_picture(tmp_path):
    model = model_of(3)
    folder_with_run(tmp_path, model)
    write_examples(tmp_path, dataset_of(60, 20))
    write_run_page(tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    dots = re.findall(r'<circle class="class-(\d)( held-out)?".*?<title>(.*?)</title>', page)
    shown = read_examples(tmp_path / "examples.npz")
    predicted = np.argmax(model.predict_proba(shown.X), axis=1)
    assert len(dots) == 80
    for (kind, held, text), true, is_val, guess in zip(*[dots, *shown[1:], predicted], strict=True):
        assert (int(kind), bool(held)) == (true, is_val)
        said = f"{'validation' if is_val else 'training'}, class {true}"
        assert text == said + f", taken for class {guess}" * bool(guess != true)
    assert '<image href="data:image/png;base64,' in page
    assert [*re.findall(r'<span class="key class-\d">(.*?)<', page)] == [*model.classes]
    draw("run", tmp_path)
    assert (tmp_path / "decision_regions.png").stat().st_size > 5000
    chart = regions(model, shown, 20)
    assert [(dot.x, dot.y) for dot in chart.dots] == [tuple(x) for x in shown.X.tolist()]
    assert [text for _, text in chart.keys] == ["training", "validation", *model.classes]

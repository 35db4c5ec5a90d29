"""What the page of a run shows, read back from its HTML."""

import dataclasses
import re

import numpy as np
import pytest
from scipy.stats import binomtest

from classifier.evaluation import strongest_features
from classifier.report.pages.draw import command, draw
from classifier.report.text import td, text_of, tr
from classifier.runs.artifacts import DRAWN, read_examples, write_examples
from data.dataset import Dataset, Split
from data.errors import InputError

ERROR = "expected_calibration_error"


@pytest.fixture
def page_of(leave, read):
    def page(name="run", **options):
        run = leave(name, **options)
        draw("page", run.folder)
        return run, read(run.folder / "report.html")

    return page


def test_a_cell_shows_its_value_and_is_sorted_by_it():
    number = '<td class="number" data-value="{}">{}</td>'
    assert td(2 / 3, ".2f") == number.format(2 / 3, "0.67")
    assert td(12345678) == number.format(12345678, 12345678)
    assert {td(None), td(np.inf), td(float("nan"))} == {number.format("", "–")}
    assert td(True) == '<td data-value="True">True</td>'
    assert td("<b>\"'&") == f'<td data-value="{(e := "&lt;b&gt;&#34;&#39;&amp;")}">{e}</td>'
    assert td("x" * 41).startswith('<td class="wide" ')
    assert tr([(1, None), {"a": "x", "b": 0.5}]) == (
        f"<tr>{td(1)}{td(None)}</tr>\n<tr>{td('x')}{td(0.5)}</tr>"
    )


def test_the_tables_have_the_figures_of_the_report(page_of):
    run, page = page_of(signal=0.3)
    metrics = run.report["metrics"]
    rows = page.rows("Figures of each split")
    assert rows["split"][-3:] == ["top-3 accuracy", "macro F1", "calibration error"]
    for name, split in metrics.items():
        right = round(split["accuracy"] * split["n"])
        between = binomtest(right, split["n"]).proportion_ci(0.95, "wilson")
        seen = name == "train"
        assert rows[name] == [
            str(split["n"]),
            f"{split['loss']:.4f}",
            "–" if seen else f"{split['loss_error']:.2g}",
            f"{split['accuracy']:.4f}",
            "–" if seen else f"{between.low:.4f} to {between.high:.4f}",
            *(f"{split[key]:.4f}" for key in ("top_k_accuracy", "macro_f1", ERROR)),
        ]
    test = metrics["test"]
    assert f"{100 * between.low:.1f} to {100 * between.high:.1f}% (95% interval)" in page.text
    assert f"± {test['loss_error']:.2g} (standard error)" in page.text
    top = f"top-3 accuracy {test['top_k_accuracy']:.2%} macro F1 {test['macro_f1']:.4f}"
    assert top in page.text
    classes = page.rows("Figures of each class, test examples")
    for c in test["per_class"]:
        figures = [f"{c[key]:.4f}" for key in ("precision", "recall", "f1")]
        assert classes[c["class"]] == [*figures, str(c["support"])]
    assert page.rows("Epochs")["2"][:3] == ["20", "0.1", "1"]
    assert page.rows("Every key and its value")["data"] == ["mine"]
    details = page.rows("What else the report holds")
    assert details["seconds.evaluation"] == ["0.5"]
    assert details["optimum"] == ["within 25.00 % of the lowest objective there is"]
    assert "epoch 2 of 3. The objective is within 25.00 % of the lowest" in page.text
    right = round(300 * metrics["test"]["accuracy"])
    assert f"completed {right} of 300 new images right ({right / 3:.1f} %)." in page.text
    assert "seconds 1.50 1.00 in training" in page.text


def test_calibration_and_folds_are_shown_where_there_are_any(page_of, run_of):
    before = run_of(2.0).report["metrics"] | {"train": None}
    folds = {"folds": 5, "loss": 0.5, "accuracy": 0.75, "accuracy_error": 0.02, "loss_error": 0.1}
    calibration = {"temperature": 1.5, "before": before}
    run, page = page_of(calibration=calibration, cross_validation=folds)
    assert "accuracy on 5 folds 75.00% ± 2.00%, loss 0.5000" in page.text
    rows = page.rows("Calibration")
    assert [*rows] == ["split", "val", "test"]
    for name in ("val", "test"):
        pairs = [(of[name]["loss"], of[name][ERROR]) for of in (before, run.report["metrics"])]
        assert rows[name] == [f"{pair[k]:.4f}" for k in (0, 1) for pair in pairs]
    assert "temperature 1.5" in page.text
    _, page = page_of("plain")
    assert "Calibration" not in page.tables
    assert "The run was not calibrated" in page.text


@pytest.mark.parametrize(("by", "n", "choice"), [("cv", 5, "best"), ("val", 300, "1se")])
def test_a_penalty_that_was_chosen_is_shown_with_its_path(by, n, choice, page_of):
    figures = {"loss": 0.5, "loss_error": 0.1, "accuracy": 0.75, "accuracy_error": 0.02}
    figures |= {"train_loss": 0.25, "train_accuracy": 1.0, "weight_norm": 3.0}
    rows = [{"reg": 10.0**-k, "status": "completed"} | figures for k in range(5)]
    rows[4] |= dict.fromkeys(figures) | {"status": "skipped"}
    over = f"{n} folds" if by == "cv" else f"{n} validation examples"
    found = {"by": by, "n": n, "metric": "loss", "choice": choice, "penalties": rows}
    found |= {"best": 1e-3, "one_standard_error": 0.01, "over": over}
    _, page = page_of(reg=0.01, reg_path=found)
    assert "5 penalties were tried, of which 1 turned out to be weaker than needed. " in page.text
    if choice == "best":
        kept = f"The one with the best loss on {over} was kept, trained on all of their examples"
        band = "the folds."
    else:
        kept = f"The strongest within one standard error of the best loss on {over} was kept"
        band = "these examples."
    assert f"{kept}: 0.01. The band is one standard error, over {band}" in page.text
    assert "reg 0.01 of 5 tried" in page.text
    assert page.rows("Penalties")["0.01"][:3] == ["completed", "0.5", "0.1"]
    assert page.rows("Penalties")["0.0001"][:3] == ["skipped", "–", "–"]


def test_the_page_of_many_classes_says_what_it_leaves_out_and_stays_small(page_of):
    names = np.array([f"{c:04} {'of a name that goes on ' * 4}" for c in range(1000)])
    size = {"n_classes": 1000, "n": (9, 9, 2000), "image_shape": (4, 2)}
    run, page = page_of(signal=0.0, names=names, **size, config={"report": {"plots": "all"}})
    assert len(page.html) < 2_000_000
    assert page.html.count("<img") == 100  # the first templates
    outside = 2000 - np.sum(run.report["metrics"]["test"]["confusion_matrix"])
    assert outside > 0
    shown = "is of the 100 of 1,000 classes with the most errors"
    assert f"{shown}; {outside:,} of 2,000 examples" in page.text
    rows = page.rows("Figures of each class")
    f1 = [float(row[2]) for row in rows.values() if row[3] not in ("0", "examples")]
    assert f1 == sorted(f1)  # those without examples come last
    assert [row[3] for row in rows.values()][1 + len(f1) :] == ["0"] * (1000 - len(f1))
    assert page.html.count('class="sortable first"') == 1
    assert "The first 100 of 1000 classes." in page.text
    assert '<a href="weights.png">' in page.html  # is drawn later
    certificate = {"excess": 0.9, "relative": 9.0}
    _, page = page_of("few", image_shape=(16,), certificate=certificate)
    assert re.search(r"completed \d+ of 300 new examples right \(", page.text)
    assert "epoch 2 of 3. The" not in page.text
    far = page.rows("What else the report holds")["optimum"]
    assert far == ["not near its optimum; optimizer=lbfgs goes there"]
    assert "with the most errors" not in page.text
    assert page.html.count("<img") == 0  # they are no images
    assert '<a href="model.npz">' in page.html
    assert "weights.png" not in page.html


def test_named_features_are_a_chart_a_table_and_lines_of_text(page_of, run_of):
    names, counts = ["<b>bold</b>", "$x$", "two\nlines", "long," * 99], np.r_[[1] * 25, [2] * 5]
    size = {"n_classes": 30, "image_shape": (4,)}
    model = run_of(**size).model
    strongest = strongest_features(model, names, counts)
    _, page = page_of(**size, features=strongest)
    rows, shown = (
        page.tables["The strongest features of each class"][1:],
        [*range(5), *range(25, 30)],
    )
    assert [*dict.fromkeys(row[0] for row in rows)] == [f"class {c}" for c in shown]
    short = [name[:6].replace("\n", "�").strip() for name in names]
    expected = {
        (f"class {c}", name, f"{model.W[d, c]:.4g}") for c in shown for d, name in enumerate(short)
    }
    assert {(row[0], row[1][:6].strip(), row[2]) for row in rows} == expected
    assert max(len(row[1]) for row in rows) == 200
    assert "Shown are the 10 of 30 classes with the most training examples." in page.text
    assert "grows by one after preprocessing=standardize (by one standard deviation)." in page.text
    assert "<b>bold" not in page.html
    charts = page.html.split("<figcaption>Class ")[1:]
    assert [chart.count("<rect") for chart in charts] == [4] * 10
    _, *text = text_of("features_text", strongest).splitlines()
    for line, c in zip(text, shown, strict=True):
        largest = np.argsort(-np.abs(model.W[:, c]))[:3]
        weights = re.findall(r"\(([+-][0-9.e-]+)\)", line)
        assert line.startswith(f"  class {c}: ")
        assert [float(w) for w in weights] == pytest.approx(model.W[largest, c], rel=5e-3)
    nothing = dataclasses.replace(model, W=0 * model.W)
    _, page = page_of("none", **size, features=strongest_features(nothing, names, counts))
    assert "All weights are 0: nothing was learned." in page.text
    assert "The strongest features of each class" not in page.tables


def test_the_command_is_that_of_the_overrides_but_for_what_is_secret(leave):
    folder = leave().folder
    assert command(folder) == ""
    (folder / ".hydra").mkdir()
    listed = ["lr=0.1", "name='a b'", "mlflow.uri=http://u:p@h", "sweep=lr_reg"]
    text = "".join(f"- {override}\n" for override in listed)
    (folder / ".hydra/overrides.yaml").write_text(text, encoding="utf-8")
    assert command(folder) == """python train.py lr=0.1 'name='"'"'a b'"'"''"""


def dataset_of(n_train, n_val, n_features=2, image_shape=None):
    rng = np.random.default_rng(2)
    splits = [
        Split(rng.standard_normal((n, n_features)), rng.integers(0, 3, n))
        for n in (n_train, n_val, 0)
    ]
    return Dataset("mine", *splits, np.array(["a", "b", "c"]), image_shape, "here")


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
    (tmp_path / "others").mkdir()
    for other in (dataset_of(9, 9, 3), dataset_of(9, 9, 2, (1, 2))):
        write_examples(tmp_path / "others", other)
    assert not list((tmp_path / "others").iterdir())
    path = tmp_path / "examples.npz"
    np.savez(path, X=np.zeros((3, 4)), y=np.zeros(3, int), is_val=np.zeros(3, bool))
    with pytest.raises(InputError, match=r"examples\.npz: are not examples of two features"):
        read_examples(path)


def test_mistakes_are_pictures_or_a_table(page_of, read):
    run, page = page_of(signal=0.2)
    mistakes = run.report["metrics"]["test"]["mistakes"]
    told = [mistakes[0][key] for key in ("index", "true", "predicted", "probability")]
    assert page.tables["Mistakes"][1] == [*map(str, told[:3]), f"{told[3]:.4f}"]
    np.savez(run.folder / "mistakes.npz", X=np.zeros((len(mistakes), 4, 4)))
    draw("page", run.folder)
    page = read(run.folder / "report.html")
    assert page.html.count('alt="example ') == len(mistakes)
    assert "{} taken for {}".format(*told[1:3]) in page.text
    assert f"{told[3]:.2%} sure" in page.text

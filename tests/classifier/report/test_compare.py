"""The comparison of runs, of folders as runs leave them, against scipy and scikit-learn."""

import json
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats
from scipy.special import log_softmax
from sklearn.metrics import confusion_matrix, recall_score

from classifier.evaluation import evaluate
from classifier.fit import Epoch
from classifier.model import LinearModel
from classifier.report.__main__ import write_page
from classifier.report.pages.compare_page import (
    LETTERS,
    Compared,
    pair,
    read_compared,
    why_no_pair,
    write_comparison,
)
from classifier.runs.artifacts import PREDICTIONS, Predictions, write_history, write_predictions
from classifier.runs.folder import mark, write_status
from data.errors import InputError
from data.files.store import write_json
from data.preprocessing import AffineMap

CONFIG = {"lr": 0.1, "reg": 1e-3, "data": {"n": 300}, "outputs": "a", "choices": {"data": "mine"}}


@pytest.fixture
def leave(tmp_path):
    """Leave the folder of a run, the better the larger its signal; return what its model says."""

    def run(name, signal=1.0, *, seed=0, n=300, n_classes=4, image_shape=(4, 4), **changes):
        # The same examples for all runs, and other noise in the weights of each.
        rng = np.random.default_rng(7)
        D = int(np.prod(image_shape))
        centres = rng.standard_normal((n_classes, D))
        splits = {}
        for split in ("train", "val", "test"):
            y = rng.integers(0, n_classes, n)
            splits[split] = centres[y] + 0.8 * rng.standard_normal((n, D)), y
        W = signal * centres.T + np.random.default_rng(seed).standard_normal((D, n_classes))
        names = np.array([f"class {c}" for c in range(n_classes)])
        features = AffineMap(np.zeros(D), np.ones(D))
        bias = np.zeros(n_classes, np.float32)
        model = LinearModel(W.astype(np.float32), bias, names, features, image_shape, {})
        folder = tmp_path / name
        folder.mkdir(parents=True)
        mark(folder, "run")
        write_status(folder, "completed", "all epochs done")
        model.save(folder / "model.npz")
        write_history(folder / "history.csv", changes.pop("history", history_of(20)))
        report = {
            "status": "completed",
            "metrics": {split: evaluate(model, *of, 3) for split, of in splits.items()},
            "objective": 1.0,
            "config": {**CONFIG, "outputs": name, **changes.pop("config", {})},
            "best_epoch": 2,
            "seconds": {"training": 1.0, "evaluation": 0.5},
            "data": {"name": "mine", "image_shape": image_shape, "fingerprint": "sha256:1"},
            "versions": {"numpy": "2.0"},
        }
        report |= changes
        write_json(folder / "report.json", report)
        said = {split: said_of(model, *of) for split, of in splits.items() if split != "train"}
        write_predictions(folder, said)
        return SimpleNamespace(folder=folder, model=model, said=said, report=report)

    return run


def history_of(n, val=True):
    return [
        Epoch(
            e, 10 * e, 0.1, 2.0 / e, 1 - 0.9 / e, 3.0 / e if val else None, 0.5 if val else None, 1
        )
        for e in range(1, n + 1)
    ]


def said_of(model, X, y):
    scores = X @ model.W.astype(float)
    log_p = log_softmax(scores, axis=1)
    return Predictions(y, scores.argmax(axis=1), log_p[np.arange(len(y)), y])


class Tables(HTMLParser):
    """The cells of each table by its caption, with the class of each; and the text of the page."""

    def __init__(self, page):
        super().__init__()
        self.tables, self.kinds, self.text, self._where = {}, {}, "", ""
        self.feed(page.read_text(encoding="utf-8"))
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attributes):
        self._where = tag if tag in ("caption", "style", "script") else ""
        if tag == "tr":
            self._rows.append([])
            self._kinds.append([])
        if tag in ("td", "th") and self._rows:
            self._rows[-1].append("")
            self._kinds[-1].append(dict(attributes).get("class", ""))
        if tag == "table":
            self._rows, self._kinds, self._caption = [], [], ""
        self._in_cell = tag in ("td", "th", "button", "span")

    def handle_data(self, data):
        if self._where == "caption":
            self._caption += data
        elif self._where not in ("style", "script"):
            self.text += data
            if getattr(self, "_rows", None) and self._rows[-1] and self._in_cell:
                self._rows[-1][-1] += data.strip()

    def handle_endtag(self, tag):
        self._where = ""
        if tag == "table":
            self.tables[self._caption], self.kinds[self._caption] = self._rows, self._kinds
            self._rows = []

    def rows(self, caption):
        (found,) = [rows for name, rows in self.tables.items() if name.startswith(caption)]
        return {row[0]: row[1:] for row in found}


def compare(tmp_path, *runs):
    place = tmp_path / "outputs/compare.html"
    folders = [getattr(run, "folder", run) for run in runs]
    assert write_comparison(folders, place) == place
    return Tables(place)


def test_the_verdict_is_that_of_scipy_on_the_same_examples(leave, tmp_path):
    a, b = leave("a", 0.2), leave("b", 2.0, seed=1)
    text = compare(tmp_path, a, b).text
    one, two = a.said["test"], b.said["test"]
    right = [said.predicted == said.labels for said in (one, two)]
    only = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    p = stats.binomtest(only[0], sum(only)).pvalue
    assert p < 0.01
    assert (
        f"B is more often right than A: of 300 examples A alone has {only[0]} right and B alone "
        f"{only[1]} (McNemar's exact test, p = {p:.2g})."
    ) in text
    found = stats.ttest_rel(one.log_p, two.log_p)
    low, high = found.confidence_interval(0.95)
    difference = (one.log_p - two.log_p).mean()
    losses = re.search(r"(\w has a lower loss.*?) is (.*?) \(95% interval (.*?) to (.*?)\)", text)
    better, worse = ("A", "B") if difference > 0 else ("B", "A")
    assert losses[1] == f"{better} has a lower loss than {worse}: that of B less that of A"
    assert [float(losses[i]) for i in (2, 3, 4)] == pytest.approx([difference, low, high], rel=1e-3)


def test_what_may_be_chance_is_called_so(leave, tmp_path):
    text = compare(tmp_path, leave("a"), leave("b")).text
    assert "A and B do not differ in accuracy by more than chance" in text
    assert "A and B do not differ in loss by more than chance" in text
    assert "more often right" not in text


def test_several_comparisons_are_allowed_for(leave, tmp_path):
    a = leave("a", 1.0)
    runs = read_compared([leave(n, 0.9 + 0.3 * s, seed=s).folder for s, n in enumerate("bc")])
    alone, together = pair(*runs, "test"), pair(*runs, "test", n_tests=4)
    assert 1e-3 < alone.p < 0.2
    assert together.p == pytest.approx(4 * alone.p)
    log_p = [run.predictions["test"].log_p.astype(float) for run in runs]
    expected = stats.ttest_rel(*log_p).confidence_interval(1 - 0.05 / 4)
    assert (together.low, together.high) == pytest.approx((expected.low, expected.high), rel=1e-5)
    others = leave("d", data={"name": "other", "image_shape": None})  # is not tested
    page = compare(tmp_path, runs[0], a, others, runs[1])
    assert "allow for the 2 comparisons here" in page.text
    assert f"p = {pair(*runs, 'test', n_tests=2).p:.2g})" in page.text


def test_equal_models_differ_by_chance_in_one_of_twenty(leave, tmp_path):
    """Right and wrong, and the log-probabilities, of two runs are drawn from one distribution."""
    report = leave("a").report
    rng = np.random.default_rng(1)
    claims = []
    for _ in range(1000):
        hard = rng.exponential(size=200)
        both = []
        for letter in "AB":
            right = rng.random(200) < np.exp(-hard / 2)
            log_p = (-hard - rng.exponential(size=200)).astype(np.float32)
            said = Predictions(np.zeros(200, int), (~right).astype(int), log_p)
            own = {**report, "metrics": {"test": {"n": 200, "accuracy": right.mean()}}}
            both.append(Compared(letter, tmp_path, False, own, [], {"test": said}))
        assert not why_no_pair(*both, "test")
        found = pair(*both, "test")
        claims.append((found.p < 0.05, found.low > 0 or found.high < 0))
    accuracy, loss = np.mean(claims, axis=0)
    assert accuracy <= 0.05
    assert 0.02 < loss < 0.08


def other_labels(run):
    said = run.said["test"]
    flipped = Predictions(said.labels[::-1], said.predicted[::-1], said.log_p)
    write_predictions(run.folder, {"test": flipped})


UNTESTED = {
    "data": ({"data": {"name": "mine", "image_shape": None, "fingerprint": "sha256:2"}}, None),
    "no fingerprint": ({"data": {"name": "mine", "image_shape": None}}, None),
    "labels": ({}, other_labels),
    "no file": ({}, lambda run: (run.folder / PREDICTIONS).unlink()),
    "a damaged file": ({}, lambda run: (run.folder / PREDICTIONS).write_bytes(b"PK")),
    "no test": ({}, lambda run: write_predictions(run.folder, {"val": run.said["val"]})),
    "another model": (
        {},
        lambda run: write_predictions(
            run.folder, {"test": run.said["test"]._replace(predicted=run.said["test"].labels)}
        ),
    ),
}
REASONS = {
    "data": "they were not evaluated on the same examples: their data differ",
    "no fingerprint": "they were not evaluated on the same examples: their data differ",
    "labels": "they were not evaluated on the same examples: their labels differ",
    "no file": "of B, it keeps no predictions",
    "a damaged file": f"{PREDICTIONS}: an .npz file cut short",
    "no test": "the predictions of B are not those of its report",
    "another model": "the predictions of B are not those of its report",
}


@pytest.mark.parametrize("how", UNTESTED)
def test_what_cannot_be_tested_is_said_and_the_rest_is_shown(leave, tmp_path, how):
    changes, spoil = UNTESTED[how]
    b = leave("b", 2.0, **changes)
    if spoil:
        spoil(b)
    page = compare(tmp_path, leave("a", 0.2), b)
    assert "A and B are not tested as a pair: " in page.text
    assert REASONS[how] in page.text
    assert "McNemar" not in page.text
    assert page.rows("Figures side by side")["test accuracy"]


def test_only_the_settings_that_differ_are_shown(leave, tmp_path):
    long = ", ".join(f"class {c}: 1.5" for c in range(99))
    a = leave("a", config={"reg": 1, "seed": None, "odd": None, "class_weight": long, "flag": True})
    b = leave("b", config={"reg": 1.0, "lr": 0.25, "seed": 3}, versions={"numpy": "2.1"})
    rows = compare(tmp_path, a, b).rows("Settings and versions")
    assert rows == {
        "key": ["A", "B"],
        "lr": ["0.1", "0.25"],
        "seed": ["null", "3"],
        "class_weight": [long[:160] + " ...", "–"],
        "flag": ["True", "–"],
        "versions.numpy": ["2.0", "2.1"],
    }
    assert "their settings are the same" in compare(tmp_path, leave("c"), leave("d")).text


def test_the_figures_have_their_uncertainty(leave, tmp_path):
    runs = [leave("a", 0.2), leave("b", 2.0), leave("c", 1.0, seed=3)]
    rows = compare(tmp_path, *runs).rows("Figures side by side")
    for k, run in enumerate(runs):
        test = run.report["metrics"]["test"]
        right = round(test["accuracy"] * 300)
        found = stats.binomtest(right, 300).proportion_ci(method="wilson")
        assert rows["test accuracy"][k] == f"{right / 300:.2%}"
        said = f"{100 * found.low:.1f}–{100 * found.high:.1f}%"
        assert rows["accuracy, 95% interval"][k] == said
        assert rows["test loss"][k] == f"{test['loss']:.4g}"
        assert float(rows["loss, standard error"][k]) == pytest.approx(
            stats.sem(run.said["test"].log_p), rel=1e-3
        )
        assert rows["macro F1"][k] == f"{test['macro_f1']:.4g}"
        assert rows["seconds"][k] == "1.50"
    assert "lr" not in rows  # no report has it


def test_where_one_has_no_test_figures_the_validation_is_compared(leave, tmp_path):
    a, b = leave("a", 0.2), leave("sweep/1", 2.0)
    mark(tmp_path / "sweep", "sweep")
    short = {key: b.report["metrics"]["train"][key] for key in ("n", "loss", "accuracy")}
    metrics = {"train": short, "val": b.report["metrics"]["val"], "test": None}
    write_json(b.folder / "report.json", {**b.report, "metrics": metrics})
    write_predictions(b.folder, {"val": b.said["val"]})
    page = compare(tmp_path, a, b)
    assert "Judged by the validation examples, for not every run was evaluated on test" in page.text
    assert "A sweep chooses its winner by these" in page.text
    assert "B is more often right than A: of 300 examples" in page.text
    assert page.rows("Figures side by side")["val accuracy"]
    assert page.rows("Figures of test")["test accuracy"][1] == "–"
    assert page.rows("Figures of train")["train accuracy"][1] == f"{short['accuracy']:.2%}"
    assert "accuracy, 95% interval" not in page.rows("Figures of train")


def test_runs_that_share_no_split_still_have_their_figures(leave, tmp_path):
    runs = []
    for name, gone in (("a", "val"), ("b", "test")):
        run = leave(name)
        write_json(
            run.folder / "report.json",
            {**run.report, "metrics": {**run.report["metrics"], gone: None}},
        )
        runs.append(run)
    page = compare(tmp_path, *runs)
    assert "there is no split on which both were evaluated" in page.text
    assert page.rows("Figures of val")["val accuracy"][0] == "–"


def test_confusions_are_the_difference_of_two_matrices_in_the_better_ones_colour(leave, tmp_path):
    a, b = leave("a", 0.2), leave("b", 0.5, seed=1)
    page = compare(tmp_path, a, b)
    (caption,) = [name for name in page.tables if name.startswith("B less A: examples")]
    assert "classes" not in caption
    one, two = (
        confusion_matrix(run.said["test"].labels, run.said["test"].predicted) for run in (a, b)
    )
    change = two - one
    shown = page.tables[caption][1:]
    assert [[int(text or 0) for text in row[1:]] for row in shown] == change.tolist()
    kinds = page.kinds[caption][1:]
    for t, p in np.ndindex(4, 4):
        better = "run-1" if (change[t, p] > 0) == (t == p) else "run-0"
        assert kinds[t][p + 1] == (better if change[t, p] else "")
    recalls = page.rows("Recall of the test examples")
    for k, run in enumerate((a, b)):
        expected = recall_score(run.said["test"].labels, run.said["test"].predicted, average=None)
        for c, recall in enumerate(expected):
            assert recalls[f"class {c}"][k + 1] == f"{recall:.1%}"


def test_where_the_classes_have_other_numbers_of_examples_confusions_are_shares(leave, tmp_path):
    a, b = leave("a", 0.2), leave("b", 2.0, n=200)
    page = compare(tmp_path, a, b)
    (caption,) = [name for name in page.tables if name.startswith("B less A: percent")]
    one, two = (
        confusion_matrix(run.said["test"].labels, run.said["test"].predicted, normalize="true")
        for run in (a, b)
    )
    shown = [[int(text or 0) for text in row[1:]] for row in page.tables[caption][1:]]
    np.testing.assert_allclose(shown, 100 * (two - one), atol=0.51)


def test_of_many_classes_those_that_differ_most_are_shown_and_the_page_stays_small(leave, tmp_path):
    own = {"n": 600, "n_classes": 110, "image_shape": (64, 64)}
    runs = [leave(str(k), 0.03, seed=k, **own) for k in range(2)]
    page = compare(tmp_path, *runs)
    recalls = np.array(
        [[c["recall"] for c in run.report["metrics"]["test"]["per_class"]] for run in runs]
    )
    differ = np.abs(recalls[0] - recalls[1])
    rows = page.rows("Recall of the test examples")
    shown = [int(name.split()[1]) for name in rows if name != "class"]
    assert len(shown) == 20
    assert differ[shown].min() >= np.delete(differ, shown).max()
    assert any(name.endswith("the 20 of 110 classes that differ most") for name in page.tables)
    one, two = (
        confusion_matrix(run.said["test"].labels, run.said["test"].predicted) for run in runs
    )
    change = np.abs(two - one) * (1 - np.eye(110, dtype=int))
    _, *pairs = page.tables["Confusions that changed most"]
    assert len(pairs) == 20
    for true, guess, *counts in pairs:
        t, p = (int(name.split()[1]) for name in (true, guess))
        assert [int(count) for count in counts] == [one[t, p], two[t, p]]
    sizes = [abs(int(b) - int(a)) for *_, a, b in pairs]
    assert sizes == sorted(change.ravel())[:-21:-1]
    place = tmp_path / "outputs/compare.html"
    assert place.read_text(encoding="utf-8").count("<img") >= 2 * 10
    assert place.stat().st_size < 3e5


def test_every_class_has_a_template_of_each_run(leave, tmp_path):
    runs = [leave(name, seed=k) for k, name in enumerate("abc")]
    compare(tmp_path, *runs)
    text = (tmp_path / "outputs/compare.html").read_text(encoding="utf-8")
    pictures = re.findall(r'<img src="(.*?)" alt="weights of class (.*?), run (.)"', text)
    assert [found[1:] for found in pictures] == [
        (f"class {c}", letter) for c in range(4) for letter in "ABC"
    ]
    assert len({found[0] for found in pictures}) == 12
    other = leave("d", image_shape=(2, 8))
    compare(tmp_path, runs[0], other)
    assert "<img" not in (tmp_path / "outputs/compare.html").read_text(encoding="utf-8")


def test_curves_are_drawn_over_each_other_in_the_colour_of_their_run(leave, tmp_path):
    a, b = leave("a"), leave("b", history=history_of(40, val=False))
    compare(tmp_path, a, b)
    text = (tmp_path / "outputs/compare.html").read_text(encoding="utf-8")
    loss, accuracy = (chart.split("</svg>")[0] for chart in text.split("<svg")[1:])
    for chart in (loss, accuracy):
        lines = dict(re.findall(r'<polyline class="(run.*?)" points="(.*?)"', chart))
        assert list(lines) == ["run-0 mean", "run-0", "run-1"]  # B knows no validation
        assert [len(line.split()) for line in lines.values()] == [20, 20, 40]
        ends = [float(line.split()[-1].split(",")[0]) for line in lines.values()]
        assert ends[0] == ends[1] < ends[2]
    assert "<title>epoch 2: A 1.5, B 1</title>" in loss
    assert "<title>A, kept: epoch 2, 1.5</title>" in loss
    assert "<title>epoch 4: A 50, B 77.5</title>" in accuracy


def test_runs_of_many_epochs_make_no_large_page(leave, tmp_path):
    runs = [leave(name, history=history_of(3000)) for name in LETTERS]
    compare(tmp_path, *runs)
    assert (tmp_path / "outputs/compare.html").stat().st_size < 6e5


def test_a_sweep_stands_for_its_winner(leave, tmp_path):
    a, winner = leave("a"), leave("sweep/3", 2.0)
    mark(tmp_path / "sweep", "sweep")
    with pytest.raises(InputError, match="this sweep has no winner yet"):
        write_comparison([a.folder, tmp_path / "sweep"], tmp_path / "out.html")
    summary = {"jobs": [], "swept": [], "objective": "val_loss"}
    write_json(tmp_path / "sweep/sweep.json", summary | {"best": {"job": "3", "folder": "3"}})
    assert "sweep/3" in compare(tmp_path, a, tmp_path / "sweep").text
    for outside in ("../a", str(a.folder), "9"):
        best = {"job": "3", "folder": outside}
        write_json(tmp_path / "sweep/sweep.json", summary | {"best": best})
        with pytest.raises(InputError, match="its winner, job 3, is not there"):
            write_comparison([winner.folder, tmp_path / "sweep"], tmp_path / "out.html")


FOREIGN = ["null", "[]", '"x"', "5", '{"status": 5}', '{"config": {}, "metrics": {}}']


def test_what_cannot_be_compared_is_told(leave, tmp_path):
    a = leave("a").folder
    (tmp_path / "empty").mkdir()
    lost = leave("lost").folder
    (lost / "report.json").unlink()
    foreign = [leave(f"foreign{i}").folder for i in range(len(FOREIGN))]
    for folder, content in zip(foreign, FOREIGN, strict=True):
        (folder / "report.json").write_text(content, encoding="utf-8")
        with pytest.raises(InputError, match="report.json: is not the report of a run"):
            write_page(folder)
    linked = leave("linked").folder
    (linked / PREDICTIONS).unlink()
    (linked / PREDICTIONS).symlink_to(a / PREDICTIONS)
    for others, words in (
        ([tmp_path / "none"], "there is no such folder"),
        ([tmp_path / "empty"], "is not the folder of a run or a sweep"),
        ([lost], "this run left no report"),
        *(([folder], "report.json: is not the report of a run") for folder in foreign),
        ([linked], "is a link or a device"),
        ([tmp_path / "empty/../a"], "named twice"),
        ([a] * 8, "9 runs: at most 8"),
    ):
        with pytest.raises(InputError, match=words):
            write_comparison([a, *others], tmp_path / "out.html")
        assert not (tmp_path / "out.html").exists()


def test_nothing_else_is_written_over(leave, tmp_path):
    runs = [leave("a").folder, leave("b").folder]
    place = tmp_path / "place.html"
    write_comparison(runs, place)
    write_comparison(runs[::-1], place)
    assert "Comparison of b, a</title>" in place.read_text(encoding="utf-8")
    kept = place.read_bytes()
    (tmp_path / "notes.html").write_text("<title>Notes</title>", encoding="utf-8")
    (tmp_path / "link.html").symlink_to(place)
    (tmp_path / "dangling.html").symlink_to(tmp_path / "new.html")
    (tmp_path / "folder.html").mkdir()
    for name in ("notes", "link", "dangling", "folder"):
        with pytest.raises(
            InputError, match="is not a comparison that was made here; move it away"
        ):
            write_comparison(runs, tmp_path / f"{name}.html")
    assert place.read_bytes() == kept
    assert not (tmp_path / "new.html").exists()


def test_names_from_data_are_shown_and_not_run(leave, tmp_path):
    hostile = "<script>alert(1)</script>"
    config = {hostile: hostile}
    page = compare(tmp_path, leave("a", config=config), leave("<b>"))
    text = (tmp_path / "outputs/compare.html").read_text(encoding="utf-8")
    assert hostile not in text
    assert text.count("<script") == 1
    assert json.dumps("<b>")[1:-1] in page.text


def test_runs_of_images_that_share_no_class_are_compared(leave, tmp_path):
    for name in "ab":
        leave(name)
    report = tmp_path / "b/report.json"
    text = report.read_text(encoding="utf-8")
    report.write_text(text.replace('"class ', '"other '), encoding="utf-8")
    page = write_comparison([tmp_path / "a", tmp_path / "b"], tmp_path / "compare.html")
    assert "What each class looks for" not in page.read_text(encoding="utf-8")

"""The comparison of runs, of folders as runs leave them, against scipy and scikit-learn."""

import json
import re
from collections import Counter
from functools import partial

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import confusion_matrix, recall_score

from classifier.fit import Epoch
from classifier.report import settings
from classifier.report.__main__ import write_page
from classifier.report.pages.compare_page import Compared, settings_pair, write_comparison
from classifier.runs.artifacts import PREDICTIONS, Predictions, read_validation, write_predictions
from classifier.runs.folder import mark
from data.errors import InputError
from data.files.store import write_json


@pytest.fixture
def compare(tmp_path, read):
    def compared(*runs):
        place = tmp_path / "outputs/compare.html"
        folders = [getattr(run, "folder", run) for run in runs]
        assert write_comparison(folders, place) == place
        return read(place)

    return compared


@pytest.mark.parametrize("signals", [(0.2, 2.0), (2.0, 0.2), (1.0, 1.0)])
def test_the_verdict_is_that_of_scipy_on_the_same_examples(leave, compare, signals):
    a, b = leave("a", signals[0]), leave("b", signals[1], seed=1 if signals[0] != 1 else 0)
    text = compare(a, b).text
    one, two = a.said["test"], b.said["test"]
    right = [said.predicted == said.labels for said in (one, two)]
    only = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    p = stats.binomtest(only[0], sum(only)).pvalue if sum(only) else 1.0
    assert (p < 0.05) == (signals[0] != 1)
    better, worse = ("A", "B") if signals[0] > signals[1] else ("B", "A")
    same = "A and B do not differ in {} by more than chance"
    verdict = same.format("accuracy") if p > 0.05 else f"{better} is more often right than {worse}"
    alone = f"of 300 test examples A alone has {only[0]} right and B alone {only[1]}"
    assert f"{verdict}: {alone} (McNemar's exact test, p = {p:.2g})." in text
    verdict = same.format("loss") if p > 0.05 else f"{better} has a lower loss than {worse}"
    assert f"{verdict}: that of B less that of A is" in text
    if p < 0.05:
        numbers = re.search(
            r"A is (\S+) \(95% interval (\S+) to (\S+) over 300 test examples", text
        ).groups()
        between = stats.ttest_rel(one.log_p, two.log_p).confidence_interval(0.95)
        expected = [(one.log_p - two.log_p).mean(), *between]
        assert [*map(float, numbers)] == pytest.approx(expected, rel=1e-3)


def test_several_comparisons_are_allowed_for(leave, compare):
    runs = [leave(name, 0.9 + 0.3 * seed, seed=seed) for seed, name in enumerate("bc")]
    others = leave("d", data={"name": "other", "image_shape": None})  # is not tested
    text = compare(runs[0], leave("a"), others, runs[1]).text
    one, two = (run.said["test"] for run in runs)
    right = [said.predicted == said.labels for said in (one, two)]
    only = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    assert "allow for the 2 comparisons here" in text
    assert f"p = {2 * stats.binomtest(only[0], sum(only)).pvalue:.2g})" in text
    expected = stats.ttest_rel(one.log_p, two.log_p).confidence_interval(1 - 0.05 / 2)
    last = re.findall(r"95% interval (\S+) to (\S+) over", text)[-1]
    assert [*map(float, last)] == pytest.approx([*expected], rel=1e-3)


def spoiled(change):
    """Return what rewrites the predictions of a run by a change of those of its test split."""
    return lambda run: write_predictions(run.folder, {"test": change(run.said["test"])})


def without_a_mistake(said):
    first = np.flatnonzero(said.predicted != said.labels)[0]
    return Predictions(*(np.delete(array, first) for array in said))


OTHER_DATA = {"name": "mine", "image_shape": None, "fingerprint": "sha256:2"}
NOT_ITS = "the predictions of B are not those of its report"


@pytest.mark.parametrize(
    ("changes", "spoil", "reason"),
    [
        ({"data": OTHER_DATA}, None, "not evaluated on the same examples: their data differ"),
        ({"data": OTHER_DATA | {"fingerprint": None}}, None, "their data differ"),
        (
            {},
            spoiled(lambda said: Predictions(said[0][::-1], said[1][::-1], said[2])),
            "data differ",
        ),
        ({}, lambda run: (run.folder / PREDICTIONS).unlink(), "of B, it keeps no predictions"),
        ({}, lambda run: (run.folder / PREDICTIONS).write_bytes(b"PK"), "an .npz file cut short"),
        ({}, lambda run: write_predictions(run.folder, {"val": run.said["val"]}), NOT_ITS),
        ({}, spoiled(lambda said: said._replace(predicted=said.labels)), NOT_ITS),
        ({}, spoiled(without_a_mistake), NOT_ITS),
    ],
)
def test_what_cannot_be_tested_is_said_and_the_rest_is_shown(
    leave, compare, changes, spoil, reason
):
    b = leave("b", 2.0, **changes)
    if spoil:
        spoil(b)
    page = compare(leave("a", 0.2), b)
    assert "A and B are not tested as a pair: " in page.text
    assert reason in page.text
    assert "McNemar" not in page.text
    assert page.rows("Figures side by side")["test accuracy"]


def test_models_of_other_training_examples_are_compared_on_the_same_test(leave, compare):
    same = {"test_fingerprint": "blake2b:t"}
    runs = leave("a", 0.2, data=OTHER_DATA | same | {"fingerprint": "sha256:1"})
    page = compare(runs, leave("b", 2.0, data=OTHER_DATA | same))
    assert "their data differ" not in page.text
    assert "A and B are not tested" not in page.text
    assert "McNemar's exact test" in page.text


def test_only_the_settings_that_differ_are_shown(leave, compare):
    long = ", ".join(f"class {c}: 1.5" for c in range(99))
    others = {"seed": None, "odd": None, "flag": True, "outputs": "a"}
    a = leave("a", config=others | {"reg": 1, "class_weight": long})
    b = leave("b", config={"reg": 1.0, "lr": 0.25, "seed": 3}, versions={"numpy": "2.1"})
    rows = compare(a, b).rows("Settings and versions")
    assert rows == {
        "key": ["A", "B"],
        "lr": ["0.1", "0.25"],
        "seed": ["null", "3"],
        "class_weight": [long[:160] + " ...", "null"],
        "flag": ["True", "–"],
        "versions.numpy": ["2.0", "2.1"],
    }
    assert "their settings are the same" in compare(leave("c"), leave("d")).text


def test_the_figures_have_their_uncertainty(leave, compare):
    wide = {"relative": 1.5}
    runs = [leave("a", 0.2), leave("b", 2.0, lr=None), leave("c", seed=3, certificate=wide)]
    page = compare(*runs)
    rows = page.rows("Figures side by side")
    for k, run in enumerate(runs):
        test = run.report["metrics"]["test"]
        between = stats.binomtest(round(test["accuracy"] * 300), 300).proportion_ci(method="wilson")
        shown = [rows[label][k] for label in ("test accuracy", "accuracy, 95% interval")]
        interval = f"{100 * between.low:.1f}–{100 * between.high:.1f}%"
        assert shown == [f"{test['accuracy']:.2%}", interval]
        labels = ("test loss", "top-3 accuracy", "macro F1", "calibration error")
        keys = ("loss", "top_k_accuracy", "macro_f1", "expected_calibration_error")
        assert [rows[label][k] for label in labels] == [f"{test[key]:.4g}" for key in keys]
        error = stats.sem(run.said["test"].log_p)
        assert float(rows["loss, standard error"][k]) == pytest.approx(error, rel=1e-3)
    assert (rows["examples"], rows["seconds"]) == (["300"] * 3, ["1.50"] * 3)
    assert rows["lr"] == ["0.25", "–", "0.25"]
    assert rows["above the optimum, at most"] == ["25.00%", "25.00%", "–"]
    assert "weight norm" not in rows  # no report has it
    train = page.rows("Figures of train")
    assert "accuracy, 95% interval" not in train
    assert train["train loss"][0] == f"{runs[0].report['metrics']['train']['loss']:.4g}"


def test_where_not_all_have_test_figures_the_validation_is_compared(leave, compare, tmp_path):
    a, b = leave("a", 0.2), leave("sweep/1", 2.0)
    mark(tmp_path / "sweep", "sweep")
    short = {key: b.report["metrics"]["train"][key] for key in ("n", "loss", "accuracy")}
    metrics = {"train": short, "val": b.report["metrics"]["val"], "test": None}
    write_json(b.folder / "report.json", b.report | {"metrics": metrics})
    write_predictions(b.folder, {"val": b.said["val"]})
    page = compare(a, b)
    assert "Judged by the validation examples, for not every run was evaluated on test" in page.text
    assert "A sweep chooses its winner by these" in page.text
    rows = page.rows("Figures side by side")
    assert rows["val loss"] == [f"{r.report['metrics']['val']['loss']:.4g}" for r in (a, b)]
    assert page.rows("Figures of test")["test accuracy"][1] == "–"
    assert page.rows("Figures of train")["macro F1"][1] == "–"
    gone = a.report["metrics"] | {"val": None}
    write_json(a.folder / "report.json", a.report | {"metrics": gone})
    page = compare(a, b)
    assert "there is no split on which both were evaluated" in page.text
    assert page.rows("Figures of val")["val accuracy"][0] == "–"


@pytest.mark.parametrize("n", [300, 200])
def test_confusions_are_the_difference_of_two_matrices_in_the_better_ones_colour(leave, compare, n):
    """In percent of a class, of which the runs may have other numbers of examples."""
    a, b = leave("a", 0.2), leave("b", 0.5, seed=1, n=(70, 80, n))
    page = compare(a, b)
    (caption,) = [name for name in page.tables if name.startswith("B less A: percent")]
    said = [run.said["test"][:2] for run in (a, b)]
    one, two = (confusion_matrix(*labels, normalize="true") for labels in said)
    shown = [[int(text or 0) for text in row[1:]] for row in page.tables[caption][1:]]
    np.testing.assert_allclose(shown, 100 * (two - one), atol=0.51)
    for t, p in np.ndindex(4, 4):
        change = two[t, p] - one[t, p]
        better = "run-1" if (change > 0) == (t == p) else "run-0"
        assert page.kinds[caption][t + 1][p + 1] == (better if change else "")
    recalls = page.rows("Recall of the test examples")
    for k, labels in enumerate(said):
        for c, recall in enumerate(recall_score(*labels, average=None)):
            assert recalls[f"class {c}"][k + 1] == f"{recall:.1%}"
    assert recalls["class 1"][0] == str((said[0][0] == 1).sum())


def test_of_many_classes_those_that_differ_most_are_shown_and_the_page_stays_small(leave, compare):
    own = {"n": (9, 9, 300), "n_classes": 50, "image_shape": (64, 64)}
    runs = [leave(str(k), 0.03, seed=k, **own) for k in range(2)]
    page = compare(*runs)
    one, two = (confusion_matrix(*run.said["test"][:2]) for run in runs)
    differ = np.abs(np.diag(two - one) / one.sum(axis=1))
    rows = page.rows("Recall of the test examples")
    shown = [int(name.split()[1]) for name in rows if name != "class"]
    assert len(shown) == 20
    assert differ[shown].min() >= np.delete(differ, shown).max()
    assert any(name.endswith("the 20 of 50 classes that differ most") for name in page.tables)
    table = page.tables["Confusions that changed most"][1:]
    for true, guess, *counts in table:
        place = tuple(int(name.split()[1]) for name in (true, guess))
        assert [int(count) for count in counts] == [one[place], two[place]]
    change = np.abs(two - one) * (1 - np.eye(50, dtype=int))
    assert [abs(int(b) - int(a)) for *_, a, b in table] == sorted(change.ravel())[:-21:-1]
    assert page.html.count("<img") >= 2 * 10
    assert len(page.html) < 3e5


def test_every_class_has_a_template_of_each_run_of_images_of_one_shape(leave, compare):
    runs = [leave(name, seed=k) for k, name in enumerate("abc")]
    images = re.findall(r'<img src="(.*?)" alt="weights of (.*?)"', compare(*runs).html)
    assert [of for _, of in images] == [
        f"class class {c}, run {r}" for c in range(4) for r in "ABC"
    ]
    assert len({*images}) == len({uri for uri, _ in images}) == 12
    strangers = leave("e", names=[f"other {c}" for c in range(4)])
    for other in (leave("d", image_shape=(2, 8)), strangers):
        assert "<img" not in compare(runs[0], other).html


def test_curves_are_drawn_over_each_other_in_the_colour_of_their_run(leave, compare):
    def history(n, val=True):
        vals = (lambda e: (3.0 / e, 0.5)) if val else (lambda _: (None, None))
        return [Epoch(e, 9, 0.1, 2.0 / e, 1 - 0.9 / e, *vals(e), 1) for e in range(1, n + 1)]

    page = compare(leave("a", history=history(20)), leave("b", history=history(40, val=False)))
    loss, accuracy = (chart.split("</svg>")[0] for chart in page.html.split("<svg")[1:])
    for chart in (loss, accuracy):
        lines = dict(re.findall(r'<polyline class="(run.*?)" points="(.*?)"', chart))
        assert list(lines) == ["run-0 mean", "run-0", "run-1"]  # B knows no validation
        assert [len(line.split()) for line in lines.values()] == [20, 20, 40]
    assert "<title>epoch 2: A 1.5, B 1</title>" in loss
    assert "<title>A, kept: epoch 2, 1.5</title>" in loss
    assert "<title>epoch 4: A 50, B 77.5</title>" in accuracy


def test_a_sweep_stands_for_its_winner(leave, compare, tmp_path):
    a, winner = leave("a"), leave("sweep/3", 2.0)
    mark(tmp_path / "sweep", "sweep")
    with pytest.raises(InputError, match="this sweep has no winner yet"):
        write_comparison([a.folder, tmp_path / "sweep"], tmp_path / "out.html")
    summary = {"jobs": [], "swept": [], "objective": "val_loss"}
    write_json(tmp_path / "sweep/sweep.json", summary | {"best": {"job": "3", "folder": "3"}})
    assert "sweep/3" in compare(a, tmp_path / "sweep").text
    for outside in ("../a", str(a.folder), "9"):
        best = {"job": "3", "folder": outside}
        write_json(tmp_path / "sweep/sweep.json", summary | {"best": best})
        with pytest.raises(InputError, match="its winner, job 3, is not there"):
            write_comparison([winner.folder, tmp_path / "sweep"], tmp_path / "out.html")


def put_sweep(folder, losses, seeds=(0,), objective="val_loss"):
    """Leave what a comparison reads of a sweep's jobs, from losses of examples (K, S, m).

    Its sweep.json is that of the program's own statistics.
    """
    jobs, (K, S, m) = [], losses.shape
    for k, s in np.ndindex(K, S):
        name, log_p = str(k * S + s), -losses[k, s].astype(np.float32)
        right = losses[k, s] < 1
        (folder / name).mkdir(parents=True)
        labels = np.zeros(m, int)
        write_predictions(folder / name, {"val": Predictions(labels, 1 - right, log_p)})
        job = dict.fromkeys([*settings.METRICS, *settings.FOLDS, settings.OPTIMUM, "folds"])
        job |= {"job": name, "folder": name, "lr": k, "seed": seeds[s]}
        job |= {"status": "completed", "val_n": m, "train_n": 9 * m}
        job |= {"examples": "e", "val_loss": float(losses[k, s].mean())}
        job |= {"val_accuracy": right.mean(), "val_accuracy_error": right.std() / m**0.5}
        jobs.append(job | {"val_loss_error": stats.sem(losses[k, s])})
    swept = ["lr", "seed"]
    rows = settings.settings_of(jobs, swept, objective)
    settings.mark_worse(rows, jobs, objective, partial(read_validation, folder))
    summary = {"swept": swept, "objective": objective, "jobs": jobs, "settings": rows}
    write_json(folder / "sweep.json", summary | {"best": settings.best_job(rows, objective)})
    return rows


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "S", "shift"),
    [("val_loss", 1, 0.3), ("val_loss", 3, 0.1), ("val_accuracy", 3, 0.2)],
)
def test_a_comparison_within_a_sweep_never_contradicts_its_page(tmp_path, S, objective, shift):
    """Neither where settings are equal nor where they differ by about what can be told."""
    rng, said = np.random.default_rng(S), Counter()
    for n in range(8):
        losses = rng.exponential(size=120) + 0.3 * rng.normal(size=(3, 1, 120))
        losses = losses + 0.1 * rng.normal(size=(3, S, 120))
        losses += 0.03 * rng.normal(size=(3, S, 1))
        losses += (n % 2) * shift * np.arange(3)[:, None, None]
        folder = tmp_path / str(n)
        (best, *others) = settings.rank(put_sweep(folder, losses, range(S), objective), objective)
        for row in others:
            jobs = (folder / best["jobs"][0], folder / row["jobs"][-1])
            pair = [Compared(x, job, {}, [], {}) for x, job in zip("AB", jobs, strict=True)]
            found = {name: (of, n) for name, of, n in settings_pair(*pair, n_pairs=1)}
            apart, n_tests = found[objective]
            assert n_tests == 3
            assert apart.is_real(n_tests) == row["worse"]
            said[row["worse"]] += 1
    assert min(said[True], said[False]) > 1


def test_two_sweeps_are_compared_by_the_means_of_their_best_settings(leave, compare, tmp_path):
    rng = np.random.default_rng(0)
    hard, noise = rng.exponential(size=80), lambda *of: 0.1 * rng.normal(size=of)
    for name, more, signal in (("one", 0.0, 2.0), ("two", 0.6, 1.9)):
        losses = hard + more + np.arange(2)[:, None, None] + noise(2, 3, 80)
        put_sweep(tmp_path / name, losses, range(3))
        mark(tmp_path / name, "sweep")
        best = json.loads((tmp_path / name / "sweep.json").read_text(encoding="utf-8"))["best"]
        run = leave("away/" + name, signal)
        for file in run.folder.iterdir():
            if file.name != PREDICTIONS:
                file.rename(tmp_path / name / best["folder"] / file.name)
    text = compare(tmp_path / "one", tmp_path / "two").text
    over = "over 3 seeds, on the same 80 validation examples"
    verdict = f"The setting of A has a better val_loss than that of B, {over}"
    assert f"{verdict}: the mean of B less that of A is +0." in text
    assert "which allows for 6 pairs of settings" in text
    more = compare(tmp_path / "one", tmp_path / "two", leave("c"))
    assert "which allows for 12 pairs of settings" in more.text
    assert "The setting of A has a better val_accuracy than that of B" in text
    assert "A sweep chooses its winner by these" not in text  # they are the test examples
    assert "A job of a sweep stands for its setting, by the rule of the sweep's own page" in text
    # On validation examples there is one answer, that of the settings.
    for sweep in ("one", "two"):
        summary = json.loads((tmp_path / sweep / "sweep.json").read_text(encoding="utf-8"))
        (job,) = (job for job in summary["jobs"] if job["job"] == summary["best"]["job"])
        path = tmp_path / sweep / job["folder"] / "report.json"
        report = json.loads(path.read_text(encoding="utf-8"))
        val = report["metrics"]["val"] | {"n": 80, "accuracy": job["val_accuracy"]}
        write_json(path, report | {"metrics": report["metrics"] | {"test": None, "val": val}})
    text = compare(tmp_path / "one", tmp_path / "two").text
    assert verdict in text
    assert not re.search("McNemar|not tested as a pair|That of two models", text)
    # What was received leads to no place outside, and nothing is said of an old summary.
    summary = json.loads((tmp_path / "two/sweep.json").read_text(encoding="utf-8"))
    for job in summary["jobs"]:
        del job["examples"]
    write_json(tmp_path / "two/sweep.json", summary)
    assert "The setting of" not in compare(tmp_path / "one", tmp_path / "two").text


def settled(*jobs, n_pairs=1):
    """Return what is said of the settings of two jobs: of each figure the value, and the tests."""
    runs = [Compared(x, job, {}, [], {}) for x, job in zip("AB", jobs, strict=True)]
    found = settings_pair(*runs, n_pairs=n_pairs)
    return {name: (pytest.approx(of.value), n_tests) for name, of, n_tests in found}


def test_settings_are_compared_as_one_of_all_pairs_and_where_that_says_something(tmp_path):
    losses = np.random.default_rng(0).exponential(size=(2, 3, 80))
    for name, objective in (("a", "val_loss"), ("b", "val_loss"), ("c", "val_accuracy")):
        put_sweep(tmp_path / name, losses + (name != "a") / 4, range(3), objective)
    first, same, other = (tmp_path / "a" / job for job in "023")
    means, right = losses.mean(axis=(1, 2)), (losses < 1).mean(axis=(1, 2))
    assert settled(first, other) == {
        "val_accuracy": (right[1] - right[0], 1),
        "val_loss": (means[1] - means[0], 1),
    }
    assert settled(first, tmp_path / "b/0", n_pairs=3)["val_loss"] == (0.25, 6 * 3)
    assert settled(first, same) == {}
    assert settled(first, tmp_path / "c/0") == {}  # whose settings stand by another figure
    for name, changes in (("b", {"examples": "others"}), ("a", {"folds": [0.1, 0.2]})):
        path = tmp_path / name / "sweep.json"
        summary = json.loads(path.read_text(encoding="utf-8"))
        if name == "a":
            summary["objective"] = "cv_loss"
        jobs = [job | changes | {"cv_loss": job["lr"] / 2} for job in summary["jobs"]]
        write_json(path, summary | {"jobs": jobs})
        assert settled(first, tmp_path / "b/0") == {}
    assert list(settled(first, other)) == ["cv_loss"]


FOREIGN = ["null", "[]", '"x"', "5", '{"status": 5}', '{"config": {}, "metrics": {}}']


def test_what_cannot_be_compared_is_told(leave, tmp_path):
    a, linked, lost = (leave(name).folder for name in ("a", "linked", "lost"))
    (tmp_path / "empty").mkdir()
    (linked / PREDICTIONS).unlink()
    (linked / PREDICTIONS).symlink_to(a / PREDICTIONS)

    def refused(words, *others):
        with pytest.raises(InputError, match=words):
            write_comparison([a, *others], tmp_path / "out.html")

    refused("none: is not the folder of a run or a sweep", tmp_path / "none")
    refused("empty: is not the folder of a run or a sweep", tmp_path / "empty")
    refused("is a link or a device", linked)
    refused("named twice", tmp_path / "empty/../a")
    refused("9 runs: at most 8", *[a] * 8)
    for content in FOREIGN:
        (lost / "report.json").write_text(content, encoding="utf-8")
        refused(r"report\.json: is not the report of a run", lost)
        with pytest.raises(InputError, match=r"report\.json: is not the report of a run"):
            write_page(lost)
    (lost / "report.json").unlink()
    refused("this run left no report", lost)
    assert not (tmp_path / "out.html").exists()


def test_nothing_else_is_written_over_and_no_name_is_markup(leave, tmp_path):
    evil = "<script>alert(1)</script>"
    runs = [leave("a", config={evil: evil}).folder, leave("<b>").folder]
    place, notes = tmp_path / "place.html", tmp_path / "notes.html"
    write_comparison(runs, place)
    write_comparison(runs[::-1], place)
    kept = place.read_text(encoding="utf-8")
    assert "Comparison of &lt;b&gt;, a</title>" in kept
    assert (kept.count("<script"), kept.count("&lt;script")) == (1, 4)
    notes.write_text("<title>Notes</title>", encoding="utf-8")
    (tmp_path / "link.html").symlink_to(place)
    (tmp_path / "dangling.html").symlink_to(tmp_path / "new.html")
    (tmp_path / "folder.html").mkdir()
    for name in ("notes", "link", "dangling", "folder"):
        with pytest.raises(InputError, match="is not a comparison that was made here; move it"):
            write_comparison(runs, tmp_path / f"{name}.html")
    assert place.read_text(encoding="utf-8") == kept
    assert not (tmp_path / "new.html").exists()

"""What a run leaves: its figures, which oracles find again from its model, and its reasons."""

import html
import json
import os
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.special import softmax
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss

from classifier import gradient_check
from classifier.model import LinearModel
from classifier.report.pages.draw import draw
from classifier.runs import preparation
from classifier.runs.artifacts import read_history, read_predictions
from classifier.runs.log import RunError
from classifier.runs.run import run
from classifier.shards import HeldOut

TABLES = yaml.safe_load((Path(__file__).parents[2] / "refused.yaml").read_text(encoding="utf-8"))


def read(folder, name):
    text = (folder / name).read_text(encoding="utf-8")
    return json.loads(text) if name.endswith(".json") else text


def data_of(job):
    return job.config.data.load(np.random.default_rng([0, *b"data"]))


def probabilities(model, split, temperature):
    """Return (N, C) in float64, from the arrays of a model file alone."""
    X = (split.X.reshape(len(split), -1) - model.features.shift) / model.features.scale
    return softmax((X @ model.W.astype(float) + model.b) / temperature, axis=1)


def check_figures(split, p, figures, weights, smoothing):
    """Compare the figures of a split with those of scikit-learn; return what is minimised."""
    minimised = figures["loss"]
    assert figures["n"] == len(split)
    assert figures["loss"] == pytest.approx(log_loss(split.y, p, labels=range(10)), rel=1e-5)
    assert figures["accuracy"] == pytest.approx(accuracy_score(split.y, p.argmax(axis=1)))
    if len(figures) > 3:
        found = confusion_matrix(split.y, p.argmax(axis=1), labels=range(10)).tolist()
        assert figures["confusion_matrix"] == found
    counts = np.ones(len(split)) if weights is None else weights[split.y]
    if weights is not None:
        expected = log_loss(split.y, p, sample_weight=counts)
        assert figures["weighted_loss"] == pytest.approx(expected, rel=1e-5)
    if smoothing or weights is not None:
        labels = (1 - smoothing) * np.eye(10)[split.y] + smoothing / 10
        minimised = np.average(-np.sum(labels * np.log(p), axis=1), weights=counts)
    if smoothing and len(figures) > 3:
        assert figures["smoothed_loss"] == pytest.approx(minimised, rel=1e-5)
    return minimised


LARGER = np.where(np.arange(10) == 3, 5.0, 1.0)
# Settings; weights of the classes; the words about what is minimised; splits known in full. The
# jobs of a sweep leave the test split alone.
SETTINGS = [
    ("reg=1e-2", None, "(training loss + penalty)", "val test"),
    ("class_weight={3: 5}", LARGER, "(weighted training loss + penalty)", "train val test"),
    ("label_smoothing=0.2", None, "(smoothed training loss + penalty)", "val test"),
    ("calibrate=true label_smoothing=0.1", None, "temperature ", "train val test"),
    ("data.val_fraction=0", None, "(training loss + penalty)", "test"),
    ("data.val_fraction=0 data.test_fraction=0", None, "(training loss + pen", "train"),
    ("optimizer=lbfgs reg=1e-2", None, "(training loss + penalty)", "val"),
    ("class_weight={3: 5} calibrate=true", LARGER, "temperature ", "train val"),
]


@pytest.mark.parametrize(("settings", "weights", "words", "full"), SETTINGS)
def test_the_report_is_that_of_the_saved_model_on_the_same_data(
    settings, weights, words, full, job_of, tmp_path
):
    in_full, of_sweep = full.split(), full in ("val", "train val")
    job = job_of(tmp_path, "epochs=5", *re.split(" (?![35])", settings))
    (report,) = run([job], of_sweep=of_sweep)
    assert read(tmp_path, "report.json") == json.loads(json.dumps(report))
    dataset, smoothing = data_of(job), job.config.label_smoothing
    model = LinearModel.load(tmp_path / "model.npz")
    assert model.config == report["config"] == job.plain
    flat = dataset.train.X.reshape(-1, 64)
    np.testing.assert_allclose(model.features.shift, flat.mean(axis=0))
    for name, split in dataset.splits().items():
        figures = report["metrics"][name]
        if len(split) == 0 or (name == "test" and of_sweep):
            assert figures is None
            continue
        assert ("per_class" in figures) == (name in in_full)
        p = probabilities(model, split, model.temperature)
        minimised = check_figures(split, p, figures, weights, smoothing)
        if job.config.calibrate:
            before = log_loss(split.y, probabilities(model, split, 1.0))
            found = report["calibration"]["before"][name]["loss"]
            assert found == pytest.approx(before, rel=1e-6)
        elif name == "train":
            penalty = job.config.reg * float(np.sum(model.W.astype(float) ** 2))
            assert report["objective"] == pytest.approx(minimised + penalty, rel=1e-5)
        elif name == "val" and not smoothing:
            best = read_history(tmp_path / "history.csv")[report["best_epoch"] - 1]
            assert best.val_loss == pytest.approx(minimised, rel=1e-4)
    held_out = {name for name in in_full if name != "train"}
    assert held_out == set() or {*read_predictions(tmp_path)} == held_out
    assert words in read(tmp_path, "report.txt")
    if job.config.calibrate:  # on validation alone: no other temperature is better there
        near = model.temperature * np.array([0.99, 1, 1.01])
        losses = [log_loss(dataset.val.y, probabilities(model, dataset.val, t)) for t in near]
        assert np.argmin(losses) == 1
        assert report["calibration"]["temperature"] == model.temperature != 1
    if "test" in in_full:
        mistakes = report["metrics"]["test"]["mistakes"]
        rows = [mistake["index"] for mistake in mistakes]
        assert [mistake["true"] for mistake in mistakes] == [str(dataset.test.y[k]) for k in rows]
        with np.load(tmp_path / "mistakes.npz", allow_pickle=False) as file:
            np.testing.assert_array_equal(file["X"], dataset.test.X[rows].reshape(-1, 8, 8))


@pytest.mark.parametrize("weight", ["1e308", "1e-320"])
def test_class_weights_of_any_size_say_what_they_say_of_each_other(weight, job_of, tmp_path):
    all_alike = "{" + ",".join(f"{name}: {weight}" for name in range(10)) + "}"
    for place, own in (("one", "null"), ("large", all_alike)):
        run([job_of(tmp_path / place, f"class_weight={own}", "epochs=2")])
    one, large = (LinearModel.load(tmp_path / place / "model.npz") for place in ("one", "large"))
    np.testing.assert_allclose(large.W, one.W, atol=1e-6)
    found = read(tmp_path / "large", "report.json")["metrics"]["test"]
    assert found["weighted_loss"] == pytest.approx(found["loss"], rel=1e-6)


def test_the_report_says_how_the_run_went(job_of, tmp_path):
    (report,) = run([job_of(tmp_path, "data=blobs", "lr_scale=0.5", "epochs=9")])
    losses = [row.val_loss for row in read_history(tmp_path / "history.csv")]
    assert read(tmp_path, "status.json")["status"] == report["status"] == "completed"
    assert report["lr"] == pytest.approx(0.5 / report["smoothness"])
    assert report["largest_stable_lr"] == pytest.approx(2 / report["smoothness"])
    assert 0 < report["gradient_check"]["max_relative_error"] < gradient_check.LIMIT
    assert (report["epochs"], report["best_epoch"]) == (len(losses), 1 + int(np.argmin(losses)))
    assert set(report["seconds"]) >= {"data", "preprocessing", "training", "evaluation"}


def test_a_stack_of_jobs_leaves_what_each_would_leave_alone(job_of, tmp_path):
    quick = ["data=blobs", "epochs=9"]
    overrides = [["lr=0.01", "reg=0"], ["lr=auto", "reg=0.1"], ["lr=0.3", "momentum=0.5"]]
    overrides += [["lr=0.2", "lr_scale=3"]]
    begun = time.perf_counter()
    reports = run([job_of(tmp_path / f"{i}", *quick, *o) for i, o in enumerate(overrides)])
    elapsed = time.perf_counter() - begun
    assert sum(sum(one["seconds"].values()) for one in reports) < elapsed  # each has its share
    assert reports[3]["lr"] == pytest.approx(3 * 0.2)
    logs = [read(tmp_path / f"{i}", "train.log") for i in range(4)]
    assert [log.count("lr 0.01,") for log in logs] == [1, 0, 0, 0]  # each has its own lines
    for i, o in enumerate(overrides):
        (alone,) = run([job_of(tmp_path / f"alone {i}", *quick, *o)])
        assert reports[i]["lr"] == pytest.approx(alone["lr"])
        assert reports[i]["objective"] == pytest.approx(alone["objective"], rel=1e-3)
        assert read(tmp_path / f"{i}", "report.json")["reg"] == alone["reg"]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_diverged_run_says_so_and_writes_its_report(optimizer, job_of, tmp_path, caplog):
    settings = [(place, f"optimizer={optimizer}") for place in ("wild", "good")]
    lr = {"wild": "lr=1e9", "good": "lr=auto"}
    jobs = [job_of(tmp_path / place, o, lr[place], "epochs=9") for place, o in settings]
    with pytest.raises(RunError, match=r" with lr=1e\+09; .*use lr=auto \([\d.]+ here") as told:
        run(jobs)
    status, report = read(tmp_path / "wild", "status.json"), read(tmp_path / "wild", "report.json")
    assert status["status"] == report["status"] == "diverged"
    assert status["reason"] == str(told.value)
    stable = report["largest_stable_lr"]
    assert (stable is None) == ("2/L" not in caplog.text) == (optimizer == "adam")
    assert stable is None or f"2/L = {stable:.4g}" in status["reason"]
    assert report["best_epoch"] == 0 or optimizer == "adam"
    assert np.isfinite(LinearModel.load(tmp_path / "wild/model.npz").W).all()
    assert [r.message for r in caplog.records if r.levelname == "ERROR"] == [status["reason"]]
    assert read(tmp_path / "good", "status.json")["status"] == "completed"


def test_a_wrong_gradient_stops_the_run(job_of, tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "check_stacked_gradient", lambda *_: 3e-5)
    with pytest.raises(RunError, match="relative error 3.0e-05, over 1e-05"):
        run([job_of(tmp_path, "data=blobs")])
    assert read(tmp_path, "status.json")["status"] == "failed"
    assert not (tmp_path / "model.npz").exists()
    run([job_of(tmp_path, "data=blobs", "check_gradient=false", "epochs=1")])
    assert read(tmp_path, "report.json")["gradient_check"]["max_relative_error"] is None


@pytest.mark.parametrize(("settings", "told"), TABLES["doubtful"].items())
def test_the_log_and_the_page_warn_of_what_makes_a_run_doubtful(
    settings, told, job_of, tmp_path, caplog
):
    words, on_page = told
    run([job_of(tmp_path, "epochs=1", *settings.split())])
    warned = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert any(words in line for line in warned) if words else warned == []
    draw("page", tmp_path)
    page = html.unescape((tmp_path / "report.html").read_text(encoding="utf-8"))
    flags = re.findall(r'<p class="flag">⚑ (.*?)</p>', page)
    assert flags == [line for line in warned if on_page or words not in line]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_the_status_is_written_last_and_is_on_the_disk(job_of, tmp_path, monkeypatch):
    flushed, replaced = [], []

    def fsync(descriptor):
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink())

    replace = Path.replace
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", lambda *ab: replaced.append(ab[1]) or replace(*ab))
    jobs = [job_of(tmp_path / f"{k}", f"reg={k}", "epochs=2") for k in range(2)]
    run(jobs)
    names = [path.name.strip(".").split(".")[0] for path in flushed]
    assert names == ["checkpoint"] * (len(names) - 2) + ["status"] * 2
    for job in jobs:
        own = [path.name for path in replaced if path.parent == job.folder]
        assert own[-1] == "status.json"
        assert read(job.folder, "status.json")["status"] == "completed"


STEP = ["lr=1e20", "epochs=1", "batch_size=2000", "data.val_fraction=0"]


@pytest.mark.parametrize("more", [[], ["cv=3"], ["label_smoothing=0.1"]])
def test_a_model_whose_last_step_diverged_is_not_completed(more, job_of, tmp_path):
    with pytest.raises(RunError, match=r"diverged in epoch 1 with lr=1e\+20"):
        run([job_of(tmp_path, *STEP, *more)])
    assert read(tmp_path, "status.json")["status"] == "diverged"
    report = read(tmp_path, "report.json")
    assert (report["status"], report["best_epoch"]) == ("diverged", 0)
    assert report["objective"] == pytest.approx(np.log(10))
    np.testing.assert_array_equal(LinearModel.load(tmp_path / "model.npz").W, 0)


@pytest.mark.parametrize("more", [[], ["cv=2"]])
def test_a_path_that_leads_to_no_number_is_not_completed(more, job_of, tmp_path, monkeypatch):
    def start(models, wanted, known):
        return np.full((10, len(wanted), 65), np.nan, np.float32)

    monkeypatch.setattr("classifier.optimum.start", start)
    regs = [1e-1, 1e-2, 1e-3, 9e-4, 1e-4, 0]  # without a penalty the curve is needed
    own = ["optimizer=lbfgs", "epochs=200", *more]
    jobs = [job_of(tmp_path / str(reg), *own, f"reg={reg}") for reg in regs]
    with pytest.raises(RunError, match="diverged"):
        run(jobs, of_sweep=True)
    for reg in regs:
        # Of a cross-validation the folds start from others, too.
        expected = "diverged" if more or reg == 0 else "completed"
        for name in ("status.json", "report.json"):
            assert read(tmp_path / str(reg), name)["status"] == expected
        assert np.isfinite(LinearModel.load(tmp_path / str(reg) / "model.npz").W).all()


def test_a_run_is_not_completed_where_a_fold_has_no_finite_loss(job_of, tmp_path, monkeypatch):
    found = [HeldOut(np.array([loss]), np.array([0.5]), np.zeros(1)) for loss in (0.5, np.nan, 0.5)]
    monkeypatch.setattr("classifier.runs.results.evaluate_folds", lambda *_: found)
    with pytest.raises(RunError, match="the model without fold 2 diverged"):
        run([job_of(tmp_path, "data=blobs", "cv=3", "epochs=2")])
    assert "cross_validation" not in read(tmp_path, "report.json")


def test_the_seed_and_nothing_else_decides_the_weights(job_of, tmp_path):
    def weights(name, *overrides):
        run([job_of(tmp_path / name, "data=blobs", "epochs=2", *overrides)])
        return LinearModel.load(tmp_path / name / "model.npz").W

    first = weights("a")
    np.testing.assert_array_equal(first, weights("b"))
    np.testing.assert_array_equal(first, weights("c", "check_gradient=false"))
    assert not np.array_equal(first, weights("d", "seed=1"))

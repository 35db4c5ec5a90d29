import dataclasses
import html
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss

from classifier import gradient_check
from classifier.model import LinearModel
from classifier.report.pages.run_page import write_run_page
from classifier.runs import results
from classifier.runs.artifacts import read_history, read_predictions
from classifier.runs.log import RunError
from classifier.runs.run import run
from data.errors import InputError


def read(folder, name):
    text = (folder / name).read_text(encoding="utf-8")
    return json.loads(text) if name.endswith(".json") else text


def data_of(job):
    return job.config.data.load(np.random.default_rng([0, *b"data"]))


def test_the_report_is_that_of_the_saved_model_on_the_same_data(job_of, tmp_path):
    job = job_of(tmp_path, "reg=1e-3")
    run([job])
    report, model = read(tmp_path, "report.json"), LinearModel.load(tmp_path / "model.npz")
    dataset = data_of(job)
    assert report["data"]["fingerprint"] == dataset.fingerprint
    for name, split in dataset.splits().items():
        flat = split.X.reshape(len(split), -1)
        prepared = (flat - model.features.shift) / model.features.scale
        p = softmax(prepared @ model.W.astype(float) + model.b, axis=1)
        found = report["metrics"][name]
        assert found["n"] == len(split)
        assert found["loss"] == pytest.approx(log_loss(split.y, p), rel=1e-4)
        assert found["accuracy"] == pytest.approx(accuracy_score(split.y, p.argmax(axis=1)))
    penalty = 1e-3 * float(np.sum(model.W.astype(float) ** 2))
    objective = report["metrics"]["train"]["loss"] + penalty
    assert report["objective"] == pytest.approx(objective, rel=1e-6)
    assert report["metrics"]["test"]["accuracy"] >= 0.96
    assert model.config == job.plain
    np.testing.assert_allclose(model.features.shift, dataset.train.X.reshape(-1, 64).mean(axis=0))


def test_jobs_of_a_sweep_leave_the_test_split_alone_and_the_training_figures_are_right(
    job_of, tmp_path, monkeypatch
):
    sizes, evaluate_stack = [], results.evaluate_stack

    def counted(stack, X, y, *more):
        sizes.append(len(y))
        return evaluate_stack(stack, X, y, *more)

    monkeypatch.setattr(results, "evaluate_stack", counted)
    jobs = [job_of(tmp_path / str(k), f"reg={reg}", "epochs=3") for k, reg in enumerate([0, 1e-2])]
    stacked = run(jobs, of_sweep=True)
    dataset = data_of(jobs[0])
    assert sizes == [len(dataset.val)]
    for job, report in zip(jobs, stacked, strict=True):
        assert report["metrics"]["test"] is None
        model, train = LinearModel.load(job.folder / "model.npz"), dataset.train
        p = model.predict_proba(train.X)
        found = report["metrics"]["train"]
        assert found["n"] == len(train)
        assert found["loss"] == pytest.approx(log_loss(train.y, p), rel=1e-5)
        assert found["accuracy"] == pytest.approx(accuracy_score(train.y, p.argmax(axis=1)))
        penalty = job.config.reg * float(np.sum(model.W.astype(float) ** 2))
        assert report["objective"] == pytest.approx(found["loss"] + penalty, rel=1e-5)
        assert {*read_predictions(job.folder)} == {"val"}
    (alone,) = run([job_of(tmp_path / "alone", "reg=1e-2", "epochs=3")])
    assert alone["metrics"]["test"]["n"] == len(dataset.test)
    # Of the same stack, each has its share of the time.
    assert stacked[0]["seconds"]["training"] == stacked[1]["seconds"]["training"]


@pytest.mark.parametrize(
    "setting", ["class_weight=balanced", "calibrate=true", "data.val_fraction=0"]
)
def test_training_figures_that_the_last_pass_does_not_have_are_evaluated(job_of, tmp_path, setting):
    own = [setting, "epochs=3", "reg=1e-2"]
    job = job_of(tmp_path / "0", *own)
    (stacked,) = run([job], of_sweep=True)
    (alone,) = run([job_of(tmp_path / "alone", *own)])
    train = data_of(job).train
    p = LinearModel.load(tmp_path / "0" / "model.npz").predict_proba(train.X)
    found = stacked["metrics"]["train"]
    assert found["loss"] == pytest.approx(log_loss(train.y, p), rel=1e-5)
    assert found["confusion_matrix"] == confusion_matrix(train.y, p.argmax(axis=1)).tolist()
    assert stacked["metrics"]["test"] is None
    assert stacked["objective"] == pytest.approx(alone["objective"], rel=1e-6)
    # A run on its own has test examples to evaluate, where a job of a sweep has none but these.
    in_full = setting != "data.val_fraction=0"
    assert ("confusion_matrix" in alone["metrics"]["train"]) == in_full


def test_class_weights_count_in_what_is_minimised_and_chosen_by(job_of, tmp_path):
    weights = np.where(np.arange(10) == 3, 5.0, 1.0)
    job = job_of(tmp_path, "class_weight={3: 5}", "early_stopping.patience=5")
    run([job])
    report, model = read(tmp_path, "report.json"), LinearModel.load(tmp_path / "model.npz")
    dataset = data_of(job)
    losses = {}
    for name, split in dataset.splits().items():
        p = model.predict_proba(split.X)
        losses[name] = log_loss(split.y, p, sample_weight=weights[split.y])
        assert report["metrics"][name]["weighted_loss"] == pytest.approx(losses[name], rel=1e-5)
        assert report["metrics"][name]["loss"] == pytest.approx(log_loss(split.y, p), rel=1e-5)
    penalty = 1e-4 * float(np.sum(model.W.astype(float) ** 2))
    assert report["objective"] == pytest.approx(losses["train"] + penalty, rel=1e-5)
    assert "(weighted training loss + penalty)" in read(tmp_path, "report.txt")
    best = read_history(tmp_path / "history.csv")[report["best_epoch"] - 1]
    assert best.val_loss == pytest.approx(losses["val"], rel=1e-4)


@pytest.mark.parametrize("weight", ["1e308", "1e-300", "1e-320"])
def test_class_weights_of_any_size_say_what_they_say_of_each_other(weight, job_of, tmp_path):
    all_alike = "{" + ",".join(f"{name}: {weight}" for name in range(10)) + "}"
    for place, own in (("one", "null"), ("large", all_alike)):
        run([job_of(tmp_path / place, f"class_weight={own}", "epochs=3")])
    one, large = (LinearModel.load(tmp_path / place / "model.npz") for place in ("one", "large"))
    np.testing.assert_allclose(large.W, one.W, atol=1e-6)
    found = read(tmp_path / "large", "report.json")["metrics"]["test"]
    assert found["weighted_loss"] == pytest.approx(found["loss"], rel=1e-6)


def test_label_smoothing_is_part_of_what_is_minimised(job_of, tmp_path):
    job = job_of(tmp_path, "label_smoothing=0.2", "epochs=5")
    run([job])
    report, model = read(tmp_path, "report.json"), LinearModel.load(tmp_path / "model.npz")
    train = data_of(job).train
    smooth = 0.8 * np.eye(10)[train.y] + 0.2 / 10
    loss = -np.mean(np.sum(smooth * np.log(model.predict_proba(train.X)), axis=1))
    penalty = 1e-4 * float(np.sum(model.W.astype(float) ** 2))
    assert report["objective"] == pytest.approx(loss + penalty, rel=1e-6)
    assert "(smoothed training loss + penalty)" in read(tmp_path, "report.txt")


def test_calibration_divides_the_scores_and_reports_both(job_of, tmp_path):
    job = job_of(tmp_path, "calibrate=true", "label_smoothing=0.1")
    run([job])
    report, model = read(tmp_path, "report.json"), LinearModel.load(tmp_path / "model.npz")
    dataset = data_of(job)
    assert model.temperature == report["calibration"]["temperature"] != 1
    before = dataclasses.replace(model, temperature=1.0)
    for name, split in dataset.splits().items():
        for found, m in ((report["calibration"]["before"], before), (report["metrics"], model)):
            p = m.predict_proba(split.X)
            assert found[name]["loss"] == pytest.approx(log_loss(split.y, p), rel=1e-6)
    # Fitted on validation alone: no other temperature is better there.
    losses = [
        log_loss(
            dataset.val.y, dataclasses.replace(model, temperature=t).predict_proba(dataset.val.X)
        )
        for t in model.temperature * np.array([0.99, 1, 1.01])
    ]
    assert np.argmin(losses) == 1
    assert f"temperature {model.temperature:.4g}" in read(tmp_path, "report.txt")


def test_the_surest_mistakes_are_kept_as_images(job_of, tmp_path):
    job = job_of(tmp_path, "epochs=3")
    run([job])
    mistakes = read(tmp_path, "report.json")["metrics"]["test"]["mistakes"]
    test = data_of(job).test
    rows = [mistake["index"] for mistake in mistakes]
    assert [mistake["true"] for mistake in mistakes] == [str(test.y[row]) for row in rows]
    with np.load(tmp_path / "mistakes.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["X"], test.X[rows].reshape(-1, 8, 8))


def test_the_report_says_how_the_run_went(job_of, tmp_path):
    job = job_of(tmp_path, "data=blobs")
    run([job])
    report, history = read(tmp_path, "report.json"), read_history(tmp_path / "history.csv")
    assert read(tmp_path, "status.json")["status"] == report["status"] == "completed"
    assert report["config"] == job.plain
    assert report["lr"] == pytest.approx(1 / report["smoothness"])
    assert report["largest_stable_lr"] == pytest.approx(2 / report["smoothness"])
    assert 0 < report["gradient_check"]["max_relative_error"] < gradient_check.LIMIT
    assert report["epochs"] == len(history)
    losses = [row.val_loss for row in history]
    assert report["best_epoch"] == 1 + int(np.argmin(losses))
    assert report["metrics"]["val"]["loss"] == pytest.approx(min(losses), rel=1e-4)
    assert set(report["seconds"]) >= {"data", "preprocessing", "training", "evaluation"}
    assert set(report["versions"]) >= {"python", "numpy"}
    assert f"{report['metrics']['test']['accuracy']:.4f}" in read(tmp_path, "report.txt")


@pytest.mark.parametrize("lr", ["auto", "0.2"])
def test_lr_scale_multiplies_whatever_lr_is(lr, job_of, tmp_path):
    overrides = ["data=blobs", "epochs=1", f"lr={lr}"]
    (one,) = run([job_of(tmp_path / "1", *overrides)])
    (three,) = run([job_of(tmp_path / "3", *overrides, "lr_scale=3")])
    assert three["lr"] == pytest.approx(3 * one["lr"])


def test_a_stack_of_jobs_leaves_what_each_would_leave_alone(job_of, tmp_path):
    overrides = [["lr=0.01", "reg=0"], ["lr=auto", "reg=0.1"], ["lr=0.3", "momentum=0.5"]]
    reports = run([job_of(tmp_path / f"{i}", "data=blobs", *o) for i, o in enumerate(overrides)])
    for i, o in enumerate(overrides):
        (alone,) = run([job_of(tmp_path / f"alone {i}", "data=blobs", *o)])
        assert reports[i]["lr"] == pytest.approx(alone["lr"])
        assert reports[i]["objective"] == pytest.approx(alone["objective"], rel=1e-3)
        assert read(tmp_path / f"{i}", "report.json")["reg"] == alone["reg"]


@pytest.mark.parametrize("others", [[], ["lr=0.1"]])
def test_a_diverged_run_says_so_and_writes_its_report(others, job_of, tmp_path, caplog):
    jobs = [job_of(tmp_path / "wild", "lr=1e9")]
    jobs += [job_of(tmp_path / "good", o) for o in others]
    with pytest.raises(RunError, match=r"diverged in epoch 1 with lr=1e\+09") as caught:
        run(jobs)
    status, report = read(tmp_path / "wild", "status.json"), read(tmp_path / "wild", "report.json")
    assert status["status"] == report["status"] == "diverged"
    assert status["reason"] == str(caught.value)
    assert f"2/L = {report['largest_stable_lr']:.4g}" in status["reason"]
    assert report["best_epoch"] == 0
    assert np.isfinite(LinearModel.load(tmp_path / "wild/model.npz").W).all()
    assert [r.message for r in caplog.records if r.levelname == "ERROR"] == [status["reason"]]
    for _ in others:
        assert read(tmp_path / "good", "status.json")["status"] == "completed"


def test_a_wrong_gradient_stops_the_run(job_of, tmp_path, monkeypatch):
    monkeypatch.setattr(gradient_check, "check_stacked_gradient", lambda *_: 3e-5)
    with pytest.raises(RunError, match="relative error 3.0e-05, over 1e-05"):
        run([job_of(tmp_path)])
    assert read(tmp_path, "status.json")["status"] == "failed"
    assert not (tmp_path / "model.npz").exists()
    run([job_of(tmp_path, "check_gradient=false", "epochs=1")])
    assert read(tmp_path, "report.json")["gradient_check"]["max_relative_error"] is None


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["lr=1000", "epochs=5"], "no better than that of guessing, ln 10 = 2.303, while the "),
        (["data.val_fraction=0", "data.test_fraction=0"], "no example is held out"),
        (["schedule.warmup_steps=100000", "epochs=3"], "lr is never reached"),
        (["data=blobs", "lr=1e3", "epochs=1"], "The step of lr=1000 is 3.1e+02 times the largest"),
        (["data=blobs", "lr=1e-8", "epochs=1"], "lr=1e-08 is very small beside lr=auto"),
        (["data=blobs", "reg=1e4", "epochs=1"], "reg=1e+04 outweighs the data"),
    ],
)
def test_what_makes_a_run_doubtful_is_told(overrides, words, job_of, tmp_path, caplog):
    run([job_of(tmp_path, *overrides)])
    assert words in caplog.text


def test_settings_near_those_that_the_run_computes_are_not_warned_of(job_of, tmp_path, caplog):
    run([job_of(tmp_path, "data=blobs", "epochs=1", "lr_scale=3.9", "reg=1e-2")])
    assert not re.search("beside lr=auto|The step of|outweighs", caplog.text)


@pytest.mark.parametrize(
    "overrides",
    [
        ["lr=10", "epochs=3"],
        ["data=blobs", "lr=1e-7", "epochs=1"],
        ["data=blobs", "reg=1e4", "optimizer=lbfgs"],
        ["optimizer=adam", "lr=1", "epochs=2"],
    ],
)
def test_the_log_and_the_page_warn_of_the_same(overrides, job_of, tmp_path, caplog):
    run([job_of(tmp_path, *overrides)])
    write_run_page(tmp_path)
    page = html.unescape((tmp_path / "report.html").read_text(encoding="utf-8"))
    warned = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert warned
    assert warned == re.findall(r'<p class="flag">⚑ (.*?)</p>', page)


def test_without_held_out_splits_there_are_no_figures_for_them(job_of, tmp_path):
    run([job_of(tmp_path, "data.val_fraction=0", "data.test_fraction=0", "epochs=4")])
    report = read(tmp_path, "report.json")
    assert report["metrics"]["val"] is None
    assert report["metrics"]["test"] is None
    assert report["best_epoch"] == 4


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


def test_the_seed_and_nothing_else_decides_the_weights(job_of, tmp_path):
    def weights(name, *overrides):
        run([job_of(tmp_path / name, "epochs=3", *overrides)])
        return LinearModel.load(tmp_path / name / "model.npz").W

    first = weights("a")
    np.testing.assert_array_equal(first, weights("b"))
    np.testing.assert_array_equal(first, weights("c", "check_gradient=false"))
    assert not np.array_equal(first, weights("d", "seed=1"))


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
    statuses = {reg: read(tmp_path / str(reg), "status.json")["status"] for reg in regs}
    # Of a cross-validation the folds start from others, too.
    expected = {reg: "diverged" if more or reg == 0 else "completed" for reg in regs}
    assert statuses == expected
    for reg in regs:
        assert read(tmp_path / str(reg), "report.json")["status"] == statuses[reg]
        assert np.isfinite(LinearModel.load(tmp_path / str(reg) / "model.npz").W).all()


def test_a_run_is_not_completed_where_a_fold_has_no_finite_loss(job_of, tmp_path, monkeypatch):
    losses = iter([0.5, np.nan, 0.5])
    found = lambda *_: (np.array([next(losses)]), np.array([0.5]))  # noqa: E731
    monkeypatch.setattr("classifier.runs.results.evaluate_held_out", found)
    with pytest.raises(RunError, match="the model without fold 2 diverged"):
        run([job_of(tmp_path, "cv=3", "epochs=2")])
    assert "cross_validation" not in read(tmp_path, "report.json")


FAIR = "must be balanced or a weight for each class"
REFUSED = [
    (["class_weight={3: 1e308}"], "the examples of class 0 would not count beside those with the"),
    (["class_weight={3.0: 2}"], r"there is no class 3.0 (0, 1, 2"),
    (["class_weight={03: 2}"], r"there is no class 03 (0, 1, 2"),
    (["class_weight={true: 2}"], r"there is no class True (0, 1, 2"),
    (["class_weight={11: 2}"], "class_weight: there is no class 11"),
    (["class_weight={3: -1}"], "class_weight: -1 is not a number above 0"),
    (["class_weight={3: many}"], "class_weight: many is not a number above 0"),
    *((["class_weight=" + value], FAIR) for value in ("5", "[1,2]", "fair")),
    (["calibrate=true", "data.val_fraction=0"], "calibrate=true: there is no validation split"),
    (["data=arrays", "data.train=none.npz"], "none.npz: no such file"),
    (["data=arrays", "data.train=x.npz", "data.val=v.npz"], "that float32 cannot hold after prepr"),
    (["data=arrays", "data.train=u.npz", "preprocessing=none"], "lr=auto: "),
]


@pytest.mark.parametrize(("overrides", "words"), REFUSED)
def test_what_cannot_be_used_fails_the_run_with_the_reason(
    overrides, words, job_of, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    X = np.random.default_rng(0).random((60, 3))
    for name, size in (("x", 1), ("v", 1e300), ("u", 1e25)):
        np.savez(f"{name}.npz", X=size * X, y=np.arange(60) % 2)
    with pytest.raises((InputError, FileNotFoundError), match=re.escape(words)):
        run([job_of(tmp_path / "r", *overrides, "epochs=1")])
    status = read(tmp_path / "r", "status.json")
    assert status["status"] == "failed"
    assert words in status["reason"]
    if "preprocessing=none" in overrides:
        assert "use preprocessing=standardize" in status["reason"]
        run([job_of(tmp_path / "s", *overrides[:2], "epochs=1")])


def test_adam_is_given_no_bound_that_is_not_its_own(job_of, tmp_path, caplog):
    with pytest.raises(RunError, match=r"lr=1e\+06; use lr=auto \([\d.]+ here\) or less"):
        run([job_of(tmp_path, "optimizer=adam", "lr=1e6")])
    assert read(tmp_path, "report.json")["largest_stable_lr"] is None
    assert "2/L" not in caplog.text

"""reg=auto: a run that chooses its penalty from a path, by a validation split or by folds."""

import json
import signal

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

from classifier.model import LinearModel
from classifier.runs.log import Stopped
from classifier.runs.run import run
from data.errors import InputError
from data.files.store import read_plain

PATH = ["reg=auto", "reg_path.from=1e-1", "reg_path.to=1e-3", "reg_path.n=5"]
OPTIMUM = ["optimizer=lbfgs", "epochs=1000", "optimizer.tol=1e-5"]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Return train, validation and test examples of three classes that overlap, in files."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 600)
    X = rng.standard_normal((600, 30)) + 0.4 * rng.standard_normal((3, 30))[y]
    parts = {"train": slice(200), "val": slice(200, 400), "test": slice(400, 600)}
    for name, rows in parts.items():
        np.savez(f"{name}.npz", X=X[rows], y=y[rows])
    return {name: (X[rows], y[rows]) for name, rows in parts.items()}


def given(*names):
    return ["data=arrays", *(f"data.{name}={name}.npz" for name in names)]


def logistic_regression(X, y, reg):
    return LogisticRegression(C=1 / (2 * reg * len(y)), tol=1e-9, max_iter=10_000).fit(X, y)


def test_the_validation_split_chooses_and_the_model_is_that_of_the_training_split(
    files, job_of, tmp_path
):
    (report,) = run([job_of(tmp_path / "r", *given(*files), *OPTIMUM, *PATH)])
    scaler = StandardScaler().fit(files["train"][0])
    X, X_val, X_test = (scaler.transform(files[name][0]) for name in files)
    y, y_val, y_test = (files[name][1] for name in files)
    path = report["reg_path"]
    losses = []
    for row in path["penalties"]:
        other = logistic_regression(X, y, row["reg"])
        log_p = other.predict_log_proba(X_val)[np.arange(len(y_val)), y_val]
        losses.append(-log_p.mean())
        assert row["loss"] == pytest.approx(losses[-1], rel=5e-3)
        assert row["loss_error"] == pytest.approx(stats.sem(log_p), rel=5e-2)
        assert row["accuracy"] == pytest.approx(other.score(X_val, y_val), abs=0.011)
        assert row["train_loss"] == pytest.approx(log_loss(y, other.predict_proba(X)), rel=5e-3)
        assert row["weight_norm"] == pytest.approx(np.linalg.norm(other.coef_), rel=1e-2)
        assert row["above_optimum"] <= 1e-5
    best = path["penalties"][int(np.argmin(losses))]
    assert (path["by"], path["n"], path["best"]) == ("val", 200, best["reg"])
    assert report["reg"] == best["reg"]
    assert report["config"]["reg"] == "auto"
    other = logistic_regression(X, y, report["reg"])
    assert report["metrics"]["test"]["accuracy"] == pytest.approx(
        other.score(X_test, y_test), abs=0.011
    )
    assert report["metrics"]["val"]["loss"] == pytest.approx(best["loss"], rel=1e-5)
    text = (tmp_path / "r/report.txt").read_text(encoding="utf-8")
    assert f"reg {report['reg']:.2g} by 200 validation examples: " in text


def test_folds_choose_and_the_model_is_that_of_all_examples_but_the_test(files, job_of, tmp_path):
    (report,) = run([job_of(tmp_path / "r", *given("train", "test"), *OPTIMUM, *PATH, "cv=4")])
    assert report["metrics"]["val"] is None
    assert report["metrics"]["train"]["n"] == 200
    path = report["reg_path"]
    for row in path["penalties"][1::2]:  # each alone is the same
        more = [*OPTIMUM, f"reg={row['reg']}", "cv=4", "data.val_fraction=0"]
        (alone,) = run([job_of(tmp_path / str(row["reg"]), *given("train", "test"), *more)])
        folds = alone["cross_validation"]
        for name in ("loss", "loss_error", "accuracy", "accuracy_error"):
            assert row[name] == pytest.approx(folds[name], rel=2e-2, abs=1e-3)
    chosen = min(path["penalties"], key=lambda row: row["loss"])
    assert report["reg"] == chosen["reg"] == path["best"]
    near = [
        r["reg"] for r in path["penalties"] if r["loss"] <= chosen["loss"] + chosen["loss_error"]
    ]
    assert path["one_standard_error"] == max(near)
    assert report["cross_validation"]["loss"] == pytest.approx(chosen["loss"])
    X, y = StandardScaler().fit_transform(files["train"][0]), files["train"][1]
    other = logistic_regression(X, y, report["reg"])
    model = LinearModel.load(tmp_path / "r/model.npz")
    np.testing.assert_allclose(model.W - model.W.mean(axis=1)[:, None], other.coef_.T, atol=2e-3)


def test_the_simpler_one_is_chosen_of_what_is_trained_already(files, job_of, tmp_path, caplog):
    own = [*given(*files), *OPTIMUM, *PATH]
    (first,) = run([job_of(tmp_path / "r", *own)])
    caplog.clear()
    (report,) = run([job_of(tmp_path / "r", *own, "reg_choice=1se")])
    path = report["reg_path"]
    assert report["reg"] == path["one_standard_error"] > path["best"] == first["reg"]
    assert path["penalties"] == first["reg_path"]["penalties"]
    assert "resumes after step" in caplog.text
    line = f"reg {report['reg']:.2g}, the strongest within one standard error of {first['reg']:.2g}"
    assert line in caplog.text
    (by_accuracy,) = run([job_of(tmp_path / "r", *own, "objective=val_accuracy")])
    rows = by_accuracy["reg_path"]["penalties"]
    assert by_accuracy["reg"] == max(rows, key=lambda row: row["accuracy"])["reg"]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_minibatches_train_a_path_as_each_penalty_alone(optimizer, files, job_of, tmp_path):
    own = [*given(*files), f"optimizer={optimizer}", "epochs=8", "lr=0.01"]
    (report,) = run([job_of(tmp_path / "r", *own, *PATH, "reg_path.to=1e-2")])
    rows = report["reg_path"]["penalties"]
    chosen = min(rows, key=lambda row: row["loss"])
    assert len(rows) >= 5
    for row in {row["reg"]: row for row in (rows[0], rows[-1], chosen)}.values():
        (alone,) = run([job_of(tmp_path / f"{row['reg']}", *own, f"reg={row['reg']}")])
        assert row["loss"] == pytest.approx(alone["metrics"]["val"]["loss"], rel=1e-4)
    assert report["reg"] == chosen["reg"]


def test_a_path_is_made_longer_once_and_resumed_as_it_was(files, job_of, tmp_path, caplog):
    own = [*given(*files), "epochs=8", *PATH, "reg_path.from=100", "reg_path.to=10", "reg_path.n=3"]
    (report,) = run([job_of(tmp_path / "r", *own)])
    regs = [row["reg"] for row in report["reg_path"]["penalties"]]
    np.testing.assert_allclose(regs, 10 ** (2 - np.arange(len(regs)) / 2), rtol=1e-6)
    assert len(regs) > 5
    assert f"reg=auto: {len(regs)} penalties from 100 to {regs[-1]:.3g}" in caplog.text
    caplog.clear()
    (again,) = run([job_of(tmp_path / "r", *own)])
    assert caplog.text.count("reg=auto") == 1
    assert again["reg_path"] == report["reg_path"]


def test_a_path_of_which_no_model_is_any_good_says_so(files, job_of, tmp_path):
    own = [*given(*files), "epochs=3", "lr=1e20", *PATH]
    with pytest.raises(Exception, match="diverged"):
        run([job_of(tmp_path / "r", *own)])
    report = read_plain(tmp_path / "r/report.json")
    assert report["status"] == "diverged"
    assert {row["status"] for row in report["reg_path"]["penalties"]} == {"diverged"}
    assert json.dumps(report["reg_path"]).count("null") > 10


def test_a_fold_that_is_not_done_says_nothing_of_new_examples(files, job_of, tmp_path, caplog):
    """Its model has begun at that of all examples, which knows them."""
    rng = np.random.default_rng(0)  # nothing can be learned of these but by heart
    np.savez("train.npz", X=rng.standard_normal((300, 400)), y=np.arange(300) % 3)
    own = [*given("train", "test"), "data.test=null", *OPTIMUM[:1], "cv=4", "reg=1e-6"]

    signals = [signal.SIGTERM]

    def stop(training):
        if signals and all(fit.history for fit in training.fits):
            signal.raise_signal(signals.pop())

    with pytest.raises(Stopped):
        run([job_of(tmp_path / "r", *own, "epochs=500")], watch=stop)
    report = read_plain(tmp_path / "r/report.json")
    assert report["status"] == "interrupted"
    assert report["ended"].startswith("stopped by SIGTERM")
    assert report["certificate"]["relative"] <= 1e-3  # of the model on all examples
    assert "cross_validation" not in report
    (whole,) = run([job_of(tmp_path / "r", *own, "epochs=500")])
    assert 0.2 < whole["cross_validation"]["accuracy"] < 0.47
    run([job_of(tmp_path / "short", *own, "epochs=3")])
    assert "their figures may be too good" in caplog.text


def test_a_path_needs_held_out_examples(files, job_of, tmp_path):
    with pytest.raises(InputError, match="reg=auto: there are no held-out examples"):
        run([job_of(tmp_path / "r", *given("train"), *PATH, "data.val_fraction=0")])
    with pytest.raises(InputError, match="from=1e-05 is not above to=0.001; give both ends"):
        run([job_of(tmp_path / "s", *given("train"), *PATH, "reg_path.from=1e-5")])

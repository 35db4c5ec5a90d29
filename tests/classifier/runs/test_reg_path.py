"""reg=auto: a run that chooses its penalty from a path, by a validation split or by folds."""

import contextlib
import json
import shutil
import signal

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

from classifier.model import LinearModel
from classifier.runs.artifacts import read_checkpoint
from classifier.runs.log import Stopped
from classifier.runs.run import run
from data.errors import InputError
from data.files.store import read_plain

PATH = ["reg=auto", "reg_path.from=1e-1", "reg_path.to=1e-3", "reg_path.n=5"]
LONG_PATH = [*PATH, "reg_path.from=100", "reg_path.to=10", "reg_path.n=3"]
OPTIMUM = ["optimizer=lbfgs", "epochs=1000", "optimizer.tol=1e-5"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def files(place):
    """Return train, validation and test examples of three classes that overlap, in files."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 600)
    X = rng.standard_normal((600, 30)) + 0.4 * rng.standard_normal((3, 30))[y]
    parts = {"train": slice(200), "val": slice(200, 380), "test": slice(380, 600)}
    for name, rows in parts.items():
        np.savez(place / f"{name}.npz", X=X[rows], y=y[rows])
    return {name: (X[rows], y[rows]) for name, rows in parts.items()}


@pytest.fixture(autouse=True)
def here(files, place, monkeypatch):
    monkeypatch.chdir(place)


@pytest.fixture(scope="module")
def by_val(files, place, job_of):
    """Return the report of a path that the validation split chooses from, and its folder."""
    with contextlib.chdir(place):
        (report,) = run([job_of(place / "by val", *given(*files), *OPTIMUM, *PATH)])
    return report, place / "by val"


def given(*names):
    return ["data=files", *(f"data.{name}={name}.npz" for name in names)]


def logistic_regression(X, y, reg):
    return LogisticRegression(C=1 / (2 * reg * len(y)), tol=1e-9, max_iter=10_000).fit(X, y)


def test_the_validation_split_chooses_and_the_model_is_that_of_the_training_split(files, by_val):
    report, folder = by_val
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
        assert row["accuracy_error"] == pytest.approx(stats.binom.std(180, row["accuracy"]) / 180)
        assert row["train_loss"] == pytest.approx(log_loss(y, other.predict_proba(X)), rel=5e-3)
        assert row["weight_norm"] == pytest.approx(np.linalg.norm(other.coef_), rel=1e-2)
        assert row["above_optimum"] <= 1e-5
    best = path["penalties"][int(np.argmin(losses))]
    assert (path["by"], path["n"], path["best"]) == ("val", 180, best["reg"])
    assert report["reg"] == best["reg"]
    assert report["config"]["reg"] == "auto"
    other = logistic_regression(X, y, report["reg"])
    assert report["metrics"]["test"]["accuracy"] == pytest.approx(
        other.score(X_test, y_test), abs=0.011
    )
    assert report["metrics"]["val"]["loss"] == pytest.approx(best["loss"], rel=1e-5)
    text = (folder / "report.txt").read_text(encoding="utf-8")
    accuracies = (best["accuracy"], 180), (report["metrics"]["test"]["accuracy"], 220)
    on_val, on_test = (
        "{:.1f} % ({:.1f} to {:.1f})".format(*(100 * share for share in (accuracy, *between)))
        for accuracy, n in accuracies
        for between in [stats.binomtest(round(n * accuracy), n).proportion_ci(method="wilson")]
    )
    assert f"reg {report['reg']:.2g} by 180 validation examples: {on_val}; test {on_test}\n" in text


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
    accuracy = "{:.1f} +- {:.1f} %".format(
        *(100 * chosen[k] for k in ("accuracy", "accuracy_error"))
    )
    text = (tmp_path / "r/report.txt").read_text(encoding="utf-8")
    assert f"reg {report['reg']:.2g} by 4 folds: {accuracy}; test " in text
    X, y = StandardScaler().fit_transform(files["train"][0]), files["train"][1]
    other = logistic_regression(X, y, report["reg"])
    model = LinearModel.load(tmp_path / "r/model.npz")
    np.testing.assert_allclose(model.W - model.W.mean(axis=1)[:, None], other.coef_.T, atol=2e-3)


def test_the_simpler_one_is_chosen_of_what_is_trained_already(
    files, by_val, job_of, tmp_path, caplog
):
    own, (first, folder) = [*given(*files), *OPTIMUM, *PATH], by_val
    shutil.copytree(folder, tmp_path / "r")
    (report,) = run([job_of(tmp_path / "r", *own, "reg_choice=1se")])
    path = report["reg_path"]
    assert report["reg"] == path["one_standard_error"] > path["best"] == first["reg"]
    assert path["penalties"] == first["reg_path"]["penalties"]
    assert "resumes after step" in caplog.text
    line = f"reg {report['reg']:.2g}, the strongest within one standard error of {first['reg']:.2g}"
    assert line in caplog.text
    more = ["objective=val_accuracy", "reg_path.from=1", "reg_path.to=1e-4", "reg_path.n=25"]
    (by_accuracy,) = run([job_of(tmp_path / "s", *own, *more)])
    path = by_accuracy["reg_path"]
    assert {row["status"] for row in path["penalties"]} == {"completed"}  # none is too weak
    best = max(path["penalties"], key=lambda row: row["accuracy"])
    assert by_accuracy["reg"] == best["reg"]
    limit = best["accuracy"] - best["accuracy_error"]
    near = [row["reg"] for row in path["penalties"] if row["accuracy"] >= limit]
    assert path["one_standard_error"] == max(near)


def test_minibatches_train_a_path_as_each_penalty_alone(files, job_of, tmp_path):
    own = [*given(*files), "optimizer=adam", "epochs=8", "lr=0.01"]
    (report,) = run([job_of(tmp_path / "r", *own, *PATH, "reg_path.to=1e-2")])
    rows = report["reg_path"]["penalties"]
    chosen = min(rows, key=lambda row: row["loss"])
    assert len(rows) >= 5
    for row in {row["reg"]: row for row in (rows[0], rows[-1], chosen)}.values():
        (alone,) = run([job_of(tmp_path / f"{row['reg']}", *own, f"reg={row['reg']}")])
        assert row["loss"] == pytest.approx(alone["metrics"]["val"]["loss"], rel=1e-4)
    assert report["reg"] == chosen["reg"]


def test_a_path_is_made_longer_once_and_resumed_as_it_was(files, job_of, tmp_path, caplog):
    own = [*given(*files), "epochs=8", *LONG_PATH]
    (report,) = run([job_of(tmp_path / "r", *own)])
    regs = [row["reg"] for row in report["reg_path"]["penalties"]]
    np.testing.assert_allclose(regs, 10 ** (2 - np.arange(len(regs)) / 2), rtol=1e-6)
    assert len(regs) > 5
    assert f"reg=auto: {len(regs)} penalties from 100 to {regs[-1]:.3g}" in caplog.text
    assert {row["epochs"] for row in report["reg_path"]["penalties"]} == {8}
    caplog.clear()
    (again,) = run([job_of(tmp_path / "r", *own)])
    assert caplog.text.count("reg=auto") == 1
    assert again["reg_path"] == report["reg_path"]
    earlier = read_checkpoint(tmp_path / "r/checkpoint.npz")
    words = r"^epochs=9: the path of penalties was made longer .*; leave out epochs \(8\)"
    with pytest.raises(InputError, match=words):
        earlier.check_longer(job_of(None, *own, "epochs=9").config)
    for change in ("epochs=8", "optimizer=lbfgs", f"reg_path.n={len(regs)}"):
        earlier.check_longer(job_of(None, *own, "epochs=9", change).config)


@pytest.mark.parametrize("of_longer", [False, True])
@pytest.mark.parametrize("more", [["epochs=8"], [*OPTIMUM, "cv=3", "data.val=null"]])
def test_a_path_that_is_stopped_says_what_is_known_tries_no_more_and_goes_on(
    more, of_longer, files, job_of, tmp_path
):
    own, stopped_at = [*given(*files), *LONG_PATH, *more], []

    def stop(training):
        is_longer = len({*training.models.reg}) > 3
        if training.epoch == 1 and is_longer == of_longer and not stopped_at:
            stopped_at.append(len({*training.models.reg}))
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Stopped):
        run([job_of(tmp_path / "r", *own)], watch=stop)
    stopped = read_plain(tmp_path / "r/report.json")
    rows = stopped["reg_path"]["penalties"]
    assert (stopped["status"], len(rows)) == ("interrupted", stopped_at[0])
    judged = [row for row in rows if row["loss"] is not None]
    if "cv=3" in more:  # no fold of the others has been trained
        assert len(judged) == (3 if of_longer else 0)
        assert ("cross_validation" in stopped) == of_longer
    else:
        assert judged == rows
    if judged:
        assert stopped["reg"] == min(judged, key=lambda row: row["loss"])["reg"]
    (report,) = run([job_of(tmp_path / "r", *own)])
    (whole,) = run([job_of(tmp_path / "s", *own)])
    assert report["reg_path"] == whole["reg_path"]
    assert len(whole["reg_path"]["penalties"]) > 3


def test_a_path_of_which_no_model_is_any_good_says_so(files, job_of, tmp_path):
    own = [*given(*files), "epochs=3", "lr=1e20", *PATH]
    with pytest.raises(Exception, match="diverged"):
        run([job_of(tmp_path / "r", *own)])
    report = read_plain(tmp_path / "r/report.json")
    assert report["status"] == "diverged"
    assert {row["status"] for row in report["reg_path"]["penalties"]} == {"diverged"}
    assert json.dumps(report["reg_path"]).count("null") > 10


def test_weights_that_are_equal_change_no_error_and_others_are_worth_fewer_examples(
    files, by_val, job_of, tmp_path
):
    own = [*given(*files), *OPTIMUM, *PATH]
    weights = ["class_weight={0: 8, 1: 8, 2: 8}", "class_weight={0: 9}"]
    more = [run([job_of(tmp_path / str(k), *own, each)])[0] for k, each in enumerate(weights)]
    plain, equal, unequal = (one["reg_path"]["penalties"][2] for one in (by_val[0], *more))
    for name in ("loss", "loss_error", "accuracy", "accuracy_error"):
        assert equal[name] == pytest.approx(plain[name], rel=1e-3)
    counts = np.where(files["val"][1] == 0, 9, 1)
    p, n = unequal["accuracy"], counts.sum() ** 2 / (counts**2).sum()
    assert unequal["accuracy_error"] == pytest.approx(np.sqrt(p * (1 - p) / n), rel=1e-4)
    # What is said in words is of every example once.
    with np.load(tmp_path / "1/predictions.npz") as kept:
        right = np.mean(kept["val_predicted"] == files["val"][1])
    rows = {row["reg"]: row for row in more[1]["reg_path"]["penalties"]}
    assert abs(rows[more[1]["reg"]]["accuracy"] - right) > 0.01
    text = (tmp_path / "1/report.txt").read_text(encoding="utf-8")
    assert f"by 180 validation examples: {100 * right:.1f} % (" in text
    run([job_of(tmp_path / "s", *own, weights[1], "data.val=null", "cv=3")])
    text = (tmp_path / "s/report.txt").read_text(encoding="utf-8")
    assert " % with the weights of the classes; test " in text


def test_a_fold_that_is_not_done_says_nothing_of_new_examples(files, job_of, tmp_path, caplog):
    """Its model has begun at that of all examples, which knows them."""
    rng = np.random.default_rng(0)  # nothing can be learned of these but by heart
    np.savez("noise.npz", X=rng.standard_normal((300, 400)), y=np.arange(300) % 3)
    own = ["data=files", "data.train=noise.npz", *OPTIMUM[:1], "cv=4", "reg=1e-6"]

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

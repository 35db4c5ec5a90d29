"""The optimum by whole commands: one model, a path of penalties, folds."""

import csv
import json

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

pytestmark = pytest.mark.slow  # many real processes

QUIET = ["optimizer=lbfgs", "epochs=1000", "report.plots=false"]


@pytest.fixture
def probe(tmp_path):
    """Made embeddings of three classes that overlap, 240 to train on and 120 to test."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 360)
    X = rng.standard_normal((360, 40)) + 0.4 * rng.standard_normal((3, 40))[y]
    np.savez(tmp_path / "train.npz", X=X[:240], y=y[:240])
    np.savez(tmp_path / "test.npz", X=X[240:], y=y[240:])
    return ["data.train=train.npz", "data.test=test.npz"]


def read(folder, name="report.json"):
    return json.loads((folder / name).read_text(encoding="utf-8"))


def rows(sweep):
    with (sweep / "sweep.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def objective(model, X, y, reg):
    """Return the objective of a saved model by scipy, and the prepared features."""
    with np.load(model) as arrays:
        W, b, shift, scale = (arrays[k].astype(np.float64) for k in ("W", "b", "shift", "scale"))
    prepared = (X - shift) / scale
    log_p = log_softmax(prepared @ W + b, axis=1)
    return -log_p[np.arange(len(y)), y].mean() + reg * np.sum(W**2), prepared


@pytest.mark.parametrize(
    "override", ["lr=0.1", "lr_scale=2", "momentum=0.9", "schedule=step", "batch_size=8"]
)
def test_what_it_has_no_use_for_is_refused_by_name(command, override):
    done = command("train.py", *QUIET, override)
    assert done.returncode == 1
    assert done.stderr == (
        f"{override.split('=')[0]}: optimizer=lbfgs has no use for it; leave it out, or use "
        "optimizer=sgd\n"
    )


def test_jobs_that_all_have_no_use_for_a_key_are_refused_at_once(command, tmp_path):
    done = command("train.py", "-m", *QUIET, "sweep=lr", "hydra.sweep.dir=s")
    assert done.returncode == 1
    assert "lr_scale: optimizer=lbfgs has no use for it" in done.stderr
    assert not (tmp_path / "s/0").exists()


def test_a_probe_needs_three_lines(command, probe, tmp_path):
    arguments = ["experiment=linear_probe", *probe, "data.val_fraction=0", "cv=4"]
    done = command("train.py", "-m", *arguments, "hydra.sweep.dir=s", "report.plots=false")
    assert done.returncode == 0, done.stderr
    found, jobs = read(tmp_path / "s", "sweep.json"), rows(tmp_path / "s")
    assert len(jobs) == 45
    assert found["objective"] == "cv_loss"
    completed = [job for job in jobs if job["status"] == "completed"]
    best = min(completed, key=lambda job: float(job["cv_loss"]))
    assert found["best"]["job"] == best["job"]
    limit = float(best["cv_loss"]) + float(best["cv_loss_error"])
    near = [float(job["reg"]) for job in completed if float(job["cv_loss"]) <= limit]
    assert found["one_standard_error"]["reg"] == max(near)
    assert "within one standard error of the best" in done.stdout
    # Penalties too weak are not trained, and say why.
    skipped = [job for job in jobs if job["status"] == "skipped"]
    assert skipped
    assert all(float(job["reg"]) < float(best["reg"]) / 10 for job in skipped)
    assert all("weaker than needed" in job["reason"] for job in skipped)
    assert f"{len(skipped)} skipped" in done.stdout
    # Each model is as near to its optimum as was asked for, the winner's is the one kept.
    with np.load(tmp_path / "train.npz") as arrays:
        X, y = arrays["X"], arrays["y"]
    for job in completed[:: len(completed) // 3]:
        reg = float(job["reg"])
        own, prepared = objective(tmp_path / "s" / job["folder"] / "model.npz", X, y, reg)
        theirs = LogisticRegression(C=1 / (2 * reg * len(y)), tol=1e-10, max_iter=10_000)
        theirs.fit(prepared, y)
        log_p = theirs.predict_log_proba(prepared)
        lowest = -log_p[np.arange(len(y)), y].mean() + reg * np.sum(theirs.coef_**2)
        assert own <= lowest * (1 + 1e-3)
        assert float(job["above_optimum"]) <= 1e-3
    kept = (tmp_path / "s/best/model.npz").read_bytes()
    assert kept == (tmp_path / "s" / best["folder"] / "model.npz").read_bytes()
    report = read(tmp_path / "s" / best["folder"])
    losses = report["cross_validation"]["loss_of_folds"]
    assert report["cross_validation"]["loss"] == pytest.approx(np.mean(losses))
    assert report["cross_validation"]["loss_error"] == pytest.approx(np.std(losses, ddof=1) / 2)
    assert "4 folds: loss" in (tmp_path / "s" / best["folder"] / "report.txt").read_text(
        encoding="utf-8"
    )
    page = (tmp_path / "s/sweep.html").read_text(encoding="utf-8")
    assert "The path of the penalty" in page
    assert (tmp_path / "s/reg_path.png").stat().st_size > 10_000
    # Nothing is left to do, and what was not needed stays so.
    again = command("train.py", "resume=s")
    assert again.returncode == 0, again.stderr
    assert "0 to train" in again.stdout
    assert rows(tmp_path / "s") == jobs


def test_all_penalties_are_trained_where_that_is_asked_for(command, probe, tmp_path):
    arguments = ["experiment=linear_probe", *probe, "reg=1e-1,1e-2,1e-3,1e-4,1e-5,1e-6"]
    own = ["optimizer.all_penalties=true", "report.plots=false", "hydra.sweep.dir=s"]
    assert command("train.py", "-m", *arguments, *own).returncode == 0
    assert {job["status"] for job in rows(tmp_path / "s")} == {"completed"}


def test_every_optimizer_says_how_far_from_the_optimum_it_is(command, probe, tmp_path):
    own = [*probe, "data=arrays", "data.val_fraction=0", "reg=1e-2", "cv=3"]
    for optimizer in ("sgd", "adam", "lbfgs"):
        done = command("train.py", *own, f"optimizer={optimizer}", f"hydra.run.dir={optimizer}")
        assert done.returncode == 0, done.stderr
    lowest = read(tmp_path / "lbfgs")["objective"]
    for optimizer in ("sgd", "adam", "lbfgs"):
        report = read(tmp_path / optimizer)
        certificate = report["certificate"]
        assert report["objective"] - certificate["excess"] <= lowest
        assert certificate["objective"] == pytest.approx(report["objective"], rel=1e-5)
        text = (tmp_path / optimizer / "report.txt").read_text(encoding="utf-8")
        assert "above the lowest objective there is" in text
        page = (tmp_path / optimizer / "report.html").read_text(encoding="utf-8")
        assert "above the lowest objective there is" in page
        assert "accuracy on 3 folds" in page
        assert (tmp_path / optimizer / "loss_curve.png").stat().st_size > 10_000


def test_too_few_passes_are_warned_of(command, probe, tmp_path):
    own = [*probe, "data=arrays", "optimizer=lbfgs", "epochs=3", "report.plots=false"]
    done = command("train.py", *own, "hydra.run.dir=r")
    assert done.returncode == 0
    assert "give more epochs, a larger optimizer.tol, or a larger reg" in done.stdout + done.stderr


@pytest.mark.parametrize("optimizer", ["sgd", "lbfgs"])
def test_more_folds_than_examples_are_refused(command, probe, optimizer):
    own = [*probe, "data=arrays", f"optimizer={optimizer}", "cv=900"]
    done = command("train.py", *own)
    assert done.returncode == 1
    assert "cv=900: there are 216 training examples; use fewer folds" in done.stderr


def test_a_path_of_streamed_examples_is_trained_whatever_their_labels_are_kept_in(
    command, tmp_path
):
    rng = np.random.default_rng(0)
    y = np.arange(600) % 12
    np.save(tmp_path / "X.npy", rng.standard_normal((600, 20)) + 2 * np.eye(12, 20)[y])
    np.save(tmp_path / "y.npy", y)
    files = ["data.train_X=X.npy", "data.train_y=y.npy", "report.plots=false"]
    own = ["experiment=linear_probe", *files, "label_smoothing=0.1", "hydra.sweep.dir=s", "cv=3"]
    done = command("train.py", "-m", *own)
    assert done.returncode == 0, done.stderr
    assert {job["status"] for job in rows(tmp_path / "s")} <= {"completed", "skipped"}


def test_weights_that_are_zero_have_a_place_in_the_pictures(command, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "n.npz", X=np.ones((90, 3)), y=rng.integers(0, 3, 90))
    own = ["data=arrays", "data.train=n.npz", *QUIET, "reg=1e3,1e2,10,1,1e-1"]
    done = command("train.py", "-m", *own, "hydra.sweep.dir=s")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "s/reg_path.png").exists()
    assert "The path of the penalty" in (tmp_path / "s/sweep.html").read_text(encoding="utf-8")


def test_seeds_of_a_cross_validation_are_repetitions_of_a_setting(command, probe, tmp_path):
    own = ["data=arrays", *probe, "seed=0,1", "cv=3", "epochs=2", "report.plots=false"]
    done = command("train.py", "-m", *own, "hydra.sweep.dir=s")
    assert done.returncode == 0, done.stderr
    (setting,) = read(tmp_path / "s", "sweep.json")["settings"]
    losses = [float(job["cv_loss"]) for job in rows(tmp_path / "s")]
    mean, error = np.mean(losses), np.std(losses, ddof=1) / np.sqrt(2)
    assert setting["repetitions"] == 2
    assert setting["cv_loss"] == pytest.approx(mean)
    assert setting["cv_loss_error"] == pytest.approx(error)
    assert setting["job"] == str(np.argmin(losses))
    assert f"{mean:.4g} +- {error:.2g}" in done.stdout
    assert "cv_loss_error" not in done.stdout  # it would be told twice


def test_a_sweep_says_what_it_could_not_prove_and_what_it_lacks(command, probe, tmp_path):
    own = ["data=arrays", *probe, "optimizer=lbfgs", "report.plots=false", "data.val_fraction=0"]
    done = command("train.py", "-m", *own, "reg=1e-3,1e-4", "epochs=3", "hydra.sweep.dir=s")
    assert "2 models are not proven to be as near to their optimum" in done.stdout
    assert "There is no val_loss to choose by: give cv=5" in done.stdout


def test_features_too_large_for_the_curvature_are_refused_in_one_line(command, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "n.npz", X=1e30 * rng.normal(size=(90, 3)), y=rng.integers(0, 3, 90))
    done = command("train.py", "data=arrays", "data.train=n.npz", *QUIET, "preprocessing=none")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "standardize them" in done.stderr


def test_the_objective_is_that_of_the_weights_before_calibration(command, probe, tmp_path):
    own = ["data=arrays", *probe, *QUIET]
    for name, calibrate in (("a", "false"), ("b", "true")):
        done = command("train.py", *own, f"calibrate={calibrate}", f"hydra.run.dir={name}")
        assert done.returncode == 0, done.stderr
    assert read(tmp_path / "a")["objective"] == read(tmp_path / "b")["objective"]
    assert "calibration" in read(tmp_path / "b")


def test_a_finished_run_stays_finished_where_going_on_is_refused(command, probe, tmp_path):
    assert command("train.py", "data=arrays", *probe, *QUIET, "hydra.run.dir=r").returncode == 0
    status = (tmp_path / "r/status.json").read_bytes()
    (tmp_path / "train.npz").rename(tmp_path / "away.npz")
    done = command("train.py", "resume=r")
    assert done.returncode == 1
    assert "train.npz: no such file" in done.stderr
    assert (tmp_path / "r/status.json").read_bytes() == status

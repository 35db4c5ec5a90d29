import functools
import json
import re

import numpy as np
import pytest
from scipy.stats import sem

from classifier.model import LinearModel
from classifier.report.pages.draw import draw
from classifier.runs.artifacts import read_predictions
from classifier.runs.preparation import load_dataset
from classifier.runs.results import falls_short, keep, open_test, selection_metric
from classifier.runs.run import run
from data.files.store import write_json
from data.sources.generated import Digits

SETTINGS = ["epochs=2", "calibrate=true", "label_smoothing=0.1", "class_weight={3: 5}"]


def read(folder):
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def put_config(job):
    """Leave in the folder of a job what Hydra leaves there."""
    (job.folder / ".hydra").mkdir()
    hydra = {"hydra": {"runtime": {"choices": job.plain["choices"]}}}
    for name, content in (("config", job.plain), ("hydra", hydra)):  # JSON is YAML
        own = {key: value for key, value in content.items() if key != "choices"}
        write_json(job.folder / f".hydra/{name}.yaml", own)


@pytest.mark.parametrize("kept", ["these data", "other data", "nothing"])
def test_a_winner_is_evaluated_as_a_run_on_its_own_is(kept, job_of, tmp_path, monkeypatch):
    """On data that are not loaded again where the last jobs of the sweep had the same."""
    run([job_of(tmp_path / "alone", *SETTINGS)])
    job = job_of(tmp_path / "0", *SETTINGS)
    run([job], of_sweep=True)
    assert read(tmp_path / "0")["metrics"]["test"] is None
    put_config(job)
    for name in ("report.html", "loss_curve.png"):
        (tmp_path / "0" / name).touch()
    loaded, load = [], Digits.load
    others = {"these data": [], "other data": ["data.split_seed=1"]}.get(kept)
    keep(None if others is None else load_dataset(job_of(tmp_path / "other", *others).config.data))
    monkeypatch.setattr(Digits, "load", lambda *given: loaded.append(given) or load(*given))
    open_test(tmp_path / "0")
    keep(None)
    assert len(loaded) == (kept != "these data")
    winner, alone = read(tmp_path / "0"), read(tmp_path / "alone")
    for place in (["metrics"], ["calibration", "before"]):
        figures = [functools.reduce(dict.get, [*place, "test"], of) for of in (winner, alone)]
        numbers = [{k: v for k, v in of.items() if isinstance(v, float)} for of in figures]
        assert numbers[0] == pytest.approx(numbers[1], rel=1e-6)
        assert len(numbers[0]) > 1
    predictions = [read_predictions(tmp_path / place)["test"] for place in ("0", "alone")]
    for array, expected in zip(*predictions, strict=True):
        np.testing.assert_allclose(array, expected, rtol=1e-5, atol=1e-6)
    assert not (tmp_path / "0/report.html").exists()
    assert not (tmp_path / "0/loss_curve.png").exists()


def test_a_winner_that_folds_chose_is_evaluated_on_its_own_test_split(job_of, tmp_path):
    """Of data that are loaded again, as it was trained: without a validation split."""
    job = job_of(tmp_path, "reg=auto", "cv=2", "reg_path.n=2", "epochs=1", "data=blobs")
    run([job], of_sweep=True)
    put_config(job)
    open_test(tmp_path)
    assert read(tmp_path)["metrics"]["test"]["n"] == len(load_dataset(job.config.data).test)


def test_features_with_names_reach_all_that_a_run_leaves(job_of, tmp_path):
    rng = np.random.default_rng(4)
    city, age = rng.integers(0, 3, 90), rng.normal(40, 9, 90)
    names = np.array(["low", "<b>", "high"])[(city == 1) * 1 + (age > 40)]
    rows = zip(age, city, names, strict=True)
    lines = [f"{a:.1f},$city_{c}$,{name}\n" for a, c, name in rows]
    (tmp_path / "t.csv").write_text("".join(["<i>age</i>,from,y\n", *lines]), encoding="utf-8")
    given = ["data=files", f"data.train={tmp_path}/t.csv", "data.label=y", "optimizer=lbfgs"]
    run([job_of(tmp_path / "0", *given, "calibrate=true")])
    for kind in ("run", "page"):
        draw(kind, tmp_path / "0")
    assert (tmp_path / "0/features.png").exists()
    model, features = LinearModel.load(tmp_path / "0/model.npz"), read(tmp_path / "0")["features"]
    assert [*features] == model.classes.tolist()
    for c, sides in enumerate(features.values()):
        weights = zip(model.encoding.names, model.W[:, c].tolist(), strict=True)
        assert dict(sides["for"] + sides["against"]) == {n: w for n, w in weights if w}
    assert features["high"]["for"][0][0] in ("<i>age</i>", "from = $city_1$")
    page = (tmp_path / "0/report.html").read_text(encoding="utf-8")
    assert "&lt;i&gt;age&lt;/i&gt;: +" in page
    assert "<i>age" not in page
    text = (tmp_path / "0/report.txt").read_text(encoding="utf-8")
    assert re.search(r"^  high: .*from = \$city_1\$ \(\+[0-9.]+\)", text, re.MULTILINE)


def test_what_is_not_proven_falls_short():
    for reg, relative, status, optimizer, expected in (
        (0.1, 0.0099, "completed", "lbfgs", False),
        (0.1, 0.0101, "completed", "lbfgs", True),
        (0.1, None, "completed", "lbfgs", True),
        (0.0, None, "completed", "lbfgs", False),  # nothing can be proven
        (0.1, 0.0101, "interrupted", "lbfgs", False),
        (0.1, 0.0101, "completed", "sgd", False),
    ):
        config = {"reg": "auto", "optimizer": {"tol": 0.01}, "choices": {"optimizer": optimizer}}
        report = {"config": config, "reg": reg, "status": status}
        assert falls_short(report | {"certificate": {"relative": relative}}) == expected


def test_a_run_with_folds_is_chosen_by_their_mean(job_of, tmp_path):
    (report,) = run([job_of(tmp_path, "cv=3", "epochs=2")])
    folds = report["cross_validation"]
    for name in ("loss", "accuracy"):
        values = folds[f"{name}_of_folds"]
        assert len(values) == folds["folds"] == 3
        assert folds[name] == pytest.approx(np.mean(values))
        assert folds[f"{name}_error"] == pytest.approx(sem(values))
        assert selection_metric(report, f"val_{name}") == folds[name]
    near = report["metrics"]["val"]
    assert folds["loss"] == pytest.approx(near["loss"], rel=0.5)
    assert folds["accuracy"] == pytest.approx(near["accuracy"], abs=0.05)

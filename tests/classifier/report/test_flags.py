"""What is flagged of a model that is bad but finite, and what is not."""

import numpy as np
import pytest

from classifier.report.flags import calibration_by_chance, flags

RIGHT = {
    "n": 100,
    "loss": 0.3,
    "accuracy": 0.9,
    "expected_calibration_error": 0.05,
    "reliability": {"n": [0, 100], "confidence": [None, 0.9], "accuracy": [None, 0.9]},
    "per_class": [{"support": 70}, {"support": 30}],
}


def report(lr=0.1, stable=0.2, auto=0.1, reg=0.0, status="completed", **figures):
    return {
        "metrics": {"train": RIGHT, "val": RIGHT | figures, "test": None},
        "data": {"n_classes": 2},
        "best_epoch": 3,
        "status": status,
        "lr": lr,
        "largest_stable_lr": stable,
        "auto_lr": auto,
        "reg": reg,
        "smoothness": 10 + 2 * reg,
    }


def test_nothing_is_flagged_of_a_good_model():
    assert flags(report()) == []
    assert flags(report(lr=None, stable=None)) == []
    assert flags(report(lr=7.0, stable=None)) == []  # as of Adam, whose stable step is not known
    assert flags(report(lr=7.0, stable=None, auto=None)) == []


@pytest.mark.parametrize(("lr", "n"), [(0.4, 0), (0.41, 1), (400.0, 1)])
def test_a_step_that_momentum_cannot_make_stable_is_flagged(lr, n):
    assert len(flags(report(lr=lr))) == n


def test_the_step_is_said_in_multiples_of_the_largest_stable_one():
    (said,) = flags(report(lr=3.0))
    assert "lr=3 is 15 times" in said
    assert "(0.2)" in said


@pytest.mark.parametrize(("accuracy", "n"), [(0.71, 0), (0.7, 1), (0.2, 1)])
def test_an_accuracy_that_the_largest_class_gives_is_flagged(accuracy, n):
    found = flags(report(accuracy=accuracy))
    assert len(found) == n
    assert all("largest class (70.00%)" in said and "on val" in said for said in found)


@pytest.mark.parametrize(
    ("far", "near", "words"),
    [
        ({"lr": 10.1}, {"lr": 9.9}, "lr=10.1 is very large beside lr=auto, 0.1 here"),
        ({"lr": 0.9e-5}, {"lr": 1.1e-5}, "lr=9e-06 is very small beside lr=auto, 0.1 here"),
        ({"reg": 501.0}, {"reg": 499.0}, "reg=501 outweighs the data, whose curvature is 10:"),
        ({"reg": 1e30}, {}, "reg=1e+30 outweighs the data, whose curvature is 0:"),
    ],
)
def test_a_setting_far_from_what_the_data_ask_for_is_flagged(far, near, words):
    (said,) = flags(report(stable=None, **far))
    assert said.startswith(words)
    assert flags(report(stable=None, **near)) == []


@pytest.mark.parametrize(
    ("loss", "accuracy", "words"),
    [
        (0.6931, 0.9, ""),
        (np.log(2), 0.9, "ln 2 = 0.6931: all classes are about as probable."),
        (1.5, 0.83, "The loss of 1.5 on val is no better than that of guessing, ln 2 = 0.6931, "
         "while the accuracy is 83.00%: the model is far too sure where it is wrong."),
        (1.5, 0.7, "The loss of 1.5 on val is no better than that of guessing, ln 2 = 0.6931. Use"),
    ],
)  # fmt: skip
def test_a_loss_that_guessing_gives_is_flagged_as_a_loss(loss, accuracy, words):
    said = [line for line in flags(report(loss=loss, accuracy=accuracy)) if "loss" in line]
    assert len(said) == bool(words)
    assert words in "".join(said)


def test_where_the_loss_of_new_examples_is_good_that_of_training_is_flagged():
    own = report()
    own["metrics"]["train"] = RIGHT | {"loss": 3.0}
    (said,) = flags(own)
    assert said.startswith("The loss of 3 on train is no better than that of guessing")


def test_of_one_class_every_model_is_right():
    assert flags(report(accuracy=1.0, per_class=[{"support": 100}, {"support": 0}])) == []


@pytest.mark.parametrize(("error", "of", "n"), [(0.1, 100, 0), (0.11, 100, 1), (0.48, 2, 0)])
def test_a_calibration_error_is_flagged_where_examples_are_enough(error, of, n):
    bins = {"n": [of], "confidence": [0.6], "accuracy": [0.6]}
    own = {"n": of, "per_class": [{"support": of // 2}] * 2, "reliability": bins}
    found = flags(report(expected_calibration_error=error, **own))
    assert len(found) == n
    assert all("calibrate=true" in said for said in found)


def test_the_calibration_error_by_chance_is_that_of_simulated_models():
    n, p = np.array([40, 100, 0, 300]), np.array([0.3, 0.55, 0.6, 0.9])
    right = np.random.default_rng(0).binomial(n, p, (20_000, 4)) / np.maximum(n, 1)
    expected = (np.abs(right - p) * n).sum(axis=1).mean() / n.sum()
    bins = {"n": n.tolist(), "confidence": p.tolist(), "accuracy": [None] * 4}
    split = {"n": int(n.sum()), "reliability": bins}
    assert calibration_by_chance(split) == pytest.approx(expected, rel=0.02)


def test_a_run_that_diverged_says_so_and_no_more_of_its_step():
    (said,) = flags(report(lr=1e9, status="diverged"))
    assert "diverged" in said
    assert "epoch 3" in said


def test_the_test_split_speaks_where_it_was_looked_at():
    own = report()
    own["metrics"]["test"] = RIGHT | {"accuracy": 0.1}
    (said,) = flags(own)
    assert "on test" in said

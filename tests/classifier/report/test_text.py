"""What is flagged of a model that is bad but finite, and what is not."""

import numpy as np
import pytest

from classifier.report.text import calibration_by_chance, flags, text_of

RIGHT = {
    "n": 100,
    "loss": 0.3,
    "accuracy": 0.9,
    "expected_calibration_error": 0.05,
    "reliability": {"n": [0, 100], "confidence": [None, 0.9], "accuracy": [None, 0.9]},
    "per_class": [{"support": 70}, {"support": 30}],
}


def report(
    lr=0.1, stable=0.2, auto=0.1, reg=0.0, status="completed", train=RIGHT, test=None, **figures
):
    return {
        "metrics": {"train": train, "val": RIGHT | figures, "test": test},
        "data": {"n_classes": 2},
        "best_epoch": 3,
        "status": status,
        "lr": lr,
        "largest_stable_lr": stable,
        "auto_lr": auto,
        "reg": reg,
        "smoothness": 10 + 2 * reg,
    }


LR = "is very {} beside lr=auto, 0.1 here"
TWO = {"n": 2, "per_class": [{"support": 1}] * 2}
BINS = {"confidence": [0.6], "accuracy": [0.6]}
GUESSING = "no better than that of guessing, ln 2 = 0.6931"
SURE = ", while the accuracy is 83.00%: the model is far too sure where it is wrong."


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"lr": None, "stable": None}, None),
        ({"lr": 7.0, "stable": None}, None),  # as of Adam, whose stable step is not known
        ({"lr": 7.0, "stable": None, "auto": None}, None),
        ({"lr": 0.4}, None),  # momentum can make it stable
        ({"lr": 3.0}, "lr=3 is 15 times 2/L = 0.2, up to which full-batch steps are stable"),
        ({"lr": 0.41}, "2/L = 0.2,"),
        ({"lr": 9.9, "stable": None}, None),
        ({"lr": 10.1, "stable": None}, "lr=10.1 " + LR.format("large")),
        ({"lr": 1.1e-5, "stable": None}, None),
        ({"lr": 0.9e-5, "stable": None}, "lr=9e-06 " + LR.format("small")),
        ({"reg": 499.0}, None),
        ({"reg": 501.0}, "reg=501 outweighs the data, whose curvature is 10:"),
        ({"reg": 1e30}, "reg=1e+30 outweighs the data, whose curvature is 0:"),
        ({"lr": 1e9, "status": "diverged"}, "diverged; the weights are those of epoch 3"),
        ({"accuracy": 0.71}, None),
        ({"accuracy": 0.7}, "70.00% on val is no better than always naming the largest class"),
        ({"accuracy": 0.2}, "largest class (70.00%)"),
        ({"accuracy": 1.0, "per_class": [{"support": 100}, {"support": 0}]}, None),
        ({"test": RIGHT | {"accuracy": 0.1}}, "on test"),
        ({"loss": 0.6931}, None),
        ({"loss": np.log(2)}, "ln 2 = 0.6931: all classes are about as probable."),
        ({"loss": 1.5, "accuracy": 0.83}, f"The loss of 1.5 on val is {GUESSING}{SURE}"),
        ({"train": RIGHT | {"loss": 3.0}}, f"The loss of 3 on train is {GUESSING}"),
        ({"expected_calibration_error": 0.1}, None),
        ({"expected_calibration_error": 0.11}, "Use calibrate=true"),
        ({"expected_calibration_error": 0.48, **TWO, "reliability": {"n": [2], **BINS}}, None),
    ],
)
def test_what_is_bad_is_flagged_in_one_sentence_and_nothing_else_is(changes, words):
    sentences = flags(report(**changes))
    assert len(sentences) == (words is not None)
    assert (words or "") in "".join(sentences)


def test_only_what_was_held_out_is_called_new():
    data = {"name": "mine", "n_classes": 2, "image_shape": None}
    metrics = {"train": RIGHT, "val": RIGHT | {"accuracy": 0.755, "n": 200}, "test": None}
    of_val, of_train = {"metrics": metrics, "data": data}, {"metrics": metrics | {"val": None}}
    assert text_of("headline", of_val) == "151 of 200 new examples right (75.5 %)"
    line = text_of("headline", of_train | {"data": data | {"image_shape": [2, 2]}})
    assert line == "90 of 100 training images right (90.0 %)"


@pytest.mark.parametrize(
    ("relative", "excess", "optimizer", "words"),
    [
        (0.0125, 0.01, "sgd", "within 1.25 % of the lowest objective there is"),
        (1e-9, 1e-9, "lbfgs", "within 0.01 % of the lowest objective there is"),
        (1.0, 0.5, "lbfgs", "not near its optimum"),
        (None, 0.5, "sgd", "not near its optimum; optimizer=lbfgs goes there"),
        (None, None, "sgd", "how near to its optimum the model is, is not known"),
    ],
)
def test_how_near_the_optimum_is_said_as_far_as_it_is_known(relative, excess, optimizer, words):
    config = {"choices": {"optimizer": optimizer}}
    certificate = {"relative": relative, "excess": excess}
    assert text_of("certified", {"config": config, "certificate": certificate}) == words
    if excess is None:
        assert text_of("certified", {"config": config, "certificate": None}) == words


def test_advice_is_what_the_run_leaves_open():
    of = {"loss": 1.5, "accuracy": 0.7, "expected_calibration_error": 0.3}
    loss, accuracy, calibration = flags(report(**of))
    assert f"on val is {GUESSING}. Use lr=auto, or a smaller lr." in loss
    assert (
        "largest class (70.00%). Use a smaller lr, less reg, more epochs, or other features."
        in accuracy
    )
    assert "Use calibrate=true, less reg, or a smaller lr." in calibration
    best = report(**of, lr=None, stable=None) | {"reg_path": {}}
    best["metrics"] = {"train": best["metrics"]["val"], "val": None, "test": best["metrics"]["val"]}
    loss, accuracy, calibration = flags(best)
    assert accuracy.endswith("(70.00%). Use other features.")
    assert calibration.endswith("on average.")
    assert "Use" not in loss


def test_the_calibration_error_by_chance_is_that_of_simulated_models():
    n, p = np.array([40, 100, 0, 300]), np.array([0.3, 0.55, 0.6, 0.9])
    right = np.random.default_rng(0).binomial(n, p, (20_000, 4)) / np.maximum(n, 1)
    expected = (np.abs(right - p) * n).sum(axis=1).mean() / n.sum()
    bins = {"n": n.tolist(), "confidence": p.tolist(), "accuracy": [None] * 4}
    split = {"n": int(n.sum()), "reliability": bins}
    assert calibration_by_chance(split) == pytest.approx(expected, rel=0.02)

"""What is wrong with a model that is bad but finite, and what to do about it."""

import math
from typing import Any

from classifier.report.text import reported_split

CALIBRATION = 0.1  # an expected calibration error from which it is flagged
# Momentum m makes steps stable up to (1 + m) times 2 / L, which is less than this.
FAR = 2.0


def flags(report: dict[str, Any]) -> list[str]:
    """Return a sentence for each thing that is wrong, from the content of report.json.

    What they say of the figures, they say of the split that speaks for new examples.
    """
    name, split = reported_split(report["metrics"])
    return [*_of_training(report), *_of_accuracy(name, split), *_of_calibration(name, split)]


def _of_training(report: dict[str, Any]) -> list[str]:
    lr, stable = report.get("lr"), report.get("largest_stable_lr")
    if report.get("status") == "diverged":
        return [f"Training diverged; the weights are those of epoch {report['best_epoch']}."]
    if lr is None or stable is None or lr <= FAR * stable:
        return []
    return [
        f"The step of lr={lr:.4g} is {lr / stable:.2g} times the largest that is sure to be stable "
        f"({stable:.4g}): the loss may jump about. Use lr=auto, or a smaller lr."
    ]


def _of_accuracy(name: str, split: dict[str, Any]) -> list[str]:
    share = max((c["support"] for c in split.get("per_class", [])), default=0) / max(split["n"], 1)
    if share in {0, 1} or split["accuracy"] > share:
        return []
    return [
        f"The accuracy of {split['accuracy']:.2%} on {name} is no better than always naming the "
        f"largest class ({share:.2%}): try a smaller lr, less reg, more epochs, or other features."
    ]


def _of_calibration(name: str, split: dict[str, Any]) -> list[str]:
    error = split.get("expected_calibration_error", 0.0)
    if error <= CALIBRATION or error <= 2 * calibration_by_chance(split):
        return []
    return [
        f"The calibration error on {name} is {error:.2f}: its probabilities are off by so much "
        "on average. Use calibrate=true, less reg, or a smaller lr."
    ]


def calibration_by_chance(split: dict[str, Any]) -> float:
    """Return about the calibration error of a perfectly calibrated model on so few examples.

    In a bin of n examples of confidence p the share of right ones has the standard deviation
    s = sqrt(p (1 - p) / n), and is off by sqrt(2 / pi) s on average, as a normal variable is.
    """
    bins = list(zip(*split["reliability"].values(), strict=True))
    off = sum(n * math.sqrt(2 / math.pi * p * (1 - p) / n) for n, p, _ in bins if n)
    return float(off / split["n"])

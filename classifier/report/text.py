"""What is said of a run and of a sweep: parts of report.txt, and what is wrong with a model.

The page of a run and its log say the same sentences of a model that is bad but finite.
"""

import math
from typing import Any

from classifier.report.settings import OPTIMUM, reported_split
from data.errors import printable

CALIBRATION = 0.1  # an expected calibration error from which it is flagged
# Times 2 / L, from where a step is flagged. Momentum makes full-batch steps stable beyond, which is
# no help against the noise of minibatches; these can curve several times as much as all examples.
UNSTABLE = 2.0
FAR = 100  # times lr=auto, or the curvature of the data: what lies beyond is flagged
ROUNDING = 1e-6  # relative; what a loss that is equal to that of guessing may be below it


def text_of(part: str, *values: Any) -> str:
    """Return a part of report.txt, or the whole report_text, by its name in the template."""
    from classifier.report.page import template  # its packages cost start-up

    return str(getattr(template("report.txt").module, part)(*values)).rstrip()


def flags(report: dict[str, Any]) -> list[str]:
    """Return a sentence for each thing that is wrong, from the content of report.json."""
    if report.get("status") != "diverged":
        return [*settings_flags(report), *figures_flags(report)]
    diverged = f"Training diverged; the weights are those of epoch {report['best_epoch']}."
    return [diverged, *figures_flags(report)]


def settings_flags(report: dict[str, Any]) -> list[str]:
    """Return a sentence for each setting that is far outside what the data ask for.

    Parameters
    ----------
    report : lr, auto_lr and largest_stable_lr, null where they are not known, reg and smoothness.
    """
    flags = []
    lr, stable, auto = (report.get(key) for key in ("lr", "largest_stable_lr", "auto_lr"))
    if lr is not None and stable is not None and lr > UNSTABLE * stable:
        flags.append(
            f"lr={lr:.4g} is {lr / stable:.2g} times 2/L = {stable:.4g}, up to which full-batch "
            "steps are stable: the loss may jump about, or diverge. Use lr=auto, or a smaller lr."
        )
    elif lr is not None and auto is not None and not auto / FAR**2 <= lr <= auto * FAR:
        size, end = ("large", "diverge or stay bad") if lr > auto else ("small", "hardly move")
        flags.append(
            f"lr={lr:.4g} is very {size} beside lr=auto, {auto:.4g} here: training may {end}."
        )
    reg = report["reg"]
    curvature = report["smoothness"] - 2 * reg  # of the data; rounding may leave nothing of it
    if reg > FAR / 2 * curvature:
        flags.append(
            f"reg={reg:.4g} outweighs the data, whose curvature is {max(curvature, 0):.4g}: the "
            "weights stay near zero."
        )
    return flags


def figures_flags(report: dict[str, Any]) -> list[str]:
    """Return a sentence for each figure that is bad, of the split that speaks for new examples.

    A bad loss may stand beside a good accuracy. The loss is convex in a factor of all scores, and
    at 0 it is that of guessing: where it is more than that at 1, the best factor is less than 1.
    """
    flags, (name, split) = [], reported_split(report["metrics"])
    n_classes = report["data"]["n_classes"]
    guessing = math.log(n_classes)
    bad = guessing * (1 - ROUNDING)
    of, worse = (name, split) if split["loss"] >= bad else ("train", report["metrics"]["train"])
    if worse["loss"] >= bad:
        if worse["loss"] <= guessing * (1 + ROUNDING):
            ways = ["lr=auto", "less reg", "more epochs"]
            why = ": all classes are about as probable"
        elif worse["accuracy"] <= _largest_share(worse):
            why, ways = "", ["lr=auto", "a smaller lr"]
        else:
            why = (
                f", while the accuracy is {worse['accuracy']:.2%}: the model is far too sure where "
                "it is wrong"
            )
            ways = ["calibrate=true", "lr=auto", "a smaller lr"]
        flags.append(
            f"The loss of {worse['loss']:.4g} on {of} is no better than that of guessing, "
            f"ln {n_classes} = {guessing:.4g}{why}.{_advice(report, ways)}"
        )
    share = _largest_share(split)
    if 0 < share < 1 and split["accuracy"] <= share:
        flags.append(
            f"The accuracy of {split['accuracy']:.2%} on {name} is no better than always naming "
            f"the largest class ({share:.2%})."
            + _advice(report, ["a smaller lr", "less reg", "more epochs", "other features"])
        )
    error = split.get("expected_calibration_error", 0.0)
    if error > CALIBRATION and error > 2 * calibration_by_chance(split):
        flags.append(
            f"The calibration error on {name} is {error:.2f}: its probabilities are off by so much "
            f"on average.{_advice(report, ['calibrate=true', 'less reg', 'a smaller lr'])}"
        )
    return flags


def _advice(report: dict[str, Any], ways: list[str]) -> str:
    """Return those ways to a better model that a run leaves open, as a sentence; or nothing."""
    closed = set() if report["metrics"].get("val") else {"calibrate=true"}
    if report.get("lr") is None:  # it goes to the optimum
        closed |= {"lr=auto", "a smaller lr", "more epochs"}
    if "reg_path" in report:
        closed |= {"less reg"}
    *others, last = [way for way in ways if way not in closed] or [""]
    return f" Use {', '.join([*others, ''])}{'or ' * bool(others)}{last}." if last else ""


def _largest_share(split: dict[str, Any]) -> float:
    """Return the accuracy of always naming the largest class."""
    most = max((c["support"] for c in split.get("per_class", [])), default=split["n"])
    return float(most / max(split["n"], 1))


def calibration_by_chance(split: dict[str, Any]) -> float:
    """Return about the calibration error of a perfectly calibrated model on so few examples.

    In a bin of n examples of confidence p the share of right ones has the standard deviation
    s = sqrt(p (1 - p) / n), and is off by sqrt(2 / pi) s on average, as a normal variable is.
    """
    bins = list(zip(*split["reliability"].values(), strict=True))
    off = sum(n * math.sqrt(2 / math.pi * p * (1 - p) / n) for n, p, _ in bins if n)
    return float(off / split["n"])


def shown(value: Any, column: str = "") -> str:
    """Return a value, of a column of a sweep's table, as a reader wants it."""
    if value is None:
        return "-"
    if column == OPTIMUM:
        return f"{value:.2%}"
    return f"{value:.4g}" if isinstance(value, float) and math.isfinite(value) else printable(value)

"""The report of a run for a reader, and what a sweep says of its settings and its winner."""

import math
from typing import Any

from classifier.report.settings import near_best, rank
from classifier.uncertainty import accuracy_interval
from data.errors import class_name, printable


def metrics_table(metrics: dict[str, Any]) -> str:
    """Return a line per split: how many examples, loss and accuracy, and how far off these may be.

    Training examples were seen: their figures are no estimate of those of others.
    """
    lines = [f"{'split':<6}{'examples':>10}    {'loss':<18}accuracy"]
    for name, split in metrics.items():
        if split is not None:
            off = ("", "")
            if name != "train":
                error, (low, high) = split.get("loss_error"), interval(split)
                off = ("" if error is None else f" +- {error:.2g}", f" ({low:.3f} to {high:.3f})")
            loss, accuracy = f"{split['loss']:.4f}{off[0]}", f"{split['accuracy']:.4f}{off[1]}"
            lines.append(f"{name:<6}{split['n']:>10}    {loss:<18}{accuracy}".rstrip())
    return "\n".join(lines)


def interval(split: dict[str, Any]) -> tuple[float, float]:
    """Return Wilson's 95 % interval for the accuracy of a split."""
    return accuracy_interval(split["accuracy"], split["n"])


def report_text(report: dict[str, Any]) -> str:
    """Return the content of report.txt for that of report.json."""
    data = report["data"]
    best = f"best epoch {report['best_epoch']} of {report['epochs']}"
    status = "" if report["status"] in report["ended"] else f"{report['status']}: "
    config = report["config"]
    lr = "" if report["lr"] is None else f"lr {report['lr']:.4g}, "
    kind = "weighted " * (config["class_weight"] is not None)
    kind += "smoothed " * (config["label_smoothing"] > 0)
    before = ", before calibration" * ("calibration" in report)
    sections = [
        f"{printable(data['name'])}: {data['n_features']} features, {data['n_classes']} classes\n"
        f"{status}{report['ended']}; {best}\n"
        f"{lr}reg {report['reg']:g}, objective {report['objective']:.6g} "
        f"({kind}training loss + penalty{before})\n{certified(report)}",
        metrics_table(report["metrics"]),
    ]
    if "cross_validation" in report:
        sections.append(cross_validation_text(report["cross_validation"]))
    if "calibration" in report:
        sections.append(calibration_text(report))
    sections.append(split_text(*reported_split(report["metrics"])))
    return "\n\n".join(sections) + "\n"


def certified(report: dict[str, Any]) -> str:
    """Say how far a run's objective is above its lowest value, at most."""
    certificate = report["certificate"]
    if certificate is None:
        return "how near to its optimum the model is, is not known"
    norm = f"gradient {certificate['gradient_norm']:.2g}"
    if certificate["excess"] is None:
        return f"{norm}; without a penalty it proves nothing of the optimum"
    if certificate["relative"] is None:
        return f"{norm}: at most {certificate['excess']:.3g} above the lowest objective there is"
    return f"{norm}: at most {certificate['relative']:.2%} above the lowest objective there is"


def cross_validation_text(folds: dict[str, Any]) -> str:
    """Return what a cross-validation says."""
    return (
        f"{folds['folds']} folds: loss {folds['loss']:.4f} +- {folds['loss_error']:.4f}, accuracy "
        f"{folds['accuracy']:.4f} +- {folds['accuracy_error']:.4f} (standard errors; preprocessing "
        "was fitted on all folds, without labels)"
    )


def split_text(name: str, split: dict[str, Any]) -> str:
    """Return a split's classes and confusions."""
    figures = (
        f"{name}: top-{split['top_k']} accuracy {split['top_k_accuracy']:.4f}, "
        f"macro F1 {split['macro_f1']:.4f}, "
        f"expected calibration error {split['expected_calibration_error']:.4f}"
    )
    classes, confusions = _class_table(split["per_class"]), _confusion_lines(split["confusions"])
    return "\n\n".join([figures, classes, confusions])


def calibration_text(report: dict[str, Any]) -> str:
    """Return the temperature of a calibrated run, and what it did to each split."""
    calibration = report["calibration"]
    lines = [f"temperature {calibration['temperature']:.4g}, fitted on the validation split:"]
    for name, before in calibration["before"].items():
        if before is not None:
            after = report["metrics"][name]
            error = "expected_calibration_error"
            lines.append(
                f"  {name:<6}loss {before['loss']:.4f} -> {after['loss']:.4f}, "
                f"calibration error {before[error]:.4f} -> {after[error]:.4f}"
            )
    return "\n".join(lines)


def reported_split(metrics: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the split that speaks for new examples: test, or val or train where it is empty."""
    return next((name, metrics[name]) for name in ("test", "val", "train") if metrics[name])


def _class_table(classes: list[dict[str, Any]]) -> str:
    names = [class_name(c["class"]) for c in classes]
    width = max(len("class"), *map(len, names)) + 2
    lines = [f"{'class':<{width}}{'precision':>10}{'recall':>10}{'F1':>10}{'examples':>10}"]
    for name, c in zip(names, classes, strict=True):
        figures = f"{c['precision']:>10.4f}{c['recall']:>10.4f}{c['f1']:>10.4f}{c['support']:>10}"
        lines.append(f"{name:<{width}}{figures}")
    return "\n".join(lines)


def _confusion_lines(confusions: list[dict[str, Any]]) -> str:
    if not confusions:
        return "No example was classed wrongly."
    lines = []
    for c in confusions:
        true, predicted = class_name(c["true"]), class_name(c["predicted"])
        lines.append(f"  {c['count']:>6}  {true} taken for {predicted}")
    return "\n".join(["The most frequent confusions:", *lines])


def differences(summary: dict[str, Any]) -> list[str]:
    """Return how many settings are as good as the best, for all that is known, or worse."""
    settings, objective = summary["settings"], summary["objective"]
    done = rank(settings, objective)
    near, worse = near_best(settings, objective), [row for row in done if row["worse"]]
    lines = []
    if len(near) > 1:
        line = f"{len(near)} settings are within one standard error of the best"
        strongest = summary["one_standard_error"]
        if strongest:
            line += (
                f"; the strongest penalty among them is reg={shown(strongest['reg'])}, "
                f"job {strongest['job']}"
            )
        lines.append(line)
    if len(done) > 1 and any(row["worse"] is not None for row in done):
        lines.append(
            f"{len(worse)} of {len(done)} settings are worse than the best by more than chance"
        )
    return lines


def test_interval(best: dict[str, Any] | None) -> tuple[float, float] | None:
    """Return Wilson's interval for the winner's test accuracy; None where that is not known."""
    if best is None or best["test_accuracy"] is None:
        return None
    return accuracy_interval(best["test_accuracy"], best["test_n"])


def shown(value: Any) -> str:
    """Return a value as a reader wants it."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) and math.isfinite(value) else printable(value)

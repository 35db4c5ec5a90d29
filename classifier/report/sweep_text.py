"""What a sweep says of its settings and of its winner, on the terminal and on its page."""

import math
from typing import Any

from classifier.report.settings import near_best
from classifier.report.sweep_values import rank
from classifier.uncertainty import accuracy_interval
from data.console import printable


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

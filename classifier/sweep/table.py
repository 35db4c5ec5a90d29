"""What a sweep says on the terminal: its best settings, what to know about them, where they are."""

from collections import Counter
from pathlib import Path
from typing import Any

from classifier.report.settings import figures_of, rank, status_counts
from classifier.report.text import differences, shown, test_interval
from classifier.sweep.edges import no_penalty
from data.console import printable

SHOWN = 10  # settings in the table


def table(summary: dict[str, Any], sweep: Path) -> str:
    """Return the lines for the summary of a sweep in a folder."""
    jobs, settings, objective = summary["jobs"], summary["settings"], summary["objective"]
    repeated = any(len(setting["jobs"]) > 1 for setting in settings)
    columns = ["job", *figures_of(settings, summary["keys"])]
    if repeated:  # the errors stand beside the means
        columns = [name for name in columns if not name.endswith("_error")]
        columns.insert(1, "repetitions")
    cells = [columns] + [
        [_figure(setting, column, repeated) for column in columns]
        for setting in rank(settings, objective)[:SHOWN]
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in cells]
    lines += _advice(summary) + differences(summary) + _test(summary) + _reasons(jobs)
    counts = status_counts(jobs)
    listed = ", ".join(f"{n} {printable(status)}" for status, n in counts.items())
    place = printable(sweep)
    best_in = f", best in {place}/best" * (summary["best"] is not None)
    return "\n".join([*lines, f"{len(jobs)} jobs: {listed}; {place}/sweep.csv{best_in}"])


def _figure(setting: dict[str, Any], column: str, repeated: bool) -> str:
    error = setting.get(f"{column}_error") if repeated else None
    return shown(setting[column]) + (f" +- {error:.2g}" if error is not None else "")


def _advice(summary: dict[str, Any]) -> list[str]:
    """Return what to do about the choice, where there is something to do."""
    objective = summary["objective"]
    lines = [
        f"The best {edge['key']}, {shown(edge['value'])}, is the {edge['side']} tried: "
        "widen the sweep"
        for edge in summary["edges"]
    ]
    lines += filter(None, [no_penalty(summary["settings"], summary["keys"], summary["best"])])
    if summary["not_certified"]:
        lines.append(
            f"{summary['not_certified']} models are not proven to be as near to their optimum as "
            "optimizer.tol asks for: give more epochs"
        )
    if summary["best"] is None and any(job["status"] == "completed" for job in summary["jobs"]):
        lines.append(f"There is no {objective} to choose by: give cv=5, or data.val_fraction=0.1")
    return lines


def _test(summary: dict[str, Any]) -> list[str]:
    """Return what the test split says of the winner, where it was asked."""
    best, interval = summary["best"], test_interval(summary["best"])
    if interval is None:
        return []
    low, high = interval
    return [
        f"Test, looked at for job {best['job']} alone: accuracy {best['test_accuracy']:.4f} "
        f"({low:.4f} to {high:.4f}), loss {best['test_loss']:.4f} +- {best['test_loss_error']:.2g}"
    ]


def _reasons(jobs: list[dict[str, Any]]) -> list[str]:
    """Return why jobs did not complete, each reason once, with how many have it."""
    lost = [(job["status"], job["reason"]) for job in jobs if job["status"] != "completed"]
    counts = Counter(lost).most_common()
    lines = [f"{n} {status}: {reason or 'no reason known'}" for (status, reason), n in counts]
    more = len(lines) - SHOWN
    return lines[:SHOWN] + [f"and {more} other reasons"] * (more > 0)

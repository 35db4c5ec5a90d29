"""What a run's page shows of its classes: which are taken for which, the best and the worst."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from classifier.report.pages.page import Cell, cell

LISTED = 10  # pairs of classes, and classes at either end
FEW = 30  # classes up to which all are listed at once
ANNOTATED = 20  # classes up to which the matrix shows its counts
SAID = 28  # letters of a name in each of ten thousand cells, half of them from its end
COLUMNS = ("class", "precision", "recall", "F1", "examples")


class Shade(NamedTuple):
    """A cell of the confusion matrix: quicker for a template than a dict."""

    text: str
    share: float | None
    hover: str
    link: str = ""


NONE = Shade("", None, "")  # of a large matrix most cells are empty


def confusions(split: dict[str, Any], n_classes: int) -> dict[str, Any]:
    """Return the confusion matrix of a split, what it leaves out, and the pairs most confused."""
    names, matrix = split["confusion_classes"], split["confusion_matrix"]
    support = {c["class"]: c["support"] for c in split["per_class"]}
    few = len(names) <= ANNOTATED
    said = names if few else [_cut(n) for n in names]
    lines = []
    for true, own, counts in zip(names, said, matrix, strict=True):
        of = max(support[true], 1)
        cells = [
            Shade(
                text=str(n) if few and n else "",
                share=math.sqrt(n / of),  # a confusion of a few percent is still seen
                hover=f"{own} taken for {guess}: {n} of {support[true]}, {n / of:.1%}",
            )
            if n or few
            else NONE
            for guess, n in zip(said, counts, strict=True)
        ]
        lines.append((true, cells))
    part, among = "", ""
    if len(names) < n_classes:
        outside = split["n"] - sum(map(sum, matrix))
        among = f"the {len(names)} of {n_classes:,} classes with the most errors"
        part = (
            f"The matrix is of {among}; {outside:,} of {split['n']:,} examples are not in it, for "
            "their class or what they are taken for is another."
        )
    return {
        "confusion": lines,
        "confusion_part": part,
        "confused": confused_pairs(names, matrix),
        "confused_among": among,
        "wrong": round((1 - split["accuracy"]) * split["n"]),
    }


def confused_pairs(names: Sequence[str], matrix: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    """Return the pairs of classes that are taken for each other most, of those more than once.

    Of each the names `a` and `b`, the number `a_for_b` of examples of a taken for b, and `b_for_a`;
    of both, a is what is mistaken more often.
    """
    found = []
    for i, row in enumerate(matrix):
        for j in range(i):
            both = row[j] + matrix[j][i]
            if both > 1:
                a, b = (i, j) if row[j] > matrix[j][i] else (j, i)
                found.append((-both, j, i, a, b))
    return [
        {"a": names[a], "b": names[b], "a_for_b": matrix[a][b], "b_for_a": matrix[b][a]}
        for *_, a, b in sorted(found)[:LISTED]
    ]


def class_tables(split: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of the classes: all, or the worst and the best by F1, and all to open."""
    classes = split["per_class"]
    rows: list[list[Cell]] = [_row(c) for c in classes]
    shown: dict[str, Any] = {"class_columns": COLUMNS, "classes": rows, "class_ends": []}
    if len(classes) > FEW:
        known = [c for c in classes if c["support"]]
        # Of equal ones, that with more examples says more.
        worst = sorted(known, key=lambda c: (c["f1"], -c["support"]))[:LISTED]
        best = sorted(known, key=lambda c: (-c["f1"], -c["support"]))[:LISTED]
        shown["class_ends"] = [
            (f"The {LISTED} worst by F1", [_row(c) for c in worst]),
            (f"The {LISTED} best by F1", [_row(c) for c in best]),
        ]
    return shown


def _cut(name: str) -> str:
    return name if len(name) <= SAID else f"{name[: SAID // 2]}…{name[-SAID // 2 :]}"


def _row(figures: dict[str, Any]) -> list[Cell]:
    return [cell(value, "{:.4f}") for value in figures.values()]

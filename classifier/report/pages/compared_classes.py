"""What compared runs make of each class: how often it is found, its confusions, its template."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from classifier.model import LinearModel
from classifier.report.pages.compared import Compared
from classifier.report.pages.page import Cell, cell
from classifier.report.pictures import template_pictures

CLASSES = 20  # that are shown of more: those in which the runs differ most
SHADE = 0.6  # of a cell at most, so that its text can be read in the light and in the dark
PIXELS = 48  # of a side of a template at most; of larger ones every second pixel or less is shown
PICTURES, BYTES = 80, 2**19  # of all templates at most; the bytes are a guess


def learned(runs: Sequence[Compared], split: str | None, is_tested: bool) -> dict[str, Any]:
    """Return what the page shows of classes, judged by a split; nothing where there is none.

    Parameters
    ----------
    runs, split : the runs, all of them evaluated on the split.
    is_tested : whether two runs are of the same examples, and keep their predictions.
    """
    shown: dict[str, Any] = {
        "classes": [],
        "n_classes": 0,
        "change": None,
        "changed": [],
        "templates": [],
    }
    if split is None:
        return shown
    found = _recalls(runs, split)
    shown |= {"classes": _class_rows(found), "n_classes": len(found.names)}
    shown["templates"] = _templates(runs, found)
    if len(runs) == 2:
        first, other = runs
        shown["change"] = _confusion_change(first, other, split)
        if shown["change"] is None and is_tested:
            shown["changed"] = _changed_pairs(first, other, split)
    return shown


class Recalls(NamedTuple):
    """The classes that all runs know, with the recall (C, runs) and the examples of each."""

    names: list[str]
    recalls: np.ndarray
    support: list[int]

    def most(self) -> np.ndarray:
        """Return the places of the classes in which the runs differ most, at most CLASSES."""
        return _largest(np.ptp(self.recalls, axis=1))


def _recalls(runs: Sequence[Compared], split: str) -> Recalls:
    """Return how often each class is found by each run, on the split that all were evaluated on."""
    known = [{c["class"]: c for c in run.figures(split)["per_class"]} for run in runs]
    names = [name for name in known[0] if all(name in own for own in known)]
    found = [[float(own[name]["recall"]) for own in known] for name in names]
    support = [int(known[0][name]["support"]) for name in names]
    return Recalls(names, np.array(found).reshape(len(names), len(runs)), support)


def _class_rows(found: Recalls) -> list[list[Cell]]:
    """Return the recalls of the classes in which the runs differ most, the largest first."""
    return [
        [
            cell(found.names[c]),
            cell(found.support[c]),
            *(cell(float(recall), "{:.1%}") for recall in found.recalls[c]),
        ]
        for c in found.most()
    ]


class Matrix(NamedTuple):
    """What two runs take for what: a grid of the second less the first, and its unit."""

    columns: list[str]
    lines: list[tuple[str, list[dict[str, Any]]]]
    unit: str


def _confusion_change(first: Compared, other: Compared, split: str) -> Matrix | None:
    """Return how much more often the second run takes a class for another than the first.

    In examples; in percent of the class where the two were not given as many of each. None where
    their classes differ, or are more than a grid can show.
    """
    figures = [run.figures(split) for run in (first, other)]
    names, others = (of["confusion_classes"] for of in figures)
    if names != others or len(names) > CLASSES:
        return None
    one, two = (np.array(of["confusion_matrix"]) for of in figures)
    n_one, n_two = (np.maximum(matrix.sum(axis=1), 1) for matrix in (one, two))
    in_examples = np.array_equal(n_one, n_two)
    change = two / n_two[:, None] - one / n_one[:, None]
    largest = float(np.abs(change).max())

    def shown(true: int, guess: int) -> dict[str, Any]:
        size, more = float(change[true, guess]), int(two[true, guess] - one[true, guess])
        a = f"{first.letter} {one[true, guess]} of {n_one[true]}"
        b = f"{other.letter} {two[true, guess]} of {n_two[true]}"
        same = {"share": None, "hover": f"{names[true]} taken for {names[guess]}: {a}, {b}"}
        if size == 0:
            return same | {"text": "", "link": ""}
        better = other if (size > 0) == (true == guess) else first
        text = f"{more:+d}" if in_examples else f"{100 * size:+.0f}"
        share = SHADE * (0.2 + 0.8 * abs(size) / largest)
        return same | {"text": text, "share": share, "kind": better.kind, "link": ""}

    each = range(len(names))
    lines = [(names[true], [shown(true, guess) for guess in each]) for true in each]
    return Matrix(names, lines, "examples" if in_examples else "percent of the examples")


def _changed_pairs(first: Compared, other: Compared, split: str) -> list[list[Cell]]:
    """Return the confusions that two runs, tested as a pair, make most differently often.

    Of each the true class, what it is taken for, and how often by each run.
    """
    names = [c["class"] for c in first.figures(split)["per_class"]]
    said = [run.predictions[split] for run in (first, other)]
    pairs = [labels.astype(np.int64) * len(names) + predicted for labels, predicted, _ in said]
    found, places = np.unique(np.concatenate(pairs), return_inverse=True)
    counts = [np.bincount(own, minlength=len(found)) for own in np.split(places, [len(pairs[0])])]
    true, guess = np.divmod(found, len(names))
    changes = np.where(true == guess, 0, np.abs(counts[1] - counts[0]))
    return [
        [cell(names[true[k]]), cell(names[guess[k]]), *(cell(int(count[k])) for count in counts)]
        for k in _largest(changes)
        if changes[k] > 0
    ]


def _templates(runs: Sequence[Compared], found: Recalls) -> list[tuple[str, list[str]]]:
    """Return classes, and of each the templates of all runs.

    None where the runs share no class, or their examples are no images of one shape.

    Of many classes those in which the runs differ most, and of large images not every pixel: the
    page stays small enough to be sent.
    """
    shape = runs[0].report["data"]["image_shape"]
    shapes = [run.report["data"]["image_shape"] for run in runs]
    if not shape or not found.names or shapes != [shape] * len(runs):
        return []
    step = -(-max(shape[:2]) // PIXELS)
    height, width = (-(-side // step) for side in shape[:2])
    size = 4 * height * width  # three colours, in base64
    most = max(1, min(PICTURES, BYTES // size) // len(runs))
    chosen = np.sort(found.most()[:most])
    pictures = []
    for run in runs:
        model = LinearModel.load(run.folder / "model.npz")
        place = {str(name): c for c, name in enumerate(model.classes)}
        own = model.W.T[[place[found.names[c]] for c in chosen]].reshape(-1, *shape)
        pictures.append(template_pictures(own[:, ::step, ::step]))
    return [(found.names[c], list(own)) for c, *own in zip(chosen, *pictures, strict=True)]


def _largest(sizes: np.ndarray) -> np.ndarray:
    """Return the places of the largest sizes, the largest first, at most CLASSES."""
    return np.argsort(-sizes, kind="stable")[:CLASSES]

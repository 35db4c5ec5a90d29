"""Folders of runs, as runs leave them, of a model that is as good as a test wants."""

import html
import itertools
import re
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import log_softmax

from classifier.evaluation import evaluate
from classifier.fit import Epoch
from classifier.model import LinearModel
from classifier.report.chart import Text
from classifier.report.png import PIXEL, font
from classifier.runs.artifacts import Predictions, write_history, write_predictions
from classifier.runs.folder import mark, write_status
from data.files.store import write_json
from data.preprocessing import AffineMap

CONFIG = {
    "lr": 0.1,
    "reg": 1e-3,
    "class_weight": None,
    "label_smoothing": 0.0,
    "data": {"n": 300},
    "report": {"plots": "best"},
    "choices": {"data": "mine"},
    "preprocessing": {"method": "standardize"},
}


def _history_of(train, val=None):
    val = [None] * len(train) if val is None else val
    return [
        Epoch(e, 10 * e, 0.1, t, 1 - 0.9 / e, v, None if v is None else 0.5, 0.01)
        for e, (t, v) in enumerate(zip(train, val, strict=True), 1)
    ]


@pytest.fixture
def history_of():
    """Make a history of losses; the accuracies are 1 - 0.9 / epoch, and of validation 1/2."""
    return _history_of


def predictions_of(model, X, y):
    X = (X - model.features.shift) / model.features.scale
    log_p = log_softmax(X @ model.W.astype(float) + model.b, axis=1)
    return Predictions(y, log_p.argmax(axis=1), log_p[np.arange(len(y)), y])


def _run_of(signal=1.0, *, seed=0, n=(70, 80, 300), n_classes=4, image_shape=(4, 4), names=None):
    """Return a model, the better the larger its signal, its examples, and its report.

    The examples are the same whatever the model. Each split has its own, and another number.
    """
    rng = np.random.default_rng(7)
    D = int(np.prod(image_shape))
    centres = rng.standard_normal((n_classes, D))
    splits = {}
    for split, size in zip(("train", "val", "test"), n, strict=True):
        y = rng.integers(0, n_classes, size)
        splits[split] = centres[y] + 0.8 * rng.standard_normal((size, D)), y
    W = signal * centres.T + np.random.default_rng(seed).standard_normal((D, n_classes))
    names = [f"class {c}" for c in range(n_classes)] if names is None else names
    shape = image_shape if len(image_shape) > 1 else None
    features = AffineMap(np.full(D, 0.25), np.full(D, 2.0))
    bias = np.linspace(-1, 1, n_classes).astype(np.float32)
    model = LinearModel(W.astype(np.float32), bias, np.array(names), features, shape, {})
    data = {"name": "mine", "origin": "here", "n_features": D, "n_classes": n_classes}
    report = {
        "status": "completed",
        "ended": "all epochs done",
        "metrics": {split: evaluate(model, *of, 3) for split, of in splits.items() if len(of[1])},
        "objective": 1.0,
        "certificate": {"objective": 1.0, "gradient_norm": 0.5, "excess": 0.2, "relative": 0.25},
        "config": CONFIG,
        "lr": 0.25,
        "reg": 1e-4,
        "best_epoch": 2,
        "epochs": 3,
        "seconds": {"training": 1.0, "evaluation": 0.5},
        "smoothness": 1.0,
        "largest_stable_lr": None,
        "gradient_check": None,
        "machine": None,
        "data": data | {"image_shape": shape, "fingerprint": "sha256:1"},
        "versions": {"numpy": "2.0"},
    }
    return SimpleNamespace(model=model, splits=splits, report=report)


@pytest.fixture
def run_of():
    """Make a model, its examples and its report: see `_run_of`."""
    return _run_of


@pytest.fixture
def leave(tmp_path):
    """Leave the folder of a run; return what it is of, and what its model says."""

    def run(name="run", signal=1.0, *, history=None, config=None, **options):
        keys = ("seed", "n", "n_classes", "image_shape", "names")
        made = _run_of(signal, **{key: options.pop(key) for key in keys if key in options})
        folder = tmp_path / name
        folder.mkdir(parents=True)
        mark(folder, "run")
        write_status(folder, "completed", "all epochs done")
        made.model.save(folder / "model.npz")
        write_history(folder / "history.csv", history or _history_of((2.0, 1.0, 0.5)))
        made.report |= options | {"config": CONFIG | (config or {})}
        write_json(folder / "report.json", made.report)
        made.said = {s: predictions_of(made.model, *made.splits[s]) for s in ("val", "test")}
        write_predictions(folder, made.said)
        made.folder = folder
        return made

    return run


class _Page:
    """What a page shows: its text, and the cells of its tables by their captions."""

    def __init__(self, path):
        self.html = path.read_text(encoding="utf-8")
        body = re.sub(r"<(style|script)>.*?</\1>", "", self.html, flags=re.DOTALL)
        self.text = self._plain(body)
        self.tables, self.kinds = {}, {}
        for table in re.findall(r"<table.*?</table>", body, re.DOTALL):
            caption = self._plain(re.search(r"<caption>(.*?)</caption>", table, re.DOTALL)[1])
            rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
            cells = [re.findall(r"<t[dh]([^>]*)>(.*?)</t[dh]>", row, re.DOTALL) for row in rows]
            self.tables[caption] = [[self._plain(text) for _, text in row] for row in cells]
            self.kinds[caption] = [
                [re.sub(r'.*class="([^"]*)".*|.*', r"\1", kind) for kind, _ in row] for row in cells
            ]

    def _plain(self, text):
        return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())

    def rows(self, caption):
        """Return the cells of a table by those of its first column."""
        (found,) = [rows for name, rows in self.tables.items() if name.startswith(caption)]
        return {row[0]: row[1:] for row in found}


@pytest.fixture
def read():
    """Read a page: its text and its tables."""
    return _Page


def _check_room(drawing):
    """Check that all texts are inside, and apart, by the font that they are written in."""
    boxes = []
    for text in (m for m in drawing.marks if isinstance(m, Text) and m.text):
        long = font(text.letter).getlength(text.text) / PIXEL
        before = {"start": 0, "middle": long / 2, "end": long}[text.anchor]
        high = 0.7 * text.letter
        if text.turned:
            boxes.append((text.x - high, text.y + before - long, text.x, text.y + before))
        else:
            boxes.append((text.x - before, text.y - high, text.x - before + long, text.y))
    for left, top, right, bottom in boxes:
        assert min(left, top) >= 0
        assert right <= drawing.width
        assert bottom <= drawing.height
    for (a, b, c, d), (e, f, g, h) in itertools.combinations(boxes, 2):
        assert min(c, g) - max(a, e) < 2 or min(d, h) - max(b, f) < 2


@pytest.fixture
def check_room():
    """Check that the texts of a drawing have room: see `_check_room`."""
    return _check_room

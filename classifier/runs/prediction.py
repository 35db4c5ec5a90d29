"""Predictions of a trained model for new examples, as a CSV file and an accuracy report."""

import csv
import io
import re
import shlex
from collections import Counter
from pathlib import Path
from typing import BinaryIO

import numpy as np

from classifier.evaluation import evaluate
from classifier.model import LinearModel
from classifier.report.text import text_of
from classifier.runs.artifacts import BEST, MODEL
from classifier.runs.config import PredictConfig
from classifier.runs.folder import NOT_BEGUN, kind_of, latest_run, read_report, read_status
from data.dataset import Examples
from data.errors import InputError, printable
from data.examples import Wanted, find_files, open_examples
from data.files.store import is_folder, is_replaceable, is_there, write_whole
from data.files.table import Table
from data.labels import NUMBER, Coded, class_indices
from data.loading import encode
from data.machine import row_parts, within_cores
from data.sources.cifar import LAYOUTS

COUNTED = 2**16  # rows whose rare values are counted at a time


@within_cores()
def predict(config: PredictConfig) -> str:
    """Write the predictions and return what there is to say about them.

    Raises
    ------
    InputError, OSError
        When the model or the examples cannot be used, or the output cannot be written.
    """
    path = find_model(config.run, Path(config.outputs))
    output, wrong = Path(config.output), ""
    if output.resolve() in (path.resolve(), Path(config.input).resolve()):
        wrong = f"would overwrite {output}"
    elif is_replaceable(output):
        with output.open("rb") as file:
            if not re.match(rb"(label,)?prediction,(\")?probability_", file.read(40)):
                wrong = "stands there and is no table of predictions"
    if wrong:
        raise InputError(f"output={output}: {wrong}; name another file")
    model = LinearModel.load(path)
    X, y, notes = _read_examples(config, model)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_whole(output, lambda file: _write_csv(file, model, X, y))
    except InputError as error:
        raise InputError(f"{config.input}: {error} ({path})") from error
    notes.append(f"{printable(config.output)}: {len(X)} predictions with {printable(path)}")
    summary = "\n".join(notes)
    if status := incomplete_status(path):
        summary += f"\nBeware: {status}"
    if y is None or (metrics := evaluate(model, X, y, config.top_k)) is None:
        return summary
    table = text_of("metrics_table", {"input": metrics})
    return "\n\n".join([table, text_of("split_text", "input", metrics), summary])


def _read_examples(
    config: PredictConfig, model: LinearModel
) -> tuple[Examples, np.ndarray | None, list[str]]:
    """Return X, the class indices of y where each example has a label, and what there is to say.

    A label is the name of a class. The official files of CIFAR alone number their classes.
    """
    source = model.config.get("data") if isinstance(model.config, dict) else None
    source = source if isinstance(source, dict) else {}
    label, features = (source.get(k) and str(source[k]) for k in ("label", "features"))
    shape, cache = model.image_shape or (1, 1), Path(config.outputs) / "cache"
    files, classes = find_files(config.input, "input"), model.classes
    found = open_examples(
        files,
        None,
        Wanted(
            *(label, features, None, shape[0], cache, (*shape, 1)[2], len(model.W)),
            needs_label=False,
        ),
    )
    X, y, notes = found.X, found.y, [*found.notes]
    if isinstance(X, Table) and model.encoding is not None:
        X = encode(X, model.encoding, np.arange(len(X)), cache)
        others = Counter[str]()
        for part in row_parts(len(X), COUNTED):
            others.update(model.encoding.others(X[part]))
        notes += [
            f"{printable(name)}: {n} of {len(X)} rows hold a value that is rare or new: (other)"
            for name, n in others.items()
            if n
        ]
    elif isinstance(X, Table) or model.encoding is not None:
        kind = "on no table" if model.encoding is None else "on the columns of a table"
        raise InputError(f"{files[0]}: has other features than the model, which was trained {kind}")
    n_missing = int((y.codes < 0).sum()) if isinstance(y, Coded) else 0
    if 0 < n_missing < len(X):
        notes.append(f"{n_missing} of {len(X)} examples have no label: no accuracy is reported")
    if y is None or n_missing:
        return X, None, notes
    is_cifar = str(source.get("version")) in LAYOUTS
    are_names = any(map(NUMBER.fullmatch, map(str, classes)))  # some numbers
    if is_cifar and isinstance(y, np.ndarray) and y.dtype.kind in "iu" and not are_names:
        classes = np.arange(len(classes))
    return X, class_indices(y, classes, str(files[0])), notes


def find_model(run: str, outputs: Path) -> Path:
    """Return the model file that `latest`, the folder of a run or a sweep, or a file stands for.

    A sweep stands for its winner, whose model is in best/.

    Raises
    ------
    FileNotFoundError
        When there is none.
    """
    try:
        place = latest_run(outputs) if run == "latest" else Path(run)
    except FileNotFoundError as error:
        more = "train one: python train.py, or name a sweep"
        raise FileNotFoundError(f"run=latest: {error}; {more}") from None
    is_sweep = is_folder(place) and kind_of(place) == "sweep"
    path = place / (BEST if is_sweep else "") / MODEL if is_folder(place) else place
    if is_there(path):
        return path
    if not is_sweep:
        state = f" ({status})" if (status := incomplete_status(path)) else ""
        why = f"there is no {path}{state}; name a finished run or a model.npz"
    elif (summary := read_report(place, "sweep.json")) is None or summary.get("best"):
        again = f"python -m classifier.sweep.summary {shlex.quote(str(place))}"
        why = f"the winner of this sweep is not chosen yet; make its summary: {again}"
    else:
        why = f"no winner can be chosen, see {place / 'sweep.csv'}; name a job that has a model"
    raise FileNotFoundError(f"run={run}: {why}")


def incomplete_status(model: Path) -> str:
    """Return what the status file beside a model says, or nothing where the run completed."""
    status = read_status(model.parent)
    if status["status"] in ("completed", NOT_BEGUN):  # a model may have left its run's folder
        return ""
    return printable(f"the run's status is {status['status']}: {status['reason']}")


def _write_csv(file: BinaryIO, model: LinearModel, X: Examples, y: np.ndarray | None) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.writer(text, lineterminator="\n")
    names = [str(name) for name in model.classes]
    head = [] if y is None else ["label"]
    writer.writerow([*head, "prediction", *(f"probability_{name}" for name in names)])
    for rows, log_p in model.log_probability_blocks(X):
        labels = [[]] * len(log_p) if y is None else [[names[label]] for label in y[rows]]
        best, probabilities = log_p.argmax(axis=1), np.exp(log_p).tolist()
        for label, index, p in zip(labels, best, probabilities, strict=True):
            writer.writerow([*label, names[index], *(f"{value:.9g}" for value in p)])
    text.flush()
    text.detach()  # the file is closed by whoever opened it

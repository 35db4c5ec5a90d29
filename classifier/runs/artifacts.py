"""The files of a run: one list of them, and how its results and checkpoint are written and read.

The list is gone through after training and again after evaluation. Each file is whole or not there,
report.json comes last of its stage and status.json last of all, so that a run that was killed at
its end is finished by going through the list again.
"""

import contextlib
import csv
import dataclasses
import io
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from classifier.fit import Epoch
from classifier.model import LinearModel
from classifier.optimizers import Lbfgs
from classifier.report.figures import Shown
from classifier.report.settings import reported_split
from classifier.report.text import text_of
from classifier.runs.config import AUTO, Config, Job, flatten, refuse_changes
from classifier.solver import Training
from data.dataset import Dataset
from data.errors import InputError, damage_told
from data.files.arrays import read_npz, read_sealed, write_sealed
from data.files.store import read_plain, remove, write_json, write_text, write_whole

MARK = ".softmax"  # says whether a folder is that of a run or of a sweep
LOCK = ".lock"  # is locked while a process works in the folder: not every system can lock a folder
CHECKPOINT, MODEL, PREDICTIONS = "checkpoint.npz", "model.npz", "predictions.npz"
HISTORY, TEXT, REPORT = "history.csv", "report.txt", "report.json"
MISTAKES = "mistakes.npz"  # the images of the most confident mistakes
EXAMPLES = "examples.npz"  # of two features: those that a picture shows
PAGE, REGIONS, TEMPLATES = "report.html", "decision_regions.png", "weights.png"
FEATURES = "features.png"  # where features have names
PATH = "reg_path.png"  # of a run with a path of penalties, and of a sweep over them
PLOTS = (  # of every run; where examples are images, TEMPLATES too
    "accuracy_curve.png",
    "confusion_matrix.png",
    "loss_curve.png",
    "reliability_diagram.png",
)
FORMAT = 1  # of predictions.npz
STATE_FORMAT = 10  # of checkpoint.npz; another number is another layout
STATE = "training."  # in checkpoint.npz, before the names of the training's own arrays
SHARE = 0.03  # of the time of training that writing checkpoints may take
FIRST_COST = 0.01  # seconds that the first one is reckoned with
# Keys that say where sums are made, which rounds them otherwise, and what earlier versions had.
WHERE = {"device": None, "engine.kind": "local", "engine.shards": 1}
DRAWN = 400  # examples that are kept to be drawn, half of them for validation, at most

# When a file is made: before training; of what training found; of the evaluation; of a test split
# that is evaluated later; of the other files, for a person; at last.
Stage = Literal["begin", "training", "evaluation", "test", "show", "end"]
BEST, TRACKER = "best", "tracker"  # who is given a copy: best/ of a sweep, a tracker


class Predictions(NamedTuple):
    """What a model says of the N examples of a split, in their order.

    Attributes
    ----------
    labels, predicted : (N,) the true and the predicted class index.
    log_p : (N,) the log-probability of the true class, after calibration; its mean is -loss.
    """

    labels: np.ndarray
    predicted: np.ndarray
    log_p: np.ndarray

    def are_of(self, n: int, accuracy: float) -> bool:
        """Return whether there are so many examples, and the accuracy is this one of a report."""
        right = np.count_nonzero(self.predicted == self.labels)
        return len(self.labels) == n and math.isclose(right / max(n, 1), accuracy, abs_tol=1e-9)

    def figure(self, name: str) -> np.ndarray:
        """Return the loss or the accuracy of each example, the latter as whether it is right."""
        return self.predicted == self.labels if name == "accuracy" else -self.log_p


class Contents(NamedTuple):
    """What the files of a run hold: after training a model and its history, later all."""

    model: LinearModel
    history: Sequence[Epoch]
    report: dict[str, Any]
    predictions: Mapping[str, Predictions]


class Artifact(NamedTuple):
    """A file of a run: its name, the stages at which it is made, and who is given a copy."""

    name: str
    stages: tuple[Stage, ...]
    copies: tuple[str, ...] = ()


def write_files(
    stage: Literal["training", "evaluation", "test"],
    folder: Path,
    contents: Contents,
    dataset: Dataset,
) -> None:
    """Write those files of a run that are made at a stage; what is of other figures goes first.

    Raises
    ------
    OSError
        When a file cannot be written.
    """
    outdated: set[str] = set()
    if stage == "test":  # whoever comes next makes them again
        outdated = {PAGE, *PLOTS}
    elif stage == "training" and not _is_reported(folder, contents):
        # Those of an earlier model: the evaluation may fail.
        outdated = {*names_of("evaluation", "show")} - {*names_of(stage)}
    for name in outdated:
        remove(folder / name)
    model, history, report, predictions = contents
    if stage == "training" or (stage == "evaluation" and "calibration" in report):
        model.save(folder / MODEL)
    if stage == "training":
        write_history(folder / HISTORY, history)
        return
    if dataset.image_shape is not None:
        _write_mistakes(dataset, report, folder)
    write_predictions(folder, predictions)
    if stage == "evaluation":
        write_examples(folder, dataset)
    write_text(folder / TEXT, text_of("report_text", report) + "\n")
    write_json(folder / REPORT, report)


def names_of(*stages: Stage) -> list[str]:
    """Return the names of the files that are made at some stages."""
    return [artifact.name for artifact in FILES if not {*stages}.isdisjoint(artifact.stages)]


def copied_to(place: str) -> list[str]:
    """Return the names of the files that BEST or a TRACKER is given, where there are any."""
    return [artifact.name for artifact in FILES if place in artifact.copies]


def _is_reported(folder: Path, contents: Contents) -> bool:
    """Return whether there is a report in a folder, and it is of this model."""
    try:
        report, saved = read_plain(folder / REPORT), LinearModel.load(folder / MODEL)
        epochs, model = report["epochs"], contents.model
    except (OSError, InputError, KeyError, TypeError):
        return False
    same = [np.array_equal(getattr(saved, n), getattr(model, n)) for n in ("W", "b", "temperature")]
    return epochs == len(contents.history) and all(same)


def write_history(path: Path, rows: Sequence[Epoch]) -> None:
    """Write history.csv, a row an epoch; a figure that does not exist is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Epoch._fields)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_history(path: Path) -> list[Epoch]:
    """Read a file that `write_history` wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        next(rows)
        return [
            Epoch(int(epoch), int(step), *(float(f) if f else None for f in figures))  # type: ignore[arg-type]
            for epoch, step, *figures in rows
        ]


def _write_mistakes(dataset: Dataset, report: dict[str, Any], folder: Path) -> None:
    """Write the images X (n, ...) of the most confident mistakes, in their order."""
    name, split = reported_split(report["metrics"])
    rows = np.array([mistake["index"] for mistake in split["mistakes"]], dtype=np.int64)
    images = dataset.splits()[name].X[rows].reshape(len(rows), *(dataset.image_shape or ()))
    write_whole(folder / MISTAKES, lambda file: np.savez(file, X=images))


def write_predictions(folder: Path, splits: Mapping[str, Predictions]) -> None:
    """Write the predictions of a run's splits, val, test or both: runs are compared by them.

    Where there are none there is no file, and one that stands there, of an earlier model, goes.

    Raises
    ------
    OSError
        When the file cannot be written.
    """
    lowest = np.finfo(np.float32).min  # a loss too large for float32 is no infinite one
    arrays = {}
    for split, (labels, predicted, log_p) in splits.items():
        if len(labels):
            for name, classes in (("labels", labels), ("predicted", predicted)):
                small = np.min_scalar_type(int(classes.max()))
                arrays[f"{split}_{name}"] = classes.astype(small)
            arrays[f"{split}_log_p"] = np.maximum(log_p, lowest).astype(np.float32)
    if arrays:
        write_sealed(folder / PREDICTIONS, FORMAT, arrays)
    else:
        remove(folder / PREDICTIONS)


def read_predictions(folder: Path) -> dict[str, Predictions]:
    """Read what `write_predictions` wrote, or someone else: of each split in the file.

    Raises
    ------
    FileNotFoundError, InputError
        When there is no file; when it is damaged, or holds what are no predictions.
    """
    path, splits = folder / PREDICTIONS, {}
    arrays = read_sealed(path, "predictions", FORMAT)
    for split in ("val", "test"):
        names = [f"{split}_{field}" for field in Predictions._fields]
        if not arrays.keys().isdisjoint(names):
            labels, predicted, log_p = (arrays.get(name, np.empty(0)) for name in names)
            are_vectors = labels.shape == predicted.shape == log_p.shape == (labels.size,)
            kinds = f"{labels.dtype.kind}{predicted.dtype.kind} {log_p.dtype.name}"
            if not (are_vectors and kinds == "uu float32" and np.isfinite(log_p).all()):
                listed = ", ".join(names)
                raise InputError(f"{path}: {listed} are not predictions of the same examples")
            splits[split] = Predictions(labels, predicted, log_p)
    return splits


def read_validation(sweep: Path, folder: str) -> Predictions | None:
    """Read what a job of a sweep says of the validation examples; None where it keeps nothing."""
    try:
        return read_predictions(sweep / folder).get("val")
    except (OSError, InputError):
        return None


def write_examples(folder: Path, dataset: Dataset) -> None:
    """Write some training and validation examples where they have two features, to draw them.

    They are X (n, 2), y (n,) class indices and is_val (n,), from all over the splits.
    """
    if dataset.train.X.shape[1:] != (2,) or dataset.image_shape is not None:
        return
    parts = []
    for split in (dataset.train, dataset.val):
        rows = np.linspace(0, len(split) - 1, min(len(split), DRAWN // 2)).astype(np.int64)
        parts.append((split.X[rows].astype(np.float64), split.y[rows]))
    is_val = np.repeat([False, True], [len(y) for _, y in parts])
    X, y = (np.concatenate(part) for part in zip(*parts, strict=True))
    write_whole(folder / EXAMPLES, lambda file: np.savez(file, X=X, y=y, is_val=is_val))


def read_examples(path: Path) -> Shown:
    """Read what `write_examples` wrote, or someone else.

    Raises
    ------
    InputError, OSError
        When it cannot be read, or is something else.
    """
    shown = Shown(**read_npz(str(path), list(Shown._fields)))
    X, y, is_val = shown
    if X.shape != (len(y), 2) or y.shape != is_val.shape or y.dtype.kind not in "iu":
        raise InputError(f"{path}: are not examples of two features, with classes")
    return shown


class Checkpoints:
    """Writes the checkpoint of one training, no more often than its time allows.

    That of a run stands in its folder, that of a stack in the folder of its first job.

    Parameters
    ----------
    path : the file.
    jobs, fingerprint, gradient_error : whose training it is, on what data, and its check.
    every : epochs from one to the next at least; None: only when asked.
    """

    def __init__(
        self,
        path: Path,
        jobs: Sequence[Job],
        fingerprint: str,
        gradient_error: float | None,
        every: int | None,
    ) -> None:
        self.path, self.every = path, every
        self.whose = {
            "folders": np.array([job.folder.name for job in jobs]),
            "configs": np.array([json.dumps(job.plain) for job in jobs]),
            "regs": np.array([float(job.config.reg) for job in jobs]),
            "data": np.array(fingerprint),
            "gradient_error": np.array(math.nan if gradient_error is None else gradient_error),
        }
        self._written, self._cost = time.perf_counter(), FIRST_COST

    def after_epoch(self, training: Training) -> None:
        """Write one if it is due and the last one's cost is a small share of the time since."""
        since = time.perf_counter() - self._written
        if self.every and training.epoch % self.every == 0 and since * SHARE >= self._cost:
            self.write(training)

    def write(self, training: Training) -> None:
        """Write one; raises OSError where that fails."""
        start = time.perf_counter()
        state = {f"{STATE}{name}": array for name, array in training.state().items()}
        # It takes the place of the only other one: the machine itself may stop now.
        write_sealed(self.path, STATE_FORMAT, self.whose | state, on_disk=True)
        self._written = time.perf_counter()
        self._cost = self._written - start


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as read: folder, config and penalty of each model, their data, the state."""

    path: Path
    folders: list[str]
    configs: list[dict[str, Any]]
    regs: np.ndarray
    data: str
    gradient_error: float | None
    state: dict[str, np.ndarray]

    def check_longer(self, config: Config) -> None:
        """Refuse more epochs where a path was made longer: its first models ended before others.

        Raises
        ------
        InputError
            Naming the key.
        """
        if config.reg != AUTO or isinstance(config.optimizer, Lbfgs):
            return
        before = max((int(saved.get("epochs", 0)) for saved in self.configs), default=0)
        if len(self.regs) > config.reg_path["n"] and config.epochs > before:
            raise InputError(
                f"epochs={config.epochs}: the path of penalties was made longer when its first "
                f"models had ended, so that they are not trained on; leave out epochs ({before}), "
                "or start a new run"
            )

    def moved(self, job: Job) -> str:
        """Say where the rows of a job stand now, where they stood elsewhere; or nothing."""
        before, now = WHERE | flatten(self.configs[0]), flatten(job.plain)
        told = [
            f"{key}={now[key] or 'null'} (the run had {before[key] or 'null'})"
            for key in WHERE
            if before[key] != now[key]
        ]
        return f"{', '.join(told)}: equal within rounding" if told else ""

    def restore(self, training: Training, jobs: Sequence[Job], fingerprint: str) -> None:
        """Put a training of these jobs where the checkpoint was written.

        Raises
        ------
        InputError
            When settings or data are not those it was trained with, or the file is damaged.
        """
        members = []
        # One run may have a path of penalties, and its folder another name by now.
        is_one_run = len({*self.folders}) == 1 and len(self.folders) == len(jobs)
        for place, job in enumerate(jobs):
            if not is_one_run and job.folder.name not in self.folders:
                raise InputError(f"{self.path}: holds no model of {job.folder}; delete it")
            members.append(place if is_one_run else self.folders.index(job.folder.name))
            refuse_changes(self.configs[members[-1]], job.plain)
        if self.data != fingerprint:
            raise InputError(
                f"{self.path}: the data are not those that it was trained on; bring them back, or "
                "start a new run"
            )
        n_stacks = len(training.fits) // len(jobs)  # those of each fold stand behind the others
        places = [member + len(self.folders) * k for k in range(n_stacks) for member in members]
        with _checkpoint_told(self.path):
            training.restore(self.state, places)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises
    ------
    InputError
        When there is none, or it is damaged, of another format or not a checkpoint.
    """
    with _checkpoint_told(path):
        arrays = read_sealed(path, "checkpoint", STATE_FORMAT)
        folders = [str(name) for name in arrays.pop("folders")]
        configs = [dict(json.loads(str(config))) for config in arrays.pop("configs")]
        regs = arrays.pop("regs", np.empty(0)).astype(np.float64)  # earlier versions kept none
        data, checked = str(arrays.pop("data")), float(arrays.pop("gradient_error"))
        gradient_error = None if math.isnan(checked) else checked
        state = {name.removeprefix(STATE): array for name, array in arrays.items()}
        return Checkpoint(path, folders, configs, regs, data, gradient_error, state)


@contextlib.contextmanager
def _checkpoint_told(path: Path) -> Iterator[None]:
    """Say of a checkpoint that is damaged what to do: one may write anything under a seal."""
    try:
        with damage_told(f"{path}: a damaged checkpoint"):
            yield
    except InputError as error:
        raise InputError(f"{error}; delete it, and the training begins anew") from error


RESULTS: tuple[Stage, ...] = ("evaluation", "test")
BOTH = (BEST, TRACKER)
FILES = (
    *(Artifact(name, ("begin",)) for name in (MARK, LOCK, ".hydra")),
    Artifact("train.log", ("begin",), BOTH),
    Artifact(CHECKPOINT, ("training",)),
    Artifact(MODEL, ("training", "evaluation"), BOTH),
    Artifact(HISTORY, ("training",), BOTH),
    Artifact(MISTAKES, RESULTS, (BEST,)),
    Artifact(PREDICTIONS, RESULTS, (BEST,)),
    Artifact(EXAMPLES, ("evaluation",), (BEST,)),
    Artifact(TEXT, RESULTS, BOTH),
    Artifact(REPORT, RESULTS, BOTH),
    *(Artifact(n, ("show",), BOTH) for n in (PAGE, *PLOTS, TEMPLATES, FEATURES, REGIONS, PATH)),
    Artifact("status.json", ("end",), (TRACKER,)),
)

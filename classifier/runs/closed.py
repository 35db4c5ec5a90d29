"""The test split of a job of a sweep, which stays closed until the job has won, or somebody looks.

A model chosen among many by the figures of one split looks better there than it is. So the test
split takes no part in any choice, and is evaluated for the chosen model alone.
"""

import dataclasses
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from classifier.evaluation import Evaluation, Measured, evaluate_stack
from classifier.model import LinearModel
from classifier.report.names import PAGE, PLOTS
from classifier.report.text import report_text
from classifier.runs.config import CONFIGS, schemas
from classifier.runs.evaluated import calibrated_figures
from classifier.runs.folder import locked_runs, read_report
from classifier.runs.predictions import Predictions, read_predictions, write_predictions
from classifier.runs.preparation import find_class_weights, load_source
from classifier.runs.received import read_received
from classifier.runs.results import MODEL, predictions, write_mistakes
from data.dataset import Dataset
from data.errors import InputError, one_line
from data.files.store import remove, write_json, write_text

_kept: list[Dataset] = []  # that of the last jobs of a sweep in this process, if there is one


def keep(dataset: Dataset | None) -> None:
    """Keep the data of jobs for `open_test`, which else loads them again; None: let them go."""
    _kept[:] = [] if dataset is None else [dataset]


def open_test(folder: Path) -> None:
    """Evaluate the model of a run on its test split, and add the figures to its report.

    Its page and its plots are then to be made again, and are removed. Nothing is done where the
    figures are there already, or there is no test split.

    Raises
    ------
    InputError, OSError
        When the run left no model or report; when its data are not there or not the same any more.
    """
    report = read_report(folder)
    if report is None:
        raise InputError(f"{folder}: this run left no report; its train.log says why")
    if report["metrics"].get("test"):
        return
    with locked_runs([folder]):
        model, config = LinearModel.load(folder / MODEL), read_received(folder).config
        wanted = report["data"]["fingerprint"]
        kept = next((own for own in _kept if own.fingerprint == wanted), None)
        dataset = kept or _load_dataset(folder, config)
        if dataset.fingerprint != wanted:
            raise InputError(
                f"{folder}: the data are not those that it was trained on; bring them back"
            )
        if len(dataset.test) == 0:
            return
        found = _add_figures(report, model, config, dataset)
        said = _kept_predictions(folder) | predictions(dataset, {"test": found})
        write_text(folder / "report.txt", report_text(report))
        write_mistakes(folder, report["metrics"], dataset)
        write_predictions(folder, said)
        for name in (PAGE, *PLOTS):  # of the figures so far: whoever comes next makes them again
            remove(folder / name)
        write_json(folder / "report.json", report)  # last: where it has the figures, all have them


def _kept_predictions(folder: Path) -> dict[str, Predictions]:
    try:
        return read_predictions(folder)
    except FileNotFoundError:  # of splits that are too large
        return {}


def _add_figures(
    report: dict[str, Any], model: LinearModel, config: dict[str, Any], dataset: Dataset
) -> Evaluation:
    """Put the figures of the test split into a report, those before calibration too."""
    own = config["report"]["top_k"], config["label_smoothing"]
    stack = [Measured(model, *own), Measured(dataclasses.replace(model, temperature=1.0), *own)]
    weights = find_class_weights(config["class_weight"], dataset)
    found, cold = evaluate_stack(stack, dataset.test.X, dataset.test.y, weights)
    for one in (found, cold):
        if isinstance(one, InputError):
            raise one
    assert isinstance(found, Evaluation)
    assert isinstance(cold, Evaluation)
    report["metrics"]["test"] = found.figures
    if "calibration" in report:
        report["calibration"]["before"]["test"] = calibrated_figures(cold.figures)
    return found


def _load_dataset(folder: Path, config: dict[str, Any]) -> Dataset:
    """Load the data of a run as its config says, which may come from anyone."""
    place = CONFIGS / "data" / f"{config['choices']['data']}.yaml"
    try:
        defaults = OmegaConf.load(place)
        (schema, _) = defaults.pop("defaults")  # type: ignore[arg-type]
        kind = schemas()["data"][next(iter(schema.values()))]
        source: Any = OmegaConf.to_object(
            OmegaConf.merge(OmegaConf.structured(kind), defaults, config["data"])
        )
        return load_source(source)
    except InputError as error:
        raise InputError(f"{folder}: data.{error}") from error
    except OmegaConfBaseException as error:
        raise InputError(f"{folder}: data: {one_line(error)}") from error

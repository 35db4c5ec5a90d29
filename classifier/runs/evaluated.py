"""Trained models evaluated on the splits of their data, and the report of each.

The jobs of a sweep leave the test split alone, so that it can judge the winner: it takes no part in
any choice. The training figures are those of the pass that says how near to the optimum a model is.
Training examples are evaluated in full where that pass does not tell all, or no others are there.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from classifier.calibration import fit_temperature
from classifier.evaluation import Evaluation, Measured, evaluate_stack, minimised
from classifier.kernel import penalty
from classifier.model import LinearModel
from classifier.runs.job import Job
from classifier.runs.log import timed
from classifier.runs.preparation import Prepared
from classifier.runs.report import gather
from classifier.runs.trained import Trained
from data.dataset import Split
from data.errors import InputError

AT_ONCE = 2**23  # predictions that are kept at a time, of all models

Found = dict[str, Evaluation | None]  # of a model, by the names of the splits


@dataclasses.dataclass(frozen=True)
class Member:
    """A job of a stack, what training made of it, and its model."""

    job: Job
    trained: Trained
    model: LinearModel


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """A job, its model, calibrated where that is asked for, its report, and what was found."""

    job: Job
    model: LinearModel
    report: dict[str, Any]
    found: Found


def evaluate_jobs(
    members: Sequence[Member],
    prepared: Prepared,
    seconds: dict[str, float],
    after_block: Callable[[], None],
    *,
    of_sweep: bool,
) -> list[Evaluated | InputError]:
    """Evaluate models of one stack, and return of each what is reported, or why it cannot be.

    Parameters
    ----------
    members : jobs with their models.
    prepared : the data that they were trained on.
    seconds : what the parts of the run took so far, for each of them.
    after_block : called after each block of examples; what it raises ends the evaluation.
    of_sweep : whether they are the jobs of a sweep.
    """
    dataset = prepared.dataset
    splits = {name: s for name, s in dataset.splits().items() if name != "test" or not of_sweep}
    held_out = any(len(split) for name, split in splits.items() if name != "train")
    if held_out and all(_is_known(member, prepared) for member in members):
        del splits["train"]
    own: dict[str, float] = {}
    with timed(own, "evaluation"):
        stack = [_measured(member, member.model) for member in members]
        found = _evaluate(stack, splits, prepared.class_weights, after_block)
    if members[0].job.config.calibrate:
        with timed(own, "calibration"):
            cold = [m._replace(model=_calibrated(m.model, dataset.val)) for m in stack]
            after = _evaluate(cold, splits, prepared.class_weights, after_block)
    else:
        cold, after = stack, found
    seconds = seconds | {name: value / len(members) for name, value in own.items()}
    results: list[Evaluated | InputError] = []
    for member, measured, then, now in zip(members, cold, found, after, strict=True):
        if isinstance(then, InputError) or isinstance(now, InputError):
            results.append(next(own for own in (then, now) if isinstance(own, InputError)))
        else:
            results.append(_evaluated(member, measured.model, (then, now), prepared, seconds))
    return results


def at_once(prepared: Prepared) -> int:
    """Return how many models are evaluated at a time, so that what is kept of them is bounded."""
    return max(1, AT_ONCE // max(1, *map(len, prepared.dataset.splits().values())))


def _is_known(member: Member, prepared: Prepared) -> bool:
    """Return whether loss and accuracy of the training examples are known as reported."""
    changed = member.job.config.calibrate or prepared.class_weights is not None
    return member.trained.fit.certificate is not None and not changed


def _measured(member: Member, model: LinearModel) -> Measured:
    config = member.job.config
    return Measured(model, config.report.top_k, config.label_smoothing)


def _evaluate(
    stack: Sequence[Measured],
    splits: Mapping[str, Split],
    class_weights: np.ndarray | None,
    after_block: Callable[[], None],
) -> list[Found | InputError]:
    """Return what is found of each model on the splits, or why it cannot be measured."""
    columns = [
        evaluate_stack(stack, split.X, split.y, class_weights, after_block)
        for split in splits.values()
    ]
    results: list[Found | InputError] = []
    for row in zip(*columns, strict=True):
        error = next((own for own in row if isinstance(own, InputError)), None)
        found = [own for own in row if not isinstance(own, InputError)]
        results.append(dict(zip(splits, found, strict=True)) if error is None else error)
    return results


def _calibrated(model: LinearModel, val: Split) -> LinearModel:
    return dataclasses.replace(model, temperature=fit_temperature(model, val.X, val.y))


def _evaluated(
    member: Member,
    model: LinearModel,
    stages: tuple[Found, Found],
    prepared: Prepared,
    seconds: dict[str, float],
) -> Evaluated:
    """Return a job with its report, given what was found before calibration and after it."""
    before, found = (_figures(stage, member, prepared) for stage in stages)
    fit, reg = member.trained.fit, member.job.config.reg
    if fit.certificate is not None:
        objective = fit.certificate.objective
    else:  # stopped before the end of an epoch
        of_weights = penalty(fit.theta[:, None].astype(np.float64), np.array([reg]))
        objective = minimised(before["train"]) + float(of_weights[0])
    report = gather(member.job, member.trained, prepared, objective, found, seconds)
    if member.job.config.calibrate:
        cold = {name: split and calibrated_figures(split) for name, split in before.items()}
        report["calibration"] = {"temperature": model.temperature, "before": cold}
    return Evaluated(member.job, model, report, stages[1])


def _figures(found: Found, member: Member, prepared: Prepared) -> dict[str, Any]:
    """Return the figures of each split: in part of one that is known in part, None of others."""
    figures: dict[str, Any] = dict.fromkeys(prepared.dataset.splits())
    certificate = member.trained.fit.certificate
    if "train" not in found and certificate is not None:
        n = len(prepared.dataset.train)
        figures["train"] = {"n": n, "loss": certificate.loss, "accuracy": certificate.accuracy}
    return figures | {name: own and own.figures for name, own in found.items()}


def calibrated_figures(split: dict[str, Any]) -> dict[str, Any]:
    """Return of a split what a temperature changes: it leaves every prediction as it was."""
    return {name: split[name] for name in ("loss", "expected_calibration_error", "reliability")}

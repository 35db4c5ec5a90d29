"""Training to the optimum: L-BFGS on all examples at once, for a stack of models.

The passes over the data are shared, and all else is each model's own: its search, its end. It
leaves the stack when its certificate says that it is as near to its optimum as was asked for. The
examples are seen through `Objective`, the weights in coordinates of even curvature, and models that
differ in the penalty alone are trained along a path.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from classifier import blas, lbfgs
from classifier.certificate import Certificate, certify
from classifier.coordinates import Coordinates
from classifier.fit import DIVERGED, DONE, SKIPPED, STUCK, Epoch, Fit
from classifier.model_stack import PerModel
from classifier.optimizers import Lbfgs
from classifier.path import folds_of, stages, start, weaker_than_needed
from classifier.shards import Objective, cut, evaluate_held_out
from classifier.solver import Training
from data.dataset import Split

SMALL = 1e-3  # of tol: where slopes, relative to the objective, are small
RAREST = 1e-9  # share that a class is taken to have at least
EPSILON = 1e-12  # nats: an objective that is so near to zero, or to its lowest value, is there


class FullBatchTraining(Training):
    """Trains G models to their optima; an epoch is a pass over the examples, and a step.

    Parameters
    ----------
    train, val, n_classes, models, epochs : as of `Training`; lr and momentum are not used.
    optimizer : says when a model is done.
    rng : chooses the examples from which the curvature is measured, where not all are.
    """

    def __init__(
        self,
        train: Split,
        val: Split,
        n_classes: int,
        models: PerModel,
        *,
        optimizer: Lbfgs,
        epochs: int,
        rng: np.random.Generator,
    ) -> None:
        super().__init__(train, val, n_classes, models, epochs, rng)
        self.optimizer = optimizer
        self._n_threads = blas.n_threads()
        with blas.one_thread():
            self._coordinates = Coordinates(train, rng, self._n_threads)
        self._waiting = set(range(len(self.fits)))  # models that have not begun
        self._judged: dict[int, tuple[float, float]] = {}
        self._zeros = np.zeros_like(self.fits[0].theta)
        self._order = self.order
        self.begin([], self.init(self._zeros[:, None][:, :0]))

    @property
    def step(self) -> int:
        """Steps taken so far: one a pass."""
        return self.epoch

    @property
    def n_parts(self) -> int:
        """Shards of the examples."""
        return len(cut(len(self.train), self._zeros.size * len(self.fits)))

    def init(self, theta: np.ndarray) -> dict[str, np.ndarray]:
        """Return what is known of searches that begin with weights (C, G, D + 1)."""
        # The loss does not depend on what all classes have in common, nor do directions have it.
        return lbfgs.init(theta - theta.mean(axis=0), self._coordinates.n_scales)

    def begin(self, stack: Sequence[int], arrays: dict[str, np.ndarray]) -> None:
        """Make these the models in the stack, with what is known of their searches."""
        self.stack, self.arrays = list(stack), arrays
        self._waiting -= {*self.stack}
        self._objective = Objective(self.train, self.n_classes, self.models.select(self.stack))

    def start_from(self, theta: np.ndarray) -> None:
        """Begin with these weights (C, G, D + 1) instead of a path: a warm start."""
        self._waiting = set()
        self.begin(range(len(self.fits)), self.init(theta.astype(self._zeros.dtype)))

    def find_models(self) -> bool:
        """Go on to the next models where none is in the stack; return whether there are any."""
        if self.stack:
            return True
        for stage in stages(self.models):
            if ready := [g for g in stage if g in self._waiting]:
                known = {g: fit.theta for g, fit in enumerate(self.fits) if fit.history}
                theta = start(self.models, ready, known) if known else self._shares(ready)
                self.begin(ready, self.init(theta))
                return True
        # Only after a restore: with more epochs than before they begin a new search.
        used_up = [g for g, fit in enumerate(self.fits) if fit.ended == DONE and fit.history]
        if again := [g for g in used_up if len(self.fits[g].history) < self.epochs]:
            self.begin(again, self.init(np.stack([self.fits[g].theta for g in again], axis=1)))
        return bool(again)

    def unfinished(self) -> list[int]:
        """Return the models in the stack, and those that have not begun."""
        return [*self.stack, *self._waiting]

    def numbers(self) -> dict[str, Any]:
        """Return nothing: a pass that is stopped is made again."""
        return {}

    def set_numbers(self, numbers: Mapping[str, np.ndarray]) -> None:
        """Refuse the state of another training; find out which models have not begun."""
        if self.order != self._order:
            raise ValueError("a training with another seed")
        fits = enumerate(self.fits)
        self._waiting = {g for g, fit in fits if not fit.history and fit.status != SKIPPED}

    def _shares(self, models: list[int]) -> np.ndarray:
        """Return weights of zero, and biases that give each class its share of the examples."""
        theta = np.stack([self._zeros] * len(models), axis=1)
        shares = np.bincount(self.train.y, self.train.weights, self.n_classes)[:, None]
        e = self.models.label_smoothing[models]
        shares = (1 - e) * shares / shares.sum() + e / self.n_classes
        theta[..., -1] = np.log(np.maximum(shares, RAREST)) * self.train.X[:1][0, -1]
        return theta

    def run_epoch(self, stop: Callable[[], str]) -> bool:
        """Try a step of every model in the stack; return whether the pass was not stopped."""
        begun, reg = time.perf_counter(), self.models.reg[self.stack]
        lbfgs.aim(self.arrays, self._coordinates, reg)
        steps, trial = self.arrays["step"][:, 0], lbfgs.trial(self.arrays, self._coordinates)
        result = self._objective(trial, stop, self.team)
        if result is None:
            return False
        held_out = evaluate_held_out(self.val, trial, team=self.team) if len(self.val) else None
        certificates = certify(result, reg)
        moved = lbfgs.tell(self.arrays, trial, result, self._coordinates)
        seconds = time.perf_counter() - begun
        for place, g in enumerate(self.stack):
            fit, n = self.fits[g], len(self.fits[g].history) + 1
            lr, certificate = float(steps[place]), certificates[place]
            if moved[place] or self._is_near(certificate):
                val: tuple[float | None, float | None] = None, None
                if held_out is not None:
                    val = float(held_out.loss[place]), float(held_out.accuracy[place])
                row = Epoch(n, n, lr, certificate.loss, certificate.accuracy, *val, seconds)
                if fit.keeps(trial[:, place], certificate.objective, val[0]):
                    fit.theta[...] = trial[:, place]
                    fit.certificate, fit.best_epoch = certificate, n
            else:
                row = fit.history[-1]._replace(epoch=n, step=n, lr=lr, seconds=seconds)
            fit.history.append(row)
        self.epoch += 1
        return True

    def _is_near(self, certificate: Certificate) -> bool:
        return certificate.relative <= self.optimizer.tol

    def drop_ended(self) -> None:
        """Take models that have ended, or turn out not to be needed, out of the stack."""
        super().drop_ended()
        going_on = {*self.stack, *self._waiting}
        for g, reason in self._not_needed(going_on).items():
            self.fits[g].status, self.fits[g].ended = SKIPPED, reason
            going_on.remove(g)
        self._waiting &= going_on
        self.select([place for place, g in enumerate(self.stack) if g in going_on])

    def why_ended(self, place: int, fit: Fit) -> str:
        """Return why a model has ended, or nothing while it goes on."""
        if fit.status == DIVERGED:
            return f"diverged in epoch {len(fit.history)}: use a larger reg"
        certificate = fit.certificate
        if certificate is not None:
            if self._is_near(certificate):
                return f"as near to the optimum as was asked for, tol={self.optimizer.tol:g}"
            # Zero is a bound too: the lowest value where one class alone has examples that count.
            bound = min(certificate.excess, certificate.objective)
            if bound <= EPSILON:
                return f"at most {bound:.2g} above the lowest objective"
        # A quadratic falls by half of its slope: without a penalty no more is known.
        value, slope = (float(self.arrays[name][place, 0]) for name in ("value", "slope"))
        reg = self.models.reg[self.stack[place]]
        if reg == 0 and -slope <= self.optimizer.tol * SMALL * value:
            return "the gradient is small; without a penalty no more is known"
        if lbfgs.is_stuck(self.arrays)[place]:
            return STUCK
        return DONE if len(fit.history) >= self.epochs else ""

    def _not_needed(self, going_on: set[int]) -> dict[int, str]:
        """Return the models, of those that go on, with penalties weaker than needed, and why."""
        found: dict[int, str] = {}
        if self.optimizer.all_penalties:
            return found
        for smoothing in dict.fromkeys(self.models.label_smoothing.tolist()):
            alike = np.flatnonzero(self.models.label_smoothing == smoothing).tolist()
            whole = [g for g in alike if self.models.fold[g] < 0 and g not in self._waiting]
            tried = []
            for g in sorted(whole, key=lambda g: -self.models.reg[g]):
                if g in going_on or self._judge(g, going_on) is None:
                    break
                tried.append((self.models.reg[g], *self._judged[g]))
            limit = weaker_than_needed(*zip(*tried, strict=True)) if tried else None
            if limit is not None:
                reason = f"weaker than needed: held-out loss is worse already with reg={limit:.3g}"
                own = going_on.intersection(alike)
                found |= {g: reason for g in own if self.models.reg[g] < limit}
        return found

    def _judge(self, g: int, going_on: set[int]) -> tuple[float, float] | None:
        """Return the held-out loss of a model that has ended, and its standard error, if known."""
        if g not in self._judged and self.fits[g].status != DIVERGED:
            folds = folds_of(self.models, g)
            if folds and going_on.isdisjoint(folds):
                theta = np.stack([self.fits[f].theta for f in folds], axis=1)
                losses = evaluate_held_out(self.train, theta, self.models.select(folds)).loss
                error = losses.std(ddof=1) / math.sqrt(len(folds))
                self._judged[g] = float(losses.mean()), float(error)
            elif not folds and len(self.val):
                held_out = evaluate_held_out(self.val, self.fits[g].theta[:, None])
                self._judged[g] = float(held_out.loss[0]), float(held_out.error[0])
        return self._judged.get(g)

"""Training to the optimum: L-BFGS on all examples at once, for a stack of models.

The passes over the data are shared, and all else is each model's own: its search, its end. It
leaves the stack when its certificate says that it is as near to its optimum as was asked for. The
examples are seen through `FullLoss`, the weights in coordinates of even curvature, and models that
differ in the penalty alone are trained along a path.
"""

import math
import time
from collections.abc import Callable, Sequence

import numpy as np

from classifier import blas
from classifier.certificate import Certificate, certify
from classifier.fit import DIVERGED, DONE, SKIPPED, STUCK, Epoch, Fit
from classifier.full_loss import FullLoss
from classifier.held_out import evaluate_held_out
from classifier.lbfgs import Search
from classifier.model_stack import PerModel
from classifier.optimizers import Lbfgs
from classifier.path import folds_of, stages, start, weaker_than_needed
from classifier.preconditioner import Preconditioner, measure_moments
from classifier.search_stack import SearchStack
from classifier.training_state import TrainingState
from data.dataset import Split

SMALL = 1e-3  # of tol: where squared gradients, relative to the objective, are small
EPSILON = 1e-12  # nats: an objective that is so near to zero, or to its lowest value, is there


class FullBatchTraining:
    """Trains G models to their optima.

    Parameters
    ----------
    train, val : design matrices (N, D + 1), class indices, weights, and the folds of train where
        models leave one out; val may be empty.
    n_classes : C.
    models : reg, label smoothing, fold and kept share of each; lr and momentum are not used.
    optimizer : says when a model is done.
    epochs : passes over the data of each model, at most.
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
        self.train, self.val, self.n_classes, self.models = train, val, n_classes, models
        self.optimizer, self.epochs = optimizer, epochs
        self.epoch = 0  # passes that are complete
        self._order = rng.bit_generator.state
        self._n_threads = blas.n_threads()
        moments = measure_moments(train, rng)
        with blas.one_thread():
            self._coordinates = Preconditioner(moments, models.reg)
        self._zeros = np.zeros((n_classes, train.X.shape[1]), dtype=train.X.dtype)
        self.fits = [Fit(self._zeros.copy(), math.nan) for _ in models.reg]
        self._waiting = set(range(len(self.fits)))  # models that have not begun
        self._judged: dict[int, tuple[float, float]] = {}
        self._stack: SearchStack
        self._begin([], self._zeros[:, None][:, :0])

    @property
    def step(self) -> int:
        """Steps taken so far: one a pass."""
        return self.epoch

    def run(
        self,
        on_epoch: Callable[[list[Fit]], None] = lambda _: None,
        stop: Callable[[], str] = lambda: "",
    ) -> list[Fit]:
        """Train until every model has ended, as `Training.run` does; here an epoch is one pass.

        `stop` is asked during a pass too, which is then made again by whoever goes on.
        """
        quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore")
        with quiet, blas.one_thread():  # the passes have threads of their own
            while self._find_models() and not stop():
                took_part = [self.fits[g] for g in self._stack.models]
                if self._pass(stop):
                    on_epoch(took_part)
        for g in {*self._stack.models.tolist(), *self._waiting}:
            self.fits[g].status = "interrupted"
            self.fits[g].ended = f"{stop()} in epoch {self.epoch + 1}"
        return self.fits

    def state(self) -> TrainingState:
        """Return all that `restore` needs to go on exactly here."""
        stack = self._stack
        return TrainingState(
            self.epoch,
            0,
            0,
            0.0,
            self._order,
            stack.models.tolist(),
            stack.theta,
            stack.to_arrays(),
            np.zeros((2, len(stack.models))),
            self.fits,
        )

    def restore(self, state: TrainingState, members: Sequence[int]) -> None:
        """Go on where `state` was taken; parameters and errors as of `Training.restore`.

        With more epochs than before, models that had used theirs up begin a new search where the
        earlier one ended.
        """
        if state.order != self._order or state.theta.dtype != self._zeros.dtype:
            raise ValueError("a training with another seed or type")
        for g, model in enumerate(members):
            earlier = state.fits[model]
            if earlier.theta.shape != self._zeros.shape:
                raise ValueError(f"weights {earlier.theta.shape}")
            self.fits[g].theta[...] = earlier.theta
            self.fits[g].history = state.history(model, validated=len(self.val) > 0)
            self.fits[g].best_epoch = earlier.best_epoch
            self.fits[g].certificate = earlier.certificate
            if model not in state.stack and (earlier.history or earlier.status == SKIPPED):
                self.fits[g].status, self.fits[g].ended = earlier.status, earlier.ended
        own = [g for g, model in enumerate(members) if model in state.stack]
        columns = [state.stack.index(members[g]) for g in own]
        arrays = {name: np.ascontiguousarray(a[:, columns]) for name, a in state.optimizer.items()}
        self._begin(own, np.ascontiguousarray(state.theta[:, columns]))
        self._stack = SearchStack.from_arrays(self._stack.models, self._stack.theta, arrays)
        ended = {g for g, fit in enumerate(self.fits) if fit.history or fit.status == SKIPPED}
        self._waiting -= {*own, *ended}
        self.epoch = state.epoch

    def start_from(self, theta: np.ndarray) -> None:
        """Begin with these weights (C, G, D + 1) instead of a path: a warm start."""
        self._waiting = set()
        self._begin(list(range(len(self.fits))), theta.copy())

    def _begin(self, models: list[int], theta: np.ndarray) -> None:
        """Make these the models in the stack, and no others."""
        chosen = np.array(models, dtype=np.int64)
        own = self.models.select(chosen)
        self._loss = FullLoss(self.train, self.n_classes, own, n_threads=self._n_threads)
        self._stack = SearchStack.begin(chosen, theta)
        self._waiting -= {*models}

    def _find_models(self) -> bool:
        """Go on to the next models where none is in the stack; return whether there are any."""
        if len(self._stack.models):
            return True
        for stage in stages(self.models):
            if ready := [g for g in stage if g in self._waiting]:
                known = {g: fit.theta for g, fit in enumerate(self.fits) if fit.history}
                theta = np.stack([self._zeros] * len(ready), axis=1)
                self._begin(ready, start(self.models, ready, known) if known else theta)
                return True
        used_up = [g for g, fit in enumerate(self.fits) if fit.ended == DONE and fit.history]
        if again := [g for g in used_up if len(self.fits[g].history) < self.epochs]:
            self._begin(again, np.stack([self.fits[g].theta for g in again], axis=1))
        return bool(again)

    def _pass(self, stop: Callable[[], str]) -> bool:
        """Try a step of every model in the stack; return whether the pass was not stopped."""
        begun, stack = time.perf_counter(), self._stack
        steps, trial = stack.steps(), stack.trial()
        result = self._loss(trial, stop)
        if result is None:
            return False
        held_out = evaluate_held_out(self.val, trial) if len(self.val) else None
        found = certify(result, self.models.reg[stack.models])
        moved = stack.tell(trial, result.objective, result.gradient, self._coordinates)
        seconds = time.perf_counter() - begun
        for a, g in enumerate(stack.models):
            fit, n = self.fits[g], len(self.fits[g].history) + 1
            if moved[a] or self._is_near(found[a]):
                row = Epoch(
                    n,
                    n,
                    float(steps[a]),
                    float(result.loss[a]),
                    float(result.accuracy[a]),
                    None if held_out is None else float(held_out.loss[a]),
                    None if held_out is None else float(held_out.accuracy[a]),
                    seconds,
                )
                if fit.keeps(trial[:, a], found[a].objective, row.val_loss):
                    fit.theta[...], fit.certificate, fit.best_epoch = trial[:, a], found[a], n
            else:
                row = fit.history[-1]._replace(epoch=n, step=n, lr=float(steps[a]), seconds=seconds)
            fit.history.append(row)
        self.epoch += 1
        self._drop_ended()
        return True

    def _is_near(self, certificate: Certificate) -> bool:
        return certificate.relative <= self.optimizer.tol

    def _drop_ended(self) -> None:
        """Take models that have ended, or turn out not to be needed, out of the stack."""
        stack, keep = self._stack, []
        for a, g in enumerate(stack.models):
            if reason := self._end(self.fits[g], self.models.reg[g], stack.searches[a]):
                self.fits[g].ended = reason
            else:
                keep.append(a)
        going_on = {*stack.models[keep].tolist(), *self._waiting}
        for g, reason in self._not_needed(going_on).items():
            self.fits[g].status, self.fits[g].ended = SKIPPED, reason
            going_on.remove(g)
        self._waiting &= going_on
        keep = [a for a in keep if stack.models[a] in going_on]
        if len(keep) < len(stack.models):
            self._stack = stack.select(keep)
            self._loss = self._loss.select(np.array(keep, dtype=np.int64))
        self._stack.aim(self._coordinates)

    def _end(self, fit: Fit, reg: float, search: Search) -> str:
        """Return why a model has ended, or nothing while it goes on."""
        if fit.status == DIVERGED:
            return f"diverged in epoch {len(fit.history)}: use a larger reg"
        if fit.certificate is not None and self._is_near(fit.certificate):
            return f"as near to the optimum as was asked for, tol={self.optimizer.tol:g}"
        # Zero is a bound too: the lowest value where one class alone has examples that count.
        if fit.certificate is not None:
            bound = min(fit.certificate.excess, fit.certificate.objective)
            if bound <= EPSILON:
                return f"at most {bound:.2g} above the lowest objective"
        # In these coordinates a step lowers the objective by half of the squared gradient at least.
        if reg == 0 and search.squared_gradient <= self.optimizer.tol * SMALL * search.value:
            return "the gradient is small; without a penalty no more is known"
        if search.is_stuck:
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
                losses = evaluate_held_out(self.train, theta, self.models.fold[folds]).loss
                error = losses.std(ddof=1) / math.sqrt(len(folds))
                self._judged[g] = float(losses.mean()), float(error)
            elif not folds and len(self.val):
                held_out = evaluate_held_out(self.val, self.fits[g].theta[:, None])
                self._judged[g] = float(held_out.loss[0]), float(held_out.error[0])
        return self._judged.get(g)

"""Training to the optimum: L-BFGS on all examples at once, for a stack of models.

The passes over the data are shared, and all else is each model's own: its search, its end. It
leaves the stack when its certificate says that it is as near to its optimum as was asked for. The
examples are seen through `Objective`, the weights in coordinates of even curvature.

The optimum is a smooth function of log(reg). So of models that differ in the penalty alone, a path,
a few are solved first, about two a decade; a cubic through their weights, by log(reg), is so near
the other optima that most of these need one pass or two. A model that leaves a fold out starts from
the one with the same penalty on all examples or, where enough penalties of its fold are known, from
these.

J. Friedman, T. Hastie and R. Tibshirani, Regularization Paths for Generalized Linear Models via
Coordinate Descent, 2010, start each penalty from its stronger neighbour.

Which penalty is best is judged on examples that a model was not trained on. A path runs from strong
to weak in equal steps of the logarithm. While its best penalty stands at an end, and the last
decade before it brought more than the standard error of the best figure and than 0.001, the path
is made a decade longer there. The choice of the strongest penalty within one standard error of the
best is that of L. Breiman et al., Classification and Regression Trees, 1984, section 3.4.3.
"""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from classifier import lbfgs
from classifier.coordinates import Coordinates, find_coordinates
from classifier.fit import DIVERGED, DONE, SKIPPED, STUCK, Certificate, Epoch, Fit, PerModel
from classifier.optimizers import Lbfgs
from classifier.shards import Objective, evaluate_held_out
from classifier.solver import Training
from data.machine import ASKED_FROM, blas_team, room

SMALL = 1e-3  # of tol: where slopes, relative to the objective, are small
RAREST = 1e-9  # share that a class is taken to have at least
EPSILON = 1e-12  # nats: an objective that is so near to zero, or to its lowest value, is there
APART = 0.5  # decades between the penalties that are solved from zero
FEWEST = 5  # penalties from which a path is worth it
DECADE = 10.0
STRONGEST, WEAKEST = 1e-1, 1e-5  # of a path, for features with a mean square of one
NUMBER = 45  # penalties: eleven a decade
LONGEST = 12.0  # decades, however good the best penalty at an end is
LEAST = 1e-3  # nats, or share of the examples: the loss of separable classes falls for ever
# Arrays of a model's size: the pairs of L-BFGS, and the sums of a pass in float64;
ARRAYS = 16 + 2 * Coordinates.memory
COPIED = 1.5  # times as many while a checkpoint is written
WAITING = 3  # of a model that has not begun or has ended: in memory, in a checkpoint, in a report


@dataclasses.dataclass(eq=False, kw_only=True)
class FullBatchTraining(Training):
    """Trains G models to their optima; an epoch is a pass over the examples, and a step.

    Attributes
    ----------
    models : as of `Training`; lr and momentum are not used.
    rng : chooses the examples from which the curvature is measured, where not all are.
    optimizer : says when a model is done.
    taken : bytes of memory that the data take.
    """

    optimizer: Lbfgs
    taken: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        with blas_team() as team:
            self._coordinates = find_coordinates(self.train, self.rng, team)
        # The memory holds so many in a stack, at least one.
        n, size = len(self.fits), self.fits[0].theta.nbytes
        self._most, each = n, round(COPIED * ARRAYS) * size
        if n * each > ASKED_FROM:
            self._most = max(1, min(n, (room() - self.taken - WAITING * n * size) // each))
        self._judged: dict[int, tuple[float, float]] = {}
        self.begin([], self.init(self._stacked([])))

    @property
    def _waiting(self) -> set[int]:
        """The models that have not begun, and are not left out."""
        begun = {g for g, fit in enumerate(self.fits) if fit.history or fit.status == SKIPPED}
        return set(range(len(self.fits))) - begun.union(self.stack)

    @property
    def share(self) -> None:
        """Not known: a certificate ends it, and `epochs` is far beyond what it takes."""

    def _stacked(self, models: Sequence[int]) -> np.ndarray:
        """Return the weights of some models, (C, len(models), D + 1)."""
        shape = len(models), *self.fits[0].theta.shape
        thetas = [self.fits[g].theta for g in models]
        return np.reshape(thetas, shape).transpose(1, 0, 2).astype(self.train.X.dtype)

    def init(self, theta: np.ndarray) -> dict[str, np.ndarray]:
        """Return what is known of searches that begin with weights (C, G, D + 1)."""
        # The loss does not depend on what all classes have in common, nor do directions have it.
        return lbfgs.init(theta - theta.mean(axis=0), self._coordinates)

    def begin(self, stack: Sequence[int], arrays: dict[str, np.ndarray]) -> None:
        """Make these the models in the stack, with what is known of their searches."""
        self.stack, self.arrays = list(stack), arrays
        self._objective = Objective(self.train, self.models.select(self.stack))

    def start_from(self, theta: np.ndarray) -> None:
        """Begin with these weights (C, G, D + 1) instead of a path: a warm start."""
        self.begin(range(len(self.fits)), self.init(theta.astype(self.train.X.dtype)))

    def find_models(self) -> bool:
        """Go on to the next models where none is in the stack; return whether there are any."""
        if self.stack:
            return True
        waiting = self._waiting
        by_decade = bool((self.models.fold >= 0).any()) and not self.optimizer.all_penalties
        for stage in stages(self.models, by_decade=by_decade):
            if ready := [g for g in stage if g in waiting]:
                trained = {g: fit.theta for g, fit in enumerate(self.fits) if fit.history}
                # Where the memory held some of a stage, others may have no model to start from.
                smoothings = self.models.label_smoothing[[*trained]]
                led = [g for g in ready if self.models.label_smoothing[g] in smoothings]
                ready = (led or ready)[: self._most]
                theta = start(self.models, ready, trained) if led else self._shares(ready)
                self.begin(ready, self.init(theta.astype(self.train.X.dtype, copy=False)))
                return True
        # Only after a restore: with more epochs than before they begin a new search.
        fits = enumerate(self.fits)
        again = [g for g, f in fits if f.ended == DONE and 0 < len(f.history) < self.epochs]
        again = again[: self._most]
        if again:
            self.begin(again, self.init(self._stacked(again)))
        return len(again) > 0

    def unfinished(self) -> list[int]:
        """Return the models in the stack, and those that have not begun."""
        return [*self.stack, *self._waiting]

    def restore(self, state: Mapping[str, np.ndarray], members: Sequence[int]) -> None:
        """Go on where `state` was taken; a pass that was stopped is made again."""
        order = self.order
        super().restore(state, members)
        if self.order != order:
            raise ValueError("a training with another seed")

    def _shares(self, models: list[int]) -> np.ndarray:
        """Return weights of zero, and biases that give each class its share of the examples."""
        theta = self._stacked(models)
        shares = np.bincount(self.train.y, self.train.weights, self.n_classes)[:, None]
        e = self.models.label_smoothing[models]
        shares = (1 - e) * shares / shares.sum() + e / self.n_classes
        theta[..., -1] = np.log(np.maximum(shares, RAREST)) * np.asarray(self.train.X[:1])[0, -1]
        return theta

    def run_epoch(self, stop: Callable[[], str]) -> bool:
        """Try a step of every model in the stack; return whether the pass was not stopped."""
        begun, state, self._coordinates.team = time.perf_counter(), self.arrays, self.team
        lbfgs.aim(state, self._coordinates, self.models.reg[self.stack])
        steps, trial = state["step"][:, 0], lbfgs.trial(state, self._coordinates)
        result = self._objective(trial, stop, self.team)
        if result is None:
            return False
        by_pass, gradient = result
        # Nobody is told the certificate of a model that leaves a fold out; most take two passes.
        whole = np.flatnonzero(self.models.fold[self.stack] < 0).tolist()
        near = [place for place in whole if self._is_near(by_pass[place])]
        certificates = self._objective.settled(trial, by_pass, near, stop, self.team)
        if certificates is None:
            return False
        held_out = evaluate_held_out(self.val, trial, team=self.team) if len(self.val) else None
        values = np.array([certificate.objective for certificate in certificates])
        moved = lbfgs.tell(state, trial, values, gradient, self._coordinates)
        seconds = time.perf_counter() - begun
        for place, (g, certificate) in enumerate(zip(self.stack, certificates, strict=True)):
            fit, n, lr = self.fits[g], len(self.fits[g].history) + 1, float(steps[place])
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
        if self.optimizer.all_penalties:
            return
        going_on = {*self.stack, *self._waiting}
        for smoothing in np.unique(self.models.label_smoothing):
            alike = np.flatnonzero(self.models.label_smoothing == smoothing).tolist()
            limit = self._weakest_needed(alike, going_on)
            for g in going_on.intersection(alike):
                fit = self.fits[g]
                if self.models.reg[g] < limit:
                    reason = f"held-out loss is worse already with reg={limit:.3g}"
                    fit.status, fit.ended = SKIPPED, f"weaker than needed: {reason}"
                    going_on.remove(g)
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
            if min(certificate.excess, certificate.objective) <= EPSILON:
                return "at the lowest objective there is, as far as rounding shows"
        # A quadratic falls by half of its slope: without a penalty no more is known.
        value, slope = (float(self.arrays[name][place, 0]) for name in ("value", "slope"))
        reg = self.models.reg[self.stack[place]]
        if reg == 0 and -slope <= self.optimizer.tol * SMALL * value:
            return "the gradient is small; without a penalty no more is known"
        if lbfgs.is_stuck(self.arrays)[place]:
            return STUCK
        return DONE if len(fit.history) >= self.epochs else ""

    def _weakest_needed(self, alike: list[int], going_on: set[int]) -> float:
        """Return the penalty from which on down none is needed; 0 where that is not known.

        Where the held-out loss has risen by more than the best one's standard error over a decade
        or more, weaker penalties only bring it further up.

        Parameters
        ----------
        alike : the models that differ in penalty and fold alone.
        going_on : those, and others, that have not ended.
        """
        waiting = self._waiting
        whole = [g for g in alike if self.models.fold[g] < 0 and g not in waiting]
        whole.sort(key=lambda g: -self.models.reg[g])
        ended = itertools.takewhile(lambda g: self._judge(g, going_on) is not None, whole)
        tried = [(float(self.models.reg[g]), *self._judged[g]) for g in ended]
        best, lowest, error = min(tried, key=lambda judged: judged[1], default=(0.0, 0.0, 0.0))
        for reg, loss, _ in tried:
            if reg * DECADE <= best * (1 + 1e-9) and loss > lowest + error:
                return reg
        return 0.0

    def _judge(self, g: int, going_on: set[int]) -> tuple[float, float] | None:
        """Return the held-out loss of a model that has ended, and its standard error, if known."""
        models = self.models
        alike = (models.reg == models.reg[g]) & (models.fold >= 0)
        alike &= models.label_smoothing == models.label_smoothing[g]
        folds = np.flatnonzero(alike).tolist()
        examples, judges = (self.train, folds) if folds else (self.val, [g])
        has_ended = going_on.isdisjoint([g, *judges]) and self.fits[g].status != DIVERGED
        if g not in self._judged and has_ended and len(examples):
            held_out = evaluate_held_out(examples, self._stacked(judges), models.select(judges))
            error = held_out.error[0]
            if folds:
                error = held_out.loss.std(ddof=1) / math.sqrt(len(folds))
            self._judged[g] = float(held_out.loss.mean()), float(error)
        return self._judged.get(g)


def stages(models: PerModel, *, by_decade: bool) -> list[list[int]]:
    """Return the models to be trained at once, stage by stage.

    First some penalties, then the folds of these, then the other penalties, then their folds. By
    decade, the first come from strong to weak, each decade with its folds: those that are weaker
    than needed, which take the most passes, are then known before they begin. With five folds that
    is 0.5 to 0.9 of the time where there are such, and 1.1 where there are none.
    """
    is_first = np.zeros(len(models.reg), bool)
    for smoothing in np.unique(models.label_smoothing):
        alike = models.label_smoothing == smoothing
        reg = np.unique(models.reg[alike])
        logs = np.log10(reg[reg > 0])
        if len(logs) >= FEWEST:  # both ends, and some between
            wanted = np.linspace(logs[0], logs[-1], 1 + int((logs[-1] - logs[0]) / APART + 1e-6))
            reg = reg[reg > 0][np.abs(logs - wanted[:, None]).argmin(axis=1)]
        is_first |= alike & np.isin(models.reg, reg)
    weaker = np.zeros(len(models.reg), int)
    if by_decade:
        positive = np.maximum(models.reg, models.reg[models.reg > 0].min(initial=1.0))
        weaker = np.log10(positive.max() / positive + EPSILON).astype(int)
    stage = 2 * np.where(is_first, weaker, weaker.max() + 1) + (models.fold >= 0)
    return [np.flatnonzero(stage == k).tolist() for k in np.unique(stage)]


def start(models: PerModel, wanted: Sequence[int], trained: Mapping[int, np.ndarray]) -> np.ndarray:
    """Return the weights (C, len(wanted), D + 1) that some models start from.

    They are those of a cubic, by log(reg), through the weights with the four nearest penalties, by
    Lagrange's formula. A spline through all is no nearer, and to import scipy's takes a fifth of a
    run.

    Parameters
    ----------
    wanted : the models; they have folds, all of them or none.
    trained : the weights (C, D + 1) of models that have been, at least one.
    """
    columns = []
    for g in wanted:
        alike = [k for k in trained if models.label_smoothing[k] == models.label_smoothing[g]]
        near = [k for k in alike if models.fold[k] == models.fold[g]]
        if models.fold[g] >= 0 and len(near) < FEWEST:
            near = [k for k in alike if models.fold[k] < 0 and models.reg[k] == models.reg[g]]
        thetas = {float(models.reg[k]): trained[k] for k in near}
        positive = sorted(reg for reg in thetas if reg > 0)
        if models.reg[g] <= 0 or len(positive) < 2:  # zero has no logarithm, one point no curve
            columns.append(thetas[min(thetas)])
            continue
        # Beyond its ends a cubic goes wild.
        x = math.log10(np.clip(models.reg[g], positive[0], positive[-1]))
        points = {math.log10(reg): thetas[reg] for reg in positive}
        nearest = sorted(points, key=lambda point: abs(point - x))[:4]
        terms = [
            math.prod((x - other) / (point - other) for other in nearest if other != point)
            * points[point]
            for point in nearest
        ]
        columns.append(np.sum(terms, axis=0))
    return np.stack(columns, axis=1)


@dataclasses.dataclass(frozen=True)
class Path:
    """What is known of R penalties.

    Attributes
    ----------
    regs : (R,) the penalties, from strong to weak.
    cost : (R,) what is to be lowest on held-out examples, nan where it is not known.
    error : (R,) its standard error, likewise.
    """

    regs: np.ndarray
    cost: np.ndarray
    error: np.ndarray

    @property
    def best(self) -> int:
        """The place of the lowest cost, of equal ones the strongest; the first if none is known."""
        return 0 if np.isnan(self.cost).all() else int(np.nanargmin(self.cost))

    @property
    def strongest(self) -> int:
        """The place of the strongest penalty within one standard error of the best."""
        return int(np.argmax(self.cost <= self.cost[self.best] + self.error[self.best]))

    def chosen(self, rule: str) -> int:
        """Return the place of the penalty that one of `RULES` chooses."""
        return self.best if rule == "best" else self.strongest

    def longer(self) -> np.ndarray:
        """Return the penalties of a path that is a decade longer, or none where this one will do.

        It is longer by a step at least. The cost falls towards the end where it is lowest. If it
        falls by more than its standard error, and by `LEAST`, over the last decade, it may fall on.
        """
        decades = math.log10(self.regs[0] / self.regs[-1])
        nothing, at_an_end = self.regs[:0], self.best in (0, len(self.regs) - 1)
        if not at_an_end or not 0 < decades <= LONGEST - 1 or np.isnan(self.cost[self.best]):
            return nothing
        n = max(1, round((len(self.regs) - 1) / decades))
        at_weak_end = self.best > 0
        last = self.cost[-n - 1 :] if at_weak_end else self.cost[: n + 1]
        if not np.nanmax(last) - self.cost[self.best] > max(LEAST, self.error[self.best]):
            return nothing
        beyond = 10.0 ** (np.arange(1, n + 1) * decades / (len(self.regs) - 1))
        if at_weak_end:
            return np.concatenate([self.regs, self.regs[-1] / beyond])
        return np.concatenate([self.regs[0] * beyond[::-1], self.regs])


def search(
    regs: np.ndarray,
    train: Callable[[np.ndarray, Training | None], tuple[Training, Path]],
    may_grow: Callable[[], bool],
) -> tuple[Training, Path]:
    """Train a path of penalties, and longer ones while these promise more.

    Parameters
    ----------
    regs : (R,) the penalties to begin with, from strong to weak.
    train : trains models with some penalties, and says what they cost; it is given the training of
        those that are trained already.
    may_grow : whether other penalties may be tried than these.
    """
    training, path = train(regs, None)
    while may_grow() and len(regs := path.longer()):
        training, path = train(regs, training)
    return training, path

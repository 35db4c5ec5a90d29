"""scikit-learn: `SGDClassifier`, one example a step, and the solvers of `LogisticRegression`.

`SGDClassifier` fits one logistic regression a class (one against the rest), which is another
objective than softmax and less work; what stands beside its time is the softmax objective of its
scores, for comparison only.
"""

import warnings
from collections.abc import Callable

from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, SGDClassifier

from benchmarks.machine import n_threads
from benchmarks.peers.settings import Settings, Weights
from benchmarks.problems import Problem

SOLVERS = ["lbfgs", "saga", "newton-cholesky"]


def prepare_sgd(problem: Problem, settings: Settings) -> Callable[[], Weights]:
    """Make a classifier whose step an example is the minibatch's, divided among its examples."""
    model = SGDClassifier(
        loss="log_loss",
        alpha=2 * settings.reg,
        learning_rate="constant",
        eta0=settings.lr / settings.batch_size,
        max_iter=settings.epochs,
        tol=None,
        random_state=settings.seed,
        n_jobs=n_threads(),
    )
    return lambda: _fit(model, problem)


def prepare_logistic(
    problem: Problem, reg: float, solver: str, max_iter: int, tol: float = 1e-12
) -> Callable[[], Weights]:
    """Make a logistic regression of the same objective; `tol` lets it use all its iterations."""
    model = LogisticRegression(
        C=1 / (2 * reg * len(problem.y)),
        solver=solver,
        max_iter=max_iter,
        tol=tol,
        random_state=0,
    )
    return lambda: _fit(model, problem)


def _fit(model: SGDClassifier | LogisticRegression, problem: Problem) -> Weights:
    with warnings.catch_warnings():
        # It is stopped on purpose before it has converged.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(problem.X, problem.y)
    return model.coef_.T, model.intercept_

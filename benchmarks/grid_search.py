"""scikit-learn's grid search on the digits, in a process of its own.

    python -m benchmarks.grid_search logistic 8

`logistic` tries as many penalties of `LogisticRegression` as the sweep has jobs, for it has no step
size; `sgd` tries pairs of penalty and step size of `SGDClassifier`. The data are split and
standardised as `python train.py` does with seed 0. The best validation accuracy is printed.
"""

import sys
import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import GridSearchCV, PredefinedSplit

from classifier.runs.preparation import generator
from data.preprocessing import Preprocessing
from data.sources.digits import Source
from data.statistics import measure


def main(kind: str, side: int) -> None:
    """Search a grid of side ** 2 settings."""
    dataset = Source(val_fraction=0.1, test_fraction=0.2).load(generator(0, "data"))
    train, val = dataset.train, dataset.val
    features = Preprocessing(method="standardize").fit(measure(train.X))
    X = np.concatenate([features.transform(np.asarray(split.X)) for split in (train, val)])
    y = np.concatenate([train.y, val.y])
    fold = np.repeat([-1, 0], [len(train), len(val)])  # -1: never held out
    if kind == "logistic":
        model = LogisticRegression(max_iter=1000)
        grid = {"C": np.logspace(-4, 4, side**2)}
    else:
        model = SGDClassifier(loss="log_loss", learning_rate="constant")
        grid = {"alpha": np.logspace(-7, -1, side), "eta0": np.logspace(-4, 0, side)}
    search = GridSearchCV(model, grid, cv=PredefinedSplit(fold), refit=False, n_jobs=-1)
    search.fit(X, y)
    print(f"best validation accuracy {search.best_score_:.4f}")


if __name__ == "__main__":
    warnings.simplefilter("ignore", ConvergenceWarning)
    main(sys.argv[1], int(sys.argv[2]))

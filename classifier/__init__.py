"""A linear softmax classifier: loss, optimizers, training, evaluation and the model file."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from classifier.estimator import SoftmaxClassifier
    from classifier.estimator_cv import SoftmaxClassifierCV

__all__ = ["SoftmaxClassifier", "SoftmaxClassifierCV"]


def __getattr__(name: str) -> Any:
    """Import an estimator when it is asked for: scikit-learn takes a second."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "classifier.estimator_cv" if name.endswith("CV") else "classifier.estimator"
    return getattr(importlib.import_module(module), name)

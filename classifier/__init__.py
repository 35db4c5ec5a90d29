"""A linear softmax classifier: loss, optimizers, training, evaluation and the model file."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from classifier.estimator import SoftmaxClassifier, SoftmaxClassifierCV

__all__ = ["SoftmaxClassifier", "SoftmaxClassifierCV"]


def __getattr__(name: str) -> Any:
    """Import an estimator when it is asked for: scikit-learn takes a second."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from classifier import estimator

    return getattr(estimator, name)

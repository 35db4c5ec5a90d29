"""A linear softmax classifier: loss, optimizers, training, evaluation and the model file."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from classifier.estimator import SoftmaxClassifier

__all__ = ["SoftmaxClassifier"]


def __getattr__(name: str) -> Any:
    """Import the estimator when it is asked for: scikit-learn takes a second."""
    if name != "SoftmaxClassifier":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from classifier.estimator import SoftmaxClassifier

    return SoftmaxClassifier

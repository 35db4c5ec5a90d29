"""The softmax loss of a linear classifier and its gradient, written twice.

For examples x_i in R^D with labels y_i in 0..C-1, weights W (D, C) and N examples

    f_i = x_i W
    J   = sum_i (logsumexp(f_i) - f_i[y_i]) / N  +  reg * sum(W ** 2)
    dW  = X^T (S - Y) / N  +  2 * reg * W          S = softmax(f), Y = one-hot labels

There is no 1/2 before reg, as in the notes of Stanford's cs231n (its case study has one). The
log-probability is taken as f - logsumexp(f) after the largest logit of a row has been subtracted,
never as the log of a softmax, so logits of 1e4 give a finite loss. It is as exact as the logits
are: float32 keeps three decimals of 1e4.

Both functions take W (D, C), X (N, D), integer labels y (N,) and reg >= 0, leave them unchanged,
and return the loss as a float and dW in W's shape and dtype. Training uses a third form of the
same mathematics, `classifier.kernel`, which has a bias and many models.

Derived step by step in docs/derivation.md, and with numbers in docs/lesson.
"""

import numpy as np


def softmax_loss_naive(
    W: np.ndarray, X: np.ndarray, y: np.ndarray, reg: float = 0.0
) -> tuple[float, np.ndarray]:
    """Return (loss, dW) by loops over examples and classes: slow, and easy to follow.

    Parameters
    ----------
    W : (D, C) weights.
    X : (N, D) examples.
    y : (N,) class indices.
    reg : weight of the penalty reg * sum(W ** 2).
    """
    n_examples, n_classes = X.shape[0], W.shape[1]
    loss = 0.0
    dW = np.zeros_like(W)
    for i in range(n_examples):
        logits = X[i] @ W
        # Subtracting the largest logit changes no probability and keeps exp from overflowing.
        logits = logits - max(logits)
        exp_sum = 0.0
        for j in range(n_classes):
            exp_sum += np.exp(logits[j])
        loss += np.log(exp_sum) - logits[y[i]]
        for j in range(n_classes):
            probability = np.exp(logits[j]) / exp_sum
            dW[:, j] += (probability - (j == y[i])) * X[i]
    loss = loss / n_examples + reg * np.sum(W * W)
    dW = dW / n_examples + 2 * reg * W
    return float(loss), dW.astype(W.dtype)


def softmax_loss_vectorized(
    W: np.ndarray, X: np.ndarray, y: np.ndarray, reg: float = 0.0
) -> tuple[float, np.ndarray]:
    """Return (loss, dW) as `softmax_loss_naive` does, without a Python loop.

    Parameters
    ----------
    W : (D, C) weights.
    X : (N, D) examples.
    y : (N,) class indices.
    reg : weight of the penalty reg * sum(W ** 2).
    """
    rows = np.arange(len(y))
    logits = X @ W
    logits -= logits.max(axis=1, keepdims=True)
    correct = logits[rows, y]
    S = np.exp(logits)
    exp_sum = S.sum(axis=1)
    loss = np.mean(np.log(exp_sum) - correct) + reg * np.sum(W * W)

    S /= exp_sum[:, None]
    S[rows, y] -= 1  # S - Y
    dW = X.T @ S / len(y) + 2 * reg * W
    return float(loss), dW.astype(W.dtype)

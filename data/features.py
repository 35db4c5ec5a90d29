"""Features as the user has them: real numbers, all finite."""

import numpy as np

from data.dataset import Examples
from data.errors import InputError
from data.files.npy import NpyRows
from data.threads import in_order, row_parts

BLOCK_BYTES = 2**22  # of examples that are looked at at a time


def check_features(X: np.ndarray, where: str) -> np.ndarray:
    """Return X if it is (N, ...) finite real numbers, or raise InputError."""
    check_kind(X, where)
    if X.dtype.kind == "f" and not _is_finite(X):
        bad = np.argwhere(~np.isfinite(X))
        place = ", ".join(map(str, bad[0]))
        raise InputError(
            f"{where}: X holds {len(bad)} values that are not finite, the first "
            f"({X[tuple(bad[0])]}) at [{place}]; remove or replace them"
        )
    return X


def check_rows(rows: np.ndarray, X: Examples, places: np.ndarray) -> None:
    """Raise InputError where some rows of X are not finite, with their numbers in X's own file.

    Parameters
    ----------
    rows : (n, ...), in memory.
    X, places : what they were taken from, and which rows of it they are, (n,).
    """
    if rows.dtype.kind != "f" or _is_finite(rows):
        return
    row, *column = np.argwhere(~np.isfinite(rows))[0].tolist()
    number = (X.in_file(places) if isinstance(X, NpyRows) else places)[row]
    at = ", ".join(map(str, [number, *column]))
    raise InputError(
        f"{getattr(X, 'path', 'X')}: example {number} holds {rows[row, *column]}: it is not finite "
        f"(at [{at}]); remove or replace it"
    )


def check_kind(X: Examples, where: str) -> None:
    """Raise InputError where X is not (N, ...) real numbers, at least one an example."""
    if X.dtype.kind not in "biuf" or len(X.shape) < 2 or 0 in X.shape[1:]:
        hint = "; for one feature an example give X[:, None]" if len(X.shape) == 1 else ""
        raise InputError(
            f"{where}: X is {X.dtype} of shape {X.shape}; it must be real numbers of shape "
            f"(N, ...) with at least one feature{hint}"
        )


def _is_finite(X: np.ndarray) -> bool:
    """Return whether every value is finite; only where their sum is not is each one looked at."""

    def is_finite(part: slice) -> bool:
        with np.errstate(over="ignore", invalid="ignore"):
            return bool(np.isfinite(X[part].sum(dtype=precision)) or np.isfinite(X[part]).all())

    precision = np.result_type(X.dtype, np.float32)
    size = max(1, BLOCK_BYTES // max(1, X[:1].nbytes))
    return all(in_order(is_finite, row_parts(len(X), size)))

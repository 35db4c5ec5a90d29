"""The passes over all examples on a device, by PyTorch: theta goes there, and sums come back.

The mathematics is that of `classifier.kernel`. Rows stay on the device where they fit; larger data
go there in every pass, window by window. Products are made in the type of the examples, never in
TF32 or bfloat16, with which a certificate may be of a model that is not there. This alone imports
PyTorch.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from classifier.kernel import Rows, Sums, spread_shape
from data.dataset import Elsewhere, Split, row_size
from data.errors import InputError
from data.machine import row_parts

SCORES = {"cpu": 2**18, "cuda": 2**25, "mps": 2**24}  # of a block: what suits the device
ROWS = 2**10  # examples that a block has at least
WINDOW = 2**26  # bytes of rows that are sent at a time


@dataclasses.dataclass(frozen=True, eq=False)
class DeviceRows(Elsewhere):
    """Prepared rows (N, D + 1) on a device: sent once where half of its memory holds them.

    Attributes
    ----------
    rows : as they are read here.
    device : cuda, mps or cpu, where rows in memory stay as they are, and those of a file there.

    Raises
    ------
    InputError
        When there is no such device.
    """

    device: str

    def __post_init__(self) -> None:
        there = ["cpu", *(name for name in ("cuda", "mps") if getattr(torch, name).is_available())]
        if self.device not in there:
            only = f"PyTorch {torch.__version__} finds no such device here, only {', '.join(there)}"
            raise InputError(f"device={self.device}: {only}; leave out device, or give another")

    @property
    def _row_bytes(self) -> int:
        return row_size(self.rows) * self.dtype.itemsize

    def sum_up(self, examples: Split, theta: np.ndarray, *how: Any) -> Sums | None:
        """Return the sums over all examples, as `classifier.shards.sum_up` does.

        Parameters
        ----------
        examples, theta : as given there; these are their rows.
        how : label smoothing and fold of each model, (G,), or None where none has any; and
            held_out, with_gradient and stop as given there.

        Raises
        ------
        InputError
            When the memory of the device is full.
        """
        try:
            return self._pass(examples, theta, *how)
        except RuntimeError as error:  # torch.OutOfMemoryError is one, and MPS raises no other
            if "out of memory" not in str(error):
                raise
            error.__traceback__ = None  # or it would hold what the pass has there
            n_classes, n_models, n_columns = theta.shape
            # Of theta there are it, a gradient, and the sum of these in float64.
            left = max(0, free(self.device) - (2 * theta.itemsize + 8) * theta.size)
            raise InputError(
                f"device={self.device}: its memory is full; it holds about "
                f"{left // (self._row_bytes + theta.itemsize * n_classes * n_models):,} rows of "
                f"{n_columns - 1} features beside {n_models} models of {n_classes} classes; train "
                "fewer penalties at once, or leave out device"
            ) from None

    def _pass(
        self, examples: Split, theta: Any, smoothing: Any, fold: Any, held_out: bool, *how: Any
    ) -> Sums | None:
        (with_gradient, stop), device = how, self.device
        # MPS has no float64: there sums are made of a block in float32, and added up here.
        at, wide = ("cpu", None) if device == "mps" else (device, torch.float64)
        zeros = Sums.zeros(theta.shape, with_gradient=with_gradient)
        totals = [torch.from_numpy(array).to(at) for array in zeros]
        like = {"dtype": getattr(torch, theta.dtype.name), "device": device}
        e = torch.tensor(0.0 if smoothing is None else smoothing[:, None], **like)
        T = torch.tensor(theta, **like)
        size = max(1, min(max(SCORES[device] // theta[..., 0].size, ROWS), len(self.rows)))
        with _own_settings():
            for rows in self._blocks(examples, size, fold, held_out):
                if stop():
                    return None
                sums = _sums_of(T, *rows, e if with_gradient else None, wide)
                for number, of_block in enumerate(sums):
                    totals[number] += of_block.to(at)
        return Sums(*(array.cpu().numpy() for array in totals))

    def _blocks(self, examples: Split, size: int, fold: Any, held_out: bool) -> Iterator[Rows]:
        """Yield the rows, `size` at a time, as tensors; the weights are those of `row_weights`."""

        def there(array: np.ndarray | None, dtype: Any = np.int64) -> Any:
            return None if array is None else torch.from_numpy(array.astype(dtype)).to(self.device)

        y, folds, without = there(examples.y), there(examples.folds), there(fold)
        weights = there(examples.weights, self.rows.dtype)
        length = size * max(1, WINDOW // (size * self._row_bytes))
        for window in row_parts(len(self.rows), length):
            X = self._send(window) if self._kept is None else self._kept[window]
            for part in row_parts(window.stop, size, window.start):
                w = None if weights is None else weights[part]
                if without is not None and folds is not None:
                    kept = ((without[:, None] == folds[part]) == held_out).to(X.dtype)
                    w = kept if w is None else kept * w
                yield Rows(X[part.start - window.start :][:size], y[part], w)

    def _send(self, place: slice) -> Any:
        """Return some rows on the device; they are read while it works on those before."""
        return torch.from_numpy(self.rows[place]).to(self.device)

    @functools.cached_property
    def _kept(self) -> Any:
        """The rows, where they stay on the device, or None."""
        if self._row_bytes * len(self.rows) > free(self.device) // 2:
            return None
        kept = torch.from_numpy(self.rows[:0]).to(self.device).new_empty(self.rows.shape)
        for rows in row_parts(len(self.rows), max(1, WINDOW // self._row_bytes)):
            kept[rows] = self._send(rows)
        return kept


def _sums_of(T: Any, X: Any, y: Any, weights: Any, e: Any, wide: Any) -> Iterator[Any]:
    """Yield the sums over a block of rows; gradient and spread where label smoothing e is given.

    T are the weights (C, G, D + 1), wide the type of sums that need digits.
    """
    flat = T.reshape(-1, T.shape[2])
    S = torch.mm(flat, X.T).view(*T.shape[:2], len(y))
    S -= S.amax(0)
    places = y.expand(1, *S.shape[1:])
    correct = S.gather(0, places)[0]
    exp_sum = S.exp_().sum(0)
    losses = exp_sum.log() - correct
    right = (correct == 0) & ((exp_sum < len(S)) | (y == 0))
    w = torch.ones_like(losses) if weights is None else weights.expand_as(losses)
    figures = w, w * losses, w * right, w * losses**2
    yield torch.stack([figure.sum(1, dtype=wide) for figure in figures])
    if e is None:
        return
    root = w.sqrt()  # between p and w p, so that a weight of zero divides nothing
    S *= root / exp_sum
    P = S.transpose(0, 1)
    if spread_shape(T.shape)[2] > 1:
        spread = torch.bmm(P, P.transpose(1, 2))
    else:
        spread = torch.bmm(P, root[..., None]) - P.norm(dim=2, keepdim=True) ** 2
    S *= root
    S.scatter_add_(0, places, (w * (e - 1))[None])  # a place once: in no order
    S -= w * e / len(S)
    yield torch.mm(S.view(len(flat), len(y)), X).view(T.shape)
    yield spread.transpose(0, 1)


@contextlib.contextmanager
def _own_settings() -> Iterator[None]:
    """Multiply float32 as float32, and on one core, whatever the process has chosen for itself.

    Several threads of PyTorch's wait for each other without rest: where other processes had the
    cores, two took ten times the time of one. With one no bit depends on their number either.
    """
    matmuls = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
    chosen, n_threads = [matmul.fp32_precision for matmul in matmuls], torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        for matmul in matmuls:
            matmul.fp32_precision = "ieee"
        yield
    finally:
        for matmul, precision in zip(matmuls, chosen, strict=True):
            matmul.fp32_precision = precision
        torch.set_num_threads(n_threads)


def free(device: str) -> int:
    """Return the bytes that are free for rows; none by the CPU, which has them where they are."""
    if device == "cuda":
        torch.cuda.empty_cache()
        return int(torch.cuda.mem_get_info()[0])
    if device == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return 0

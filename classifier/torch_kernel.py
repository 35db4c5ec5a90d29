"""The passes over all examples on a device, by PyTorch: theta goes there, and sums come back.

The mathematics is that of `classifier.kernel`. Rows, labels, weights and folds stay on the device
where they fit; larger data go there in every pass, window by window. Products are made in the type
of the examples, never in TF32 or bfloat16, with which a certificate may be of a model that is not
there. This alone imports PyTorch.
"""

import contextlib
import functools
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch

from classifier.kernel import Rows, Sums, spread_shape
from data.dataset import Examples, Split, row_size
from data.errors import InputError
from data.machine import row_parts

SCORES = {"cpu": 2**18, "cuda": 2**25, "mps": 2**24}  # of a block: what suits the device
ROWS = 2**10  # examples that a block has at least
WINDOW = 2**26  # bytes of rows that are sent at a time


class Kernel:
    """As the `Kernel` of numpy, for rows on a device; theta comes from here, sums are returned.

    Parameters
    ----------
    shape, size, dtype, label_smoothing : as of the other.
    device : where the rows are.
    """

    def __init__(
        self, shape: tuple[int, ...], size: int, dtype: Any, label_smoothing: Any, device: str
    ) -> None:
        self.shape, e = shape, 0.0 if label_smoothing is None else label_smoothing[:, None]
        self._like = {"dtype": getattr(torch, np.dtype(dtype).name), "device": device}
        self._buffer = torch.empty(shape[0] * shape[1] * size, **self._like)
        self._smoothing = torch.tensor(e, **self._like)
        # MPS has no float64: there sums are made of a block in float32, and added up here.
        self._wide: Any = None if device == "mps" else torch.float64
        self._at = "cpu" if device == "mps" else device

    def sums(self, theta: np.ndarray, blocks: Iterable[Rows], *, with_gradient: bool) -> Sums:
        """Return the sums over blocks of rows: products in theta's type, their sums in float64."""
        total = Sums.zeros(self.shape, with_gradient=with_gradient)
        totals = [torch.from_numpy(array).to(self._at) for array in total]
        T = torch.tensor(theta.reshape(-1, self.shape[2]), **self._like)
        with _own_settings():
            for rows in blocks:
                for i, sums in enumerate(self._sums_of(T, *rows, with_gradient=with_gradient)):
                    totals[i] += sums.to(self._at)
        return Sums(*(array.cpu().numpy() for array in totals))

    def _sums_of(self, T: Any, X: Any, y: Any, weights: Any, *, with_gradient: bool) -> list[Any]:
        """Return the sums over a block; T are weights (C * G, D + 1), the others as in `Rows`."""
        S = self._buffer[: len(T) * len(y)].view(len(T), len(y))
        S = torch.mm(T, X.T, out=S).view(*self.shape[:2], len(y))
        S -= S.amax(0)
        places = y.expand(1, *S.shape[1:])
        correct = S.gather(0, places)[0]
        exp_sum = S.exp_().sum(0)
        losses = exp_sum.log() - correct
        right = (correct == 0) & ((exp_sum < len(S)) | (y == 0))
        w = torch.ones_like(losses) if weights is None else weights.expand_as(losses)
        figures = [w, w * losses, w * right, w * losses**2]
        sums = [torch.stack([figure.sum(1, dtype=self._wide) for figure in figures])]
        if not with_gradient:
            return sums
        root = w.sqrt()  # between p and w p, so that a weight of zero divides nothing
        S *= root / exp_sum
        P = S.transpose(0, 1)
        if spread_shape(self.shape)[2] > 1:
            spread = torch.bmm(P, P.transpose(1, 2))
        else:
            spread = torch.bmm(P, root[..., None]) - P.norm(dim=2, keepdim=True) ** 2
        S *= root
        S.scatter_add_(0, places, (w * (self._smoothing - 1))[None])  # a place once: in no order
        S -= w * self._smoothing / len(S)
        gradient = torch.mm(S.view(len(T), len(y)), X).view(self.shape)
        return [*sums, gradient, spread.transpose(0, 1)]


class DeviceRows:
    """Prepared rows (N, D + 1) on a device: sent once where half of its memory holds them.

    Parameters
    ----------
    rows : as they are read here.
    device : cuda, mps or cpu, where rows in memory stay as they are, and those of a file there.

    Raises
    ------
    InputError
        When there is no such device.
    """

    def __init__(self, rows: Examples, device: str) -> None:
        there = ["cpu", *(name for name in ("cuda", "mps") if getattr(torch, name).is_available())]
        if device not in there:
            only = f"PyTorch {torch.__version__} finds no such device here, only {', '.join(there)}"
            raise InputError(f"device={device}: {only}; leave out device, or give another")
        self.rows, self.device = rows, device
        self._row_bytes = row_size(rows) * rows.dtype.itemsize
        self._sent: dict[str, tuple[Any, Any]] = {}  # arrays, and what became of them there

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
        smoothing, fold, held_out, with_gradient, stop = how
        n_classes, n_models, n_columns = theta.shape
        scores = n_classes * n_models
        size = max(1, min(max(SCORES[self.device] // scores, ROWS), len(self.rows)))
        blocks = self._blocks(examples, size, fold, held_out)
        going_on = itertools.takewhile(lambda _: not stop(), blocks)
        try:
            kernel = functools.partial(Kernel, theta.shape, size, theta.dtype, smoothing)
            sums = kernel(self.device).sums(theta, going_on, with_gradient=with_gradient)
        except RuntimeError as error:  # torch.OutOfMemoryError is one, and MPS raises no other
            if "out of memory" not in str(error):
                raise
            error.__traceback__ = None  # or it would hold what the pass has there
            # Of theta there are it, a gradient, and the sum of these in float64.
            left = max(0, free(self.device) - (2 * theta.itemsize + 8) * theta.size)
            raise InputError(
                f"device={self.device}: its memory is full; it holds about "
                f"{left // (self._row_bytes + theta.itemsize * scores):,} rows of {n_columns - 1} "
                f"features beside {n_models} models of {n_classes} classes; train fewer penalties "
                "at once, or leave out device"
            ) from None
        return None if stop() else sums

    def _blocks(self, examples: Split, size: int, fold: Any, held_out: bool) -> Iterator[Rows]:
        """Yield the rows, `size` at a time, as tensors; the weights are those of `row_weights`."""
        y = self._send_once("y", examples.y, np.int64)
        weights = self._send_once("weights", examples.weights, self.rows.dtype)
        folds = self._send_once("folds", examples.folds, np.int64)
        without = None if fold is None else torch.tensor(fold, device=self.device)[:, None]
        length = size * max(1, WINDOW // (size * self._row_bytes))
        for window in row_parts(len(self.rows), length):
            X = self._send(window) if self._kept is None else self._kept[window]
            for part in row_parts(window.start + len(X), size, window.start):
                w = None if weights is None else weights[part]
                if without is not None and folds is not None:
                    kept = ((without == folds[part]) == held_out).to(X.dtype)
                    w = kept if w is None else kept * w
                yield Rows(X[part.start - window.start :][:size], y[part], w)

    def _send_once(self, name: str, array: np.ndarray | None, dtype: Any) -> Any:
        """Return an array on the device; it stays there until there is another of its name."""
        if array is not None and self._sent.get(name, (None,))[0] is not array:
            self._sent[name] = array, torch.from_numpy(array.astype(dtype)).to(self.device)
        return None if array is None else self._sent[name][1]

    def _send(self, place: slice) -> Any:
        """Return some rows on the device; they are read while it works on those before."""
        rows = torch.from_numpy(self.rows[place])
        if self.device == "cuda":
            rows = rows.pin_memory()
            torch.cuda.synchronize()  # or windows would pile up there
        return rows.to(self.device, non_blocking=self.device == "cuda")

    @functools.cached_property
    def _kept(self) -> Any:
        """The rows, where they stay on the device, or None."""
        if self._row_bytes * len(self.rows) > free(self.device) // 2:
            return None
        kept = torch.from_numpy(self.rows[:0]).to(self.device).new_empty(self.rows.shape)
        for rows in row_parts(len(self.rows), max(1, WINDOW // self._row_bytes)):
            kept[rows] = self._send(rows)
        return kept


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

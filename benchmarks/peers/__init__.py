"""Everyone who trains: this program and its peers, all with the same mathematics.

Each starts from zero and minimises mean cross-entropy + reg * sum(W ** 2) with momentum, where lr
is the effective step: the velocity, a sum of gradients, is multiplied by lr * (1 - momentum). But
for the DataLoader and `SGDClassifier`, which shuffle by themselves, all visit the examples in the
same order, so that their objectives must agree but for rounding.
"""

import dataclasses
import importlib
from collections.abc import Callable, Sequence

from benchmarks.peers import jax_scan, numpy_loop, program, pytorch, scikit
from benchmarks.peers.settings import Settings, Weights
from benchmarks.problems import Problem
from benchmarks.table import OURS

__all__ = ["PEERS", "PYTORCH", "Peer", "Settings", "Weights", "present"]

PYTORCH = "PyTorch, index batches"


@dataclasses.dataclass(frozen=True)
class Peer:
    """Who trains, what it needs, and how.

    `prepare` makes everything ready for some epochs; what it returns trains, and returns the
    weights. `module` is imported first: a peer without it is left out.
    """

    name: str
    module: str
    prepare: Callable[[Problem, Settings], Callable[[], Weights]]


PEERS = [
    Peer(OURS, "classifier.training", program.prepare),
    Peer(PYTORCH, "torch", pytorch.prepare_index_batches),
    Peer("PyTorch, DataLoader", "torch", pytorch.prepare_data_loader),
    Peer("JAX, jit and lax.scan", "jax", jax_scan.prepare),
    Peer("numpy loop, float64", "numpy", numpy_loop.prepare),
    Peer("SGDClassifier", "sklearn.linear_model", scikit.prepare_sgd),
]


def present(peers: Sequence[Peer] = PEERS) -> tuple[list[Peer], list[str]]:
    """Return the peers that can be imported, and a line on each of the others."""
    found, absent = [], []
    for peer in peers:
        try:
            importlib.import_module(peer.module)
        except ImportError as error:
            absent.append(f"left out: {peer.name} ({error})")
        else:
            found.append(peer)
    return found, absent

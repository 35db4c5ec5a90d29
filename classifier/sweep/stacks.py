"""Which jobs of a sweep can be trained as one stack."""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from classifier.runs.artifacts import CHECKPOINT
from classifier.runs.checkpoint import read_checkpoint
from classifier.runs.config import Job, keys_with
from classifier.runs.preparation import copies
from classifier.sweep.records import config_key
from data.dataset import Dataset
from data.errors import InputError
from data.machine import memory
from data.options import PER_MODEL

BUDGET = 2**29  # bytes of the models of a stack at most, where max_stack says nothing
STACKS = 16  # that fill the memory, where it is small
SHARE = 4  # one part in so many of the memory is for the stacks of all workers

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


def group(items: Iterable[T], keys: Iterable[K]) -> dict[K, list[T]]:
    """Group items by their keys, in order of first appearance."""
    groups: dict[K, list[T]] = {}
    for item, key in zip(items, keys, strict=True):
        groups.setdefault(key, []).append(item)
    return groups


def data_key(job: Job) -> str:
    """Return what two jobs share exactly when they train on the same data set."""
    return config_key({"data": job.plain["data"], "": _choice(job, "data")})


def stack_key(job: Job) -> str:
    """Return what two jobs share exactly when they can be trained as one stack."""
    own = keys_with(PER_MODEL)
    return config_key({key: value for key, value in job.plain.items() if key not in own})


def stacks_begun(jobs: Sequence[Job]) -> Iterator[tuple[list[Job], Path]]:
    """Yield the stacks, with their checkpoints, that an earlier sweep began with some of the jobs.

    A checkpoint that cannot be read is that of the job in whose folder it stands.
    """
    waiting = {job.folder: job for job in jobs}
    sweeps = {job.folder.parent: None for job in jobs}
    for path in [place for sweep in sweeps for place in sorted(sweep.glob(f"*/{CHECKPOINT}"))]:
        try:
            names = read_checkpoint(path).folders
        except InputError:
            names = [path.parent.name]
        folders = [path.parent.parent / name for name in names]
        members = [waiting.pop(folder) for folder in folders if folder in waiting]
        if members:
            yield members, path


def _choice(job: Job, group: str) -> str:
    return str(job.plain["choices"].get(group))


def budget(n_workers: int) -> int:
    """Return the bytes that the models of a stack may take, each worker training one."""
    whole = memory()
    return min(BUDGET, whole // STACKS, whole // (SHARE * n_workers))


def stacks_of(
    jobs: Sequence[Job], dataset: Dataset, max_stack: int | None, n_workers: int
) -> Iterator[list[Job]]:
    """Yield the stacks that jobs on one data set form, no larger than memory and use allow.

    Parameters
    ----------
    jobs : all on `dataset`.
    max_stack : models in a stack at most; None: as many as fit `budget`.
    n_workers : workers that can train a stack at once: a group is cut so that none is idle.
    """
    array = 4 * len(dataset.classes) * (dataset.n_features + 1)
    for members in group(jobs, map(stack_key, jobs)).values():
        full_batch, cv = _choice(members[0], "optimizer") == "lbfgs", members[0].plain.get("cv")
        model_bytes = array * copies(full_batch=full_batch, cv=cv)
        limit = max(1, budget(n_workers) // model_bytes) if max_stack is None else max_stack
        size = min(limit, -(-len(members) // n_workers))
        yield from (members[start : start + size] for start in range(0, len(members), size))

"""Whether data fit into the memory that this process may use, told before any of it is taken."""

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator, Mapping

from data.errors import InputError
from data.machine import memory

RESERVE = 2**28  # a run with plots takes 104 MB without data, a process that draws some 130 MB
ASKED_FROM = 2**26  # what is smaller fits everywhere: asking costs a small run 17 ms
LABELS = 64  # bytes an example, while its label and its place are sorted
SPARE = 16  # one part in so many is for more processes that draw, one in every 2 GiB
STREAMED = "fewer examples, a smaller type, or a pair of .npy files, which is streamed"


@dataclasses.dataclass(frozen=True)
class Company:
    """What else uses this memory: processes like this one, and data that are kept, in bytes."""

    processes: int = 1
    kept: int = 0


ALONE = Company()
_company = contextvars.ContextVar("company", default=ALONE)


@contextlib.contextmanager
def shared(processes: int = 1, kept: int = 0) -> Iterator[None]:
    """Leave room for others: so many processes in all, and bytes of data that are kept."""
    before = _company.set(Company(processes, kept))
    try:
        yield
    finally:
        _company.reset(before)


def room() -> int:
    """Return the bytes that data and models of this process may take."""
    company, whole = _company.get(), memory()
    return (whole - whole // SPARE - company.kept) // company.processes - RESERVE


def check_room(where: str, parts: Mapping[str, int], advice: str) -> None:
    """Refuse what does not fit.

    Parameters
    ----------
    where : what the message begins with: a file or a setting.
    parts : bytes that are taken at the same time, by what takes them.
    advice : what to do instead.

    Raises
    ------
    InputError
        With sizes, limit and advice.
    """
    needed = sum(parts.values())
    if needed <= ASKED_FROM or needed <= (free := room()):
        return
    taken = ", ".join(f"{size_text(size)} for {part}" for part, size in parts.items() if size)
    others = _company.get().processes
    if others > 1:
        advice += f", or fewer processes than these {others}"
    raise InputError(
        f"{where}: needs {taken}, and of the {size_text(memory())} of memory that may be used here "
        f"{size_text(max(0, free))} are free for that; use {advice}"
    )


def check_loading(
    where: str,
    *,
    n_examples: int,
    raw: int,
    prepared: int,
    apart: int,
    advice: str,
    making: int = 0,
) -> None:
    """Refuse examples that would not fit once they are read or made, split and prepared.

    Parameters
    ----------
    where, advice : as in `check_room`.
    n_examples : of all splits.
    raw : bytes of the examples as they come.
    prepared : bytes of the float32 copies that are trained on and validated with.
    apart : bytes of those that are split off, which are copied on the way.
    making : bytes that making them takes, with the result.
    """
    labels = LABELS * n_examples
    copied = max(apart, prepared)
    if making > raw + copied:
        check_room(where, {"making the examples": making + labels}, advice)
    else:
        check_room(where, {"the examples": raw, "their copies": copied + labels}, advice)


def size_text(size: int) -> str:
    """Return bytes for a message: in GiB, or in MiB where that is clearer."""
    if size < 2**30:
        return f"{size / 2**20:,.0f} MiB"
    return f"{size / 2**30:,.1f} GiB"

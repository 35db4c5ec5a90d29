"""Pages and plots of jobs made in processes beside this one, while it writes results or trains."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from classifier.report.pages.draw import Drawers, Kind, draw, failure_told, started
from data.machine import processes

log = logging.getLogger(__name__)
DRAWING = 2**31  # bytes of memory for each process that draws: they take a sixteenth of it

Make = Callable[[Kind, Path], object]  # makes the page or the plots of a job's folder, soon


@contextlib.contextmanager
def drawing_processes(*, plots: bool) -> Iterator[Make]:
    """Yield what makes a page or plots in another process, soon; wait for all at the end.

    A picture costs about as much as the training of a small model. Where `plots` are to be made
    there is a process for each core; for pages alone, that of the program, and at the end this one.
    What a process that is killed, as for want of memory, has not made is made in this one.
    """
    own = None
    if plots:
        with contextlib.suppress(OSError):  # no memory, too many processes
            own = Drawers(min(processes(DRAWING), 61))  # Windows waits for no more
    drawers = own or started()
    asked: dict[tuple[Kind, Path], Future[None]] = {}

    def make(kind: Kind, folder: Path) -> None:
        if drawers is None:
            _told(kind, folder, draw)
            return
        try:
            asked[kind, folder] = drawers.ask(kind, folder)
        except (BrokenProcessPool, OSError) as error:
            asked[kind, folder] = Future()
            asked[kind, folder].set_exception(BrokenProcessPool(str(error)))

    try:
        yield make
    finally:  # also of a sweep that is stopped; a second signal cancels what waits
        try:
            for (kind, folder), future in reversed(asked.items()):
                if kind == "page" and future.cancel():  # nobody has begun with it
                    _told(kind, folder, draw)
            lost = [what for what, future in asked.items() if _is_lost(*what, future)]
            if lost:
                log.warning(
                    "a drawing process died: %d pages or sets of pictures are made in this one",
                    len(lost),
                )
            for kind, folder in lost:
                _told(kind, folder, draw)
        finally:
            if own is not None:
                own.end()


def _is_lost(kind: Kind, folder: Path, future: Future[None]) -> bool:
    """Wait for what was asked for, and tell of its error; return whether its process has died."""
    if future.cancelled():
        return False
    if isinstance(future.exception(), BrokenProcessPool):
        return True
    _told(kind, folder, lambda *_: future.result())
    return False


def _told(kind: Kind, folder: Path, make: Make) -> None:
    """Make a page or plots; tell of an error, for the job itself is complete."""
    with failure_told(folder, "page is" if kind == "page" else "pictures are"):
        make(kind, folder)

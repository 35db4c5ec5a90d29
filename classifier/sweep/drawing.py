"""Pages and plots of jobs made in processes beside this one, while it writes results or trains."""

import contextlib
import logging
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from classifier.report.pages.draw import Kind, draw, drawers, failure_told
from classifier.runs.progress import said_when_long
from data.console import printable
from data.machine import cores, processes

log = logging.getLogger(__name__)
DRAWING = 2**31  # bytes of memory for each process that draws: they take a sixteenth of it

Make = Callable[[Kind, Path], object]  # makes the page or the plots of a job's folder, soon


@contextlib.contextmanager
def drawing_processes(kinds: Collection[Kind]) -> Iterator[Make]:
    """Yield what makes a page or plots in another process, soon; wait for all at the end.

    A page costs about as much as the training of a small model, its plots several times as much.
    Where the `kinds` that are to be made are plots there is a process for each core; for pages
    alone there is one. At the end this one makes what nobody has begun with, and what a process
    that was killed, as for want of memory, has not made.
    """
    pool, asked = None, list[tuple[Kind, Path, Future[None]]]()

    def make(kind: Kind, folder: Path) -> None:
        future: Future[None] = Future()  # which nobody will begin with
        try:
            future = future if pool is None else pool.submit(draw, kind, folder.absolute())
        except (BrokenProcessPool, OSError) as error:
            future.set_exception(BrokenProcessPool(str(error)))
        asked.append((kind, folder, future))

    with contextlib.ExitStack() as exits:
        if kinds and cores() > 1:
            with contextlib.suppress(OSError):  # no memory, too many processes
                pool = drawers(1 if {*kinds} == {"page"} else processes(DRAWING))
                exits.callback(pool.shutdown, cancel_futures=True)
        try:
            yield make
        finally:  # also of a sweep that is stopped; a second signal cancels what waits
            with said_when_long("trained; makes the pages and plots", log):
                for kind, folder, future in reversed(asked):
                    _finish(kind, folder, future)


def _finish(kind: Kind, folder: Path, future: Future[None]) -> None:
    """Wait for a page or plots, or make them here; tell of an error, for the job is complete."""
    with failure_told(folder, "page is" if kind == "page" else "pictures are"):
        if future.cancel():
            draw(kind, folder)
        elif isinstance(future.exception(), BrokenProcessPool):
            log.warning("a drawing process died: this one draws for %s", printable(folder))
            draw(kind, folder)
        else:
            future.result()

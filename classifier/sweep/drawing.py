"""Pages and plots of jobs made in processes beside this one, while it writes results or trains."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from classifier.report.pages.draw import Kind, draw, drawers, failure_told
from classifier.runs.log import said_when_long
from data.machine import cores, processes

log = logging.getLogger(__name__)
DRAWING = 2**31  # bytes of memory for each process that draws: they take a sixteenth of it

Make = Callable[[Kind, Path], object]  # makes the page or the plots of a job's folder, soon


@contextlib.contextmanager
def drawing_processes(*, plots: bool, wanted: bool = True) -> Iterator[Make]:
    """Yield what makes a page or plots in another process, soon; wait for all at the end.

    A page costs about as much as the training of a small model, its plots several times as much.
    Where `plots` are to be made there is a process for each core; for pages alone there is one, and
    none where nothing is `wanted`. What a process that is killed, as for want of memory, has not
    made is made in this one.
    """
    pool, asked = None, list[tuple[Kind, Path, Future[None] | None]]()

    def make(kind: Kind, folder: Path) -> None:
        if pool is None:
            with failure_told(folder, kind):
                draw(kind, folder)
            return
        try:
            future = pool.submit(draw, kind, folder.absolute())
        except (BrokenProcessPool, OSError):
            future = None
        asked.append((kind, folder, future))

    with contextlib.ExitStack() as exits:
        if wanted and cores() > 1:
            with contextlib.suppress(OSError):  # no memory, too many processes
                pool = drawers(processes(DRAWING) if plots else 1)
                exits.callback(pool.shutdown, cancel_futures=True)
        try:
            yield make
        finally:  # also of a sweep that is stopped; a second signal cancels what waits
            with said_when_long("trained; makes the pages and plots", log):
                died = [
                    f is None or isinstance(f.exception(), BrokenProcessPool) for *_, f in asked
                ]
                if any(died):
                    log.warning(
                        "a drawing process died: %d pages or plots are made here", sum(died)
                    )
                for is_lost, (kind, folder, future) in zip(died, asked, strict=True):
                    with failure_told(folder, kind):  # the job itself is complete
                        draw(kind, folder) if is_lost or future is None else future.result()

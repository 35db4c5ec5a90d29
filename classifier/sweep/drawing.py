"""Pages and plots of jobs made in processes beside this one, while it writes results or trains."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
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
    none where nothing is `wanted`. At the end this process makes those that no other has begun
    with, and what one that is killed, as for want of memory, has not made.
    """
    with contextlib.ExitStack() as exits:
        pool, asked = None, list[tuple[Kind, Path, Future[None]]]()
        if wanted and cores() > 1:
            with contextlib.suppress(OSError):  # no memory, too many processes
                pool = drawers(n := processes(DRAWING) if plots else 1)
                exits.callback(pool.shutdown, cancel_futures=True)
                # Each waits for a process: what is cancelled in the pool itself, where a process
                # dies, ends Python 3.11's pool without an answer to the rest.
                threads = ThreadPoolExecutor(n)
                exits.callback(threads.shutdown, cancel_futures=True)

        def make(kind: Kind, folder: Path) -> None:
            if pool is None:
                with failure_told(folder, kind):
                    draw(kind, folder)
                return
            place = folder.absolute()
            future = threads.submit(lambda: pool.submit(draw, kind, place).result())
            asked.append((kind, folder, future))

        try:
            yield make
        finally:  # also of a sweep that is stopped; a second signal cancels what waits
            n_lost = 0
            with said_when_long("trained; makes the pages and plots", log):
                # The last first: of 64 pages 30 to 35 are made here, where it would only wait.
                for kind, folder, future in reversed(asked):
                    with failure_told(folder, kind):  # the job itself is complete
                        future.cancel()
                        try:
                            future.result()
                        except (CancelledError, BrokenProcessPool) as error:
                            n_lost += isinstance(error, BrokenProcessPool)
                            draw(kind, folder)
            if n_lost:
                log.warning("a drawing process died: %d pages or plots were made here", n_lost)

"""Pages and plots of jobs made in spare processes, while this one writes results or trains."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from classifier.report.pages.draw import Kind, draw
from classifier.report.pages.show import failure_told
from classifier.report.pages.spare import Drawer, started
from data.machine import processes

log = logging.getLogger(__name__)
DRAWING = 2**31  # bytes of memory for each process that draws: they take a sixteenth of it


Make = Callable[[Kind, Path], object]  # makes the page or the plots of a job's folder, soon


@contextlib.contextmanager
def drawing_processes(*, plots: bool) -> Iterator[Make]:
    """Yield what makes a page or plots in a spare process, soon; wait for all at the end.

    A picture costs about as much as the training of a small model. Where `plots` are to be made
    there is a process for each core; for pages alone, that of the program, and at the end this one.
    What a process that is killed, as for want of memory, has not made is made in this one.
    """
    own: list[Drawer] = []
    with contextlib.suppress(OSError):  # no memory, too many processes: with fewer, or none
        while plots and len(own) < processes(DRAWING):
            own.append(Drawer())
    drawers = own or started()
    if not drawers:
        yield _make_here
        return
    free: SimpleQueue[Drawer] = SimpleQueue()
    for drawer in drawers:
        free.put(drawer)
    threads = ThreadPoolExecutor(len(drawers))  # each waits for the answers of a process
    asked: dict[tuple[Kind, Path], Future[bool]] = {}

    def is_made(kind: Kind, folder: Path) -> bool:
        drawer = free.get()
        drawer.ask(kind, folder)
        answer = drawer.is_drawn()
        free.put(drawer)
        return answer

    def make(kind: Kind, folder: Path) -> None:
        asked[kind, folder] = threads.submit(is_made, kind, folder)

    try:
        try:
            yield make
        finally:  # also of a sweep that is stopped; a second signal cancels what waits
            for (kind, folder), future in reversed(asked.items()):
                if kind == "page" and future.cancel():  # nobody has begun with it
                    _make_here(kind, folder)
            others = [what for what, future in asked.items() if not future.cancelled()]
            lost = [what for what in others if not asked[what].result()]
            if lost:
                log.warning(
                    "a drawing process died, or could not make them: %d pages or sets of pictures "
                    "are made in this one",
                    len(lost),
                )
            for kind, folder in lost:
                _make_here(kind, folder)
    finally:
        threads.shutdown(cancel_futures=True)
        for drawer in own:
            drawer.end()


def _make_here(kind: Kind, folder: Path) -> None:
    """Make a page or plots in this process; tell of an error, for the job itself is complete."""
    with failure_told(folder, "page is" if kind == "page" else "pictures are"):
        draw(kind, folder)

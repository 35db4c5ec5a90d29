"""Plots drawn in spare processes, while the next stack is trained."""

import contextlib
import logging
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from classifier.report.pages.draw import draw
from classifier.report.pages.run import write_run_page
from classifier.report.pages.spare import Drawer
from classifier.runs.conclude import Show
from data.machine import processes

log = logging.getLogger(__name__)
DRAWING = 2**31  # bytes of memory for each process that draws: they take a sixteenth of it


@contextlib.contextmanager
def drawing_processes() -> Iterator[Show]:
    """Yield what shows a run, its plots drawn in a spare process, soon; wait for all at the end.

    A picture costs about as much as the training of a small model. Where such a process is killed,
    as for want of memory, the plots are drawn in this one.
    """
    free: SimpleQueue[Drawer] = SimpleQueue()
    drawers = [Drawer() for _ in range(processes(DRAWING))]
    for drawer in drawers:
        free.put(drawer)
    threads = ThreadPoolExecutor(len(drawers))  # each waits for the answers of a process
    drawn: dict[Path, Future[bool]] = {}

    def is_drawn(folder: Path) -> bool:
        drawer = free.get()
        drawer.ask("run", folder)
        answer = drawer.is_drawn()
        free.put(drawer)
        return answer

    def show(folder: Path, plots: bool) -> None:
        write_run_page(folder, drawn=plots)
        if plots:
            drawn[folder] = threads.submit(is_drawn, folder)

    try:
        try:
            yield show
        finally:  # also of a sweep that is stopped; a second signal cancels what waits
            lost = [folder for folder, future in drawn.items() if not future.result()]
            if lost:
                log.warning("a drawing process died: %d runs are drawn in this one", len(lost))
            for folder in lost:
                draw("run", folder)
    finally:
        threads.shutdown(cancel_futures=True)
        for drawer in drawers:
            drawer.end()

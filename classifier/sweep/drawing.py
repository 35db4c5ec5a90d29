"""Plots drawn in spare processes, while the next stack is trained."""

import contextlib
import logging
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

from classifier.report.pages.run import write_run_page
from classifier.report.pages.show import draw_run
from classifier.runs.conclude import Show
from classifier.sweep.parent import Process, end_with, this_process
from data.machine import processes

log = logging.getLogger(__name__)
DRAWING = 2**31  # bytes of memory for each process that draws: they take a sixteenth of it


@contextlib.contextmanager
def drawing_processes() -> Iterator[Show]:
    """Yield what shows a run, its plots drawn in a spare process, soon; wait for all at the end.

    A picture costs about as much as the training of a small model. Where such a process is killed,
    as for want of memory, the plots are drawn in this one.
    """
    n_processes = processes(DRAWING)
    own = (this_process(),)
    pool = ProcessPoolExecutor(n_processes, get_context("spawn"), _start_drawing, own)
    # Importing matplotlib takes the time of several pictures: begin while the first stack trains.
    starts = [pool.submit(_import_plots) for _ in range(n_processes)]
    drawn: dict[Path, Future[None] | None] = {}

    def show(folder: Path, plots: bool) -> None:
        write_run_page(folder, drawn=plots)
        if plots:
            drawn[folder] = None
            with contextlib.suppress(BrokenProcessPool):
                drawn[folder] = pool.submit(draw_run, folder)

    try:
        try:
            yield show
        finally:  # also of a sweep that is stopped; a second signal cancels what waits
            lost = [folder for folder, future in drawn.items() if not _is_drawn(future)]
            if lost:
                log.warning("a drawing process died: %d runs are drawn in this one", len(lost))
            for folder in lost:
                draw_run(folder)
            for start in starts:
                _is_drawn(start)
    finally:
        pool.shutdown(cancel_futures=True)


def _is_drawn(future: Future[None] | None) -> bool:
    """Wait for a drawing; return whether its process lived to make it."""
    try:
        if future is not None:
            future.result()
    except BrokenProcessPool:
        return False
    return future is not None


def _import_plots() -> None:
    import classifier.report.plots  # noqa: F401


def _start_drawing(parent: Process) -> None:
    """Leave Ctrl-C to the parent, and end with it even when it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(parent)

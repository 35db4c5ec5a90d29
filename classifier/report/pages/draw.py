"""What a person looks at: pages, and plots drawn from the files of a run or a sweep.

Drawing never fails a run.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import textwrap
import threading
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Literal

from classifier.model import LinearModel
from classifier.report import figures
from classifier.report.png import ALONE, SQUARE, Plot
from classifier.report.sweep_figures import SWEEP_PLOT, path_charts, path_of, sweep_panels
from classifier.runs.artifacts import (
    EXAMPLES,
    FEATURES,
    PAGE,
    PATH,
    REGIONS,
    TEMPLATES,
    read_examples,
    read_history,
)
from classifier.runs.folder import read_report
from classifier.runs.log import log as run_log
from classifier.runs.log import reason_of
from data.errors import printable
from data.files.store import from_here, read_plain, write_whole

log = logging.getLogger(__name__)

Kind = Literal["page", "run", "sweep"]  # a run's page, its plots, those of a sweep
WRAPPED = 100  # letters of a line of a heading, where it has several
LAST = "loss_curve.png"  # of the plots of a run: where it stands, all do
Plots = dict[str, Callable[[], Plot]]  # what makes each plot, by its name


def draw(kind: Kind, folder: Path) -> None:
    """Put the page of a run, its plots, or those of a sweep into its folder.

    Raises
    ------
    Exception
        The first error, when all plots were tried.
    """
    if kind == "page":
        from classifier.report.pages.run_page import write_run_page  # its packages cost start-up

        write_run_page(folder)
        return
    errors = []
    for name, make in (_of_run(folder) if kind == "run" else _of_sweep(folder)).items():
        try:
            write_whole(folder / name, make().save)
        except Exception as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _of_run(folder: Path) -> Plots:
    """Return what makes every plot of a run, from its history, report and model."""
    history = read_history(folder / "history.csv")
    report = read_plain(folder / "report.json")
    accuracy, settings = figures.heading(report, "accuracy"), figures.settings_of_curve(report)
    part = figures.part_of_classes(report)

    def templates() -> Plot:
        heading, pictures = figures.templates(LinearModel.load(folder / "model.npz"))
        return Plot(heading, [pictures])

    def features() -> Plot:
        about = textwrap.wrap(" ".join(figures.about_features(report)), WRAPPED)
        return Plot("\n".join([accuracy, *about]), figures.features(report))

    def regions() -> Plot:
        model, shown = LinearModel.load(folder / "model.npz"), read_examples(folder / EXAMPLES)
        return Plot(accuracy, [figures.regions(model, shown, size=500)], ALONE)

    def confusions() -> Plot:
        return Plot(accuracy + f" ({part})" * bool(part), [figures.confusions(report)])

    def reliability() -> Plot:
        return Plot(figures.heading(report, "reliability"), [figures.reliability(report)], SQUARE)

    def curve(name: str) -> Plot:
        chart = figures.curve(history, report, name)
        return Plot(figures.heading(report, name) + settings, [chart], ALONE)

    plots: Plots = {TEMPLATES: templates} if report["data"]["image_shape"] else {}
    plots |= {FEATURES: features} if "features" in report else {}
    plots |= {REGIONS: regions} if (folder / EXAMPLES).exists() else {}
    plots |= {"confusion_matrix.png": confusions, "reliability_diagram.png": reliability}
    if path := path_of(report):
        plots[PATH] = lambda: Plot("", path)
    return plots | {"accuracy_curve.png": lambda: curve("accuracy"), LAST: lambda: curve("loss")}


def _of_sweep(folder: Path) -> Plots:
    """Return what makes the picture of a sweep, and that of a path of penalties."""
    summary = read_plain(folder / "sweep.json")
    path = path_charts(summary["path"], summary["best"], summary["one_standard_error"])
    plots: Plots = {SWEEP_PLOT: lambda: Plot(*sweep_panels(summary))}
    return plots | ({PATH: lambda: Plot("", path)} if path else {})


def drawers(n: int) -> ProcessPoolExecutor:
    """Return n processes that are asked to `draw`; they end with this one, however that ends.

    Raises
    ------
    OSError
        When there is no memory for them, or too many processes.
    """
    pool = ProcessPoolExecutor(n, multiprocessing.get_context("spawn"), initializer=_prepare_drawer)
    script, changed = sys.modules["__main__"], ("PYTHONSAFEPATH", "OPENBLAS_NUM_THREADS")
    kept = {name: os.environ[name] for name in changed if name in os.environ}
    # They would import the program's script, with Hydra, for 0.3 s of CPU, and what stands in the
    # current folder. They multiply nothing. Ctrl-C in a terminal is for this process.
    os.environ |= dict.fromkeys(changed, "1")
    sys.modules["__main__"] = types.ModuleType("__main__")
    if sys.platform != "win32":
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        for _ in range(n):  # each starts a process, for none is ready yet
            pool.submit(int)
    finally:
        if sys.platform != "win32":
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        sys.modules["__main__"] = script
        for name in changed:
            del os.environ[name]
        os.environ |= kept
    return pool


def _prepare_drawer() -> None:
    """Let Ctrl-C and standard error alone, and end with the process that asks."""

    def end_with_parent() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (as long as it lives)
    threading.Thread(target=end_with_parent, daemon=True).start()


@contextlib.contextmanager
def failure_told(folder: Path, kind: Kind) -> Iterator[None]:
    """Tell in one line why a page or pictures are not made; the results stand without them.

    The terminal has the line, and the train.log of a run that still goes on.
    """
    try:
        yield
    except Exception as error:
        what = "page is" if kind == "page" else "pictures are"
        line = "%s: its %s not made, its results stand: %s"
        message = line, printable(from_here(folder)), what, reason_of(error)
        if run_log.handlers:
            run_log.error(*message, extra={"folder": folder})
            run_log.debug("traceback", exc_info=error, extra={"folder": folder})
        if not (run_log.handlers and run_log.propagate):
            log.error(*message)


def show_run(folder: Path, plots: bool) -> None:
    """Write the page of a run and, where asked to, its plots; tell of what cannot be made."""
    if plots:
        with failure_told(folder, "run"):
            draw("run", folder)
    with failure_told(folder, "page"):
        draw("page", folder)


def lacks(folder: Path) -> list[Kind]:
    """Return what is to be seen of a finished run, by its config, and does not stand there."""
    report = read_report(folder)
    if report is None:
        return []
    missing: list[Kind] = [] if (folder / PAGE).exists() else ["page"]
    if report["config"]["report"]["plots"] == "all" and not (folder / LAST).exists():
        missing.append("run")
    return missing

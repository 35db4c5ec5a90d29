"""What a person looks at: the page and the plots of a run, the plots of a sweep, from its files.

Drawing never fails a run.
"""

import contextlib
import logging
import math
import multiprocessing
import os
import shlex
import signal
import sys
import textwrap
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Literal

from classifier.fit import Epoch
from classifier.model import LinearModel
from classifier.report import figures
from classifier.report.chart import Chart
from classifier.report.png import ALONE, SQUARE, Plot
from classifier.report.settings import reported_split
from classifier.report.sweep_figures import SWEEP_PLOT, path_charts, path_of, sweep_panels
from classifier.report.text import data_uri, flags, template, text_of
from classifier.runs import artifacts
from classifier.runs.config import flatten, labels_of
from classifier.runs.folder import SWEEP, read_overrides, read_report
from classifier.runs.log import log as run_log
from classifier.runs.log import reason_of
from data.errors import printable
from data.files.arrays import read_npz
from data.files.store import from_here, read_plain, write_text, write_whole

log = logging.getLogger(__name__)

Kind = Literal["page", "run", "sweep"]  # a run's page, its plots, those of a sweep
WRAPPED = 100  # letters of a line of a heading, where it has several
LAST = "loss_curve.png"  # of the plots of a run: where it stands, all do
ACROSS, FINE = 120, 500  # pixels of the decision regions: those of a page are drawn smooth
FEW = 30  # classes up to which they stand in their own order
DETAILS = "smoothness largest_stable_lr gradient_check seconds data machine versions".split()
Plots = dict[str, Callable[[], Plot]]  # what makes each plot, by its name


def draw(kind: Kind, folder: Path) -> None:
    """Put the page of a run, its plots, or those of a sweep into its folder.

    Raises
    ------
    Exception
        The first error, when all plots were tried.
    """
    if kind == "page":
        write_text(folder / artifacts.PAGE, _page_of_run(folder))
        return
    errors = []
    plots = _plots_of_run(folder, *_read(folder)) if kind == "run" else _plots_of_sweep(folder)
    for name, make in plots.items():
        try:
            write_whole(folder / name, make().save)
        except Exception as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _read(folder: Path) -> tuple[dict[str, Any], list[Epoch]]:
    return read_plain(folder / "report.json"), artifacts.read_history(folder / artifacts.HISTORY)


def _plots_of_run(folder: Path, report: dict[str, Any], history: list[Epoch]) -> Plots:
    """Return what makes every plot of a run, from its report, its history and its model."""
    accuracy, part = figures.heading(report, "accuracy"), figures.part_of_classes(report)

    def features() -> Plot:
        about = textwrap.wrap(" ".join(figures.about_features(report)), WRAPPED)
        return Plot("\n".join([accuracy, *about]), figures.features(report))

    def confusions() -> Plot:
        return Plot(accuracy + f" ({part})" * bool(part), [figures.confusions(report)])

    def reliability() -> Plot:
        return Plot(figures.heading(report, "reliability"), [figures.reliability(report)], SQUARE)

    def curve(name: str) -> Plot:
        return Plot(figures.heading(report, name), [figures.curve(history, report, name)], ALONE)

    plots: Plots = {"confusion_matrix.png": confusions, "reliability_diagram.png": reliability}
    if report["data"]["image_shape"]:
        model = folder / artifacts.MODEL
        plots[artifacts.TEMPLATES] = lambda: Plot(*figures.templates(LinearModel.load(model)))
    if "features" in report:
        plots[artifacts.FEATURES] = features
    if (folder / artifacts.EXAMPLES).exists():
        plots[artifacts.REGIONS] = lambda: Plot(accuracy, [_regions(folder, FINE)], ALONE)
    if path := path_of(report):
        plots[artifacts.PATH] = lambda: Plot("", path)
    return plots | {"accuracy_curve.png": lambda: curve("accuracy"), LAST: lambda: curve("loss")}


def _regions(folder: Path, size: int) -> Chart:
    examples = artifacts.read_examples(folder / artifacts.EXAMPLES)
    return figures.regions(LinearModel.load(folder / artifacts.MODEL), examples, size)


def _plots_of_sweep(folder: Path) -> Plots:
    """Return what makes the picture of a sweep, and that of a path of penalties."""
    summary = read_plain(folder / "sweep.json")
    path = path_charts(summary["path"], summary["best"], summary["one_standard_error"])
    plots: Plots = {SWEEP_PLOT: lambda: Plot(*sweep_panels(summary))}
    return plots | ({artifacts.PATH: lambda: Plot("", path)} if path else {})


def _page_of_run(folder: Path) -> str:
    """Return the page of a run, which names the plots where its config says that they will be."""
    report, history = _read(folder)
    name, split = reported_split(report["metrics"])
    names = {path.name for path in folder.iterdir() if path.is_file()} - {artifacts.PAGE}
    if report["config"]["report"]["plots"] == "all":  # soon, by another process
        names |= {*_plots_of_run(folder, report, history)}
    classes = split["per_class"]
    if len(classes) > FEW:  # of those without examples nothing is known
        classes = sorted(classes, key=lambda c: (not c["support"], c["f1"]))
    mistakes, templates, shape = list[Any](), list[Any](), report["data"]["image_shape"]
    if shape:
        # The weights alone: to read the whole model took a seventh of a page's time.
        W = read_npz(str(folder / artifacts.MODEL), ["W"])["W"]
        templates = figures.template_images(W.T[: figures.SHOWN_TEMPLATES].reshape(-1, *shape))
        if artifacts.MISTAKES in names:
            X = read_npz(str(folder / artifacts.MISTAKES), ["X"])["X"]
            mistakes = figures.example_images(X)
    near = {"optimum": text_of("certified", report)}
    return str(
        template("run.html").render(
            report=report,
            place="/".join(folder.resolve().parts[-2:]),
            labels=labels_of(report["config"]),
            sweep=any((folder.parent / name).exists() for name in (SWEEP, "sweep.json")),
            split_name=name,
            split=split,
            chance=math.log(report["data"]["n_classes"]),
            command=command(folder),
            flags=flags(report),
            curves=[figures.curve(history, report, figure) for figure in ("loss", "accuracy")],
            history_columns=Epoch._fields,
            history=history,
            confusion=figures.confusions(report),
            confused_among=figures.part_of_classes(report),
            reliability=figures.reliability(report),
            path=path_of(report),
            features=figures.features(report),
            about_features=figures.about_features(report),
            classes=classes,
            is_worst_first=len(classes) > FEW,
            config_rows=flatten(report["config"]).items(),
            details=flatten(near | {key: report[key] for key in DETAILS}).items(),
            files=sorted(name for name in names if not name.startswith(".")),
            mistake_pictures=[*map(data_uri, mistakes)],
            templates=[*map(data_uri, templates)],
            is_coloured=figures.is_coloured(shape or ()),
            regions=_regions(folder, ACROSS) if artifacts.EXAMPLES in names else None,
        )
    )


def command(folder: Path) -> str:
    """Return the command line that a run's overrides make, or nothing where they are not known."""
    overrides = read_overrides(folder)
    if overrides is None:
        return ""
    hidden = ["mlflow.uri="]  # may hold a password
    if overrides[:1] != ["-m"]:
        hidden.append("sweep=")  # what a job of a sweep gets from it stands beside it
    kept = [override for override in overrides if not override.startswith(tuple(hidden))]
    return " ".join(["python", "train.py", *map(shlex.quote, kept)])


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
        what, place = "page is" if kind == "page" else "pictures are", printable(from_here(folder))
        line = "%s: its %s not made, its results stand: %s"
        message = line, place, what, reason_of(error)
        if run_log.handlers:
            run_log.error(*message, extra={"folder": folder})
            run_log.debug("traceback", exc_info=error, extra={"folder": folder})
        if not (run_log.handlers and run_log.propagate):
            log.error(*message)


def show_run(folder: Path, plots: bool) -> None:
    """Write the page of a run and, where asked to, its plots; tell of what cannot be made."""
    kinds: Sequence[Kind] = ("run", "page") if plots else ("page",)
    for kind in kinds:
        with failure_told(folder, kind):
            draw(kind, folder)


def lacks(folder: Path) -> list[Kind]:
    """Return what is to be seen of a finished run, by its config, and does not stand there."""
    report = read_report(folder)
    if report is None:
        return []
    missing: list[Kind] = [] if (folder / artifacts.PAGE).exists() else ["page"]
    if report["config"]["report"]["plots"] == "all" and not (folder / LAST).exists():
        missing.append("run")
    return missing

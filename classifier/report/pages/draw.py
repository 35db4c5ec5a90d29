"""The plots of a run or a sweep, made from the files of its folder; here, or for another process.

`python -m classifier.report.pages.draw` draws what it is asked to, a line of JSON on stdin for each
folder, and answers each with a line. It ends when nobody can ask any more.
"""

import json
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from classifier.model import LinearModel
from classifier.report.names import EXAMPLES, PATH, REGIONS, SWEEP_PLOT, TEMPLATES
from classifier.report.quick_import import import_matplotlib
from classifier.report.settings import shown_rows
from classifier.runs.examples import read_examples
from classifier.runs.history import read_history
from data.files.store import read_plain, write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Kind = Literal["page", "run", "sweep"]  # a run's page, its plots, those of a sweep
COPIED = ("confusion_matrix.png", "reliability_diagram.png")  # take half of a run's time
LAST = "loss_curve.png"  # of the plots that one process draws: where it stands, all do
PNG = {"compress_level": 2}  # twice as quick as 6, for files a tenth larger
# No text of a user, as the name of a class, is read as a formula, whatever the user's matplotlibrc
# says. None of matplotlib's own texts is one, for the ticks of logarithmic axes are given.
PLAIN: dict[Any, bool] = {
    "text.parse_math": False,
    "text.usetex": False,
    "axes.formatter.use_mathtext": False,
}
DRAWN = "drawn\n"  # an answer; any other says that nothing was


def draw(kind: Kind, folder: Path) -> None:
    """Put the page of a run, its plots, or those of a sweep into its folder."""
    if kind == "page":
        from classifier.report.pages.run import write_run_page  # its packages cost start-up

        write_run_page(folder)
        return
    import_matplotlib()
    _write(folder, _of_run(folder) if kind == "run" else _of_sweep(folder))


def _write(folder: Path, figures: "Mapping[str, Callable[[], Figure]]") -> None:
    """Make figures, and put each into its file; raise the first error when all were tried."""
    from matplotlib import rc_context

    errors = []
    with warnings.catch_warnings(), rc_context(PLAIN):
        # A class name in a script that the font lacks is drawn as boxes: no reason to warn.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        for name, make in figures.items():
            try:
                write_whole(folder / name, partial(make().savefig, format="png", pil_kwargs=PNG))
            except Exception as error:
                errors.append(error)
    if errors:
        raise errors[0]


def _of_run(folder: Path) -> "dict[str, Callable[[], Figure]]":
    """Return what makes every plot of a run, from its history, report and model."""
    from classifier.report import plots  # matplotlib costs start-up

    history = read_history(folder / "history.csv")
    report = read_plain(folder / "report.json")
    figures: dict[str, Callable[[], Figure]] = {}
    if report["data"]["image_shape"]:
        model = LinearModel.load(folder / "model.npz")
        figures[TEMPLATES] = partial(plots.weight_templates, model)
    if (folder / EXAMPLES).exists():
        model = LinearModel.load(folder / "model.npz")
        shown = read_examples(folder / EXAMPLES)
        figures[REGIONS] = partial(plots.decision_regions, model, shown, report)
    figures["confusion_matrix.png"] = partial(plots.confusion_matrix, report)
    figures["reliability_diagram.png"] = partial(plots.reliability_diagram, report)
    figures["accuracy_curve.png"] = partial(plots.accuracy_curve, history, report)
    figures[LAST] = partial(plots.loss_curve, history, report)
    return figures


def _draw_twofold(folder: Path) -> None:
    """Draw the plots of a run, some of them in a copy of this process where there are copies."""
    if sys.platform != "linux":  # macOS has them too, but not for whoever uses its frameworks
        draw("run", folder)
        return
    import_matplotlib()
    figures = _of_run(folder)
    copied = {name: figures.pop(name) for name in COPIED}
    copy = os.fork()
    if copy == 0:
        failed = 1
        try:
            _write(folder, copied)
            failed = 0
        finally:
            os._exit(failed)
    try:
        _write(folder, figures)
    finally:
        failed = os.waitpid(copy, 0)[1]
    if failed:
        raise ChildProcessError("the copy of this process has drawn nothing")


def _of_sweep(folder: Path) -> "dict[str, Callable[[], Figure]]":
    """Return what makes the picture of a sweep, and that of a path of penalties."""
    from classifier.report.path_plot import path_figure
    from classifier.report.sweep_plots import sweep_figure

    summary = read_plain(folder / "sweep.json")
    best, strongest = summary["best"], summary["one_standard_error"]
    rows, keys = shown_rows(summary)
    own = rows, keys, summary["objective"], summary["jobs"], best
    figures: dict[str, Callable[[], Figure]] = {SWEEP_PLOT: partial(sweep_figure, *own)}
    if summary["path"] and best:
        strong = strongest and strongest["reg"]
        figures[PATH] = partial(path_figure, summary["path"], best["reg"], strong)
    return figures


def main() -> None:
    """Draw what is asked for, until stdin ends."""
    import_matplotlib()
    for line in sys.stdin:
        kind, folder, twofold = json.loads(line)
        try:
            if twofold and kind == "run":
                _draw_twofold(Path(folder))
            else:
                draw(kind, Path(folder))
            answer = DRAWN
        except Exception:  # who asked draws it, and is told why that fails
            answer = "failed\n"
        sys.stdout.write(answer)
        sys.stdout.flush()


if __name__ == "__main__":
    main()

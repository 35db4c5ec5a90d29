"""What a person looks at of a run: its page and its plots, made from the files of its folder."""

import warnings
from functools import partial
from pathlib import Path

from classifier.model import LinearModel
from classifier.report.names import TEMPLATES
from classifier.report.pages.run import write_run_page
from classifier.runs.folder import read_report
from classifier.runs.history import read_history
from data.files.plain import read_plain
from data.files.whole import write_whole

LAST = "loss_curve.png"  # of the plots: where it stands, all do
PNG = {"compress_level": 2}  # twice as quick as 6, for files a tenth larger


def show_run(folder: Path, plots: bool) -> None:
    """Write the page of a run and, where asked to, its plots."""
    write_run_page(folder, drawn=plots)
    if plots:
        draw_run(folder)


def lacks_plots(folder: Path) -> bool:
    """Return whether a job's config asks for plots, and they do not all stand in its folder."""
    report = read_report(folder)
    asked = report is not None and report["config"]["report"]["plots"] == "all"
    return asked and not (folder / LAST).exists()


def draw_run(folder: Path) -> None:
    """Draw every plot of the run in `folder`, into it, from its history, report and model."""
    from classifier.report import plots  # matplotlib costs start-up

    history = read_history(folder / "history.csv")
    report = read_plain(folder / "report.json")
    figures = {}
    if report["data"]["image_shape"]:
        figures[TEMPLATES] = plots.weight_templates(LinearModel.load(folder / "model.npz"))
    figures["confusion_matrix.png"] = plots.confusion_matrix(report)
    figures["reliability_diagram.png"] = plots.reliability_diagram(report)
    figures["accuracy_curve.png"] = plots.accuracy_curve(history, report)
    figures[LAST] = plots.loss_curve(history, report)
    with warnings.catch_warnings():
        # A class name in a script that the font lacks is drawn as boxes: no reason to warn.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        for name, figure in figures.items():
            write_whole(folder / name, partial(figure.savefig, format="png", pil_kwargs=PNG))

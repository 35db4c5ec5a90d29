"""What a run's page shows of examples with two features: where the model tells classes apart."""

from pathlib import Path
from typing import Any

from classifier.model import LinearModel
from classifier.report.charts import Chart, Dot
from classifier.report.names import EXAMPLES
from classifier.report.pictures import region_picture
from classifier.report.regions import HUES, regions
from classifier.runs.examples import read_examples

PIXELS = 120  # of the picture across: it is drawn smooth


def region_chart(folder: Path) -> Chart | None:
    """Return the examples of a run and the regions of its classes; None without two features."""
    if not (folder / EXAMPLES).exists():
        return None
    shown, model = read_examples(folder / EXAMPLES), LinearModel.load(folder / "model.npz")
    found = regions(model, shown.X, PIXELS)
    chart = Chart("Examples and decision regions", "feature 1", "feature 2", found.x, found.y)
    chart.picture = region_picture(found.winner, HUES)
    if len(model.classes) <= len(HUES):
        chart.keys = [(f"class-{c}", str(name)) for c, name in enumerate(model.classes)]
    columns: Any = (part.tolist() for part in (*shown, found.predicted))
    for (x, y), true, is_val, predicted in zip(*columns, strict=True):
        text = f"{'validation' if is_val else 'training'}, {model.classes[true]}"
        text += f", taken for {model.classes[predicted]}" * (predicted != true)
        kind = f"class-{true % len(HUES)}{' held-out' * is_val}"
        radius = 4.0 if is_val else 2.5
        chart.dots.append(Dot(chart.at_x(x), chart.at_y(y), radius, kind, text))
    return chart

"""The charts of a path of penalties, for the page of a sweep."""

from classifier.report.charts import Axis, Chart, Dot, span
from classifier.report.sweep_values import Row

FIGURES = (
    ("loss", "loss", "cross-entropy, nats an example", 1.0),
    ("accuracy", "accuracy", "% of examples", 100.0),
    ("weight_norm", "length of the weights", "|W|", 1.0),
)


def path_charts(
    rows: list[Row], best: Row | None, strongest: Row | None, links: dict[str, str]
) -> list[Chart]:
    """Return loss, accuracy and length of the weights by penalty.

    Parameters
    ----------
    rows : of `classifier.sweep.reg_path.path_rows`, which may be none.
    best : the job that was chosen.
    strongest : that with the strongest penalty within one standard error of it, or None.
    links : where the dot of each job leads.
    """
    if not rows or best is None:
        return []
    marks = {f"best: {best['reg']:.3g}": float(best["reg"])}
    if strongest is not None and strongest["reg"] != best["reg"]:
        text = f"strongest within one error: {strongest['reg']:.3g}"
        marks[text] = float(strongest["reg"])
    return [_chart(rows, *figure, marks, links) for figure in FIGURES]


def _chart(
    rows: list[Row],
    name: str,
    title: str,
    label: str,
    unit: float,
    marks: dict[str, float],
    links: dict[str, str],
) -> Chart:
    regs = [float(row["reg"]) for row in rows]
    values = [unit * row[name] for row in rows]
    errors = [unit * row.get(f"{name}_error", 0.0) for row in rows]
    train = [unit * row[f"train_{name}"] for row in rows if f"train_{name}" in row]
    bounds = [[v + s * e for v, e in zip(values, errors, strict=True)] for s in (-1, 1)]
    log = name == "weight_norm" and max(values) > 10 * min(values) > 0
    y = span([*values, *train, *(v for bound in bounds for v in bound)], log=log)
    chart = Chart(f"{title} by reg", "reg", label, x=span(regs, log=True), y=y)
    chart.x_ticks = [(tick, f"{tick:.0e}") for tick in _decades(chart.x)]
    chart.marks = [(chart.at_x(reg), text) for text, reg in marks.items() if reg > 0]
    if train:
        chart.add_line("training", "train", regs, train)
    chart.add_line("held out" if train else "", "val", regs, values)
    if any(errors):
        for bound, text in zip(bounds, ("one standard error", ""), strict=True):
            chart.add_line(text, "chance", regs, bound)
    for row, reg, value, error in zip(rows, regs, values, errors, strict=True):
        text = f"reg {reg:.3g}: {name} {value:.4g}" + f" ± {error:.2g}" * bool(error)
        place = chart.at_x(reg), chart.at_y(value)
        chart.dots.append(Dot(*place, 4, "dot", text, links[row["job"]]))
    return chart


def _decades(axis: Axis) -> list[float]:
    return [tick for tick in axis.ticks() if f"{tick:e}".startswith("1.0")]

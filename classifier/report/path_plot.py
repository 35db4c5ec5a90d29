"""The picture of a path of penalties: loss, accuracy and size of the weights by reg."""

from matplotlib.figure import Figure

from classifier.report.charts import span
from classifier.report.sweep_look import LINE, POINT, SOFT
from classifier.report.sweep_plots import log_ticks
from classifier.report.sweep_values import Row


def path_figure(rows: list[Row], best: float, strongest: float | None) -> Figure:
    """Draw a path.

    Parameters
    ----------
    rows : of `classifier.sweep.reg_path.path_rows`.
    best : the penalty that was chosen.
    strongest : the strongest within one standard error of it, where that is known.
    """
    figure = Figure(figsize=(14.5, 4.4), dpi=110)
    regs = [row["reg"] for row in rows]
    # Fixed places: a layout engine would draw all twice.
    room = {"left": 0.05, "right": 0.995, "bottom": 0.115, "top": 0.98, "wspace": 0.22}
    panels = figure.subplots(1, 3, gridspec_kw=room)
    for axes, name, unit in zip(panels, ("loss", "accuracy"), (1.0, 100.0), strict=False):
        train, held_out, error = (
            [unit * row[key] for row in rows] for key in (f"train_{name}", name, f"{name}_error")
        )
        axes.plot(regs, train, color=POINT, label="training")
        axes.plot(regs, held_out, color=LINE, label="held out", marker="o", markersize=3)
        low, high = ([m + s * e for m, e in zip(held_out, error, strict=True)] for s in (-1, 1))
        label = "one standard error" if any(error) else None
        axes.fill_between(regs, low, high, color=LINE, alpha=0.2, linewidth=0, label=label)
    panels[0].set_ylabel("cross-entropy (nats per example)")
    panels[1].set_ylabel("accuracy (% of examples)")
    norms = [row["weight_norm"] for row in rows]
    panels[2].plot(regs, norms, color=POINT)
    if max(norms) > 10 * min(norms) > 0:
        panels[2].set_yscale("log")
        log_ticks(panels[2].yaxis, span(norms, log=True).ticks())
    panels[2].set_ylabel("length of the weights, |W|")
    for axes in panels:
        axes.set_xscale("log")
        log_ticks(axes.xaxis, span(regs, log=True).ticks())
        axes.set_xlabel("reg")
        axes.grid(alpha=0.25)
        axes.axvline(best, color=SOFT, linewidth=1, linestyle="--", label=f"best: {best:.3g}")
        if strongest is not None and strongest != best:
            text = f"strongest within one error: {strongest:.3g}"
            axes.axvline(strongest, color=SOFT, linewidth=1, linestyle=":", label=text)
        axes.legend(fontsize=8)
    return figure

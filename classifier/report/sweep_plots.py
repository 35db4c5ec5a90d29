"""The picture of a sweep, from the rows of its summary."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import Colormap, LinearSegmentedColormap, LogNorm, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

from classifier.report.charts import Axis as Scale
from classifier.report.sweep_look import (
    CARD,
    FAINTEST,
    FEW,
    LINE,
    MARK,
    POINT,
    best_at,
    error_of,
    is_category,
    is_log,
    scale_of,
    spaced,
    spread,
)
from classifier.report.sweep_values import (
    Row,
    best_job,
    best_of_pairs,
    distinct,
    is_done,
    shown_keys,
)

WIDE, HIGH, TITLE = 5.2, 4.0, 0.3  # inches of a panel, and of the title above all
LEFT, RIGHT, BOTTOM, TOP = 0.75, 0.2, 0.75, 0.25  # of a panel, around its axes, at least
LABEL, BAR = 0.42, 1.12  # inches of an axis without the names of its values, of a colour bar
NAME = 24  # characters of a value that are shown
GAP = 0.13  # of the width of a panel between the values of a key, at least
MOST = 30  # categories whose names are written below a panel


def sweep_figure(
    rows: list[Row],
    swept: list[str],
    objective: str,
    jobs: Sequence[Row] = (),
    winner: Row | None = None,
) -> Figure:
    """Draw the objective against every swept key, and a heat map for each pair of keys.

    A number is drawn on the scale it was swept on, with a line through the best; the rows of a
    category stand beside each other. Rows that diverged or failed are crosses at the worse edge;
    the best is ringed. Each heat map shows the best objective over whatever else was swept.

    Parameters
    ----------
    rows : settings, or jobs where these are repetitions of one setting.
    swept : the keys in which they differ.
    objective : the figure that is drawn, with its standard error over repetitions or folds.
    jobs : the single jobs of settings, faint behind them.
    winner : what is ringed instead of the best: the median of repetitions of one setting.
    """
    best = best_job(rows, objective)
    winner = winner or best
    keys, pairs = shown_keys(rows, swept)
    panels = max(1, len(keys) + len(pairs))
    columns = min(3, panels)
    lines = -(-panels // columns)
    figure = Figure(figsize=(WIDE * columns, HIGH * lines + TITLE), dpi=110)
    axes = [_panel(figure, k, columns, lines) for k in range(panels)]
    for ax, key in zip(axes, keys, strict=False):
        _draw_key(ax, [row for row in rows if row[key] is not None], key, objective, jobs, winner)
    for ax, pair in zip(axes[len(keys) :], pairs, strict=False):
        known = [row for row in rows if None not in (row[pair[0]], row[pair[1]])]
        _draw_heat_map(figure, ax, known, pair, objective, winner)
    done = sum(row["status"] == "completed" for row in rows)
    kind = "settings" if any(len(row.get("jobs", "")) > 1 for row in rows) else "jobs"
    is_best = best is None or winner is None or _same(best, winner)
    ringed = f"the best by {objective}" if is_best else "the median"
    said = f"{done} of {len(rows)} {kind} completed; {ringed} is ringed"
    figure.suptitle(said, y=1 - 0.08 / (HIGH * lines + TITLE))
    return figure


def _panel(figure: Figure, number: int, columns: int, lines: int) -> Axes:
    """Return the axes of a panel, at a fixed place: a layout engine would draw all twice."""
    line, column = divmod(number, columns)
    width, height = WIDE * columns, HIGH * lines + TITLE
    left, bottom = WIDE * column + LEFT, HIGH * (lines - 1 - line) + BOTTOM
    size = (WIDE - LEFT - RIGHT) / width, (HIGH - BOTTOM - TOP) / height
    return figure.add_axes((left / width, bottom / height, *size))


def _make_room(axes: Axes, left: float = LEFT, bottom: float = BOTTOM, right: float = 0.0) -> None:
    """Let there be so many inches at the left and below, and more at the right."""
    assert isinstance(axes.figure, Figure)
    width, height = axes.figure.get_size_inches()
    place = axes.get_position()
    more, up = max(0.0, left - LEFT), max(0.0, bottom - BOTTOM)
    size = place.width - (more + right) / width, place.height - up / height
    axes.set_position((place.x0 + more / width, place.y0 + up / height, *size))


def _longest(names: list[str], font: float) -> float:
    """Return about the inches that the longest of some names takes, and the axis with them."""
    return LABEL + 0.0085 * font * max(map(len, names), default=0)


def _draw_key(
    axes: Axes,
    rows: list[Row],
    key: str,
    objective: str,
    jobs: Sequence[Row],
    winner: Row | None,
) -> None:
    if is_category(rows, key):
        places = spread(rows, key)
        _name_categories(axes, [str(value) for value in distinct(rows, key)])
    else:
        places = [row[key] for row in rows]
        _set_scale(axes, sorted(set(places)))
        found = [(row[key], row[objective]) for row in best_at(rows, key, objective)]
        axes.plot(*zip(*found, strict=True), color=LINE, label="best") if found else None
    _draw_dots(axes, rows, places, objective, jobs)
    _mark(axes, rows, places, objective, winner)
    axes.set_xlabel(key)
    axes.set_ylabel(objective)
    axes.grid(alpha=0.25)
    handles, names = axes.get_legend_handles_labels()
    axes.legend(handles, names, fontsize=8) if len(names) > 1 else None


def _draw_dots(
    axes: Axes, rows: list[Row], places: list[float], objective: str, jobs: Sequence[Row]
) -> None:
    """Draw rows with their error bars, and faint behind them the jobs of which they are means."""
    place_of = {name: x for row, x in zip(rows, places, strict=True) for name in _repeated(row)}
    single = [job for job in jobs if job["job"] in place_of and is_done(job, objective)]
    if single:
        xs, ys = [place_of[job["job"]] for job in single], [job[objective] for job in single]
        axes.plot(xs, ys, ".", color=POINT, alpha=0.3, label="a job")
    done = [(x, row) for x, row in zip(places, rows, strict=True) if is_done(row, objective)]
    errors = [error_of(row, objective) for _, row in done]
    xs, ys = [x for x, _ in done], [row[objective] for _, row in done]
    name = "mean, standard error" if any(errors) else "a setting" if jobs else "a job"
    axes.plot(xs, ys, "o", color=POINT, alpha=0.6, label=name)
    if any(errors):
        bars = [error or 0.0 for error in errors]
        axes.errorbar(xs, ys, bars, fmt="none", ecolor=POINT, elinewidth=1.2, alpha=0.6)
    if is_log(rows, objective):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())


def _repeated(row: Row) -> list[str]:
    names: list[str] = row.get("jobs", [])
    return names if len(names) > 1 else []


def _name_categories(axes: Axes, values: list[str]) -> None:
    names = [value[:NAME] for value in values]
    rotation = 90 if max(map(len, names), default=0) * len(names) > 40 else 0
    step = -(-len(names) // MOST)
    places = range(0, len(names), step or 1)
    axes.set_xticks(places, names[:: step or 1], rotation=rotation)
    axes.set_xlim(-0.5, len(names) - 0.5)
    if rotation:
        _make_room(axes, bottom=_longest(names, 10))


def _draw_heat_map(
    figure: Figure,
    axes: Axes,
    rows: list[Row],
    pair: tuple[str, str],
    objective: str,
    winner: Row | None,
) -> None:
    columns, lines, best = best_of_pairs(rows, pair, objective)
    cells = [[math.nan if row is None else row[objective] for row in line] for line in best]
    figures = [row[objective] for line in best for row in line if row]
    low, high = min(figures, default=0.0), max(figures, default=1.0)
    by_log = not objective.endswith("accuracy") and 0 < low < high
    norm = LogNorm(low, high) if by_log else Normalize(low, high)
    image = axes.imshow(cells, cmap=_colours(objective), norm=norm, aspect="auto")
    if winner is not None and None not in (winner[pair[0]], winner[pair[1]]):
        x, y = columns.index(winner[pair[0]]) - 0.5, lines.index(winner[pair[1]]) - 0.5
        axes.add_patch(Rectangle((x, y), 1, 1, fill=False, edgecolor=MARK, linewidth=2))
    names = [
        [f"{v:.3g}" if isinstance(v, float) else str(v)[:NAME] for v in vs]
        for vs in (columns, lines)
    ]
    _make_room(axes, _longest(names[1], 8), _longest(names[0], 8), right=BAR - RIGHT)
    place, width = axes.get_position(), figure.get_size_inches()[0]
    bar = figure.add_axes((place.x1 + 0.15 / width, place.y0, 0.16 / width, place.height))
    ticks = [float(value) for value in norm.inverse(np.linspace(0, 1, 6))]
    colours = figure.colorbar(image, cax=bar, label=objective, ticks=ticks, format="%.3g")
    colours.minorticks_off()
    axes.set_xticks(range(len(columns)), names[0], rotation=90, fontsize=8)
    axes.set_yticks(range(len(lines)), names[1], fontsize=8)
    axes.set_xlabel(pair[0])
    axes.set_ylabel(pair[1])
    axes.set_title("best of the others; white: none completed", fontsize=8, y=1)


def _colours(objective: str) -> Colormap:
    """Return the colours of a heat map: the better, the darker."""
    full, none = (np.array(to_rgb(colour)) for colour in (POINT, CARD))
    ends = [FAINTEST * full + (1 - FAINTEST) * none, full]
    return LinearSegmentedColormap.from_list(
        "better", ends if objective.endswith("accuracy") else ends[::-1]
    )


def _same(row: Row, winner: Row) -> bool:
    return row is winner or ("job" in row and row["job"] == winner["job"])


def _set_scale(axes: Axes, values: list[float]) -> None:
    """Take the scale on which a key was swept; a linear piece leads to 0, as wide as a decade."""
    scale = scale_of(values)
    if scale == "linear":
        return
    smallest = next(value for value in values if value > 0)
    if scale == "log":
        axes.set_xscale("log")
    else:
        axes.set_xscale("symlog", linthresh=smallest, linscale=0.9)
    few = len(values) <= FEW
    round_values = Scale(smallest, values[-1], log=True).ticks()
    log_ticks(axes.xaxis, values if few else [*values[: scale == "symlog"], *round_values])


def log_ticks(axis: Axis, values: list[float]) -> None:
    """Put ticks at sorted values of a logarithmic axis, of which the first may be 0.

    Their texts are plain numbers: matplotlib's own for such an axis are formulas.
    """
    smallest = next((value for value in values if value > 0), 1.0)
    logs = {value: math.log10(value or smallest / 10) for value in values}
    low, high = min(logs.values(), default=0.0), max(logs.values(), default=0.0)

    def place(value: float) -> float:
        return (logs[value] - low) / ((high - low) or 1.0)

    ticks = spaced([(value, f"{value:.3g}") for value in values], place, GAP)
    axis.set_ticks([value for value, _ in ticks], labels=[text for _, text in ticks])
    axis.set_minor_locator(NullLocator())


def _mark(
    axes: Axes, rows: list[Row], places: list[float], objective: str, winner: Row | None
) -> None:
    """Ring the winner and cross those that diverged or failed."""
    lost = [p for p, row in zip(places, rows, strict=True) if not is_done(row, objective)]
    if lost:
        edge = 0.02 if objective.endswith("accuracy") else 0.98
        axes.plot(
            *(lost, [edge] * len(lost)),
            "x",
            color=MARK,
            transform=axes.get_xaxis_transform(),
            label="diverged or failed",
        )
    own = [(x, row) for x, row in zip(places, rows, strict=True) if winner and _same(row, winner)]
    for x, row in own:
        axes.plot([x], [row[objective]], "o", ms=13, mfc="none", mec=MARK, mew=1.5)

"""The heat maps of a sweep's page: the best objective of each two values of a pair of keys."""

from typing import Any

from classifier.report.pages.page import cell
from classifier.report.sweep_look import shade_of
from classifier.report.sweep_values import Row, best_of_pairs, rank

CELLS = 2500  # of all heat maps of a page, about
DARK = 0.75  # share of the colour above which letters are white, as in the other cells
LINES = 50  # of those that are not folded away


def heat_maps(
    rows: list[Row], pairs: list[tuple[str, str]], objective: str, links: dict[str, str]
) -> list[dict[str, Any]]:
    """Return a heat map for each pair, but for those for which the page has no room.

    `folded` says of each whether it is shown when asked for.
    """
    maps: list[dict[str, Any]] = []
    cells = lines = 0
    for pair in pairs:
        found = _heat_map(rows, pair, objective, links)
        cells += len(found["columns"]) * len(found["lines"])
        lines += len(found["lines"])
        if maps and cells > CELLS:
            break
        maps.append(found | {"folded": bool(maps) and lines > LINES})
    return maps


def _heat_map(
    rows: list[Row], pair: tuple[str, str], objective: str, links: dict[str, str]
) -> dict[str, Any]:
    columns, lines, best = best_of_pairs(rows, pair, objective)
    figures = [row[objective] for line in best for row in line if row]
    shade, winner = shade_of(figures, objective), rank(rows, objective)[:1]

    def shown(row: Row | None, column: Any, value: Any) -> dict[str, Any]:
        here = f"{pair[0]} {cell(column).text}, {pair[1]} {cell(value).text}"
        if row is None:
            return {"text": "", "share": None, "hover": f"{here}: none completed", "link": ""}
        figure = row[objective]
        kind = {"kind": "dark best" if shade(figure) > DARK else "best"} if row in winner else {}
        return {
            "text": f"{figure:.3g}",
            "share": shade(figure),
            "hover": f"{here}: {objective} {figure:.4g}, job {row['job']}",
            "link": links[row["job"]],
        } | kind

    cells = [
        (cell(value).text, [shown(row, c, value) for row, c in zip(line, columns, strict=True)])
        for value, line in zip(lines, best, strict=True)
    ]
    names = [cell(column).text for column in columns]
    return {"pair": pair, "columns": names, "lines": cells}

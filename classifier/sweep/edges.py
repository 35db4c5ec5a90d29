"""Whether the best of what a sweep tried lies at an end, beyond which better may be found."""

from typing import Any

from classifier.report.settings import Row, is_number
from classifier.runs.config import Config, fields_of


def find_edges(jobs: list[Row], swept: list[str], best: Row | None) -> list[dict[str, Any]]:
    """Tell the swept numbers whose best value is the first or the last of those tried.

    Of two values one is always the best; and where a value stands at the limit of its key, as
    reg=0, nothing lies beyond.

    Returns
    -------
    A dict each: key, value and side, "smallest" or "largest".
    """
    edges = []
    for key in swept:
        tried = _tried(jobs, key)
        if best is None or len(tried) < 3:
            continue
        for end, side, limit in (
            (tried[0], "smallest", "minimum"),
            (tried[-1], "largest", "maximum"),
        ):
            if best[key] == end and _limits(key).get(limit) != end:
                edges.append({"key": key, "value": end, "side": side})
    return edges


def no_penalty(jobs: list[Row], swept: list[str], best: Row | None) -> str:
    """Return the sentence about a best reg of 0, beside at least two others; or nothing."""
    if best is None or "reg" not in swept or best["reg"] != 0 or len(_tried(jobs, "reg")) < 3:
        return ""
    return "The best reg is 0: none of the penalties tried helps"


def _tried(jobs: list[Row], key: str) -> list[Any]:
    """Return the values of a swept key in order; nothing where one is no number."""
    values = [job[key] for job in jobs if job[key] is not None]
    return sorted(set(values)) if all(map(is_number, values)) else []


def _limits(key: str) -> dict[str, float]:
    """Return the limits that a key's values may reach."""
    field = fields_of(Config).get(key)
    return dict(field.metadata.get("limits", {})) if field is not None else {}

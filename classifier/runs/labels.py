"""What a run is called: its name and its tags, which change nothing of it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from data.console import printable
from data.errors import InputError

LONGEST = 100  # characters of a name or a tag


class Labels(NamedTuple):
    """The name of a run, or "", and its tags."""

    name: str
    tags: list[str]

    @property
    def shown(self) -> str:
        """The tags as one text."""
        return ", ".join(self.tags)


def check_labels(name: str | None, tags: Any) -> None:
    """Refuse a name or tags that do not fit into a line; one tag needs no brackets.

    Raises
    ------
    InputError
        Naming the key, the value and what was expected.
    """
    if name is not None and not _fits(name):
        raise InputError(f"name={printable(name)}: must be one line of at most {LONGEST} letters")
    for tag in _listed(tags):
        if not isinstance(tag, str | int | float) or not _fits(str(tag)):
            raise InputError(
                f"tags={printable(str(tags))}: must be texts of at most {LONGEST} letters, "
                "as tags=[first,wide]"
            )


def labels_of(config: Mapping[str, Any]) -> Labels:
    """Return the labels of a run by its config, which may be of an earlier version, or anyone's."""
    name, tags = config.get("name"), _listed(config.get("tags"))
    return Labels(printable(str(name)) if name else "", [printable(str(tag)) for tag in tags])


def _listed(tags: Any) -> list[Any]:
    if tags is None:
        return []
    return list(tags) if isinstance(tags, list | tuple) else [tags]


def _fits(text: str) -> bool:
    return bool(text.strip()) and len(text) <= LONGEST and text.isprintable()

"""Where examples come from: one file per source, each returning one `Dataset`."""

import importlib
import pkgutil

from data.dataset import Dataset, Split
from data.errors import InputError
from data.options import Options

__all__ = ["Dataset", "InputError", "Options", "Split", "sources"]


def sources() -> dict[str, type[Options]]:
    """Return each data source by the name of its file: every module here with a `Source`."""
    modules = {m.name: importlib.import_module(f"data.{m.name}") for m in _modules()}
    return {name: m.Source for name, m in modules.items() if hasattr(m, "Source")}


def _modules() -> list[pkgutil.ModuleInfo]:
    return list(pkgutil.iter_modules(__path__))

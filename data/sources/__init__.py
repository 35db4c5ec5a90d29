"""Where examples come from: one file per source, each with a `Source` that returns a `Dataset`."""

import importlib
import pkgutil

from data.options import Options


def sources() -> dict[str, type[Options]]:
    """Return each data source by the name of its file: every module here with a `Source`."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    modules = {name: importlib.import_module(f"{__name__}.{name}") for name in names}
    return {name: m.Source for name, m in modules.items() if hasattr(m, "Source")}

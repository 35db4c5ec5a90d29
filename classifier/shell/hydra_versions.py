"""What the versions of Hydra that the program runs on ask for; it goes with the older of them."""

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra

IS_1_3 = hydra.__version__.startswith("1.3.")

# Hydra 1.3 warns where `version_base` is not given, and 1.4 where it is.
VERSION_BASE: dict[str, Any] = {"version_base": "1.3"} if IS_1_3 else {}

# For `hydra.main`. Hydra 1.4 asks what a config may call: the program's own callback and handlers,
# and the launchers and sweepers, Hydra's and those that are installed beside it.
ENTRY: dict[str, Any] = VERSION_BASE or {
    "execution_whitelist": [
        "classifier.shell.command.Guard",
        "classifier.shell.console.BelowError",
        "hydra_plugins.*",
        "hydra._internal.core_plugins.*",
    ]
}


@contextlib.contextmanager
def lazy_help() -> Iterator[None]:
    """Let Hydra 1.3 make its parser of arguments on Python 3.14, within the context.

    From 3.14 on argparse reads a help text when its argument is added, and Hydra 1.3 gives one that
    is no text before it is shown (facebookresearch/hydra issue 3121): 3.14 ends with `badly formed
    help string`, and 3.15 makes at every start a text that nobody sees. So such a help is added
    after its argument. Hydra 1.4 is mended: this goes when requirements.txt asks for it.
    """
    if sys.version_info < (3, 14) or not IS_1_3:
        yield
        return
    parsers: Any = argparse.ArgumentParser
    given = parsers.add_argument

    def add_argument(parser: Any, *names: str, **options: Any) -> Any:
        text = options.get("help")
        if text is None or isinstance(text, str):
            return given(parser, *names, **options)
        action = given(parser, *names, **options | {"help": None})
        action.help = text
        return action

    parsers.add_argument = add_argument
    try:
        yield
    finally:
        parsers.add_argument = given


def compose_once(configs: Path) -> None:
    """Keep Hydra 1.3 from composing the config twice where the first time can tell it nothing.

    That would find `hydra.mode`, which stands nowhere unless someone has written it somewhere, and
    takes a tenth of the time of a short run. Hydra 1.4 looks for it without composing.

    Parameters
    ----------
    configs : the folder of the config files.
    """
    if not IS_1_3:
        return
    words = ("mode", "-c", "path")
    mentioned = any(word in argument for argument in sys.argv[1:] for word in words)
    if not mentioned and not any(b"mode:" in path.read_bytes() for path in configs.rglob("*.yaml")):
        from hydra._internal.hydra import Hydra

        Hydra.get_mode = lambda *_, **__: None  # type: ignore[method-assign]

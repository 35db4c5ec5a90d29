"""A trained model for other programs: python -m classifier.export RUN --to FORMAT."""

import os
import signal
import sys
from pathlib import Path

if __name__ == "__main__":  # Ctrl-C ends the imports, which take a second, without a traceback
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

from classifier.export.formats import FORMATS, examples_of
from classifier.model import LinearModel
from classifier.runs.prediction import find_model, incomplete_status
from data.errors import InputError, Parser, console, one_line, printable
from data.files.store import write_whole


def export(run: str, to: str, output: str | None = None) -> str:
    """Write the model of a run in a format and return what there is to say about it.

    Parameters
    ----------
    run : `latest`, the folder of a run or a sweep, or a model.npz.
    to : one of FORMATS.
    output : the file to write; None: beside the model.

    Raises
    ------
    InputError, OSError
        When the model or the output cannot be used, or the format's package is not installed.
    """
    form = FORMATS[to]
    source = find_model(run, Path("outputs"))
    path = source.with_suffix(form.suffix) if output is None else Path(output)
    if output is None and path.is_symlink():
        raise InputError(f"{path}: is a link; name the file to be written: --output PATH")
    if output is not None and path.exists():
        raise InputError(f"--output {path}: is there already; name another file")
    model = LinearModel.load(source)
    try:
        content = form.export(model)
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        raise InputError(f"--to {to}: {package} is not installed: pip install {package}") from error
    except Exception as error:  # whoever writes a model can write anything into it
        raise InputError(f"--to {to}: {source} cannot be exported: {one_line(error)}") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda file: file.write(content))
    D, C = model.W.shape
    use = form.use.format(path=repr(str(path)), shape=examples_of(model, to), D=D, C=C)
    what = f"{path}: the {to} export of {source}, {D} features, {C} classes"
    lines = [printable(what), f"Use it: {use}"]
    warnings = incomplete_status(source), form.beware(model)
    lines += [f"Beware: {warning}" for warning in warnings if warning]
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Export as the arguments say: python -m classifier.export RUN --to FORMAT.

    Raises
    ------
    SystemExit
        With one line, when something the user gave cannot be used.
    """
    parser = Parser("python -m classifier.export", description="A trained model in other formats.")
    parser.add_argument("run", metavar="RUN", help="latest, a run, a sweep or a model.npz")
    parser.add_argument("--to", required=True, choices=FORMATS, help="the format")
    parser.add_argument("--output", metavar="PATH", help="default: beside the model")
    try:
        print(export(**vars(parser.parse_args(arguments))))
    except (InputError, OSError, ImportError, MemoryError) as error:
        sys.exit(one_line(error))


if __name__ == "__main__":
    with console():
        main(sys.argv[1:])

"""What a user gave and can mend, said in one line."""

from data.console import printable


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one line for a person: it names the value, says what was expected and what
    to do. The command line prints it without a traceback.
    """


def one_line(error: BaseException) -> str:
    """Return an error's message as one line, with the file's name where it is the system's."""
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return printable(f"{place}{error.strerror}")
    if isinstance(error, MemoryError):
        return "not enough memory; take fewer examples or features"
    lines = str(error).split("\n")
    return printable(lines[0]) or type(error).__name__

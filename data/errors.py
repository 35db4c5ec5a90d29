"""What a user gave and can mend, said in one line."""

import argparse
from typing import NoReturn

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


class Parser(argparse.ArgumentParser):
    """A parser of arguments, whose `parse_args` raises InputError where one cannot be used."""

    def error(self, message: str) -> NoReturn:
        """Raise the error, in one line."""
        raise InputError(f"{message}; --help explains")

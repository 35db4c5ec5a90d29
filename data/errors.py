"""What the program says: mistakes of the user in one line, whatever a terminal looks like."""

import argparse
import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator
from typing import Any, ClassVar, NoReturn, TextIO

STDOUT, STDERR = 1, 2  # the numbers of their files

# What a terminal obeys instead of showing it, what turns the order of a line around, and what UTF-8
# has no code for: parts of file names that are no text.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object) -> str:
    """Return a text of someone else, as a class name or a path, on one line.

    Control characters, which a terminal would obey, become escapes; so do parts of odd file names.
    """
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def class_name(name: object) -> str:
    """Return the name of a class for a message, in quotes where a reader would not see all of it.

    Those are names that are empty, begin or end with blanks, or hold what is not printable.
    """
    text = str(name)
    return text if text.strip() and text == text.strip() and text.isprintable() else repr(text)


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


@contextlib.contextmanager
def damage_told(what: str) -> Iterator[None]:
    """Raise InputError, with what is damaged and the reason, for whatever a damaged file leads to.

    Readers raise nearly anything; what polars calls a panic is no `Exception`.
    """
    try:
        yield
    except (InputError, MemoryError):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise InputError(f"{what} ({one_line(error)[:120]})") from error


class Parser(argparse.ArgumentParser):
    """A parser of arguments, whose `parse_args` raises InputError where one cannot be used."""

    def error(self, message: str) -> NoReturn:
        """Raise the error, in one line."""
        raise InputError(f"{message}; --help explains")


@contextlib.contextmanager
def console() -> Iterator[None]:
    """Let the program say what it has to say within this block, whatever its streams are.

    A stream that is closed leads nowhere. A character that the encoding lacks, of which consoles of
    Windows know some 250, becomes an escape. What cannot be written ends no work: a reader that has
    gone away, as `head` does, has seen what it wants, and a full disk is told at the end.

    Raises
    ------
    SystemExit
        With one line, at the end of the block, where stdout could not take everything.
    """
    _open_closed()
    sys.stdout, sys.stderr = _lasting(sys.stdout), _lasting(sys.stderr)
    yield
    sys.stdout.flush()
    error = _Lasting.errors.get(STDOUT)
    if error is not None and not isinstance(error, BrokenPipeError):
        sys.exit(f"stdout: {error.strerror}: not all that was printed there has been written")


def _open_closed() -> None:
    """Open what is closed of the standard streams, so that no file of the program gets its number.

    A file is given the lowest number that is free.
    """
    while (null := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        os.set_inheritable(null, True)
    os.close(null)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def _lasting(stream: TextIO) -> TextIO:
    """Return a standard stream that takes every character, and whatever becomes of its file."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.reconfigure(errors="backslashreplace")
    if not isinstance(getattr(stream.buffer, "raw", stream.buffer), io.FileIO):
        return stream  # a console of Windows
    return io.TextIOWrapper(
        io.BufferedWriter(_Lasting(stream.fileno(), "wb", closefd=False)),
        encoding=stream.encoding,
        errors="backslashreplace",
        newline=os.linesep,
        line_buffering=True,
    )


class _Lasting(io.FileIO):
    """A file of a standard stream: where it takes no more, what follows is written elsewhere.

    What stdout does not take is lost; what stderr does not take is told on stdout.
    """

    errors: ClassVar[dict[int, OSError]] = {}  # the first of each stream, by its number

    def write(self, data: Any, /) -> int:
        """Write data, or the part for which there is room."""
        try:
            return super().write(data)
        except OSError as error:
            number = self.fileno()
            is_first = self.errors.setdefault(number, error) is error
            if number == STDERR and is_first:
                os.dup2(STDOUT, STDERR)
            else:
                with open(os.devnull, "wb") as null:  # noqa: PTH123
                    os.dup2(null.fileno(), number)
            return self.write(data)

"""What the program prints, on whatever the user looks at it with."""

import io
import re
import sys

# What a terminal obeys instead of showing it, what turns the order of a line around, and what UTF-8
# has no code for: parts of file names that are no text.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object) -> str:
    """Return a text of someone else, as a class name or a path, on one line.

    Control characters, which a terminal would obey, become escapes; so do parts of odd file names.
    """
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def escape_unknown_characters() -> None:
    """Print a character that the console's encoding lacks as an escape, instead of ending there.

    Consoles of Windows, and output to a file or a pipe there, know some 250 characters.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

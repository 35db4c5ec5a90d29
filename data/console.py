"""What the program prints, on whatever the user looks at it with."""

import io
import sys


def escape_unknown_characters() -> None:
    """Print a character that the console's encoding lacks as an escape, instead of ending there.

    Consoles of Windows, and output to a file or a pipe there, know some 250 characters.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def printable(text: str) -> str:
    """Return text with escapes for what UTF-8 has no code for: parts of odd file names."""
    return text.encode(errors="backslashreplace").decode()

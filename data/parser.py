"""The command line of the small commands, whose mistakes are those of a user."""

import argparse
from typing import NoReturn

from data.errors import InputError


class Parser(argparse.ArgumentParser):
    """A parser of arguments, whose `parse_args` raises InputError where one cannot be used."""

    def error(self, message: str) -> NoReturn:
        """Raise the error, in one line."""
        raise InputError(f"{message}; --help explains")

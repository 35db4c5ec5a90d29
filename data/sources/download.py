"""Fetch an archive once, checked against its digest."""

import sys
from pathlib import Path

from data.errors import InputError, one_line


def fetch(url: str, digest: str, destination: Path) -> None:
    """Download url to destination, with a progress bar on a terminal.

    Parameters
    ----------
    url : where the file is.
    digest : what it must be, as "sha256:<hex digits>"; a file that differs is not kept.
    destination : where it goes; its folder is made.

    Raises
    ------
    InputError
        When pooch is not installed, the server does not answer, or the digest differs.
    """
    try:
        import pooch
        from requests import ConnectionError as NoConnection
        from requests import RequestException
    except ImportError:
        raise InputError("data.download=true needs the package pooch: pip install pooch") from None
    if not url.startswith(("http://", "https://")):
        raise InputError(f"{url}: data.mirror must begin with https:// or http://")
    pooch.get_logger().setLevel("WARNING")
    try:
        pooch.retrieve(
            url, digest, destination.name, destination.parent, progressbar=sys.stderr.isatty()
        )
    except (RequestException, OSError) as error:
        reason = "no connection" if isinstance(error, NoConnection) else one_line(error)
        raise InputError(f"{url}: the download failed ({reason})") from error
    except ValueError as error:  # pooch's word for a digest that differs
        raise InputError(f"{url}: the file is not the official one; nothing was kept") from error

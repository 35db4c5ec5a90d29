"""Try what Windows refuses, in an empty folder, and print as JSON what became of each attempt."""

import contextlib
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path


def outcome(attempt):
    """Return what an attempt returned, or the type of its error with the number Windows gives."""
    try:
        return attempt()
    except Exception as error:
        code = getattr(error, "winerror", None)
        return type(error).__name__ + ("" if code is None else f" {code}")


def while_open(attempt):
    with Path("file").open(encoding="utf-8"):
        return outcome(attempt)


def while_open_elsewhere(attempt):
    wait = "import sys; file = open('folder/inner'); print(); sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", wait], **pipes) as reader:
        reader.stdout.readline()
        try:
            return outcome(attempt)
        finally:
            reader.communicate()


def while_inside(folder):
    place = folder.absolute()
    with contextlib.chdir(folder):
        return outcome(place.rmdir)


def missing():
    """Return the names, of some that Windows has not got, that are there all the same."""
    found = [name for name in ("fork", "preadv", "sysconf", "getuid") if hasattr(os, name)]
    for name in ("fcntl", "resource", "pwd", "termios"):
        with contextlib.suppress(ModuleNotFoundError):
            __import__(name, globals())
            found.append(name)
    return found


def written():
    Path("text").write_text("ä\n", encoding=None)
    return Path("text").read_bytes().hex()


def tried():
    for name in ("file", "other", "folder/inner"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("", encoding="utf-8")
    file, other, folder = Path("file"), Path("other"), Path("folder")
    yield "names in this process", missing()
    with ProcessPoolExecutor(1) as pool:
        yield "names in a process of its own", pool.submit(missing).result()
    yield "start method", multiprocessing.get_start_method()
    yield "fork", outcome(lambda: multiprocessing.get_context("fork"))
    yield "library", bool(__import__("psutil").virtual_memory().total)
    yield "symbolic link", outcome(lambda: Path("link").symlink_to("file"))
    yield "folder opened", outcome(lambda: os.open("folder", os.O_RDONLY))
    yield "folder read", outcome(lambda: folder.open("rb"))
    yield "open file replaced", while_open(lambda: other.replace("file"))
    yield "open file moved", while_open(lambda: file.replace("third"))
    yield "open file removed", while_open(file.unlink)
    yield "open file removed by os", while_open(lambda: os.remove("file"))
    yield "current folder removed", while_inside(folder)
    yield "rmtree by paths", not shutil.rmtree.avoids_symlink_attacks
    yield "renamed onto a file", outcome(lambda: other.rename("file"))
    yield "replaced a folder", outcome(lambda: other.replace("folder"))
    yield "folder moved", while_open_elsewhere(lambda: folder.rename("moved"))
    yield "folder removed", while_open_elsewhere(lambda: shutil.rmtree("folder"))
    yield "name with a colon", outcome(lambda: Path("12:30").write_text("", encoding="utf-8"))
    yield "folder with a colon", outcome(lambda: Path("12:30").mkdir())
    yield "way to another drive", outcome(lambda: os.path.relpath("drive/file"))
    yield "text", written()
    yield (
        "text that cp1252 has not got",
        outcome(lambda: Path("text").write_text("猫", encoding=None)),
    )
    yield "text by name", Path("text").write_text("猫", encoding="utf-8")
    yield "printed", outcome(lambda: print("猫", file=sys.stdout))
    yield "printed by name", sys.stdout.encoding
    yield "free file replaced", str(other.replace("file"))
    yield "temporary file", outcome(lambda: tempfile.TemporaryFile().close())
    yield "free folder removed", outcome(lambda: shutil.rmtree("folder"))


if __name__ == "__main__":
    print(json.dumps(dict(tried())))

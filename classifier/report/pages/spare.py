"""A process beside this one that draws: it imports matplotlib while this one trains."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from classifier.report.pages.draw import DRAWN, Kind, draw
from data.machine import cores

ROOT = Path(__file__).parents[3]  # of the program
# Ctrl-C in a terminal is for the program, which ends its spare processes itself.
APART: dict[str, Any]
if sys.platform == "win32":
    APART = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
else:
    APART = {"process_group": 0}


class Drawer:
    """A process that draws the plots of one folder after the other.

    It ends with this process, however that ends, for it then has nothing to read any more.
    """

    def __init__(self) -> None:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self.is_drawing = False
        self.process = subprocess.Popen(
            # -P: what stands in the current folder is not imported.
            [sys.executable, "-P", "-m", "classifier.report.pages.draw"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # It multiplies nothing, and a copy of a process has no other threads.
            env=os.environ | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
            encoding="utf-8",
            **APART,
        )

    def ask(self, kind: Kind, folder: Path, *, twofold: bool = False) -> None:
        """Ask for the plots of a folder; `is_drawn` waits for them.

        Those of a run can be drawn on two cores at once.
        """
        assert self.process.stdin is not None
        self.is_drawing = True
        with contextlib.suppress(OSError):  # it is dead: is_drawn says so
            self.process.stdin.write(json.dumps([kind, str(folder.absolute()), twofold]) + "\n")
            self.process.stdin.flush()

    def is_drawn(self) -> bool:
        """Wait for what was asked for; return whether it was drawn."""
        assert self.process.stdout is not None
        answer = self.process.stdout.readline()
        self.is_drawing = False
        return bool(answer == DRAWN)

    def end(self) -> None:
        """End the process; a picture under way is finished."""
        if not self.is_drawing:
            self.process.kill()  # quicker than to let it tidy up
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
        self.process.wait()


_spare: list[Drawer] = []  # that of this program: one or none


def start() -> None:
    """Start this program's spare process, unless it has one, or no core to spare."""
    if not _spare and cores() > 1:
        with contextlib.suppress(OSError):  # no memory, no such program: this one draws
            _spare.append(Drawer())


def started() -> list[Drawer]:
    """Return this program's spare process, if it has one."""
    return [*_spare]


def end() -> None:
    """End this program's spare process, if it has one."""
    while _spare:
        _spare.pop().end()


def draw_beside(kind: Kind, folder: Path, meanwhile: Callable[[], object] = lambda: None) -> None:
    """Draw the plots of a folder in the spare process, and do something else here meanwhile.

    Where there is no such process, or it has died, they are drawn in this one.
    """
    drawer = _spare[0] if _spare else None
    if drawer is not None:
        drawer.ask(kind, folder, twofold=True)
    try:
        meanwhile()
    finally:  # the next answer is to be that of the next question
        is_drawn = drawer is not None and drawer.is_drawn()
    if not is_drawn:
        draw(kind, folder)

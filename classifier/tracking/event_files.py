"""tracker=tensorboard: an event file in the folder of each run, from what the run left there."""

import contextlib
import os
import shutil
import struct
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.summary import hparams, text

from classifier.sweep.folders import Record, settings
from classifier.tracking import figures

TEXTS = (".txt", ".yaml", ".csv", ".log")


class Events(figures.Listener):
    """An event file in a folder of its own, in place of what stood there."""

    def __init__(self, place: Path) -> None:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        # SummaryWriter leaves the writing to a thread, and waits for ever if a full disk ends that.
        self._file = EventsWriter(os.fspath(place / "events"))

    def write(self, scalars: Sequence[figures.Scalar]) -> None:
        """Add figures."""
        for name, value, epoch, time in scalars:
            self.add(Summary(value=[Summary.Value(tag=name, simple_value=value)]), time, epoch)
        self._file.flush()

    def add(self, summary: Summary, time: float, step: int = 0) -> None:
        """Add anything else, with its time in seconds since 1970."""
        self._file.write_event(Event(wall_time=time, step=step, summary=summary))

    def add_files(self, folder: Path) -> None:
        """Add the plots of a run or a sweep as they are, and its texts."""
        for path in figures.artifacts(folder):
            name, made = path.relative_to(folder).as_posix(), path.stat().st_mtime
            if path.suffix == ".png":
                png = path.read_bytes()
                width, height = struct.unpack(">II", png[16:24])  # of the header, in every PNG
                image = Summary.Image(width=width, height=height, encoded_image_string=png)
                self.add(Summary(value=[Summary.Value(tag=name, image=image)]), made)
            elif path.suffix in TEXTS:
                lines = path.read_text(encoding="utf-8", errors="replace")
                # As code, or it would be taken for Markdown.
                self.add(text(name, textwrap.indent(lines, "    ", lambda _: True)), made)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def begin(record: Record) -> Events:
    """Return the file of a run that goes on: it grows."""
    return Events(record.folder / "tensorboard")


def put(records: Sequence[Record], sweep: Path | None, live: Events | None = None) -> None:
    """Write `tensorboard/` into the folder of each run, and of their sweep.

    What was written live of a run on its own is completed.
    """
    for record in records:
        keys = {
            key: value if isinstance(value, int | float) else figures.as_text(value)
            for key, value in settings(record.config).items()
        }
        labels = {"status": f"{record.status}: {record.reason}"} | figures.label_texts(record)
        # Without its `experiment`, TensorBoard finds the columns of the table in the runs.
        _, begun, *completed = hparams(keys, {})
        ends = completed if record.status == "completed" else []
        with _whole(record.folder) if live is None else contextlib.closing(live) as events:
            events.tell(figures.scalars(record))
            for summary in (begun, *(text(key, value) for key, value in labels.items()), *ends):
                events.add(summary, figures.span(record.folder)[1])
            events.add_files(record.folder)
    if sweep is not None:
        with _whole(sweep) as events:
            events.add_files(sweep)


@contextlib.contextmanager
def _whole(folder: Path) -> Iterator[Events]:
    """Yield what becomes folder/tensorboard, whole or not at all, in place of what stands there."""
    beside, place = folder / ".tensorboard", folder / "tensorboard"
    try:
        with contextlib.closing(Events(beside)) as events:
            yield events
        shutil.rmtree(place, ignore_errors=True)
        beside.rename(place)
    finally:
        shutil.rmtree(beside, ignore_errors=True)

"""tracker=tensorboard: an event file in the folder of each run, from what the run left there."""

import contextlib
import os
import shutil
import struct
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.summary import hparams, text

from classifier.sweep.records import Record
from classifier.tracking.figures import artifacts, as_text, params, scalars, span

TEXTS = (".txt", ".yaml", ".csv", ".log")


def write_events(records: Sequence[Record], sweep: Path | None) -> None:
    """Write `tensorboard/` into the folder of each run, and of their sweep."""
    for record in records:
        _write(record.folder, chain(_events(record), _files(record.folder)))
    if sweep is not None:
        _write(sweep, _files(sweep))


def _write(folder: Path, events: Iterable[Event]) -> None:
    """Put events into folder/tensorboard, whole or not at all, in place of what stands there."""
    beside, place = folder / ".tensorboard", folder / "tensorboard"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        # SummaryWriter leaves the writing to a thread, and waits for ever if a full disk ends that.
        with contextlib.closing(EventsWriter(os.fspath(beside / "events"))) as file:
            for event in events:
                file.write_event(event)
        shutil.rmtree(place, ignore_errors=True)
        beside.rename(place)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _events(record: Record) -> Iterator[Event]:
    for name, value, epoch, time in scalars(record):
        shown = Summary(value=[Summary.Value(tag=name, simple_value=value)])
        yield Event(wall_time=time, step=epoch, summary=shown)
    keys = {
        key: value if isinstance(value, int | float) else as_text(value)
        for key, value in params(record).items()
    }
    # Without its `experiment`, TensorBoard finds the columns of the table in the runs themselves.
    _, begun, completed = hparams(keys, {})
    shown = [begun, text("status", f"{record.status}: {record.reason}")]
    shown += [completed] if record.status == "completed" else []
    _, end = span(record.folder)
    yield from (Event(wall_time=end, summary=summary) for summary in shown)


def _files(folder: Path) -> Iterator[Event]:
    """Yield the plots of a run or a sweep as they are, and its texts."""
    for path in artifacts(folder):
        name, time = path.relative_to(folder).as_posix(), path.stat().st_mtime
        if path.suffix == ".png":
            yield Event(wall_time=time, summary=_picture(name, path.read_bytes()))
        elif path.suffix in TEXTS:
            # As code, or it would be taken for Markdown.
            code = textwrap.indent(
                path.read_text(encoding="utf-8", errors="replace"), "    ", lambda _: True
            )
            yield Event(wall_time=time, summary=text(name, code))


def _picture(name: str, png: bytes) -> Summary:
    width, height = struct.unpack(">II", png[16:24])  # of the header, which every PNG begins with
    image = Summary.Image(width=width, height=height, encoded_image_string=png)
    return Summary(value=[Summary.Value(tag=name, image=image)])

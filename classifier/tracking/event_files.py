"""tracker=tensorboard: an event file in the folder of each run, from what the run left there."""

import contextlib
import os
import shutil
import struct
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.summary import hparams, text

from classifier.sweep.folders import Record, settings
from classifier.tracking.figures import (
    Scalar,
    artifacts,
    as_text,
    label_texts,
    scalars,
    scalars_after,
    span,
)

TEXTS = (".txt", ".yaml", ".csv", ".log")


def write_events(
    records: Sequence[Record], sweep: Path | None, live: "LiveEvents | None" = None
) -> None:
    """Write `tensorboard/` into the folder of each run, and of their sweep.

    What was written live of a run on its own is completed.
    """
    if live is not None:
        (record,) = records
        live.complete(record)
        return
    for record in records:
        _write(record.folder, _everything(record, scalars(record)))
    if sweep is not None:
        _write(sweep, _files(sweep))


class LiveEvents:
    """`tensorboard/` of a run that goes on: a file that grows, in place of what stood there.

    Attributes
    ----------
    last_epoch : the last whose figures it has.
    """

    def __init__(self, folder: Path) -> None:
        place = folder / "tensorboard"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        self._file = EventsWriter(os.fspath(place / "events"))
        self.last_epoch = 0

    def tell(self, scalars: Sequence[Scalar]) -> None:
        """Add figures."""
        for scalar in scalars:
            self._file.write_event(_event(scalar))
        self._file.flush()
        self.last_epoch = scalars[-1].epoch

    def complete(self, record: Record) -> None:
        """Add what is known of the run now that it has ended."""
        with contextlib.closing(self._file) as file:
            for event in _everything(record, scalars_after(record, self.last_epoch)):
                file.write_event(event)


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


def _event(scalar: Scalar) -> Event:
    shown = Summary(value=[Summary.Value(tag=scalar.name, simple_value=scalar.value)])
    return Event(wall_time=scalar.time, step=scalar.epoch, summary=shown)


def _everything(record: Record, figures: Iterable[Scalar]) -> Iterator[Event]:
    """Yield figures of a run, and all else that is known of it."""
    yield from map(_event, figures)
    keys = {
        key: value if isinstance(value, int | float) else as_text(value)
        for key, value in settings(record.config).items()
    }
    # Without its `experiment`, TensorBoard finds the columns of the table in the runs themselves.
    _, begun, completed = hparams(keys, {})
    shown = [begun, text("status", f"{record.status}: {record.reason}")]
    shown += [text(key, value) for key, value in label_texts(record).items()]
    shown += [completed] if record.status == "completed" else []
    _, end = span(record.folder)
    yield from (Event(wall_time=end, summary=summary) for summary in shown)
    yield from _files(record.folder)


def _files(folder: Path) -> Iterator[Event]:
    """Yield the plots of a run or a sweep as they are, and its texts."""
    for path in artifacts(folder):
        name, made = path.relative_to(folder).as_posix(), path.stat().st_mtime
        if path.suffix == ".png":
            yield Event(wall_time=made, summary=_picture(name, path.read_bytes()))
        elif path.suffix in TEXTS:
            # As code, or it would be taken for Markdown.
            code = textwrap.indent(
                path.read_text(encoding="utf-8", errors="replace"), "    ", lambda _: True
            )
            yield Event(wall_time=made, summary=text(name, code))


def _picture(name: str, png: bytes) -> Summary:
    width, height = struct.unpack(">II", png[16:24])  # of the header, which every PNG begins with
    image = Summary.Image(width=width, height=height, encoded_image_string=png)
    return Summary(value=[Summary.Value(tag=name, image=image)])

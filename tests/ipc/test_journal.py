"""The journal: numbers without a gap, torn lines, resumed writers, a full disk, and speed."""

from __future__ import annotations

import errno
import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.ipc import events, journal
from trainer.ipc.journal import Journal, Record, Rows
from trainer.messages import say

EVENTS: list[events.Event] = [
    events.Hello(1, 42, 12.5, 0, 100, 10, 10, "cpu", (say("Now {n} epochs.", n=10),)),
    events.Stage("caching", 3, 18),
    events.Plan(100, 10, 10, 18, 0, 1, 1, ("unet", "text_encoder")),
    events.Step(1, 1, 0.125, (1e-4, 5e-5), 0.5, 1 << 30),
    events.Sample(10, 0, "a photo of 猫", 7, "samples/a.png"),
    events.Saved("checkpoint", 10, 1, "checkpoints/a.safetensors", 9),
    events.Warning_(say("{n} pictures", n=3), say("Look at them.")),
    events.Failed(say("No."), None, 1, "Traceback …"),
    events.Paused(True, 4),
    events.Done(100, "finished", "checkpoints/a.safetensors", 60.0),
]


def contents(path: Path, offset: int = 0) -> list[Any]:
    """All events of a journal, rows one by one."""
    found: list[Any] = []
    for part in journal.read(path, offset):
        content = part.content
        found += [journal.step_of(row) for row in content.rows] if isinstance(content, Rows) else [content.event]
    return found


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.kind)
def test_every_event_survives_a_line(event: events.Event) -> None:
    content = journal.decode(journal.encode(Record(7, 1000.0, event)))
    if isinstance(content, Rows):
        assert journal.step_of(content.rows[0]) == event and content.last_number == 7
    else:
        assert content == Record(7, 1000.0, event)


@given(st.floats(allow_nan=True, allow_infinity=True, width=32))
def test_any_loss_makes_a_line_of_strict_json(loss: float) -> None:
    line = journal.encode(Record(1, 0.0, events.Step(1, 1, loss, (1e-4,), 0.5)))
    row = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    back = journal.step_of(row).loss
    assert math.isnan(back) if not math.isfinite(loss) else back == pytest.approx(loss, rel=1e-6)


def test_numbers_count_without_a_gap_and_the_next_writer_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for _ in range(2):
        writer = Journal(path)
        for event in EVENTS:
            writer.append(event)
        writer.close()
    assert [number for number, _ in journal.raw_lines(path, 0)] == list(range(1, 2 * len(EVENTS) + 1))
    assert contents(path) == EVENTS * 2


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_torn_last_line_is_left_out_and_cut_off_by_the_next_writer(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "events.jsonl"
    writer = Journal(path)
    for event in EVENTS:
        writer.append(event)
    writer.close()
    path.write_bytes(path.read_bytes()[:-cut])
    assert contents(path) == EVENTS[:-1]
    writer = Journal(path)
    assert writer.append(EVENTS[-1]).number == len(EVENTS)
    writer.close()
    assert contents(path) == EVENTS


def test_a_broken_line_inside_and_events_of_a_newer_version_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    row = journal.encode(Record(1, 0.0, EVENTS[3]))
    lines = [row, b"\0\0\0", b"[1,2]", b'["a",1,1,1,1,1,1]', b'{"number":3,"event":"dance"}', b'{"event":"stage"}', row]
    lines.insert(1, b'{"number":2,"event":"warning","what":"no message"}')
    path.write_bytes(b"\n".join(lines) + b"\n")
    assert contents(path) == [EVENTS[3], EVENTS[3]]


def test_reading_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    writer = Journal(path)
    offset = 0
    for event in EVENTS * 3:
        writer.append(event)
        parts = list(journal.read(path, offset))
        assert len(parts) == 1
        offset = parts[0].offset
    writer.close()
    assert offset == path.stat().st_size


def test_a_missing_journal_is_empty(tmp_path: Path) -> None:
    assert contents(tmp_path / "events.jsonl") == []


class FullDisk:
    """A file that takes a few bytes, then none until there is room again."""

    def __init__(self, real: Any) -> None:
        self.real, self.room = real, 10

    def write(self, data: bytes) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, "full")
        taken = self.real.write(bytes(data[: self.room]))
        self.room -= taken
        return taken

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


def test_a_full_disk_loses_no_line_and_ends_no_run(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    writer = Journal(path)
    disk = FullDisk(writer._file)
    writer._file = disk  # type: ignore[assignment]
    for event in EVENTS[:5]:
        writer.append(event)
    assert contents(path) == []
    disk.room = 1 << 20
    for event in EVENTS[5:]:
        writer.append(event)
    writer.close()
    assert contents(path) == EVENTS


def test_100_000_steps_are_written_compactly_and_read_quickly_in_short_pieces(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    step = events.Step(1, 1, 0.1234567, (1e-4, 5e-5), 0.4321, 3_000_000_000)
    path.write_bytes(b"".join(journal.encode(Record(n, 1.7e9 + n, step)) + b"\n" for n in range(1, 100_001)))
    assert path.stat().st_size < 15_000_000
    began = time.thread_time()  # of the processor: other programs do not count
    parts = list(journal.read(path))
    seconds = time.thread_time() - began
    assert sum(len(part.content.rows) for part in parts if isinstance(part.content, Rows)) == 100_000
    assert max(len(part.content.rows) for part in parts if isinstance(part.content, Rows)) <= journal.LINES_AT_ONCE
    assert seconds < 1.0, f"{seconds:.2f} s"

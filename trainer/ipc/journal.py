"""The journal of a run, `events.jsonl`: append-only, one event a line, flushed; written by the worker, read by anyone.

A step is a compact row `[number, time, step, epoch, loss, seconds, memory, rate, …]`, anything else an object with its
`number`, `time` and `event`. Numbers count from 1 without a gap. A torn last line (power cut, full disk) is no harm:
readers leave it out, and the next writer cuts it off.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.ipc.events import Event, Step, from_json, to_json

ROW_COLUMNS = ("number", "time", "step", "epoch", "loss", "seconds", "memory")  # then the learning rates
Row = list[float | None]  # None stands for a number that is not finite

LINES_AT_ONCE = 250  # parsed by one call, which holds the interpreter for about a millisecond
_BLOCK = 1 << 18


@dataclass(frozen=True)
class Record:
    """An event with its place in the journal: `number` from 1, `time` in seconds since 1970."""

    number: int
    time: float
    event: Event


@dataclass(frozen=True)
class Rows:
    """Step rows that follow each other in the journal, as `ROW_COLUMNS` and the rates say."""

    rows: list[Row]

    @property
    def last_number(self) -> int:
        return int(self.rows[-1][0] or 0)


@dataclass(frozen=True)
class Part:
    """A piece of the journal: rows or one record, and the byte position behind it."""

    content: Rows | Record
    offset: int


def encode(record: Record) -> bytes:
    """A record as one line of JSON, without the line end."""
    if isinstance(record.event, Step):
        data: Any = step_row(record)
    else:
        data = {"number": record.number, "time": round(record.time, 3)} | to_json(record.event)
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=str).encode()


def step_row(record: Record) -> Row:
    """The compact row of a step record; numbers keep 7 digits, as many as float32 has."""
    event = record.event
    assert isinstance(event, Step)
    head: Row = [record.number, round(record.time, 3), event.step, event.epoch, _short(event.loss)]
    return [*head, _short(event.seconds), event.memory, *(_short(rate) for rate in event.rates)]


def decode(line: bytes) -> Rows | Record:
    """One line of the journal.

    Raises:
        ValueError: if the line is torn, or an event that this version does not know.
    """
    data = json.loads(line)
    if isinstance(data, list):
        return Rows([_checked_row(data)])
    if not isinstance(data, dict) or "number" not in data:
        raise ValueError("neither a step row nor an event")
    return Record(int(data["number"]), float(data.get("time", 0.0)), from_json(data))


def step_of(row: Row) -> Step:
    """A step row as an event again."""
    _, _, step, epoch, loss, seconds, memory, *rates = (math.nan if value is None else value for value in row)
    return Step(int(step), int(epoch), loss, tuple(rates), seconds, int(memory))


class Journal:
    """The writer. Any thread may append; each line is handed to the system before `append` returns.

    While the disk is full the lines wait in memory, and go out in their order as soon as there is room again: a run does
    not end because its curve can not be written just now.
    """

    def __init__(self, path: Path) -> None:
        """Open the journal for appending: a torn last line is cut off, numbers go on from the last one.

        Raises:
            OSError: if it can not be opened.
        """
        self.path = path
        self._lock = threading.Lock()
        self.number = _repair(path)
        self._file = path.open("ab", buffering=0)
        self._waiting = bytearray()

    def append(self, event: Event) -> Record:
        """Write an event with the next number."""
        with self._lock:
            self.number += 1
            record = Record(self.number, time.time(), event)
            self._waiting += encode(record) + b"\n"
            self._write()
            return record

    def sync(self) -> None:
        """Make everything written so far survive a power cut (called when a file was saved, not at each step)."""
        with self._lock, contextlib.suppress(OSError):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Write what still waits, if that is possible, and close the file."""
        with self._lock:
            self._write()
            self._file.close()

    def _write(self) -> None:
        with contextlib.suppress(OSError):
            while self._waiting:
                del self._waiting[: self._file.write(self._waiting) or 0]


def read(path: Path, offset: int = 0) -> Iterator[Part]:
    """The journal from byte `offset` to its last whole line, in its order.

    Rows that follow each other come together, at most `LINES_AT_ONCE`. Lines that can not be read (torn, or of a newer
    version) are left out. A file that does not exist yet is empty.
    """
    pending: list[bytes] = []
    for line, end in _lines(path, offset):
        if line.startswith(b"["):
            pending.append(line)
            if len(pending) < LINES_AT_ONCE:
                offset = end
                continue
        if pending:
            yield from _parsed_rows(pending, end if line.startswith(b"[") else offset)
            pending = []
        offset = end
        if not line.startswith(b"["):
            yield from _parsed_event(line, end)
    if pending:
        yield from _parsed_rows(pending, offset)


def raw_lines(path: Path, since: int) -> Iterator[tuple[int, bytes]]:
    """Each whole line with a number greater than `since`, and its number (the pipe sends lines as they are)."""
    for line, _ in _lines(path, 0):
        number = _number_of(line)
        if number > since:
            yield number, line


def _short(value: float) -> float | None:
    return float(f"{value:.7g}") if math.isfinite(value) else None


def _lines(path: Path, offset: int) -> Iterator[tuple[bytes, int]]:
    """Whole lines without their ends, and the position behind each; the file is read block by block."""
    try:
        handle = path.open("rb")
    except FileNotFoundError:
        return
    with handle:
        handle.seek(offset)
        rest = b""
        while block := handle.read(_BLOCK):
            *whole, rest = (rest + block).split(b"\n")
            for line in whole:
                offset += len(line) + 1
                yield line, offset


def _parsed_rows(lines: Sequence[bytes], offset: int) -> Iterator[Part]:
    try:
        rows = json.loads(b"[" + b",".join(lines) + b"]")
        if min(map(len, rows)) >= len(ROW_COLUMNS):
            yield Part(Rows(rows), offset)
            return
    except ValueError:
        pass  # one of them is torn: look at each
    good = [row for line in lines if (row := _row_or_none(line)) is not None]
    if good:
        yield Part(Rows(good), offset)


def _row_or_none(line: bytes) -> Row | None:
    try:
        return _checked_row(json.loads(line))
    except ValueError:
        return None


def _checked_row(row: Any) -> Row:
    numbers = isinstance(row, list) and all(value is None or isinstance(value, int | float) for value in row)
    if not numbers or len(row) < len(ROW_COLUMNS):
        raise ValueError("not a step row")
    return row


def _parsed_event(line: bytes, offset: int) -> Iterator[Part]:
    try:
        content = decode(line)
    except (ValueError, KeyError, TypeError):
        return
    yield Part(content, offset)


def _number_of(line: bytes) -> int:
    """The number at the start of a line, 0 if there is none."""
    digits = line.removeprefix(b'{"number":').removeprefix(b"[").partition(b",")[0]
    return int(digits) if digits.isdigit() else 0


def _repair(path: Path) -> int:
    """Cut a torn last line off; return the number of the last event (0 in an empty or missing file)."""
    if not path.exists():
        return 0
    last = 0
    end = 0
    for line, position in _lines(path, 0):
        last = max(last, _number_of(line))
        end = position
    if path.stat().st_size > end:
        with path.open("rb+") as handle:
            handle.truncate(end)
    return last

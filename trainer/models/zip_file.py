"""The directory of a zip file: names, sizes and places of its records, nothing unpacked. Limits before memory.

Python's own reader would make an object of every record of a hostile directory before it could be asked how many there
are, and trusts records that lie over each other.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO

from trainer.messages import say
from trainer.models.opening import NotWeights, shown
from trainer.models.safetensors_file import MAX_TENSORS

MAX_RECORDS = MAX_TENSORS + 64
MAX_DIRECTORY_BYTES = 16 * 1024 * 1024
_END, _END64, _LOCATOR = struct.Struct("<4s4H2IH"), struct.Struct("<4sQ2H2I4Q"), struct.Struct("<4sIQI")
_RECORD, _LOCAL = struct.Struct("<4s6H3I5H2I"), struct.Struct("<4s5H3I2H")
STORED, DEFLATED = 0, 8
_MAX_EXTRAS = 8  # fields beside an entry; that of its 64-bit numbers comes first


class BadZip(NotWeights):
    """A zip file that is damaged, hostile, or cut short."""


@dataclass(frozen=True, slots=True)
class Record:
    """A file in the zip: where its local header begins, how many bytes it takes there and unpacked, how it is packed."""

    name: str
    offset: int
    packed_bytes: int
    num_bytes: int
    method: int
    limit: int  # the first byte after it that belongs to something else


def read_directory(handle: BinaryIO) -> dict[str, Record]:
    """The records of a zip file by name. Raises OSError and BadZip."""
    file_bytes = handle.seek(0, 2)
    start, size, count = _find_directory(handle, file_bytes)
    if count > MAX_RECORDS or size > MAX_DIRECTORY_BYTES:
        raise BadZip(say("its directory has {count} entries, more than any model's", count=count))
    if start < 0 or start + size > file_bytes or size < count * _RECORD.size:
        raise BadZip(say("its directory lies outside of it"))
    handle.seek(start)
    data = handle.read(size)
    if len(data) < size:
        raise BadZip(say("it became shorter while it was read"), cut_short=True)
    return _with_limits(_parse(data, count), start)


def _find_directory(handle: BinaryIO, file_bytes: int) -> tuple[int, int, int]:
    """Start, size and count of the directory, from the end record and its 64-bit form."""
    tail_start = max(0, file_bytes - _END.size - 0xFFFF)
    handle.seek(tail_start)
    tail = handle.read(file_bytes - tail_start)
    place = tail.rfind(b"PK\x05\x06")
    if place < 0 or len(tail) - place < _END.size:
        raise BadZip(say("its directory at the end is missing"), cut_short=True)
    _, disk, _, _, count, size, start, _ = _END.unpack_from(tail, place)
    if disk not in (0, 0xFFFF):
        raise BadZip(say("it is one part of a zip in several files"))
    if place >= _LOCATOR.size and tail[place - _LOCATOR.size :].startswith(b"PK\x06\x07"):
        _, _, place64, _ = _LOCATOR.unpack_from(tail, place - _LOCATOR.size)
        if place64 + _END64.size > file_bytes:
            raise BadZip(say("its directory lies outside of it"))
        handle.seek(place64)
        values = handle.read(_END64.size)
        if len(values) < _END64.size or not values.startswith(b"PK\x06\x06"):
            raise BadZip(say("its directory is damaged"))
        *_, count, size, start = _END64.unpack(values)
    return start, size, count


def _parse(data: bytes, count: int) -> list[Record]:
    records: list[Record] = []
    names: set[str] = set()
    place = 0
    for _ in range(count):
        if len(data) - place < _RECORD.size:
            raise BadZip(say("its directory is damaged"))
        sign, _, _, flags, method, _, _, _, packed, size, name_bytes, extra_bytes, comment_bytes, _, _, _, offset = (
            _RECORD.unpack_from(data, place)
        )
        place += _RECORD.size
        raw, extra = data[place : place + name_bytes], data[place + name_bytes : place + name_bytes + extra_bytes]
        place += name_bytes + extra_bytes + comment_bytes
        if sign != b"PK\x01\x02" or place > len(data):
            raise BadZip(say("its directory is damaged"))
        name = raw.decode("utf-8", "replace")
        if flags & 1:
            raise BadZip(say("it is encrypted"))
        if name in names:
            raise BadZip(say("its directory has {name} twice", name=shown(name)))
        names.add(name)
        size, packed, offset = _long_numbers(extra, size, packed, offset)
        records.append(Record(name, offset, packed, size, method, 0))
    return records


def _long_numbers(extra: bytes, size: int, packed: int, offset: int) -> tuple[int, int, int]:
    """The 64-bit values of the entries whose 32-bit fields are full."""
    place = 0
    for _ in range(_MAX_EXTRAS):
        if place + 4 > len(extra):
            break
        kind, length = struct.unpack_from("<HH", extra, place)
        if kind == 1:
            values = iter(struct.unpack_from(f"<{min(length, len(extra) - place - 4) // 8}Q", extra, place + 4))
            numbers = [next(values, -1) if number == 0xFFFFFFFF else number for number in (size, packed, offset)]
            if min(numbers) < 0:
                raise BadZip(say("its directory is damaged"))
            return numbers[0], numbers[1], numbers[2]
        place += 4 + length
    return size, packed, offset


def _with_limits(records: list[Record], end: int) -> dict[str, Record]:
    """The records, each with where the next thing begins; none may reach into another or into the directory."""
    found: dict[str, Record] = {}
    limit = end
    for record in sorted(records, key=lambda record: record.offset, reverse=True):
        if record.offset + _LOCAL.size + record.packed_bytes > limit:
            raise BadZip(say("its entry {name} lies over another", name=shown(record.name)))
        if record.method == STORED and record.packed_bytes != record.num_bytes:
            raise BadZip(say("its entry {name} has two sizes", name=shown(record.name)))
        found[record.name] = Record(
            record.name, record.offset, record.packed_bytes, record.num_bytes, record.method, limit
        )
        limit = record.offset
    return found


def data_start(handle: BinaryIO, record: Record) -> int:
    """Where the bytes of a record begin: after its local header, which is read for it. Raises OSError and BadZip."""
    handle.seek(record.offset)
    head = handle.read(_LOCAL.size)
    if len(head) < _LOCAL.size or not head.startswith(b"PK\x03\x04"):
        raise BadZip(say("its entry {name} is not where the directory says", name=shown(record.name)))
    *_, name_bytes, extra_bytes = _LOCAL.unpack(head)
    start: int = record.offset + _LOCAL.size + name_bytes + extra_bytes
    if start + record.packed_bytes > record.limit:
        raise BadZip(say("its entry {name} lies over another", name=shown(record.name)))
    return start


def read_record(handle: BinaryIO, record: Record, limit: int) -> bytes:
    """The unpacked bytes of a small record. Raises OSError, and BadZip where they would be more than `limit`."""
    if record.num_bytes > limit or record.packed_bytes > limit:
        raise BadZip(say("its entry {name} is larger than that of any model", name=shown(record.name)))
    handle.seek(data_start(handle, record))
    data = handle.read(record.packed_bytes)
    if record.method == STORED:
        whole = data
    elif record.method == DEFLATED:
        try:
            whole = zlib.decompressobj(-15).decompress(data, limit + 1)
        except zlib.error as error:
            raise BadZip(say("its entry {name} is damaged", name=shown(record.name))) from error
    else:
        raise BadZip(say("its entry {name} is packed in a way that Athanor does not know", name=shown(record.name)))
    if len(whole) != record.num_bytes:
        raise BadZip(say("its entry {name} is damaged", name=shown(record.name)))
    return whole

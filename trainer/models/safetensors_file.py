"""The safetensors format: its header without torch, its tensors one by one straight into their final memory.

A memory-mapped file counts as resident memory page by page while it is read; this reader uses plain reads instead, so
loading never needs more than the weights in their final dtype and one tensor of the file.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

from trainer.messages import say
from trainer.models import foreign_json
from trainer.models.opening import NotWeights, open_plain, shown

MAX_HEADER_BYTES = 16 * 1024 * 1024  # real ones are under 1 MB, with embedded thumbnails a few MB
MAX_TENSORS = 1 << 14  # SDXL with averaged weights beside its own has about 5,000
MAX_NAME = 1024  # letters of a tensor's
MAX_DIMENSIONS = 64  # torch's own limit
ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1, "C64": 8,
}  # fmt: skip
FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})
Container = Literal["safetensors", "torch_zip", "torch_pickle", "torch_tar"]

_ESCAPED_HALF, _HALF = re.compile(rb"\\u[dD][89a-fA-F]"), re.compile("[\ud800-\udfff]")  # of a surrogate: no character


class NotSafetensors(NotWeights):
    """The bytes are not a whole safetensors file: `why`. `cut_short` if it is only its end that is missing."""


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies in its file, whatever the container.

    Attributes:
        dtype: as the safetensors format names it ("F16").
        shape: its sizes.
        start: its first byte in the file; -1 where places were not looked up.
        num_bytes: its bytes there, from the first element to the last.
        strides: steps between elements in each dimension, None where they follow each other in the usual order.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    num_bytes: int
    strides: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Header:
    """All that a file of weights says beside its numbers.

    Attributes:
        tensors: by name, in the file's order.
        metadata: the strings of a safetensors header; empty for other containers.
        data_start: where its tensors begin (safetensors), 0 for other containers.
        file_bytes: its size.
        container: the format.
        tree: what a pickle holds beside tensors (global_step, a hypernetwork's activation, …), as plain JSON values.
    """

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    data_start: int
    file_bytes: int
    container: Container = "safetensors"
    tree: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: info.shape for name, info in self.tensors.items()}


def read_header(path: Path) -> Header:
    """Read the header of a safetensors file.

    Raises:
        OSError: the file cannot be read.
        NotSafetensors: it is something else, damaged, or cut short (`cut_short`); the sentence names the file.
        NotWeights: it is no ordinary file.
    """
    with open_plain(path) as handle:
        try:
            return read_header_from(handle)
        except NotSafetensors as error:
            raise error.of(path) from error


def read_header_from(handle: BinaryIO) -> Header:
    """The same from an open file. Raises OSError and NotSafetensors."""
    file_bytes = handle.seek(0, 2)
    handle.seek(0)
    head = handle.read(8)
    if len(head) < 8:
        raise NotSafetensors(say("shorter than the 8 bytes that every header begins with"), cut_short=True)
    (num_bytes,) = struct.unpack("<Q", head)
    if num_bytes < 2 or num_bytes > MAX_HEADER_BYTES or handle.read(1) != b"{":
        raise NotSafetensors(say("no header at its beginning"))
    if 8 + num_bytes > file_bytes:
        raise NotSafetensors(say("ends within its header"), cut_short=True)
    text = b"{" + handle.read(num_bytes - 1)
    if len(text) < num_bytes:
        raise NotSafetensors(say("it became shorter while it was read"), cut_short=True)
    return _parse(text, 8 + num_bytes, file_bytes)


def _parse(text: bytes, data_start: int, file_bytes: int) -> Header:
    data = _json(text)
    metadata = _metadata(data.pop("__metadata__", None) or {})
    if len(data) > MAX_TENSORS:
        raise NotSafetensors(say("it announces {count} tensors, more than any model has", count=len(data)))
    tensors = {name: _tensor_info(name, entry, data_start) for name, entry in data.items()}
    if _ESCAPED_HALF.search(text):
        dtypes = (info.dtype for info in tensors.values())
        if any(_HALF.search(word) for word in (*tensors, *dtypes, *metadata, *metadata.values())):
            raise NotSafetensors(say("its header is not JSON"))
    _check_places(tensors, data_start, file_bytes)
    return Header(tensors, metadata, data_start, file_bytes)


def _json(text: bytes) -> dict[str, Any]:
    """The header's table. Refused: what would need much more memory than its bytes, double keys, what JSON has not."""
    try:
        data = foreign_json.parse(text, object_pairs_hook=_table, parse_constant=_no_constant)
    except NotSafetensors:
        raise
    except foreign_json.TooManyEntries as error:
        raise NotSafetensors(say("its header has more entries than any model")) from error
    except ValueError as error:
        raise NotSafetensors(say("its header is not JSON")) from error
    if not isinstance(data, dict):
        raise NotSafetensors(say("its header is not a table"))
    return data


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise NotSafetensors(say("its header has {name} twice", name=shown(twice)))
    return table


def _no_constant(word: str) -> Any:
    raise ValueError(word)


def _metadata(table: Any) -> dict[str, str]:
    """The metadata as the strings that the format asks for; some writers put numbers and tables there."""
    if not isinstance(table, dict):
        raise NotSafetensors(say("its metadata is not a table"))
    try:
        return {
            name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for name, value in table.items()
        }
    except RecursionError as error:
        raise NotSafetensors(say("its header is not JSON")) from error


def _tensor_info(name: str, entry: Any, data_start: int) -> TensorInfo:
    if len(name) > MAX_NAME:
        raise NotSafetensors(say("it has a tensor of an impossible name ({name})", name=shown(name)))
    try:
        dtype, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (TypeError, KeyError, ValueError) as error:
        raise NotSafetensors(say("its header describes {name} in no way known", name=shown(name))) from error
    numbers = (*shape, start, end)
    if not isinstance(dtype, str) or any(type(number) is not int for number in numbers) or len(shape) > MAX_DIMENSIONS:
        raise NotSafetensors(say("its header describes {name} in no way known", name=shown(name)))
    if end < start or min(numbers) < 0 or max(numbers) >= 1 << 62:
        raise NotSafetensors(say("its header gives {name} an impossible place", name=shown(name)))
    if dtype in ITEM_BYTES and math.prod(shape) * ITEM_BYTES[dtype] != end - start:
        raise NotSafetensors(say("its header gives {name} a size that does not fit its shape", name=shown(name)))
    return TensorInfo(dtype, shape, data_start + start, end - start)


def _check_places(tensors: Mapping[str, TensorInfo], data_start: int, file_bytes: int) -> None:
    """Tensors fill the file from the header to its end, none over another: what the format asks for."""
    reached = data_start
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].num_bytes)):
        if info.start < reached:
            raise NotSafetensors(say("its header puts {name} over another tensor", name=shown(name)))
        if info.start > reached:
            raise NotSafetensors(say("its header leaves a hole before {name}", name=shown(name)))
        reached += info.num_bytes
    if reached > file_bytes:
        raise NotSafetensors(say("{count} bytes are missing at its end", count=reached - file_bytes), cut_short=True)
    if reached < file_bytes:
        raise NotSafetensors(say("{count} bytes too many at its end", count=file_bytes - reached))


def header_bytes(tensors: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str]) -> bytes:
    """The length word and the JSON of a header for tensors that follow each other in the order given."""
    table: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name, (dtype, shape) in tensors.items():
        end = offset + math.prod(shape) * ITEM_BYTES[dtype]
        table[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    return _packed(table)


def copied_header(header: Header, metadata: Mapping[str, str]) -> bytes:
    """The length word and the JSON of a file's header with other metadata, for its tensors' bytes as they are."""
    table: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    for name, info in header.tensors.items():
        start = info.start - header.data_start
        table[name] = {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": [start, start + info.num_bytes]}
    return _packed(table)


def _packed(table: Mapping[str, Any]) -> bytes:
    text = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def plain_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The steps between elements of a tensor whose elements follow each other in the usual order."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))

"""The safetensors format: its header without torch, its tensors one by one straight into their final memory.

A memory-mapped file counts as resident memory page by page while it is read; this reader uses plain reads instead, so
loading never needs more than the weights in their final dtype and one tensor of the file.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.messages import Message, say

MAX_HEADER_BYTES = 32 * 1024 * 1024  # real ones are under 1 MB, with embedded thumbnails a few MB
ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip


class NotSafetensors(ValueError):
    """The bytes are not a whole safetensors file: `why`. `cut_short` if it is only its end that is missing."""

    def __init__(self, why: Message, cut_short: bool = False) -> None:
        super().__init__(str(why))
        self.why = why
        self.cut_short = cut_short


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies: its dtype as the format names it ("F16"), its shape, and its bytes in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    num_bytes: int


@dataclass(frozen=True)
class Header:
    """All that a safetensors file says before its first tensor."""

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    data_start: int
    file_bytes: int

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: info.shape for name, info in self.tensors.items()}


def read_header(path: Path) -> Header:
    """Read the header of a safetensors file.

    Raises:
        OSError: the file cannot be read.
        NotSafetensors: it is something else, damaged, or cut short (`cut_short`).
    """
    with path.open("rb") as handle:
        file_bytes = handle.seek(0, 2)
        handle.seek(0)
        head = handle.read(8)
        if len(head) < 8:
            raise NotSafetensors(say("shorter than the 8 bytes that every header begins with"), cut_short=True)
        (header_bytes,) = struct.unpack("<Q", head)
        if header_bytes < 2 or header_bytes > MAX_HEADER_BYTES or handle.read(1) != b"{":
            raise NotSafetensors(say("no header at its beginning"))
        if 8 + header_bytes > file_bytes:
            raise NotSafetensors(say("ends within its header"), cut_short=True)
        text = b"{" + handle.read(header_bytes - 1)
    return _parse(text, 8 + header_bytes, file_bytes)


def _parse(text: bytes, data_start: int, file_bytes: int) -> Header:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NotSafetensors(say("its header is not JSON")) from error
    if not isinstance(data, dict):
        raise NotSafetensors(say("its header is not a table"))
    metadata = data.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict):
        raise NotSafetensors(say("its metadata is not a table"))
    tensors = {name: _tensor_info(name, entry, data_start) for name, entry in data.items()}
    end = max((info.start + info.num_bytes for info in tensors.values()), default=data_start)
    if end > file_bytes:
        raise NotSafetensors(say("{count} bytes are missing at its end", count=end - file_bytes), cut_short=True)
    return Header(tensors, {str(key): str(value) for key, value in metadata.items()}, data_start, file_bytes)


def _tensor_info(name: str, entry: Any, data_start: int) -> TensorInfo:
    try:
        dtype, shape, (start, end) = str(entry["dtype"]), tuple(map(int, entry["shape"])), entry["data_offsets"]
        start, end = int(start), int(end)
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise NotSafetensors(say("its header describes {name} in no way known", name=name)) from error
    if start < 0 or end < start or min(shape, default=0) < 0:
        raise NotSafetensors(say("its header gives {name} an impossible place", name=name))
    if dtype in ITEM_BYTES and math.prod(shape) * ITEM_BYTES[dtype] != end - start:
        raise NotSafetensors(say("its header gives {name} a size that does not fit its shape", name=name))
    return TensorInfo(dtype, shape, data_start + start, end - start)


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

"""Writes .ckpt files as `torch.save` does, but tensor by tensor: a zip of one small pickle and the tensors' bytes."""

from __future__ import annotations

import io
import itertools
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trainer.errors import BadInput
from trainer.files import atomic_path
from trainer.messages import say
from trainer.models.tensor_file import TORCH_NAMES
from trainer.tools.output import WRITING, Row, check_space, put_in_turn
from trainer.tools.watch import Watch

_ALIGNMENT = 64  # so that readers may map the file into memory, as torch writes it
_LOCAL_HEADER_BYTES = 30
_PADDING_FIELD = b"FB"  # the extra field that torch pads with
_ZIP64_FIELD_BYTES = 20
_STORAGES = {
    "F64": "DoubleStorage", "F32": "FloatStorage", "F16": "HalfStorage", "BF16": "BFloat16Storage",
    "I64": "LongStorage", "I32": "IntStorage", "I16": "ShortStorage", "I8": "CharStorage", "U8": "ByteStorage",
    "BOOL": "BoolStorage",
}  # fmt: skip


@dataclass(frozen=True)
class _Storage:
    """Stands for the bytes of entry `key` in the pickle."""

    key: str
    dtype: str
    num_items: int


class _Tensor:
    """Is pickled as torch pickles a contiguous tensor over a storage of its own."""

    def __init__(self, storage: _Storage, shape: tuple[int, ...]) -> None:
        self.storage, self.shape = storage, shape

    def __reduce__(self) -> tuple[Any, ...]:
        strides = torch.empty(self.shape, device="meta").stride()
        rebuild: Any = torch._utils._rebuild_tensor_v2
        return rebuild, (self.storage, 0, tuple(self.shape), tuple(strides), False, OrderedDict())


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, _Storage):
            return None
        return ("storage", getattr(torch, _STORAGES[obj.dtype]), obj.key, "cpu", obj.num_items)


def write_ckpt(path: Path, rows: Sequence[Row], watch: Watch) -> None:
    """Write a file that `torch.load` reads as {"state_dict": {name: tensor}}, atomically, one tensor in memory at a time.

    Raises BadInput, OSError, RunFailed, Stopped; `path` is then as it was.
    """
    strange = [row for row in rows if row.dtype not in _STORAGES]
    if strange:
        raise BadInput(
            say("{name} is of a kind of numbers ({dtype}) that a .ckpt file cannot hold.", name=strange[0].name,
                dtype=strange[0].dtype),
            say("Write .safetensors, or choose a precision."),
        )
    meter = watch.meter(WRITING, sum(row.num_bytes for row in rows))
    check_space(path.parent, meter.total)
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        _write(archive, "archive/data.pkl", _pickle(rows))
        _write(archive, "archive/byteorder", b"little")
        numbers = itertools.count()
        put_in_turn(
            (row.data() for row in rows),
            lambda data: _write(archive, f"archive/data/{next(numbers)}", data),
            meter,
        )
        _write(archive, "archive/version", b"3\n")


def _pickle(rows: Sequence[Row]) -> bytes:
    state = {
        row.name: _Tensor(_Storage(str(number), row.dtype, row.num_bytes // _item_bytes(row)), row.shape)
        for number, row in enumerate(rows)
    }
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=2).dump({"state_dict": state})
    return buffer.getvalue()


def _item_bytes(row: Row) -> int:
    return torch.empty(0, dtype=getattr(torch, TORCH_NAMES[row.dtype])).element_size()


def _write(archive: zipfile.ZipFile, name: str, data: bytes | memoryview) -> None:
    """Add an entry whose bytes begin at a multiple of 64 in the file."""
    info = zipfile.ZipInfo(name)
    info.file_size = len(data)
    assert archive.fp is not None
    is_large = info.file_size * 1.05 > zipfile.ZIP64_LIMIT  # as zipfile decides on its larger form of header
    begin = archive.fp.tell() + _LOCAL_HEADER_BYTES + len(name) + (_ZIP64_FIELD_BYTES if is_large else 0) + 4
    padding = -begin % _ALIGNMENT
    info.extra = _PADDING_FIELD + padding.to_bytes(2, "little") + b"Z" * padding
    with archive.open(info, "w") as entry:
        entry.write(data)

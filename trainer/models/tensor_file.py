"""Tensors out of weight files of every container, and into safetensors files, one at a time: never a whole file in
memory beside its tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.errors import BadInput
from trainer.files import atomic_path
from trainer.messages import say
from trainer.models.safetensors_file import ITEM_BYTES, TensorInfo, header_bytes
from trainer.models.weights_file import read_header

if TYPE_CHECKING:
    import torch

TORCH_NAMES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
    "U16": "uint16", "U32": "uint32", "U64": "uint64", "C64": "complex64",
}  # fmt: skip


def read_tensor(handle: FileIO, info: TensorInfo, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Read one tensor from an open, unbuffered file into memory of its own, converted to `dtype` if given.

    The result is contiguous, whatever the strides in the file.

    Raises:
        OSError: the file cannot be read (a network drive that went away).
        EOFError: it has become shorter than its header says.
        BadInput: its numbers are of a kind that torch has not.
    """
    import torch

    if info.dtype not in TORCH_NAMES:
        what = say("Tensors of the kind {dtype} cannot be read.", dtype=info.dtype[:20])
        raise BadInput(what, say("Choose a version of the file in fp32, fp16 or bf16."))
    assert info.start >= 0, "the header was read without places"
    number = getattr(torch, TORCH_NAMES[info.dtype])
    flat = torch.empty(info.num_bytes // ITEM_BYTES[info.dtype], dtype=number)
    if info.num_bytes:
        _fill(handle, info.start, flat.view(torch.uint8).numpy().data)
    tensor = flat.view(info.shape) if info.strides is None else flat.as_strided(info.shape, info.strides).contiguous()
    return tensor if dtype is None or not tensor.is_floating_point() else tensor.to(dtype)


def _fill(handle: FileIO, start: int, target: memoryview) -> None:
    """Read bytes from `start` on until `target` is full."""
    handle.seek(start)
    while target:
        count = handle.readinto(target)
        if not count:
            raise EOFError(f"{handle.name}: ends within a tensor")
        target = target[count:]


def read_file(path: Path, dtype: torch.dtype | None = None) -> dict[str, torch.Tensor]:
    """All tensors of a small file. Raises what `read_header` and `read_tensor` raise."""
    header = read_header(path)
    with path.open("rb", buffering=0) as handle:
        return {name: read_tensor(handle, info, dtype) for name, info in header.tensors.items()}


def write_file(
    path: Path,
    tensors: Iterable[tuple[str, tuple[int, ...], str, Callable[[], torch.Tensor]]],
    metadata: Mapping[str, str],
    hash_entry: str = "",
) -> None:
    """Write a safetensors file atomically, one tensor in memory at a time.

    Args:
        path: the file to write or replace.
        tensors: name, shape, dtype ("F16") and a function that gives the tensor when it is its turn.
        metadata: strings for the header.
        hash_entry: the entry of the header that gets "0x" and the SHA-256 of all bytes after the header; "" is none.

    Raises OSError if the disk is full or the folder cannot be written; `path` is then as it was.
    """
    rows = sorted(tensors, key=lambda row: (-ITEM_BYTES[row[2]], row[0]))  # as the reference writer orders: aligned
    blank = f"0x{'0' * 64}"
    entries = {**metadata, hash_entry: blank} if hash_entry else metadata
    header = header_bytes({name: (dtype, shape) for name, shape, dtype, _ in rows}, entries)
    digest = hashlib.sha256()
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        handle.write(header)
        for name, shape, dtype, give in rows:
            data = tensor_bytes(give(), name, shape, dtype)
            handle.write(data)
            if hash_entry:
                digest.update(data)
        if hash_entry:
            handle.seek(header.index(blank.encode()) + 2)
            handle.write(digest.hexdigest().encode())


def tensor_bytes(tensor: torch.Tensor, name: str, shape: tuple[int, ...], dtype: str) -> memoryview:
    """The bytes of a tensor in the dtype given; `name` and `shape` are checked against what was promised."""
    import torch

    assert tuple(tensor.shape) == shape, f"{name} has shape {tuple(tensor.shape)}, announced was {shape}"
    plain = tensor.detach().to(device="cpu", dtype=getattr(torch, TORCH_NAMES[dtype])).contiguous()
    return plain.reshape(-1).view(torch.uint8).numpy().data

"""Tensors in and out of safetensors files, one at a time: never a whole file in memory beside its tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.files import atomic_path
from trainer.models.safetensors_file import ITEM_BYTES, TensorInfo, header_bytes, read_header

if TYPE_CHECKING:
    import torch

TORCH_NAMES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


def read_tensor(handle: FileIO, info: TensorInfo, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Read one tensor from an open, unbuffered file into memory of its own, converted to `dtype` if given.

    Raises EOFError if the file has become shorter than its header says.
    """
    import torch

    tensor = torch.empty(info.shape, dtype=getattr(torch, TORCH_NAMES[info.dtype]))
    if info.num_bytes:
        target = tensor.reshape(-1).view(torch.uint8).numpy().data
        handle.seek(info.start)
        while target:
            count = handle.readinto(target)
            if not count:
                raise EOFError(f"{handle.name}: ends within a tensor")
            target = target[count:]
    return tensor if dtype is None or not tensor.is_floating_point() else tensor.to(dtype)


def read_file(path: Path, dtype: torch.dtype | None = None) -> dict[str, torch.Tensor]:
    """All tensors of a small file. Raises what `read_header` and `read_tensor` raise."""
    header = read_header(path)
    with path.open("rb", buffering=0) as handle:
        return {name: read_tensor(handle, info, dtype) for name, info in header.tensors.items()}


def write_file(
    path: Path,
    tensors: Iterable[tuple[str, tuple[int, ...], str, Callable[[], torch.Tensor]]],
    metadata: Mapping[str, str],
) -> None:
    """Write a safetensors file atomically, one tensor in memory at a time.

    Args:
        path: the file to write or replace.
        tensors: name, shape, dtype ("F16") and a function that gives the tensor when it is its turn.
        metadata: strings for the header.

    Raises OSError if the disk is full or the folder cannot be written; `path` is then as it was.
    """
    rows = sorted(tensors, key=lambda row: (-ITEM_BYTES[row[2]], row[0]))  # as the reference writer orders: aligned
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        handle.write(header_bytes({name: (dtype, shape) for name, shape, dtype, _ in rows}, metadata))
        for name, shape, dtype, give in rows:
            handle.write(tensor_bytes(give(), name, shape, dtype))


def tensor_bytes(tensor: torch.Tensor, name: str, shape: tuple[int, ...], dtype: str) -> memoryview:
    """The bytes of a tensor in the dtype given; `name` and `shape` are checked against what was promised."""
    import torch

    assert tuple(tensor.shape) == shape, f"{name} has shape {tuple(tensor.shape)}, announced was {shape}"
    plain = tensor.detach().to(device="cpu", dtype=getattr(torch, TORCH_NAMES[dtype])).contiguous()
    return plain.reshape(-1).view(torch.uint8).numpy().data

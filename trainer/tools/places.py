"""Where a tensor of a model lies: in which file, or in pieces of which files, and how it is read. No torch at import."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from threading import get_ident
from typing import TYPE_CHECKING

from trainer.models.loading import rows_of
from trainer.models.safetensors_file import FLOATS, ITEM_BYTES, TensorInfo
from trainer.models.tensor_file import TORCH_NAMES, read_tensor

if TYPE_CHECKING:
    import torch

FILE_NAMES = {torch_name: name for name, torch_name in TORCH_NAMES.items()}  # "float16" → "F16"
PRECISIONS = {"fp16": "F16", "bf16": "BF16", "fp32": "F32"}


@dataclass(frozen=True)
class Piece:
    """A tensor of a file; `turned` if it is read transposed."""

    path: Path
    info: TensorInfo
    turned: bool = False


@dataclass(frozen=True)
class Place:
    """A tensor by the name that the reader wants: its pieces joined along the first axis, in this shape and dtype.

    `make` gives one that lies in no file.
    """

    pieces: tuple[Piece, ...]
    shape: tuple[int, ...]
    dtype: str
    make: Callable[[], torch.Tensor] | None = None

    @classmethod
    def of(cls, path: Path, info: TensorInfo, shape: tuple[int, ...] | None = None) -> Place:
        """A whole tensor of a file; `shape` where it is to be seen in another one."""
        return cls((Piece(path, info),), info.shape if shape is None else shape, info.dtype)

    @classmethod
    def made(cls, shape: tuple[int, ...], dtype: str, make: Callable[[], torch.Tensor]) -> Place:
        """A tensor that lies in no file."""
        return cls((), shape, dtype, make)

    def rows(self, start: int, stop: int) -> Place:
        """Some rows of a tensor that is not turned."""
        found, begin = [], 0
        for piece in self.pieces:
            first, last = max(start - begin, 0), min(stop - begin, piece.info.shape[0])
            if first < last:
                found.append(replace(piece, info=rows_of(piece.info, first, last - first)))
            begin += piece.info.shape[0]
        return replace(self, pieces=tuple(found), shape=(stop - start, *self.shape[1:]))

    @property
    def num_items(self) -> int:
        return math.prod(self.shape)

    def num_bytes(self, dtype: str) -> int:
        """Its size in a file, in this dtype."""
        return self.num_items * ITEM_BYTES[dtype]

    @property
    def is_float(self) -> bool:
        return self.dtype in FLOATS


class Files:
    """Files kept open while tensors are read from them, for each thread its own handles. A context manager."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._open: dict[tuple[int, Path], FileIO] = {}

    def __enter__(self) -> Files:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read(self, place: Place, dtype: torch.dtype | None = None) -> torch.Tensor:
        """The tensor of a place, in memory of its own. Raises OSError, or EOFError if its file became shorter."""
        import torch

        if place.make is not None:
            made = place.make()
            return made if dtype is None or not made.is_floating_point() else made.to(dtype)
        read = [self._piece(piece, dtype) for piece in place.pieces]
        return (read[0] if len(read) == 1 else torch.cat(read)).reshape(place.shape)

    def _piece(self, piece: Piece, dtype: torch.dtype | None) -> torch.Tensor:
        key = get_ident(), piece.path
        if key not in self._open:
            self._open[key] = self._stack.enter_context(piece.path.open("rb", buffering=0))
        tensor = read_tensor(self._open[key], piece.info, dtype)
        return tensor.T.contiguous() if piece.turned else tensor

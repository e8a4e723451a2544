"""Writes what was trained as the one file that the WebUI, ComfyUI and the kohya programs read, hashes included."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.data.memo import FileFacts, Memo
from trainer.hashes import model_hashes
from trainer.models.safetensors_file import header_bytes
from trainer.models.tensor_file import tensor_bytes, write_file

if TYPE_CHECKING:
    import torch

_FILE_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_CHUNK = 1 << 22


def save_adapter(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str], dtype: torch.dtype
) -> None:
    """Write a LoRA file atomically; the hashes that programs know it by are added to `metadata`.

    Raises OSError if the disk is full or the folder cannot be written; an older file of that name then stays whole.
    """
    file_dtype = _FILE_DTYPES[str(dtype).removeprefix("torch.")]
    shapes = {name: (file_dtype, tuple(tensors[name].shape)) for name in sorted(tensors)}
    pieces = (tensor_bytes(tensors[name], name, shape, file_dtype) for name, (_, shape) in shapes.items())
    hashes = model_hashes(header_bytes(shapes, _hashed(metadata)), pieces)
    rows = ((name, shape, file_dtype, partial(tensors.__getitem__, name)) for name, (_, shape) in shapes.items())
    write_file(path, rows, {**metadata, **hashes})


def _hashed(metadata: Mapping[str, str]) -> dict[str, str]:
    """The entries that kohya's programs have in the header while they compute the hashes."""
    return {name: value for name, value in metadata.items() if name.startswith("ss_")}


class BaseHash:
    """The base model's SHA-256, computed in a thread once per file and remembered by path, size and time."""

    def __init__(self, path: Path, memo: Memo | None = None) -> None:
        self._memo = memo or Memo()
        self._stopped = False
        self._pool = ThreadPoolExecutor(1, "hash-base")
        self._future: Future[str | None] = self._pool.submit(self._find, path)
        self._pool.shutdown(wait=False)

    def result(self, timeout_s: float | None = None) -> str | None:
        """The hash in hex; None if the model is a folder, cannot be read, or is not done within `timeout_s`."""
        try:
            return self._future.result(timeout_s)
        except TimeoutError:
            return None

    def stop(self) -> None:
        """Let the thread end soon; the result is then None."""
        self._stopped = True

    def _find(self, path: Path) -> str | None:
        try:
            facts = FileFacts.of(path)
            if not path.is_file():
                return None
            known = self._memo.recall_weights([facts], "whole file")
            digest = known or self._compute(path)
        except OSError:
            return None
        if digest is not None and known is None:
            self._memo.remember_weights([facts], "whole file", digest)
        return digest

    def _compute(self, path: Path) -> str | None:
        digest = hashlib.sha256()
        with path.open("rb", buffering=0) as handle:
            while piece := handle.read(_CHUNK):
                if self._stopped:
                    return None
                digest.update(piece)
        return digest.hexdigest()

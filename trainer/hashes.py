"""The hashes by which programs know a LoRA file. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import chain

_LEGACY_START, _LEGACY_BYTES = 0x100000, 0x10000


def model_hashes(header: bytes, pieces: Iterable[bytes | memoryview]) -> dict[str, str]:
    """`sshs_model_hash`: SHA-256 of all bytes after the header; `sshs_legacy_hash`: of 64 KiB at 1 MiB of the file.

    `modelspec.hash_sha256` is the former as that standard writes it.
    """
    whole, legacy = hashlib.sha256(), hashlib.sha256()
    position = 0
    for piece in chain((header,), pieces):
        if position:
            whole.update(piece)
        start = max(_LEGACY_START - position, 0)
        end = max(_LEGACY_START + _LEGACY_BYTES - position, 0)
        legacy.update(piece[start:end])
        position += len(piece)
    digest = whole.hexdigest()
    return {
        "sshs_model_hash": digest,
        "sshs_legacy_hash": legacy.hexdigest()[:8],
        "modelspec.hash_sha256": f"0x{digest}",
    }

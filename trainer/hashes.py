"""The hashes by which programs know a LoRA file. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

_LEGACY_START, _LEGACY_BYTES = 0x100000, 0x10000


class ModelHashes:
    """`sshs_model_hash`: SHA-256 of all bytes after the header; `sshs_legacy_hash`: of 64 KiB at 1 MiB of the file.

    `modelspec.hash_sha256` is the former as that standard writes it.
    """

    def __init__(self, header: bytes) -> None:
        """`header` as the file would have it that the hashes are of: it counts for the place of the 64 KiB."""
        self._whole, self._legacy = hashlib.sha256(), hashlib.sha256()
        self._position = 0
        self._at_legacy(header)

    def update(self, piece: bytes | memoryview) -> None:
        """Add the bytes that come next after the header."""
        self._whole.update(piece)
        self._at_legacy(piece)

    def _at_legacy(self, piece: bytes | memoryview) -> None:
        start = max(_LEGACY_START - self._position, 0)
        end = max(_LEGACY_START + _LEGACY_BYTES - self._position, 0)
        self._legacy.update(piece[start:end])
        self._position += len(piece)

    def all(self) -> dict[str, str]:
        """The three of them by their entries' names."""
        digest = self._whole.hexdigest()
        return {
            "sshs_model_hash": digest,
            "sshs_legacy_hash": self._legacy.hexdigest()[:8],
            "modelspec.hash_sha256": f"0x{digest}",
        }


def model_hashes(header: bytes, pieces: Iterable[bytes | memoryview]) -> dict[str, str]:
    """The same of a header and the bytes after it, piece by piece."""
    hashes = ModelHashes(header)
    for piece in pieces:
        hashes.update(piece)
    return hashes.all()

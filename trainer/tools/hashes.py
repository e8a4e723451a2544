"""Computes the hashes by which programs and sites know a model file. No torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.errors import BadInput
from trainer.messages import Message, say
from trainer.models.opening import NotWeights, open_plain
from trainer.models.safetensors_file import Header, read_header
from trainer.tools.catalog import HashSettings
from trainer.tools.watch import Meter, Result, Watch

PIECE_BYTES = 1 << 22
_LEGACY_START, _LEGACY_BYTES = 0x100000, 0x10000


@dataclass(frozen=True)
class Hashes:
    """The hashes of a file, in hex.

    Attributes:
        sha256: of all its bytes. The WebUI's short hash and AutoV2 are its first 10 digits.
        legacy: the first WebUIs' and AutoV1: of 64 KiB at 1 MiB, 8 digits.
        data: of all bytes after a safetensors header, None for other files: `sshs_model_hash`, "addnet", AutoV3 (12 digits).
        says: the same as the file's own header has it, None where it says nothing.
    """

    sha256: str
    legacy: str
    data: str | None = None
    says: str | None = None

    def table(self) -> dict[str, Any]:
        """Names as programs and sites use them."""
        table = {"sha256": self.sha256, "short": self.sha256[:10], "legacy": self.legacy}
        if self.data is not None:
            table |= {"addnet": self.data[:12], "sshs_model_hash": self.data}
        return table


def run(settings: HashSettings, watch: Watch) -> Result:
    """Hash each file. Raises BadInput if one cannot be read."""
    paths = [Path(name) for name in settings.files]
    for path in paths:
        if not path.is_file():
            raise BadInput(say("There is no file {path}.", path=str(path)))
    meter = watch.meter(say("Reading"), sum(path.stat().st_size for path in paths))
    found = {path: hash_file(path, meter) for path in paths}
    lines = [line for path, hashes in found.items() for line in (str(path), *_lines(hashes), "")]
    facts = {
        "files": [{"file": str(path), **hashes.table(), "changed": _changed(hashes)} for path, hashes in found.items()]
    }
    notes = tuple(_changed_note(path) for path, hashes in found.items() if _changed(hashes))
    return Result(Message("\n".join(lines).rstrip()), notes=notes, facts=facts)


def hash_file(path: Path, meter: Meter) -> Hashes:
    """Read a file once. Raises OSError, BadInput, Stopped."""
    header = _header(path)
    whole, legacy, data = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
    position = 0
    with open_plain(path) as handle:
        while piece := handle.read(PIECE_BYTES):
            whole.update(piece)
            view = memoryview(piece)
            legacy.update(_between(view, position, _LEGACY_START, _LEGACY_START + _LEGACY_BYTES))
            if header is not None:
                data.update(_between(view, position, header.data_start, header.file_bytes))
            position += len(piece)
            meter.advance(len(piece))
    if header is None:
        return Hashes(whole.hexdigest(), legacy.hexdigest()[:8])
    says = header.metadata.get("sshs_model_hash") or header.metadata.get("modelspec.hash_sha256", "").removeprefix("0x")
    return Hashes(whole.hexdigest(), legacy.hexdigest()[:8], data.hexdigest(), says or None)


def _between(piece: memoryview, position: int, start: int, end: int) -> memoryview:
    """What of a piece that lies at `position` in the file is between two places in the file."""
    return piece[max(start - position, 0) : max(end - position, 0)]


def _header(path: Path) -> Header | None:
    try:
        return read_header(path)
    except NotWeights:
        return None


def _lines(hashes: Hashes) -> list[str]:
    return [f"  {name:<16} {value}" for name, value in hashes.table().items()]


def _changed(hashes: Hashes) -> bool:
    return hashes.says is not None and hashes.says.lower() != hashes.data


def _changed_note(path: Path) -> Message:
    return say(
        "{path} says another hash of itself in its header: its weights were changed since, or its writer counted otherwise.",
        path=str(path),
    )

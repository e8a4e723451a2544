"""StabilityMatrix: the models folder that its packages share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from trainer.targets.base import Folders, Kind, Program, existing_first, has_all, placed, read_table
from trainer.targets.notes import matrix_notes

_NAMES: Mapping[Kind, tuple[str, ...]] = {
    "lora": ("Lora",),
    "checkpoint": ("StableDiffusion",),
    "embedding": ("Embeddings", "TextualInversion"),  # the second in older versions
    "vae": ("VAE",),
    "hypernetwork": ("Hypernetwork",),
}


def _locate(root: Path) -> Folders | None:
    """`root` is the data folder: `Data` beside a portable StabilityMatrix, else where its library was put."""
    if not has_all(root, ("Packages", "settings.json")) and not has_all(root, ("Packages", "Models/StableDiffusion")):
        return None
    moved = read_table(root / "settings.json").get("ModelDirectoryOverride")
    models = placed(root, moved) if isinstance(moved, str) and moved.strip() else root / "Models"
    return {kind: existing_first(models / name for name in names) for kind, names in _NAMES.items()}


def packages(root: Path) -> list[Path]:
    """The programs that it has installed, each in a folder of its own. Raises OSError."""
    return sorted(place for place in (root / "Packages").iterdir() if place.is_dir())


def programs() -> Iterator[Program]:
    """StabilityMatrix keeps its own notes, `<stem>.cm-info.json`."""
    yield Program("StabilityMatrix", _locate, (matrix_notes,), inside=("Data",))

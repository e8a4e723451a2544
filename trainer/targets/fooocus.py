"""Fooocus: its `models` folder, or those that `config.txt` names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from trainer.targets.base import Folders, Kind, Program, has_all, placed, read_table

_KEYS: Mapping[Kind, tuple[str, str]] = {
    "lora": ("path_loras", "loras"),
    "checkpoint": ("path_checkpoints", "checkpoints"),
    "embedding": ("path_embeddings", "embeddings"),
    "vae": ("path_vae", "vae"),
}


def _locate(root: Path) -> Folders | None:
    if not has_all(root, ("fooocus_version.py",)):
        return None
    config = read_table(root / "config.txt")
    folders: dict[Kind, tuple[Path, ...]] = {}
    for kind, (key, name) in _KEYS.items():
        value = config.get(key)
        given = [value] if isinstance(value, str) else value if isinstance(value, list) else []
        places = tuple(placed(root, text) for text in given if isinstance(text, str) and text.strip())
        # as Fooocus does: a list with a folder that is not there is not used at all
        usable = places and all(place.is_dir() for place in places)
        folders[kind] = places if usable else (root / "models" / name,)
    return folders


def programs() -> Iterator[Program]:
    """Fooocus shows neither pictures nor notes of a LoRA."""
    yield Program("Fooocus", _locate, previews=False, inside=("Fooocus",))

"""ComfyUI: its own `models` folder, and those of `extra_model_paths.yaml`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trainer.targets.base import Folders, Kind, Program, has_all, placed, read_text

_NAMES: Mapping[Kind, str] = {
    "lora": "loras",
    "checkpoint": "checkpoints",
    "embedding": "embeddings",
    "vae": "vae",
    "hypernetwork": "hypernetworks",
}
_MAX_YAML_BYTES, _MAX_BRACKETS = 100_000, 200  # the reader is slow, and real ones have a page and no brackets
_DESKTOP = ("models", "custom_nodes", "user", "input", "output")  # the folder that ComfyUI Desktop keeps its files in


def _locate(root: Path) -> Folders | None:
    if not has_all(root, ("main.py", "comfy")) and not has_all(root, _DESKTOP):
        return None
    own = {kind: [root / "models" / name] for kind, name in _NAMES.items()}
    for name, place, first in extra_paths(root / "extra_model_paths.yaml"):
        for kind, known in _NAMES.items():
            if name == known and place not in own[kind]:
                own[kind].insert(0 if first else len(own[kind]), place)
    return {kind: tuple(places) for kind, places in own.items()}


def extra_paths(file: Path) -> Iterator[tuple[str, Path, bool]]:
    """What a file of extra model paths adds: the kind as ComfyUI names it, the folder, whether it comes first.

    Each section has a `base_path` (a relative one counts from the file's folder) and one or more folders a kind, one a
    line. A file that is not YAML, or has other things in it, adds nothing where it can not be understood.
    """
    text = read_text(file, _MAX_YAML_BYTES)
    if not text or text.count("{") + text.count("[") > _MAX_BRACKETS:
        return
    import yaml

    try:
        sections = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError):
        return
    for section in sections.values() if isinstance(sections, dict) else ():
        if isinstance(section, dict):
            yield from _section(section, file.parent)


def _section(section: Mapping[Any, Any], folder: Path) -> Iterator[tuple[str, Path, bool]]:
    base = placed(folder, section["base_path"]) if isinstance(section.get("base_path"), str) else folder
    first = section.get("is_default") is True
    for kind, value in section.items():
        if kind in ("base_path", "is_default") or not isinstance(value, str):
            continue
        for line in value.split("\n"):
            if line.strip():
                yield str(kind), placed(base, line), first


def programs() -> Iterator[Program]:
    """ComfyUI reads a picture beside a model, and the model's own header; no other notes."""
    yield Program("ComfyUI", _locate, inside=("ComfyUI",))

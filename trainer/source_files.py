"""The files that the content of a base model depends on. No torch."""

from __future__ import annotations

from pathlib import Path

_WEIGHTS = (".safetensors", ".sft", ".bin", ".ckpt", ".pt", ".pth")


def weight_files(source: Path) -> list[Path]:
    """The files on which a model's weights and sizes depend: the file and a config beside it, or a folder's."""
    if source.is_dir():
        return sorted(path for path in source.rglob("*") if path.suffix in (*_WEIGHTS, ".json"))
    beside = (source.with_suffix(ending) for ending in (".json", ".yaml"))
    return [source, *(path for path in beside if path.is_file())]

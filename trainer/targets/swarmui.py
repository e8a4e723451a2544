"""SwarmUI: `Models`, or the roots and folders that `Data/Settings.fds` names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from trainer.targets.base import Folders, Kind, Program, existing_first, placed, read_text
from trainer.targets.notes import swarm_notes

_SIGNS = ("SwarmUI.sln", "src/SwarmUI.csproj", "StableSwarmUI.sln", "src/StableSwarmUI.csproj")
_KEYS: Mapping[Kind, tuple[str, str]] = {
    "lora": ("SDLoraFolder", "Lora"),
    "checkpoint": ("SDModelFolder", "Stable-Diffusion"),
    "embedding": ("SDEmbeddingFolder", "Embeddings"),
    "vae": ("SDVAEFolder", "VAE"),
}
_ESCAPES = (("\\t", "\t"), ("\\n", "\n"), ("\\r", "\r"), ("\\x", ""), ("\\s", "\\"))  # the backslash last


def _locate(root: Path) -> Folders | None:
    if not any((root / sign).exists() for sign in _SIGNS):
        return None
    given = read_paths(read_text(root / "Data/Settings.fds"))
    roots = [placed(root, part) for part in _parts(given.get("ModelRoot", "")) or ["Models"]]
    folders: dict[Kind, tuple[Path, ...]] = {}
    for kind, (key, usual) in _KEYS.items():
        names = _parts(given.get(key, "")) or [usual]
        # new files go to the first root; among its folders to one that is there
        first, *others = roots
        own = existing_first(placed(first, name) for name in names)
        folders[kind] = (*own, *(placed(other, name) for other in others for name in names))
    return folders


def read_paths(text: str) -> dict[str, str]:
    """The values of the section `Paths` in a settings file of SwarmUI's own format (indented `key: value` lines)."""
    paths: dict[str, str] = {}
    inside = False
    for line in text.replace("\t", "    ").splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, _, value = line.strip().partition(":")
        if not line.startswith(" "):
            inside = key == "Paths"
        elif inside:
            paths[key] = _plain(value.strip())
    return paths


def _plain(text: str) -> str:
    for written, meant in _ESCAPES:
        text = text.replace(written, meant)
    return text


def _parts(value: str) -> list[str]:
    return [part.strip() for part in value.split(";") if part.strip()]


def programs() -> Iterator[Program]:
    """SwarmUI reads the WebUI's notes, and keys of its own in the same file."""
    yield Program("SwarmUI", _locate, (swarm_notes,), inside=("SwarmUI", "StableSwarmUI"), api="swarm")

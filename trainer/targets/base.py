"""What a program to export to is: how it is told by its folder, where its files lie, and what it reads beside a model."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Kind = Literal["lora", "checkpoint", "embedding", "vae", "hypernetwork"]
ApiName = Literal["webui", "sdnext", "swarm"]
Folders = Mapping[Kind, tuple[Path, ...]]
MAX_TEXT_BYTES = 1 << 20  # settings files of these programs have some KB


@dataclass(frozen=True)
class Card:
    """A model that is being placed: where, what it is, and what the user says of it.

    Attributes:
        goal: the model's path in the program's folder; notes go beside it under its stem.
        weights: where its bytes are complete already (a temporary file until all notes are written).
        family: "sd1", "sdxl", …; None if unknown.
        name: as the program shows it.
        words: what calls it up in a prompt; "" if nothing was said.
        weight: how strongly it should be applied; 0 is the program's own default.
    """

    goal: Path
    weights: Path
    kind: Kind
    family: str | None
    name: str
    words: str = ""
    weight: float = 0.0

    def beside(self, ending: str) -> Path:
        """The path of a file that belongs to the model: `<stem><ending>`."""
        return self.goal.with_name(self.goal.stem + ending)


@dataclass(frozen=True)
class Program:
    """A program by its folder.

    Attributes:
        name: as people say it.
        locate: the folders of an install by kind, those that take new files first; None if this is not its root.
        notes: what writes the files that it reads beside a model; each merges with what is there.
        previews: it shows `<stem>.preview.png`.
        inside: names that its root has in portable packages and parent programs.
        api: by which it reads its lists anew when asked (see `trainer.targets.refresh`); None if it has none, or needs none.
    """

    name: str
    locate: Callable[[Path], Folders | None]
    notes: tuple[Callable[[Card], None], ...] = ()
    previews: bool = True
    inside: tuple[str, ...] = ()
    api: ApiName | None = None


@dataclass(frozen=True)
class Target:
    """An install that was found (or a plain folder): its program, its root, and its folders, which may not exist yet."""

    program: str
    root: Path
    folders: Folders
    notes: tuple[Callable[[Card], None], ...] = field(default=(), repr=False)
    previews: bool = True
    api: ApiName | None = None

    def folder(self, kind: Kind) -> Path | None:
        """Where a new file of this kind goes; None if the program has no place for it."""
        places = self.folders.get(kind, ())
        return places[0] if places else None

    @property
    def lora_folder(self) -> Path:
        """Where a new LoRA goes."""
        return self.folders["lora"][0]


def has_all(root: Path, names: Iterable[str]) -> bool:
    """Whether all of these files and folders are in `root`."""
    return all((root / name).exists() for name in names)


def existing_first(places: Iterable[Path]) -> tuple[Path, ...]:
    """The places with those that are there before those that are not, in their order, none twice.

    A link and its goal count as two names of one place, as do names that differ by case where the disk ignores it.
    """
    kept: dict[str, Path] = {}
    found = list(places)
    for place in [*(place for place in found if place.is_dir()), *found]:
        kept.setdefault(os.path.normcase(os.path.realpath(place)), place)
    return tuple(kept.values())


def read_text(path: Path, most_bytes: int = MAX_TEXT_BYTES) -> str:
    """A settings file's text; "" if there is none, it can not be read, or it is no plain file or larger than they are."""
    try:
        if not path.is_file() or path.stat().st_size > most_bytes:
            return ""
        return path.read_text(encoding="utf-8-sig", errors="replace")
    except (OSError, ValueError):
        return ""


def read_table(path: Path) -> dict[str, Any]:
    """A JSON settings file's table; empty if there is none or it is not one."""
    try:
        data = json.loads(read_text(path))
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def placed(root: Path, value: str) -> Path:
    """A path from a settings file: `~` and variables filled in, relative ones from `root`, without `..`."""
    return Path(os.path.normpath(root / os.path.expanduser(os.path.expandvars(value.strip()))))

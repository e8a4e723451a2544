"""Installs on this machine, looked for in well-known places, and the models in them. A few folders are listed, no disk."""

from __future__ import annotations

import os
import re
import string
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from trainer.targets.base import Kind, Target, read_table

MAX_SECONDS = 3.0  # a sleeping disk or a slow share ends the search, it doesn't hold it up
MAX_ENTRIES = 20_000  # of one folder of models, with what is in it
MAX_DEPTH = 4
MODEL_ENDINGS = (".safetensors", ".ckpt", ".sft")
_PROGRAM = re.compile(
    r"webui|comfy|fooocus|forge|swarm|sd[._ -]?next|automatic|stability.?matrix|stable.?diffusion|\baki\b|^sd[-_ ]",
    re.IGNORECASE,
)
_HOLDER = re.compile(
    r"^(ai([-_ ].*)?|sd|git|github|apps?|tools?|programs?|src|code|pinokio|stable.?diffusion.*"
    r"|.*(整合包|秋叶|绘画|绘图|绘世).*)$",
    re.IGNORECASE,
)

Find = Callable[[Path], Target | None]


def look_for_installs(find: Find, places: Iterable[Path], seconds: float = MAX_SECONDS) -> Iterator[Target]:
    """The installs directly in `places`, or in a folder there that usually holds programs; each root once.

    Args:
        find: says which program a folder is the root of, None if of none.
        places: which folders to list.
        seconds: after so long no further folder is looked at.
    """
    end = time.monotonic() + seconds
    seen: set[str] = set()
    for folder in _candidates(places):
        if time.monotonic() > end:
            return
        target = find(folder)
        key = os.path.realpath(target.root) if target is not None else ""
        if target is not None and key not in seen:
            seen.add(key)
            yield target


def _candidates(places: Iterable[Path]) -> Iterator[Path]:
    for place in places:
        yield place
        for folder in _folders(place):
            if _PROGRAM.search(folder.name):
                yield folder
            if _HOLDER.match(folder.name):
                yield from (inner for inner in _folders(folder) if _PROGRAM.search(inner.name))


def _folders(place: Path, limit: int = 2000) -> list[Path]:
    """The folders in a place, hidden ones left out; none where it can not be read."""
    try:
        with os.scandir(place) as entries:
            names = [entry.name for _, entry in zip(range(limit), entries, strict=False) if _is_folder(entry)]
    except OSError:
        return []
    return [place / name for name in sorted(names) if not name.startswith(".")]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def well_known_places() -> list[Path]:
    """Where people put such programs: home and its usual folders, the disks' roots, StabilityMatrix's library."""
    home = Path.home()
    places = [home, *(home / name for name in ("Desktop", "Documents", "Downloads", "AI", "pinokio/api"))]
    if sys.platform == "win32":
        places += _fixed_disks()
    else:
        places += [Path("/opt"), Path("/srv"), Path("/Applications"), Path("/workspace"), *_mounted(Path("/mnt"))]
        places += [disk for user in _folders(Path("/media")) for disk in (user, *_folders(user))]
    return [*_matrix_libraries(home), *places]


def _mounted(folder: Path) -> list[Path]:
    return [folder, *_folders(folder, 30)]


def _fixed_disks() -> list[Path]:
    """The roots of the disks that are built in (Windows); no network drive, which may sleep or be gone."""
    import ctypes

    kinds = getattr(ctypes, "windll").kernel32  # noqa: B009  (exists on Windows only)
    fixed = 3
    roots = [Path(f"{letter}:/") for letter in string.ascii_uppercase]
    return [root for root in roots if kinds.GetDriveTypeW(str(root)) == fixed]


def _matrix_libraries(home: Path) -> list[Path]:
    """StabilityMatrix writes down where its library is."""
    settings = [
        Path(os.environ.get("APPDATA", home / "AppData/Roaming")),
        Path(os.environ.get("XDG_CONFIG_HOME", home / ".config")),
        home / "Library/Application Support",
    ]
    found = []
    for folder in settings:
        path = read_table(folder / "StabilityMatrix/library.json").get("LibraryPath")
        found += [Path(path)] if isinstance(path, str) and path else []
        found.append(folder / "StabilityMatrix")
    return found


def models_in(install: Target, kind: Kind = "checkpoint") -> tuple[Path, ...]:
    """The models of a kind in an install's folders, diffusers folders among them; by name, each file once.

    Lists folders (a few levels deep, so many entries at most) and reads no file. Any thread but the window's.
    """
    found: dict[str, Path] = {}
    for place in install.folders.get(kind, ()):
        for path in _walk(place, MAX_DEPTH, [MAX_ENTRIES]):
            found.setdefault(os.path.realpath(path), path)
    return tuple(sorted(found.values(), key=lambda path: path.name.lower()))


def _walk(folder: Path, depth: int, left: list[int]) -> Iterator[Path]:
    """Model files and diffusers folders under a folder; `left` counts down what may still be looked at."""
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError:
        return
    if any(entry.name == "model_index.json" for entry in entries):
        yield folder
        return
    for entry in entries:
        left[0] -= 1
        if left[0] < 0:
            return
        if entry.name.startswith("."):
            continue
        if entry.name.lower().endswith(MODEL_ENDINGS):
            yield folder / entry.name
        elif depth > 0 and _is_folder(entry):
            yield from _walk(folder / entry.name, depth - 1, left)

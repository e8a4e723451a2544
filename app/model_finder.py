"""Base models on this machine: used before, and in the folders of known programs. No Qt; not for the window's thread."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.export_targets import known_installs, models_in
from trainer.models.header import ModelFacts, inspect_file
from trainer.models.hub import parse

Stamp = tuple[str, int, int]
_known: dict[Stamp, ModelFacts] = {}  # a header is read once for each content
MOST_KNOWN = 5000


@dataclass(frozen=True)
class Group:
    """Models that belong together: `title` is a program's name, "" for those used before."""

    title: str
    place: str
    models: tuple[str, ...]  # paths, and ids on the hub


def find_models(recent: Sequence[str], installs: Iterable[str]) -> tuple[Group, ...]:
    """The models used before that are still there, and those of the programs found; each once. Reads no model."""
    before = tuple(path for path in recent if _is_there(path))
    seen = {os.path.realpath(path) for path in before}
    groups = [Group("", "", before)] if before else []
    for target in known_installs(installs):
        found = []
        for path in models_in(target):
            real = os.path.realpath(path)
            if real not in seen:
                seen.add(real)
                found.append(str(path))
        if found:
            groups.append(Group(target.program, str(target.root), tuple(found)))
    return tuple(groups)


def _is_there(path: str) -> bool:
    try:
        return os.path.exists(path) or parse(path) is not None
    except (OSError, ValueError):
        return False


def facts_of(paths: Sequence[str]) -> list[tuple[str, ModelFacts]]:
    """What each of these is; a file that has not changed is not opened again."""
    return [(path, _facts(path)) for path in paths]


def _facts(path: str) -> ModelFacts:
    try:
        status = Path(path).stat()
        stamp = (path, status.st_size, status.st_mtime_ns)
    except (OSError, ValueError):
        return inspect_file(path)
    if stamp not in _known:
        if len(_known) > MOST_KNOWN:
            _known.clear()
        _known[stamp] = inspect_file(path)
    return _known[stamp]

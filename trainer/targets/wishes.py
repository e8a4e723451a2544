"""What the user wants of the programs to export to: whether a running one is asked to show new files, and where it answers.

It belongs to the program on this machine, whoever places a file there: the window, the command, or a run. So it stands in
one small file of the user's, and in no run file, which may be copied and shared.
"""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainer.files import write_json
from trainer.paths import user_folder
from trainer.targets.base import read_table
from trainer.targets.refresh import bare

MOST = 50  # programs; those that were changed last
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class Wish:
    """For one program: `refresh` asks it, at `address` ("" is its usual one)."""

    refresh: bool = False
    address: str = ""


def wish_of(root: Path) -> Wish:
    """What is wanted of the program in this folder; nothing where nobody said."""
    found = _read().get(_name(root))
    if not isinstance(found, dict):
        return Wish()
    address = found.get("address")
    return Wish(found.get("refresh") is True, address if isinstance(address, str) else "")


def remember(root: Path, wish: Wish) -> None:
    """Keep it; never user and password. A disk that refuses is no reason to disturb."""
    with _ONE_AT_A_TIME, contextlib.suppress(OSError):
        known = {name: value for name, value in _read().items() if name != _name(root)}
        known[_name(root)] = asdict(Wish(wish.refresh, bare(wish.address)))
        write_json(_file(), dict(list(known.items())[-MOST:]))


def _file() -> Path:
    return user_folder() / "programs.json"


def _read() -> dict[str, Any]:
    return read_table(_file())


def _name(root: Path) -> str:
    return os.path.normcase(os.path.abspath(root))

"""What the window remembers of itself: size, language, theme, scale, the last page, what is folded, export targets.

The file is written by a thread of its own: a slow disk never holds the window up.
"""

from __future__ import annotations

import contextlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from trainer import files
from trainer.paths import user_folder

DEFAULTS: dict[str, Any] = {
    "geometry": "",  # QMainWindow.saveGeometry as base64
    "language": "",  # "" takes the system's
    "theme": "system",
    "scale": 100,
    "page": "model",
    "folded": {},  # name of a foldable part -> it is folded
    "export_targets": [],  # folders of WebUIs, the last used first
    "recent": [],  # run files, the last used first
    "models": [],  # base models, the last used first
    "taken_over": {},  # place -> value that a base model has set, see app/family_defaults.py
    "hub_address": "",  # a mirror of the hub; "" is the hub itself
    "tool": "convert",  # that was used last
    "said": [],  # things that are said only once
    "taggers": [],  # folders of tagger models, the last used first
}


_WRITER = ThreadPoolExecutor(1, thread_name_prefix="preferences")  # finishes its work when the process ends


class Preferences:
    """A small JSON file, written at each change. A damaged or missing one gives the defaults."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or user_folder() / "preferences.json"
        self._values: dict[str, Any] = {}
        self._waiting: str | None = None  # the newest text that is not on the disk yet
        self._lock = threading.Lock()
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(self.path.read_text(encoding="utf-8"))
            self._values = found if isinstance(found, dict) else {}

    def get(self, key: str, default: Any = None) -> Any:
        """The value of `key`; of one that was never set (or has another type than its default), the default."""
        fallback = DEFAULTS.get(key, default)
        value = self._values.get(key, fallback)
        return value if fallback is None or isinstance(value, type(fallback)) else fallback

    def set(self, key: str, value: Any) -> None:
        """Remember. A disk that refuses is no reason to disturb: the value holds until the window closes."""
        if self._values.get(key) == value:
            return
        self._values[key] = value
        text = json.dumps(self._values, ensure_ascii=False, indent=1)
        with self._lock:
            self._waiting = text
        _WRITER.submit(self._write)

    def flush(self) -> None:
        """Wait until what was set is on the disk (the window closes)."""
        _WRITER.submit(self._write).result()

    def _write(self) -> None:
        with self._lock:
            text, self._waiting = self._waiting, None
        if text is not None:
            with contextlib.suppress(OSError):
                files.write_text(self.path, text)

    def folded(self, name: str, default: bool = True) -> bool:
        """Whether a foldable part is folded."""
        return bool(self.get("folded").get(name, default))

    def set_folded(self, name: str, folded: bool) -> None:
        self.set("folded", {**self.get("folded"), name: folded})

    def remember(self, key: str, value: str, limit: int = 8) -> None:
        """Put `value` first in a list of last used things."""
        self.set(key, [value, *(old for old in self.get(key) if old != value)][:limit])

    def say_once(self, name: str) -> bool:
        """True the first time it is asked for `name`, ever."""
        said = self.get("said")
        if name in said:
            return False
        self.set("said", [*said, name])
        return True

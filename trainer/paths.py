"""Where things lie: what ships with the program, and the one user folder for caches, drafts and preferences."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESOURCES = ROOT / "resources"


def user_folder() -> Path:
    """The user's folder for caches, drafts and preferences; `ATHANOR_HOME` moves it (tests always do)."""
    chosen = os.environ.get("ATHANOR_HOME")
    if chosen:
        return Path(chosen)
    import platformdirs

    return Path(platformdirs.user_data_dir("Athanor", appauthor=False))


def cache_folder() -> Path:
    """The shared cache of latents and text states (content addressed, so any run may use any entry)."""
    return user_folder() / "cache"


def default_runs_folder() -> Path:
    """Where runs go if the user names no folder."""
    return user_folder() / "runs"

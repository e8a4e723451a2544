"""`import` without what PySide6 adds to it.

PySide6 puts its own function in the place of `import`, which reads the source of every module that comes after it in search
of "PySide6": features that change Qt's classes module by module, and are switched on by an import of their own, depend on
it. Nothing here switches any on; without it the window is painted a tenth sooner.
"""

from __future__ import annotations

import builtins


def import_plainly() -> None:
    """Put the function back that was there before, if PySide6 (which must be imported) has replaced it."""
    builtins.__import__ = getattr(builtins, "__orig_import__", builtins.__import__)

"""How a command learns that it is to stop: a signal, or a file that works on every system."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType


@contextlib.contextmanager
def stop_asked(stop_file: Path | None) -> Iterator[Callable[[], bool]]:
    """Whether to stop: after Ctrl+C (or a terminate signal), or once `stop_file` exists. A second Ctrl+C interrupts."""
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    names = [name for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)]
    before = {getattr(signal, name): signal.signal(getattr(signal, name), ask) for name in names}
    try:
        yield lambda: asked or (stop_file is not None and stop_file.exists())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""What the window knows of the machine, asked off its thread: the graphics cards, their memory, and who uses it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from PySide6.QtCore import QObject, Signal

from app.work import Latest

FIELDS = "name,memory.total,memory.free,compute_cap"


@dataclass(frozen=True)
class Card:
    """A graphics card; memory in bytes."""

    name: str
    total: int
    free: int
    capability: float

    @property
    def has_bf16(self) -> bool:
        return self.capability >= 8.0


class Machine(QObject):
    """Asks for the cards once at the start and whenever it is told to.

    Signals:
        changed(): `cards` is new.
    """

    changed = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.cards: tuple[Card, ...] | None = None  # None: not known yet
        self._asks = Latest(self, self._take)

    def ask(self) -> None:
        self._asks.ask(nvidia_cards)

    def _take(self, cards: tuple[Card, ...]) -> None:
        if cards != self.cards:
            self.cards = cards
            self.changed.emit()


def nvidia_cards() -> tuple[Card, ...]:
    """The NVIDIA cards as the driver's own tool tells them; none where there is no driver. Any thread."""
    import subprocess

    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    command = [tool, f"--query-gpu={FIELDS}", "--format=csv,noheader,nounits"]
    flags = getattr(subprocess, "CREATE_NO_WINDOW", 0)
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=10,
            check=True,
            creationflags=flags,
            encoding="utf-8",
            errors="replace",
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return parse_cards(done.stdout)


def parse_cards(text: str) -> tuple[Card, ...]:
    """The tool's lines "NVIDIA GeForce RTX 3060, 12288, 11000, 8.6" as cards; lines it cannot read are left out."""
    cards = []
    for line in text.splitlines():
        name, *figures = (part.strip() for part in line.rsplit(",", 3))
        try:
            total, free, capability = (float(figure) for figure in figures)
        except ValueError:
            continue
        cards.append(Card(name, int(total) * 2**20, int(free) * 2**20, capability))
    return tuple(cards)

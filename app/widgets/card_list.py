"""A list of tables in the run (picture folders, prompts) as cards one below the other; an empty one is an invitation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtWidgets import QVBoxLayout, QWidget

from app import theme
from app.draft import Draft
from app.slices import Pieces, Slices, Task
from app.widgets.basics import Card, Invitation


class EntryCard(Card):
    """One table of a list in the draft, which it follows for as long as it is there.

    Signals:
        removed(number): its remove button was pressed.
    """

    removed = Signal(int)

    def __init__(self, draft: Draft, list_place: str, number: int) -> None:
        super().__init__()
        self.draft, self.number = draft, number
        self._list_place = list_place
        self.place = f"{list_place}[{number}]"

    def build(self) -> Pieces:
        """Make what the card shows, piece by piece."""
        raise NotImplementedError

    def refresh(self) -> None:
        """Show the draft's values."""
        raise NotImplementedError

    def show_problems(self) -> None:
        """Show what the checks say of this entry."""
        raise NotImplementedError

    @property
    def is_gone(self) -> bool:
        """Whether the list has become shorter: the card is about to go, too."""
        entries = self.draft.get(self._list_place)
        return not isinstance(entries, list) or len(entries) < self.number

    def depends_on(self, place: str) -> bool:
        """Whether an edit of `place` matters to this card ("": many were edited)."""
        return not place or place == self._list_place or place.startswith(self.place)

    def follow(self) -> None:
        """Show the draft now and from now on."""
        self.refresh()
        self.show_problems()
        self.draft.changed.connect(self._on_changed)
        self.draft.checked.connect(self._on_checked)

    def _on_changed(self, place: str) -> None:
        if self.depends_on(place) and not self.is_gone:
            self.refresh()

    def _on_checked(self) -> None:
        if not self.is_gone:
            self.show_problems()


class CardList(QWidget):
    """See the module.

    Signals:
        cards_changed(): a card has come or gone.
    """

    cards_changed = Signal()

    def __init__(
        self, draft: Draft, place: str, slices: Slices, invitation: Invitation, make: Callable[[int], EntryCard]
    ) -> None:
        """`make(number)` makes the card of an entry, counted from 1."""
        super().__init__()
        self.draft, self.place, self.invitation = draft, place, invitation
        self._slices, self._make = slices, make
        self._built: list[EntryCard] = []
        self._task: Task | None = None
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(theme.px(2 * theme.SPACE))
        column.addWidget(invitation)
        self._column = QVBoxLayout()
        self._column.setSpacing(theme.px(1.5 * theme.SPACE))
        column.addLayout(self._column)
        self.below = QWidget()  # buttons, where there are entries
        column.addWidget(self.below)
        self._follow()
        draft.changed.connect(self._on_changed)

    @property
    def entries(self) -> list[dict[str, Any]]:
        """The tables as they stand in the draft."""
        found = self.draft.get(self.place)
        return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []

    @property
    def cards(self) -> list[Any]:
        """A card for each entry; those that are not made yet are made now."""
        if self._task is not None:
            self._task.finish()
        return self._built

    def set_entries(self, entries: list[dict[str, Any]]) -> None:
        self.draft.set(self.place, entries)

    def remove(self, number: int) -> None:
        """Take an entry out of the list (Ctrl+Z brings it back)."""
        entries = self.entries
        self.set_entries(entries[: number - 1] + entries[number:])

    def focus(self, target: QWidget) -> None:
        """Give the keyboard to `target` as soon as it is in view."""
        QTimer.singleShot(0, target, lambda: target.setFocus(Qt.FocusReason.ShortcutFocusReason))

    def _on_changed(self, place: str) -> None:
        if place in ("", self.place):
            self._follow()

    def _follow(self) -> None:
        """As many cards as entries."""
        number = len(self.entries)
        had = len(self._built)
        for card in self._built[number:]:
            card.hide()
            card.deleteLater()
        del self._built[number:]
        self.invitation.setVisible(not number)
        self.below.setVisible(bool(number))
        if len(self._built) < number and (self._task is None or self._task.is_done):
            self._task = self._slices.start(self._make_cards())
        if had > number:
            self.cards_changed.emit()

    def _make_cards(self) -> Pieces:
        while len(self._built) < len(self.entries):
            card = self._make(len(self._built) + 1)
            card.removed.connect(self.remove)
            yield from card.build()
            if card.is_gone:
                card.deleteLater()
                continue
            card.follow()
            self._built.append(card)
            self._column.addWidget(card)
            self.cards_changed.emit()
            yield

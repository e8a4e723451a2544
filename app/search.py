"""Finding a setting or a tool by its name in either language or by kohya's, and the field in the header that does it."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, QSortFilterProxyModel, Qt, QTimer, Signal
from PySide6.QtGui import QFocusEvent, QStandardItem, QStandardItemModel
from PySide6.QtWidgets import QCompleter, QWidget

from app import theme
from app.i18n import tr, translate_message, translate_trainer
from app.pages import page_of, title_of
from app.widgets.line_edit import ClearableEdit

PLACE = Qt.ItemDataRole.UserRole + 1
WORDS = Qt.ItemDataRole.UserRole + 2


@dataclass(frozen=True)
class Entry:
    """A setting or a tool as the search knows it."""

    place: str
    label: str  # in the window's language
    words: str  # all that it can be found by, lower case


def entries() -> list[Entry]:
    """Every setting of the schema, and every tool."""
    return [*_settings(), *_tools()]


def _settings() -> list[Entry]:
    from trainer.config.fields import item_section, settings_of
    from trainer.config.run import sections

    found: list[Entry] = []
    for section, kind in sections().items():
        for key, field, info in settings_of(kind):
            place = f"{section}.{key}"
            label = translate_trainer(info.label)
            words = [place, info.label, label, key, *info.kohya, *(str(choice.value) for choice in info.choices)]
            item = item_section(field)
            if item is not None:
                words += [part.label for _, _, part in settings_of(item)]
                words += [translate_trainer(part.label) for _, _, part in settings_of(item)]
                words += [name for _, _, part in settings_of(item) for name in part.kohya]
            found.append(Entry(place, label, " ".join(words).lower()))
    return found


def _tools() -> list[Entry]:
    from trainer.tools.catalog import TOOLS

    found = []
    for name, tool in TOOLS.items():
        label = translate_message(tool.title)
        words = (f"tools.{name}", str(tool.title), label, str(tool.summary), title_of("tools"), "tools utilities")
        found.append(Entry(f"tools.{name}", label, " ".join(words).lower()))
    return found


def matches(entry: Entry, typed: str) -> bool:
    """Whether each word typed is in the entry; blanks and underscores are the same."""
    words = entry.words.replace("_", " ")
    return all(part in words or part in entry.words for part in typed.lower().replace("_", " ").split())


def rank(entry: Entry, typed: str) -> int:
    """How near a match is: its own name first, then what begins so, then the rest in the schema's order."""
    wanted = typed.lower().strip()
    names = {entry.place, entry.label.lower(), *entry.words.replace("_", " ").split()}
    if wanted in (entry.label.lower(), entry.place, entry.place.partition(".")[2]):
        return 0
    return 1 if entry.label.lower().startswith(wanted) else 2 if wanted in names else 3


class _Filter(QSortFilterProxyModel):
    typed = ""

    def filterAcceptsRow(self, row: int, parent: QModelIndex | QPersistentModelIndex) -> bool:
        entry = self.sourceModel().index(row, 0, parent).data(WORDS)
        return matches(entry, self.typed)

    def lessThan(self, left: QModelIndex | QPersistentModelIndex, right: QModelIndex | QPersistentModelIndex) -> bool:
        order = [(rank(index.data(WORDS), self.typed), index.row()) for index in (left, right)]
        return order[0] < order[1]


class SearchBox(ClearableEdit):
    """The search field.

    Signals:
        found(place): the user chose a setting.
    """

    found = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent=parent, hint=tr("Find a setting (Ctrl+F)"), icon="search")
        self.setAccessibleName(tr("Find a setting"))
        self.setMinimumWidth(theme.px(140))
        self.setMaximumWidth(theme.px(280))
        self._filter: _Filter | None = None
        self._chosen = ""
        self.textEdited.connect(self._narrow)
        self.returnPressed.connect(self._take_first)

    def focusInEvent(self, event: QFocusEvent) -> None:
        self._fill()
        super().focusInEvent(event)

    def _fill(self) -> None:
        """Read the schema when the field is first used."""
        if self._filter is not None:
            return
        model = QStandardItemModel(self)
        for entry in entries():
            item = QStandardItem(f"{entry.label}   ·   {title_of(page_of(entry.place))}")
            item.setData(entry.place, PLACE)
            item.setData(entry, WORDS)
            model.appendRow(item)
        self._filter = _Filter(self)
        self._filter.setSourceModel(model)
        completer = QCompleter(self._filter, self)
        completer.setCompletionMode(QCompleter.CompletionMode.UnfilteredPopupCompletion)
        completer.setMaxVisibleItems(12)
        completer.activated[QModelIndex].connect(self._take)  # type: ignore[index]
        self.setCompleter(completer)

    def results(self, typed: str) -> list[str]:
        """The places that fit what is typed, as the list under the field shows them."""
        self._fill()
        self._narrow(typed)
        assert self._filter is not None
        return [self._filter.index(n, 0).data(PLACE) for n in range(self._filter.rowCount())]

    def _narrow(self, typed: str) -> None:
        if self._filter is not None:
            self._filter.typed = typed
            self._filter.invalidate()
            self._filter.sort(0)

    def _take(self, index: QModelIndex) -> None:
        self._jump(index.data(PLACE))

    def _take_first(self) -> None:
        """Return was pressed: what was chosen in the list by arrows (its words stand in the field then), else the first."""
        model = self._filter
        if model is None or not self.text():
            return
        chosen = [
            model.index(n, 0).data(PLACE) for n in range(model.rowCount()) if model.index(n, 0).data() == self.text()
        ]
        if places := chosen or self.results(self.text()):
            self._jump(places[0])

    def _jump(self, place: str) -> None:
        """Say what was found when the list has closed: it writes into the field and takes the keyboard until then."""
        self._chosen = place
        QTimer.singleShot(0, self, self._tell)

    def _tell(self) -> None:
        place, self._chosen = self._chosen, ""
        if place:
            self.clear()
            self.found.emit(place)

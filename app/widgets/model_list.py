"""Models on this computer: those used before and those of the programs found, with what each is."""

from __future__ import annotations

from itertools import product
from pathlib import Path

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.i18n import tr, translate_message
from app.model_finder import Group, facts_of, find_models
from app.preferences import Preferences
from app.widgets.basics import button, label, row, tool_button
from app.widgets.line_edit import ClearableEdit
from app.words import size_words
from app.work import Latest
from trainer.models.header import FAMILY_TITLES, INPAINTING_CHANNELS, ModelFacts, base_problem

RECENT = "models"  # preference: base models, the last used first
TARGETS = "export_targets"
AT_ONCE = 12  # files looked into before the list is renewed
SEARCH_FROM = 10  # entries
ROWS = 9  # shown without scrolling
PATH_ROLE = Qt.ItemDataRole.UserRole


class ModelList(QWidget):
    """See the module. Folders and files are read in the pool; names come first, what they are little by little.

    Signals:
        chosen(path): a model was taken.
    """

    chosen = Signal(str)

    def __init__(self, preferences: Preferences) -> None:
        super().__init__()
        self._preferences = preferences
        self._finds = Latest(self, self._show)
        self._facts = Latest(self, self._take_facts)
        self._items: dict[str, QTreeWidgetItem] = {}
        self._shown: dict[str, ModelFacts] = {}  # what the items say
        self._unknown: list[str] = []
        self._groups: tuple[Group, ...] | None = None
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(theme.px(theme.SPACE))
        self.state = label(tr("Looking for models…"), "muted", wrap=True)
        self.search = ClearableEdit(hint=tr("Search by name, family or folder"))
        self.search.setAccessibleName(tr("Search models"))
        self.search.textChanged.connect(self._filter)
        self.tree = self._build_tree()
        self.use_button = button(tr("Use this model"), self._use_current)
        self.use_button.setEnabled(False)
        again = tool_button("refresh-cw", tr("Look again"), self.look, role="muted")
        for widget in (self.state, self.search, self.tree):
            column.addWidget(widget)
        column.addLayout(row(self.use_button, None, again))
        self.search.hide()
        self.tree.hide()
        self.use_button.hide()

    def _build_tree(self) -> QTreeWidget:
        tree = QTreeWidget(uniformRowHeights=True, accessibleName=tr("Models on this computer"))
        tree.setHeaderLabels([tr("Model"), tr("What it is"), tr("Size")])
        head = tree.headerItem()
        assert head is not None
        head.setTextAlignment(2, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        tree.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        tree.setRootIsDecorated(False)
        tree.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        tree.setIndentation(theme.px(12))
        header = tree.header()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        for column in (1, 2):  # made wide enough by `_fit`: Qt would measure all rows anew
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.Fixed)
        tree.itemActivated.connect(lambda item, _: self._use(item))
        tree.itemSelectionChanged.connect(lambda: self.use_button.setEnabled(bool(tree.selectedItems())))
        return tree

    def look(self) -> None:
        """Search the disk for models."""
        recent, installs = list(self._preferences.get(RECENT)), list(self._preferences.get(TARGETS))
        self._finds.ask(lambda: find_models(recent, installs))

    # ---- what is shown ----

    def _show(self, groups: tuple[Group, ...]) -> None:
        if groups != self._groups:
            self._groups = groups
            self._fill(groups)
        self._unknown = list(self._items)
        self._ask_facts()
        self._filter(self.search.text())

    def _fill(self, groups: tuple[Group, ...]) -> None:
        self.tree.clear()
        self._items.clear()
        self._shown.clear()
        for group in groups:
            title = group.title or tr("Used before")
            head = QTreeWidgetItem(self.tree, [f"{title}   {group.place}".rstrip()])
            head.setFlags(Qt.ItemFlag.ItemIsEnabled)
            head.setFirstColumnSpanned(True)
            head.setForeground(0, theme.qcolour("muted"))
            for path in group.models:
                item = QTreeWidgetItem([Path(path).name if group.title else path])
                item.setData(0, PATH_ROLE, path)
                item.setToolTip(0, path)
                item.setTextAlignment(2, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                self._items[path] = item
            head.addChildren([self._items[path] for path in group.models])
            head.setExpanded(True)
        found = bool(self._items)
        self.state.setText("" if found else tr("None found where image programs are usually installed."))
        self.state.setVisible(not found)
        for widget in (self.tree, self.use_button):
            widget.setVisible(found)
        self.search.setVisible(len(self._items) >= SEARCH_FROM)
        shown = min(ROWS, len(self._items) + len(groups))
        self.tree.setFixedHeight((shown + 1) * (self.tree.fontMetrics().height() + theme.px(10)) + theme.px(12))
        for column in (1, 2):
            self.tree.setColumnWidth(column, self.tree.header().sectionSizeHint(column))

    def _fit(self, items: list[QTreeWidgetItem]) -> None:
        """Make the columns wide enough for these too."""
        for item, column in product(items, (1, 2)):
            needed = self.tree.sizeHintForIndex(self.tree.indexFromItem(item, column)).width()
            if needed > self.tree.columnWidth(column):
                self.tree.setColumnWidth(column, needed)

    def _ask_facts(self) -> None:
        paths, self._unknown = self._unknown[:AT_ONCE], self._unknown[AT_ONCE:]
        if paths:
            self._facts.ask(lambda: facts_of(paths))

    def _take_facts(self, answer: list[tuple[str, ModelFacts]]) -> None:
        changed = []
        for path, facts in answer:
            item = self._items.get(path)
            if item is not None and facts != self._shown.get(path):
                self._shown[path] = facts
                _show_facts(item, facts)
                changed.append(item)
        self._fit(changed)
        if self.search.text():
            self._filter(self.search.text())
        QTimer.singleShot(0, self, self._ask_facts)

    def _filter(self, text: str) -> None:
        needle = text.strip().lower()
        for head in (self.tree.topLevelItem(place) for place in range(self.tree.topLevelItemCount())):
            assert head is not None
            hits = 0
            for place in range(head.childCount()):
                item = head.child(place)
                assert item is not None
                is_hit = not needle or needle in f"{item.text(0)} {item.text(1)} {item.data(0, PATH_ROLE)}".lower()
                if item.isHidden() is is_hit:  # Qt would go through the rows for each item
                    item.setHidden(not is_hit)
                hits += is_hit
            head.setHidden(not hits)

    # ---- choosing ----

    def _use_current(self) -> None:
        for item in self.tree.selectedItems():
            self._use(item)

    def _use(self, item: QTreeWidgetItem) -> None:
        path = item.data(0, PATH_ROLE)
        if path:
            self.chosen.emit(path)


def _show_facts(item: QTreeWidgetItem, facts: ModelFacts) -> None:
    """A model's family and size; what cannot be trained is greyed, with the reason in the tooltip."""
    inpainting = tr("inpainting") if facts.in_channels == INPAINTING_CHANNELS else ""
    words = " · ".join(filter(None, (FAMILY_TITLES.get(facts.family or "", ""), inpainting, facts.dtype or "")))
    item.setText(1, words or translate_message(facts.summary)[:60])
    item.setText(2, size_words(facts.num_bytes) if facts.num_bytes else "")
    problem = base_problem(facts, has_vae=True, has_text=True)
    tip = f"{item.data(0, PATH_ROLE)}\n{translate_message(problem or facts.summary)}"
    for column in range(3):
        item.setToolTip(column, tip)
        if problem is not None:
            item.setForeground(column, theme.qcolour("muted"))

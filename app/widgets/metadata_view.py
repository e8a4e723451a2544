"""The metadata viewer: what a model file says about itself, as a tree, with its tags and its tensors as tables.

Read-only, beside the window, for as many files as one likes. Everything slow happens in the pool.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PySide6.QtCore import (
    QAbstractItemModel,
    QAbstractTableModel,
    QModelIndex,
    QPersistentModelIndex,
    QPoint,
    Qt,
)
from PySide6.QtGui import QAction, QKeySequence
from PySide6.QtWidgets import (
    QAbstractItemView,
    QDialog,
    QHeaderView,
    QMenu,
    QTableView,
    QTabWidget,
    QTreeView,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.errors import copy_text
from app.header_tree import Document, Node, Row, all_as_json, arranged, count, filtered, read_document
from app.i18n import tr, translate_message
from app.widgets.basics import ElidedLabel, button, fitted, label, row, set_role
from app.widgets.line_edit import ClearableEdit
from app.words import count_words, size_words
from app.work import Latest

COLUMN_WIDTHS = (130, 110, 100, 160)  # of the tables, behind their first column
EXPANDED_UP_TO = 400  # entries that are all unfolded at once
Index = QModelIndex | QPersistentModelIndex
NOWHERE = QModelIndex()


class NodeModel(QAbstractItemModel):
    """A tree of nodes in two columns: name and value."""

    def __init__(self, root: Node, parent: QWidget) -> None:
        super().__init__(parent)
        self.root = root

    def set_root(self, root: Node) -> None:
        self.beginResetModel()
        self.root = root
        self.endResetModel()

    def node(self, index: Index) -> Node:
        found: Node = index.internalPointer() if index.isValid() else self.root
        return found

    def index(self, row: int, column: int, parent: Index = NOWHERE) -> QModelIndex:
        children = self.node(parent).children
        return self.createIndex(row, column, children[row]) if 0 <= row < len(children) else QModelIndex()

    def parent(self, index: Index = NOWHERE) -> QModelIndex:  # type: ignore[override]
        above = self.node(index).parent if index.isValid() else None
        return QModelIndex() if above is None or above is self.root else self.createIndex(above.row, 0, above)

    def rowCount(self, parent: Index = NOWHERE) -> int:
        return 0 if parent.column() > 0 else len(self.node(parent).children)

    def columnCount(self, parent: Index = NOWHERE) -> int:
        return 2

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        node = self.node(index)
        if role == Qt.ItemDataRole.DisplayRole:
            return node.line if index.column() else node.name
        if role == Qt.ItemDataRole.ToolTipRole and index.column() and len(node.line) > 60:
            return f"<p>{_escaped(node.whole[:2000])}</p>"
        return None

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if role == Qt.ItemDataRole.DisplayRole and orientation == Qt.Orientation.Horizontal:
            return tr("Value") if section else tr("Entry")
        return None


def _escaped(text: str) -> str:
    from html import escape

    return escape(text).replace("\n", "<br>")


class RowModel(QAbstractTableModel):
    """Rows of values.

    Args:
        headings: of the columns.
        words: a value of a column as people read it.
    """

    def __init__(
        self, rows: Sequence[Row], headings: Sequence[str], words: Callable[[int, Any], str], parent: QWidget
    ) -> None:
        super().__init__(parent)
        self.rows = list(rows)
        self._sample = rows[0]  # tells what sort of values a column has
        self._headings, self._words = headings, words

    def rowCount(self, parent: Index = NOWHERE) -> int:
        return 0 if parent.isValid() else len(self.rows)

    def columnCount(self, parent: Index = NOWHERE) -> int:
        return len(self._headings)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        value = self.rows[index.row()][index.column()]
        if role == Qt.ItemDataRole.DisplayRole:
            return self._words(index.column(), value)
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return _alignment(value)
        return str(value) if role == Qt.ItemDataRole.ToolTipRole and isinstance(value, str) else None

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if orientation != Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return self._headings[section]
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return _alignment(self._sample[section])
        return None

    def show_rows(self, rows: list[Row]) -> None:
        self.beginResetModel()
        self.rows = rows
        self.endResetModel()


def _alignment(value: Any) -> Qt.AlignmentFlag:
    """Numbers stand right, and so does what is above them."""
    side = Qt.AlignmentFlag.AlignRight if isinstance(value, int) else Qt.AlignmentFlag.AlignLeft
    return side | Qt.AlignmentFlag.AlignVCenter


@dataclass
class _Table:
    """A table of the viewer: everything that it can show, and by what it is sorted."""

    view: QTableView
    model: RowModel
    all: Sequence[Row]
    column: int | None = None
    down: bool = False


class MetadataView(QDialog):
    """See the module."""

    def __init__(self, parent: QWidget, path: Path) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle(tr("What {file} says", file=path.name))
        self.resize(fitted(self, 860, 640))
        self.path = path
        self.document: Document | None = None
        self.tables: list[_Table] = []
        self._reads = Latest(self, self._show)
        self._filters = Latest(self, self._show_filtered)
        self._build()
        self._reads.ask(lambda: read_document(path))

    def _build(self) -> None:
        column = QVBoxLayout(self)
        column.setSpacing(theme.px(theme.SPACE))
        column.addWidget(ElidedLabel(str(self.path), "heading"))
        self.summary = label(tr("Reading…"), "muted", wrap=True)
        column.addWidget(self.summary)
        self.search = ClearableEdit(hint=tr("Search in everything"))
        self.search.setAccessibleName(tr("Search"))
        self.search.textChanged.connect(self._refresh)
        column.addWidget(self.search)
        self.tabs = QTabWidget(documentMode=True)
        self.tabs.tabBar().setDrawBase(False)
        self.tree = QTreeView(alternatingRowColors=True, uniformRowHeights=True, accessibleName=tr("Metadata"))
        self.tree.setIndentation(theme.px(20))
        self.tree_model = NodeModel(Node("", {}), self)
        self.tree.setModel(self.tree_model)
        self.tree.header().setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
        self.tree.header().resizeSection(0, min(theme.px(320), self.width() // 2))
        self.tabs.addTab(self.tree, tr("Metadata"))
        column.addWidget(self.tabs, 1)
        self.copy_all = button(tr("Copy all as JSON"), self._copy_all, icon="copy")
        self.copy_all.setEnabled(False)
        column.addLayout(row(self.copy_all, None, button(tr("Close"), self.close)))
        self._offer_copy(self.tree, self._tree_text)
        find = QAction(self)
        find.setShortcut(QKeySequence(QKeySequence.StandardKey.Find))
        find.triggered.connect(lambda: self.search.setFocus(Qt.FocusReason.ShortcutFocusReason))
        self.addAction(find)
        self.search.setFocus()

    def _show(self, document: Document) -> None:
        self.document = document
        problem = document.facts.kind in ("broken", "missing", "unknown", "pickle") and document.facts.problem
        self.summary.setText(translate_message(problem or document.facts.summary))
        set_role(self.summary, "problem" if problem else "muted")
        self._add_table(document.tags, tr("Tags"), (tr("Tag"), tr("Pictures"), tr("Folder")), _tag_words)
        headings = (tr("Tensor"), tr("Shape"), tr("Type"), tr("Size"), tr("File"))
        self._add_table(document.tensors, tr("Tensors"), headings, _tensor_words)
        if self.tables and not any(row[-1] for row in self.tables[-1].all):
            self.tables[-1].view.setColumnHidden(len(headings) - 1, True)
        self.copy_all.setEnabled(bool(document.root.children))
        if not document.root.children:
            self.tabs.setTabText(0, tr("No metadata"))
            self.tabs.setCurrentIndex(self.tabs.count() - 1)
        self._refresh()

    def _add_table(
        self, rows: Sequence[Row], title: str, headings: Sequence[str], words: Callable[[int, Any], str]
    ) -> None:
        """A tab with a table; none where there are no rows."""
        if not rows:
            return
        view = QTableView(alternatingRowColors=True, showGrid=False, accessibleName=title)
        table = _Table(view, RowModel(rows, headings, words, self), rows)
        view.setModel(table.model)
        header = view.horizontalHeader()
        header.setSectionsClickable(True)
        header.sectionClicked.connect(lambda column: self._sort(table, column))
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        for column, width in enumerate(COLUMN_WIDTHS[: len(headings) - 1], 1):
            header.resizeSection(column, theme.px(width))
        view.setTextElideMode(Qt.TextElideMode.ElideMiddle)  # names of tensors differ at their end
        view.verticalHeader().hide()
        view.verticalHeader().setDefaultSectionSize(view.fontMetrics().height() + theme.px(10))
        view.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        view.setTabKeyNavigation(False)
        self._offer_copy(view, lambda: _table_text(view))
        self.tables.append(table)
        self.tabs.addTab(view, f"{title} ({count_words(len(rows))})")

    # ---- searching and sorting ----

    def _refresh(self) -> None:
        """Look for what is to be shown, in the pool: a file may have tens of thousands of entries."""
        if self.document is None:
            return
        root, text = self.document.root, self.search.text()
        asked = [(table.all, table.column, table.down) for table in self.tables]
        self._filters.ask(
            lambda: (text, filtered(root, text), [arranged(rows, text, column, down) for rows, column, down in asked])
        )

    def _show_filtered(self, answer: tuple[str, Node, list[list[Row]]]) -> None:
        text, root, tables = answer
        self.tree_model.set_root(root)
        if text and count(root) <= EXPANDED_UP_TO:
            self.tree.expandAll()
        for table, rows in zip(self.tables, tables, strict=True):
            table.model.show_rows(rows)

    def _sort(self, table: _Table, column: int) -> None:
        """Sort by a column; a second press the other way round."""
        table.column, table.down = column, column == table.column and not table.down
        header = table.view.horizontalHeader()
        order = Qt.SortOrder.DescendingOrder if table.down else Qt.SortOrder.AscendingOrder
        header.setSortIndicatorShown(True)
        header.setSortIndicator(column, order)
        self._refresh()

    # ---- copying ----

    def _offer_copy(self, view: QAbstractItemView, text: Callable[[], str]) -> None:
        action = QAction(tr("Copy"), view)
        action.setShortcut(QKeySequence(QKeySequence.StandardKey.Copy))
        action.setShortcutContext(Qt.ShortcutContext.WidgetShortcut)
        action.triggered.connect(lambda: copy_text(text()))
        view.addAction(action)
        view.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        view.customContextMenuRequested.connect(lambda place: _show_menu(view, action, place))
        view.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)

    def _tree_text(self) -> str:
        nodes = [self.tree_model.node(index) for index in self.tree.selectionModel().selectedRows(0)]
        if len(nodes) == 1:
            return nodes[0].whole
        return "\n".join(f"{node.name}: {node.whole}" for node in nodes)

    def _copy_all(self) -> None:
        if self.document is not None:
            copy_text(all_as_json(self.document.root))


def _show_menu(view: QAbstractItemView, action: QAction, place: QPoint) -> None:
    menu = QMenu(view)
    menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    menu.addAction(action)
    menu.popup(view.viewport().mapToGlobal(place))


def _table_text(table: QTableView) -> str:
    """The selected rows, columns apart by tabs, as a spreadsheet takes them."""
    model = table.model()
    rows = sorted(index.row() for index in table.selectionModel().selectedRows(0))
    columns = [column for column in range(model.columnCount()) if not table.isColumnHidden(column)]
    return "\n".join("\t".join(str(model.index(row, column).data()) for column in columns) for row in rows)


def _tag_words(column: int, value: Any) -> str:
    return count_words(value) if column == 1 else str(value)


def _tensor_words(column: int, value: Any) -> str:
    if column == 1:
        return " × ".join(map(str, value)) or "1"
    return size_words(value) if column == 3 else str(value)

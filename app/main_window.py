"""The window: joins sidebar, pages, help panel and strip with the draft and the runs. No rules live here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QByteArray, QCoreApplication, QEvent, Qt, QTimer, Signal
from PySide6.QtGui import QAction, QCloseEvent, QGuiApplication, QKeySequence, QPaintEvent, QResizeEvent
from PySide6.QtWidgets import (
    QApplication,
    QHBoxLayout,
    QMainWindow,
    QMenu,
    QMessageBox,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from app import i18n, icons, theme
from app.collector import collect_everything
from app.draft import Draft
from app.family_defaults import FamilyDefaults
from app.files_menu import RunFiles
from app.form import Row
from app.hub_download import HubDownload, use_mirror
from app.i18n import tr
from app.machine import Machine
from app.news import News
from app.page_stack import PageStack
from app.pages import PAGES, WIZARD, page_of
from app.pages.base import Context, Page
from app.preferences import Preferences
from app.reading_order import move_focus
from app.search import SearchBox
from app.slices import Slices
from app.starting import Starter
from app.tool_jobs import Jobs
from app.widgets.basics import tool_button
from app.widgets.help_panel import WIDTH as HELP_WIDTH
from app.widgets.help_panel import HelpPanel
from app.widgets.sidebar import WIDTH as SIDEBAR_WIDTH
from app.widgets.sidebar import Sidebar
from app.widgets.strip import Strip

SIZE, LEAST = (1280, 800), (900, 600)
RUNS_MS, AHEAD_MS = 300, 600  # after the first paint: the first look for runs, and the pages nobody has opened
NARROW_BELOW = 900  # design pixels of width: below, the sidebar is icons alone


class MainWindow(QMainWindow):
    """See the module. Widgets are built anew when language, theme or scale change; draft and runs stay.

    Signals:
        first_painted(): the window can be seen; its page is built from now on.
    """

    first_painted = Signal()

    def __init__(self, preferences: Preferences, file: Path | None = None) -> None:
        super().__init__()
        self.preferences = preferences
        self.draft = Draft(parent=self)
        self.context = Context(
            self.draft, preferences, Machine(self), Slices(self),
            jump=self.jump, open_page=self.open_page, rebuild=self.rebuild,
        )  # fmt: skip
        self.context.news = News(self)
        self.context.jobs = Jobs(self)
        self.context.download = HubDownload(self)
        self.context.family_defaults = FamilyDefaults(self.draft, preferences, self)
        use_mirror(preferences)
        self.run_files = RunFiles(self, self.context)
        self.starter = Starter(self, self.context)
        self.context.open_file = self.run_files.open
        self.context.save_file = self.run_files.save_as
        self.context.try_example = self.run_files.try_example
        self.context.start = self.starter.start
        self.setWindowIcon(icons.app_icon())
        self.setMinimumSize(*LEAST)
        self._help_asked = False
        self._history: list[str] = []
        self._place_in_history = -1
        self.page_key = ""
        self._build()
        self._make_actions()
        self._restore_size()
        self.draft.checked.connect(self._show_marks)
        self.draft.edited.connect(self._show_title)
        self.draft.file_changed.connect(self._show_title)
        self.starter.running_changed.connect(self._show_running)
        self._follow_news()
        self.open_page(preferences.get("page"))
        QGuiApplication.styleHints().colorSchemeChanged.connect(self._follow_system)
        self._is_painted = False
        self.context.slices.hold(True)
        self.first_painted.connect(self._begin)
        if file is not None:
            QTimer.singleShot(0, self, lambda: self.run_files.open_path(file))

    # ---- building ----

    def _build(self) -> None:
        """Everything that has words, colours and sizes in it."""
        ground = QWidget(objectName="Ground")
        across = QHBoxLayout()
        across.setContentsMargins(0, 0, 0, 0)
        across.setSpacing(0)
        self.sidebar = Sidebar()
        self.sidebar.chosen.connect(self.open_page)
        self.stack = PageStack(self.context, self.starter.with_runs)
        self.help = HelpPanel()
        self.help.closed.connect(lambda: self._fold_help(True))
        self.stack.currentChanged.connect(self._show_advice)
        across.addWidget(self.sidebar)
        middle = QVBoxLayout()
        middle.setSpacing(0)
        middle.addWidget(self._build_header())
        middle.addWidget(self.stack, 1)
        across.addLayout(middle, 1)
        across.addWidget(self.help)
        self.strip = Strip(self.draft)
        self.strip.start_pressed.connect(self.starter.start)
        self.strip.stop_pressed.connect(self.starter.stop)
        self.strip.run_pressed.connect(lambda: self.open_page("run"))
        self.strip.problems_pressed.connect(self.jump_to_first_problem)
        column = QVBoxLayout(ground)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addLayout(across, 1)
        column.addWidget(self.strip)
        self.setCentralWidget(ground)
        self.sidebar.set_news(self.context.news.marks)
        self._show_title()
        self._show_marks()

    def _build_header(self) -> QWidget:
        header = QWidget(objectName="Header")
        header.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        line = QHBoxLayout(header)
        line.setContentsMargins(theme.px(16), theme.px(6), theme.px(12), theme.px(6))
        line.setSpacing(theme.px(4))
        self.search = SearchBox()
        self.search.found.connect(self.jump)
        self.undo_button = tool_button("undo-2", tr("Undo (Ctrl+Z)"), self.undo)
        self.redo_button = tool_button("redo-2", tr("Redo (Ctrl+Y)"), self.redo)
        self.file_button = self._build_file_button()
        self.help_button = tool_button("circle-help", tr("Help on the focused setting (F1)"), self.toggle_help)
        line.addWidget(self.file_button)
        line.addWidget(self.undo_button)
        line.addWidget(self.redo_button)
        line.addStretch(1)
        line.addWidget(self.search, 3)
        line.addWidget(self.help_button)
        return header

    def _build_file_button(self) -> QToolButton:
        made = tool_button("file-text", tr("Run file"))
        made.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        made.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        menu = QMenu(made)
        menu.aboutToShow.connect(lambda: self.run_files.fill_menu(menu))
        made.setMenu(menu)
        return made

    def rebuild(self) -> None:
        """Put language, theme and scale of the preferences in force and build all widgets again."""
        self.context.slices.clear()
        old = self.takeCentralWidget()
        if old is not None:  # at once: a style for widgets that are about to go would be work for nothing
            old.deleteLater()
            QCoreApplication.sendPostedEvents(old, QEvent.Type.DeferredDelete)
            del old
            collect_everything()
        apply_look(self.preferences)
        self._build()
        self._relabel_actions()
        self._adapt_to_width()
        key, self.page_key = self.page_key, ""
        self.open_page(key)
        self._show_running()
        QTimer.singleShot(AHEAD_MS, self, self._build_ahead)

    def _begin(self) -> None:
        """The window can be seen: now for what takes longer."""
        QApplication.instance().focusChanged.connect(self._on_focus)  # type: ignore[union-attr]
        self.context.slices.hold(False)
        QTimer.singleShot(RUNS_MS, self, self.starter.look_for_runs)
        QTimer.singleShot(AHEAD_MS, self, self._build_ahead)

    def _build_ahead(self) -> None:
        """Pages that were not opened yet are built while nobody waits; last those of runs, as numpy comes with them."""
        self.stack.build_ahead(lambda: self.starter.with_runs(lambda _: self.stack.build_ahead()))

    def _follow_system(self, _scheme: object = None) -> None:
        """The system went dark or light."""
        if self.preferences.get("theme") == "system" and theme.system_is_dark() != theme.is_dark():
            self.rebuild()

    # ---- pages ----

    def open_page(self, key: str, *, remember: bool = True) -> None:
        """Show a page: at once what is built of it, and the rest within a moment."""
        key = key if key in PAGES else WIZARD[0].key
        if key == self.page_key:
            return
        self.page_key = key
        self.context.news.visit(key)
        self.stack.open(key)
        self.sidebar.set_current(key)
        self.preferences.set("page", key)
        self._adapt_to_width()
        if remember:
            del self._history[self._place_in_history + 1 :]
            self._history.append(key)
            self._place_in_history = len(self._history) - 1
        self._visit(key)

    def _show_advice(self) -> None:
        page = self.stack.currentWidget()
        self.help.set_page(page.advice() if isinstance(page, Page) else [])

    def page(self, key: str) -> QWidget:
        """Show a page and give it whole, which may take a moment (tests and scripts ask for it)."""
        if PAGES[key].needs_runs:
            self.starter.runs()
        self.open_page(key)
        return self.stack.whole(key)

    def _visit(self, key: str) -> None:
        visited = self.preferences.get("visited", [])
        if key not in visited:
            self.preferences.set("visited", [*visited, key])
        self._show_marks()

    def _step_in_history(self, step: int) -> None:
        place = self._place_in_history + step
        if 0 <= place < len(self._history):
            self._place_in_history = place
            self.open_page(self._history[place], remember=False)

    def jump(self, place: str) -> None:
        """Show the setting at a place and focus it."""
        key = page_of(place)
        self.open_page(key)
        self.stack.when_built(key, lambda page: page.reveal(place) if isinstance(page, Page) else None)

    def jump_to_first_problem(self) -> None:
        problems = self.draft.errors or self.draft.problems
        if problems:
            self.jump(problems[0].place)

    # ---- what the frame shows ----

    def _show_marks(self) -> None:
        visited = self.preferences.get("visited", [])
        marks = {row.key: "fine" if row.key in visited else "untouched" for row in WIZARD}
        for problem in reversed(self.draft.problems):
            key = page_of(problem.place)
            if self.draft.is_missing(problem.place):
                marks[key] = "missing" if marks[key] in ("fine", "untouched", "warning") else marks[key]
            elif problem.severity == "error" or marks[key] != "problem":
                marks[key] = "problem" if problem.severity == "error" else "warning"
        self.sidebar.set_marks(marks)

    def _follow_news(self) -> None:
        """What ends on a page that is not open marks it, and the window's entry in the task bar while nobody looks."""
        news = self.context.news
        self.context.jobs.ended.connect(lambda job: news.tell("tools", job.state) if job.state != "stopped" else None)
        self.context.download.ended.connect(lambda state: news.tell("model", state) if state != "stopped" else None)
        self.starter.ended.connect(lambda well: news.tell("run", "done" if well else "failed"))
        news.changed.connect(lambda: self.sidebar.set_news(news.marks))
        news.told.connect(lambda: QApplication.alert(self))

    def _show_title(self) -> None:
        file = self.draft.file.name if self.draft.file else tr("not saved as a file")
        self.setWindowTitle(f"{self.draft.get('output.name') or tr('New run')} ({file}) - Athanor")
        self.undo_button.setEnabled(self.draft.can_undo)
        self.redo_button.setEnabled(self.draft.can_redo)
        name = self.draft.file.name if self.draft.file else tr("Run file")
        self.file_button.setText(f" {name}")  # the blank keeps off the icon

    def _show_running(self) -> None:
        self.starter.show_in(self.strip)

    def _on_focus(self, old: QWidget | None, now: QWidget | None) -> None:
        while now is not None and now is not self:
            if isinstance(now, Row):
                self.help.set_row(now)
                return
            now = now.parentWidget()

    def toggle_help(self) -> None:
        """F1: unfold the help, or fold it away."""
        self._fold_help(self.help.isVisible())

    def _fold_help(self, folded: bool) -> None:
        self.preferences.set_folded("help", folded)
        self._help_asked = not folded
        self.help.setVisible(not folded)
        self._adapt_to_width()

    def _adapt_to_width(self) -> None:
        """Where it is narrow the sidebar becomes icons and the help makes room, unless it was just asked for."""
        width = self.width() / theme.px(100) * 100
        self.sidebar.set_narrow(width < NARROW_BELOW)
        left = width - SIDEBAR_WIDTH - HELP_WIDTH
        wanted = not self.preferences.folded("help", False)
        has_settings = any(row.key == self.page_key and row.places for row in WIZARD)
        self.help.setVisible(has_settings and wanted and (left >= 520 or self._help_asked))
        self.help_button.setVisible(has_settings)

    def paintEvent(self, event: QPaintEvent) -> None:
        super().paintEvent(event)
        if not self._is_painted:
            self._is_painted = True
            QTimer.singleShot(0, self, self.first_painted.emit)  # what is in the window is painted after it

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._help_asked = False
        if self.centralWidget() is not None:
            self._adapt_to_width()

    # ---- actions ----

    def _make_actions(self) -> None:
        self._actions: dict[str, QAction] = {}
        keys: list[tuple[str, str, Callable[[], object]]] = [
            ("start", "Ctrl+Return", self.start),
            ("start2", "Ctrl+Enter", self.start),
            ("save", "Ctrl+S", self.run_files.save),
            ("save_as", "Ctrl+Shift+S", self.run_files.save_as),
            ("open", "Ctrl+O", self.run_files.open),
            ("new", "Ctrl+N", self.run_files.new),
            ("undo", "Ctrl+Z", self.undo),
            ("redo", "Ctrl+Y", self.redo),
            ("redo2", "Ctrl+Shift+Z", self.redo),
            ("find", "Ctrl+F", self.focus_search),
            ("back", "Alt+Left", lambda: self._step_in_history(-1)),
            ("forth", "Alt+Right", lambda: self._step_in_history(1)),
            ("next", "Ctrl+PgDown", lambda: self._step_page(1)),
            ("previous", "Ctrl+PgUp", lambda: self._step_page(-1)),
            ("help", "F1", self.toggle_help),
            ("quit", "Ctrl+Q", self.close),
        ]
        for name, key, slot in keys:
            action = QAction(self)
            action.setShortcut(QKeySequence(key))
            action.triggered.connect(lambda _=False, slot=slot: slot())
            self.addAction(action)
            self._actions[name] = action
        self._relabel_actions()

    def _relabel_actions(self) -> None:
        names = {"start": tr("Start"), "save": tr("Save"), "open": tr("Open…"), "undo": tr("Undo"), "redo": tr("Redo")}
        for key, name in names.items():
            self._actions[key].setText(name)

    def start(self) -> None:
        """Ctrl+Enter: what the page is for, the training on most of them."""
        page = self.stack.built(self.page_key)  # the page before may still be seen while this one is built
        if isinstance(page, Page):
            page.start()
        else:
            self.starter.start()

    def _step_page(self, step: int) -> None:
        keys = list(PAGES)
        self.open_page(keys[(keys.index(self.page_key) + step) % len(keys)])

    def focusNextPrevChild(self, forth: bool) -> bool:
        """Tab or Shift+Tab was pressed."""
        root = self.centralWidget()
        return (root is not None and move_focus(root, forth)) or super().focusNextPrevChild(forth)

    def focus_search(self) -> None:
        self.search.setFocus(Qt.FocusReason.ShortcutFocusReason)
        self.search.selectAll()

    def undo(self) -> None:
        """Take back the last edit of the draft, and show where it was."""
        self._after_undo(self.draft.undo())

    def redo(self) -> None:
        self._after_undo(self.draft.redo())

    def _after_undo(self, place: str) -> None:
        if place and page_of(place) != self.page_key:
            self.open_page(page_of(place))

    # ---- opening and closing ----

    def _restore_size(self) -> None:
        self.resize(*SIZE)
        stored = self.preferences.get("geometry")
        if stored:
            self.restoreGeometry(QByteArray.fromBase64(stored.encode()))

    def _may_stop_tool(self) -> bool:
        """Whether the tool at work may be ended with the window: its work would be lost. No tool: yes."""
        job = self.context.jobs.running
        if job is None:
            return True
        tool = i18n.translate_message(job.title)
        text = tr("{tool} is still at work. If Athanor closes, its work is lost; no file is harmed.", tool=tool)
        box = QMessageBox(QMessageBox.Icon.Question, tr("Close Athanor?"), text, parent=self)
        stop = box.addButton(tr("Stop it and close"), QMessageBox.ButtonRole.DestructiveRole)
        box.setDefaultButton(box.addButton(tr("Stay open"), QMessageBox.ButtonRole.RejectRole))
        box.exec()
        return box.clickedButton() is stop

    def closeEvent(self, event: QCloseEvent) -> None:
        if not self._may_stop_tool():
            event.ignore()
            return
        if self.starter.is_running and self.preferences.say_once("training goes on"):
            text = tr(
                "The training goes on without this window. Open Athanor again whenever you like: everything is there."
            )
            QMessageBox.information(self, tr("Training goes on"), text)
        self.draft.flush()
        self.starter.close()
        self.preferences.set("geometry", self.saveGeometry().toBase64().toStdString())
        self.preferences.flush()
        event.accept()


def apply_look(preferences: Preferences) -> None:
    """Language, theme and scale of the preferences."""
    chosen = preferences.get("language") or i18n.system_language()
    i18n.set_language(chosen)
    theme.apply(preferences.get("theme"), preferences.get("scale"), chosen)

"""What all pages share: the column of cards, the forms in it, and the way to a single setting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QPoint, Qt, QTimer
from PySide6.QtWidgets import QFrame, QHBoxLayout, QScrollArea, QVBoxLayout, QWidget

from app import theme
from app.draft import Draft
from app.form import Form
from app.preferences import Preferences
from app.slices import Pieces, Slices
from app.widgets.basics import Banner, label

if TYPE_CHECKING:
    from app.machine import Machine


@dataclass
class Context:
    """What pages are given: the draft, the preferences, what is known of the machine, and ways to other places."""

    draft: Draft
    preferences: Preferences
    machine: Machine
    slices: Slices
    tagger: Any = None  # app.processes.Command, while a tagger is at work
    runs: Any = None  # app.runs.Runs, made when it is first needed
    news: Any = None  # app.news.News
    jobs: Any = None  # app.tool_jobs.Jobs
    download: Any = None  # app.hub_download.HubDownload
    family_defaults: Any = None  # app.family_defaults.FamilyDefaults
    open_page: Callable[[str], object] = field(default=lambda key: None)
    jump: Callable[[str], object] = field(default=lambda place: None)
    try_example: Callable[[], object] = field(default=lambda: None)
    open_file: Callable[[], object] = field(default=lambda: None)
    save_file: Callable[[], object] = field(default=lambda: None)
    rebuild: Callable[[], object] = field(default=lambda: None)
    start: Callable[[], object] = field(default=lambda: None)


class Page(QScrollArea):
    """A page of the draft: a title, an introduction, cards. What `build` makes is there when it has been gone through."""

    def __init__(self, context: Context, title: str, introduction: str) -> None:
        super().__init__()
        self.context, self.draft, self.preferences = context, context.draft, context.preferences
        self.forms: list[Form] = []
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        outside = QWidget(objectName="Column")
        line = QHBoxLayout(outside)
        line.setContentsMargins(theme.px(24), theme.px(20), theme.px(24), theme.px(24))
        inside = QWidget()
        inside.setMaximumWidth(theme.px(theme.COLUMN))
        line.addWidget(inside, 100)
        line.addStretch(1)
        holder = QVBoxLayout(inside)  # a stretch below, as an alignment would cut wrapped labels
        holder.setContentsMargins(0, 0, 0, 0)
        self.column = QVBoxLayout()
        self.column.setSpacing(theme.px(2 * theme.SPACE))
        holder.addLayout(self.column)
        holder.addStretch(1)
        self.column.addWidget(label(title, "title"))
        self.column.addWidget(label(introduction, "muted", wrap=True))
        self.setWidget(outside)

    def build(self) -> Pieces:
        """Make the page's cards; yields wherever the window may do something else."""
        raise NotImplementedError

    def add(self, widget: QWidget) -> QWidget:
        """Add a card to the column."""
        self.column.addWidget(widget)
        return widget

    def form(self, keys: Sequence[str], name: str) -> Form:
        """A form that this page answers for; put it into a card, then `yield from` its `build()`."""
        made = Form(self.draft, self.preferences, self.context.slices, keys, name=name)
        self.forms.append(made)
        return made

    def start(self) -> None:
        """Ctrl+Enter: the training, where a page is for nothing else."""
        self.context.start()

    def advice(self) -> list[str]:
        """The page's one to three sentences of advice, for the help panel."""
        return []

    def reveal(self, place: str) -> bool:
        """Show and focus a setting; False if this page has none of that name."""
        for form in self.forms:
            if form.reveal(place):
                self._bring_into_view(form.rows[place])
                return True
        return False

    def _bring_into_view(self, widget: QWidget) -> None:
        QTimer.singleShot(30, widget, lambda: self.ensureWidgetVisible(widget, 0, theme.px(80)))

    def scroll_to(self, widget: QWidget) -> None:
        inside = self.widget()
        assert inside is not None
        top = widget.mapTo(inside, QPoint(0, 0)).y()
        self.verticalScrollBar().setValue(max(0, top - theme.px(16)))


class BannerPlace(QWidget):
    """A place where a page puts one banner, or none."""

    def __init__(self) -> None:
        super().__init__()
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self.banner: Banner | None = None
        self.hide()

    def show_banner(
        self, text: str, severity: str = "info", actions: Sequence[tuple[str, Callable[[], object]]] = ()
    ) -> None:
        """Show a banner in place of the last one; an empty text shows none."""
        if self.banner is not None:
            self.banner.hide()
            self.banner.deleteLater()
            self.banner = None
        if text:
            self.banner = Banner(text, severity, actions)
            self._column.addWidget(self.banner)
        self.setVisible(bool(text))

"""Review: what will happen in sentences, problems with jumps, and the run file."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QHBoxLayout, QLabel, QPlainTextEdit, QVBoxLayout, QWidget

from app import theme
from app.errors import copy_text
from app.form import problem_text
from app.i18n import tr, translate_trainer
from app.pages import page_of, title_of
from app.pages.base import Context, Page
from app.places import setting_at
from app.review_sentences import Sentence, sentences
from app.slices import Pieces
from app.widgets.basics import Card, Fold, button, clear, label, row
from trainer.config.run import sections
from trainer.errors import Problem


class ReviewPage(Page):
    """See the module."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, tr("Review"), tr("Read once what is going to happen, and start."))
        self._is_built = False
        self._said: list[Sentence] = []  # what stands under "What will happen"

    def build(self) -> Pieces:
        self.problems = Card(tr("Still to do"))
        self._problem_lines = QVBoxLayout()
        self._problem_lines.setSpacing(theme.px(6))
        self.problems.body.addLayout(self._problem_lines)
        self.add(self.problems)
        self.summary = Card(tr("What will happen"))
        self._lines = QVBoxLayout()
        self._lines.setSpacing(theme.px(10))
        self.summary.body.addLayout(self._lines)
        self.add(self.summary)
        self.add(self._build_file())
        yield
        self.draft.checked.connect(self._refresh)
        self.draft.edited.connect(self._show_file)
        self._is_built = True
        self._refresh()

    def _build_file(self) -> Card:
        card = Card()
        self.fold = Fold(tr("The run file"), "review.toml", self.preferences)
        self.fold.toggled.connect(lambda _: self._show_file())
        self.text = QPlainTextEdit(readOnly=True, lineWrapMode=QPlainTextEdit.LineWrapMode.NoWrap)
        self.text.setFont(theme.font("small", mono=True))
        self.text.setFixedHeight(theme.px(360))
        self.text.setAccessibleName(tr("The run file"))
        self.fold.body.addWidget(self.text)
        copy = button(tr("Copy"), lambda: copy_text(self.text.toPlainText()), icon="copy")
        save = button(tr("Save as a run file…"), self.context.save_file, icon="save")
        self.fold.body.addLayout(row(copy, save, None))
        hint = tr("The same run from a console: python -m trainer RUN.toml")
        self.fold.body.addWidget(label(hint, "small", wrap=True))
        card.add(self.fold)
        return card

    def _refresh(self) -> None:
        """Say everything anew; while nobody looks, not at all."""
        if not self.isVisible():
            return
        self._show_problems()
        if (found := sentences(self.draft)) != self._said:
            self._said = found
            clear(self._lines)
            for icon, text in found:
                self._lines.addWidget(_sentence(icon, text))
        self._show_file()

    def _show_file(self) -> None:
        if self.fold.is_open and self.isVisible() and self.text.toPlainText() != (text := self.draft.toml()):
            self.text.setPlainText(text)

    def showEvent(self, event) -> None:  # type: ignore[no-untyped-def]
        super().showEvent(event)
        if self._is_built:
            self._refresh()

    def _show_problems(self) -> None:
        clear(self._problem_lines)
        ordered = sorted(self.draft.problems, key=lambda problem: problem.severity != "error")
        self.problems.setVisible(bool(ordered))
        self.problems.heading.setText(tr("Still to do") if self.draft.errors else tr("Worth a look"))
        for problem in ordered[:40]:
            self._problem_lines.addWidget(self._problem(problem))

    def _problem(self, problem: Problem) -> QWidget:
        role = "problem" if problem.severity == "error" else "warning"
        sign = QLabel()
        icon = "circle-x" if role == "problem" else "triangle-alert"
        if self.draft.is_missing(problem.place):
            icon, role = "circle-dot", "accent"
        sign.setPixmap(theme.pixmap(icon, role, 16))
        place = place_words(problem.place)
        text = label(tr("{subject}: {text}", subject=place, text=problem_text(problem)), wrap=True)
        action: Callable[[], object] = lambda: self.context.jump(problem.place)  # noqa: E731
        name = tr("Go there")
        if page_of(problem.place) == "review" or setting_at(problem.place, sections()) is None:
            action, name = (lambda: self.draft.remove(problem.place)), tr("Remove it")
        go = button(name, action, role="link")
        go.setAccessibleName(f"{name}: {place}")
        made = QWidget()
        line = QHBoxLayout(made)
        line.setContentsMargins(0, 0, 0, 0)
        line.setSpacing(theme.px(8))
        line.addWidget(sign, 0, Qt.AlignmentFlag.AlignTop)
        line.addWidget(text, 1)
        line.addWidget(go, 0, Qt.AlignmentFlag.AlignTop)
        return made

    def reveal(self, place: str) -> bool:
        self.scroll_to(self.problems)
        return True


def place_words(place: str) -> str:
    """A place as people call it: "Optimiser · Learning rate"."""
    found = setting_at(place, sections())
    page = page_of(place)
    if found is None or page == "review":
        return place
    name = translate_trainer(found[1].label)
    return name if name == title_of(page) else f"{title_of(page)} · {name}"


def _sentence(icon: str, text: str) -> QWidget:
    made = QWidget()
    line = QHBoxLayout(made)
    line.setContentsMargins(0, 0, 0, 0)
    line.setSpacing(theme.px(12))
    sign = QLabel()
    sign.setPixmap(theme.pixmap(icon, "accent", 18))
    line.addWidget(sign, 0, Qt.AlignmentFlag.AlignTop)
    line.addWidget(label(text, wrap=True), 1)
    return made

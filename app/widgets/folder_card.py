"""A folder of pictures as a card: thumbnails, repeats, words, counts, and in words what is wrong or left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import Qt, QTimer, QUrl, Signal
from PySide6.QtGui import QDesktopServices
from PySide6.QtWidgets import QHBoxLayout, QLabel, QVBoxLayout, QWidget

from app import theme
from app.draft import Draft
from app.editors import NumberEditor, Switch, TextEditor
from app.form import problem_text
from app.i18n import tr, translate_message, translate_trainer
from app.slices import Pieces
from app.widgets.basics import SEVERITY_ICONS, ElidedLabel, clear, label, row, tool_button
from app.widgets.card_list import EntryCard
from app.widgets.thumbnails import MOST_SHOWN, ThumbnailStrip
from app.work import Latest
from trainer.config.fields import settings_of
from trainer.config.run import Folder, Images

if TYPE_CHECKING:
    from trainer.data.report import FolderReport

NAMED = 4  # files named before "and n more"


@dataclass(frozen=True)
class Question:
    """All that a report depends on."""

    folder: Folder
    is_reg: bool
    images: Images


def describe(
    question: Question, *, verify: bool = False, should_stop: Callable[[], bool] = lambda: False
) -> FolderReport:
    """Look through one folder; with `verify` every picture is decoded, which also finds those cut short. Any thread."""
    from trainer.check import bucketing
    from trainer.data.report import describe_folder

    try:
        rules = bucketing(question.images)
    except ValueError:
        rules = None
    return describe_folder(
        question.folder.model_copy(update={"enabled": True}),
        is_reg=question.is_reg,
        bucketing=rules,
        caption_extension=question.images.caption_extension,
        smallest_side=question.images.smallest_side,
        verify=verify,
        should_stop=should_stop,
    )


class FolderCard(EntryCard):
    """One entry of `images.folders` or `regularization.folders`.

    Signals:
        reported(): a new report is there.
    """

    reported = Signal()

    def __init__(self, draft: Draft, section: str, number: int) -> None:
        super().__init__(draft, f"{section}.folders", number)
        self._is_reg = section == "regularization"
        self.report: FolderReport | None = None
        self._question: Question | None = None
        self._named: list[tuple[QWidget, str]] = []  # what takes the keyboard, and what it is
        self._shown_remarks: list[tuple[str, str]] = []
        self._asks = Latest(self, self._take_first)
        self._second_looks = Latest(self, self._take_second)
        self._timer = QTimer(self, singleShot=True, interval=150)
        self._timer.timeout.connect(self._ask)

    # ---- building ----

    def build(self) -> Pieces:
        self.switch = Switch(toolTip=tr("Use this folder"), accessibleName=tr("Use this folder"))
        self.switch.clicked.connect(lambda on: self.draft.set(f"{self.place}.enabled", bool(on)))
        self.name = ElidedLabel("", "heading")
        self.kind = label(tr("class pictures"), "chip") if self._is_reg else label(tr("training"), "chip-accent")
        show = tool_button("external-link", tr("Open the folder"), self._open, role="muted")
        remove = tool_button("trash-2", tr("Take out of the list (nothing is deleted)"), self._remove, role="muted")
        self._named += [(widget, widget.toolTip()) for widget in (self.switch, show, remove)]
        top = row(self.switch, self.name, self.kind, show, remove)
        top.setStretch(1, 1)
        self.body.addLayout(top)
        self.path = ElidedLabel("", "small")
        self.body.addWidget(self.path)
        self.strip = ThumbnailStrip()
        self.body.addWidget(self.strip)
        self.strip.hide()
        yield
        self.body.addLayout(self._build_fields())
        self.counts = label("", wrap=True)
        self.body.addWidget(self.counts)
        self.remarks = QVBoxLayout()
        self.remarks.setSpacing(theme.px(4))
        self.body.addLayout(self.remarks)

    def _build_fields(self) -> QHBoxLayout:
        self.repeats = NumberEditor(int, bounds={"ge": 1, "le": 10000}, empty="1")
        self.repeats.edited.connect(lambda value: self.draft.set(f"{self.place}.repeats", value))
        self.repeats.edit.setFixedWidth(theme.px(72))
        self.words = TextEditor()
        self.words.edited.connect(lambda value: self.draft.set(f"{self.place}.caption", value))
        repeats_name, words_name = label(tr("Repeats")), label(tr("Words"))
        for name, editor in ((repeats_name, self.repeats), (words_name, self.words)):
            name.setBuddy(editor.field())
            self._named.append((editor.field(), name.text()))
        helps = {key: translate_trainer(info.help) for key, _, info in settings_of(Folder)}
        self.repeats.setToolTip(helps["repeats"])
        self.words.setToolTip(helps["caption"])
        line = row(repeats_name, self.repeats, words_name, self.words)
        line.setStretch(3, 1)
        return line

    # ---- showing ----

    def depends_on(self, place: str) -> bool:
        return super().depends_on(place) or place.startswith("images.")

    def refresh(self) -> None:
        """Show the draft's values and ask for a new report where they matter to it."""
        entry: dict[str, Any] = self.draft.get(self.place)
        path = str(entry.get("path", ""))
        enabled = entry.get("enabled", True) is not False
        self.switch.setChecked(enabled)
        name = Path(path).name or path or tr("No folder chosen")
        self.name.setText(name)
        for widget, what in self._named:
            widget.setAccessibleName(f"{name}: {what}")
        self.path.setText(path)
        self.repeats.set_value(entry.get("repeats"))
        self.words.set_value(entry.get("caption", ""))
        for widget in (self.strip, self.repeats, self.words, self.counts):
            widget.setEnabled(enabled)
        self._timer.start()
        self.show_problems()

    def look_again(self) -> None:
        """Files may have changed."""
        self._question = None
        self._timer.start()

    def _ask(self) -> None:
        if self.is_gone:
            return
        images = self.draft.usable.images if self.draft.usable else Images()
        entry = self.draft.get(self.place)
        repeats = entry.get("repeats")
        folder = Folder(
            path=str(entry.get("path", "")),
            repeats=repeats if isinstance(repeats, int) and repeats >= 1 else None,
            caption=str(entry.get("caption") or ""),
        )
        question = Question(folder, self._is_reg, images.model_copy(update={"folders": ()}))
        if question != self._question:
            self._question = question
            if self.report is None:
                self.counts.setText(tr("Looking…"))
            self._asks.ask(lambda: describe(question))

    def _take_first(self, report: FolderReport) -> None:
        """Headers told this; whether the pixels are whole takes longer and is looked at next."""
        self._take(report)
        question = self._question
        if question is not None and report.num_pictures:
            outdated = partial(self._is_outdated, question)
            self._second_looks.ask(lambda: describe(question, verify=True, should_stop=outdated))

    def _is_outdated(self, question: Question) -> bool:
        return self._question is not question

    def _take_second(self, report: FolderReport) -> None:
        if self.report is not None and report.skipped != self.report.skipped and report.is_complete:
            self._take(report)

    def _take(self, report: FolderReport) -> None:
        self.report = report
        self.strip.set_paths([item.path for item in report.items[:MOST_SHOWN]], report.num_pictures)
        if report.folders:
            first = report.folders[0]
            many = len(report.folders) > 1
            self.repeats.edit.setPlaceholderText(tr("by name") if many else str(first.repeats))
            self.words.edit.setPlaceholderText(tr("the words in each folder's name") if many else first.words)
        self.counts.setText(self._counts(report))
        self.show_problems()
        self.reported.emit()

    def _counts(self, report: FolderReport) -> str:
        if report.problem is not None:
            return ""
        if len(report.folders) > 1:
            return tr(
                "{count} pictures in {folders} folders, {shown} shown in an epoch",
                count=report.num_pictures, folders=len(report.folders), shown=report.num_shown,
            )  # fmt: skip
        repeats = report.folders[0].repeats if report.folders else 1
        return tr(
            "{count} pictures × {repeats} repeats = {shown} shown in an epoch",
            count=report.num_pictures, repeats=repeats, shown=report.num_shown,
        )  # fmt: skip

    def show_problems(self) -> None:
        if self.is_gone or (found := self._remarks()) == self._shown_remarks:
            return
        self._shown_remarks = found
        clear(self.remarks)
        for severity, text in found:
            self.remarks.addWidget(_remark(severity, text))

    def _remarks(self) -> list[tuple[str, str]]:
        own = self.draft.problems_at(self.place)
        found = [("problem" if problem.severity == "error" else "warning", problem_text(problem)) for problem in own]
        report = self.report
        if report is None:
            return found
        if report.problem is not None and not own:
            found.append(("problem", translate_message(report.problem)))
        missing = report.captions_missing
        if missing and len(missing) < report.num_pictures:
            text = tr("{count} pictures have no caption: {names}", count=len(missing), names=_names(missing))
            found.append(("warning", text))
        elif missing:
            found.append(("info", tr("No picture has a caption file: all of them are trained with the words above.")))
        for file in report.skipped[:NAMED]:
            found.append(
                ("warning", tr("{file} is left out: {why}", file=file.path.name, why=translate_message(file.why)))
            )
        if len(report.skipped) > NAMED:
            found.append(("warning", tr("… and {count} more files are left out.", count=len(report.skipped) - NAMED)))
        found += [("warning", translate_message(warning)) for warning in report.warnings]
        return found

    # ---- buttons ----

    def _open(self) -> None:
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(self.draft.get(f"{self.place}.path"))))

    def _remove(self) -> None:
        self.removed.emit(self.number)


def _names(paths: tuple[Path, ...]) -> str:
    names = ", ".join(path.name for path in paths[:NAMED])
    return names if len(paths) <= NAMED else f"{names}, … +{len(paths) - NAMED}"


def _remark(severity: str, text: str) -> QWidget:
    made = QWidget()
    line = QHBoxLayout(made)
    line.setContentsMargins(0, 0, 0, 0)
    line.setSpacing(theme.px(6))
    sign = QLabel()
    sign.setPixmap(theme.pixmap(SEVERITY_ICONS[severity], "muted" if severity == "info" else severity, 14))
    line.addWidget(sign, 0, Qt.AlignmentFlag.AlignTop)
    line.addWidget(label(text, "small" if severity == "info" else severity, wrap=True), 1)
    return made

"""Samples: when previews are drawn, and the list of their prompts."""

from __future__ import annotations

from typing import Any

from PySide6.QtWidgets import QVBoxLayout, QWidget

from app import theme
from app.draft import Draft
from app.editors import ChoiceEditor, Editor, LongTextEditor
from app.form import editor_for, message_label, tooltip_of
from app.i18n import tr, translate_trainer
from app.pages.base import Context, Page
from app.preferences import Preferences
from app.widgets.basics import Card, Invitation, button, clear, label, row, tool_button
from app.widgets.flow import FlowLayout
from trainer.config.fields import settings_of
from trainer.config.run import Prompt

NUMBERS = ("width", "height", "steps", "cfg", "seed", "sampler")


class PromptCard(Card):
    """One prompt with its own negative, size, steps, CFG, seed and sampler."""

    def __init__(self, draft: Draft, number: int, remove: Any, copy: Any) -> None:
        super().__init__()
        self.draft, self.number = draft, number
        self.place = f"samples.prompts[{number}]"
        self.editors: dict[str, Editor] = {}
        top = row(label(tr("Prompt {number}", number=number), "heading"), None)
        top.addWidget(tool_button("copy", tr("Duplicate this prompt"), lambda: copy(number), role="muted"))
        top.addWidget(tool_button("trash-2", tr("Remove this prompt"), lambda: remove(number), role="muted"))
        self.body.addLayout(top)
        lines = {key: (field, info) for key, field, info in settings_of(Prompt)}
        for key in ("prompt", "negative"):
            self._add_text(key, lines[key][1])
        numbers = QWidget()
        flow = FlowLayout(numbers, theme.px(12))
        for key in NUMBERS:
            flow.addWidget(self._number(key, *lines[key]))
        self.add(numbers)
        self.problems = QVBoxLayout()
        self.body.addLayout(self.problems)
        self.refresh()

    def _add_text(self, key: str, info: Any) -> None:
        editor = LongTextEditor(lines=2)
        editor.edit.setPlaceholderText(translate_trainer(info.label))
        self._connect(key, editor, info)
        self.add(editor)

    def _number(self, key: str, field: Any, info: Any) -> QWidget:
        editor = editor_for(f"{self.place}.{key}", field, info)
        if isinstance(editor, ChoiceEditor):
            editor.help.hide()
        self._connect(key, editor, info)
        made = QWidget()
        column = QVBoxLayout(made)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(theme.px(2))
        name = label(translate_trainer(info.label), "small")
        name.setBuddy(editor.field())
        column.addWidget(name)
        column.addWidget(editor)
        return made

    def _connect(self, key: str, editor: Editor, info: Any) -> None:
        editor.field().setAccessibleName(translate_trainer(info.label))
        editor.field().setToolTip(tooltip_of(info))
        editor.edited.connect(lambda value: self.draft.set(f"{self.place}.{key}", value))
        self.editors[key] = editor

    def refresh(self) -> None:
        """Show the draft's values."""
        entry = self.draft.get(self.place)
        for key, field, _ in settings_of(Prompt):
            self.editors[key].set_value(entry.get(key, field.get_default()))

    def show_problems(self) -> None:
        clear(self.problems)
        found = self.draft.problems_at(self.place)
        for key, editor in self.editors.items():
            wrong = any(problem.place == f"{self.place}.{key}" for problem in found)
            editor.set_state("problem" if wrong else "")
        if found:
            self.problems.addWidget(message_label(found))


class PromptList(QWidget):
    """All prompts; a new one is like the last, with the next seed kept the same so that pictures can be compared."""

    def __init__(self, draft: Draft, preferences: Preferences) -> None:
        super().__init__()
        self.draft = draft
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(theme.px(1.5 * theme.SPACE))
        sentence = tr(
            "Without previews you only see numbers. Two prompts are enough: one with the trigger word, one without."
        )
        self.invitation = Invitation("image-plus", sentence, ((tr("Add a prompt"), "primary", self.add),))
        column.addWidget(self.invitation)
        self._cards = QVBoxLayout()
        self._cards.setSpacing(theme.px(1.5 * theme.SPACE))
        column.addLayout(self._cards)
        self.more = QWidget()
        self.more.setLayout(row(button(tr("Add a prompt"), self.add, icon="plus"), None))
        column.addWidget(self.more)
        self.cards: list[PromptCard] = []
        draft.changed.connect(self._on_changed)
        draft.checked.connect(self._on_checked)
        self._rebuild()

    def _entries(self) -> list[dict[str, Any]]:
        entries = self.draft.get("samples.prompts")
        return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []

    def add(self) -> None:
        entries = self._entries()
        fresh = Prompt().model_dump()
        resolution = self.draft.get("images.resolution")
        if isinstance(resolution, list) and len(resolution) == 2:
            fresh |= {"width": resolution[0], "height": resolution[1]}
        if entries:
            fresh = {**fresh, **entries[-1], "prompt": ""}
        self._set([*entries, fresh])
        self.cards[-1].editors["prompt"].field().setFocus()

    def remove(self, number: int) -> None:
        entries = self._entries()
        self._set(entries[: number - 1] + entries[number:])

    def copy(self, number: int) -> None:
        entries = self._entries()
        self._set([*entries[:number], dict(entries[number - 1]), *entries[number:]])

    def _set(self, entries: list[dict[str, Any]]) -> None:
        self.draft.set("samples.prompts", entries)

    def _on_changed(self, place: str) -> None:
        if place in ("", "samples.prompts"):
            self._rebuild()

    def _rebuild(self) -> None:
        entries = self._entries()
        while len(self.cards) > len(entries):
            card = self.cards.pop()
            card.hide()
            card.deleteLater()
        while len(self.cards) < len(entries):
            self.cards.append(PromptCard(self.draft, len(self.cards) + 1, self.remove, self.copy))
            self._cards.addWidget(self.cards[-1])
        for card in self.cards:
            card.refresh()
        self.invitation.setVisible(not entries)
        self.more.setVisible(bool(entries))

    def _on_checked(self) -> None:
        for card in self.cards:
            card.show_problems()


class SamplesPage(Page):
    """See the module."""

    def __init__(self, context: Context) -> None:
        introduction = tr(
            "Pictures drawn while training, so that you see whether it learns. They do not change what is learnt."
        )
        super().__init__(context, tr("Samples"), introduction)
        self.prompts = PromptList(self.draft, self.preferences)
        self.add(self.prompts)
        card = Card(tr("When"))
        card.add(self.form(("samples",), "samples"))
        self.add(card)

    def reveal(self, place: str) -> bool:
        if super().reveal(place):
            return True
        if place.startswith("samples.prompts"):
            self.scroll_to(self.prompts)
            return True
        return False

    def advice(self) -> list[str]:
        return [
            tr("Have one prompt without the trigger word: it shows whether your subject bleeds into everything."),
            tr(
                "20 to 30 steps and CFG 7 show enough. The same seed gives the same noise at every step: only the "
                "LoRA differs."
            ),
            tr("Previews that freeze while the loss still moves are overfitting: take an earlier epoch."),
        ]

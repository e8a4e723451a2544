"""Samples: when previews are drawn, and the list of their prompts."""

from __future__ import annotations

from functools import partial
from typing import Any

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QVBoxLayout, QWidget

from app import theme
from app.draft import Draft
from app.editors import ChoiceEditor, Editor, LongTextEditor
from app.form import editor_for, message_label, tooltip_of
from app.i18n import tr, translate_trainer
from app.pages.base import Context, Page
from app.slices import Pieces, Slices
from app.widgets.basics import Card, Invitation, button, clear, label, row, tool_button
from app.widgets.card_list import CardList, EntryCard
from app.widgets.flow import FlowLayout
from trainer.config.fields import settings_of
from trainer.config.run import Prompt

NUMBERS = ("width", "height", "steps", "cfg", "seed", "sampler")


class PromptCard(EntryCard):
    """One prompt with its own negative, size, steps, CFG, seed and sampler.

    Signals:
        copied(number): its button to duplicate it was pressed.
    """

    copied = Signal(int)

    def __init__(self, draft: Draft, number: int) -> None:
        super().__init__(draft, "samples.prompts", number)
        self.editors: dict[str, Editor] = {}

    def build(self) -> Pieces:
        number = self.number
        self.title = tr("Prompt {number}", number=number)
        top = row(label(self.title, "heading"), None)
        for icon, name, signal in (
            ("copy", tr("Duplicate this prompt"), self.copied),
            ("trash-2", tr("Remove this prompt"), self.removed),
        ):
            made = tool_button(icon, name, partial(signal.emit, number), role="muted")
            made.setAccessibleName(f"{self.title}: {name}")
            top.addWidget(made)
        self.body.addLayout(top)
        lines = {key: (field, info) for key, field, info in settings_of(Prompt)}
        for key in ("prompt", "negative"):
            self._add_text(key, lines[key][1])
            yield
        numbers = QWidget()
        flow = FlowLayout(numbers, theme.px(12))
        for key in NUMBERS:
            flow.addWidget(self._number(key, *lines[key]))
            yield
        self.add(numbers)
        self.problems = QVBoxLayout()
        self.body.addLayout(self.problems)

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
        editor.field().setAccessibleName(f"{self.title}: {translate_trainer(info.label)}")
        editor.field().setToolTip(tooltip_of(info))
        editor.edited.connect(lambda value: self.draft.set(f"{self.place}.{key}", value))
        self.editors[key] = editor

    def refresh(self) -> None:
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


class PromptList(CardList):
    """All prompts; a new one is like the last, with the seed kept the same so that pictures can be compared."""

    def __init__(self, draft: Draft, slices: Slices) -> None:
        sentence = tr(
            "Without previews you only see numbers. Two prompts are enough: one with the trigger word, one without."
        )
        invitation = Invitation("image-plus", sentence, ((tr("Add a prompt"), "primary", self.add),))
        super().__init__(draft, "samples.prompts", slices, invitation, self._card)
        self.add_button = button(tr("Add a prompt"), self.add, icon="plus")
        self.below.setLayout(row(self.add_button, None))

    def _card(self, number: int) -> PromptCard:
        made = PromptCard(self.draft, number)
        made.copied.connect(self.copy)
        return made

    def add(self) -> None:
        entries = self.entries
        fresh = Prompt().model_dump()
        resolution = self.draft.get("images.resolution")
        if isinstance(resolution, list) and len(resolution) == 2:
            fresh |= {"width": resolution[0], "height": resolution[1]}
        if entries:
            fresh = {**fresh, **entries[-1], "prompt": ""}
        self.set_entries([*entries, fresh])
        self.focus(self.cards[-1].editors["prompt"].field())

    def focus_first(self) -> None:
        """Give the keyboard to what adds a prompt."""
        self.focus(self.add_button if self.entries else self.invitation.buttons[0])

    def copy(self, number: int) -> None:
        entries = self.entries
        self.set_entries([*entries[:number], dict(entries[number - 1]), *entries[number:]])


class SamplesPage(Page):
    """See the module."""

    def __init__(self, context: Context) -> None:
        introduction = tr(
            "Pictures drawn while training, so that you see whether it learns. They do not change what is learnt."
        )
        super().__init__(context, tr("Samples"), introduction)

    def build(self) -> Pieces:
        self.prompts = PromptList(self.draft, self.context.slices)
        self.add(self.prompts)
        yield
        card = Card(tr("When"))
        form = self.form(("samples",), "samples")
        card.add(form)
        self.add(card)
        yield from form.build()

    def reveal(self, place: str) -> bool:
        if super().reveal(place):
            return True
        if place.startswith("samples.prompts"):
            self.scroll_to(self.prompts)
            self.prompts.focus_first()
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

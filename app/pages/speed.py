"""Speed and memory: presets by the card's memory as first values, the card that was found, and the settings."""

from __future__ import annotations

from functools import partial

from PySide6.QtWidgets import QButtonGroup, QPushButton, QWidget

from app import theme
from app.editors import DeviceEditor
from app.i18n import joined, tr
from app.pages.base import BannerPlace, Context, Page
from app.presets import Preset, presets, suggested
from app.slices import Pieces
from app.widgets.basics import Card, button, label
from app.widgets.flow import FlowLayout
from app.words import size_words


class SpeedPage(Page):
    """See the module."""

    def __init__(self, context: Context) -> None:
        introduction = tr("What fits into your card, and how fast it goes.")
        super().__init__(context, tr("Speed and memory"), introduction)

    def build(self) -> Pieces:
        self.found = BannerPlace()
        self.add(self.found)
        card = Card(
            tr("Presets by memory"),
            tr("They set first values for a Stable Diffusion 1.x LoRA. Ctrl+Z takes them back."),
        )
        self._group = QButtonGroup(self, exclusive=True)
        self.buttons: dict[str, QPushButton] = {}
        chips = QWidget()
        flow = FlowLayout(chips, theme.px(theme.SPACE))
        for preset in presets():
            made = button(preset.title, partial(self._apply, preset), tip=preset_note(preset.name))
            made.setCheckable(True)
            self._group.addButton(made)
            self.buttons[preset.name] = made
            flow.addWidget(made)
        card.add(chips)
        self.note = label("", "muted", wrap=True)
        card.add(self.note)
        self.add(card)
        yield
        settings = Card()
        self.fields = self.form(("training.batch_size", "training.accumulation", "speed"), "speed")
        settings.add(self.fields)
        self.add(settings)
        yield from self.fields.build()
        self.draft.edited.connect(self._show_preset)
        self.context.machine.changed.connect(self._show_machine)
        self._show_preset()
        self._show_machine()
        self.context.machine.ask()

    def _apply(self, preset: Preset) -> None:
        cards = self.context.machine.cards
        self.draft.set_many(preset.for_card(cards[0] if cards else None), as_baseline=preset.name)

    def _show_preset(self) -> None:
        chosen = self.draft.preset
        for name, made in self.buttons.items():
            made.setChecked(name == chosen)
            made.setProperty("role", "primary" if name == chosen else "")
            made.style().unpolish(made)
            made.style().polish(made)
        self.note.setText(preset_note(chosen) if chosen else tr("No preset is chosen: the values are the usual ones."))

    def _show_machine(self) -> None:
        cards = self.context.machine.cards
        if cards is None:
            self.found.show_banner(tr("Looking for a graphics card…"))
            return
        device = self.fields.rows["speed.device"].editor
        if isinstance(device, DeviceEditor):
            device.set_cards([card.name for card in cards])
        preset = suggested(cards)
        actions = ((tr("Use the preset {title}", title=preset.title), lambda: self._apply(preset)),)
        if not cards:
            self.found.show_banner(
                tr("No NVIDIA card was found: training runs on the CPU, which takes long."), "warning", actions
            )
            return
        card = cards[0]
        text = tr(
            "{name}: {free} of {total} free.", name=card.name, free=size_words(card.free), total=size_words(card.total)
        )
        if card.total - card.free > 2**30:
            used = size_words(card.total - card.free)
            others = tr("Other programs use {used} of it; a WebUI that is open may be one of them.", used=used)
            text = joined(text, others)
        self.found.show_banner(text, "good", actions)

    def advice(self) -> list[str]:
        return [
            tr(
                "Out of memory? In this order: batch size down, gradient checkpointing on, UNet only, a smaller resolution."
            ),
            tr("bf16 needs an RTX 30 card or newer; older ones take fp16."),
            tr(
                "When a run suddenly takes ten times as long, the card spills into the computer's memory: lower the "
                "batch size."
            ),
        ]


def preset_note(name: str) -> str:
    """What a preset chooses, in a sentence."""
    notes = {
        "cpu": tr("Works everywhere and takes long: for the example and for small tests."),
        "6": tr("UNet only, batch 1, everything that saves memory is on."),
        "8": tr("UNet only, batch 2, rank 32."),
        "10": tr("UNet and text encoder, batch 4."),
        "12": tr("UNet and text encoder, batch 4, up to 768."),
        "16": tr("Batch 8 at 512 without checkpointing: faster."),
        "24": tr("Batch 8 at 768 without checkpointing."),
    }
    return notes.get(name, "")

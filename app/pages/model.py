"""Base model: a file dropped or chosen, and what it is, read from its header within milliseconds."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QHBoxLayout, QLabel, QVBoxLayout, QWidget

from app import theme
from app.i18n import tr, translate_message
from app.pages.base import Context, Page
from app.path_editor import choose_path
from app.slices import Pieces
from app.widgets.basics import Card, ElidedLabel, Invitation, clear, label, set_role
from app.widgets.flow import FlowLayout
from app.words import size_words
from app.work import Latest
from trainer.models.header import FAMILY_TITLES, ModelFacts, base_problem, inspect_file


class ModelCard(Card):
    """What the chosen file is: its name, a sentence, and chips with the facts."""

    def __init__(self) -> None:
        super().__init__()
        line = QHBoxLayout()
        line.setSpacing(theme.px(12))
        self.sign = QLabel()
        line.addWidget(self.sign, 0, Qt.AlignmentFlag.AlignTop)
        texts = QVBoxLayout()
        texts.setSpacing(theme.px(6))
        self.name = ElidedLabel("", "heading")
        self.summary = label("", wrap=True)
        self.problem = label("", "problem", wrap=True)
        self.chips = QWidget()
        self._chips = FlowLayout(self.chips, theme.px(6))
        for widget in (self.name, self.summary, self.problem):
            texts.addWidget(widget)
        texts.addWidget(self.chips)
        line.addLayout(texts, 1)
        self.body.addLayout(line)

    def show_facts(self, facts: ModelFacts, has_vae: bool) -> None:
        """Show what a file is, and why it cannot be trained on if it cannot."""
        problem = base_problem(facts, has_vae)
        self.name.setText(facts.path.name or str(facts.path))
        self.summary.setText(translate_message(facts.summary))
        self.summary.setVisible(problem is None or str(problem) != str(facts.summary))
        self.problem.setText(translate_message(problem))
        self.problem.setVisible(problem is not None)
        role = "good" if problem is None else "problem"
        self.sign.setPixmap(theme.pixmap("circle-check" if problem is None else "circle-x", role, 28))
        set_role(self.summary, "" if problem is None else "muted")
        clear(self._chips)
        for text in chips_of(facts):
            self._chips.addWidget(label(text, "chip"))
        self.chips.updateGeometry()


def chips_of(facts: ModelFacts) -> list[str]:
    """The facts as short words: family, numbers, size, native resolution, prediction, what is inside."""
    parts = {"unet": tr("UNet"), "text_encoder": tr("text encoder"), "vae": tr("VAE")}
    found = [
        FAMILY_TITLES.get(facts.family or "", ""),
        facts.dtype or "",
        size_words(facts.num_bytes) if facts.num_bytes else "",
        f"{facts.native_resolution} px" if facts.native_resolution else "",
        {"v_prediction": "v-prediction", "epsilon": "epsilon"}.get(facts.prediction or "", ""),
        " + ".join(name for part, name in parts.items() if part in facts.parts),
    ]
    return [text for text in found if text]


class ModelPage(Page):
    """See the module."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, tr("Base model"), tr("The model that learns. It is only read, never changed."))

    def build(self) -> Pieces:
        actions = (
            (tr("Choose a file…"), "primary", self._choose),
            (tr("Try the example"), "", self.context.try_example),
        )
        sentence = tr(
            "Drop a Stable Diffusion 1.x model here, or choose one. Or see a whole training on the small example first."
        )
        self.invitation = Invitation("box", sentence, actions, lambda paths: self._take(paths[0]))
        self.add(self.invitation)
        self.facts_card = ModelCard()
        self.add(self.facts_card)
        self.facts_card.hide()
        yield
        card = Card()
        form = self.form(("model",), "model")
        card.add(form)
        self.add(card)
        yield from form.build()
        self._shown: tuple[str, bool] | None = None
        self._asks = Latest(self, self._show_facts)
        self.draft.edited.connect(self._refresh)
        self.draft.file_changed.connect(self._refresh)
        self._refresh()

    def _choose(self) -> None:
        choose_path(self, self._take, pattern=tr("Model files") + " (*.safetensors *.ckpt *.pt)")

    def _take(self, path: str) -> None:
        self.draft.set("model.path", path)

    def _refresh(self) -> None:
        path, has_vae = str(self.draft.get("model.path") or ""), bool(self.draft.get("model.vae"))
        self.invitation.setVisible(not path)
        if not path:
            self.facts_card.hide()
            self._shown = None
        elif (path, has_vae) != self._shown:
            self._shown = (path, has_vae)
            self._asks.ask(lambda: (path, inspect_file(Path(path)), has_vae))

    def _show_facts(self, answer: tuple[str, ModelFacts, bool]) -> None:
        path, facts, has_vae = answer
        if path == str(self.draft.get("model.path") or ""):
            self.facts_card.show_facts(facts, has_vae)
            self.facts_card.show()

    def advice(self) -> list[str]:
        return [
            tr("Train on the model that you draw with, or on the one it comes from: a LoRA fits its own family only."),
            tr("Clip skip: 2 for anime models, 1 for photographic ones, as you set it when you draw."),
            tr("Half-downloaded files and LoRAs chosen by mistake are recognised here, before a minute is lost."),
        ]

"""What a model file is, as a card with its facts and as a single line beside a field."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QLabel, QVBoxLayout, QWidget

from app import theme
from app.i18n import tr, translate_message
from app.widgets.basics import Card, ElidedLabel, button, clear, label, row, set_role
from app.widgets.flow import FlowLayout
from app.words import part_words, size_words
from app.work import Latest
from trainer.messages import Message
from trainer.models.header import (
    FAMILY_TITLES,
    INPAINTING_CHANNELS,
    ModelFacts,
    inspect_file,
    lora_problem,
    vae_problem,
)
from trainer.models.strangers import CONTINUED_METHODS

PARTS = ("unet", "text_encoder", "text_encoder_2", "vae")  # in the order in which they are named


class ModelCard(Card):
    """What a file is: its name, a sentence, and chips with the facts.

    Signals:
        metadata_asked(path): the button that shows what the file says was pressed.
        use_asked(place, path): a file that is no base model is to be used where it belongs.
    """

    metadata_asked = Signal(object)
    use_asked = Signal(str, object)

    def __init__(self) -> None:
        super().__init__()
        self.facts: ModelFacts | None = None
        self._shown: tuple[ModelFacts, Message | None, str] | None = None
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
        self.use = label("", "muted", wrap=True)
        self.use_button = button("", self._ask_use)
        self.metadata = button(tr("Metadata…"), self._ask_metadata, role="flat", icon="list-tree")
        self.metadata.setToolTip(tr("Everything that the file says about itself"))
        head = row(self.name, self.metadata)
        head.setStretch(0, 1)
        texts.addLayout(head)
        for widget in (self.summary, self.problem, self.use, self.chips):
            texts.addWidget(widget)
        texts.addWidget(self.use_button, 0, Qt.AlignmentFlag.AlignLeft)
        line.addLayout(texts, 1)
        self.body.addLayout(line)

    def show_facts(self, facts: ModelFacts, problem: Message | None, heading: str = "") -> None:
        """Show what a file is, and why it cannot be used if it cannot. `heading` stands before its name."""
        if (facts, problem, heading) == self._shown:
            return
        self._shown = (facts, problem, heading)
        self.facts = facts
        name = facts.path.name or str(facts.path)
        self.name.setText(f"{heading} {name}" if heading else name)
        self.summary.setText(translate_message(facts.summary))
        self.summary.setVisible(problem is None or not str(problem).startswith(str(facts.summary)))
        self.problem.setText(translate_message(problem))
        self.problem.setVisible(problem is not None)
        role = "good" if problem is None else "problem"
        self.sign.setPixmap(theme.pixmap("circle-check" if problem is None else "circle-x", role, 28))
        set_role(self.summary, "" if problem is None else "muted")
        self.metadata.setVisible(facts.kind not in ("missing", "broken"))
        self._show_use(facts, problem is not None)
        clear(self._chips)
        for text in chips_of(facts):
            self._chips.addWidget(label(text, "chip"))
        self.chips.updateGeometry()

    def show_looking(self, path: Path) -> None:
        """Say that a file is being looked at, which takes longer than usual."""
        self.facts = self._shown = None
        self.name.setText(path.name or str(path))
        self.summary.setText(tr("Looking at it…"))
        self.summary.show()
        set_role(self.summary, "muted")
        self.sign.setPixmap(theme.pixmap("timer", "muted", 28))
        for widget in (self.problem, self.use, self.use_button, self.metadata):
            widget.hide()
        clear(self._chips)

    def _show_use(self, facts: ModelFacts, is_refused: bool) -> None:
        """What a file that cannot be trained on is good for, with the way there."""
        use = facts.use if is_refused and facts.kind != "base" else None
        self.use.setText(translate_message(use))
        self.use.setVisible(use is not None)
        words = {
            "model.vae": tr("Use it as the VAE"),
            "network.network_weights": tr("Go on training it"),
            "model.text_encoder": tr("Use it as the text encoder"),
        }
        place = place_of_stranger(facts) if use is not None else ""
        self.use_button.setText(words.get(place, ""))
        self.use_button.setAccessibleName(words.get(place, ""))
        self.use_button.setVisible(bool(place))

    def _ask_use(self) -> None:
        if self.facts is not None:
            self.use_asked.emit(place_of_stranger(self.facts), self.facts.path)

    def _ask_metadata(self) -> None:
        if self.facts is not None:
            self.metadata_asked.emit(self.facts.path)


def place_of_stranger(facts: ModelFacts) -> str:
    """The setting that a file belongs to which is no base model, "" if there is none."""
    if facts.kind == "vae" and vae_problem(facts) is None:
        return "model.vae"
    if facts.kind == "text_encoder":
        return "model.text_encoder"
    if facts.kind == "lora" and lora_problem(facts) is None and facts.adapter is not None:
        return "network.network_weights" if facts.adapter.method in CONTINUED_METHODS else ""
    return ""


def chips_of(facts: ModelFacts) -> list[str]:
    """The facts as short words: family, numbers, size, native resolution, prediction, what is inside."""
    parts = [_part_word(part) for part in PARTS if part in facts.parts]
    containers = {"torch_zip": ".ckpt", "torch_pickle": ".ckpt", "torch_tar": ".ckpt", "folder": tr("diffusers folder")}
    found = [
        FAMILY_TITLES.get(facts.family or "", ""),
        tr("inpainting") if facts.in_channels == INPAINTING_CHANNELS else "",
        " + ".join(name for name, _ in facts.dtypes if name.startswith(("fp", "bf"))) or facts.dtype or "",
        size_words(facts.num_bytes) if facts.num_bytes else "",
        f"{facts.native_resolution} px" if facts.native_resolution else "",
        prediction_words(facts.prediction) if facts.kind == "base" else "",
        "zero SNR" if facts.zero_snr else "",
        " + ".join(parts),
        "EMA" if facts.averaged else "",
        *_adapter_chips(facts),
        containers.get(facts.container or "", ""),
    ]
    return [text for text in found if text]


def _adapter_chips(facts: ModelFacts) -> list[str]:
    """A LoRA's method, rank, alpha, and whose names it has; an embedding's vectors."""
    if facts.vectors:
        return [tr("{count} vectors", count=facts.vectors)]
    adapter = facts.adapter
    if adapter is None:
        return []
    ranks = ", ".join(map(str, adapter.ranks[:3])) + ("…" if len(adapter.ranks) > 3 else "")
    names = {"lora": "LoRA", "locon": "LoCon", "dora": "DoRA", "loha": "LoHa", "lokr": "LoKr", "ia3": "IA³"}
    spelling = {"kohya": "kohya", "sai": "SAI", "diffusers": "diffusers", "peft": "PEFT", "onetrainer": "OneTrainer",
                "lycoris": "LyCORIS"}  # fmt: skip
    return [
        names.get(adapter.method, adapter.method),
        tr("rank {rank}", rank=ranks) if ranks else "",
        tr("alpha {alpha}", alpha=f"{adapter.alpha:g}") if adapter.alpha is not None else "",
        spelling.get(adapter.spelling or "", ""),
    ]


def prediction_words(prediction: str | None) -> str:
    return {"v_prediction": "v-prediction", "epsilon": "epsilon"}.get(prediction or "", "")


def _part_word(part: str) -> str:
    return tr("VAE") if part == "vae" else part_words(part)


class FactsLine(QWidget):
    """What the file named in a field is, in one line beneath it; read in the pool while it is typed.

    Signals:
        found(facts): the newest answer, also for a file that is not there.
    """

    found = Signal(object)

    def __init__(self, judge: Callable[[ModelFacts], Message | None]) -> None:
        """`judge(facts)` says why the file does not belong here, or None."""
        super().__init__()
        self._judge = judge
        self.facts: ModelFacts | None = None
        self._asks = Latest(self, self._show)
        self._path = ""
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        self.text = label("", "small", wrap=True)
        column.addWidget(self.text)
        self.hide()

    def look(self, path: str) -> None:
        """Say what this file is; nothing for an empty path."""
        self._path = path
        self.facts = None
        if path:
            self._asks.ask(lambda: (path, inspect_file(Path(path))))
        else:
            self.hide()

    def _show(self, answer: tuple[str, ModelFacts]) -> None:
        path, facts = answer
        if path != self._path:
            return
        self.facts = facts
        problem = self._judge(facts)
        set_role(self.text, "good" if problem is None else "problem")
        words = " · ".join(chips_of(facts)) if facts.family else translate_message(facts.summary)
        self.text.setText(words if problem is None else translate_message(problem))
        self.show()
        self.found.emit(facts)

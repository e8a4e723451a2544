"""Base model: a file dropped, chosen, found on this computer or named on the hub; what it is, and what follows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QGuiApplication, QShowEvent
from PySide6.QtWidgets import QWidget

from app import theme
from app.form import places_of
from app.i18n import tr, translate_message
from app.pages.base import Context, Page
from app.path_editor import choose_path, model_files
from app.slices import Pieces
from app.widgets.basics import Card, Fold, Invitation, accept_paths, dropped_paths, set_flag
from app.widgets.download_card import DownloadCard
from app.widgets.family_strip import FamilyStrip
from app.widgets.metadata_view import MetadataView
from app.widgets.model_card import ModelCard
from app.widgets.model_list import RECENT, ModelList
from app.widgets.model_parts import PREDICTION, ZERO_SNR, MissingParts, PredictionCard
from app.work import Latest
from trainer.models import hub
from trainer.models.header import ModelFacts, base_problem, inspect_file

PATH = "model.path"
OTHERS = ("model.vae", "model.text_encoder", "model.text_encoder_2")  # files that stand in for the model's own parts
PATIENCE_MS = 300  # before it is said that a file is being looked at


@dataclass(frozen=True)
class _Asked:
    """What the facts shown depend on."""

    path: str
    has_vae: bool
    has_text: bool


class ModelPage(Page):
    """See the module. A file dragged over the page is recognised before it is dropped."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, tr("Base model"), tr("The model that learns. It is only read, never changed."))
        self.setAcceptDrops(True)
        self._shown: _Asked | None = None
        self._facts: ModelFacts | None = None
        self._dragged = ""
        self._is_built = False
        self._last_base = ""  # the last path that was a base model, for when a stranger is dropped by mistake
        self._download: DownloadCard | None = None
        self._prediction: PredictionCard | None = None
        self._asks = Latest(self, self._take_facts)
        self._drag_asks = Latest(self, self._show_dragged)
        self._slow = QTimer(self, singleShot=True, interval=PATIENCE_MS)  # a disk that sleeps, a network that is slow
        self._slow.timeout.connect(self._show_looking)

    def build(self) -> Pieces:
        self.invitation = self._build_invitation()
        self.add(self.invitation)
        self.facts_card = ModelCard()
        self.facts_card.metadata_asked.connect(self._show_metadata)
        self.facts_card.use_asked.connect(self._use_as)
        self.missing = MissingParts(self.draft)
        self.facts_card.body.addWidget(self.missing)
        self.add(self.facts_card)
        self.facts_card.hide()
        yield
        self.context.download.arrived.connect(self._look_again)
        self.context.download.asked.connect(self._look_again)
        self.strip = FamilyStrip(self.context.family_defaults)
        self.add(self.strip)
        yield
        card = Card()
        form = self.form([place for place in places_of(("model",)) if place not in (PREDICTION, ZERO_SNR)], "model")
        self._form = form
        card.add(form)
        self.add(card)
        yield from form.build()
        self._list_card = self.add(self._build_list())
        yield
        self.draft.edited.connect(self._refresh)
        self.draft.file_changed.connect(self._look_again)
        self.draft.opened.connect(self._forget)
        QGuiApplication.instance().applicationStateChanged.connect(self._on_activated)  # type: ignore[union-attr]
        self._is_built = True
        self._refresh()
        if self.context.download.state == "running":
            _ = self.download  # which shows it, whatever model is chosen

    @property
    def download(self) -> DownloadCard:
        """The card of a model on the hub, made when it is first needed."""
        if self._download is None:
            self._download = DownloadCard(self.context.download, self.preferences)
            self.column.insertWidget(self.column.indexOf(self.strip), self._download)
        return self._download

    @property
    def prediction(self) -> PredictionCard:
        """The card with what the model predicts, made when it is first needed."""
        if self._prediction is None:
            self._prediction = PredictionCard(self.draft)
            self.column.insertWidget(self.column.indexOf(self._list_card), self._prediction)
            if self._facts is not None:
                self._prediction.show_facts(self._facts)
        return self._prediction

    def _first_prediction(self) -> Pieces:
        """Make the card of predictions in a piece of its own; not if the model was taken out meanwhile."""
        yield
        if self._facts is not None and self._facts.kind == "base":
            _ = self.prediction

    def _build_invitation(self) -> Invitation:
        actions = (
            (tr("Choose a file…"), "primary", self._choose),
            (tr("Try the example"), "", self.context.try_example),
        )
        sentence = tr(
            "Drop a model here: Stable Diffusion 1.x, 2.x or SDXL, any format. Or take one from the list below, write the "
            "name of one on the Hugging Face hub (owner/name), or see a whole training on the small example first."
        )
        return Invitation("box", sentence, actions)

    def _build_list(self) -> QWidget:
        card = Card()
        self.fold = Fold(tr("Models on this computer"), "model.list", self.preferences, opened=True)
        self.list = ModelList(self.preferences)
        self.list.chosen.connect(self._take)
        self.fold.body.addWidget(self.list)
        self.fold.toggled.connect(lambda opened: self.list.look() if opened else None)
        card.add(self.fold)
        if self.fold.is_open:
            self.list.look()
        return card

    def reveal(self, place: str) -> bool:
        if place not in (PREDICTION, ZERO_SNR):
            return super().reveal(place)
        row = self.prediction.rows[place]
        self.prediction.show()
        QTimer.singleShot(0, row, lambda: row.editor.field().setFocus())
        self._bring_into_view(row)
        return True

    # ---- choosing ----

    def _choose(self) -> None:
        choose_path(self, self._take, pattern=model_files())

    def _take(self, path: str) -> None:
        self.draft.set(PATH, path)
        self.verticalScrollBar().setValue(0)

    def _use_as(self, place: str, path: Path) -> None:
        """A stranger goes where it belongs: a VAE is made the VAE, a LoRA the one to go on from. The base model that it
        was dropped on is the base model again."""
        self.draft.set_many({place: str(path), PATH: self._last_base})
        self.context.jump(place)

    def _forget(self) -> None:
        """Another run is edited."""
        self._last_base = ""

    def _show_metadata(self, path: Path) -> None:
        MetadataView(self.window(), path).show()

    # ---- what is shown ----

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        if self._is_built:
            self._look_again()
            if self.fold.is_open:
                self.list.look()

    def _on_activated(self, state: Qt.ApplicationState) -> None:
        """Back from another program, which may have moved, replaced or finished the file."""
        if state == Qt.ApplicationState.ApplicationActive and self.isVisible():
            self._look_again()

    def _asked(self) -> _Asked:
        vae, *texts = (bool(self.draft.get(place)) for place in OTHERS)
        return _Asked(self.draft.path(PATH), vae, any(texts))

    def _look_again(self, _: object = None) -> None:
        self._shown = None
        self._refresh()

    def _refresh(self) -> None:
        asked = self._asked()
        if asked == self._shown:
            return
        self._shown = asked
        self.invitation.setVisible(not asked.path)
        if asked.path:
            self._asks.ask(lambda: (asked, inspect_file(asked.path)))
            if self._facts is None or str(self._facts.path) != asked.path:
                self._slow.start()
        else:
            self._slow.stop()
            self._facts = None
            self._show_chosen()
            for card in (self.facts_card, self._prediction):
                if card is not None:
                    card.hide()
            if self._download is not None:
                self._download.show_model("")

    def _show_looking(self) -> None:
        if self._shown is not None and not self._dragged:
            self.facts_card.show_looking(Path(self._shown.path))
            self.facts_card.show()

    def _take_facts(self, answer: tuple[_Asked, ModelFacts]) -> None:
        asked, facts = answer
        if asked != self._asked():
            return
        self._slow.stop()
        self._facts = facts
        if not self._dragged:
            self._show_chosen()
        self.missing.show_facts(facts)
        if self._prediction is not None:
            self._prediction.show_facts(facts)
        elif facts.kind == "base":
            self.context.slices.start(self._first_prediction())
        if facts.kind == "hub":
            self.download.show_model(str(hub.parse(asked.path) or asked.path), facts.num_bytes)
        elif self._download is not None:
            self._download.show_model("")
        if facts.kind == "base":
            self.context.family_defaults.model_came()
            self._last_base = asked.path
            if base_problem(facts, asked.has_vae, asked.has_text) is None:
                self.preferences.remember(RECENT, asked.path, 12)

    def _show_chosen(self) -> None:
        """The card of the model that is chosen; the hub's models have one of their own."""
        facts, problem = self._facts, None
        self.facts_card.setVisible(facts is not None and facts.kind != "hub")
        if facts is not None:
            asked = self._asked()
            problem = base_problem(facts, asked.has_vae, asked.has_text)
            self.facts_card.show_facts(facts, problem)
        row = self._form.rows.get(PATH)
        if row is not None:
            row.set_said(translate_message(problem), is_known=facts is None or facts.kind != "hub")

    # ---- dragging ----

    def dragEnterEvent(self, event: Any) -> None:
        if accept_paths(event):
            self._dragged = str(Path(dropped_paths(event)[0]))
            self._mark(True)
            path = self._dragged
            self._drag_asks.ask(lambda: (path, inspect_file(path)))

    def dragMoveEvent(self, event: Any) -> None:
        accept_paths(event)

    def dragLeaveEvent(self, event: Any) -> None:
        self._end_drag()

    def dropEvent(self, event: Any) -> None:
        paths = dropped_paths(event)
        self._end_drag()
        if paths:
            event.acceptProposedAction()
            self._take(str(Path(paths[0])))

    def _show_dragged(self, answer: tuple[str, ModelFacts]) -> None:
        path, facts = answer
        if path == self._dragged:
            self.facts_card.show_facts(
                facts, base_problem(facts, has_vae=True, has_text=True), tr("Drop it to choose:")
            )
            self.facts_card.show()

    def _end_drag(self) -> None:
        """Show again what is chosen."""
        if not self._dragged:
            return
        self._dragged = ""
        self._mark(False)
        self._show_chosen()

    def _mark(self, dropping: bool) -> None:
        for widget in (self.invitation, self.facts_card):
            set_flag(widget, "drop", dropping)
        if dropping:
            self.ensureVisible(0, 0, 0, theme.px(theme.SPACE))

    def advice(self) -> list[str]:
        return [
            tr("Train on the model that you draw with, or on the one it comes from: a LoRA fits its own family only."),
            tr("Clip skip: 2 for anime models, 1 for photographic ones, as you set it when you draw."),
            tr("Half-downloaded files and LoRAs chosen by mistake are recognised here, before a minute is lost."),
        ]

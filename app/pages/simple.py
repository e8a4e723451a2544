"""Pages that are a form and little else: Network, Optimiser, Noise and loss."""

from __future__ import annotations

from app.i18n import tr
from app.pages.base import BannerPlace, Context, Page
from app.slices import Pieces
from app.widgets.basics import Card, label
from app.words import size_words
from trainer.optim.table import OPTIMIZERS


class NetworkPage(Page):
    """What is trained, and how wide."""

    def __init__(self, context: Context) -> None:
        introduction = tr("The LoRA itself: which parts of the model learn, and how much it can hold.")
        super().__init__(context, tr("Network"), introduction)

    def build(self) -> Pieces:
        card = Card()
        form = self.form(("network",), "network")
        card.add(form)
        self._file_size = label("", "muted", wrap=True)
        card.add(self._file_size)
        self.add(card)
        yield from form.build()
        self.draft.checked.connect(self._show_size)
        self._show_size()

    def _show_size(self) -> None:
        facts = self.draft.disk.facts
        known = facts is not None and facts.file_bytes
        text = tr("The file will be about {size}.", size=size_words(facts.file_bytes or 0)) if known and facts else ""
        self._file_size.setText(text)
        self._file_size.setVisible(bool(text))

    def advice(self) -> list[str]:
        return [
            tr(
                "16 to 32 is a good rank for a character or a thing. Over 128 there is no gain: the file grows and it "
                "overfits sooner."
            ),
            tr(
                "Alpha is a scale, not a brake against overfitting: the update is multiplied by alpha ÷ rank. Half the "
                "rank is usual."
            ),
            tr("On a card with less than 8 GB train the UNet only."),
        ]


class OptimizerPage(Page):
    """The rule that learns, its rates, and the seed."""

    def __init__(self, context: Context) -> None:
        introduction = tr("How large each change is. The learning rate matters more than anything else here.")
        super().__init__(context, tr("Optimiser"), introduction)

    def build(self) -> Pieces:
        self.hint = BannerPlace()
        self.add(self.hint)
        card = Card()
        self.fields = self.form(("optimizer", "training.seed"), "optimizer")
        card.add(self.fields)
        self.add(card)
        yield from self.fields.build()
        self.draft.edited.connect(self._follow)
        self._follow()

    def _follow(self) -> None:
        """Hide what the other choices make meaningless, and offer the rate that suits the optimiser."""
        draft = self.draft
        self.fields.show_only_when("optimizer.text_encoder_rate", draft.get("network.train") != "unet")
        self.fields.show_only_when("optimizer.unet_rate", draft.get("network.train") != "text_encoder")
        row = OPTIMIZERS.get(str(draft.get("optimizer.name")))
        rate = draft.get("optimizer.learning_rate")
        if row is not None and row.own_rate and rate != 1.0:
            text = tr("{optimizer} finds its own rate while training and wants 1 here.", optimizer=row.name)
            self.hint.show_banner(text, "info", ((tr("Set the rates to 1"), self._set_own_rate),))
        elif row is not None and not row.own_rate and rate == 1.0:
            text = tr("A rate of 1 is far too high for {optimizer}.", optimizer=row.name)
            self.hint.show_banner(text, "warning", ((tr("Back to 1e-4 and 5e-5"), self._set_usual_rates),))
        else:
            self.hint.show_banner("")

    def _set_own_rate(self) -> None:
        changes = {"optimizer.learning_rate": 1.0, "optimizer.unet_rate": None, "optimizer.text_encoder_rate": 1.0}
        self.draft.set_many(changes)

    def _set_usual_rates(self) -> None:
        places = ("optimizer.learning_rate", "optimizer.unet_rate", "optimizer.text_encoder_rate")
        self.draft.set_many({place: self.draft.default(place) for place in places})

    def advice(self) -> list[str]:
        return [
            tr("For a LoRA with AdamW 1e-4 is a good start, with 5e-5 for the text encoder (anime models: 1e-5)."),
            tr("Lion wants a third to a tenth of AdamW's rate. Prodigy finds its own: leave it at 1."),
            tr("Nothing learnt after a third of the run: raise the rate. Burnt colours and stiff poses: lower it."),
        ]


class NoisePage(Page):
    """Noise offset and the weight of the loss."""

    def __init__(self, context: Context) -> None:
        introduction = tr("How pictures are hidden in noise, and which noise levels count.")
        super().__init__(context, tr("Noise and loss"), introduction)

    def build(self) -> Pieces:
        card = Card()
        form = self.form(("noise",), "noise")
        card.add(form)
        self.add(card)
        yield from form.build()

    def advice(self) -> list[str]:
        return [
            tr(
                "A noise offset of 0.03 to 0.1 gives darker darks and brighter brights. Leave it at 0 if you don't "
                "need them."
            ),
            tr("Min-SNR gamma 5 evens out easy and hard noise levels, so that learning is quicker and steadier."),
        ]

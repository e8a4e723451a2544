"""Scheduler: how long the run is, and the curve of both learning rates over its real steps."""

from __future__ import annotations

from typing import Any

from app.i18n import tr, translate_message
from app.pages.base import Context, Page
from app.slices import Pieces
from app.widgets.basics import Card, label
from app.widgets.rate_curve import Curve, RateCurve
from trainer.optim.curves import warmup_steps
from trainer.optim.table import OPTIMIZERS, SCHEDULES


class SchedulerPage(Page):
    """See the module."""

    def __init__(self, context: Context) -> None:
        introduction = tr("How long the run is, and how the learning rate moves over it.")
        super().__init__(context, tr("Scheduler"), introduction)

    def build(self) -> Pieces:
        length = Card(tr("Length"))
        form = self.form(("training.epochs", "training.steps"), "length")
        length.add(form)
        self.steps = label("", "muted", wrap=True)
        length.add(self.steps)
        self.add(length)
        yield from form.build()
        card = Card(tr("Learning rates over the run"))
        self.plot = RateCurve()
        card.add(self.plot)
        self.note = label("", "muted", wrap=True)
        card.add(self.note)
        self.fields = self.form(("scheduler",), "scheduler")
        card.add(self.fields)
        self.add(card)
        yield from self.fields.build()
        self.draft.edited.connect(self._follow)
        self.draft.checked.connect(self._follow)
        self._follow()

    def _follow(self) -> None:
        row = SCHEDULES.get(str(self.draft.get("scheduler.name")))
        for key in ("warmup_ratio", "warmup_steps"):
            self.fields.show_only_when(f"scheduler.{key}", row is None or row.warmup)
        self.fields.show_only_when("scheduler.cycles", row is None or row.cycles)
        self.fields.show_only_when("scheduler.power", row is None or row.power)
        plan = self.draft.disk.plan
        text = (
            translate_message(plan.sentence()) if plan else tr("The steps are counted as soon as there are pictures.")
        )
        self.steps.setText(text)
        if row is not None:
            self.plot.show_curve(self.curve())
        self._show_note()

    def curve(self) -> Curve:
        """The curve of the values as they are now; what is no number yet counts as its default."""
        plan = self.draft.disk.plan
        total = plan.total_steps if plan else 0
        own_steps = self.draft.get("training.steps")
        if plan is None and isinstance(own_steps, int) and own_steps > 0:
            total = own_steps
        warmup = warmup_steps(
            total or 1000, min(1.0, self._number("scheduler.warmup_ratio")), self._optional("scheduler.warmup_steps")
        )
        name = str(self.draft.get("scheduler.name"))
        return Curve(
            name,
            self._rates(),
            total,
            warmup if SCHEDULES[name].warmup else 0,
            max(1, int(self._number("scheduler.cycles"))),
            self._number("scheduler.power"),
            plan.epoch_ends if plan else (),
        )

    def _rates(self) -> tuple[tuple[str, str, float], ...]:
        train = self.draft.get("network.train")
        common = self._number("optimizer.learning_rate")
        found = []
        if train != "text_encoder":
            rate = self._optional("optimizer.unet_rate")
            found.append((tr("UNet"), "accent", common if rate is None else float(rate)))
        if train != "unet":
            rate = self._optional("optimizer.text_encoder_rate")
            found.append((tr("Text encoder"), "info", common if rate is None else float(rate)))
        return tuple(found)

    def _number(self, place: str) -> float:
        value = self.draft.get(place)
        return float(value if _is_number(value) else self.draft.default(place))

    def _optional(self, place: str) -> Any:
        value = self.draft.get(place)
        return value if _is_number(value) else None

    def _show_note(self) -> None:
        row = OPTIMIZERS.get(str(self.draft.get("optimizer.name")))
        text = ""
        if row is not None and row.own_rate:
            text = tr("{optimizer} multiplies the rate that it finds by this curve.", optimizer=row.name)
        elif self.draft.get("scheduler.name") == "adafactor":
            text = tr("Adafactor sets its own rate from the weights while training: what is drawn is only its frame.")
        self.note.setText(text)
        self.note.setVisible(bool(text))

    def advice(self) -> list[str]:
        return [
            tr("Aim at 1,000 to 2,000 steps for a character at batch size 1; save every epoch and choose the best."),
            tr("Warm-up of 5 % is enough. Cosine suits AdamW, constant suits Prodigy."),
        ]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0

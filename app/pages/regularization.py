"""Regularisation: class pictures, which keep the model from forgetting what the class looks like."""

from __future__ import annotations

from app.i18n import tr
from app.pages.base import BannerPlace, Context
from app.pages.folders import FoldersPage
from app.slices import Pieces
from app.widgets.basics import Card


class RegularizationPage(FoldersPage):
    """See the module."""

    def __init__(self, context: Context) -> None:
        introduction = tr(
            "Pictures of the class (other cats, if yours is a cat), so that the model does not forget what they look "
            "like. Optional: without them a run has half the steps."
        )
        super().__init__(context, tr("Regularisation"), introduction)

    def build(self) -> Pieces:
        invitation = tr(
            "No class pictures: that is fine for most LoRAs. Drop a folder such as 1_cat here if you have one."
        )
        self.add_folders("regularization", invitation)
        yield
        self.steps = BannerPlace()
        self.add(self.steps)
        self.card = Card()
        form = self.form(("regularization",), "regularization")
        self.card.add(form)
        self.add(self.card)
        yield from form.build()
        self.draft.edited.connect(self._follow)
        self.draft.checked.connect(self._show_steps)
        self._follow()

    def _follow(self) -> None:
        """Without class pictures the weight does nothing, so it is not shown."""
        self.card.setVisible(bool(self.draft.get("regularization.folders")))
        self._show_steps()

    def _show_steps(self) -> None:
        plan = self.draft.disk.plan
        if not self.draft.get("regularization.folders") or plan is None or not plan.num_class:
            self.steps.show_banner("")
            return
        text = tr(
            "An epoch shows {train} training pictures and {classes} class pictures, taken in turn: about twice the "
            "steps of a run without them.",
            train=plan.num_train,
            classes=plan.num_class,
        )
        self.steps.show_banner(text)

    def advice(self) -> list[str]:
        return [
            tr("The caption of class pictures is the class alone (cat), without the trigger word."),
            tr(
                "Use about as many as training pictures × repeats. Several concepts of one class share one class folder."
            ),
            tr("Do not put a part of a style's own pictures here: that teaches the style to the class."),
        ]

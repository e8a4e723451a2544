"""Regularisation: class pictures, which keep the model from forgetting what the class looks like."""

from __future__ import annotations

from app.i18n import tr
from app.pages.base import BannerPlace, Context, Page
from app.widgets.basics import Card
from app.widgets.folder_list import FolderList


class RegularizationPage(Page):
    """See the module."""

    def __init__(self, context: Context) -> None:
        introduction = tr(
            "Pictures of the class (other cats, if yours is a cat), so that the model does not forget what they look "
            "like. Optional: without them a run has half the steps."
        )
        super().__init__(context, tr("Regularisation"), introduction)
        invitation = tr(
            "No class pictures: that is fine for most LoRAs. Drop a folder such as 1_cat here if you have one."
        )
        self.folders = FolderList(self.draft, "regularization", invitation)
        self.add(self.folders)
        self.steps = BannerPlace()
        self.add(self.steps)
        self.card = Card()
        self.card.add(self.form(("regularization",), "regularization"))
        self.add(self.card)
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

    def reveal(self, place: str) -> bool:
        if super().reveal(place):
            return True
        if place.startswith("regularization.folders"):
            self.scroll_to(self.folders)
            self.folders.focus()
            return True
        return False

    def advice(self) -> list[str]:
        return [
            tr("The caption of class pictures is the class alone (cat), without the trigger word."),
            tr(
                "Use about as many as training pictures × repeats. Several concepts of one class share one class folder."
            ),
            tr("Do not put a part of a style's own pictures here: that teaches the style to the class."),
        ]

"""Output: name, folder, what is saved when, and where the finished LoRA is copied."""

from __future__ import annotations

from typing import Any

from app import work
from app.i18n import tr
from app.pages.base import BannerPlace, Context, Page
from app.refresh_choice import RefreshChoice
from app.slices import Pieces
from app.widgets.basics import Card, label
from app.widgets.named import Named
from app.words import size_words
from trainer.export_targets import Target, find_target

SAVING = ("output.name", "output.folder", "output.save_every_epochs", "output.save_every_steps", "output.keep_last",
          "output.precision", "output.snapshot_minutes", "output.tensorboard")  # fmt: skip
COPY = ("output.export_to",)
HEADER = ("output.title", "output.author", "output.comment", "output.private")


class OutputPage(Page):
    """See the module."""

    def __init__(self, context: Context) -> None:
        introduction = tr("Where the files go, and what is written in them.")
        super().__init__(context, tr("Output"), introduction)
        self._folder = ""  # that the choice was shown for

    def build(self) -> Pieces:
        self.room = BannerPlace()
        self.add(self.room)
        saving = Card(tr("Saving"))
        form = self.form(SAVING, "saving")
        saving.add(form)
        self.add(saving)
        yield from form.build()
        export = Card(tr("Placing"), tr("The finished LoRA can be put where your image program finds it."))
        self.refresh = RefreshChoice()
        self._refresh_row = Named()
        self._refresh_row.put(label(""), self.refresh)
        self._refresh_row.hide()
        self._target = work.Latest(self, self._show_target)
        copy, header = self.form(COPY, "copy"), self.form(HEADER, "export")
        for part in (copy, self._refresh_row, header):
            export.add(part)
        self.add(export)
        yield from copy.build()
        yield from header.build()
        self.draft.edited.connect(self._look_at_target)
        self._look_at_target()
        self.draft.checked.connect(self._show_room)
        self._show_room()

    def _look_at_target(self) -> None:
        """A program can be asked to show the file only where it is copied to one."""
        folder = str(self.draft.get("output.export_to") or "")
        if folder != self._folder:
            self._folder = folder
            self._target.ask(lambda: find_target(folder) if folder else None)

    def _show_target(self, target: Target | None) -> None:
        self.refresh.set_target(target)
        self._refresh_row.setVisible(not self.refresh.isHidden())

    def _show_room(self) -> None:
        facts = self.draft.disk.facts
        if facts is None or not facts.file_bytes or facts.free_bytes is None:
            self.room.show_banner("")
            return
        count = max(1, facts.num_files)
        values: dict[str, Any] = {
            "count": count,
            "size": size_words(facts.file_bytes),
            "all": size_words(facts.file_bytes * count),
            "free": size_words(facts.free_bytes),
        }
        fits = facts.file_bytes * count < facts.free_bytes * 0.9
        if fits:
            self.room.show_banner(tr("Files: {count} of about {size}, {all} in all. Free on that disk: {free}.", **values))
        else:
            text = tr("Files: {count} of about {size} need {all}, and only {free} are free on that disk.", **values)
            self.room.show_banner(text, "warning")

    def advice(self) -> list[str]:
        return [
            tr("Save every epoch: the best one is rarely the last."),
            tr("A LoRA of rank 32 for SD 1.5 is about 36 MB in fp16."),
            tr("The copy in your image program never replaces another file of the same name without being asked."),
        ]

"""Images: folders of pictures as cards, their sizes as a histogram, captions, and the tagger."""

from __future__ import annotations

from app.form import places_of
from app.i18n import tr
from app.pages.base import Context
from app.pages.folders import FoldersPage
from app.slices import Pieces
from app.widgets import thumbnails
from app.widgets.basics import Card, button, label
from app.widgets.histogram import BucketHistogram
from app.widgets.tagger import TaggerCard

SIZES = ("images.resolution", "images.buckets", "images.flip", "images.bucket_step", "images.bucket_min",
         "images.bucket_max", "images.no_upscale", "images.alpha_colour", "images.smallest_side")  # fmt: skip


class ImagesPage(FoldersPage):
    """See the module."""

    def __init__(self, context: Context) -> None:
        introduction = tr("The pictures to learn. They are only read: nothing is moved, renamed or changed.")
        super().__init__(context, tr("Images"), introduction)

    def build(self) -> Pieces:
        invitation = tr(
            "Drop a folder with pictures here, or choose one. A kohya folder such as 10_rufus cat, or its parent, is fine."
        )
        self.add_folders("images", invitation, self.context.try_example)
        yield
        thumbnails.shared()  # reads a picture at first, which the first page with pictures need not wait for
        yield
        sizes = Card(tr("Sizes"))
        self.histogram = BucketHistogram()
        self.histogram_text = label("", "muted", wrap=True)
        sizes.add(self.histogram_text)
        sizes.add(self.histogram)
        form = self.form(SIZES, "sizes")
        sizes.add(form)
        self.add(sizes)
        yield from form.build()
        captions = Card(tr("Captions"))
        self.captions = self.form([place for place in places_of(("images",)) if place not in SIZES], "captions")
        captions.add(self.captions)
        self.add(captions)
        yield from self.captions.build()
        self.tagger = TaggerCard(self.context, self.folders.picture_folders)
        self.tagger.finished.connect(self.folders.look_again)
        self.tag_button = button(tr("Write captions with a tagger…"), self._open_tagger, icon="wand-sparkles")
        captions.add(self.tag_button)
        self.add(self.tagger)
        self.tagger.reopen()
        self.folders.reported.connect(self._show_histogram)
        self.draft.edited.connect(self._follow)
        self._follow()
        self._show_histogram()

    def _open_tagger(self) -> None:
        self.tagger.show()
        self.tagger.open()
        self.scroll_to(self.tagger)

    def _follow(self) -> None:
        self.captions.show_only_when("images.keep_tokens", self.draft.get("images.shuffle_captions") is True)

    def _show_histogram(self) -> None:
        counts = self.folders.bucket_counts()
        self.histogram.set_buckets(counts)
        number = sum(counts.values())
        if len(counts) > 1:
            text = tr("{count} pictures an epoch in {sizes} sizes; none is dropped.", count=number, sizes=len(counts))
        else:
            text = tr("{count} pictures an epoch, all in one size.", count=number)
        self.histogram_text.setText(text)
        self.histogram_text.setVisible(bool(counts))
        self.tag_button.setEnabled(bool(self.folders.picture_folders()))

    def advice(self) -> list[str]:
        return [
            tr(
                "About 20 pictures for a character (15 to 40): varied angles, poses and backgrounds, sharp. "
                "A style: 50 to 200."
            ),
            tr(
                "What you delete from the captions is learnt into the trigger word; what stays can be changed later "
                "by the prompt."
            ),
            tr("A few bad pictures hurt more than many good ones help: look at all of them."),
            tr("Train on what you may train on, and respect the artists' licences."),
        ]

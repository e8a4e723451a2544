"""A base model that is still on the hub: how much it is, its download with progress and a way to stop, and the mirror."""

from __future__ import annotations

from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QVBoxLayout

from app import theme
from app.hub_download import MIRROR, HubDownload, is_address, use_mirror
from app.i18n import joined, tr
from app.preferences import Preferences
from app.widgets.basics import Card, Fold, ProgressBar, button, label, row, set_flag, set_role
from app.widgets.line_edit import ClearableEdit
from app.words import size_words, time_words

SAVE_DELAY_MS = 400  # after the last key in the mirror's field


class DownloadCard(Card):
    """See the module. The download itself belongs to the window, and goes on while pages are built anew.

    Hidden while no model of the hub is chosen, unless one is being downloaded.
    """

    def __init__(self, download: HubDownload, preferences: Preferences) -> None:
        super().__init__(tr("On the Hugging Face hub"))
        self._download, self._preferences = download, preferences
        self.id, self._num_bytes = "", 0
        self.text = label("", wrap=True)
        self.bar = ProgressBar()
        self.start_button = button(tr("Download"), self.start, role="primary", icon="download")
        self.ask_button = button(tr("Ask how large it is"), self.ask, icon="circle-help")
        self.ask_button.setToolTip(tr("Asks the hub for the sizes of its files, and for nothing else."))
        self.stop_button = button(tr("Stop"), download.stop, icon="square")
        column = QVBoxLayout()
        column.setSpacing(theme.px(6))
        column.addWidget(self.text)
        column.addWidget(self.bar)
        self.body.addLayout(column)
        self.body.addLayout(row(self.start_button, self.ask_button, self.stop_button, None))
        self.mirror_fold = self._build_mirror()
        self.body.addWidget(self.mirror_fold)
        download.changed.connect(self.refresh)
        self.refresh()

    def _build_mirror(self) -> Fold:
        fold = Fold(tr("Download from a mirror"), "hub.mirror", self._preferences)
        text = tr(
            "Where the hub cannot be reached, the address of a mirror that speaks its language. Empty asks the hub itself."
        )
        fold.body.addWidget(label(text, "small", wrap=True))
        self.mirror = ClearableEdit(str(self._preferences.get(MIRROR)), hint="https://")
        self.mirror.setAccessibleName(tr("Address of the mirror"))
        self.mirror_problem = label(tr("An address begins with https:// and has no blanks."), "problem", wrap=True)
        self.mirror_problem.hide()
        self._save_timer = QTimer(self, singleShot=True, interval=SAVE_DELAY_MS)
        self._save_timer.timeout.connect(self._save_mirror)
        self.mirror.textEdited.connect(lambda _: self._save_timer.start())
        self.mirror.editingFinished.connect(self._save_mirror)
        fold.body.addWidget(self.mirror)
        fold.body.addWidget(self.mirror_problem)
        return fold

    def _save_mirror(self) -> None:
        address = self.mirror.text().strip()
        good = not address or is_address(address)
        self.mirror_problem.setVisible(not good)
        set_flag(self.mirror, "state", "" if good else "problem")
        if good:
            self._preferences.set(MIRROR, address)
            use_mirror(self._preferences)

    def show_model(self, hub_id: str, num_bytes: int = 0) -> None:
        """Offer the model of an id; `num_bytes` as the hub once said, 0: it was never asked. No id offers none."""
        self.id, self._num_bytes = hub_id, num_bytes
        self.refresh()

    def start(self) -> None:
        """Download the model that is shown."""
        self._save_mirror()
        self._download.start(self.id)

    def ask(self) -> None:
        """Let the hub say how much it is."""
        self._save_mirror()
        self._download.ask(self.id)

    def refresh(self) -> None:
        """Show the model that is chosen, and what is asked for or downloaded at the moment."""
        download = self._download
        self.setVisible(bool(self.id) or download.state == "running")
        is_mine = download.id == self.id
        self.bar.setVisible(download.is_busy)
        self.bar.show_progress(download.done, download.total)
        self.stop_button.setVisible(download.is_busy)
        self.start_button.setVisible(not download.is_busy)
        self.ask_button.setVisible(not download.is_busy and not self._num_bytes)
        has_failed = is_mine and download.state == "failed"
        if has_failed and not self.mirror_fold.is_open:
            self.mirror_fold.set_open(True, remember=False)  # the way out, where the hub cannot be reached
        set_role(self.text, "problem" if has_failed else "")
        self.text.setText(self._words(is_mine))

    def _words(self, is_mine: bool) -> str:
        download = self._download
        if download.is_busy:
            return _progress_words(download)
        if is_mine and download.state == "failed":
            return download.text
        if is_mine and download.state == "stopped":
            return tr("Stopped. What has come stays, and is not downloaded again.")
        where = tr("{id} is not on this disk. A run that uses it begins by downloading it.", id=self.id)
        if not self._num_bytes:
            return joined(where, tr("How large it is, only the hub knows; it has not been asked."))
        size = tr("{size} are to be downloaded.", size=size_words(self._num_bytes))
        free = tr("{size} are free on that disk.", size=size_words(download.free)) if is_mine and download.free else ""
        return joined(where, size, free)


def _progress_words(download: HubDownload) -> str:
    """Which model, how far, how quick, how long."""
    if download.state == "asking" or not download.total:
        return tr("{id}: asking the hub…", id=download.id)
    parts = [tr("{done} of {total}", done=size_words(download.done), total=size_words(download.total))]
    if download.speed > 0:
        parts.append(tr("{size} a second", size=size_words(download.speed)))
    if download.seconds_left is not None and download.done < download.total:
        parts.append(tr("{time} left", time=time_words(download.seconds_left)))
    return tr("{subject}: {text}", subject=download.id, text=" · ".join(parts))

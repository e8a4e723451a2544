"""A base model that is still on the hub: how much it is, its download with progress and a way to stop, and the mirror."""

from __future__ import annotations

from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QLineEdit, QProgressBar, QVBoxLayout

from app import theme
from app.hub_download import MIRROR, HubDownload, is_address, use_mirror
from app.i18n import tr, translate_message
from app.preferences import Preferences
from app.widgets.basics import Card, Fold, button, label, row, set_flag, set_role
from app.words import size_words, time_words
from trainer.models.header import ModelFacts

SCALE = 1000  # of the progress bar, whose own numbers are too small for bytes
SAVE_DELAY_MS = 400  # after the last key in the mirror's field


class DownloadCard(Card):
    """See the module. The download itself belongs to the window, and goes on while pages are built anew."""

    def __init__(self, download: HubDownload, preferences: Preferences) -> None:
        super().__init__(tr("On the Hugging Face hub"))
        self._download, self._preferences = download, preferences
        self.id, self._summary = "", ""
        self.text = label("", wrap=True)
        self.bar = QProgressBar(textVisible=False, accessibleName=tr("Progress"))
        self.start_button = button(tr("Download"), self.start, role="primary", icon="download")
        self.stop_button = button(tr("Stop"), download.stop, icon="square")
        column = QVBoxLayout()
        column.setSpacing(theme.px(6))
        column.addWidget(self.text)
        column.addWidget(self.bar)
        self.body.addLayout(column)
        self.body.addLayout(row(self.start_button, self.stop_button, None))
        self.body.addWidget(self._build_mirror())
        download.changed.connect(self.refresh)
        self.hide()

    def _build_mirror(self) -> Fold:
        fold = Fold(tr("Download from a mirror"), "hub.mirror", self._preferences)
        text = tr(
            "Where the hub cannot be reached, the address of a mirror that speaks its language. Empty asks the hub itself."
        )
        fold.body.addWidget(label(text, "small", wrap=True))
        self.mirror = QLineEdit(str(self._preferences.get(MIRROR)), placeholderText="https://", clearButtonEnabled=True)
        self.mirror.setAccessibleName(tr("Address of the mirror"))
        self.mirror_problem = label(tr("An address begins with https:// and has no blanks."), "problem", wrap=True)
        self.mirror_problem.hide()
        self._save_timer = QTimer(self, singleShot=True, interval=SAVE_DELAY_MS)
        self._save_timer.timeout.connect(self._save_mirror)
        self.mirror.textEdited.connect(lambda _: self._save_timer.start())
        self.mirror.textChanged.connect(lambda text: None if text else self._save_timer.start())
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

    def show_facts(self, hub_id: str, facts: ModelFacts) -> None:
        """Offer the model of an id."""
        self.id = hub_id
        self._summary = translate_message(facts.summary)
        self.refresh()
        self.show()

    def start(self) -> None:
        """Download the model that is shown."""
        self._save_mirror()
        self._download.start(self.id)

    def refresh(self) -> None:
        """Show the download as it is now."""
        download = self._download
        is_mine = download.id == self.id
        running = download.state == "running"
        self.bar.setVisible(running and is_mine)
        self.bar.setRange(0, SCALE if download.total else 0)
        self.bar.setValue(SCALE * download.done // download.total if download.total else 0)
        self.stop_button.setVisible(running and is_mine)
        self.start_button.setVisible(not (running and is_mine))
        self.start_button.setEnabled(not running)
        failed = is_mine and download.state == "failed"
        set_role(self.text, "problem" if failed else "")
        self.text.setText(self._words(is_mine))

    def _words(self, is_mine: bool) -> str:
        download = self._download
        if download.state == "running" and not is_mine:
            return tr("{id} is being downloaded first.", id=download.id)
        if not is_mine or download.state in ("idle", "done"):
            return self._summary
        if download.state == "failed":
            return download.text
        if download.state == "stopped":
            return tr("Stopped. What has come stays, and is not downloaded again.")
        if not download.total:
            return tr("Asking the hub…")
        parts = [tr("{done} of {total}", done=size_words(download.done), total=size_words(download.total))]
        if download.speed > 0:
            parts.append(tr("{size} a second", size=size_words(download.speed)))
        if download.seconds_left is not None and download.done < download.total:
            parts.append(tr("{time} left", time=time_words(download.seconds_left)))
        return " · ".join(parts)

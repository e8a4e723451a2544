"""Whether a running program is asked to show new files, and where it answers: a choice that belongs to the program."""

from __future__ import annotations

from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QLineEdit, QVBoxLayout, QWidget

from app import theme, work
from app.editors import Switch
from app.i18n import tr
from trainer.export_targets import Target
from trainer.targets.refresh import APIS
from trainer.targets.wishes import Wish, remember, wish_of


class RefreshChoice(QWidget):
    """A switch and an address for one program; hidden where a program cannot be asked, or needs no asking.

    What is chosen is kept at once, for runs too; a user and password in the address only for as long as this lives.
    """

    def __init__(self, indent: int = 0) -> None:
        super().__init__()
        self._target: Target | None = None
        self._keeping = work.Latest(self, lambda _: None)
        self.switch = Switch("")
        self.address = QLineEdit()
        column = QVBoxLayout(self)
        column.setContentsMargins(indent, 0, 0, 0)
        column.setSpacing(theme.px(theme.SPACE))
        column.addWidget(self.switch)
        column.addWidget(self.address)
        self.switch.clicked.connect(lambda _: self._keep())
        self.address.editingFinished.connect(self._keep)
        self.set_target(None)

    def set_target(self, target: Target | None) -> None:
        """Show what is wanted of this program; nothing changes if it is the same, nor what was typed."""
        if target is not None and target == self._target:
            return
        self._target = target
        self._read()
        self.setVisible(target is not None and target.api is not None)

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._read()  # it may have been changed in another place

    def _read(self) -> None:
        target = self._target
        if target is None or target.api is None:
            return
        api, wish = APIS[target.api], wish_of(target.root)
        self.switch.setText(tr("Let a running {program} show it at once", program=api.name))
        self.switch.setToolTip(tr("It must have been started with {switch}.", switch=api.switch) if api.switch else "")
        self.switch.setChecked(wish.refresh)
        self.address.setText(wish.address)
        self.address.setPlaceholderText(api.address)
        self.address.setAccessibleName(tr("Address of {program}", program=api.name))
        self.address.setToolTip(tr("With a user and password: http://user:password@host:port. They are not remembered."))
        self.address.setVisible(wish.refresh)

    def wish(self) -> Wish:
        """What is chosen now, with a password if one was typed."""
        return Wish(self.switch.isChecked() and not self.isHidden(), self.address.text().strip())

    def _keep(self) -> None:
        self.address.setVisible(self.switch.isChecked())
        if self._target is not None:
            root, wish = self._target.root, self.wish()
            self._keeping.ask(lambda: remember(root, wish))

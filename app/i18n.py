"""The window's language: English in the source, Chinese in `resources/translations/zh_CN.qm`, switchable while running.

Widgets are built again after a switch, so nobody listens for it. Two ways to a sentence: `tr("… {name} …", name=value)` for
the window's own words, and `translate_message(message)` / `translate_trainer(text)` for what the trainer says and for
labels and help of settings.
"""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QCoreApplication, QLibraryInfo, QLocale, QTranslator

from trainer.messages import Message, Value
from trainer.paths import RESOURCES

LANGUAGES = {"en": "English", "zh_CN": "简体中文"}
FOLDER = RESOURCES / "translations"
_installed: list[QTranslator] = []
_language = ["en"]


def tr(template: str, **values: Value) -> str:
    """A sentence of the window. The template must stand in the source as a literal: it is found there for translation."""
    text = QCoreApplication.translate("app", template)
    return text.format(**values) if values else text


def translate_trainer(template: str) -> str:
    """What the trainer's code says (labels and help of settings, templates of messages) in the window's language."""
    return QCoreApplication.translate("trainer", template) if template else ""


def translate_message(message: Message | None) -> str:
    """A message of the trainer in the window's language; "" for None.

    A value that is itself a sentence of the trainer ("a whole number", why a file is left out) is translated too.
    """
    if message is None:
        return ""
    values = {
        name: translate_trainer(value) if isinstance(value, str) else value for name, value in message.values.items()
    }
    return Message(message.template, values).text(translate_trainer)


def joined(*sentences: str) -> str:
    """Sentences one after another: with a blank between them in English, without in Chinese."""
    return ("" if _language[0] == "zh_CN" else " ").join(sentence for sentence in sentences if sentence)


def listed(parts: Sequence[str]) -> str:
    """Parts of an enumeration."""
    return ("、" if _language[0] == "zh_CN" else ", ").join(parts)


def system_language() -> str:
    """The language of the user's system, among ours."""
    return "zh_CN" if QLocale.system().language() == QLocale.Language.Chinese else "en"


def language() -> str:
    """The language in force: a key of LANGUAGES."""
    return _language[0]


def set_language(chosen: str) -> None:
    """Put a language in force for all text made from now on."""
    for translator in _installed:
        QCoreApplication.removeTranslator(translator)
    _installed.clear()
    _language[0] = chosen if chosen in LANGUAGES else "en"
    QLocale.setDefault(QLocale(QLocale.Language.Chinese) if chosen == "zh_CN" else QLocale.c())
    if _language[0] == "en":
        return
    qt_folder = QLibraryInfo.path(QLibraryInfo.LibraryPath.TranslationsPath)
    for name, folder in ((f"qtbase_{chosen}", qt_folder), (chosen, str(FOLDER))):
        translator = QTranslator()
        if translator.load(name, folder):
            QCoreApplication.installTranslator(translator)
            _installed.append(translator)

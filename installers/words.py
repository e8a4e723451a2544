"""The set-up's sentences: English templates, said in Chinese where the system speaks it (chinese.py has them)."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping


def say(template: str, **values: object) -> str:
    """Return the sentence in the user's language. The template is a constant; a test finds those without Chinese."""
    if speaks_chinese():
        from installers.chinese import SENTENCES

        template = SENTENCES.get(template, template)
    return template.format(**values) if values else template


def speaks_chinese(environ: Mapping[str, str] = os.environ) -> bool:
    """True where the user's language is Chinese (ATHANOR_LANG decides, then the locale) and the console can show it."""
    chosen = environ.get("ATHANOR_LANG") or system_language(environ)
    return chosen.lower().startswith("zh") and can_show("中文", getattr(sys.stdout, "encoding", None))


def system_language(environ: Mapping[str, str] = os.environ) -> str:
    """The language that the system is set to, like "zh_CN"; "" if it does not say."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if environ.get(name):
            return environ[name]
    if os.name == "nt":
        import ctypes

        chinese = ctypes.windll.kernel32.GetUserDefaultUILanguage() & 0x3FF == 0x04
        return "zh" if chinese else "en"
    return ""


def can_show(text: str, encoding: str | None) -> bool:
    """Can a console of this encoding show `text`?"""
    try:
        text.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True

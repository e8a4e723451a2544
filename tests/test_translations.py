"""Every sentence of the program has natural Chinese with the same values in it, and what is compiled is up to date."""

from __future__ import annotations

import importlib.util
import os
import re
import string
from pathlib import Path
from types import ModuleType

import pytest

from trainer.paths import RESOURCES

FOLDER = RESOURCES / "translations"


@pytest.fixture(scope="module")
def update() -> ModuleType:
    """The script that finds sentences and compiles them."""
    spec = importlib.util.spec_from_file_location("update_translations", FOLDER / "update.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def chinese(update: ModuleType) -> dict[str, str]:
    return dict(update.read_ts(update.TS))


def test_every_sentence_has_chinese(update: ModuleType, chinese: dict[str, str]) -> None:
    sources = update.find_sources()
    missing = [f"{where}: {text}" for texts in sources.values() for text, where in texts.items() if not chinese.get(text)]
    assert not missing, "run resources/translations/update.py:\n" + "\n".join(missing)
    assert len(sources["app"]) > 300 and len(sources["trainer"]) > 300


def test_nothing_is_translated_that_nobody_says(update: ModuleType, chinese: dict[str, str]) -> None:
    said = {text for texts in update.find_sources().values() for text in texts}
    assert not set(chinese) - said, "run resources/translations/update.py"


def test_values_are_the_same_in_both_languages(chinese: dict[str, str]) -> None:
    for english, translation in chinese.items():
        assert fields_of(translation) == fields_of(english), english


def fields_of(template: str) -> list[tuple[str, str]]:
    """Names and formats in braces; a template without values is taken literally, so anything goes there."""
    return sorted((name, spec or "") for _, name, spec, _ in string.Formatter().parse(template) if name is not None)


def test_translations_are_chinese_or_names(chinese: dict[str, str]) -> None:
    names = [
        text
        for text, translation in chinese.items()
        if re.search(r"[^\W\d_]", re.sub(r"{.*?}", "", text)) and not re.search(r"[\u4e00-\u9fff]", translation)
    ]  # a template of values and signs alone has no words to translate
    for text in names:
        assert chinese[text] == text.replace(": ", "：") or chinese[text] == text, f"{text!r} is neither Chinese nor a name"
        assert len(text) <= 24, f"{text!r} looks like a sentence and is not translated"


def test_glossary_words_are_used(chinese: dict[str, str]) -> None:
    for english, word in (("learning rate", "学习率"), ("trigger word", "触发词"), ("optimiser", "优化器")):
        for text, translation in chinese.items():
            if english in text.lower():
                assert word in translation, f"{text!r} -> {translation!r} does without {word}"


def test_the_files_of_a_window_that_is_open_stay_as_they_are(
    update: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Qt maps the .qm into its memory: written over, it crashed the window."""
    for name in ("TS", "QM"):
        made = tmp_path / f"zh.{name.lower()}"
        made.write_bytes(getattr(update, name).read_bytes() + b"<!-- of before -->")
        os.link(made, tmp_path / f"mapped.{name.lower()}")
    before = {path: path.read_bytes() for path in tmp_path.glob("mapped.*")}
    update.write(tmp_path / "zh.ts", tmp_path / "zh.qm", update.ts_text(update.find_sources(), update.read_ts(update.TS)))
    assert {path: path.read_bytes() for path in tmp_path.glob("mapped.*")} == before
    assert (tmp_path / "zh.ts").read_bytes() == update.TS.read_bytes()
    assert (tmp_path / "zh.qm").read_bytes() == update.QM.read_bytes()
    assert len(list(tmp_path.iterdir())) == 4


def test_what_is_compiled_is_what_is_written(update: ModuleType, tmp_path: Path) -> None:
    update.compile_qm(update.TS, tmp_path / "made.qm")
    assert (tmp_path / "made.qm").read_bytes() == update.QM.read_bytes(), "run resources/translations/update.py"


def test_the_window_says_it(qapp: object) -> None:
    from app import i18n
    from trainer.config.problems import check_values

    i18n.set_language("zh_CN")
    try:
        assert i18n.tr("Start") == "开始"
        _, problems = check_values({"network": {"rank": 1.5}})
        texts = [i18n.translate_message(problem.what) for problem in problems if problem.place == "network.rank"]
        assert texts == ["1.5 不是整数。"]
    finally:
        i18n.set_language("en")
    assert i18n.tr("Start") == "Start"

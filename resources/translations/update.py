"""Bring the Chinese up to date with the source: python resources/translations/update.py [--take FILE.json] [--missing].

Finds every sentence (`tr("…")` in app, `say("…")` in trainer, captioners and app, labels and help of settings), keeps what
is translated in zh_CN.ts, drops what is gone, and compiles zh_CN.qm. `--take` reads {"English": "中文"}, `--missing` prints
what has no Chinese yet as such a file. tests/test_translations.py fails while anything is missing.
"""

from __future__ import annotations

import argparse
import ast
import json
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "resources" / "translations"
TS, QM = FOLDER / "zh_CN.ts", FOLDER / "zh_CN.qm"
Sources = dict[str, dict[str, str]]  # context -> English -> where it was found first


def main() -> int:
    sys.path.insert(0, str(ROOT))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--take", type=Path, nargs="*", default=[])
    parser.add_argument("--missing", action="store_true")
    options = parser.parse_args()
    known = read_ts(TS)
    for file in options.take:
        known |= json.loads(file.read_text(encoding="utf-8"))
    sources = find_sources()
    missing = sorted({text for texts in sources.values() for text in texts if not known.get(text)})
    if options.missing:
        print(json.dumps(dict.fromkeys(missing, ""), ensure_ascii=False, indent=1))
        return 0
    write(TS, QM, ts_text(sources, known))
    print(f"{sum(map(len, sources.values()))} sentences, {len(missing)} without Chinese")
    return 1 if missing else 0


def find_sources() -> Sources:
    """Every sentence of the program by context, "app" or "trainer"."""
    found: Sources = {"app": {}, "trainer": {}}
    for folder in ("app", "trainer", "captioners"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for context, text, line in sentences_of(path):
                found[context].setdefault(text, f"{path.relative_to(ROOT).as_posix()}:{line}")
    for text in schema_texts():
        found["trainer"].setdefault(text, "schema")
    return found


def sentences_of(path: Path) -> Iterator[tuple[str, str, int]]:
    """(context, sentence, line) of each call of tr or say in a file. Raises ValueError for one that is no literal."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    constants = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name = getattr(node.func, "id", "") or ("tr" if getattr(node.func, "attr", "") == "tr" else "")
        if name not in ("tr", "say") or path.name in ("messages.py", "i18n.py"):
            continue
        for text in literals(node.args[0], constants):
            if text is None:
                raise ValueError(f"{path}:{node.lineno}: {name}() needs a literal sentence")
            yield ("app" if name == "tr" else "trainer"), text, node.lineno


def literals(node: ast.expr, constants: dict[str, ast.expr]) -> Iterable[str | None]:
    """The strings that an expression can be: a literal, either branch of an if, an entry of a module's table."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.IfExp):
        return [*literals(node.body, constants), *literals(node.orelse, constants)]
    if isinstance(node, ast.Name) and node.id in constants:
        return literals(constants[node.id], constants)
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
        table = constants.get(node.value.id)
        if isinstance(table, ast.Dict):
            return [text for value in table.values for text in literals(value, constants)]
    return [None]


def schema_texts() -> Iterator[str]:
    """Labels, help, costs, units and choices of every setting, and the words that fill problems' sentences."""
    from captioners.catalog import WriteSettings, cards
    from trainer.config.fields import item_section, settings_of
    from trainer.config.problems import _TYPES
    from trainer.config.run import RunFile, sections
    from trainer.tools.catalog import TOOLS

    kinds = [*sections().values(), WriteSettings, *(card.settings for card in cards().values())]
    kinds += [tool.settings for tool in TOOLS.values()]
    for kind in kinds:
        for _, field, _ in settings_of(kind):
            if (item := item_section(field)) is not None:
                kinds.append(item)
    for kind in kinds:
        for _, _, info in settings_of(kind):
            yield from filter(None, (info.label, info.help, info.costs, info.unit))
            for choice in info.choices:
                yield from filter(None, (choice.label, choice.help))
    yield from (field.title for field in RunFile.model_fields.values() if field.title)
    yield from _TYPES.values()


def read_ts(path: Path) -> dict[str, str]:
    """English -> Chinese of everything translated in a .ts file."""
    if not path.exists():
        return {}
    messages = ElementTree.parse(path).getroot().iter("message")
    pairs = ((message.findtext("source") or "", message.findtext("translation") or "") for message in messages)
    return {source: translation for source, translation in pairs if translation}


def ts_text(sources: Sources, known: dict[str, str]) -> str:
    """A .ts file as Qt Linguist reads it, in a fixed order."""
    root = ElementTree.Element("TS", version="2.1", language="zh_CN", sourcelanguage="en")
    for name, texts in sorted(sources.items()):
        context = ElementTree.SubElement(root, "context")
        ElementTree.SubElement(context, "name").text = name
        for text in sorted(texts):
            message = ElementTree.SubElement(context, "message")
            ElementTree.SubElement(message, "source").text = text
            translation = ElementTree.SubElement(message, "translation")
            if known.get(text):
                translation.text = known[text]
            else:
                translation.set("type", "unfinished")
    ElementTree.indent(root, " ")
    return '<?xml version="1.0" encoding="utf-8"?>\n<!DOCTYPE TS>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def write(source: Path, compiled: Path, text: str) -> None:
    """Put both files beside the old ones, then in their place: a window that is open has the old .qm in its memory."""
    from trainer.files import write_text

    write_text(source, text)
    compile_qm(source, compiled)


def compile_qm(source: Path, target: Path) -> None:
    """Qt's binary form, by the lrelease that comes with PySide6."""
    import PySide6

    from trainer.files import write_bytes

    folder = Path(PySide6.__file__).parent
    places = (folder / "lrelease", folder / "lrelease.exe", folder / "Qt" / "libexec" / "lrelease")
    tools = [path for path in places if path.exists()]
    with tempfile.TemporaryDirectory() as temporary:
        made = Path(temporary) / "made.qm"
        subprocess.run([str(tools[0]), "-silent", "-nounfinished", str(source), "-qm", str(made)], check=True)
        write_bytes(target, made.read_bytes())


if __name__ == "__main__":
    sys.exit(main())

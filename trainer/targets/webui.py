"""Stable Diffusion WebUI and its descendants: A1111, Forge, reForge and SD.Next.

Their folders can be moved by the arguments in `webui-user.bat`/`.sh`; SD.Next's by its `config.json`.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from trainer.targets.base import Folders, Kind, Program, existing_first, has_all, placed, read_table, read_text
from trainer.targets.notes import webui_notes

_ARGUMENTS = "COMMANDLINE_ARGS"
_MOVED: Mapping[Kind, str] = {
    "lora": "--lora-dir",
    "checkpoint": "--ckpt-dir",
    "embedding": "--embeddings-dir",
    "vae": "--vae-dir",
    "hypernetwork": "--hypernetwork-dir",
}
_USUAL: Mapping[Kind, tuple[str, ...]] = {
    "lora": ("Lora", "lora"),
    "checkpoint": ("Stable-diffusion",),
    "vae": ("VAE",),
    "hypernetwork": ("hypernetworks",),
}
_SDNEXT: Mapping[Kind, tuple[str, str]] = {
    "lora": ("lora_dir", "Lora"),
    "checkpoint": ("ckpt_dir", "Stable-diffusion"),
    "embedding": ("embeddings_dir", "embeddings"),
    "vae": ("vae_dir", "VAE"),
    "hypernetwork": ("hypernetwork_dir", "hypernetworks"),
}


def _a1111(root: Path) -> Folders | None:
    return _webui_folders(root) if has_all(root, ("webui.py", "modules")) else None


def _forge(root: Path) -> Folders | None:
    return _webui_folders(root) if has_all(root, ("webui.py", "modules", "modules_forge")) else None


def _reforge(root: Path) -> Folders | None:
    """reForge has Forge's files; its read-me's title tells them apart."""
    return _forge(root) if "reforge" in read_text(root / "README.md")[:300].lower() else None


def _webui_folders(root: Path) -> Folders:
    """The folders of an install, with its start file's arguments and, of Forge, the A1111 that it borrows from."""
    given = start_arguments(root)
    data = placed(root, given.get("--data-dir", "."))
    models = placed(root, given["--models-dir"]) if "--models-dir" in given else data / "models"
    borrowed = placed(root, given["--forge-ref-a1111-home"]) if "--forge-ref-a1111-home" in given else None
    folders: dict[Kind, tuple[Path, ...]] = {}
    for kind, flag in _MOVED.items():
        own = [data / "embeddings"] if kind == "embedding" else [models / name for name in _USUAL[kind]]
        if flag in given:
            first = [placed(root, given[flag])]
        else:
            first = [place for place in _borrowed(borrowed, kind) if place.is_dir()]  # Forge skips what is not there
        additional = kind in ("checkpoint", "vae")  # of these kinds the WebUI goes on reading its own folder
        folders[kind] = tuple(dict.fromkeys([*first, *existing_first(own)[: 1 if additional or not first else 0]]))
    return folders


def _borrowed(home: Path | None, kind: Kind) -> list[Path]:
    if home is None:
        return []
    return [home / "embeddings"] if kind == "embedding" else [home / "models" / name for name in _USUAL[kind]]


def _sdnext(root: Path) -> Folders | None:
    if not has_all(root, ("launch.py", "installer.py", "modules")):
        return None
    given, config = start_arguments(root), read_table(root / "config.json")
    data = placed(root, given.get("--data-dir", "."))
    config = config or read_table(data / "config.json")
    models = placed(data, given.get("--models-dir") or _string(config, "models_dir") or "models")
    folders: dict[Kind, tuple[Path, ...]] = {}
    for kind, (key, name) in _SDNEXT.items():
        moved = _string(config, key)
        folders[kind] = (placed(data, moved),) if moved else (models / name,)
    if not folders["embedding"][0].is_dir() and (root / "embeddings").is_dir():
        folders["embedding"] = (root / "embeddings",)  # older versions
    return folders


def _string(config: Mapping[str, object], key: str) -> str:
    value = config.get(key)
    return value if isinstance(value, str) else ""


def start_arguments(root: Path, windows: bool = os.name == "nt") -> dict[str, str]:
    """The arguments with a value that an install's start file gives its program, by flag (`--lora-dir`: its path)."""
    words = _batch_arguments(root) if windows else _shell_arguments(root)
    arguments: dict[str, str] = {}
    for number, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if not flag.startswith("--"):
            continue
        if equals:
            arguments[flag] = value
        elif number + 1 < len(words) and not words[number + 1].startswith("--"):
            arguments[flag] = words[number + 1]
    return arguments


def _batch_arguments(root: Path) -> list[str]:
    """The words of COMMANDLINE_ARGS in `webui-user.bat`: `set` lines, `^` at a line's end, `%NAME%`, quotes."""
    text = re.sub(r"\^[ \t]*\r?\n", " ", read_text(root / "webui-user.bat"))
    known = {name.upper(): value for name, value in os.environ.items() if name.upper() != _ARGUMENTS}
    for line in text.splitlines():
        match = re.match(r"\s*@?set\s+\"?(\w+)=(.*)$", line, re.IGNORECASE)
        if match:
            value = match[2].rstrip()
            value = value.removesuffix('"') if value.count('"') % 2 else value
            known[match[1].upper()] = re.sub(r"%(\w+)%", lambda name: known.get(name[1].upper(), ""), value)
    words = re.findall(r'(?:[^\s"]|"[^"]*")+', known.get(_ARGUMENTS, ""))
    return [word.replace('"', "") for word in words]


def _shell_arguments(root: Path) -> list[str]:
    """The words of COMMANDLINE_ARGS in `webui-user.sh`, with the variables that it sets itself."""
    known = {name: value for name, value in os.environ.items() if name != _ARGUMENTS}
    for line in re.sub(r"\\\r?\n", " ", read_text(root / "webui-user.sh")).splitlines():
        match = re.match(r"\s*(?:export\s+)?(\w+)=(.*)$", line)
        if match:
            value = " ".join(_split(match[2]))
            known[match[1]] = re.sub(r"\$\{?(\w+)\}?", lambda name: known.get(name[1], ""), value)
    return _split(known.get(_ARGUMENTS, ""))


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text, comments=True)
    except ValueError:  # an unclosed quote
        return text.split()


def programs() -> Iterator[Program]:
    """The more particular first: Forge has all that A1111 has, and reForge all that Forge has."""
    notes = (webui_notes,)
    yield Program("SD.Next", _sdnext, inside=("sdnext", "automatic"), api="sdnext")
    yield Program("reForge", _reforge, notes, inside=("stable-diffusion-webui-reForge",), api="webui")
    inside = ("webui", "stable-diffusion-webui-forge")
    yield Program("Stable Diffusion WebUI Forge", _forge, notes, inside=inside, api="webui")
    yield Program("Stable Diffusion WebUI", _a1111, notes, inside=("webui", "stable-diffusion-webui"), api="webui")

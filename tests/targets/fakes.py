"""Fake installs of every program: the files and folders by which it is told, and where its files lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from trainer.export_targets import Target, find_target


def make(root: Path, files: Mapping[str, str] = {}, folders: tuple[str, ...] = ()) -> Path:
    """A fake install: these files with these texts, and these folders."""
    for folder in ("", *folders):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def a1111(root: Path) -> Path:
    return make(root, {"webui.py": "", "launch.py": "", "webui-user.sh": "#export COMMANDLINE_ARGS=\"\"\n",
                       "webui-user.bat": "@echo off\nset COMMANDLINE_ARGS=\n"}, ("modules", "models/Lora"))  # fmt: skip


def forge(root: Path) -> Path:
    return make(a1111(root), {"README.md": "# Stable Diffusion WebUI Forge\n"}, ("modules_forge", "backend"))


def reforge(root: Path) -> Path:
    return make(forge(root), {"README.md": "# Stable Diffusion WebUI Forge/reForge\n"}, ("ldm_patched",))


def sdnext(root: Path) -> Path:
    return make(root, {"webui.py": "", "launch.py": "", "installer.py": ""}, ("modules", "models/Lora"))


def comfyui(root: Path) -> Path:
    return make(root, {"main.py": ""}, ("comfy", "models/loras"))


def fooocus(root: Path) -> Path:
    files = {"fooocus_version.py": "", "webui.py": "", "launch.py": ""}
    return make(root, files, ("modules", "models/loras"))


def swarmui(root: Path) -> Path:
    return make(root, {"SwarmUI.sln": "", "Data/Settings.fds": "IsInstalled: true\n"}, ("src", "Models/Lora"))


def matrix(root: Path) -> Path:
    return make(root, {"settings.json": "{}"}, ("Packages", "Models/Lora", "Models/StableDiffusion"))


def plain(root: Path) -> Path:
    return make(root)


# program, how an install is built, its folders for a LoRA, a checkpoint and an embedding, the files beside a LoRA
WEBUI_FOLDERS = ("models/Lora", "models/Stable-diffusion", "embeddings")
COMFY_FOLDERS = ("models/loras", "models/checkpoints", "models/embeddings")
INSTALLS: dict[str, tuple[Callable[[Path], Path], tuple[str, str, str], set[str]]] = {
    "Stable Diffusion WebUI": (a1111, WEBUI_FOLDERS, {".preview.png", ".json"}),
    "Stable Diffusion WebUI Forge": (forge, WEBUI_FOLDERS, {".preview.png", ".json"}),
    "reForge": (reforge, WEBUI_FOLDERS, {".preview.png", ".json"}),
    "SD.Next": (sdnext, ("models/Lora", "models/Stable-diffusion", "models/embeddings"), {".preview.png"}),
    "ComfyUI": (comfyui, COMFY_FOLDERS, {".preview.png"}),
    "Fooocus": (fooocus, COMFY_FOLDERS, set()),
    "SwarmUI": (swarmui, ("Models/Lora", "Models/Stable-Diffusion", "Models/Embeddings"), {".preview.png", ".json"}),
    "StabilityMatrix": (
        matrix, ("Models/Lora", "Models/StableDiffusion", "Models/Embeddings"), {".preview.png", ".cm-info.json"},
    ),
    "": (plain, ("", "", ""), {".preview.png", ".json"}),
}  # fmt: skip


def found(folder: Path) -> Target:
    target = find_target(folder)
    assert target is not None
    return target

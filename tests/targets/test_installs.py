"""The programs on a machine, and the models in them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.targets.fakes import a1111, comfyui, fooocus, forge, found, make, matrix, swarmui
from trainer import export_targets
from trainer.export_targets import find_target
from trainer.targets.installs import look_for_installs


def test_installs_in_well_known_places_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    a1111(home / "stable-diffusion-webui")
    comfyui(home / "Documents/ComfyUI_windows_portable/ComfyUI")
    fooocus(home / "AI/Fooocus_win64/Fooocus")
    matrix(tmp_path / "library")
    forge(tmp_path / "library/Packages/forge")
    swarmui(tmp_path / "elsewhere/swarm")
    make(home / "Documents/letters")
    (home / "webui-loop").symlink_to(home, target_is_directory=True)
    make(home, {".config/StabilityMatrix/library.json": json.dumps({"LibraryPath": str(tmp_path / "library")})})
    monkeypatch.setattr(Path, "home", lambda: home)
    for name in ("APPDATA", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    installs = export_targets.known_installs([tmp_path / "elsewhere/swarm", tmp_path / "gone"])
    names = [target.program for target in installs if tmp_path in target.root.parents]
    assert sorted(names) == sorted(
        ["SwarmUI", "StabilityMatrix", "Stable Diffusion WebUI", "ComfyUI", "Fooocus", "Stable Diffusion WebUI Forge"]
    )


@pytest.mark.parametrize(
    "place",
    ["sd-webui-aki-v4.8", "ComfyUI-aki-v1.6", "秋叶整合包/sd-webui-aki-v4", "AI/ComfyUI", "AI 绘画/webui", "automatic",
     "sd.next", "Fooocus_win64_2-5-0/Fooocus", "webui_forge_cu121_torch231/webui", "StabilityMatrix-win-x64/Data"],
)  # fmt: skip
def test_folders_as_people_have_them(tmp_path: Path, place: str) -> None:
    comfyui(tmp_path / place)
    make(tmp_path / "holiday/webui")
    found_roots = [target.root for target in look_for_installs(export_targets._at_or_inside, [tmp_path])]
    assert found_roots == [tmp_path / place]


def test_looking_for_installs_ends_in_time(tmp_path: Path) -> None:
    for number in range(5):
        comfyui(tmp_path / f"comfy{number}")
    assert list(look_for_installs(find_target, [tmp_path], seconds=-1)) == []
    assert len(list(look_for_installs(find_target, [tmp_path]))) >= 5


def test_models_in_an_install(tmp_path: Path) -> None:
    root = a1111(tmp_path / "webui")
    models = root / "models/Stable-diffusion"
    files = ["B.safetensors", "anime/a.ckpt", "notes.txt", ".hidden/c.safetensors", "deep/1/2/3/4/5/d.safetensors"]
    make(models, {name: "" for name in [*files, "folder/model_index.json", "folder/unet/x.safetensors"]})
    (models / "again.safetensors").symlink_to(models / "B.safetensors")
    names = [path.relative_to(models).as_posix() for path in export_targets.models_in(found(root))]
    assert len(names) == 3 and names[0] == "anime/a.ckpt" and names[2] == "folder"
    assert export_targets.models_in(found(make(tmp_path / "none"))) == ()

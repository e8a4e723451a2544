"""A program is found by what is in its folder, whatever folder of it is given."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.targets.fakes import INSTALLS, a1111, comfyui, fooocus, forge, found, matrix, swarmui
from trainer.export_targets import PROGRAMS, export_to, find_target


def test_every_program_has_its_fake_install() -> None:
    assert {program.name for program in PROGRAMS} | {""} == set(INSTALLS)


@pytest.mark.parametrize("program", list(INSTALLS))
def test_a_program_is_found_by_content(awkward: Path, program: str) -> None:
    build, (lora_folder, checkpoint, embeddings), _ = INSTALLS[program]
    root = build(awkward / "anything")
    for place in (root, *(folder for folder in root.rglob("*") if folder.is_dir() and program)):
        target = found(place)
        assert (target.program, target.root) == (program, root), place
    target = found(root)
    assert target.lora_folder == root / lora_folder
    assert (target.folder("checkpoint"), target.folder("embedding")) == (root / checkpoint, root / embeddings)


def test_a_portable_package_around_it(tmp_path: Path) -> None:
    forge(tmp_path / "package/webui")
    comfyui(tmp_path / "portable/ComfyUI")
    fooocus(tmp_path / "fooocus_win64/Fooocus")
    matrix(tmp_path / "StabilityMatrix/Data")
    assert found(tmp_path / "package").root == tmp_path / "package/webui"
    assert found(tmp_path / "portable").program == "ComfyUI"
    assert found(tmp_path / "fooocus_win64").program == "Fooocus"
    assert found(tmp_path / "StabilityMatrix").root == tmp_path / "StabilityMatrix/Data"


def test_the_nearest_program_wins(tmp_path: Path) -> None:
    inner = comfyui(matrix(tmp_path / "Data") / "Packages/ComfyUI")
    assert found(inner / "models/loras").program == "ComfyUI"
    assert found(tmp_path / "Data/Models").program == "StabilityMatrix"
    backend = comfyui(swarmui(tmp_path / "SwarmUI") / "dlbackend/ComfyUI")
    assert found(backend).program == "ComfyUI" and found(tmp_path / "SwarmUI").program == "SwarmUI"


def test_a_folder_within_the_loras_takes_them(tmp_path: Path, lora: Path) -> None:
    root = a1111(tmp_path / "webui")
    (root / "models/Lora/characters").mkdir()
    goal = export_to(found(root / "models/Lora/characters"), lora, "cat")
    assert goal == root / "models/Lora/characters/cat.safetensors"
    assert found(root / "models/Lora/characters").folder("checkpoint") == root / "models/Stable-diffusion"


def test_a_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = a1111(tmp_path / "webui")
    monkeypatch.chdir(root / "models")
    assert found(Path()).root == root and found(Path("Lora")).lora_folder == root / "models/Lora"


def test_what_is_no_folder_is_no_target(tmp_path: Path) -> None:
    (tmp_path / "main.py").touch()
    assert found(tmp_path).program == ""
    assert find_target(tmp_path / "none") is None
    assert find_target(tmp_path / "main.py") is None
    assert find_target("a\0b") is None

"""Placing a finished LoRA in the WebUI or ComfyUI: found by content, nothing lost, nothing replaced without asking."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from trainer import export_targets
from trainer.errors import AthanorError, BadInput
from trainer.export_targets import Conflict, Target, export_to, find_target, name_problem
from trainer.models.safetensors_file import header_bytes, read_header

NAME = "lora_te_text_model_encoder_layers_0_mlp_fc1"


def program(root: Path, kind: str) -> Path:
    """An install as far as it is recognised by."""
    files, folders = {
        "a1111": (["webui.py"], ["modules", "models/Lora"]),
        "forge": (["webui.py"], ["modules", "modules_forge", "models/Lora"]),
        "comfy": (["main.py"], ["comfy", "models/loras"]),
    }[kind]
    for folder in folders:
        (root / folder).mkdir(parents=True)
    for file in files:
        (root / file).touch()
    return root


@pytest.fixture
def webui(awkward: Path) -> Target:
    target = find_target(program(awkward / "webui", "a1111"))
    assert target is not None
    return target


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    """A LoRA of 2 MiB, longer than where the legacy hash looks."""
    shapes = {f"{NAME}.lora_down.weight": ("F16", (8, 65536)), f"{NAME}.lora_up.weight": ("F16", (65536, 8))}
    metadata = {"ss_output_name": "run-000003", "sshs_model_hash": "old", "sshs_legacy_hash": "old", "ss_seed": "1"}
    path = tmp_path / "run-000003.safetensors"
    path.write_bytes(header_bytes(shapes, metadata) + bytes(range(256)) * (2 * 1024 * 1024 // 256))
    return path


@pytest.fixture
def preview(tmp_path: Path) -> Path:
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a cat\nSteps: 20, Seed: 1")
    path = tmp_path / "sample.png"
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    return path


@pytest.mark.parametrize(
    ("kind", "name", "folder"),
    [
        ("a1111", "Stable Diffusion WebUI", "models/Lora"),
        ("forge", "Stable Diffusion WebUI Forge", "models/Lora"),
        ("comfy", "ComfyUI", "models/loras"),
    ],
)
def test_programs_are_found_by_content(awkward: Path, kind: str, name: str, folder: str) -> None:
    root = program(awkward / "anything", kind)
    for place in (root, root / folder, root / "models"):
        target = find_target(place)
        assert target is not None and (target.program, target.root) == (name, root)
        assert target.lora_folder == root / folder


def test_a_portable_package_around_it(tmp_path: Path) -> None:
    program(tmp_path / "package/webui", "forge")
    program(tmp_path / "portable/ComfyUI", "comfy")
    assert find_target(tmp_path / "package").root == tmp_path / "package/webui"  # type: ignore[union-attr]
    assert find_target(tmp_path / "portable").program == "ComfyUI"  # type: ignore[union-attr]


def test_other_folders_are_no_target(tmp_path: Path) -> None:
    (tmp_path / "models/Lora").mkdir(parents=True)
    (tmp_path / "main.py").touch()
    assert find_target(tmp_path) is None
    assert find_target(tmp_path / "none") is None
    assert find_target("a\0b") is None


def test_everything_lands_in_its_place(webui: Target, lora: Path, preview: Path) -> None:
    goal = export_to(webui, lora, "小猫 v1", preview, activation_text="rufus cat", preferred_weight=0.8)
    assert goal == webui.lora_folder / "小猫 v1.safetensors"
    assert sorted(path.name for path in webui.lora_folder.iterdir()) == [
        "小猫 v1.json", "小猫 v1.preview.png", "小猫 v1.safetensors",
    ]  # fmt: skip
    with Image.open(goal.with_suffix(".preview.png")) as picture:
        assert picture.info["parameters"] == "a cat\nSteps: 20, Seed: 1"
    text = goal.with_suffix(".json").read_text(encoding="utf-8")
    assert json.loads(text) == {
        "description": "", "sd version": "SD1", "activation text": "rufus cat", "preferred weight": 0.8,
        "negative text": "", "notes": "",
    }  # fmt: skip
    assert text.startswith('{\n    "description"')


def test_tensors_stay_and_the_name_is_its_own(webui: Target, lora: Path) -> None:
    from safetensors import safe_open

    goal = export_to(webui, lora, "chosen")
    old, new = read_header(lora), read_header(goal)
    assert goal.read_bytes()[new.data_start :] == lora.read_bytes()[old.data_start :]
    assert new.metadata["ss_output_name"] == "chosen" and new.metadata["ss_seed"] == "1"
    assert new.data_start % 8 == 0
    with safe_open(goal, "pt") as reader:
        assert set(reader.keys()) == set(old.tensors)


def test_hashes_are_those_that_programs_compute(webui: Target, lora: Path) -> None:
    import hashlib

    goal = export_to(webui, lora, "chosen")
    header = read_header(goal)
    data = goal.read_bytes()
    assert header.metadata["sshs_model_hash"] == hashlib.sha256(data[header.data_start :]).hexdigest()
    # kohya's programs compute the legacy hash of the file as it is before the two hashes are added
    metadata = {key: value for key, value in header.metadata.items() if key.startswith("ss_")}
    before = header_bytes({key: (info.dtype, info.shape) for key, info in header.tensors.items()}, metadata)
    bare = before + data[header.data_start :]
    expected = hashlib.sha256(bare[0x100000 : 0x100000 + 0x10000]).hexdigest()[:8]
    assert header.metadata["sshs_legacy_hash"] == expected


def test_notes_are_merged(webui: Target, lora: Path) -> None:
    notes = webui.lora_folder / "cat.json"
    notes.write_text(json.dumps({"notes": "mine", "activation text": "old", "extra": [1]}), encoding="utf-8")
    export_to(webui, lora, "cat", preferred_weight=0.7)
    merged = json.loads(notes.read_text(encoding="utf-8"))
    assert merged["notes"] == "mine" and merged["extra"] == [1] and merged["activation text"] == "old"
    assert merged["preferred weight"] == 0.7 and merged["sd version"] == "SD1"


@pytest.mark.parametrize("text", ["[1]", "{torn"])
def test_a_strange_json_is_left_alone(webui: Target, lora: Path, text: str) -> None:
    notes = webui.lora_folder / "cat.json"
    notes.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match="something else"):
        export_to(webui, lora, "cat")
    assert notes.read_text(encoding="utf-8") == text
    assert not (webui.lora_folder / "cat.safetensors").exists()


def test_nothing_is_replaced_without_asking(webui: Target, lora: Path, preview: Path) -> None:
    model, picture = webui.lora_folder / "cat.safetensors", webui.lora_folder / "cat.preview.png"
    picture.write_bytes(b"theirs")
    with pytest.raises(Conflict, match=r"cat\.preview\.png") as caught:
        export_to(webui, lora, "cat", preview)
    assert caught.value.files == (picture,)
    model.write_bytes(b"theirs")
    with pytest.raises(Conflict) as caught:
        export_to(webui, lora, "cat")
    assert caught.value.files == (model,)
    assert (model.read_bytes(), picture.read_bytes()) == (b"theirs", b"theirs")
    export_to(webui, lora, "cat", preview, overwrite=True)
    assert picture.read_bytes() == preview.read_bytes()
    assert read_header(model).metadata["ss_output_name"] == "cat"


def test_comfyui_gets_no_notes(awkward: Path, lora: Path, preview: Path) -> None:
    target = find_target(program(awkward, "comfy"))
    assert target is not None
    goal = export_to(target, lora, "cat", preview, activation_text="cat")
    assert sorted(path.name for path in goal.parent.iterdir()) == ["cat.preview.png", "cat.safetensors"]


def test_the_lora_folder_is_made(webui: Target, lora: Path) -> None:
    shutil.rmtree(webui.root / "models")
    assert export_to(webui, lora, "cat").is_file()


@pytest.mark.parametrize("where", ["copyfile", "_pieces"])
def test_a_full_disk_changes_nothing(
    webui: Target, lora: Path, preview: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    export_to(webui, lora, "cat", preview, activation_text="before")
    before = {path.name: path.read_bytes() for path in webui.lora_folder.iterdir()}

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil if where == "copyfile" else export_targets, where, full)
    with pytest.raises(AthanorError, match="is full"):
        export_to(webui, lora, "cat", preview, activation_text="after", overwrite=True)
    assert {path.name: path.read_bytes() for path in webui.lora_folder.iterdir()} == before


def test_too_little_space_is_seen_before_writing(webui: Target, lora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_targets, "free_bytes", lambda folder: 1000)
    with pytest.raises(AthanorError, match="is full"):
        export_to(webui, lora, "cat")
    assert list(webui.lora_folder.iterdir()) == []


def test_a_folder_that_cannot_be_written(webui: Target, lora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(export_targets, "atomic_path", refuse)
    with pytest.raises(AthanorError, match="cannot be written"):
        export_to(webui, lora, "cat")


def test_wrong_sources(webui: Target, lora: Path, tmp_path: Path) -> None:
    with pytest.raises(AthanorError, match="No such file"):
        export_to(webui, tmp_path / "none.safetensors", "cat")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(lora.read_bytes()[:-5])
    with pytest.raises(BadInput, match="5 bytes are missing"):
        export_to(webui, broken, "cat")
    with pytest.raises(BadInput, match="not a PNG"):
        export_to(webui, lora, "cat", preview=lora)
    assert list(webui.lora_folder.iterdir()) == []


@pytest.mark.parametrize("name", ["", " cat", "cat.", "a/b", "a\\b", "CON", "nul.x", "a\nb", "x" * 201, "what?"])
def test_names_that_no_file_can_have(webui: Target, lora: Path, name: str) -> None:
    assert name_problem(name) is not None
    with pytest.raises(BadInput):
        export_to(webui, lora, name)


def test_ordinary_names() -> None:
    assert all(name_problem(name) is None for name in ("cat", "小猫 v1.2", "console", "a-b_c (2)"))

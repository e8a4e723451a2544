"""Placing a model where a program looks for it: whole or not at all, nothing replaced unasked."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.targets.fakes import INSTALLS, a1111, comfyui, fooocus, found, matrix
from trainer import export_targets
from trainer.errors import AthanorError, BadInput
from trainer.export_targets import Conflict, Target, export_to, export_to_all, name_problem
from trainer.models.safetensors_file import header_bytes, read_header


@pytest.mark.parametrize("program", list(INSTALLS))
def test_everything_lands_in_its_place(
    awkward: Path, lora: Path, embedding: Path, preview: Path, program: str
) -> None:
    build, folders, beside = INSTALLS[program]
    target = found(build(awkward / "install"))
    goal = export_to(target, lora, "小猫 v1", preview, activation_text="rufus cat", preferred_weight=0.8)
    assert goal == target.root / folders[0] / "小猫 v1.safetensors"
    there = {path.name.removeprefix("小猫 v1") for path in goal.parent.iterdir() if path.is_file()}
    assert there == {".safetensors", *beside}
    assert read_header(goal).metadata["modelspec.trigger_phrase"] == "rufus cat"
    if ".preview.png" in beside:
        with Image.open(goal.with_suffix(".preview.png")) as picture:
            assert picture.info["parameters"] == "a cat\nSteps: 20, Seed: 1"
    other = export_to(target, embedding, "rufus")
    assert other == target.root / folders[2] / "rufus.safetensors" and other.read_bytes() == embedding.read_bytes()


def test_tensors_stay_and_the_name_is_its_own(webui: Target, lora: Path) -> None:
    from safetensors import safe_open

    goal = export_to(webui, lora, "chosen")
    old, new = read_header(lora), read_header(goal)
    assert goal.read_bytes()[new.data_start :] == lora.read_bytes()[old.data_start :]
    assert new.metadata["ss_output_name"] == "chosen" and new.metadata["ss_seed"] == "1"
    assert new.data_start % 8 == 0
    with safe_open(goal, "pt") as reader:
        assert set(reader.keys()) == set(old.tensors)


def test_no_two_loras_of_a_program_have_one_name(webui: Target, lora: Path) -> None:
    """The WebUI knows a LoRA by the name in its header; one that two files have is no name for either."""
    export_to(webui, lora, "cat")
    inside = Target(webui.program, webui.root, {"lora": (webui.lora_folder / "sub", webui.lora_folder)})
    again = export_to(inside, lora, "cat")
    other = webui.lora_folder / "other.safetensors"
    other.write_bytes(header_bytes({}, {"ss_output_name": "dog"}))
    dog = export_to(webui, lora, "dog")
    assert read_header(again).metadata["ss_output_name"] == "cat-2"
    assert read_header(dog).metadata["ss_output_name"] == "dog-2"
    replaced = export_to(webui, lora, "dog", overwrite=True)
    assert read_header(replaced).metadata["ss_output_name"] == "dog-2"


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


def test_a_picture_of_another_is_not_replaced(webui: Target, lora: Path, preview: Path) -> None:
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


def test_several_programs_at_once_or_none(tmp_path: Path, lora: Path, preview: Path) -> None:
    targets = [found(a1111(tmp_path / "webui")), found(comfyui(tmp_path / "comfy")), found(fooocus(tmp_path / "fooocus"))]
    theirs = targets[1].lora_folder / "cat.preview.png"
    theirs.write_bytes(b"theirs")
    with pytest.raises(Conflict) as caught:
        export_to_all(targets, lora, "cat", preview)
    assert caught.value.files == (theirs,)
    assert not any((target.lora_folder / "cat.safetensors").exists() for target in targets)
    goals = export_to_all(targets, lora, "cat", preview, overwrite=True)
    assert goals == tuple(target.lora_folder / "cat.safetensors" for target in targets)
    with pytest.raises(Conflict, match=r"cat\.safetensors, cat\.preview\.png, .*comfy.*cat\.safetensors"):
        export_to_all(targets, lora, "cat", preview)
    with pytest.raises(BadInput):
        export_to_all(targets, lora, "a/b")


def test_programs_that_share_a_folder(tmp_path: Path, lora: Path, preview: Path) -> None:
    """As a StabilityMatrix links its packages' folders, or ComfyUI is told of a WebUI's: one file, the notes of all."""
    shared, package = found(matrix(tmp_path / "Data")), a1111(tmp_path / "Data/Packages/webui")
    (package / "models/Lora").rmdir()
    (package / "models/Lora").symlink_to(shared.lora_folder, target_is_directory=True)
    targets = [shared, found(package), found(package / "models/Lora")]
    paths = export_to_all(targets, lora, "cat", preview, "rufus cat")
    assert paths == (shared.lora_folder / "cat.safetensors",)
    there = {path.name for path in shared.lora_folder.iterdir()}
    assert there == {"cat.safetensors", "cat.preview.png", "cat.json", "cat.cm-info.json"}
    assert read_header(paths[0]).metadata["ss_output_name"] == "cat", "it is no namesake of itself"
    with pytest.raises(Conflict):
        export_to_all(targets, lora, "cat")


def test_a_program_that_is_gone_is_not_made_anew(tmp_path: Path, lora: Path) -> None:
    """Moved, deleted, or on a network drive that is not connected: found before anything is placed anywhere."""
    stays, leaves = found(a1111(tmp_path / "stays")), found(comfyui(tmp_path / "drive/comfy"))
    (tmp_path / "drive").rename(tmp_path / "unplugged")
    for place in (lambda: export_to(leaves, lora, "cat"), lambda: export_to_all([stays, leaves], lora, "cat")):
        with pytest.raises(BadInput, match=r"comfy is not there any more\. If it was moved, choose it anew"):
            place()
    assert not (tmp_path / "drive").exists() and not list(stays.lora_folder.iterdir())


def test_a_drive_that_goes_away_on_the_way(
    tmp_path: Path, lora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every question to a dead network drive fails: a sentence, which says where the file lies already."""
    first, second = found(a1111(tmp_path / "one")), found(comfyui(tmp_path / "two"))
    exists = Path.exists

    def dead(self: Path, *args: Any, **more: Any) -> bool:
        if "two" in self.parts and self.suffix == ".safetensors":
            raise OSError(errno.EHOSTDOWN, "Host is down", str(self))
        return exists(self, *args, **more)

    monkeypatch.setattr(Path, "exists", dead)
    for place in (lambda: export_to(second, lora, "cat"), lambda: export_to_all([first, second], lora, "cat")):
        with pytest.raises(AthanorError, match="Host is down"):
            place()
    assert not list(first.lora_folder.iterdir()), "it was seen beforehand"
    monkeypatch.setattr(Path, "exists", exists)
    copy = export_targets._copy_model

    def goes_away(source: Path, goal: Path, *args: Any) -> None:
        if "two" in goal.parts:
            raise OSError(errno.EIO, "Input/output error", str(goal))
        copy(source, goal, *args)

    monkeypatch.setattr(export_targets, "_copy_model", goes_away)
    with pytest.raises(AthanorError, match=r"Input/output error\. Before that it was placed at .*one.*cat\.safetensors"):
        export_to_all([first, second], lora, "cat")


def test_a_file_is_not_copied_onto_itself(webui: Target, lora: Path) -> None:
    goal = export_to(webui, lora, "cat")
    before = goal.read_bytes()
    with pytest.raises(BadInput, match="lies there already"):
        export_to(webui, goal, "cat", overwrite=True)
    assert goal.read_bytes() == before


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
    with pytest.raises(BadInput, match="no file or folder"):
        export_to(webui, tmp_path / "none.safetensors", "cat")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(lora.read_bytes()[:-5])
    with pytest.raises(BadInput, match="5 bytes are missing"):
        export_to(webui, broken, "cat")
    with pytest.raises(BadInput, match="not a PNG"):
        export_to(webui, lora, "cat", preview=lora)
    with pytest.raises(BadInput, match="is a folder"):
        export_to(webui, tmp_path, "cat")
    assert list(webui.lora_folder.iterdir()) == []


def test_a_program_without_a_place_for_it(tmp_path: Path, embedding: Path) -> None:
    target = Target("Fooocus", tmp_path, {"lora": (tmp_path,)})
    with pytest.raises(BadInput, match="Fooocus has no folder for this"):
        export_to(target, embedding, "style")


@pytest.mark.parametrize("name", ["", " cat", "cat.", "a/b", "a\\b", "CON", "nul.x", "a\nb", "x" * 201, "what?"])
def test_names_that_no_file_can_have(webui: Target, lora: Path, name: str) -> None:
    assert name_problem(name) is not None
    with pytest.raises(BadInput):
        export_to(webui, lora, name)


def test_ordinary_names() -> None:
    assert all(name_problem(name) is None for name in ("cat", "小猫 v1.2", "console", "a-b_c (2)"))

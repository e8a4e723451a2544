"""The files that programs read beside a model: written as they have them, merged, never lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.targets.fakes import INSTALLS, a1111, found, matrix, swarmui
from trainer.errors import BadInput
from trainer.export_targets import Conflict, Target, export_to
from trainer.models.safetensors_file import header_bytes, read_header


@pytest.mark.parametrize("program", list(INSTALLS))
def test_nothing_is_replaced_without_asking_and_notes_are_never_lost(
    awkward: Path, lora: Path, preview: Path, program: str
) -> None:
    build, _, beside = INSTALLS[program]
    target = found(build(awkward / "install"))
    goal = export_to(target, lora, "cat", preview, activation_text="one", preferred_weight=0.5)
    for ending in beside - {".preview.png"}:
        notes = goal.with_suffix(ending)
        written = json.loads(notes.read_text(encoding="utf-8"))
        notes.write_text(json.dumps({**written, "mine": [1], "notes": "by hand"}), encoding="utf-8")
    before = {path.name: path.read_bytes() for path in goal.parent.iterdir() if path.is_file()}
    with pytest.raises(Conflict, match=r"cat\.safetensors"):
        export_to(target, lora, "cat", preview)
    assert {path.name: path.read_bytes() for path in goal.parent.iterdir() if path.is_file()} == before
    export_to(target, lora, "cat", preview, overwrite=True)
    for ending in beside - {".preview.png"}:
        merged = json.loads(goal.with_suffix(ending).read_text(encoding="utf-8"))
        assert merged["mine"] == [1] and merged["notes"] == "by hand"
        words = merged.get("activation text") or merged["TrainedWords"][0]
        assert words == "one"  # nothing new was said of it


def test_the_webuis_notes(webui: Target, lora: Path) -> None:
    goal = export_to(webui, lora, "cat", activation_text="rufus cat", preferred_weight=0.8)
    text = goal.with_suffix(".json").read_text(encoding="utf-8")
    assert json.loads(text) == {
        "description": "", "sd version": "SD1", "activation text": "rufus cat", "preferred weight": 0.8,
        "negative text": "", "notes": "",
    }  # fmt: skip
    assert text.startswith('{\n    "description"')


def test_what_is_not_known_takes_nothing_away(webui: Target, tmp_path: Path) -> None:
    strange = tmp_path / "strange.safetensors"
    layer = "diffusion_model.blocks.0.self_attn.q"
    shapes = {f"{layer}.lora_A.weight": ("F16", (1, 8)), f"{layer}.lora_B.weight": ("F16", (8, 1))}
    strange.write_bytes(header_bytes(shapes, {}) + bytes(32))
    notes = webui.lora_folder / "cat.json"
    notes.write_text(json.dumps({"sd version": "SDXL", "preferred weight": 0.6, "activation text": "x"}), encoding="utf-8")
    goal = export_to(webui, strange, "cat")
    merged = json.loads(notes.read_text(encoding="utf-8"))
    assert (merged["sd version"], merged["preferred weight"], merged["activation text"]) == ("SDXL", 0.6, "x")
    assert read_header(goal).metadata["ss_output_name"] == "cat"


def test_stability_matrix_notes(awkward: Path, lora: Path) -> None:
    import hashlib

    target = found(matrix(awkward / "Data"))
    goal = export_to(target, lora, "cat", activation_text="rufus cat")
    notes = json.loads(goal.with_suffix(".cm-info.json").read_text(encoding="utf-8"))
    assert (notes["ModelName"], notes["ModelType"], notes["BaseModel"]) == ("cat", "LORA", "SD 1.5")
    assert notes["TrainedWords"] == ["rufus cat"] and "ModelId" not in notes
    assert notes["Hashes"] == {"SHA256": hashlib.sha256(goal.read_bytes()).hexdigest().upper()}


def test_swarm_notes(awkward: Path, lora: Path) -> None:
    target = found(swarmui(awkward / "swarm"))
    goal = export_to(target, lora, "cat", activation_text="rufus cat", preferred_weight=0.7)
    notes = json.loads(goal.with_suffix(".json").read_text(encoding="utf-8"))
    assert notes["activation text"] == "rufus cat" and notes["TrainedWords"] == ["rufus cat"]
    assert notes["modelspec.lora_default_weight"] == "0.7"


@pytest.mark.parametrize("text", ["[1]", "{torn", "[" * 100_000])
@pytest.mark.parametrize(("program", "ending"), [(a1111, ".json"), (swarmui, ".json"), (matrix, ".cm-info.json")])
def test_a_strange_json_is_left_alone(
    tmp_path: Path, lora: Path, program: Callable[[Path], Path], ending: str, text: str
) -> None:
    target = found(program(tmp_path / "install"))
    notes = target.lora_folder / f"cat{ending}"
    notes.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match="something else"):
        export_to(target, lora, "cat")
    assert notes.read_text(encoding="utf-8") == text
    assert not (target.lora_folder / "cat.safetensors").exists()

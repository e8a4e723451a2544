"""What depends on the family, for each: kohya's names, joined tensors of OpenCLIP, second text encoders, folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.tiny import FAMILIES, family_of, save_tiny_file, save_tiny_folder
from tests.tools.material import Tensors, change_of, changed, layers_of, save, use
from trainer.errors import BadInput
from trainer.export import save_adapter
from trainer.models.protocol import Components
from trainer.models.safetensors_file import read_header
from trainer.models.tensor_file import read_file
from trainer.nets.lora import LoraNetwork
from trainer.tools.catalog import LoraEntry
from trainer.tools.checkpoint import open_checkpoint
from trainer.tools.targets import lora_layers

VERSIONS = {"sd1": "sd_v1", "sd2": "sd_v2", "sdxl": "sdxl_base_v1-0"}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {name: save_tiny_file(folder, name, family=name) for name in FAMILIES}


def prediction(name: str, model: Path | Components) -> torch.Tensor:
    """What the whole model predicts for fixed latents and a fixed caption."""
    family = family_of(name)
    components = family.load(model) if isinstance(model, Path) else model
    noisy = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    cond = family.encode_text(components, ["a red cat"])
    if name == "sdxl":
        from dataclasses import replace

        cond = replace(cond, sizes=torch.tensor([[64.0, 64.0, 0.0, 0.0, 64.0, 64.0]]))
    with torch.no_grad():
        return family.predict(components, noisy, torch.tensor([500]), cond)


def trained(name: str, base: Path, convolutions: bool = False) -> tuple[Components, LoraNetwork]:
    """A LoRA with random weights in every part of a freshly loaded model."""
    family = family_of(name)
    components = family.load(base)
    targets = {part: family.adapter_modules(components, part, convolutions) for part in ("unet", *family.text_parts)}
    made = LoraNetwork(targets, 3, 1.5)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in made.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draw) * 0.1)
    return components, made


@pytest.mark.parametrize("convolutions", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_merging_and_extracting_a_lora(name: str, convolutions: bool, bases: dict[str, Path], tmp_path: Path) -> None:
    """The baked model predicts what base + LoRA do; extracting gives the same layers, names and changes again."""
    components, made = trained(name, bases[name], convolutions)
    lora = tmp_path / "lora.safetensors"
    save_adapter(lora, made.state_tensors(), {"ss_base_model_version": VERSIONS[name]}, torch.float32)
    baked = tmp_path / "baked.safetensors"
    result = use("bake", model=bases[name], loras=(LoraEntry(path=str(lora)),), output=baked)
    assert not result.notes, "every layer has its place"
    torch.testing.assert_close(prediction(name, baked), prediction(name, components), rtol=1e-4, atol=1e-4)
    use("extract", base=bases[name], tuned=baked, output=tmp_path / "back.safetensors", rank=3,
        conv_rank=3 if convolutions else 0, precision="fp32")  # fmt: skip
    before, after = read_file(lora), read_file(tmp_path / "back.safetensors")
    assert {key: tensor.shape for key, tensor in before.items()} == {key: tensor.shape for key, tensor in after.items()}
    for layer in layers_of(before):
        assert (change_of(after, layer) - change_of(before, layer)).norm() < 1e-3 * change_of(before, layer).norm(), (
            layer
        )
    metadata = read_header(tmp_path / "back.safetensors").metadata
    assert metadata["ss_base_model_version"] == VERSIONS[name] and metadata["ss_v2"] == str(name == "sd2")


@pytest.mark.parametrize("name", FAMILIES)
def test_names_and_order_are_those_that_training_writes(name: str, bases: dict[str, Path]) -> None:
    family = family_of(name)
    components = family.load(bases[name])
    for convolutions in (False, True):
        wanted = [layer for part in family.parts if part != "vae"
                  for layer in family.adapter_modules(components, part, convolutions)]  # fmt: skip
        found = lora_layers(open_checkpoint(str(bases[name]), "Model"))
        assert {layer for layer, target in found.items() if convolutions or not target.in_resnet} == set(wanted)


def test_the_second_text_encoder_has_a_weight_of_its_own(bases: dict[str, Path], tmp_path: Path) -> None:
    _, made = trained("sdxl", bases["sdxl"])
    save_adapter(tmp_path / "lora.safetensors", made.state_tensors(), {}, torch.float32)
    entry = LoraEntry(path=str(tmp_path / "lora.safetensors"), unet=0.0, text_encoder=0.0, text_encoder_2=1.0)
    use("bake", model=bases["sdxl"], loras=(entry,), output=tmp_path / "baked.safetensors")
    before, after = read_file(bases["sdxl"]), read_file(tmp_path / "baked.safetensors")
    differing = {name for name in before if not torch.equal(before[name], after[name])}
    assert differing and all(
        name.startswith("conditioner.embedders.1.model.transformer.resblocks.") for name in differing
    )
    joined = "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight"
    rows = before[joined].shape[0] // 3
    lora = read_file(tmp_path / "lora.safetensors")
    for number, letter in enumerate("qkv"):
        change = change_of(lora, f"lora_te2_text_model_encoder_layers_0_self_attn_{letter}_proj")
        here = slice(rows * number, rows * (number + 1))
        torch.testing.assert_close(after[joined][here] - before[joined][here], change.float(), rtol=1e-3, atol=1e-5)


def weights_of(folder: Path) -> dict[str, Tensors]:
    """The tensors of each part; transformers 5 writes a plain text encoder's names without the level that files have."""
    found = {path.parent.name: read_file(path) for path in folder.glob("*/*.safetensors")}
    for part, tensors in found.items():
        if part.startswith("text_encoder"):
            found[part] = {
                name if name.startswith("text_") else f"text_model.{name}": tensors[name] for name in tensors
            }
    return found


def same(one: Tensors, other: Tensors) -> bool:
    return set(one) == set(other) and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_file_to_folder_to_file_is_the_same(name: str, bases: dict[str, Path], tmp_path: Path) -> None:
    use("convert", model=bases[name], output=tmp_path / "folder")
    use("convert", model=tmp_path / "folder", output=tmp_path / "m.safetensors")
    assert same(read_file(bases[name]), read_file(tmp_path / "m.safetensors"))
    assert torch.equal(prediction(name, tmp_path / "folder"), prediction(name, bases[name]))
    assert torch.equal(prediction(name, tmp_path / "m.safetensors"), prediction(name, bases[name]))


@pytest.mark.parametrize("name", FAMILIES)
def test_folder_to_file_to_folder_is_the_same(name: str, tmp_path: Path) -> None:
    folder = save_tiny_folder(tmp_path / "theirs", family=name)
    use("convert", model=folder, output=tmp_path / "m.safetensors")
    use("convert", model=tmp_path / "m.safetensors", output=tmp_path / "ours")
    before, after = weights_of(folder), weights_of(tmp_path / "ours")
    assert set(before) == set(after) and all(same(before[part], after[part]) for part in before)
    index, theirs = (json.loads((path / "model_index.json").read_text("utf-8")) for path in (tmp_path / "ours", folder))
    parts = [part for part, value in theirs.items() if isinstance(value, list) and value[0] and part != "scheduler"]
    assert {part: index[part] for part in parts} == {part: theirs[part] for part in parts}


@pytest.mark.parametrize("name", FAMILIES)
def test_blocks_of_every_family(name: str, bases: dict[str, Path], tmp_path: Path) -> None:
    def change(tensors: Tensors) -> None:
        for tensor in tensors.values():
            if tensor.is_floating_point():
                tensor += 1

    other = changed(bases[name], tmp_path / "other.safetensors", change)
    use("merge", model_a=bases[name], model_b=other, output=tmp_path / "m.safetensors", amount=0.25, blocks="M00=1",
        precision="fp32")  # fmt: skip
    before, after = read_file(bases[name]), read_file(tmp_path / "m.safetensors")
    for key, tensor in after.items():
        if tensor.is_floating_point() and not key.startswith("first_stage_model."):
            share = 1.0 if ".middle_block." in key else 0.25
            torch.testing.assert_close(tensor, before[key] + share, rtol=1e-4, atol=1e-4)


def test_families_are_not_mixed(bases: dict[str, Path], tmp_path: Path) -> None:
    output = tmp_path / "m.safetensors"
    with pytest.raises(BadInput, match="different families"):
        use("merge", model_a=bases["sd1"], model_b=bases["sdxl"], output=output)
    with pytest.raises(BadInput, match="different families"):
        use("extract", base=bases["sd1"], tuned=bases["sd2"], output=output)
    _, made = trained("sdxl", bases["sdxl"])
    lora = save(tmp_path / "lora.safetensors", made.state_tensors())
    with pytest.raises(BadInput, match="is a LoRA for SDXL, the model is Stable Diffusion 2"):
        use("bake", model=bases["sd2"], loras=(LoraEntry(path=str(lora)),), output=output)

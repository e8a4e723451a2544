"""LoRAs in other programs' names: the tools read them as what they are, and write kohya's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.tiny import family_of, full_size_model, save_tiny_file
from tests.tools.material import Tensors, save, use
from trainer.methods.lora import Settings, build
from trainer.models import adapter_layouts, keys
from trainer.models.tensor_file import read_file
from trainer.nets.lora import LoraNetwork
from trainer.tools.catalog import LoraEntry
from trainer.tools.lora_file import _USUAL_UNETS

RANK, ALPHA = 3, 1.5


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tensors, dict[str, str]]:
    """A tiny SDXL, a LoRA for it in kohya's names, and kohya's name → part and module path in diffusers."""
    base = save_tiny_file(tmp_path_factory.mktemp("sdxl"), "sdxl", family="sdxl")
    family = family_of("sdxl")
    components = family.load(base)
    targets = {part: family.adapter_modules(components, part) for part in ("unet", *family.text_parts)}
    made = LoraNetwork(targets, RANK, ALPHA)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in made.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draw) * 0.1)
    paths = {}
    for part, modules in targets.items():
        names = {id(module): path for path, module in getattr(components, part).named_modules()}
        for name, module in modules.items():
            path = names[id(module)]
            paths[name] = f"{part}.{path if part == 'unet' or path.startswith('text_model') else f'text_model.{path}'}"
    return base, dict(made.state_tensors()), paths


def renamed(tensors: Tensors, layer: Callable[[str], str], down: str, up: str, alpha: str | None) -> Tensors:
    ends = {"lora_down.weight": down, "lora_up.weight": up, "alpha": alpha}
    found = {}
    for name, tensor in tensors.items():
        module, _, end = name.partition(".")
        if ends[end] is not None:
            found[f"{layer(module)}.{ends[end]}"] = tensor
    return found


def kohya_with_diffusers_names(tensors: Tensors, paths: dict[str, str]) -> tuple[Tensors, dict[str, str]]:
    def layer(name: str) -> str:
        return (
            f"lora_unet_{paths[name].removeprefix('unet.').replace('.', '_')}"
            if paths[name].startswith("unet.")
            else name
        )

    return renamed(tensors, layer, "lora_down.weight", "lora_up.weight", "alpha"), {}


def diffusers(tensors: Tensors, paths: dict[str, str]) -> tuple[Tensors, dict[str, str]]:
    """As diffusers' save_lora_weights writes it: alpha in the header."""
    parts = ("unet", "text_encoder", "text_encoder_2")
    says = {f"{part}.{key}": value for part in parts for key, value in {"r": RANK, "lora_alpha": ALPHA}.items()}
    found = renamed(tensors, paths.__getitem__, "lora_A.weight", "lora_B.weight", None)
    return found, {"format": "pt", "lora_adapter_metadata": json.dumps(says)}


def onetrainer(tensors: Tensors, paths: dict[str, str]) -> tuple[Tensors, dict[str, str]]:
    """OneTrainer's own: kohya's ends, dots in the path, the original code's names of the UNet."""
    unet = {keys_.replace(".", "_"): keys_ for keys_ in keys.unet_modules(UNET)}

    def layer(name: str) -> str:
        if name.startswith("lora_unet_"):
            return f"lora_unet.{unet[name.removeprefix('lora_unet_')]}"
        prefix, _, path = paths[name].partition(".")
        return f"{'lora_te1' if prefix == 'text_encoder' else 'lora_te2'}.{path}"

    return renamed(tensors, layer, "lora_down.weight", "lora_up.weight", "alpha"), {}


UNET = {
    "block_out_channels": (32, 64), "layers_per_block": 1, "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "transformer_layers_per_block": (1, 2),
}  # fmt: skip
SPELLINGS = [kohya_with_diffusers_names, diffusers, onetrainer]


@pytest.mark.parametrize("spell", SPELLINGS, ids=lambda spell: spell.__name__)
def test_baking_is_the_same_in_every_spelling(
    spell: Callable[[Tensors, dict[str, str]], tuple[Tensors, dict[str, str]]],
    sdxl: tuple[Path, Tensors, dict[str, str]],
    tmp_path: Path,
) -> None:
    base, tensors, paths = sdxl
    spelled, metadata = spell(tensors, paths)
    assert set(spelled) != set(tensors)
    outputs = []
    for name, content in (("kohya", tensors), ("other", spelled)):
        lora = save(tmp_path / f"{name}.safetensors", content, metadata if name == "other" else {})
        output = tmp_path / f"{name}-baked.safetensors"
        result = use("bake", model=base, loras=(LoraEntry(path=str(lora), weight=0.7),), output=output)
        assert not result.notes, "every layer has its place"
        outputs.append(read_file(output))
    assert all(torch.equal(outputs[0][name], outputs[1][name]) for name in outputs[0])


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_the_usual_blocks_are_those_of_the_published_models(family: str) -> None:
    """They stand in where a LoRA is read without its model."""
    unet = full_size_model(family, "meta").unet
    assert keys.unet_modules(unet.config) == keys.unet_modules(_USUAL_UNETS[family])


def test_joining_brings_spellings_together(sdxl: tuple[Path, Tensors, dict[str, str]], tmp_path: Path) -> None:
    """Two spellings of one LoRA are the same layers; the result has kohya's names, alpha in each layer."""
    _, tensors, paths = sdxl
    texts = {name: tensor for name, tensor in tensors.items() if name.startswith("lora_te")}
    spelled, metadata = diffusers(texts, paths)
    first = save(tmp_path / "kohya.safetensors", texts)
    second = save(tmp_path / "diffusers.safetensors", spelled, metadata)
    entries = tuple(LoraEntry(path=str(path), weight=0.5) for path in (first, second))
    use("join", loras=entries, output=tmp_path / "joined.safetensors", precision="fp32", rank=RANK)
    joined = read_file(tmp_path / "joined.safetensors")
    assert set(joined) == set(texts)
    for name in (name.removesuffix(".alpha") for name in texts if name.endswith(".alpha")):
        up, down = (joined[f"{name}.lora_{side}.weight"] for side in ("up", "down"))
        wanted = texts[f"{name}.lora_up.weight"] @ texts[f"{name}.lora_down.weight"] * (ALPHA / RANK)
        torch.testing.assert_close(up @ down * float(joined[f"{name}.alpha"]) / RANK, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("module", "width", "name"),
    [
        ("base_model.model.text_model.encoder.layers.0.self_attn.q_proj", 1280, "lora_te2_text_model_encoder_layers_0"),
        ("base_model.model.encoder.layers.0.self_attn.q_proj", 1280, "lora_te2_text_model_encoder_layers_0"),
        ("lycoris_encoder_layers_0_self_attn_q_proj", 1280, "lora_te2_text_model_encoder_layers_0"),
        ("base_model.model.encoder.layers.0.self_attn.q_proj", 768, "lora_te_text_model_encoder_layers_0"),
        ("base_model.model.encoder.layers.0.self_attn.q_proj", 1024, "lora_te_text_model_encoder_layers_0"),
    ],
)
def test_a_text_encoder_alone_gets_names_that_programs_read(module: str, width: int, name: str, tmp_path: Path) -> None:
    """Its file does not say which of a model's it is; the width of its attention does."""
    ends = ("lora_down.weight", "lora_up.weight") if module.startswith("lycoris") else ("lora_A.weight", "lora_B.weight")
    tensors = {f"{module}.{ends[0]}": torch.ones(2, width), f"{module}.{ends[1]}": torch.ones(width, 2)}
    lora = save(tmp_path / "theirs.safetensors", tensors)
    use("resize", lora=lora, output=tmp_path / "smaller.safetensors", rank=1)
    assert {key.partition(".")[0] for key in read_file(tmp_path / "smaller.safetensors")} == {f"{name}_self_attn_q_proj"}


def test_the_second_text_encoder_alone_is_put_where_it_belongs(
    sdxl: tuple[Path, Tensors, dict[str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """PEFT writes one part a file, with no word for it."""
    base, tensors, paths = sdxl
    monkeypatch.setattr(adapter_layouts, "_SECOND_WIDTH", 64)  # that of the tiny model
    monkeypatch.setattr(adapter_layouts, "_TEXT_WIDTHS", {64: "sdxl"})
    mine = {name: tensor for name, tensor in tensors.items() if name.startswith("lora_te2")}
    spelled = diffusers(mine, paths)[0]
    theirs = {f"base_model.model.{name.removeprefix('text_encoder_2.')}": tensor for name, tensor in spelled.items()}
    outputs = []
    for name, content in (("kohya", mine), ("peft", theirs)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "adapter_config.json").write_text(json.dumps({"r": RANK, "lora_alpha": ALPHA}), encoding="utf-8")
        lora = save(folder / "adapter_model.safetensors", content)
        result = use("bake", model=base, loras=(LoraEntry(path=str(lora)),), output=folder / "baked.safetensors")
        assert not result.notes
        outputs.append(read_file(folder / "baked.safetensors"))
    assert all(torch.equal(outputs[0][name], outputs[1][name]) for name in outputs[0])
    components = family_of("sdxl").load(base)
    settings = Settings(network_weights=str(tmp_path / "peft" / "adapter_model.safetensors"))
    begun = build(settings, components, family_of("sdxl")).network.state_tensors()
    for name, tensor in begun.items():
        if name.endswith("lora_up.weight"):
            assert torch.equal(tensor, mine.get(name, torch.zeros_like(tensor)))

"""The LoRA method: its names in a full-size model, norm scaling, and which files it goes on from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.tiny import tiny_sd1
from trainer.errors import BadInput
from trainer.export import save_adapter
from trainer.methods.lora import Settings, build
from trainer.models.lora_layers import text_layers, unet_layers
from trainer.models.protocol import Components
from trainer.models.sd1 import FAMILY
from trainer.nets.lora import LoraNetwork


def kohya_names() -> set[str]:
    """The 264 module names of an SD 1.x LoRA as the kohya programs write them, spelled out independently."""
    linears = [f"{a}_{n}" for a in ("attn1", "attn2") for n in ("to_q", "to_k", "to_v", "to_out_0")]
    inner = [f"transformer_blocks_0_{n}" for n in (*linears, "ff_net_0_proj", "ff_net_2")] + ["proj_in", "proj_out"]
    places = [f"down_blocks_{i}_attentions_{j}" for i in (0, 1, 2) for j in (0, 1)]
    places += [f"up_blocks_{i}_attentions_{j}" for i in (1, 2, 3) for j in (0, 1, 2)]
    places += ["mid_block_attentions_0"]
    unet = {f"lora_unet_{place}_{name}" for place in places for name in inner}
    text = [f"self_attn_{n}_proj" for n in ("q", "k", "v", "out")] + ["mlp_fc1", "mlp_fc2"]
    return unet | {f"lora_te_text_model_encoder_layers_{i}_{n}" for i in range(12) for n in text}


def full_size() -> Components:
    """SD 1.5's real sizes, without memory."""
    from trainer.models import libraries

    clip, clip_config = libraries.clip_classes()
    with torch.device("meta"):
        unet = libraries.unet_class()(cross_attention_dim=768)
        text = clip(clip_config(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12))
    return Components(unet=unet, text_encoder=text)


def test_names_and_shapes_of_a_full_size_lora() -> None:
    components = full_size()
    targets = {part: FAMILY.adapter_modules(components, part) for part in ("unet", "text_encoder")}
    assert (len(targets["unet"]), len(targets["text_encoder"])) == (192, 72)
    network = LoraNetwork(targets, rank=4, alpha=4.0)
    tensors = network.state_tensors()
    assert len(tensors) == 792
    assert {name.split(".")[0] for name in tensors} == kohya_names()
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    assert shapes["lora_unet_mid_block_attentions_0_proj_in.lora_down.weight"] == (4, 1280, 1, 1)
    assert shapes["lora_unet_up_blocks_3_attentions_2_proj_out.lora_up.weight"] == (320, 4, 1, 1)
    assert shapes["lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight"] == (4, 768)
    assert shapes["lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_ff_net_0_proj.lora_up.weight"] == (2560, 4)
    assert shapes["lora_te_text_model_encoder_layers_11_mlp_fc2.lora_down.weight"] == (4, 3072)


def test_the_tables_name_every_linear_of_the_transformers() -> None:
    """No layer that kohya's programs would train is forgotten, found here by class instead of by table."""
    components = full_size()
    from diffusers.models.transformers.transformer_2d import Transformer2DModel

    wanted = {
        f"{path}.{inner}"
        for path, block in components.unet.named_modules()
        if isinstance(block, Transformer2DModel)
        for inner, module in block.named_modules()
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d))
    }
    assert set(unet_layers(components.unet.config, sai=False).values()) == wanted
    linears = {path for path, module in components.text_encoder.named_modules() if isinstance(module, torch.nn.Linear)}
    assert set(text_layers(components.text_encoder.config.to_dict(), "lora_te").values()) == linears


def saved_lora(path: Path, train: str = "both", rank: int = 4) -> Path:
    components = tiny_sd1()
    trained = build(Settings(train=train, rank=rank, alpha=2.0), components, FAMILY, seed=9)
    with torch.no_grad():
        for weight in trained.parameters():
            weight.normal_(std=0.1)
    trained.export(path, {}, torch.float32)
    return path


def test_going_on_takes_rank_and_alpha_of_the_file(tmp_path: Path) -> None:
    path = saved_lora(tmp_path / "old.safetensors")
    trained = build(Settings(rank=16, alpha=8.0, network_weights=str(path)), tiny_sd1(), FAMILY)
    assert trained.metadata()["ss_network_dim"] == "4"
    assert trained.metadata()["ss_network_alpha"] == "2.0"


def test_going_on_with_more_parts_starts_the_others_fresh(tmp_path: Path) -> None:
    path = saved_lora(tmp_path / "old.safetensors", train="unet")
    trained = build(Settings(rank=16, network_weights=str(path)), tiny_sd1(), FAMILY)
    text = trained.network.parameters_of("text_encoder")
    assert text[0].shape[0] == 16 and text[1].abs().sum() == 0
    assert trained.network.parameters_of("unet")[0].shape[0] == 4


@pytest.mark.parametrize(
    ("file_train", "run_train", "word"), [("both", "unet", "text encoder"), ("both", "text_encoder", "UNet")]
)
def test_layers_that_the_run_does_not_train_are_refused(
    tmp_path: Path, file_train: str, run_train: str, word: str
) -> None:
    path = saved_lora(tmp_path / "old.safetensors", train=file_train)
    components = tiny_sd1()
    with pytest.raises(BadInput, match=word) as caught:
        build(Settings(train=run_train, network_weights=str(path)), components, FAMILY)
    assert caught.value.what.values["count"] in (18, 48)
    assert all("forward" not in module.__dict__ for module in components.unet.modules())


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    sdxl = tmp_path / "xl.safetensors"
    tensors = {f"lora_te2_text_model_encoder_layers_0_mlp_fc1.{end}": torch.zeros(4, 4) for end in
               ("lora_down.weight", "lora_up.weight")}  # fmt: skip
    save_adapter(sdxl, tensors, {}, torch.float32)
    with pytest.raises(BadInput, match="SDXL"):
        build(Settings(network_weights=str(sdxl)), tiny_sd1(), FAMILY)
    with pytest.raises(BadInput, match="no file"):
        build(Settings(network_weights=str(tmp_path / "none.safetensors")), tiny_sd1(), FAMILY)
    wide = tmp_path / "wide.safetensors"
    name = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    save_adapter(wide, {f"{name}.lora_down.weight": torch.zeros(4, 768), f"{name}.lora_up.weight": torch.zeros(3072, 4)},
                 {}, torch.float32)  # fmt: skip
    with pytest.raises(BadInput, match="same sizes"):
        build(Settings(network_weights=str(wide)), tiny_sd1(), FAMILY)


def test_norm_limit_acts_after_each_step() -> None:
    trained = build(Settings(scale_weight_norms=0.5), tiny_sd1(), FAMILY)
    with torch.no_grad():
        for weight in trained.parameters():
            weight.normal_()
    figures = trained.after_step()
    assert figures["scaled_layers"] == 66 and figures["greatest_norm"] == pytest.approx(0.5, rel=1e-3)
    assert build(Settings(), tiny_sd1(), FAMILY).after_step() == {}

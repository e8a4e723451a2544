"""LoRAs and their kin as other programs write them: method, spelling, family, rank and alpha from names and shapes."""

from __future__ import annotations

import json

import pytest

from trainer.models.adapter_layouts import is_adapter, recognise

Shapes = dict[str, tuple[int, ...]]

UNET = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
CONV = "lora_unet_down_blocks_0_resnets_0_conv1"


def pair(layer: str, down: str = ".lora_down.weight", up: str = ".lora_up.weight", width: int = 768) -> Shapes:
    return {f"{layer}{down}": (8, width), f"{layer}{up}": (320, 8)}


METHODS: dict[str, tuple[Shapes, dict[str, str]]] = {
    "lora": (pair(UNET), {}),
    "locon": ({**pair(UNET), f"{CONV}.lora_down.weight": (4, 320, 3, 3), f"{CONV}.lora_up.weight": (320, 4, 1, 1)}, {}),
    "dora": ({**pair(UNET), f"{UNET}.dora_scale": (320, 1)}, {}),
    "loha": ({f"{UNET}.hada_{name}": (8, 768) for name in ("w1_a", "w1_b", "w2_a", "w2_b")}, {}),
    "lokr": ({f"{UNET}.lokr_w1": (16, 16), f"{UNET}.lokr_w2_a": (20, 8), f"{UNET}.lokr_w2_b": (8, 48)}, {}),
    "ia3": ({f"{UNET}.weight": (320, 1), f"{UNET}.on_input": ()}, {}),
    "dylora": (pair(UNET), {"ss_network_args": '{"algo": "dylora"}'}),
    "glora": ({f"{UNET}.{name}.weight": (8, 320) for name in ("a1", "a2", "b1", "b2")}, {}),
    "oft": ({f"{UNET}.oft_blocks": (4, 80, 80), f"{UNET}.alpha": ()}, {}),
    "boft": ({f"{UNET}.oft_blocks": (2, 4, 80, 80)}, {}),
    "full": ({f"{UNET}.diff": (320, 768)}, {}),
    "norm": ({"lora_unet_conv_norm_out.w_norm": (320,)}, {}),
}


@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_is_told(method: str) -> None:
    shapes, metadata = METHODS[method]
    assert is_adapter(shapes)
    adapter = recognise(shapes, metadata)
    assert (adapter.method, adapter.spelling, adapter.parts) == (method, "kohya", {"unet"})
    assert adapter.num_layers == (2 if method == "locon" else 1)


PEFT = "base_model.model.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
DIFFUSERS = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
SPELLINGS: dict[str, tuple[Shapes, str | None, str | None, set[str]]] = {
    "kohya, SD 1": ({**pair(UNET), **pair("lora_te_text_model_encoder_layers_0_mlp_fc1")}, "kohya", "sd1",
                    {"unet", "text_encoder"}),
    "kohya, SD 2": (pair(UNET, width=1024), "kohya", "sd2", {"unet"}),
    "kohya, SDXL": ({**pair(UNET, width=2048), **pair("lora_te2_text_model_encoder_layers_0_mlp_fc1")}, "kohya", "sdxl",
                    {"unet", "text_encoder_2"}),
    "SAI, SDXL": (pair("lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k", width=2048), "sai", "sdxl", {"unet"}),
    "diffusers": (pair(DIFFUSERS, ".lora_A.weight", ".lora_B.weight"), "diffusers", "sd1", {"unet"}),
    "diffusers, old": (pair(DIFFUSERS, ".lora.down.weight", ".lora.up.weight", 2048), "diffusers", "sdxl", {"unet"}),
    "PEFT": (pair(PEFT, ".lora_A.weight", ".lora_B.weight", 1024), "peft", "sd2", {"unet"}),
    "OneTrainer, SDXL": (
        {**pair("lora_unet.down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k", width=2048),
         **pair("lora_te1.text_model.encoder.layers.0.mlp.fc1")},
        "onetrainer", "sdxl", {"unet", "text_encoder"},
    ),
    "of another kind": (pair("diffusion_model.blocks.0.self_attn.q", ".lora_A.weight", ".lora_B.weight"), None, None,
                        {"transformer"}),
}  # fmt: skip


@pytest.mark.parametrize("name", list(SPELLINGS))
def test_every_spelling_is_told(name: str) -> None:
    shapes, spelling, family, parts = SPELLINGS[name]
    assert is_adapter(shapes)
    adapter = recognise(shapes, {})
    assert (adapter.spelling, adapter.family, adapter.parts) == (spelling, family, parts)
    assert adapter.ranks == (8,)


@pytest.mark.parametrize(
    ("metadata", "alpha"),
    [
        ({"ss_network_alpha": "4.0"}, 4.0),
        ({"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 16})}, 16.0),
        ({"ss_network_alpha": "much"}, None),
        ({"lora_adapter_metadata": "[1"}, None),
        ({}, None),
    ],
)
def test_alpha_as_the_metadata_say(metadata: dict[str, str], alpha: float | None) -> None:
    assert recognise(pair(UNET), metadata).alpha == alpha


def test_what_is_no_adapter() -> None:
    assert not is_adapter({"model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3)})
    assert not is_adapter({})

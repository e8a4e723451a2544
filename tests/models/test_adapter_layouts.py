"""LoRAs of every method and spelling, and of every family, are told by names and shapes alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.models.shapes import Shapes, write
from trainer.models import adapter_layouts
from trainer.models.header import inspect_file

SD1 = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
CONV = "lora_unet_down_blocks_0_resnets_0_conv1"

METHODS: dict[str, tuple[Shapes, dict[str, str], str, tuple[int, ...]]] = {
    "LoRA": ({f"{SD1}.lora_down.weight": (8, 768), f"{SD1}.lora_up.weight": (320, 8)}, {}, "lora", (8,)),
    "1×1 convolutions": ({f"{SD1}.lora_down.weight": (8, 768, 1, 1)}, {}, "lora", (8,)),
    "LoCon": ({f"{SD1}.lora_down.weight": (8, 768), f"{CONV}.lora_down.weight": (4, 9, 3, 3)}, {}, "locon", (8, 4)),
    "LoCon, Tucker": (
        {f"{CONV}.lora_down.weight": (4, 9, 1, 1), f"{CONV}.lora_mid.weight": (4, 4, 3, 3)}, {}, "locon", (4,),
    ),
    "DoRA": ({f"{SD1}.lora_down.weight": (8, 768), f"{SD1}.dora_scale": (1, 768)}, {}, "dora", (8,)),
    "DoRA of PEFT": (
        {"base_model.model.x.lora_A.weight": (8, 768), "base_model.model.x.lora_magnitude_vector": (9,)}, {}, "dora", (8,),
    ),
    "LoHa": ({f"{SD1}.hada_w1_a": (320, 4), f"{SD1}.hada_w1_b": (4, 768)}, {}, "loha", (4,)),
    "LoKr": ({f"{SD1}.lokr_w1": (8, 8), f"{SD1}.lokr_w2_a": (40, 4), f"{SD1}.lokr_w2_b": (4, 96)}, {}, "lokr", (4,)),
    "IA3": ({f"{SD1}.weight": (320, 1), f"{SD1}.on_input": ()}, {}, "ia3", ()),
    "DyLoRA": ({f"{SD1}.lora_down.weight": (8, 768)}, {"ss_network_args": '{"algo": "dylora"}'}, "dylora", (8,)),
    "GLoRA": ({f"{SD1}.a1.weight": (4, 768), f"{SD1}.b1.weight": (4, 768)}, {}, "glora", ()),
    "OFT": ({f"{SD1}.oft_blocks": (4, 80, 80)}, {}, "oft", ()),
    "OFT of PEFT": ({"base_model.model.x.oft_R.weight": (4, 80)}, {}, "oft", ()),
    "BOFT": ({f"{SD1}.oft_blocks": (2, 4, 80, 80)}, {}, "boft", ()),
    "full": ({f"{SD1}.diff": (320, 768), f"{SD1}.diff_b": (320,)}, {}, "full", ()),
}  # fmt: skip


@pytest.mark.parametrize("name", list(METHODS))
def test_methods(tmp_path: Path, name: str) -> None:
    shapes, metadata, method, ranks = METHODS[name]
    facts = inspect_file(write(tmp_path / "x.safetensors", shapes, metadata))
    assert facts.kind == "lora" and facts.adapter is not None
    assert (facts.adapter.method, facts.adapter.ranks) == (method, ranks)
    if name != "DoRA of PEFT" and name != "OFT of PEFT":
        assert facts.family == "sd1" and facts.parts == {"unet"}
    assert ("go on from it" in str(facts.use)) == (method in ("lora", "locon"))


XL = "transformer_blocks_9_attn1_to_q"
SPELLINGS: dict[str, tuple[Shapes, str | None, str | None, set[str]]] = {
    "kohya, SD 1": ({f"{SD1}.lora_down.weight": (8, 768)}, "kohya", "sd1", {"unet"}),
    "kohya, SD 2": ({f"{SD1}.lora_down.weight": (8, 1024)}, "kohya", "sd2", {"unet"}),
    "kohya, text alone": (
        {"lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight": (8, 768)},
        "kohya", "sd1", {"text_encoder"},
    ),
    "kohya, text of SD 2 alone": (
        {"lora_te_text_model_encoder_layers_22_mlp_fc1.lora_down.weight": (8, 1024)}, "kohya", "sd2", {"text_encoder"},
    ),
    "kohya, SDXL": (
        {"lora_unet_input_blocks_4_1_proj_in.lora_down.weight": (8, 640),
         "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (8, 768),
         "lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (8, 1280)},
        "sai", "sdxl", {"unet", "text_encoder", "text_encoder_2"},
    ),
    "kohya, SDXL with diffusers' names": (
        {f"lora_unet_down_blocks_2_attentions_0_{XL}.lora_down.weight": (8, 1280)}, "kohya", "sdxl", {"unet"},
    ),
    "diffusers": ({"unet.down_blocks.0.attentions.0.proj_in.lora_A.weight": (8, 320, 1, 1)}, "diffusers", "sd1", {"unet"}),
    "diffusers, SDXL": (
        {f"unet.down_blocks.2.attentions.0.{XL.replace('blocks_9_attn1_', 'blocks.9.attn1.')}.lora_A.weight": (8, 1280)},
        "diffusers", "sdxl", {"unet"},
    ),
    "diffusers, second text encoder": (
        {"text_encoder_2.text_model.encoder.layers.0.mlp.fc1.lora_A.weight": (8, 1280)}, "diffusers", "sdxl",
        {"text_encoder_2"},
    ),
    "diffusers of 2023": (
        {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor.to_k_lora.down.weight": (4, 768)},
        "diffusers", "sd1", {"unet"},
    ),
    "diffusers, text of 2023": (
        {"text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer.down.weight": (4, 768)},
        "diffusers", "sd1", {"text_encoder"},
    ),
    "diffusers of early 2023, the UNet on its own": (
        {"down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor.to_k_lora.down.weight": (4, 768)},
        "diffusers", "sd1", {"unet"},
    ),
    "diffusers of early 2023, SD 2": (
        {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor.to_k_lora.down.weight": (4, 1024)},
        "diffusers", "sd2", {"unet"},
    ),
    "PEFT, a text encoder that SDXL has too": (
        {"base_model.model.encoder.layers.0.self_attn.q_proj.lora_A.weight": (4, 768)}, "peft", None, {"text_encoder"},
    ),
    "PEFT, SD 2's text encoder": (
        {"base_model.model.encoder.layers.0.self_attn.q_proj.lora_A.weight": (4, 1024)}, "peft", "sd2", {"text_encoder"},
    ),
    "PEFT, SDXL's second text encoder": (
        {"base_model.model.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight": (4, 1280)},
        "peft", "sdxl", {"text_encoder_2"},
    ),
    "LyCORIS' own, SDXL's second text encoder": (
        {"lycoris_encoder_layers_0_self_attn_q_proj.lora_down.weight": (4, 1280)}, "lycoris", "sdxl", {"text_encoder_2"},
    ),
    "LyCORIS' own": (
        {"lycoris_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight": (4, 1024)},
        "lycoris", "sd2", {"unet"},
    ),
    "LyCORIS' own, SDXL": (
        {f"lycoris_mid_block_attentions_0_{XL}.lora_down.weight": (4, 1280)}, "lycoris", "sdxl", {"unet"},
    ),
    "OFT of kohya's programs, SDXL": (
        {"oft_unet_input_blocks_4_1_proj_in.oft_blocks": (4, 160, 160)}, "kohya", "sdxl", {"unet"},
    ),
    "PEFT": (
        {"base_model.model.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight": (8, 768)},
        "peft", "sd1", {"unet"},
    ),
    "PEFT, a named adapter": (
        {"base_model.model.up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.default.weight": (8, 1024)},
        "peft", "sd2", {"unet"},
    ),
    "OneTrainer": (
        {"lora_unet.down_blocks.0.attentions.0.proj_in.lora_down.weight": (8, 320, 1, 1)}, "onetrainer", "sd1", {"unet"},
    ),
    "OneTrainer, SDXL": (
        {"unet.down_blocks.1.attentions.0.proj_in.lora_down.weight": (8, 640),
         "clip_g.text_model.encoder.layers.0.mlp.fc1.lora_down.weight": (8, 1280)},
        "onetrainer", "sdxl", {"unet", "text_encoder_2"},
    ),
    "SD 3": ({"lora_unet_joint_blocks_0_x_block_attn_qkv.lora_down.weight": (8, 9)}, "kohya", "sd3", {"unet"}),
    "FLUX": (
        {"transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": (8, 9)}, "diffusers", "flux", {"transformer"},
    ),
    "elsewhere": ({"diffusion_model.blocks.0.self_attn.q.lora_A.weight": (8, 9)}, None, None, {"transformer"}),
}  # fmt: skip


@pytest.mark.parametrize("name", list(SPELLINGS))
def test_spellings_families_and_parts(name: str) -> None:
    shapes, spelling, family, parts = SPELLINGS[name]
    adapter = adapter_layouts.recognise(shapes, {})
    assert adapter_layouts.is_adapter(shapes)
    assert (adapter.spelling, adapter.family, adapter.parts) == (spelling, family, parts)


@pytest.mark.parametrize(
    ("metadata", "alpha"),
    [
        ({"ss_network_alpha": "4.0"}, 4.0),
        ({"ss_network_alpha": "many"}, None),
        ({"lora_adapter_metadata": '{"unet.r": 8, "unet.lora_alpha": 16}'}, 16.0),
        ({"lora_adapter_metadata": "[1]"}, None),
        ({"lora_adapter_metadata": "{"}, None),
        ({}, None),
    ],
)
def test_alpha_is_what_metadata_say(metadata: dict[str, str], alpha: float | None) -> None:
    assert adapter_layouts.recognise({f"{SD1}.lora_down.weight": (8, 768)}, metadata).alpha == alpha


def test_what_metadata_say_comes_first() -> None:
    shapes: Shapes = {f"{SD1}.lora_down.weight": (8, 768)}
    for said, family in (
        ({"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, "sdxl"),
        ({"ss_base_model_version": "sd_v2_768_v"}, "sd2"),
        ({"ss_base_model_version": "sdxl_base_v1-0"}, "sdxl"),
        ({"modelspec.architecture": "flux-1-dev/lora"}, "flux"),
    ):
        assert adapter_layouts.recognise(shapes, said).family == family


def test_a_peft_file_written_by_peft_itself(tmp_path: Path) -> None:
    """What the library writes today is recognised: names, rank, method."""
    import peft

    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.to_k = torch.nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.to_k(x)

    for use_dora, method in ((False, "lora"), (True, "dora")):
        config = peft.LoraConfig(r=4, target_modules=["to_k"], use_dora=use_dora)
        peft.get_peft_model(Block(), config).save_pretrained(tmp_path)
        facts = inspect_file(tmp_path / "adapter_model.safetensors")
        assert facts.adapter is not None and facts.adapter.spelling == "peft"
        assert (facts.adapter.method, facts.adapter.ranks) == (method, (4,))


@pytest.mark.parametrize(
    ("algorithm", "method", "ranks"),
    [
        ("lora", "locon", (4,)), ("loha", "loha", (4,)), ("lokr", "lokr", ()), ("ia3", "ia3", ()), ("glora", "glora", (4,)),
        ("diag-oft", "oft", ()), ("boft", "boft", ()), ("full", "full", ()), ("dylora", "dylora", (4,)),
    ],
)  # fmt: skip
def test_what_lycoris_itself_writes(tmp_path: Path, algorithm: str, method: str, ranks: tuple[int, ...]) -> None:
    """The names of the library of today, under the prefix that kohya's trainer gives them."""
    import lycoris
    from safetensors.torch import save_file

    class Attention(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.to_k, self.conv = torch.nn.Linear(32, 64, bias=False), torch.nn.Conv2d(8, 8, 3)

    lycoris.LycorisNetwork.apply_preset({"target_module": ["Attention"]})
    module = torch.nn.ModuleDict({"down_blocks_0": Attention()})
    network = lycoris.create_lycoris(module, 1.0, linear_dim=4, linear_alpha=2, conv_dim=4, algo=algorithm)
    network.apply_to()
    tensors = {
        name.replace("lycoris_", "lora_unet_"): tensor.contiguous() for name, tensor in network.state_dict().items()
    }
    save_file(tensors, tmp_path / "x.safetensors", {"ss_network_args": f'{{"algo": "{algorithm}"}}'})
    facts = inspect_file(tmp_path / "x.safetensors")
    assert facts.kind == "lora" and facts.adapter is not None
    assert (facts.adapter.method, facts.adapter.num_layers) == (method, 2)
    assert facts.adapter.ranks == ranks or algorithm == "lokr"  # small layers are kept whole by LoKr


def test_a_kohya_pickle(tmp_path: Path) -> None:
    torch.save({f"{SD1}.lora_down.weight": torch.zeros(8, 768), f"{SD1}.alpha": torch.tensor(4.0)}, tmp_path / "x.pt")
    facts = inspect_file(tmp_path / "x.pt")
    assert facts.family == "sd1" and facts.adapter is not None and facts.adapter.ranks == (8,)

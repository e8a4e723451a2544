"""Files of weights that are no base model: each kind gets its own sentence, and what it can serve as."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models.shapes import Shapes, write
from trainer.models.header import ModelFacts, inspect_file, lora_problem, vae_problem
from trainer.models.keys import LDM_UNET, LDM_VAE

OTHER_MODELS: dict[str, tuple[Shapes, str, str | None, str]] = {
    "unCLIP": (
        {f"{LDM_UNET}input_blocks.0.0.weight": (320, 4, 3, 3), "noise_augmentor.data_mean": (9,)},
        "base", None, "unCLIP model",
    ),
    "video": (
        {
            f"{LDM_UNET}input_blocks.0.0.weight": (320, 8, 3, 3),
            f"{LDM_UNET}input_blocks.1.0.time_stack.in_layers.0.weight": (320,),
        },
        "base", None, "Stable Video Diffusion",
    ),
    "SDXL UNet alone": (
        {f"{LDM_UNET}input_blocks.0.0.weight": (320, 4, 3, 3), f"{LDM_UNET}label_emb.0.0.weight": (1280, 2816)},
        "broken", "sdxl", "laid out as SDXL, but is not whole",
    ),
    "a part": (
        {
            "conv_in.weight": (320, 4, 3, 3),
            "time_embedding.linear_1.weight": (9, 9),
            "add_embedding.linear_1.weight": (9, 9),
        },
        "part", "sdxl", "one part of a diffusers folder",
    ),
    "Cascade": ({"clip_txt_mapper.weight": (9, 9)}, "base", None, "Stable Cascade"),
    "PixArt": ({"adaln_single.emb.timestep_embedder.linear_1.weight": (9, 9)}, "base", None, "PixArt"),
    "AuraFlow": ({"model.double_layers.0.attn.w1q.weight": (9, 9)}, "base", None, "AuraFlow"),
    "Chroma": (
        {"double_blocks.0.img_attn.qkv.weight": (9, 3), "distilled_guidance_layer.in_proj.weight": (9, 3)},
        "base", None, "Chroma",
    ),
    "TAESD": ({"1.weight": (64, 4, 3, 3), "3.conv.0.weight": (64, 64, 3, 3)}, "stranger", None, "TAESD"),
    "DeepDanbooru": ({"n_Conv_0.weight": (9, 3)}, "stranger", None, "DeepDanbooru"),
    "hypernetwork": ({"768.0.linear.0.weight": (768, 768)}, "hypernetwork", "sd1", "hypernetwork"),
    "aesthetic": ({"tensor": (1, 768)}, "aesthetic", None, "aesthetic"),
    "embedding of diffusers": ({"<cat>": (768,)}, "embedding", "sd1", "1 vectors for Stable Diffusion 1.x"),
    "SD 3": ({f"{LDM_UNET}joint_blocks.0.x_block.attn.qkv.weight": (9, 3)}, "base", "sd3", "Stable Diffusion 3"),
    "FLUX": ({"double_blocks.0.img_attn.qkv.weight": (9, 3)}, "base", "flux", "FLUX"),
    "SD 3 diffusers": ({"transformer_blocks.0.norm1_context.linear.weight": (9, 3)}, "base", "sd3", "Diffusion 3"),
    "FLUX diffusers": (
        {"transformer_blocks.0.norm1_context.linear.weight": (9, 3), "single_transformer_blocks.0.proj_mlp.weight": (9, 3)},
        "base", "flux", "FLUX",
    ),
    "LoRA 1": (
        {"lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": (8, 320, 1, 1)},
        "lora", "sd1", "LoRA for Stable Diffusion 1.x",
    ),
    "LoRA 1, text encoder": (
        {"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (8, 768)},
        "lora", "sd1", "LoRA for Stable Diffusion 1.x",
    ),
    "LoRA 2": (
        {"lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": (8, 320)},
        "lora", "sd2", "LoRA for Stable Diffusion 2.x",
    ),
    "LoRA XL": (
        {"lora_unet_input_blocks_4_1_proj_in.lora_down.weight": (8, 640)}, "lora", "sdxl", "LoRA for SDXL",
    ),
    "LoRA FLUX": ({"lora_unet_single_blocks_0_linear1.lora_down.weight": (8, 9)}, "lora", "flux", "LoRA for FLUX"),
    "LoRA diffusers": (
        {"unet.down_blocks.0.attentions.0.proj_in.lora_A.weight": (8, 320, 1, 1)}, "lora", "sd1", "LoRA",
    ),
    "LoHa": ({"lora_unet_mid_block_attentions_0_proj_in.hada_w1_a": (8, 8)}, "lora", "sd1", "LoHa for Stable Diffusion 1.x"),
    "LoRA elsewhere": ({"diffusion_model.blocks.0.self_attn.q.lora_A.weight": (8, 8)}, "lora", None, "LoRA."),
    "VAE": (
        {"encoder.conv_in.weight": (128, 3, 3, 3), "decoder.conv_in.weight": (512, 4, 3, 3)},
        "vae", None, "VAE with 4 latent channels",
    ),
    "VAE with prefix": (
        {f"{LDM_VAE}encoder.conv_in.weight": (128, 3, 3, 3), f"{LDM_VAE}decoder.conv_in.weight": (512, 4, 3, 3)},
        "vae", None, "VAE with 4 latent channels",
    ),
    "embedding": ({"emb_params": (4, 768)}, "embedding", "sd1", "embedding"),
    "embedding XL": ({"clip_l": (4, 768), "clip_g": (4, 1280)}, "embedding", "sdxl", "embedding"),
    "ControlNet": ({"control_model.input_blocks.0.0.weight": (320, 4, 3, 3)}, "controlnet", None, "ControlNet"),
    "ControlNet diffusers": ({"controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3)}, "controlnet", None, "Control"),
    "ControlLLLite": ({"lllite_unet_x.down.0.weight": (16, 3)}, "controlnet", None, "ControlNet"),
    "IP-Adapter": ({"image_proj.proj.weight": (16, 3), "ip_adapter.1.to_k_ip.weight": (3, 3)}, "adapter", None, "add-on"),
    "motion": ({"down_blocks.0.motion_modules.0.norm.weight": (3,)}, "adapter", None, "add-on"),
    "upscaler": ({"model.1.sub.0.RDB1.conv1.0.weight": (32, 64, 3, 3)}, "upscaler", None, "upscaler"),
    "upscaler 2": ({"body.0.rdb1.conv1.weight": (32, 64, 3, 3)}, "upscaler", None, "upscaler"),
    "CLIP": ({"text_model.encoder.layers.0.mlp.fc1.weight": (9, 3)}, "text_encoder", None, "text encoder alone"),
    "T5": (
        {"encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": (9, 3)},
        "text_encoder", None, "text encoder alone",
    ),
    "anything": ({"some.weight": (9, 3)}, "unknown", None, "no model that Athanor knows"),
    "nothing": ({}, "unknown", None, "no weights in this file"),
    "distilled SDXL": (
        {f"{LDM_UNET}input_blocks.0.0.weight": (320, 4, 3, 3), f"{LDM_UNET}label_emb.0.0.weight": (1280, 2816),
         f"{LDM_UNET}input_blocks.4.1.transformer_blocks.0.norm1.weight": (640,), f"{LDM_UNET}middle_block.0.x": (1,)},
        "base", None, "This is a distilled SDXL (SSD-1B, Vega, KOALA) model. Athanor trains",
    ),
    "Kolors' UNet": (
        {"conv_in.weight": (320, 4, 3, 3), "time_embedding.linear_1.weight": (1280, 320),
         "add_embedding.linear_1.weight": (1280, 5632), "encoder_hid_proj.weight": (2048, 4096)},
        "part", None, "one part of a diffusers folder (unet).",
    ),
    "LTX": (
        {"adaln_single.emb.timestep_embedder.linear_1.weight": (2048, 256), "patchify_proj.weight": (2048, 128)},
        "base", None, "This is a LTX-Video model. Athanor trains",
    ),
    "Wan, diffusers": (
        {"blocks.0.attn1.norm_q.weight": (1536,), "condition_embedder.time_embedder.linear_1.weight": (1536, 256)},
        "base", None, "This is a Wan model. Athanor trains",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(OTHER_MODELS))
def test_what_is_no_sd1_model_is_named_and_refused(tmp_path: Path, name: str) -> None:
    shapes, kind, family, words = OTHER_MODELS[name]
    facts = inspect_file(write(tmp_path / "x.safetensors", shapes))
    assert (facts.kind, facts.family) == (kind, family)
    assert facts.problem is not None and words in f"{facts.summary} {facts.problem}"


def test_metadata_tells_a_loras_family_first(tmp_path: Path) -> None:
    shapes: Shapes = {"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (8, 768)}
    for metadata, family in (
        ({"ss_base_model_version": "sdxl_base_v1-0"}, "sdxl"),
        ({"modelspec.architecture": "stable-diffusion-v2-768-v/lora"}, "sd2"),
        ({"ss_base_model_version": "sd_v1"}, "sd1"),
    ):
        assert inspect_file(write(tmp_path / "x.safetensors", shapes, metadata)).family == family


def facts_of(tmp_path: Path, name: str) -> ModelFacts:
    return inspect_file(write(tmp_path / f"{name}.safetensors", OTHER_MODELS[name][0]))


def test_what_serves_as_a_vae(tmp_path: Path, tiny_file: Path) -> None:
    assert vae_problem(facts_of(tmp_path, "VAE")) is None
    assert vae_problem(facts_of(tmp_path, "VAE with prefix")) is None
    assert vae_problem(inspect_file(tiny_file)) is None
    assert "A VAE is needed" in str(vae_problem(facts_of(tmp_path, "LoRA 1")))
    wide = write(
        tmp_path / "w.safetensors", {"encoder.conv_in.weight": (1, 3, 3, 3), "decoder.conv_in.weight": (1, 16, 3, 3)}
    )
    assert "16 latent channels" in str(vae_problem(inspect_file(wide)))
    assert "SDXL has 4" in str(vae_problem(inspect_file(wide), "sdxl"))
    assert vae_problem(inspect_file(tiny_file), "sd2") is None
    assert "VAE for SDXL is needed" in str(vae_problem(inspect_file(tiny_file), "sdxl"))
    assert "no file" in str(vae_problem(inspect_file(tmp_path / "none")))


def test_what_serves_as_a_lora(tmp_path: Path, tiny_file: Path) -> None:
    assert lora_problem(facts_of(tmp_path, "LoRA 1")) is None
    assert (
        lora_problem(facts_of(tmp_path, "LoRA XL")) is None
        and lora_problem(facts_of(tmp_path, "LoRA 1"), "sd1") is None
    )
    assert "LoRA for SDXL" in str(lora_problem(facts_of(tmp_path, "LoRA XL"), "sd1"))
    assert "made for SDXL" in str(lora_problem(facts_of(tmp_path, "LoRA 1"), "sdxl"))
    assert "FLUX" in str(lora_problem(facts_of(tmp_path, "LoRA FLUX")))
    assert "A LoRA is needed" in str(lora_problem(inspect_file(tiny_file)))
    assert "no file" in str(lora_problem(inspect_file(tmp_path / "none")))

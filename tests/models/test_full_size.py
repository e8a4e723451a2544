"""The families at their real sizes, without memory: how many tensors their files have, how large, and what sizes tell."""

from __future__ import annotations

from typing import Any

import pytest

from tests.tiny import FAMILIES, family_of, full_size_model
from trainer.models import configs, keys, layouts
from trainer.models.layouts import recognise
from trainer.models.protocol import Components
from trainer.models.saving import file_rows

# Tensors of the published files: sd-v1-5 without its schedule's buffers, v2-1_768, sd_xl_base_1.0.
COUNTS = {"sd1": 686 + 248 + 197, "sd2": 686 + 248 + 294, "sdxl": 1680 + 248 + 197 + 390}
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "sd1": {
        "model.diffusion_model.input_blocks.1.1.proj_in.weight": (320, 320, 1, 1),
        "model.diffusion_model.output_blocks.8.2.conv.weight": (640, 640, 3, 3),
        "cond_stage_model.transformer.text_model.encoder.layers.11.mlp.fc1.weight": (3072, 768),
        "cond_stage_model.transformer.text_model.embeddings.position_ids": (1, 77),
        "first_stage_model.decoder.mid.attn_1.q.weight": (512, 512, 1, 1),
    },
    "sd2": {
        "model.diffusion_model.input_blocks.1.1.proj_in.weight": (320, 320),
        "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight": (1280, 1024),
        "cond_stage_model.model.transformer.resblocks.23.attn.in_proj_weight": (3072, 1024),
        "cond_stage_model.model.transformer.resblocks.22.mlp.c_fc.bias": (4096,),
        "cond_stage_model.model.positional_embedding": (77, 1024),
        "cond_stage_model.model.text_projection": (1024, 1024),
        "cond_stage_model.model.logit_scale": (),
    },
    "sdxl": {
        "model.diffusion_model.label_emb.0.0.weight": (1280, 2816),
        "model.diffusion_model.input_blocks.8.1.transformer_blocks.9.attn2.to_v.weight": (1280, 2048),
        "model.diffusion_model.output_blocks.5.2.conv.weight": (640, 640, 3, 3),
        "conditioner.embedders.0.transformer.text_model.final_layer_norm.weight": (768,),
        "conditioner.embedders.1.model.transformer.resblocks.31.attn.in_proj_bias": (3840,),
        "conditioner.embedders.1.model.transformer.resblocks.0.mlp.c_proj.weight": (1280, 5120),
        "conditioner.embedders.1.model.text_projection": (1280, 1280),
        "conditioner.embedders.1.model.ln_final.bias": (1280,),
    },
}


@pytest.fixture(scope="module", params=FAMILIES)
def full(request: pytest.FixtureRequest) -> tuple[str, Components, dict[str, tuple[int, ...]]]:
    """A family's name, its model and the shapes of its LDM file."""
    name = str(request.param)
    model = full_size_model(name, "meta")
    return name, model, {row[0]: row[1] for row in file_rows(family_of(name), model, "F16")}


def test_the_file_has_the_published_files_tensors(full: tuple[str, Components, dict[str, tuple[int, ...]]]) -> None:
    name, _, shapes = full
    assert len(shapes) == COUNTS[name]
    assert {key: shapes.get(key) for key in SHAPES[name]} == SHAPES[name]
    found = recognise(shapes, {})
    assert (found.kind, found.family, found.in_channels) == ("base", name, 4)


def plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def test_sizes_are_read_from_the_shapes(full: tuple[str, Components, dict[str, tuple[int, ...]]]) -> None:
    """And give the real configs: heads, groups and factors by the family's rules."""
    name, model, shapes = full
    family = family_of(name)
    found: dict[str, Any] = {
        "unet": configs.unet_config(layouts.strip(shapes, keys.LDM_UNET), family.rules),
        "vae": configs.vae_config(layouts.strip(shapes, keys.LDM_VAE), family.rules),
    }
    for encoder in family.text_encoders:
        found[encoder.part] = encoder.config(layouts.strip(shapes, encoder.prefixes[0]), family.rules)
    left_out = {"sample_size", "projection_dim"}  # of the VAE and of encoders that project nothing: nobody reads them
    for part, config in found.items():
        wanted = getattr(model, part).config
        wanted = wanted.to_dict() if hasattr(wanted, "to_dict") else wanted
        wrong = {key: (value, wanted[key]) for key, value in config.items() if plain(wanted[key]) != plain(value)}
        assert not {key: both for key, both in wrong.items() if key not in left_out}, part
    assert found["unet"]["sample_size"] == family.native_resolution // 8
    if name == "sdxl":
        assert found["text_encoder_2"]["projection_dim"] == 1280
        assert found["unet"]["attention_head_dim"] == [5, 10, 20]


def test_every_tensor_of_the_parts_is_written_once(full: tuple[str, Components, dict[str, tuple[int, ...]]]) -> None:
    """None is lost on the way into the file: the numbers add up, the tensors that the family never runs left aside."""
    name, model, shapes = full
    weights = sum(weight.numel() for module in model.modules().values() for weight in module.parameters())
    unused = [
        key for key in shapes
        if key.endswith(("position_ids", "logit_scale"))
        or (name == "sd2" and (".resblocks.23." in key or key.endswith("text_projection")))
    ]  # fmt: skip
    total = sum(_count(shape) for key, shape in shapes.items() if key not in unused)
    assert total == weights


def _count(shape: tuple[int, ...]) -> int:
    import math

    return math.prod(shape)

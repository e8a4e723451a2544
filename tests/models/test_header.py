"""What a file is, told from its header: every kind that people pick by mistake gets its own sentence."""

from __future__ import annotations

import json
import os
import stat
import struct
import threading
import time
from pathlib import Path

import pytest

from tests.models import shapes as make
from tests.models.shapes import Shapes, write
from tests.tiny import save_tiny_file, save_tiny_folder
from trainer.models.header import ModelFacts, base_problem, inspect_file, lora_problem, vae_problem
from trainer.models.keys import LDM_CLIP, LDM_UNET, LDM_VAE
from trainer.models.safetensors_file import MAX_HEADER_BYTES


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_file(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def sd1(tiny_file: Path) -> Shapes:
    from trainer.models.safetensors_file import read_header

    return read_header(tiny_file).shapes


def test_a_whole_model(tiny_file: Path) -> None:
    facts = inspect_file(tiny_file)
    assert (facts.kind, facts.family, facts.prediction, facts.dtype) == ("base", "sd1", "epsilon", "fp32")
    assert facts.parts == {"unet", "vae", "text_encoder"}
    assert facts.problem is None and base_problem(facts) is None
    assert facts.num_bytes == tiny_file.stat().st_size
    assert facts.native_resolution == 64
    assert str(facts.summary) == "Stable Diffusion 1.x model."


WHOLE = {"sd1": dict, "sd2": make.sd2, "sdxl": make.sdxl}
TEXT_PARTS = {"sd1": {"text_encoder"}, "sd2": {"text_encoder"}, "sdxl": {"text_encoder", "text_encoder_2"}}


@pytest.mark.parametrize("family", list(WHOLE))
def test_a_whole_model_of_each_family(tmp_path: Path, sd1: Shapes, family: str) -> None:
    whole = WHOLE[family](sd1)
    facts = inspect_file(write(tmp_path / "x.safetensors", whole))
    assert (facts.kind, facts.family, facts.problem) == ("base", family, None)
    assert facts.parts == {"unet", "vae"} | TEXT_PARTS[family] and not facts.missing
    assert facts.in_channels == 4 and facts.container == "safetensors" and facts.num_tensors == len(whole)
    assert facts.use is not None and base_problem(facts) is None
    expected = {"sd1": ("epsilon", "family"), "sd2": (None, None), "sdxl": ("epsilon", "family")}[family]
    assert (facts.prediction, facts.prediction_source) == expected
    assert facts.native_resolution == {"sd1": 512, "sd2": 512, "sdxl": 1024}[family]


@pytest.mark.parametrize("family", list(WHOLE))
def test_inpainting_models_of_each_family(tmp_path: Path, sd1: Shapes, family: str) -> None:
    facts = inspect_file(write(tmp_path / "x.safetensors", make.inpainting(WHOLE[family](sd1))))
    assert (facts.kind, facts.family, facts.in_channels, facts.problem) == ("base", family, 9, None)
    assert "inpainting" in str(facts.summary)


@pytest.mark.parametrize(("channels", "words"), [(5, "depth map"), (8, "InstructPix2Pix"), (6, "unknown purpose")])
def test_other_inputs_are_refused(tmp_path: Path, sd1: Shapes, channels: int, words: str) -> None:
    facts = inspect_file(write(tmp_path / "x.safetensors", make.inpainting(sd1, channels)))
    assert words in str(facts.problem) and f"{channels} input channels" in str(facts.problem)


def test_the_refiner_is_refused(tmp_path: Path, sd1: Shapes) -> None:
    whole = make.refiner(sd1)
    for shapes in (whole, make.part(whole, LDM_UNET)):
        facts = inspect_file(write(tmp_path / "x.safetensors", shapes))
        assert facts.family == "sdxl_refiner" and "refiner" in str(facts.problem) and "base model" in str(facts.problem)


@pytest.mark.parametrize("family", list(WHOLE))
def test_averaged_weights_beside_and_instead_of_its_own(tmp_path: Path, sd1: Shapes, family: str) -> None:
    from trainer.models.keys import ema_name

    whole = WHOLE[family](sd1)
    averaged = {ema_name(name): shape for name, shape in make.part(whole, LDM_UNET).items()}
    both = inspect_file(write(tmp_path / "both.safetensors", {**whole, **averaged}))
    assert both.averaged and both.problem is None
    alone = inspect_file(write(tmp_path / "alone.safetensors", {**make.without(whole, LDM_UNET), **averaged}))
    assert (alone.kind, alone.family, alone.averaged, alone.problem) == ("base", family, True, None)
    assert alone.parts == both.parts and alone.in_channels == 4
    averaged.pop(ema_name(f"{LDM_UNET}out.2.weight"))
    torn = inspect_file(write(tmp_path / "torn.safetensors", {**make.without(whole, LDM_UNET), **averaged}))
    assert torn.kind == "broken" and "out.2.weight is missing" in str(torn.problem)


def test_a_second_text_encoder_that_is_not_whole(tmp_path: Path, sd1: Shapes) -> None:
    whole = make.sdxl(sd1)
    whole.pop("conditioner.embedders.1.model.positional_embedding")
    assert "positional_embedding is missing" in str(inspect_file(write(tmp_path / "x.safetensors", whole)).problem)
    one = make.without(make.sdxl(sd1), "conditioner.embedders.1.")
    facts = inspect_file(write(tmp_path / "y.safetensors", {**one, "conditioner.embedders.1.x": (1,)}))
    assert facts.missing == {"text_encoder_2"} and "second text encoder" in str(facts.problem)


def test_mixed_dtypes(tmp_path: Path) -> None:
    from trainer.models.safetensors_file import header_bytes

    head = header_bytes({"a": ("F16", (100,)), "b": ("F32", (10,)), "c": ("I64", (400,))}, {})
    path = tmp_path / "x.safetensors"
    path.write_bytes(head + bytes(200 + 40 + 3200))
    facts = inspect_file(path)
    assert facts.dtype == "fp16" and dict(facts.dtypes) == {"I64": 3200, "fp16": 200, "fp32": 40}


def test_a_diffusers_folder(tmp_path: Path) -> None:
    folder = save_tiny_folder(tmp_path / "folder")
    facts = inspect_file(folder)
    assert (facts.kind, facts.family, facts.prediction, facts.dtype) == ("base", "sd1", "epsilon", "fp32")
    assert facts.parts == {"unet", "vae", "text_encoder"} and facts.problem is None
    config = json.loads((folder / "scheduler/scheduler_config.json").read_text(encoding="utf-8"))
    (folder / "scheduler/scheduler_config.json").write_text(
        json.dumps({**config, "prediction_type": "v_prediction"}), encoding="utf-8"
    )
    assert inspect_file(folder).prediction == "v_prediction"
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    assert "unet/diffusion_pytorch_model.safetensors: 9 bytes are missing" in str(inspect_file(folder).problem)
    weights.unlink()
    assert "unet/ has no weights" in str(inspect_file(folder).problem)
    (folder / "unet/config.json").write_text("{", encoding="utf-8")
    assert inspect_file(folder).kind == "broken"


Said = tuple[str | None, str | None, bool | None]
PREDICTIONS: dict[str, tuple[str, Shapes, dict[str, str], str, Said]] = {
    "marker": ("sd1", {"v_pred": (0,)}, {}, "", ("v_prediction", "marker", None)),
    "both markers": ("sdxl", {"v_pred": (0,), "ztsnr": (0,)}, {}, "", ("v_prediction", "marker", True)),
    "zero SNR alone": ("sdxl", {"ztsnr": ()}, {}, "", ("epsilon", "family", True)),
    "modelspec": ("sd1", {}, {"modelspec.prediction_type": "v"}, "", ("v_prediction", "metadata", None)),
    "modelspec, other key": ("sd2", {}, {"modelspec.predict_key": "v"}, "", ("v_prediction", "metadata", None)),
    "modelspec, epsilon": ("sd2", {}, {"modelspec.prediction_type": "epsilon"}, "", ("epsilon", "metadata", None)),
    "metadata before marker": (
        "sdxl", {"v_pred": (0,)}, {"modelspec.prediction_type": "epsilon"}, "", ("epsilon", "metadata", None),
    ),
    "architecture, v": (
        "sd2", {}, {"modelspec.architecture": "stable-diffusion-v2-768-v"}, "", ("v_prediction", "metadata", None),
    ),
    "architecture, epsilon": (
        "sd2", {}, {"modelspec.architecture": "stable-diffusion-v2-512"}, "", ("epsilon", "metadata", None),
    ),
    "kohya": ("sd2", {}, {"ss_v_parameterization": "True"}, "", ("v_prediction", "metadata", None)),
    "zero SNR in metadata": (
        "sdxl", {}, {"ss_zero_terminal_snr": "True"}, "", ("epsilon", "family", True),
    ),
    "config beside": ("sd1", {}, {}, "model: {params: {parameterization: v}}", ("v_prediction", "config", None)),
    "nobody says it": ("sd2", {}, {}, "", (None, None, None)),
    "nonsense": ("sd1", {}, {"modelspec.prediction_type": "x0?"}, "", ("epsilon", "family", None)),
}  # fmt: skip


@pytest.mark.parametrize("name", list(PREDICTIONS))
def test_what_a_model_predicts_and_who_says_so(tmp_path: Path, sd1: Shapes, name: str) -> None:
    family, more, metadata, beside, expected = PREDICTIONS[name]
    path = write(tmp_path / "x.safetensors", {**WHOLE[family](sd1), **more}, metadata)
    if beside:
        path.with_suffix(".yaml").write_text(beside, encoding="utf-8")
    facts = inspect_file(path)
    assert facts.problem is None
    assert (facts.prediction, facts.prediction_source, facts.zero_snr) == expected


def test_sd2_with_v_prediction_is_of_768_pixels(tmp_path: Path, sd1: Shapes) -> None:
    shapes = {**make.sd2(sd1), "v_pred": (0,)}
    assert inspect_file(write(tmp_path / "x.safetensors", shapes)).native_resolution == 768
    said = write(tmp_path / "x.safetensors", shapes, {"modelspec.resolution": "512x512"})
    assert inspect_file(said).native_resolution == 512


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
    "nothing": ({}, "unknown", None, "no model that Athanor knows"),
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


def test_missing_parts(tmp_path: Path, sd1: Shapes) -> None:
    alone = inspect_file(write(tmp_path / "unet.safetensors", make.part(sd1, LDM_UNET)))
    assert alone.missing == {"text_encoder", "vae"}
    assert "no text encoder" in str(alone.problem)
    bare = {name: shape for name, shape in sd1.items() if not name.startswith(LDM_VAE)}
    facts = inspect_file(write(tmp_path / "bare.safetensors", bare))
    assert facts.problem is None and "without a VAE" in str(facts.summary)
    assert "Choose a VAE" in str(base_problem(facts)) and base_problem(facts, has_vae=True) is None
    torn = {name: shape for name, shape in sd1.items() if not name.endswith("time_embed.0.weight")}
    torn.pop(f"{LDM_UNET}out.2.weight")
    assert "out.2.weight is missing" in str(inspect_file(write(tmp_path / "torn.safetensors", torn)).problem)


def test_the_early_name_of_the_text_encoder(tmp_path: Path, sd1: Shapes) -> None:
    early = {name.replace(LDM_CLIP, "cond_stage_model.transformer."): shape for name, shape in sd1.items()}
    facts = inspect_file(write(tmp_path / "x.safetensors", early))
    assert facts.problem is None and "text_encoder" in facts.parts


NO_MODELS: dict[str, tuple[str, bytes, str, str]] = {
    "empty": ("m.safetensors", b"", "broken", "empty"),
    "web page": ("m.safetensors", b"\n<!DOCTYPE html><html>login", "unknown", "web page"),
    "LFS pointer": ("m.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "unknown", "Git LFS"),
    "cut pickle": ("m.ckpt", b"\x80\x02}q\x00(X", "broken", "cut short"),
    "other pickle": ("m.ckpt", b"\x80\x02}q\x00.", "unknown", "none that torch wrote"),
    "cut zip": ("m.ckpt", b"PK\x03\x04\x00\x00archive/data.pkl", "broken", "cut short"),
    "cut zip under a wrong name": ("m.safetensors", b"PK\x03\x04\x00\x00archive/data.pkl", "broken", "cut short"),
    "gzip": ("m.tar.gz", b"\x1f\x8b\x08\x00", "unknown", "packed archive"),
    "index": ("model_index.json", b"{}", "unknown", "Choose the folder"),
    "harmful": ("m.pt", b"\x80\x02cposix\nsystem\nX\x01\x00\x00\x00lR.", "pickle", "posix.system"),
    "zip": ("m.zip", b"PK\x03\x04\x00\x00model.safetensors", "unknown", "packed archive"),
    "rar": ("m.rar", b"Rar!\x1a\x07", "unknown", "packed archive"),
    "GGUF": ("m.gguf", b"GGUF\x03\x00", "unknown", "quantised"),
    "picture": ("m.png", b"\x89PNG\r\n", "unknown", "picture"),
    "text": ("m.txt", b"hello, this is some text", "unknown", "not a model file"),
    "noise": ("m.safetensors", bytes(range(17, 255, 3)) * 3, "unknown", "damaged or no model"),
    "five bytes": ("m.safetensors", b"12345", "broken", "cut short"),
    "not JSON": ("m.safetensors", struct.pack("<Q", 10) + b"{nonsense}", "unknown", "damaged"),
    "a list": ("m.safetensors", struct.pack("<Q", 4) + b"[{}]", "unknown", "damaged"),
    "deep": ("m.safetensors", struct.pack("<Q", 200005) + b'{"a":' + b"[" * 200000, "unknown", "damaged"),
    "odd entry": ("m.safetensors", struct.pack("<Q", 9) + b'{"a":"b"}', "unknown", "damaged"),
    "huge header": ("m.safetensors", struct.pack("<Q", MAX_HEADER_BYTES + 1) + b"{" * 50, "unknown", "damaged"),
    "cut header": ("m.safetensors", struct.pack("<Q", 1000) + b'{"a":', "broken", "cut short"),
}


@pytest.mark.parametrize("name", list(NO_MODELS))
def test_files_that_are_no_models(awkward: Path, name: str) -> None:
    filename, data, kind, words = NO_MODELS[name]
    path = awkward / filename
    path.write_bytes(data)
    facts = inspect_file(path)
    assert facts.kind == kind
    assert words in str(facts.problem)


def test_wrong_places_in_a_header(tmp_path: Path) -> None:
    for entry in (
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]},
        {"dtype": "F32", "shape": [1], "data_offsets": "ab"},
        {"dtype": "F32", "shape": 7, "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0, 1e999]},
    ):
        text = json.dumps({"a": entry}).encode()
        path = tmp_path / "x.safetensors"
        path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 64)
        assert inspect_file(path).kind == "unknown"


def test_a_cut_download(tmp_path: Path, tiny_file: Path) -> None:
    path = tmp_path / "half.safetensors"
    path.write_bytes(tiny_file.read_bytes()[:-1000])
    facts = inspect_file(path)
    assert facts.kind == "broken" and "1000 bytes are missing" in str(facts.problem)


def test_unreadable_missing_and_impossible_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert inspect_file(tmp_path / "none.safetensors").kind == "missing"
    assert inspect_file("a\0b").problem is not None
    assert inspect_file("x" * 5000).problem is not None
    path = tmp_path / "locked.safetensors"
    path.write_bytes(b"x")

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("trainer.models.opening.FileIO", refuse)
    facts = inspect_file(path)
    assert facts.kind == "broken" and "Permission denied" in str(facts.problem)


def test_folders_that_are_no_models(tmp_path: Path) -> None:
    assert "model_index.json" in str(inspect_file(tmp_path).problem)
    for name, words in (
        ("StableDiffusionXLPipeline", "no UNet"), ("FluxPipeline", "FLUX"), ("StableDiffusion3Pipeline", "Diffusion 3"),
        ("KandinskyPipeline", "KandinskyPipeline"),
    ):  # fmt: skip
        (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name}), encoding="utf-8")
        assert words in str(inspect_file(tmp_path).problem)
    (tmp_path / "model_index.json").write_text("[]", encoding="utf-8")
    assert inspect_file(tmp_path).kind == "broken"


def test_a_config_beside_that_cannot_be_read(tmp_path: Path, sd1: Shapes) -> None:
    path = write(tmp_path / "x.safetensors", sd1)
    path.with_suffix(".json").write_text("{", encoding="utf-8")
    assert "config file" in str(inspect_file(path).problem)
    path.with_suffix(".json").write_text('{"activation text": "a note of the WebUI"}', encoding="utf-8")
    assert inspect_file(path).problem is None


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


def test_a_full_size_header_takes_less_than_a_third_of_a_second(tmp_path: Path, sd1: Shapes) -> None:
    many = {**sd1, **{f"model_ema.{index}_{'x' * 60}": (320, 320) for index in range(3000)}}
    path = write(tmp_path / "x.safetensors", many, {"thumbnail": "x" * 500_000})
    start = time.process_time()  # of this process alone: a busy machine must not fail the test
    assert inspect_file(path).problem is None
    assert time.process_time() - start < 0.3


def test_what_is_no_ordinary_file_is_not_opened(tmp_path: Path) -> None:
    """A pipe without a writer would block for ever, a device could do anything."""
    places = [Path("/dev/zero"), Path("/dev/tty")] if os.name != "nt" else [Path("NUL")]
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.safetensors")
        places.append(tmp_path / "pipe.safetensors")
    for path in places:
        if path.exists():
            facts = inspect_file(path)
            assert facts.kind == "broken" and "a named pipe, a device or a socket" in str(facts.problem)


def test_links(tmp_path: Path, tiny_file: Path) -> None:
    try:
        (tmp_path / "good.safetensors").symlink_to(tiny_file)
        (tmp_path / "dead.safetensors").symlink_to(tmp_path / "nowhere")
        (tmp_path / "ring.safetensors").symlink_to(tmp_path / "ring.safetensors")
    except OSError:
        pytest.skip("this system makes no links for everybody")
    assert inspect_file(tmp_path / "good.safetensors").kind == "base"
    dead = inspect_file(tmp_path / "dead.safetensors")
    assert dead.kind == "missing" and "is a link to a file that is not there" in str(dead.problem)
    assert inspect_file(tmp_path / "ring.safetensors").problem is not None


def test_a_drive_that_goes_away_while_it_is_read(tiny_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer.models import safetensors_file

    def gone(text: bytes) -> dict[str, object]:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(safetensors_file, "_json", gone)
    facts = inspect_file(tiny_file)
    assert facts.kind == "broken" and "Input/output error" in str(facts.problem)


def test_any_thread_may_ask(tiny_file: Path, tmp_path: Path) -> None:
    (tmp_path / "torn.safetensors").write_bytes(tiny_file.read_bytes()[:5000])
    kinds: list[str] = []

    def ask() -> None:
        for _ in range(5):
            kinds.append(inspect_file(tiny_file).kind)
            kinds.append(inspect_file(tmp_path / "torn.safetensors").kind)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(kinds) == ["base"] * 20 + ["broken"] * 20


def test_nothing_is_written_beside_a_model(tiny_file: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in tiny_file.parent.iterdir()}
    mode = stat.S_IMODE(tiny_file.stat().st_mode)
    inspect_file(tiny_file)
    assert {path.name: path.stat().st_mtime_ns for path in tiny_file.parent.iterdir()} == before
    assert stat.S_IMODE(tiny_file.stat().st_mode) == mode


def test_no_torch_is_needed(tiny_file: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys, trainer.models.header as h, trainer.models.protocol, trainer.export_targets\n"
        f"assert h.inspect_file({str(tiny_file)!r}).problem is None\n"
        "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

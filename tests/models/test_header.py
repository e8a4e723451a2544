"""What a file is, told from its header: every kind that people pick by mistake gets its own sentence."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path

import pytest

from tests.tiny import save_tiny_file, save_tiny_folder
from trainer.models.header import ModelFacts, base_problem, inspect_file, lora_problem, vae_problem
from trainer.models.keys import LDM_CLIP, LDM_UNET, LDM_VAE
from trainer.models.safetensors_file import MAX_HEADER_BYTES, header_bytes

Shapes = dict[str, tuple[int, ...]]


def write(path: Path, shapes: Shapes, metadata: dict[str, str] | None = None, dtype: str = "F16") -> Path:
    """A safetensors file of these shapes whose data is a hole: gigabytes cost nothing."""
    head = header_bytes({name: (dtype, shape) for name, shape in shapes.items()}, metadata or {})
    end = json.loads(head[8:])
    size = max((entry["data_offsets"][1] for name, entry in end.items() if name != "__metadata__"), default=0)
    with path.open("wb") as handle:
        handle.write(head)
        handle.truncate(len(head) + size)
    return path


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_file(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def sd1(tiny_file: Path) -> Shapes:
    from trainer.models.safetensors_file import read_header

    return read_header(tiny_file).shapes


def unet(shapes: Shapes) -> Shapes:
    return {name: shape for name, shape in shapes.items() if name.startswith(LDM_UNET)}


def test_a_whole_model(tiny_file: Path) -> None:
    facts = inspect_file(tiny_file)
    assert (facts.kind, facts.family, facts.prediction, facts.dtype) == ("base", "sd1", "epsilon", "fp32")
    assert facts.parts == {"unet", "vae", "text_encoder"}
    assert facts.problem is None and base_problem(facts) is None
    assert facts.num_bytes == tiny_file.stat().st_size
    assert facts.native_resolution == 64
    assert str(facts.summary) == "Stable Diffusion 1.x model."


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
    assert "unet/ has no .safetensors weights" in str(inspect_file(folder).problem)
    (folder / "unet/config.json").write_text("{", encoding="utf-8")
    assert inspect_file(folder).kind == "broken"


def test_a_v_prediction_model(tmp_path: Path, sd1: Shapes) -> None:
    assert inspect_file(write(tmp_path / "a.safetensors", {**sd1, "v_pred": (0,)})).prediction == "v_prediction"
    said = write(tmp_path / "b.safetensors", sd1, {"modelspec.prediction_type": "v"})
    assert inspect_file(said).prediction == "v_prediction"
    beside = write(tmp_path / "c.safetensors", sd1)
    beside.with_suffix(".yaml").write_text("model: {params: {parameterization: v}}", encoding="utf-8")
    assert inspect_file(beside).prediction == "v_prediction"


OTHER_MODELS: dict[str, tuple[Shapes, str, str | None, str]] = {
    "SD 2": (
        {
            f"{LDM_UNET}input_blocks.0.0.weight": (320, 4, 3, 3),
            f"{LDM_UNET}input_blocks.1.1.proj_in.weight": (320, 320),
            "cond_stage_model.model.ln_final.weight": (1024,),
        },
        "base", "sd2", "Stable Diffusion 2.x",
    ),
    "SDXL": (
        {
            f"{LDM_UNET}input_blocks.0.0.weight": (320, 4, 3, 3),
            f"{LDM_UNET}label_emb.0.0.weight": (1280, 2816),
            "conditioner.embedders.0.transformer.text_model.final_layer_norm.weight": (768,),
            "conditioner.embedders.1.model.ln_final.weight": (1280,),
        },
        "base", "sdxl", "SDXL",
    ),
    "SDXL UNet alone": (
        {f"{LDM_UNET}input_blocks.0.0.weight": (320, 4, 3, 3), f"{LDM_UNET}label_emb.0.0.weight": (1280, 2816)},
        "base", "sdxl", "SDXL",
    ),
    "refiner": (
        {
            f"{LDM_UNET}input_blocks.0.0.weight": (384, 4, 3, 3),
            f"{LDM_UNET}label_emb.0.0.weight": (1536, 2560),
            "conditioner.embedders.0.model.ln_final.weight": (1280,),
        },
        "base", "sdxl_refiner", "SDXL refiner",
    ),
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
    "LoHa": ({"lora_unet_mid_block_attentions_0_proj_in.hada_w1_a": (8, 8)}, "lora", "sd1", "LoRA"),
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


def test_inpainting_is_recognised(tmp_path: Path, sd1: Shapes) -> None:
    wide = {**sd1, f"{LDM_UNET}input_blocks.0.0.weight": (32, 9, 3, 3)}
    facts = inspect_file(write(tmp_path / "x.safetensors", wide))
    assert "inpainting" in str(facts.problem) and "9 input channels" in str(facts.problem)


def test_missing_parts(tmp_path: Path, sd1: Shapes) -> None:
    alone = inspect_file(write(tmp_path / "unet.safetensors", unet(sd1)))
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
    "old pickle": ("m.ckpt", b"\x80\x02}q\x00(X", "pickle", "cannot be read yet"),
    "new pickle": ("m.ckpt", b"PK\x03\x04\x00\x00archive/data.pkl", "pickle", ".safetensors version"),
    "pickle under a wrong name": (
        "m.safetensors",
        b"PK\x03\x04\x00\x00archive/data.pkl",
        "pickle",
        "cannot be read yet",
    ),
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

    def refuse(self: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    facts = inspect_file(path)
    assert facts.kind == "broken" and "Permission denied" in str(facts.problem)


def test_folders_that_are_no_models(tmp_path: Path) -> None:
    assert "model_index.json" in str(inspect_file(tmp_path).problem)
    for name, words in (
        ("StableDiffusionXLPipeline", "SDXL"), ("FluxPipeline", "FLUX"), ("StableDiffusion3Pipeline", "Diffusion 3"),
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
    assert "no file" in str(vae_problem(inspect_file(tmp_path / "none")))


def test_what_serves_as_a_lora(tmp_path: Path, tiny_file: Path) -> None:
    assert lora_problem(facts_of(tmp_path, "LoRA 1")) is None
    assert "SDXL" in str(lora_problem(facts_of(tmp_path, "LoRA XL")))
    assert "A LoRA is needed" in str(lora_problem(inspect_file(tiny_file)))
    assert "no file" in str(lora_problem(inspect_file(tmp_path / "none")))


def test_a_full_size_header_takes_less_than_a_third_of_a_second(tmp_path: Path, sd1: Shapes) -> None:
    many = {**sd1, **{f"model_ema.{index}_{'x' * 60}": (320, 320) for index in range(3000)}}
    path = write(tmp_path / "x.safetensors", many, {"thumbnail": "x" * 500_000})
    start = time.process_time()  # of this process alone: a busy machine must not fail the test
    assert inspect_file(path).problem is None
    assert time.process_time() - start < 0.3


def test_no_torch_is_needed(tiny_file: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys, trainer.models.header as h, trainer.models.protocol, trainer.export_targets\n"
        f"assert h.inspect_file({str(tiny_file)!r}).problem is None\n"
        "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

"""Our LoRA in another program: diffusers loads every key of it and computes and draws the same with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageChops

from tests.tiny import save_tiny_folder
from trainer.config.run import Prompt
from trainer.methods.lora import Settings, TrainedLora, build
from trainer.models.protocol import Components, Cond
from trainer.models.safetensors_file import read_header
from trainer.models.sd1 import FAMILY
from trainer.sampling import make_scheduler, sample


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_folder(tmp_path_factory.mktemp("model"))


def trained_lora(components: Components) -> TrainedLora:
    """A LoRA with weights that matter, as after a training."""
    trained = build(Settings(rank=4, alpha=2.0), components, FAMILY, seed=1)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in trained.parameters():
            weight.normal_(std=0.3, generator=generator)
    trained.train(False)
    return trained


@pytest.fixture(scope="module")
def ours(folder: Path) -> tuple[Components, TrainedLora]:
    components = FAMILY.load(folder)
    return components, trained_lora(components)


@pytest.fixture(scope="module")
def lora_file(ours: tuple[Components, TrainedLora], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lora") / "ours.safetensors"
    ours[1].export(path, {"ss_output_name": "ours"}, torch.float32)
    return path


@pytest.fixture(scope="module")
def pipeline(folder: Path, lora_file: Path) -> Any:
    """diffusers' own pipeline with our file; whatever it says about keys is kept in `pipeline.said`."""
    import logging

    from diffusers import StableDiffusionPipeline

    said: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    pipe = StableDiffusionPipeline.from_pretrained(
        folder, safety_checker=None, requires_safety_checker=False, local_files_only=True
    )
    logger = logging.getLogger("diffusers")
    logger.addHandler(handler := Keep(logging.WARNING))
    try:
        pipe.load_lora_weights(lora_file.parent, weight_name=lora_file.name, adapter_name="ours")
    finally:
        logger.removeHandler(handler)
    pipe.said = said
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_diffusers_takes_every_key(pipeline: Any, lora_file: Path) -> None:
    from peft.utils import get_peft_model_state_dict

    assert not [line for line in pipeline.said if "key" in line.lower() or "lora" in line.lower()], pipeline.said
    taken = get_peft_model_state_dict(pipeline.unet, adapter_name="ours")
    taken |= {f"te.{name}": weight for name, weight in
              get_peft_model_state_dict(pipeline.text_encoder, adapter_name="ours").items()}  # fmt: skip
    weights = [name for name in read_header(lora_file).tensors if not name.endswith(".alpha")]
    assert len(taken) == len(weights) == 2 * 66


def test_values_alpha_and_rank_arrive(pipeline: Any, ours: tuple[Components, TrainedLora]) -> None:
    network = ours[1].network
    layer = pipeline.unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_k
    mine = network.layer("lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k")
    assert torch.equal(layer.lora_A["ours"].weight, mine.down) and torch.equal(layer.lora_B["ours"].weight, mine.up)
    assert layer.scaling["ours"] == 0.5
    text = pipeline.text_encoder.get_submodule("encoder.layers.1.mlp.fc2")
    mine = network.layer("lora_te_text_model_encoder_layers_1_mlp_fc2")
    assert torch.equal(text.lora_B["ours"].weight, mine.up) and text.scaling["ours"] == 0.5


def test_text_states_and_prediction_agree(pipeline: Any, ours: tuple[Components, TrainedLora]) -> None:
    components, trained = ours
    theirs, _ = pipeline.encode_prompt("a red cat", "cpu", 1, False)
    mine = FAMILY.encode_text(components, ["a red cat"])
    torch.testing.assert_close(mine.states, theirs, atol=1e-4, rtol=1e-4)
    noisy = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = pipeline.unet(noisy, torch.tensor([500]), encoder_hidden_states=theirs).sample
        got = FAMILY.predict(components, noisy, torch.tensor([500]), mine)
        with trained.off():
            without = FAMILY.predict(components, noisy, torch.tensor([500]), mine)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-3)
    assert (without - expected).abs().max() > 0.05, "the LoRA must matter for this test to mean anything"


def test_the_weight_in_the_prompt_is_our_multiplier(pipeline: Any, ours: tuple[Components, TrainedLora]) -> None:
    components, trained = ours
    noisy, cond = torch.randn(1, 4, 8, 8), torch.randn(1, 77, 32)
    pipeline.set_adapters("ours", 0.4)
    trained.network.set_multiplier(0.4)
    try:
        with torch.no_grad():
            expected = pipeline.unet(noisy, torch.tensor([500]), encoder_hidden_states=cond).sample
            got = FAMILY.predict(components, noisy, torch.tensor([500]), Cond(cond))
    finally:
        pipeline.set_adapters("ours", 1.0)
        trained.network.set_multiplier(1.0)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m_karras", "euler_a"])
def test_the_picture_is_our_previews(pipeline: Any, ours: tuple[Components, TrainedLora], sampler: str) -> None:
    """Same prompt, starting latents, generator and scheduler settings: the same picture, to rounding."""
    components, _ = ours
    prompt = Prompt(prompt="a red cat on a chair", negative="ugly", width=64, height=128, steps=5, cfg=5.0, seed=11,
                    sampler=sampler)  # fmt: skip
    (mine,) = sample(components, FAMILY, [prompt])

    pipeline.scheduler = make_scheduler(sampler)
    generator = torch.Generator().manual_seed(prompt.seed)
    start = torch.randn(1, 4, 16, 8, generator=generator)

    def draw(scale: float) -> Image.Image:
        pipeline.set_adapters("ours", scale)
        return pipeline(
            prompt.prompt, negative_prompt=prompt.negative, width=64, height=128, num_inference_steps=prompt.steps,
            guidance_scale=prompt.cfg, latents=start.clone(), generator=generator.clone_state(),
        ).images[0]  # fmt: skip

    without, theirs = draw(0.0), draw(1.0)
    assert greatest_difference(mine, theirs) <= 2
    assert greatest_difference(mine, without) > 10, "the LoRA must matter for this test to mean anything"


def greatest_difference(one: Image.Image, other: Image.Image) -> int:
    assert one.size == other.size
    return max(high for _, high in ImageChops.difference(one, other).getextrema())


def test_safetensors_reads_our_files(lora_file: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file

    with safe_open(lora_file, "pt") as reader:
        assert reader.metadata()["ss_output_name"] == "ours"
        assert all(isinstance(value, str) for value in reader.metadata().values())
    tensors = load_file(lora_file)
    assert len(tensors) == 3 * 66 and tensors["lora_unet_mid_block_attentions_0_proj_in.alpha"] == 2.0


def test_hashes_are_kohyas(lora_file: Path) -> None:
    """As sd-scripts computes them: of the file as its library writes it with the ss_ entries alone."""
    import hashlib

    from safetensors.torch import load_file, save

    metadata = read_header(lora_file).metadata
    data = save(load_file(lora_file), {name: value for name, value in metadata.items() if name.startswith("ss_")})
    start = int.from_bytes(data[:8], "little") + 8
    assert metadata["sshs_model_hash"] == hashlib.sha256(data[start:]).hexdigest()
    assert metadata["modelspec.hash_sha256"] == "0x" + metadata["sshs_model_hash"]
    assert metadata["sshs_legacy_hash"] == hashlib.sha256(data[0x100000:0x110000]).hexdigest()[:8]


MEMORY = """
import re, sys, threading
from pathlib import Path
import torch
from trainer.models import libraries
from trainer.models.sd1 import FAMILY
dtype = getattr(torch, sys.argv[2])
libraries.unet_class(), libraries.vae_class(), libraries.clip_classes()

def high_water():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text(encoding="utf-8"))[1]) * 1024

before = high_water()
components = FAMILY.load(Path(sys.argv[1]), dtype=dtype)
weights = sum(w.numel() * w.element_size() for m in components.modules().values() for w in m.parameters())
print((high_water() - before) / weights, weights)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="VmHWM is Linux's")
@pytest.mark.parametrize(
    ("file_dtype", "dtype"), [("float32", "float32"), ("float16", "float32"), ("float16", "float16")]
)
def test_loading_needs_little_more_than_the_weights(tmp_path: Path, file_dtype: str, dtype: str) -> None:
    """Full-size SD 1.5: the peak while loading, less that of the imports, is at most 1.15 × the weights."""
    path = tmp_path / "full.safetensors"
    save_full_size(path, getattr(torch, file_dtype))
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(path), dtype], check=True, capture_output=True, text=True, encoding="utf-8"
    )
    ratio, weights = map(float, done.stdout.split())
    assert weights > 4.2e9 / (2 if dtype == "float16" else 1)
    print(f"{file_dtype} file as {dtype}: {ratio:.3f} × {weights / 1e9:.2f} GB")
    assert ratio <= 1.15


def save_full_size(path: Path, dtype: torch.dtype) -> None:
    """A model of SD 1.5's sizes with weights that are all alike: only their number matters here."""
    from tests.tiny import full_size_sd1

    FAMILY.save(full_size_sd1(), path, dtype)

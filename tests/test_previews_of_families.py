"""Our previews against diffusers' own pipelines, for every family, prediction and sampler, and with a LoRA of ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageChops

from tests.families import KINDS
from tests.tiny import family_of, pipeline_of, tiny_model
from trainer.config.run import Prompt
from trainer.methods.lora import Settings, build
from trainer.sampling import make_scheduler, sample

CASES = [
    ("sd2", "ddim"), ("sd2 v", "euler_a"), ("sd2 v", "dpmpp_2m_karras"), ("sd2 v zero", "ddim"),
    ("sd2 v zero", "euler_a"), ("sdxl", "euler_a"), ("sdxl", "dpmpp_2m_karras"), ("sdxl v zero", "ddim"),
]  # fmt: skip


def make(kind: str) -> tuple[Any, Any]:
    """A family and its tiny model."""
    told = dict(KINDS[kind])
    name = told.pop("family")
    return family_of(name), tiny_model(name, **told)


def pipeline(family: Any, parts: Any, sampler: str) -> Any:
    """diffusers' pipeline with our scheduler, and with "!" as the padding that OpenCLIP's tokenizer has."""
    pipe = pipeline_of(family.name, parts)
    pipe.scheduler = make_scheduler(sampler, parts.prediction, parts.zero_snr)
    if family.name == "sd2":
        pipe.tokenizer = family.load_tokenizer(Path())
        pipe.tokenizer.pad_token = "!"
    return pipe


def draw(pipe: Any, request: Prompt, family: Any) -> Image.Image:
    """What diffusers' pipeline draws of a request, from the same noise as ours."""
    generator = torch.Generator().manual_seed(request.seed)
    shape = family.latent_channels, request.height // 8, request.width // 8
    start = torch.randn(1, *shape, generator=generator)
    pipe.set_progress_bar_config(disable=True)
    return pipe(
        request.prompt, negative_prompt=request.negative, width=request.width, height=request.height,
        num_inference_steps=request.steps, guidance_scale=request.cfg, latents=start, generator=generator,
    ).images[0]  # fmt: skip


def difference(one: Image.Image, other: Image.Image) -> int:
    assert one.size == other.size
    return max(high for _, high in ImageChops.difference(one, other).getextrema())


@pytest.mark.parametrize(("kind", "sampler"), CASES)
def test_the_picture_is_the_pipelines(kind: str, sampler: str) -> None:
    family, parts = make(kind)
    request = Prompt(prompt="a red cat on a chair", negative="ugly", width=64, height=128, steps=4, cfg=5.0, seed=11,
                     sampler=sampler)  # fmt: skip
    (mine,) = sample(parts, family, [request])
    pipe = pipeline(family, parts, sampler)
    assert difference(mine, draw(pipe, request, family)) <= 2
    other = request.model_copy(update={"prompt": "a blue dog"})
    assert difference(mine, draw(pipe, other, family)) > 2, "the prompt must matter for this test to mean anything"


@pytest.fixture(params=["sd2 v", "sdxl"])
def with_lora(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Any, Any, Path]]:
    family, parts = make(request.param)
    trained = build(Settings(rank=4, alpha=2.0), parts, family, seed=1)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in trained.parameters():
            weight.normal_(std=0.3, generator=generator)
    trained.train(False)
    path = tmp_path / "ours.safetensors"
    trained.export(path, {"ss_output_name": "ours"}, torch.float32)
    yield family, parts, path
    trained.remove()


def test_a_lora_of_ours_draws_the_same_in_diffusers(with_lora: tuple[Any, Any, Path]) -> None:
    family, parts, path = with_lora
    request = Prompt(prompt="a red cat", negative="ugly", width=64, height=64, steps=4, cfg=4.0, seed=5, sampler="ddim")
    (mine,) = sample(parts, family, [request])
    _, fresh = make("sd2 v" if family.name == "sd2" else "sdxl")
    pipe = pipeline(family, fresh, "ddim")
    without = draw(pipe, request, family)
    pipe.load_lora_weights(path.parent, weight_name=path.name, adapter_name="ours")
    assert difference(mine, draw(pipe, request, family)) <= 3
    assert difference(mine, without) > 10, "the LoRA must matter for this test to mean anything"


def test_a_long_prompt_and_its_short_negative_are_brought_to_one_length() -> None:
    family, parts = make("sdxl")
    long = Prompt(prompt="a cat, " * 60, negative="ugly", width=64, height=64, steps=2, cfg=4.0, seed=5, sampler="ddim")
    (first,) = sample(parts, family, [long])
    (second,) = sample(parts, family, [long.model_copy(update={"prompt": "a cat, " * 60 + "(a dog:1.4)"})])
    assert difference(first, second) > 0, "what stands after the seventy-fifth token counts"

"""Our previews against diffusers' own pipelines, for every family, prediction and sampler, and with a LoRA of ours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageChops

from tests.families import KINDS
from tests.tiny import family_of, pipeline_of, tiny_model
from trainer.config.run import Prompt
from trainer.methods.lora import Settings, build
from trainer.models.text import ANY_LENGTH
from trainer.sampling import make_scheduler, sample, to_picture

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
    """What diffusers' pipeline draws of a request, from the same noise as ours; an empty negative prompt is none there."""
    generator = torch.Generator().manual_seed(request.seed)
    shape = family.latent_channels, request.height // 8, request.width // 8
    start = torch.randn(1, *shape, generator=generator)
    pipe.set_progress_bar_config(disable=True)
    return pipe(
        request.prompt, negative_prompt=request.negative or None, width=request.width, height=request.height,
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


@pytest.mark.parametrize("kind", ["sd2", "sdxl", "sdxl v zero"])
def test_without_a_negative_prompt_it_is_the_pipelines_too(kind: str) -> None:
    """SDXL is then told zeros, by diffusers and the WebUI alike; the others read the empty prompt."""
    family, parts = make(kind)
    request = Prompt(prompt="a red cat", width=64, height=64, steps=4, cfg=5.0, seed=11, sampler="ddim")
    (mine,) = sample(parts, family, [request])
    assert difference(mine, draw(pipeline(family, parts, "ddim"), request, family)) <= 2
    together = sample(parts, family, [request, request.model_copy(update={"negative": "ugly"})], batch_size=2)
    assert difference(mine, together[0]) <= 2 and difference(*together) > 2


@pytest.mark.parametrize("kind", ["sd1 inpainting", "sdxl"])
def test_each_text_is_heard_at_its_own_length(kind: str) -> None:
    """A long prompt beside a short negative one, and neighbours of other lengths: each counts as if it stood alone."""
    family, parts = make(kind)
    long = Prompt(prompt="a cat, " * 60, negative="ugly", width=64, height=64, steps=2, cfg=4.0, seed=5, sampler="ddim")
    short = long.model_copy(update={"prompt": "a dog"})
    (mine,), (other,) = sample(parts, family, [long]), sample(parts, family, [short])
    for picture, neighbour in zip(sample(parts, family, [long, short], batch_size=2), (mine, other), strict=True):
        assert difference(picture, neighbour) <= 2
    said = [family.encode_text(parts, [text], token_length=ANY_LENGTH) for text in (long.negative, long.prompt)]
    assert said[0].states.shape[1] < said[1].states.shape[1]
    with torch.no_grad():
        by_hand = to_picture(family.decode(parts.vae, ddim_by_hand(family, parts, long, said))[0])
    assert difference(mine, by_hand) <= 2
    (more,) = sample(parts, family, [long.model_copy(update={"prompt": long.prompt + "(a dog:1.4)"})])
    assert difference(mine, more) > 0, "what stands after the seventy-fifth token counts"


def ddim_by_hand(family: Any, parts: Any, request: Prompt, said: list[Any]) -> torch.Tensor:
    """Latents of a request under its negative and its prompt (`said`), each asked about in a call of its own."""
    scheduler = make_scheduler("ddim", parts.prediction, parts.zero_snr)
    scheduler.set_timesteps(request.steps)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(request.seed))
    side = float(request.width)
    concat = None
    if parts.unet.config.in_channels == 9:
        hidden, _ = family.encode_pictures(parts.vae, torch.zeros(1, 3, 64, 64))
        concat = torch.cat([torch.ones(1, 1, 8, 8), hidden], 1)
    conds = [replace(one, sizes=torch.tensor([[side, side, 0.0, 0.0, side, side]]), concat=concat) for one in said]
    for timestep in scheduler.timesteps:
        without, with_prompt = (family.predict(parts, latents, timestep, cond) for cond in conds)
        latents = scheduler.step(without + request.cfg * (with_prompt - without), timestep, latents).prev_sample
    return latents

"""Our previews against diffusers' own pipelines, for every family, prediction and sampler, and with a LoRA of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
from trainer.sampling import drawn_texts, make_scheduler, sample, to_picture

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


def test_a_vae_may_say_the_mean_and_deviation_of_its_latents() -> None:
    """Beside its factor; decoded as diffusers' pipeline does it, and encoded so that decoding undoes it."""
    family, parts = make("sdxl")
    pixels = torch.rand(1, 3, 64, 64) * 2 - 1
    plain, plain_std = family.encode_pictures(parts.vae, pixels)
    parts.vae.register_to_config(latents_mean=[0.5, -1.0, 2.0, 0.0], latents_std=[2.0, 0.5, 1.5, 1.0])
    request = Prompt(prompt="a red cat", negative="ugly", width=64, height=64, steps=2, cfg=3.0, seed=1, sampler="ddim")
    (mine,) = sample(parts, family, [request])
    assert difference(mine, draw(pipeline(family, parts, "ddim"), request, family)) <= 2
    mean, deviation = torch.tensor([0.5, -1.0, 2.0, 0.0]), torch.tensor([2.0, 0.5, 1.5, 1.0])
    scale = parts.vae.config.scaling_factor
    found, found_std = family.encode_pictures(parts.vae, pixels)
    torch.testing.assert_close(found, (plain - scale * mean.view(-1, 1, 1)) / deviation.view(-1, 1, 1))
    torch.testing.assert_close(found_std, plain_std / deviation.view(-1, 1, 1))


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
    by_hand = ddim_by_hand(family, parts, long, lambda step: (long.negative, [(long.prompt, 1.0)]))
    assert difference(mine, by_hand) <= 2
    (more,) = sample(parts, family, [long.model_copy(update={"prompt": long.prompt + "(a dog:1.4)"})])
    assert difference(mine, more) > 0, "what stands after the seventy-fifth token counts"


@pytest.mark.parametrize("kind", ["sd2 v", "sdxl"])
def test_prompts_that_change_and_those_of_several_parts(kind: str) -> None:
    """Both text encoders hear each part at each step, and each counts by its weight."""
    family, parts = make(kind)
    request = Prompt(
        prompt="a [cat:dog:1] sits AND a (red:1.3) bird:0.5", negative="[ugly:0.5]", width=64, height=64, steps=4, cfg=4.0,
        seed=5, sampler="ddim",
    )  # fmt: skip

    def said(step: int) -> tuple[str, list[tuple[str, float]]]:
        animal = "cat" if step <= 1 else "dog"
        return "" if step <= 2 else "ugly", [(f"a {animal} sits", 1.0), (" a (red:1.3) bird", 0.5)]

    (mine,) = sample(parts, family, [request])
    assert difference(mine, ddim_by_hand(family, parts, request, said)) <= 2
    plain = request.model_copy(update={"prompt": "a dog sits", "negative": ""})
    assert difference(mine, sample(parts, family, [plain, request], batch_size=2)[1]) <= 2
    unguided = request.model_copy(update={"cfg": 1.0, "prompt": "a cat AND a dog:0.5"})
    (alone,) = sample(parts, family, [unguided])
    by_hand = ddim_by_hand(
        family, parts, unguided, lambda step: ("" if step <= 2 else "ugly", [("a cat", 1.0), (" a dog", 0.5)])
    )
    assert difference(alone, by_hand) <= 2


def test_all_that_is_drawn_is_encoded_beforehand() -> None:
    requests = [Prompt(prompt="a [cat:dog:1] AND x", negative="[ugly|bad]", steps=3), Prompt(prompt="x", steps=3)]
    assert drawn_texts(requests) == ["a cat", "a dog", " x", "ugly", "bad", "x", ""]


def ddim_by_hand(
    family: Any, parts: Any, request: Prompt, said: Callable[[int], tuple[str, list[tuple[str, float]]]]
) -> Image.Image:
    """The picture of a request, each text asked about in a call of its own; `said`: a step's negative and weighted texts."""
    scheduler = make_scheduler("ddim", parts.prediction, parts.zero_snr)
    scheduler.set_timesteps(request.steps)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(request.seed))
    side = float(request.width)
    concat = None
    if parts.unet.config.in_channels == 9:
        hidden, _ = family.encode_pictures(parts.vae, torch.zeros(1, 3, 64, 64))
        concat = torch.cat([torch.ones(1, 1, 8, 8), hidden], 1)

    def predict(text: str) -> torch.Tensor:
        cond = family.encode_text(parts, [text], token_length=ANY_LENGTH)
        cond = replace(cond, sizes=torch.tensor([[side, side, 0.0, 0.0, side, side]]), concat=concat)
        answer: torch.Tensor = family.predict(parts, latents, timestep, cond)
        return answer

    with torch.no_grad():
        for step, timestep in enumerate(scheduler.timesteps):
            negative, lines = said(step)
            without = predict(negative)
            guided = without + sum(weight * request.cfg * (predict(text) - without) for text, weight in lines)
            latents = scheduler.step(guided, timestep, latents).prev_sample
        return to_picture(family.decode(parts.vae, latents)[0])

"""Pictures: the same for the same seed, alone or in a batch, in any mode of training; and nothing else is touched."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image

from tests.tiny import tiny_sd1
from trainer.config.run import SAMPLERS, Prompt
from trainer.methods.lora import Settings, build
from trainer.models.protocol import Components
from trainer.models.sd1 import FAMILY
from trainer.previews import Timing
from trainer.sampling import SAMPLER_TITLES, SCHEDULERS, parameters_text, png_bytes, sample, to_picture


@pytest.fixture(scope="module")
def components() -> Iterator[Components]:
    yield tiny_sd1()


def prompt(text: str = "a cat", seed: int = 3, sampler: str = "euler_a", cfg: float = 4.0, width: int = 64) -> Prompt:
    return Prompt(prompt=text, negative="bad", width=width, height=64, steps=3, cfg=cfg, seed=seed, sampler=sampler)


def difference(one: Image.Image, other: Image.Image) -> int:
    return int(np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max())


def test_every_sampler_of_the_run_file_has_its_scheduler() -> None:
    values = [choice.value for choice in SAMPLERS]
    assert values == list(SCHEDULERS) == list(SAMPLER_TITLES)
    assert [choice.label for choice in SAMPLERS] == list(SAMPLER_TITLES.values())


@pytest.mark.parametrize("sampler", SCHEDULERS)
def test_a_seed_gives_the_same_picture_alone_and_in_a_batch(components: Components, sampler: str) -> None:
    wanted = [prompt("a cat", 3, sampler), prompt("a dog", 4, sampler), prompt("a red cat", 3, sampler)]
    torch.manual_seed(1)
    alone = sample(components, FAMILY, wanted)
    torch.manual_seed(2)
    together = sample(components, FAMILY, wanted, batch_size=3)
    assert all(difference(one, other) <= 1 for one, other in zip(alone, together, strict=True))
    assert difference(alone[0], alone[1]) > 5 and difference(alone[0], sample(components, FAMILY, wanted[:1])[0]) == 0


def test_pictures_come_in_the_order_asked_for(components: Components) -> None:
    wanted = [prompt(width=64), prompt(width=128), prompt(seed=9)]
    drawn = sample(components, FAMILY, wanted, batch_size=2)
    assert [picture.size for picture in drawn] == [(64, 64), (128, 64), (64, 64)]
    assert difference(drawn[2], sample(components, FAMILY, [wanted[2]])[0]) <= 1


def test_prompt_and_negative_matter_and_scale_one_needs_no_negative(components: Components) -> None:
    base = sample(components, FAMILY, [prompt(cfg=1.0)])[0]
    other = prompt(cfg=1.0).model_copy(update={"negative": "something else"})
    assert difference(base, sample(components, FAMILY, [other])[0]) == 0
    guided = prompt().model_copy(update={"negative": "something else"})
    assert difference(sample(components, FAMILY, [prompt()])[0], sample(components, FAMILY, [guided])[0]) > 0


def test_global_generators_and_gradients_are_left_alone(components: Components) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    sample(components, FAMILY, [prompt()])
    assert torch.equal(torch.get_rng_state(), before)
    assert all(weight.grad is None for weight in components.unet.parameters())


def test_the_adapter_is_drawn_with() -> None:
    components = tiny_sd1()
    plain = sample(components, FAMILY, [prompt()])[0]
    trained = build(Settings(rank=4, alpha=4.0), components, FAMILY)
    assert difference(plain, sample(components, FAMILY, [prompt()])[0]) == 0, "no effect at the start"
    with torch.no_grad():
        for weight in trained.parameters():
            weight.normal_(std=0.3)
    trained.train(False)
    assert difference(plain, sample(components, FAMILY, [prompt()])[0]) > 5
    with trained.off():
        assert difference(plain, sample(components, FAMILY, [prompt()])[0]) == 0


def test_drawing_can_be_left(components: Components) -> None:
    calls = []

    def look() -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyError

    with pytest.raises(KeyError):
        sample(components, FAMILY, [prompt()], look=look)


def test_numbers_beyond_white_and_black_are_cut_off() -> None:
    pixels = torch.tensor([[[-2.0, float("nan")]], [[0.0, 1.0]], [[2.0, -1.0]]])
    assert np.asarray(to_picture(pixels)).tolist() == [[[0, 128, 255], [128, 255, 0]]]


def test_parameters_survive_a_png() -> None:
    import io

    text = parameters_text(prompt("一只猫, red"), model="any, model", clip_skip=2)
    with Image.open(io.BytesIO(png_bytes(Image.new("RGB", (8, 8)), text))) as picture:
        assert picture.info["parameters"] == text
    assert text.endswith("Size: 64x64, Model: any  model, Clip skip: 2, RNG: CPU") and text.startswith("一只猫, red\nNeg")


@pytest.mark.parametrize(
    ("timing", "expected"),
    [
        (Timing([4, 8, 10], every_steps=3), [3, 6, 9]),
        (Timing([4, 8, 10], every_epochs=1), [4, 8, 10]),
        (Timing([4, 8, 10], every_epochs=2, at_start=True), [0, 8]),
        (Timing([4, 8, 10], at_end=True), [10]),
        (Timing([4, 8, 10]), []),
    ],
)
def test_when_previews_are_due(timing: Timing, expected: list[int]) -> None:
    assert [position for position in range(11) if timing.due(position)] == expected

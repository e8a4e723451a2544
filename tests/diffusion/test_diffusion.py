"""Noise by keys, the process against diffusers, weights against the papers, and the whole objective by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from trainer.diffusion.loss import min_snr_weight, squared_error
from trainer.diffusion.noise import generator, normal, sample_noise, seed_libraries
from trainer.diffusion.objective import Denoising
from trainer.diffusion.process import NUM_TIMESTEPS, Process
from trainer.diffusion.timesteps import uniform_timesteps
from trainer.models.protocol import Cond

KEYS = [(0, 3, 0), (0, 4, 0), (1, 3, 0), (0, 3, 1)]
SHAPE = (4, 8, 8)


def test_draws_follow_their_key_alone() -> None:
    together = sample_noise(7, KEYS, SHAPE, offset=0.1)
    torch.rand(5)
    for number, key in enumerate(KEYS):
        assert torch.equal(sample_noise(7, [key], SHAPE, offset=0.1)[0], together[number])
    assert len({tuple(noise.flatten()[:3].tolist()) for noise in together}) == len(KEYS)
    assert not torch.equal(sample_noise(8, KEYS, SHAPE), sample_noise(7, KEYS, SHAPE))


def test_purposes_do_not_share_numbers() -> None:
    first = [torch.rand((), generator=generator(1, purpose, 0)).item() for purpose in ("noise", "latents", "timestep")]
    assert len(set(first)) == 3
    assert generator(1, "a", 12, 3).initial_seed() != generator(1, "a", 1, 23).initial_seed()


def test_the_offset_is_one_number_for_each_sample_and_channel() -> None:
    difference = sample_noise(7, KEYS, SHAPE, offset=0.5) - sample_noise(7, KEYS, SHAPE)
    assert torch.allclose(difference, difference[:, :, :1, :1].expand_as(difference), atol=1e-6)
    keys = [(0, number, 0) for number in range(400)]
    many = sample_noise(7, keys, SHAPE, 0.5) - sample_noise(7, keys, SHAPE)
    assert many[:, :, 0, 0].std().item() == pytest.approx(0.5, rel=0.1)


def test_timesteps_are_uniform_over_all() -> None:
    drawn = uniform_timesteps(3, [(0, n, 0) for n in range(4000)], NUM_TIMESTEPS)
    counts = torch.histc(drawn.float(), bins=10, min=0, max=1000)
    assert drawn.min() >= 0 and drawn.max() < NUM_TIMESTEPS
    assert counts.min() > 330 and counts.max() < 470


def test_libraries_are_seeded_by_the_key() -> None:
    seed_libraries(1, 4, 0)
    first = torch.rand(3)
    seed_libraries(1, 4, 1)
    second = torch.rand(3)
    seed_libraries(1, 4, 0)
    assert torch.equal(torch.rand(3), first) and not torch.equal(first, second)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_process_is_diffusers(prediction: str) -> None:
    from diffusers import DDPMScheduler

    theirs = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction)
    ours, steps = Process(prediction), torch.tensor([0, 1, 500, 999])
    latents, noise = normal(1, "a", KEYS, SHAPE), normal(1, "b", KEYS, SHAPE)
    torch.testing.assert_close(ours.add_noise(latents, noise, steps), theirs.add_noise(latents, noise, steps))
    expected = noise if prediction == "epsilon" else theirs.get_velocity(latents, noise, steps)
    torch.testing.assert_close(ours.target(latents, noise, steps), expected)


def test_an_unknown_prediction_is_refused() -> None:
    with pytest.raises(ValueError, match="zork"):
        Process("zork")
    with pytest.raises(ValueError, match="pure noise"):
        Process("epsilon", zero_snr=True)


def test_zero_terminal_snr_is_diffusers() -> None:
    from diffusers import DDPMScheduler

    theirs = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
    )  # fmt: skip
    ours, steps = Process("v_prediction", zero_snr=True), torch.tensor([0, 1, 500, 998, 999])
    torch.testing.assert_close(ours.alphas_cumprod, theirs.alphas_cumprod, atol=1e-6, rtol=1e-4)
    assert ours.alphas_cumprod[-1] == 0 and ours.alphas_cumprod[0] == pytest.approx(1 - 0.00085)
    keys = [(0, number, 0) for number in range(5)]
    latents, noise = normal(1, "a", keys, SHAPE), normal(1, "b", keys, SHAPE)
    expected = theirs.add_noise(latents, noise, steps)
    torch.testing.assert_close(ours.add_noise(latents, noise, steps), expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(ours.add_noise(latents, noise, steps)[4], noise[4]), "nothing of the picture is left"
    assert torch.equal(ours.target(latents, noise, steps)[4], -latents[4])


def test_min_snr_is_finite_without_any_signal() -> None:
    process, steps = Process("v_prediction", zero_snr=True), torch.arange(NUM_TIMESTEPS)
    weights = min_snr_weight(process, steps, 5.0)
    assert weights.isfinite().all() and weights.min() == weights[-1] == 0 and weights.max() <= 1


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_min_snr_by_hand(prediction: str) -> None:
    process, steps = Process(prediction), torch.tensor([0, 250, 600, 999])
    snr = process.alphas_cumprod[steps] / (1 - process.alphas_cumprod[steps])
    divisor = snr if prediction == "epsilon" else snr + 1
    expected = torch.minimum(snr, torch.tensor(5.0)) / divisor
    torch.testing.assert_close(min_snr_weight(process, steps, 5.0), expected)
    assert torch.equal(min_snr_weight(process, steps, 0.0), torch.ones(4))


def test_the_error_is_float32_whatever_comes() -> None:
    one, other = torch.full((2, *SHAPE), 2.0, dtype=torch.float16), torch.zeros(2, *SHAPE)
    assert torch.equal(squared_error(one, other), torch.tensor([4.0, 4.0]))


@dataclass(frozen=True)
class FakeRef:
    key: tuple[int, ...]


@dataclass(frozen=True)
class FakeBatch:
    refs: Sequence[FakeRef]
    mean: Tensor
    std: Tensor
    weight: Tensor
    captions: Sequence[str] = ()
    cond: Cond | None = None

    def latents(self, eps: Tensor) -> Tensor:
        return self.mean + self.std * eps

    def under(self, text: Cond) -> Cond:
        return replace(text, sizes=torch.tensor([[float(sum(ref.key))] * 6 for ref in self.refs]))


def fake_batch(keys: Sequence[tuple[int, ...]], weights: Sequence[float]) -> FakeBatch:
    mean = normal(9, "mean", keys, SHAPE)
    captions = tuple(f"caption {key}" for key in keys)
    return FakeBatch([FakeRef(key) for key in keys], mean, mean.abs(), torch.tensor(weights), captions)


def encode(texts: Sequence[str]) -> Cond:
    return Cond(torch.tensor([[[float(len(text))]] for text in texts]))


def test_the_objective_by_hand() -> None:
    seen: dict[str, Tensor] = {}

    def predict(noisy: Tensor, timesteps: Tensor, cond: Cond) -> Tensor:
        seen.update(noisy=noisy, timesteps=timesteps, cond=cond.states)
        return noisy * 0.5

    batch, process = fake_batch(KEYS[:2], [1.0, 0.25]), Process()
    objective = Denoising(predict, encode, process, seed=7, noise_offset=0.05, min_snr_gamma=5.0)
    total = objective(batch)
    latents = batch.mean + batch.std * normal(7, "latents", KEYS[:2], SHAPE)
    noise = sample_noise(7, KEYS[:2], SHAPE, 0.05)
    steps = uniform_timesteps(7, KEYS[:2], NUM_TIMESTEPS)
    noisy = process.add_noise(latents, noise, steps)
    losses = (noisy * 0.5 - noise).square().mean((1, 2, 3))
    expected = (losses * torch.tensor([1.0, 0.25]) * min_snr_weight(process, steps, 5.0)).sum()
    torch.testing.assert_close(total, expected)
    assert torch.equal(seen["timesteps"], steps) and torch.equal(seen["cond"], encode(batch.captions).states)


def test_a_batch_is_the_sum_of_its_samples() -> None:
    objective = Denoising(lambda noisy, timesteps, cond: noisy.tanh(), encode, Process(), seed=7, min_snr_gamma=5.0)
    alone = sum(objective(fake_batch([key], [weight])) for key, weight in zip(KEYS, (1.0, 0.5, 2.0, 1.0), strict=True))
    torch.testing.assert_close(objective(fake_batch(KEYS, (1.0, 0.5, 2.0, 1.0))), alone)

"""Runs on a tiny model of every family: each learns, goes on bit for bit, draws, and writes what others read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.families import KINDS, save_kind, silenced
from tests.runs import PROMPT, AfterStep, Recorder, assert_equal, draw_pictures, go, tiny_run, weights
from tests.tiny import family_of
from trainer.config.run import RunFile
from trainer.errors import BadInput
from trainer.ipc import events
from trainer.ipc.events import Command
from trainer.models.header import inspect_file
from trainer.models.safetensors_file import read_header

LEARNING = ("sd1 inpainting", "sd2", "sd2 v", "sdxl")


def family(kind: str) -> Any:
    return family_of(KINDS[kind]["family"])


def two_texts(kind: str) -> bool:
    return len(family(kind).text_parts) == 2


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {kind: save_kind(folder, kind) for kind in KINDS}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pictures(tmp_path_factory.mktemp("pictures") / "img", [(64, 64), (96, 64), (64, 64)])


def run_of(model: Path, pictures: Path, rate: float = 1e-2, of_model: Any = (), **changes: Any) -> RunFile:
    changes = {"training": {"epochs": 2}, "network": {"rank": 8, "alpha": 8.0}} | changes
    rates = {"name": "AdamW", "learning_rate": rate, "text_encoder_rate": rate / 5}
    run = tiny_run(model, pictures, optimizer=rates, **changes)
    return run.model_copy(update={"model": run.model.model_copy(update=dict(of_model))})


@pytest.mark.parametrize("kind", KINDS)
def test_the_files_are_what_they_are(models: dict[str, Path], kind: str) -> None:
    facts, told = inspect_file(models[kind]), KINDS[kind]
    assert facts.problem is None and facts.family == told["family"]
    assert facts.prediction == told.get("prediction", "epsilon")
    assert bool(facts.zero_snr) == told.get("zero_snr", False)
    assert facts.in_channels == told.get("in_channels", 4)


@pytest.mark.parametrize("kind", LEARNING)
def test_it_learns(models: dict[str, Path], pictures: Path, tmp_path: Path, kind: str) -> None:
    """The loss falls against a control that goes through the same noise and learns nothing."""
    length = {"training": {"epochs": 12 if two_texts(kind) else 6}}
    _, learning = go(run_of(models[kind], pictures, 2e-2, **length), tmp_path / "learning")
    _, control = go(run_of(models[kind], pictures, 0.0, **length), tmp_path / "control")
    assert learning.losses[0] == pytest.approx(control.losses[0], rel=1e-5), "nothing is different at the start"
    late = len(control.losses) // 2
    fallen = mean(learning.losses[late:]) / mean(control.losses[late:])
    assert fallen < (0.95 if two_texts(kind) else 0.9), f"{fallen:.3f} of the control's loss"
    trained = weights(tmp_path / "learning")
    parts = {name.split("_")[1] for name in trained}
    assert parts == ({"unet", "te1", "te2"} if two_texts(kind) else {"unet", "te"})
    for part in parts:
        ups = [tensor for name, tensor in trained.items() if f"lora_{part}_" in name and "lora_up" in name]
        assert any(tensor.abs().max() > 0 for tensor in ups), part
    assert all(tensor.abs().max() == 0 for name, tensor in weights(tmp_path / "control").items() if "lora_up" in name)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize(
    ("kind", "train"),
    [("sd1 inpainting", "unet"), ("sd2", "both"), ("sd2 v zero", "unet"), ("sdxl", "both"), ("sdxl", "unet")],
)
def test_it_goes_on_bit_for_bit(models: dict[str, Path], pictures: Path, tmp_path: Path, kind: str, train: str) -> None:
    prompts = (PROMPT.model_copy(update={"prompt": "a [zork:cat:1] AND red:0.5"}),)
    samples = {"prompts": prompts, "every_steps": 2, "every_epochs": 0, "at_start": False, "at_end": True}
    run = run_of(models[kind], pictures, training={"epochs": 2}, network={"rank": 4, "train": train}, samples=samples,
                 images={"flip": True})  # fmt: skip
    _, whole = go(run, tmp_path / "whole")
    recorder = Recorder()
    stopped, _ = go(run, tmp_path / "parts", AfterStep(recorder, 3, Command("stop")), recorder)
    assert (stopped.outcome, stopped.step) == ("stopped", 3)
    done, rest = go(run, tmp_path / "parts")
    assert done.step == 6 and recorder.losses + rest.losses == whole.losses
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    drawn = {sample.file for sample in whole.of(events.Sample)}
    assert len(drawn) == 3 and all(
        (tmp_path / "whole" / file).read_bytes() == (tmp_path / "parts" / file).read_bytes() for file in drawn
    )
    assert not rest.of(events.Warning_)


@pytest.mark.parametrize(
    ("kind", "version", "architecture", "prediction"),
    [
        ("sd1 inpainting", "sd_v1", "stable-diffusion-v1", "epsilon"),
        ("sd2", "sd_v2", "stable-diffusion-v2-512", "epsilon"),
        ("sd2 v zero", "sd_v2_v", "stable-diffusion-v2-768-v", "v"),
        ("sdxl", "sdxl_base_v1-0", "stable-diffusion-xl-v1-base", "epsilon"),
        ("sdxl v zero", "sdxl_base_v1-0", "stable-diffusion-xl-v1-base", "v"),
    ],
)
def test_the_file_says_on_what_it_was_trained(
    models: dict[str, Path], pictures: Path, tmp_path: Path, kind: str, version: str, architecture: str, prediction: str
) -> None:
    run = run_of(models[kind], pictures, training={"steps": 1}, network={"train": "unet"})
    go(run, tmp_path)
    said = read_header(tmp_path / "checkpoints" / "tiny.safetensors").metadata
    assert said["ss_base_model_version"] == version and said["ss_v2"] == str(version.startswith("sd_v2"))
    assert said["modelspec.architecture"] == f"{architecture}/lora"
    assert said["modelspec.prediction_type"] == prediction
    assert said["ss_zero_terminal_snr"] == str("zero" in kind)
    implementation = "https://github.com/Stability-AI/generative-models" if "sdxl" in kind else "diffusers"
    assert said["modelspec.implementation"] == implementation
    facts = inspect_file(tmp_path / "checkpoints" / "tiny.safetensors")
    assert (facts.kind, facts.family) == ("lora", KINDS[kind]["family"])


def test_each_text_encoder_has_its_rate(models: dict[str, Path], pictures: Path, tmp_path: Path) -> None:
    rates = {"name": "AdamW", "learning_rate": 4e-3, "text_encoder_rate": 0.0, "text_encoder_2_rate": 2e-3}
    run = tiny_run(models["sdxl"], pictures, optimizer=rates, training={"steps": 2})
    go(run, tmp_path)
    ups = [(name, tensor.abs().max() > 0) for name, tensor in weights(tmp_path).items() if "lora_up" in name]
    moved = {part: any(grew for name, grew in ups if f"lora_{part}_" in name) for part in ("unet", "te1", "te2")}
    assert moved == {"unet": True, "te1": False, "te2": True}
    said = read_header(tmp_path / "checkpoints" / "tiny.safetensors").metadata
    assert said["ss_text_encoder_lr"] == "[0.0, 0.002]" and said["ss_unet_lr"] == "0.004"


# --- what it predicts ---


def test_the_user_decides_against_the_file(models: dict[str, Path], pictures: Path, tmp_path: Path) -> None:
    steps = {"training": {"steps": 1}, "network": {"train": "unet"}}
    _, as_said = go(run_of(models["sd2 v"], pictures, **steps), tmp_path / "v")
    run = run_of(models["sd2 v"], pictures, of_model={"prediction": "epsilon"}, **steps)
    _, as_wished = go(run, tmp_path / "epsilon")
    assert as_said.losses != as_wished.losses
    said = read_header(tmp_path / "epsilon" / "checkpoints" / "tiny.safetensors").metadata
    assert said["modelspec.prediction_type"] == "epsilon"


def test_zero_snr_can_be_switched_and_is_refused_for_epsilon(
    models: dict[str, Path], pictures: Path, tmp_path: Path
) -> None:
    steps = {"training": {"steps": 1}, "network": {"train": "unet"}}
    on = {"zero_terminal_snr": "on"}
    _, plain = go(run_of(models["sd2 v"], pictures, **steps), tmp_path / "plain")
    _, zero = go(run_of(models["sd2 v"], pictures, of_model=on, **steps), tmp_path / "zero")
    assert plain.losses != zero.losses
    with pytest.raises(BadInput, match="pure noise"):
        go(run_of(models["sd2"], pictures, of_model=on, **steps), tmp_path / "refused")


def test_a_silent_file_is_tested_and_the_guess_is_said(pictures: Path, tmp_path: Path) -> None:
    """Random weights fit neither, so the family's usual prediction is taken, and the user told."""
    path = silenced(save_kind(tmp_path, "sd2 v"))
    assert inspect_file(path).prediction_source is None
    run = run_of(path, pictures, training={"steps": 1}, network={"train": "unet"})
    _, recorder = go(run, tmp_path / "run")
    (warning,) = recorder.of(events.Warning_)
    assert "does not say what it predicts" in str(warning.what) and "neither" in str(warning.what)
    assert warning.todo is not None
    said = read_header(tmp_path / "run" / "checkpoints" / "tiny.safetensors").metadata
    assert said["modelspec.prediction_type"] == "epsilon"
    json.dumps(warning.what.to_json())


# --- what is in memory ---


@pytest.mark.parametrize("kind", ["sd2", "sdxl", "sd1 inpainting"])
def test_only_what_a_run_needs_is_loaded(
    models: dict[str, Path], pictures: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a cold cache the VAE comes first, then the text encoders, then the UNet: never two of them at once."""
    import gc
    import weakref

    from trainer.models.stable_diffusion import StableDiffusion

    loaded: list[tuple[set[str], set[str]]] = []
    alive: list[tuple[str, weakref.ref[Any]]] = []
    load = StableDiffusion.load

    def spied(self: Any, source: Path, vae: Path | None, parts: Any, *rest: Any, **options: Any) -> Any:
        gc.collect()
        here = {part for part, module in alive if module() is not None}
        loaded.append((set(parts), here))
        components = load(self, source, vae, parts, *rest, **options)
        alive.extend((part, weakref.ref(module)) for part, module in components.modules().items())
        return components

    monkeypatch.setattr(StableDiffusion, "load", spied)
    samples = {"prompts": (PROMPT,), "at_end": True}
    go(run_of(models[kind], pictures, training={"steps": 1}, network={"train": "unet"}, samples=samples), tmp_path)
    texts = set(family(kind).text_parts)
    assert loaded == [({"vae"}, set()), (texts, set()), ({"unet"}, set()), ({"vae"}, {"unet"})]


def test_only_half_of_the_vae_stays(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer.base_model import BaseModel, Sources
    from trainer.data.memo import Memo

    path = models["sdxl"]
    model = BaseModel(family("sdxl"), Sources(path), torch.device("cpu"), clip_skip=1, memo=Memo())
    encoder, decoder, whole = model.load_vae("encoder"), model.load_vae("decoder"), model.load_vae()
    pixels, latents = torch.rand(1, 3, 32, 32), torch.rand(1, 4, 4, 4)
    numbers = [sum(weight.numel() for weight in vae.parameters()) for vae in (encoder, decoder, whole)]
    assert numbers[0] + numbers[1] == numbers[2] and min(numbers) > 0.3 * numbers[2]
    assert torch.equal(model.family.encode_pictures(encoder, pixels)[0], model.family.encode_pictures(whole, pixels)[0])
    assert torch.equal(model.family.decode(decoder, latents), model.family.decode(whole, latents))


def test_a_vae_is_in_half_precision_only_where_it_says_that_it_may(models: dict[str, Path], tmp_path: Path) -> None:
    from trainer.base_model import BaseModel, Sources
    from trainer.data.memo import Memo

    path = save_kind(tmp_path, "sdxl")
    model = BaseModel(family("sdxl"), Sources(path), torch.device("cpu"), clip_skip=1, memo=Memo())
    assert model.load_vae("decoder", torch.float16).dtype == torch.float32
    beside = path.with_suffix(".json")
    told = json.loads(beside.read_text(encoding="utf-8"))
    told["vae"]["force_upcast"] = False
    beside.write_text(json.dumps(told), encoding="utf-8")
    assert model.load_vae("decoder", torch.float16).dtype == torch.float16
    assert model.load_vae("decoder").dtype == torch.float32


# --- inpainting ---


def test_previews_of_an_inpainting_model_paint_everything(models: dict[str, Path]) -> None:
    """As diffusers' inpainting pipeline with a mask over all of a picture."""
    from diffusers import StableDiffusionInpaintPipeline
    from PIL import Image, ImageChops

    from trainer.config.run import Prompt
    from trainer.sampling import make_scheduler, sample

    chosen = family("sd1 inpainting")
    parts = chosen.load(models["sd1 inpainting"])
    parts.unet.register_to_config(sample_size=64)  # the pipeline asks for it
    pipe = StableDiffusionInpaintPipeline(
        vae=parts.vae, text_encoder=parts.text_encoder, tokenizer=parts.tokenizer, unet=parts.unet,
        scheduler=make_scheduler("ddim"), safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    request = Prompt(prompt="a cat", negative="ugly", width=64, height=64, steps=4, cfg=4.0, seed=3, sampler="ddim")
    (mine,) = sample(parts, chosen, [request])
    start = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    hidden, _ = chosen.encode_pictures(parts.vae, torch.zeros(1, 3, 64, 64))
    theirs = pipe(
        "a cat", Image.new("RGB", (64, 64), (9, 200, 9)), Image.new("L", (64, 64), 255), masked_image_latents=hidden,
        height=64, width=64, num_inference_steps=4, guidance_scale=4.0, negative_prompt="ugly", latents=start,
    ).images[0]  # fmt: skip
    assert max(high for _, high in ImageChops.difference(mine, theirs).getextrema()) <= 2


@pytest.mark.parametrize("kind", ["sd2 v zero", "sdxl", "sd1 inpainting"])
def test_half_precision_stays_close(models: dict[str, Path], pictures: Path, tmp_path: Path, kind: str) -> None:
    """bf16 on a CPU: masks, sizes and pooled text pass, and the losses are those of fp32 to its few digits."""
    samples = {"prompts": (PROMPT,), "at_end": True}
    changes: dict[str, Any] = {"training": {"steps": 2}, "network": {"rank": 4, "train": "both"}, "samples": samples}
    _, exact = go(run_of(models[kind], pictures, **changes), tmp_path / "fp32")
    half = {"speed": {"precision": "bf16", "device": "cpu"}}
    _, short = go(run_of(models[kind], pictures, **changes, **half), tmp_path / "bf16")
    assert short.losses == pytest.approx(exact.losses, rel=0.1) and short.losses != exact.losses
    assert len(short.of(events.Sample)) == 1 and not short.of(events.Warning_)

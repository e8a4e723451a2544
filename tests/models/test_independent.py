"""Every family against other people's code: diffusers' reader of single files and of folders, LyCORIS's merging.

Names and numbers must agree, with nothing missing and nothing left over on either side. OpenCLIP's text encoders are in
test_open_clip.py.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageChops

from tests.methods.test_lora_families import CONVOLUTIONS, predict, trained
from tests.tiny import FAMILIES, family_of, pipeline_of, save_tiny_file, save_tiny_folder, tiny_model
from trainer.config.run import Prompt
from trainer.models.protocol import Components
from trainer.models.tensor_file import read_file
from trainer.sampling import make_scheduler, sample

V_PREDICTION = {"prediction": "v_prediction"}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# --- diffusers' reader of single files ---


@pytest.mark.parametrize("facts", [{}, {"in_channels": 9}, {"prediction": "v_prediction"}], ids=["plain", "inpainting", "v"])
def test_diffusers_reads_our_file_as_we_do(family: str, facts: dict[str, Any], tmp_path: Path) -> None:
    """Offline, with a local config: the same tensors under the same names in every part, none missing, none left over."""
    path = save_tiny_file(tmp_path, family=family, **facts)
    config = save_tiny_folder(tmp_path / "config", family=family, **facts)
    ours = family_of(family).load(path)
    options = {} if family == "sdxl" else {"safety_checker": None}
    theirs = type(pipeline_of(family, ours)).from_single_file(
        str(path), config=str(config), local_files_only=True, **options
    )
    table = {part: compare(module, getattr(theirs, part)) for part, module in ours.modules().items()}
    assert table == {part: {"missing": [], "left over": [], "different": []} for part in ours.modules()}


def compare(ours: torch.nn.Module, theirs: torch.nn.Module) -> dict[str, list[str]]:
    one, two = ours.state_dict(), theirs.state_dict()
    return {
        "missing": sorted(two.keys() - one.keys()),
        "left over": sorted(one.keys() - two.keys()),
        "different": sorted(
            name for name in one.keys() & two.keys() if not torch.equal(one[name], two[name].reshape(one[name].shape))
        ),
    }


def test_diffusers_reads_our_folder_and_computes_the_same(family: str, tmp_path: Path) -> None:
    """`from_pretrained` says nothing, takes every tensor, and its text states are ours."""
    import diffusers

    model = tiny_model(family)
    family_of(family).save_folder(model, tmp_path / "folder")
    pipe = getattr(diffusers, family_of(family).pipeline).from_pretrained(tmp_path / "folder", local_files_only=True)
    for part, module in model.modules().items():
        assert compare(module, getattr(pipe, part)) == {"missing": [], "left over": [], "different": []}, part
    texts = ["a photo of a red cat, sitting", ""]
    mine = family_of(family).encode_text(model, texts)
    for number, text in enumerate(texts):
        theirs = pipe.encode_prompt(text, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)
        torch.testing.assert_close(mine.states[number], theirs[0][0], atol=1e-5, rtol=1e-4)
        if mine.pooled is not None:
            torch.testing.assert_close(mine.pooled[number], theirs[2][0], atol=1e-5, rtol=1e-4)


# --- our LoRA elsewhere ---


@pytest.mark.parametrize(
    ("family", "facts"),
    [("sd1", {}), ("sd2", {}), ("sd2", V_PREDICTION), ("sdxl", {}), ("sdxl", V_PREDICTION)],
)
def test_our_lora_in_diffusers_draws_our_preview(family: str, facts: dict[str, Any], tmp_path: Path) -> None:
    """Every key is taken, and the same prompt, start and scheduler give the same picture, to rounding."""
    from peft.utils import get_peft_model_state_dict

    model = tiny_model(family, **facts)
    lora = trained(family, model)
    lora.export(tmp_path / "ours.safetensors", {}, torch.float32)
    prompt = Prompt(prompt="a red cat on a chair", negative="ugly", width=64, height=128, steps=4, cfg=5.0, seed=11,
                    sampler="ddim")  # fmt: skip
    (mine,) = sample(model, family_of(family), [prompt])
    lora.remove()
    pipe = pipeline_of(family, replace(tiny_model(family, **facts), vae=model.vae))
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(tmp_path, weight_name="ours.safetensors", adapter_name="ours")
    parts = ("unet", *family_of(family).text_parts)
    taken = [name for part in parts for name in get_peft_model_state_dict(getattr(pipe, part), adapter_name="ours")]
    assert len(taken) == 2 * len(lora.network.layers)
    pipe.scheduler = make_scheduler("ddim", model.prediction)
    generator = torch.Generator().manual_seed(prompt.seed)
    start = torch.randn(1, 4, 16, 8, generator=generator)
    pictures = []
    for scale in (1.0, 0.0):
        pipe.set_adapters("ours", scale)
        pictures += pipe(
            prompt.prompt, negative_prompt=prompt.negative, width=64, height=128, num_inference_steps=prompt.steps,
            guidance_scale=prompt.cfg, latents=start.clone(), generator=generator.clone_state(),
        ).images  # fmt: skip
    assert greatest_difference(mine, pictures[0]) <= 2
    assert greatest_difference(mine, pictures[1]) > 5, "the LoRA must matter for this test to mean anything"


def greatest_difference(one: Image.Image, other: Image.Image) -> int:
    assert one.size == other.size
    return max(int(extremes[1]) for extremes in ImageChops.difference(one, other).getextrema())  # type: ignore[index]


@pytest.mark.parametrize("family", ["sd1", "sd2"])
def test_lycoris_merges_our_lora_to_the_same(family: str, tmp_path: Path) -> None:
    """With convolutions, into the UNet; SDXL's names belong to kohya's own UNet, which LyCORIS does not have."""
    wrapper = pytest.importorskip("lycoris.wrapper")
    model = tiny_model(family)
    lora = trained(family, model, train="unet", **CONVOLUTIONS)
    lora.export(tmp_path / "ours.safetensors", {}, torch.float32)
    wanted = predict(family, model)
    lora.remove()
    fresh: Components = tiny_model(family)
    before = predict(family, fresh)
    tensors = read_file(tmp_path / "ours.safetensors")
    weights = {name.replace("lora_unet_", "lycoris_"): value for name, value in tensors.items()}
    network, _ = wrapper.create_lycoris_from_weights(1.0, "ours.safetensors", fresh.unet, weights)
    assert len(network.loras) == len(lora.network.layers)
    network.merge_to(1.0)
    assert (wanted - before).abs().max() > 0.01
    torch.testing.assert_close(predict(family, fresh), wanted, atol=1e-4, rtol=1e-3)

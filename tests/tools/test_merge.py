"""Merging checkpoints: the numbers of every mode, blocks, what is taken from A, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.tools.material import UNET, base_file, changed, lora_file, unet_output, use
from trainer.errors import BadInput
from trainer.models.configs import config_beside
from trainer.models.safetensors_file import read_header
from trainer.models.tensor_file import read_file
from trainer.tools.blocks import block_names, block_of, read_amounts

VAE = "first_stage_model."


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    return [base_file(folder, name, seed) for seed, name in enumerate(("a", "b", "c"))]


def test_a_weighted_sum_of_two(models: list[Path], tmp_path: Path) -> None:
    a, b, _ = map(read_file, models)
    result = use(
        "merge", model_a=models[0], model_b=models[1], output=tmp_path / "m.safetensors", amount=0.25, precision="fp32"
    )
    merged = read_file(tmp_path / "m.safetensors")
    assert set(merged) == set(a)
    for name in merged:
        expected = (
            a[name] if name.startswith(VAE) or not a[name].is_floating_point() else 0.75 * a[name] + 0.25 * b[name]
        )
        torch.testing.assert_close(merged[name], expected, rtol=1e-6, atol=1e-7)
    assert result.facts["merged"] == sum(not name.startswith(VAE) and a[name].is_floating_point() for name in a)


def test_a_weighted_sum_of_three(models: list[Path], tmp_path: Path) -> None:
    a, b, c = map(read_file, models)
    use("merge", model_a=models[0], model_b=models[1], model_c=models[2], output=tmp_path / "m.safetensors", amount=0.5,
        amount_c=0.2, vae_from="merge", precision="fp32")  # fmt: skip
    for name, tensor in read_file(tmp_path / "m.safetensors").items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, 0.3 * a[name] + 0.5 * b[name] + 0.2 * c[name], rtol=1e-5, atol=1e-6)


def test_an_added_difference(models: list[Path], tmp_path: Path) -> None:
    a, b, c = map(read_file, models)
    use("merge", model_a=models[0], model_b=models[1], model_c=models[2], output=tmp_path / "m.safetensors",
        mode="difference", amount=0.7, precision="fp32")  # fmt: skip
    name = f"{UNET}out.2.weight"
    torch.testing.assert_close(read_file(tmp_path / "m.safetensors")[name], a[name] + 0.7 * (b[name] - c[name]))


def test_adding_a_model_to_itself_changes_nothing(models: list[Path], tmp_path: Path) -> None:
    use("merge", model_a=models[0], model_b=models[0], output=tmp_path / "m.safetensors", amount=0.3, precision="fp32")
    assert torch.allclose(unet_output(tmp_path / "m.safetensors"), unet_output(models[0]), atol=1e-5)


def test_amounts_by_block(models: list[Path], tmp_path: Path) -> None:
    a, b, _ = map(read_file, models)
    names = block_names({name: tuple(tensor.shape) for name, tensor in a.items()})
    assert names == ["IN00", "IN01", "IN02", "IN03", "M00", "OUT00", "OUT01", "OUT02", "OUT03"]
    numbers = [0.1 * number for number in range(len(names) + 1)]
    use("merge", model_a=models[0], model_b=models[1], output=tmp_path / "m.safetensors", precision="fp32",
        blocks=",".join(map(str, numbers)))  # fmt: skip
    amounts = dict(zip(["BASE", *names], numbers, strict=True))
    for name, tensor in read_file(tmp_path / "m.safetensors").items():
        if not name.startswith(VAE) and tensor.is_floating_point():
            amount = amounts[block_of(name, names)]
            torch.testing.assert_close(tensor, (1 - amount) * a[name] + amount * b[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "block"),
    [("model.diffusion_model.time_embed.0.weight", "IN00"), ("model.diffusion_model.out.2.bias", "OUT11"),
     ("model.diffusion_model.label_emb.0.0.weight", "IN00"), ("model.diffusion_model.input_blocks.7.1.norm.bias", "IN07"),
     ("model.diffusion_model.middle_block.2.x", "M00"), ("model.diffusion_model.output_blocks.11.0.x", "OUT11"),
     ("cond_stage_model.x", "BASE"), ("first_stage_model.x", "BASE")],
)  # fmt: skip
def test_where_a_tensor_belongs(name: str, block: str) -> None:
    names = [*(f"IN{n:02}" for n in range(12)), "M00", *(f"OUT{n:02}" for n in range(12))]
    assert block_of(name, names) == block


@pytest.mark.parametrize("count", [25, 26, 19, 20])
def test_the_usual_lists_of_blocks(count: int) -> None:
    """25 or 26 numbers for SD 1 and 2, 19 or 20 for SDXL; the longer ones begin with BASE."""
    side = 12 if count > 20 else 9
    names = [*(f"IN{n:02}" for n in range(side)), "M00", *(f"OUT{n:02}" for n in range(side))]
    amounts = read_amounts(", ".join(str(n / 100) for n in range(count)), 0.5, names)
    assert amounts["BASE"] == (0.0 if count % 2 == 0 else 0.5) and amounts[names[-1]] == (count - 1) / 100


def test_blocks_by_name() -> None:
    for text in ("IN01=0.5; out00:1 BASE=0 M00=0.7", "base=0,in1=0.5,mid=0.7,out0=1"):
        amounts = read_amounts(text, 0.2, ["IN00", "IN01", "M00", "OUT00"])
        assert amounts == {"BASE": 0.0, "IN00": 0.2, "IN01": 0.5, "M00": 0.7, "OUT00": 1.0}


@pytest.mark.parametrize("text", ["0.5,0.5", "IN12=0.5", "IN00=x", "IN00=nan", "IN00=100", "a,b,c,d"])
def test_wrong_blocks_are_refused(text: str) -> None:
    with pytest.raises(BadInput):
        read_amounts(text, 0.5, ["IN00", "IN01", "M00", "OUT00"])


def test_an_inpainting_model_takes_what_others_learnt(models: list[Path], tmp_path: Path) -> None:
    """A has 9 input channels: the difference of the others goes to the first 4, the rest stays as it was."""
    name = f"{UNET}input_blocks.0.0.weight"
    wide = changed(models[0], tmp_path / "inpaint.safetensors", lambda tensors: tensors.update(
        {name: torch.cat([tensors[name], torch.ones(tensors[name].shape[0], 5, 3, 3)], 1)}))  # fmt: skip
    use("merge", model_a=wide, model_b=models[1], model_c=models[2], output=tmp_path / "m.safetensors", mode="difference",
        amount=1.0, precision="fp32")  # fmt: skip
    merged, (a, b, c) = read_file(tmp_path / "m.safetensors")[name], map(read_file, models)
    torch.testing.assert_close(merged[:, :4], a[name] + b[name] - c[name], rtol=1e-5, atol=1e-6)
    assert torch.equal(merged[:, 4:], torch.ones_like(merged[:, 4:]))
    with pytest.raises(BadInput, match="An inpainting model can be merged with others only as Model A"):
        use("merge", model_a=models[0], model_b=wide, output=tmp_path / "n.safetensors")
    for more in ({"model_b": wide, "model_c": models[1]}, {"model_b": models[1], "model_c": wide}):
        use("merge", model_a=wide, output=tmp_path / "m.safetensors", amount=0.4, amount_c=0.1, overwrite=True,
            precision="fp32", **more)  # fmt: skip
        merged = read_file(tmp_path / "m.safetensors")[name]
        share = 0.4 if more["model_b"] == models[1] else 0.1
        torch.testing.assert_close(merged[:, :4], (1 - share) * a[name] + share * b[name], rtol=1e-5, atol=1e-6)
        assert torch.equal(merged[:, 4:], torch.ones_like(merged[:, 4:]))


def test_metadata_says_how_it_was_made(models: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "my merge.safetensors"
    use("merge", model_a=models[0], model_b=models[1], output=output)
    metadata = read_header(output).metadata
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1"
    assert metadata["modelspec.title"] == "my merge" and metadata["modelspec.merged_from"] == "a, b"
    recipe = json.loads(metadata["athanor_recipe"])
    assert recipe["inputs"] == {"Model A": "a.safetensors", "Model B": "b.safetensors"} and recipe["amount"] == 0.5
    assert str(tmp_path) not in json.dumps(metadata), "no folder of the user's is told"
    assert metadata["modelspec.hash_sha256"] == "0x" + hash_of_data(output)
    assert config_beside(output)["vae"] == config_beside(models[0])["vae"], "a reader needs the tiny model's config"


def hash_of_data(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()[read_header(path).data_start :]).hexdigest()


def test_missing_and_unused_weights_are_counted(models: list[Path], tmp_path: Path) -> None:
    def without_text(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if name.startswith("cond_stage_model.")]:
            del tensors[name]
        tensors[f"{UNET}extra.weight"] = torch.ones(2)

    partial = changed(models[1], tmp_path / "partial.safetensors", without_text)
    result = use("merge", model_a=models[0], model_b=partial, output=tmp_path / "m.safetensors", precision="keep")
    notes = [str(note) for note in result.notes]
    assert any("not in Model B and were taken from Model A" in note for note in notes)
    assert any("1 weights of Model B have no place" in note and "extra.weight" in note for note in notes)
    text = next(name for name in read_file(models[0]) if name.startswith("cond_stage_model."))
    assert torch.equal(read_file(tmp_path / "m.safetensors")[text], read_file(models[0])[text])


def test_schedules_and_markers_are_taken_from_the_first_in_their_precision(models: list[Path], tmp_path: Path) -> None:
    marked = changed(models[0], tmp_path / "marked.safetensors", lambda tensors: tensors.update(
        {"alphas_cumprod": torch.rand(1000), "model_ema.decay": torch.tensor(0.9999)}))  # fmt: skip
    result = use("merge", model_a=marked, model_b=models[1], output=tmp_path / "m.safetensors", precision="fp16")
    assert [str(note) for note in result.notes] == ["1 averaged weights (EMA) were left out."]
    merged = read_file(tmp_path / "m.safetensors")
    assert merged["alphas_cumprod"].dtype == torch.float32 and "model_ema.decay" not in merged
    assert merged[f"{UNET}out.2.weight"].dtype == torch.float16


def test_what_cannot_be_merged_is_refused(models: list[Path], tmp_path: Path) -> None:
    lora = lora_file(tmp_path / "lora.safetensors", models[0])
    other = changed(models[1], tmp_path / "v.safetensors", lambda tensors: None, **{"modelspec.prediction_type": "v"})
    small = changed(models[1], tmp_path / "small.safetensors", lambda tensors: tensors.update(
        {f"{UNET}time_embed.0.weight": torch.ones(3, 3)}))  # fmt: skip
    output = tmp_path / "m.safetensors"
    cases = [
        ({"model_b": lora}, "Model B: a base model is needed"),
        ({"model_b": tmp_path / "none.safetensors"}, "There is no file"),
        ({"model_b": other}, "predict different things"),
        ({"model_b": small}, "1 tensors of Model B have other sizes"),
        ({"mode": "difference"}, "three models are needed"),
        ({"amount_c": 0.5}, "no model C"),
        ({"output": models[0]}, "The output is what is read"),
        ({"output": models[2]}, "There is a file or folder of this name"),
        ({"output": tmp_path / "m.pt"}, "should end in .safetensors / .ckpt"),
    ]
    for more, sentence in cases:
        settings = {"model_a": models[0], "model_b": models[1], "output": output, **more}
        with pytest.raises(BadInput) as refused:
            use("merge", **settings)
        assert sentence in str(refused.value)
    assert not output.exists()


def test_too_large_values_are_not_written_as_infinite(models: list[Path], tmp_path: Path) -> None:
    from trainer.errors import RunFailed

    large = changed(models[0], tmp_path / "large.safetensors", lambda tensors: tensors[f"{UNET}out.2.bias"].fill_(1e6))
    with pytest.raises(RunFailed, match="too large for fp16"):
        use("merge", model_a=large, model_b=models[1], output=tmp_path / "m.safetensors", precision="fp16")
    assert not (tmp_path / "m.safetensors").exists() and not list(tmp_path.glob(".*"))

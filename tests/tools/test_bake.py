"""LoRAs merged into a model: the same prediction as base + LoRA, every method's formula, and what does not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.tools.material import Tensors, base_file, change_of, layers_of, lora_file, network, save, unet_output, use
from trainer.errors import BadInput
from trainer.models.safetensors_file import read_header
from trainer.models.tensor_file import read_file
from trainer.tools.catalog import LoraEntry

UNET = "model.diffusion_model."
QUERY = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
QUERY_WEIGHT = f"{UNET}input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
CONV = "lora_unet_down_blocks_0_resnets_0_conv1"
CONV_WEIGHT = f"{UNET}input_blocks.1.0.in_layers.2.weight"
TEXT = "lora_te_text_model_encoder_layers_0_mlp_fc1"
TEXT_WEIGHT = "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base_file(tmp_path_factory.mktemp("base"))


def entry(path: Path, weight: float = 1.0, **parts: float) -> LoraEntry:
    return LoraEntry(path=str(path), weight=weight, **parts)


def test_a_baked_model_predicts_what_base_and_lora_do(base: Path, tmp_path: Path) -> None:
    lora, baked = lora_file(tmp_path / "lora.safetensors", base), tmp_path / "baked.safetensors"
    use("bake", model=base, loras=(entry(lora, 0.8),), output=baked)
    components, made = network(base)
    made.set_multiplier(0.8)
    expected = unet_output(components)
    made.set_multiplier(0.0)
    without = unet_output(components)
    assert (expected - without).abs().max() > 0.05, "the LoRA does something"
    torch.testing.assert_close(unet_output(baked), expected, rtol=1e-4, atol=1e-4)


def test_several_loras_add_up_with_own_weights_for_each_part(base: Path, tmp_path: Path) -> None:
    first = lora_file(tmp_path / "first.safetensors", base, seed=1)
    second = lora_file(tmp_path / "second.safetensors", base, rank=2, alpha=0.5, seed=2)
    baked = tmp_path / "baked.safetensors"
    use("bake", model=base, loras=(entry(first, 0.5, text_encoder=0.0), entry(second, -1.0, unet=2.0)), output=baked)
    before, after = read_file(base), read_file(baked)
    one, two = read_file(first), read_file(second)
    change = 0.5 * change_of(one, QUERY) + 2.0 * change_of(two, QUERY)
    torch.testing.assert_close(after[QUERY_WEIGHT], before[QUERY_WEIGHT] + change.float(), rtol=1e-5, atol=1e-6)
    text = before[TEXT_WEIGHT] - change_of(two, TEXT).float()
    torch.testing.assert_close(after[TEXT_WEIGHT], text, rtol=1e-5, atol=1e-6)
    untouched = [name for name in before if name.startswith("first_stage_model.") or ".norm" in name]
    assert untouched and all(torch.equal(before[name], after[name]) for name in untouched)


def test_a_weight_of_zero_is_the_base_byte_for_byte(base: Path, tmp_path: Path) -> None:
    lora, baked = lora_file(tmp_path / "lora.safetensors", base), tmp_path / "baked.safetensors"
    use("bake", model=base, loras=(entry(lora, 0.0),), output=baked)
    data = [path.read_bytes()[read_header(path).data_start :] for path in (base, baked)]
    assert data[0] == data[1]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.3


def hadamard(base: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    a, b, c, d = random(32, 2, seed=1), random(2, 32, seed=2), random(32, 2, seed=3), random(2, 32, seed=4)
    tensors = {"hada_w1_a": a, "hada_w1_b": b, "hada_w2_a": c, "hada_w2_b": d, "alpha": torch.tensor(1.0)}
    return tensors, (a @ b) * (c @ d) * 0.5


def kronecker(base: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    one, a, b = random(4, 4, seed=1), random(8, 2, seed=2), random(2, 8, seed=3)
    tensors = {"lokr_w1": one, "lokr_w2_a": a, "lokr_w2_b": b, "alpha": torch.tensor(1.0)}
    return tensors, torch.kron(one, a @ b) * 0.5


def full_kronecker(base: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    one, two = random(4, 8, seed=1), random(8, 4, seed=2)
    return {"lokr_w1": one, "lokr_w2": two, "alpha": torch.tensor(7.0)}, torch.kron(one, two)


def full(base: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    change = random(32, 32)
    return {"diff": change}, change


def without_alpha(base: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    up, down = random(32, 3, seed=1), random(3, 32, seed=2)
    return {"lora_up.weight": up, "lora_down.weight": down}, up @ down


def decomposed(base: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    """DoRA by hand: each column of base + change gets the length that the file says."""
    up, down, lengths = random(32, 3, seed=1), random(3, 32, seed=2), random(1, 32, seed=3).abs() + 0.5
    tensors = {"lora_up.weight": up, "lora_down.weight": down, "alpha": torch.tensor(3.0), "dora_scale": lengths}
    merged = base + up @ down
    columns = torch.stack([lengths[0, i] * merged[:, i] / merged[:, i].norm() for i in range(32)], 1)
    return tensors, columns - base


def decomposed_by_rows(base: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    """DoRA as PEFT writes it: a length for each output."""
    up, down, lengths = random(32, 3, seed=1), random(3, 32, seed=2), random(32, seed=3).abs() + 0.5
    tensors = {"lora_B.weight": up, "lora_A.weight": down, "lora_magnitude_vector": lengths}
    merged = base + up @ down
    return tensors, torch.stack([lengths[i] * merged[i] / merged[i].norm() for i in range(32)]) - base


METHODS = [decomposed_by_rows, hadamard, kronecker, full_kronecker, full, without_alpha, decomposed]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
def test_every_method(
    method: Callable[[torch.Tensor], tuple[Tensors, torch.Tensor]], base: Path, tmp_path: Path
) -> None:
    before = read_file(base)[QUERY_WEIGHT]
    assert before.shape == (32, 32)
    tensors, change = method(before)
    lora = save(tmp_path / "lora.safetensors", {f"{QUERY}.{end}": tensor for end, tensor in tensors.items()})
    use("bake", model=base, loras=(entry(lora, 0.5),), output=tmp_path / "baked.safetensors")
    after = read_file(tmp_path / "baked.safetensors")[QUERY_WEIGHT]
    torch.testing.assert_close(after, before + 0.5 * change, rtol=1e-5, atol=1e-6)


def test_convolutions_and_tucker_cores(base: Path, tmp_path: Path) -> None:
    before = read_file(base)[CONV_WEIGHT]
    assert before.shape == (32, 32, 3, 3)
    up, middle, down = random(32, 3, 1, 1, seed=1), random(3, 3, 3, 3, seed=2), random(3, 32, 1, 1, seed=3)
    tensors = {f"{CONV}.lora_up.weight": up, f"{CONV}.lora_mid.weight": middle, f"{CONV}.lora_down.weight": down}
    use(
        "bake",
        model=base,
        loras=(entry(save(tmp_path / "t.safetensors", tensors)),),
        output=tmp_path / "one.safetensors",
    )
    x = random(1, 32, 8, 8, seed=4)
    path = torch.nn.functional.conv2d(
        torch.nn.functional.conv2d(torch.nn.functional.conv2d(x, down), middle, padding=1), up
    )
    after = read_file(tmp_path / "one.safetensors")[CONV_WEIGHT]
    seen = torch.nn.functional.conv2d(x, after - before, padding=1)
    torch.testing.assert_close(seen, path, rtol=1e-3, atol=1e-4)


def test_norms_and_biases(base: Path, tmp_path: Path) -> None:
    name, weight = "lora_unet_down_blocks_0_resnets_0_norm1", f"{UNET}input_blocks.1.0.in_layers.0"
    change = {f"{name}.w_norm": random(32), f"{name}.b_norm": random(32, seed=1), f"{CONV}.diff": random(32, 32, 3, 3),
              f"{CONV}.diff_b": random(32, seed=2)}  # fmt: skip
    lora = save(tmp_path / "lora.safetensors", change)
    use("bake", model=base, loras=(entry(lora, 2.0),), output=tmp_path / "baked.safetensors")
    before, after = read_file(base), read_file(tmp_path / "baked.safetensors")
    pairs = [(f"{weight}.weight", f"{name}.w_norm"), (f"{weight}.bias", f"{name}.b_norm"), (CONV_WEIGHT, f"{CONV}.diff"),
             (CONV_WEIGHT.replace("weight", "bias"), f"{CONV}.diff_b")]  # fmt: skip
    for place, end in pairs:
        torch.testing.assert_close(after[place], before[place] + 2 * change[end], rtol=1e-5, atol=1e-6)


def test_layers_without_a_place_are_told(base: Path, tmp_path: Path) -> None:
    tensors = read_file(lora_file(tmp_path / "lora.safetensors", base))
    for end in ("lora_up.weight", "lora_down.weight", "alpha"):
        tensors[f"lora_unet_nowhere.{end}"] = tensors[f"{QUERY}.{end}"]
    lora = save(tmp_path / "more.safetensors", tensors)
    result = use("bake", model=base, loras=(entry(lora),), output=tmp_path / "baked.safetensors")
    assert [str(note) for note in result.notes] == [
        f"1 of {len(layers_of(tensors))} layers of more.safetensors have no place in the model and were left out, for "
        "example lora_unet_nowhere."
    ]


def test_embeddings_in_a_loras_file_are_left_out_and_told(base: Path, tmp_path: Path) -> None:
    """OneTrainer puts those that were trained with it there, and the WebUI reads them."""
    whole = read_file(lora_file(tmp_path / "lora.safetensors", base))
    embeddings = {"bundle_emb.rufus.string_to_param.*": random(2, 32), "bundle_emb.other.clip_l": random(2, 32)}
    lora = save(tmp_path / "both.safetensors", whole | embeddings)
    results = [
        use("bake", model=base, loras=(entry(lora),), output=tmp_path / "baked.safetensors"),
        use("join", loras=(entry(lora), entry(lora)), output=tmp_path / "joined.safetensors"),
        use("resize", lora=lora, rank=2, output=tmp_path / "small.safetensors"),
    ]
    notes = [[str(note) for note in result.notes] for result in results]
    assert notes[0] == notes[2] == ["The embeddings in both.safetensors were left out: other, rufus."]
    assert notes[1] == notes[0] * 2
    use("bake", model=base, loras=(entry(tmp_path / "lora.safetensors"),), output=tmp_path / "alone.safetensors")
    alone, baked = read_file(tmp_path / "alone.safetensors"), read_file(tmp_path / "baked.safetensors")
    assert all(torch.equal(alone[name], baked[name]) for name in alone)
    assert set(read_file(tmp_path / "small.safetensors")) == set(whole)


def test_what_does_not_fit_is_refused(base: Path, tmp_path: Path) -> None:
    whole = read_file(lora_file(tmp_path / "lora.safetensors", base))
    wide = {f"{QUERY}.lora_up.weight": random(64, 4), f"{QUERY}.lora_down.weight": random(4, 32)}
    grown = {f"{QUERY}.hada_w1_a": random(64, 4), f"{QUERY}.hada_w1_b": random(4, 32), f"{QUERY}.hada_w2_a": random(64, 4),
             f"{QUERY}.hada_w2_b": random(4, 32)}  # fmt: skip
    elsewhere = {
        name.replace("lora_unet_", "lora_unet_x_").replace("lora_te_", "lora_te_x_"): tensor
        for name, tensor in whole.items()
    }
    strange = whole | {f"{QUERY}.oft_blocks": random(2, 4, 4)}
    xl = save(tmp_path / "xl.safetensors", whole, {"ss_base_model_version": "sdxl_base_v1-0"})
    cases = {
        save(tmp_path / "wide.safetensors", wide): "does not fit the model's weight of 32 × 32",
        save(tmp_path / "grown.safetensors", grown): "does not fit the model's weight of 32 × 32",
        save(tmp_path / "elsewhere.safetensors", elsewhere): f"None of the {len(layers_of(whole))} layers",
        save(tmp_path / "strange.safetensors", strange): "1 tensors of a kind that the tools do not know",
        xl: "is a LoRA for SDXL, the model is Stable Diffusion 1.x",
        base: "a LoRA is needed",
        tmp_path / "none.safetensors": "There is no file",
    }
    for lora, sentence in cases.items():
        with pytest.raises(BadInput) as refused:
            use("bake", model=base, loras=(entry(lora),), output=tmp_path / "baked.safetensors")
        assert sentence in str(refused.value)
    assert not (tmp_path / "baked.safetensors").exists()


def test_the_recipe_names_files_and_weights(base: Path, tmp_path: Path) -> None:
    lora, baked = lora_file(tmp_path / "my lora.safetensors", base), tmp_path / "baked.safetensors"
    use("bake", model=base, loras=(entry(lora, 0.7),), output=baked)
    metadata = read_header(baked).metadata
    recipe = json.loads(metadata["athanor_recipe"])
    assert recipe["inputs"] == {"Model": base.name, "LoRA 1": "my lora.safetensors"} and recipe["weights"] == [
        {"weight": 0.7}
    ]
    assert metadata["modelspec.merged_from"] == "base, my lora"
    assert "ss_network_dim" not in metadata, "a model is no LoRA"

"""A LoRA out of two models: extracting what was merged gives it back, and the error is what a rank cannot hold."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.tools.material import Tensors, base_file, change_of, changed, layers_of, lora_file, unet_output, use
from trainer.errors import BadInput
from trainer.models.safetensors_file import read_header
from trainer.models.tensor_file import read_file
from trainer.tools.catalog import LoraEntry

UNET = "model.diffusion_model."
QUERY = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
QUERY_WEIGHT = f"{UNET}input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
CONV = "lora_unet_down_blocks_0_resnets_0_conv1"
CONV_WEIGHT = f"{UNET}input_blocks.1.0.in_layers.2.weight"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base_file(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def tuned(base: Path) -> Path:
    """The base with every weight matrix changed a little, at full rank."""

    def train(tensors: Tensors) -> None:
        draw = torch.Generator().manual_seed(5)
        for name, tensor in tensors.items():
            if tensor.dim() > 1 and tensor.is_floating_point() and not name.startswith("first_stage_model."):
                tensor += 0.01 * torch.randn(tensor.shape, generator=draw)

    return changed(base, base.with_name("tuned.safetensors"), train)


def test_what_was_merged_comes_back(base: Path, tmp_path: Path) -> None:
    lora = lora_file(tmp_path / "lora.safetensors", base, rank=4, alpha=2.0)
    use("bake", model=base, loras=(LoraEntry(path=str(lora)),), output=tmp_path / "baked.safetensors")
    result = use("extract", base=base, tuned=tmp_path / "baked.safetensors", output=tmp_path / "back.safetensors", rank=4,
                 precision="fp32")  # fmt: skip
    before, after = read_file(lora), read_file(tmp_path / "back.safetensors")
    assert list(layers_of(before)) == sorted(layers_of(after)) and len(after) == len(before)
    for name in layers_of(before):
        assert (change_of(after, name) - change_of(before, name)).norm() < 1e-4 * change_of(before, name).norm(), name
        assert after[f"{name}.lora_down.weight"].shape == before[f"{name}.lora_down.weight"].shape
        assert after[f"{name}.lora_up.weight"].shape == before[f"{name}.lora_up.weight"].shape
    assert result.facts["kept"] == pytest.approx(1, abs=1e-4)


def test_the_extracted_lora_on_the_base_predicts_what_the_trained_model_does(
    base: Path, tuned: Path, tmp_path: Path
) -> None:
    use(
        "extract",
        base=base,
        tuned=tuned,
        output=tmp_path / "lora.safetensors",
        rank=64,
        conv_rank=288,
        precision="fp32",
    )
    use(
        "bake",
        model=base,
        loras=(LoraEntry(path=str(tmp_path / "lora.safetensors")),),
        output=tmp_path / "again.safetensors",
    )
    again, whole, start = read_file(tmp_path / "again.safetensors"), read_file(tuned), read_file(base)
    covered = [name for name in whole if not torch.equal(again[name], start[name])]
    assert {QUERY_WEIGHT, CONV_WEIGHT} <= set(covered)
    for name in covered:
        torch.testing.assert_close(again[name], whole[name], rtol=1e-4, atol=1e-5)
    far = (unet_output(base) - unet_output(tuned)).norm()
    near = (unet_output(tmp_path / "again.safetensors") - unet_output(tuned)).norm()
    assert near < 0.5 * far, "only embeddings and time layers, which no LoRA has, are left"


def test_a_rank_keeps_the_greatest_singular_values(base: Path, tuned: Path, tmp_path: Path) -> None:
    use("extract", base=base, tuned=tuned, output=tmp_path / "lora.safetensors", rank=6, conv_rank=3, precision="fp32")
    found, one, other = read_file(tmp_path / "lora.safetensors"), read_file(base), read_file(tuned)
    for name, weight, rank in ((QUERY, QUERY_WEIGHT, 6), (CONV, CONV_WEIGHT, 3)):
        difference = (other[weight].double() - one[weight].double()).flatten(1)
        lost = torch.linalg.svdvals(difference)[rank:].norm()
        left = (difference - change_of(found, name)).norm()
        assert 0.999 < left / lost < 1.01
        assert found[f"{name}.lora_down.weight"].shape == (rank, *other[weight].shape[1:])
    assert found[f"{CONV}.lora_up.weight"].shape == (32, 3, 1, 1)


@pytest.mark.parametrize(
    ("rule", "amount"), [("cumulative", 0.5), ("frobenius", 0.7), ("threshold", 0.05), ("ratio", 2.0)]
)
def test_ranks_by_rule(base: Path, tuned: Path, tmp_path: Path, rule: str, amount: float) -> None:
    use("extract", base=base, tuned=tuned, output=tmp_path / "lora.safetensors", rule=rule, amount=amount, rank=64,
        precision="fp32")  # fmt: skip
    s = torch.linalg.svdvals((read_file(tuned)[QUERY_WEIGHT] - read_file(base)[QUERY_WEIGHT]).double())
    fulfilled = {
        "cumulative": lambda k: s[:k].sum() / s.sum() >= amount,
        "frobenius": lambda k: s[:k].norm() / s.norm() >= amount,
        "threshold": lambda k: k == 32 or s[k] <= amount,
        "ratio": lambda k: k == 32 or s[k] <= s[0] / amount,
    }[rule]
    expected = next(k for k in range(1, 33) if fulfilled(k))
    assert 1 < expected < 32, "the example says something"
    assert read_file(tmp_path / "lora.safetensors")[f"{QUERY}.lora_down.weight"].shape[0] == expected


def test_parts(base: Path, tuned: Path, tmp_path: Path) -> None:
    for parts, prefix in (("unet", "lora_unet_"), ("text_encoder", "lora_te_")):
        use("extract", base=base, tuned=tuned, output=tmp_path / f"{parts}.safetensors", parts=parts, rank=2)
        names = layers_of(read_file(tmp_path / f"{parts}.safetensors"))
        assert names and all(name.startswith(prefix) for name in names)


def test_what_is_equal_is_left_out(base: Path, tmp_path: Path) -> None:
    """Only one layer was trained; and the same weights in half precision are no training."""
    one = changed(base, tmp_path / "one.safetensors", lambda tensors: tensors[QUERY_WEIGHT].add_(torch.eye(32)))
    result = use("extract", base=base, tuned=one, output=tmp_path / "lora.safetensors", rank=4)
    assert layers_of(read_file(tmp_path / "lora.safetensors")) == [QUERY]
    assert "are equal in both models" in str(result.notes[0])
    half = base_file(tmp_path, "half", dtype=torch.float16)
    with pytest.raises(BadInput, match="do not differ"):
        use("extract", base=half, tuned=base, output=tmp_path / "nothing.safetensors")
    with pytest.raises(BadInput, match="do not differ"):
        use("extract", base=base, tuned=one, output=tmp_path / "nothing.safetensors", least_change=2.0)


def test_what_a_lora_cannot_hold_is_told(base: Path, tmp_path: Path) -> None:
    """Norms, biases and embeddings that were trained too; convolutions are left out where no rank is given to them."""
    bias, norm = QUERY_WEIGHT.replace("to_q.weight", "to_out.0.bias"), f"{UNET}input_blocks.1.0.in_layers.0.weight"
    words = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"

    def train(tensors: Tensors) -> None:
        for name in (QUERY_WEIGHT, CONV_WEIGHT, bias, norm, words, "first_stage_model.decoder.conv_in.weight"):
            tensors[name] += 1e-3 * torch.ones(()) if name != norm else torch.nan

    tuned = changed(base, tmp_path / "tuned.safetensors", train)
    for parts, count, name in (("both", 3, words), ("unet", 2, norm)):
        result = use("extract", base=base, tuned=tuned, output=tmp_path / f"{parts}.safetensors", rank=4, parts=parts)
        notes = [str(note) for note in result.notes]
        assert result.facts["outside"] == count
        assert notes[-1].startswith(f"{count} other weights differ that a LoRA has no layer for, for example ")
        assert any(name in notes[-1] for name in (words, bias, norm))


def test_what_hardly_differs_is_looked_at_to_its_end(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One word's vector; and nothing but rounding."""
    monkeypatch.setattr("trainer.tools.extract.STRETCH", 1000)
    words = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"

    def train(tensors: Tensors) -> None:
        tensors[words][-1, -1] += 1
        tensors[QUERY_WEIGHT].add_(torch.eye(32))

    tuned = changed(base, tmp_path / "tuned.safetensors", train)
    result = use("extract", base=base, tuned=tuned, output=tmp_path / "word.safetensors", rank=4)
    assert result.facts["outside"] == 1 and words in str(result.notes[-1])
    half = base_file(tmp_path, "half", dtype=torch.float16)
    one = changed(base, tmp_path / "one.safetensors", lambda tensors: tensors[QUERY_WEIGHT].add_(torch.eye(32)))
    result = use("extract", base=half, tuned=one, output=tmp_path / "lora.safetensors", rank=4)
    assert result.facts["outside"] == 0, "rounding is no training"


def test_metadata(base: Path, tuned: Path, tmp_path: Path) -> None:
    use("extract", base=base, tuned=tuned, output=tmp_path / "lora.safetensors", rank=4, conv_rank=2)
    metadata = read_header(tmp_path / "lora.safetensors").metadata
    assert metadata["ss_base_model_version"] == "sd_v1" and metadata["ss_v2"] == "False"
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert (metadata["ss_network_dim"], metadata["ss_network_alpha"]) == ("4", "4.0")
    assert metadata["ss_network_args"] == '{"conv_dim": "2", "conv_alpha": "2.0"}'
    assert metadata["ss_sd_model_name"] == "base.safetensors" and len(metadata["sshs_model_hash"]) == 64
    assert metadata["modelspec.merged_from"] == "base, tuned"


def test_what_cannot_be_extracted_is_refused(base: Path, tuned: Path, tmp_path: Path) -> None:
    def drop(tensors: Tensors) -> None:
        del tensors[QUERY_WEIGHT]

    def shrink(tensors: Tensors) -> None:
        tensors[QUERY_WEIGHT] = torch.ones(8, 32)

    lora = lora_file(tmp_path / "lora.safetensors", base)
    output = tmp_path / "out.safetensors"
    cases = [
        ({"tuned": lora}, "Trained model: a base model is needed"),
        ({"tuned": base}, "do not differ"),
        ({"tuned": changed(base, tmp_path / "drop.safetensors", drop)}, "lacks 1 weights"),
        ({"tuned": changed(base, tmp_path / "shrink.safetensors", shrink)}, "is 32 × 32 in the base model and 8 × 32"),
        ({"rule": "cumulative", "amount": 2.0}, "needs a share"),
        ({"output": tuned, "overwrite": True}, "The output is what is read"),
        ({"device": "no such card"}, "There is no device"),
    ]
    for settings, sentence in cases:
        with pytest.raises(BadInput) as refused:
            use("extract", **{"base": base, "tuned": tuned, "output": output, **settings})
        assert sentence in str(refused.value)
    assert not output.exists()

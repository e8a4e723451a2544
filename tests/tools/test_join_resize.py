"""LoRAs merged with each other and made smaller: exact sums, and errors that are the singular values cut off."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.tools.material import base_file, change_of, layers_of, lora_file, save, use
from trainer.errors import BadInput
from trainer.models.safetensors_file import read_header
from trainer.models.tensor_file import read_file
from trainer.tools.catalog import LoraEntry

QUERY = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"


@pytest.fixture(scope="module")
def loras(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two LoRAs of different ranks and strengths; the second lacks the text encoder."""
    folder = tmp_path_factory.mktemp("loras")
    base = base_file(folder)
    says = {"ss_clip_skip": "2", "ss_tag_frequency": json.dumps({"cat": {"red": 2, "cat": 3}})}
    first = lora_file(
        folder / "first.safetensors", base, rank=4, alpha=2.0, seed=1, ss_sd_scripts_commit_hash="abc", **says
    )
    says["ss_tag_frequency"] = json.dumps({"cat": {"red": 5}, "dog": {"dog": 1}})
    second = lora_file(folder / "second.safetensors", base, rank=8, alpha=8.0, seed=2, **says)
    tensors = {name: tensor for name, tensor in read_file(second).items() if name.startswith("lora_unet")}
    save(second, tensors, read_header(second).metadata)
    return [first, second]


def join(
    loras: list[Path], output: Path, weights: tuple[float, float] = (0.7, -0.4), **more: object
) -> dict[str, torch.Tensor]:
    entries = tuple(LoraEntry(path=str(path), weight=weight) for path, weight in zip(loras, weights, strict=True))
    use("join", loras=entries, output=output, **more)
    return read_file(output)


def test_side_by_side_is_exactly_the_sum(loras: list[Path], tmp_path: Path) -> None:
    joined = join(loras, tmp_path / "joined.safetensors", precision="fp32")
    first, second = map(read_file, loras)
    assert set(layers_of(joined)) == set(layers_of(first))
    for name in layers_of(joined):
        expected = 0.7 * change_of(first, name)
        if f"{name}.alpha" in second:
            expected = expected - 0.4 * change_of(second, name)
        error = (change_of(joined, name) - expected).norm() / expected.norm()
        assert error < 1e-6, name
    assert joined[f"{QUERY}.lora_down.weight"].shape[0] == 12
    text = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    assert joined[f"{text}.lora_down.weight"].shape[0] == 4, "a layer that only one has keeps its rank"


def test_a_new_rank_is_the_best_approximation_of_the_sum(loras: list[Path], tmp_path: Path) -> None:
    whole = join(loras, tmp_path / "whole.safetensors", precision="fp32")
    cut = join(loras, tmp_path / "cut.safetensors", precision="fp32", rank=5)
    for name in layers_of(whole):
        change = change_of(whole, name)
        lost = torch.linalg.svdvals(change)[5:].norm()
        torch.testing.assert_close((change - change_of(cut, name)).norm(), lost, rtol=1e-3, atol=1e-6)
        assert cut[f"{name}.lora_down.weight"].shape[0] == min(5, whole[f"{name}.lora_down.weight"].shape[0])


def test_joining_keeps_what_both_say_and_adds_up_tags(loras: list[Path], tmp_path: Path) -> None:
    join(loras, tmp_path / "joined.safetensors")
    metadata = read_header(tmp_path / "joined.safetensors").metadata
    assert metadata["ss_base_model_version"] == "sd_v1" and metadata["ss_clip_skip"] == "2"
    assert metadata["ss_network_dim"] == "Dynamic" and metadata["ss_output_name"] == "joined"
    assert json.loads(metadata["ss_tag_frequency"]) == {"cat": {"red": 7, "cat": 3}, "dog": {"dog": 1}}
    assert metadata["modelspec.merged_from"] == "first, second"
    assert "ss_sd_scripts_commit_hash" not in metadata


def test_hashes_are_those_that_kohya_programs_compute(loras: list[Path], tmp_path: Path) -> None:
    """Against their rule, written out: the file saved with the ss_ entries alone, hashed at 1 MiB and after the header."""
    import hashlib

    import safetensors.torch

    join(loras, tmp_path / "joined.safetensors")
    metadata = read_header(tmp_path / "joined.safetensors").metadata
    own = {name: text for name, text in metadata.items() if name.startswith("ss_")}
    data = safetensors.torch.save(read_file(tmp_path / "joined.safetensors"), own)
    header = int.from_bytes(data[:8], "little") + 8
    assert metadata["sshs_model_hash"] == hashlib.sha256(data[header:]).hexdigest()
    assert metadata["sshs_legacy_hash"] == hashlib.sha256(data[0x100000 : 0x100000 + 0x10000]).hexdigest()[:8]
    assert metadata["modelspec.hash_sha256"] == "0x" + metadata["sshs_model_hash"]


def test_short_floats_keep_alpha_true(loras: list[Path], tmp_path: Path) -> None:
    """bf16 cannot hold an alpha of 12.3: what is lost there is made good in the weights."""
    odd = {
        name: torch.tensor(12.3) if name.endswith("alpha") else tensor for name, tensor in read_file(loras[0]).items()
    }
    path = save(tmp_path / "odd.safetensors", odd)
    use("resize", lora=path, output=tmp_path / "small.safetensors", rank=4, precision="bf16")
    small = read_file(tmp_path / "small.safetensors", torch.float32)
    error = (change_of(small, QUERY) - change_of(odd, QUERY)).norm() / change_of(odd, QUERY).norm()
    assert error < 5e-3
    assert abs(float(small[f"{QUERY}.alpha"]) - 12.3) > 0.01


@pytest.mark.parametrize("rank", [1, 3, 8, 100])
def test_the_error_of_a_resize_is_what_was_cut_off(loras: list[Path], tmp_path: Path, rank: int) -> None:
    result = use("resize", lora=loras[1], output=tmp_path / "small.safetensors", rank=rank, precision="fp32")
    before, after = read_file(loras[1]), read_file(tmp_path / "small.safetensors")
    whole = lost = 0.0
    for name in layers_of(before):
        change = change_of(before, name)
        values = torch.linalg.svdvals(change)
        torch.testing.assert_close((change - change_of(after, name)).norm(), values[rank:].norm(), rtol=1e-3, atol=1e-5)
        told = result.facts["layers"][name]
        assert told["to"] == min(rank, 8) and told["error"] == pytest.approx(
            float(values[rank:].norm() / values.norm()), abs=1e-4
        )
        assert float(after[f"{name}.alpha"]) / told["to"] == pytest.approx(1.0), "a weight of 1 stays a weight of 1"
        whole, lost = whole + float(values.square().sum()), lost + float(values[rank:].square().sum())
    assert result.facts["kept"] == pytest.approx((1 - lost / whole) ** 0.5, abs=1e-4)
    assert read_header(tmp_path / "small.safetensors").metadata["ss_network_dim"] == str(min(rank, 8))


@pytest.mark.parametrize(
    ("rule", "amount"), [("frobenius", 0.8), ("cumulative", 0.6), ("ratio", 1.7), ("threshold", 0.4)]
)
def test_ranks_by_rule(loras: list[Path], tmp_path: Path, rule: str, amount: float) -> None:
    """Each layer keeps the fewest singular values that fulfil the rule, told from a plain SVD of its change."""
    use(
        "resize",
        lora=loras[1],
        output=tmp_path / "small.safetensors",
        rule=rule,
        amount=amount,
        rank=6,
        precision="fp32",
    )
    before, after = read_file(loras[1]), read_file(tmp_path / "small.safetensors")
    seen = set()
    for name in layers_of(before):
        s = torch.linalg.svdvals(change_of(before, name))[:8]
        fulfilled = {
            "frobenius": lambda k, s=s: s[:k].norm() / s.norm() >= amount,
            "cumulative": lambda k, s=s: s[:k].sum() / s.sum() >= amount,
            "ratio": lambda k, s=s: k == 8 or s[k] <= s[0] / amount,
            "threshold": lambda k, s=s: k == 8 or s[k] <= amount,
        }[rule]
        expected = min(6, next(k for k in range(1, 9) if fulfilled(k)))
        assert after[f"{name}.lora_down.weight"].shape[0] == expected, name
        seen.add(expected)
    assert len(seen) > 1, "the example tells ranks apart"
    assert read_header(tmp_path / "small.safetensors").metadata["ss_network_dim"] == "Dynamic"


def test_resizing_keeps_the_training_metadata(loras: list[Path], tmp_path: Path) -> None:
    use("resize", lora=loras[0], output=tmp_path / "small.safetensors", rank=2)
    metadata = read_header(tmp_path / "small.safetensors").metadata
    assert json.loads(metadata["ss_tag_frequency"]) == {"cat": {"red": 2, "cat": 3}}
    assert metadata["ss_network_dim"] == "2" and metadata["ss_network_alpha"] == "1.0"
    assert "ss_sd_scripts_commit_hash" not in metadata
    assert json.loads(metadata["athanor_recipe"])["tool"] == "resize"


def test_what_cannot_be_joined_or_resized_is_refused(loras: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "out.safetensors"
    tensors = read_file(loras[0])
    doras = save(tmp_path / "dora.safetensors", tensors | {f"{QUERY}.dora_scale": torch.ones(1, 32)})
    wide = save(
        tmp_path / "wide.safetensors",
        {f"{QUERY}.lora_up.weight": torch.ones(64, 2), f"{QUERY}.lora_down.weight": torch.ones(2, 32)},
    )
    xl = save(tmp_path / "xl.safetensors", tensors, {"ss_base_model_version": "sdxl_base_v1-0"})
    cases = [
        ("join", {"loras": entries(loras[0], doras)}, "are not those of a plain LoRA"),
        ("join", {"loras": entries(loras[0], wide)}, "has different sizes in first.safetensors, wide.safetensors"),
        ("join", {"loras": entries(loras[0], xl)}, "for different families"),
        ("join", {"loras": (LoraEntry(path=str(loras[0]), weight=0.0),) * 2}, "All weights are 0"),
        ("resize", {"lora": doras}, "are not those of a plain LoRA"),
        ("resize", {"lora": loras[0], "rule": "frobenius", "amount": 1.5}, "needs a share"),
        ("resize", {"lora": loras[0], "rule": "ratio", "amount": 0.5}, "needs a number above 1"),
        ("resize", {"lora": loras[0], "rule": "threshold"}, "needs a number above 0"),
        ("resize", {"lora": loras[0], "output": tmp_path / "x.ckpt"}, "should end in .safetensors"),
        ("resize", {"lora": loras[0], "output": loras[0], "overwrite": True}, "The output is what is read"),
    ]
    for tool, settings, sentence in cases:
        with pytest.raises(BadInput) as refused:
            use(tool, **{"output": output, **settings})
        assert sentence in str(refused.value)
    assert not output.exists()


def entries(*paths: Path) -> tuple[LoraEntry, ...]:
    return tuple(LoraEntry(path=str(path)) for path in paths)


def test_convolutions_have_a_rank_of_their_own(tmp_path: Path) -> None:
    """In joining and in resizing; 0 takes the other one."""
    draw = torch.Generator().manual_seed(0)
    conv, linear = "lora_unet_down_blocks_0_resnets_0_conv1", QUERY
    tensors = {f"{conv}.lora_up.weight": torch.randn(32, 6, 1, 1, generator=draw),
               f"{conv}.lora_down.weight": torch.randn(6, 32, 3, 3, generator=draw),
               f"{linear}.lora_up.weight": torch.randn(32, 6, generator=draw),
               f"{linear}.lora_down.weight": torch.randn(6, 32, generator=draw)}  # fmt: skip
    lora = save(tmp_path / "lora.safetensors", tensors)
    both = entries(lora, lora)
    for conv_rank, expected in ((2, 2), (5, 5), (0, 4)):
        for tool, settings in (("join", {"loras": both}), ("resize", {"lora": lora})):
            use(tool, output=tmp_path / "out.safetensors", rank=4, conv_rank=conv_rank, overwrite=True, **settings)
            after = read_file(tmp_path / "out.safetensors")
            assert {name: len(after[f"{name}.lora_down.weight"]) for name in layers_of(after)} == {conv: expected, linear: 4}

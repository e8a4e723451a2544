"""Damaged and hostile files: every tool answers with a sentence that names the file and the place, and writes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tools.material import Tensors, base_file, lora_file, save, use
from trainer.errors import BadInput
from trainer.models.tensor_file import read_file
from trainer.tools.catalog import LoraEntry

QUERY = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
DOWN, UP, MID = "lora_down.weight", "lora_up.weight", "lora_mid.weight"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base_file(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def lora(base: Path) -> Path:
    return lora_file(base.with_name("lora.safetensors"), base)


def with_one(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(tensor: torch.Tensor) -> torch.Tensor:
        changed = tensor.clone()
        changed.view(-1)[3] = value
        return changed

    return change


DAMAGES: dict[str, tuple[dict[str, Any], str]] = {  # tensor → its new value or what makes it of the old one; None: no such
    "NaN": ({UP: with_one(float("nan"))}, "holds values that are no numbers"),
    "infinite": ({DOWN: with_one(float("inf"))}, "holds values that are no numbers"),
    "alpha is NaN": ({"alpha": torch.tensor(float("nan"))}, "holds values that are no numbers"),
    "several alphas": ({"alpha": torch.ones(3)}, "its alpha is not one number"),
    "rank 0": ({UP: torch.ones(32, 0), DOWN: torch.ones(0, 32)}, "its factors ([0, 32]; [32, 0]) do not fit each other"),
    "other ranks": ({UP: torch.ones(32, 3)}, "do not fit each other"),
    "a row alone": ({DOWN: torch.ones(32)}, "do not fit each other"),
    "a number alone": ({UP: torch.tensor(1.0)}, "do not fit each other"),
    "a middle of two dimensions": ({MID: torch.ones(4, 4)}, "do not fit each other"),
    "a middle of another rank": ({MID: torch.ones(4, 3, 3, 3)}, "do not fit each other"),
    "integers": ({DOWN: torch.ones(4, 32, dtype=torch.int8)}, "lora_down.weight holds numbers of the kind I8"),
    "no up": ({UP: None}, "it lacks lora_up.weight"),
    "no down": ({DOWN: None}, "it lacks lora_down.weight"),
    "alpha alone": ({UP: None, DOWN: None}, "1 tensors of a kind that the tools do not know"),
    "a strange tensor": ({"bias_values": torch.ones(32)}, "of a kind that the tools do not know"),
}


def damaged(lora: Path, target: Path, changes: dict[str, Any]) -> Path:
    tensors = read_file(lora)
    for end, value in changes.items():
        name = f"{QUERY}.{end}"
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value(tensors[name]) if callable(value) else value
    return save(target, tensors)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_lora_is_refused_by_every_tool(damage: str, base: Path, lora: Path, awkward: Path) -> None:
    changes, sentence = DAMAGES[damage]
    broken = damaged(lora, awkward / "broken.safetensors", changes)
    output = awkward / "out.safetensors"
    for tool, settings in USES.items():
        with pytest.raises(BadInput) as refused:
            use(tool, output=output, **settings(base, lora, broken))
        assert sentence in str(refused.value) and QUERY in str(refused.value), tool
        assert "broken.safetensors" in str(refused.value)
    assert {path.name for path in awkward.iterdir()} == {"broken.safetensors"}


USES: dict[str, Callable[[Path, Path, Path], dict[str, Any]]] = {
    "bake": lambda base, lora, broken: {"model": base, "loras": (LoraEntry(path=str(broken)),)},
    "join": lambda base, lora, broken: {"loras": tuple(LoraEntry(path=str(path)) for path in (lora, broken)), "rank": 2},
    "resize": lambda base, lora, broken: {"lora": broken},
}


def of_query(**tensors: torch.Tensor) -> Tensors:
    return {f"{QUERY}.{end}": tensor for end, tensor in tensors.items()}


FOREIGN: dict[str, tuple[Tensors, str]] = {  # layers that no model of these sizes can have
    "DoRA of another width": (
        of_query(**{UP: torch.ones(32, 2), DOWN: torch.ones(2, 32), "dora_scale": torch.ones(1, 7)}), "does not fit",
    ),
    "DoRA of one number": (
        of_query(**{UP: torch.ones(32, 2), DOWN: torch.ones(2, 32), "dora_scale": torch.tensor(1.0)}), "does not fit",
    ),
    "LoHa of rows": (of_query(**{f"hada_w{end}": torch.ones(32) for end in ("1_a", "1_b", "2_a", "2_b")}), "does not fit"),
    "half a LoHa": (of_query(hada_w1_a=torch.ones(32, 2), hada_w1_b=torch.ones(2, 32)), "it lacks hada_w2_a"),
    "LoKr of numbers": (of_query(lokr_w1=torch.tensor(1.0), lokr_w2=torch.tensor(1.0)), "does not fit"),
    "LoKr without its first factor": (of_query(lokr_w2=torch.ones(8, 4)), "it lacks lokr_w1_a"),
    "IA3 of another width": (of_query(weight=torch.ones(7), on_input=torch.tensor(1)), "does not fit"),
    "IA3 without its side": (of_query(weight=torch.ones(32)), "of a kind that the tools do not know"),
    "OFT of another width": (of_query(oft_blocks=torch.ones(3, 4, 4)), "does not fit"),
    "BOFT of odd blocks": (of_query(oft_blocks=torch.ones(2, 32, 1, 1)), "does not fit"),
    "GLoRA of another width": (
        of_query(**{f"{name}.weight": torch.ones(3, 5) for name in ("a1", "a2", "b1", "b2")}), "does not fit",
    ),
    "a difference of one number": (of_query(diff=torch.tensor(1.0)), "does not fit"),
    "a bias where there is none": (of_query(diff_b=torch.ones(32)), "None of the 1 layers"),
    "one layer twice": (
        {name: torch.ones(4, 32) if "down" in name or "lora_A" in name else torch.ones(32, 4)
         for name in (f"{QUERY}.{DOWN}", f"{QUERY}.{UP}",
                      "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight")},
        "more than once",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_layer_that_fits_no_weight_is_refused(kind: str, base: Path, tmp_path: Path) -> None:
    tensors, sentence = FOREIGN[kind]
    path = save(tmp_path / "foreign.safetensors", tensors)
    with pytest.raises(BadInput) as refused:
        use("bake", model=base, loras=(LoraEntry(path=str(path)),), output=tmp_path / "out.safetensors")
    assert sentence in str(refused.value) and "foreign.safetensors" in str(refused.value)
    assert {path.name for path in tmp_path.iterdir()} == {"foreign.safetensors"}

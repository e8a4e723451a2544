"""Files that PEFT writes of a UNet, merged by us and by PEFT itself: alpha stands in the config beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tools.material import base_file, use
from trainer.errors import BadInput
from trainer.models.sd1 import FAMILY
from trainer.models.tensor_file import read_file
from trainer.tools.catalog import LoraEntry

UNET = "model.diffusion_model."
WEIGHTS = {  # in the UNet, and in an LDM file
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight":
        f"{UNET}input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight",
    "down_blocks.0.resnets.0.conv1.weight": f"{UNET}input_blocks.1.0.in_layers.2.weight",
    "down_blocks.0.resnets.0.conv1.bias": f"{UNET}input_blocks.1.0.in_layers.2.bias",
}  # fmt: skip
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "LoRA": ("LoraConfig", {"r": 4, "lora_alpha": 8}),
    "rsLoRA": ("LoraConfig", {"r": 4, "lora_alpha": 8, "use_rslora": True}),
    "DoRA": ("LoraConfig", {"r": 4, "lora_alpha": 8, "use_dora": True}),
    "LoHa": ("LoHaConfig", {"r": 4, "alpha": 8}),
    "LoHa, Tucker": ("LoHaConfig", {"r": 2, "alpha": 6, "use_effective_conv2d": True}),
    "LoKr": ("LoKrConfig", {"r": 2, "alpha": 6}),
    "LoKr, both": ("LoKrConfig", {"r": 2, "alpha": 6, "decompose_both": True, "decompose_factor": 4}),
    "LoKr, Tucker": ("LoKrConfig", {"r": 2, "alpha": 6, "use_effective_conv2d": True}),
    "IA3": ("IA3Config", {"feedforward_modules": []}),
    "IA3 of inputs": ("IA3Config", {"feedforward_modules": ["to_q", "conv1"]}),
    "IA3 by a pattern": ("IA3Config", {"feedforward_modules": r".*\.conv\d"}),
    "IA3 by a pattern of less": ("IA3Config", {"feedforward_modules": r"conv\d"}),
    "OFT": ("OFTConfig", {"oft_block_size": 8}),
    "OFT, few terms": ("OFTConfig", {"oft_block_size": 8, "num_cayley_neumann_terms": 2}),
    "OFT, four terms": ("OFTConfig", {"oft_block_size": 8, "num_cayley_neumann_terms": 4}),
    "OFT, many terms": ("OFTConfig", {"oft_block_size": 4, "num_cayley_neumann_terms": 9}),
    "OFT, exact": ("OFTConfig", {"r": 4, "oft_block_size": 0, "use_cayley_neumann": False}),
    "OFT, shared": ("OFTConfig", {"oft_block_size": 8, "block_share": True}),
    "OFT, limited": ("OFTConfig", {"oft_block_size": 8, "coft": True, "eps": 0.5}),
}


def trained(folder: Path, kind: str, settings: dict[str, Any], base: Path) -> dict[str, torch.Tensor]:
    """Write what PEFT saves of a UNet with random weights in it, and return the UNet's as PEFT merges them."""
    peft = pytest.importorskip("peft")
    unet = peft.get_peft_model(FAMILY.load(base).unet, getattr(peft, kind)(target_modules=["to_q", "conv1"], **settings))
    torch.manual_seed(0)
    for weight in unet.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.2)
    unet.save_pretrained(folder)
    return {name: weight.detach() for name, weight in unet.merge_and_unload().named_parameters()}


@pytest.mark.parametrize("kind", CONFIGS)
def test_baking_gives_what_peft_merges(kind: str, tmp_path: Path) -> None:
    base = base_file(tmp_path)
    wanted = trained(tmp_path / "theirs", *CONFIGS[kind], base)
    entry = LoraEntry(path=str(tmp_path / "theirs/adapter_model.safetensors"))
    assert not use("bake", model=base, loras=(entry,), output=tmp_path / "baked.safetensors").notes
    before, after = read_file(base), read_file(tmp_path / "baked.safetensors")
    for name, ldm in WEIGHTS.items():
        assert name.endswith(".bias") or (wanted[name] - before[ldm]).norm() > 0.1
        torch.testing.assert_close(after[ldm], wanted[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("IA3", None),
        ("OFT", None),
        ("IA3", {"peft_type": "LORA"}),
        ("IA3", {"feedforward_modules": "conv(1"}),
        ("IA3", {"feedforward_modules": None}),
        ("OFT", {"peft_version": "0.17.1"}),
        ("OFT", {"num_cayley_neumann_terms": "five"}),
        ("OFT", {"coft": True, "eps": None}),
    ],
)
def test_what_its_config_does_not_say_is_refused(kind: str, change: dict[str, Any] | None, tmp_path: Path) -> None:
    base, theirs = base_file(tmp_path), tmp_path / "theirs"
    trained(theirs, *CONFIGS[kind], base)
    said = json.loads((theirs / "adapter_config.json").read_text(encoding="utf-8"))
    (theirs / "adapter_config.json").unlink()
    if change is not None:
        (theirs / "adapter_config.json").write_text(json.dumps({**said, **change}), encoding="utf-8")
    entry = LoraEntry(path=str(theirs / "adapter_model.safetensors"))
    with pytest.raises(BadInput, match=f"is PEFT's {kind}, and adapter_config.json"):
        use("bake", model=base, loras=(entry,), output=tmp_path / "baked.safetensors")
    assert not (tmp_path / "baked.safetensors").exists()

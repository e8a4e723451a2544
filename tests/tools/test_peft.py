"""Files that PEFT writes of a UNet, merged by us and by PEFT itself: alpha stands in the config beside them."""

from __future__ import annotations

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
        assert (wanted[name] - before[ldm]).norm() > 0.1
        torch.testing.assert_close(after[ldm], wanted[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "settings"), [("IA3Config", {"feedforward_modules": []}),
                                                ("OFTConfig", {"r": 0, "oft_block_size": 8})])  # fmt: skip
def test_what_its_config_alone_explains_is_refused(kind: str, settings: dict[str, Any], tmp_path: Path) -> None:
    """PEFT's own IA3 and OFT are others than LyCORIS', and not to be told without all of their settings."""
    base = base_file(tmp_path)
    trained(tmp_path / "theirs", kind, settings, base)
    entry = LoraEntry(path=str(tmp_path / "theirs/adapter_model.safetensors"))
    with pytest.raises(BadInput, match="of a kind that the tools do not know"):
        use("bake", model=base, loras=(entry,), output=tmp_path / "baked.safetensors")

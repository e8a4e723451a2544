"""The formulas of every method against the library that writes such files: LyCORIS' own modules and state dicts."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.tools.material import base_file, save, use
from trainer.errors import BadInput
from trainer.models.tensor_file import read_file
from trainer.tools import deltas
from trainer.tools.catalog import LoraEntry

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from lycoris.modules import (
        ButterflyOFTModule,
        DiagOFTModule,
        FullModule,
        GLoRAModule,
        IA3Module,
        LoConModule,
        LohaModule,
        LokrModule,
    )

BASES = {
    "linear": lambda: nn.Linear(48, 64),
    "kernel": lambda: nn.Conv2d(16, 32, 3),
    "pointwise": lambda: nn.Conv2d(16, 32, 1),
}
METHODS = {
    "locon": (LoConModule, {}),
    "locon, tucker": (LoConModule, {"use_tucker": True}),
    "locon, dora": (LoConModule, {"weight_decompose": True}),
    "locon, dora by columns": (LoConModule, {"weight_decompose": True, "wd_on_out": False}),
    "locon, rslora": (LoConModule, {"rs_lora": True}),
    "loha": (LohaModule, {}),
    "loha, tucker": (LohaModule, {"use_tucker": True}),
    "loha, rslora": (LohaModule, {"rs_lora": True}),
    "lokr": (LokrModule, {}),
    "lokr, tucker": (LokrModule, {"use_tucker": True}),
    "lokr, both": (LokrModule, {"decompose_both": True, "factor": 4}),
    "lokr, full": (LokrModule, {"full_matrix": True}),
    "lokr, dora": (LokrModule, {"weight_decompose": True}),
    "ia3": (IA3Module, {}),
    "ia3, on the input": (IA3Module, {"train_on_input": True}),
    "glora": (GLoRAModule, {}),
    "oft": (DiagOFTModule, {}),
    "oft, constrained": (DiagOFTModule, {"constraint": 0.02}),
    "oft, rescaled": (DiagOFTModule, {"rescaled": True}),
    "boft": (ButterflyOFTModule, {}),
    "boft, constrained": (ButterflyOFTModule, {"constraint": 0.02}),
    "boft, rescaled": (ButterflyOFTModule, {"rescaled": True}),
    "full": (FullModule, {}),
}


def module_of(method: str, base: nn.Module) -> Any:
    """A module of LyCORIS with weights as after a training."""
    make, settings = METHODS[method]
    module: Any = make("lora_unet_x", base, 1.0, 4, 2.0, **settings)
    for weight in module.parameters():
        nn.init.normal_(weight, std=0.3)
    if settings.get("weight_decompose"):
        module.dora_scale.data.abs_().add_(0.5)
    if settings.get("rescaled"):
        module.rescale.data.add_(1.0)
    return module


def tensors_of(module: Any) -> dict[str, torch.Tensor]:
    return {end: tensor.detach().float() for end, tensor in (module.custom_state_dict() or module.state_dict()).items()}


def expected(module: Any, base: Any, settings: dict[str, Any]) -> torch.Tensor:
    """What LyCORIS adds to the weight: as its forward pass has it, or, with DoRA, as it merges."""
    weight = base.weight
    if settings.get("weight_decompose"):
        merged: torch.Tensor = module.get_merged_weight(1.0)[0]
        return (merged - weight).detach()
    if isinstance(module, FullModule):
        return tensors_of(module)["diff"]
    has_own = hasattr(
        module, "get_weight"
    )  # what merging with LoHa does in 4.1 applies the scale twice, forward does not
    change: torch.Tensor = module.get_weight(weight.shape) if has_own else module.get_diff_weight(1.0)[0]
    return change.reshape(weight.shape).detach()


@pytest.mark.parametrize("kind", BASES)
@pytest.mark.parametrize("method", METHODS)
def test_a_module_of_lycoris_is_read_as_it_acts(method: str, kind: str) -> None:
    torch.manual_seed(0)
    base = BASES[kind]()
    module = module_of(method, base)
    tensors = tensors_of(module)
    known = deltas.method_of(tensors)
    assert known is not None and set(deltas.METHODS[known].needed) <= set(tensors)
    change = deltas.delta(known, tensors, base.weight.detach())
    wanted = expected(module, base, METHODS[method][1])
    assert wanted.abs().max() > 0.01
    torch.testing.assert_close(change, wanted, rtol=1e-4, atol=1e-5)


def test_a_constraint_binds() -> None:
    """The example above is one in which the limit is reached."""
    torch.manual_seed(0)
    base = BASES["linear"]()
    tensors = tensors_of(module_of("oft, constrained", base))
    free = {**tensors, "alpha": torch.tensor(0.0)}
    limited, whole = (deltas.delta("oft", one, base.weight.detach()) for one in (tensors, free))
    assert limited.norm() < 0.5 * whole.norm()


def test_oft_of_kohyas_programs_and_of_older_lycoris() -> None:
    """Out of the first ones' own words: block k of R is (I + Q)(I - Q)⁻¹, and outputs become Rᵀ times themselves."""
    torch.manual_seed(0)
    weight, blocks = torch.randn(12, 5), torch.randn(3, 4, 4) * 0.1
    skew = blocks - blocks.transpose(1, 2)
    turns = [(torch.eye(4) + one) @ (torch.eye(4) - one).inverse() for one in skew]
    wanted = torch.cat([turn.T @ weight[4 * place : 4 * place + 4] for place, turn in enumerate(turns)])
    found = deltas.delta("oft", {"oft_blocks": blocks, "alpha": torch.tensor(100.0)}, weight)
    torch.testing.assert_close(weight + found, wanted, rtol=1e-4, atol=1e-5)
    old = deltas.delta("oft", {"oft_diag": torch.stack(turns)}, weight)
    torch.testing.assert_close(weight + old, wanted, rtol=1e-4, atol=1e-5)


def test_glora_of_older_lycoris() -> None:
    """Then a1, a2 and b1, b2 stood the other way round."""
    torch.manual_seed(0)
    weight, a, b = torch.randn(12, 8), torch.randn(8, 2), torch.randn(12, 2)
    tensors = {"a1.weight": torch.randn(2, 8), "a2.weight": a, "b1.weight": torch.randn(2, 8), "b2.weight": b}
    found = deltas.delta("glora", {**tensors, "alpha": torch.tensor(1.0)}, weight)
    wanted = (weight @ a @ tensors["a1.weight"] + b @ tensors["b1.weight"]) / 2
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


NAME = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
WEIGHT = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"


@pytest.mark.parametrize("method", ["ia3", "ia3, on the input", "glora", "oft, rescaled", "boft"])
def test_a_file_of_each_is_merged_into_a_model(method: str, tmp_path: Path) -> None:
    """From the tensors' names on; at half the weight, half of the change, as WebUIs have it."""
    base = base_file(tmp_path)
    before = read_file(base)[WEIGHT]
    layer = nn.Linear(32, 32, bias=False)
    layer.weight.data.copy_(before)
    module = module_of(method, layer)
    state = module.custom_state_dict() or module.state_dict()
    lora = save(tmp_path / "lora.safetensors", {f"{NAME}.{end}": tensor.detach() for end, tensor in state.items()})
    use("bake", model=base, loras=(LoraEntry(path=str(lora), weight=0.5),), output=tmp_path / "baked.safetensors")
    after = read_file(tmp_path / "baked.safetensors")[WEIGHT]
    wanted = before + 0.5 * expected(module, layer, METHODS[method][1])
    torch.testing.assert_close(after, wanted, rtol=1e-4, atol=1e-5)


def test_several_of_them_act_one_after_the_other(tmp_path: Path) -> None:
    """What depends on the weight finds it as the LoRAs before left it, as in WebUIs."""
    base = base_file(tmp_path)
    before = read_file(base)[WEIGHT]
    draw = torch.Generator().manual_seed(0)
    one, two = (torch.randn(32, generator=draw) * 0.3 for _ in range(2))
    files = [
        save(tmp_path / f"{place}.safetensors", {f"{NAME}.weight": factor, f"{NAME}.on_input": torch.tensor(place)})
        for place, factor in enumerate((one, two))
    ]
    entries = tuple(LoraEntry(path=str(path)) for path in files)
    use("bake", model=base, loras=entries, output=tmp_path / "baked.safetensors")
    wanted = before * (1 + one)[:, None] * (1 + two)
    torch.testing.assert_close(read_file(tmp_path / "baked.safetensors")[WEIGHT], wanted, rtol=1e-5, atol=1e-6)


def test_what_is_no_product_of_two_matrices_is_told_its_way(tmp_path: Path) -> None:
    """Joining and resizing refuse it and name the way round, which works."""
    base = base_file(tmp_path)
    factor = torch.randn(32, generator=torch.Generator().manual_seed(0)) * 0.3
    path = save(tmp_path / "ia3.safetensors", {f"{NAME}.weight": factor, f"{NAME}.on_input": torch.tensor(0)})
    entry, lora, baked = LoraEntry(path=str(path)), tmp_path / "lora.safetensors", tmp_path / "baked.safetensors"
    for tool, settings in (("resize", {"lora": path}), ("join", {"loras": (entry, entry)})):
        with pytest.raises(BadInput, match=r"merge it into its model \(bake\) and extract a LoRA of the result \(extract\)"):
            use(tool, output=lora, **settings)
    use("bake", model=base, loras=(entry,), output=baked)
    use("extract", base=base, tuned=baked, output=lora, rank=32, precision="fp32")
    use("bake", model=base, loras=(LoraEntry(path=str(lora)),), output=tmp_path / "again.safetensors")
    again = read_file(tmp_path / "again.safetensors")[WEIGHT]
    torch.testing.assert_close(again, read_file(baked)[WEIGHT], rtol=1e-4, atol=1e-5)

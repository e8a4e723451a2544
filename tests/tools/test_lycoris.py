"""The formulas of every method against the library that writes such files: LyCORIS' own modules and state dicts."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import nn

from trainer.tools import deltas
from trainer.tools.lora_file import _ENDS, Layer, _method
from trainer.tools.places import Place

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from lycoris.modules import LoConModule, LohaModule, LokrModule

BASES = {
    "linear": lambda: nn.Linear(32, 48),
    "kernel": lambda: nn.Conv2d(16, 24, 3),
    "pointwise": lambda: nn.Conv2d(16, 24, 1),
}
METHODS = {
    "locon": (LoConModule, {}),
    "locon, tucker": (LoConModule, {"use_tucker": True}),
    "locon, dora": (LoConModule, {"weight_decompose": True}),
    "locon, dora by rows": (LoConModule, {"weight_decompose": True, "wd_on_out": True}),
    "locon, rslora": (LoConModule, {"rs_lora": True}),
    "loha": (LohaModule, {}),
    "loha, tucker": (LohaModule, {"use_tucker": True}),
    "loha, rslora": (LohaModule, {"rs_lora": True}),
    "lokr": (LokrModule, {}),
    "lokr, tucker": (LokrModule, {"use_tucker": True}),
    "lokr, both": (LokrModule, {"decompose_both": True, "factor": 4}),
    "lokr, full": (LokrModule, {"full_matrix": True}),
    "lokr, dora": (LokrModule, {"weight_decompose": True}),
}


def expected(module: Any, base: Any, settings: dict[str, Any]) -> torch.Tensor:
    """What LyCORIS adds to the weight: as its forward pass has it, or, with DoRA, as it merges."""
    weight = base.weight
    if settings.get("weight_decompose"):
        merged: torch.Tensor = module.get_merged_weight(1.0)[0]
        return (merged - weight).detach()
    has_own = hasattr(
        module, "get_weight"
    )  # what merging with LoHa does in 4.1 applies the scale twice, forward does not
    change: torch.Tensor = module.get_weight(weight.shape) if has_own else module.get_diff_weight(1.0)[0]
    return change.reshape(weight.shape).detach()


@pytest.mark.parametrize("kind", BASES)
@pytest.mark.parametrize("method", METHODS)
def test_a_module_of_lycoris_is_read_as_it_acts(method: str, kind: str) -> None:
    make, settings = METHODS[method]
    torch.manual_seed(0)
    base = BASES[kind]()
    module: Any = make("lora_unet_x", base, 1.0, 4, 2.0, **settings)
    for weight in module.parameters():
        nn.init.normal_(weight, std=0.3)
    if settings.get("weight_decompose"):
        module.dora_scale.data.abs_().add_(0.5)
    tensors = {
        end: tensor.detach().float() for end, tensor in (module.custom_state_dict() or module.state_dict()).items()
    }
    assert set(tensors) <= set(_ENDS)
    places = {end: Place((), tuple(tensor.shape), "F32") for end, tensor in tensors.items()}
    layer = Layer(_method(places), places)
    shape = tuple(base.weight.shape)
    change = deltas.delta(layer, tensors, shape)
    if deltas.is_decomposed(tensors):
        change = deltas.decomposed(base.weight.detach(), change, tensors["dora_scale"])
    wanted = expected(module, base, settings)
    assert wanted.abs().max() > 0.01
    torch.testing.assert_close(change, wanted, rtol=1e-5, atol=1e-6)

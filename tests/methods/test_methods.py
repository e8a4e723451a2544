"""What every method owes to the rest, tried on each one found in the folder."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.tiny import tiny_sd1
from trainer.config.registry import method_modules
from trainer.methods import Trained
from trainer.models.protocol import PARTS, Components
from trainer.models.safetensors_file import read_header
from trainer.models.sd1 import FAMILY
from trainer.models.tensor_file import read_file

METHODS = method_modules()


@pytest.fixture(params=sorted(METHODS))
def method(request: pytest.FixtureRequest) -> ModuleType:
    return METHODS[request.param]


def make(method: ModuleType, components: Components, **values: Any) -> Trained:
    return method.build(method.Settings(**values), components, FAMILY, seed=5)


def predict(components: Components, captions: tuple[str, ...] = ("a red cat", "dog")) -> torch.Tensor:
    noisy = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    cond = FAMILY.encode_text(components, captions)
    return FAMILY.predict(components, noisy, torch.tensor([10, 700]), cond)


def one_step(trained: Trained, components: Components, rate: float = 0.1) -> float:
    optimizer = torch.optim.SGD(trained.parameter_groups(dict.fromkeys(PARTS, rate)), lr=rate)
    loss = (predict(components) - 1).square().mean()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def base_weights(components: Components) -> dict[str, torch.Tensor]:
    modules = {"unet": components.unet, "text_encoder": components.text_encoder}
    return {
        f"{part}.{name}": weight.clone()
        for part, module in modules.items()
        for name, weight in module.named_parameters()
    }


def test_no_effect_at_start(method: ModuleType) -> None:
    components = tiny_sd1()
    before = predict(components)
    trained = make(method, components)
    assert torch.equal(predict(components).detach(), before)
    trained.remove()
    assert torch.equal(predict(components), before)


def test_only_its_weights_train_and_the_loss_falls(method: ModuleType) -> None:
    components = tiny_sd1()
    base = base_weights(components)
    trained = make(method, components, alpha=16.0)
    own = [weight.detach().clone() for weight in trained.parameters()]
    losses = [one_step(trained, components) for _ in range(4)]
    assert losses[-1] < losses[0]
    for name, weight in base_weights(components).items():
        assert torch.equal(weight, base[name]), name
    assert any(not torch.equal(new, old) for new, old in zip(trained.parameters(), own, strict=True))
    assert all(weight.dtype == torch.float32 for weight in trained.parameters())


@pytest.mark.parametrize("train", ["unet", "text_encoder", "both"])
def test_parts(method: ModuleType, train: str) -> None:
    components = tiny_sd1()
    trained = make(method, components, train=train)
    wanted = {"unet", "text_encoder"} if train == "both" else {train}
    assert trained.parts == wanted
    assert trained.text_is_constant == (train == "unet")
    groups = trained.parameter_groups({"unet": 1e-3, "text_encoder": 2e-3})
    assert {group["name"]: group["lr"] for group in groups} == {
        part: rate for part, rate in (("unet", 1e-3), ("text_encoder", 2e-3)) if part in wanted
    }
    assert sum(len(group["params"]) for group in groups) == len(trained.parameters())
    before = FAMILY.encode_text(components, ["cat"]).states.detach()
    one_step(trained, components)
    one_step(trained, components)
    assert torch.equal(FAMILY.encode_text(components, ["cat"]).states.detach(), before) == trained.text_is_constant


def test_off_is_the_base(method: ModuleType) -> None:
    components = tiny_sd1()
    before = predict(components)
    trained = make(method, components)
    one_step(trained, components)
    assert not torch.equal(predict(components).detach(), before)
    with trained.off():
        assert torch.equal(predict(components), before)
    assert not torch.equal(predict(components).detach(), before)


def test_state_round_trip(method: ModuleType) -> None:
    components = tiny_sd1()
    trained = make(method, components)
    one_step(trained, components)
    state = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    after = predict(components).detach()
    trained.remove()
    again = make(method, components)
    again.load_state_dict(state)
    assert torch.equal(predict(components).detach(), after)


@pytest.mark.parametrize(("dtype", "exact"), [(torch.float32, True), (torch.float16, False), (torch.bfloat16, False)])
def test_file_round_trip(method: ModuleType, tmp_path: Path, dtype: torch.dtype, exact: bool) -> None:
    components = tiny_sd1()
    trained = make(method, components)
    one_step(trained, components)
    after = predict(components).detach()
    path = tmp_path / "made.safetensors"
    trained.export(path, {"ss_output_name": "made"}, dtype)
    trained.remove()
    again = make(method, components, network_weights=str(path))
    got = predict(components).detach()
    assert torch.equal(got, after) if exact else torch.allclose(got, after, atol=0.02)
    header = read_header(path)
    assert header.metadata["ss_output_name"] == "made"
    assert header.metadata.items() >= trained.metadata().items()
    assert set(read_file(path)) == set(again.state_dict())


def test_same_seed_same_weights(method: ModuleType) -> None:
    components = tiny_sd1()
    first = make(method, components)
    state = first.state_dict()
    first.remove()
    second = make(method, components)
    assert all(torch.equal(tensor, state[name]) for name, tensor in second.state_dict().items())

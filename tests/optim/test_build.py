"""The tables against the installed libraries, free arguments, and schedules against transformers'."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch

from trainer.errors import BadInput, RunFailed
from trainer.optim.build import build_optimizer, read_arguments
from trainer.optim.curves import multiplier
from trainer.optim.stepper import MOST_SKIPPED, NotFinite, Stepper
from trainer.optim.table import OPTIMIZERS, SCHEDULES, OptimizerRow

OUR_CHOICE = {  # where our default is not the library's, and why
    ("Prodigy", "weight_decay"), ("Prodigy", "use_bias_correction"), ("Prodigy", "safeguard_warmup"),  # its readme's
    ("SGDNesterov", "momentum"), ("SGDNesterov", "nesterov"),  # the name says it
}  # fmt: skip
NOT_OFFERED = {  # how the step is computed, not what it is
    "params", "lr", "maximize", "foreach", "capturable", "differentiable", "fused", "optim_bits", "args", "is_paged",
    "use_triton", "fsdp_in_use", "amsgrad",
}  # fmt: skip


@pytest.mark.parametrize("row", OPTIMIZERS.values(), ids=list(OPTIMIZERS))
def test_a_row_lists_what_the_library_takes(row: OptimizerRow) -> None:
    module, _, name = row.class_path.rpartition(".")
    taken = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    assert set(row.arguments) <= set(taken)
    assert set(taken) - set(row.arguments) <= NOT_OFFERED
    differing = {(row.name, key) for key, value in row.arguments.items() if taken[key].default != value}
    assert differing == {pair for pair in OUR_CHOICE if pair[0] == row.name}


def groups(unet: float = 1e-3, text: float = 1e-3) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    made = [torch.nn.Parameter(torch.randn(64, 64, generator=generator)) for _ in range(2)]
    return [{"params": [made[0]], "lr": unet, "name": "unet"}, {"params": [made[1]], "lr": text, "name": "text_encoder"}]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimiser_lowers_a_loss(name: str) -> None:
    row, made = OPTIMIZERS[name], groups(*(1.0, 1.0) if name == "Prodigy" else (1e-2, 1e-2))
    stepper = Stepper(build_optimizer(row, made, {}), lambda step: 1.0)
    losses = []
    for number in range(20):
        loss = torch.stack([weight.square().mean() for group in made for weight in group["params"]]).sum()
        stepper.backward(loss)
        stepper.step(number)
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(rate > 0 for rate in stepper.rates()) and len(stepper.rates()) == 2


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_resumed_run_takes_its_own_arguments_and_rates(name: str) -> None:
    row = OPTIMIZERS[name]
    before = Stepper(build_optimizer(row, groups(1.0, 1.0), {}), lambda step: 1.0)
    after = Stepper(build_optimizer(row, groups(0.5, 0.5), {"weight_decay": 0.25}), lambda step: 1.0)
    after.load_state_dict(before.state_dict())
    after._set_rates(0)
    for group in after.optimizer.param_groups:
        assert group["weight_decay"] == 0.25
        assert group["lr"] == (None if name == "Adafactor" else 0.5)


def test_rates_of_the_parts() -> None:
    stepper = Stepper(build_optimizer(OPTIMIZERS["AdamW"], groups(1e-3, 1e-4), {}), lambda step: 0.5 if step else 1.0)
    for number, factor in enumerate((1.0, 0.5)):
        for group in stepper.optimizer.param_groups:
            group["params"][0].grad = torch.ones(64, 64)
        stepper.step(number)
        assert stepper.rates() == pytest.approx((1e-3 * factor, 1e-4 * factor))
    assert stepper.names == ("unet", "text_encoder")


def test_prodigy_tells_its_own_rate() -> None:
    optimizer = build_optimizer(OPTIMIZERS["Prodigy"], groups(1.0, 1.0), {"d0": "1e-4"})
    assert Stepper(optimizer, lambda step: 1.0).rates() == (1e-4, 1e-4)


def test_prodigy_refuses_two_rates() -> None:
    with pytest.raises(BadInput, match="one rate for all parts"):
        build_optimizer(OPTIMIZERS["Prodigy"], groups(1.0, 5e-5), {})


def test_a_rate_of_zero_trains_nothing() -> None:
    for row in OPTIMIZERS.values():
        if row.relative_rate:
            continue
        made = groups(0.0, 0.0)
        before = made[0]["params"][0].detach().clone()
        stepper = Stepper(build_optimizer(row, made, {}), lambda step: 1.0)
        for group in made:
            group["params"][0].grad = torch.ones(64, 64)
        stepper.step(0)
        assert torch.equal(made[0]["params"][0], before), row.name


def test_adafactor_without_its_own_step_takes_ours() -> None:
    arguments = {"relative_step": "false", "scale_parameter": False}
    optimizer = build_optimizer(OPTIMIZERS["Adafactor"], groups(1e-3, 1e-3), arguments)
    assert Stepper(optimizer, lambda step: 1.0).rates() == (1e-3, 1e-3)
    assert build_optimizer(OPTIMIZERS["Adafactor"], groups(), {}).param_groups[0]["lr"] is None


def test_text_is_read_as_people_write_it() -> None:
    given = {"betas": "0.9, 0.95", "eps": "1e-7", "amsgrad": "True", "weight_decay": 0.1}
    assert read_arguments(OPTIMIZERS["AdamW"], given) == {
        "betas": (0.9, 0.95), "eps": 1e-7, "amsgrad": True, "weight_decay": 0.1
    }  # fmt: skip
    assert read_arguments(OPTIMIZERS["Lion"], {"betas": [0.9, 0.98]}) == {"betas": (0.9, 0.98)}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"weight_decai": 0.1}, "Did you mean weight_decay"),
        ({"zork": 1}, "It takes: betas"),
        ({"betas": 7}, "does not take"),
        ({"weight_decay": "often"}, "does not take"),
        ({"lr": 1.0}, "has no argument lr"),
        ({"eps": -1}, "Invalid epsilon"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        build_optimizer(OPTIMIZERS["AdamW"], groups(), arguments)


def test_a_missing_library_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr("trainer.optim.build.importlib.import_module", missing)
    with pytest.raises(RunFailed, match="The library of Lion can not be loaded"):
        build_optimizer(OPTIMIZERS["Lion"], groups(), {})


def test_clipping_is_over_all_weights() -> None:
    made = groups(1.0, 1.0)
    before = [group["params"][0].detach().clone() for group in made]
    stepper = Stepper(torch.optim.SGD(made), lambda step: 1.0, max_grad_norm=1.0)
    for group in made:
        group["params"][0].grad = torch.full((64, 64), 3.0)
    stepper.step(0)
    moved = torch.cat([(group["params"][0] - old).flatten() for group, old in zip(made, before, strict=True)])
    assert moved.norm().item() == pytest.approx(1.0, rel=1e-4)


class Overflowing:
    """A scaler whose unscaled gradients are what the test says."""

    def scale(self, loss: torch.Tensor) -> torch.Tensor:
        return loss

    def unscale_(self, optimizer: Any) -> None:
        for group in optimizer.param_groups:
            group["params"][0].grad = torch.full((64, 64), float("inf"))

    def step(self, optimizer: Any) -> None:
        pass

    def update(self) -> None:
        pass


def test_fp16_may_skip_a_while_but_not_for_ever() -> None:
    stepper = Stepper(torch.optim.SGD(groups()), lambda step: 1.0, scaler=Overflowing())  # type: ignore[arg-type]
    for number in range(MOST_SKIPPED - 1):
        stepper.step(number)
    with pytest.raises(NotFinite):
        stepper.step(MOST_SKIPPED)


def reference(name: str, steps: int, warmup: int, cycles: int, power: float) -> Callable[[int], float]:
    from transformers import get_scheduler

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    special = {"cosine_with_restarts": {"num_cycles": cycles}, "polynomial": {"power": power}}
    arguments = {} if name == "constant" else {"num_warmup_steps": warmup, "num_training_steps": steps}
    scheduler = get_scheduler(name, optimizer, **arguments, scheduler_specific_kwargs=special.get(name))
    return scheduler.lr_lambdas[0]


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "adafactor"])
@pytest.mark.parametrize(("steps", "warmup", "cycles", "power"), [(50, 5, 3, 2.0), (7, 0, 1, 1.0), (10, 9, 2, 0.5)])
def test_curves_are_transformers(name: str, steps: int, warmup: int, cycles: int, power: float) -> None:
    expected = reference(name, steps, warmup, cycles, power)
    for step in range(steps + 1):
        assert multiplier(name, step, steps, warmup, cycles, power) == pytest.approx(expected(step), abs=1e-9), step

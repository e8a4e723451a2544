"""The LoRA layers: what they compute, what they leave alone, and how they are stored."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainer.nets.lora import LoraNetwork

torch.set_num_threads(1)


def layers() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {
        "lora_unet_linear": nn.Linear(6, 5),
        "lora_unet_conv1": nn.Conv2d(4, 3, 1),
        "lora_unet_conv3": nn.Conv2d(4, 3, 3, stride=2, padding=1),
    }


def inputs(base: nn.Module) -> torch.Tensor:
    return torch.randn(2, 7, 6) if isinstance(base, nn.Linear) else torch.randn(2, 4, 8, 8)


def network(modules: dict[str, nn.Module], rank: int = 2, alpha: float = 1.0, dropout: float = 0.0) -> LoraNetwork:
    return LoraNetwork({"unet": modules}, rank, alpha, dropout, seed=3)


def randomise(net: LoraNetwork) -> None:
    with torch.no_grad():
        for weight in net.parameters():
            weight.normal_(generator=torch.Generator().manual_seed(weight.numel()))


def full_delta(net: LoraNetwork, name: str) -> torch.Tensor:
    """The update as the matrix that the layers never build."""
    layer = net.layer(name)
    flat = layer.up.flatten(1) @ layer.down.flatten(1) * (layer.alpha / layer.rank)
    return flat.reshape(layer.base.weight.shape)


@pytest.mark.parametrize("name", list(layers()))
def test_a_layer_computes_the_base_with_the_update_added(name: str) -> None:
    modules = layers()
    base = modules[name]
    x = inputs(base)
    net = network(modules)
    randomise(net)
    got = base(x)
    net.remove()
    with torch.no_grad():
        base.weight += full_delta(net, name)
    torch.testing.assert_close(got, base(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", list(layers()))
def test_no_effect_at_start_off_or_removed(name: str) -> None:
    modules = layers()
    base = modules[name]
    x = inputs(base)
    before = base(x)
    net = network(modules)
    assert torch.equal(base(x), before)
    randomise(net)
    assert not torch.equal(base(x), before)
    with net.enabled(False):
        assert torch.equal(base(x), before)
        with net.enabled(True):
            assert not torch.equal(base(x), before)
        assert torch.equal(base(x), before)
    net.set_multiplier(0)
    assert torch.equal(base(x), before)
    net.set_multiplier(1)
    net.remove()
    assert torch.equal(base(x), before)
    assert "forward" not in base.__dict__


def test_the_multiplier_scales_the_update() -> None:
    modules = layers()
    base = modules["lora_unet_linear"]
    x = inputs(base)
    net = network(modules)
    randomise(net)
    with net.enabled(False):
        plain = base(x)
    once = base(x) - plain
    net.set_multiplier(0.5)
    torch.testing.assert_close(base(x) - plain, once / 2, atol=1e-5, rtol=1e-4)


def test_gradients_reach_both_factors_and_never_the_base() -> None:
    modules = layers()
    for base in modules.values():
        base.requires_grad_(False)
    net = network(modules)
    randomise(net)
    sum(base(inputs(base)).square().sum() for base in modules.values()).backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in net.parameters())
    assert all(weight.grad is None for base in modules.values() for weight in base.parameters())


def test_gradients_are_those_of_the_full_matrix() -> None:
    modules = layers()
    base = modules["lora_unet_linear"]
    x = inputs(base)
    net = network(modules)
    randomise(net)
    base(x).square().sum().backward()
    layer = net.layer("lora_unet_linear")
    down, up = (weight.detach().clone().requires_grad_() for weight in (layer.down, layer.up))
    out = nn.functional.linear(x, base.weight.detach() + up @ down / 2, base.bias.detach())
    out.square().sum().backward()
    torch.testing.assert_close(layer.down.grad, down.grad, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(layer.up.grad, up.grad, atol=1e-4, rtol=1e-4)


def test_initial_weights_depend_on_seed_and_name_alone() -> None:
    one = network(layers())
    modules = layers()
    other = LoraNetwork({"unet": {name: modules[name] for name in reversed(modules)}}, 2, 1.0, seed=3)
    third = LoraNetwork({"unet": layers()}, 2, 1.0, seed=4)
    for name in modules:
        assert torch.equal(one.layer(name).down, other.layer(name).down)
        assert not torch.equal(one.layer(name).down, third.layer(name).down)
        assert one.layer(name).up.abs().sum() == 0
    weights = one.layer("lora_unet_linear").down
    assert weights.abs().max() <= 6**-0.5 and weights.std() > 0.1


def test_dropout_acts_in_training_only_and_keeps_the_mean() -> None:
    modules = layers()
    base = modules["lora_unet_linear"]
    net = network(modules, rank=64, dropout=0.5)
    randomise(net)
    x = torch.randn(1, 4000, 6)
    net.eval()
    still = base(x)
    assert torch.equal(base(x), still)
    net.train()
    moved = base(x)
    assert not torch.equal(moved, still)
    with net.enabled(False):
        plain = base(x)
    moved, still, plain = moved.detach(), still.detach(), plain.detach()
    ratio = ((moved - plain) * (still - plain)).mean() / (still - plain).square().mean()
    assert ratio == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_base_and_float32_weights(dtype: torch.dtype) -> None:
    modules = layers()
    base = modules["lora_unet_linear"]
    net = network(modules)
    randomise(net)
    expected = base(x := inputs(base))
    base.to(dtype)
    out = base(x.to(dtype))
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), expected, atol=0.1, rtol=0.05)
    out.float().sum().backward()
    assert net.layer("lora_unet_linear").up.grad.dtype == torch.float32


def test_autocast() -> None:
    modules = layers()
    net = network(modules)
    randomise(net)
    for name, base in modules.items():
        x = inputs(base)
        expected = base(x)
        with torch.autocast("cpu", torch.bfloat16):
            out = base(x)
        assert out.dtype == torch.bfloat16, name
        torch.testing.assert_close(out.float(), expected, atol=0.2, rtol=0.1)


def test_gradient_checkpointing_gives_the_same_gradients_with_dropout() -> None:
    from torch.utils.checkpoint import checkpoint

    modules = layers()
    base = modules["lora_unet_linear"]
    net = network(modules, dropout=0.3)
    randomise(net)
    x = inputs(base)
    gradients = []
    for run in (base, lambda x: checkpoint(base, x, use_reentrant=False)):
        torch.manual_seed(1)
        net.zero_grad()
        run(x).square().sum().backward()
        gradients.append(net.layer("lora_unet_linear").down.grad.clone())
    assert torch.equal(*gradients)


def test_state_uses_kohya_names_and_shapes() -> None:
    net = network(layers(), rank=2, alpha=0.5)
    shapes = {name: tuple(tensor.shape) for name, tensor in net.state_tensors().items()}
    assert shapes == {
        "lora_unet_linear.alpha": (),
        "lora_unet_linear.lora_down.weight": (2, 6),
        "lora_unet_linear.lora_up.weight": (5, 2),
        "lora_unet_conv1.alpha": (),
        "lora_unet_conv1.lora_down.weight": (2, 4, 1, 1),
        "lora_unet_conv1.lora_up.weight": (3, 2, 1, 1),
        "lora_unet_conv3.alpha": (),
        "lora_unet_conv3.lora_down.weight": (2, 4, 3, 3),
        "lora_unet_conv3.lora_up.weight": (3, 2, 1, 1),
    }
    assert net.state_tensors()["lora_unet_conv1.alpha"] == 0.5


def test_loading_takes_rank_and_alpha_from_the_tensors() -> None:
    source = network(layers(), rank=3, alpha=2.0)
    randomise(source)
    target = network(layers(), rank=8, alpha=8.0)
    target.load_tensors(source.state_tensors())
    assert target.layer("lora_unet_conv3").rank == 3
    for name, tensor in source.state_tensors().items():
        assert torch.equal(target.state_tensors()[name], tensor), name


@pytest.mark.parametrize("alpha", [None, 0.0])
def test_a_file_without_alpha_has_alpha_equal_to_rank(alpha: float | None) -> None:
    tensors = network(layers(), rank=3, alpha=1.0).state_tensors()
    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith("alpha")}
    if alpha is not None:
        tensors["lora_unet_linear.alpha"] = torch.tensor(alpha)
    net = network(layers())
    net.load_tensors(tensors)
    assert net.layer("lora_unet_linear").alpha == 3


def test_what_does_not_fit_is_refused_and_nothing_changed() -> None:
    net = network(layers())
    before = {name: tensor.clone() for name, tensor in net.state_tensors().items()}
    good = network(layers(), rank=4).state_tensors()
    strange = {**good, "lora_unet_other.lora_down.weight": torch.zeros(2, 2)}
    misshapen = {**good, "lora_unet_linear.lora_down.weight": torch.zeros(4, 9)}
    missing_up = {name: tensor for name, tensor in good.items() if name != "lora_unet_linear.lora_up.weight"}
    for wrong in (strange, misshapen, missing_up):
        with pytest.raises(ValueError, match="no place"):
            net.load_tensors(wrong)
        assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_tensors().items())


def test_scaling_norms_is_the_clamp_of_the_full_updates_norm() -> None:
    net = network(layers(), rank=2, alpha=2.0)
    randomise(net)
    with torch.no_grad():
        net.layer("lora_unet_conv1").up.mul_(0.01)
    before = {name: full_delta(net, name).detach().clone() for name in net.layers}
    for name in net.layers:
        assert float(net.layer(name).norm()) == pytest.approx(float(before[name].norm()), rel=1e-4)
    report = net.scale_weight_norms(1.0)
    after = {name: full_delta(net, name).detach() for name in net.layers}
    assert report.num_scaled == 2 and report.greatest == pytest.approx(1.0, rel=1e-4)
    torch.testing.assert_close(after["lora_unet_conv1"], before["lora_unet_conv1"])
    for name in ("lora_unet_linear", "lora_unet_conv3"):
        torch.testing.assert_close(after[name], before[name] / before[name].norm(), atol=1e-5, rtol=1e-4)


def test_other_layers_are_refused() -> None:
    with pytest.raises(TypeError, match="LayerNorm"):
        network({"lora_unet_norm": nn.LayerNorm(4)})
    with pytest.raises(TypeError, match="grouped"):
        network({"lora_unet_grouped": nn.Conv2d(4, 4, 3, groups=2)})

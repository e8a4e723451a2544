"""LoRA layers: a low-rank path beside a frozen layer, W x + (alpha ÷ rank) · up(down(x)), as Hu et al. 2021 have it.

A layer acts by standing in for its base layer's `forward`; the full matrix up · down is never built. Names, shapes and
initial values are those of the kohya programs.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DOWN, UP, ALPHA = "lora_down.weight", "lora_up.weight", "alpha"


class LoraLayer(nn.Module):
    """The trained path beside one Linear or Conv2d.

    Attributes:
        down: (r, in) or (r, in, k, k), uniform in ±1/√fan_in as kohya's.
        up: (out, r) or (out, r, 1, 1), zero at the start: no effect.
        strength: multiplier of the whole network; 0 gives the base layer alone.
    """

    down: nn.Parameter
    up: nn.Parameter

    def __init__(self, base: nn.Module, rank: int, alpha: float, dropout: float, generator: torch.Generator) -> None:
        super().__init__()
        if not isinstance(base, (nn.Linear, nn.Conv2d)):
            raise TypeError(f"a LoRA acts on Linear and Conv2d, not on {type(base).__name__}")
        self.dropout = dropout
        self.strength = 1.0
        self.shapes = _shapes(base)
        self.resize(rank, alpha, base.weight.device)
        bound = 1 / math.sqrt(math.prod(self.shapes[0]))
        with torch.no_grad():
            self.down.copy_(torch.empty(self.down.shape).uniform_(-bound, bound, generator=generator))
        self._keep(base)

    def _keep(self, base: nn.Linear | nn.Conv2d) -> None:
        """Hold the base layer without registering it: it is neither trained nor saved nor moved with the network."""
        self.base: nn.Linear | nn.Conv2d
        object.__setattr__(self, "base", base)
        self.base_forward: Callable[[Tensor], Tensor] = base.forward
        self.convolves = isinstance(base, nn.Conv2d)

    def resize(self, rank: int, alpha: float, device: torch.device | None = None) -> None:
        """Give the path another rank and alpha; its weights are then zero."""
        self.rank, self.alpha = rank, alpha
        device = device or self.down.device
        (inputs, outputs) = self.shapes
        self.down = nn.Parameter(torch.zeros(rank, *inputs, device=device))
        self.up = nn.Parameter(torch.zeros(outputs, rank, *([1] * (len(inputs) - 1)), device=device))

    @torch.no_grad()
    def take(self, down: Tensor, up: Tensor, alpha: float) -> None:
        """Act as a path with these weights (r', …) and (out, r') does, as nearly as the rank allows."""
        rank = down.shape[0]
        first, second = down.reshape(rank, -1).float(), up.reshape(-1, rank).float() * (alpha / rank)
        if rank > self.rank:
            first, second = _greatest(first, second, self.rank)
        kept = len(first)
        here = self.down.device
        self.down[:kept].copy_(first.reshape(kept, *self.down.shape[1:]).to(here))
        self.up.zero_()
        self.up[:, :kept].copy_((second * (self.rank / self.alpha)).reshape(-1, kept, *self.up.shape[2:]).to(here))

    def forward(self, x: Tensor) -> Tensor:
        """The base layer's output for x, plus the path's. Any shape that the base layer takes."""
        out = self.base_forward(x)
        if self.strength == 0:
            return out
        factor = self.strength * self.alpha / self.rank
        down, up = self.down.to(x.dtype), self.up.to(x.dtype)
        if self.convolves:
            base: Any = self.base
            low = self._dropped(F.conv2d(x, down, None, base.stride, base.padding, base.dilation))
            return torch.add(out, F.conv2d(low, up), alpha=factor)
        low = self._dropped(F.linear(x, down))
        flat = torch.addmm(out.flatten(0, -2), low.flatten(0, -2), up.t(), alpha=factor)
        return flat.view(out.shape)

    def _dropped(self, low: Tensor) -> Tensor:
        return F.dropout(low, self.dropout) if self.dropout and self.training else low

    @torch.no_grad()
    def norm(self) -> Tensor:
        """Frobenius norm of the update at multiplier 1, from two (r, r) products: ‖U D‖² = Σ (UᵀU) ∘ (D Dᵀ)."""
        up, down = self.up.flatten(1).float(), self.down.flatten(1).float()
        square = ((up.t() @ up).double() * (down @ down.t()).double()).sum()
        return square.clamp(min=0).sqrt() * abs(self.alpha / self.rank)


def _greatest(down: Tensor, up: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The best approximation of up · down by a lower rank, both factors alike in size; never builds the full matrix."""
    left, upper = torch.linalg.qr(up)  # (out, r), (r, r)
    right, lower = torch.linalg.qr(down.t())  # (in, r), (r, r)
    u, values, v = torch.linalg.svd(upper @ lower.t())
    roots = values[:rank].sqrt()
    return (v[:rank] @ right.t()) * roots[:, None], (left @ u[:, :rank]) * roots


def _shapes(base: nn.Linear | nn.Conv2d) -> tuple[tuple[int, ...], int]:
    """What one row of `down` looks like, and the number of rows of `up`."""
    if isinstance(base, nn.Linear):
        return (base.in_features,), base.out_features
    if base.groups != 1:
        raise TypeError("a LoRA on a grouped convolution is not defined")
    return (base.in_channels, *base.kernel_size), base.out_channels


def is_wide(base: nn.Module) -> bool:
    """Whether it is a convolution that looks beyond one pixel."""
    return isinstance(base, nn.Conv2d) and max(base.kernel_size) > 1


class NormReport(NamedTuple):
    """After `scale_weight_norms`: layers that were shrunk, and the layers' mean and greatest norm."""

    num_scaled: int
    mean: float
    greatest: float


class LoraNetwork(nn.Module):
    """LoRA layers for a set of base layers. Acts from its making on, until `remove`.

    Args:
        targets: part → kohya name → base layer (Linear or Conv2d), in file order.
        rank, alpha, dropout: of every layer.
        conv_rank, conv_alpha: of convolutions wider than 1×1, if there are any.
        seed: initial weights depend on it and the layer's name alone, not on the order or the set of layers.
    """

    def __init__(
        self,
        targets: Mapping[str, Mapping[str, nn.Module]],
        rank: int,
        alpha: float,
        dropout: float = 0.0,
        seed: int = 0,
        conv_rank: int = 0,
        conv_alpha: float = 1.0,
    ) -> None:
        super().__init__()
        self.parts = {part: tuple(modules) for part, modules in targets.items()}
        wide, narrow = (conv_rank or rank, conv_alpha if conv_rank else alpha), (rank, alpha)
        self.layers = nn.ModuleDict(
            {
                name: LoraLayer(base, *(wide if is_wide(base) else narrow), dropout, named_generator(seed, name))
                for modules in targets.values()
                for name, base in modules.items()
            }
        )
        self.multiplier = 1.0
        for layer in self._all():
            layer.base.__dict__["forward"] = layer.forward

    def _all(self) -> Iterator[LoraLayer]:
        for layer in self.layers.values():
            assert isinstance(layer, LoraLayer)
            yield layer

    def wide_layers(self) -> Iterator[LoraLayer]:
        """Those beside convolutions wider than 1×1."""
        return (layer for layer in self._all() if is_wide(layer.base))

    def layer(self, name: str) -> LoraLayer:
        """The layer of this kohya name; raises KeyError."""
        layer = self.layers[name]
        assert isinstance(layer, LoraLayer)
        return layer

    def remove(self) -> None:
        """Leave the base model as it was before."""
        for layer in self._all():
            layer.base.__dict__.pop("forward", None)

    def set_multiplier(self, multiplier: float) -> None:
        """Scale the whole update; 0 is the base model."""
        self.multiplier = multiplier
        for layer in self._all():
            layer.strength = multiplier

    @contextmanager
    def enabled(self, on: bool) -> Iterator[None]:
        """Within the block the network acts with its multiplier, or not at all."""
        before = [layer.strength for layer in self._all()]
        for layer in self._all():
            layer.strength = self.multiplier if on else 0.0
        try:
            yield
        finally:
            for layer, strength in zip(self._all(), before, strict=True):
                layer.strength = strength

    def parameters_of(self, part: str) -> list[nn.Parameter]:
        """The trained weights beside one part's layers, in file order; none for a part without layers."""
        return [weight for name in self.parts.get(part, ()) for weight in (self.layer(name).down, self.layer(name).up)]

    def state_tensors(self) -> dict[str, Tensor]:
        """All weights under kohya's names: three tensors a layer, alpha among them (0-dim)."""
        tensors: dict[str, Tensor] = {}
        for name in self.layers:
            layer = self.layer(name)
            tensors[f"{name}.{ALPHA}"] = torch.tensor(float(layer.alpha))
            tensors[f"{name}.{DOWN}"] = layer.down.detach()
            tensors[f"{name}.{UP}"] = layer.up.detach()
        return tensors

    def load_tensors(self, tensors: Mapping[str, Tensor], keep_rank: bool = False) -> None:
        """Take weights under kohya's names; layers get the rank and alpha found there (no alpha: the rank).

        With `keep_rank` layers keep the rank and alpha that they have: where it is higher, what is new begins without
        effect; where it is lower, the greatest singular values stay.

        Layers without weights in `tensors` stay as they are. Do this before an optimiser holds the parameters: a layer
        of another rank gets new ones.

        Raises ValueError for names or shapes that have no place here, before anything is changed.
        """
        found = {name: _of_layer(name, tensors) for name in self.layers if f"{name}.{DOWN}" in tensors}
        used = {f"{name}.{end}" for name in found for end in (DOWN, UP, ALPHA)}
        wrong = [name for name in tensors if name not in used]
        wrong += [name for name, (down, up, _) in found.items() if not self._fits(name, down, up)]
        if wrong:
            raise ValueError(f"{len(wrong)} tensors have no place in this network, for example {wrong[0]}")
        for name, (down, up, alpha) in found.items():
            layer = self.layer(name)
            if keep_rank:
                layer.take(down, up, alpha)
                continue
            if layer.rank != down.shape[0] or layer.alpha != alpha:
                layer.resize(down.shape[0], alpha)
            with torch.no_grad():
                layer.down.copy_(down.reshape(layer.down.shape))
                layer.up.copy_(up.reshape(layer.up.shape))

    def _fits(self, name: str, down: Tensor, up: Tensor) -> bool:
        inputs, outputs = self.layer(name).shapes
        if down.dim() < 2 or up.dim() < 2:
            return False
        return down[0].numel() == math.prod(inputs) and up.shape[0] == outputs and up[0].numel() == down.shape[0]

    @torch.no_grad()
    def scale_weight_norms(self, limit: float) -> NormReport:
        """Shrink every layer whose update is longer than `limit`, both factors by the same share (kohya's max norm)."""
        norms = torch.stack([layer.norm() for layer in self._all()])
        shares = (limit / norms.clamp(min=limit / 2)).clamp(max=1)
        for layer, root in zip(self._all(), shares.sqrt().float().unbind(), strict=True):
            layer.down.mul_(root)
            layer.up.mul_(root)
        scaled = norms * shares
        return NormReport(int((shares < 1).sum()), float(scaled.mean()), float(scaled.max()))


def _of_layer(name: str, tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, float]:
    """A layer's down, up (empty if missing) and alpha. Old files have no alpha, or zero: it is then the rank."""
    down = tensors[f"{name}.{DOWN}"]
    alpha = float(tensors[f"{name}.{ALPHA}"]) if f"{name}.{ALPHA}" in tensors else 0.0
    return down, tensors.get(f"{name}.{UP}", down.new_zeros(0)), alpha or float(down.shape[0])


def named_generator(seed: int, name: str) -> torch.Generator:
    """A CPU generator that depends on the seed and a name alone."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)

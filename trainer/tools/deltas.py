"""What the layers of LoRA files add to a model's weights: each method's formula, in the dtype of what is given."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from trainer.tools.lora_file import ALPHA, DORA, DOWN, MID, UP, Layer

Tensors = Mapping[str, Tensor]


def factors(tensors: Tensors) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """up (out, r) and down (r, n) of a plain LoRA layer, its scale alpha ÷ r not applied, and a row's shape (in, kh, kw).

    A Tucker layer's middle (r, r, kh, kw) is multiplied into down.
    """
    up, down = tensors[UP], tensors[DOWN]
    if MID in tensors:
        down = torch.einsum("rskl,si->rikl", tensors[MID], down.flatten(1))
    return up.flatten(1), down.flatten(1), tuple(down.shape[1:])


def scale(tensors: Tensors, rank: int) -> float:
    """alpha ÷ rank; files without alpha, or with 0, mean the rank itself."""
    alpha = float(tensors[ALPHA]) if ALPHA in tensors else 0.0
    return alpha / rank if alpha else 1.0


def delta(layer: Layer, tensors: Tensors, shape: tuple[int, ...]) -> Tensor:
    """What a layer adds at weight 1 to a weight of `shape`, DoRA's part left out. Raises ValueError if it does not fit."""
    formula = {"lora": _lora, "loha": _loha, "lokr": _lokr, "diff": _diff, "norm": _norm}[layer.method]
    found = formula(tensors)
    if found.numel() != math.prod(shape) or found.shape[0] != shape[0]:
        raise ValueError(f"it gives {tuple(found.shape)} and not {shape}")
    return found.reshape(shape)


def _lora(tensors: Tensors) -> Tensor:
    up, down, row = factors(tensors)
    return ((up * scale(tensors, down.shape[0])) @ down).reshape(up.shape[0], *row)


def _loha(tensors: Tensors) -> Tensor:
    """(W1a W1b) ∘ (W2a W2b), LyCORIS' Hadamard product; with Tucker cores for convolutions."""
    halves = []
    for number in "12":
        a, b = tensors[f"hada_w{number}_a"], tensors[f"hada_w{number}_b"]
        core = tensors.get(f"hada_t{number}")
        halves.append(a @ b if core is None else torch.einsum("ijkl,jr,ip->prkl", core, b, a))
    return halves[0] * halves[1] * scale(tensors, tensors["hada_w1_b"].shape[0])


def _lokr(tensors: Tensors) -> Tensor:
    """W1 ⊗ W2, LyCORIS' Kronecker product; either factor may be a product itself."""
    rank = 0
    if "lokr_w1" in tensors:
        first = tensors["lokr_w1"]
    else:
        first, rank = tensors["lokr_w1_a"] @ tensors["lokr_w1_b"], tensors["lokr_w1_b"].shape[0]
    if "lokr_w2" in tensors:
        second = tensors["lokr_w2"]
    else:
        a, b, core = tensors["lokr_w2_a"], tensors["lokr_w2_b"], tensors.get("lokr_t2")
        second = a @ b.flatten(1) if core is None else torch.einsum("ijkl,jr,ip->prkl", core, b, a)
        second = second.reshape(a.shape[0], *b.shape[1:]) if core is None and b.dim() > 2 else second
        rank = b.shape[0]
    first = first.reshape(*first.shape, *[1] * (second.dim() - first.dim()))
    return torch.kron(first, second.contiguous()) * (scale(tensors, rank) if rank else 1.0)


def _diff(tensors: Tensors) -> Tensor:
    if "diff" not in tensors:
        raise ValueError("it has a bias alone")
    return tensors["diff"]


def _norm(tensors: Tensors) -> Tensor:
    return tensors["w_norm"]


def bias_delta(tensors: Tensors) -> Tensor | None:
    """What a layer adds to the bias at weight 1, None if nothing."""
    return next((tensors[end] for end in ("diff_b", "b_norm") if end in tensors), None)


def decomposed(base: Tensor, change: Tensor, magnitude: Tensor) -> Tensor:
    """DoRA's change of `base`: base + change with each column's (or row's) length set to `magnitude`, less base.

    `magnitude` has shape (1, in, …) for lengths over all but the input axis, as LyCORIS writes it, or (out, 1, …).
    """
    merged = base + change
    axis = 0 if magnitude.shape[0] == base.shape[0] and magnitude[0].numel() == 1 else 1
    lengths = merged.movedim(axis, 0).flatten(1).norm(dim=1)
    wide = [1] * base.dim()
    wide[axis] = -1
    factor = magnitude.flatten() / lengths.clamp(min=torch.finfo(lengths.dtype).eps)
    return merged * factor.reshape(wide) - base


def is_decomposed(tensors: Tensors) -> bool:
    return DORA in tensors

"""The methods of LoRA files: by which tensors a layer's is told, and what it adds to a model's weight. No torch at import.

A method is an entry of `METHODS`. Formulas compute in the dtype of what they are given; they raise what torch raises
where tensors do not fit each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    Tensors = Mapping[str, Tensor]

DOWN, UP, MID, ALPHA, DORA = "lora_down.weight", "lora_up.weight", "lora_mid.weight", "alpha", "dora_scale"
SWITCHES = (ALPHA, "on_input")  # tensors that may hold integers
BIASES = ("diff_b", "b_norm")
IA3_IN, IA3_OUT = "ia3_in", "ia3_out"  # PEFT's ia3_l: factors of a layer's inputs, or of its outputs
OFT_R, OFT_TERMS, OFT_LENGTH = "oft_R.weight", "oft_R.terms", "oft_R.length"  # PEFT's, the last two by its config
_COMMON = (ALPHA, DORA, *BIASES)
MISFITS = (ValueError, RuntimeError, IndexError, TypeError, ZeroDivisionError)  # what a formula raises


@dataclass(frozen=True)
class Method:
    """One kind of layer.

    Attributes:
        signs: tensors any of which tells it.
        needed: tensors without which a layer is not whole.
        change: what a layer adds at weight 1 to the weight that it is for (out, …), DoRA's part left out.
        others: the tensors that it may have besides.
    """

    signs: tuple[str, ...]
    needed: tuple[str, ...]
    change: Callable[[Tensors, Tensor], Tensor]
    others: tuple[str, ...] = ()

    @property
    def ends(self) -> frozenset[str]:
        """All tensors that a layer may have, by the end of their names."""
        return frozenset((*self.signs, *self.needed, *self.others, *_COMMON))


def method_of(ends: Collection[str]) -> str | None:
    """The method of a layer with these tensors, None if there is none that knows them all."""
    found = set(ends)
    return next((name for name, one in METHODS.items() if found & set(one.signs) and found <= one.ends), None)


def factors(tensors: Tensors) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """up (out, r) and down (r, n) of a plain LoRA layer, its scale alpha ÷ r not applied, and a row's shape (in, kh, kw).

    A Tucker layer's middle (r, r, kh, kw) is multiplied into down.
    """
    import torch

    up, down = tensors[UP], tensors[DOWN]
    if MID in tensors:
        down = torch.einsum("rskl,si->rikl", tensors[MID], down.flatten(1))
    return up.flatten(1), down.flatten(1), tuple(down.shape[1:])


def scale(tensors: Tensors, rank: int) -> float:
    """alpha ÷ rank; files without alpha, or with 0, mean the rank itself."""
    alpha = float(tensors[ALPHA]) if ALPHA in tensors else 0.0
    return alpha / rank if alpha else 1.0


def delta(method: str, tensors: Tensors, weight: Tensor) -> Tensor:
    """What a layer adds at weight 1 to the model's `weight`, in its shape, DoRA's part with it.

    Raises ValueError and its like (`MISFITS`) where the layer is for a weight of another size.
    """
    found = METHODS[method].change(tensors, weight)
    if found.numel() != weight.numel() or found.shape[0] != weight.shape[0]:
        raise ValueError(f"it gives {tuple(found.shape)} and not {tuple(weight.shape)}")
    change = found.reshape(weight.shape)
    return _decomposed(weight, change, tensors[DORA]) if DORA in tensors else change


def bias_delta(tensors: Tensors, bias: Tensor) -> Tensor | None:
    """What a layer adds to the bias at weight 1, None if nothing."""
    if IA3_OUT in tensors:
        return bias * (tensors[IA3_OUT].flatten() - 1)
    return next((tensors[end] for end in BIASES if end in tensors), None)


def _lora(tensors: Tensors, weight: Tensor) -> Tensor:
    up, down, row = factors(tensors)
    return ((up * scale(tensors, down.shape[0])) @ down).reshape(up.shape[0], *row)


def _loha(tensors: Tensors, weight: Tensor) -> Tensor:
    """(W1a W1b) ∘ (W2a W2b), LyCORIS' Hadamard product; with Tucker cores for convolutions."""
    import torch

    halves = []
    for number in "12":
        a, b = tensors[f"hada_w{number}_a"], tensors[f"hada_w{number}_b"]
        core = tensors.get(f"hada_t{number}")
        halves.append(a @ b if core is None else torch.einsum("ijkl,jr,ip->prkl", core, b, a))
    return halves[0] * halves[1] * scale(tensors, tensors["hada_w1_b"].shape[0])


def _lokr(tensors: Tensors, weight: Tensor) -> Tensor:
    """W1 ⊗ W2, LyCORIS' Kronecker product; either factor may be a product itself."""
    import torch

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


def _ia3(tensors: Tensors, weight: Tensor) -> Tensor:
    """A factor for each input or each output, LyCORIS' (IA)³."""
    axis = 1 if tensors["on_input"] else 0
    wide = [1] * weight.dim()
    wide[axis] = -1
    return weight * tensors["weight"].reshape(wide)


def _peft_ia3(tensors: Tensors, weight: Tensor) -> Tensor:
    """PEFT's (IA)³: what each input or each output is multiplied with, where LyCORIS has the difference from 1."""
    axis, end = (1, IA3_IN) if IA3_IN in tensors else (0, IA3_OUT)
    wide = [1] * weight.dim()
    wide[axis] = -1
    return weight * (tensors[end].reshape(wide) - 1)


def _glora(tensors: Tensors, weight: Tensor) -> Tensor:
    """W A + B with A and B of low rank. LyCORIS once had the factors of each the other way round."""
    a1, a2, b1, b2 = (tensors[f"{name}.weight"] for name in ("a1", "a2", "b1", "b2"))
    rank = a2.shape[0]
    if not rank == b2.shape[0] == a1.shape[1] == b1.shape[1]:
        a1, a2, b1, b2, rank = a2, a1, b2, b1, a1.shape[0]
    core = {MID: tensors["bm.weight"]} if "bm.weight" in tensors else {}
    up, down, _ = factors({UP: b1, DOWN: b2, **core})
    through = (weight.movedim(1, -1) @ (a1.flatten(1) @ a2.flatten(1))).movedim(-1, 1)
    return (through + (up @ down).reshape(weight.shape)) * scale(tensors, rank)


def _oft(tensors: Tensors, weight: Tensor) -> Tensor:
    """The outputs turned within blocks: R W - W, as LyCORIS and kohya's programs have OFT; by stages for BOFT.

    Blocks (k, n, n) turn neighbours; those of BOFT (m, k, n, n) in stage i outputs that lie 2^i · n ÷ 2 apart.
    """
    turned = weight
    if "oft_diag" in tensors:
        turned = _in_blocks(tensors["oft_diag"].mT, turned)
    elif tensors["oft_blocks"].dim() == 3:
        turned = _in_blocks(_rotations(tensors, weight.shape[0]).mT, turned)
    else:
        for stage, blocks in enumerate(_rotations(tensors, weight.shape[0])):
            apart = 2**stage * (blocks.shape[-1] // 2)
            mixed = turned.unflatten(0, (-1, 2, apart)).transpose(1, 2)
            mixed = _in_blocks(blocks, mixed.flatten(0, 2)).unflatten(0, (-1, apart, 2))
            turned = mixed.transpose(1, 2).flatten(0, 2)
    if "rescale" in tensors:
        turned = turned * tensors["rescale"].reshape(-1, *[1] * (weight.dim() - 1))
    return turned - weight


def _rotations(tensors: Tensors, num_outputs: int) -> Tensor:
    """(I + Q)(I - Q)⁻¹ of the blocks' skew parts Q (…, n, n), whose length alpha · outputs limits, where it says so."""
    import torch

    skew = tensors["oft_blocks"] - tensors["oft_blocks"].mT
    most, length = float(tensors.get(ALPHA, 0.0)) * num_outputs, float(skew.norm())
    if 0 < most < length:
        skew = skew * (most / length)
    one = torch.eye(skew.shape[-1]).to(skew)
    return torch.linalg.solve(one - skew, one + skew, left=False)


def _peft_oft(tensors: Tensors, weight: Tensor) -> Tensor:
    """The inputs turned within blocks, W Rᵀ - W, as PEFT merges its OFT; of a convolution all that a kernel sees are inputs.

    The file has the upper halves of the blocks' skew parts (k, n(n-1)÷2); one block for all (k = 1) may be shared.
    """
    import torch

    halves = tensors[OFT_R]
    size = (1 + math.isqrt(1 + 8 * halves.shape[1])) // 2
    rows, columns = torch.triu_indices(size, size, 1)
    skew = halves.new_zeros(len(halves), size, size)
    skew[:, rows, columns] = halves
    skew = skew - skew.mT
    if OFT_LENGTH in tensors:  # COFT: no block is longer
        lengths = skew.flatten(1).norm(dim=1).clamp(min=torch.finfo(skew.dtype).tiny)
        skew = skew * (float(tensors[OFT_LENGTH]) / len(halves) ** 0.5 / lengths).clamp(max=1)[:, None, None]
    turns = _turns(skew, int(tensors[OFT_TERMS]))
    seen = weight.flatten(1).unflatten(1, (-1, size))  # (out, k, n)
    return torch.einsum("okn,kmn->okm", seen, turns.expand(seen.shape[1], size, size)).reshape(weight.shape) - weight


def _turns(skew: Tensor, num_terms: int) -> Tensor:
    """Rotations of skew parts Q (k, n, n): Cayley's (I - Q)(I + Q)⁻¹; with `num_terms` PEFT's series I + 2Q + 2Q² + … of
    (I + Q)(I - Q)⁻¹, whose last term counts once."""
    import torch

    one = torch.eye(skew.shape[-1]).to(skew)
    if not num_terms:
        return torch.linalg.solve(one + skew, (one - skew).expand_as(skew), left=False)
    total, power = one.expand_as(skew), one
    last = num_terms - 1 if num_terms < 3 else max(3, num_terms - 1)
    for number in range(1, last + 1):
        power = power @ skew
        total = total + power * (1 if number == last > 1 else 2)
    return total


def _in_blocks(blocks: Tensor, weight: Tensor) -> Tensor:
    """Each block (k, n, n) times its n outputs of a weight (k n, …)."""
    return (blocks @ weight.reshape(*blocks.shape[:2], -1)).reshape(weight.shape)


def _diff(tensors: Tensors, weight: Tensor) -> Tensor:
    return tensors["diff"]


def _norm(tensors: Tensors, weight: Tensor) -> Tensor:
    return tensors["w_norm"]


def _decomposed(base: Tensor, change: Tensor, magnitude: Tensor) -> Tensor:
    """DoRA's change of `base`: base + change with each column's (or row's) length set to `magnitude`, less base.

    `magnitude` has shape (1, in, …) for lengths over all but the input axis, as LyCORIS writes it, or (out, 1, …).
    """
    import torch

    merged = base + change
    axis = 0 if magnitude.shape[0] == base.shape[0] and magnitude[0].numel() == 1 else 1
    lengths = merged.movedim(axis, 0).flatten(1).norm(dim=1)
    wide = [1] * base.dim()
    wide[axis] = -1
    factor = magnitude.flatten() / lengths.clamp(min=torch.finfo(lengths.dtype).eps)
    return merged * factor.reshape(wide) - base


_LOHA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
_LOKR = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b")
_GLORA = ("a1.weight", "a2.weight", "b1.weight", "b2.weight")
METHODS = {  # a layer is of the first that fits
    "lora": Method((DOWN, UP), (DOWN, UP), _lora, (MID,)),
    "loha": Method(_LOHA, _LOHA, _loha, ("hada_t1", "hada_t2")),
    "lokr": Method(_LOKR, (), _lokr, ("lokr_t2",)),
    "ia3": Method(("on_input",), ("on_input", "weight"), _ia3),
    "peft_ia3": Method((IA3_IN, IA3_OUT), (), _peft_ia3),
    "glora": Method(_GLORA, _GLORA, _glora, ("bm.weight",)),
    "oft": Method(("oft_blocks", "oft_diag"), (), _oft, ("rescale",)),
    "peft_oft": Method((OFT_R,), (OFT_R, OFT_TERMS), _peft_oft, (OFT_LENGTH,)),
    "diff": Method(("diff", *BIASES), (), _diff),
    "norm": Method(("w_norm",), (), _norm),
}
ENDS = frozenset(end for method in METHODS.values() for end in method.ends)

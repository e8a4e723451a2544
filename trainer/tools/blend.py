"""Sums of weights in float32, a stretch at a time: no whole tensor is ever held in float32."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trainer.models.tensor_file import TORCH_NAMES
from trainer.tools.model_out import in_numbers

STRETCH = 1 << 18  # numbers: a stretch in float32 (1 MB) stays in a core's own cache


def weighted_sum(tensors: Sequence[Tensor], shares: Sequence[float], dtype: str, name: str) -> Tensor:
    """Σ share · tensor of contiguous tensors of one shape, computed in float32, in `dtype` ("F16").

    Raises RunFailed, with `name`, where `dtype` cannot hold a value, or a value is no number.
    """
    found = torch.empty(tensors[0].shape, dtype=getattr(torch, TORCH_NAMES[dtype]))
    total, term = torch.empty(2, min(STRETCH, found.numel()))
    for stretch, *terms in zip(*(tensor.view(-1).split(STRETCH) for tensor in (found, *tensors)), strict=True):
        size = len(stretch)
        total[:size].copy_(terms[0]).mul_(shares[0])
        for other, share in zip(terms[1:], shares[1:], strict=True):
            total[:size].add_(term[:size].copy_(other), alpha=share)
        stretch.copy_(in_numbers(total[:size], dtype, name))
    return found

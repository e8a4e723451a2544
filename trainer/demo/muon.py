"""Muon (Jordan and others, 2024) for matrices and convolutions: momentum, orthogonalised before it is applied."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # the quintic's coefficients in the author's note


def orthogonalised(matrices: Tensor, steps: int = 5) -> Tensor:
    """(N, rows, columns) -> the same shape, singular values pushed towards 1 by Newton-Schulz iterations.

    The iterations run on the small Gram matrix and the product of their polynomials is applied once at the end: the
    same numbers to rounding, in half the time for wide matrices.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    gram = x @ x.transpose(1, 2)
    product: Tensor | None = None
    for _ in range(steps):
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        polynomial.diagonal(dim1=1, dim2=2).add_(a)
        product = polynomial if product is None else polynomial @ product
        gram = polynomial @ gram @ polynomial
    assert product is not None
    x = product @ x
    return x.transpose(1, 2) if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum whose update is orthogonalised; its size matches AdamW's, so both take the same rate.

    Parameters of one shape are orthogonalised together: on a CPU that is several times faster than one by one.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for same_shape in by_shape(group["params"]):
                self._update(same_shape, group["lr"], group["momentum"], group["weight_decay"])

    def _update(self, parameters: list[Tensor], lr: float, momentum: float, weight_decay: float) -> None:
        grads = [p.grad for p in parameters if p.grad is not None]
        assert len(grads) == len(parameters), "Muon's parameters all take part in every step"
        buffers = [self.state[p].setdefault("momentum", torch.zeros_like(p)) for p in parameters]
        torch._foreach_mul_(buffers, momentum)
        torch._foreach_add_(buffers, grads)
        nesterov = torch._foreach_add(grads, buffers, alpha=momentum)
        matrices = torch.stack([tensor.reshape(tensor.shape[0], -1) for tensor in nesterov])
        scale = 0.2 * max(matrices.shape[1:]) ** 0.5  # the root mean square of an AdamW step
        for parameter, update in zip(parameters, orthogonalised(matrices), strict=True):
            parameter.mul_(1 - lr * weight_decay).add_(update.reshape(parameter.shape), alpha=-lr * scale)


def by_shape(parameters: Iterable[Tensor]) -> list[list[Tensor]]:
    """Parameters grouped by shape, first seen first."""
    groups: dict[torch.Size, list[Tensor]] = {}
    for parameter in parameters:
        groups.setdefault(parameter.shape, []).append(parameter)
    return list(groups.values())

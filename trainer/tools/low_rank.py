"""Low-rank algebra for LoRA files: the SVD of a product without the product, of a difference by subspace iteration, ranks.

The randomised SVD is that of Halko, Martinsson and Tropp 2011 (algorithm 4.4), iterated until its error no longer
falls.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

OVERSAMPLING = 16
MOST_ITERATIONS = 12
CONVERGED = 1.5e-2  # the error is then within 1 % of the best one's
ROUNDING = 1e-6  # of float32 in squared lengths


class Svd(NamedTuple):
    """u (m, k) and v (n, k) with orthonormal columns, s (k,) falling: the matrix is u · diag(s) · vᵀ."""

    u: Tensor
    s: Tensor
    v: Tensor

    def cut(self, rank: int) -> Svd:
        return Svd(self.u[:, :rank], self.s[:rank], self.v[:, :rank])

    def halves(self, rank: int) -> tuple[Tensor, Tensor]:
        """up (m, rank) and down (rank, n) whose product is the best approximation of this rank; s is shared evenly."""
        root = self.s[:rank].sqrt()
        return self.u[:, :rank] * root, (self.v[:, :rank] * root).T


def svd_of_product(up: Tensor, down: Tensor) -> Svd:
    """The exact SVD of up (m, r) · down (r, n) by two QR factorisations and the SVD of an r × r matrix."""
    left, upper = torch.linalg.qr(up)
    right, lower = torch.linalg.qr(down.T)
    u, s, vh = torch.linalg.svd(upper @ lower.T, full_matrices=False)
    return Svd(left @ u, s, right @ vh.T)


def exact_svd(matrix: Tensor) -> Svd:
    """All singular values of a float32 matrix (m, n) and their vectors, from the smaller of its two Gram matrices.

    That matrix is formed and decomposed in float64, where squaring costs no accuracy that float32 has; it is several
    times as quick as a bidiagonal SVD where m and n differ, and never slower.
    """
    wide = matrix.shape[0] < matrix.shape[1]
    tall = (matrix.T if wide else matrix).double()
    squares, v = torch.linalg.eigh(tall.T @ tall)
    s, v = squares.clamp(min=0).sqrt().flip(0), v.flip(1)
    u = (tall @ v / s.clamp(min=s[0] * 1e-12 + 1e-300)).to(matrix.dtype)
    v = v.to(matrix.dtype)
    return Svd(v, s.to(matrix.dtype), u) if wide else Svd(u, s.to(matrix.dtype), v)


def leading_svd(matrix: Tensor, rank: int, seed: int = 0) -> Svd:
    """The greatest `rank` singular values of a matrix (m, n) and their vectors.

    Exact where `rank` is not much less than the smaller side. Else by subspace iteration from a random start (the same
    for the same shape and `seed`), until one more iteration lessens the error by less than CONVERGED of it.
    """
    wide = matrix.shape[0] < matrix.shape[1]
    tall = matrix.T if wide else matrix
    size = min(rank + OVERSAMPLING, tall.shape[1])
    if size * 4 > tall.shape[1]:
        return exact_svd(matrix).cut(rank)
    start = torch.randn(tall.shape[1], size, generator=torch.Generator().manual_seed(seed)).to(matrix)
    basis = torch.linalg.qr(tall @ start)[0]
    rows = basis.T @ tall  # (size, n)
    whole, captured = float(tall.norm()) ** 2, _captured(rows, rank)
    for _ in range(MOST_ITERATIONS):
        before = captured
        basis = torch.linalg.qr(tall @ torch.linalg.qr(rows.T)[0])[0]
        rows = basis.T @ tall
        captured = _captured(rows, rank)
        if captured - before <= 2 * CONVERGED * (whole - captured) + ROUNDING * whole:
            break
    right, lower = torch.linalg.qr(rows.T)
    u, s, vh = torch.linalg.svd(lower.T, full_matrices=False)
    found = Svd(basis @ u, s, right @ vh.T).cut(rank)
    return Svd(found.v, found.s, found.u) if wide else found


def _captured(rows: Tensor, rank: int) -> float:
    """Σ s² over the `rank` greatest singular values of a wide matrix."""
    return float(torch.linalg.eigvalsh(rows @ rows.T)[-rank:].sum())


def rank_by_rule(s: Tensor, rule: str, amount: float, most: int) -> int:
    """The rank that a rule of `catalog.RULES` gives to a layer with the singular values s (falling), 1 to `most`."""
    values = s.double()
    if rule == "rank":
        rank = most
    elif rule == "frobenius":
        rank = _reaching(values.square(), amount**2)
    elif rule == "cumulative":
        rank = _reaching(values, amount)
    elif rule == "ratio":
        rank = int((values > values[0] / amount).sum())
    else:
        rank = int((values > amount).sum())
    return max(1, min(rank, most, len(s)))


def _reaching(values: Tensor, share: float) -> int:
    """How many of the values, from the first on, it takes to reach a share of their sum."""
    sums = values.cumsum(0)
    return int(torch.searchsorted(sums, share * sums[-1] * (1 - 1e-12)).item()) + 1

"""Low-rank algebra for LoRA files: the SVD of a product without the product, of a difference by subspace iteration, ranks.

The leading singular vectors are those of Musco and Musco 2015, "Randomized block Krylov methods", of as many blocks as
it takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

OVERSAMPLING = 16
CONVERGED = 0.6  # the next block would lessen the error by a thirtieth of that: it is within 1.5 % of the least one
MOST_THREADS = 8  # each holds a layer or two
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
    """The greatest `rank` singular values of a float32 matrix (m, n) and their vectors.

    Exact where `rank` is not much less than the smaller side. Else from a block Krylov space that begins with random
    columns (the same for the same shape and `seed`) and grows by a block until that lessens the error by less than
    CONVERGED of it.
    """
    wide = matrix.shape[0] < matrix.shape[1]
    tall = matrix.T if wide else matrix
    size = min(rank + OVERSAMPLING, tall.shape[1])
    if size * 4 > tall.shape[1]:
        return exact_svd(matrix).cut(rank)
    start = torch.randn(tall.shape[1], size, generator=torch.Generator().manual_seed(seed)).to(matrix)
    basis = block = orthonormal(tall @ start)
    rows = block_rows = block.T @ tall  # (size, n)
    whole, captured = float(tall.norm()) ** 2, _captured(rows, rank)
    while whole - captured > ROUNDING * whole and basis.shape[1] + size <= tall.shape[1]:
        block = tall @ orthonormal(block_rows.T)
        for _ in range(2):  # what one projection leaves of the basis by rounding, the other takes
            block = orthonormal(block - basis @ (basis.T @ block))
        block_rows = block.T @ tall
        basis, rows = torch.cat((basis, block), 1), torch.cat((rows, block_rows))
        before, captured = captured, _captured(rows, rank)
        if captured - before <= CONVERGED * (whole - captured):
            break
    inner = exact_svd(rows).cut(rank)
    found = Svd(basis @ inner.u, inner.s, inner.v)
    return Svd(found.v, found.s, found.u) if wide else found


def orthonormal(tall: Tensor) -> Tensor:
    """Orthonormal columns that span those of a float32 matrix (m, k) with k much less than m, in its shape.

    By its Gram matrix in float64, which is several times as quick as Householder's QR and loses nothing that float32
    holds. Directions shorter than 1e-7 of the longest are rounding, and become columns of zeros.
    """
    exact = tall.double()
    gram = exact.T @ exact
    lower, failed = torch.linalg.cholesky_ex(gram)
    sides = lower.diagonal()
    if not failed and float(sides.min()) > 1e-6 * float(sides.max()):
        ones = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        return (exact @ torch.linalg.solve_triangular(lower, ones, upper=False).T).to(tall.dtype)
    squares, vectors = torch.linalg.eigh(gram)
    is_real = squares > squares[-1].clamp(min=1e-280) * 1e-14
    scale = torch.where(is_real, squares, 1.0).rsqrt() * is_real
    return (exact @ (vectors * scale)).to(tall.dtype)


def _captured(rows: Tensor, rank: int) -> float:
    """Σ s² over the `rank` greatest singular values of a wide matrix."""
    return float(torch.linalg.eigvalsh((rows @ rows.T).double())[-rank:].sum())


@contextmanager
def a_core_each() -> Iterator[int]:
    """How many threads may work on layers, while torch gives each of them one core: that is quicker for matrices of
    this size than all cores for each in turn."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield min(threads, MOST_THREADS)
    finally:
        torch.set_num_threads(threads)


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

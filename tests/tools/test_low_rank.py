"""The algebra behind extract, join and resize, against plain SVDs."""

from __future__ import annotations

import pytest
import torch

from trainer.tools.low_rank import exact_svd, leading_svd, orthonormal, rank_by_rule, svd_of_product


def decaying(rows: int, columns: int, power: float = 1.0, seed: int = 0) -> torch.Tensor:
    """A matrix whose singular values fall as 1 ÷ k^power: slowly, as those of trained differences do."""
    draw = torch.Generator().manual_seed(seed)
    small = min(rows, columns)
    left = torch.linalg.qr(torch.randn(rows, small, generator=draw))[0]
    right = torch.linalg.qr(torch.randn(columns, small, generator=draw))[0]
    return left * torch.arange(1, small + 1).float().pow(-power) @ right.T


@pytest.mark.parametrize("shape", [(40, 24), (24, 40), (32, 32)])
def test_the_svd_of_a_product_needs_no_product(shape: tuple[int, int]) -> None:
    draw = torch.Generator().manual_seed(0)
    up, down = torch.randn(shape[0], 6, generator=draw), torch.randn(6, shape[1], generator=draw)
    found = svd_of_product(up, down)
    expected = torch.linalg.svdvals((up @ down).double())[:6].float()
    torch.testing.assert_close(found.s, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.u * found.s @ found.v.T, up @ down, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(96, 40), (40, 96), (64, 64)])
def test_the_exact_svd_has_all_values(shape: tuple[int, int]) -> None:
    matrix = decaying(*shape)
    found = exact_svd(matrix)
    torch.testing.assert_close(found.s, torch.linalg.svdvals(matrix.double()).float(), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(found.u * found.s @ found.v.T, matrix, rtol=1e-4, atol=1e-6)


def test_the_exact_svd_of_nothing_is_nothing() -> None:
    found = exact_svd(torch.zeros(8, 5))
    assert found.s.count_nonzero() == 0 and torch.isfinite(found.u).all()


@pytest.mark.parametrize("power", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(600, 200), (200, 600)])
def test_the_randomised_svd_loses_next_to_nothing(shape: tuple[int, int], power: float) -> None:
    matrix = decaying(*shape, power)
    found = leading_svd(matrix, 16)
    left = (matrix - found.u * found.s @ found.v.T).norm()
    best = torch.linalg.svdvals(matrix.double())[16:].square().sum().sqrt()
    assert float(left / best) < 1.01, "the error is that of the best approximation of this rank, to 1 %"
    again = leading_svd(matrix, 16)
    assert torch.equal(found.s, again.s), "the same matrix gives the same LoRA"


def test_the_randomised_svd_finds_an_exact_low_rank() -> None:
    draw = torch.Generator().manual_seed(0)
    matrix = torch.randn(300, 4, generator=draw) @ torch.randn(4, 200, generator=draw)
    found = leading_svd(matrix, 4)
    torch.testing.assert_close(found.u * found.s @ found.v.T, matrix, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rank", [0, 1, 4])
@pytest.mark.parametrize("shape", [(900, 500), (500, 900)])
def test_what_has_fewer_directions_than_asked_for_is_found_whole(shape: tuple[int, int], rank: int) -> None:
    draw = torch.Generator().manual_seed(rank)
    matrix = torch.randn(shape[0], rank, generator=draw) @ torch.randn(rank, shape[1], generator=draw)
    found = leading_svd(matrix, 32)
    assert all(torch.isfinite(half).all() for half in found.halves(32))
    torch.testing.assert_close(found.u * found.s @ found.v.T, matrix, rtol=1e-4, atol=1e-4)
    assert int((found.s > 1e-4 * (found.s[0] + 1e-30)).sum()) == rank


@pytest.mark.parametrize("strength", [1e-12, 1e12])
def test_the_randomised_svd_does_not_mind_how_long_a_change_is(strength: float) -> None:
    matrix = decaying(600, 300, 0.5)
    torch.testing.assert_close(leading_svd(matrix * strength, 16).s / strength, leading_svd(matrix, 16).s, rtol=1e-4, atol=0)


@pytest.mark.parametrize("lost", [0, 3])
def test_orthonormal_columns_span_what_was_given(lost: int) -> None:
    draw = torch.Generator().manual_seed(0)
    tall = torch.randn(400, 12, generator=draw) * torch.logspace(0, -5, 12)
    tall[:, 12 - lost :] = tall[:, :1]
    columns = orthonormal(tall)
    squares = (columns.T @ columns).diagonal()
    assert int((squares > 0.5).sum()) == 12 - lost
    torch.testing.assert_close(columns.T @ columns, torch.diag(squares.round()), rtol=0, atol=1e-5)
    torch.testing.assert_close(columns @ (columns.T @ tall), tall, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("rule", "amount", "rank"),
    [("rank", 0.0, 4), ("threshold", 2.5, 2), ("threshold", 100.0, 1), ("ratio", 2.1, 3),
     ("cumulative", 0.66, 2), ("cumulative", 0.7, 3), ("cumulative", 1.0, 4),
     ("frobenius", 0.7, 1), ("frobenius", 0.9, 2), ("frobenius", 0.95, 3), ("frobenius", 1.0, 4)],
)  # fmt: skip
def test_rules(rule: str, amount: float, rank: int) -> None:
    """By hand: s = 4, 3, 2, 1, 0.5; its sum is 10.5, its length √30.25 = 5.5."""
    assert rank_by_rule(torch.tensor([4.0, 3.0, 2.0, 1.0, 0.5]), rule, amount, 4) == rank

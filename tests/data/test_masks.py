"""Masks for inpainting: drawn from a key, of every kind, and cut out as diffusers' pipeline does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.masks import FULL, draw_mask, opaque_part, shrink


@pytest.mark.parametrize("variant", range(8))
def test_a_mask_follows_from_its_key(variant: int) -> None:
    one, again = draw_mask(96, 64, "abc", variant), draw_mask(96, 64, "abc", variant)
    assert one.shape == (64, 96) and one.dtype == np.uint8 and set(np.unique(one)) <= {0, 1}
    assert np.array_equal(one, again)
    assert (variant == FULL) == bool(one.all())
    assert variant == FULL or not np.array_equal(one, draw_mask(96, 64, "abd", variant))


@given(st.integers(8, 200), st.integers(8, 200), st.text(max_size=4), st.integers(0, 9))
def test_every_mask_covers_something(width: int, height: int, key: str, variant: int) -> None:
    mask = draw_mask(width, height, key, variant)
    assert mask.shape == (height, width) and mask.any()


def test_drawn_masks_leave_much_and_differ_in_kind() -> None:
    shares = {kind: [draw_mask(64, 64, str(n), kind).mean() for n in range(60)] for kind in (0, 2, 3)}
    for kind, found in shares.items():
        assert 0.05 < np.mean(found) < 0.8, kind
        assert np.std(found) > 0.05, kind
    mask = draw_mask(64, 64, "a", 2)  # strokes are round: they fill no rectangle
    rows, columns = np.nonzero(mask)
    box = (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
    assert mask.sum() < 0.95 * box


def test_the_opaque_part() -> None:
    opacity = np.zeros((4, 4), np.uint8)
    opacity[1:3, 1:3] = 255
    opacity[0, 0] = 100
    mask = opaque_part(opacity)
    assert mask is not None and mask.sum() == 4 and mask[1, 1] == 1 and mask[0, 0] == 0
    assert opaque_part(np.full((4, 4), 255, np.uint8)) is None and opaque_part(np.zeros((4, 4), np.uint8)) is None


def test_it_shrinks_as_in_diffusers_pipeline() -> None:
    mask = draw_mask(96, 64, "a", 3)
    whole = torch.from_numpy(mask)[None, None].float()
    small = torch.nn.functional.interpolate(whole, size=(8, 12))[0, 0]
    assert torch.equal(torch.from_numpy(shrink(mask, 8)), small) and 0 < small.mean() < 1

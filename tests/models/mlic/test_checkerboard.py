"""The checkerboard's halves, and who is whose neighbour."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latentpress.models.mlic.checkerboard import (
    anchors_around,
    anchors_inside,
    merge,
    split,
    window_offsets,
)

sides = st.integers(1, 9)


@given(sides, sides, st.integers(1, 3))
def test_split_and_merge(height, width, channels):
    x = torch.arange(2 * height * width * channels).view(2, height, width, channels) + 1
    halves = split(x)
    assert halves.anchor.shape == halves.other.shape == (2, height, (width + 1) // 2, channels)
    assert torch.equal(merge(halves, width), x)


@given(sides, sides)
def test_anchors_are_where_row_plus_column_is_even(height, width):
    parity = (torch.arange(height)[:, None] + torch.arange(width)) % 2
    halves = split((parity + 1)[None, ..., None])
    # Zero stands for the position that an odd width leaves over.
    assert set(halves.anchor.unique().tolist()) <= {0, 1}
    assert set(halves.other.unique().tolist()) <= {0, 2}


@given(sides, sides, st.integers(1, 3))
def test_neighbours_are_those_of_a_loop(height, width, radius):
    x = torch.arange(height * width).view(1, height, width, 1) + 1
    around = split_positions(x, anchors_around(split(x).anchor, radius), width)
    inside = split_positions(x, anchors_inside(height, width, radius)[None, ..., None].long(), width)
    for row in range(height):
        for column in range(width):
            if (row + column) % 2 == 0:
                continue
            for k, (dy, dx) in enumerate(window_offsets(radius)):
                there = 0 <= row + dy < height and 0 <= column + dx < width
                expected = int(x[0, row + dy, column + dx]) if there else 0
                assert int(around[row, column, k]) == expected
                assert bool(inside[row, column, k]) == there


def split_positions(x: torch.Tensor, per_other: torch.Tensor, width: int) -> torch.Tensor:
    """Per-position values of the other half, back on the map ``(h, w, n)``."""
    flat = per_other.flatten(3)
    return merge(type(split(x))(torch.zeros_like(flat), flat), width)[0]


def test_a_window_has_twelve_anchors():
    assert len(window_offsets(2)) == 12
    assert all((dy + dx) % 2 for dy, dx in window_offsets(2))


@pytest.mark.parametrize("width", [4, 5])
def test_gradients_pass(width):
    x = torch.randn(1, 3, width, 2, requires_grad=True)
    (merge(split(x), width) * 3).sum().backward()
    assert torch.equal(x.grad, torch.full_like(x, 3))

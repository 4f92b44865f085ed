"""The router: ratios a picture, and maps that fit together."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latentpress.models.index.granularity import (
    GrainScores,
    fractions_of_detail,
    patch_entropy,
    repeat_positions,
    route,
)


def scores(seed: int, h: int, w: int, count: int = 2) -> GrainScores:
    generator = torch.Generator().manual_seed(seed)
    return GrainScores(
        torch.rand(count, h, w, generator=generator), torch.rand(count, 2 * h, 2 * w, generator=generator)
    )


@given(st.integers(1, 5), st.integers(1, 5), st.floats(0, 1), st.floats(0, 1), st.integers(0, 99))
def test_every_position_has_one_granularity(h, w, split, fine, seed) -> None:
    grains = route(scores(seed, h, w), torch.tensor([split, 1.0]), torch.tensor([fine, 0.0]))
    covered = (
        repeat_positions(grains.coarse_mask(), 4).int()
        + repeat_positions(grains.medium_mask(), 2).int()
        + grains.fine_mask().int()
    )
    assert torch.equal(covered, torch.ones_like(covered))
    count = int(grains.split[0].sum())
    assert count == round(float(torch.tensor(split) * (h * w)))
    assert int(grains.fine[0].sum()) == int((torch.tensor(fine) * 4 * count).round())


def test_ratios_hold_for_every_picture_by_itself() -> None:
    found = scores(3, 4, 4)
    # One picture with all large scores must not take the other's splits.
    found = GrainScores(found.cells + torch.tensor([0.0, 10.0])[:, None, None], found.quarters)
    grains = route(found, torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.25]))
    assert grains.split.flatten(1).sum(dim=1).tolist() == [8, 8]
    assert grains.fine.flatten(1).sum(dim=1).tolist() == [8, 8]


def test_largest_scores_are_split() -> None:
    found = scores(5, 4, 6, count=1)
    grains = route(found, torch.tensor([0.25]), torch.tensor([0.5]))
    assert found.cells[grains.split].min() > found.cells[~grains.split].max()
    medium, fine = found.quarters[grains.medium_mask()], found.quarters[grains.fine]
    assert fine.min() > medium.max()


def test_entropy_of_known_patches() -> None:
    image = torch.zeros(1, 16, 32, 3)
    # Half black, half white in the right cell: one bit; nothing to know of the left one.
    image[:, 8:, 16:] = 1
    found = patch_entropy(image)
    assert found.cells.flatten().tolist() == pytest.approx([0, 1], abs=1e-5)
    assert found.quarters.abs().max() < 1e-5


def test_a_grey_between_two_bins_is_shared() -> None:
    image = torch.full((1, 16, 16, 3), 10.25 / 31)
    expected = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    assert float(patch_entropy(image).cells) == pytest.approx(expected, abs=1e-3)


def test_detail_is_monotone() -> None:
    split, fine = fractions_of_detail(torch.linspace(0, 1, 11))
    assert (split.diff() > 0).all()
    assert (fine.diff() > 0).all()
    assert (float(split[-1]), float(fine[-1])) == (1, 1)

"""Layers of volumes against slower ways to compute the same."""

import pytest
import torch
from torch.nn import functional as F

from latentpress.models.volume import BoundaryFilter, NeighbourConv, VolumeBlock, fold, neighbours, unfold

OPEN = torch.zeros(1, 3, dtype=torch.bool)
CLOSED = torch.ones(1, 3, dtype=torch.bool)


def test_neighbour_conv_is_a_convolution_with_a_star() -> None:
    torch.manual_seed(0)
    layer = NeighbourConv(4)
    torch.nn.init.normal_(layer.bias)
    kernel = torch.zeros(4, 1, 3, 3, 3)
    places = [(1, 1, 1), (0, 1, 1), (2, 1, 1), (1, 0, 1), (1, 2, 1), (1, 1, 0), (1, 1, 2)]
    for tap, (i, j, k) in zip(layer.taps.detach(), places, strict=True):
        kernel[:, 0, i, j, k] = tap
    x = torch.randn(1, 3, 4, 5, 4)
    for flags, mode in ((OPEN, "replicate"), (CLOSED, "circular")):
        padded = F.pad(x.permute(0, 4, 1, 2, 3), (1,) * 6, mode=mode)
        expected = F.conv3d(padded, kernel, layer.bias, groups=4).permute(0, 2, 3, 4, 1)
        assert torch.allclose(layer(x, flags), expected, atol=1e-5)


def test_neighbours_differ_by_sample() -> None:
    x = torch.arange(3.0).view(1, 1, 3, 1, 1).expand(2, 1, 3, 1, 1)
    before, after = neighbours(x, 2, torch.tensor([[False] * 3, [False, True, False]]))
    assert before[:, 0, :, 0, 0].tolist() == [[0, 0, 1], [2, 0, 1]]
    assert after[:, 0, :, 0, 0].tolist() == [[1, 2, 2], [1, 2, 0]]


def test_axis_of_one_position() -> None:
    x = torch.randn(1, 1, 1, 1, 8)
    for flags in (OPEN, CLOSED):
        assert torch.isfinite(VolumeBlock(8)(x, flags)).all()


def test_fold_order() -> None:
    x = torch.arange(2 * 4 * 2 * 3.0).view(1, 2, 4, 2, 3)
    folded = fold(x, 2)
    assert torch.equal(folded[0, 0, 1, 0], x[0, :, 2:4, :, :].flatten())
    assert torch.equal(unfold(folded, 2), x)


def test_boundary_filter_and_its_inverse() -> None:
    torch.manual_seed(0)
    there, back = BoundaryFilter(8), BoundaryFilter(8)
    with torch.no_grad():
        there.matrix.add_(torch.randn(8, 8) * 0.2)
        back.matrix.copy_(there.matrix.inverse())
    x = torch.randn(2, 16, 8, 24, 3)
    flags = torch.tensor([[True, False, True], [False, True, False]])
    with torch.no_grad():
        assert torch.allclose(back(there(x, flags), flags), x, atol=1e-4)
        # Ends that do not continue stay as they are; the middle of a block never changes.
        filtered = there(x, flags)
        assert not torch.allclose(filtered[0, :4], x[0, :4])
        alone = there._along(x, 1, flags)
        assert torch.equal(alone[1, :4], x[1, :4])


def test_periodic_filter_commutes_with_shifts_by_blocks() -> None:
    torch.manual_seed(0)
    layer = BoundaryFilter(8)
    with torch.no_grad():
        layer.matrix.add_(torch.randn(8, 8) * 0.2)
        x = torch.randn(1, 16, 16, 16, 1)
        shifted = layer(x.roll((8, 8), (1, 3)), CLOSED)
        assert torch.allclose(shifted, layer(x, CLOSED).roll((8, 8), (1, 3)), atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 1, 1, 1), (2, 1, 6, 2)])
@pytest.mark.parametrize("channels", [1, 7])
def test_sums_without_gradients_are_the_same_bit_for_bit(shape, channels) -> None:
    layer = NeighbourConv(channels)
    x = torch.randn(*shape, channels)
    periodic = torch.rand(shape[0], 3) < 0.5
    expected = layer(x, periodic)
    with torch.no_grad():
        assert torch.equal(layer(x, periodic), expected)

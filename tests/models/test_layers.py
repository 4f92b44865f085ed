"""Layers in channels-last layout, against plain definitions."""

import pytest
import torch
from torch.nn import functional as F

from latentpress.models.layers import (
    ContrastNormalisation,
    DepthConvBlock,
    DepthwiseConv,
    Downsample,
    Upsample,
    depth_to_space,
    space_to_depth,
)


@pytest.mark.parametrize(("factor", "shape"), [(2, (2, 4, 6, 3)), (4, (1, 8, 12, 1)), (8, (1, 16, 8, 3))])
def test_space_to_depth_and_back(factor, shape) -> None:
    x = torch.rand(shape)
    deep = space_to_depth(x, factor)
    b, h, w, c = shape
    assert deep.shape == (b, h // factor, w // factor, factor * factor * c)
    assert torch.equal(depth_to_space(deep, factor), x)
    assert torch.equal(space_to_depth(depth_to_space(deep, factor), factor), deep)


def test_space_to_depth_orders_channels_by_row_column_colour() -> None:
    x = torch.arange(4 * 4 * 3).view(1, 4, 4, 3)
    deep = space_to_depth(x, 2)
    for row in range(2):
        for column in range(2):
            square = x[0, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            assert torch.equal(deep[0, row, column], square.reshape(-1))


def test_depth_to_space_agrees_with_pixel_shuffle() -> None:
    x = torch.rand(2, 3, 5, 4 * 3)
    # PyTorch's channels run over (C, row, column), these over (row, column, C).
    theirs = x.view(2, 3, 5, 4, 3).transpose(3, 4).reshape(2, 3, 5, 12).permute(0, 3, 1, 2)
    assert torch.equal(depth_to_space(x, 2), F.pixel_shuffle(theirs, 2).permute(0, 2, 3, 1))


def test_space_to_depth_takes_other_memory_layouts() -> None:
    x = torch.rand(1, 3, 4, 4).permute(0, 2, 3, 1)
    assert torch.equal(space_to_depth(x[:, :, :, :], 2), space_to_depth(x.contiguous(), 2))


def test_depthwise_against_a_loop() -> None:
    torch.manual_seed(0)
    layer = DepthwiseConv(5)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, 4, 7, 5)
    expected = torch.zeros_like(x)
    for row in range(4):
        for column in range(7):
            total = layer.bias.detach().expand(2, 5).clone()
            for i in (-1, 0, 1):
                for j in (-1, 0, 1):
                    if 0 <= row + i < 4 and 0 <= column + j < 7:
                        total += x[:, row + i, column + j] * layer.weight.detach()[:, 0, i + 1, j + 1]
            expected[:, row, column] = total
    torch.testing.assert_close(layer(x).detach(), expected)


def test_depthwise_keeps_channels_apart() -> None:
    layer = DepthwiseConv(4)
    x = torch.randn(1, 5, 5, 4)
    y = x.clone()
    y[..., 2] += 1
    changed = (layer(x) != layer(y)).flatten(0, 2).any(0)
    assert changed.tolist() == [False, False, True, False]


@pytest.mark.parametrize("expansion", [1, 2, 3])
@pytest.mark.parametrize("size", [(1, 1), (3, 5)])
def test_block_keeps_the_shape(expansion, size) -> None:
    block = DepthConvBlock(6, expansion)
    assert block.value.out_features == 6 * expansion
    assert block(torch.randn(2, *size, 6)).shape == (2, *size, 6)


def test_block_is_residual() -> None:
    block = DepthConvBlock(4)
    for layer in (block.project, block.output):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    x = torch.randn(1, 3, 3, 4)
    assert torch.equal(block(x), x)


def test_block_sees_direct_neighbours_only() -> None:
    block = DepthConvBlock(4)
    x = torch.randn(1, 7, 7, 4)
    y = x.clone()
    y[:, 3, 3] += 1
    changed = (block(x) != block(y)).any(-1)[0]
    expected = torch.zeros(7, 7, dtype=torch.bool)
    expected[2:5, 2:5] = True
    assert torch.equal(changed, expected)


def test_down_and_up() -> None:
    x = torch.randn(2, 4, 6, 3)
    down, up = Downsample(3, 5), Upsample(5, 3)
    assert down(x).shape == (2, 2, 3, 5)
    assert up(down(x)).shape == x.shape
    with torch.no_grad():
        identity = Downsample(3, 12)
        identity.linear.weight.copy_(torch.eye(12))
        identity.linear.bias.zero_()
    assert torch.equal(identity(x), space_to_depth(x, 2))


def test_contrast_normalisation_by_hand() -> None:
    layer = ContrastNormalisation(2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, 0.5]))
    x = torch.tensor([3.0, 8.0]).view(1, 1, 1, 2)
    # u = (3, 4), whose mean square is 12.5.
    torch.testing.assert_close(layer(x).flatten(), torch.tensor([3.0, 4.0]) / 13.5**0.5)


def test_strong_contrasts_look_alike_and_weak_ones_stay_weak() -> None:
    layer, x = ContrastNormalisation(8), torch.randn(2, 3, 5, 8)
    torch.testing.assert_close(layer(x * 1e4), layer(x * 2e4), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(layer(x * 1e-4), x * 1e-4, rtol=1e-4, atol=1e-8)


def test_normalised_block_is_bounded() -> None:
    """An outlier of any size moves a block's branches by no more than a bounded amount."""
    torch.manual_seed(0)
    x = torch.randn(1, 3, 3, 8) * 1e6
    plain, normalised = DepthConvBlock(8), DepthConvBlock(8, normalisation=ContrastNormalisation)
    with torch.no_grad():
        assert float((plain(x) - x).abs().max()) > 1e8
        assert float((normalised(x) - x).abs().max()) < 100

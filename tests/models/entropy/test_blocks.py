"""Blocks of the entropy networks."""

import torch

from latentpress.models.entropy.blocks import (
    GATE_LIMIT,
    NEGATIVE_SLOPE,
    ContextBlock,
    LeakyRectifier,
    RectifiedProduct,
)


def test_rectifier() -> None:
    x = torch.tensor([-8.0, 0.0, 3.0])
    assert LeakyRectifier()(x).tolist() == [-8 * NEGATIVE_SLOPE, 0.0, 3.0]


def test_product() -> None:
    value, gate = torch.tensor([2.0, -3.0, 5.0]), torch.tensor([4.0, 2.0, -1.0])
    assert RectifiedProduct()(value, gate).tolist() == [8.0, -6.0, 0.0]
    assert RectifiedProduct()(value, gate + 100).tolist() == (value * GATE_LIMIT).tolist()


def test_block_is_residual() -> None:
    block = ContextBlock(4)
    for layer in (block.project, block.output):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    x = torch.randn(2, 3, 5, 4)
    assert torch.equal(block(x), x)

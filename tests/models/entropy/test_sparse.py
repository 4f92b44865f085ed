"""Integer blocks on lists of positions equal the dense ones, unit for unit."""

import pytest
import torch

from latentpress.models.entropy.blocks import ContextBlock
from latentpress.models.entropy.fixed_point import convert, to_fixed_point
from latentpress.models.entropy.sparse import Positions, grown, run_blocks


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_equal_to_the_dense_blocks_where_it_must_be(seed, scale) -> None:
    torch.manual_seed(seed)
    blocks = torch.nn.Sequential(*(ContextBlock(6) for _ in range(2)))
    for parameter in blocks.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    blocks = convert(blocks)
    x = to_fixed_point(torch.randn(1, 9, 11, 6) * scale)
    needed = torch.rand(9, 11) < 0.15
    positions = Positions(grown(needed, 2))
    found = torch.zeros_like(x)
    found[0].flatten(0, 1)[positions.index] = run_blocks(blocks, positions.take(x), positions)
    assert torch.equal(found[0][needed], blocks(x)[0][needed])


def test_growing() -> None:
    mask = torch.zeros(7, 7).bool()
    mask[3, 3] = True
    assert int(grown(mask, 2).sum()) == 25
    assert torch.equal(grown(mask, 0), mask)


def test_neighbours_at_the_border_are_nothing() -> None:
    positions = Positions(torch.ones(2, 3).bool())
    assert positions.neighbours[4].tolist() == [0, 1, 2, 3, 4, 5]
    assert positions.neighbours[0].tolist() == [6, 6, 6, 6, 0, 1]

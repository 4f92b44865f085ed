"""Integer blocks band by band equal the same blocks layer by layer, unit for unit."""

import pytest
import torch

from latentpress.models.entropy.banded import run_banded
from latentpress.models.entropy.blocks import ContextBlock
from latentpress.models.entropy.fixed_point import convert, convolutions, to_fixed_point
from latentpress.models.entropy.sparse import Positions, grown, run_blocks


def integer_blocks(seed, depth=2):
    torch.manual_seed(seed)
    blocks = torch.nn.Sequential(*(ContextBlock(6) for _ in range(depth)))
    for parameter in blocks.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return convert(blocks)


@pytest.mark.parametrize("band", [1, 150, 2**17])
@pytest.mark.parametrize("scale", [1.0, 300.0])
@pytest.mark.parametrize("depth", [1, 3])
def test_equal_to_the_layers(monkeypatch, band, scale, depth) -> None:
    monkeypatch.setattr(convolutions, "_BAND", band)
    blocks = integer_blocks(1, depth)
    grid = to_fixed_point(torch.randn(1, 9, 11, 6) * scale)
    layers = blocks(grid)
    wanted = torch.rand(9, 11) < 0.3
    assert torch.equal(run_banded(blocks, grid.clone(), wanted), layers[0][wanted])
    assert torch.equal(run_banded(blocks, grid.clone()), layers)


def test_nothing_wanted() -> None:
    grid = to_fixed_point(torch.randn(1, 3, 4, 6))
    assert run_banded(integer_blocks(2), grid, torch.zeros(3, 4).bool()).shape == (0, 6)


def test_lists_of_which_some_rows_are_wanted() -> None:
    blocks = integer_blocks(3)
    grid = to_fixed_point(torch.randn(1, 9, 11, 6))
    needed = torch.rand(9, 11) < 0.2
    wanted = needed & (torch.rand(9, 11) < 0.5)
    positions = Positions(grown(needed, 2))
    found = run_blocks(blocks, positions.take(grid), positions, positions.rows_of(wanted))
    assert torch.equal(found, blocks(grid)[0][wanted])

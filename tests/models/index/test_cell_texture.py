"""Texture of coarse cells: the pattern goes, its energy stays, and split cells are left alone."""

import pytest
import torch

from latentpress.models.index.cell_texture import CellTexture, position_noise, texture_noise
from latentpress.models.index.granularity import GrainMap, uniform_maps


def pattern() -> torch.Tensor:
    values = torch.randn(768, generator=torch.Generator().manual_seed(3))
    values -= values.mean()
    return values / values.norm()


def patterned(rows: int, columns: int, share: float) -> torch.Tensor:
    cell = (share * pattern()).view(16, 16, 3) + 0.5
    return cell.repeat(rows, columns, 1)[None]


def test_the_pattern_is_replaced_by_as_much_noise() -> None:
    image = patterned(12, 12, 3.0)
    found = CellTexture(pattern())(image, uniform_maps(12, 12, "cpu")[0])
    mean = found[0].view(12, 16, 12, 16, 3).mean((0, 2)) - 0.5
    assert float((mean.flatten() @ pattern()).abs()) < 0.3
    energies = [float((x - 0.5).square().mean()) for x in (image, found)]
    assert energies[1] == pytest.approx(energies[0], rel=0.1)


def test_split_cells_stay() -> None:
    image = patterned(1, 4, 3.0)
    split = torch.tensor([[[False, True, True, True]]])
    found = CellTexture(pattern())(image, GrainMap(split, torch.zeros(1, 2, 8).bool()))
    torch.testing.assert_close(found[:, :, 24:], image[:, :, 24:])
    assert float((found[:, :, :16] - image[:, :, :16]).abs().max()) > 0.01


def test_pictures_without_the_pattern_stay() -> None:
    image = torch.full((2, 32, 32, 3), 0.4)
    grains = GrainMap(torch.zeros(2, 2, 2).bool(), torch.zeros(2, 4, 4).bool())
    torch.testing.assert_close(CellTexture(pattern())(image, grains), image)


def test_noise_is_the_same_everywhere() -> None:
    assert position_noise(2, 3, "cpu", seed=1).mul(147.799).round().int().tolist() == NOISE
    noise = position_noise(300, 400, "cpu")
    assert abs(float(noise.mean())) < 0.02
    assert float(noise.std()) == pytest.approx(1, abs=0.02)
    neighbours = (noise[:, 1:] * noise[:, :-1]).mean(), (noise[1:] * noise[:-1]).mean()
    assert all(abs(float(value)) < 0.02 for value in neighbours)
    assert float(texture_noise(512, 512, "cpu").std()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("bad", [torch.zeros(768), torch.zeros(12), torch.full((768,), torch.nan)])
def test_what_is_no_pattern_is_refused(bad) -> None:
    with pytest.raises(ValueError, match="pattern"):
        CellTexture(bad)


# Deviations of a few positions from the mean, in whole numbers; pictures everywhere depend on them.
NOISE = [[-2, -278, 293], [-28, 192, 19]]

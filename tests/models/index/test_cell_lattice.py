"""The lattice of decoded pictures: it goes, what is not in its directions stays, and so do fine cells."""

import pytest
import torch

from latentpress.models.index.cell_lattice import NOISE, CellLattice, LatticeDirections
from latentpress.models.index.granularity import GrainMap, uniform_maps


def directions(coarse: int = 2, medium: int = 2) -> LatticeDirections:
    generator = torch.Generator().manual_seed(5)
    return LatticeDirections(
        *(
            torch.linalg.qr(torch.randn(values, count, generator=generator))[0].T
            for values, count in ((768, coarse), (192, medium))
        )
    )


def latticed(direction: torch.Tensor, side: int, rows: int, columns: int) -> torch.Tensor:
    return 0.5 + direction.view(side, side, 3).repeat(rows, columns, 1)[None]


def shares(image: torch.Tensor, direction: torch.Tensor, side: int) -> torch.Tensor:
    _, height, width, _ = image.shape
    cells = image.view(height // side, side, width // side, side, 3)
    return torch.einsum("hiwjc,ijc->hw", cells, direction.view(side, side, 3))


def test_medium_quarters_lose_what_they_have_in_the_directions() -> None:
    found = directions()
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(1, 32, 48, 3, generator=generator)
    finished = CellLattice(found)(image, uniform_maps(2, 3, "cpu")[1])
    for direction in found.medium:
        assert float(shares(image, direction, 8).abs().max()) > 0.1
        assert float(shares(finished, direction, 8).abs().max()) < 1e-4
    # And nothing else: what is gone has no more dimensions than there are directions.
    gone = (image - finished).view(4, 8, 6, 8, 3).permute(0, 2, 1, 3, 4).reshape(24, 192)
    assert int(torch.linalg.matrix_rank(gone, tol=1e-4)) == 2


def test_coarse_cells_have_a_little_noise_in_its_place() -> None:
    found = directions()
    image = latticed(4 * found.coarse[0], 16, 12, 12)
    finished = CellLattice(found)(image, uniform_maps(12, 12, "cpu")[0])
    mean = finished[0].view(12, 16, 12, 16, 3).mean((0, 2)).flatten() - 0.5
    assert abs(float(mean @ found.coarse[0])) < 0.6  # of 4
    before, after = (float((x - 0.5).square().mean()) for x in (image, finished))
    assert after == pytest.approx(NOISE**2 * before, rel=0.2)


def test_fine_quarters_stay() -> None:
    found = directions()
    image = latticed(found.medium[0], 8, 4, 4)
    fine = torch.zeros(1, 4, 4).bool()
    fine[0, 1, 2] = True
    finished = CellLattice(found)(image, GrainMap(torch.ones(1, 2, 2).bool(), fine))
    changed = (finished - image).abs().view(4, 8, 4, 8, 3).amax((1, 3, 4)) > 0.01
    assert torch.equal(changed, ~fine[0])


def test_there_may_be_none() -> None:
    image = torch.rand(2, 32, 32, 3)
    for grains in uniform_maps(2, 2, "cpu"):
        both = GrainMap(*(x.expand(2, -1, -1) for x in grains))
        torch.testing.assert_close(CellLattice(directions(0, 0))(image, both), image)


@pytest.mark.parametrize(
    "bad",
    [
        LatticeDirections(torch.zeros(1, 192), torch.zeros(0, 192)),
        LatticeDirections(torch.zeros(0, 768), torch.zeros(1, 192)),
        LatticeDirections(torch.zeros(0, 768), torch.full((1, 192), torch.nan)),
        LatticeDirections(torch.zeros(0, 768), directions().medium[:1].repeat(2, 1)),
        LatticeDirections(torch.zeros(0, 768), torch.zeros(192)),
    ],
)
def test_what_are_no_directions_is_refused(bad) -> None:
    with pytest.raises(ValueError, match="lattice"):
        CellLattice(bad)

"""Lattice of decoded pictures: what every cell of a granularity has in common, taken out.

A decoder that knows one code for 64 or 256 pixels adds a little of the same pattern to whatever it decodes.
In one cell nobody sees it, but cells lie on a grid: smooth areas get a faint lattice. Most of it is in a few
directions of the space of cells, in which photographs have little. They are measured once
(:mod:`latentpress.train.index_lattice`), and cells lose what they have in them::

    decoded cell -> shares of the directions -+-> cell without them -----+--> picture
                                              '-> in coarse ones, noise -'

What is taken out of a coarse cell is some of the little texture that it has, so an eighth of the energy
comes back as noise. Fine cells stay as they are: they have less of a lattice, and residual indices are
differences to them.
:mod:`latentpress.models.index.cell_texture` is about one more direction, of so much energy that noise has to
come in its place.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from latentpress.models.index.cell_texture import noise_of_cells
from latentpress.models.index.granularity import CELL, QUARTER, GrainMap

NOISE = 0.35
"""Amplitude of the noise in coarse cells, as a share of the lattice's; with 0.5, PSNR falls at 0.06 bpp."""

_TOLERANCE = 0.01


class LatticeDirections(NamedTuple):
    """In which directions cells have a lattice; orthonormal rows, which may be none.

    Attributes:
        coarse: ``(k, 768)``, cells of 16x16 pixels in raster order, red, green and blue of each.
        medium: ``(k, 192)``, quarters of 8x8 pixels likewise.
    """

    coarse: Tensor
    medium: Tensor


class CellLattice:
    """Takes the lattice out of coarse cells and medium quarters.

    Args:
        directions: In which it is.

    Raises:
        ValueError: They are no orthonormal rows of those lengths.

    Example:
        >>> from latentpress.models.index.granularity import uniform_maps
        >>> stripes = torch.tensor([1.0, -1.0]).repeat_interleave(24).repeat(4) / 192**0.5
        >>> lattice = CellLattice(LatticeDirections(torch.zeros(0, 768), stripes[None]))
        >>> image = 0.5 + stripes.view(8, 8, 3).repeat(2, 4, 1)[None]
        >>> found = lattice(image, uniform_maps(1, 2, "cpu")[1])
        >>> float((image - 0.5).abs().max()) > 0.07, bool((found - 0.5).abs().max() < 1e-5)
        (True, True)
    """

    def __init__(self, directions: LatticeDirections) -> None:
        self.directions = LatticeDirections(
            _checked(directions.coarse, CELL), _checked(directions.medium, QUARTER)
        )

    def __call__(self, image: Tensor, grains: GrainMap) -> Tensor:
        """Finishes decoded pictures.

        Args:
            image: ``(B, 16h, 16w, 3)`` around [0, 1].
            grains: Their map.

        Returns:
            The same shape; nothing changes in fine quarters further than half a cell from coarse ones.
        """
        image, shares = _divided(image, grains.coarse_mask(), self.directions.coarse, CELL)
        noise = noise_of_cells(NOISE * shares.norm(dim=-1))
        image, _ = _divided(image, grains.medium_mask(), self.directions.medium, QUARTER)
        return image + noise


def _divided(image: Tensor, mask: Tensor, directions: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """A picture without directions in those of its cells that a mask marks, and their shares.

    Args:
        image: ``(B, H, W, 3)``.
        mask: ``(B, H / side, W / side)`` bool.
        directions: ``(k, side * side * 3)``.
        side: Of a cell.

    Returns:
        The picture, and ``(B, H / side, W / side, k)``, 0 where nothing is marked.
    """
    b, height, width, _ = image.shape
    cells = image.reshape(b, height // side, side, width // side, side, 3)
    patterns = directions.view(-1, side, side, 3).to(image.device)
    shares = torch.einsum("bhiwjc,kijc->bhwk", cells, patterns) * mask[..., None]
    return (cells - torch.einsum("bhwk,kijc->bhiwjc", shares, patterns)).reshape(image.shape), shares


def _checked(directions: Tensor, side: int) -> Tensor:
    values = side * side * 3
    if directions.ndim != 2 or directions.shape[1] != values:
        raise ValueError(f"directions of a lattice are (k, {values}), got {tuple(directions.shape)}")
    directions = directions.float()
    difference = directions @ directions.T - torch.eye(len(directions), device=directions.device)
    # Written so that values that are not finite are refused too.
    if not bool((difference.abs() < _TOLERANCE).all()):
        raise ValueError("directions of a lattice must be orthonormal")
    return directions

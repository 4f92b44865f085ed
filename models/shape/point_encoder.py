"""The frozen encoder: a PointNet in every cell of a grid, trained by itself without labels.

It knows nothing of the generator. It is trained as an implicit autoencoder (IAE, arXiv 2201.00785): from a
part of a surface's points, a small decoder that is thrown away afterwards has to tell how far any place is
from the whole surface, and its colour.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentpress.models.shape.generator import POINT_CHANNELS, TOKEN_GRID
from latentpress.models.shape.layers import (
    GRID_HALF_WIDTH,
    GridBlock,
    GridDownsample,
    GridUpsample,
    TransformerBlock,
    sample_grid,
)

CELL_GRID = 16
"""Points are pooled in cells of a 16^3 grid."""


class PointEncoder(nn.Module):
    """Surface points to tokens.

    ::

        points (B,N,9) -> PointNet -> mean and maximum in each of 16^3 cells -> 8^3 -> 4^3 -> tokens (B,64,D)

    PointNet (arXiv 1612.00593) pools over a whole shape; pooling over cells keeps where things are
    (convolutional occupancy networks, arXiv 2003.04618, section 3.1).

    Args:
        channels: D.
        cell_channels: Of the PointNet and the 16^3 grid.
        middle_channels: Of the 8^3 grid.
        depth: Self-attention blocks over the tokens.
    """

    def __init__(self, channels: int, cell_channels: int, middle_channels: int, depth: int) -> None:
        super().__init__()
        self.channels = channels
        self.cell_channels = cell_channels
        self.stem = nn.Linear(POINT_CHANNELS + 4, cell_channels)
        self.hidden = nn.Linear(cell_channels, cell_channels)
        self.merge = nn.Linear(2 * cell_channels + 1, cell_channels)
        self.fine = GridBlock(cell_channels)
        self.down_fine = GridDownsample(cell_channels, middle_channels)
        self.middle = GridBlock(middle_channels)
        self.down_middle = GridDownsample(middle_channels, channels)
        self.position = nn.Parameter(torch.randn(TOKEN_GRID**3, channels) * 0.1)
        self.blocks = nn.ModuleList(TransformerBlock(channels) for _ in range(depth))
        self.norm = nn.LayerNorm(channels)

    def forward(self, points: Tensor) -> Tensor:
        """Maps surface points ``(B, N, 9)`` to tokens ``(B, 64, D)``, float32."""
        cells = self._pool(points)
        x = self.middle(self.down_fine(self.fine(cells)))
        tokens = self.down_middle(x).flatten(1, 3) + self.position
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens.float())

    def _pool(self, points: Tensor) -> Tensor:
        """Mean and maximum of the points' features in every cell, ``(B, 16, 16, 16, cell_channels)``."""
        batch = len(points)
        scaled = (points[..., :3] / GRID_HALF_WIDTH + 1) * (CELL_GRID / 2)
        cell = scaled.floor().clamp(0, CELL_GRID - 1)
        local = scaled - cell - 0.5
        # How far the tangent plane is from the cell's centre: a product that layers are slow to learn.
        plane = (local * points[..., 3:6]).sum(-1, keepdim=True)
        features = self.hidden(F.silu(self.stem(torch.cat((points, local, plane), dim=-1)))).float()
        x, y, z = cell.long().unbind(-1)
        index = ((z * CELL_GRID + y) * CELL_GRID + x)[..., None].expand_as(features)
        shape = (batch, CELL_GRID**3, self.cell_channels)
        count = torch.zeros((*shape[:2], 1), device=points.device)
        count = count.scatter_add(1, index[..., :1], torch.ones_like(features[..., :1]))
        mean = torch.zeros(shape, device=points.device).scatter_add(1, index, features) / count.clamp(min=1)
        largest = torch.zeros(shape, device=points.device).scatter_reduce(1, index, features, "amax")
        # The counts' logarithm says whether a cell is empty, and little of how densely a shape was sampled.
        filled = torch.log1p(count * (CELL_GRID**2 / points.shape[1]))
        merged = self.merge(torch.cat((mean, largest, filled), dim=-1))
        return merged.unflatten(1, (CELL_GRID,) * 3)


class SurfaceGuess(NamedTuple):
    """What the decoder of the pretraining says of places.

    Attributes:
        distance: ``(B, N)`` unsigned distance to the surface, in units of the truncation.
        colour: ``(B, N, 3)`` RGB minus one half.
    """

    distance: Tensor
    colour: Tensor


class ImplicitAutoencoder(nn.Module):
    """A :class:`PointEncoder` with the decoder that it is trained with.

    Args:
        encoder: To be trained.
        grid_channels: Of the decoder's grids.

    Attributes:
        config: Arguments of :func:`build_implicit_autoencoder` that make this network again.
    """

    config: Mapping[str, int]

    def __init__(self, encoder: PointEncoder, grid_channels: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.config = {}
        self.grid = nn.Sequential(
            GridUpsample(encoder.channels, 2 * grid_channels),
            GridBlock(2 * grid_channels),
            GridUpsample(2 * grid_channels, grid_channels),
            GridBlock(grid_channels),
        )
        self.hidden = nn.Linear(grid_channels + 3, 2 * grid_channels)
        self.second = nn.Linear(2 * grid_channels, 2 * grid_channels)
        self.head = nn.Linear(2 * grid_channels, 4)

    def forward(self, points: Tensor, places: Tensor) -> SurfaceGuess:
        """Guesses at places ``(B, N, 3)`` from surface points ``(B, M, 9)``."""
        grid = self.grid(self.encoder(points).unflatten(1, (TOKEN_GRID,) * 3))
        features = torch.cat((sample_grid(grid, places), places), dim=-1)
        found = self.head(F.silu(self.second(F.silu(self.hidden(features))))).float()
        return SurfaceGuess(F.softplus(found[..., 0]), found[..., 1:])


def build_implicit_autoencoder(
    channels: int = 192,
    cell_channels: int = 64,
    middle_channels: int = 96,
    depth: int = 2,
    grid_channels: int = 32,
) -> ImplicitAutoencoder:
    """Puts an :class:`ImplicitAutoencoder` together.

    Args:
        channels: Of the encoder's tokens.
        cell_channels: Of the 16^3 grid.
        middle_channels: Of the 8^3 grid.
        depth: Self-attention blocks.
        grid_channels: Of the decoder.

    Example:
        >>> network = build_implicit_autoencoder(32, 8, 8, 1, 8)
        >>> network(torch.rand(2, 20, 9), torch.zeros(2, 5, 3)).distance.shape
        torch.Size([2, 5])
    """
    config = dict(locals())
    encoder = PointEncoder(channels, cell_channels, middle_channels, depth)
    network = ImplicitAutoencoder(encoder, grid_channels)
    network.config = config
    return network

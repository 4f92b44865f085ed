"""Encoder of the index codec: one pass over the picture, vectors at 1/4, 1/8 and 1/16 of its resolution."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from latentpress.models.index.banded_blocks import BandedBlock
from latentpress.models.index.granularity import FINE
from latentpress.models.layers import Downsample, space_to_depth


class GrainVectors(NamedTuple):
    """Vectors at the three granularities.

    Attributes:
        coarse: ``(B, h, w, d)``, one a cell.
        medium: ``(B, 2h, 2w, d)``, one a quarter.
        fine: ``(B, 4h, 4w, d)``.
    """

    coarse: Tensor
    medium: Tensor
    fine: Tensor


class IndexEncoder(nn.Module):
    """Picture to vectors at three granularities, all of them everywhere.

    ::

        image (B,H,W,3) -> 4x4 pixels to channels -> 1x1 -> [block] x n -> 1x1 -> fine (B,H/4,W/4,d)
                                                              |
                                                          downsample -> [block] x n -> 1x1 -> medium
                                                                                |
                                                                            downsample -> ... -> coarse

    Args:
        fine_channels: Width at 1/4 of the resolution.
        medium_channels: Width at 1/8.
        coarse_channels: Width at 1/16.
        fine_depth: Blocks at 1/4.
        medium_depth: Blocks at 1/8.
        coarse_depth: Blocks at 1/16.
        code_channels: d.

    Example:
        >>> encoder = IndexEncoder(8, 8, 8, 1, 1, 1, code_channels=4)
        >>> [tuple(v.shape) for v in encoder(torch.rand(1, 32, 48, 3))]
        [(1, 2, 3, 4), (1, 4, 6, 4), (1, 8, 12, 4)]
    """

    def __init__(
        self,
        fine_channels: int,
        medium_channels: int,
        coarse_channels: int,
        fine_depth: int,
        medium_depth: int,
        coarse_depth: int,
        code_channels: int,
    ) -> None:
        super().__init__()
        self.coarse_channels = coarse_channels
        self.stem = nn.Linear(3 * FINE * FINE, fine_channels)
        self.fine_blocks = nn.Sequential(*(BandedBlock(fine_channels) for _ in range(fine_depth)))
        self.to_medium = Downsample(fine_channels, medium_channels)
        self.medium_blocks = nn.Sequential(*(BandedBlock(medium_channels) for _ in range(medium_depth)))
        self.to_coarse = Downsample(medium_channels, coarse_channels)
        self.coarse_blocks = nn.Sequential(*(BandedBlock(coarse_channels) for _ in range(coarse_depth)))
        self.heads = nn.ModuleList(
            nn.Linear(channels, code_channels)
            for channels in (coarse_channels, medium_channels, fine_channels)
        )

    def features(self, image: Tensor) -> GrainVectors:
        """What the heads see: ``(B, H, W, 3)`` in [0, 1] to features of the three widths."""
        fine = self.fine_blocks(self.stem(space_to_depth(image - 0.5, FINE)))
        medium = self.medium_blocks(self.to_medium(fine))
        coarse = self.coarse_blocks(self.to_coarse(medium))
        return GrainVectors(coarse, medium, fine)

    def forward(self, image: Tensor) -> GrainVectors:
        """Analyses a picture.

        Args:
            image: ``(B, H, W, 3)`` in [0, 1], H and W multiples of 16.

        Returns:
            Vectors before quantisation, float32 whatever the precision inside.
        """
        features = self.features(image)
        with torch.autocast(image.device.type, enabled=False):
            heads = zip(self.heads, features, strict=True)
            return GrainVectors(*(head(x.float()) for head, x in heads))

"""Conditional decoder of the index codec: coarse to fine, steered by the codes and their granularity."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentpress.models.index.banded_blocks import BandedBlock, bands, runs_in_bands
from latentpress.models.index.encoder import GrainVectors
from latentpress.models.index.granularity import FINE, GrainMap, repeat_positions
from latentpress.models.layers import Upsample, depth_to_space, space_to_depth


class ModulatedBlock(nn.Module):
    """A block whose input is normalised, then scaled and shifted by what the codes say at each position.

    ::

        x -> normalise over channels -> * scale(condition) + shift(condition) -(+x)-> DepthConv block

    The spatially conditioned normalisation of MoVQ (arXiv 2209.09002), which Control-GIC's
    decoder uses throughout; here over the channels of every position, so that what a position becomes does
    not depend on the size of the picture.

    Args:
        channels: Channels in and out.
        condition_channels: Channels of the condition.
    """

    def __init__(self, channels: int, condition_channels: int) -> None:
        super().__init__()
        self.scale = nn.Linear(condition_channels, channels)
        self.shift = nn.Linear(condition_channels, channels)
        self.block = BandedBlock(channels)
        nn.init.zeros_(self.scale.weight)
        nn.init.zeros_(self.scale.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Maps ``(B, H, W, C)`` to the same shape, given the condition ``(B, H, W, D)``."""
        if not runs_in_bands(x):
            return self.block(self._modulated(x, condition))
        modulated = torch.empty_like(x)
        for rows in bands(x):
            modulated[:, rows] = self._modulated(x[:, rows], condition[:, rows])
        return self.block(modulated)

    def _modulated(self, x: Tensor, condition: Tensor) -> Tensor:
        return x + F.layer_norm(x, x.shape[-1:]) * self.scale(condition) + self.shift(condition)


class IndexDecoder(nn.Module):
    """Codes and granularity to a picture.

    ::

        codes, map --(all below a cell to channels)--> stem 1/16 -> [modulated block] x n
                                                                      | upsample
        codes, map --(all below a quarter to channels)-> stem 1/8 --> [modulated block] x n
                                                                      | upsample
        codes, map --------------------------------------> stem 1/4 -> [modulated block] x n
                                                                      | 1x1
                                                                    4x4 pixels

    Each stage starts from the coarser one and takes in, by mask, the codes of every granularity: coarser ones
    repeated, finer ones gathered into channels.

    Args:
        fine_channels: Width at 1/4 of the resolution.
        medium_channels: Width at 1/8.
        coarse_channels: Width at 1/16.
        fine_depth: Blocks at 1/4.
        medium_depth: Blocks at 1/8.
        coarse_depth: Blocks at 1/16.
        code_channels: d.
        condition_channels: Width of the conditions at 1/4; twice that at 1/8, four times at 1/16.

    Example:
        >>> decoder = IndexDecoder(8, 8, 8, 1, 1, 1, code_channels=4, condition_channels=4)
        >>> codes = GrainVectors(torch.rand(1, 2, 3, 4), torch.rand(1, 4, 6, 4), torch.rand(1, 8, 12, 4))
        >>> grains = GrainMap(torch.zeros(1, 2, 3).bool(), torch.zeros(1, 4, 6).bool())
        >>> decoder(codes, grains).shape
        torch.Size([1, 32, 48, 3])
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
        condition_channels: int,
    ) -> None:
        super().__init__()
        conditions = (4 * condition_channels, 2 * condition_channels, condition_channels)
        self.coarse_stem = nn.Linear(21 * code_channels + 5, conditions[0])
        self.medium_stem = nn.Linear(6 * code_channels + 2, conditions[1])
        self.fine_stem = nn.Linear(3 * code_channels + 2, conditions[2])
        self.start = nn.Linear(conditions[0], coarse_channels)
        self.coarse_blocks = _blocks(coarse_depth, coarse_channels, conditions[0])
        self.to_medium = Upsample(coarse_channels, medium_channels)
        self.medium_blocks = _blocks(medium_depth, medium_channels, conditions[1])
        self.to_fine = Upsample(medium_channels, fine_channels)
        self.fine_blocks = _blocks(fine_depth, fine_channels, conditions[2])
        self.head = nn.Linear(fine_channels, 3 * FINE * FINE)

    def conditions(self, codes: GrainVectors, grains: GrainMap) -> GrainVectors:
        """What each stage is told: codes where the map says they are, zeros elsewhere, and the map itself."""
        coarse = codes.coarse * grains.coarse_mask()[..., None]
        medium = codes.medium * grains.medium_mask()[..., None]
        fine = codes.fine * grains.fine_mask()[..., None]
        split, refined = grains.split[..., None].to(coarse.dtype), grains.fine[..., None].to(coarse.dtype)
        finer = torch.cat((medium, space_to_depth(fine, 2), refined), dim=-1)
        coarser = torch.cat((coarse, split), dim=-1)
        both = torch.cat((repeat_positions(coarser, 2), medium, refined), dim=-1)
        return GrainVectors(
            F.silu(self.coarse_stem(torch.cat((coarser, space_to_depth(finer, 2)), dim=-1))),
            F.silu(self.medium_stem(torch.cat((repeat_positions(coarser, 2), finer), dim=-1))),
            F.silu(self.fine_stem(torch.cat((repeat_positions(both, 2), fine), dim=-1))),
        )

    def forward(self, codes: GrainVectors, grains: GrainMap) -> Tensor:
        """Synthesises a picture.

        Args:
            codes: Codes at the three granularities; values where the map has none are ignored.
            grains: Which granularity holds where.

        Returns:
            ``(B, 16h, 16w, 3)`` around [0, 1], not clamped, float32.
        """
        conditions = self.conditions(codes, grains)
        x = self.start(conditions.coarse)
        for block in self.coarse_blocks:
            x = block(x, conditions.coarse)
        x = self.to_medium(x)
        for block in self.medium_blocks:
            x = block(x, conditions.medium)
        x = self.to_fine(x)
        for block in self.fine_blocks:
            x = block(x, conditions.fine)
        return depth_to_space(self.head(x), FINE).float() + 0.5


def _blocks(depth: int, channels: int, condition_channels: int) -> nn.ModuleList:
    return nn.ModuleList(ModulatedBlock(channels, condition_channels) for _ in range(depth))

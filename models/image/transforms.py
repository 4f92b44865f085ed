"""Analysis and synthesis transforms of the image codec: PixelUnshuffle(8), then DepthConv blocks.

Under autocast the branches of the blocks run in the lower precision, and what they are added to stays in
float32: the layers between stages take no part. Rounding what a branch adds is harmless, rounding the sum is
not.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from latentpress.models.layers import (
    DepthConvBlock,
    Downsample,
    Normalisation,
    Upsample,
    depth_to_space,
    space_to_depth,
)
from latentpress.models.mlic.design import TokenMixingDesign
from latentpress.models.mlic.token_mixing import TokenMixingBlock
from latentpress.models.quality import QualityGain

PATCH = 8
"""Side, in pixels, of the square that becomes one position at the first stage."""

STRIDE = 16
"""Pixels of the image per position of the latent, each way."""


class AnalysisTransform(nn.Module):
    """Image to latent.

    ::

        image (B,H,W,3) -> 8x8 pixels to channels -> 1x1 -> [block] x depth -> [mixer] -> * gain(quality)
          -> downsample -> [block] x deep_depth -> [mixer] -> 1x1 -> y (B,H/16,W/16,M)

    Args:
        channels: Width at 1/8 of the resolution.
        deep_channels: Width at 1/16 of the resolution.
        latent_channels: M.
        depth: Blocks at 1/8.
        deep_depth: Blocks at 1/16.
        normalisation: Of what the blocks' branches see.
        token_mixing: How many mixers there are besides; None for none.
        branch_limits: Largest magnitudes that a block's branch adds, at 1/8 and 1/16; None for no limits.

    Example:
        >>> g_a = AnalysisTransform(16, 24, 8, depth=1, deep_depth=1)
        >>> g_a(torch.rand(1, 32, 48, 3), torch.tensor([50.0])).shape
        torch.Size([1, 2, 3, 8])
    """

    def __init__(
        self,
        channels: int,
        deep_channels: int,
        latent_channels: int,
        depth: int,
        deep_depth: int,
        normalisation: Normalisation = nn.Identity,
        token_mixing: TokenMixingDesign | None = None,
        branch_limits: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        limit, deep_limit = branch_limits or (None, None)
        self.stem = nn.Linear(3 * PATCH * PATCH, channels)
        self.blocks = nn.ModuleList(
            DepthConvBlock(channels, normalisation=normalisation, branch_limit=limit) for _ in range(depth)
        )
        self.gain = QualityGain(channels)
        self.down = Downsample(channels, deep_channels)
        self.deep_blocks = nn.ModuleList(
            DepthConvBlock(deep_channels, normalisation=normalisation, branch_limit=deep_limit)
            for _ in range(deep_depth)
        )
        self.head = nn.Linear(deep_channels, latent_channels)
        self.mixers, self.deep_mixers = _mixers(channels, deep_channels, token_mixing)

    def forward(self, image: Tensor, quality: Tensor) -> Tensor:
        """Analyses a picture.

        Args:
            image: ``(B, H, W, 3)`` in [0, 1], H and W multiples of 16.
            quality: ``(B,)`` in [0, 100].

        Returns:
            y, ``(B, H/16, W/16, M)``, float32 whatever the precision inside.
        """
        with torch.autocast(image.device.type, enabled=False):
            x = self.stem(space_to_depth(image - 0.5, PATCH))
        for block in (*self.blocks, *self.mixers):
            x = block(x)
        with torch.autocast(x.device.type, enabled=False):
            x = self.down(x * self.gain(quality)[:, None, None, :])
        for block in (*self.deep_blocks, *self.deep_mixers):
            x = block(x)
        with torch.autocast(x.device.type, enabled=False):
            return self.head(x)


class SynthesisTransform(nn.Module):
    """Latent to image, the mirror of :class:`AnalysisTransform`.

    ::

        y (B,h,w,M) -> 1x1 -> [mixer] -> [block] x deep_depth -> upsample -> * gain(quality) -> [mixer]
          -> [block] x depth -> 1x1 -> channels to 8x8 pixels -> image (B,16h,16w,3)

    Args:
        channels: Width at 1/8 of the resolution.
        deep_channels: Width at 1/16 of the resolution.
        latent_channels: M.
        depth: Blocks at 1/8.
        deep_depth: Blocks at 1/16.
        normalisation: Of what the blocks' branches see.
        token_mixing: How many mixers there are besides; None for none.
        branch_limits: Largest magnitudes that a block's branch adds, at 1/8 and 1/16; None for no limits.

    Example:
        >>> g_s = SynthesisTransform(16, 24, 8, depth=1, deep_depth=1)
        >>> g_s(torch.rand(1, 2, 3, 8), torch.tensor([50.0])).shape
        torch.Size([1, 32, 48, 3])
    """

    def __init__(
        self,
        channels: int,
        deep_channels: int,
        latent_channels: int,
        depth: int,
        deep_depth: int,
        normalisation: Normalisation = nn.Identity,
        token_mixing: TokenMixingDesign | None = None,
        branch_limits: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        limit, deep_limit = branch_limits or (None, None)
        self.stem = nn.Linear(latent_channels, deep_channels)
        self.deep_blocks = nn.ModuleList(
            DepthConvBlock(deep_channels, normalisation=normalisation, branch_limit=deep_limit)
            for _ in range(deep_depth)
        )
        self.up = Upsample(deep_channels, channels)
        self.gain = QualityGain(channels)
        self.blocks = nn.ModuleList(
            DepthConvBlock(channels, normalisation=normalisation, branch_limit=limit) for _ in range(depth)
        )
        self.head = nn.Linear(channels, 3 * PATCH * PATCH)
        self.mixers, self.deep_mixers = _mixers(channels, deep_channels, token_mixing)

    def forward(self, y: Tensor, quality: Tensor) -> Tensor:
        """Synthesises a picture.

        Args:
            y: ``(B, h, w, M)`` float32.
            quality: ``(B,)`` in [0, 100].

        Returns:
            ``(B, 16h, 16w, 3)`` around [0, 1], not clamped, float32.
        """
        with torch.autocast(y.device.type, enabled=False):
            x = self.stem(y)
        for block in (*self.deep_mixers, *self.deep_blocks):
            x = block(x)
        with torch.autocast(y.device.type, enabled=False):
            x = self.up(x) * self.gain(quality)[:, None, None, :]
        for block in (*self.mixers, *self.blocks):
            x = block(x)
        with torch.autocast(y.device.type, enabled=False):
            return depth_to_space(self.head(x), PATCH) + 0.5


def _mixers(
    channels: int, deep_channels: int, token_mixing: TokenMixingDesign | None
) -> tuple[nn.ModuleList, nn.ModuleList]:
    wanted = token_mixing or TokenMixingDesign(0, 0)
    return (
        nn.ModuleList(TokenMixingBlock(channels) for _ in range(wanted.blocks)),
        nn.ModuleList(TokenMixingBlock(deep_channels) for _ in range(wanted.deep_blocks)),
    )

"""Analysis and synthesis transforms of the image codec: PixelUnshuffle(8), then DepthConv blocks."""

from __future__ import annotations

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
from latentpress.models.quality import QualityGain

PATCH = 8
"""Side, in pixels, of the square that becomes one position at the first stage."""

STRIDE = 16
"""Pixels of the image per position of the latent, each way."""


class AnalysisTransform(nn.Module):
    """Image to latent.

    ::

        image (B,H,W,3) -> 8x8 pixels to channels -> 1x1 -> [block] x depth -> * gain(quality)
          -> downsample -> [block] x deep_depth -> 1x1 -> y (B,H/16,W/16,M)

    Args:
        channels: Width at 1/8 of the resolution.
        deep_channels: Width at 1/16 of the resolution.
        latent_channels: M.
        depth: Blocks at 1/8.
        deep_depth: Blocks at 1/16.
        normalisation: Of what the blocks' branches see.

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
    ) -> None:
        super().__init__()
        self.stem = nn.Linear(3 * PATCH * PATCH, channels)
        self.blocks = nn.ModuleList(
            DepthConvBlock(channels, normalisation=normalisation) for _ in range(depth)
        )
        self.gain = QualityGain(channels)
        self.down = Downsample(channels, deep_channels)
        self.deep_blocks = nn.ModuleList(
            DepthConvBlock(deep_channels, normalisation=normalisation) for _ in range(deep_depth)
        )
        self.head = nn.Linear(deep_channels, latent_channels)

    def forward(self, image: Tensor, quality: Tensor) -> Tensor:
        """Analyses a picture.

        Args:
            image: ``(B, H, W, 3)`` in [0, 1], H and W multiples of 16.
            quality: ``(B,)`` in [0, 100].

        Returns:
            y, ``(B, H/16, W/16, M)``, float32 whatever the precision inside.
        """
        x = self.stem(space_to_depth(image - 0.5, PATCH))
        for block in self.blocks:
            x = block(x)
        x = self.down(x * self.gain(quality)[:, None, None, :].to(x.dtype))
        for block in self.deep_blocks:
            x = block(x)
        # Large coefficients need more than bfloat16's 8 bits of mantissa.
        with torch.autocast(x.device.type, enabled=False):
            return self.head(x.float())


class SynthesisTransform(nn.Module):
    """Latent to image, the mirror of :class:`AnalysisTransform`.

    ::

        y (B,h,w,M) -> 1x1 -> [block] x deep_depth -> upsample -> * gain(quality) -> [block] x depth
          -> 1x1 -> channels to 8x8 pixels -> image (B,16h,16w,3)

    Args:
        channels: Width at 1/8 of the resolution.
        deep_channels: Width at 1/16 of the resolution.
        latent_channels: M.
        depth: Blocks at 1/8.
        deep_depth: Blocks at 1/16.
        normalisation: Of what the blocks' branches see.

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
    ) -> None:
        super().__init__()
        self.stem = nn.Linear(latent_channels, deep_channels)
        self.deep_blocks = nn.ModuleList(
            DepthConvBlock(deep_channels, normalisation=normalisation) for _ in range(deep_depth)
        )
        self.up = Upsample(deep_channels, channels)
        self.gain = QualityGain(channels)
        self.blocks = nn.ModuleList(
            DepthConvBlock(channels, normalisation=normalisation) for _ in range(depth)
        )
        self.head = nn.Linear(channels, 3 * PATCH * PATCH)

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
        for block in self.deep_blocks:
            x = block(x)
        x = self.up(x)
        x = x * self.gain(quality)[:, None, None, :].to(x.dtype)
        for block in self.blocks:
            x = block(x)
        return depth_to_space(self.head(x), PATCH).float() + 0.5

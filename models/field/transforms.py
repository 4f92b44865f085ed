"""Transforms of the field codec: a learned lapped transform between enhancing networks."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from latentpress.models.quality import QualityGain, QualityVector
from latentpress.models.volume import BoundaryFilter, VolumeBlock, fold, unfold

COMPONENTS = 3
"""Components of a field that the networks see at once."""

PATCH = 4
"""Side, in samples, of the cube that becomes one position of the enhancing networks."""

STRIDE = 8
"""Samples of the field per position of the latent, each way."""

BLOCK_VALUES = COMPONENTS * STRIDE**3
"""Numbers in a block of the lapped transform."""


class Enhancer(nn.Module):
    """A residual network over a field, in cubes of 4 samples a side.

    ::

        x (B,D,H,W,3) -> 4^3 samples to channels -> 1x1 -> + bias(quality) -> [block] x depth -> 1x1
          -> channels to 4^3 samples -> * gain(quality) -(+x)-> y (B,D,H,W,3)

    The sum runs in float32: a field has to come through with more digits than half precision has. What is
    added is about as large as the error at its quality, so the gain starts there, and what the network does
    not know yet harms no quality more than another.

    Args:
        channels: Width; 192 holds all numbers of a cube.
        depth: Blocks.
    """

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.stem = nn.Linear(COMPONENTS * PATCH**3, channels)
        self.bias = QualityVector(channels)
        self.blocks = nn.ModuleList(VolumeBlock(channels) for _ in range(depth))
        self.head = nn.Linear(channels, COMPONENTS * PATCH**3)
        self.gain = QualityGain(1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, quality: Tensor, periodic: Tensor) -> Tensor:
        """Maps ``(B, D, H, W, 3)`` float32, sides multiples of 4, to the same shape."""
        features = self.features(x, quality, periodic)[-1]
        return x + unfold(self.head(features), PATCH).float() * self.gain(quality)[:, None, None, None, :]

    def features(self, x: Tensor, quality: Tensor, periodic: Tensor) -> list[Tensor]:
        """The stem's output and every block's, ``(B, D/4, H/4, W/4, channels)`` each."""
        found = [self.stem(fold(x, PATCH)) + self.bias(quality)[:, None, None, None, :]]
        for block in self.blocks:
            found.append(block(found[-1], periodic))
        return found


class FieldAnalysis(nn.Module):
    """Field to latent.

    ::

        x (B,D,H,W,3) -> enhancer -> boundary filter -> 8^3 samples to channels -> 1x1 -> y (B,D/8,H/8,W/8,M)

    Args:
        channels: Width of the enhancer.
        latent_channels: M.
        depth: Blocks of the enhancer.

    Example:
        >>> g_a = FieldAnalysis(8, 16, depth=1)
        >>> field, open_box = torch.rand(1, 16, 16, 24, 3), torch.zeros(1, 3, dtype=torch.bool)
        >>> g_a(field, torch.tensor([50.0]), open_box).shape
        torch.Size([1, 2, 2, 3, 16])
    """

    def __init__(self, channels: int, latent_channels: int, depth: int) -> None:
        super().__init__()
        self.enhancer = Enhancer(channels, depth)
        self.boundary = BoundaryFilter(STRIDE)
        self.head = nn.Linear(BLOCK_VALUES, latent_channels, bias=False)

    def forward(self, field: Tensor, quality: Tensor, periodic: Tensor) -> Tensor:
        """Analyses a field.

        Args:
            field: ``(B, D, H, W, 3)`` with unit variance, sides multiples of 8.
            quality: ``(B,)`` in [0, 100].
            periodic: ``(B, 3)`` boolean.

        Returns:
            y, ``(B, D/8, H/8, W/8, M)`` float32.
        """
        x = self.enhancer(field, quality, periodic)
        with torch.autocast(x.device.type, enabled=False):
            return self.head(fold(self.boundary(x, periodic), STRIDE))


class FieldSynthesis(nn.Module):
    """Latent to field, the mirror of :class:`FieldAnalysis`; the generator of the adversarial stage.

    ::

        y (B,d,h,w,M) -> 1x1 -> channels to 8^3 samples -> boundary filter -> enhancer -> x (B,8d,8h,8w,3)

    Args:
        channels: Width of the enhancer.
        latent_channels: M.
        depth: Blocks of the enhancer.

    Example:
        >>> g_s = FieldSynthesis(8, 16, depth=1)
        >>> g_s(torch.rand(1, 2, 2, 3, 16), torch.tensor([50.0]), torch.zeros(1, 3, dtype=torch.bool)).shape
        torch.Size([1, 16, 16, 24, 3])
    """

    def __init__(self, channels: int, latent_channels: int, depth: int) -> None:
        super().__init__()
        self.stem = nn.Linear(latent_channels, BLOCK_VALUES, bias=False)
        self.boundary = BoundaryFilter(STRIDE)
        self.enhancer = Enhancer(channels, depth)

    def forward(self, y: Tensor, quality: Tensor, periodic: Tensor) -> Tensor:
        """Synthesises ``(B, 8d, 8h, 8w, 3)`` float32 from ``(B, d, h, w, M)`` float32."""
        return self.enhancer(self.linear(y, periodic), quality, periodic)

    def linear(self, y: Tensor, periodic: Tensor) -> Tensor:
        """What the lapped transform alone makes of a latent."""
        with torch.autocast(y.device.type, enabled=False):
            return self.boundary(unfold(self.stem(y), STRIDE), periodic)


class Discriminator(nn.Module):
    """Says how real a velocity field looks, cube by cube of 8 samples.

    ::

        x (B,D,H,W,3), its gradients -> 3^3 conv -> [4^3 conv, stride 2] x 3 -> 3^3 conv -> score
        (B,D/8,H/8,W/8)

    Gradients are offered as channels of their own, because intermittency shows there first. Zero padding is
    avoided by trimming, so that the border of a crop looks like its inside.

    Args:
        channels: Width of the first layer; it doubles with every halving.

    Example:
        >>> Discriminator(4)(torch.zeros(1, 32, 32, 32, 3)).shape
        torch.Size([1, 3, 3, 3])
    """

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        widths = [channels * factor for factor in (1, 2, 4, 8)]
        self.first = nn.Conv3d(COMPONENTS * 4, widths[0], 3)
        self.halvings = nn.ModuleList(nn.Conv3d(a, b, 4, stride=2, padding=1) for a, b in pairwise(widths))
        self.last = nn.Conv3d(widths[-1], 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Scores ``(B, D, H, W, 3)``, unit variance; higher is more real."""
        planes = x.permute(0, 4, 1, 2, 3)
        inner = planes[..., 1:-1, 1:-1, 1:-1]
        gradients = [
            planes.roll(-1, axis)[..., 1:-1, 1:-1, 1:-1] - planes.roll(1, axis)[..., 1:-1, 1:-1, 1:-1]
            for axis in (2, 3, 4)
        ]
        h = nn.functional.leaky_relu(self.first(torch.cat((inner, *gradients), 1)), 0.2)
        for halving in self.halvings:
            h = nn.functional.leaky_relu(halving(h), 0.2)
        return self.last(h)[:, 0]

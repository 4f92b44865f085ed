"""The hyperprior: side information z, coded first, from which the first distributions of y follow."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentpress.models.entropy.blocks import ContextBlock
from latentpress.models.entropy.gaussian import clamp_with_gradient
from latentpress.models.layers import DepthConvBlock, Downsample, Upsample
from latentpress.models.quality import QualityGain, QualityVector

HYPER_STRIDE = 4
"""Positions of the latent per position of z, each way."""

HYPER_LIMIT = 255.0
"""Largest magnitude of z, in quantisation steps."""


class HyperAnalysis(nn.Module):
    """Latent y to side information z, a quarter of the size each way.

    ::

        y (B,h,w,M) -> replicate-pad to multiples of 4 -> 1x1 -> block -> down -> block -> down
          -> * gain(quality) -> z (B,ceil(h/4),ceil(w/4),Z)

    Args:
        latent_channels: M.
        channels: Width inside.
        hyper_channels: Z.
    """

    def __init__(self, latent_channels: int, channels: int, hyper_channels: int) -> None:
        super().__init__()
        self.stem = nn.Linear(latent_channels, channels)
        self.fine = DepthConvBlock(channels)
        self.down = Downsample(channels, channels)
        self.coarse = DepthConvBlock(channels)
        self.head = Downsample(channels, hyper_channels)
        self.gain = QualityGain(hyper_channels)

    def forward(self, y: Tensor, quality: Tensor) -> Tensor:
        """Maps ``(B, h, w, M)`` and qualities ``(B,)`` to z, float32, in quantisation steps."""
        h, w = y.shape[1:3]
        pad_h, pad_w = -h % HYPER_STRIDE, -w % HYPER_STRIDE
        if pad_h or pad_w:
            y = F.pad(y.permute(0, 3, 1, 2), (0, pad_w, 0, pad_h), mode="replicate").permute(0, 2, 3, 1)
        with torch.autocast(y.device.type, enabled=False):
            x = self.stem(y)
        x = self.coarse(self.down(self.fine(x)))
        with torch.autocast(y.device.type, enabled=False):
            z = self.head(x.float()) * self.gain(quality)[:, None, None, :]
        return clamp_with_gradient(z, -HYPER_LIMIT, HYPER_LIMIT)


class HyperPrior(nn.Module):
    """Distribution of z: zero-mean Gaussians whose scale depends on channel and quality.

    Args:
        hyper_channels: Z.
    """

    def __init__(self, hyper_channels: int) -> None:
        super().__init__()
        self.raw_scale = QualityVector(hyper_channels)

    def forward(self, quality: Tensor) -> Tensor:
        """Maps qualities ``(B,)`` to raw scales ``(B, Z)``, see ``gaussian.scale_from_raw``."""
        return self.raw_scale(quality)


class HyperSynthesis(nn.Module):
    """Quantised z to features at the resolution of y; runs in integers when coding.

    ::

        z (B,h/4,w/4,Z) -> up -> block -> up -> + bias(quality) -> block -> features (B,h,w,C)

    Args:
        hyper_channels: Z.
        coarse_channels: Width at the middle resolution.
        channels: C.
    """

    def __init__(self, hyper_channels: int, coarse_channels: int, channels: int) -> None:
        super().__init__()
        self.up_coarse = Upsample(hyper_channels, coarse_channels)
        self.coarse = ContextBlock(coarse_channels)
        self.up_fine = Upsample(coarse_channels, channels)
        self.bias = QualityVector(channels)
        self.fine = ContextBlock(channels)

    def forward(self, z_hat: Tensor, quality: Tensor) -> Tensor:
        """Maps quantised z and qualities ``(B,)`` to features ``(B, 4*zh, 4*zw, C)``."""
        x = self.up_fine(self.coarse(self.up_coarse(z_hat)))
        return self.fine(x + self.bias(quality)[:, None, None, :])

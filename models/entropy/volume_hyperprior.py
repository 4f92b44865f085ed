"""The hyperprior for volumes: side information about latents, and what it says of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentpress.models.entropy.gaussian import clamp_with_gradient
from latentpress.models.entropy.hyperprior import HYPER_LIMIT, HYPER_STRIDE
from latentpress.models.entropy.volume import VolumeContextBlock
from latentpress.models.quality import QualityGain, QualityVector
from latentpress.models.volume import VolumeBlock, fold, unfold


class VolumeHyperAnalysis(nn.Module):
    """Latent y to side information z, a quarter of the size each way.

    ::

        y (B,d,h,w,M) -> replicate-pad to multiples of 4 -> 1x1 -> block -> fold -> block -> fold
          -> * gain(quality) -> z (B,ceil(d/4),ceil(h/4),ceil(w/4),Z)

    Args:
        latent_channels: M.
        channels: Width inside.
        hyper_channels: Z.
    """

    def __init__(self, latent_channels: int, channels: int, hyper_channels: int) -> None:
        super().__init__()
        self.stem = nn.Linear(latent_channels, channels)
        self.fine = VolumeBlock(channels)
        self.down = nn.Linear(8 * channels, channels)
        self.coarse = VolumeBlock(channels)
        self.head = nn.Linear(8 * channels, hyper_channels)
        self.gain = QualityGain(hyper_channels)

    def forward(self, y: Tensor, quality: Tensor, periodic: Tensor) -> Tensor:
        """Maps shrunk latents ``(B, d, h, w, M)`` and qualities ``(B,)`` to z, in quantisation steps."""
        pad_d, pad_h, pad_w = (-size % HYPER_STRIDE for size in y.shape[1:4])
        if pad_d or pad_h or pad_w:
            planes = F.pad(y.permute(0, 4, 1, 2, 3), (0, pad_w, 0, pad_h, 0, pad_d), mode="replicate")
            y = planes.permute(0, 2, 3, 4, 1)
        with torch.autocast(y.device.type, enabled=False):
            x = self.stem(y)
        x = self.coarse(self.down(fold(self.fine(x, periodic), 2)), periodic)
        with torch.autocast(y.device.type, enabled=False):
            z = self.head(fold(x.float(), 2)) * self.gain(quality)[:, None, None, None, :]
        return clamp_with_gradient(z, -HYPER_LIMIT, HYPER_LIMIT)


class VolumeHyperSynthesis(nn.Module):
    """Quantised z to features at the resolution of y; runs in integers when coding.

    ::

        z (B,d/4,h/4,w/4,Z) -> up -> block -> up -> + bias(quality) -> block -> features (B,d,h,w,C)

    Args:
        hyper_channels: Z.
        coarse_channels: Width at the middle resolution.
        channels: C.
    """

    def __init__(self, hyper_channels: int, coarse_channels: int, channels: int) -> None:
        super().__init__()
        self.up_coarse = nn.Linear(hyper_channels, 8 * coarse_channels)
        self.coarse = VolumeContextBlock(coarse_channels)
        self.up_fine = nn.Linear(coarse_channels, 8 * channels)
        self.bias = QualityVector(channels)
        self.fine = VolumeContextBlock(channels)

    def forward(self, z_hat: Tensor, quality: Tensor, periodic: Tensor) -> Tensor:
        """Maps quantised z and qualities ``(B,)`` to features ``(B, 4*zd, 4*zh, 4*zw, C)``."""
        x = self.coarse(unfold(self.up_coarse(z_hat), 2), periodic)
        x = unfold(self.up_fine(x), 2)
        return self.fine(x + self.bias(quality)[:, None, None, None, :], periodic)

"""Patch discriminator: tells decoded from original pictures, patch by patch. Needed in training only."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

_NORM_GROUPS = 8
_SLOPE = 0.2


class PatchDiscriminator(nn.Module):
    """Picture to a logit for each overlapping patch of 46x46 pixels.

    PatchGAN (arXiv 1611.07004, section 3.2.2) with group instead of batch normalisation: real and decoded
    pictures are judged in separate batches, whose statistics would give them away.

    Args:
        channels: Width of the first layer, a multiple of 8; the others have twice and four times as many.

    Example:
        >>> import torch
        >>> PatchDiscriminator(8)(torch.rand(2, 3, 64, 64)).shape
        torch.Size([2, 1, 7, 7])
    """

    def __init__(self, channels: int = 48) -> None:
        super().__init__()
        widths = (channels, 2 * channels, 4 * channels)
        self.stem = nn.Conv2d(3, widths[0], 4, stride=2, padding=1)
        self.second = nn.Conv2d(widths[0], widths[1], 4, stride=2, padding=1)
        self.third = nn.Conv2d(widths[1], widths[2], 4, stride=2, padding=1)
        self.head = nn.Conv2d(widths[2], 1, 4, padding=1)
        self.norms = nn.ModuleList(nn.GroupNorm(_NORM_GROUPS, width) for width in widths[1:])

    def forward(self, image: Tensor) -> Tensor:
        """Judges pictures ``(B, 3, H, W)`` around [0, 1]; logits ``(B, 1, H/8 - 1, W/8 - 1)``, float32."""
        x = F.leaky_relu(self.stem(image * 2 - 1), _SLOPE)
        x = F.leaky_relu(self.norms[0](self.second(x)), _SLOPE)
        x = F.leaky_relu(self.norms[1](self.third(x)), _SLOPE)
        return self.head(x).float()
